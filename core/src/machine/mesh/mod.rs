//! A peer of a mesh: no server; every peer holds a replica, sends quanta of what it computes to all others, and
//! applies what comes from them (Strom 2015).
//!
//! ```text
//! step -> encode (residual += update; take quanta) -> own ledger -> Quanta to every neighbour -> Ready
//! Quanta come -> known? -> Receive -> ledger -> Ack; a relay passes them on
//! ```
//! A replica is `base - unit * ledger`, where the ledger counts in units of the smallest quantum of the run: addition
//! of integers commutes, so replicas that have applied the same messages are equal bit for bit, in whatever order
//! these came, and with whatever quantum each was made.
//!
//! A message is kept until every neighbour has acknowledged it, and sent again after a broken connection; a
//! per-origin mark drops what comes twice. So each message reaches each peer exactly once. For a peer that does not keep
//! up, own messages that have not been sent to it are summed into one; it holds back its senders only when an element
//! of that would have more quanta than can be written. In a full mesh, a peer that restarts takes a snapshot
//! (marks, base, ledger) from a neighbour and goes on from there. In a relay tree, messages travel along the tree;
//! its inner nodes cannot be replaced while it runs. A relay acknowledges a message when those behind it have it, and
//! nobody sends a neighbour more unacknowledged messages than it has slots for this link: so no message ever waits
//! in front of an acknowledgement, and streams in opposite directions cannot wait for each other.

mod join;
mod leave;
mod merge;
mod stream;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::encoding::{self, Encoding, Room};
use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, SavedBuffer, Setup, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::{Codec, Threshold, Topology};
use crate::status::{Role, Status, Waiting};
use crate::time::{Duration, Instant};
use crate::wire::{Header, Kind};

const VIEW: BufferId = BufferId(2);
const UPDATE: BufferId = BufferId(3);
const LEDGER: BufferId = BufferId(4);
const BASE: BufferId = BufferId(5);
const SNAPSHOT: BufferId = BufferId(6);
const FIRST_CODING: u32 = 7;
const FIRST_SLOT: u32 = FIRST_CODING + encoding::BUFFERS;

/// Own messages that can be under way: two that a peer has not acknowledged, and two to be made one.
const OWN_SLOTS: usize = 4;
/// Messages of others that can be received at once in a full mesh, and from each neighbour in a relay tree.
const INBOUND_SLOTS: usize = 2;

/// A peer. [`Machine::view`] holds its replica.
#[derive(Debug)]
pub(crate) struct Mesh {
    hub: Hub<Job>,
    threshold: Threshold,
    encoding: Encoding,
    relay: bool,
    neighbours: Vec<Neighbour>,
    /// What is in the ledger, by origin.
    marks: Vec<Mark>,
    slots: Vec<Slot>,
    /// The buffer that no slot has.
    spare: BufferId,
    /// Two own slots whose messages are being made one.
    merging: Option<(usize, usize)>,
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
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Without parameters; the provider has been asked for them.
    Joining {
        provider: Option<PeerId>,
        based: bool,
    },
    /// With parameters, it lets the first ranks go ahead.
    Held,
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
    /// Nothing waits for it but kernels that come later.
    Aside,
    Clip,
    Merge,
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
    /// It has had parameters on some connection: it takes no snapshot any more.
    joined: bool,
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
    buffer: BufferId,
    /// The neighbour that it came from, who waits for an acknowledgement.
    from: Option<usize>,
    /// Order of arrival: what came first is sent first.
    stamp: u64,
    /// Neighbours that have not acknowledged it.
    pending: Vec<bool>,
    /// Those among them to whom it has been sent on this connection.
    sent: Vec<bool>,
    /// Those to whom it has been sent on any, or who may have it from a snapshot: it cannot become part of another.
    fixed: Vec<bool>,
    /// Transmissions that still read it.
    sending: u32,
}

#[derive(Copy, Clone, Debug)]
struct Message {
    origin: PeerId,
    incarnation: Incarnation,
    /// Of how many messages it is the sum: those from `first` to `sequence`.
    first: Sequence,
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

    /// Of how many messages it is the sum.
    fn count(&self) -> u64 {
        self.sequence.0 - self.first.0 + 1
    }
}

