//! Kernels: the arithmetic on vectors, as pure functions on slices.
//!
//! A machine asks for a [`Kernel`] by naming segments of buffers. [`run`] executes it on a [`Pool`] and returns a
//! [`KernelResult`], a few numbers that the protocol needs. [`run`] is the executor on the CPU and defines the results:
//! other executors ([`executor::Executor`]) must produce the same bits.
//!
//! One file per kernel. Its tests compare it with a naive version, bit for bit.

// Hidden modules: for the gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
pub mod apply;
#[doc(hidden)]
pub mod compare;
#[doc(hidden)]
pub mod compensate;
pub mod executor;
#[doc(hidden)]
pub mod ledger;
#[doc(hidden)]
pub mod mean;
#[doc(hidden)]
pub mod momentum;
#[doc(hidden)]
pub mod norm;
#[doc(hidden)]
pub mod outer;
#[doc(hidden)]
pub mod round;
#[doc(hidden)]
pub mod scan;
#[doc(hidden)]
pub mod senders;
#[doc(hidden)]
pub mod threshold;
#[doc(hidden)]
pub mod tier;

use alloc::sync::Arc;

use tier::Tier;
use zerocopy::{FromBytes, IntoBytes};

use crate::buffer::{BufferId, Pool, Segment};
use crate::codec::threshold::{Aim, MergeError, Section};
use crate::codec::topk::Pick;
use crate::codec::{self, BodyError, Encoded};

/// Limit of the number of inputs of one [`Kernel::Mean`]: a node of a tree and its 8 children.
pub const MEAN_MAX: usize = 9;

