//! Who is a member: the coordinator of a collective's views, hosted by rank 0.
//!
//! ```text
//! a report that changes something -> Prepare(n) to all who are to be members -> each stops, reports (n, round)
//!                                 -> all have -> Commit(n, members, round, donor)
//! ```
//! A *view* is a numbered list of members. Between two views everyone stops, so that the coordinator sees which rounds
//! are done: a round is done everywhere if it is done anywhere, because whoever lacks its result takes the parameters
//! of one who has them (the *donor*). So a round is all or nothing, and two views never share one.
//!
//! The state is short, and all of it is in the members' reports: a coordinator that starts anew asks them, and goes on
//! with a higher number. Members need it only when something changes.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::time::{Duration, Instant};

/// What a member says of itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) incarnation: Incarnation,
    /// The last view that it has heard of.
    pub(super) view: Sequence,
    /// Rounds that it has done.
    pub(super) round: Clock,
    /// It has the parameters of that round.
    pub(super) has: bool,
    /// It makes no more contributions, and does not wait for the end.
    pub(super) leaves: bool,
    /// The last round is done.
    pub(super) last: bool,
    /// A connection between members broke within this view.
    pub(super) broken: bool,
    /// A member that it has lost.
    pub(super) suspect: Option<PeerId>,
}

/// What the coordinator wants said.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Prepare {
        to: PeerId,
    },
    Commit {
        to: PeerId,
    },
    /// The run is over for it.
    Release {
        to: PeerId,
    },
    /// It was given up, or comes when the run is over.
    Refuse {
        to: PeerId,
    },
}

/// A committed view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) number: Sequence,
    /// In order of rank.
    pub(super) members: Vec<PeerId>,
    /// Rounds done.
    pub(super) round: Clock,
    /// Who has their result.
    pub(super) donor: PeerId,
    /// That was the last round.
    pub(super) last: bool,
}

#[derive(Debug)]
pub(super) struct Coordinator {
    me: PeerId,
    entries: Vec<Entry>,
    /// The highest number given out.
    number: Sequence,
    view: View,
    phase: Phase,
    /// The next view is due.
    dirty: bool,
    commands: VecDeque<Command>,
    /// Fewest members that a view may have.
    quorum: u32,
    /// How long to wait for the members of a run that was under way before this coordinator.
    grace: Duration,
    /// Since when it has known that there was one.
    since: Option<Instant>,
    /// Someone has had parameters.
    begun: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Until enough have come to begin with.
    Gathering,
    Steady,
    /// Until all have stopped.
    Preparing,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    report: Option<Report>,
    /// It is to be a member of the next view.
    wanted: bool,
    /// It was given up; its former self must not come back.
    ejected: Option<Incarnation>,
    released: bool,
    /// It has left, or has said goodbye after it was released.
    gone: bool,
}

impl Coordinator {
    pub(super) fn new(me: PeerId, workers: u32, quorum: u32, grace: Duration) -> Self {
        let entry = Entry { report: None, wanted: false, ejected: None, released: false, gone: false };
        let none = View { number: Sequence(0), members: Vec::new(), round: Clock(0), donor: me, last: false };
        Self {
            me,
            entries: vec![entry; workers as usize],
            number: Sequence(0),
            view: none,
            phase: Phase::Gathering,
            dirty: false,
            commands: VecDeque::with_capacity(2 * workers as usize),
            quorum: quorum.clamp(1, workers),
            grace,
            since: None,
            begun: false,
        }
    }

    pub(super) fn take(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The number that is being prepared, or the last.
    pub(super) fn number(&self) -> Sequence {
        self.number
    }

    /// Is there a run that was not begun by this coordinator's own parameters just now?
    pub(super) fn knows_of_a_run(&self) -> bool {
        self.since.is_some() || self.view.number > Sequence(0)
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| self.phase == Phase::Gathering && !self.resumes())?;
        Some(since.after(self.grace))
    }

    /// Does everyone go on from a checkpoint? Then everyone is waited for, as at a start.
    fn resumes(&self) -> bool {
        let own = self.entries.get(self.me.index()).and_then(|entry| entry.report);
        let run = self.entries.iter().any(|entry| entry.report.is_some_and(|report| report.view > Sequence(0)));
        own.is_some_and(|report| report.has && report.round > Clock(0)) && !run
    }

