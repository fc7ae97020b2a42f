//! The slots: the bodies of the messages that this node keeps, and the neighbours that still need each of them.
//!
//! Only facts are here; `exchange.rs` acts on them.
//!
//! Bodies have memory as it is needed. A message that takes every element is rare: its memory is given back when a short
//! one has come after it.

use alloc::vec::Vec;

use crate::buffer::{BufferId, Segment};
use crate::id::{PeerId, Sequence};
use crate::vectors::Vectors;
use crate::wire::{Ack, Quanta};

/// Own messages that are kept before any are merged: two that a peer has not acknowledged, and two to be merged.
const OWN_SLOTS: usize = 4;
/// Neighbours that can hold back messages of their own without holding up this node. A message that one of them may have
/// must stay as it is, so each needs [`INBOUND_SLOTS`] slots. They are used only while nothing can be merged.
const SLOW_NEIGHBOURS: usize = 7;
/// Most own messages in slots.
const OWN_SLOTS_MAX: usize = OWN_SLOTS + INBOUND_SLOTS * (SLOW_NEIGHBOURS - 1);
/// Messages of other origins that can be received at once in a full mesh, and from each neighbour in a relay tree.
const INBOUND_SLOTS: usize = 2;

#[derive(Debug)]
pub(super) struct Slots {
    /// Slots for own messages, then slots for messages of other origins.
    slots: Vec<Slot>,
    /// Slots for own messages.
    own: usize,
    /// Each neighbour has inbound slots of its own.
    apart: bool,
    /// Length of each buffer in bytes.
    capacity: u32,
    /// The buffer that no slot has. Two messages are merged into it.
    spare: Room,
    /// Bytes up to which a buffer keeps its memory.
    keep_below: u32,
    /// Two own slots whose messages are being merged, in order of their messages.
    merging: Option<[usize; 2]>,
    /// Messages that have entered a slot.
    stamps: u64,
}

/// A buffer for bodies.
#[derive(Copy, Clone, Debug)]
struct Room {
    buffer: BufferId,
    /// Bytes of the longest body since it gave back its memory.
    longest: u32,
}

/// A place for one message.
#[derive(Debug)]
struct Slot {
    room: Room,
    entry: Option<Entry>,
    /// The state of the delivery to each neighbour.
    deliveries: Vec<Delivery>,
    /// Transmissions that still read the buffer.
    sending: u32,
    /// The peers that the message has been sent to, on any connection and in any view.
    sent_to: Vec<PeerId>,
}

/// A message that is kept until all neighbours that need it have it.
#[derive(Copy, Clone, Debug)]
pub(super) struct Entry {
    pub(super) quanta: Quanta,
    /// Bytes of the body.
    pub(super) length: u32,
    /// The neighbour that the message came from, which waits for an acknowledgement. `None` for own messages.
    pub(super) from: Option<usize>,
    /// The message is to be added to the ledger. If not, it is in the ledger already, and is only passed on.
    pub(super) new: bool,
    /// How far a message of another origin has come.
    stage: Stage,
    /// The message is in the ledger and may be passed on.
    ready: bool,
    /// Place in the order of arrival, and once the message has been applied, in that order. Messages are sent in the latter,
    /// which a tape tells.
    stamp: u64,
}

/// The stages of a message of another origin on its way into the ledger.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Stage {
    Coming,
    Here,
    Applying,
}

/// How far the delivery of a message to one neighbour has got.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Delivery {
    /// The neighbour does not need the message from this node.
    Unneeded,
    /// The message is to be sent.
    Due {
        /// The message must not be merged with another one: the neighbour may have it already, from an earlier
        /// connection or from a snapshot, or the merge has failed.
        fixed: bool,
    },
    /// The message has been sent on this connection, and not been acknowledged.
    Sent,
}

