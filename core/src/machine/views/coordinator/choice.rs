//! Which states count, which workers become members of the next view, and whether the next view can be formed.

use alloc::vec::Vec;

use super::entry::Entry;
use super::{Coordinator, Quorum};
use crate::id::{PeerId, Sequence};
use crate::time::Instant;

impl Coordinator {
    /// The newest view that a worker has entered.
    pub(super) fn newest(&self) -> Sequence {
        let entered = self.workers.iter().filter_map(|entry| entry.report).map(|report| report.entered);
        entered.max().unwrap_or(Sequence(0)).max(self.view.number)
    }

    /// Was this worker a member of the view before, whether or not it has heard of that?
    pub(super) fn is_current(&self, entry: &Entry) -> bool {
        entry.member == Some(entry.incarnation) || entry.report.is_some_and(|report| report.entered == self.newest())
    }

    /// Does the state of this worker, which has stopped, count? A worker that was to take the donor's state in the view
    /// before has that state only if it has entered the view.
    pub(super) fn counts(&self, entry: &Entry) -> bool {
        let has_entered = entry.report.is_some_and(|report| report.entered == self.newest());
        entry.done || has_entered || (entry.member == Some(entry.incarnation) && !entry.returns)
    }

    /// Has the worker reported that the last round is done? The last round of an earlier view is no last round in a
    /// later one to which a newcomer may have contributed.
    pub(super) fn has_last(&self, entry: &Entry) -> bool {
        entry.report.is_some_and(|report| report.last) && (entry.done || self.is_current(entry))
    }

    /// Does this worker have parameters of the run that count?
    pub(super) fn holds(&self, entry: &Entry) -> bool {
        entry.report.is_some_and(|report| report.has) && self.counts(entry)
    }

    /// Have these workers lost each other?
    pub(super) fn in_conflict(&self, one: PeerId, other: PeerId) -> bool {
        let (one, other) = (one.index(), other.index());
        self.workers[one].has_lost(other) || self.workers[other].has_lost(one)
    }

    /// Have any two workers lost each other?
    pub(in super::super) fn has_conflicts(&self) -> bool {
        self.conflicts
    }

    /// The losses of a worker have changed.
    pub(super) fn note_conflicts(&mut self) {
        self.conflicts = self.workers.iter().any(|entry| !entry.lost.is_empty());
    }

    /// The members of the next view, by rank: wanted workers, no two of which have lost each other. The coordinator's node comes
    /// first, then the members of the view before. Within both groups, the workers that the coordinator has heard all
    /// the time come first, then the holders of the run's parameters, then the workers with the fewest conflicts. At
    /// the end of the run, workers that lack the last round come before workers that have it and need no further view,
    /// if a worker can give it to them.
    pub(super) fn choice(&self) -> Vec<PeerId> {
        let may = |entry: &Entry| entry.is_wanted() && (!self.closing || entry.done || self.is_current(entry));
        let wanted: Vec<PeerId> = self.ranks(may).collect();
        if !self.has_conflicts() {
            return wanted;
        }
        let conflicts = |worker: PeerId| wanted.iter().filter(|other| self.in_conflict(worker, **other)).count();
        let gives = |worker: PeerId| {
            let entry = &self.workers[worker.index()];
            self.has_last(entry) && (worker == self.me || conflicts(worker) == 0)
        };
        let is_given = wanted.iter().any(|worker| gives(*worker));
        let rank = |worker: &PeerId| {
            let entry = &self.workers[worker.index()];
            let (is_current, holds) = (self.is_current(entry), self.holds(entry));
            let needs_nothing = is_given && self.has_last(entry);
            let was_away = entry.given_up || !entry.connected;
            (*worker != self.me, !is_current, needs_nothing, was_away, !holds, conflicts(*worker), *worker)
        };
        let mut order = wanted.clone();
        order.sort_by_cached_key(rank);
        let mut chosen = Vec::with_capacity(order.len());
        for worker in order {
            if !chosen.iter().any(|member| self.in_conflict(worker, *member)) {
                chosen.push(worker);
            }
        }
        chosen.sort_unstable();
        chosen
    }

    /// Can the next view be formed? After a time without a quorum, all members of the view before are waited for: a
    /// member that comes back a little later must not find that the run is over.
    pub(super) fn is_time(&mut self, now: Instant) -> bool {
        if !self.is_enough() {
            (self.short, self.enough_since) = (true, None);
            return false;
        }
        let choice = self.choice();
        let left = |entry: &Entry| entry.is_gone() || entry.leaves();
        let missing = |member: &PeerId| choice.binary_search(member).is_err() && !left(&self.workers[member.index()]);
        if self.short && self.view.members.iter().any(missing) {
            let since = *self.enough_since.get_or_insert(now);
            if now < since.after(self.grace) {
                return false;
            }
        }
        (self.short, self.enough_since) = (false, None);
        true
    }

    /// Is the quorum reached?
    pub(super) fn is_enough(&self) -> bool {
        let choice = self.choice();
        let left = |entry: &Entry| entry.is_gone() || entry.leaves();
        #[cfg(planted)]
        let left = |entry: &Entry| {
            let given_up = entry.report.is_none() && entry.place == super::entry::Place::Out;
            left(entry) || (given_up && self.bug == Some(crate::planted::Bug::EjectedAsLeft))
        };
        #[cfg(planted)]
        if let (Quorum::Fixed(quorum), Some(crate::planted::Bug::QuorumOffByOne)) = (self.quorum, self.bug) {
            return (choice.len() + self.ranks(left).count()) as u32 + 1 >= quorum;
        }
        match self.quorum {
            Quorum::Fixed(quorum) => (choice.len() + self.ranks(left).count()) as u32 >= quorum,
            Quorum::Half if self.view.number > Sequence(0) => {
                let before = || self.view.members.iter().filter(|member| !left(&self.workers[member.index()]));
                2 * before().filter(|member| choice.binary_search(member).is_ok()).count() >= before().count()
            }
            // Before the first view, all workers count.
            Quorum::Half if self.newest() == Sequence(0) => {
                2 * choice.len() >= self.workers.iter().filter(|entry| !left(entry)).count()
            }
            // A coordinator that was restarted knows the size of the view before, and not its members.
            Quorum::Half => 2 * choice.len() >= self.size_before() as usize,
        }
    }

    /// Members of the newest view that a worker has entered, as the workers say.
    pub(super) fn size_before(&self) -> u32 {
        let reports = self.workers.iter().filter_map(|entry| entry.report);
        let newest = self.newest();
        reports.filter(|report| report.entered == newest).map(|report| report.members).max().unwrap_or(0)
    }
}
