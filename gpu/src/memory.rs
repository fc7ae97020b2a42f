//! [`Memory`]: the device copies of a pool's buffers, and which side has the newer bytes.
//!
//! The host writes buffers when bodies arrive and when the application steps; the device writes them in kernels. Per
//! buffer, two sets of byte ranges say which side has to be brought up to date: [`Memory::read`] uploads before a
//! kernel, [`Memory::fetch`] downloads before the host reads. Bytes that the other side never reads are never copied.
//!
//! [`Staging`] is a buffer through which the host reads device memory. Kernel modules use it for their results.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use gradwire_core::{BufferId, Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::wgpu;

/// Bindings start at multiples of this many bytes: the default limit `min_storage_buffer_offset_alignment`.
pub(crate) const ALIGNMENT: u64 = 256;
/// Most elements of one dispatch. The largest operand has two words per element, which is 64 MiB of the 128 MiB that a
/// binding can have by default (`max_storage_buffer_binding_size`).
pub(crate) const CHUNK: usize = 8 << 20;

/// A set of bytes, as disjoint and ascending ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    fn remove(&mut self, range: &Range<u64>) {
        if range.is_empty() {
            return;
        }
        // A vector is enough: segments are whole vectors or shards, so the set has few ranges.
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
        // Ranges that overlap or touch the new one become part of it.
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

    /// The members of the set within `range`.
    fn within(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<'_> {
        let range = range.clone();
        let cut = move |own: &Range<u64>| own.start.max(range.start)..own.end.min(range.end);
        self.0.iter().map(cut).filter(|cut| cut.start < cut.end)
    }
}

/// The device copy of one buffer. A byte is newer on one side at most.
#[derive(Debug)]
struct Mirror {
    buffer: wgpu::Buffer,
    /// Bytes that are newer on the host: the device must not read them before an upload.
    newer_on_host: Ranges,
    /// Bytes that are newer on the device: the host must not read them before a download.
    newer_on_device: Ranges,
}

const PENDING: u8 = 0;
const MAPPED: u8 = 1;
const FAILED: u8 = 2;

/// A buffer that the host can map to read results of the device.
///
/// Order of use: record copies into `buffer`, submit, [`map`](Self::map), poll [`is_ready`](Self::is_ready),
/// [`take`](Self::take).
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) buffer: wgpu::Buffer,
    /// `PENDING`, `MAPPED` or `FAILED`. Shared with wgpu's callback.
    state: Arc<AtomicU8>,
}

impl Staging {
    /// A buffer of at least `len` bytes: a power of two and at least a page, so that it can often be reused.
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

    /// Starts to map the first `len` bytes. wgpu maps them once the work submitted so far is done.
    pub(crate) fn map(&self, len: u64) {
        self.state.store(PENDING, Ordering::Release);
        let state = Arc::clone(&self.state);
        self.buffer.map_async(wgpu::MapMode::Read, 0..len, move |mapped| {
            state.store(if mapped.is_ok() { MAPPED } else { FAILED }, Ordering::Release);
        });
    }

    /// True once the bytes can be read. Polls the device; does not wait.
    pub(crate) fn is_ready(&self, commands: &Commands) -> Result<bool, GpuError> {
        // wgpu calls the callback of `map` from within this poll.
        commands.context.poll()?;
        match self.state.load(Ordering::Acquire) {
            PENDING => Ok(false),
            MAPPED => Ok(true),
            _ => Err(commands
                .check()
                .err()
                .unwrap_or_else(|| GpuError::Lost { reason: "a staging buffer cannot be mapped".into() })),
        }
    }

    /// Passes the first `len` bytes to `read`, then unmaps the buffer. Only after [`is_ready`](Self::is_ready).
    pub(crate) fn take<R>(&self, len: u64, read: impl FnOnce(&[u8]) -> R) -> Result<R, GpuError> {
        let view = self.buffer.get_mapped_range(0..len);
        let view = view.map_err(|error| GpuError::Lost { reason: error.to_string() })?;
        let result = read(&view);
        // A view must not outlive the mapping.
        drop(view);
        self.buffer.unmap();
        Ok(result)
    }
}

/// A copy from the device to the host that is under way, for ranges of one buffer.
#[derive(Debug)]
struct Download {
    buffer: BufferId,
    /// The ranges, in the order in which they lie in the staging buffer.
    ranges: Vec<Range<u64>>,
    /// Sum of their lengths.
    len: u64,
}

/// All device copies of one pool. At most one download is under way at a time.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// By buffer number. `None` until a kernel uses the buffer.
    mirrors: Vec<Option<Mirror>>,
    staging: Option<Staging>,
    download: Option<Download>,
}

fn bytes(segment: Segment) -> Range<u64> {
    segment.start..segment.start + u64::from(segment.len)
}

