//! The event loop: a queue of scheduled events in virtual time, and the nodes that they touch.

mod effort;
mod host;
mod links;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use gradwire_core::kernel::KernelResult;
use gradwire_core::wire::Message as WireMessage;
use gradwire_core::{
    Clock, ConfigError, Contract, Duration, Incarnation, Input, Instant, Local, Machine, Node, OURS, OpId, Output,
    PeerId, Resumed, Segment, Setup, Status, Storage, THEIRS,
};

use crate::leases::Leased;
use crate::lines::Traffic;
use crate::network::{Message, Stream};
use crate::node::{App, Deed, Entry, Life, Log, Phase, Side, SimNode};
use crate::plan::{Effort, Fault, Plan, Saved};
use crate::random::Random;

/// Why a simulation stopped before every node was done.
#[derive(Clone, Debug, PartialEq)]
pub enum Halt {
    /// No event is left, and some nodes still wait.
    Stuck(Vec<Status>),
    /// More events than the budget allows.
    Budget(Vec<Status>),
}

/// A cluster in virtual time.
///
/// ```
/// use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
/// use gradwire_sim::{App, Halt, Life, Plan, World};
///
/// /// A program whose steps take 1 ms, and subtract 1 from each parameter.
/// struct Descent;
///
/// impl App for Descent {
///     fn duration(&mut self, _step: u64) -> Duration {
///         Duration::from_millis(1)
///     }
///
///     fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
///         update.fill(1.0);
///         32
///     }
/// }
///
/// let cluster = Cluster { workers: 3, servers: 0 };
/// let plan = Plan { steps: 10, ..Plan::new(1, Layout::flat(4), Recipe::sync(), cluster) };
/// let mut world = World::new(plan, |_rank| Box::new(Descent))?;
/// // At most 10,000 events. The closure could check invariants after each of them.
/// world.run(10_000, |_world, _node| Ok::<(), Halt>(())).expect("every node ends");
/// assert_eq!(world.life(PeerId(0)), Life::Done);
/// assert_eq!(world.params(PeerId(2)), [-10.0; 4]);
/// # Ok::<(), gradwire_core::ConfigError>(())
/// ```
pub struct World {
    plan: Plan,
    contract: Contract,
    /// The contents of [`OURS`] and [`THEIRS`] at the start of a node, once there is one.
    contracts: Option<[Arc<Storage>; 2]>,
    now: Instant,
    events: BinaryHeap<Reverse<(Instant, u64, EventKey)>>,
    scheduled: u64,
    payloads: Vec<Option<Scheduled>>,
    free: Vec<usize>,
    nodes: Vec<SimNode>,
    /// Nodes whose process runs and has not ended.
    up: usize,
    /// The links of all pairs of nodes that have come up: because one of them wants the other, or by a fault.
    links: Vec<Link>,
    /// By node: the peers with which it has links, by rank, and the numbers of these links. Apart from the nodes, so that
    /// a search touches little memory.
    routes: Vec<Vec<(PeerId, u32)>>,
    traffic: Traffic,
    random: Random,
    incarnations: Random,
    /// For the times that operations take.
    efforts: Random,
    /// For the ranges of contributions.
    ranges: Random,
    /// Receive operations that were aborted before the body was complete.
    torn: u64,
    /// Parts of rounds that were sent before their node had all of its contribution.
    early: u64,
    log: Vec<Log>,
    deeds: Vec<(PeerId, Deed)>,
    trace: u64,
}

/// Index into `payloads`. Events are ordered by time and number alone, so their content stays outside the heap.
type EventKey = usize;

/// The path between two nodes, and their connection.
#[derive(Debug, Default)]
struct Link {
    /// Incremented when the connection breaks. Events of an earlier session are ignored.
    session: u64,
    connected: bool,
    blocked_until: Instant,
    /// Until when no packet gets through, from the lower rank to the higher, and back.
    silent_until: [Instant; 2],
    /// The streams from the lower rank to the higher, and back.
    streams: [Stream; 2],
    /// The sides of the lower rank and of the higher.
    sides: [Side; 2],
}

impl Link {
    /// Does either node want the other?
    fn is_wanted(&self) -> bool {
        self.sides.iter().any(|side| side.wanted)
    }

    fn silent_until(&mut self, from: PeerId, to: PeerId) -> &mut Instant {
        &mut self.silent_until[usize::from(from > to)]
    }
}

