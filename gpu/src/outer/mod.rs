//! The step of an outer optimizer: `Outer`. It has no result, so it is recorded and done.
//!
//! Adagrad and Adam need a square root and a quotient that are rounded as on the CPU, which WGSL does not promise.
//! exact.wgsl computes both with integers.

use gradwire_core::Segment;
use gradwire_core::kernel::Kernel;
use gradwire_core::kernel::outer::Step;

use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::window::Window;

#[cfg(test)]
pub(crate) mod tests;

const MOMENTUM: &str = concat!(include_str!("share.wgsl"), include_str!("momentum.wgsl"));
const ADAGRAD: &str = concat!(
    include_str!("share.wgsl"),
    include_str!("guess.wgsl"),
    include_str!("exact.wgsl"),
    include_str!("adagrad.wgsl")
);
const PAIR: &str = concat!(
    include_str!("share.wgsl"),
    include_str!("guess.wgsl"),
    include_str!("exact.wgsl"),
    include_str!("pair.wgsl")
);

const fn program(name: &'static str, source: &'static str, buffers: usize) -> Program {
    Program { name, source, buffers, invocations: 256 }
}

// Three programs per step: the step changes parameters and state in place, or only the state, or neither.
pub(crate) static MOMENTUM_IN_PLACE: Program = program("momentum_in_place", MOMENTUM, 3);
pub(crate) static MOMENTUM_TO: Program = program("momentum_to", MOMENTUM, 4);
pub(crate) static MOMENTUM_FROM_TO: Program = program("momentum_from_to", MOMENTUM, 5);
pub(crate) static ADAGRAD_IN_PLACE: Program = program("adagrad_in_place", ADAGRAD, 3);
pub(crate) static ADAGRAD_TO: Program = program("adagrad_to", ADAGRAD, 4);
pub(crate) static ADAGRAD_FROM_TO: Program = program("adagrad_from_to", ADAGRAD, 5);
pub(crate) static PAIR_IN_PLACE: Program = program("pair_in_place", PAIR, 4);
pub(crate) static PAIR_TO: Program = program("pair_to", PAIR, 5);
pub(crate) static PAIR_FROM_TO: Program = program("pair_from_to", PAIR, 7);

/// Flags of a step of momentum, as in momentum.wgsl.
const LOOK: u32 = 1;
const NO_MU: u32 = 2;
const RATED: u32 = 4;
/// Steps with two vectors of state, as in pair.wgsl.
const ADAM: u32 = 0;
const WAIT: u32 = 1;
const MILESTONE: u32 = 2;

/// The programs of a step, and its numbers for the shader.
fn shader(step: Step, scale: f32) -> ([&'static Program; 3], Params) {
    let mut params = Params::default();
    let programs = match step {
        Step::Momentum { mu, rate, look } => {
            params.n[0] = if look { LOOK } else { 0 } | if mu == 0.0 { NO_MU } else { 0 };
            params.f = [mu, rate * scale, 0.0, 0.0];
            [&MOMENTUM_IN_PLACE, &MOMENTUM_TO, &MOMENTUM_FROM_TO]
        }
        Step::Rated { mu, rate, look, inner } => {
            params.n[0] = RATED | if look { LOOK } else { 0 };
            params.f = [mu, rate * scale / inner, inner, 0.0];
            [&MOMENTUM_IN_PLACE, &MOMENTUM_TO, &MOMENTUM_FROM_TO]
        }
        Step::Adagrad { rate, floor } => {
            params.f = [scale, rate, floor, 0.0];
            [&ADAGRAD_IN_PLACE, &ADAGRAD_TO, &ADAGRAD_FROM_TO]
        }
        Step::Adam { mu, beta, rate, floor } => {
            params.n[0] = ADAM;
            params.f = [scale, rate, floor, mu];
            params.more_n = [(1.0 - mu).to_bits(), beta.to_bits(), (1.0 - beta).to_bits(), 0];
            [&PAIR_IN_PLACE, &PAIR_TO, &PAIR_FROM_TO]
        }
        Step::Delayed { mu, rate, milestone } => {
            params.n[0] = if milestone { MILESTONE } else { WAIT };
            params.f = [rate * scale, 0.0, 0.0, mu];
            [&PAIR_IN_PLACE, &PAIR_TO, &PAIR_FROM_TO]
        }
    };
    (programs, params)
}

/// Records a step. Returns false for all other kernels.
pub(crate) fn record(kernel: &Kernel, recorder: &mut Recorder<'_>) -> Result<bool, GpuError> {
    let Kernel::Outer { step, from, update, scale, state, into } = *kernel else { return Ok(false) };
    let states: Vec<(Segment, Segment)> = state.into_iter().flatten().collect();
    let moves = states.iter().filter(|(old, new)| old != new).count();
    let form = match (from == into, moves) {
        (true, 0) => 0,
        (false, 0) => 1,
        (false, _) if moves == states.len() => 2,
        // No machine asks for it: a server changes its state in place, a collective has two places for everything.
        _ => return Ok(false),
    };
    let (programs, numbers) = shader(step, scale);
    let program = programs[form];
    // All reads come before the writes, which mark the host's bytes as outdated.
    let first = (recorder.read(update)?, update);
    let mut read = Vec::with_capacity(3);
    for (segment, is_bound) in [(from, form > 0)].into_iter().chain(states.iter().map(|(old, _)| (*old, form > 1))) {
        let buffer = recorder.read(segment)?;
        if is_bound {
            read.push((buffer, segment));
        }
    }
    let mut operands = vec![first];
    for segment in [into].into_iter().chain(states.iter().map(|(_, new)| *new)) {
        operands.push((recorder.write(segment)?, segment));
    }
    operands.append(&mut read);
    let len = into.len as usize / 4;
    for first in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - first);
        let mut params = Params { len: count as u32, ..numbers };
        params.groups = recorder.commands.workgroups(program, params.len);
        let windows: Vec<_> =
            operands.iter().map(|(buffer, segment)| Window::new(buffer, *segment, first, count)).collect();
        let places = params.at.iter_mut().chain(&mut params.more_at);
        windows.iter().zip(places).for_each(|(window, at)| *at = window.at);
        let parts: Vec<_> = windows.iter().map(|window| window.part).collect();
        recorder.commands.run(program, &parts, params);
    }
    Ok(true)
}
