//! Dense encoders: the kernel `Encode` of the codecs bf16, f16, int8 and sign. Their bodies have every element.
//!
//! The device writes the body, and the host reads a few counters. The kernel `Expand` of these codecs runs on the
//! host, which has to check every word of a received body anyway.

use gradwire_core::Segment;
use gradwire_core::codec::{self, Encoded};
use gradwire_core::kernel::{Coding, KernelResult};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Staging};
use crate::program::{Params, Program};
use crate::recorder::Recorder;
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

/// Words before the sums of squares: word 0 is the number of non_finite elements, word 1 the index of the first.
const HEADER_WORDS: usize = 8;
/// Room for sums of squares: one word for each workgroup of all dispatches of a message.
const SUMS_MAX: usize = 1 << 16;

/// The encoder, with device resources that are kept from one message to the next.
#[derive(Debug)]
pub(crate) struct Dense {
    counters: wgpu::Buffer,
    staging: Staging,
    message: Message,
}

/// Sizes of the message under way.
#[derive(Copy, Clone, Debug, Default)]
struct Message {
    /// Bytes of the body.
    bytes: u32,
    /// Elements of the vector.
    elements: u32,
    /// Workgroups of all dispatches. Each leaves a sum of squares.
    groups: usize,
}

/// The program of a codec, and the layout of its body.
struct Format {
    program: &'static Program,
    /// Selects the format within a program that has two.
    variant: u32,
    /// Words of the body.
    words: usize,
    /// Of these, the words of the scales, which come first. 0 for codecs without scales.
    scales: usize,
    /// Elements that share a scale.
    block: usize,
}

impl Format {
    /// The format for a vector of `len` elements. `None`: the codec has no dense encoder here.
    fn new(coding: Coding, len: usize) -> Option<Self> {
        use codec::{bf16, f16, int8, sign};
        let half = |variant, words| Self { program: &HALF, variant, words, scales: 0, block: 1 };
        Some(match coding {
            Coding::Bf16 => half(0, bf16::words(len)),
            Coding::F16 => half(1, f16::words(len)),
            Coding::Int8 => {
                // A scale is a byte.
                let (words, scales) = (int8::words(len), len.div_ceil(int8::BLOCK).div_ceil(4));
                Self { program: &INT8, variant: 0, words, scales, block: int8::BLOCK }
            }
            Coding::Sign => {
                // A scale is a word.
                let (words, scales) = (sign::words(len), len.div_ceil(sign::BLOCK));
                Self { program: &SIGN, variant: 0, words, scales, block: sign::BLOCK }
            }
            _ => return None,
        })
    }

    /// The part of the body that a dispatch over elements `first..first + count` writes.
    fn window<'a>(&self, buffer: &'a wgpu::Buffer, body: Segment, first: usize, count: usize) -> Window<'a> {
        match self.scales {
            // Two elements per word, and CHUNK is even.
            0 => Window::new(buffer, body, first / 2, count.div_ceil(2)),
            // Scales and elements of a chunk lie apart: bind all of the body.
            _ => Window::new(buffer, body, 0, self.words),
        }
    }

    /// Workgroups for a dispatch over `count` elements: one for each block of 1,024 (sign), or for 64 elements.
    fn workgroups(&self, count: u32, commands: &Commands) -> u32 {
        let elements_per_invocation = if self.block == codec::sign::BLOCK { 16 } else { 1 };
        commands.workgroups(self.program, count.div_ceil(elements_per_invocation))
    }
}

impl Dense {
    pub(crate) fn new(commands: &mut Commands) -> Self {
        commands.created += 1;
        let bytes = 4 * (HEADER_WORDS + SUMS_MAX) as u64;
        let counters = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("counters"),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { counters, staging: Staging::new(commands, bytes), message: Message::default() }
    }

    /// Submits the encoding of a message; [`poll`](Self::poll) has the result. Returns false, without recording
    /// anything, if the codec has no dense encoder or the body is too long for one binding.
    pub(crate) fn begin(
        &mut self,
        coding: Coding,
        update: Option<Segment>,
        residual: Segment,
        body: Segment,
        recorder: &mut Recorder<'_>,
    ) -> Result<bool, GpuError> {
        let len = residual.len as usize / 4;
        let Some(format) = Format::new(coding, len) else { return Ok(false) };
        // 128 MiB less the alignment of a binding: 67 million elements of 16 bits.
        if len == 0 || format.words > 4 * CHUNK - 64 {
            return Ok(false);
        }
        // All reads come before the writes: `residual` is both.
        recorder.read(residual)?;
        let update_buffer = update.map(|update| recorder.read(update)).transpose()?;
        let residual_buffer = recorder.write(residual)?;
        // The binding of the update needs a buffer. The shader does not read it if there is no update.
        let update_buffer = update_buffer.unwrap_or_else(|| residual_buffer.clone());
        let written = body.first(4 * format.words as u32);
        let target = recorder.write(written)?;
        let commands = &mut *recorder.commands;
        let mut header = [0u32; HEADER_WORDS];
        header[1] = u32::MAX;
        commands.upload(&self.counters, 0, bytemuck::cast_slice(&header));
        // The shaders add bytes to words with `atomicOr`, so the body must start as zeros.
        commands.encoder().clear_buffer(&target, written.start, Some(u64::from(written.len)));
        let mut groups = 0;
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let from = Window::new(&update_buffer, update.unwrap_or(residual), first, count);
            let to = Window::new(&residual_buffer, residual, first, count);
            let code = format.window(&target, written, first, count);
            let mut params = Params { len: count as u32, ..Params::default() };
            params.groups = format.workgroups(params.len, commands);
            (params.at[0], params.at[1], params.at[2]) = (from.at, to.at, code.at);
            params.n = [first as u32, u32::from(update.is_some()), (HEADER_WORDS + groups) as u32, format.variant];
            (params.more_n[0], params.more_n[1]) = ((first / format.block) as u32, format.scales as u32);
            groups += params.groups as usize;
            commands.run(format.program, &[from.part, to.part, code.part, Part::whole(&self.counters)], params);
        }
        self.message = Message { bytes: written.len, elements: len as u32, groups };
        let read = 4 * (HEADER_WORDS + groups) as u64;
        commands.copy(Part { buffer: &self.counters, start: 0, len: read }, &self.staging.buffer, 0);
        commands.submit();
        self.staging.map(read);
        Ok(true)
    }

    /// The result of the message, or `None` while the device works.
    pub(crate) fn poll(&self, commands: &Commands) -> Result<Option<KernelResult>, GpuError> {
        if !self.staging.is_ready(commands)? {
            return Ok(None);
        }
        let Message { bytes, elements, groups } = self.message;
        let encoded = self.staging.take(4 * (HEADER_WORDS + groups) as u64, |counters| {
            let word = |at: usize| u32::from_le_bytes(counters[4 * at..4 * at + 4].try_into().unwrap_or_default());
            let squares = (HEADER_WORDS..HEADER_WORDS + groups).map(|at| f64::from(f32::from_bits(word(at)))).sum();
            let (non_finite, first_non_finite) = (word(0), Some(word(1)).filter(|at| *at != u32::MAX));
            Encoded { bytes, entries: elements, squares, forgotten: 0.0, threshold: 0.0, non_finite, first_non_finite }
        })?;
        Ok(Some(KernelResult::Encoded(encoded)))
    }
}
