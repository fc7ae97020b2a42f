//! Runs a scenario, and checks the invariants during the run and at its end.
//!
//! [`run`] is the entry point. `during` checks after every event; `after` dispatches on the kind of the scenario at the
//! end of the run, to the checks in `ends.rs`. The table in the parent module lists the invariants by number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gradwire_core::codec::topk::CHUNK;
use gradwire_core::recipe::{Codec, Compensate, Lambda, Merge, Outer, Pace, Span, Topology};
use gradwire_core::status::Presence;
use gradwire_core::wire::{Message, Push};
use gradwire_core::{Event, Order, PeerId, Recipe, Signal, Status};
use gradwire_sim::{App, Deed, Effort, Entry, Halt, Life, Log, Network, Plan, Random, World};

use super::books::Books;
use super::ends::{changes_rate, elastic, merged_in_order, mesh, softsync, summed, synchronous, timed};
use super::first::{self, Rounds};
use super::scenario::in_chunks;
use super::{Kind, Scenario, Trainer, Truth};

/// Counters of the situations that a run has met. A suite asserts that each of them occurs in some run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// A hash over all outputs of all machines, with their times.
    pub trace: u64,
    /// Events of the simulator.
    pub events: u64,
    /// Messages that a receiver dropped because it had them already.
    pub duplicates: u64,
    /// Contributions that came after the end of their round.
    pub late: u64,
    /// Contributions that came after the end of their round, and joined a later one.
    pub deferred: u64,
    /// Contributions for which a server has applied the last one of their worker again.
    pub repeated: u64,
    pub reconnects: u64,
    /// Messages sent again after a broken connection.
    pub resent: u64,
    /// Bodies that were being received when their connection broke.
    pub torn: u64,
    /// Peers that a node has given up.
    pub lost: u64,
    /// Nodes that joined more than once.
    pub rejoined: u64,
    /// Nodes that could not go on without a peer.
    pub cut: u64,
    /// Events at which a worker of an SSP run waits.
    pub blocked: u64,
    /// Mesh messages that were summed for a slow neighbour.
    pub merged: u64,
    /// Views after the first one of a collective.
    pub views: u64,
    /// Runs of a collective in which the coordinator restarted.
    pub resumed: u64,
    /// Parts of rounds that were sent before all of their node's contribution was there.
    pub early: u64,
    /// Runs of a top-k codec with several chunks.
    pub long: u64,
}

/// Why a run has failed.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The run came to no end: no node could go on, or the budget of events was used up.
    Halt(Halt),
    /// An invariant does not hold; the text says which one, with the values.
    Violation(String),
}

impl From<Halt> for Failure {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        // Bound first: clippy refuses the direct negation of a comparison of floats.
        let holds: bool = $condition;
        if !holds {
            return Err(Failure::Violation(format!($($message)*)));
        }
    };
}

pub(super) use ensure;

/// The most events that a run may take, so that a run without progress ends.
const BUDGET: u64 = 300_000;

/// Runs a scenario and checks it, during the run and at its end.
pub fn run(scenario: &Scenario) -> Result<Coverage, Failure> {
    let plan = &scenario.plan;
    let truth = Truth::new(plan.cluster.workers, plan.layout.len());
    let crashing = scenario.crashing();
    let mut world = world(plan, &trainer(scenario, &truth))?;
    let mut sent = BTreeMap::new();
    let mut coverage = Coverage::default();
    let mut pushes = Vec::new();
    let mut books = Books::new(plan.cluster.nodes());
    let mut rounds = Rounds::default();
    let result = world.run(BUDGET, |world, node| {
        coverage.events += 1;
        let pushed = |(_, deed): &(PeerId, Deed)| match deed {
            Deed::Read { message: Message::Push(push), .. } => Some(*push),
            _ => None,
        };
        pushes.extend(world.deeds().iter().filter_map(pushed));
        sent.extend(world.deeds().iter().filter_map(first_sent));
        books.take(world.deeds());
        if scenario.kind == Kind::First {
            rounds.take(world.deeds());
        }
        if let Some(violation) = truth.lock().unwrap().violation.take() {
            return Err(Failure::Violation(violation));
        }
        during(scenario, world, node, &mut coverage)
    });
    // A node that crashed before its first hello is not given up, and neither is a server that left before a worker
    // restarted. Runs that wait for one of these do not end.
    match result {
        Err(Failure::Halt(_)) if waits_for_the_dead(scenario, &world) => {}
        other => {
            other?;
            world.settle(BUDGET)?;
        }
    }
    books.take(world.deeds());
    rounds.take(world.deeds());
    if repeats(&plan.recipe) {
        pushes = admitted(&world, plan, &sent);
    }
    books.check(scenario, &world, &truth.lock().unwrap(), &pushes)?;
    after(scenario, &world, &truth.lock().unwrap(), &pushes, &rounds)?;
    // When a period in seconds ends depends on delays.
    if plan.recipe.is_synchronous() && crashing.is_empty() && scenario.kind != Kind::Timed {
        same_on_a_calm_network(scenario, &world)?;
    }
    coverage.count(scenario, &world);
    Ok(coverage)
}

