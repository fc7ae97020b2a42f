//! Threshold: quanta with residual. The arithmetic is in [`kernel::threshold`](crate::kernel::threshold), the
//! index coding in [`entries`]; here is the body, and who chooses the threshold.
//!
//! A body is one section per tensor, or one for all, each a header of four words and a list of entries:
//!
//! | word | |
//! |---|---|
//! | 0 | entries |
//! | 1 | tau, as a float |
//! | 2 | form of the list |
//! | 3 | words of the list |
//!
//! tau of a run lies between a unit and 2^16 units, and a ledger counts in units: whatever quantum a message has,
//! `count << log2(tau / unit)` is what it adds, exactly and in any order. So every peer may choose its own quantum
//! for every message, and replicas stay equal bit for bit.

mod control;
mod decode;
mod encode;
mod merge;

#[doc(hidden)] // For the gpu crate, benches and fuzzing; no stable API.
pub use {
    control::{Choice, RUN, Sample, choose, quantum},
    decode::{add, expand, list, mask},
    encode::{encode, words_max, write},
    merge::merge,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::BodyError;
use crate::buffer::{Pool, Segment};
use crate::recipe::{Control, Threshold};

/// Words of a section's header.
pub const HEADER_WORDS: usize = 4;

/// A part of the vector with a threshold of its own, and what its controller remembers.
#[derive(Copy, Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Section {
    /// Its first element.
    pub first: u32,
    /// Its elements.
    pub len: u32,
    /// The threshold: of the last message, or the one to start with.
    pub threshold: f32,
    /// Bits per entry of the last message that had any; 0 before.
    pub bits: f32,
}

impl Pool {
    /// Reads a range as sections.
    pub fn sections(&self, segment: Segment) -> &[Section] {
        <[Section]>::ref_from_bytes(self.bytes(segment)).expect("sections are whole")
    }

    /// Writes a range as sections.
    pub fn sections_mut(&mut self, segment: Segment) -> &mut [Section] {
        <[Section]>::mut_from_bytes(self.bytes_mut(segment)).expect("sections are whole")
    }
}

/// How one message is encoded.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Aim {
    /// The smallest quantum.
    pub unit: f32,
    /// Who chooses the threshold.
    pub control: Control,
    /// The quantum to start with, or to keep.
    pub tau: f32,
    /// Everything that is at least a unit, as far as counts go (128 times the tau of the recipe): a dense message, or
    /// a leaver's last.
    pub dense: bool,
}

impl Aim {
    /// The recipe's choice, with the threshold scaled by `scale` (the learning rate's).
    pub fn of(threshold: &Threshold, scale: f32) -> Self {
        let (unit, max) = (threshold.unit(), threshold.tau_max());
        let tau = (threshold.tau * scale).clamp(unit, max);
        Self { unit, control: threshold.control, tau, dense: false }
    }

    fn tau_max(&self) -> f32 {
        self.unit * (1u32 << Threshold::SPAN) as f32
    }
}

/// Why two bodies have not become one.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum MergeError {
    /// An element would have more quanta than an entry can carry.
    TooMany,
    /// One of them is none.
    Body(BodyError),
}

impl From<BodyError> for MergeError {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

#[cfg(test)]
mod tests;
