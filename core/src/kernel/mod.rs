//! Kernels: the arithmetic on vectors, as pure functions on slices.
//!
//! A machine asks for a [`Kernel`] by naming segments of buffers. [`run`] executes it on a
//! [`Pool`] and returns a [`KernelResult`], a few numbers that the protocol needs. [`run`] is the
//! executor on the CPU and defines the results: other executors ([`executor::Executor`]) must produce the same bits.
//!
//! One file per kernel. Its tests compare it with a naive version, bit for bit.

// Hidden modules: for the gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
pub mod apply;
#[doc(hidden)]
pub mod checked;
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
pub mod meter;
#[doc(hidden)]
pub mod momentum;
#[doc(hidden)]
pub mod norm;
#[doc(hidden)]
pub mod outer;
#[doc(hidden)]
pub mod round;
mod run;
#[doc(hidden)]
pub mod scan;
#[doc(hidden)]
pub mod senders;
#[doc(hidden)]
pub mod threshold;
#[doc(hidden)]
pub mod tier;

pub use run::run;

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
    /// Adds up the elements of `x`. Result: [`KernelResult::Total`]. Devices have no program for it: the host runs it.
    Total {
        /// The elements.
        x: Segment,
    },
    /// Says which of two things are due, of each as many as its shares add up to: see [`meter`]. Result:
    /// [`KernelResult::Due`]. Devices have no program for it: the host runs it.
    Meter {
        /// Two sums of shares, which are changed in place.
        sums: Segment,
        /// The shares of this occasion, 0 or more. From 1 on: due.
        shares: [f32; 2],
        /// From 0 to below 1.
        phases: [f32; 2],
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
        /// The map of its touched lines: [`ledger::map_words`] words.
        touched: Segment,
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
    /// Makes the touched lines of a replica again, and clears the map of them: as [`Materialise`](Self::Materialise), where
    /// `into` was the replica when the map was clear.
    Refresh {
        /// The initial parameters.
        base: Segment,
        /// The ledger: [`ledger::words`] words.
        ledger: Segment,
        /// The smallest quantum of the run.
        unit: f32,
        /// The map of touched lines: [`ledger::map_words`] words.
        touched: Segment,
        /// The replica, which is changed in place.
        into: Segment,
    },
    /// Copies the words that hold all of a ledger. Result: [`KernelResult::Copied`]. Devices have no program for it: the host
    /// runs it.
    CopyLedger {
        /// The ledger: [`ledger::words`] words.
        from: Segment,
        /// As many words, of which the first are written.
        into: Segment,
    },
    /// Gives back the memory of a buffer that has memory only while it is used: see [`Pool`]. Devices give back
    /// their copies.
    Release {
        /// The buffer, of which no operation reads a part.
        buffer: BufferId,
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
            Self::Decode { body, sections, ledger, touched, .. } => {
                let mut inputs = [None; MEAN_MAX];
                inputs[0] = Some((body, 0));
                (inputs, [Some(sections), Some(ledger), Some(touched)])
            }
            Self::Refresh { base, ledger, touched, into, .. } => {
                let mut inputs = [None; MEAN_MAX];
                inputs[0] = Some((base, 0));
                (inputs, [Some(ledger), Some(touched), Some(into)])
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
            Self::Copy { from, .. } | Self::CopyLedger { from, .. } => [Some(from), None, None],
            Self::Scale { x, .. } | Self::Norm { x, .. } | Self::Total { x } => [Some(x), None, None],
            Self::Meter { sums, .. } => [Some(sums), None, None],
            Self::Accelerate { update, velocity, .. } => [Some(update), Some(velocity), None],
            Self::Encode { update, residual, place, .. } => [update, Some(residual), Some(place.sections)],
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
            | Self::Decode { .. }
            | Self::Refresh { .. }
            | Self::Release { .. }
            | Self::ScatterSent { .. } => [None; 3],
        }
    }

    /// Makes room in the buffers that the kernel writes, for an executor that is about to run it. A ledger that has not been
    /// written, or of which only the words came that hold all of it, gets its zeros.
    pub fn make_room(&self, pool: &mut Pool) {
        match *self {
            Self::Release { .. } => return,
            Self::Materialise { ledger, .. } | Self::Refresh { ledger, .. } => pool.make_room_for(ledger),
            Self::CopyLedger { from, .. } => pool.make_room_for(from),
            _ => {}
        }
        self.writes().for_each(|segment| pool.make_room_for(segment));
    }

    /// The segments that the kernel writes, scratch memory excluded.
    pub fn writes(&self) -> impl Iterator<Item = Segment> {
        let segments = match *self {
            Self::Scan { .. } | Self::Compare { .. } | Self::Total { .. } | Self::Norm { limit: 0.0, .. } => [None; 3],
            Self::Meter { sums, .. } => [Some(sums), None, None],
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
            | Self::CopyLedger { into, .. }
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
            Self::Decode { ledger, touched, .. } => [Some(ledger), Some(touched), None],
            Self::Refresh { touched, into, .. } => [Some(touched), Some(into), None],
            Self::Clip { residual, .. } => [Some(residual), None, None],
            Self::Merge { place, .. } => [Some(place.body), None, None],
            // All of it.
            Self::Release { buffer } => [Some(Segment { buffer, start: 0, len: u32::MAX }), None, None],
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
    /// A ledger was copied.
    Copied {
        /// Bytes of the words that hold all of it.
        bytes: u32,
    },
    /// A norm was measured.
    Norm {
        /// Sum of squares of the vector, before it was scaled down.
        squares: f64,
    },
    /// Elements were added up.
    Total {
        /// Their sum.
        sum: f64,
    },
    /// It is known which of two things are due.
    Due {
        /// In the order of the shares.
        due: [bool; 2],
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
