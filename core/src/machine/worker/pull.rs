//! Parameters from the servers, and the view that is made of them.

use super::{Job, Port, Progress, Row, State, Worker};
use crate::buffer::Segment;
use crate::id::{Clock, Sequence, ShardId};
use crate::kernel::Kernel;
use crate::machine::hub::{Hub, Incoming};
use crate::machine::{ProtocolError, Signal};
use crate::rider::Rider;
use crate::rule::pace::may_read;
use crate::tape::Order;
use crate::wire::{Message, Occasion, Reply};

impl Worker {
    pub(super) fn on_reply(&mut self, hub: &mut Port<'_>, incoming: Incoming, reply: Reply) {
        match self.check_reply(hub, &incoming, &reply) {
            Err(reason) => hub.close(incoming.peer, reason),
            Ok(()) if self.is_due(hub, reply.shard, self.takes_early(&reply)) => self.take_reply(hub, &incoming, reply),
            Ok(()) => hub.hold(incoming),
        }
    }

    fn check_reply(&self, hub: &Hub, incoming: &Incoming, reply: &Reply) -> Result<(), ProtocolError> {
        let (kind, got, index) = (incoming.message.kind(), incoming.length, reply.shard.0 as usize);
        let row = self.rows.get(index).ok_or(ProtocolError::NoSuchShard { got: reply.shard })?;
        let delta = matches!(incoming.message, Message::Delta(_));
        let longest = self.pull.len_max(index) as u32;
        let expected = if delta { longest } else { row.bytes() };
        let fits = if delta { !self.pull.is_plain() && (1..=longest).contains(&got) } else { got == expected };
        if !fits {
            return Err(ProtocolError::Length { kind, expected, got });
        }
        if self.server(hub, index) != incoming.peer {
            return Err(ProtocolError::NoSuchShard { got: reply.shard });
        }
        if reply.sequence > self.sequence {
            return Err(ProtocolError::Gap { expected: self.sequence.0, got: reply.sequence.0 });
        }
        Ok(())
    }

    /// May these parameters be received now? Not while the view is made of the parameters before. And not while other
    /// parameters of the same shard are received: parameters that are sent again after a broken connection must not
    /// meet a difference that is half applied.
    /// `early`: the view depends on when they come.
    fn is_due(&self, hub: &Hub, shard: ShardId, early: bool) -> bool {
        let refreshing = matches!(self.state, State::Refreshing { .. });
        let in_order = !early || hub.allows(Order::Row { shard });
        in_order && !refreshing && self.rows[shard.0 as usize].progress != Progress::Receiving
    }

    /// Can these parameters come before the worker has to have them? Then the view depends on when they come.
    fn takes_early(&self, reply: &Reply) -> bool {
        self.pushes.len() > 1 && reply.occasion != Occasion::Final
    }

    /// The server has a contribution that asks for no parameters.
    pub(super) fn on_receipt(
        &mut self,
        hub: &mut Port<'_>,
        incoming: Incoming,
        shard: ShardId,
        sequence: Sequence,
        magnitude: Option<Rider>,
    ) {
        let known = (shard.0 as usize) < self.rows.len() && self.server(hub, shard.0 as usize) == incoming.peer;
        if !known {
            hub.close(incoming.peer, ProtocolError::NoSuchShard { got: shard });
        } else if sequence > self.sequence {
            hub.close(incoming.peer, ProtocolError::Gap { expected: self.sequence.0, got: sequence.0 });
        } else if self.is_due(hub, shard, false) {
            self.take_receipt(shard, sequence, magnitude);
        } else {
            // In the order in which the server has sent them.
            hub.hold(incoming);
        }
    }

    fn take_receipt(&mut self, shard: ShardId, sequence: Sequence, magnitude: Option<Rider>) {
        let row = &mut self.rows[shard.0 as usize];
        row.answered = row.answered.max(sequence);
        row.magnitude = magnitude;
    }

    pub(super) fn maybe_receive(&mut self, hub: &mut Port<'_>) {
        let shard_of = |incoming: &Incoming| match incoming.message {
            Message::Params(reply) | Message::Delta(reply) => Some(reply.shard),
            Message::Receipt { shard, .. } => Some(shard),
            _ => None,
        };
        let due = |hub: &Hub, incoming: &Incoming, worker: &Self| {
            let early = matches!(incoming.message, Message::Params(reply) | Message::Delta(reply) if worker.takes_early(&reply));
            shard_of(incoming).is_some_and(|shard| worker.is_due(hub, shard, early))
        };
        while let Some(incoming) = hub.take_held(|hub, incoming| due(hub, incoming, self)) {
            match incoming.message {
                Message::Params(reply) | Message::Delta(reply) => self.take_reply(hub, &incoming, reply),
                Message::Receipt { shard, sequence, magnitude } => self.take_receipt(shard, sequence, magnitude),
                _ => {}
            }
        }
    }

