//! [`Assembly`]: nodes that resume agree on the moment from which all of them go on, before their machines begin.
//!
//! ```text
//! Connected -> Moments to the peer: the checkpoints of this node
//! Moments of all peers are here -> the newest moment that all have -> Resume: the driver loads the parameters
//!                               -> the machine begins with its kernels -> Restore: the driver loads the saved buffers
//!                               -> the machine takes part
//! a Hello -> the peer's machine has begun: the same moment, or none if a run is under way
//! ```
//! All nodes decide alike, since all have the same lists. A node that comes too late to take part in the decision learns
//! it from the hello of a node that has decided.
//!
//! If no moment is common to all nodes, the moment that most nodes have is taken; of several such moments, the newest.
//! A node without it enters as one without parameters, and gets them from its peers as a newcomer of a running run
//! does. Only the founder of a mesh and servers, which begin with parameters of their own, ask a worker for them here.
//!
//! The machine hears of connections and of the peers' hellos when it takes part.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::{Adoption, Advice, Input, Machine, Misuse, Output, ProtocolError, Resumed, Setup, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, OpId, PeerId, Sequence};
use crate::kernel::KernelResult;
use crate::recipe::Topology;
use crate::saved::SavedBuffer;
use crate::status::{Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Hello, Message, Moments};

/// Operations of an assembly have numbers of their own, which no machine reaches.
const OPS: u64 = 1 << 63;

/// A machine that first agrees with its peers on the moment to resume from.
pub(super) struct Assembly {
    setup: Setup,
    /// Makes the machine for a setup.
    make: fn(Setup) -> Box<dyn Machine>,
    /// Until the decision: the machine of a new run, which names the buffers and begins with its kernels.
    machine: Box<dyn Machine>,
    phase: Phase,
    /// The facts about each peer, by rank.
    peers: Vec<Peer>,
    outputs: VecDeque<Output>,
    /// Outputs of the machine that are no kernels, from before it takes part.
    later: VecDeque<Output>,
    /// Operations of the assembly that have been started.
    ops: u64,
    /// The donor that has been asked on its present connection.
    asked: Option<PeerId>,
    /// The operation that receives the parameters of the moment.
    fetching: Option<OpId>,
    now: Instant,
    /// When the first input came.
    since: Option<Instant>,
    /// The application has taken a step: the view has moved on.
    stepped: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the moments of all peers.
    Gathering,
    /// Waits for the parameters: from the driver, or from a donor.
    Loading { at: Clock, own: bool },
    /// The machine begins with its kernels.
    Beginning { at: Clock, own: bool },
    /// Waits for the driver to load the saved buffers.
    Restoring { at: Clock },
    /// The machine takes part. `at`: the moment of the parameters in its view at the start.
    Running { at: Option<Clock> },
}

/// The facts about a peer from its present connection.
#[derive(Clone, Debug, Default)]
struct Peer {
    connected: bool,
    moments: Option<Moments>,
    /// Its machine has begun. The header waits for the own machine.
    hello: Option<(Hello, Header)>,
    /// The body of its hello has been read and dropped: the contracts are equal.
    hello_read: bool,
    /// It asks for the parameters of this moment.
    asks: Option<Clock>,
}

impl Peer {
    fn has_spoken(&self) -> bool {
        self.moments.is_some() || self.hello.is_some()
    }
}

impl Assembly {
    /// `setup.resume` lists the moments of this node.
    pub(super) fn new(setup: Setup, make: fn(Setup) -> Box<dyn Machine>) -> Self {
        // Its peers may not resume, and then do not want this node: it has to hear the moments of all.
        let setup = Setup { on_demand: false, ..setup };
        let mut assembly = Self {
            machine: make(Setup { resume: None, ..setup.clone() }),
            make,
            phase: Phase::Gathering,
            peers: vec![Peer::default(); setup.cluster.nodes() as usize],
            outputs: VecDeque::new(),
            later: VecDeque::new(),
            ops: 0,
            asked: None,
            fetching: None,
            now: Instant::ORIGIN,
            since: None,
            stepped: false,
            setup,
        };
        assembly.maybe_decide();
        assembly
    }

    fn me(&self) -> PeerId {
        self.setup.me
    }

    /// The moments of this node, newest first.
    fn own(&self) -> &[Resumed] {
        self.setup.resume.as_deref().unwrap_or_default()
    }

    fn send(&mut self, peer: PeerId, message: Message, body: Option<Segment>) {
        let Setup { me, incarnation, .. } = self.setup;
        let length = body.map_or(0, |body| body.len);
        let header = Header::new(self.setup.contract.digest() as u32, me, incarnation, length, message);
        let op = self.next_op();
        self.outputs.push_back(Output::Transmit { op, peer, header, body });
    }