    /// Whom it waits for itself.
    pub(super) fn awaited(&self) -> Option<PeerId> {
        let ending = self.entries.iter().any(|entry| entry.report.is_some_and(|report| report.last));
        let missing = |entry: &Entry| match self.phase {
            Phase::Gathering => entry.report.is_none() && !entry.gone,
            Phase::Preparing if !self.dirty => {
                entry.wanted && entry.report.is_none_or(|report| report.view != self.number)
            }
            // At the end, for whoever is not there yet, or has not gone.
            Phase::Steady if ending && !self.dirty => {
                entry.wanted && !entry.gone && (entry.released || !entry.report.is_some_and(|report| report.last))
            }
            // Short of members, it waits for whoever comes first.
            _ => self.dirty && !self.is_enough() && !entry.wanted && !entry.gone,
        };
        self.entries.iter().position(missing).map(|index| PeerId(index as u32))
    }

    fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.entries.iter().enumerate().filter(|(_, entry)| entry.wanted).map(|(index, _)| PeerId(index as u32))
    }

    /// Has everyone but this node gone?
    pub(super) fn is_alone(&self) -> bool {
        let others = self.entries.iter().enumerate().filter(|(index, _)| *index != self.me.index());
        others.clone().all(|(_, entry)| entry.gone || !entry.wanted)
    }

    /// Has everyone gone, after a run?
    pub(super) fn is_over(&self) -> bool {
        self.entries.iter().any(|entry| entry.gone) && self.entries.iter().all(|entry| entry.gone || !entry.wanted)
    }

    pub(super) fn on_report(&mut self, from: PeerId, report: Report, now: Instant) {
        let over = self.over();
        let entry = &mut self.entries[from.index()];
        let fresh = entry.report.is_none_or(|before| before.incarnation != report.incarnation);
        if entry.ejected == Some(report.incarnation) || (fresh && !report.last && over) {
            if fresh {
                // Its former self is no more.
                (entry.gone, entry.wanted) = (true, false);
            }
            self.commands.push_back(Command::Refuse { to: from });
            return;
        }
        if fresh {
            *entry = Entry { report: None, wanted: false, ejected: None, released: false, gone: false };
        }
        self.begun |= report.has;
        let left = report.leaves && entry.report.is_none_or(|before| !before.leaves);
        entry.report = Some(report);
        if report.has && self.phase == Phase::Gathering && (report.round > Clock(0) || report.view > Sequence(0)) {
            self.since.get_or_insert(now);
        }
        self.number = self.number.max(report.view);
        entry.wanted = !report.leaves && !entry.gone;
        let steady = self.phase == Phase::Steady && report.view == self.view.number;
        self.dirty |= fresh || left || (report.broken && steady);
        if let Some(suspect) = report.suspect.filter(|suspect| *suspect != self.me) {
            let member = self.entries.get(suspect.index()).is_some_and(|entry| entry.wanted);
            if member && steady {
                self.on_lost(suspect);
                self.commands.push_back(Command::Refuse { to: suspect });
            }
        }
        // What it may have missed while it was away.
        if report.view < self.number && self.phase == Phase::Preparing && self.entries[from.index()].wanted {
            self.commands.push_back(Command::Prepare { to: from });
        }
        self.advance(now);
    }

    fn over(&self) -> bool {
        self.entries.iter().any(|entry| entry.released && entry.report.is_some_and(|report| report.last))
    }

    /// It was connected again: what it was told last may have got lost.
    pub(super) fn on_reconnected(&mut self, peer: PeerId) {
        let entry = &self.entries[peer.index()];
        if entry.released {
            self.commands.push_back(Command::Release { to: peer });
        } else if entry.ejected.is_some() && entry.report.is_none() {
            self.commands.push_back(Command::Refuse { to: peer });
        } else if self.view.members.contains(&peer) && self.phase == Phase::Steady {
            self.commands.push_back(Command::Commit { to: peer });
        }
    }

    /// It has been gone for too long.
    pub(super) fn on_lost(&mut self, peer: PeerId) {
        let entry = &mut self.entries[peer.index()];
        if entry.released {
            entry.gone = true;
        }
        if let Some(report) = entry.report.take() {
            entry.ejected = Some(report.incarnation);
        }
        self.dirty |= core::mem::take(&mut entry.wanted);
    }

    /// It has heard that the run is over for it.
    pub(super) fn on_goodbye(&mut self, peer: PeerId) {
        let entry = &mut self.entries[peer.index()];
        self.dirty |= entry.wanted && !entry.report.is_some_and(|report| report.last);
        (entry.gone, entry.wanted) = (true, false);
    }

    fn release(&mut self, to: PeerId) {
        self.entries[to.index()].released = true;
        self.commands.push_back(Command::Release { to });
    }

    /// Begins the next view when it is due, and commits it when all have stopped.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.phase == Phase::Gathering {
            let all = self.entries.iter().all(|entry| entry.report.is_some() || entry.gone);
            let waited = self.deadline().is_some_and(|deadline| now >= deadline);
            if !all && !waited {
                return;
            }
            self.dirty = true;
        }
        if self.dirty && self.is_enough() {
            self.prepare();
        }
        if self.phase == Phase::Preparing && !self.dirty {
            self.maybe_commit();
        }
        self.maybe_release();
    }

    /// Are there as many as there must be? Those who have left of their own will count as well.
    fn is_enough(&self) -> bool {
        let counts = |entry: &&Entry| entry.wanted || entry.gone || entry.report.is_some_and(|report| report.leaves);
        self.entries.iter().filter(counts).count() as u32 >= self.quorum
    }

    /// Are those who are left at their end?
    fn ends(&self) -> bool {
        self.members().all(|member| self.entries[member.index()].report.is_some_and(|report| report.last))
    }

    fn prepare(&mut self) {
        (self.dirty, self.phase) = (false, Phase::Preparing);
        self.number = self.number.next();
        let members: Vec<_> = self.members().collect();
        self.commands.extend(members.into_iter().map(|to| Command::Prepare { to }));
    }

    fn maybe_commit(&mut self) {
        let stopped = |member: PeerId| self.entries[member.index()].report.filter(|report| report.view == self.number);
        if !self.members().all(|member| stopped(member).is_some()) {
            return;
        }
        let with = || self.members().filter_map(|member| Some((member, stopped(member)?)));
        // Of those who have any; at the start of a run, this node's.
        let round = with().filter(|(_, report)| report.has).map(|(_, report)| report.round).max();
        let holders = || with().filter(|(_, report)| report.has && Some(report.round) == round);
        let Some((donor, holder)) = holders().next().or_else(|| with().next().filter(|_| self.may_begin())) else {
            return self.give_up();
        };
        let last = holders().any(|(_, report)| report.last);
        // Whoever comes after the last round comes too late.
        let late: Vec<_> = with().filter(|(_, report)| last && !report.has).map(|(member, _)| member).collect();
        for newcomer in late {
            let entry = &mut self.entries[newcomer.index()];
            (entry.wanted, entry.gone) = (false, true);
            self.commands.push_back(Command::Refuse { to: newcomer });
        }
        let members: Vec<_> = self.members().collect();
        self.commands.extend(members.iter().map(|to| Command::Commit { to: *to }));
        self.view = View { number: self.number, members, round: holder.round, donor, last };
        self.phase = Phase::Steady;
        // Leavers may go once nobody counts on them.
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if entry.report.is_some_and(|report| report.leaves) && !entry.released && !entry.gone {
                self.release(PeerId(index as u32));
            }
        }
    }

    /// May the first member's own parameters be those that everyone starts from? A coordinator without any asks this.
    fn may_begin(&self) -> bool {
        self.me.index() >= self.entries.len() && !self.begun
    }

    /// A run was under way, and nobody who is left has its parameters.
    fn give_up(&mut self) {
        let members: Vec<_> = self.members().collect();
        for to in members {
            let entry = &mut self.entries[to.index()];
            (entry.wanted, entry.gone) = (false, true);
            self.commands.push_back(Command::Refuse { to });
        }
    }

    /// When all have done the last round, or all have left, the run is over.
    fn maybe_release(&mut self) {
        if self.phase == Phase::Gathering || !self.ends() {
            return;
        }
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            let done = entry.report.is_some_and(|report| report.last || report.leaves);
            if done && !entry.released && !entry.gone {
                self.release(PeerId(index as u32));
            }
        }
    }
}
