//! The device's copies of a pool's buffers, and which side has written which bytes last.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use gradwire_core::{BufferId, Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::wgpu;

/// Offsets of bindings are multiples of this: the default limit.
pub(crate) const ALIGNMENT: u64 = 256;
/// Elements that one dispatch goes over: bindings of 128 MiB hold them, and two words for each.
pub(crate) const CHUNK: usize = 8 << 20;

/// Bytes, as disjoint ranges in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        // A hole can make two of one; there are few.
        let mut i = 0;
        while i < self.0.len() {
            let own = self.0[i].clone();
            if own.end <= range.start || own.start >= range.end {
                i += 1;
                continue;
            }
            self.0.remove(i);
            for left in [own.start..range.start, range.end..own.end].into_iter().filter(|left| left.start < left.end) {
                self.0.insert(i, left);
                i += 1;
            }
        }
    }

    fn add(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.0.retain(|own| {
            let apart = own.end < range.start || own.start > range.end;
            if !apart {
                range = own.start.min(range.start)..own.end.max(range.end);
            }
            apart
        });
        let at = self.0.partition_point(|own| own.start < range.start);
        self.0.insert(at, range);
    }

    fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let range = range.clone();
        let cut = move |own: &Range<u64>| own.start.max(range.start)..own.end.min(range.end);
        self.0.iter().map(cut).filter(|cut| cut.start < cut.end)
    }
}

/// A buffer on both sides.
#[derive(Debug)]
struct Twin {
    buffer: wgpu::Buffer,
    /// What the host has written since the device read it.
    host: Ranges,
    /// What the device has written since the host read it.
    device: Ranges,
}

/// Bytes on their way to the host.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) buffer: wgpu::Buffer,
    /// 0: on their way; 1: here; 2: they will not come.
    state: Arc<AtomicU8>,
}

impl Staging {
    pub(crate) fn new(commands: &mut Commands, len: u64) -> Self {
        commands.created += 1;
        let buffer = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: len.next_power_of_two().max(4096),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { buffer, state: Arc::default() }
    }

    /// Asks for the first `len` bytes, after what was submitted.
    pub(crate) fn map(&self, len: u64) {
        self.state.store(0, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.buffer.map_async(wgpu::MapMode::Read, 0..len, move |mapped| {
            state.store(if mapped.is_ok() { 1 } else { 2 }, Ordering::Release);
        });
    }

    /// Are they here?
    pub(crate) fn is_ready(&self, commands: &Commands) -> Result<bool, GpuError> {
        commands.context.poll()?;
        match self.state.load(Ordering::Acquire) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(commands
                .check()
                .err()
                .unwrap_or_else(|| GpuError::Lost { reason: "a buffer cannot be read".into() })),
        }
    }

    /// Hands the bytes to `read`, and is free for others after that.
    pub(crate) fn take<R>(&self, len: u64, read: impl FnOnce(&[u8]) -> R) -> Result<R, GpuError> {
        let view = self.buffer.get_mapped_range(0..len);
        let view = view.map_err(|error| GpuError::Lost { reason: error.to_string() })?;
        let result = read(&view);
        drop(view);
        self.buffer.unmap();
        Ok(result)
    }
}

/// Bytes of one buffer that are being fetched.
#[derive(Debug)]
struct Flight {
    buffer: BufferId,
    ranges: Vec<Range<u64>>,
    len: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    twins: Vec<Option<Twin>>,
    staging: Option<Staging>,
    flight: Option<Flight>,
}

fn bytes(segment: Segment) -> Range<u64> {
    segment.start..segment.start + u64::from(segment.len)
}

impl Memory {
    fn twin(&mut self, commands: &mut Commands, buffer: BufferId, pool: &Pool) -> Result<&mut Twin, GpuError> {
        let index = buffer.0 as usize;
        if self.twins.len() <= index {
            self.twins.resize_with(index + 1, || None);
        }
        if self.twins[index].is_none() {
            let len = pool.len(buffer) as u64;
            let limits = commands.context.device.limits();
            if len > limits.max_buffer_size {
                let (limit, expected) = ("max_buffer_size", limits.max_buffer_size);
                return Err(GpuError::Limit { limit, expected, got: len });
            }
            commands.created += 1;
            let buffer = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradwire buffer"),
                size: len.next_multiple_of(ALIGNMENT).max(ALIGNMENT),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut host = Ranges::default();
            host.add(0..len);
            self.twins[index] = Some(Twin { buffer, host, device: Ranges::default() });
        }
        Ok(self.twins[index].as_mut().expect("it was just made"))
    }

