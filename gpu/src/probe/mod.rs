//! The probe: one small shader that shows how an adapter rounds.
//!
//! The WGSL specification allows more rounding modes than equal results permit (it leaves the direction of rounding
//! open, and lets a compiler fuse a product with a sum). So the probe computes a few expressions on the adapter and
//! compares the bits with the CPU's. `open` runs it for each new context.

use crate::commands::{Commands, Part};
use crate::context::Context;
use crate::error::GpuError;
use crate::memory::Staging;
use crate::program::{Params, Program};
use crate::wgpu;

pub(crate) static PROBE: Program =
    Program { name: "probe", source: include_str!("probe.wgsl"), buffers: 1, invocations: 1 };

const WORDS: usize = 16;
const BYTES: u64 = 4 * WORDS as u64;

/// Runs the probe and waits for it. Returns true if the adapter flushes denormals to 0.
///
/// # Errors
/// [`GpuError::Arithmetic`] when a result has other bits than on a CPU.
pub(crate) fn run(context: &Context) -> Result<bool, GpuError> {
    // Half a unit in the last place of 1: the sums below are ties.
    let tie = 1.0 / f32::from_bits((127 + 24) << 23);
    // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24. A product that is rounded to a float loses the 2^-24, a fused multiply-add
    // keeps it.
    let factor = 1.0 + 1.0 / 4096.0;
    let denormal = f32::from_bits(3);
    let input =
        [denormal, denormal, 1.0, tie, 1.0, 3.0 * tie, factor, factor, -(1.0 + 1.0 / 2048.0), f32::MIN_POSITIVE, 0.25];
    let mut words = [0u32; WORDS];
    words.iter_mut().zip(input).for_each(|(word, x)| *word = x.to_bits());
    let results = evaluate(context, words)?;
    let checks = [
        ("1 + 2^-24", 2, input[2] + input[3]),
        ("1 + 3 * 2^-24", 4, input[4] + input[5]),
        ("(1 + 2^-12)^2 - (1 + 2^-11), rounded twice", 6, 0.0),
    ];
    for (what, at, expected) in checks {
        if results[at] != expected.to_bits() {
            let (adapter, expected) = (context.name().to_string(), expected.to_bits());
            return Err(GpuError::Arithmetic { adapter, what, expected, got: results[at] });
        }
    }
    // Flushing is not an error: `sum` in common.wgsl has a way around it.
    let denormals = [(0, denormal + denormal), (9, f32::MIN_POSITIVE * 0.25)];
    Ok(denormals.into_iter().any(|(at, expected)| results[at] != expected.to_bits()))
}

/// Runs the shader on these words and returns them as it leaves them.
fn evaluate(context: &Context, words: [u32; WORDS]) -> Result<[u32; WORDS], GpuError> {
    let mut commands = Commands::new(context.clone());
    let buffer = context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("probe"),
        size: BYTES,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let staging = Staging::new(&mut commands, BYTES);
    commands.upload(&buffer, 0, bytemuck::cast_slice(&words));
    commands.run(&PROBE, &[Part::whole(&buffer)], Params { len: 1, groups: 1, ..Params::default() });
    commands.copy(Part::whole(&buffer), &staging.buffer, 0);
    commands.submit();
    staging.map(BYTES);
    context.wait()?;
    if !staging.is_ready(&commands)? {
        return Err(GpuError::Lost { reason: "the device has not finished the probe".into() });
    }
    staging.take(BYTES, |bytes| {
        let mut words = [0; WORDS];
        bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
        words
    })
}
