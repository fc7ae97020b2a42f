//! One shard as a worker has it.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::buffer::BufferId;
use crate::id::{Clock, Sequence};
use crate::rider::Rider;

#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The first float of the shard in the vector.
    pub(super) first: usize,
    /// Floats of the shard.
    pub(super) len: usize,
    /// The version that was received last.
    pub(super) version: Clock,
    /// The version that the application computes with.
    pub(super) base: Clock,
    /// The version that the last contribution with a body was computed from.
    pub(super) last_base: Clock,
    /// With B-FASGD: the mean magnitude that the server has told. `None`: it may not have this worker's last contribution.
    pub(super) magnitude: Option<Rider>,
    /// The shard's part of the last contributions, by slot.
    pub(super) pushed: Vec<Pushed>,
    /// Their encoded bodies, by slot. Empty if they travel as floats.
    pub(super) bodies: Vec<BufferId>,
    /// Where bodies of this shard begin in the buffer of pulled bodies.
    pub(super) pull_start: u64,
    /// The row clock of `version`: every worker's contributions of earlier clocks are in it.
    pub(super) clock: Clock,
    /// This worker's own steps.
    pub(super) own: Clock,
    /// The last contribution that the server has answered.
    pub(super) answered: Sequence,
    /// The last own contribution that is in the parameters which were received last.
    pub(super) held: Sequence,
    pub(super) progress: Progress,
    /// The transmission of the parameters broke off: they are partly old, partly new.
    pub(super) torn: bool,
    /// A row has arrived that is not in the view yet.
    pub(super) newer: bool,
}

/// One shard of a contribution.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Pushed {
    /// The version that the contribution was computed from.
    pub(super) base: Clock,
    /// Bytes of the body, once it has been encoded.
    pub(super) length: Option<u32>,
    /// It has been pushed before.
    pub(super) sent: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// No parameters have arrived, or the server has restarted since.
    Awaited,
    Idle,
    Receiving,
    /// The final parameters are here.
    Final,
}

impl Row {
    /// A row with the buffers of so many contributions.
    pub(super) fn new(range: Range<usize>, bodies: Vec<BufferId>, pull_start: u64) -> Self {
        Self {
            first: range.start,
            len: range.len(),
            version: Clock(0),
            base: Clock(0),
            last_base: Clock(0),
            magnitude: None,
            pushed: vec![Pushed::default(); bodies.len()],
            bodies,
            pull_start,
            clock: Clock(0),
            own: Clock(0),
            answered: Sequence(0),
            held: Sequence(0),
            progress: Progress::Awaited,
            torn: false,
            newer: false,
        }
    }

    /// Bytes of the shard as floats.
    pub(super) fn bytes(&self) -> u32 {
        self.len as u32 * 4
    }
}
