//! Arithmetic as pure functions on slices: the CPU executor, and the oracle for any other.
//!
//! A machine asks for a [`Kernel`] by naming segments; [`run`] carries it out on a [`Pool`]. What a kernel finds
//! out that the protocol needs comes back as a small [`Found`]. One file per kernel, each with a naive version
//! beside it that the tests compare with, bit for bit.

pub mod apply;
pub mod compare;
pub mod mean;
pub mod quanta;
pub mod scan;

use alloc::sync::Arc;

use crate::buffer::{Pool, Segment};

/// Most vectors that one [`Kernel::Mean`] takes: a node of a tree and its children.
pub const MEAN_MAX: usize = 9;

/// One piece of arithmetic. Segments of different buffers never overlap; where a kernel may work in place, it
/// says so.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it is a value in a queue that is reused, and must not allocate")]
pub enum Kernel {
    /// Is every float of `x` finite? Finds [`Found::Finite`] or [`Found::NonFinite`].
    Scan {
        /// What to look at.
        x: Segment,
    },
    /// `into = from - scale * update`; `from` may be `into`.
    Apply {
        /// The parameters before.
        from: Segment,
        /// What to subtract.
        update: Segment,
        /// Factor on it.
        scale: f32,
        /// The parameters after.
        into: Segment,
    },
    /// `into = scale * update`, or `into += scale * update` if not `first`.
    Accumulate {
        /// What to add.
        update: Segment,
        /// Factor on it.
        scale: f32,
        /// Does it start the sum?
        first: bool,
        /// The sum.
        into: Segment,
    },
    /// `into = (held * into + weight * x) / (held + weight)`, in f64, rounded once. With `held` 0, a copy.
    Blend {
        /// What to take in.
        x: Segment,
        /// Its weight, above 0.
        weight: u32,
        /// The weight of what is in `into`.
        held: u32,
        /// The running weighted mean.
        into: Segment,
    },
    /// `into` = the weighted mean of all inputs, summed in their order in f64 and rounded once.
    Mean {
        /// Segments with weights above 0. At least one.
        inputs: [Option<(Segment, u32)>; MEAN_MAX],
        /// Where the mean goes.
        into: Segment,
    },
    /// `into = from`.
    Copy {
        /// Source.
        from: Segment,
        /// Destination.
        into: Segment,
    },
    /// Adds `update` to `residual`, takes one quantum of ±tau out of every element that has reached it, and
    /// writes these to `body`. Finds [`Found::Encoded`]; the squared norm of the residual comes along.
    Encode {
        /// What to add.
        update: Segment,
        /// What is left after.
        residual: Segment,
        /// Where the entries go: as many bytes as `update` suffice.
        body: Segment,
        /// The quantum.
        tau: f32,
    },
    /// Like [`Kernel::Encode`] of a zero update, but takes every element that has reached ±tau/2: the last
    /// message of a leaver. What is left is at most tau/2 per element.
    Flush {
        /// What is left over from all messages.
        residual: Segment,
        /// Where the entries go.
        body: Segment,
        /// The quantum.
        tau: f32,
    },
    /// Adds the quanta of `body` to the ledger, all or none. Finds [`Found::Nothing`] or [`Found::Malformed`].
    Decode {
        /// Entries.
        body: Segment,
        /// One integer per parameter.
        ledger: Segment,
    },
    /// `into = base - tau * ledger`: the replica that the ledger stands for.
    Materialise {
        /// The initial parameters.
        base: Segment,
        /// One integer per parameter.
        ledger: Segment,
        /// The quantum.
        tau: f32,
        /// The parameters.
        into: Segment,
    },
    /// Compares two texts line by line. Finds [`Found::Nothing`] or [`Found::Differs`].
    Compare {
        /// One text.
        ours: Segment,
        /// The other.
        theirs: Segment,
    },
}

