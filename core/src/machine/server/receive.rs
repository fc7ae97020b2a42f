//! Contributions from the wire to the queue of their shard: checked, received, scanned.

use super::inbox::Received;
use super::reply::breaks_tape;
use super::{Job, Life, Owed, Port, Server, Shard};
use crate::id::{PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::hub::{Hub, Incoming};
use crate::machine::{Event, ProtocolError, Rejection};
use crate::recipe::Late;
use crate::tape::Order;
use crate::wire::{Kind, Message, Push};

impl Server {
    pub(super) fn on_push(&mut self, hub: &mut Port<'_>, incoming: Incoming, push: Push) {
        let peer = incoming.peer;
        // A worker that was refused may not have heard of it yet.
        if self.workers.get(peer) != Life::Present {
            return hub.discard(&incoming);
        }
        match self.check_push(hub, &incoming, &push) {
            Err(reason) => hub.close(peer, reason),
            Ok(()) if self.is_due(hub, peer, &push) => self.take_push(hub, incoming, push),
            Ok(()) => hub.hold(incoming),
        }
    }

    fn check_push(&self, hub: &Hub, incoming: &Incoming, push: &Push) -> Result<(), ProtocolError> {
        let (peer, length) = (incoming.peer, incoming.length);
        let shard = self.find_shard(push.shard)?;
        let longest = self.push.len_max(self.shard_of(hub, push.shard)) as u32;
        let fits = match push.weight {
            0 => length == 0,
            _ if push.repeats && !shard.last.is_empty() => true,
            _ if self.push.is_plain() => length == shard.bytes(),
            _ => (1..=longest).contains(&length),
        };
        if !fits {
            return Err(ProtocolError::Length { kind: Kind::Push, expected: longest, got: length });
        }
        let incarnation = hub.incarnation(peer);
        if push.incarnation != incarnation || push.worker != peer {
            return Err(ProtocolError::WrongIncarnation { expected: incarnation, got: push.incarnation });
        }
        if push.repeats && !shard.seat_of(peer).has_last {
            return Err(ProtocolError::NothingToRepeat { got: push.sequence });
        }
        // Contributions without a body do not keep back the next one of their worker while they are held.
        let held = hub.held_of(peer).filter_map(|held| match held.message {
            Message::Push(held) if held.shard == push.shard => Some(held.sequence),
            _ => None,
        });
        let last = held.max().unwrap_or_default();
        let expected = self.admitted(hub, shard, peer).max(last).next();
        if push.sequence > expected {
            return Err(ProtocolError::Gap { expected: expected.0, got: push.sequence.0 });
        }
        if push.base > shard.version {
            return Err(ProtocolError::FromTheFuture { version: shard.version, got: push.base });
        }
        Ok(())
    }

    /// The worker's last contribution that is in the parameters or in an inbox.
    fn admitted(&self, hub: &Hub, shard: &Shard, worker: PeerId) -> Sequence {
        let incarnation = hub.incarnation(worker);
        let of_worker = |received: &&Received| {
            let push = &received.push;
            received.worker == worker && push.shard == shard.id && push.incarnation == incarnation
        };
        let inboxes = self.inboxes.iter().filter(of_worker);
        inboxes.map(|received| received.push.sequence).fold(shard.seat_of(worker).mark, Sequence::max)
    }

    /// Takes the contributions that wait at their senders, as far as there is room and their turn has come. Returns
    /// whether there were any.
    pub(super) fn maybe_receive(&mut self, hub: &mut Port<'_>) -> bool {
        let mut any = false;
        let due = |server: &Self, hub: &Hub, incoming: &Incoming| match &incoming.message {
            Message::Push(push) => server.is_due(hub, incoming.peer, push),
            _ => false,
        };
        loop {
            let incoming = if self.rechecks(hub) {
                let incoming = hub.take_held(|hub, incoming| due(self, hub, incoming));
                self.recheck &= incoming.is_some();
                incoming
            } else if hub.setup.recipe.is_synchronous() {
                // Rounds can hold a message of each worker, and it is the turn of one.
                let turns = self.shards.iter().filter(|shard| shard.taking.is_none());
                let next = turns.filter_map(|shard| shard.clocks.slowest());
                hub.take_held_of(next.map(|(worker, _)| worker), |hub, incoming| due(self, hub, incoming))
            } else {
                None
            };
            let Some(incoming) = incoming else { return any };
            if let Message::Push(push) = incoming.message {
                self.take_push(hub, incoming, push);
                any = true;
            }
        }
    }

    /// Can the held contribution of any worker be due? If not, one is due when it is its worker's turn.
    #[cfg_attr(not(planted), allow(unused_variables, reason = "the hub says which bug is planted"))]
    fn rechecks(&mut self, hub: &Hub) -> bool {
        // After the end of a tape, its orders hold up nothing.
        self.recheck |= hub.is_following();
        let synchronous = hub.setup.recipe.is_synchronous();
        let room = !synchronous && self.inboxes.has_room();
        self.recheck || self.first.is_some() || room || planted!(hub, ArrivalOrder)
    }

    /// Can this contribution be handled now?
    fn is_due(&self, hub: &Hub, worker: PeerId, push: &Push) -> bool {
        let index = self.shard_of(hub, push.shard);
        let shard = &self.shards[index];
        let synchronous = hub.setup.recipe.is_synchronous();
        let known = push.sequence <= self.admitted(hub, shard, worker);
        if let Some(first) = &self.first {
            return known || self.may_take(first, index, worker, push);
        }
        let late = synchronous && push.base < shard.version;
        let turn = if synchronous {
            is_turn(hub, shard, worker)
        } else {
            hub.allows(Order::Take { shard: push.shard, worker })
        };
        known || late || (self.inboxes.has_room() && turn)
    }

    fn take_push(&mut self, hub: &mut Port<'_>, incoming: Incoming, push: Push) {
        let (worker, length) = (incoming.peer, incoming.length);
        let index = self.shard_of(hub, push.shard);
        let known = push.sequence <= self.admitted(hub, &self.shards[index], worker);
        let shard = &mut self.shards[index];
        if known && !planted!(hub, NoDedup) {
            hub.counters.duplicates += 1;
            // A contribution that is still in an inbox is answered when it has been applied.
            if push.sequence <= shard.seat(worker).mark {
                if shard.owed(worker).is_none() {
                    // The worker has not got the answer, and the new one can have other parameters.
                    breaks_tape(hub);
                }
                match self.first {
                    // The welcome after a late contribution may have got lost.
                    Some(_) if shard.owed(worker).is_none() => _ = shard.set_owed(worker, Some(Owed::Welcome)),
                    Some(_) => {}
                    None => shard.owe_answer(worker, &push),
                }
            }
            return hub.discard(&incoming);
        }
        let keeps_late = self.first.is_some_and(|first| first.late == Late::Next);
        if hub.setup.recipe.has_rounds() && push.base < shard.version && !keeps_late {
            self.drop_late(hub, index, worker, &push);
            return hub.discard(&incoming);
        }
        if !hub.setup.recipe.has_rounds() {
            hub.decide(Order::Take { shard: push.shard, worker });
        }
        shard.taking = Some(worker);
        if shard.seat_of(worker).welcomed.is_some_and(|version| push.base > version) {
            let seat = shard.seat(worker);
            (seat.welcomed, seat.in_doubt) = (None, false);
        }
        // Another copy is known from now on.
        self.recheck |= holds(hub, worker, push.shard);
        self.step_times[worker.index()] = push.step_time;
        let inbox = self.inboxes.put(Received { worker, push, length });
        let unused = self.inboxes.take_idle().into_iter().flatten();
        unused.for_each(|buffer| hub.compute(Kernel::Release { buffer }, Job::Prepare));
        if length == 0 {
            if push.repeats {
                self.repeat(hub, index, inbox);
            }
            return self.enqueue(hub, inbox);
        }
        let plain = self.push.is_plain();
        let into = if plain { self.inboxes.floats(inbox, shard.len) } else { self.inboxes.body(inbox, length) };
        hub.receive(&incoming, into, Job::Receive { inbox });
    }

    /// A body has arrived: it is scanned for floats that are not finite, or expanded to floats.
    pub(super) fn on_received(&mut self, hub: &mut Port<'_>, inbox: usize) {
        let Received { push, length, .. } = self.inboxes.get(inbox);
        let index = self.shard_of(hub, push.shard);
        let x = self.inboxes.floats(inbox, self.shards[index].len);
        let kernel = if self.push.is_plain() {
            Kernel::Scan { x }
        } else {
            let (body, sections) = (self.inboxes.body(inbox, length), self.push.sections(index));
            Kernel::Expand { coding: self.push.coding(index, u64::MAX), body, sections, into: x }
        };
        hub.compute(kernel, Job::Scan { inbox });
    }

    /// A body did not arrive. The worker sends it again when it is back.
    pub(super) fn on_not_received(&mut self, hub: &mut Port<'_>, inbox: usize) {
        breaks_tape(hub);
        let Received { push, .. } = self.inboxes.take(inbox);
        let shard = self.shards.iter_mut().find(|shard| shard.id == push.shard);
        shard.expect("a shard that is held here").taking = None;
    }

    pub(super) fn on_scanned(&mut self, hub: &mut Port<'_>, inbox: usize, result: KernelResult) {
        let Received { worker, push, .. } = self.inboxes.get(inbox);
        let index = self.shard_of(hub, push.shard);
        let reason = match result {
            KernelResult::NonFinite { index } => Some(Rejection::NonFinite { shard: push.shard, index }),
            KernelResult::Malformed(error) => Some(Rejection::Malformed(error)),
            _ => None,
        };
        match reason.filter(|_| push.weight > 0) {
            // The worker's clock ticks although the contribution is refused, so that no other worker waits for it.
            Some(reason) => {
                hub.event(Event::Rejected { peer: worker, reason });
                hub.counters.rejected += 1;
                if self.first.is_some() && self.shards[index].is_over(push.base) {
                    self.excuse(hub, index, worker, &push);
                } else {
                    self.answer(hub, index, worker, &push);
                }
                self.inboxes.take(inbox);
            }
            None => {
                self.keep_last(hub, index, inbox);
                self.enqueue(hub, inbox);
            }
        }
    }

    /// A contribution can be merged.
    fn enqueue(&mut self, hub: &mut Port<'_>, inbox: usize) {
        if let Some(first) = self.first {
            return self.on_ready(hub, &first, inbox);
        }
        let index = self.shard_of(hub, self.inboxes.get(inbox).push.shard);
        self.shards[index].queue.push_back(inbox);
    }
}

/// Is a contribution of this worker to the shard held?
pub(super) fn holds(hub: &Hub, worker: PeerId, shard: ShardId) -> bool {
    hub.held_of(worker).any(|held| matches!(held.message, Message::Push(push) if push.shard == shard))
}

/// In a synchronous round, contributions are taken one at a time in rank order.
#[cfg_attr(not(planted), allow(unused_variables, reason = "the hub says which bug is planted"))]
fn is_turn(hub: &Hub, shard: &Shard, worker: PeerId) -> bool {
    if planted!(hub, ArrivalOrder) {
        return shard.taking.is_none();
    }
    shard.taking.is_none() && shard.clocks.slowest().is_some_and(|(next, _)| next == worker)
}