impl Mesh {
    pub(crate) fn new(setup: Setup) -> Self {
        let Codec::Threshold(threshold) = setup.recipe.codec else { unreachable!("a mesh's recipe has a threshold") };
        let Topology::Mesh { relay } = setup.recipe.topology else { unreachable!("a mesh's recipe says mesh") };
        let (me, workers) = (setup.me.0, setup.cluster.workers);
        let is_neighbour = |rank: u32| match relay {
            0 => rank != me,
            fan_out => (rank > 0 && (rank - 1) / fan_out == me) || (me > 0 && (me - 1) / fan_out == rank),
        };
        let knows = vec![false; workers as usize];
        let neighbour = |rank| Neighbour {
            peer: PeerId(rank),
            member: false,
            start: None,
            running: false,
            joined: false,
            knows: knows.clone(),
        };
        let neighbours: Vec<_> = (0..workers).filter(|rank| is_neighbour(*rank)).map(neighbour).collect();
        let inbound = if relay == 0 { INBOUND_SLOTS } else { INBOUND_SLOTS * neighbours.len() };
        let none = vec![false; neighbours.len()];
        let slot = |index: usize| Slot {
            message: None,
            buffer: BufferId(FIRST_SLOT + index as u32),
            from: None,
            stamp: 0,
            pending: none.clone(),
            sent: none.clone(),
            fixed: none.clone(),
            sending: 0,
        };
        let slots: Vec<_> = (0..OWN_SLOTS + inbound).map(slot).collect();
        let (whole, correction) = (core::iter::once(0..setup.len), setup.recipe.correction);
        let mut mesh = Self {
            threshold,
            encoding: Encoding::new(&setup, setup.recipe.codec, correction, whole, Room::from(FIRST_CODING)),
            spare: BufferId(FIRST_SLOT + slots.len() as u32),
            merging: None,
            relay: relay > 0,
            marks: vec![Mark { incarnation: Incarnation(0), ..Mark::default() }; workers as usize],
            slots,
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
            hub: Hub::new(setup),
        };
        mesh.marks[me as usize].incarnation = mesh.hub.setup.incarnation;
        for kernel in mesh.encoding.kernels() {
            mesh.hub.compute(kernel, Job::Aside);
        }
        mesh.maybe_found();
        mesh
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, result } => self.on_done(purpose, result),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { weight } => self.on_step(weight)?,
            Notice::Rate { scale } => self.encoding.set_rate(scale),
            Notice::Leave { stay, keep } => self.on_leave(stay, keep)?,
            Notice::Again => self.on_again(),
            Notice::Tick => {}
        }
        Ok(())
    }

    // Neighbours

    fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        let Some(index) = self.index_of(peer) else { return };
        if self.marks[peer.index()].lost && (!fresh || self.relay) {
            // It was given up, and messages went by without it.
            self.hub.refuse(peer);
            self.forget(index);
            return;
        }
        let incarnation = self.hub.incarnation(peer);
        if fresh {
            if self.relay && self.neighbours[index].member {
                self.hub.signal(Signal::Cut { peer });
                return;
            }
            self.forget(index);
            self.neighbours[index].knows.fill(false);
            self.neighbours[index].joined = false;
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
            self.hub.signal(Signal::Cut { peer });
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
        let (whole, longest) = (self.whole(BASE).len, self.encoding.len_max(0) as u32);
        match header.kind {
            Kind::Quanta if known && header.length <= longest => self.hub.hold(peer, header),
            Kind::Ack if known => self.on_ack(from, header),
            Kind::Mark if header.base == Clock(1) => {
                self.neighbours[from].start = Some(header.sequence);
                self.neighbours[from].running = header.weight == 1;
                self.neighbours[from].joined |= header.weight == 1;
                // Messages that went by while neither knew the other cannot be had any more.
                let joined = !matches!(self.state, State::Joining { .. });
                if joined && !self.relay && header.sequence > self.marks[peer.index()].sequence {
                    self.hub.signal(Signal::Cut { peer });
                }
                self.send_next(from);
            }
            Kind::Mark if known && joining => {
                let lost = self.marks[header.origin.index()].lost || header.weight == 0;
                let (incarnation, sequence) = (header.incarnation, header.sequence);
                // The origin itself may have said so before its neighbour knew.
                let own = Some(self.marks[header.origin.index()]).filter(|mark| mark.incarnation == incarnation);
                let last = header.clock.0.checked_sub(1).map(Sequence).or_else(|| own.and_then(|mark| mark.last));
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
                let expected = if kind == Kind::Quanta { longest } else { whole };
                self.hub.close(peer, ProtocolError::Length { kind, expected, got: header.length });
            }
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    // Operations

    fn on_done(&mut self, job: Job, result: KernelResult) {
        match job {
            Job::Encode => self.on_encoded(result),
            Job::Aside => {}
            Job::Clip => self.encoding.on_clipped(result),
            Job::Merge => self.on_merged(result),
            Job::Own => self.applying -= 1,
            Job::Receive { slot, from } => {
                let length = self.slots[slot].message.map_or(0, |message| message.length);
                self.applying += 1;
                let kernel = self.decode(slot, length);
                self.hub.compute(kernel, Job::Decode { slot, from });
            }
            Job::Decode { slot, from } => self.on_decoded(slot, from, result),
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
            State::Held => {
                let starters = self.hub.setup.recipe.correction.starters as usize;
                let behind = |mark: &&Mark| mark.last.is_none() && !mark.lost;
                let slowest = self.marks.iter().take(starters).filter(behind).map(|mark| mark.sequence).min();
                self.marks
                    .iter()
                    .position(|mark| behind(&mark) && Some(mark.sequence) == slowest)
                    .map(|rank| PeerId(rank as u32))
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
        Segment { buffer: self.slots[slot].buffer, start: 0, len: length }
    }

    fn decode(&self, slot: usize, length: u32) -> Kernel {
        let (body, sections) = (self.body(slot, length), self.encoding.sections(0));
        Kernel::Decode { body, sections, unit: self.threshold.unit(), ledger: self.whole(LEDGER) }
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
        self.maybe_release();
        self.maybe_merge();
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
        buffers.extend([len; 5]);
        buffers.extend(self.encoding.buffers());
        buffers.extend((0..=self.slots.len()).map(|_| self.encoding.len_max(0)));
        buffers
    }

    fn contribution(&self) -> BufferId {
        UPDATE
    }

    fn view(&self) -> BufferId {
        VIEW
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        self.encoding.saved()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let status = self.hub.status(Role::Mesh, Clock(self.sequence.0), |peer| {
            Clock(self.marks.get(peer.index()).map_or(0, |mark| mark.sequence.0))
        });
        self.encoding.report(Status { updates: self.applied.0, ..status })
    }
}