/// Do workers send contributions without a body, for which servers apply the last one again?
pub(super) fn repeats(recipe: &Recipe) -> bool {
    matches!(recipe.compensate(), Compensate::Magnitude { push_cost, .. } if push_cost > 0.0)
}

/// A contribution that a worker has sent, by shard, worker and number.
fn first_sent((_, deed): &(PeerId, Deed)) -> Option<((u32, PeerId, u64), Push)> {
    match deed {
        Deed::Sent { header, .. } => match *header.message() {
            Message::Push(push) => Some(((push.shard.0, push.worker, push.sequence.0), push)),
            _ => None,
        },
        _ => None,
    }
}

/// The contributions in the order in which the servers have merged them, by their tapes: contributions without a body are
/// not read.
fn admitted(world: &World, plan: &Plan, sent: &BTreeMap<(u32, PeerId, u64), Push>) -> Vec<Push> {
    let mut counts = BTreeMap::new();
    let admitted = |log: &Log| match log.entry {
        Entry::Order(Order::Admit { shard, worker }) if log.node == plan.cluster.server_of(shard) => {
            let count = counts.entry((shard, worker)).or_insert(0);
            *count += 1;
            sent.get(&(shard.0, worker, *count)).copied()
        }
        _ => None,
    };
    world.log().iter().filter_map(admitted).collect()
}

/// The trainer of all workers, with the checks that this scenario allows.
fn trainer(scenario: &Scenario, truth: &Arc<Mutex<Truth>>) -> Trainer {
    let Plan { seed, cluster, recipe, .. } = &scenario.plan;
    let calm = scenario.crashing().is_empty();
    // With a lossy codec, parts of an update wait in a residual, where they are not visible in the parameters.
    let plain = recipe.codec() == Codec::F32;
    let sum = plain && recipe.merge() == Merge::Sum { lambda: Lambda::fixed(1.0) } && recipe.needs_servers();
    // An outer optimizer does not just add up, and contributions can come too late.
    let adds = recipe.outer() == Outer::None && !matches!(recipe.pace(), Pace::First { .. });
    // Parameters that are fetched within a period do not have its updates.
    let sees_accrued = recipe.fetch().is_none_or(|steps| steps.is_multiple_of(recipe.period().at(0)));
    let lag = match recipe.pace() {
        Pace::Stale { bound } if plain && calm && adds => Some(bound),
        _ => None,
    };
    Trainer {
        sees_own: sum && adds && calm && sees_accrued,
        lag,
        changes_rate: changes_rate(&scenario.plan),
        ..Trainer::new(*seed, PeerId(0), cluster.workers, scenario.spread, truth)
    }
}

