//! The exchange of messages with the neighbours: each message of each origin enters the ledger exactly once, and is
//! kept until every neighbour that needs it has acknowledged it.

use alloc::vec::Vec;

use super::job::Job;
use super::marks::{Mark, Marks};
use super::neighbours::{Neighbours, Start};
use super::replica::Replica;
use super::slots::{Slots, ack};
use crate::codec::BodyError;
use crate::id::{Incarnation, PeerId, Sequence};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::encoding::Encoding;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::machine::{Event, ProtocolError, Rejection, Signal};
use crate::tape::Order;
use crate::wire::{Ack, Kind, Message, Quanta};

#[derive(Debug)]
pub(super) struct Exchange {
    /// The view that messages belong to; 0 before the first.
    pub(super) view: Sequence,
    /// This node takes and sends messages of the view.
    open: bool,
    /// Peers whose former process has a stream of which this node may lack the rest. What the new process says has to wait
    /// for the next view: its mark would hide what is missing.
    doubted: Vec<PeerId>,
    pub(super) neighbours: Neighbours,
    pub(super) marks: Marks,
    pub(super) slots: Slots,
    pub(super) replica: Replica,
}

/// A held message that is due.
#[derive(Copy, Clone, Debug)]
struct Turn {
    quanta: Quanta,
    /// The neighbour that sent it.
    from: usize,
    /// The slot for its body; `None` if nothing is to be done with it.
    slot: Option<usize>,
    /// It is not in the ledger yet.
    new: bool,
}

impl Exchange {
    pub(super) fn new(neighbours: Neighbours, marks: Marks, slots: Slots, replica: Replica) -> Self {
        Self { view: Sequence(0), open: false, doubted: Vec::new(), neighbours, marks, slots, replica }
    }

    // Views

    /// Is no operation under way that changes the ledger, or a message?
    pub(super) fn is_quiet(&self) -> bool {
        !self.replica.is_decoding() && self.slots.is_quiet()
    }

    /// A view begins. Messages of the view before are of no use any more.
    pub(super) fn enter(&mut self, hub: &mut Port<'_, Job>, view: &View) {
        (self.view, self.open) = (view.number, false);
        self.doubted.clear();
        self.neighbours.enter(hub.setup.me, &view.members);
        self.marks.enter(&view.members, |origin| hub.process(origin));
        self.slots.enter(self.neighbours.len());
        while let Some(incoming) = hub.take_held(|_, _| true) {
            hub.discard(&incoming);
        }
        for slot in 0..self.slots.len() {
            self.maybe_free(hub, slot);
        }
        // A worker that has announced its end and is no member any more has left.
        for (origin, _) in self.marks.iter().filter(|(_, mark)| mark.out && mark.last.is_some()) {
            hub.mark_left(origin);
        }
    }

    /// The ledger is the donor's, with these marks. Own messages that are not in it are added.
    pub(super) fn adopt(&mut self, hub: &mut Port<'_, Job>, marks: &[Mark]) {
        let (me, incarnation) = (hub.setup.me, hub.setup.incarnation);
        let end = self.marks.get(me).last;
        self.marks.adopt(marks);
        let own = *self.marks.get(me);
        for slot in self.slots.own() {
            let entry = *self.slots.entry(slot);
            if !own.covers(&entry.quanta) && !planted!(hub, SnapshotOverwrites) {
                self.replica.on_own(entry.count());
                self.replica.decode(hub, self.slots.body(slot), Job::Own);
            }
        }
        *self.marks.get_mut(me) = Mark { last: end, ..Mark::new(incarnation, own.sequence) };
    }

    /// This node has the state that the view begins with: the exchange with its neighbours begins. `made`: own messages
    /// so far.
    pub(super) fn begin(&mut self, hub: &mut Port<'_, Job>, made: Sequence) {
        self.open = true;
        let own = self.marks.get_mut(hub.setup.me);
        (own.sequence, own.passed) = (made, made);
        for peer in self.neighbours.others() {
            self.tell_have(hub, *peer);
        }
        for to in 0..self.neighbours.len() {
            self.restart(hub, to);
        }
    }

    // Neighbours