impl Memory {
    /// The device copy of a buffer, created at its first use.
    fn mirror(&mut self, commands: &mut Commands, buffer: BufferId, pool: &Pool) -> Result<&mut Mirror, GpuError> {
        let index = buffer.0 as usize;
        if self.mirrors.len() <= index {
            self.mirrors.resize_with(index + 1, || None);
        }
        let len = pool.len(buffer) as u64;
        // A brief buffer has grown. What is written to it now does not depend on the bytes before.
        self.mirrors[index].take_if(|mirror| mirror.buffer.size() < len);
        if self.mirrors[index].is_none() {
            let limits = commands.context.device.limits();
            if len > limits.max_buffer_size {
                let (limit, expected) = ("max_buffer_size", limits.max_buffer_size);
                return Err(GpuError::Limit { limit, expected, got: len });
            }
            commands.created += 1;
            let buffer = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("gradwire buffer"),
                // Rounded up, and never empty: wgpu rejects empty bindings.
                size: len.next_multiple_of(ALIGNMENT).max(ALIGNMENT),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            // The host has the only copy so far.
            let mut newer_on_host = Ranges::default();
            newer_on_host.add(0..len);
            self.mirrors[index] = Some(Mirror { buffer, newer_on_host, newer_on_device: Ranges::default() });
        }
        Ok(self.mirrors[index].as_mut().expect("created above"))
    }

    /// The device buffer of a segment that a kernel reads. Uploads the bytes of it that are newer on the host.
    pub(crate) fn read(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &Pool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let range = bytes(segment);
        let mirror = self.mirror(commands, segment.buffer, pool)?;
        for newer in mirror.newer_on_host.within(&range) {
            let part = Segment { buffer: segment.buffer, start: newer.start, len: (newer.end - newer.start) as u32 };
            commands.upload(&mirror.buffer, newer.start, pool.bytes(part));
        }
        mirror.newer_on_host.remove(&range);
        Ok(mirror.buffer.clone())
    }

    /// The device buffer of a segment that a kernel overwrites completely: nothing is uploaded.
    ///
    /// A kernel that also reads bytes of the segment needs [`read`](Self::read) first. Afterwards the host's bytes
    /// count as outdated, and a read would no longer upload them.
    pub(crate) fn write(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &Pool,
    ) -> Result<wgpu::Buffer, GpuError> {
        let range = bytes(segment);
        let mirror = self.mirror(commands, segment.buffer, pool)?;
        mirror.newer_on_host.remove(&range);
        mirror.newer_on_device.add(range);
        Ok(mirror.buffer.clone())
    }

    /// Drops the device copy of a buffer that has no content any more.
    pub(crate) fn release(&mut self, buffer: BufferId) {
        if let Some(mirror) = self.mirrors.get_mut(buffer.0 as usize) {
            *mirror = None;
        }
    }

    /// Marks bytes that the host has written.
    pub(crate) fn written(&mut self, segment: Segment) {
        // Without a mirror there is nothing to mark: a new mirror is newer on the host everywhere.
        if let Some(mirror) = self.mirrors.get_mut(segment.buffer.0 as usize).and_then(Option::as_mut) {
            mirror.newer_on_host.add(bytes(segment));
            mirror.newer_on_device.remove(&bytes(segment));
        }
    }

    /// Ends the download that is under way. Returns false while it still is.
    pub(crate) fn finish(&mut self, commands: &mut Commands, pool: &mut Pool) -> Result<bool, GpuError> {
        Ok(self.download.is_none() || self.finish_download(commands, pool)?)
    }

    /// Brings the host's copy of a segment up to date. Returns false while a download is under way.
    ///
    /// The caller must repeat the call until it returns true before the host or a kernel writes the segment. The
    /// download would otherwise replace newer bytes.
    pub(crate) fn fetch(
        &mut self,
        commands: &mut Commands,
        segment: Segment,
        pool: &mut Pool,
    ) -> Result<bool, GpuError> {
        // The earlier download may be for another segment. It has the staging buffer, so it is finished first.
        if self.download.is_some() && !self.finish_download(commands, pool)? {
            return Ok(false);
        }
        let mirror = self.mirrors.get(segment.buffer.0 as usize).and_then(Option::as_ref);
        let Some(mirror) = mirror else { return Ok(true) };
        let ranges: Vec<_> = mirror.newer_on_device.within(&bytes(segment)).collect();
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
            commands.copy(Part { buffer: &mirror.buffer, start: range.start, len }, &staging.buffer, at);
            at += len;
        }
        commands.submit();
        staging.map(len);
        self.staging = Some(staging);
        self.download = Some(Download { buffer: segment.buffer, ranges, len });
        Ok(false)
    }

    /// Copies a download into the pool. Returns false while it is still under way.
    fn finish_download(&mut self, commands: &Commands, pool: &mut Pool) -> Result<bool, GpuError> {
        let Some(staging) = self.staging.as_ref() else { return Ok(true) };
        if !staging.is_ready(commands)? {
            return Ok(false);
        }
        let Some(Download { buffer, ranges, len }) = self.download.take() else { return Ok(true) };
        let mirror = self.mirrors[buffer.0 as usize].as_mut();
        let mut at = 0;
        staging.take(len, |downloaded| {
            for range in &ranges {
                let len = (range.end - range.start) as usize;
                let part = Segment { buffer, start: range.start, len: len as u32 };
                pool.bytes_mut(part).copy_from_slice(&downloaded[at..at + len]);
                at += len;
            }
        })?;
        if let Some(mirror) = mirror {
            ranges.iter().for_each(|range| mirror.newer_on_device.remove(range));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_agree_with_a_bitmap() {
        let mut state = 7u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let (mut ranges, mut bits) = (Ranges::default(), [false; 64]);
        for _ in 0..2000 {
            let start = next(64);
            let range = start..start + next(64 - start + 1);
            let add = next(2) == 0;
            bits[range.start as usize..range.end as usize].fill(add);
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
