//! The part of a node that all roles share: operations, outputs, peers and their hellos, waits.
//!
//! On every connection both sides first say hello. A peer with the same contract is *agreed*, and only then are its
//! messages passed to the role. After a broken connection, a peer stays a member for `dead_after`; then it is *lost*.
//!
//! | file | keeps |
//! |---|---|
//! | `held.rs` | messages that wait for a free buffer or for their turn |
//! | `hello.rs` | the hellos of peers, and their contracts |
//! | `operations.rs` | the open operations, and a role's record of why it started them |
//! | `peers.rs` | the other nodes: connection, process, traffic |
//! | `stalls.rs` | the peer that this node waits for |
//! | `table.rs` | a value per peer |
//! | `port.rs` | [`Port`], through which a role starts operations |

mod held;
mod hello;
mod operations;
mod peers;
mod port;
mod stalls;
mod table;

use alloc::collections::VecDeque;
use core::ops::Range;

use held::Held;
use hello::Differing;
pub(crate) use operations::Jobs;
use operations::{Operations, Purpose};
use peers::{Link, Peers};
pub(crate) use port::Port;
pub(crate) use stalls::Awaited;
use stalls::Stalls;

use super::{Event, Failure, Input, Misuse, OURS, Output, ProtocolError, Setup, Signal, THEIRS};
use crate::buffer::Segment;
use crate::id::{Clock, Incarnation, OpId, PeerId};
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::Topology;
use crate::rider::Rider;
use crate::status::{Counters, Histogram, LinkStatus, Presence, Role, Status, Waiting, WorkerStatus};
use crate::tape::{Order, Position};
use crate::telemetry::Times;
use crate::time::{Duration, Instant, StepTime};
use crate::vectors::{Keep, Vectors};
use crate::wire::{CONTRACT_LEN_MAX, HEADER_LEN, Header, Message};

/// Operations and outputs for which a node has room at the start. It grows to what the node needs; a simulation has ten
/// thousand nodes.
const OPEN: usize = 8;
/// Messages of one peer that can be held at once.
const HELD_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) setup: Setup,
    pub(crate) counters: Counters,
    pub(crate) staleness: Histogram,
    pub(crate) vectors: Vectors,
    /// This node has parameters of a run that has begun. Hellos say so.
    pub(crate) has_parameters: bool,
    /// The application has joined.
    joined: bool,
    now: Instant,
    outputs: VecDeque<Output>,
    /// For each transmission among the outputs: the length that its body would have as plain floats.
    dense: VecDeque<u32>,
    /// Operations that the driver has not been given, on connections that broke: they end as aborted.
    withdrawn: VecDeque<OpId>,
    operations: Operations,
    peers: Peers,
    stalls: Stalls,
    /// Messages that wait for a free buffer or for their turn, in order of arrival.
    holding: Held,
    /// The hello whose contract is being read and compared.
    comparing: Option<Differing>,
    /// When the role wants to be woken.
    alarm: Option<Instant>,
    tape: Position,
}

/// A message of an agreed peer, whose body (if it has one) is still unread.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incoming {
    pub(crate) peer: PeerId,
    pub(crate) message: Message,
    /// Bytes of the body.
    pub(crate) length: u32,
}

/// The part of an input that is left for the role.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// A peer takes part (again). `fresh`: it is a process that this node had not met.
    Agreed { peer: PeerId, fresh: bool },
    /// A message of an agreed peer.
    Message(Incoming),
    /// An operation of the role has ended well.
    Done { op: OpId, result: KernelResult },
    /// An operation of the role was aborted.
    Failed { op: OpId },
    /// The application contributes.
    Step { weight: u64 },
    /// The application contributes, and goes on with parameters of its own.
    Push { weight: u64 },
    /// The application contributes, range by range.
    Begin { weight: u64 },
    /// The application has written a range of its contribution, in floats.
    Given { range: Range<usize> },
    /// The application's learning rate is `scale` times the one at the start.
    Rate { scale: f32 },
    /// The mean time of the application's local steps.
    StepTime { mean: StepTime },
    /// The number that travels with the application's contributions.
    Rider { rider: Option<Rider> },
    /// The application makes no more contributions.
    Leave { stay: bool, keep: bool },
    /// This node resumed from a checkpoint, and an earlier process of its rank has rejoined the run after that
    /// checkpoint.
    Outdated,
    /// Nothing but the time.
    Tick,
}

