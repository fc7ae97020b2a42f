//! Elementwise kernels: each output element depends on the input elements of the same index.
//!
//! `Apply`, `Accumulate`, `Scale`, `Accelerate`, `Materialise` and `Copy`. They have no result, so they are recorded
//! and done.

use gradwire_core::Segment;
use gradwire_core::kernel::Kernel;

use crate::commands::Part;
use crate::error::GpuError;
use crate::memory::CHUNK;
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::window::Window;

const SOURCE: &str = include_str!("elementwise.wgsl");

pub(crate) static APPLY: Program = Program { name: "apply", source: SOURCE, buffers: 3, invocations: 256 };
pub(crate) static APPLY_IN_PLACE: Program =
    Program { name: "apply_in_place", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static SCALE: Program = Program { name: "scale", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static SCALE_IN_PLACE: Program =
    Program { name: "scale_in_place", source: SOURCE, buffers: 1, invocations: 256 };
pub(crate) static ACCELERATE: Program = Program { name: "accelerate", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static MATERIALISE: Program = Program { name: "materialise", source: SOURCE, buffers: 3, invocations: 256 };

/// Records an elementwise kernel. Returns false for all other kernels.
pub(crate) fn record(kernel: &Kernel, recorder: &mut Recorder<'_>) -> Result<bool, GpuError> {
    // The inputs of the program besides `into`, in the order of its bindings.
    let (program, inputs, into, factor) = match *kernel {
        Kernel::Apply { from, update, scale, into } if from == into => {
            (&APPLY_IN_PLACE, [Some(update), None], into, scale)
        }
        Kernel::Apply { from, update, scale, into } => (&APPLY, [Some(from), Some(update)], into, scale),
        Kernel::Accumulate { update, scale, first: true, into } => (&SCALE, [Some(update), None], into, scale),
        Kernel::Accumulate { update, scale, first: false, into } => {
            (&APPLY_IN_PLACE, [Some(update), None], into, -scale)
        }
        Kernel::Scale { x, factor } => (&SCALE_IN_PLACE, [None, None], x, factor),
        Kernel::Accelerate { update, velocity, momentum } => (&ACCELERATE, [Some(update), None], velocity, momentum),
        // Only the low words: the executor has checked that they are all of the ledger.
        Kernel::Materialise { base, ledger, unit, into } => {
            (&MATERIALISE, [Some(base), Some(ledger.first(into.len))], into, unit)
        }
        Kernel::Copy { from, into } => return copy(from, into, recorder).map(|()| true),
        _ => return Ok(false),
    };
    // All reads come before the write: kernels in place read `into`, and the write marks the host's bytes of it as
    // outdated.
    for segment in kernel.reads() {
        recorder.read(segment.first(segment.len.min(into.len)))?;
    }
    let into_buffer = recorder.write(into)?;
    let mut operands = Vec::with_capacity(3);
    for segment in inputs.into_iter().flatten() {
        operands.push((recorder.read(segment)?, segment));
    }
    operands.push((into_buffer, into));
    let len = into.len as usize / 4;
    for first in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - first);
        let mut params = Params { len: count as u32, f: [factor, 0.0, 0.0, 0.0], ..Params::default() };
        params.groups = recorder.commands.workgroups(program, params.len);
        let windows = operands.iter().map(|(buffer, segment)| Window::new(buffer, *segment, first, count));
        let windows: Vec<_> = windows.collect();
        windows.iter().zip(&mut params.at).for_each(|(window, at)| *at = window.at);
        let parts: Vec<_> = windows.iter().map(|window| window.part).collect();
        recorder.commands.run(program, &parts, params);
    }
    Ok(true)
}

fn copy(from: Segment, into: Segment, recorder: &mut Recorder<'_>) -> Result<(), GpuError> {
    let source = recorder.read(from)?;
    let target = recorder.write(into)?;
    let part = Part { buffer: &source, start: from.start, len: u64::from(from.len) };
    recorder.commands.copy(part, &target, into.start);
    Ok(())
}
