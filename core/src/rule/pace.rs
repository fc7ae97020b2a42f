//! When a worker may go on: stale-synchronous parallel (Ho et al. 2013, section 3). Bulk-synchronous and asynchronous
//! are its limits.
//!
//! A worker's clock counts its completed steps. The server's *row clock* is the smallest clock of a member, so the
//! parameters contain all updates of steps before it. A worker at clock c may read the parameters when `row >= c - s`,
//! where s is the bound. Then no worker computes with a lead above s, and `max - min <= s + 1`. s = 0 is
//! bulk-synchronous, no bound is asynchronous. The slowest member never waits, so the rule cannot deadlock.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Clock, PeerId};
use crate::recipe::{Grace, Late, Pace, Recipe};

/// The largest lead with which a worker may compute, in clocks: s above. `None`: no bound.
pub(crate) fn lead_max(recipe: &Recipe) -> Option<u64> {
    match recipe.pace {
        Pace::Synchronous | Pace::First { .. } => Some(0),
        Pace::Stale { bound } => Some(bound),
        Pace::Asynchronous { .. } => None,
    }
}

/// True if a worker at clock `clock` may read parameters of row clock `row`.
pub(crate) fn may_read(clock: Clock, row: Clock, lead_max: Option<u64>) -> bool {
    lead_max.is_none_or(|bound| clock.ahead_of(row) <= bound)
}

/// The number of unanswered contributions that a worker may have. With 2, it computes the next one while the previous
/// one is in flight.
pub(crate) fn window(recipe: &Recipe) -> usize {
    match recipe.pace {
        Pace::Synchronous | Pace::Stale { bound: 0 } | Pace::Asynchronous { overlap: false } | Pace::First { .. } => 1,
        // With a bound of 1 or more, a worker may be ahead, so it need not wait for the answer to its last
        // contribution.
        Pace::Stale { .. } | Pace::Asynchronous { overlap: true } => 2,
    }
}

/// A round that does not wait for all members (`pace=first`): Chen et al. 2016, section 3.2, with a grace.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct First {
    /// Contributions that a round waits for, at least 1.
    pub(crate) count: u32,
    /// How long it waits for more, once it has these.
    pub(crate) grace: Grace,
    /// The treatment of contributions that come after its end.
    pub(crate) late: Late,
}

impl First {
    /// The numbers of the recipe's rounds in a cluster of so many workers; `None` if its rounds wait for all, or if it
    /// has no rounds.
    pub(crate) fn new(recipe: &Recipe, workers: u32) -> Option<Self> {
        match recipe.pace {
            Pace::First { count, grace, late } => Some(Self { count: count.of(workers), grace, late }),
            _ => None,
        }
    }
}

/// The clocks of the members at a server. A member is a worker that takes part; a lost worker is removed, because its
/// clock would hold back the row, and with it every other worker, forever.
#[derive(Clone, Debug)]
pub(crate) struct VectorClock {
    /// One entry per worker, by rank.
    entries: Vec<Entry>,
    /// A tournament of the members: the winner is the slowest. Match `i` has the winners of `2 i` and `2 i + 1`; those
    /// from the number of workers on are the workers. So a change takes one match per round, and not a look at all.
    matches: Vec<Option<PeerId>>,
    /// The row clock when a member last left. It is the row while there are no members, so that the row never falls.
    floor: Clock,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    clock: Clock,
    member: bool,
}

impl VectorClock {
    pub(crate) fn new(workers: u32) -> Self {
        let entries = vec![Entry { clock: Clock(0), member: false }; workers as usize];
        Self { entries, matches: vec![None; workers as usize], floor: Clock(0) }
    }

    /// The row clock: the smallest clock of a member.
    pub(crate) fn row(&self) -> Clock {
        self.slowest().map_or(self.floor, |(_, clock)| clock)
    }

    /// The member with the smallest clock, and among equals the lowest rank.
    pub(crate) fn slowest(&self) -> Option<(PeerId, Clock)> {
        let slowest = self.winner(1)?;
        Some((slowest, self.clock(slowest)))
    }

