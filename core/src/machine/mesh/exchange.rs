//! The exchange of messages with the neighbours: each message of each origin enters the ledger exactly once, and is
//! kept until every neighbour that needs it has acknowledged it.

use super::job::Job;
use super::marks::{End, Mark, Marks};
use super::neighbours::{Neighbours, Start};
use super::replica::Replica;
use super::slots::{Slots, ack};
use crate::codec::BodyError;
use crate::id::{Incarnation, PeerId, Sequence};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::encoding::Encoding;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::{Event, ProtocolError, Rejection, Signal};
use crate::wire::{Ack, Kind, Leave, Message, Quanta};

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) neighbours: Neighbours,
    pub(super) marks: Marks,
    pub(super) slots: Slots,
    pub(super) replica: Replica,
}

/// A held message whose turn has come.
#[derive(Copy, Clone, Debug)]
struct Turn {
    quanta: Quanta,
    /// The neighbour that sent it.
    from: usize,
    /// The slot for its body; `None` if the message is known.
    slot: Option<usize>,
}

impl Exchange {
    // Neighbours

    /// A neighbour is connected. Returns false if it does not take part.
    pub(super) fn admit(&mut self, hub: &mut Hub, index: usize, fresh: bool) -> bool {
        let (relay, peer) = (self.neighbours.is_relay(), self.neighbours.get(index).peer);
        if self.marks.get(peer).lost && (!fresh || relay) {
            // The peer was given up, and messages have gone by without it.
            hub.refuse(peer);
            self.forget(hub, index);
            return false;
        }
        if fresh {
            if relay && self.neighbours.get(index).member {
                hub.signal(Signal::Cut { peer });
                return false;
            }
            self.forget(hub, index);
            let neighbour = self.neighbours.get_mut(index);
            neighbour.knows.fill(false);
            neighbour.joined = false;
            let incarnation = hub.incarnation(peer);
            hub.event(Event::PeerJoined { peer, incarnation });
            let mark = self.marks.get_mut(peer);
            mark.lost = false;
            if mark.incarnation != incarnation {
                *mark = Mark::new(incarnation, Sequence(0));
            }
        }
        let neighbour = self.neighbours.get_mut(index);
        (neighbour.member, neighbour.start) = (true, None);
        true
    }

    /// Announces to neighbour `to` where this node's messages on this connection begin. `made`: own messages so far.
    /// `joined`: this node has parameters.
    pub(super) fn tell_start(&self, hub: &mut Hub, to: usize, made: Sequence, joined: bool) {
        let peer = self.neighbours.get(to).peer;
        if hub.is_agreed(peer) {
            // Messages that the neighbour has not acknowledged are sent again. The rest of the messages were made
            // before it was a member.
            let first = self.slots.first_needed(hub.setup.me, to);
            let after = first.map_or(made, |first| Sequence(first.0 - 1));
            hub.notify(peer, Message::StreamStart { after, joined });
        }
    }

    /// Goes on with neighbour `to` where the last connection broke off.
    pub(super) fn resume(&mut self, hub: &mut Hub, to: usize) {
        hub.counters.resent += self.slots.on_reconnected(to);
        for (origin, mark) in self.marks.iter() {
            self.neighbours.tell_leave(hub, origin, mark, to);
        }
    }

    /// Neighbour `from` has announced the start of its messages. `joined`: this node has parameters, or gets them now.
    pub(super) fn on_start(&mut self, hub: &mut Port<'_, Job>, from: usize, start: Start, joined: bool) {
        let relay = self.neighbours.is_relay();
        let neighbour = self.neighbours.get_mut(from);
        let peer = neighbour.peer;
        neighbour.start = Some(start);
        neighbour.joined |= start.joined;
        // Messages that were made while neither node knew the other cannot be had any more.
        if joined && !relay && start.after > self.marks.get(peer).sequence {
            hub.signal(Signal::Cut { peer });
        }
        self.send_next(hub, from);
    }

    /// No message is kept for this neighbour any more.
    fn forget(&mut self, hub: &mut Hub, index: usize) {
        self.neighbours.get_mut(index).member = false;
        for slot in 0..self.slots.len() {
            self.slots.set_unneeded(slot, index);
            self.maybe_free(hub, slot);
        }
    }

    pub(super) fn on_lost(&mut self, hub: &mut Hub, peer: PeerId) {
        let Some(index) = self.neighbours.index_of(peer) else { return };
        self.forget(hub, index);
        let relay = self.neighbours.is_relay();
        if relay && !self.neighbours.is_leaf(peer) && self.marks.first_incomplete().is_some() {
            hub.signal(Signal::Cut { peer });
            return;
        }
        self.marks.get_mut(peer).lost = true;
        hub.event(Event::PeerLost { peer });
        if relay {
            // All messages of a leaf come through this node, so this node knows the last one.
            self.note_end(hub, peer, End { last: self.marks.get(peer).sequence, stays: false });
        }
    }

    // Leaves

