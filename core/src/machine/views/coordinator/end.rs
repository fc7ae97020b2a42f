//! The end of the run, for one worker or for all.

use alloc::vec::Vec;

use super::entry::{Entry, Place};
use super::{Command, Coordinator, Phase};
use crate::id::PeerId;

impl Coordinator {
    /// No worker but this node is here any more.
    pub(in super::super) fn is_alone(&self) -> bool {
        self.ranks(Entry::is_here).all(|worker| worker == self.me)
    }

    /// There was a run, and no worker is here any more.
    pub(in super::super) fn is_over(&self) -> bool {
        self.workers.iter().any(Entry::is_gone) && self.ranks(Entry::is_here).next().is_none()
    }

    /// Can a process with the run's parameters become a member? It was cut off, or a member has lost it.
    pub(super) fn awaits_a_holder(&self) -> bool {
        let is_away = |entry: &Entry| entry.place == Place::Out && !entry.leaves();
        let comes_back = |entry: &Entry| is_away(entry) && entry.member == Some(entry.incarnation);
        let is_left_out = |entry: &Entry| entry.is_wanted() && !entry.chosen && self.holds(entry);
        self.workers.iter().any(|entry| comes_back(entry) || is_left_out(entry))
    }

    /// A run was under way, and no member has its parameters.
    pub(super) fn give_up(&mut self) {
        let members: Vec<_> = self.members().collect();
        for member in members {
            self.expel(member);
        }
    }

    pub(super) fn expel(&mut self, member: PeerId) {
        self.workers[member.index()].place = Place::Gone;
        self.commands.push_back(Command::Refuse { to: member });
    }

    /// Have all members done the last round, or have all workers left?
    pub(super) fn is_at_end(&self) -> bool {
        let ends = self.members().all(|member| self.has_last(&self.workers[member.index()]));
        self.phase != Phase::Gathering && !self.dirty && ends && self.is_enough()
    }

    /// Was this member of the view before left out, because it and another have lost each other, without the last round?
    fn is_left_behind(&self, entry: &Entry) -> bool {
        entry.is_wanted() && !entry.chosen && !self.has_last(entry) && self.is_current(entry)
    }

    /// Can a worker that was left behind get the last round in a view without the other, which has it?
    pub(super) fn owes_a_view(&self) -> bool {
        let choice = self.choice();
        self.ranks(|entry| self.is_left_behind(entry)).any(|worker| choice.contains(&worker))
    }

    /// Does the view that is being prepared leave a worker behind, to which no other worker can give the last round?
    /// The run ends when they meet again, or when one of them is lost.
    pub(super) fn holds_the_end(&self) -> bool {
        let ends = self.members().all(|member| self.has_last(&self.workers[member.index()]));
        self.phase == Phase::Preparing && ends && self.workers.iter().any(|entry| self.is_left_behind(entry))
    }

    /// At the end, the run is over.
    pub(super) fn maybe_release(&mut self) {
        if !self.is_at_end() || self.holds_the_end() {
            return;
        }
        self.over = self.over || self.members().next().is_some();
        self.release(|this, entry| this.has_last(entry) || entry.leaves());
        // A worker that the last view has left out comes too late, unless it has the last round itself.
        let late: Vec<_> = self.ranks(|entry| entry.is_wanted() && !entry.chosen && !entry.released).collect();
        for worker in late {
            self.expel(worker);
        }
    }

    pub(super) fn release(&mut self, due: impl Fn(&Self, &Entry) -> bool) {
        let released: Vec<_> = self.ranks(|entry| due(self, entry) && !entry.released && !entry.is_gone()).collect();
        for worker in released {
            self.workers[worker.index()].released = true;
            self.commands.push_back(Command::Release { to: worker });
        }
    }
}