impl Slots {
    /// Empty slots for a node with at most so many neighbours. `apart`: each neighbour has inbound slots of its own. Bodies
    /// take at most `capacity` bytes.
    pub(super) fn new(vectors: &mut Vectors, apart: bool, neighbours: usize, capacity: usize, keep_below: u32) -> Self {
        let own = OWN_SLOTS + INBOUND_SLOTS * neighbours.clamp(1, SLOW_NEIGHBOURS).saturating_sub(1);
        let inbound = if apart { INBOUND_SLOTS * neighbours } else { INBOUND_SLOTS };
        let mut slot = || Slot {
            room: Room { buffer: vectors.brief("a message"), longest: 0 },
            entry: None,
            deliveries: Vec::with_capacity(neighbours),
            sending: 0,
            sent_to: Vec::with_capacity(neighbours),
        };
        let slots = (0..own + inbound).map(|_| slot()).collect();
        let spare = Room { buffer: vectors.brief("a merged message"), longest: 0 };
        Self { slots, own, apart, capacity: capacity as u32, spare, keep_below, merging: None, stamps: 0 }
    }

    /// Most bytes of a body.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// A view begins, with so many neighbours. Own messages are due to all of them, since each may have taken a snapshot.
    /// Messages of other origins come again, if they are not in all ledgers.
    pub(super) fn enter(&mut self, neighbours: usize) {
        for slot in &mut self.slots {
            slot.entry.take_if(|entry| entry.from.is_some());
            let delivery = if slot.entry.is_some() { Delivery::Due { fixed: true } } else { Delivery::Unneeded };
            slot.deliveries.clear();
            slot.deliveries.resize(neighbours, delivery);
        }
    }

    /// Is no message on its way into a slot, or being merged?
    pub(super) fn is_quiet(&self) -> bool {
        self.merging.is_none() && self.entries().all(|entry| entry.ready)
    }

