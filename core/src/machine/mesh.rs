//! A peer of a mesh: no server; every peer holds a replica, sends quanta of what it computes to all others, and
//! applies what comes from them (Strom 2015).
//!
//! ```text
//! step -> encode (residual += update; take quanta) -> own ledger -> Quanta to every neighbour -> Ready
//! Quanta come -> known? -> Receive -> ledger -> Ack; a relay passes them on
//! ```
//! A replica is `base - tau * ledger`, where the ledger counts quanta as integers: addition of integers commutes,
//! so replicas that have applied the same messages are equal bit for bit, in whatever order these came.
//!
//! A message is kept until every neighbour has acknowledged it, and sent again after a broken connection; a
//! per-origin mark drops what comes twice. So each message reaches each peer exactly once, and a peer that does not
//! keep up holds back its senders once their slots are full. In a full mesh, a peer that restarts takes a snapshot
//! (marks, base, ledger) from a neighbour and goes on from there. In a relay tree, messages travel along the tree;
//! its inner nodes cannot be replaced while it runs. A relay acknowledges a message when those behind it have it, and
//! nobody sends a neighbour more unacknowledged messages than it has slots for this link: so no message ever waits
//! in front of an acknowledgement, and streams in opposite directions cannot wait for each other.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, Setup};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};
use crate::kernel::{Found, Kernel};
use crate::recipe::{Codec, Topology};
use crate::status::{Role, Status, Waiting};
use crate::time::{Duration, Instant};
use crate::wire::{Header, Kind};

const VIEW: BufferId = BufferId(2);
const UPDATE: BufferId = BufferId(3);
const RESIDUAL: BufferId = BufferId(4);
const LEDGER: BufferId = BufferId(5);
const BASE: BufferId = BufferId(6);
const SNAPSHOT: BufferId = BufferId(7);
const FIRST_SLOT: u32 = 8;

/// Own messages that can be under way.
const OWN_SLOTS: usize = 2;
/// Messages of others that can be received at once in a full mesh, and from each neighbour in a relay tree.
const INBOUND_SLOTS: usize = 2;

/// A peer. [`Machine::view`] holds its replica.
#[derive(Debug)]
pub(crate) struct Mesh {
    hub: Hub<Job>,
    tau: f32,
    relay: bool,
    neighbours: Vec<Neighbour>,
    /// What is in the ledger, by origin.
    marks: Vec<Mark>,
    slots: Vec<Slot>,
    state: State,
    /// Own messages made.
    sequence: Sequence,
    /// Decoding kernels under way: the ledger is ahead of the marks.
    applying: u32,
    /// Who has asked for a snapshot, and the number of the request.
    fetches: VecDeque<(PeerId, ShardId)>,
    /// Number of the last own request: parts of another's answer are not mixed in.
    fetch: ShardId,
    /// When to ask again for a snapshot, after one that did not serve.
    retry: Option<Instant>,
    /// Transmissions that still read the snapshot or the base.
    sending_snapshot: u32,
    /// Messages that have entered a slot.
    stamps: u64,
    /// Messages in the ledger, of all origins.
    applied: Clock,
    /// Those among them that are in the view.
    seen: Clock,
    residual: f64,
    density: f64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Without parameters; the provider has been asked for them.
    Joining {
        provider: Option<PeerId>,
        based: bool,
    },
    /// The base or the snapshot is here, the view not yet.
    Basing,
    /// The application computes.
    Ready,
    /// The application has contributed (or leaves, staying or not); no slot is free for the message.
    Blocked {
        leaving: Option<bool>,
    },
    /// The message is being encoded.
    Encoding {
        slot: usize,
        leaving: Option<bool>,
    },
    /// The view is being made.
    Viewing,
    /// The last message is out. `stays` for the end.
    Leaving {
        stays: bool,
        told: bool,
    },
    /// Everyone's last message is in; the view is being made.
    Closing,
    Left,
}

#[derive(Copy, Clone, Debug)]
enum Job {
    Encode,
    /// An own message reaches the own ledger.
    Own,
    Receive {
        slot: usize,
        from: usize,
    },
    Decode {
        slot: usize,
        from: usize,
    },
    Send {
        slot: usize,
    },
    View,
    Based,
    Seed,
    Ledger,
    Snapshot {
        to: PeerId,
        shard: ShardId,
    },
    SendSnapshot,
}

