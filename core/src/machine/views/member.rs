//! A member's side of views: reports to the coordinator, stops, enters views, leaves.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::coordinator::{Command, Coordinator};
use super::{Change, Exit, Standing, Timing, View};
use crate::id::{PeerId, Sequence};
use crate::machine::hub::{Hub, Incoming};
use crate::machine::{Event, ProtocolError};
use crate::status::Presence;
use crate::time::Duration;
use crate::wire::{Commit, Leave, Message, Report};

/// Ranks in a word of a mask.
const RANKS: u32 = u64::BITS;

/// Messages without a body that are kept until their view comes.
const EARLY_MAX: usize = 256 * 1024;

/// A node's membership in the views of a run.
#[derive(Debug)]
pub(crate) struct Member {
    /// The node that hosts the coordinator.
    host: PeerId,
    /// The coordinator, if this node hosts it.
    coordinator: Option<Coordinator>,
    /// The view that this node has entered last.
    view: View,
    /// The highest number that the node has heard of: above the view's while all members stop.
    prepared: Sequence,
    /// Members of the view that is about to be committed, as far as they have been listed.
    coming: Vec<PeerId>,
    /// The workers that this node has lost, as it has last told the coordinator: 64 ranks in each word. Empty until
    /// there is one.
    lost: Vec<u64>,
    /// A connection to a member broke in this view. The coordinator has been told.
    broken: bool,
    /// Without the coordinator, this node has told the members of the view that it has the last round.
    told: bool,
    /// Members that have told this node that the last round is done at them, since the coordinator's node is lost.
    at_end: Vec<PeerId>,
    end: End,
    /// Messages of a view that this node has not heard of, with its number.
    early: VecDeque<(Sequence, Incoming)>,
    /// Early messages whose view has come.
    due: VecDeque<Incoming>,
}

/// How the run ends for this node, as the coordinator has said.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum End {
    /// The run goes on.
    Open,
    /// The node may leave.
    Released,
    /// The coordinator has refused its own node, which came back after the end of the run, or after the run's
    /// parameters were lost. It stays until all other nodes have left.
    Refused,
}

impl Member {
    pub(crate) fn new(hub: &Hub) -> Self {
        let (me, cluster) = (hub.setup.me, hub.setup.cluster);
        let host = hub.setup.host();
        let grace = if hub.setup.gathered { Duration::MAX } else { hub.setup.patience.dead_after() };
        let coordinator = (me == host).then(|| Coordinator::new(me, cluster.workers, hub.setup.quorum, grace));
        #[cfg(planted)]
        let coordinator = coordinator.map(|mut coordinator| {
            coordinator.bug = hub.setup.bug;
            coordinator
        });
        Self {
            host,
            coordinator,
            view: View::none(host),
            prepared: Sequence(0),
            coming: Vec::new(),
            lost: Vec::new(),
            broken: false,
            told: false,
            at_end: Vec::new(),
            end: End::Open,
            early: VecDeque::new(),
            due: VecDeque::new(),
        }
    }

    // State

    /// The view that this node has entered last.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Is this node in a view that goes on?
    pub(crate) fn is_in_view(&self) -> bool {
        self.view.number > Sequence(0) && self.view.number == self.prepared
    }

    /// Is another view certain to follow the present one?
    pub(crate) fn view_is_over(&self) -> bool {
        self.broken || self.coordinator.as_ref().is_some_and(Coordinator::has_view_due)
    }

    /// The node of the coordinator.
    pub(crate) fn host(&self) -> PeerId {
        self.host
    }

    /// Does this node host the coordinator?
    pub(crate) fn hosts(&self) -> bool {
        self.coordinator.is_some()
    }