    /// Own messages in slots, in order.
    pub(super) fn own(&self) -> impl Iterator<Item = usize> + '_ {
        let stamp = |slot: &usize| self.slots[*slot].entry.as_ref().map(|entry| entry.stamp);
        let mut own: [Option<(u64, usize)>; OWN_SLOTS_MAX] = [None; OWN_SLOTS_MAX];
        for (place, slot) in own.iter_mut().zip(0..self.own) {
            *place = stamp(&slot).map(|stamp| (stamp, slot));
        }
        own.sort_unstable();
        own.into_iter().flatten().map(|(_, slot)| slot)
    }

    // Entries

    /// A free slot for an own message.
    pub(super) fn free_own(&self) -> Option<usize> {
        (0..self.own).find(|slot| self.slots[*slot].is_free())
    }

    /// Are two own messages to become one before the next is made?
    pub(super) fn should_merge(&self) -> bool {
        let used = (0..self.own).filter(|slot| !self.slots[*slot].is_free()).count();
        used >= OWN_SLOTS && (self.merging.is_some() || self.pair_to_merge().is_some())
    }

    /// A free slot for a message of another origin that comes from neighbour `from`.
    pub(super) fn free_inbound(&self, from: usize) -> Option<usize> {
        let first = self.own + from * INBOUND_SLOTS;
        let slots = if self.apart { first..first + INBOUND_SLOTS } else { self.own..self.slots.len() };
        slots.into_iter().find(|slot| self.slots[*slot].is_free())
    }

    pub(super) fn are_all_free(&self) -> bool {
        self.slots.iter().all(Slot::is_free)
    }

    /// Puts a message into a free slot. Its body is still to come.
    pub(super) fn occupy(&mut self, slot: usize, from: Option<usize>, quanta: Quanta, length: u32, new: bool) {
        self.stamps += 1;
        let slot = &mut self.slots[slot];
        slot.entry = Some(Entry { quanta, length, from, new, stage: Stage::Coming, ready: false, stamp: self.stamps });
        slot.deliveries.fill(Delivery::Unneeded);
        slot.sent_to.clear();
    }

    /// Marks the message of a slot as applied, and returns it.
    pub(super) fn set_ready(&mut self, slot: usize) -> Entry {
        self.stamps += 1;
        let stamp = self.stamps;
        let entry = self.entry_mut(slot);
        (entry.ready, entry.stamp) = (true, stamp);
        *entry
    }

    /// Sets the length of a message that has just been encoded.
    pub(super) fn set_length(&mut self, slot: usize, length: u32) {
        self.entry_mut(slot).length = length;
    }

    /// Drops a message with a missing or malformed body.
    pub(super) fn abandon(&mut self, slot: usize) {
        self.slots[slot].entry = None;
    }

    /// Removes a message that no neighbour needs any more, and returns it.
    pub(super) fn take_unneeded(&mut self, slot: usize) -> Option<Entry> {
        let merging = self.is_merging(slot);
        let Slot { entry, deliveries, sending, room, .. } = &mut self.slots[slot];
        let needed = *sending > 0 || merging || deliveries.iter().any(Delivery::is_needed);
        let entry = entry.take_if(|entry| entry.ready && !needed)?;
        room.longest = room.longest.max(entry.length);
        Some(entry)
    }

    /// A free buffer that gives back its memory: messages are shorter by now, as the last one of `length` bytes was.
    pub(super) fn take_unused(&mut self, length: u32) -> Option<BufferId> {
        const SHORTER: u32 = 8;
        let keep_below = self.keep_below;
        let is_unused = |room: &Room| room.longest > keep_below && length < room.longest / SHORTER;
        let spare = Some(&mut self.spare).filter(|_| self.merging.is_none());
        let free = self.slots.iter_mut().filter(|slot| slot.is_free()).map(|slot| &mut slot.room);
        let room = free.chain(spare).find(|room| is_unused(room))?;
        room.longest = 0;
        Some(room.buffer)
    }

    pub(super) fn entry(&self, slot: usize) -> &Entry {
        self.slots[slot].entry.as_ref().expect("a slot in use holds a message")
    }

    fn entry_mut(&mut self, slot: usize) -> &mut Entry {
        self.slots[slot].entry.as_mut().expect("a slot in use holds a message")
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }

    /// Does a slot hold the message that `ack` names?
    pub(super) fn is_message(&self, slot: usize, ack: Ack) -> bool {
        self.slots[slot].entry.is_some_and(|entry| entry.ack() == ack)
    }

    /// Is this message, as received from neighbour `from`, still in a slot?
    pub(super) fn holds(&self, ack: Ack, from: usize) -> bool {
        self.entries().any(|entry| entry.ack() == ack && entry.from == Some(from))
    }

    /// The number of the last message of this origin that is on its way into the ledger.
    pub(super) fn taking(&self, origin: PeerId) -> Option<Sequence> {
        let taking = self.entries().filter(|entry| entry.quanta.origin == origin && !entry.ready);
        taking.map(|entry| entry.quanta.last).max()
    }

    // Messages that wait for their turn on a tape

    /// Has each neighbour slots of its own, so that messages can wait for their turn without keeping back other
    /// messages?
    pub(super) fn keeps_apart(&self) -> bool {
        self.apart
    }

    /// A message is here, with its body.
    pub(super) fn set_here(&mut self, slot: usize) {
        self.entry_mut(slot).stage = Stage::Here;
    }

    /// A message is being applied.
    pub(super) fn set_applying(&mut self, slot: usize) {
        self.entry_mut(slot).stage = Stage::Applying;
    }

    /// The first message of this origin that has not been applied, if it is here: its slot, and the neighbour that sent it.
    pub(super) fn next_here(&self, origin: PeerId) -> Option<(usize, usize)> {
        let waiting = |entry: &Entry| entry.quanta.origin == origin && !entry.ready && entry.stage != Stage::Applying;
        let slots = self.slots.iter().enumerate().filter_map(|(slot, it)| Some((slot, it.entry.filter(waiting)?)));
        let (slot, entry) = slots.min_by_key(|(_, entry)| entry.quanta.last)?;
        entry.from.filter(|_| entry.stage == Stage::Here).map(|from| (slot, from))
    }

    /// A message that is here and can be applied.
    pub(super) fn first_here(&self) -> Option<(usize, usize)> {
        self.entries().find_map(|entry| self.next_here(entry.quanta.origin))
    }

    /// The body of a slot's message.
    pub(super) fn body(&self, slot: usize) -> Segment {
        Segment { len: self.entry(slot).length, ..self.room(slot) }
    }

    /// The whole buffer of a slot.
    pub(super) fn room(&self, slot: usize) -> Segment {
        Segment { buffer: self.slots[slot].room.buffer, start: 0, len: self.capacity }
    }

    // Deliveries

    /// Does a slot hold an own message that is among the first `last`?
    pub(super) fn has_own_up_to(&self, slot: usize, last: Sequence) -> bool {
        self.slots[slot].entry.is_some_and(|entry| entry.from.is_none() && entry.ready && entry.quanta.last <= last)
    }

    /// The message must reach neighbour `to`. `fixed`: see [`Delivery::Due`].
    pub(super) fn set_due(&mut self, slot: usize, to: usize, fixed: bool) {
        self.slots[slot].deliveries[to] = Delivery::Due { fixed };
    }

    /// The message need not reach neighbour `to` any more.
    pub(super) fn set_unneeded(&mut self, slot: usize, to: usize) {
        self.slots[slot].deliveries[to].end();
    }

    /// The slot of the message to send to neighbour `to` now, if there is one and the neighbour has room. Messages are
    /// sent in the order in which they were applied.
    pub(super) fn next_to_send(&self, to: usize) -> Option<usize> {
        let sent = self.slots.iter().filter(|slot| slot.deliveries[to] == Delivery::Sent).count();
        let due = |slot: &Slot| {
            let due = matches!(slot.deliveries[to], Delivery::Due { .. });
            slot.entry.filter(|entry| due && entry.ready).map(|entry| entry.stamp)
        };
        let stamps = self.slots.iter().enumerate().filter_map(|(index, slot)| Some((due(slot)?, index)));
        let (_, first) = stamps.min()?;
        // A message that is being merged is sent after that, and no other overtakes it.
        (sent < INBOUND_SLOTS && !self.is_merging(first)).then_some(first)
    }

    /// A transmission to neighbour `to`, which is `peer`, begins. Has the message been sent to that peer before?
    pub(super) fn on_sending(&mut self, slot: usize, to: usize, peer: PeerId) -> bool {
        let slot = &mut self.slots[slot];
        slot.deliveries[to] = Delivery::Sent;
        slot.sending += 1;
        let again = slot.sent_to.contains(&peer);
        if !again {
            slot.sent_to.push(peer);
        }
        again
    }

    /// A transmission does not read the buffer any more.
    pub(super) fn on_sent(&mut self, slot: usize) {
        self.slots[slot].sending -= 1;
    }

    /// The connection to neighbour `to` is new: nothing has been sent on it.
    pub(super) fn restart(&mut self, to: usize) {
        self.slots.iter_mut().for_each(|slot| slot.deliveries[to].restart());
    }

    /// The first neighbour that a slot waits for.
    pub(super) fn first_awaited(&self) -> Option<usize> {
        self.slots.iter().find_map(|slot| slot.deliveries.iter().position(Delivery::is_needed))
    }

    /// Does a slot wait for neighbour `to`?
    pub(super) fn is_awaited(&self, to: usize) -> bool {
        self.slots.iter().any(|slot| slot.deliveries.get(to).is_some_and(Delivery::is_needed))
    }

    // Merging

    fn is_merging(&self, slot: usize) -> bool {
        self.merging.is_some_and(|pair| pair.contains(&slot))
    }

    /// Two own messages that can be merged.
    ///
    /// The messages follow each other and wait for the same neighbours, and no neighbour can have either of them. A
    /// message that has been sent, even on a connection that broke, must stay as it is, because a receiver takes a
    /// range of sequences whole or not at all.
    pub(super) fn pair_to_merge(&self) -> Option<[usize; 2]> {
        if self.merging.is_some() {
            return None;
        }
        let mut pairs = (0..self.own).flat_map(|one| (0..self.own).map(move |other| [one, other]));
        pairs.find(|[one, other]| self.slots[*one].can_precede(&self.slots[*other]))
    }

    /// Two messages are being merged. Returns where their sum goes.
    pub(super) fn on_merging(&mut self, pair: [usize; 2]) -> Segment {
        self.merging = Some(pair);
        Segment { buffer: self.spare.buffer, start: 0, len: self.capacity }
    }

    /// The end of a merge. Returns the two slots.
    pub(super) fn end_merge(&mut self) -> Option<[usize; 2]> {
        self.merging.take()
    }

    /// The sum of two messages, of `length` bytes, is in the spare buffer: slot `one` takes that buffer.
    pub(super) fn take_spare(&mut self, one: usize, length: u32) {
        let Room { longest, .. } = self.slots[one].room;
        self.slots[one].room.longest = longest.max(self.entry(one).length);
        self.entry_mut(one).length = length;
        core::mem::swap(&mut self.slots[one].room, &mut self.spare);
    }

    /// The message of slot `one` now stands for both messages, and that of slot `other` ends.
    pub(super) fn join(&mut self, [one, other]: [usize; 2]) {
        self.entry_mut(one).quanta.last = self.entry(other).quanta.last;
        self.slots[other].entry = None;
        self.slots[other].deliveries.iter_mut().for_each(Delivery::end);
    }

    /// The message of a slot cannot be merged.
    pub(super) fn fix(&mut self, slot: usize) {
        self.slots[slot].deliveries.iter_mut().for_each(Delivery::fix);
    }
}

