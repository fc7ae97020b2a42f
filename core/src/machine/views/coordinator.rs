//! The coordinator of the views, hosted by rank 0 or by a node of its own.
//!
//! ```text
//! a report that changes something -> Prepare(n) to all future members -> each stops, reports (n, round)
//!                                 -> all have reported -> Commit(n, members, round, donor)
//! ```
//! Between two views all members stop, so that the coordinator sees which rounds are done. A round that is done at one
//! member counts for all: a member without its result takes the parameters of a member that has it (the *donor*). So a
//! round is all or nothing, and two views never share one.
//!
//! The coordinator's state is short, and all of it is in the members' reports. A restarted coordinator asks the members
//! and goes on with a higher number. Members need the coordinator only when something changes.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::View;
use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::time::{Duration, Instant};
use crate::wire::Report;

/// A message that the coordinator wants sent. A command to its own node is carried out without a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Stop, and report.
    Prepare { to: PeerId },
    /// The new view.
    Commit { to: PeerId },
    /// The run is over for this node.
    Release { to: PeerId },
    /// The node was given up, or has come after the end of the run.
    Refuse { to: PeerId },
}

#[derive(Debug)]
pub(super) struct Coordinator {
    me: PeerId,
    /// By rank.
    workers: Vec<Entry>,
    /// The highest number given out.
    number: Sequence,
    view: View,
    phase: Phase,
    /// The next view is due.
    dirty: bool,
    commands: VecDeque<Command>,
    /// Fewest members that a view may have.
    quorum: u32,
    /// How long a restarted coordinator waits for the members of the run.
    grace: Duration,
    /// When the coordinator first heard of a run that was under way before it.
    run_known_since: Option<Instant>,
    /// A worker has had parameters.
    begun: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the first view: waits until enough workers have reported.
    Gathering,
    /// The view is committed.
    Steady,
    /// The next view is prepared: waits until its members have stopped.
    Preparing,
}

/// A worker, as the coordinator knows it.
#[derive(Copy, Clone, Debug)]
struct Entry {
    report: Option<Report>,
    /// The process that sent the report.
    incarnation: Incarnation,
    place: Place,
    /// The process that was given up. It must not come back.
    ejected: Option<Incarnation>,
    /// The worker has been told that the run is over for it.
    released: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Not heard of, given up, or about to leave.
    Out,
    /// To be a member of the next view.
    Wanted,
    /// The worker has left, was lost after its release, or came too late.
    Gone,
}

impl Entry {
    const NEW: Self =
        Self { report: None, incarnation: Incarnation(0), place: Place::Out, ejected: None, released: false };

    fn is_wanted(&self) -> bool {
        self.place == Place::Wanted
    }

    fn is_gone(&self) -> bool {
        self.place == Place::Gone
    }

    /// The worker has reported that it leaves.
    fn leaves(&self) -> bool {
        self.report.is_some_and(|report| report.leaves)
    }

    /// The worker has reported that the last round is done.
    fn has_last(&self) -> bool {
        self.report.is_some_and(|report| report.last)
    }
}

impl Coordinator {
    pub(super) fn new(me: PeerId, workers: u32, quorum: u32, grace: Duration) -> Self {
        Self {
            me,
            workers: vec![Entry::NEW; workers as usize],
            number: Sequence(0),
            view: View::none(me),
            phase: Phase::Gathering,
            dirty: false,
            commands: VecDeque::with_capacity(2 * workers as usize),
            quorum: quorum.clamp(1, workers),
            grace,
            run_known_since: None,
            begun: false,
        }
    }

    pub(super) fn take_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The number that is being prepared, or that of the view.
    pub(super) fn number(&self) -> Sequence {
        self.number
    }

    /// The coordinator has a node of its own, which is no worker.
    pub(super) fn is_dedicated(&self) -> bool {
        self.me.index() >= self.workers.len()
    }

    /// Has there been a view, or is a run under way that began before this coordinator?
    pub(super) fn knows_of_a_run(&self) -> bool {
        self.run_known_since.is_some() || self.view.number > Sequence(0)
    }