/// A request for one piece of arithmetic. Vectors are of equal length; segments do not overlap, except where a kernel
/// works in place.
///
/// A kernel without a stated result returns [`KernelResult::Nothing`].
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "kernels are values in queues that are reused, and must not allocate")]
pub enum Kernel {
    /// Checks that all floats of `x` are finite. Result: [`KernelResult::Finite`] or [`KernelResult::NonFinite`].
    Scan {
        /// The floats to check.
        x: Segment,
    },
    /// `into = from - scale * update`. `from` may be the same segment as `into`.
    Apply {
        /// The parameters before the update.
        from: Segment,
        /// The update, one float per element.
        update: Segment,
        /// Factor on the update.
        scale: f32,
        /// The parameters after the update.
        into: Segment,
    },
    /// Corrects a late update in place. Devices have no program for it: the host runs it.
    Compensate {
        /// The correction, with its numbers.
        formula: compensate::Formula,
        /// The update, one float per element.
        update: Segment,
        /// The vector of state, which is changed in place. `None`: the formula has no state.
        state: Option<Segment>,
        /// The parameters now, and as the worker got them. `None`: the formula does not read them.
        params: Option<[Segment; 2]>,
    },
    /// A step of an outer optimizer: new parameters and new state from the merged update.
    Outer {
        /// The rule of the step, with its numbers.
        step: outer::Step,
        /// The parameters before the step. May be the same segment as `into`.
        from: Segment,
        /// The merged update, one float per element.
        update: Segment,
        /// Factor on the merged update.
        scale: f32,
        /// Each vector of state: where it is before the step, and where it goes. Both may be the same segment.
        state: [Option<(Segment, Segment)>; 2],
        /// The parameters after the step.
        into: Segment,
    },
    /// `into += scale * update`, or `into = scale * update` if `first`.
    Accumulate {
        /// The vector to add.
        update: Segment,
        /// Factor on that vector.
        scale: f32,
        /// Start a new sum: the content of `into` is not read.
        first: bool,
        /// The running sum.
        into: Segment,
    },
    /// `into = (held * into + weight * x) / (held + weight)`, computed in f64 and rounded once.
    Blend {
        /// The vector to average into the mean.
        x: Segment,
        /// Weight of `x`, above 0.
        weight: u64,
        /// Weight of `into`. With 0, the kernel copies `x` and does not read `into`.
        held: u64,
        /// The running weighted mean.
        into: Segment,
    },
    /// `into` = the weighted mean of the inputs, summed in f64 in the order of the inputs and rounded once.
    Mean {
        /// Vectors and their weights, each above 0. At least one input.
        inputs: [Option<(Segment, u64)>; MEAN_MAX],
        /// Destination of the mean.
        into: Segment,
    },
    /// `into` = the [Adasum](round::Formula::Adasum) of the inputs: the first with the second, the result with the third,
    /// and so on. Devices have no program for it: the host runs it.
    Adasum {
        /// Vectors: at least one.
        inputs: [Option<Segment>; MEAN_MAX],
        /// Destination of the result.
        into: Segment,
    },
    /// Blends a contribution into the mean of the workers that have sent an element: see [`senders`].
    BlendSent {
        /// The contribution, one float per element; 0 where its worker has sent nothing.
        x: Segment,
        /// Examples behind `x`, above 0.
        weight: u64,
        /// Begin a round: the content of `into` and `counts` is not read.
        first: bool,
        /// The examples behind each element of `into`: a float per element.
        counts: Segment,
        /// The running mean, one float per element.
        into: Segment,
    },
    /// Holds a contribution of a round until the round is merged: `rows[row] = x`, and its weight. If the row holds one
    /// already, it becomes the weighted mean of both, as by [`Blend`](Self::Blend), with the sum of their weights.
    Hold {
        /// The contribution, one float per element.
        x: Segment,
        /// Number of examples behind it, above 0.
        weight: u64,
        /// Number of examples behind the row. With 0, the kernel copies `x` and does not read the row.
        held: u64,
        /// The contributions of the round.
        rows: round::Rows,
        /// The number of the row.
        row: u32,
    },
    /// Merges the contributions of a round that are held.
    Round {
        /// The rule of the merge, with its numbers.
        formula: round::Formula,
        /// The contributions: at least one.
        rows: round::Rows,
        /// The merged vector.
        into: Segment,
    },
    /// `into = from`.
    Copy {
        /// The bytes to copy.
        from: Segment,
        /// Destination of the copy.
        into: Segment,
    },
    /// `x = factor * x`.
    Scale {
        /// The vector, which is changed in place.
        x: Segment,
        /// Factor on every element.
        factor: f32,
    },
    /// Measures the Euclidean norm of `x`, and scales `x` down to the norm `limit` if it is larger. Result:
    /// [`KernelResult::Norm`].
    Norm {
        /// The vector, which is changed in place.
        x: Segment,
        /// The largest norm. 0: no limit, and `x` is not changed.
        limit: f32,
    },
    /// `velocity = momentum * velocity + update`.
    Accelerate {
        /// The update, one float per element.
        update: Segment,
        /// The velocity, one float per element.
        velocity: Segment,
        /// Momentum, from 0 to below 1.
        momentum: f32,
    },
    /// Writes the initial state of a [`Section`].
    Section {
        /// The 16 bytes that hold the section.
        at: Segment,
        /// The initial state.
        section: Section,
    },
    /// Multiplies `residual` by `decay`, adds `update` to it, encodes the sum, and keeps the error in `residual`. Result:
    /// [`KernelResult::Encoded`].
    Encode {
        /// The codec and its settings for this message.
        coding: Coding,
        /// Factor on the residual, from 0 to 1. 1: nothing is forgotten, and the kernel makes no pass for it.
        decay: f32,
        /// The update. `None`: encode the residual alone.
        update: Option<Segment>,
        /// The residual, one float per element.
        residual: Segment,
        /// Body, sections and scratch memory.
        place: EncodeTarget,
    },
    /// Adds the quanta of a threshold body to a ledger, all or none. Result: [`KernelResult::Nothing`] or
    /// [`KernelResult::Malformed`].
    Decode {
        /// The received body.
        body: Segment,
        /// Sections of the vector.
        sections: Segment,
        /// The smallest quantum of the run.
        unit: f32,
        /// The ledger: [`ledger::words`] words.
        ledger: Segment,
    },
    /// Decodes a body to floats. Result: [`KernelResult::Nothing`] or [`KernelResult::Malformed`].
    Expand {
        /// The codec of the body.
        coding: Coding,
        /// The received body.
        body: Segment,
        /// Sections of the vector.
        sections: Segment,
        /// Destination of the decoded floats.
        into: Segment,
    },
    /// `into += scale * x`, where x is the vector that a sparse body holds, all of it or nothing. Result:
    /// [`KernelResult::Nothing`] or [`KernelResult::Malformed`].
    Scatter {
        /// The codec of the body: threshold or top-k.
        coding: Coding,
        /// The received body.
        body: Segment,
        /// Sections of the vector.
        sections: Segment,
        /// Factor on every element of the body.
        scale: f32,
        /// The sum, one float per element.
        into: Segment,
    },
    /// `into += weight / unit * x`, where x is the vector that a sparse body holds, and adds `weight` to the counts of its
    /// elements; all of it or nothing. Result: [`KernelResult::Nothing`] or [`KernelResult::Malformed`].
    ScatterSent {
        /// The codec of the body: threshold or top-k.
        coding: Coding,
        /// The received body.
        body: Segment,
        /// Sections of the vector.
        sections: Segment,
        /// Examples behind the body, above 0.
        weight: u64,
        /// Examples that stand for a factor of 1, above 0.
        unit: u64,
        /// Begin a round: the content of `into` and `counts` is not read.
        first: bool,
        /// The examples behind each element of `into`: a float per element.
        counts: Segment,
        /// The sum, one float per element.
        into: Segment,
    },
    /// `x *= unit / count`, element by element: a sum of [`ScatterSent`](Self::ScatterSent) becomes the mean of the senders.
    MeanSent {
        /// The examples behind each element of `x`: a float per element.
        counts: Segment,
        /// Examples that stand for a factor of 1, above 0.
        unit: u64,
        /// The sum, which is changed in place.
        x: Segment,
    },
    /// Sets the velocity to zero for elements with an entry in a sparse body. Result: [`KernelResult::Nothing`] or
    /// [`KernelResult::Malformed`].
    Mask {
        /// The codec. With a dense codec the kernel does nothing.
        coding: Coding,
        /// The body that this node has encoded.
        body: Segment,
        /// Sections of the vector.
        sections: Segment,
        /// The velocity, one float per element.
        velocity: Segment,
    },
    /// Clamps the residual to ±`limit`. Result: [`KernelResult::Clipped`].
    Clip {
        /// The residual, one float per element.
        residual: Segment,
        /// Largest magnitude that is kept, 0 or more.
        limit: f32,
    },
    /// Writes the sum of two threshold bodies as one body. Result: [`KernelResult::Merged`] or
    /// [`KernelResult::Unmerged`].
    Merge {
        /// The first body.
        one: Segment,
        /// The second body.
        other: Segment,
        /// The smallest quantum of the run.
        unit: f32,
        /// Body, sections and scratch memory. After [`KernelResult::Unmerged`], the content of the body is unspecified.
        place: EncodeTarget,
    },
    /// `into = base - unit * ledger`: the replica that the ledger describes.
    Materialise {
        /// The initial parameters.
        base: Segment,
        /// The ledger: [`ledger::words`] words.
        ledger: Segment,
        /// The smallest quantum of the run.
        unit: f32,
        /// Destination of the parameters.
        into: Segment,
    },
    /// Compares two texts line by line. Result: [`KernelResult::Nothing`] or [`KernelResult::Differs`].
    Compare {
        /// The text of this node.
        ours: Segment,
        /// The text of the peer.
        theirs: Segment,
    },
}

