//! Weighted means: the kernels `Mean` and `Blend`.
//!
//! ```text
//! into = sum(weight_j * x_j) * (1 / sum(weight_j)), in f64, rounded once to f32
//! ```
//!
//! One dispatch takes up to four inputs. Means of more inputs take several passes over the same elements, which keep
//! the partial sums in a buffer.

use gradwire_core::Segment;
use gradwire_core::kernel::Kernel;

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::wgpu;
use crate::window::Window;

pub(crate) static MEAN: Program = Program {
    name: "mean",
    source: concat!(include_str!("../double.wgsl"), include_str!("mean.wgsl")),
    buffers: 6,
    invocations: 64,
};

/// Inputs of one pass. With output and partial sums that makes 6 bindings, of the 8 that wgpu's default limits allow.
const INPUTS: usize = 4;
/// Elements of a dispatch when there are several passes. Bounds the buffer of the partial sums to 12 MiB.
const PARTIAL_LEN: usize = 1 << 20;
/// Products of a float and a weight below this are exact in 53 bits: 24 + 29.
const WEIGHT_MAX: u64 = 1 << 29;

/// Flags of a pass, added to its number of inputs; as in mean.wgsl.
const CONTINUES: u32 = 8;
const ENDS: u32 = 16;
const FROM_MINUS_ZERO: u32 = 32;

/// The buffer for partial sums, created at its first use.
#[derive(Debug, Default)]
pub(crate) struct PartialSums(Option<wgpu::Buffer>);

impl PartialSums {
    fn buffer(&mut self, commands: &mut Commands) -> &wgpu::Buffer {
        self.0.get_or_insert_with(|| {
            commands.created += 1;
            commands.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("partial sums"),
                // Three words per element: sign, exponent and flags, then 64 bits of mantissa.
                size: (PARTIAL_LEN * 12) as u64,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })
    }
}

/// An input of a mean: its device buffer, its segment and its weight.
type Input = (wgpu::Buffer, Segment, u64);

/// A mean of at least two inputs.
struct Mean<'a> {
    inputs: &'a [Input],
    into: (wgpu::Buffer, Segment),
    partial: &'a wgpu::Buffer,
    /// 1 / (sum of the weights), as a double in the shader's form.
    reciprocal: (u32, u32, i32),
    /// Sums start at -0 instead of 0.
    from_minus_zero: bool,
}

/// Records a mean. Returns false for all other kernels, and for weights so large that products are inexact.
pub(crate) fn record(
    kernel: &Kernel,
    partial_sums: &mut PartialSums,
    recorder: &mut Recorder<'_>,
) -> Result<bool, GpuError> {
    let (operands, into): (Vec<(Segment, u64)>, _) = match *kernel {
        Kernel::Mean { inputs, into } => (inputs.into_iter().flatten().collect(), into),
        Kernel::Blend { x, weight, held: 0, into } => (vec![(x, weight)], into),
        Kernel::Blend { x, weight, held, into } => (vec![(into, held), (x, weight)], into),
        _ => return Ok(false),
    };
    if operands.iter().any(|(_, weight)| *weight >= WEIGHT_MAX) {
        return Ok(false);
    }
    // All reads come before the write: a blend also reads `into`.
    let mut inputs = Vec::with_capacity(operands.len());
    for (segment, weight) in operands {
        inputs.push((recorder.read(segment)?, segment, weight));
    }
    let target = recorder.write(into)?;
    if let [(buffer, from, _)] = &inputs[..] {
        let part = Part { buffer, start: from.start, len: u64::from(from.len) };
        recorder.commands.copy(part, &target, into.start);
        return Ok(true);
    }
    let several = inputs.len() > INPUTS;
    let total: f64 = inputs.iter().map(|(_, _, weight)| *weight as f64).sum();
    let mean = Mean {
        inputs: &inputs,
        into: (target, into),
        partial: partial_sums.buffer(recorder.commands),
        reciprocal: to_double(1.0 / total),
        // As on the CPU. Its sums start at 0 only for a mean of two to four inputs: a blend starts with a product
        // (and -0 + x = x), and more inputs are added up by `Iterator::sum`, which starts at -0.
        from_minus_zero: several || matches!(kernel, Kernel::Blend { .. }),
    };
    let step = if several { PARTIAL_LEN } else { CHUNK };
    let len = into.len as usize / 4;
    for first in (0..len).step_by(step) {
        mean.record_passes(first, step.min(len - first), recorder.commands);
    }
    Ok(true)
}

impl Mean<'_> {
    /// Records all passes over `count` elements from `first` on. They must follow each other, because the next elements
    /// reuse the buffer of the partial sums.
    fn record_passes(&self, first: usize, count: usize, commands: &mut Commands) {
        let last = self.inputs.len().div_ceil(INPUTS) - 1;
        for (pass, inputs) in self.inputs.chunks(INPUTS).enumerate() {
            let mut params = Params { len: count as u32, ..Params::default() };
            params.groups = commands.workgroups(&MEAN, params.len);
            // Every binding needs a buffer: the ones without an input bind the first input again and are not read.
            let windows: [Window<'_>; INPUTS] = std::array::from_fn(|k| {
                let (buffer, segment, _) = inputs.get(k).unwrap_or(&inputs[0]);
                Window::new(buffer, *segment, first, count)
            });
            let to = Window::new(&self.into.0, self.into.1, first, count);
            params.at = windows.map(|window| window.at);
            params.more_at[0] = to.at;
            inputs.iter().zip(&mut params.n).for_each(|((_, _, weight), n)| *n = *weight as u32);
            let flags =
                [(pass > 0, CONTINUES), (pass == last, ENDS), (pass == 0 && self.from_minus_zero, FROM_MINUS_ZERO)];
            let flags: u32 = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum();
            let (high, low, exponent) = self.reciprocal;
            params.more_n = [high, low, exponent as u32, inputs.len() as u32 | flags];
            let [a, b, c, d] = windows.map(|window| window.part);
            commands.run(&MEAN, &[a, b, c, d, to.part, Part::whole(self.partial)], params);
        }
    }
}

/// A positive, normal double in the form of double.wgsl: high and low word of a mantissa of 64 bits, of which the first
/// is set; then the exponent.
fn to_double(x: f64) -> (u32, u32, i32) {
    let bits = x.to_bits();
    let mantissa = (bits & ((1 << 52) - 1) | 1 << 52) << 11;
    ((mantissa >> 32) as u32, mantissa as u32, (bits >> 52) as i32 - 1023)
}