    /// When to call [`Self::advance`] without another reason.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let since = self.run_known_since.filter(|_| self.phase == Phase::Gathering && !self.resumes())?;
        Some(since.after(self.grace))
    }

    /// Do all nodes resume from a checkpoint? Then the coordinator waits for all workers, as in a new run.
    fn resumes(&self) -> bool {
        let own = self.workers.get(self.me.index()).and_then(|entry| entry.report);
        let run = self.workers.iter().any(|entry| entry.report.is_some_and(|report| report.view > Sequence(0)));
        own.is_some_and(|report| report.has && report.round > Clock(0)) && !run
    }

    /// The worker that the next view, or the end of the run, waits for.
    pub(super) fn awaited(&self) -> Option<PeerId> {
        let ending = self.workers.iter().any(Entry::has_last);
        let missing = |entry: &Entry| match self.phase {
            Phase::Gathering => entry.report.is_none() && !entry.is_gone(),
            Phase::Preparing if !self.dirty => {
                entry.is_wanted() && entry.report.is_none_or(|report| report.view != self.number)
            }
            // At the end: a worker that is not there yet, or that has been released and has not said goodbye.
            Phase::Steady if ending && !self.dirty => entry.is_wanted() && (entry.released || !entry.has_last()),
            // Below the quorum: any worker that could still come.
            _ => self.dirty && !self.is_enough() && entry.place == Place::Out,
        };
        self.workers.iter().position(missing).map(|index| PeerId(index as u32))
    }

    /// The members of the next view.
    fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        let wanted = self.workers.iter().enumerate().filter(|(_, entry)| entry.is_wanted());
        wanted.map(|(index, _)| PeerId(index as u32))
    }

    /// No worker but this node is wanted any more.
    pub(super) fn is_alone(&self) -> bool {
        self.members().all(|member| member == self.me)
    }

    /// There was a run, and no worker is wanted any more.
    pub(super) fn is_over(&self) -> bool {
        self.workers.iter().any(Entry::is_gone) && self.members().next().is_none()
    }

    pub(super) fn on_report(&mut self, from: PeerId, incarnation: Incarnation, report: Report, now: Instant) {
        let over = self.workers.iter().any(|entry| entry.released && entry.has_last());
        let entry = &mut self.workers[from.index()];
        let fresh = entry.report.is_none() || entry.incarnation != incarnation;
        if entry.ejected == Some(incarnation) || (fresh && !report.last && over) {
            if fresh {
                // An earlier process of this rank has ended.
                entry.place = Place::Gone;
            }
            self.commands.push_back(Command::Refuse { to: from });
            return;
        }
        if fresh {
            *entry = Entry { incarnation, ..Entry::NEW };
        }
        self.begun |= report.has;
        let left = report.leaves && !entry.leaves();
        entry.report = Some(report);
        if report.has && self.phase == Phase::Gathering && (report.round > Clock(0) || report.view > Sequence(0)) {
            self.run_known_since.get_or_insert(now);
        }
        self.number = self.number.max(report.view);
        if !entry.is_gone() {
            entry.place = if report.leaves { Place::Out } else { Place::Wanted };
        }
        let steady = self.phase == Phase::Steady && report.view == self.view.number;
        self.dirty |= fresh || left || (report.broken && steady);
        if let Some(suspect) = report.suspect.filter(|suspect| *suspect != self.me) {
            let member = self.workers.get(suspect.index()).is_some_and(Entry::is_wanted);
            if member && steady {
                self.on_lost(suspect);
                self.commands.push_back(Command::Refuse { to: suspect });
            }
        }
        // The worker may have missed the command while it was away.
        if report.view < self.number && self.phase == Phase::Preparing && self.workers[from.index()].is_wanted() {
            self.commands.push_back(Command::Prepare { to: from });
        }
        self.advance(now);
    }

    /// A worker is connected again. The last command to it may have been lost with the connection.
    pub(super) fn on_reconnected(&mut self, peer: PeerId) {
        let entry = &self.workers[peer.index()];
        if entry.released {
            self.commands.push_back(Command::Release { to: peer });
        } else if entry.ejected.is_some() && entry.report.is_none() {
            self.commands.push_back(Command::Refuse { to: peer });
        } else if self.view.members.contains(&peer) && self.phase == Phase::Steady {
            self.commands.push_back(Command::Commit { to: peer });
        }
    }

    /// A worker has been gone for too long.
    pub(super) fn on_lost(&mut self, peer: PeerId) {
        let entry = &mut self.workers[peer.index()];
        if entry.report.take().is_some() {
            entry.ejected = Some(entry.incarnation);
        }
        self.dirty |= entry.is_wanted();
        entry.place = match entry.place {
            _ if entry.released => Place::Gone,
            Place::Wanted => Place::Out,
            place => place,
        };
    }

    /// A worker has heard that the run is over for it.
    pub(super) fn on_goodbye(&mut self, peer: PeerId) {
        let entry = &mut self.workers[peer.index()];
        self.dirty |= entry.is_wanted() && !entry.has_last();
        entry.place = Place::Gone;
    }

    /// Begins the next view when it is due, and commits it when all of its members have stopped.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.phase == Phase::Gathering {
            let all = self.workers.iter().all(|entry| entry.report.is_some() || entry.is_gone());
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

    /// Is the quorum reached? Workers that have left of their own will count too.
    fn is_enough(&self) -> bool {
        let counts = |entry: &&Entry| entry.is_wanted() || entry.is_gone() || entry.leaves();
        self.workers.iter().filter(counts).count() as u32 >= self.quorum
    }

    fn prepare(&mut self) {
        (self.dirty, self.phase) = (false, Phase::Preparing);
        self.number = self.number.next();
        let members: Vec<_> = self.members().collect();
        self.commands.extend(members.into_iter().map(|to| Command::Prepare { to }));
    }

    fn maybe_commit(&mut self) {
        let stopped = |member: PeerId| self.workers[member.index()].report.filter(|report| report.view == self.number);
        if !self.members().all(|member| stopped(member).is_some()) {
            return;
        }
        let reports = || self.members().filter_map(|member| Some((member, stopped(member)?)));
        // The newest parameters count. In a new run, no member has any but the coordinator's node.
        let round = reports().filter(|(_, report)| report.has).map(|(_, report)| report.round).max();
        let holders = || reports().filter(|(_, report)| report.has && Some(report.round) == round);
        let Some((donor, held)) = holders().next().or_else(|| reports().next().filter(|_| self.may_begin())) else {
            return self.give_up();
        };
        let last = holders().any(|(_, report)| report.last);
        // A worker without parameters that comes after the last round comes too late.
        let late: Vec<_> = reports().filter(|(_, report)| last && !report.has).map(|(member, _)| member).collect();
        for newcomer in late {
            self.expel(newcomer);
        }
        let members: Vec<_> = self.members().collect();
        self.commands.extend(members.iter().map(|to| Command::Commit { to: *to }));
        self.view = View { number: self.number, members, round: held.round, donor, last };
        self.phase = Phase::Steady;
        // Leavers may go only now: until this commit, the members of the view before may have counted on them.
        self.release(Entry::leaves);
    }

    /// May the first member's initial parameters be the run's? Only a coordinator that is no worker, and so has no
    /// parameters of its own, needs this.
    fn may_begin(&self) -> bool {
        self.is_dedicated() && !self.begun
    }

    /// A run was under way, and no member has its parameters.
    fn give_up(&mut self) {
        let members: Vec<_> = self.members().collect();
        for member in members {
            self.expel(member);
        }
    }

    fn expel(&mut self, member: PeerId) {
        self.workers[member.index()].place = Place::Gone;
        self.commands.push_back(Command::Refuse { to: member });
    }

    /// When all members have done the last round, or all workers have left, the run is over.
    fn maybe_release(&mut self) {
        let ends = self.members().all(|member| self.workers[member.index()].has_last());
        if self.phase != Phase::Gathering && ends {
            self.release(|entry| entry.has_last() || entry.leaves());
        }
    }

    fn release(&mut self, due: impl Fn(&Entry) -> bool) {
        for (index, entry) in self.workers.iter_mut().enumerate() {
            if due(entry) && !entry.released && !entry.is_gone() {
                entry.released = true;
                self.commands.push_back(Command::Release { to: PeerId(index as u32) });
            }
        }
    }
}
