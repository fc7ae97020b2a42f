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
//!
//! # Networks that split
//!
//! There is one coordinator, so there is one view. A view is formed only if at least half of the members of the view
//! before are in it ([`Quorum`]). Members that have left of their own count for neither side. So a coordinator that is
//! cut off waits, and does not go on alone.
//!
//! A worker that was given up and reports again, or that starts again, becomes a member of the next view. Its state
//! counts only if it was a member of the view before (it is *current*): the run has gone on without all other workers,
//! so these take the state of a donor. The commit tells each of them so.
//!
//! Two workers that have lost each other cannot be members of one view. A worker reports the workers that it has lost,
//! for as long as it has lost them. The next view leaves one of them out until they meet again. Which one: see
//! `choice.rs`.
//!
//! | file | decides |
//! |---|---|
//! | `entry.rs` | nothing: the coordinator's record of a worker |
//! | `choice.rs` | which states count, which workers become members, and whether there are enough |
//! | `end.rs` | when the run is over, for one worker or for all |

mod choice;
mod end;
mod entry;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use entry::{Entry, Place};

use super::View;
use crate::id::{Clock, Incarnation, PeerId, Sequence};
use crate::time::{Duration, Instant};
use crate::wire::Report;

/// Ranks in a word of a mask.
const RANKS: usize = u64::BITS as usize;

/// A message that the coordinator wants sent. A command to its own node is carried out without a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Stop, and report.
    Prepare { to: PeerId },
    /// The new view. `returns`: the run has gone on without the worker, and its state counts for nothing.
    Commit { to: PeerId, returns: bool },
    /// The run is over for this node.
    Release { to: PeerId },
    /// The node has come after the end of the run, or the run's parameters are lost.
    Refuse { to: PeerId },
}

/// How many workers have to be in a view.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Quorum {
    /// At least half of the members of the view before that have not left of their own. Half is enough, because the
    /// coordinator is on one side only.
    Half,
    /// This many, with the workers that have left of their own.
    Fixed(u32),
}

