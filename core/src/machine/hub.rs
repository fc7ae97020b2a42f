//! What every machine has: operations under way, outputs queued, peers and their hellos, what is waited for.
//!
//! On every connection both sides first say hello. A peer whose contract is the same is *agreed*, and only then
//! are its messages passed on. A peer whose connection breaks stays a member for `dead_after`; then it is lost.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Event, Input, Misuse, OURS, Output, ProtocolError, Setup, Signal, THEIRS};
use crate::buffer::Segment;
use crate::id::{Clock, Incarnation, OpId, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::status::{Counters, Histogram, LinkStatus, Presence, Role, Status, Waiting, WorkerStatus};
use crate::time::Instant;
use crate::wire::{CONTRACT_LEN_MAX, HEADER_LEN, Header, Kind};

/// Headers of one peer that can be held.
const HELD_MAX: usize = 64;
/// No count that a run can come to is above this: sums of two of them do not overflow.
const COUNT_MAX: u64 = u64::MAX / 4;

/// `P` is the machine's own record of why it started an operation.
#[derive(Debug)]
pub(crate) struct Hub<P> {
    pub(crate) setup: Setup,
    pub(crate) counters: Counters,
    pub(crate) staleness: Histogram,
    now: Instant,
    outputs: VecDeque<Output>,
    ops: Vec<Op<P>>,
    /// Entries of `ops` that are not under way.
    free_ops: Vec<u32>,
    peers: Vec<Peer>,
    /// Headers that wait for a place or a turn, in the order in which they came.
    holding: VecDeque<(PeerId, Header)>,
    /// The hello whose contract is being read and compared.
    comparing: Option<(PeerId, Header)>,
    waiting: Option<Wait>,
    /// When the machine wants to be woken, besides.
    alarm: Option<Instant>,
    /// This node has parameters, of a run that has begun: said in its hellos.
    pub(crate) has: bool,
}

/// What becomes of an input, once the hub has done its part.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Notice<P> {
    /// A peer takes part (again). `fresh`: for the first time in this start of it.
    Agreed { peer: PeerId, fresh: bool },
    /// A message of an agreed peer.
    Message { peer: PeerId, header: Header },
    /// An operation of the machine's ended well.
    Done { purpose: P, result: KernelResult },
    /// An operation of the machine's was aborted.
    Failed { purpose: P },
    /// The application contributes.
    Step { weight: u32 },
    /// The application's learning rate is so many times that at the start.
    Rate { scale: f32 },
    /// The application ends.
    Leave { stay: bool, keep: bool },
    /// A former self of this node, which goes on from a suspension, has been here since.
    Again,
    /// Nothing but the time.
    Tick,
}

#[derive(Copy, Clone, Debug)]
struct Op<P> {
    /// Raised at each reuse, so that a late end is not taken for another's.
    generation: u32,
    purpose: Option<Purpose<P>>,
}

#[derive(Copy, Clone, Debug)]
enum Purpose<P> {
    /// A header without consequence, or a body dropped.
    Nothing,
    /// Reading the contract of the peer in `comparing`.
    ReadContract,
    /// Comparing it.
    Compare,
    /// The machine's own.
    Machine(P),
}