enum Scheduled {
    Arrival {
        from: PeerId,
        to: PeerId,
        session: u64,
        number: u64,
        message: Message,
    },
    /// The transmit operation of a sender completes.
    Sent {
        node: PeerId,
        epoch: u64,
        peer: PeerId,
        session: u64,
        op: OpId,
    },
    Connect {
        a: PeerId,
        b: PeerId,
        session: u64,
    },
    Notice {
        node: PeerId,
        epoch: u64,
        peer: PeerId,
    },
    /// The receiver of a silent direction closes the connection.
    Silent {
        from: PeerId,
        to: PeerId,
        session: u64,
    },
    Timeout {
        node: PeerId,
        epoch: u64,
    },
    Computed {
        node: PeerId,
        epoch: u64,
    },
    /// The training program has computed the next range of its contribution. `left`: the ranges that are to come.
    Given {
        node: PeerId,
        epoch: u64,
        made: u64,
        left: usize,
    },
    /// The running kernel of a node ends.
    KernelEnd {
        node: PeerId,
        epoch: u64,
    },
    /// The body that a node is reading from a peer is complete.
    BodyEnd {
        node: PeerId,
        epoch: u64,
        peer: PeerId,
        session: u64,
    },
    /// An operation on a broken connection ends.
    Abort {
        node: PeerId,
        epoch: u64,
        peer: PeerId,
        op: OpId,
    },
    Start {
        node: PeerId,
    },
    Fault(Fault),
    Resume {
        node: PeerId,
    },
}

impl World {
    /// Sets up a run. `app` makes the training program of each worker.
    ///
    /// # Errors
    /// When the recipe does not fit the cluster.
    pub fn new(plan: Plan, mut app: impl FnMut(PeerId) -> Box<dyn App>) -> Result<Self, ConfigError> {
        plan.recipe.check_cluster(plan.cluster, plan.layout.len())?;
        let contract = Contract::new(&plan.layout, &plan.recipe, plan.cluster, 0);
        let count = plan.cluster.nodes();
        let nodes = (0..count).map(PeerId).map(|me| {
            let app = plan.cluster.is_worker(me).then(|| app(me));
            SimNode::new(me, &plan, app)
        });
        let nodes: Vec<_> = nodes.collect();
        let mut world = Self {
            links: Vec::new(),
            routes: vec![Vec::new(); count as usize],
            nodes,
            up: 0,
            traffic: Traffic::new(plan.lines.clone(), count as usize),
            random: Random::new(plan.seed, 1),
            incarnations: Random::new(plan.seed, 2),
            efforts: Random::new(plan.seed, 11),
            ranges: Random::new(plan.seed, 17),
            torn: 0,
            early: 0,
            contract,
            contracts: None,
            now: Instant::ORIGIN,
            events: BinaryHeap::new(),
            scheduled: 0,
            payloads: Vec::new(),
            free: Vec::new(),
            log: Vec::new(),
            deeds: Vec::new(),
            trace: 0,
            plan,
        };
        for node in 0..count {
            world.schedule(Instant::ORIGIN, Scheduled::Start { node: PeerId(node) });
        }
        for (at, fault) in world.plan.faults.clone() {
            world.schedule(at, Scheduled::Fault(fault));
        }
        Ok(world)
    }

    /// Runs until every node is done, for at most `budget` events. `check` runs after each event, with the node that
    /// the event touched; an error that it returns ends the run.
    ///
    /// # Errors
    /// The error of `check`, or the reason why the run halted.
    pub fn run<E: From<Halt>>(
        &mut self,
        budget: u64,
        mut check: impl FnMut(&Self, PeerId) -> Result<(), E>,
    ) -> Result<(), E> {
        for _ in 0..budget {
            if self.is_over() {
                return Ok(());
            }
            let Some(touched) = self.advance() else { return Err(Halt::Stuck(self.statuses()).into()) };
            if let Some(node) = touched {
                check(self, node)?;
                self.deeds.clear();
            }
        }
        Err(Halt::Budget(self.statuses()).into())
    }

    /// Carries out the next event, and returns the node that it touched. `None`: no event is left. Forgets the log.
    pub(crate) fn pump(&mut self) -> Option<Option<PeerId>> {
        self.deeds.clear();
        self.log.clear();
        self.advance()
    }

    /// Is every node done, or down for good?
    pub(crate) fn is_over(&self) -> bool {
        self.up == 0 && !self.starts_ahead()
    }