    /// Neighbour `from` says that an origin leaves.
    pub(super) fn on_leave(&mut self, hub: &mut Hub, from: usize, leave: Leave) {
        let Leave { origin, incarnation, last, stays } = leave;
        let neighbour = self.neighbours.get_mut(from);
        let peer = neighbour.peer;
        neighbour.knows[origin.index()] = true;
        hub.notify(peer, Message::LeaveAck { origin, incarnation });
        if self.marks.get(origin).end.is_some() || origin == hub.setup.me {
            return;
        }
        if origin == peer && !stays && !self.neighbours.is_relay() {
            hub.mark_left(origin);
            self.forget(hub, from);
        }
        self.note_end(hub, origin, End { last, stays });
    }

    /// Notes the end of an origin's stream, and announces it.
    pub(super) fn note_end(&mut self, hub: &mut Hub, origin: PeerId, end: End) {
        let mark = self.marks.get_mut(origin);
        mark.end = Some(end);
        for to in 0..self.neighbours.len() {
            self.neighbours.tell_leave(hub, origin, mark, to);
        }
    }

    // Messages of other origins

    /// Takes the held messages, as far as there are slots.
    pub(super) fn maybe_receive(&mut self, hub: &mut Port<'_, Job>) {
        let dedup = !planted!(hub, NoDedup);
        loop {
            let mut turn = None;
            let taken = hub.take_held(|_, incoming| {
                turn = self.turn(incoming, dedup);
                turn.is_some()
            });
            let (Some(incoming), Some(turn)) = (taken, turn) else { return };
            self.take(hub, &incoming, turn, dedup);
        }
    }

    /// Is it the turn of this held message: is it known, or is there a slot for it?
    fn turn(&self, incoming: &Incoming, dedup: bool) -> Option<Turn> {
        let Message::Quanta(quanta) = incoming.message else { return None };
        let from = self.neighbours.index_of(incoming.peer)?;
        if self.marks.get(quanta.origin).covers(&quanta) && dedup {
            return Some(Turn { quanta, from, slot: None });
        }
        // Two messages of one origin must not be under way at once: the mark does not count the first one yet.
        let free = self.slots.free_inbound(from).filter(|_| !self.slots.is_taking(quanta.origin));
        free.map(|slot| Turn { quanta, from, slot: Some(slot) })
    }

    fn take(&mut self, hub: &mut Port<'_, Job>, incoming: &Incoming, turn: Turn, dedup: bool) {
        let (Turn { quanta, from, slot }, peer) = (turn, incoming.peer);
        let Some(slot) = slot else {
            hub.counters.duplicates += 1;
            hub.discard(incoming);
            // The message is acknowledged when its slot is free. If that has happened, the acknowledgement was lost.
            if !self.slots.holds(ack(&quanta), from) {
                self.acknowledge(hub, from, ack(&quanta));
            }
            return;
        };
        let mark = self.marks.get(quanta.origin);
        let replaced = mark.incarnation != quanta.incarnation && mark.incarnation != Incarnation(0);
        if replaced || (!self.neighbours.is_relay() && quanta.origin != peer) {
            let (expected, got) = (mark.incarnation, quanta.incarnation);
            return hub.close(peer, ProtocolError::WrongIncarnation { expected, got });
        }
        let (expected, got) = (mark.sequence.next().0, quanta.first.0);
        if expected != got && dedup {
            return hub.close(peer, ProtocolError::Gap { expected, got });
        }
        self.slots.occupy(slot, Some(from), quanta, incoming.length);
        if incoming.length > 0 {
            hub.receive(incoming, self.slots.body(slot), Job::Receive { slot, from });
        } else {
            self.on_applied(hub, slot, from);
        }
    }

    /// A body has come.
    pub(super) fn on_received(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize) {
        self.replica.decode(hub, self.slots.body(slot), Job::Decode { slot, from });
    }

    pub(super) fn on_decoded(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize, result: KernelResult) {
        self.replica.on_decoded();
        if let KernelResult::Malformed(BodyError::Ledger { index }) = result {
            // The limit is this node's: the peer has done nothing wrong, and must not be given up for it.
            self.slots.abandon(slot);
            return hub.signal(Signal::LedgerFull { index });
        }
        if let KernelResult::Malformed(error) = result {
            let peer = self.neighbours.get(from).peer;
            self.slots.abandon(slot);
            hub.counters.rejected += 1;
            hub.event(Event::Rejected { peer, reason: Rejection::Malformed(error) });
            hub.close(peer, ProtocolError::Unexpected { kind: Kind::Quanta });
            return;
        }
        self.on_applied(hub, slot, from);
    }

    /// A message is in the ledger: a relay passes it on, and it is acknowledged when no neighbour needs it.
    fn on_applied(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize) {
        let entry = self.slots.set_ready(slot);
        let Quanta { origin, incarnation, last, base, .. } = entry.quanta;
        self.replica.on_applied(hub, entry.count(), base);
        let mark = self.marks.get_mut(origin);
        (mark.incarnation, mark.sequence) = (incarnation, last);
        if self.neighbours.is_relay() {
            self.send_to_all(hub, slot, Some(from));
        }
        self.maybe_free(hub, slot);
    }

