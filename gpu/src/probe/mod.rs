//! Does an adapter count as a CPU does? WGSL promises less than equal bits need.

use crate::commands::{Commands, Part};
use crate::context::Context;
use crate::error::GpuError;
use crate::memory::Staging;
use crate::program::{Params, Program};
use crate::wgpu;

pub(crate) static PROBE: Program =
    Program { name: "probe", source: include_str!("probe.wgsl"), buffers: 1, invocations: 1 };

const WORDS: usize = 16;

/// Whether the adapter takes denormal numbers for 0.
pub(crate) fn run(context: &Context) -> Result<bool, GpuError> {
    let mut commands = Commands::new(context.clone());
    let buffer = context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("probe"),
        size: (WORDS * 4) as u64,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let staging = Staging::new(&mut commands, (WORDS * 4) as u64);
    let tie = 1.0 / f32::from_bits((127 + 24) << 23);
    // (1 + 2^-12)^2 is 1 + 2^-11 + 2^-24: the last is lost if the product is rounded before 1 + 2^-11 is taken away.
    let factor = 1.0 + 1.0 / 4096.0;
    let denormal = f32::from_bits(3);
    let input =
        [denormal, denormal, 1.0, tie, 1.0, 3.0 * tie, factor, factor, -(1.0 + 1.0 / 2048.0), f32::MIN_POSITIVE, 0.25];
    let mut words = [0u32; WORDS];
    words.iter_mut().zip(input).for_each(|(word, x)| *word = x.to_bits());
    commands.upload(&buffer, 0, bytemuck::cast_slice(&words));
    commands.run(&PROBE, &[Part::whole(&buffer)], Params { len: 1, groups: 1, ..Params::default() });
    commands.copy(Part::whole(&buffer), &staging.buffer, 0);
    commands.submit();
    staging.map((WORDS * 4) as u64);
    context.wait()?;
    if !staging.is_ready(&commands)? {
        return Err(GpuError::Lost { reason: "the first kernel never ended".into() });
    }
    let came: [u32; WORDS] = staging.take((WORDS * 4) as u64, |bytes| {
        let mut words = [0; WORDS];
        bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
        words
    })?;
    let checks = [
        ("1 + 2^-24", 2, input[2] + input[3]),
        ("1 + 3 * 2^-24", 4, input[4] + input[5]),
        ("(1 + 2^-12)^2 - (1 + 2^-11), in two steps", 6, 0.0),
    ];
    for (what, at, expected) in checks {
        if came[at] != expected.to_bits() {
            let (adapter, expected) = (context.name().to_string(), expected.to_bits());
            return Err(GpuError::Arithmetic { adapter, what, expected, got: came[at] });
        }
    }
    let keeps = [(0, denormal + denormal), (9, f32::MIN_POSITIVE * 0.25)];
    Ok(keeps.into_iter().any(|(at, expected)| came[at] != expected.to_bits()))
}
