//! What sparse bodies say, into vectors on the device. A body is read on the host, all of it before anything is touched; what
//! goes over the bus is its entries.

use gradwire_core::codec::threshold;
use gradwire_core::codec::topk;
use gradwire_core::kernel::{Coding, Kernel, KernelResult};
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory};
use crate::program::{Params, Program};
use crate::wgpu;
use crate::window::Window;

const SOURCE: &str = include_str!("scatter.wgsl");

pub(crate) static ADD: Program = Program { name: "add", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static PUT: Program = Program { name: "put", source: SOURCE, buffers: 2, invocations: 256 };

/// Entries on their way, and how far ledgers can have counted.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    list: Vec<(u32, i32)>,
    pairs: Vec<[u32; 2]>,
    buffer: Option<wgpu::Buffer>,
    /// No count of the ledger, and there is one at most, is above this in magnitude.
    bound: u64,
}

/// What has become of a kernel.
pub(crate) enum Issued {
    Done(KernelResult),
    /// It is for the host.
    Host,
}

impl Scatter {
    pub(crate) fn issue(
        &mut self,
        kernel: &Kernel,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<Issued, GpuError> {
        self.pairs.clear();
        match *kernel {
            Kernel::Decode { body, sections, unit, ledger } => {
                self.list.clear();
                let (words, parts) = (pool.words(body), pool.sections(sections));
                if let Err(error) = threshold::list(words, parts, unit, &mut self.list) {
                    return Ok(Issued::Done(KernelResult::Malformed(error)));
                }
                let largest = self.list.iter().map(|(_, units)| units.unsigned_abs()).max().unwrap_or(0);
                self.bound += u64::from(largest);
                if self.bound > i32::MAX as u64 {
                    // The host looks at each count.
                    return Ok(Issued::Host);
                }
                self.pairs.extend(self.list.iter().map(|(at, units)| [*at, *units as u32]));
                self.scatter(&ADD, ledger, commands, memory, pool)?;
            }
            Kernel::Expand { coding: Coding::Threshold(aim), body, sections, into } => {
                self.list.clear();
                let (words, parts) = (pool.words(body), pool.sections(sections));
                if let Err(error) = threshold::list(words, parts, aim.unit, &mut self.list) {
                    return Ok(Issued::Done(KernelResult::Malformed(error)));
                }
                // Exact: a count has 15 bits, and the rest is powers of two.
                let value = |units: i32| (units as f32 * aim.unit).to_bits();
                self.pairs.extend(self.list.iter().map(|(at, units)| [*at, value(*units)]));
                self.expand(into, commands, memory, pool)?;
            }
            Kernel::Expand { coding: Coding::TopK { .. }, body, into, .. } => {
                let pairs = &mut self.pairs;
                let read = topk::read(pool.words(body), into.len as usize / 4, |at, value| {
                    pairs.push([at as u32, value.to_bits()]);
                });
                if let Err(error) = read {
                    return Ok(Issued::Done(KernelResult::Malformed(error)));
                }
                self.expand(into, commands, memory, pool)?;
            }
            _ => return Ok(Issued::Host),
        }
        Ok(Issued::Done(KernelResult::Nothing))
    }

    /// The host has counted; it has looked at all of the ledger.
    pub(crate) fn counted(&mut self, ledger: &[i32]) {
        self.bound = ledger.iter().map(|units| u64::from(units.unsigned_abs())).max().unwrap_or(0);
    }

    fn expand(
        &mut self,
        into: Segment,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        let target = memory.write(commands, into, pool)?;
        if into.len > 0 {
            commands.encoder().clear_buffer(&target, into.start, Some(u64::from(into.len)));
        }
        self.scatter(&PUT, into, commands, memory, pool)
    }

    fn scatter(
        &mut self,
        program: &'static Program,
        into: Segment,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        if self.pairs.is_empty() {
            return Ok(());
        }
        let size = (8 * self.pairs.len()) as u64;
        if self.buffer.as_ref().is_none_or(|buffer| buffer.size() < size) {
            commands.created += 1;
            self.buffer = Some(commands.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("entries"),
                size: size.next_power_of_two().max(4096),
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
        let Some(buffer) = &self.buffer else { return Ok(()) };
        memory.read(commands, into, pool)?;
        let target = memory.write(commands, into, pool)?;
        commands.upload(buffer, 0, bytemuck::cast_slice(&self.pairs));
        let len = into.len as usize / 4;
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let mut from = self.pairs.partition_point(|pair| (pair[0] as usize) < first);
            let end = self.pairs.partition_point(|pair| (pair[0] as usize) < first + count);
            while from < end {
                let entries = (end - from).min(CHUNK);
                // All of the buffer, if a binding can: what it is bound to is then the same for every message.
                let source = Segment { buffer: into.buffer, start: 8 * from as u64, len: 8 * entries as u32 };
                let pairs = match buffer.size() <= 8 * CHUNK as u64 {
                    true => Window { part: Part::whole(buffer), at: 2 * from as u32 },
                    false => Window::new(buffer, source, 0, 2 * entries),
                };
                let to = Window::new(&target, into, first, count);
                let mut params = Params { len: entries as u32, ..Params::default() };
                params.groups = commands.workgroups(program, params.len);
                (params.at[0], params.at[1]) = (pairs.at / 2, to.at);
                (params.n[0], params.n[1]) = (first as u32, count as u32);
                commands.run(program, &[pairs.part, to.part], params);
                from += entries;
            }
        }
        Ok(())
    }
}