    /// The peers that a node is connected with, by rank.
    pub fn connected(&self, node: PeerId) -> impl Iterator<Item = PeerId> + '_ {
        self.routes[node.index()].iter().filter(|(_, link)| self.links[*link as usize].connected).map(|(peer, _)| *peer)
    }

    /// Bytes of all messages sent so far, headers and bodies.
    pub fn bytes(&self) -> u64 {
        self.traffic.bytes()
    }

    fn starts_ahead(&self) -> bool {
        self.payloads.iter().flatten().any(|event| matches!(event, Scheduled::Start { .. }))
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The signals and events of all machines, in order.
    pub fn log(&self) -> &[Log] {
        &self.log
    }

    /// A hash over all outputs of all machines, with their times. Equal runs have equal hashes.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// The state of a node's process.
    pub fn life(&self, node: PeerId) -> Life {
        self.nodes[node.index()].life
    }

    /// The time of the next event.
    pub fn next_at(&self) -> Option<Instant> {
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    /// Is the node's process stopped by [`Fault::Pause`]?
    pub fn is_paused(&self, node: PeerId) -> bool {
        self.nodes[node.index()].paused_until > self.now
    }

    /// Does the worker's program compute a step, rather than wait for its machine?
    pub fn is_computing(&self, node: PeerId) -> bool {
        self.nodes[node.index()].life == Life::Up && self.nodes[node.index()].phase == Phase::Computing
    }

    /// Carries out the events that are left after the run, such as completions of transmissions.
    ///
    /// # Errors
    /// When there are more than `budget` events.
    pub fn settle(&mut self, budget: u64) -> Result<(), Halt> {
        for _ in 0..budget {
            if self.advance().is_none() {
                return Ok(());
            }
        }
        Err(Halt::Budget(self.statuses()))
    }

    /// Steps that a worker has taken, over all starts of its process.
    pub fn steps(&self, node: PeerId) -> u64 {
        self.nodes[node.index()].step
    }

    /// The parameters of a worker's program. For a server: the parameters in its machine's view.
    pub fn params(&self, node: PeerId) -> &[f32] {
        let entry = &self.nodes[node.index()];
        match &entry.machine {
            Some(machine) if !self.plan.cluster.is_worker(node) => {
                entry.pool.floats(Segment::floats(machine.view(), 0, self.plan.layout.len()))
            }
            _ => &entry.params,
        }
    }

    /// Bytes that the buffers of a node's machine have now.
    pub fn bytes_held(&self, node: PeerId) -> usize {
        self.nodes[node.index()].pool.bytes_held()
    }

    /// The checkpoint of a node that has left or finished, in a plan that suspends.
    pub fn saved(&self, node: PeerId) -> Option<Saved> {
        let entry = &self.nodes[node.index()];
        let machine = entry.machine.as_ref().filter(|_| self.plan.suspend && entry.life == Life::Done)?;
        // Trees and rings number their moments by rounds, other topologies by suspensions.
        let suspensions = self.plan.resumed.get(node.index()).map_or(0, |saved| saved.resumed.at.0);
        let rounds = self.plan.recipe.is_collective();
        let at = if rounds { machine.status().clock } else { Clock(suspensions + 1) };
        Some(Saved {
            resumed: Resumed { at, made: entry.made },
            params: self.params(node).to_vec(),
            buffers: self.saved_buffers(node),
        })
    }

    /// The buffers that a checkpoint of a node would save now: residuals first. Empty if its process does not run.
    pub fn saved_buffers(&self, node: PeerId) -> Vec<Vec<u32>> {
        let entry = &self.nodes[node.index()];
        let saved = entry.machine.iter().flat_map(|machine| machine.saved());
        saved.map(|buffer| buffer.save(&entry.pool)).collect()
    }

    /// The deeds of nodes since `check` of [`run`](Self::run) was last called, or since the run has ended, in order.
    pub fn deeds(&self) -> &[(PeerId, Deed)] {
        &self.deeds
    }

    /// Parts of rounds that were sent before their node had all of its contribution; see [`Plan::ranges`].
    pub fn early(&self) -> u64 {
        self.early
    }

    /// Bodies that were being received when their connection broke.
    pub fn torn(&self) -> u64 {
        self.torn
    }

    /// A node's status; `None` if its process does not run.
    pub fn status(&self, node: PeerId) -> Option<Status> {
        self.nodes[node.index()].machine.as_ref().map(Machine::status)
    }

    /// The first operation of a node that would touch the buffer of a transfer under way, in words. There must be no
    /// conflict.
    pub fn lease_conflict(&self, node: PeerId) -> Option<&str> {
        self.nodes[node.index()].machine.as_ref().and_then(Leased::conflict)
    }

    fn statuses(&self) -> Vec<Status> {
        self.nodes.iter().filter_map(|node| node.machine.as_ref().map(Machine::status)).collect()
    }

    fn schedule(&mut self, at: Instant, event: Scheduled) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.payloads.push(None);
            self.payloads.len() - 1
        });
        self.payloads[key] = Some(event);
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, key)));
    }

    /// Carries out the next event, and returns the node that it touched. `None`: no event is left.
    fn advance(&mut self) -> Option<Option<PeerId>> {
        let Reverse((at, _, key)) = self.events.pop()?;
        self.now = self.now.max(at);
        let event = self.payloads[key].take()?;
        self.free.push(key);
        Some(self.on_event(event))
    }

    fn on_event(&mut self, event: Scheduled) -> Option<PeerId> {
        match event {
            Scheduled::Start { node } => self.start(node),
            Scheduled::Arrival { from, to, session, number, message } => {
                self.on_arrival(from, to, session, number, message)
            }
            Scheduled::Sent { node, epoch, peer, session, op } => {
                if self.is_current(node, epoch) && self.link(node, peer).session == session {
                    if self.defer(node, || Scheduled::Sent { node, epoch, peer, session, op }) {
                        return None;
                    }
                    self.stream(node, peer).open.retain(|open| *open != op);
                    return self.feed(node, Input::Completed { op, result: KernelResult::Nothing });
                }
                None
            }
            Scheduled::Connect { a, b, session } => {
                let paused = [a, b].map(|node| self.nodes[node.index()].paused_until).into_iter().max();
                if let Some(until) = paused.filter(|until| *until > self.now) {
                    // A node that is stopped first has to see that the old connection broke.
                    self.schedule(until.after(self.plan.network.latency), Scheduled::Connect { a, b, session });
                    return None;
                }
                let silent = self.link(a, b).silent_until;
                if let Some(until) = silent.into_iter().max().filter(|until| *until > self.now) {
                    self.schedule(until, Scheduled::Connect { a, b, session });
                    return None;
                }
                let both = self.nodes[a.index()].life == Life::Up && self.nodes[b.index()].life == Life::Up;
                let link = self.link(a, b);
                if link.session != session || link.connected || !both || !link.is_wanted() {
                    return None;
                }
                if link.sides.iter().any(|side| side.aborting > 0) {
                    // Both machines first have to see the ends of all operations on the old connection.
                    self.reconnect(a, b);
                    return None;
                }
                let link = self.link(a, b);
                link.connected = true;
                link.sides.iter_mut().for_each(|side| side.connected = true);
                self.feed(a, Input::Connected { peer: b });
                self.feed(b, Input::Connected { peer: a })
            }
            Scheduled::Notice { node, epoch, peer } => {
                if !self.is_current(node, epoch) || self.defer(node, || Scheduled::Notice { node, epoch, peer }) {
                    return None;
                }
                self.side(node, peer).connected = false;
                self.feed(node, Input::Disconnected { peer });
                for op in std::mem::take(&mut self.side(node, peer).limbo) {
                    self.abort_after_a_time(node, peer, op);
                }
                Some(node)
            }
            Scheduled::Silent { from, to, session } => {
                let now = self.now;
                let link = self.link(from, to);
                if link.session == session && link.connected && *link.silent_until(from, to) > now {
                    self.disconnect(from, to);
                    self.reconnect(from, to);
                }
                None
            }
            Scheduled::Timeout { node, epoch } => {
                if !self.is_current(node, epoch) || self.nodes[node.index()].wake.is_none_or(|wake| wake > self.now) {
                    return None;
                }
                if self.defer(node, || Scheduled::Timeout { node, epoch }) {
                    return None;
                }
                self.nodes[node.index()].wake = None;
                self.feed(node, Input::Timeout)
            }
            Scheduled::Computed { node, epoch } => {
                if self.is_current(node, epoch) && !self.defer(node, || Scheduled::Computed { node, epoch }) {
                    return self.on_computed(node);
                }
                None
            }
            Scheduled::Given { node, epoch, made, left } => {
                let entry = &self.nodes[node.index()];
                let is_due = self.is_current(node, epoch) && entry.made == made && entry.ranges.len() == left;
                if is_due && !self.defer(node, || Scheduled::Given { node, epoch, made, left }) {
                    return self.on_given(node);
                }
                None
            }
            Scheduled::KernelEnd { node, epoch } => {
                if self.is_current(node, epoch) && !self.defer(node, || Scheduled::KernelEnd { node, epoch }) {
                    return self.on_kernel_end(node);
                }
                None
            }
            Scheduled::BodyEnd { node, epoch, peer, session } => {
                let again = || Scheduled::BodyEnd { node, epoch, peer, session };
                let same = self.is_current(node, epoch) && self.link(node, peer).session == session;
                if same && !self.defer(node, again) { self.on_body_end(node, peer) } else { None }
            }
            Scheduled::Abort { node, epoch, peer, op } => {
                if !self.is_current(node, epoch) || self.defer(node, || Scheduled::Abort { node, epoch, peer, op }) {
                    return None;
                }
                self.side(node, peer).aborting -= 1;
                self.feed(node, Input::Aborted { op })
            }
            Scheduled::Fault(fault) => self.on_fault(fault),
            Scheduled::Resume { node } => {
                self.drive(node);
                self.deliver(node)
            }
        }
    }

    fn is_current(&self, node: PeerId, epoch: u64) -> bool {
        let entry = &self.nodes[node.index()];
        entry.epoch == epoch && entry.machine.is_some()
    }

    /// Events for a stopped process are deferred until it goes on.
    fn defer(&mut self, node: PeerId, again: impl FnOnce() -> Scheduled) -> bool {
        let until = self.nodes[node.index()].paused_until;
        if until <= self.now {
            return false;
        }
        self.schedule(until, again());
        true
    }

    // Nodes

    fn start(&mut self, me: PeerId) -> Option<PeerId> {
        let incarnation = Incarnation(self.incarnations.next());
        let Plan { cluster, recipe, patience, quorum, .. } = self.plan;
        let saved = self.plan.resumed.get(me.index());
        let (tape, lengths) = self.plan.tapes.get(me.index()).cloned().unwrap_or_default().split();
        let setup = Setup {
            resumed: saved.map(|saved| saved.resumed),
            incarnation,
            patience,
            quorum,
            contract: self.contract.clone(),
            tape,
            neighbours: recipe.neighbours(cluster, me),
            on_demand: self.plan.on_demand,
            under_way: self.plan.under_way,
            keep_below: self.plan.keep_below,
            #[cfg(planted)]
            bug: self.plan.bug,
            ..Setup::new(me, cluster, recipe, &self.plan.layout, 0)
        };
        let (machine, mut pool) =
            Node::open(setup, saved.map_or(&self.plan.initial, |saved| &saved.params)).expect("a sound plan");
        // All nodes share the memory of their contracts. A node that writes to a buffer gets a copy first.
        let [ours, theirs] = self.contracts.get_or_insert_with(|| [OURS, THEIRS].map(|buffer| pool.share(buffer)));
        pool.replace(OURS, Arc::clone(ours));
        pool.replace(THEIRS, Arc::clone(theirs));
        let node = &mut self.nodes[me.index()];
        self.deeds.push((me, Deed::Started));
        self.up += usize::from(node.life != Life::Up);
        node.start(machine, pool, incarnation, Local::new(recipe, cluster.workers));
        node.local.follow_lengths(lengths);
        self.connect_all(me);
        // The first input tells the machine the time, from which its waits count. It also runs the kernels that a
        // machine begins with, after which saved buffers can be restored.
        let effort = std::mem::replace(&mut self.plan.effort, Effort::none());
        let touched = self.feed(me, Input::Timeout);
        self.plan.effort = effort;
        let node = &mut self.nodes[me.index()];
        if let (Some(saved), Some(machine)) = (self.plan.resumed.get(me.index()), &node.machine) {
            for (buffer, words) in machine.saved().into_iter().zip(&saved.buffers) {
                buffer.restore(&mut node.pool, words).expect("the checkpoint of this node");
            }
        }
        touched
    }

    fn crash(&mut self, me: PeerId, restart: Option<Duration>) {
        if self.nodes[me.index()].life != Life::Up {
            return;
        }
        self.end(me, Life::Down);
        self.nodes[me.index()].crash();
        self.disconnect_all(me);
        if let Some(after) = restart {
            self.schedule(self.now.after(after), Scheduled::Start { node: me });
        }
    }

    /// The process of a node ends, or has ended in another way.
    fn end(&mut self, me: PeerId, life: Life) {
        let node = &mut self.nodes[me.index()];
        self.up -= usize::from(node.life == Life::Up);
        node.life = life;
    }

    fn on_fault(&mut self, fault: Fault) -> Option<PeerId> {
        match fault {
            // There is no connection that could be disturbed.
            Fault::Cut { a, b } | Fault::Partition { a, b, .. } | Fault::Silence { from: a, to: b, .. }
                if !self.nodes[a.index()].neighbours.contains(&b.0) => {}
            Fault::Cut { a, b } => {
                self.disconnect(a, b);
                self.reconnect(a, b);
            }
            Fault::Partition { a, b, lasts } => {
                let until = self.now.after(lasts);
                let link = self.link(a, b);
                link.blocked_until = link.blocked_until.max(until);
            }
            Fault::Silence { from, to, lasts } => {
                let until = self.now.after(lasts);
                let link = self.link(from, to);
                let silent = link.silent_until(from, to);
                *silent = (*silent).max(until);
                let session = link.session;
                // Keepalives come several times in this time, so the receiver notices at some moment in its second half.
                let most = self.plan.patience.dead_after().as_nanos() as f64 * 0.4;
                let after = Duration::from_nanos((most * (0.5 + self.random.unit() / 2.0)) as u64);
                self.schedule(self.now.after(after), Scheduled::Silent { from, to, session });
            }
            Fault::Pause { node, lasts } => {
                let until = self.now.after(lasts);
                let entry = &mut self.nodes[node.index()];
                entry.paused_until = entry.paused_until.max(until);
                self.schedule(until, Scheduled::Resume { node });
            }
            Fault::Crash { node, restart } => self.crash(node, restart),
        }
        None
    }

    fn feed(&mut self, me: PeerId, input: Input) -> Option<PeerId> {
        let (now, node) = (self.now, &mut self.nodes[me.index()]);
        let machine = node.machine.as_mut()?;
        machine.handle_input(now, input).expect("the simulator keeps the driver's contract");
        match input {
            Input::Header { peer, header } => self.deeds.push((me, Deed::Heard { peer, header })),
            Input::Completed { result, .. } if result != KernelResult::Nothing => {
                self.deeds.push((me, Deed::Computed { result }));
            }
            _ => {}
        }
        self.drive(me);
        Some(me)
    }

    /// Carries out the machine's outputs until it waits, or a kernel takes time.
    fn drive(&mut self, me: PeerId) {
        loop {
            let node = &mut self.nodes[me.index()];
            let Some(machine) = node.machine.as_mut().filter(|_| node.running.is_none()) else { return };
            let output = machine.poll_output();
            self.note(me, &output);
            match output {
                Output::Compute { op, kernel } => self.compute(me, op, kernel),
                Output::Transmit { op, peer, header, body } => {
                    let is_part = matches!(header.message(), WireMessage::Up(part) if part.weight > 0);
                    self.early += u64::from(is_part && !self.nodes[me.index()].ranges.is_empty());
                    self.deeds.push((me, Deed::Sent { peer, header }));
                    self.transmit(me, op, peer, header, body);
                }
                Output::Receive { op, peer, into } => self.receive(me, op, peer, into),
                Output::Close { peer, .. } => {
                    self.disconnect(me, peer);
                    self.reconnect(me, peer);
                }
                Output::Signal(signal) => self.on_signal(me, signal),
                Output::Event(event) => self.record(me, Entry::Event(event)),
                Output::Order(order) => self.record(me, Entry::Order(order)),
                Output::Wait { until } => {
                    let node = &mut self.nodes[me.index()];
                    if let Some(until) = until.filter(|until| node.wake.is_none_or(|wake| *until < wake)) {
                        let epoch = node.epoch;
                        node.wake = Some(until);
                        self.schedule(until.max(self.now), Scheduled::Timeout { node: me, epoch });
                    }
                    return self.follow_wishes(me);
                }
            }
        }
    }

    fn note(&mut self, me: PeerId, output: &Output) {
        let mut hasher = DefaultHasher::new();
        (self.trace, self.now, me).hash(&mut hasher);
        // The tags are fixed, so that traces of different revisions can be compared.
        match output {
            Output::Receive { op, peer, .. } => (0, op, peer).hash(&mut hasher),
            Output::Transmit { op, peer, header, .. } => (1, op, peer, header.emit()).hash(&mut hasher),
            Output::Compute { op, .. } => (2, op).hash(&mut hasher),
            Output::Close { peer, .. } => (3, peer).hash(&mut hasher),
            Output::Signal(_) | Output::Event(_) => 4.hash(&mut hasher),
            Output::Wait { until } => (5, until).hash(&mut hasher),
            Output::Order(_) => 6.hash(&mut hasher),
        }
        self.trace = hasher.finish();
    }
}