#[derive(Debug)]
pub(super) struct Coordinator {
    me: PeerId,
    /// The record of each worker, by rank.
    workers: Vec<Entry>,
    /// Two workers have lost each other.
    conflicts: bool,
    /// The highest number given out.
    number: Sequence,
    view: View,
    phase: Phase,
    /// The next view is due.
    dirty: bool,
    commands: VecDeque<Command>,
    quorum: Quorum,
    /// How long a restarted coordinator waits for the members of the run.
    grace: Duration,
    /// When the coordinator first heard of a run that was under way before it.
    run_known_since: Option<Instant>,
    /// The grace is over.
    waited: bool,
    /// Too few workers were there for a view.
    short: bool,
    /// When there were enough again. The other members of the view before may come back at the same time, and are
    /// waited for.
    enough_since: Option<Instant>,
    /// A worker has had parameters.
    begun: bool,
    /// Members have told each other that they have the last round, while they had lost the coordinator. Some may have
    /// ended: a worker that was no member may not contribute any more.
    closing: bool,
    /// All members had the last round, and were told that the run is over.
    over: bool,
    #[cfg(planted)]
    pub(super) bug: Option<crate::planted::Bug>,
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

impl Coordinator {
    pub(super) fn new(me: PeerId, workers: u32, quorum: u32, grace: Duration) -> Self {
        Self {
            me,
            workers: vec![Entry::NEW; workers as usize],
            conflicts: false,
            number: Sequence(0),
            view: View::none(me),
            phase: Phase::Gathering,
            dirty: false,
            commands: VecDeque::with_capacity(2 * workers as usize),
            quorum: if quorum == 0 { Quorum::Half } else { Quorum::Fixed(quorum.min(workers)) },
            grace,
            run_known_since: None,
            waited: false,
            short: false,
            enough_since: None,
            begun: false,
            closing: false,
            over: false,
            #[cfg(planted)]
            bug: None,
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

    /// Is the next view to be formed when enough workers are there?
    pub(super) fn has_view_due(&self) -> bool {
        self.phase == Phase::Steady && self.dirty
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
        let gathers = || self.phase == Phase::Gathering && !self.waited && !self.resumes();
        let since = self.run_known_since.filter(|_| gathers()).or(self.enough_since)?;
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
        let ending = self.workers.iter().any(|entry| self.has_last(entry));
        let has_stopped =
            |member: PeerId| self.workers[member.index()].report.is_some_and(|report| report.view == self.number);
        // Then the view waits for somebody with the parameters, or without the last round.
        let all_stopped = self.members().all(has_stopped);
        let missing = |entry: &Entry| match self.phase {
            Phase::Gathering if self.waited => entry.place == Place::Out && !self.is_enough(),
            Phase::Gathering => entry.report.is_none() && !entry.is_gone(),
            Phase::Preparing if !self.dirty && all_stopped => {
                (entry.place == Place::Out && !entry.leaves()) || (entry.is_wanted() && !entry.chosen)
            }
            Phase::Preparing if !self.dirty => {
                entry.is_in() && entry.report.is_none_or(|report| report.view != self.number)
            }
            // At the end: a worker that is not there yet, or that has been released and has not said goodbye.
            Phase::Steady if ending && !self.dirty => {
                (entry.is_in() && (entry.released || !self.has_last(entry))) || (entry.leaves() && !entry.is_gone())
            }
            // Below the quorum: any worker that could still come.
            _ => self.dirty && !self.is_enough() && entry.place == Place::Out,
        };
        self.workers.iter().position(missing).map(|index| PeerId(index as u32))
    }

    /// The members of the view, or of the one that is being prepared.
    fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.ranks(Entry::is_in)
    }

    fn ranks<'a>(&'a self, counts: impl Fn(&Entry) -> bool + 'a) -> impl Iterator<Item = PeerId> + 'a {
        let counted = self.workers.iter().enumerate().filter(move |(_, entry)| counts(entry));
        counted.map(|(index, _)| PeerId(index as u32))
    }

    /// A worker says which of 64 ranks, from `first` on, it has lost.
    pub(super) fn on_lost_by(&mut self, from: PeerId, first: PeerId, mask: u64) {
        let words = self.workers.len().div_ceil(RANKS);
        let (lost, word) = (&mut self.workers[from.index()].lost, first.index() / RANKS);
        if word >= words || (mask == 0 && lost.is_empty()) {
            return;
        }
        lost.resize(words, 0);
        lost[word] = mask;
        if lost.iter().all(|word| *word == 0) {
            lost.clear();
        }
        self.note_conflicts();
        self.dirty |= self.phase != Phase::Gathering && self.choice() != self.members().collect::<Vec<_>>();
    }

    pub(super) fn on_report(&mut self, from: PeerId, incarnation: Incarnation, report: Report, now: Instant) {
        let newest = self.newest();
        let entry = &mut self.workers[from.index()];
        let fresh = entry.report.is_none() || entry.incarnation != incarnation;
        let is_member = entry.member == Some(incarnation) || report.entered == newest;
        if self.over && fresh {
            // A worker that was cut off, and has the last round, has not heard that it is released. Another process of
            // this rank, or a worker that was no member at the end, comes too late: it may have made contributions that
            // the other members never got.
            let is_released = entry.released && entry.incarnation == incarnation;
            if is_released || (report.last && is_member) {
                entry.released = true;
                self.commands.push_back(Command::Release { to: from });
            } else {
                entry.place = Place::Gone;
                self.commands.push_back(Command::Refuse { to: from });
            }
            return;
        }
        if entry.incarnation != incarnation {
            *entry = Entry { incarnation, member: entry.member, given_up: entry.given_up, ..Entry::NEW };
            self.note_conflicts();
        }
        let entry = &mut self.workers[from.index()];
        self.begun |= report.has;
        let left = report.leaves && !entry.leaves();
        // It was to be left out of the next view, and has something to do in it after all.
        let stays = !report.leaves && entry.leaves() && !entry.released;
        (entry.report, entry.connected) = (Some(report), true);
        self.closing |= report.told && is_member;
        if report.has && self.phase == Phase::Gathering && (report.round > Clock(0) || report.view > Sequence(0)) {
            self.run_known_since.get_or_insert(now);
        }
        self.number = self.number.max(report.view);
        let is_released_leaver = entry.released && entry.place == Place::Out;
        if !entry.is_gone() && !is_released_leaver {
            entry.place = if report.leaves { Place::Out } else { Place::Wanted };
        }
        let steady = self.phase == Phase::Steady && report.view == self.view.number;
        self.dirty |= fresh || left || stays || (report.broken && steady);
        let number = self.number;
        self.advance(now);
        // The worker may have missed the command while it was away. A worker that the view leaves out stops as well.
        let entry = &self.workers[from.index()];
        let stops = self.phase == Phase::Preparing || (self.phase == Phase::Steady && !entry.chosen);
        if report.view < self.number && number == self.number && stops && entry.is_wanted() {
            self.commands.push_back(Command::Prepare { to: from });
        }
    }

    /// Notes which workers the coordinator's node is connected with.
    pub(super) fn note_connected(&mut self, is_connected: impl Fn(PeerId) -> bool) {
        for (rank, entry) in (0..).map(PeerId).zip(&mut self.workers) {
            entry.connected = is_connected(rank);
        }
    }

    /// A process of a worker is connected for the first time. What its former process has reported does not count for the
    /// next view: this process has not stopped for it, and would take the view's messages for those of an unknown one.
    pub(super) fn on_new_process(&mut self, peer: PeerId, incarnation: Incarnation) {
        let entry = &mut self.workers[peer.index()];
        if self.phase != Phase::Steady && entry.incarnation != incarnation {
            entry.report = None;
        }
    }

    /// A worker is connected again. The last command to it may have been lost with the connection.
    pub(super) fn on_reconnected(&mut self, peer: PeerId) {
        let entry = &self.workers[peer.index()];
        if entry.released {
            self.commands.push_back(Command::Release { to: peer });
        } else if self.phase == Phase::Steady && entry.report.is_some() && self.view.members.contains(&peer) {
            self.commands.push_back(Command::Commit { to: peer, returns: entry.returns });
        }
    }

    /// A worker has been gone for too long.
    pub(super) fn on_lost(&mut self, peer: PeerId) {
        let entry = &mut self.workers[peer.index()];
        (entry.report, entry.given_up) = (None, true);
        entry.lost.clear();
        self.dirty |= entry.is_wanted() && !entry.released;
        entry.place = match entry.place {
            // If it was cut off before it heard of that, it ends without the coordinator.
            _ if entry.released => Place::Gone,
            Place::Wanted => Place::Out,
            place => place,
        };
        self.note_conflicts();
    }

    /// A worker has heard that the run is over for it.
    pub(super) fn on_goodbye(&mut self, peer: PeerId) {
        let entry = &self.workers[peer.index()];
        self.dirty |= entry.is_wanted() && !self.has_last(entry);
        self.workers[peer.index()].place = Place::Gone;
    }

    /// Begins the next view when it is due, and commits it when all of its members have stopped.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.phase == Phase::Gathering {
            let all = self.workers.iter().all(|entry| entry.report.is_some() || entry.is_gone());
            self.waited |= self.deadline().is_some_and(|deadline| now >= deadline);
            if !all && !self.waited {
                return;
            }
            self.dirty = true;
        }
        // Workers that lose each other on their way out need no further view.
        self.dirty &= !self.over;
        if self.dirty && self.is_time(now) {
            self.prepare();
        }
        if self.phase == Phase::Preparing && !self.dirty {
            self.maybe_commit();
        }
        if self.is_at_end() && self.owes_a_view() {
            self.dirty = true;
            if self.is_time(now) {
                self.prepare();
            }
        }
        self.maybe_release();
    }