#[derive(Clone, Debug)]
struct Neighbour {
    peer: PeerId,
    /// It takes part: what is sent from now on must reach it.
    member: bool,
    /// Where its quanta on this connection begin.
    start: Option<Sequence>,
    /// It has parameters.
    running: bool,
    /// Origins of which it knows that they leave.
    knows: Vec<bool>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Mark {
    incarnation: Incarnation,
    sequence: Sequence,
    /// Its last message, once it has said so.
    last: Option<Sequence>,
    stays: bool,
    /// Given up.
    lost: bool,
}

/// A message's body, kept until all who need it have it.
#[derive(Clone, Debug)]
struct Slot {
    message: Option<Message>,
    /// The neighbour that it came from, who waits for an acknowledgement.
    from: Option<usize>,
    /// Order of arrival: what came first is sent first.
    stamp: u64,
    /// Neighbours that have not acknowledged it.
    pending: Vec<bool>,
    /// Those among them to whom it has been sent on this connection.
    sent: Vec<bool>,
    /// Transmissions that still read it.
    sending: u32,
}

#[derive(Copy, Clone, Debug)]
struct Message {
    origin: PeerId,
    incarnation: Incarnation,
    sequence: Sequence,
    /// Messages that were in its origin's replica.
    base: Clock,
    length: u32,
    /// It is in the ledger and may be passed on.
    ready: bool,
}

impl Message {
    /// Is this header of the same message?
    fn is(&self, header: &Header) -> bool {
        (self.origin, self.incarnation, self.sequence) == (header.origin, header.incarnation, header.sequence)
    }
}

impl Mesh {
    pub(crate) fn new(setup: Setup) -> Self {
        let Codec::Threshold { tau } = setup.recipe.codec else { unreachable!("a mesh's recipe has a threshold") };
        let Topology::Mesh { relay } = setup.recipe.topology else { unreachable!("a mesh's recipe says mesh") };
        let (me, workers) = (setup.me.0, setup.cluster.workers);
        let is_neighbour = |rank: u32| match relay {
            0 => rank != me,
            fan_out => (rank > 0 && (rank - 1) / fan_out == me) || (me > 0 && (me - 1) / fan_out == rank),
        };
        let knows = vec![false; workers as usize];
        let neighbour =
            |rank| Neighbour { peer: PeerId(rank), member: false, start: None, running: false, knows: knows.clone() };
        let neighbours: Vec<_> = (0..workers).filter(|rank| is_neighbour(*rank)).map(neighbour).collect();
        let inbound = if relay == 0 { INBOUND_SLOTS } else { INBOUND_SLOTS * neighbours.len() };
        let none = vec![false; neighbours.len()];
        let slot = Slot { message: None, from: None, stamp: 0, pending: none.clone(), sent: none, sending: 0 };
        let mut mesh = Self {
            tau,
            relay: relay > 0,
            marks: vec![Mark::default(); workers as usize],
            slots: vec![slot; OWN_SLOTS + inbound],
            fetches: VecDeque::with_capacity(neighbours.len()),
            neighbours,
            state: State::Joining { provider: None, based: false },
            sequence: Sequence(0),
            applying: 0,
            fetch: ShardId(0),
            retry: None,
            sending_snapshot: 0,
            stamps: 0,
            applied: Clock(0),
            seen: Clock(0),
            residual: 0.0,
            density: 0.0,
            hub: Hub::new(setup),
        };
        mesh.marks[me as usize].incarnation = setup.incarnation;
        mesh.maybe_found();
        mesh
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, found } => self.on_done(purpose, found),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { weight } => self.on_step(weight)?,
            Notice::Leave { stay } => self.on_leave(stay)?,
            Notice::Tick => {}
        }
        Ok(())
    }

    // Joining

    /// Rank 0 starts the mesh with its own parameters, once all its neighbours are there and none is running.
    fn maybe_found(&mut self) {
        let joining = self.state == State::Joining { provider: None, based: false };
        let fresh = |n: &Neighbour| n.start.is_some() && !n.running;
        if self.hub.setup.me == PeerId(0) && joining && self.neighbours.iter().all(fresh) {
            self.state = State::Basing;
            self.hub.compute(Kernel::Copy { from: self.whole(VIEW), into: self.whole(BASE) }, Job::Based);
        }
    }

    /// Asks a neighbour for parameters: one that has them, or rank 0 (in a relay tree, the parent), which will.
    fn maybe_fetch(&mut self) {
        let State::Joining { provider, .. } = self.state else { return };
        if self.retry.is_some_and(|retry| self.hub.now() < retry) {
            return;
        }
        self.retry = None;
        if provider.is_some_and(|provider| self.hub.is_agreed(provider)) {
            return;
        }
        let me = self.hub.setup.me;
        let ready = |n: &&Neighbour| n.start.is_some() && self.hub.is_agreed(n.peer);
        let running = self.neighbours.iter().filter(ready).find(|n| n.running);
        let founder = self.neighbours.iter().filter(ready).find(|n| n.peer < me && (self.relay || n.peer == PeerId(0)));
        let found = running.or(founder).map(|n| n.peer);
        self.state = State::Joining { provider: found, based: false };
        if let Some(provider) = found {
            self.fetch = ShardId(self.fetch.0.wrapping_add(1));
            self.hub.notify(provider, Header { shard: self.fetch, ..self.hub.header(Kind::Fetch) });
        }
    }

    /// Answers one who asks, when the marks say what is in the ledger.
    fn maybe_provide(&mut self) {
        let unsure = matches!(self.state, State::Joining { .. } | State::Basing | State::Encoding { .. });
        if unsure || self.applying + self.sending_snapshot > 0 {
            return;
        }
        let Some((to, shard)) = self.fetches.pop_front() else { return };
        if !self.hub.is_agreed(to) {
            return;
        }
        self.marks[self.hub.setup.me.index()].sequence = self.sequence;
        for (origin, mark) in self.marks.iter().enumerate() {
            let origin = PeerId(origin as u32);
            let (incarnation, sequence) = (mark.incarnation, mark.sequence);
            let (weight, clock) = (u32::from(!mark.lost), Clock(mark.last.map_or(0, |last| last.0 + 1)));
            let header = Header { shard, origin, incarnation, sequence, weight, clock, ..self.hub.header(Kind::Mark) };
            self.hub.notify(to, header);
        }
        self.sending_snapshot = 2;
        let base = self.whole(BASE);
        let seed = Header { shard, length: base.len, ..self.hub.header(Kind::Seed) };
        self.hub.transmit(to, seed, Some(base), Job::SendSnapshot);
        self.hub.compute(
            Kernel::Copy { from: self.whole(LEDGER), into: self.whole(SNAPSHOT) },
            Job::Snapshot { to, shard },
        );
    }

    fn on_snapshot(&mut self, to: PeerId, shard: ShardId) {
        if !self.hub.is_agreed(to) {
            self.sending_snapshot -= 1;
            return;
        }
        let snapshot = self.whole(SNAPSHOT);
        let header = Header { shard, clock: self.applied, length: snapshot.len, ..self.hub.header(Kind::Ledger) };
        self.hub.transmit(to, header, Some(snapshot), Job::SendSnapshot);
    }

    /// Marks, base and ledger are here. They serve if no message falls between them and the neighbours' streams.
    fn on_ledger(&mut self) {
        let whole = |n: &Neighbour| {
            let mark = self.marks[n.peer.index()];
            let same = mark.incarnation == self.hub.incarnation(n.peer);
            match n.start {
                Some(start) => !same || mark.sequence >= start,
                None => Self::is_whole(&mark) || mark.incarnation == Incarnation(0),
            }
        };
        if !self.neighbours.iter().all(whole) {
            let pause = self.hub.setup.patience.dead_after() / 20;
            self.retry = Some(self.hub.now().after(pause.max(Duration::from_millis(10))));
            self.state = State::Joining { provider: None, based: false };
            return;
        }
        for neighbour in &self.neighbours {
            let incarnation = self.hub.incarnation(neighbour.peer);
            let mark = &mut self.marks[neighbour.peer.index()];
            if let Some(start) = neighbour.start.filter(|_| mark.incarnation != incarnation) {
                *mark = Mark { incarnation, sequence: start, ..Mark::default() };
            }
        }
        self.state = State::Basing;
        self.materialise(Job::Based);
    }

    fn on_based(&mut self) {
        self.state = State::Ready;
        self.hub.event(Event::Joined);
        for to in 0..self.neighbours.len() {
            self.tell_start(to);
        }
    }

    /// Says where own quanta on this connection begin, and whether this node has parameters.
    fn tell_start(&mut self, to: usize) {
        let peer = self.neighbours[to].peer;
        if self.hub.is_agreed(peer) {
            let weight = u32::from(!matches!(self.state, State::Joining { .. } | State::Basing));
            // What it has not acknowledged is sent again; the rest went by before it was a member.
            let me = self.hub.setup.me;
            let pending = self.slots.iter().filter(|slot| slot.pending[to]).filter_map(|slot| slot.message);
            let first = pending.filter(|message| message.origin == me).map(|message| message.sequence).min();
            let sequence = first.map_or(self.sequence, |first| Sequence(first.0 - 1));
            let header = Header { base: Clock(1), sequence, weight, ..self.hub.header(Kind::Mark) };
            self.hub.notify(peer, header);
        }
    }

    // Neighbours

    fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        let Some(index) = self.index_of(peer) else { return };
        if self.marks[peer.index()].lost && (!fresh || self.relay) {
            // It was given up, and messages went by without it.
            self.hub.refuse(peer);
            return;
        }
        let incarnation = self.hub.incarnation(peer);
        if fresh {
            if self.relay && self.neighbours[index].member {
                self.hub.event(Event::Cut { peer });
                return;
            }
            self.forget(index);
            self.hub.event(Event::PeerJoined { peer, incarnation });
            let mark = &mut self.marks[peer.index()];
            mark.lost = false;
            if mark.incarnation != incarnation {
                *mark = Mark { incarnation, ..Mark::default() };
            }
        }
        // What it had been asked for may have got lost with the connection.
        if let State::Joining { .. } = self.state {
            self.state = State::Joining { provider: None, based: false };
            self.retry = None;
        }
        self.neighbours[index].member = true;
        (self.neighbours[index].start, self.neighbours[index].running) = (None, false);
        self.tell_start(index);
        for slot in &mut self.slots {
            self.hub.counters.resent += u64::from(core::mem::take(&mut slot.sent[index]));
        }
        for origin in 0..self.marks.len() {
            self.tell_leave(PeerId(origin as u32), index);
        }
    }

    /// Nothing waits for this neighbour any more.
    fn forget(&mut self, index: usize) {
        self.neighbours[index].member = false;
        for slot in 0..self.slots.len() {
            self.slots[slot].pending[index] = false;
            self.maybe_free(slot);
        }
    }

    fn on_lost(&mut self, peer: PeerId) {
        let Some(index) = self.index_of(peer).filter(|_| self.state != State::Left) else { return };
        self.forget(index);
        let Topology::Mesh { relay } = self.hub.setup.recipe.topology else { unreachable!("a mesh") };
        let leaf = peer > self.hub.setup.me
            && peer.0.saturating_mul(relay).saturating_add(1) >= self.hub.setup.cluster.workers;
        if self.relay && !leaf && !self.marks.iter().all(Self::is_whole) {
            self.hub.event(Event::Cut { peer });
            return;
        }
        self.marks[peer.index()].lost = true;
        self.hub.event(Event::PeerLost { peer });
        if self.relay {
            // All that it made came through this node: it knows which was the last.
            self.note_last(peer, self.marks[peer.index()].sequence, false);
        }
    }

    fn on_message(&mut self, peer: PeerId, header: Header) {
        let Some(from) = self.index_of(peer) else {
            return self.hub.close(peer, ProtocolError::Unexpected { kind: header.kind });
        };
        let joining = match self.state {
            State::Joining { provider, .. } => provider == Some(peer) && header.shard == self.fetch,
            _ => false,
        };
        let known = header.origin.index() < self.marks.len();
        let whole = self.whole(BASE).len;
        match header.kind {
            Kind::Quanta if known && header.length <= whole => self.hub.hold(peer, header),
            Kind::Ack if known => self.on_ack(from, header),
            Kind::Mark if header.base == Clock(1) => {
                self.neighbours[from].start = Some(header.sequence);
                self.neighbours[from].running = header.weight == 1;
                // Messages that went by while neither knew the other cannot be had any more.
                let joined = !matches!(self.state, State::Joining { .. });
                if joined && !self.relay && header.sequence > self.marks[peer.index()].sequence {
                    self.hub.event(Event::Cut { peer });
                }
                self.send_next(from);
            }
            Kind::Mark if known && joining => {
                let lost = self.marks[header.origin.index()].lost || header.weight == 0;
                let (incarnation, sequence) = (header.incarnation, header.sequence);
                let last = header.clock.0.checked_sub(1).map(Sequence);
                if header.origin != self.hub.setup.me {
                    self.marks[header.origin.index()] = Mark { incarnation, sequence, last, stays: true, lost };
                }
            }
            Kind::Seed if joining && header.length == whole => self.hub.receive(peer, self.whole(BASE), Job::Seed),
            Kind::Ledger if joining && header.length == whole => {
                self.applied = header.clock;
                self.hub.receive(peer, self.whole(LEDGER), Job::Ledger);
            }
            Kind::Mark | Kind::Seed | Kind::Ledger if !joining => self.hub.discard(peer, header),
            Kind::Fetch => {
                // Only the last request of each peer counts.
                self.fetches.retain(|(from, _)| *from != peer);
                self.fetches.push_back((peer, header.shard));
            }
            Kind::Leave if known => self.on_peer_leaves(from, header),
            kind @ (Kind::Quanta | Kind::Seed | Kind::Ledger) => {
                self.hub.close(peer, ProtocolError::Length { kind, expected: whole, got: header.length });
            }
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    // Messages of others

    /// Takes the messages that are held, as far as there are slots.
    fn maybe_receive(&mut self) {
        if matches!(self.state, State::Joining { .. } | State::Basing) && !planted!(self.hub, SnapshotAppliedLate) {
            return;
        }
        while let Some((peer, header, slot)) = self.next_held() {
            self.hub.release(peer);
            let from = self.index_of(peer).expect("held headers are of neighbours");
            let mark = self.marks[header.origin.index()];
            let Some(slot) = slot else {
                self.hub.counters.duplicates += 1;
                self.hub.discard(peer, header);
                // It is acknowledged when its slot is free; if that is over, the acknowledgement got lost.
                let held = |slot: &Slot| slot.message.is_some_and(|m| m.is(&header)) && slot.from == Some(from);
                if !self.slots.iter().any(held) {
                    self.ack(from, header);
                }
                continue;
            };
            let other = mark.incarnation != header.incarnation && mark.incarnation != Incarnation(0);
            if other || (!self.relay && header.origin != peer) {
                let (expected, got) = (mark.incarnation, header.incarnation);
                self.hub.close(peer, ProtocolError::WrongIncarnation { expected, got });
                continue;
            }
            if header.sequence != mark.sequence.next() && !planted!(self.hub, NoDedup) {
                let (expected, got) = (mark.sequence.next().0, header.sequence.0);
                self.hub.close(peer, ProtocolError::Gap { expected, got });
                continue;
            }
            let Header { origin, incarnation, sequence, base, length, .. } = header;
            self.occupy(slot, Some(from), Message { origin, incarnation, sequence, base, length, ready: false });
            if length > 0 {
                self.hub.receive(peer, self.body(slot, length), Job::Receive { slot, from });
            } else {
                self.on_applied(slot, from);
            }
        }
    }

    /// A held message that is known (no slot needed) or for which there is a slot.
    fn next_held(&self) -> Option<(PeerId, Header, Option<usize>)> {
        self.hub.held().find_map(|(peer, header)| {
            let mark = self.marks[header.origin.index()];
            if header.incarnation == mark.incarnation
                && header.sequence <= mark.sequence
                && !planted!(self.hub, NoDedup)
            {
                return Some((peer, header, None));
            }
            let from = self.index_of(peer)?;
            let first = OWN_SLOTS + from * INBOUND_SLOTS;
            let slots = if self.relay { first..first + INBOUND_SLOTS } else { OWN_SLOTS..self.slots.len() };
            let free = slots.into_iter().find(|slot| self.slots[*slot].is_free());
            // Two messages of one origin must not be under way at once: the mark is not there yet.
            let busy = self
                .slots
                .iter()
                .any(|slot| slot.message.is_some_and(|message| message.origin == header.origin && !message.ready));
            free.filter(|_| !busy).map(|slot| (peer, header, Some(slot)))
        })
    }

    fn on_decoded(&mut self, slot: usize, from: usize, found: Found) {
        self.applying -= 1;
        if let Found::Malformed(error) = found {
            let peer = self.neighbours[from].peer;
            self.slots[slot].message = None;
            self.hub.counters.rejected += 1;
            self.hub.event(Event::Rejected { peer, reason: Rejection::Malformed(error) });
            self.hub.close(peer, ProtocolError::Unexpected { kind: Kind::Quanta });
            return;
        }
        self.on_applied(slot, from);
    }

    fn occupy(&mut self, slot: usize, from: Option<usize>, message: Message) {
        self.stamps += 1;
        let entry = &mut self.slots[slot];
        (entry.message, entry.from, entry.stamp) = (Some(message), from, self.stamps);
        entry.sent.fill(false);
    }

    /// A message is in the ledger: pass it on if that is this node's task, and acknowledge it.
    fn on_applied(&mut self, slot: usize, from: usize) {
        let message = self.slots[slot].message.as_mut().expect("a slot in use holds a message");
        message.ready = true;
        let message = *message;
        self.hub.counters.applied += 1;
        self.hub.staleness.record(self.applied.ahead_of(message.base));
        self.applied = self.applied.next();
        let mark = &mut self.marks[message.origin.index()];
        (mark.incarnation, mark.sequence) = (message.incarnation, message.sequence);
        if self.relay {
            self.send_to_all(slot, Some(from));
        }
        self.maybe_free(slot);
    }

    fn ack(&mut self, to: usize, quanta: Header) {
        let peer = self.neighbours[to].peer;
        if self.hub.is_agreed(peer) {
            let Header { origin, incarnation, sequence, .. } = quanta;
            let header = Header { origin, incarnation, sequence, ..self.hub.header(Kind::Ack) };
            self.hub.notify(peer, header);
        }
    }

    fn on_ack(&mut self, from: usize, header: Header) {
        if header.weight == 1 {
            self.neighbours[from].knows[header.origin.index()] = true;
            return;
        }
        for slot in 0..self.slots.len() {
            let Some(message) = self.slots[slot].message else { continue };
            if message.is(&header) {
                self.slots[slot].pending[from] = false;
                self.maybe_free(slot);
            }
        }
        self.send_next(from);
    }

    /// Nobody needs a message any more: its slot is free, and whoever sent it may send another.
    fn maybe_free(&mut self, slot: usize) {
        let entry = &mut self.slots[slot];
        let Some(message) = entry.message.filter(|message| message.ready) else { return };
        if entry.sending > 0 || entry.pending.contains(&true) {
            return;
        }
        entry.message = None;
        if let Some(from) = entry.from.take() {
            self.ack(from, self.quanta(message));
        }
    }

    // Own messages

    fn on_step(&mut self, weight: u32) -> Result<(), Misuse> {
        if self.state != State::Ready {
            return Err(Misuse::NotReady);
        }
        if weight == 0 {
            self.hub.counters.empty += 1;
            self.view_next();
        } else {
            self.state = State::Blocked { leaving: None };
        }
        Ok(())
    }

    fn on_leave(&mut self, stay: bool) -> Result<(), Misuse> {
        match self.state {
            State::Ready => {
                self.state = State::Blocked { leaving: Some(stay) };
                Ok(())
            }
            State::Joining { .. } | State::Blocked { .. } => {
                self.state = State::Leaving { stays: stay, told: false };
                Ok(())
            }
            _ => Err(Misuse::NotReady),
        }
    }

    /// Encodes what the application contributed, or a leaver's rest, into a free slot.
    fn maybe_encode(&mut self) {
        let State::Blocked { leaving } = self.state else { return };
        let Some(slot) = (0..OWN_SLOTS).find(|slot| self.slots[*slot].is_free()) else { return };
        let (update, residual, tau) = (self.whole(UPDATE), self.whole(RESIDUAL), self.tau);
        let body = self.body(slot, update.len);
        self.sequence = self.sequence.next();
        let (origin, incarnation) = (self.hub.setup.me, self.hub.setup.incarnation);
        let base = self.seen;
        let message = Message { origin, incarnation, sequence: self.sequence, base, length: 0, ready: false };
        self.occupy(slot, None, message);
        self.state = State::Encoding { slot, leaving };
        let kernel = match leaving {
            None => Kernel::Encode { update, residual, body, tau },
            Some(_) => Kernel::Flush { residual, body, tau },
        };
        self.hub.compute(kernel, Job::Encode);
        if planted!(self.hub, ResidualDropped) {
            self.hub.compute(Kernel::Accumulate { update, scale: 0.0, first: true, into: residual }, Job::Own);
            self.applying += 1;
        }
    }

    fn on_encoded(&mut self, found: Found) {
        let (State::Encoding { slot, leaving }, Found::Encoded { bytes, quanta, residual }) = (self.state, found)
        else {
            return;
        };
        self.residual = residual;
        self.density = f64::from(quanta) / self.hub.setup.len as f64;
        self.hub.counters.quanta += u64::from(quanta);
        let message = self.slots[slot].message.as_mut().expect("the slot being encoded holds a message");
        (message.length, message.ready) = (bytes, true);
        self.applying += 1;
        self.applied = self.applied.next();
        self.hub.compute(Kernel::Decode { body: self.body(slot, bytes), ledger: self.whole(LEDGER) }, Job::Own);
        self.send_to_all(slot, None);
        match leaving {
            None => self.view_next(),
            Some(stays) => self.state = State::Leaving { stays, told: false },
        }
        self.maybe_free(slot);
    }

    fn send_to_all(&mut self, slot: usize, except: Option<usize>) {
        for to in 0..self.neighbours.len() {
            if self.neighbours[to].member && Some(to) != except {
                self.slots[slot].pending[to] = true;
                self.send_next(to);
            }
        }
    }

    /// Sends a neighbour what is due to it, in order of arrival, as far as it has slots. One that has no parameters
    /// yet gets nothing: what cannot be taken would stand in front of the snapshot.
    fn send_next(&mut self, to: usize) {
        let ready = self.neighbours[to].running || planted!(self.hub, SnapshotAppliedLate);
        if !ready || !self.hub.is_agreed(self.neighbours[to].peer) {
            return;
        }
        loop {
            let open = self.slots.iter().filter(|slot| slot.sent[to] && slot.pending[to]).count();
            let due =
                |slot: &&Slot| slot.pending[to] && !slot.sent[to] && slot.message.is_some_and(|message| message.ready);
            let first = self.slots.iter().filter(due).map(|slot| slot.stamp).min();
            let Some(first) = first.filter(|_| open < INBOUND_SLOTS) else { return };
            let slot = self.slots.iter().position(|slot| slot.message.is_some() && slot.stamp == first);
            let Some(slot) = slot else { return };
            self.slots[slot].sent[to] = true;
            self.send(slot, to);
        }
    }

    fn send(&mut self, slot: usize, to: usize) {
        let message = self.slots[slot].message.expect("a message to send");
        self.slots[slot].sending += 1;
        let body = (message.length > 0).then(|| self.body(slot, message.length));
        self.hub.transmit(self.neighbours[to].peer, self.quanta(message), body, Job::Send { slot });
    }

    fn quanta(&self, message: Message) -> Header {
        let Message { origin, incarnation, sequence, base, length, .. } = message;
        Header { origin, incarnation, sequence, base, length, ..self.hub.header(Kind::Quanta) }
    }

    fn view_next(&mut self) {
        self.state = State::Viewing;
        self.materialise(Job::View);
    }

    fn materialise(&mut self, job: Job) {
        self.seen = self.applied;
        let (base, ledger, into) = (self.whole(BASE), self.whole(LEDGER), self.whole(VIEW));
        self.hub.compute(Kernel::Materialise { base, ledger, tau: self.tau, into }, job);
    }

    fn on_viewed(&mut self) {
        if self.state == State::Closing {
            self.state = State::Left;
            self.hub.event(Event::Left);
        } else if self.state == State::Viewing {
            self.state = State::Ready;
            self.hub.event(Event::Ready { clock: Clock(self.sequence.0), changed: true });
        }
    }

    // Leaving

    fn on_peer_leaves(&mut self, from: usize, header: Header) {
        let (origin, stays, peer) = (header.origin, header.base == Clock(1), self.neighbours[from].peer);
        self.neighbours[from].knows[origin.index()] = true;
        let ack = Header { origin, incarnation: header.incarnation, weight: 1, ..self.hub.header(Kind::Ack) };
        self.hub.notify(peer, ack);
        if self.marks[origin.index()].last.is_some() || origin == self.hub.setup.me {
            return;
        }
        if origin == peer && !stays && !self.relay {
            self.hub.mark_left(origin);
            self.forget(from);
        }
        self.note_last(origin, header.sequence, stays);
    }

    /// The origin's last message is `sequence`; a relay says so to its other neighbours.
    fn note_last(&mut self, origin: PeerId, sequence: Sequence, stays: bool) {
        let mark = &mut self.marks[origin.index()];
        (mark.last, mark.stays) = (Some(sequence), stays);
        for to in 0..self.neighbours.len() {
            self.tell_leave(origin, to);
        }
    }

    /// Does this neighbour have to hear from this node that the origin leaves?
    fn must_tell(&self, origin: PeerId, to: usize) -> bool {
        let neighbour = &self.neighbours[to];
        let mine = self.relay || origin == self.hub.setup.me;
        mine && neighbour.member && origin != neighbour.peer && !neighbour.knows[origin.index()]
    }

    fn tell_leave(&mut self, origin: PeerId, to: usize) {
        let (peer, mark) = (self.neighbours[to].peer, self.marks[origin.index()]);
        let Some(sequence) = mark.last.filter(|_| self.must_tell(origin, to) && self.hub.is_agreed(peer)) else {
            return;
        };
        let (incarnation, base) = (mark.incarnation, Clock(u64::from(mark.stays)));
        let header = Header { origin, incarnation, sequence, base, ..self.hub.header(Kind::Leave) };
        self.hub.notify(peer, header);
    }

    /// Is all of this origin in, or given up?
    fn is_whole(mark: &Mark) -> bool {
        mark.lost || mark.last == Some(mark.sequence)
    }

    fn maybe_leave(&mut self) {
        let State::Leaving { stays, told } = self.state else { return };
        if self.slots.iter().any(|slot| !slot.is_free()) || self.applying > 0 {
            return;
        }
        if !told {
            self.state = State::Leaving { stays, told: true };
            let me = self.hub.setup.me;
            self.marks[me.index()].sequence = self.sequence;
            self.note_last(me, self.sequence, stays);
        }
        // A relay stays on, or it would cut the tree. Nobody goes before its neighbours know what it knows.
        let origins =
            || (0..self.marks.len() as u32).map(PeerId).filter(|origin| self.marks[origin.index()].last.is_some());
        let untold = (0..self.neighbours.len()).any(|to| origins().any(|origin| self.must_tell(origin, to)));
        let whole = !(stays || self.relay) || self.marks.iter().all(Self::is_whole);
        if self.fetches.is_empty() && whole && !untold {
            self.state = State::Closing;
            self.materialise(Job::View);
        }
    }

    // Operations

    fn on_done(&mut self, job: Job, found: Found) {
        match job {
            Job::Encode => self.on_encoded(found),
            Job::Own => self.applying -= 1,
            Job::Receive { slot, from } => {
                let length = self.slots[slot].message.map_or(0, |message| message.length);
                self.applying += 1;
                let kernel = Kernel::Decode { body: self.body(slot, length), ledger: self.whole(LEDGER) };
                self.hub.compute(kernel, Job::Decode { slot, from });
            }
            Job::Decode { slot, from } => self.on_decoded(slot, from, found),
            Job::Send { slot } => self.on_sent(slot),
            Job::View => self.on_viewed(),
            Job::Based => self.on_based(),
            Job::Seed => {
                if let State::Joining { based, .. } = &mut self.state {
                    *based = true;
                }
            }
            Job::Ledger if matches!(self.state, State::Joining { based: true, .. }) => self.on_ledger(),
            Job::Ledger => {}
            Job::Snapshot { to, shard } => self.on_snapshot(to, shard),
            Job::SendSnapshot => self.sending_snapshot -= 1,
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            Job::Receive { slot, .. } => self.slots[slot].message = None,
            Job::Send { slot } => self.on_sent(slot),
            Job::SendSnapshot => self.sending_snapshot -= 1,
            Job::Seed | Job::Ledger => self.state = State::Joining { provider: None, based: false },
            _ => {}
        }
    }

    fn on_sent(&mut self, slot: usize) {
        self.slots[slot].sending -= 1;
        self.maybe_free(slot);
    }

    fn note_waiting(&mut self) {
        let pending = |slot: &Slot| slot.pending.iter().position(|pending| *pending);
        let missing = |n: &&Neighbour| !self.hub.is_agreed(n.peer);
        let awaited = match self.state {
            State::Joining { provider, .. } => {
                let absent = |n: &&Neighbour| missing(n) && !Self::is_whole(&self.marks[n.peer.index()]);
                self.neighbours
                    .iter()
                    .find(absent)
                    .map(|n| n.peer)
                    .filter(|_| !self.relay)
                    .or(provider)
                    .or_else(|| self.neighbours.iter().find(missing).map(|n| n.peer))
            }
            State::Blocked { .. } | State::Leaving { told: false, .. } => {
                self.slots.iter().find_map(pending).map(|index| self.neighbours[index].peer)
            }
            State::Leaving { .. } => {
                self.marks.iter().position(|mark| !Self::is_whole(mark)).map(|rank| PeerId(rank as u32))
            }
            _ => None,
        };
        match awaited {
            Some(peer) => {
                let at = Clock(self.marks[peer.index()].sequence.0);
                self.hub.wait_for(peer, at, Clock(self.sequence.0 + 1));
            }
            None => self.hub.stop_waiting(),
        }
        let Some(notice) = self.hub.take_stall() else { return };
        for index in 0..self.neighbours.len() {
            let peer = self.neighbours[index].peer;
            if peer != notice.origin && self.hub.is_agreed(peer) {
                self.hub.notify(peer, notice);
            }
        }
    }

    // Places

    fn index_of(&self, peer: PeerId) -> Option<usize> {
        self.neighbours.iter().position(|neighbour| neighbour.peer == peer)
    }

    fn body(&self, slot: usize, length: u32) -> Segment {
        Segment { buffer: BufferId(FIRST_SLOT + slot as u32), start: 0, len: length }
    }

    fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.hub.setup.len)
    }
}