#[derive(Copy, Clone, Debug)]
struct Peer {
    link: Link,
    incarnation: Incarnation,
    left: bool,
    /// It had parameters when it said hello.
    has: bool,
    /// Whom it waits for itself and at which clock that one is, as it last said.
    awaits: Option<(PeerId, Clock)>,
    traffic: LinkStatus,
    /// Since when it has been spoken to and has said nothing.
    spoken: Option<Instant>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Link {
    Never,
    Connected,
    Agreed,
    Down { since: Instant },
    Lost,
}

#[derive(Copy, Clone, Debug)]
struct Wait {
    /// What is shown: the culprit, if the peer that is waited for has named one.
    shown: Waiting,
    /// The peer that this node itself waits for.
    direct: PeerId,
    reported: bool,
}

impl<P: Copy> Hub<P> {
    pub(crate) fn new(setup: Setup) -> Self {
        let nodes = setup.cluster.nodes();
        let peer = |rank| Peer {
            link: Link::Never,
            incarnation: Incarnation(0),
            left: false,
            has: false,
            awaits: None,
            traffic: LinkStatus {
                peer: PeerId(rank),
                bytes_out: 0,
                bytes_in: 0,
                messages_out: 0,
                messages_in: 0,
                last_heard: None,
                response_ns: 0,
            },
            spoken: None,
        };
        Self {
            setup,
            counters: Counters::default(),
            staleness: Histogram::default(),
            now: Instant::ORIGIN,
            outputs: VecDeque::with_capacity(64),
            ops: Vec::with_capacity(64),
            free_ops: Vec::with_capacity(64),
            peers: (0..nodes).map(peer).collect(),
            holding: VecDeque::with_capacity(nodes as usize),
            comparing: None,
            waiting: None,
            alarm: None,
            has: false,
        }
    }

    /// Lengths of the buffers that every machine has: the two contracts.
    pub(crate) fn buffers(&self) -> [usize; 2] {
        [self.setup.contract.len() as usize, CONTRACT_LEN_MAX as usize]
    }

    /// Does the hub's part of an input.
    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) -> Result<Option<Notice<P>>, Misuse> {
        match input {
            Input::Connected { peer } | Input::Disconnected { peer } | Input::Header { peer, .. }
                if peer == self.setup.me || peer.index() >= self.peers.len() =>
            {
                return Err(Misuse::UnknownPeer { peer });
            }
            _ => {}
        }
        self.now = self.now.max(now);
        Ok(match input {
            Input::Timeout => Some(Notice::Tick),
            Input::Connected { peer } => {
                self.on_connected(peer);
                None
            }
            Input::Disconnected { peer } => {
                self.on_disconnected(peer);
                Some(Notice::Tick)
            }
            Input::Header { peer, header } => self.on_header(peer, header),
            Input::Completed { op, result } => match self.end(op)? {
                Purpose::Machine(purpose) => Some(Notice::Done { purpose, result }),
                Purpose::ReadContract => {
                    self.compare();
                    None
                }
                Purpose::Compare => {
                    self.on_compared(result);
                    None
                }
                Purpose::Nothing => None,
            },
            Input::Aborted { op } => match self.end(op)? {
                Purpose::Machine(purpose) => Some(Notice::Failed { purpose }),
                Purpose::ReadContract | Purpose::Compare => {
                    self.comparing = None;
                    None
                }
                Purpose::Nothing => None,
            },
            Input::Step { weight } => Some(Notice::Step { weight }),
            Input::Rate { scale } => Some(Notice::Rate { scale }),
            Input::Leave { stay, keep } => Some(Notice::Leave { stay, keep }),
        })
    }

