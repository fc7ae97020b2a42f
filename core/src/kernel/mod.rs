//! Arithmetic as pure functions on slices: the CPU executor, and the oracle for any other.
//!
//! A machine asks for a [`Kernel`] by naming segments; [`run`] carries it out on a [`Pool`]. What a kernel finds
//! out that the protocol needs comes back as a small [`KernelResult`]. One file per kernel, each with a naive version
//! beside it that the tests compare with, bit for bit.

// Hidden modules: for the gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
pub mod apply;
#[doc(hidden)]
pub mod compare;
pub mod executor;
#[doc(hidden)]
pub mod ledger;
#[doc(hidden)]
pub mod mean;
#[doc(hidden)]
pub mod momentum;
#[doc(hidden)]
pub mod scan;
#[doc(hidden)]
pub mod threshold;
#[doc(hidden)]
pub mod tier;

use alloc::sync::Arc;

use tier::Tier;
use zerocopy::{FromBytes, IntoBytes};

use crate::buffer::{BufferId, Pool, Segment};
use crate::codec::threshold::{Aim, MergeError, Section};
use crate::codec::{self, BodyError, Encoded};

/// Most vectors that one [`Kernel::Mean`] takes: a node of a tree and its children.
pub const MEAN_MAX: usize = 9;

/// One piece of arithmetic. Segments of different buffers never overlap; where a kernel may work in place, it
/// says so.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it is a value in a queue that is reused, and must not allocate")]
pub enum Kernel {
    /// Is every float of `x` finite? Finds [`KernelResult::Finite`] or [`KernelResult::NonFinite`].
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
    /// `velocity = momentum * velocity + update`.
    Accelerate {
        /// What to add.
        update: Segment,
        /// The sum that decays.
        velocity: Segment,
        /// By how much.
        momentum: f32,
    },
    /// Makes a section: a part of the vector with a threshold of its own.
    Section {
        /// Where it is kept: 16 bytes.
        at: Segment,
        /// What it starts with.
        section: Section,
    },
    /// Adds `update` to `residual`, writes to `body` what the codec can say of that, and keeps the rest in
    /// `residual`. Finds [`KernelResult::Encoded`].
    Encode {
        /// How.
        coding: Coding,
        /// What to add; nothing for what is left alone.
        update: Option<Segment>,
        /// What is left.
        residual: Segment,
        /// Where to write and what is needed for it.
        place: EncodeTarget,
    },
    /// Adds the quanta of a threshold body to the ledger, all or none. Finds [`KernelResult::Nothing`] or
    /// [`KernelResult::Malformed`].
    Decode {
        /// The body.
        body: Segment,
        /// Its sections.
        sections: Segment,
        /// The smallest quantum.
        unit: f32,
        /// One integer per parameter.
        ledger: Segment,
    },
    /// Writes what a body says as floats. Finds [`KernelResult::Nothing`] or [`KernelResult::Malformed`].
    Expand {
        /// Of which codec.
        coding: Coding,
        /// The body.
        body: Segment,
        /// Its sections.
        sections: Segment,
        /// The floats.
        into: Segment,
    },
    /// Zeroes the velocity where a body has an entry.
    Mask {
        /// Of which codec.
        coding: Coding,
        /// The body.
        body: Segment,
        /// Its sections.
        sections: Segment,
        /// What is zeroed.
        velocity: Segment,
    },
    /// Cuts the residual to ±`limit`. Finds [`KernelResult::Clipped`].
    Clip {
        /// What is cut.
        residual: Segment,
        /// To what.
        limit: f32,
    },
    /// Writes the sum of two threshold bodies. Finds [`KernelResult::Merged`], or [`KernelResult::Unmerged`]: nothing
    /// of use has been written then.
    Merge {
        /// One body.
        one: Segment,
        /// The other.
        other: Segment,
        /// The smallest quantum.
        unit: f32,
        /// Where to write and what is needed for it.
        place: EncodeTarget,
    },
    /// `into = base - unit * ledger`: the replica that the ledger stands for.
    Materialise {
        /// The initial parameters.
        base: Segment,
        /// One integer per parameter.
        ledger: Segment,
        /// What the ledger counts.
        unit: f32,
        /// The parameters.
        into: Segment,
    },
    /// Compares two texts line by line. Finds [`KernelResult::Nothing`] or [`KernelResult::Differs`].
    Compare {
        /// One text.
        ours: Segment,
        /// The other.
        theirs: Segment,
    },
}

impl Kernel {
    /// What it reads; of an [`Encode`](Self::Encode) or a [`Merge`](Self::Merge) the scratch is not said.
    pub fn reads(&self) -> impl Iterator<Item = Segment> {
        let (inputs, others) = match *self {
            Self::Mean { inputs, .. } => (inputs, [None; 3]),
            ref other => ([None; MEAN_MAX], other.operands()),
        };
        inputs.into_iter().flatten().map(|(segment, _)| segment).chain(others.into_iter().flatten())
    }

