//! A member's side of views: stopping, reporting, beginning anew.

use super::coordinator::{Command, View};
use super::*;
use crate::status::Presence;

/// Bits of a report's weight.
const HAS: u32 = 1;
const LEAVES: u32 = 2;
const LAST: u32 = 4;
const BROKEN: u32 = 8;
/// Kinds of a view message, by its weight: everyone stop; this is the view, whose last round may have been the last.
const PREPARE: u32 = 0;
const COMMIT: u32 = 1;
const COMMIT_LAST: u32 = 2;
/// Ranks in one message of members.
const PIECE: u32 = 64;

impl Collective {
    /// Is this node a member of a view that goes on?
    pub(super) fn is_in_view(&self) -> bool {
        self.view > Sequence(0) && self.view == self.prepared
    }

    pub(super) fn position(&self) -> usize {
        let me = self.hub.setup.me;
        self.members.iter().position(|member| *member == me).unwrap_or(0)
    }

    // Reports

    /// Tells the coordinator where this node is.
    pub(super) fn report(&mut self) {
        if self.alone {
            return;
        }
        let report = Report {
            incarnation: self.hub.setup.incarnation,
            view: self.prepared,
            round: self.round,
            // At the start of a run, the coordinator has what everyone starts from.
            has: self.has || (self.coordinator.is_some() && self.has_initial()),
            leaves: matches!(self.own, Own::Leaving | Own::Left) && !self.last,
            last: self.last && self.fetching.is_none(),
            broken: self.broken,
            suspect: self.suspect,
        };
        let now = self.hub.now();
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.on_report(self.host, report, now);
        } else if self.hub.is_agreed(self.host) {
            let flags = [(report.has, HAS), (report.leaves, LEAVES), (report.last, LAST), (report.broken, BROKEN)];
            let header = Header {
                sequence: report.view,
                clock: report.round,
                weight: flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum(),
                base: Clock(report.suspect.map_or(0, |peer| u64::from(peer.0) + 1)),
                ..self.hub.header(Kind::Report)
            };
            self.hub.notify(self.host, header);
        }
    }

    /// Initial parameters count when nobody has been further.
    fn has_initial(&self) -> bool {
        self.coordinator.as_ref().is_some_and(|coordinator| !coordinator.knows_of_a_run())
    }

    pub(super) fn on_report(&mut self, peer: PeerId, header: &Header) {
        let flag = |bit| header.weight & bit != 0;
        let report = Report {
            incarnation: self.hub.incarnation(peer),
            view: header.sequence,
            round: header.clock,
            has: flag(HAS),
            leaves: flag(LEAVES),
            last: flag(LAST),
            broken: flag(BROKEN),
            suspect: header.base.0.checked_sub(1).map(|rank| PeerId(rank as u32)),
        };
        let now = self.hub.now();
        let knew = self.has_initial();
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.on_report(peer, report, now);
        }
        // A run is under way: what this node starts with is not what everyone has.
        if knew && !self.has_initial() && !self.has {
            self.report();
        }
    }

    // What the coordinator wants

    pub(super) fn coordinate(&mut self) {
        let now = self.hub.now();
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.advance(now);
            let deadline = coordinator.deadline();
            self.hub.set_alarm(deadline);
        }
        while let Some(command) = self.coordinator.as_mut().and_then(Coordinator::take) {
            let me = self.hub.setup.me;
            match command {
                Command::Prepare { to } if to == me => {
                    let number = self.coordinator.as_ref().map_or(Sequence(0), Coordinator::number);
                    self.prepare(number);
                }
                Command::Commit { to } if to == me => {
                    if let Some(view) = self.coordinator.as_ref().map(Coordinator::view).cloned() {
                        self.commit(view);
                    }
                }
                Command::Release { to } if to == me => self.released = true,
                Command::Prepare { to } => self.tell_prepare(to),
                Command::Commit { to } => self.tell_commit(to),
                Command::Release { to } => self.tell(to, self.hub.header(Kind::Release)),
                Command::Refuse { to } if to == me => self.late = true,
                Command::Refuse { to } if self.hub.is_agreed(to) => self.hub.refuse(to),
                Command::Refuse { .. } => {}
            }
        }
    }

    fn tell(&mut self, to: PeerId, header: Header) {
        // One that is not connected is told when it is.
        if self.hub.is_agreed(to) {
            self.hub.notify(to, header);
        }
    }

    fn tell_prepare(&mut self, to: PeerId) {
        let Some(number) = self.coordinator.as_ref().map(Coordinator::number) else { return };
        self.tell(to, Header { sequence: number, weight: PREPARE, ..self.hub.header(Kind::View) });
    }

    fn tell_commit(&mut self, to: PeerId) {
        let Some(coordinator) = &self.coordinator else { return };
        let View { number, round, donor, last, .. } = *coordinator.view();
        for shard in 0..self.hub.setup.cluster.workers.div_ceil(PIECE) {
            let Some(coordinator) = &self.coordinator else { return };
            let here = coordinator.view().members.iter().filter(|member| member.0 / PIECE == shard);
            let mask = here.fold(0u64, |mask, member| mask | 1 << (member.0 % PIECE));
            let (shard, base) = (ShardId(shard), Clock(mask));
            self.tell(to, Header { sequence: number, shard, base, ..self.hub.header(Kind::Member) });
        }
        let weight = if last { COMMIT_LAST } else { COMMIT };
        let (clock, shard) = (round, ShardId(donor.0));
        self.tell(to, Header { sequence: number, weight, clock, shard, ..self.hub.header(Kind::View) });
    }

    pub(super) fn on_view(&mut self, header: &Header) {
        let workers = self.hub.setup.cluster.workers;
        if header.kind == Kind::Member {
            if header.shard == ShardId(0) {
                self.coming.clear();
            }
            let first = header.shard.0.saturating_mul(PIECE);
            let ranks = (0..PIECE).filter(|bit| header.base.0 & 1 << bit != 0).map(|bit| first.saturating_add(bit));
            self.coming.extend(ranks.filter(|rank| *rank < workers).map(PeerId));
            self.coming.truncate(workers as usize);
            return;
        }
        if header.weight == PREPARE {
            return self.prepare(header.sequence);
        }
        let donor = PeerId(header.shard.0);
        let members = core::mem::take(&mut self.coming);
        // One that is not addressed to this node, or makes no sense, is none.
        if members.contains(&self.hub.setup.me) && members.contains(&donor) {
            let (number, round, last) = (header.sequence, header.clock, header.weight == COMMIT_LAST);
            self.commit(View { number, members, round, donor, last });
        }
    }

    /// Stops, and says where that was.
    fn prepare(&mut self, number: Sequence) {
        if number <= self.view {
            return;
        }
        if number > self.prepared {
            self.prepared = number;
            if planted!(self.hub, HalfRoundApplied) {
                self.apply_half();
            }
            self.exchange.stop();
            self.fetching = None;
            (self.suspect, self.broken) = (None, false);
        }
        self.report();
    }

    /// Goes on among the members of a view.
    fn commit(&mut self, view: View) {
        if view.number != self.prepared || view.number <= self.view || matches!(self.own, Own::Left) {
            return;
        }
        self.view = view.number;
        self.members.clear();
        self.members.extend(&view.members);
        self.donor = view.donor;
        (self.suspect, self.broken) = (None, false);
        let count = self.members.len() as u32;
        self.hub.event(Event::View { number: self.view.0, members: count });
        self.exchange.form();
        if self.donor == self.hub.setup.me && !self.has {
            // The run begins with what this node was given.
            self.has = true;
        }
        self.last |= view.last;
        let behind = !self.has || (self.round < view.round && !planted!(self.hub, BehindNotFetched));
        self.fetching = behind.then_some(view.round);
        if !behind {
            self.on_current();
        }
        // One that was lost before this view is no better in it.
        let lost = |member: &&PeerId| self.hub.presence(**member) == Presence::Lost && **member != self.hub.setup.me;
        if let Some(member) = self.members.iter().find(lost).copied().filter(|member| *member != self.host) {
            self.suspect = Some(member);
            self.report();
        }
    }

    /// This node has the parameters of its view.
    fn on_current(&mut self) {
        if self.own == Own::Joining {
            self.own = Own::Computing;
            self.hub.signal(Signal::Joined { clock: self.round });
        }
        if self.last {
            self.report();
        }
    }

    // Parameters for those who lack them

    pub(super) fn maybe_fetch(&mut self) {
        if self.fetching.is_none()
            || !self.is_in_view()
            || !self.exchange.may_fetch()
            || !self.hub.is_agreed(self.donor)
        {
            return;
        }
        self.exchange.asked = true;
        let header = Header { sequence: self.view, ..self.hub.header(Kind::Fetch) };
        self.hub.notify(self.donor, header);
    }

    pub(super) fn on_fetch(&mut self, peer: PeerId, header: Header) {
        let lacks = self.members.contains(&peer) && !self.exchange.given_to.contains(&peer);
        if header.sequence != self.view || !self.is_in_view() || !self.has || self.fetching.is_some() || !lacks {
            return;
        }
        self.exchange.given_to.push(peer);
        self.giving += 1;
        let body = self.whole(self.params());
        let header =
            Header { sequence: self.view, clock: self.round, length: body.len, ..self.hub.header(Kind::State) };
        self.hub.transmit(peer, header, Some(body), Job::Give);
    }

    pub(super) fn on_state(&mut self, peer: PeerId, header: Header) {
        let expected = self.whole(self.params()).len;
        if header.length != expected {
            let (kind, got) = (header.kind, header.length);
            return self.hub.close(peer, ProtocolError::Length { kind, expected, got });
        }
        if header.sequence != self.view
            || !self.is_in_view()
            || self.fetching != Some(header.clock)
            || peer != self.donor
        {
            return self.hub.discard(peer, header);
        }
        let epoch = self.exchange.begin();
        self.hub.receive(peer, self.whole(self.after()), Job::State { epoch, round: header.clock });
    }

    pub(super) fn on_fetched(&mut self, epoch: u64, round: Clock) {
        if !self.exchange.ended(epoch) || self.fetching.is_none() {
            return;
        }
        self.params = 1 - self.params;
        (self.has, self.fetching) = (true, None);
        let done = round > self.round;
        self.round = round;
        // Its contribution was in the round that it had not seen the end of.
        if done && matches!(self.own, Own::Given { .. }) && !self.last {
            self.own = Own::Computing;
            self.hub.signal(Signal::Ready { clock: self.round, changed: true });
        }
        self.on_current();
    }
}