    fn take_reply(&mut self, hub: &mut Port<'_>, incoming: &Incoming, reply: Reply) {
        let shard = reply.shard.0 as usize;
        if self.takes_early(&reply) {
            hub.decide(Order::Row { shard: reply.shard });
        }
        self.rows[shard].progress = Progress::Receiving;
        if let Message::Delta(_) = incoming.message {
            let length = incoming.length;
            return hub.receive(incoming, self.pulled(shard, length), Job::Delta { shard, reply, length });
        }
        // Final parameters have no own updates on top.
        let direct = self.pushes.len() == 1 || reply.occasion == Occasion::Final;
        let into = self.part(if direct { self.buffers.view } else { self.buffers.rows }, shard);
        hub.receive(incoming, into, Job::Row { shard, reply });
    }

    /// The body of a difference.
    pub(super) fn pulled(&self, shard: usize, len: u32) -> Segment {
        Segment { buffer: self.buffers.bodies, start: self.rows[shard].pull_start, len }
    }

    /// The parameters of a shard are here.
    pub(super) fn on_row(&mut self, hub: &mut Port<'_>, shard: usize, reply: Reply) {
        let server = self.server(hub, shard);
        let renewed = self.link(hub, server).renewing && self.rows[shard].progress == Progress::Receiving;
        let row = &mut self.rows[shard];
        if renewed {
            // Contributions with a receipt count too: no worker needs to have seen their effect.
            hub.counters.lost += reply.sequence.0.saturating_sub(row.held.0);
        }
        row.torn = false;
        (row.answered, row.held) = (reply.sequence, reply.sequence);
        (row.version, row.clock) = (reply.version, reply.row);
        row.newer = true;
        row.magnitude = reply.magnitude;
        row.progress = if reply.occasion == Occasion::Final { Progress::Final } else { Progress::Idle };
        // All servers know all speeds, but hear of them at other times.
        if let (Occasion::Answer { reference: Some(reference) }, 0) = (reply.occasion, shard) {
            self.reference = Some(reference);
        }
        if let Occasion::Welcome { lead } = reply.occasion {
            // Contributions under way come on top of the lead.
            let ahead = u64::from(lead) + (self.sequence.0 - row.answered.0);
            row.own = Clock(reply.row.0 + ahead);
        }
        if renewed {
            self.on_renewed(hub, shard);
        }
    }

    pub(super) fn maybe_joined(&mut self, hub: &mut Port<'_>) {
        let whole = |row: &Row| row.progress == Progress::Idle && !row.torn;
        if self.state != State::Joining || !self.rows.iter().all(whole) {
            return;
        }
        if self.pushes.len() > 1 {
            self.refresh(hub);
        } else {
            self.become_ready(hub, true);
        }
    }

    /// May the application compute its next contribution, as far as this shard is concerned?
    pub(super) fn may_go_on(&self, row: &Row) -> bool {
        let under_way = self.sequence.0 - row.answered.0;
        (under_way as usize) < self.pushes.len()
            && may_read(row.own, row.clock, self.lead_max)
            && row.progress == Progress::Idle
            && !row.torn
    }

    /// Is there a buffer for another contribution, and may it be made?
    pub(super) fn is_free(&self) -> bool {
        let buffer_is_free = self.pushes[self.slot(self.sequence.next())].sending == 0;
        buffer_is_free && self.rows.iter().all(|row| self.may_go_on(row))
    }

    pub(super) fn maybe_ready(&mut self, hub: &mut Port<'_>) {
        match self.state {
            State::Stepping if self.is_deciding() => {}
            State::Stepping if self.is_free() && (self.pushes.len() == 1 || hub.allows(Order::Go)) => {
                if self.pushes.len() > 1 {
                    hub.decide(Order::Go);
                }
                if self.rows.iter().any(|row| row.newer) && self.pushes.len() > 1 {
                    self.refresh(hub);
                } else {
                    self.become_ready(hub, false);
                }
            }
            State::Refreshing { kernels: 0 } => self.become_ready(hub, self.sequence == Sequence(0)),
            _ => {}
        }
    }

    /// `view = row - own updates that are not in it`, shard by shard.
    fn refresh(&mut self, hub: &mut Port<'_>) {
        let mut kernels = 0;
        for shard in 0..self.rows.len() {
            if !core::mem::take(&mut self.rows[shard].newer) {
                continue;
            }
            let (mut from, into) = (self.part(self.buffers.rows, shard), self.part(self.buffers.view, shard));
            let mut missing = self.rows[shard].answered.next();
            while missing <= self.sequence && !planted!(hub, OwnWritesLost) {
                if self.pushes[self.slot(missing)].weight > 0 {
                    let update = self.part(self.update(missing), shard);
                    hub.compute(Kernel::Apply { from, update, scale: self.own_scale, into }, Job::Refresh);
                    (from, kernels) = (into, kernels + 1);
                }
                missing = missing.next();
            }
            if from != into {
                hub.compute(Kernel::Copy { from, into }, Job::Refresh);
                kernels += 1;
            }
        }
        self.state = State::Refreshing { kernels };
    }

    fn become_ready(&mut self, hub: &mut Port<'_>, joined: bool) {
        self.state = State::Ready;
        hub.has_parameters = true;
        // Without, the application's own parameters still come from the version that it took last.
        let taken = joined || self.fetching;
        for row in self.rows.iter_mut().filter(|_| taken) {
            row.base = row.version;
            row.newer = false;
        }
        let clock = self.clock();
        hub.signal(if joined { Signal::Joined { clock } } else { Signal::Ready { clock, changed: taken } });
    }
}