    fn next_op(&mut self) -> OpId {
        self.ops += 1;
        OpId(OPS + self.ops)
    }

    fn view_segment(&self) -> Segment {
        Segment::floats(self.machine.view(), 0, self.setup.len)
    }

    // Before the machine takes part

    fn on_connected(&mut self, peer: PeerId) {
        self.peers[peer.index()] = Peer { connected: true, ..Peer::default() };
        let moments = Moments::new(self.own().iter().map(|moment| moment.at));
        self.send(peer, Message::Moments(moments), None);
    }

    fn on_header(&mut self, peer: PeerId, header: Header) {
        let gathers = self.phase == Phase::Gathering;
        // The hellos will show the difference.
        let differs = header.digest() != self.setup.contract.digest() as u32;
        let entry = &mut self.peers[peer.index()];
        match *header.message() {
            Message::Hello(hello) => {
                entry.hello = Some((hello, header));
                entry.hello_read = hello.digest == self.setup.contract.digest() && header.length() > 0;
                if entry.hello_read {
                    // The peer may have parameters for this node, behind this body.
                    let op = self.next_op();
                    self.outputs.push_back(Output::Receive { op, peer, into: None });
                }
                // A run is under way, or this node has missed the decision.
                if gathers && (hello.has_parameters || hello.resumed_at > Clock(0)) {
                    self.on_decided_elsewhere(&hello);
                }
            }
            Message::Moments(moments) => entry.moments = Some(if differs { Moments::default() } else { moments }),
            Message::FetchParameters { view } => entry.asks = Some(Clock(view.0)),
            Message::Parameters { view, .. } if self.awaits(peer, Clock(view.0), header.length()) => {
                let op = self.next_op();
                self.fetching = Some(op);
                self.outputs.push_back(Output::Receive { op, peer, into: Some(self.view_segment()) });
            }
            _ => {
                let reason = ProtocolError::NoHello { kind: header.kind() };
                self.peers[peer.index()] = Peer::default();
                self.outputs.push_back(Output::Close { peer, reason });
            }
        }
        if gathers && differs && self.phase == Phase::Gathering {
            self.decide(None);
        }
        self.maybe_decide();
        self.maybe_fetch();
    }

    fn maybe_decide(&mut self) {
        let me = self.me();
        let mut others = self.peers.iter().enumerate().filter(|(rank, _)| *rank != me.index());
        if self.phase != Phase::Gathering || others.any(|(_, peer)| !peer.has_spoken()) {
            return;
        }
        let lists: Vec<Moments> = self.peers.iter().map(|peer| peer.moments.unwrap_or_default()).collect();
        let own = Moments::new(self.own().iter().map(|moment| moment.at));
        let list = |rank: usize| if rank == me.index() { own } else { lists[rank] };
        if planted!(self, UncommittedMoment) {
            return self.decide(own.iter().next());
        }
        let nodes = || 0..lists.len();
        let workers = || 0..self.setup.cluster.workers as usize;
        let holders = |at: Clock| nodes().filter(|rank| list(*rank).has(at)).count();
        // The parameters as a whole are in the checkpoints of workers only.
        let candidates = workers().flat_map(|rank| list(rank).iter().collect::<Vec<_>>());
        let best = candidates.max_by_key(|at| (holders(*at), *at));
        self.decide(best);
    }

    /// A peer's machine has begun: it takes part in a run, or has decided with the moments of all nodes.
    fn on_decided_elsewhere(&mut self, hello: &Hello) {
        let Hello { has_parameters, resumed_at, .. } = *hello;
        if !has_parameters {
            return self.decide(Some(resumed_at));
        }
        // A newcomer. Where moments count suspensions, it has to know the last one.
        let counts = resumed_at > Clock(0) && !self.setup.recipe.is_collective();
        let resumed = counts.then_some(Resumed { at: resumed_at, made: 0 });
        self.begin(resumed, Phase::Running { at: None });
    }

    /// All nodes go on from this moment; `None`: a new run.
    fn decide(&mut self, at: Option<Clock>) {
        let Some(at) = at else { return self.begin(None, Phase::Running { at: None }) };
        let own = self.own().iter().find(|moment| moment.at == at).copied();
        // A member of a collective without the moment is one without parameters.
        let given = !self.setup.recipe.is_collective();
        let resumed = own.or_else(|| given.then_some(Resumed { at, made: 0 }));
        self.begin(resumed, Phase::Loading { at, own: own.is_some() });
    }

    fn begin(&mut self, resumed: Option<Resumed>, phase: Phase) {
        let gathered = phase != Phase::Running { at: None };
        let setup = Setup { resumed, resume: None, gathered, ..self.setup.clone() };
        self.machine = (self.make)(setup);
        self.phase = phase;
        if let Phase::Loading { at, own } = phase {
            self.outputs.push_back(Output::Signal(Signal::Resume { at, own }));
            if own || self.needs_parameters() {
                return;
            }
        }
        self.run();
    }