impl Kernel {
    /// The segments that the kernel reads, scratch memory excluded.
    pub fn reads(&self) -> impl Iterator<Item = Segment> {
        let (inputs, others) = match *self {
            Self::Mean { inputs, .. } => (inputs, [None; 3]),
            Self::Adasum { inputs, .. } => (inputs.map(|input| input.map(|input| (input, 0))), [None; 3]),
            Self::Outer { from, update, state, .. } => {
                let mut inputs = [None; MEAN_MAX];
                inputs.iter_mut().zip(state).for_each(|(input, state)| *input = state.map(|(old, _)| (old, 0)));
                (inputs, [Some(from), Some(update), None])
            }
            Self::Compensate { update, state, params, .. } => {
                let mut inputs = [None; MEAN_MAX];
                inputs
                    .iter_mut()
                    .zip(params.into_iter().flatten())
                    .for_each(|(input, params)| *input = Some((params, 0)));
                (inputs, [Some(update), state, None])
            }
            Self::ScatterSent { body, sections, first, counts, into, .. } => {
                let mut inputs = [None; MEAN_MAX];
                inputs[0] = (!first).then_some((counts, 0));
                (inputs, [Some(body), Some(sections), (!first).then_some(into)])
            }
            ref other => ([None; MEAN_MAX], other.operands()),
        };
        let rows = if let Self::Round { rows, .. } = *self { Some(rows) } else { None };
        let inputs = inputs.into_iter().flatten().map(|(segment, _)| segment).chain(others.into_iter().flatten());
        inputs.chain(rows.into_iter().flat_map(round::Rows::iter))
    }

