//! Means weighted by examples.

use gradwire_core::kernel::Kernel;
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory};
use crate::program::{Params, Program};
use crate::wgpu;
use crate::window::Window;

pub(crate) static MEAN: Program = Program {
    name: "mean",
    source: concat!(include_str!("../double.wgsl"), include_str!("mean.wgsl")),
    buffers: 6,
    invocations: 64,
};

/// Inputs of one pass.
const INPUTS: usize = 4;
/// Elements of a pass where a sum goes on in the next.
const PART: usize = 1 << 20;
/// A product with a weight below this is exact.
const WEIGHT_MAX: u32 = 1 << 29;

const GOES_ON: u32 = 8;
const ENDS: u32 = 16;
const FROM_MINUS_ZERO: u32 = 32;

/// Room for sums that go on, made when first needed.
#[derive(Debug, Default)]
pub(crate) struct Room {
    so_far: Option<wgpu::Buffer>,
}

/// Gives the commands for a mean; `false` if the kernel is none, or of weights so large that its products are rounded.
pub(crate) fn issue(
    kernel: &Kernel,
    room: &mut Room,
    commands: &mut Commands,
    memory: &mut Memory,
    pool: &Pool,
) -> Result<bool, GpuError> {
    let (inputs, into): (Vec<(Segment, u32)>, _) = match *kernel {
        Kernel::Mean { inputs, into } => (inputs.into_iter().flatten().collect(), into),
        Kernel::Blend { x, weight, held: 0, into } => (vec![(x, weight)], into),
        Kernel::Blend { x, weight, held, into } => (vec![(into, held), (x, weight)], into),
        _ => return Ok(false),
    };
    if inputs.iter().any(|(_, weight)| *weight >= WEIGHT_MAX) {
        return Ok(false);
    }
    let mut buffers = Vec::with_capacity(inputs.len());
    for (segment, _) in &inputs {
        buffers.push(memory.read(commands, *segment, pool)?);
    }
    let target = memory.write(commands, into, pool)?;
    if let [(from, _)] = inputs[..] {
        let from = Part { buffer: &buffers[0], start: from.start, len: u64::from(from.len) };
        commands.copy(from, &target, into.start);
        return Ok(true);
    }
    let blend = matches!(kernel, Kernel::Blend { .. });
    let len = into.len as usize / 4;
    let several = inputs.len() > INPUTS;
    let so_far = room.so_far.get_or_insert_with(|| {
        commands.created += 1;
        commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("sums so far"),
            size: (PART * 12) as u64,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        })
    });
    let total: f64 = inputs.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let step = if several { PART } else { CHUNK };
    for first in (0..len).step_by(step) {
        let count = step.min(len - first);
        let passes = inputs.len().div_ceil(INPUTS);
        for pass in 0..passes {
            let of = &inputs[pass * INPUTS..inputs.len().min((pass + 1) * INPUTS)];
            let mut params = Params { len: count as u32, ..Params::default() };
            params.groups = commands.workgroups(&MEAN, params.len);
            let window = |k: usize| Window::new(&buffers[pass * INPUTS + k], of[k].0, first, count);
            // Bindings that are not read are the first again.
            let windows: [Window<'_>; INPUTS] = std::array::from_fn(|k| window(if k < of.len() { k } else { 0 }));
            let to = Window::new(&target, into, first, count);
            params.at = windows.map(|window| window.at);
            params.more_at[0] = to.at;
            of.iter().zip(&mut params.n).for_each(|((_, weight), n)| *n = *weight);
            let (high, low, exponent) = parts_of(1.0 / total);
            let flags = [
                (pass > 0, GOES_ON),
                (pass + 1 == passes, ENDS),
                // So do sums that begin with a product, and those of a number of floats that is not known beforehand.
                ((several || blend) && pass == 0, FROM_MINUS_ZERO),
            ];
            let flags: u32 = flags.into_iter().filter(|(yes, _)| *yes).map(|(_, flag)| flag).sum();
            params.more_n = [high, low, exponent as u32, of.len() as u32 | flags];
            let [a, b, c, d] = windows.map(|window| window.part);
            commands.run(&MEAN, &[a, b, c, d, to.part, Part::whole(so_far)], params);
        }
    }
    Ok(true)
}

/// A positive, normal double as the shader has it: 64 bits, the first of them set, and the exponent.
fn parts_of(x: f64) -> (u32, u32, i32) {
    let bits = x.to_bits();
    let mantissa = (bits & ((1 << 52) - 1) | 1 << 52) << 11;
    ((mantissa >> 32) as u32, mantissa as u32, (bits >> 52) as i32 - 1023)
}
