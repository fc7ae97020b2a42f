//! The step of an outer optimizer with momentum: `Outer`. It has no result, so it is recorded and done.
//!
//! Adagrad and Adam need a square root and a quotient that are rounded as on the CPU, which WGSL does not promise. The
//! host runs them.

use gradwire_core::kernel::Kernel;
use gradwire_core::kernel::outer::Step;

use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::window::Window;

const SOURCE: &str = include_str!("outer.wgsl");

pub(crate) static IN_PLACE: Program =
    Program { name: "momentum_in_place", source: SOURCE, buffers: 3, invocations: 256 };
pub(crate) static TO: Program = Program { name: "momentum_to", source: SOURCE, buffers: 4, invocations: 256 };
pub(crate) static FROM_TO: Program = Program { name: "momentum_from_to", source: SOURCE, buffers: 5, invocations: 256 };

/// Flags of the step, as in outer.wgsl.
const LOOK: u32 = 1;
const NO_MU: u32 = 2;

/// Records a step of momentum. Returns false for all other kernels.
pub(crate) fn record(kernel: &Kernel, recorder: &mut Recorder<'_>) -> Result<bool, GpuError> {
    let Kernel::Outer {
        step: Step::Momentum { mu, rate, look },
        from,
        update,
        scale,
        state: [Some(state), None],
        into,
    } = *kernel
    else {
        return Ok(false);
    };
    let (old, new) = state;
    let program = match (from == into, old == new) {
        (true, true) => &IN_PLACE,
        (false, true) => &TO,
        // No machine asks for it: a server changes its velocity in place, a collective has two places for both.
        (true, false) => return Ok(false),
        (false, false) => &FROM_TO,
    };
    // All reads come before the writes, which mark the host's bytes as outdated.
    let inputs = [(update, true), (from, from != into), (old, old != new)];
    let mut read = Vec::with_capacity(3);
    for (segment, is_bound) in inputs {
        let buffer = recorder.read(segment)?;
        if is_bound {
            read.push((buffer, segment));
        }
    }
    let mut operands = vec![read.remove(0), (recorder.write(into)?, into), (recorder.write(new)?, new)];
    operands.append(&mut read);
    let flags = if look { LOOK } else { 0 } | if mu == 0.0 { NO_MU } else { 0 };
    let len = into.len as usize / 4;
    for first in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - first);
        let mut params = Params { len: count as u32, f: [mu, rate * scale, 0.0, 0.0], ..Params::default() };
        params.n[0] = flags;
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