    fn operands(&self) -> [Option<Segment>; 3] {
        match *self {
            Self::Scan { x } => [Some(x), None, None],
            Self::Hold { x, held, rows, row, .. } => [Some(x), (held > 0).then_some(rows.row(row)), None],
            Self::Apply { from, update, .. } => [Some(from), Some(update), None],
            // A destination that is overwritten is not listed: an executor with copies need not move it.
            Self::Accumulate { update, first, into, .. } => [Some(update), (!first).then_some(into), None],
            Self::Blend { x, held, into, .. } => [Some(x), (held > 0).then_some(into), None],
            Self::BlendSent { x, first, counts, into, .. } => {
                [Some(x), (!first).then_some(counts), (!first).then_some(into)]
            }
            Self::MeanSent { counts, x, .. } => [Some(counts), Some(x), None],
            Self::Copy { from, .. } => [Some(from), None, None],
            Self::Scale { x, .. } | Self::Norm { x, .. } => [Some(x), None, None],
            Self::Accelerate { update, velocity, .. } => [Some(update), Some(velocity), None],
            Self::Encode { update, residual, place, .. } => [update, Some(residual), Some(place.sections)],
            Self::Decode { body, sections, ledger, .. } => [Some(body), Some(sections), Some(ledger)],
            Self::Expand { body, sections, .. } => [Some(body), Some(sections), None],
            Self::Scatter { body, sections, into, .. } => [Some(body), Some(sections), Some(into)],
            Self::Mask { body, sections, velocity, .. } => [Some(body), Some(sections), Some(velocity)],
            Self::Clip { residual, .. } => [Some(residual), None, None],
            Self::Merge { one, other, place, .. } => [Some(one), Some(other), Some(place.sections)],
            Self::Materialise { base, ledger, .. } => [Some(base), Some(ledger), None],
            Self::Compare { ours, theirs } => [Some(ours), Some(theirs), None],
            Self::Round { formula, into, .. } => [formula.has_state().then_some(into), None, None],
            Self::Mean { .. }
            | Self::Adasum { .. }
            | Self::Outer { .. }
            | Self::Section { .. }
            | Self::Compensate { .. }
            | Self::ScatterSent { .. } => [None; 3],
        }
    }

    /// The segments that the kernel writes, scratch memory excluded.
    pub fn writes(&self) -> impl Iterator<Item = Segment> {
        let segments = match *self {
            Self::Scan { .. } | Self::Compare { .. } | Self::Norm { limit: 0.0, .. } => [None; 3],
            Self::Scale { x, .. } | Self::Norm { x, .. } | Self::MeanSent { x, .. } => [Some(x), None, None],
            Self::BlendSent { counts, into, .. } | Self::ScatterSent { counts, into, .. } => {
                [Some(counts), Some(into), None]
            }
            Self::Apply { into, .. }
            | Self::Accumulate { into, .. }
            | Self::Blend { into, .. }
            | Self::Mean { into, .. }
            | Self::Adasum { into, .. }
            | Self::Round { into, .. }
            | Self::Copy { into, .. }
            | Self::Expand { into, .. }
            | Self::Scatter { into, .. }
            | Self::Materialise { into, .. } => [Some(into), None, None],
            Self::Hold { rows, row, .. } => [Some(rows.row(row)), None, None],
            Self::Outer { state: [one, other], into, .. } => {
                let new = |state: Option<(Segment, Segment)>| state.map(|(_, new)| new);
                [Some(into), new(one), new(other)]
            }
            Self::Compensate { update, state, .. } => [Some(update), state, None],
            Self::Accelerate { velocity, .. } | Self::Mask { velocity, .. } => [Some(velocity), None, None],
            Self::Section { at, .. } => [Some(at), None, None],
            // Sections hold the state of the controller, which each message updates.
            Self::Encode { residual, place, .. } => [Some(residual), Some(place.sections), Some(place.body)],
            Self::Decode { ledger, .. } => [Some(ledger), None, None],
            Self::Clip { residual, .. } => [Some(residual), None, None],
            Self::Merge { place, .. } => [Some(place.body), None, None],
        };
        segments.into_iter().flatten()
    }
}