impl Hub {
    pub(crate) fn new(setup: Setup) -> Self {
        let tape = Position::new(setup.tape.clone());
        let neighbours = setup.neighbours.clone();
        // Where peers are connected on demand, each node wants the host of the coordinator, and that one all of them.
        let is_sparse = setup.has_partners() && setup.host() != setup.me;
        let mut vectors = Vectors::default();
        let ours = vectors.bytes("contract", setup.contract.len() as usize, Keep::No);
        let theirs = vectors.bytes("a peer's contract", CONTRACT_LEN_MAX as usize, Keep::No);
        debug_assert_eq!((ours, theirs), (OURS, THEIRS), "drivers find the texts by these ids");
        Self {
            counters: Counters::default(),
            staleness: Histogram::default(),
            vectors,
            has_parameters: false,
            joined: false,
            now: Instant::ORIGIN,
            outputs: VecDeque::with_capacity(OPEN),
            dense: VecDeque::with_capacity(OPEN),
            withdrawn: VecDeque::new(),
            operations: Operations::new(),
            peers: Peers::new(neighbours.clone(), is_sparse, setup.always_wanted()),
            stalls: Stalls::new(setup.me),
            holding: Held::new(neighbours, is_sparse),
            comparing: None,
            alarm: None,
            tape,
            setup,
        }
    }

