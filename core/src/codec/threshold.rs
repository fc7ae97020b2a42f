//! Threshold: elements whose accumulated update has reached a threshold are sent as integer counts of a quantum, ±tau
//! each (Strom 2015). The rest stays in the residual.
//!
//! The arithmetic of one pass is in `kernel/threshold.rs`, the coding of lists in `codec/entries.rs`. This folder has
//! the body (`encode.rs`, `decode.rs`, `merge.rs`) and the controllers that choose the threshold (`control.rs`).
//!
//! The vector is divided into [`Section`]s: one per tensor, or a single one. A body has for each section a header of
//! four words and a list of entries:
//!
//! | word | content |
//! |---|---|
//! | 0 | number of entries |
//! | 1 | tau, as a float |
//! | 2 | form of the list: see [`Form`](super::Form) |
//! | 3 | length of the list in words |
//!
//! # Units and ledgers
//!
//! All quanta of a run are powers of two between its *unit* and 2^16 units. A *ledger* is a vector of integers that
//! counts units: an entry adds `count << log2(tau / unit)` to its element ([`ledger`](crate::kernel::ledger)). This is exact and does not depend on
//! the order of messages. So each peer may choose its own quantum for each message, and replicas stay equal bit for
//! bit.

mod control;
mod decode;
mod encode;
mod merge;

#[doc(hidden)] // For the gpu crate, benches and fuzzing; no stable API.
pub use {
    control::{Choice, RUN, Sample, choose, quantum},
    decode::{add, expand, list, mask, read},
    encode::{encode, words_max, write},
    merge::merge,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::BodyError;
use crate::buffer::{Pool, Segment};
use crate::recipe::{Control, Threshold};

/// Length of a section's header in words.
pub const HEADER_WORDS: usize = 4;

/// A range of the vector with a threshold of its own, and the state of its controller. Kept in a buffer of the machine,
/// so that it survives a suspension.
#[derive(Copy, Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Section {
    /// Index of the first element in the vector.
    pub first: u32,
    /// Number of elements.
    pub len: u32,
    /// The threshold of the last message. Before the first message: the threshold to start with.
    pub threshold: f32,
    /// Bits per entry of the last message that had entries. 0 before.
    pub bits: f32,
}

// Here and not in `buffer.rs`, because buffers know no codec. For the gpu crate; no stable API.
#[doc(hidden)]
impl Pool {
    /// The sections of a range.
    ///
    /// # Panics
    /// If the range is not a whole number of sections.
    pub fn sections(&self, segment: Segment) -> &[Section] {
        <[Section]>::ref_from_bytes(self.bytes(segment)).expect("sections are whole")
    }

    /// The sections of a range, for writing.
    ///
    /// # Panics
    /// If the range is not a whole number of sections.
    pub fn sections_mut(&mut self, segment: Segment) -> &mut [Section] {
        <[Section]>::mut_from_bytes(self.bytes_mut(segment)).expect("sections are whole")
    }
}

/// The settings with which one message is encoded.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Aim {
    /// The smallest quantum of the run.
    pub unit: f32,
    /// The controller that chooses the threshold.
    pub control: Control,
    /// The quantum of [`Control::Fixed`]. Other controllers do not use it.
    pub tau: f32,
    /// Encode with the smallest quantum, not with the controller's: a warm-up message, or a last message with
    /// [`End::Send`](crate::recipe::End::Send). An element can carry at most 2^15 - 1 units, about 128 times the tau of the recipe.
    pub dense: bool,
}

impl Aim {
    /// The settings of a recipe. `scale`: factor on tau, the ratio of the current learning rate to the initial one.
    pub fn of(threshold: &Threshold, scale: f32) -> Self {
        let (unit, max) = (threshold.unit(), threshold.tau_max());
        let tau = (threshold.tau * scale).clamp(unit, max);
        Self { unit, control: threshold.control, tau, dense: false }
    }

    fn tau_max(&self) -> f32 {
        self.unit * (1u32 << Threshold::SPAN) as f32
    }
}

/// Why two bodies could not be merged.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum MergeError {
    /// The sum of two counts exceeds the largest count of an entry.
    TooMany,
    /// One of the bodies is malformed.
    Body(BodyError),
}

impl From<BodyError> for MergeError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

#[cfg(test)]
mod tests;