    /// The winner of a match; of a worker alone: the worker, if it is a member.
    fn winner(&self, number: usize) -> Option<PeerId> {
        match number.checked_sub(self.entries.len()) {
            Some(rank) => self.entries.get(rank).filter(|entry| entry.member).map(|_| PeerId(rank as u32)),
            None => self.matches[number],
        }
    }

    /// Plays the matches of a worker again, after a change of its entry.
    fn replay(&mut self, worker: PeerId) {
        let mut number = (self.entries.len() + worker.index()) / 2;
        while number > 0 {
            let both = [self.winner(2 * number), self.winner(2 * number + 1)].into_iter().flatten();
            self.matches[number] = both.min_by_key(|worker| (self.clock(*worker), *worker));
            number /= 2;
        }
    }

    /// Sets the row clock for a server that starts with restored parameters. Call it before the first member joins.
    pub(crate) fn begin_at(&mut self, floor: Clock) {
        self.floor = floor;
    }

    /// Adds a member. `clock` must not be below the row, or the row would fall.
    pub(crate) fn join(&mut self, worker: PeerId, clock: Clock) {
        debug_assert!(clock >= self.row());
        self.join_round(worker, clock);
    }

    /// Adds a member to a round that does not wait for all: other members can be rounds behind, and the row is not used.
    pub(crate) fn join_round(&mut self, worker: PeerId, round: Clock) {
        self.entries[worker.index()] = Entry { clock: round, member: true };
        self.replay(worker);
    }

    /// Moves a member to this clock.
    pub(crate) fn advance(&mut self, worker: PeerId, clock: Clock) {
        debug_assert!(self.is_member(worker));
        self.entries[worker.index()].clock = clock;
        self.replay(worker);
    }

    /// The members, by rank, and their clocks.
    pub(crate) fn members(&self) -> impl Iterator<Item = (PeerId, Clock)> {
        let members = self.entries.iter().enumerate().filter(|(_, entry)| entry.member);
        members.map(|(rank, entry)| (PeerId(rank as u32), entry.clock))
    }

    /// Removes a member.
    pub(crate) fn leave(&mut self, worker: PeerId) {
        // Before the removal: if this was the last member, the row stays where it was.
        self.floor = self.row();
        self.entries[worker.index()].member = false;
        self.replay(worker);
    }

    /// Counts one more step of this worker.
    pub(crate) fn tick(&mut self, worker: PeerId) {
        let entry = &mut self.entries[worker.index()];
        entry.clock = entry.clock.next();
        self.replay(worker);
    }

    pub(crate) fn clock(&self, worker: PeerId) -> Clock {
        self.entries[worker.index()].clock
    }

    pub(crate) fn is_member(&self, worker: PeerId) -> bool {
        self.entries[worker.index()].member
    }

    #[cfg(planted)]
    /// Smallest clock of all workers, lost ones included.
    pub(crate) fn row_of_all(&self) -> Clock {
        self.entries.iter().map(|entry| entry.clock).min().unwrap_or(self.floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_may_read_at_a_lead_of_the_bound_but_not_above() {
        assert!(may_read(Clock(5), Clock(2), Some(3)));
        assert!(!may_read(Clock(6), Clock(2), Some(3)));
        assert!(may_read(Clock(6), Clock(2), None));
        assert!(may_read(Clock(1), Clock(2), Some(0)));
    }

    #[test]
    fn the_row_is_the_clock_of_the_slowest_member_and_never_falls() {
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

    /// Of equal clocks, the lowest rank: rounds take contributions in this order.
    #[test]
    fn the_slowest_is_the_first_of_the_members_with_the_smallest_clock_in_clusters_of_any_size() {
        for workers in 1..20u32 {
            let mut clocks = VectorClock::new(workers);
            let mut state = u64::from(workers);
            for _ in 0..400 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let worker = PeerId((state >> 33) as u32 % workers);
                match (state >> 60, clocks.is_member(worker)) {
                    (0, true) => clocks.leave(worker),
                    (1, true) => clocks.advance(worker, Clock(clocks.clock(worker).0 + 3)),
                    (_, true) => clocks.tick(worker),
                    (_, false) => clocks.join(worker, clocks.row()),
                }
                assert_eq!(clocks.slowest(), clocks.members().min_by_key(|(_, clock)| *clock), "{workers} workers");
            }
        }
    }
}