    /// Does the hub's part of an input, and returns the role's.
    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) -> Result<Option<Notice>, Misuse> {
        match input {
            Input::Connected { peer } | Input::Disconnected { peer } | Input::Header { peer, .. }
                if peer == self.setup.me || !self.peers.has(peer) =>
            {
                return Err(Misuse::UnknownPeer { peer });
            }
            _ => {}
        }
        // A clock that runs backwards must not undo a deadline that has fired.
        self.now = self.now.max(now);
        Ok(match input {
            Input::Timeout => Some(Notice::Tick),
            Input::Connected { peer } => {
                self.withdraw(peer);
                self.on_connected(peer);
                None
            }
            Input::Disconnected { peer } => {
                self.withdraw(peer);
                self.on_disconnected(peer);
                Some(Notice::Tick)
            }
            Input::Header { peer, header } => self.on_header(peer, &header),
            Input::Completed { op, result } => match self.operations.end(op)? {
                Purpose::Role => Some(Notice::Done { op, result }),
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
            Input::Aborted { op } => match self.operations.end(op)? {
                Purpose::Role => Some(Notice::Failed { op }),
                Purpose::ReadContract | Purpose::Compare => {
                    self.comparing = None;
                    None
                }
                Purpose::Nothing => None,
            },
            Input::Step { weight } => {
                self.end_silence();
                Some(Notice::Step { weight })
            }
            Input::Push { weight } => {
                self.end_silence();
                Some(Notice::Push { weight })
            }
            Input::Begin { weight } => {
                self.end_silence();
                Some(Notice::Begin { weight })
            }
            Input::Given { first, len } => Some(Notice::Given { range: first..first.saturating_add(len) }),
            Input::Rate { scale } => Some(Notice::Rate { scale }),
            Input::StepTime { mean } => Some(Notice::StepTime { mean }),
            Input::Rider { rider } => Some(Notice::Rider { rider }),
            Input::Leave { stay, keep } => {
                self.end_silence();
                Some(Notice::Leave { stay, keep })
            }
            Input::Silence { span } => {
                let me = self.setup.me;
                self.stalls.set_silence(me, Some(self.now.after(span)));
                self.tell_all(Message::Silence { span_ms: millis(span) });
                None
            }
            Input::Fail { failure } => {
                self.tell_all(Message::Failed { failure });
                None
            }
            // Nothing has been asked for.
            Input::Resumed => return Err(Misuse::NotReady),
        })
    }

    /// The next output, or how long to wait.
    pub(crate) fn poll_output(&mut self) -> Output {
        let Some(output) = self.outputs.pop_front() else {
            // The next outputs take the places that are in the cache, and not the ones behind the last output.
            self.outputs.clear();
            self.dense.clear();
            return Output::Wait { until: self.next_deadline() };
        };
        // Counted here: a message that is taken back has not been sent.
        if let Output::Transmit { peer, header, .. } = output {
            let dense = self.dense.pop_front().unwrap_or_default();
            self.counters.dense_bytes += HEADER_LEN as u64 + u64::from(dense);
            self.peers.traffic(peer).on_sent(header.length(), self.now);
        }
        output
    }

    /// An operation that was withdrawn, and has to end as aborted.
    pub(crate) fn take_withdrawn(&mut self) -> Option<OpId> {
        self.withdrawn.pop_front()
    }

    /// Takes back the outputs for a connection that the driver has not been given, for instance because a kernel takes
    /// time. The next connection begins with a hello, and with headers of its own.
    fn withdraw(&mut self, peer: PeerId) {
        if planted!(self, OldConnection) {
            return;
        }
        let Self { outputs, dense, withdrawn, .. } = self;
        let of_peer = |output: &Output| match *output {
            Output::Receive { peer: with, .. } | Output::Transmit { peer: with, .. } => with == peer,
            Output::Close { peer: with, .. } => with == peer,
            _ => false,
        };
        let mut transmissions = outputs.iter().filter(|output| matches!(output, Output::Transmit { .. }));
        dense.retain(|_| !transmissions.next().is_some_and(of_peer));
        withdrawn.extend(outputs.iter().filter(|output| of_peer(output)).filter_map(|output| match *output {
            Output::Receive { op, .. } | Output::Transmit { op, .. } => Some(op),
            _ => None,
        }));
        outputs.retain(|output| !of_peer(output));
    }

    fn next_deadline(&self) -> Option<Instant> {
        let patience = &self.setup.patience;
        let lost = self.peers.deadline(patience.dead_after());
        let stalled = self.stalls.deadline(patience.stall_after());
        lost.into_iter().chain(stalled).chain(self.alarm).min()
    }

    // Outputs

    pub(crate) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.outputs.push_back(Output::Signal(signal));
        self.joined |= matches!(signal, Signal::Joined { .. });
        // Once in a run: all nodes have the same recipe.
        if matches!(signal, Signal::Joined { .. }) && self.setup.me == PeerId(0) {
            self.setup.recipe.hints(None).for_each(|hint| self.outputs.push_back(Output::Event(Event::Hint(hint))));
        }
    }

    // The tape

    /// Does the node record its decisions, or follow a tape?
    pub(crate) fn is_taped(&self) -> bool {
        self.tape.is_on()
    }

    /// Is the next decision that of a tape?
    pub(crate) fn is_following(&self) -> bool {
        self.tape.is_given()
    }

    /// The decision that must come next, if the node follows a tape.
    pub(crate) fn next_order(&self) -> Option<Order> {
        self.tape.next()
    }

    /// Decisions of a tape that have been made.
    pub(crate) fn decisions(&self) -> usize {
        self.tape.made()
    }

    /// May this decision be made now?
    pub(crate) fn allows(&self, order: Order) -> bool {
        self.tape.allows(order)
    }

    /// Makes a decision that depends on when messages arrive.
    pub(crate) fn decide(&mut self, order: Order) {
        debug_assert!(self.tape.allows(order), "a role asks before it decides");
        if self.tape.advance() {
            self.outputs.push_back(Output::Order(order));
        }
    }

    /// Something has happened that a tape cannot express.
    pub(crate) fn break_tape(&mut self) {
        if !self.is_following() {
            self.decide(Order::Break);
        }
    }

    /// Sends a message without a body. How the transmission ends has no consequence.
    pub(crate) fn notify(&mut self, peer: PeerId, message: Message) {
        self.send(peer, message, None, 0, Purpose::Nothing);
    }

    /// Sends a message without a body to all nodes that take part.
    fn tell_all(&mut self, message: Message) {
        for index in 0..self.peers.count() {
            let peer = self.peers.rank(index);
            if peer != self.setup.me && self.is_agreed(peer) {
                self.notify(peer, message);
            }
        }
    }

    /// The application goes on before the end of the silence that it has announced.
    fn end_silence(&mut self) {
        let me = self.setup.me;
        if self.stalls.silence_of(me, self.now).is_some() {
            self.stalls.set_silence(me, None);
            self.tell_all(Message::Silence { span_ms: 0 });
        }
    }

    /// Sends a message. `dense` is the length that the body would have as plain floats, for the counters.
    fn send(&mut self, peer: PeerId, message: Message, body: Option<Segment>, dense: u32, purpose: Purpose) -> OpId {
        let length = body.map_or(0, |body| body.len);
        let Setup { me, incarnation, .. } = self.setup;
        let header = Header::new(self.setup.contract.digest() as u32, me, incarnation, length, message);
        let op = self.operations.begin(purpose);
        self.dense.push_back(dense);
        self.outputs.push_back(Output::Transmit { op, peer, header, body });
        op
    }

    fn read(&mut self, peer: PeerId, into: Option<Segment>, purpose: Purpose) -> OpId {
        let op = self.operations.begin(purpose);
        self.outputs.push_back(Output::Receive { op, peer, into });
        op
    }

    fn run(&mut self, kernel: Kernel, purpose: Purpose) -> OpId {
        let op = self.operations.begin(purpose);
        self.outputs.push_back(Output::Compute { op, kernel });
        op
    }

    /// Reads the body of a message, if it has one, and drops it.
    pub(crate) fn discard(&mut self, incoming: &Incoming) {
        if incoming.length > 0 {
            self.read(incoming.peer, None, Purpose::Nothing);
        }
    }

    /// Closes the connection to a peer that broke the protocol.
    pub(crate) fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        self.outputs.push_back(Output::Close { peer, reason });
        self.on_disconnected(peer);
    }

    /// Tells a peer that it cannot take part any more, and expects nothing of it from now on.
    pub(crate) fn refuse(&mut self, peer: PeerId) {
        self.notify(peer, Message::Refuse);
        self.mark_left(peer);
    }

    // Peers

    fn on_disconnected(&mut self, peer: PeerId) {
        self.holding.drop_of(peer);
        let now = self.now;
        self.peers.on_disconnected(peer, now);
    }

    fn on_header(&mut self, peer: PeerId, header: &Header) -> Option<Notice> {
        let (message, length, ours) = (*header.message(), header.length(), self.setup.contract.digest() as u32);
        let entry = self.peers.traffic(peer);
        entry.on_heard(length, self.now);
        match (entry.link, message) {
            // The connection has ended since; its messages may still arrive.
            (Link::Never | Link::Down { .. } | Link::Lost, _) => None,
            (Link::Connected, Message::Hello(hello)) => self.on_hello(peer, hello, length),
            // The peer is about to resume. The hello of this node tells it the decision of the other nodes.
            (Link::Connected, Message::Moments(_)) => None,
            (Link::Connected, _) => {
                self.close(peer, ProtocolError::NoHello { kind: header.kind() });
                None
            }
            (Link::Agreed, _) if header.digest() != ours => {
                let (expected, got) = (u64::from(ours), u64::from(header.digest()));
                self.close(peer, ProtocolError::Contract { expected, got });
                None
            }
            (Link::Agreed, Message::Hello(_)) => {
                self.close(peer, ProtocolError::Unexpected { kind: header.kind() });
                None
            }
            (Link::Agreed, Message::Refuse) => {
                self.signal(Signal::Cut { peer });
                None
            }
            (Link::Agreed, Message::Again) => Some(Notice::Outdated),
            (Link::Agreed, Message::Awaits { on, at, silent_ms }) => {
                // A node that is connected here has announced its silence here, and the end of it.
                let exists = on.0 < self.setup.cluster.nodes();
                if exists && on != self.setup.me && !self.is_agreed(on) {
                    let until = self.now.after(Duration::from_millis(silent_ms.into()));
                    self.stalls.set_silence(on, (silent_ms > 0).then_some(until));
                }
                self.stalls.on_awaits(peer, on, at);
                Some(Notice::Tick)
            }
            (Link::Agreed, Message::Silence { span_ms }) => {
                let until = self.now.after(Duration::from_millis(span_ms.into()));
                self.stalls.set_silence(peer, (span_ms > 0).then_some(until));
                Some(Notice::Tick)
            }
            (Link::Agreed, Message::Failed { failure }) => {
                self.on_failed(peer, failure);
                Some(Notice::Tick)
            }
            (Link::Agreed, Message::PeerLost { peer: lost, failure }) => {
                let is_known = lost != self.setup.me && self.peers.has(lost) && peer == self.setup.host();
                if is_known && self.peers.get(lost).is_far() {
                    failure.into_iter().for_each(|failure| self.event(Event::PeerFailed { peer: lost, failure }));
                    self.event(Event::PeerLost { peer: lost });
                } else if is_known {
                    // A partner is missed here, unless the next view comes before it is given up.
                    self.peers.on_rumour(lost);
                }
                None
            }
            (Link::Agreed, _) => {
                self.stalls.on_progress(peer);
                Some(Notice::Message(Incoming { peer, message, length }))
            }
        }
    }

    /// The peer has failed: it will not come back, except as another process. It is lost at once.
    fn on_failed(&mut self, peer: PeerId, failure: Failure) {
        self.event(Event::PeerFailed { peer, failure });
        self.peers.change(peer, |entry| entry.failure = Some(failure));
        self.stalls.set_silence(peer, None);
        self.on_disconnected(peer);
    }

    /// Where nodes are connected on demand, few peers of a node miss it: the host, which all nodes are connected with,
    /// tells the others. In a mesh all nodes are connected.
    fn pass_on(&mut self, lost: PeerId) {
        let tells = self.setup.on_demand && self.setup.me == self.setup.host();
        if tells && !matches!(self.setup.recipe.topology(), Topology::Mesh { .. }) {
            self.tell_all(Message::PeerLost { peer: lost, failure: self.failure(lost) });
        }
    }

    /// Gives up the next peer that has been gone for too long.
    pub(crate) fn take_lost(&mut self) -> Option<PeerId> {
        let lost = self.peers.take_lost(self.now, self.setup.patience.dead_after())?;
        self.stalls.on_lost(lost);
        self.pass_on(lost);
        Some(lost)
    }

    /// Is any peer lost, and has not come back?
    pub(crate) fn has_lost_any(&self) -> bool {
        self.peers.lost() > 0
    }

    /// Why a peer has failed, if it has said so.
    pub(crate) fn failure(&self, peer: PeerId) -> Option<Failure> {
        self.peers.get(peer).failure
    }

    /// The peer makes no more contributions: its disappearance is no loss.
    pub(crate) fn mark_left(&mut self, peer: PeerId) {
        self.peers.change(peer, |entry| entry.left = true);
    }

    /// The nodes that have come up, by index below [`Self::met`], among which may be this one. No other node is connected.
    pub(crate) fn peer(&self, index: usize) -> PeerId {
        self.peers.rank(index)
    }

    /// How many nodes have come up.
    pub(crate) fn met(&self) -> usize {
        self.peers.count()
    }

    /// An exchange begins, for instance in another view.
    pub(crate) fn begin_exchange(&mut self) {
        self.peers.begin_exchange();
    }

    /// Sets the peers that this node exchanges messages with. On demand, the driver connects it with them.
    pub(crate) fn set_partners(&mut self, partners: &[PeerId]) {
        // Without patience, drivers do not reconnect: a peer that is not connected yet is not lost.
        let waits = self.setup.patience.dead_after() > Duration::ZERO;
        self.peers.set_partners(partners, self.now, waits);
        while let Some(peer) = self.peers.take_rumour() {
            self.event(Event::PeerLost { peer });
        }
    }

    /// Can a message of the present exchange have been lost with the connection to this peer?
    pub(crate) fn has_broken(&self, peer: PeerId) -> bool {
        self.peers.has_broken(peer)
    }

    /// How often the set of wanted peers has changed.
    pub(crate) fn wanted_changes(&self) -> u64 {
        self.peers.changes()
    }

    /// The wanted peers, by rank.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.wanted().filter(|peer| *peer != self.setup.me)
    }

    pub(crate) fn is_agreed(&self, peer: PeerId) -> bool {
        self.peers.get(peer).link == Link::Agreed
    }

    /// Had the peer parameters when it said hello?
    pub(crate) fn had_parameters(&self, peer: PeerId) -> bool {
        self.peers.get(peer).had_parameters
    }

    /// The peer's process; 0 before its first hello.
    pub(crate) fn incarnation(&self, peer: PeerId) -> Incarnation {
        self.peers.get(peer).incarnation
    }

    /// The process of a node, this one included; 0 before its first hello.
    pub(crate) fn process(&self, node: PeerId) -> Incarnation {
        if node == self.setup.me { self.setup.incarnation } else { self.incarnation(node) }
    }

    pub(crate) fn presence(&self, peer: PeerId) -> Presence {
        self.peers.get(peer).presence()
    }

    // Held messages

    /// Keeps a message that is not due, or has no free buffer for its body yet. The body stays with the sender.
    pub(crate) fn hold(&mut self, incoming: Incoming) {
        // A message with a body keeps back the rest of its peer's messages. Only messages without one can pile up.
        let peer = incoming.peer;
        if self.holding.count_of(peer) >= HELD_MAX {
            return self.close(peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        }
        self.holding.push(incoming);
    }

    /// The held messages, in order of arrival.
    pub(crate) fn held(&self) -> impl Iterator<Item = &Incoming> {
        self.holding.iter()
    }

    /// The held messages of a peer, in order of arrival.
    pub(crate) fn held_of(&self, peer: PeerId) -> impl Iterator<Item = &Incoming> {
        self.holding.iter_of(peer)
    }

    /// Takes the first held message that is due.
    pub(crate) fn take_held(&mut self, mut due: impl FnMut(&Self, &Incoming) -> bool) -> Option<Incoming> {
        let place = self.holding.find(|incoming| due(self, incoming))?;
        Some(self.holding.take(place))
    }

    /// Takes the first held message of these peers that is due. The messages of other peers are not looked at.
    pub(crate) fn take_held_of(
        &mut self,
        peers: impl Iterator<Item = PeerId>,
        mut due: impl FnMut(&Self, &Incoming) -> bool,
    ) -> Option<Incoming> {
        let first = peers.filter_map(|peer| self.holding.find_of(peer, |incoming| due(self, incoming)));
        let (_, place) = first.min()?;
        Some(self.holding.take(place))
    }

    // Time and waits

    /// Wakes the role at that time, even if no input comes before.
    pub(crate) fn set_alarm(&mut self, alarm: Option<Instant>) {
        self.alarm = alarm;
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Notes the peer that this node waits for. Returns the wait when it has to be passed on: when it has lasted for
    /// `stall_after`, or is for a node that is silent as announced.
    pub(crate) fn note_waiting(&mut self, awaited: Option<Awaited>) -> Option<Waiting> {
        self.stalls.set(awaited, self.now);
        let excuse = self.stalls.take_excuse(self.now).filter(|_| !planted!(self, SilenceNotPassedOn));
        let Some(stall) = self.stalls.take_stall(self.now, self.setup.patience.stall_after()) else { return excuse };
        let Waiting { on, at, since, .. } = stall;
        self.event(Event::Stalled { on, at, since });
        Some(stall)
    }

    /// Tells a peer which node this one waits for.
    pub(crate) fn tell_waiting(&mut self, peer: PeerId, waiting: Waiting) {
        let Waiting { on, at, .. } = waiting;
        let silence = self.stalls.silence_of(on, self.now);
        let silent_ms = silence.map_or(0, |until| millis(until.since(self.now)));
        self.notify(peer, Message::Awaits { on, at, silent_ms });
    }

    /// Until when the awaited node is silent, as it has announced.
    pub(crate) fn awaited_silence(&self) -> Option<Instant> {
        self.stalls.excused_until(self.now)
    }

    pub(crate) fn waiting(&self) -> Option<Waiting> {
        self.stalls.waiting()
    }

    pub(crate) fn status(&self, role: Role, clock: Clock, worker_clock: impl Fn(PeerId) -> Clock) -> Status {
        let me = self.setup.me;
        let others = || self.peers.ranks().filter(|peer| *peer != me);
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
            links: others().map(|peer| LinkStatus { peer, ..self.peers.get(peer).traffic }).collect(),
            residual_norm: 0.0,
            residual_updates: 0.0,
            rest: None,
            density: 0.0,
            tau: 0.0,
            clipped: 0.0,
            forgotten: 0.0,
            times: Times::default(),
            operations: self.operations.open(),
            updates: 0,
            view: 0,
            members: 0,
        }
    }
}

/// A span as it is sent. It is never 0, which has another meaning.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1)
}