    fn acknowledge(&self, hub: &mut Hub, to: usize, ack: Ack) {
        let peer = self.neighbours.get(to).peer;
        if hub.is_agreed(peer) {
            hub.notify(peer, Message::QuantaAck(ack));
        }
    }

    // Delivery

    pub(super) fn on_ack(&mut self, hub: &mut Port<'_, Job>, from: usize, ack: Ack) {
        for slot in 0..self.slots.len() {
            if self.slots.is_message(slot, ack) {
                self.slots.set_unneeded(slot, from);
                self.maybe_free(hub, slot);
            }
        }
        self.send_next(hub, from);
    }

    /// Frees the slot of a message that no neighbour needs, and lets the neighbour that sent it send the next one.
    fn maybe_free(&mut self, hub: &mut Hub, slot: usize) {
        let Some(entry) = self.slots.take_unneeded(slot) else { return };
        if let Some(from) = entry.from {
            self.acknowledge(hub, from, entry.ack());
        }
    }

    /// An own message has been encoded. Its body, of `length` bytes, goes into the ledger and to the neighbours.
    pub(super) fn on_encoded(&mut self, hub: &mut Port<'_, Job>, slot: usize, length: u32) {
        self.slots.set_length(slot, length);
        let Quanta { origin, last, .. } = self.slots.set_ready(slot).quanta;
        self.replica.on_own();
        // Own messages have a mark like all messages: an own message that comes back is known.
        self.marks.get_mut(origin).sequence = last;
        self.replica.decode(hub, self.slots.body(slot), Job::Own);
        self.send_to_all(hub, slot, None);
        self.maybe_free(hub, slot);
    }

    /// An own message is in the ledger, or does not fit.
    pub(super) fn on_own(&mut self, hub: &mut Hub, result: KernelResult) {
        self.replica.on_decoded();
        match result {
            KernelResult::Malformed(BodyError::Ledger { index }) => hub.signal(Signal::LedgerFull { index }),
            // Only a bug can do this. The ledger lacks a message that peers get, so this node must not go on.
            KernelResult::Malformed(error) => panic!("an own message cannot be decoded: {error}"),
            _ => {}
        }
    }

    fn send_to_all(&mut self, hub: &mut Port<'_, Job>, slot: usize, except: Option<usize>) {
        for to in 0..self.neighbours.len() {
            let neighbour = self.neighbours.get(to);
            if neighbour.member && Some(to) != except {
                // A neighbour without parameters may get the message in a snapshot.
                self.slots.set_due(slot, to, !neighbour.joined);
                self.send_next(hub, to);
            }
        }
    }

    /// Sends the messages that are due to neighbour `to`, as far as it has slots. A neighbour without parameters gets
    /// no messages: it could not take them, and they would stand in front of the snapshot.
    fn send_next(&mut self, hub: &mut Port<'_, Job>, to: usize) {
        let neighbour = self.neighbours.get(to);
        let (ready, peer) = (neighbour.is_running() || planted!(hub, SnapshotAppliedLate), neighbour.peer);
        if !ready || !hub.is_agreed(peer) {
            return;
        }
        while let Some(slot) = self.slots.next_to_send(to) {
            self.slots.on_sending(slot, to);
            let entry = self.slots.entry(slot);
            let (message, dense) = (Message::Quanta(entry.quanta), self.replica.view().len);
            let body = (entry.length > 0).then(|| self.slots.body(slot));
            hub.transmit_coded(peer, message, body, dense, Job::Send { slot });
        }
    }

    pub(super) fn on_sent(&mut self, hub: &mut Hub, slot: usize) {
        self.slots.on_sent(slot);
        self.maybe_free(hub, slot);
    }

    // Merging

    /// Merges two own messages that wait for a neighbour that does not keep up, to make room for the next one: their
    /// quanta are summed.
    pub(super) fn maybe_merge(&mut self, hub: &mut Port<'_, Job>, encoding: &Encoding) {
        let Some(pair) = self.slots.pair_to_merge() else { return };
        let [one, other] = pair.map(|slot| self.slots.body(slot));
        let place = encoding.place(0, self.slots.on_merging(pair));
        hub.compute(Kernel::Merge { one, other, unit: self.replica.unit(), place }, Job::Merge);
    }

    pub(super) fn on_merged(&mut self, hub: &mut Port<'_, Job>, result: KernelResult) {
        let Some(pair @ [one, other]) = self.slots.end_merge() else { return };
        if let KernelResult::Merged { bytes } = result {
            if !planted!(hub, MergeForgets) {
                self.slots.take_spare(one, bytes);
            }
            self.slots.join(pair);
            hub.counters.merged += 1;
        } else {
            // Too many quanta for one entry: the messages stay two, and this node waits for the neighbour.
            self.slots.fix(one);
        }
        // The neighbours that needed the messages may have gone in the meantime.
        self.maybe_free(hub, one);
        self.maybe_free(hub, other);
        for to in 0..self.neighbours.len() {
            self.send_next(hub, to);
        }
    }
}
