//! When a worker may go on: stale-synchronous parallel (Ho et al. 2013, section 3), with bulk-synchronous and
//! asynchronous as its ends.
//!
//! A worker's clock counts its completed steps. The server's row clock is the number of steps that it has of
//! *every* member: all updates of earlier steps are in the parameters. A worker at clock c may read them when
//! `row >= c - s`: nobody computes with a lead above s, and `max - min <= s + 1`. s = 0 is bulk-synchronous; no
//! bound is asynchronous. The slowest member is never held back.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Clock, PeerId};
use crate::recipe::{Pace, Recipe};

/// The largest lead with which a worker may compute; `None`: any.
pub(crate) fn lead_max(recipe: &Recipe) -> Option<u64> {
    match recipe.pace {
        Pace::Synchronous => Some(0),
        Pace::Stale { bound } => Some(bound),
        Pace::Asynchronous { .. } => None,
    }
}

/// May a worker at clock `clock` read parameters of row clock `row`?
pub(crate) fn may_read(clock: Clock, row: Clock, lead_max: Option<u64>) -> bool {
    lead_max.is_none_or(|bound| clock.ahead_of(row) <= bound)
}

/// How many contributions a worker may have under way: with two, it computes while one travels.
pub(crate) fn window(recipe: &Recipe) -> usize {
    match recipe.pace {
        Pace::Synchronous | Pace::Stale { bound: 0 } | Pace::Asynchronous { overlap: false } => 1,
        Pace::Stale { .. } | Pace::Asynchronous { overlap: true } => 2,
    }
}

/// The clocks of the members. One who dies leaves it: a dead clock would hold back everyone for ever.
#[derive(Clone, Debug)]
pub(crate) struct VectorClock {
    entries: Vec<Entry>,
    /// The row clock when the last member left, so that it never falls.
    floor: Clock,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    clock: Clock,
    member: bool,
}

impl VectorClock {
    pub(crate) fn new(workers: u32) -> Self {
        Self { entries: vec![Entry { clock: Clock(0), member: false }; workers as usize], floor: Clock(0) }
    }

    /// Smallest clock of a member.
    pub(crate) fn row(&self) -> Clock {
        self.slowest().map_or(self.floor, |(_, clock)| clock)
    }

    /// The member with the smallest clock; of several, the one of the lowest rank.
    pub(crate) fn slowest(&self) -> Option<(PeerId, Clock)> {
        let members = self.entries.iter().enumerate().filter(|(_, entry)| entry.member);
        members.min_by_key(|(_, entry)| entry.clock).map(|(rank, entry)| (PeerId(rank as u32), entry.clock))
    }

    /// Before anyone has entered: the row that the first enter at.
    pub(crate) fn begin_at(&mut self, floor: Clock) {
        self.floor = floor;
    }

    /// Enters a worker, at a clock not below the slowest.
    pub(crate) fn join(&mut self, worker: PeerId, clock: Clock) {
        debug_assert!(clock >= self.row());
        self.entries[worker.index()] = Entry { clock, member: true };
    }

    pub(crate) fn leave(&mut self, worker: PeerId) {
        self.floor = self.row();
        self.entries[worker.index()].member = false;
    }

    /// One more step of this worker is in.
    pub(crate) fn tick(&mut self, worker: PeerId) {
        let entry = &mut self.entries[worker.index()];
        entry.clock = entry.clock.next();
    }

    pub(crate) fn clock(&self, worker: PeerId) -> Clock {
        self.entries[worker.index()].clock
    }

    pub(crate) fn is_member(&self, worker: PeerId) -> bool {
        self.entries[worker.index()].member
    }

    #[cfg(planted)]
    /// Smallest clock of anyone who ever took part.
    pub(crate) fn row_of_all(&self) -> Clock {
        self.entries.iter().map(|entry| entry.clock).min().unwrap_or(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_of_the_bound_may_read_and_one_more_may_not() {
        assert!(may_read(Clock(5), Clock(2), Some(3)));
        assert!(!may_read(Clock(6), Clock(2), Some(3)));
        assert!(may_read(Clock(6), Clock(2), None));
        assert!(may_read(Clock(1), Clock(2), Some(0)));
    }

    #[test]
    fn the_row_is_the_slowest_member_and_never_falls() {
        let mut clocks = VectorClock::new(3);
        for worker in 0..3 {
            clocks.join(PeerId(worker), Clock(0));
        }
        for worker in [0, 0, 1, 2, 1] {
            clocks.tick(PeerId(worker));
        }
        assert_eq!(clocks.slowest(), Some((PeerId(2), Clock(1))));
        clocks.leave(PeerId(2));
        assert_eq!(clocks.row(), Clock(2));
        clocks.join(PeerId(2), clocks.row());
        assert_eq!(clocks.clock(PeerId(2)), Clock(2));
        for worker in 0..3 {
            clocks.leave(PeerId(worker));
        }
        assert_eq!(clocks.row(), Clock(2));
        assert_eq!(clocks.slowest(), None);
    }
}