    fn operands(&self) -> [Option<Segment>; 3] {
        match *self {
            Self::Scan { x } => [Some(x), None, None],
            Self::Apply { from, update, .. } => [Some(from), Some(update), None],
            Self::Accumulate { update, first, into, .. } => [Some(update), (!first).then_some(into), None],
            Self::Blend { x, held, into, .. } => [Some(x), (held > 0).then_some(into), None],
            Self::Copy { from, .. } => [Some(from), None, None],
            Self::Accelerate { update, velocity, .. } => [Some(update), Some(velocity), None],
            Self::Encode { update, residual, place, .. } => [update, Some(residual), Some(place.sections)],
            Self::Decode { body, sections, ledger, .. } => [Some(body), Some(sections), Some(ledger)],
            Self::Expand { body, sections, .. } => [Some(body), Some(sections), None],
            Self::Mask { body, sections, velocity, .. } => [Some(body), Some(sections), Some(velocity)],
            Self::Clip { residual, .. } => [Some(residual), None, None],
            Self::Merge { one, other, place, .. } => [Some(one), Some(other), Some(place.sections)],
            Self::Materialise { base, ledger, .. } => [Some(base), Some(ledger), None],
            Self::Compare { ours, theirs } => [Some(ours), Some(theirs), None],
            Self::Mean { .. } | Self::Section { .. } => [None; 3],
        }
    }

    /// What it writes, besides scratch.
    pub fn writes(&self) -> impl Iterator<Item = Segment> {
        let segments = match *self {
            Self::Scan { .. } | Self::Compare { .. } => [None; 3],
            Self::Apply { into, .. }
            | Self::Accumulate { into, .. }
            | Self::Blend { into, .. }
            | Self::Mean { into, .. }
            | Self::Copy { into, .. }
            | Self::Expand { into, .. }
            | Self::Materialise { into, .. } => [Some(into), None, None],
            Self::Accelerate { velocity, .. } | Self::Mask { velocity, .. } => [Some(velocity), None, None],
            Self::Section { at, .. } => [Some(at), None, None],
            Self::Encode { residual, place, .. } => [Some(residual), Some(place.sections), Some(place.body)],
            Self::Decode { ledger, .. } => [Some(ledger), None, None],
            Self::Clip { residual, .. } => [Some(residual), None, None],
            Self::Merge { place, .. } => [Some(place.body), None, None],
        };
        segments.into_iter().flatten()
    }
}

/// A codec, and how it is to encode one message.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Coding {
    /// As they are.
    F32,
    /// See [`codec::bf16`].
    Bf16,
    /// See [`codec::f16`].
    F16,
    /// See [`codec::int8`].
    Int8,
    /// See [`codec::sign`].
    Sign,
    /// See [`codec::threshold`].
    Threshold(Aim),
    /// See [`codec::topk`].
    TopK {
        /// Elements to send.
        count: u32,
    },
}

/// Where an encoder writes, and what it needs for that.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct EncodeTarget {
    /// A [`Section`] each for the parts of the vector.
    pub sections: Segment,
    /// Two words per element.
    pub scratch: BufferId,
    /// The body: as long as [`Coding::len_max`] says.
    pub body: Segment,
}

impl Coding {
    /// The most bytes that a body over `len` elements in so many sections can take.
    pub fn len_max(&self, len: usize, sections: usize) -> usize {
        4 * match self {
            Self::F32 => len,
            Self::Bf16 => codec::bf16::words(len),
            Self::F16 => codec::f16::words(len),
            Self::Int8 => codec::int8::words(len),
            Self::Sign => codec::sign::words(len),
            // Each section may round up.
            Self::Threshold(_) => codec::threshold::words_max([len]) + (codec::threshold::HEADER_WORDS + 1) * sections,
            Self::TopK { count } => codec::topk::words_max(len, *count as usize),
        }
    }
}