impl Slot {
    fn is_free(&self) -> bool {
        self.message.is_none() && self.sending == 0
    }
}

impl Machine for Mesh {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(peer) = self.hub.take_lost() {
            self.on_lost(peer);
        }
        self.maybe_found();
        self.maybe_fetch();
        self.maybe_receive();
        self.maybe_encode();
        self.maybe_provide();
        self.maybe_leave();
        self.note_waiting();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        let retry = self.retry.filter(|_| matches!(self.state, State::Joining { .. }));
        match (self.hub.poll_output(), retry) {
            (Output::Wait { until }, Some(retry)) => {
                Output::Wait { until: Some(until.map_or(retry, |until| until.min(retry))) }
            }
            (output, _) => output,
        }
    }

    fn buffers(&self) -> Vec<usize> {
        let [ours, theirs] = self.hub.buffers();
        let len = self.hub.setup.len * 4;
        let mut buffers = vec![ours, theirs];
        buffers.extend([len; 6]);
        buffers.extend(self.slots.iter().map(|_| len));
        buffers
    }

    fn contribution(&self) -> BufferId {
        UPDATE
    }

    fn view(&self) -> BufferId {
        VIEW
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let status = self.hub.status(Role::Mesh, Clock(self.sequence.0), |peer| {
            Clock(self.marks.get(peer.index()).map_or(0, |mark| mark.sequence.0))
        });
        Status { residual_norm: square_root(self.residual), density: self.density, ..status }
    }
}

/// Newton's iteration: core has no square root without std.
fn square_root(x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    (0..64).fold(x.max(1.0), |y, _| 0.5 * (y + x / y))
}