/// A codec with its settings for one message. The module [`codec`] describes the codecs.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the codecs are documented in their module")]
pub enum Coding {
    F32,
    Bf16,
    F16,
    Int8,
    Sign,
    SignColumns {
        /// Words of the means: two per column.
        means: u32,
    },
    Threshold(Aim),
    TopK(Pick),
}

/// The memory that an encoder writes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EncodeTarget {
    /// The sections of the vector: an array of [`Section`].
    pub sections: Segment,
    /// Scratch memory of a sparse codec: two words per element of the longest section.
    pub scratch: BufferId,
    /// The body: at least [`Coding::len_max`] bytes.
    pub body: Segment,
}

impl Coding {
    /// The largest length in bytes of a body over `len` elements in a number of sections.
    pub fn len_max(&self, len: usize, sections: usize) -> usize {
        4 * match self {
            Self::F32 => len,
            Self::Bf16 => codec::bf16::words(len),
            Self::F16 => codec::f16::words(len),
            Self::Int8 => codec::int8::words(len),
            Self::Sign => codec::sign::words(len),
            Self::SignColumns { means } => codec::columns::words(len, *means as usize),
            // Each section has a header, and rounds its list up to a whole word.
            Self::Threshold(_) => codec::threshold::words_max([len]) + (codec::threshold::HEADER_WORDS + 1) * sections,
            Self::TopK(pick) => codec::topk::words_max(len, *pick),
        }
    }
}

/// The result of a kernel.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub enum KernelResult {
    /// Done, without numbers to report.
    #[default]
    Nothing,
    /// All floats are finite.
    Finite,
    /// Some float is not finite.
    NonFinite {
        /// Index of the first one in the segment.
        index: u32,
    },
    /// A body was encoded.
    Encoded(Encoded),
    /// The body is malformed. A ledger is unchanged; the content of other destinations is unspecified.
    Malformed(BodyError),
    /// Two bodies were merged.
    Merged {
        /// Length of the merged body in bytes.
        bytes: u32,
    },
    /// Two bodies could not be merged.
    Unmerged(MergeError),
    /// A norm was measured.
    Norm {
        /// Sum of squares of the vector, before it was scaled down.
        squares: f64,
    },
    /// The residual was clamped.
    Clipped {
        /// Number of elements that changed.
        elements: u32,
        /// Sum of the magnitudes that were removed.
        lost: f64,
        /// Sum of squares of the clamped residual.
        squares: f64,
    },
    /// The texts differ.
    Differs {
        /// The first line that differs, from 0.
        line: u32,
    },
}