impl Slot {
    fn is_free(&self) -> bool {
        self.entry.is_none() && self.sending == 0
    }

    /// Can the message be merged with a message of the same origin?
    fn is_loose(&self) -> bool {
        let fixed = |delivery: &Delivery| matches!(delivery, Delivery::Due { fixed: true } | Delivery::Sent);
        self.sending == 0 && !self.deliveries.iter().any(fixed)
    }

    /// Can the message be merged with that of the other slot, which follows it?
    fn can_precede(&self, other: &Self) -> bool {
        let (Some(a), Some(b)) = (self.entry, other.entry) else { return false };
        let same_need = |(one, other): (&Delivery, &Delivery)| one.is_needed() == other.is_needed();
        let same_needs = self.deliveries.iter().zip(&other.deliveries).all(same_need);
        let whole = |entry: Entry| entry.ready && entry.length > 0;
        let follows = a.quanta.last.next() == b.quanta.first;
        follows && same_needs && self.is_loose() && other.is_loose() && whole(a) && whole(b)
    }
}

impl Entry {
    /// The acknowledgement of the message.
    pub(super) fn ack(&self) -> Ack {
        ack(&self.quanta)
    }

    /// The number of messages that are summed in this one.
    pub(super) fn count(&self) -> u64 {
        self.quanta.last.0 - self.quanta.first.0 + 1
    }
}

/// The acknowledgement of a message.
pub(super) fn ack(quanta: &Quanta) -> Ack {
    let Quanta { origin, incarnation, last, .. } = *quanta;
    Ack { origin, incarnation, last }
}

impl Delivery {
    fn is_needed(&self) -> bool {
        matches!(self, Self::Due { .. } | Self::Sent)
    }

    /// The neighbour does not need the message any more.
    fn end(&mut self) {
        *self = Self::Unneeded;
    }

    fn fix(&mut self) {
        if let Self::Due { fixed } = self {
            *fixed = true;
        }
    }

    /// The connection is a new one.
    fn restart(&mut self) {
        if let Self::Sent = self {
            *self = Self::Due { fixed: true };
        }
    }
}
