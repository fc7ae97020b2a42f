//! One element in, one out: updates applied and scaled, velocities, replicas made from ledgers.

use gradwire_core::kernel::Kernel;
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory};
use crate::program::{Params, Program};
use crate::window::Window;

const SOURCE: &str = include_str!("elementwise.wgsl");

pub(crate) static APPLY: Program = Program { name: "apply", source: SOURCE, buffers: 3, invocations: 256 };
pub(crate) static APPLY_IN_PLACE: Program =
    Program { name: "apply_in_place", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static SCALE: Program = Program { name: "scale", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static ACCELERATE: Program = Program { name: "accelerate", source: SOURCE, buffers: 2, invocations: 256 };
pub(crate) static MATERIALISE: Program = Program { name: "materialise", source: SOURCE, buffers: 3, invocations: 256 };

/// Gives the commands for one of these kernels; `false` if it is none of them.
pub(crate) fn issue(
    kernel: &Kernel,
    commands: &mut Commands,
    memory: &mut Memory,
    pool: &Pool,
) -> Result<bool, GpuError> {
    let (program, reads, into, factor) = match *kernel {
        Kernel::Apply { from, update, scale, into } if from == into => {
            (&APPLY_IN_PLACE, [Some(update), None], into, scale)
        }
        Kernel::Apply { from, update, scale, into } => (&APPLY, [Some(from), Some(update)], into, scale),
        Kernel::Accumulate { update, scale, first: true, into } => (&SCALE, [Some(update), None], into, scale),
        Kernel::Accumulate { update, scale, first: false, into } => {
            (&APPLY_IN_PLACE, [Some(update), None], into, -scale)
        }
        Kernel::Accelerate { update, velocity, momentum } => (&ACCELERATE, [Some(update), None], velocity, momentum),
        Kernel::Materialise { base, ledger, unit, into } => (&MATERIALISE, [Some(base), Some(ledger)], into, unit),
        Kernel::Copy { from, into } => return copy(from, into, commands, memory, pool).map(|()| true),
        _ => return Ok(false),
    };
    for segment in kernel.reads() {
        memory.read(commands, segment, pool)?;
    }
    let into_buffer = memory.write(commands, into, pool)?;
    let mut buffers = Vec::with_capacity(2);
    for segment in reads.into_iter().flatten() {
        buffers.push((memory.read(commands, segment, pool)?, segment));
    }
    buffers.push((into_buffer, into));
    let len = into.len as usize / 4;
    for first in (0..len).step_by(CHUNK) {
        let count = CHUNK.min(len - first);
        let mut params = Params { len: count as u32, f: [factor, 0.0, 0.0, 0.0], ..Params::default() };
        params.groups = commands.workgroups(program, params.len);
        let windows = buffers.iter().map(|(buffer, segment)| Window::new(buffer, *segment, first, count));
        let windows: Vec<_> = windows.collect();
        windows.iter().zip(&mut params.at).for_each(|(window, at)| *at = window.at);
        let parts: Vec<_> = windows.iter().map(|window| window.part).collect();
        commands.run(program, &parts, params);
    }
    Ok(true)
}

fn copy(
    from: Segment,
    into: Segment,
    commands: &mut Commands,
    memory: &mut Memory,
    pool: &Pool,
) -> Result<(), GpuError> {
    let source = memory.read(commands, from, pool)?;
    let target = memory.write(commands, into, pool)?;
    commands.copy(Part { buffer: &source, start: from.start, len: u64::from(from.len) }, &target, into.start);
    Ok(())
}