    /// A peer is connected, perhaps again.
    pub(super) fn on_agreed(&mut self, hub: &mut Hub, peer: PeerId) {
        self.neighbours.forget_start(peer);
        if self.open && self.neighbours.others().contains(&peer) {
            self.tell_have(hub, peer);
        }
        let mark = self.marks.get_mut(peer);
        if mark.incarnation != hub.incarnation(peer) {
            // Another process has announced that end.
            mark.last = None;
        }
    }

    /// A peer has a new process, and this node relies on the rest of the stream of the former one. The next view is due.
    pub(super) fn doubt(&mut self, peer: PeerId) {
        if !self.doubted.contains(&peer) {
            self.doubted.push(peer);
        }
    }

    /// Tells a member that this node is in the view, and how much of the member's stream is in the ledger.
    fn tell_have(&self, hub: &mut Hub, peer: PeerId) {
        if hub.is_agreed(peer) {
            let mark = self.marks.get(peer);
            let last = if mark.incarnation == hub.incarnation(peer) { mark.sequence } else { Sequence(0) };
            hub.notify(peer, Message::Have { view: self.view, last });
        }
    }

    /// A worker is in a view, and says how much it has of this node's stream.
    pub(super) fn on_have(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, start: Start) {
        if self.doubted.contains(&peer) && start.view == self.view {
            return;
        }
        self.neighbours.set_start(peer, start);
        if let Some(to) = self.neighbours.index_of(peer).filter(|_| self.open) {
            self.restart(hub, to);
        }
    }

    /// Begins to send to neighbour `to` on a new connection, or in a new view.
    fn restart(&mut self, hub: &mut Port<'_, Job>, to: usize) {
        let Some(start) = self.start(hub, to) else { return };
        self.slots.restart(to);
        if !self.neighbours.is_relay() {
            // A message that the neighbour has need not be sent. In a relay tree, the nodes behind it may lack it.
            for slot in 0..self.slots.len() {
                if self.slots.has_own_up_to(slot, start.have) {
                    self.slots.set_unneeded(slot, to);
                    self.maybe_free(hub, slot);
                }
            }
        }
        for (origin, mark) in self.marks.iter() {
            self.tell_end(hub, origin, mark, to);
        }
        self.send_next(hub, to);
    }

    /// The start that neighbour `to` has sent on this connection, if it is in the view.
    fn start(&self, hub: &Hub, to: usize) -> Option<Start> {
        let peer = self.neighbours.get(to);
        self.neighbours.start(peer, self.view).filter(|_| hub.is_agreed(peer))
    }

    /// Is this message one of the view? The peer has entered it, and says so before anything else.
    pub(super) fn is_timely(&self, peer: PeerId) -> bool {
        self.neighbours.start(peer, self.view).is_some() && self.neighbours.index_of(peer).is_some()
    }

    // Ends

    /// Announces the end of an origin's stream to neighbour `to`. In a full mesh each node announces its own end; a relay
    /// passes on the ends of all.
    fn tell_end(&self, hub: &mut Hub, origin: PeerId, mark: &Mark, to: usize) {
        let peer = self.neighbours.get(to);
        let mine = origin == hub.setup.me || (self.neighbours.is_relay() && !mark.out);
        if let Some(last) = mark.last.filter(|_| mine && origin != peer && hub.is_agreed(peer)) {
            hub.notify(peer, Message::StreamEnd { origin, incarnation: mark.incarnation, last });
        }
    }

    /// Notes the end of an origin's stream, and announces it.
    pub(super) fn note_end(&mut self, hub: &mut Hub, origin: PeerId, incarnation: Incarnation, last: Sequence) {
        let mark = self.marks.get_mut(origin);
        if mark.incarnation != incarnation {
            (mark.incarnation, mark.sequence) = (incarnation, Sequence(0));
        }
        mark.last = Some(last);
        let mark = *mark;
        for to in 0..self.neighbours.len() {
            if self.open && self.start(hub, to).is_some() {
                self.tell_end(hub, origin, &mark, to);
            }
        }
    }