    /// The next output, or how long to wait.
    pub(crate) fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait { until: self.next_deadline() })
    }

    fn next_deadline(&self) -> Option<Instant> {
        let dead_after = self.setup.patience.dead_after();
        let lost = self.peers.iter().filter_map(|peer| match peer.link {
            Link::Down { since } if !peer.left => Some(since.after(dead_after)),
            _ => None,
        });
        let stall_after = self.setup.patience.stall_after();
        let stalled = self.waiting.iter().filter(|wait| !wait.reported).map(|wait| wait.shown.since.after(stall_after));
        lost.chain(stalled).chain(self.alarm).min()
    }

    // Operations

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.outputs.push_back(Output::Signal(signal));
    }

    pub(crate) fn compute(&mut self, kernel: Kernel, purpose: P) {
        let op = self.begin(Purpose::Machine(purpose));
        self.outputs.push_back(Output::Compute { op, kernel });
    }

    pub(crate) fn transmit(&mut self, peer: PeerId, header: Header, body: Option<Segment>, purpose: P) {
        self.send(peer, header, body, header.length, Purpose::Machine(purpose));
    }

    /// The same, for a body that would take `dense` bytes as plain floats.
    pub(crate) fn transmit_coded(
        &mut self,
        peer: PeerId,
        header: Header,
        body: Option<Segment>,
        dense: u32,
        purpose: P,
    ) {
        self.send(peer, header, body, dense, Purpose::Machine(purpose));
    }

    /// Sends a message without a body whose end matters to nobody.
    pub(crate) fn notify(&mut self, peer: PeerId, header: Header) {
        self.send(peer, header, None, 0, Purpose::Nothing);
    }

    fn send(&mut self, peer: PeerId, header: Header, body: Option<Segment>, dense: u32, purpose: Purpose<P>) {
        debug_assert_eq!(header.length, body.map_or(0, |body| body.len));
        let traffic = &mut self.peers[peer.index()].traffic;
        traffic.messages_out += 1;
        traffic.bytes_out += HEADER_LEN as u64 + u64::from(header.length);
        self.peers[peer.index()].spoken.get_or_insert(self.now);
        self.counters.dense_bytes += HEADER_LEN as u64 + u64::from(dense);
        let op = self.begin(purpose);
        self.outputs.push_back(Output::Transmit { op, peer, header, body });
    }

    pub(crate) fn receive(&mut self, peer: PeerId, into: Segment, purpose: P) {
        let op = self.begin(Purpose::Machine(purpose));
        self.outputs.push_back(Output::Receive { op, peer, into: Some(into) });
    }

    /// Reads and drops the body of a message.
    pub(crate) fn discard(&mut self, peer: PeerId, header: Header) {
        if header.length > 0 {
            let op = self.begin(Purpose::Nothing);
            self.outputs.push_back(Output::Receive { op, peer, into: None });
        }
    }

    /// Breaks the connection to a peer that broke the protocol.
    pub(crate) fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        self.outputs.push_back(Output::Close { peer, reason });
        self.on_disconnected(peer);
    }

    /// Tells a peer that it cannot take part any more, and forgets it.
    pub(crate) fn refuse(&mut self, peer: PeerId) {
        self.notify(peer, self.header(Kind::Refuse));
        self.mark_left(peer);
    }

    fn begin(&mut self, purpose: Purpose<P>) -> OpId {
        let index = self.free_ops.pop().unwrap_or_else(|| {
            self.ops.push(Op { generation: 0, purpose: None });
            self.ops.len() as u32 - 1
        });
        let op = &mut self.ops[index as usize];
        op.generation = op.generation.wrapping_add(1);
        op.purpose = Some(purpose);
        OpId(u64::from(op.generation) << 32 | u64::from(index))
    }

    fn end(&mut self, id: OpId) -> Result<Purpose<P>, Misuse> {
        let index = id.0 as u32;
        let op = self.ops.get_mut(index as usize).filter(|op| op.generation == (id.0 >> 32) as u32);
        let purpose = op.and_then(|op| op.purpose.take()).ok_or(Misuse::UnknownOp { op: id })?;
        self.free_ops.push(index);
        Ok(purpose)
    }

    /// A header of this node's own, without a body.
    pub(crate) fn header(&self, kind: Kind) -> Header {
        Header {
            kind,
            digest: self.setup.contract.digest() as u32,
            origin: self.setup.me,
            shard: ShardId(0),
            weight: 0,
            incarnation: self.setup.incarnation,
            sequence: Sequence(0),
            clock: Clock(0),
            base: Clock(0),
            length: 0,
        }
    }

    // Peers

    fn on_connected(&mut self, peer: PeerId) {
        self.peers[peer.index()].link = Link::Connected;
        let contract = &self.setup.contract;
        let (base, length, weight) = (Clock(contract.digest()), contract.len(), u32::from(self.has));
        let hello = Header { base, length, weight, clock: self.suspension(), ..self.header(Kind::Hello) };
        let text = Segment { buffer: OURS, start: 0, len: length };
        self.send(peer, hello, Some(text), hello.length, Purpose::Nothing);
    }

    /// The suspension that this node goes on from; where there are rounds, these are compared instead.
    fn suspension(&self) -> Clock {
        let resumed = self.setup.resumed.filter(|_| !self.setup.recipe.is_collective());
        resumed.map_or(Clock(0), |resumed| resumed.at)
    }

    fn on_disconnected(&mut self, peer: PeerId) {
        let now = self.now;
        let entry = &mut self.peers[peer.index()];
        self.holding.retain(|(holder, _)| *holder != peer);
        match entry.link {
            Link::Agreed => entry.link = Link::Down { since: now },
            Link::Connected if entry.incarnation != Incarnation(0) => entry.link = Link::Down { since: now },
            Link::Connected => entry.link = Link::Never,
            Link::Never | Link::Down { .. } | Link::Lost => {}
        }
    }

    fn on_header(&mut self, peer: PeerId, header: Header) -> Option<Notice<P>> {
        let now = self.now;
        let entry = &mut self.peers[peer.index()];
        entry.traffic.messages_in += 1;
        entry.traffic.bytes_in += HEADER_LEN as u64 + u64::from(header.length);
        entry.traffic.last_heard = Some(now);
        if let Some(spoken) = entry.spoken.take() {
            let took = now.since(spoken).as_nanos() as u64;
            // An eighth of each.
            let smoothed = entry.traffic.response_ns;
            entry.traffic.response_ns = if smoothed == 0 { took } else { smoothed - smoothed / 8 + took / 8 };
        }
        let base = if matches!(header.kind, Kind::Hello | Kind::Member) { 0 } else { header.base.0 };
        let got = header.sequence.0.max(header.clock.0).max(base);
        match (entry.link, header.kind) {
            (Link::Never | Link::Down { .. } | Link::Lost, _) => None,
            _ if got > COUNT_MAX => {
                self.close(peer, ProtocolError::Gap { expected: COUNT_MAX, got });
                None
            }
            (Link::Connected, Kind::Hello) => self.on_hello(peer, header),
            (Link::Connected, kind) => {
                self.close(peer, ProtocolError::NoHello { kind });
                None
            }
            (Link::Agreed, _) if header.digest != self.setup.contract.digest() as u32 => {
                let (expected, got) = (u64::from(self.setup.contract.digest() as u32), u64::from(header.digest));
                self.close(peer, ProtocolError::Contract { expected, got });
                None
            }
            (Link::Agreed, kind @ Kind::Hello) => {
                self.close(peer, ProtocolError::Unexpected { kind });
                None
            }
            (Link::Agreed, Kind::Refuse) => {
                self.signal(Signal::Cut { peer });
                None
            }
            (Link::Agreed, Kind::Again) => Some(Notice::Again),
            (Link::Agreed, Kind::Awaits) => {
                self.on_awaits(peer, header);
                Some(Notice::Tick)
            }
            (Link::Agreed, _) => {
                // It does something: what it waited for has come.
                self.peers[peer.index()].awaits = None;
                Some(Notice::Message { peer, header })
            }
        }
    }

    fn on_hello(&mut self, peer: PeerId, header: Header) -> Option<Notice<P>> {
        if header.origin != peer {
            self.close(peer, ProtocolError::WrongRank { expected: peer, got: header.origin });
            return None;
        }
        if header.base.0 != self.setup.contract.digest() {
            // One difference is told at a time; a second peer that differs is only cut off.
            if self.comparing.is_some() || header.length == 0 {
                self.close_contract(peer, header.base.0);
            } else {
                self.comparing = Some((peer, header));
                let op = self.begin(Purpose::ReadContract);
                let into = Some(Segment { buffer: THEIRS, start: 0, len: header.length });
                self.outputs.push_back(Output::Receive { op, peer, into });
            }
            return None;
        }
        self.discard(peer, header);
        let begins = !self.has && header.weight == 0;
        if begins && header.clock != self.suspension() {
            self.signal(Signal::ResumedElsewhere { peer, at: header.clock });
        }
        let entry = &mut self.peers[peer.index()];
        let fresh = entry.incarnation != header.incarnation;
        let again = fresh && entry.incarnation != Incarnation(0) && header.clock > Clock(0);
        if fresh {
            entry.left = false;
        } else {
            self.counters.reconnects += 1;
        }
        entry.link = Link::Agreed;
        entry.incarnation = header.incarnation;
        entry.has = header.weight == 1;
        if again {
            self.notify(peer, self.header(Kind::Again));
        }
        // What it may have missed while it was away.
        if let Some(wait) = self.waiting.filter(|wait| wait.reported && wait.shown.on != peer) {
            let awaits = Header { origin: wait.shown.on, clock: wait.shown.at, ..self.header(Kind::Awaits) };
            self.notify(peer, awaits);
        }
        Some(Notice::Agreed { peer, fresh })
    }

    fn close_contract(&mut self, peer: PeerId, got: u64) {
        self.close(peer, ProtocolError::Contract { expected: self.setup.contract.digest(), got });
    }

    fn compare(&mut self) {
        let Some((_, Header { length, .. })) = self.comparing else { return };
        let ours = Segment { buffer: OURS, start: 0, len: self.setup.contract.len() };
        let theirs = Segment { buffer: THEIRS, start: 0, len: length };
        let op = self.begin(Purpose::Compare);
        self.outputs.push_back(Output::Compute { op, kernel: Kernel::Compare { ours, theirs } });
    }

    fn on_compared(&mut self, result: KernelResult) {
        let Some((peer, Header { length, base, .. })) = self.comparing.take() else { return };
        let line = if let KernelResult::Differs { line } = result { line } else { 0 };
        self.signal(Signal::ContractDiffers { peer, line, length });
        self.close_contract(peer, base.0);
    }

    /// The next peer that has been gone for too long.
    pub(crate) fn take_lost(&mut self) -> Option<PeerId> {
        let (now, dead_after) = (self.now, self.setup.patience.dead_after());
        let lost = self.peers.iter().position(|peer| match peer.link {
            Link::Down { since } => !peer.left && since.after(dead_after) <= now,
            _ => false,
        })?;
        self.peers[lost].link = Link::Lost;
        Some(PeerId(lost as u32))
    }

    /// The peer makes no more contributions: its going is no loss.
    pub(crate) fn mark_left(&mut self, peer: PeerId) {
        self.peers[peer.index()].left = true;
    }

    pub(crate) fn is_agreed(&self, peer: PeerId) -> bool {
        self.peers[peer.index()].link == Link::Agreed
    }

    /// Had the peer parameters when it said hello?
    pub(crate) fn had_parameters(&self, peer: PeerId) -> bool {
        self.peers[peer.index()].has
    }

    pub(crate) fn incarnation(&self, peer: PeerId) -> Incarnation {
        self.peers[peer.index()].incarnation
    }

    pub(crate) fn presence(&self, peer: PeerId) -> Presence {
        let entry = &self.peers[peer.index()];
        match entry.link {
            _ if entry.left => Presence::Left,
            Link::Agreed => Presence::Present,
            Link::Never => Presence::Awaited,
            Link::Connected if entry.incarnation == Incarnation(0) => Presence::Awaited,
            Link::Connected | Link::Down { .. } => Presence::Suspect,
            Link::Lost => Presence::Lost,
        }
    }

    // Held headers: bodies for which there is no place or no turn yet stay with the sender.

    pub(crate) fn hold(&mut self, peer: PeerId, header: Header) {
        // One with a body keeps the rest of its stream back; those without are few in any run that goes right.
        if self.holding.iter().filter(|(holder, _)| *holder == peer).count() >= HELD_MAX {
            return self.close(peer, ProtocolError::Unexpected { kind: header.kind });
        }
        self.holding.push_back((peer, header));
    }

    /// The held headers, in the order in which they came.
    pub(crate) fn held(&self) -> impl Iterator<Item = (PeerId, Header)> + '_ {
        self.holding.iter().copied()
    }

    pub(crate) fn release(&mut self, peer: PeerId, header: &Header) {
        if let Some(at) = self.holding.iter().position(|(holder, held)| *holder == peer && held == header) {
            self.holding.remove(at);
        }
    }

    // Waiting

    /// Wakes the machine at that time, whatever else happens.
    pub(crate) fn set_alarm(&mut self, alarm: Option<Instant>) {
        self.alarm = alarm;
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// This node waits for a peer, which is at clock `at`, to reach `clock` itself.
    pub(crate) fn wait_for(&mut self, on: PeerId, at: Clock, clock: Clock) {
        let me = self.setup.me;
        // What the peer has said of its own wait names the culprit better.
        let said = self.peers[on.index()].awaits.filter(|(culprit, _)| *culprit != me);
        let (direct, reported_by) = (on, if said.is_some() { on } else { me });
        let (on, at) = said.unwrap_or((on, at));
        match &mut self.waiting {
            Some(wait) if wait.shown.clock == clock => {
                if wait.direct != direct {
                    (wait.direct, wait.reported) = (direct, false);
                    (wait.shown.on, wait.shown.at, wait.shown.reported_by) = (on, at, reported_by);
                }
            }
            waiting => {
                let shown = Waiting { on, at, clock, since: self.now, reported_by };
                *waiting = Some(Wait { shown, direct, reported: false });
            }
        }
    }

    pub(crate) fn stop_waiting(&mut self) {
        self.waiting = None;
    }

    /// The peer that this node waits for says whom it waits for itself.
    fn on_awaits(&mut self, peer: PeerId, header: Header) {
        self.peers[peer.index()].awaits = Some((header.origin, header.clock));
        if let Some(wait) = self.waiting.as_mut().filter(|wait| wait.direct == peer) {
            // A better name is passed on like the first.
            wait.reported &= wait.shown.on == header.origin;
            (wait.shown.on, wait.shown.at, wait.shown.reported_by) = (header.origin, header.clock, peer);
        }
    }

    /// Once per wait, when it has lasted for long: what those who wait for this node should be told.
    pub(crate) fn take_stall(&mut self) -> Option<Header> {
        let stall_after = self.setup.patience.stall_after();
        let wait = self.waiting.as_mut().filter(|wait| !wait.reported)?;
        if self.now < wait.shown.since.after(stall_after) {
            return None;
        }
        wait.reported = true;
        let Waiting { on, at, since, .. } = wait.shown;
        self.event(Event::Stalled { on, at, since });
        Some(Header { origin: on, clock: at, ..self.header(Kind::Awaits) })
    }

    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.waiting.map(|wait| wait.shown)
    }

    pub(crate) fn status(&self, role: Role, clock: Clock, worker_clock: impl Fn(PeerId) -> Clock) -> Status {
        let me = self.setup.me;
        let others = || (0..self.peers.len() as u32).map(PeerId).filter(|peer| *peer != me);
        let workers = others().filter(|peer| self.setup.cluster.is_worker(*peer));
        Status {
            me,
            role,
            clock,
            waiting: self.waiting(),
            counters: self.counters,
            staleness: self.staleness.clone(),
            workers: workers
                .map(|rank| WorkerStatus { rank, state: self.presence(rank), clock: worker_clock(rank) })
                .collect(),
            links: others().map(|peer| self.peers[peer.index()].traffic).collect(),
            residual_norm: 0.0,
            density: 0.0,
            tau: 0.0,
            clipped: 0.0,
            operations: self.ops.len() - self.free_ops.len(),
            updates: 0,
            view: 0,
            members: 0,
        }
    }
}