    /// Has this node lost so few members of its view that it may go on? Another part of the view could do so too, and
    /// must not have a quorum as well.
    pub(crate) fn has_quorum(&self, hub: &Hub) -> bool {
        let mut present = 0;
        let mut all = 0;
        for member in self.view.members.iter().filter(|member| hub.presence(**member) != Presence::Left) {
            all += 1;
            present += u32::from(*member == hub.setup.me || hub.presence(*member) != Presence::Lost);
        }
        match hub.setup.quorum {
            // Of two halves, the coordinator's goes on.
            0 => {
                let with_host = self.hosts() || hub.presence(self.host) != Presence::Lost;
                2 * present > all || (2 * present == all && with_host)
            }
            quorum => present + (self.view.members.len() as u32 - all) >= quorum.min(hub.setup.cluster.workers),
        }
    }

    /// The first member of the view that this node has lost.
    pub(crate) fn first_lost(&self, hub: &Hub) -> Option<PeerId> {
        self.view.members.iter().copied().find(|member| hub.presence(*member) == Presence::Lost)
    }

    /// The node hosts the coordinator and is no worker.
    pub(crate) fn is_dedicated(&self) -> bool {
        self.coordinator.as_ref().is_some_and(Coordinator::is_dedicated)
    }

    /// Does the node wait for the coordinator to form the next view?
    pub(crate) fn awaits_view(&self) -> bool {
        !self.is_in_view() || self.broken || self.has_lost_a_member()
    }

    /// Has this node lost a member of its view?
    fn has_lost_a_member(&self) -> bool {
        let has_lost = |rank: &PeerId| {
            self.lost.get((rank.0 / RANKS) as usize).is_some_and(|mask| mask & 1 << (rank.0 % RANKS) != 0)
        };
        !self.lost.is_empty() && self.view.members.iter().any(has_lost)
    }

    /// The node that the next view, or the end of the run, waits for, as far as this node knows.
    pub(crate) fn awaited(&self) -> Option<PeerId> {
        match &self.coordinator {
            Some(coordinator) => coordinator.awaited().filter(|peer| *peer != self.host),
            None => Some(self.host),
        }
    }

    /// The coordinator has released this node.
    pub(crate) fn is_released(&self) -> bool {
        self.end == End::Released
    }

    /// This node hosts the coordinator, and all workers have left after a run.
    pub(crate) fn is_over(&self) -> bool {
        self.coordinator.as_ref().is_some_and(Coordinator::is_over)
    }

    /// How the node leaves the run, when it may.
    pub(crate) fn exit(&self, hub: &Hub) -> Option<Exit> {
        match (self.end, &self.coordinator) {
            (End::Refused, Some(coordinator)) if coordinator.is_alone() => {
                Some(Exit::Cut { peer: coordinator.view().donor })
            }
            (End::Released, Some(coordinator)) if coordinator.is_alone() => Some(Exit::Alone),
            (End::Released, None) if hub.is_agreed(self.host) => {
                Some(Exit::Tell { host: self.host, goodbye: goodbye(hub) })
            }
            _ => None,
        }
    }

    /// Sends the message of [`Exit::Tell`] again.
    pub(crate) fn repeat_goodbye(&self, hub: &mut Hub) {
        let message = goodbye(hub);
        hub.notify(self.host, message);
    }

    // Reports

    /// Tells the coordinator how far this node is.
    pub(crate) fn report(&mut self, hub: &mut Hub, standing: Standing) {
        let Standing { round, has, leaves, last } = standing;
        let report = Report {
            view: self.prepared,
            entered: self.view.number,
            members: self.view.members.len() as u32,
            round,
            // In a new run, the initial parameters of the coordinator's node are the run's.
            has: has || self.begins_the_run(),
            leaves,
            last,
            broken: self.broken,
            told: self.told || (last && self.has_lost_host(hub)),
        };
        self.told = report.told;
        match &mut self.coordinator {
            Some(coordinator) if coordinator.is_dedicated() => {}
            Some(coordinator) => coordinator.on_report(self.host, hub.setup.incarnation, report, hub.now()),
            None if hub.is_agreed(self.host) => hub.notify(self.host, Message::Report(report)),
            None => {}
        }
        // Without the coordinator, the members find out for themselves whether any of them lacks the last round.
        if last && self.has_lost_host(hub) {
            let others = self.view.members.iter().filter(|member| **member != self.host && hub.is_agreed(**member));
            let others: Vec<_> = others.copied().collect();
            others.into_iter().for_each(|member| hub.notify(member, Message::Report(report)));
        }
    }