/// What a kernel found out.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub enum Found {
    /// Nothing to report.
    #[default]
    Nothing,
    /// Every float is finite.
    Finite,
    /// The first float that is not.
    NonFinite {
        /// Its index in the segment.
        index: u32,
    },
    /// A body was written.
    Encoded {
        /// Its length in bytes.
        bytes: u32,
        /// Quanta in it.
        quanta: u32,
        /// Sum of squares of the residual that is left.
        residual: f64,
    },
    /// The body is none: nothing was touched.
    Malformed(quanta::BodyError),
    /// The texts differ.
    Differs {
        /// The first line that does, from 0.
        line: u32,
    },
}

/// Carries a kernel out on the CPU.
///
/// # Panics
/// When segments lie outside their buffers or their lengths do not fit together: the machine's own bug.
pub fn run(kernel: &Kernel, pool: &mut Pool) -> Found {
    match *kernel {
        Kernel::Scan { x } => match scan::first_non_finite(pool.floats(x)) {
            None => return Found::Finite,
            Some(index) => return Found::NonFinite { index: index as u32 },
        },
        Kernel::Apply { from, update, scale, into } if from == into => {
            write(pool, into, |pool, into| apply::in_place(into, pool.floats(update), scale));
        }
        Kernel::Apply { from, update, scale, into } => {
            write(pool, into, |pool, into| apply::apply(into, pool.floats(from), pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: true, into } => {
            write(pool, into, |pool, into| apply::scale(into, pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: false, into } => {
            write(pool, into, |pool, into| apply::in_place(into, pool.floats(update), -scale));
        }
        Kernel::Blend { x, weight, held, into } => {
            write(pool, into, |pool, into| mean::blend(into, held, pool.floats(x), weight));
        }
        Kernel::Mean { inputs, into } => write(pool, into, |pool, into| {
            let mut slices = [(&[][..], 0); MEAN_MAX];
            let mut count = 0;
            for (segment, weight) in inputs.into_iter().flatten() {
                slices[count] = (pool.floats(segment), weight);
                count += 1;
            }
            mean::mean(into, &slices[..count]);
        }),
        Kernel::Copy { from, into } => pool.write(into, |pool, into| into.copy_from_slice(pool.bytes(from))),
        Kernel::Encode { update, residual, body, tau } => {
            return encode(pool, residual, body, |pool, residual, body| {
                quanta::encode(pool.floats(update), residual, body, tau)
            });
        }
        Kernel::Flush { residual, body, tau } => {
            return encode(pool, residual, body, |_, residual, body| quanta::flush(residual, body, tau));
        }
        Kernel::Decode { body, ledger } => {
            let done =
                pool.write(ledger, |pool, ledger| quanta::decode(pool.bytes(body), bytemuck::cast_slice_mut(ledger)));
            return done.map_or_else(Found::Malformed, |()| Found::Nothing);
        }
        Kernel::Materialise { base, ledger, tau, into } => {
            write(pool, into, |pool, into| quanta::materialise(into, pool.floats(base), pool.integers(ledger), tau));
        }
        Kernel::Compare { ours, theirs } => {
            let line = compare::first_different_line(pool.bytes(ours), pool.bytes(theirs));
            return line.map_or(Found::Nothing, |line| Found::Differs { line: line as u32 });
        }
    }
    Found::Nothing
}

fn write(pool: &mut Pool, into: Segment, write: impl FnOnce(&Pool, &mut [f32])) {
    pool.write(into, |pool, into| write(pool, bytemuck::cast_slice_mut(into)));
}

/// Both the residual and the body are written: the one is taken out of the pool inside the other.
fn encode(
    pool: &mut Pool,
    residual: Segment,
    body: Segment,
    encode: impl FnOnce(&Pool, &mut [f32], &mut [u32]) -> quanta::Encoded,
) -> Found {
    let mut storage = pool.take(body.buffer);
    let words = bytemuck::cast_slice_mut(Arc::make_mut(&mut storage).bytes_mut());
    let encoded = pool.write(residual, |pool, residual| encode(pool, bytemuck::cast_slice_mut(residual), words));
    pool.replace(body.buffer, storage);
    Found::Encoded { bytes: encoded.entries * 4, quanta: encoded.entries, residual: encoded.residual }
}