    /// The device's copy of a buffer, these bytes of which a kernel reads.
    pub(crate) fn read(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &Pool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let range = bytes(segment);
        let twin = self.twin(commands, segment.buffer, pool)?;
        for newer in twin.host.within(&range) {
            let part = Segment { buffer: segment.buffer, start: newer.start, len: (newer.end - newer.start) as u32 };
            commands.upload(&twin.buffer, newer.start, pool.bytes(part));
        }
        twin.host.remove(&range);
        Ok(twin.buffer.clone())
    }

    /// The device's copy of a buffer, these bytes of which a kernel writes, all of them.
    pub(crate) fn write(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &Pool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let range = bytes(segment);
        let twin = self.twin(commands, segment.buffer, pool)?;
        twin.host.remove(&range);
        twin.device.add(range);
        Ok(twin.buffer.clone())
    }

    /// The host has written these bytes.
    pub(crate) fn written(&mut self, segment: Segment) {
        if let Some(twin) = self.twins.get_mut(segment.buffer.0 as usize).and_then(Option::as_mut) {
            twin.host.add(bytes(segment));
            twin.device.remove(&bytes(segment));
        }
    }

    /// Brings bytes that the device has written last to the host; `false` until they are there.
    pub(crate) fn fetch(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &mut Pool,
    ) -> Result<bool, GpuError> {
        if self.flight.is_some() && !self.land(commands, pool)? {
            return Ok(false);
        }
        let Some(twin) = self.twins.get(segment.buffer.0 as usize).and_then(Option::as_ref) else { return Ok(true) };
        let ranges: Vec<_> = twin.device.within(&bytes(segment)).collect();
        if ranges.is_empty() {
            return Ok(true);
        }
        let len: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let staging = match self.staging.take().filter(|staging| staging.buffer.size() >= len) {
            Some(staging) => staging,
            None => Staging::new(commands, len),
        };
        let mut at = 0;
        for range in &ranges {
            let len = range.end - range.start;
            commands.copy(Part { buffer: &twin.buffer, start: range.start, len }, &staging.buffer, at);
            at += len;
        }
        commands.submit();
        staging.map(len);
        self.staging = Some(staging);
        self.flight = Some(Flight { buffer: segment.buffer, ranges, len });
        Ok(false)
    }

    fn land(&mut self, commands: &Commands, pool: &mut Pool) -> Result<bool, GpuError> {
        let Some(staging) = self.staging.as_ref() else { return Ok(true) };
        if !staging.is_ready(commands)? {
            return Ok(false);
        }
        let Some(Flight { buffer, ranges, len }) = self.flight.take() else { return Ok(true) };
        let twin = self.twins[buffer.0 as usize].as_mut();
        let mut at = 0;
        staging.take(len, |came| {
            for range in &ranges {
                let len = (range.end - range.start) as usize;
                let part = Segment { buffer, start: range.start, len: len as u32 };
                pool.bytes_mut(part).copy_from_slice(&came[at..at + len]);
                at += len;
            }
        })?;
        if let Some(twin) = twin {
            ranges.iter().for_each(|range| twin.device.remove(range));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_a_bitmap_says() {
        let mut state = 7u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let (mut ranges, mut bits) = (Ranges::default(), [false; 64]);
        for _ in 0..2000 {
            let start = next(64);
            let range = start..start + next(64 - start + 1);
            let (add, mine) = (next(2) == 0, range.start as usize..range.end as usize);
            bits[mine].fill(add);
            if add {
                ranges.add(range)
            } else {
                ranges.remove(&range)
            }
            let covered = |at: u64| ranges.0.iter().any(|own| own.contains(&at));
            assert!((0..64).all(|at| covered(at) == bits[at as usize]));
            assert!(ranges.0.is_sorted_by(|a, b| a.end < b.start), "{ranges:?}");
            let all: u64 = ranges.within(&(10..20)).map(|range| range.end - range.start).sum();
            assert_eq!(all, (10..20).filter(|at| bits[*at]).count() as u64);
        }
    }
}