    pub(crate) fn has_lost_host(&self, hub: &Hub) -> bool {
        self.coordinator.is_none() && hub.presence(self.host) == Presence::Lost
    }

    /// The coordinator's node is lost, and no member that this node can reach lacks the last round: there is nothing left
    /// to agree on. `last`: this node has it.
    pub(crate) fn ends_without_host(&self, hub: &Hub, last: bool) -> bool {
        if !last || !self.has_lost_host(hub) {
            return false;
        }
        let has_it = |member: &&PeerId| **member == hub.setup.me || self.at_end.contains(*member);
        let reachable = |member: &&PeerId| !matches!(hub.presence(**member), Presence::Lost | Presence::Left);
        let mut others = self.view.members.iter().filter(|member| **member != self.host);
        let count = self.view.members.iter().filter(has_it).count();
        let all = others.all(|member| has_it(&member) || !reachable(&member));
        all && 2 * count > self.view.members.len()
    }

    /// This node hosts the coordinator, which knows of no run so far.
    fn begins_the_run(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.knows_of_a_run())
    }

    fn on_report(&mut self, hub: &mut Hub, peer: PeerId, report: Report, standing: Standing) {
        let began = self.begins_the_run();
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.on_report(peer, hub.incarnation(peer), report, hub.now());
        }
        // A run is under way. The initial parameters here, which an earlier report may have counted, are not the run's.
        if began && !self.begins_the_run() && !standing.has {
            self.report(hub, standing);
        }
    }

    // Peers

    /// A peer takes part (again). `breaks`: the exchange with a member has to begin anew in another view. Returns whether
    /// messages of the present view that are due to the peer can be sent now.
    pub(crate) fn on_agreed(
        &mut self,
        hub: &mut Hub,
        peer: PeerId,
        breaks: bool,
        fresh: bool,
        standing: Standing,
    ) -> bool {
        let broken = breaks && self.view.members.contains(&peer) && self.is_in_view() && !standing.last;
        if broken {
            self.broken = true;
            self.report(hub, standing);
        }
        if peer == self.host || (standing.last && self.has_lost_host(hub)) {
            self.report(hub, standing);
        }
        // A coordinator that has lost this node, or has started again, has to hear of all workers that are lost.
        self.tell_lost(hub, peer == self.host);
        match &mut self.coordinator {
            Some(coordinator) if fresh => coordinator.on_new_process(peer, hub.incarnation(peer)),
            Some(coordinator) => coordinator.on_reconnected(peer),
            None => {}
        }
        // The coordinator's node sends nothing of a view to a peer before it has told the peer of the view on this
        // connection. The peer could not understand the message yet, and would hold it in front of the message that
        // explains it.
        !broken && self.coordinator.is_none()
    }

    /// A peer has been gone for too long.
    pub(crate) fn on_lost(&mut self, hub: &mut Hub, peer: PeerId) -> Option<Change> {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.on_lost(peer);
        } else if peer == self.host {
            return Some(Change::HostLost);
        }
        self.tell_lost(hub, false);
        None
    }

    /// Tells the coordinator which workers this node has lost and not met again, if that has changed; or `all` of them.
    fn tell_lost(&mut self, hub: &mut Hub, all: bool) {
        if self.is_dedicated() {
            return;
        }
        let workers = hub.setup.cluster.workers;
        let is_lost = |hub: &Hub, rank: u32| rank < workers && hub.presence(PeerId(rank)) == Presence::Lost;
        if self.lost.is_empty() {
            if !hub.has_lost_any() || !(0..workers).any(|rank| is_lost(hub, rank)) {
                return;
            }
            self.lost.resize(workers.div_ceil(RANKS) as usize, 0);
        }
        let me = hub.setup.me;
        for (piece, told) in (0..).zip(&mut self.lost) {
            let first = piece * RANKS;
            let lost = (0..RANKS).filter(|bit| is_lost(hub, first + bit) && first + bit != me.0);
            let mask = lost.fold(0u64, |mask, bit| mask | 1 << bit);
            if mask == *told && !all {
                continue;
            }
            *told = mask;
            match &mut self.coordinator {
                Some(coordinator) => coordinator.on_lost_by(me, PeerId(first), mask),
                None if hub.is_agreed(self.host) => hub.notify(self.host, Message::Lost { first: PeerId(first), mask }),
                None => {}
            }
        }
    }

    // Messages of the exchange

    /// When the view `number` of a message is.
    pub(crate) fn timing(&self, number: Sequence) -> Timing {
        // The coordinator's node knows every view first. There, a higher number is one of a run before this one. A view
        // before the one that is being prepared will not come: this node was no member.
        if number > self.view.number && number >= self.prepared && self.coordinator.is_none() {
            Timing::Early
        } else if number == self.view.number && self.is_in_view() {
            Timing::Current
        } else {
            Timing::Past
        }
    }

    /// Keeps an early message. Its body, if it has one, stays with the sender.
    pub(crate) fn hold(&mut self, hub: &mut Hub, number: Sequence, incoming: Incoming) {
        if incoming.length > 0 {
            hub.hold(incoming);
        } else if self.early.len() < EARLY_MAX {
            self.early.push_back((number, incoming));
        } else {
            hub.close(incoming.peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        }
    }

    /// Returns the early messages without a body, in order of arrival, when their view has come.
    pub(crate) fn take_due(&mut self, hub: &Hub) -> Option<Incoming> {
        core::iter::from_fn(|| self.due.pop_front()).find(|incoming| hub.is_agreed(incoming.peer))
    }

    // Messages of the coordinator and to it

    /// Takes a message that is not one of the exchange.
    pub(crate) fn on_message(&mut self, hub: &mut Hub, incoming: &Incoming, standing: Standing) -> Option<Change> {
        let Incoming { peer, message, .. } = *incoming;
        let hosts = self.coordinator.is_some();
        match message {
            Message::Report(report) if hosts && hub.setup.cluster.is_worker(peer) => {
                self.on_report(hub, peer, report, standing);
            }
            // The other member has lost the coordinator's node.
            Message::Report(report) if !hosts && hub.setup.cluster.is_worker(peer) => {
                if report.last && report.entered == self.view.number && !self.at_end.contains(&peer) {
                    self.at_end.push(peer);
                }
            }
            Message::Lost { first, mask } if hosts && hub.setup.cluster.is_worker(peer) => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.on_lost_by(peer, first, mask);
                }
            }
            Message::Leave(_) if hosts => {
                hub.mark_left(peer);
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.on_goodbye(peer);
                }
            }
            Message::Members { first, mask, .. } if peer == self.host => {
                let workers = hub.setup.cluster.workers;
                self.on_members(first, Message::ranks(first, mask, workers), workers);
            }
            Message::MemberRange { first, count, .. } if peer == self.host => {
                let workers = hub.setup.cluster.workers;
                let ranks = first.0..first.0.saturating_add(count).min(workers);
                self.on_members(first, ranks.map(PeerId), workers);
            }
            Message::Prepare { view } if peer == self.host => return self.prepare(hub, view, standing),
            Message::Commit(commit) if peer == self.host => {
                let Commit { view: number, round, donor, last, returns } = commit;
                let mut members = core::mem::take(&mut self.coming);
                // The coordinator lists them in order. Another peer in its place must not be able to break this node.
                members.sort_unstable();
                members.dedup();
                // A view without this node, or with a donor that is no member, is ignored.
                if members.contains(&hub.setup.me) && members.contains(&donor) {
                    return self.commit(View { number, members, round, donor, last }, returns);
                }
            }
            Message::Release if peer == self.host => {
                self.end = End::Released;
                return Some(Change::Released);
            }
            message => hub.close(peer, ProtocolError::Unexpected { kind: message.kind() }),
        }
        None
    }

    /// The coordinator lists members of the view that it is about to commit, from rank `first` on.
    fn on_members(&mut self, first: PeerId, ranks: impl Iterator<Item = PeerId>, workers: u32) {
        if first == PeerId(0) {
            self.coming.clear();
        }
        // A coordinator that repeats itself must not make the list grow.
        let room = (workers as usize).saturating_sub(self.coming.len());
        self.coming.reserve_exact(room);
        self.coming.extend(ranks.take(room));
    }

    fn prepare(&mut self, hub: &mut Hub, number: Sequence, standing: Standing) -> Option<Change> {
        if number <= self.view.number {
            return None;
        }
        if number > self.prepared {
            self.prepared = number;
            self.broken = false;
            return Some(Change::Stop);
        }
        self.report(hub, standing);
        None
    }

    fn commit(&self, view: View, returns: bool) -> Option<Change> {
        let due = view.number == self.prepared && view.number > self.view.number;
        due.then_some(Change::Enter { view, returns })
    }

    /// Enters a view of [`Change::Enter`].
    pub(crate) fn enter(&mut self, hub: &mut Hub, view: View) {
        self.view = view;
        (self.broken, self.told) = (false, false);
        self.at_end.clear();
        let (number, due) = (self.view.number, &mut self.due);
        self.early.retain(|(of, incoming)| {
            let early = *of > number;
            if !early {
                due.push_back(*incoming);
            }
            early
        });
        hub.event(Event::View { number: number.0, members: self.view.members.len() as u32 });
    }

    // The coordinator at this node

    /// Lets the coordinator act, if this node hosts it.
    pub(crate) fn advance(&mut self, hub: &mut Hub) {
        if let Some(coordinator) = &mut self.coordinator {
            if coordinator.has_conflicts() {
                coordinator.note_connected(|worker| worker == hub.setup.me || hub.is_agreed(worker));
            }
            coordinator.advance(hub.now());
            hub.set_alarm(coordinator.deadline());
        }
    }

    /// The coordinator at this node has more to say: [`Self::take_change`] has to be called again.
    pub(crate) fn has_commands(&self) -> bool {
        self.coordinator.as_ref().is_some_and(Coordinator::has_commands)
    }

    /// Sends the coordinator's messages, up to a command that changes something at this node.
    pub(crate) fn take_change(&mut self, hub: &mut Hub, standing: Standing) -> Option<Change> {
        let me = hub.setup.me;
        loop {
            let coordinator = self.coordinator.as_mut()?;
            let change = match coordinator.take_command()? {
                Command::Prepare { to } if to == me => {
                    let number = coordinator.number();
                    self.prepare(hub, number, standing)
                }
                Command::Commit { to, returns } if to == me => {
                    let view = coordinator.view().clone();
                    self.commit(view, returns)
                }
                Command::Release { to } if to == me => {
                    self.end = End::Released;
                    None
                }
                Command::Refuse { to } if to == me => {
                    self.end = End::Refused;
                    None
                }
                command => {
                    send(coordinator, hub, command);
                    None
                }
            };
            if change.is_some() {
                return change;
            }
        }
    }
}

fn goodbye(hub: &Hub) -> Message {
    let (origin, incarnation) = (hub.setup.me, hub.setup.incarnation);
    Message::Leave(Leave { origin, incarnation, last: Sequence(0), stays: false })
}

/// Sends a command of the coordinator to another node. A node that is not connected is told when it is.
fn send(coordinator: &Coordinator, hub: &mut Hub, command: Command) {
    let (Command::Prepare { to } | Command::Commit { to, .. } | Command::Release { to } | Command::Refuse { to }) =
        command;
    if !hub.is_agreed(to) {
        return;
    }
    match command {
        Command::Prepare { .. } => hub.notify(to, Message::Prepare { view: coordinator.number() }),
        Command::Commit { returns, .. } => {
            let View { number, round, donor, last, ref members } = *coordinator.view();
            for message in Message::members(number, members, hub.setup.cluster.workers) {
                hub.notify(to, message);
            }
            hub.notify(to, Message::Commit(Commit { view: number, round, donor, last, returns }));
        }
        Command::Release { .. } => hub.notify(to, Message::Release),
        Command::Refuse { .. } => hub.refuse(to),
    }
}