    fn prepare(&mut self) {
        (self.dirty, self.phase) = (false, Phase::Preparing);
        self.number = self.number.next();
        let choice = self.choice();
        for (index, entry) in self.workers.iter_mut().enumerate() {
            entry.chosen = choice.binary_search(&PeerId(index as u32)).is_ok();
        }
        // Also workers that the view leaves out: they must not go on in the view before.
        let stopping: Vec<_> = self.ranks(Entry::is_wanted).collect();
        self.commands.extend(stopping.into_iter().map(|to| Command::Prepare { to }));
    }

    fn maybe_commit(&mut self) {
        let stopped = |member: PeerId| self.workers[member.index()].report.filter(|report| report.view == self.number);
        if !self.members().all(|member| stopped(member).is_some()) {
            return;
        }
        let reports = || self.members().filter_map(|member| Some((member, stopped(member)?)));
        // A worker's parameters count only if the run has not gone on without it. If all such workers are gone for
        // good, the run goes on from the newest checkpoint of the other workers.
        let any = reports().any(|(member, _)| self.holds(&self.workers[member.index()]));
        if (!any && self.awaits_a_holder()) || self.holds_the_end() {
            return;
        }
        let counted = |(member, report): (PeerId, Report)| {
            let has = report.has && (!any || self.counts(&self.workers[member.index()]));
            (member, Report { has, last: report.last && has, ..report })
        };
        let reports = || reports().map(counted);
        // The newest parameters count. In a new run, no member has any but the coordinator's node.
        let round = reports().filter(|(_, report)| report.has).map(|(_, report)| report.round).max();
        let holders = || reports().filter(|(_, report)| report.has && Some(report.round) == round);
        let Some((donor, held)) = holders().next().or_else(|| reports().next().filter(|_| self.may_begin())) else {
            return self.give_up();
        };
        let last = holders().any(|(_, report)| report.last);
        // A worker without parameters that comes after the last round comes too late.
        let late: Vec<_> = reports().filter(|(_, report)| last && !report.has).map(|(member, _)| member).collect();
        let returns: Vec<_> = reports().filter(|(_, report)| !report.has).map(|(member, _)| member).collect();
        for newcomer in late {
            self.expel(newcomer);
        }
        let members: Vec<_> = self.members().collect();
        let done: Vec<_> = self.ranks(|entry| returns.is_empty() && !entry.is_in() && self.has_last(entry)).collect();
        for (rank, entry) in (0..).map(PeerId).zip(&mut self.workers) {
            let is_member = members.binary_search(&rank).is_ok();
            entry.done = done.binary_search(&rank).is_ok();
            entry.member = is_member.then_some(entry.incarnation);
            entry.returns = rank != donor && returns.binary_search(&rank).is_ok();
            entry.given_up &= !is_member;
            if is_member {
                self.commands.push_back(Command::Commit { to: rank, returns: entry.returns });
            }
        }
        self.view = View { number: self.number, members, round: held.round, donor, last };
        self.phase = Phase::Steady;
        // Leavers may go only now: until this commit, the members of the view before may have counted on them.
        self.release(|_, entry| entry.leaves());
    }

    /// May the first member's initial parameters be the run's? Only a coordinator that is no worker, and so has no
    /// parameters of its own, needs this.
    fn may_begin(&self) -> bool {
        self.is_dedicated() && !self.begun
    }
}