    /// Must this node have the parameters before its machine takes part? A server and the founder of a mesh begin with
    /// parameters of their own.
    fn needs_parameters(&self) -> bool {
        match self.setup.recipe.topology() {
            _ if self.setup.recipe.is_collective() => false,
            Topology::Servers { .. } => !self.setup.cluster.is_worker(self.me()),
            Topology::Auto | Topology::Tree { .. } | Topology::Ring | Topology::Mesh { .. } => self.me() == PeerId(0),
        }
    }

    /// The parameters are in the view.
    fn on_loaded(&mut self) {
        if let Phase::Loading { at, own } = self.phase {
            self.phase = Phase::Beginning { at, own };
        }
    }

    /// The kernels with which the machine begins are done. They write to buffers that the driver may have to restore.
    fn on_begun(&mut self, at: Clock, own: bool) {
        if own {
            self.phase = Phase::Restoring { at };
            self.outputs.push_back(Output::Signal(Signal::Restore));
        } else {
            self.run();
        }
    }

    /// The worker that gives the parameters of a moment.
    fn donor(&self, at: Clock) -> Option<PeerId> {
        let listed = |peer: &Peer| peer.moments.is_some_and(|moments| moments.has(at));
        // A peer that had decided before this node came.
        let resumed =
            |peer: &Peer| peer.moments.is_none() && peer.hello.is_some_and(|(hello, _)| hello.resumed_at == at);
        let workers = &self.peers[..self.setup.cluster.workers as usize];
        let first = |has: &dyn Fn(&Peer) -> bool| workers.iter().position(|peer| peer.connected && has(peer));
        first(&listed).or_else(|| first(&resumed)).map(|rank| PeerId(rank as u32))
    }

    fn maybe_fetch(&mut self) {
        let Phase::Loading { at, own: false } = self.phase else { return };
        // One donor at a time: the answer of another could not be told apart from the one that is waited for.
        let Some(donor) = self.donor(at).filter(|_| self.asked.is_none()) else { return };
        self.asked = Some(donor);
        self.send(donor, Message::FetchParameters { view: Sequence(at.0) }, None);
    }

    /// Is this the answer that the node has asked for?
    fn awaits(&self, peer: PeerId, of: Clock, length: u32) -> bool {
        let Phase::Loading { at, own: false } = self.phase else { return false };
        at == of && self.asked == Some(peer) && self.fetching.is_none() && length == self.view_segment().len
    }

    /// The machine takes part: it hears of all connections, and of the hellos that wait.
    fn run(&mut self) {
        let at = match self.phase {
            Phase::Beginning { at, .. } | Phase::Restoring { at } => Some(at),
            Phase::Gathering | Phase::Loading { .. } | Phase::Running { .. } => None,
        };
        self.phase = Phase::Running { at };
        self.outputs.append(&mut self.later);
        for rank in 0..self.peers.len() {
            let peer = PeerId(rank as u32);
            if !self.peers[rank].connected {
                continue;
            }
            self.pass(Input::Connected { peer });
            if let Some((_, header)) = self.peers[rank].hello {
                self.pass(Input::Header { peer, header });
            }
            self.maybe_give(peer);
        }
    }

    /// Gives an input to the machine. Inputs that the assembly has kept have been checked by their driver's transport.
    fn pass(&mut self, input: Input) {
        let result = self.machine.handle_input(self.now, input);
        debug_assert_eq!(result, Ok(()), "{input:?}");
    }

    /// Answers a peer that lacks the parameters of the moment from which this node has begun. Such a peer has to take
    /// part before anything changes them.
    fn maybe_give(&mut self, peer: PeerId) {
        let Phase::Running { at: Some(at) } = self.phase else { return };
        if self.peers[peer.index()].asks == Some(at) && !self.stepped {
            self.peers[peer.index()].asks = None;
            let (view, body) = (Sequence(at.0), self.view_segment());
            self.send(peer, Message::Parameters { view, round: at, vector: 0, riders: None }, Some(body));
        }
    }
}

