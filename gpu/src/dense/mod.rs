//! Encoders of every element: 16 bits, bytes or signs. The body is written on the device; a few counters are read.
//!
//! Bodies that come in are written out by the host, which has to look at every word of them anyway.

use gradwire_core::codec::{self, Encoded};
use gradwire_core::kernel::{Coding, KernelResult};
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory, Staging};
use crate::program::{Params, Program};
use crate::wgpu;
use crate::window::Window;

pub(crate) static HALF: Program = Program {
    name: "half",
    source: concat!(include_str!("dense.wgsl"), include_str!("../half/half.wgsl")),
    buffers: 4,
    invocations: 64,
};
pub(crate) static INT8: Program = Program {
    name: "int8",
    source: concat!(include_str!("dense.wgsl"), include_str!("../int8/int8.wgsl")),
    buffers: 4,
    invocations: 64,
};
pub(crate) static SIGN: Program = Program {
    name: "sign_bits",
    source: concat!(include_str!("dense.wgsl"), include_str!("../double.wgsl"), include_str!("../sign/sign.wgsl")),
    buffers: 4,
    invocations: 64,
};

/// Counters before the sums of squares.
const HEAD: usize = 8;
/// Most workgroups of all dispatches together.
const SUMS: usize = 1 << 16;

/// Counters on the device, and where they are read.
#[derive(Debug)]
pub(crate) struct Dense {
    counters: wgpu::Buffer,
    staging: Staging,
    /// Of the message under way: bytes of the body, elements, workgroups.
    message: (u32, u32, usize),
}

impl Dense {
    pub(crate) fn new(commands: &mut Commands) -> Self {
        commands.created += 1;
        let counters = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("counters"),
            size: 4 * (HEAD + SUMS) as u64,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { counters, staging: Staging::new(commands, 4 * (HEAD + SUMS) as u64), message: (0, 0, 0) }
    }

    /// Which program writes this code, with which number; and words of the body, those of scales among them.
    fn program(coding: Coding, len: usize) -> Option<(&'static Program, u32, usize, usize)> {
        Some(match coding {
            Coding::Bf16 => (&HALF, 0, codec::bf16::words(len), 0),
            Coding::F16 => (&HALF, 1, codec::f16::words(len), 0),
            Coding::Int8 => (&INT8, 0, codec::int8::words(len), len.div_ceil(codec::int8::BLOCK).div_ceil(4)),
            Coding::Sign => (&SIGN, 0, codec::sign::words(len), len.div_ceil(codec::sign::BLOCK)),
            _ => return None,
        })
    }

    /// Gives the commands for a message; `false` if it is of another code, or too long for one binding.
    pub(crate) fn begin(
        &mut self,
        (coding, update, residual, body): (Coding, Option<Segment>, Segment, Segment),
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<bool, GpuError> {
        let len = residual.len as usize / 4;
        let Some((program, way, words, scales)) = Self::program(coding, len) else { return Ok(false) };
        // A body in one binding: 67 million elements of 16 bits.
        if len == 0 || words > 4 * CHUNK - 64 {
            return Ok(false);
        }
        memory.read(commands, residual, pool)?;
        let came = update.map(|update| memory.read(commands, update, pool)).transpose()?;
        let kept = memory.write(commands, residual, pool)?;
        let came = (came.unwrap_or_else(|| kept.clone()), update.unwrap_or(residual));
        let written = body.first(4 * words as u32);
        let target = memory.write(commands, written, pool)?;
        let mut head = [0u32; HEAD];
        head[1] = u32::MAX;
        commands.upload(&self.counters, 0, bytemuck::cast_slice(&head));
        commands.encoder().clear_buffer(&target, written.start, Some(u64::from(written.len)));
        let mut groups = 0;
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let (from, to) = (Window::new(&came.0, came.1, first, count), Window::new(&kept, residual, first, count));
            // Of 16 bits, the part that the dispatch writes; of others, all: their scales are apart.
            let code = if scales == 0 {
                Window::new(&target, written, first / 2, count.div_ceil(2))
            } else {
                Window::new(&target, written, 0, words)
            };
            let block = if coding == Coding::Sign { codec::sign::BLOCK } else { codec::int8::BLOCK };
            let mut params = Params { len: count as u32, ..Params::default() };
            // A workgroup's share is a block, or 128 elements.
            let share = if coding == Coding::Sign { 16 } else { 1 };
            params.groups = commands.workgroups(program, params.len.div_ceil(share));
            (params.at[0], params.at[1], params.at[2]) = (from.at, to.at, code.at);
            params.n = [first as u32, u32::from(update.is_some()), (HEAD + groups) as u32, way];
            (params.more_n[0], params.more_n[1]) = ((first / block) as u32, scales as u32);
            groups += params.groups as usize;
            commands.run(program, &[from.part, to.part, code.part, Part::whole(&self.counters)], params);
        }
        self.message = (4 * words as u32, len as u32, groups);
        let read = 4 * (HEAD + groups) as u64;
        commands.copy(Part { buffer: &self.counters, start: 0, len: read }, &self.staging.buffer, 0);
        commands.submit();
        self.staging.map(read);
        Ok(true)
    }

    pub(crate) fn poll(&self, commands: &Commands) -> Result<Option<KernelResult>, GpuError> {
        if !self.staging.is_ready(commands)? {
            return Ok(None);
        }
        let (bytes, entries, groups) = self.message;
        let found = self.staging.take(4 * (HEAD + groups) as u64, |came| {
            let word = |at: usize| u32::from_le_bytes(came[4 * at..4 * at + 4].try_into().unwrap_or_default());
            let squares = (HEAD..HEAD + groups).map(|at| f64::from(f32::from_bits(word(at)))).sum();
            let (non_finite, first_non_finite) = (word(0), Some(word(1)).filter(|at| *at != u32::MAX));
            Encoded { bytes, entries, squares, threshold: 0.0, non_finite, first_non_finite }
        })?;
        Ok(Some(KernelResult::Encoded(found)))
    }
}