impl Coverage {
    /// Adds the counters of all nodes and the entries of the log, at the end of a run.
    fn count(&mut self, scenario: &Scenario, world: &World) {
        let plan = &scenario.plan;
        self.trace = world.trace();
        self.torn = world.torn();
        self.early = world.early();
        let chunks = in_chunks(&plan.recipe.codec()) && plan.layout.len() > 2 * CHUNK;
        self.long = u64::from(chunks);
        for status in statuses(world, plan.cluster.nodes()) {
            self.duplicates += status.counters.duplicates;
            self.late += status.counters.late;
            self.deferred += status.counters.deferred;
            self.repeated += status.counters.repeated;
            self.reconnects += status.counters.reconnects;
            self.resent += status.counters.resent;
            self.merged += status.counters.merged;
        }
        let mut joined = vec![0; plan.cluster.nodes() as usize];
        for entry in world.log() {
            match entry.entry {
                Entry::Event(Event::PeerLost { .. }) => self.lost += 1,
                Entry::Signal(Signal::Cut { .. }) => self.cut += 1,
                Entry::Signal(Signal::Joined { .. }) => joined[entry.node.index()] += 1,
                Entry::Event(Event::View { number, .. }) if number > 1 && entry.node == PeerId(0) => self.views += 1,
                _ => {}
            }
        }
        self.resumed = u64::from(joined[0] > 1 && plan.recipe.is_collective());
        self.rejoined = joined.iter().filter(|times| **times > 1).count() as u64;
    }
}

/// A world in which each worker runs a copy of `trainer`, with contributions of its own.
fn world(plan: &Plan, trainer: &Trainer) -> Result<World, Failure> {
    let app = |me: PeerId| {
        let random = Random::new(plan.seed, 100 + u64::from(me.0));
        // In these scenarios, workers are of unequal speed.
        let slower = if matches!(plan.recipe.period().span(0), Span::Steps(_)) { 1 } else { 1 + me.0 };
        let pace = trainer.pace * slower;
        let app: Box<dyn App> = Box::new(Trainer { me, random, pace, ..trainer.clone() });
        app
    };
    World::new(plan.clone(), app).map_err(|error| Failure::Violation(error.to_string()))
}

/// I-02: the result of a synchronous recipe does not depend on the order of arrival, on delays or on broken
/// connections, nor on the ranges in which contributions are given. The same plan without them gives the same parameters, bit for bit.
fn same_on_a_calm_network(scenario: &Scenario, stormy: &World) -> Result<(), Failure> {
    let mut plan = scenario.plan.clone();
    (plan.network, plan.effort, plan.faults) = (Network::calm(), Effort::none(), Vec::new());
    // Nor on the ranges in which contributions were given.
    plan.ranges = 1;
    let workers = plan.cluster.workers;
    let truth = Truth::new(workers, plan.layout.len());
    let changes_rate = changes_rate(&plan);
    let trainer = Trainer { changes_rate, ..Trainer::new(plan.seed, PeerId(0), workers, 0.0, &truth) };
    let mut calm = world(&plan, &trainer)?;
    calm.run(BUDGET, |_, _| Ok::<(), Failure>(()))?;
    for worker in (0..workers).map(PeerId) {
        let same = bits(calm.params(worker)) == bits(stormy.params(worker));
        ensure!(same, "worker {worker} ends with other parameters than on a calm network");
    }
    Ok(())
}

pub(super) fn statuses(world: &World, nodes: u32) -> Vec<Status> {
    (0..nodes).filter_map(|node| world.status(PeerId(node))).collect()
}

/// True if every node that is up waits for a node that is not, and its status names that node.
fn waits_for_the_dead(scenario: &Scenario, world: &World) -> bool {
    let cluster = scenario.plan.cluster;
    let up = (0..cluster.nodes()).map(PeerId).filter(|node| world.life(*node) == Life::Up);
    let names_a_dead_node = |node| {
        let waiting = world.status(node).and_then(|status| status.waiting);
        // A server waits only while it owes an answer to a worker.
        waiting.map_or_else(|| !cluster.is_worker(node), |waiting| world.life(waiting.on) != Life::Up)
    };
    !scenario.crashing().is_empty() && up.into_iter().all(names_a_dead_node)
}

/// Checks after every event of `node`.
fn during(scenario: &Scenario, world: &World, node: PeerId, coverage: &mut Coverage) -> Result<(), Failure> {
    let plan = &scenario.plan;
    if let Some(conflict) = world.lease_conflict(node) {
        return Err(Failure::Violation(format!("node {node}: {conflict}")));
    }
    let Pace::Stale { bound } = plan.recipe.pace() else { return Ok(()) };
    if !plan.cluster.is_worker(node) || !world.is_computing(node) {
        coverage.blocked += u64::from(plan.cluster.is_worker(node));
        return Ok(());
    }
    // A restarted server goes on from the version that a worker had seen, so that other workers' clocks can be ahead.
    if scenario.crashing().iter().any(|node| !plan.cluster.is_worker(*node)) {
        return Ok(());
    }
    check_lead(plan, world, node, bound)
}