/// What a kernel found out.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub enum KernelResult {
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
    Encoded(Encoded),
    /// The body is none: nothing was touched.
    Malformed(BodyError),
    /// Two bodies are one, of this many bytes.
    Merged {
        /// Its length.
        bytes: u32,
    },
    /// Two bodies are not one.
    Unmerged(MergeError),
    /// The residual was cut.
    Clipped {
        /// Elements cut.
        elements: u32,
        /// How much was cut from all of them.
        lost: f64,
    },
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
pub fn run(kernel: &Kernel, pool: &mut Pool) -> KernelResult {
    match *kernel {
        Kernel::Scan { x } => match scan::first_non_finite(pool.floats(x)) {
            None => return KernelResult::Finite,
            Some(index) => return KernelResult::NonFinite { index: index as u32 },
        },
        Kernel::Apply { from, update, scale, into } if from == into => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), scale));
        }
        Kernel::Apply { from, update, scale, into } => {
            write(pool, into, |pool, into| apply::apply(into, pool.floats(from), pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: true, into } => {
            write(pool, into, |pool, into| apply::scale(into, pool.floats(update), scale));
        }
        Kernel::Accumulate { update, scale, first: false, into } => {
            write(pool, into, |pool, into| apply::in_place(Tier::best(), into, pool.floats(update), -scale));
        }
        Kernel::Blend { x, weight, held, into } => {
            write(pool, into, |pool, into| mean::in_place(Tier::best(), into, held, [(pool.floats(x), weight)]));
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
        Kernel::Accelerate { update, velocity, momentum } => {
            write(pool, velocity, |pool, velocity| momentum::accelerate(velocity, pool.floats(update), momentum));
        }
        Kernel::Section { at, section } => pool.bytes_mut(at).copy_from_slice(section.as_bytes()),
        Kernel::Encode { coding, update, residual, place } => return encode(pool, coding, update, residual, place),
        Kernel::Decode { body, sections, unit, ledger } => {
            let done = pool.write(ledger, |pool, ledger| {
                let (body, sections) = (pool.words(body), pool.sections(sections));
                codec::threshold::add(body, sections, unit, bytemuck::cast_slice_mut(ledger))
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Expand { coding, body, sections, into } => {
            let done = pool.write(into, |pool, into| {
                expand(coding, pool.words(body), pool.sections(sections), bytemuck::cast_slice_mut(into))
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Mask { coding, body, sections, velocity } => {
            let done = pool.write(velocity, |pool, velocity| {
                let (body, sections) = (pool.words(body), pool.sections(sections));
                let velocity: &mut [f32] = bytemuck::cast_slice_mut(velocity);
                match coding {
                    Coding::Threshold(aim) => codec::threshold::mask(body, sections, aim.unit, velocity),
                    Coding::TopK { .. } => codec::topk::read(body, velocity.len(), |index, _| velocity[index] = 0.0),
                    _ => Ok(()),
                }
            });
            return done.map_or_else(KernelResult::Malformed, |()| KernelResult::Nothing);
        }
        Kernel::Clip { residual, limit } => {
            let (elements, lost) = momentum::clip(pool.floats_mut(residual), limit);
            return KernelResult::Clipped { elements, lost };
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

fn write(pool: &mut Pool, into: Segment, write: impl FnOnce(&Pool, &mut [f32])) {
    pool.write(into, |pool, into| write(pool, bytemuck::cast_slice_mut(into)));
}

/// The residual, the sections, the scratch and the body are all written: they are taken out of the pool meanwhile.
fn encode(
    pool: &mut Pool,
    coding: Coding,
    update: Option<Segment>,
    residual: Segment,
    place: EncodeTarget,
) -> KernelResult {
    let mut storages = [place.sections.buffer, place.scratch, place.body.buffer].map(|buffer| pool.take(buffer));
    let [sections, scratch, body] = storages.each_mut().map(|storage| Arc::make_mut(storage).words_mut());
    let sections = <[Section]>::mut_from_bytes(bytemuck::cast_slice_mut(&mut sections[place.sections.words()]))
        .expect("sections are whole");
    let body = &mut body[place.body.words()];
    let encoded = pool.write(residual, |pool, residual| {
        let (update, residual) = (update.map(|update| pool.floats(update)), bytemuck::cast_slice_mut(residual));
        let tier = Tier::best();
        let len = residual.len();
        let dense = match coding {
            Coding::Threshold(aim) => {
                return codec::threshold::encode(tier, aim, update, residual, sections, scratch, body);
            }
            Coding::TopK { count } => return codec::topk::encode(count as usize, update, residual, scratch, body),
            Coding::F32 => codec::float32::encode(update, residual, body),
            Coding::Bf16 => codec::bf16::encode(tier, update, residual, body),
            Coding::F16 => codec::f16::encode(tier, update, residual, body),
            Coding::Int8 => codec::int8::encode(tier, update, residual, body),
            Coding::Sign => codec::sign::encode(tier, update, residual, body),
        };
        dense.encoded(coding.len_max(len, 0) / 4, len)
    });
    for (buffer, storage) in [place.sections.buffer, place.scratch, place.body.buffer].into_iter().zip(storages) {
        pool.replace(buffer, storage);
    }
    KernelResult::Encoded(encoded)
}

fn expand(coding: Coding, body: &[u32], sections: &[Section], into: &mut [f32]) -> Result<(), BodyError> {
    let tier = Tier::best();
    match coding {
        Coding::Threshold(aim) => codec::threshold::expand(body, sections, aim.unit, into),
        Coding::TopK { .. } => codec::topk::expand(body, into),
        Coding::F32 => codec::float32::expand(body, into),
        Coding::Bf16 => codec::bf16::expand(tier, body, into),
        Coding::F16 => codec::f16::expand(tier, body, into),
        Coding::Int8 => codec::int8::expand(tier, body, into),
        Coding::Sign => codec::sign::expand(tier, body, into),
    }
}