    /// A neighbour says that an origin makes no more messages. Before this node has the state that the view begins with, that
    /// does not count: the mark of a new process would hide which messages of its former one are in the ledger. The neighbour
    /// says it again when it hears that this node has the state.
    pub(super) fn on_end(&mut self, hub: &mut Hub, origin: PeerId, incarnation: Incarnation, last: Sequence) {
        let mark = self.marks.get(origin);
        let known = mark.incarnation == incarnation && mark.last.is_some();
        if self.open && !known && origin != hub.setup.me {
            self.note_end(hub, origin, incarnation, last);
        }
    }

    // Messages of other origins

    /// Takes the held messages, as far as there are slots.
    pub(super) fn maybe_receive(&mut self, hub: &mut Port<'_, Job>) {
        let dedup = !planted!(hub, NoDedup);
        if !self.open {
            return;
        }
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

    /// Is it the turn of this held message: is there nothing to do with it, or a slot for it?
    fn turn(&self, incoming: &Incoming, dedup: bool) -> Option<Turn> {
        let Message::Quanta(quanta) = incoming.message else { return None };
        let from = self.neighbours.index_of(incoming.peer)?;
        let mark = self.marks.get(quanta.origin);
        let known = mark.covers(&quanta) && dedup;
        // A relay can have a message in its ledger, from a snapshot, that the nodes behind it lack.
        let is_under_way = self.slots.taking(quanta.origin).is_some_and(|last| quanta.last <= last);
        let done = (known && (!self.neighbours.is_relay() || quanta.last <= mark.passed)) || (is_under_way && dedup);
        if done {
            return Some(Turn { quanta, from, slot: None, new: false });
        }
        // Without a tape, two messages of one origin are not under way at once.
        let may_come = |_: &usize| self.slots.keeps_apart() || self.slots.taking(quanta.origin).is_none();
        let free = self.slots.free_inbound(from).filter(may_come);
        free.map(|slot| Turn { quanta, from, slot: Some(slot), new: !known })
    }

    fn take(&mut self, hub: &mut Port<'_, Job>, incoming: &Incoming, turn: Turn, dedup: bool) {
        let (Turn { quanta, from, slot, new }, peer) = (turn, incoming.peer);
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
        if !self.neighbours.is_relay() && (quanta.origin != peer || quanta.incarnation != hub.incarnation(peer)) {
            let (expected, got) = (hub.incarnation(peer), quanta.incarnation);
            return hub.close(peer, ProtocolError::WrongIncarnation { expected, got });
        }
        // The mark does not count messages that are under way.
        let next = self.slots.taking(quanta.origin).map_or_else(|| mark.next(quanta.incarnation), Sequence::next);
        let (expected, got) = (next.0, quanta.first.0);
        if new && expected != got && dedup {
            return hub.close(peer, ProtocolError::Gap { expected, got });
        }
        self.slots.occupy(slot, Some(from), quanta, incoming.length, new);
        if incoming.length > 0 {
            hub.receive(incoming, self.slots.body(slot), Job::Receive { slot, from });
        } else {
            self.on_received(hub, slot, from);
        }
    }

    /// A message is here, with its body.
    pub(super) fn on_received(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize) {
        self.slots.set_here(slot);
        let origin = self.slots.entry(slot).quanta.origin;
        if hub.allows(Order::Apply { origin }) && self.slots.next_here(origin) == Some((slot, from)) {
            self.apply(hub, slot, from);
        }
    }

    /// Applies the messages that are here and come next on the tape that the node follows.
    pub(super) fn maybe_apply(&mut self, hub: &mut Port<'_, Job>) {
        while let Some(Order::Apply { origin }) = hub.next_order()
            && let Some((slot, from)) = self.slots.next_here(origin)
        {
            self.apply(hub, slot, from);
        }
        // After the last entry of the tape, the messages that are here are applied in any order.
        while !hub.is_following()
            && self.slots.keeps_apart()
            && let Some((slot, from)) = self.slots.first_here()
        {
            self.apply(hub, slot, from);
        }
    }

    fn apply(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize) {
        self.slots.set_applying(slot);
        let entry = self.slots.entry(slot);
        // Also for a message that is only passed on: the peers behind get the messages in this order.
        hub.decide(Order::Apply { origin: entry.quanta.origin });
        if entry.new && entry.length > 0 {
            self.replica.decode(hub, self.slots.body(slot), Job::Decode { slot, from });
        } else {
            self.on_applied(hub, slot, from);
        }
    }

    pub(super) fn on_decoded(&mut self, hub: &mut Port<'_, Job>, slot: usize, from: usize, result: KernelResult) {
        self.replica.on_decoded();
        if let KernelResult::Malformed(BodyError::Ledger { index }) = result {
            // The limit is this node's: the peer has done nothing wrong, and must not be given up for it.
            self.slots.abandon(slot);
            return hub.signal(Signal::LedgerFull { index });
        }
        if let KernelResult::Malformed(error) = result {
            let peer = self.neighbours.get(from);
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
        let mark = self.marks.get_mut(origin);
        mark.passed = last;
        if entry.new {
            if mark.incarnation != incarnation {
                mark.last = None;
            }
            (mark.incarnation, mark.sequence) = (incarnation, last);
            self.replica.on_applied(hub, entry.count(), base);
        } else {
            hub.counters.duplicates += 1;
        }
        if self.neighbours.is_relay() {
            self.send_to_all(hub, slot, Some(from));
        }
        self.maybe_free(hub, slot);
    }

    fn acknowledge(&self, hub: &mut Hub, to: usize, ack: Ack) {
        let peer = self.neighbours.get(to);
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
    fn maybe_free(&mut self, hub: &mut Port<'_, Job>, slot: usize) {
        let Some(entry) = self.slots.take_unneeded(slot) else { return };
        while let Some(buffer) = self.slots.take_unused(entry.length) {
            hub.compute(Kernel::Release { buffer }, Job::Aside);
        }
        if let Some(from) = entry.from {
            self.acknowledge(hub, from, entry.ack());
        }
    }

    /// An own message has been encoded. Its body, of `length` bytes, goes into the ledger and to the neighbours.
    pub(super) fn on_encoded(&mut self, hub: &mut Port<'_, Job>, slot: usize, length: u32) {
        self.slots.set_length(slot, length);
        let Quanta { origin, last, .. } = self.slots.set_ready(slot).quanta;
        self.replica.on_own(1);
        // Own messages have a mark like all messages: an own message that comes back is known.
        let mark = self.marks.get_mut(origin);
        (mark.sequence, mark.passed) = (last, last);
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
        for to in (0..self.neighbours.len()).filter(|to| Some(*to) != except) {
            // A member that is not in the view yet may get the message in a snapshot.
            self.slots.set_due(slot, to, !self.neighbours.is_past_snapshots(to, self.view));
            self.send_next(hub, to);
        }
    }

    /// Sends the messages that are due to neighbour `to`, as far as it has slots. A neighbour that is not in the view
    /// gets no messages: it could not take them, and they would stand in front of the snapshot.
    fn send_next(&mut self, hub: &mut Port<'_, Job>, to: usize) {
        let peer = self.neighbours.get(to);
        if !self.open || self.start(hub, to).is_none() {
            return;
        }
        while let Some(slot) = self.slots.next_to_send(to) {
            hub.counters.resent += u64::from(self.slots.on_sending(slot, to, peer));
            let entry = self.slots.entry(slot);
            let (message, dense) = (Message::Quanta(entry.quanta), self.replica.view().len);
            let body = (entry.length > 0).then(|| self.slots.body(slot));
            hub.transmit_coded(peer, message, body, dense, Job::Send { slot });
        }
    }

    pub(super) fn on_sent(&mut self, hub: &mut Port<'_, Job>, slot: usize) {
        self.slots.on_sent(slot);
        self.maybe_free(hub, slot);
    }

    /// The neighbour that this node's messages wait for. One that is not in the view takes none, and a relay acknowledges none
    /// while such a neighbour is behind it; so it comes first.
    pub(super) fn awaited(&self, hub: &Hub) -> Option<PeerId> {
        let is_out = |to: &usize| self.slots.is_awaited(*to) && self.start(hub, *to).is_none();
        let out = (0..self.neighbours.len()).find(is_out);
        out.or_else(|| self.slots.first_awaited()).map(|to| self.neighbours.get(to))
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