/// I-36, R4: worker `node`, which computes, is at most `bound` clocks ahead of the slowest member, at every server.
fn check_lead(plan: &Plan, world: &World, node: PeerId, bound: u64) -> Result<(), Failure> {
    let Some(own) = world.status(node).map(|status| status.clock) else { return Ok(()) };
    for server in plan.cluster.workers..plan.cluster.nodes() {
        let Some(server) = world.status(PeerId(server)) else { continue };
        let members = |state| matches!(state, Presence::Present | Presence::Suspect);
        let Some(me) = server.workers.iter().find(|worker| worker.rank == node) else { continue };
        let clocks = server.workers.iter().filter(|worker| members(worker.state)).map(|worker| worker.clock);
        let slowest = clocks.min().unwrap_or(own);
        ensure!(
            !members(me.state) || own.ahead_of(slowest) <= bound,
            "worker {node} computes at {own}, the slowest member is at {slowest}, the bound is {bound}: {:?}",
            server.workers
        );
    }
    Ok(())
}

/// Checks at the end of a run.
fn after(scenario: &Scenario, world: &World, truth: &Truth, pushes: &[Push], rounds: &Rounds) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let cluster = plan.cluster;
    let crashing = scenario.crashing();
    let workers = || (0..cluster.workers).map(PeerId);
    if crashing.is_empty() {
        for worker in workers() {
            ensure!(world.life(worker) == Life::Done, "worker {worker} is {:?} at the end", world.life(worker));
            ensure!(world.steps(worker) >= plan.steps, "worker {worker} took {} steps", world.steps(worker));
        }
        for status in statuses(world, cluster.nodes()) {
            ensure!(status.operations == 0, "{} operations of node {} never ended", status.operations, status.me);
        }
    }
    // All contributions are finite, and encoders write what decoders accept.
    for status in statuses(world, cluster.nodes()) {
        let rejected = status.counters.rejected;
        ensure!(rejected == 0, "node {} has refused {rejected} bodies of {}", status.me, plan.recipe);
    }
    // A server that has lost all workers for good does not end, and has no final parameters.
    let ended = |node| world.life(PeerId(node)) == Life::Done;
    if plan.recipe.needs_servers() && !(cluster.workers..cluster.nodes()).all(ended) {
        return Ok(());
    }
    match scenario.kind {
        Kind::Tree | Kind::Averaging | Kind::ServerSync | Kind::SspZero | Kind::CodedTree | Kind::Gather => {
            synchronous(scenario, world, truth)
        }
        Kind::Async | Kind::Ssp => {
            summed(scenario, world, truth)?;
            merged_in_order(scenario, world, truth, pushes)
        }
        Kind::Coded => summed(scenario, world, truth),
        Kind::Timed => timed(scenario, world, truth),
        Kind::Elastic => elastic(scenario, world, truth),
        Kind::First => first::check(scenario, world, truth, rounds),
        // `run` compares the result with that of a calm network. A mean of encoded updates has no closed formula.
        Kind::CodedSync => Ok(()),
        Kind::Softsync => {
            softsync(scenario, world)?;
            merged_in_order(scenario, world, truth, pushes)
        }
        Kind::Mesh | Kind::Relay => mesh(scenario, world, truth),
    }
}

/// The parameters of all shards, each from the server that holds it.
pub(super) fn server_params(scenario: &Scenario, world: &World) -> Vec<f32> {
    let plan = &scenario.plan;
    let Topology::Servers { shards } = plan.recipe.topology() else { unreachable!("a server scenario") };
    let mut params = vec![0.0; plan.layout.len()];
    for shard in 0..shards {
        let range = gradwire_core::shard_range(params.len(), shards, shard);
        let server = plan.cluster.server_of(gradwire_core::ShardId(shard));
        params[range.clone()].copy_from_slice(&world.params(server)[range]);
    }
    params
}

/// The bit patterns, so that a comparison distinguishes 0.0 from -0.0.
pub(super) fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}
