//! The coordinator's record of a worker.

use alloc::vec::Vec;

use super::RANKS;
use crate::id::Incarnation;
use crate::wire::Report;

/// A worker, as the coordinator knows it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) report: Option<Report>,
    /// The process that sent the report.
    pub(super) incarnation: Incarnation,
    pub(super) place: Place,
    /// The process that was a member of the view.
    pub(super) member: Option<Incarnation>,
    /// The worker is to be a member of the view that is being prepared, or is a member of the view.
    pub(super) chosen: bool,
    /// The run has gone on without the worker before the view.
    pub(super) returns: bool,
    /// The workers that this one has lost: 64 ranks in each word.
    pub(super) lost: Vec<u64>,
    /// The worker had the last round when it was left out of a view, and no newcomer has become a member since.
    pub(super) done: bool,
    /// The worker has been told that the run is over for it.
    pub(super) released: bool,
    /// The coordinator's node is connected with it.
    pub(super) connected: bool,
    /// The coordinator had given it up after the view was committed.
    pub(super) given_up: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not heard of, given up, or about to leave.
    Out,
    /// To be a member of the next view, unless it has lost a member.
    Wanted,
    /// The worker has left, was lost after its release, or came too late.
    Gone,
}

impl Entry {
    pub(super) const NEW: Self = Self {
        report: None,
        incarnation: Incarnation(0),
        place: Place::Out,
        member: None,
        chosen: false,
        returns: false,
        lost: Vec::new(),
        done: false,
        released: false,
        connected: false,
        given_up: false,
    };

    pub(super) fn is_wanted(&self) -> bool {
        self.place == Place::Wanted
    }

    pub(super) fn is_gone(&self) -> bool {
        self.place == Place::Gone
    }

    /// The worker is a member of the view, or of the one that is being prepared.
    pub(super) fn is_in(&self) -> bool {
        self.chosen && self.is_wanted()
    }

    /// The worker has lost the worker of this rank.
    pub(super) fn has_lost(&self, rank: usize) -> bool {
        self.lost.get(rank / RANKS).is_some_and(|mask| mask & 1 << (rank % RANKS) != 0)
    }

    /// The worker has reported that it leaves.
    pub(super) fn leaves(&self) -> bool {
        self.report.is_some_and(|report| report.leaves)
    }

    /// The worker takes part, or leaves and has not said goodbye: it still needs the coordinator.
    pub(super) fn is_here(&self) -> bool {
        self.is_wanted() || (self.leaves() && !self.is_gone())
    }
}