impl Machine for Assembly {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        self.now = self.now.max(now);
        self.since.get_or_insert(self.now);
        match input {
            Input::Connected { peer } | Input::Disconnected { peer } | Input::Header { peer, .. }
                if peer == self.me() || peer.index() >= self.peers.len() =>
            {
                return Err(Misuse::UnknownPeer { peer });
            }
            Input::Completed { op, .. } | Input::Aborted { op } if op.0 > OPS => {
                if self.fetching == Some(op) {
                    self.fetching = None;
                    match input {
                        Input::Completed { .. } => self.on_loaded(),
                        _ => self.asked = None,
                    }
                }
                return Ok(());
            }
            _ => {}
        }
        if let Phase::Running { .. } = self.phase {
            match input {
                Input::Connected { peer } => self.peers[peer.index()] = Peer { connected: true, ..Peer::default() },
                Input::Disconnected { peer } => self.peers[peer.index()] = Peer::default(),
                Input::Header { peer, header } => match *header.message() {
                    // A peer that is not so far yet. The hello of this node's machine tells it the decision.
                    Message::Moments(_) => return Ok(()),
                    Message::FetchParameters { view } if self.peers[peer.index()].hello.is_none() => {
                        self.peers[peer.index()].asks = Some(Clock(view.0));
                        self.maybe_give(peer);
                        return Ok(());
                    }
                    Message::Hello(hello) => self.peers[peer.index()].hello = Some((hello, header)),
                    _ => {}
                },
                Input::Step { .. } | Input::Push { .. } | Input::Begin { .. } => self.stepped = true,
                _ => {}
            }
            return self.machine.handle_input(now, input);
        }
        match input {
            Input::Connected { peer } => self.on_connected(peer),
            Input::Disconnected { peer } => {
                self.peers[peer.index()] = Peer::default();
                if self.asked == Some(peer) {
                    self.asked = None;
                }
            }
            Input::Header { peer, header } => self.on_header(peer, header),
            Input::Resumed => match self.phase {
                Phase::Loading { own: true, .. } => self.on_loaded(),
                Phase::Restoring { .. } => self.run(),
                _ => return Err(Misuse::NotReady),
            },
            Input::Step { .. } | Input::Push { .. } | Input::Leave { .. } => return Err(Misuse::NotReady),
            Input::StepTime { .. } | Input::Rider { .. } | Input::Rate { .. } => return Err(Misuse::NotReady),
            Input::Begin { .. } | Input::Given { .. } => return Err(Misuse::NotReady),
            // No peer counts on this node before its machine has begun.
            Input::Silence { .. } | Input::Fail { .. } => {}
            // Of the kernels with which the machine begins.
            Input::Completed { .. } | Input::Aborted { .. } => return self.machine.handle_input(now, input),
            Input::Timeout => {}
        }
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            match self.phase {
                // Until then, the machine is only a plan of the buffers.
                Phase::Gathering | Phase::Loading { .. } | Phase::Restoring { .. } => {
                    return Output::Wait { until: None };
                }
                Phase::Beginning { at, own } => match self.machine.poll_output() {
                    Output::Wait { .. } => self.on_begun(at, own),
                    output @ Output::Compute { .. } => return output,
                    output => self.later.push_back(output),
                },
                Phase::Running { .. } => match self.machine.poll_output() {
                    // The machine asks for the body of a hello that has been read.
                    Output::Receive { op, peer, into: None } if self.peers[peer.index()].hello_read => {
                        self.peers[peer.index()].hello_read = false;
                        self.pass(Input::Completed { op, result: KernelResult::Nothing });
                    }
                    output => return output,
                },
            }
        }
    }

    fn buffers(&self) -> Vec<usize> {
        self.machine.buffers()
    }

    fn contribution(&self) -> BufferId {
        self.machine.contribution()
    }

    fn is_contribution_free(&self) -> bool {
        self.machine.is_contribution_free()
    }

    fn view(&self) -> BufferId {
        self.machine.view()
    }

    fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.machine.carried(index)
    }

    fn adoption(&self) -> Adoption {
        self.machine.adoption()
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        self.machine.saved()
    }

    fn waiting(&self) -> Option<Waiting> {
        let on = match self.phase {
            Phase::Running { .. } => return self.machine.waiting(),
            Phase::Gathering => {
                let is_awaited = |(rank, peer): (usize, &Peer)| rank != self.me().index() && !peer.has_spoken();
                PeerId(self.peers.iter().enumerate().position(is_awaited)? as u32)
            }
            Phase::Loading { at, own: false } => self.asked.or_else(|| self.donor(at))?,
            Phase::Beginning { .. } | Phase::Loading { .. } | Phase::Restoring { .. } => return None,
        };
        let since = self.since.unwrap_or(self.now);
        Some(Waiting { on, at: Clock(0), clock: Clock(0), since, reported_by: self.me() })
    }

    fn awaited_silence(&self) -> Option<Instant> {
        self.machine.awaited_silence()
    }

    fn advice(&self) -> Advice {
        self.machine.advice()
    }

    fn wanted_changes(&self) -> u64 {
        self.machine.wanted_changes()
    }

    fn wanted(&self) -> Vec<PeerId> {
        self.machine.wanted()
    }

    fn status(&self) -> Status {
        Status { waiting: self.waiting(), ..self.machine.status() }
    }
}

impl fmt::Debug for Assembly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembly").field("phase", &self.phase).field("machine", &self.machine).finish()
    }
}

#[cfg(test)]
mod tests;