/// Executes a kernel on the CPU. Does not allocate, unless a destination is lent: see [`Pool`].
///
/// # Panics
/// If segments lie outside of their buffers, or lengths do not fit together. Both are bugs of the machine.
pub fn run(kernel: &Kernel, pool: &mut Pool) -> KernelResult {
    match *kernel {
        Kernel::Scan { x } => match scan::first_non_finite(pool.floats(x)) {
            None => return KernelResult::Finite,
            Some(index) => return KernelResult::NonFinite { index: index as u32 },
        },
        // In place needs a kernel of its own: `write` gives no read access to the buffer of `into`.
        Kernel::Apply { from, update, scale, into } if from == into => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), scale));
        }
        Kernel::Apply { from, update, scale, into } => {
            write(pool, into, |pool, into| apply::apply(into, pool.floats(from), pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: true, into } => {
            write(pool, into, |pool, into| apply::scale(into, pool.floats(update), scale));
        }
        Kernel::Compensate { formula, update, state, params } => {
            // The state is taken out of the pool meanwhile, since two buffers are written at once.
            let mut storage = state.map(|state| pool.take(state.buffer));
            write(pool, update, |pool, update| {
                let words = state.zip(storage.as_mut());
                let words = words.map(|(state, storage)| &mut Arc::make_mut(storage).words_mut()[state.words()]);
                let params = params.map_or([&[][..]; 2], |params| params.map(|params| pool.floats(params)));
                compensate::run(formula, update, words.map_or(&mut [], bytemuck::cast_slice_mut), params);
            });
            if let (Some(state), Some(storage)) = (state, storage) {
                pool.replace(state.buffer, storage);
            }
        }
        Kernel::Outer { step, from, update, scale, state, into } => outer(pool, step, from, update, scale, state, into),
        // `a += s * u` as `a -= (-s) * u`: negation is exact, so both round in the same way.
        Kernel::Accumulate { update, scale, first: false, into } => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), -scale));
        }
        Kernel::Blend { x, weight, held, into } => {
            write(pool, into, |pool, into| mean::in_place(Tier::best(), into, held, [(pool.floats(x), weight)]));
        }
        Kernel::BlendSent { x, weight, first, counts, into } => {
            with_words(pool, counts, |pool, counts| {
                write(pool, into, |pool, into| {
                    senders::blend(Tier::best(), into, bytemuck::cast_slice_mut(counts), pool.floats(x), weight, first);
                });
            });
        }
        Kernel::ScatterSent { coding, body, sections, weight, unit, first, counts, into } => {
            let done = with_words(pool, counts, |pool, counts| {
                pool.write(into, |pool, into| {
                    let into: &mut [f32] = bytemuck::cast_slice_mut(into);
                    let (body, sections, len) = (pool.words(body), pool.sections(sections), into.len());
                    // Checked before anything is added.
                    codec::visit(coding, body, sections, len, &mut |_, _| {})?;
                    senders::scatter(into, bytemuck::cast_slice_mut(counts), [weight, unit], first, |add| {
                        codec::visit(coding, body, sections, len, add)
                    })
                })
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::MeanSent { counts, unit, x } => {
            write(pool, x, |pool, x| senders::share(Tier::best(), x, pool.floats(counts), unit));
        }
        Kernel::Mean { inputs, into } => write(pool, into, |pool, into| {
            // An array and a count instead of a vector: a kernel does not allocate.
            let mut slices = [(&[][..], 0); MEAN_MAX];
            let mut count = 0;
            for (segment, weight) in inputs.into_iter().flatten() {
                slices[count] = (pool.floats(segment), weight);
                count += 1;
            }
            mean::mean(into, &slices[..count]);
        }),
        Kernel::Adasum { inputs, into } => write(pool, into, |pool, into| {
            let mut rows = [&[][..]; MEAN_MAX];
            let mut count = 0;
            for segment in inputs.into_iter().flatten() {
                rows[count] = pool.floats(segment);
                count += 1;
            }
            round::adasum::in_turn(into, &rows[..count]);
        }),
        Kernel::Hold { x, weight, held, rows, row } => {
            let mut work = pool.take(rows.work);
            round::hold(Arc::make_mut(&mut work).words_mut(), row as usize, held + weight);
            pool.replace(rows.work, work);
            let blend = |pool: &Pool, into: &mut [f32]| {
                mean::in_place(Tier::best(), into, held, [(pool.floats(x), weight)]);
            };
            write(pool, rows.row(row), blend);
        }
        Kernel::Round { formula, rows, into } => {
            let mut work = pool.take(rows.work);
            let words = Arc::make_mut(&mut work).words_mut();
            write(pool, into, |pool, into| {
                round::run(formula, |row| pool.floats(rows.row(row as u32)), rows.count as usize, words, into);
            });
            pool.replace(rows.work, work);
        }
        Kernel::Copy { from, into } => pool.write(into, |pool, into| into.copy_from_slice(pool.bytes(from))),
        Kernel::Scale { x, factor } => norm::scale(pool.floats_mut(x), factor),
        Kernel::Norm { x, limit } => {
            let squares = norm::squares(pool.floats(x));
            if let Some(factor) = norm::factor(squares, limit) {
                norm::scale(pool.floats_mut(x), factor);
            }
            return KernelResult::Norm { squares };
        }
        Kernel::Accelerate { update, velocity, momentum } => {
            write(pool, velocity, |pool, velocity| momentum::accelerate(velocity, pool.floats(update), momentum));
        }
        Kernel::Section { at, section } => pool.bytes_mut(at).copy_from_slice(section.as_bytes()),
        Kernel::Encode { coding, decay, update, residual, place } => {
            return encode(pool, coding, decay, update, residual, place);
        }
        Kernel::Decode { body, sections, unit, ledger } => {
            let done = pool.write(ledger, |pool, ledger| {
                let (body, sections) = (pool.words(body), pool.sections(sections));
                let mut ledger = ledger::Ledger::of(bytemuck::cast_slice_mut(ledger));
                codec::threshold::add(body, sections, unit, &mut ledger)
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Expand { coding, body, sections, into } => {
            let done = pool.write(into, |pool, into| {
                expand(coding, pool.words(body), pool.sections(sections), bytemuck::cast_slice_mut(into))
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Scatter { coding, body, sections, scale, into } => {
            let done = pool.write(into, |pool, into| {
                let into: &mut [f32] = bytemuck::cast_slice_mut(into);
                codec::scatter(coding, pool.words(body), pool.sections(sections), scale, into)
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Mask { coding, body, sections, velocity } => {
            let done = pool.write(velocity, |pool, velocity| {
                let (body, sections) = (pool.words(body), pool.sections(sections));
                let velocity: &mut [f32] = bytemuck::cast_slice_mut(velocity);
                match coding {
                    Coding::Threshold(aim) => codec::threshold::mask(body, sections, aim.unit, velocity),
                    Coding::TopK(pick) => {
                        codec::topk::read(body, velocity.len(), pick.chunk as usize, |index, _| velocity[index] = 0.0)
                    }
                    _ => Ok(()),
                }
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Clip { residual, limit } => {
            let (elements, lost, squares) = momentum::clip(pool.floats_mut(residual), limit);
            return KernelResult::Clipped { elements, lost, squares };
        }
        Kernel::Merge { one, other, unit, place } => {
            let mut scratch = pool.take(place.scratch);
            let words = Arc::make_mut(&mut scratch).words_mut();
            let merged = pool.write(place.body, |pool, body| {
                let (bodies, sections) = ((pool.words(one), pool.words(other)), pool.sections(place.sections));
                codec::threshold::merge(bodies, sections, unit, words, bytemuck::cast_slice_mut(body))
            });
            pool.replace(place.scratch, scratch);
            return merged
                .map_or_else(KernelResult::Unmerged, |words| KernelResult::Merged { bytes: words as u32 * 4 });
        }
        Kernel::Materialise { base, ledger, unit, into } => {
            write(pool, into, |pool, into| ledger::materialise(into, pool.floats(base), pool.integers(ledger), unit));
        }
        Kernel::Compare { ours, theirs } => {
            let line = compare::first_different_line(pool.bytes(ours), pool.bytes(theirs));
            return line.map_or(KernelResult::Nothing, |line| KernelResult::Differs { line: line as u32 });
        }
    }
    KernelResult::Nothing
}

/// [`Pool::write`] on floats.
fn write(pool: &mut Pool, into: Segment, write: impl FnOnce(&Pool, &mut [f32])) {
    pool.write(into, |pool, into| write(pool, bytemuck::cast_slice_mut(into)));
}

/// Takes the words of a segment out of the pool while `run` writes another buffer.
fn with_words<R>(pool: &mut Pool, words: Segment, run: impl FnOnce(&mut Pool, &mut [u32]) -> R) -> R {
    let mut storage = pool.take(words.buffer);
    let result = run(pool, &mut Arc::make_mut(&mut storage).words_mut()[words.words()]);
    pool.replace(words.buffer, storage);
    result
}

/// Runs a step of an outer optimizer. It writes to up to three buffers at once, so the buffers of the state are taken
/// out of the pool meanwhile.
fn outer(
    pool: &mut Pool,
    step: outer::Step,
    from: Segment,
    update: Segment,
    scale: f32,
    state: [Option<(Segment, Segment)>; 2],
    into: Segment,
) {
    let mut storages = state.map(|state| state.map(|(_, new)| pool.take(new.buffer)));
    let in_place = from == into;
    write(pool, into, |pool, into| {
        let mut pairs = storages.iter_mut().zip(state).map(|(storage, state)| {
            let ((old, new), storage) = (state?, storage.as_mut()?);
            let words = &mut Arc::make_mut(storage).words_mut()[new.words()];
            Some((bytemuck::cast_slice_mut(words), (old != new).then(|| pool.floats(old))))
        });
        let state = core::array::from_fn(|_| pairs.next().flatten());
        let from = (!in_place).then(|| pool.floats(from));
        outer::run(step, scale, into, from, pool.floats(update), state);
    });
    for (storage, state) in storages.into_iter().zip(state) {
        if let (Some(storage), Some((_, new))) = (storage, state) {
            pool.replace(new.buffer, storage);
        }
    }
}

/// Runs the encoder of a codec. It writes to four buffers at once, so three of them are taken out of the pool
/// meanwhile.
fn encode(
    pool: &mut Pool,
    coding: Coding,
    decay: f32,
    update: Option<Segment>,
    residual: Segment,
    place: EncodeTarget,
) -> KernelResult {
    let mut storages = [place.sections.buffer, place.scratch, place.body.buffer].map(|buffer| pool.take(buffer));
    let [sections, scratch, body] = storages.each_mut().map(|storage| Arc::make_mut(storage).words_mut());
    let sections = <[Section]>::mut_from_bytes(bytemuck::cast_slice_mut(&mut sections[place.sections.words()]))
        .expect("sections are whole");
    let body = &mut body[place.body.words()];
    let mut forgotten = 0.0;
    let encoded = pool.write(residual, |pool, residual| {
        let (update, residual) = (update.map(|update| pool.floats(update)), bytemuck::cast_slice_mut(residual));
        if decay != 1.0 {
            forgotten = momentum::decay(residual, decay);
        }
        let tier = Tier::best();
        let len = residual.len();
        let dense = match coding {
            Coding::Threshold(aim) => {
                return codec::threshold::encode(tier, aim, update, residual, sections, scratch, body);
            }
            Coding::TopK(pick) => return codec::topk::encode(pick, update, residual, scratch, body),
            Coding::F32 => codec::float32::encode(update, residual, body),
            Coding::Bf16 => codec::bf16::encode(tier, update, residual, body),
            Coding::F16 => codec::f16::encode(tier, update, residual, body),
            Coding::Int8 => codec::int8::encode(tier, update, residual, body),
            Coding::Sign => codec::sign::encode(tier, update, residual, body),
            Coding::SignColumns { .. } => codec::columns::encode(tier, update, residual, sections, body),
        };
        dense.encoded(coding.len_max(len, 0) / 4, len)
    });
    // All codecs come here, so a codec must not return from this function.
    for (buffer, storage) in [place.sections.buffer, place.scratch, place.body.buffer].into_iter().zip(storages) {
        pool.replace(buffer, storage);
    }
    KernelResult::Encoded(Encoded { forgotten, ..encoded })
}

/// Runs the decoder of a codec.
fn expand(coding: Coding, body: &[u32], sections: &[Section], into: &mut [f32]) -> Result<(), BodyError> {
    let tier = Tier::best();
    match coding {
        Coding::Threshold(aim) => codec::threshold::expand(body, sections, aim.unit, into),
        Coding::TopK(pick) => codec::topk::expand(body, pick.chunk as usize, into),
        Coding::F32 => codec::float32::expand(body, into),
        Coding::Bf16 => codec::bf16::expand(tier, body, into),
        Coding::F16 => codec::f16::expand(tier, body, into),
        Coding::Int8 => codec::int8::expand(tier, body, into),
        Coding::Sign => codec::sign::expand(tier, body, into),
        Coding::SignColumns { .. } => codec::columns::expand(tier, body, sections, into),
    }
}
