//! Runs a scenario, and checks the invariants during the run and at its end.
//!
//! [`run`] is the entry point. `during` checks after every event; `after` dispatches on the kind of the scenario at the
//! end of the run. The table in the parent module lists the invariants by number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use gradwire_core::codec::topk::CHUNK;
use gradwire_core::recipe::{
    Adapt, Codec, Compensate, Correction, Lambda, Merge, Normalize, Outer, Pace, Payload, Span, TopK, Topology, Values,
    VelocityScale,
};
use gradwire_core::status::Presence;
use gradwire_core::wire::{Message, Push};
use gradwire_core::{Clock, Event, Order, PeerId, Recipe, Signal, Status};
use gradwire_sim::{App, Deed, Effort, Entry, Fault, Halt, Life, Log, Network, Plan, Random, World};

use super::books::Books;
use super::first::{self, Rounds};
use super::reference::{Reference, weight};
use super::scenario::in_chunks;
use super::{Kind, Round, Scenario, Trainer, Truth, UNIT, loss};

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

fn statuses(world: &World, nodes: u32) -> Vec<Status> {
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

/// R5: replicas are equal after every synchronised step. Without crashes, they equal the reference model.
fn synchronous(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let restarts = |fault: &Fault| matches!(fault, Fault::Crash { restart: Some(_), .. });
    // A restarted worker counts its steps from 0 again, so its step numbers differ from the other workers' numbers.
    if !plan.faults.iter().any(|(_, fault)| restarts(fault)) {
        replicas_are_equal_after_each_step(scenario, truth)?;
    }
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    // A mean of encoded updates has no closed formula, unless they carry everything. `run` compares the result with that of
    // a calm network.
    if plan.recipe.codec() == Codec::F32 || is_exact(&plan.recipe) {
        rounds_equal_the_reference(plan, truth)?;
    }
    for worker in (0..plan.cluster.workers).map(PeerId) {
        let same = bits(world.params(worker)) == bits(world.params(PeerId(0)));
        ensure!(same, "workers 0 and {worker} end with different parameters");
    }
    Ok(())
}

/// Messages carry all elements that are not 0, as they are; or all that the merge rule looks at.
fn is_exact(recipe: &Recipe) -> bool {
    let all = matches!(recipe.codec(), Codec::TopK(TopK { density: 1.0, values: Values::F32, .. }))
        && recipe.correction() == Correction::none();
    // Of a contribution, a vote takes the signs only.
    let signs = matches!(recipe.merge(), Merge::Vote { .. }) && recipe.codec() == Codec::Sign;
    recipe.pull() == Codec::F32 && (all || signs)
}

/// I-139, I-142, R5: without crashes, the parameters after each round are the mean of all workers' contributions up to
/// then, weighted by examples and independent of the numbers of their steps. All workers have these parameters.
fn timed(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let mut reference = Reference::new(&plan.recipe, plan.cluster.workers, &plan.initial);
    let mut adaptive = AdaComm::default();
    let most = truth.rounds.iter().map(Vec::len).max().unwrap_or(0);
    for round in 0..most {
        let (base, mut parts_are_pushed) = (reference.params.clone(), false);
        // Workers that have taken all of their steps contribute no more.
        let parts: Vec<_> = truth.rounds.iter().filter_map(|of| of.get(round)).collect();
        adaptive.check(plan, truth, round)?;
        if plan.recipe.normalize() == Normalize::Steps {
            reference.push(&by_steps(truth, round), parts.iter().map(|part| part.weight).sum(), reference.version);
            parts_are_pushed = true;
        }
        let each = truth.rounds.iter().enumerate().filter_map(|(worker, of)| Some((worker, of.get(round)?)));
        for (worker, part) in each.filter(|_| !parts_are_pushed) {
            let sum = part.sum.iter().map(|x| *x as f64 / 1024.0);
            let contribution: Vec<f64> = match plan.recipe.payload() {
                Payload::Updates | Payload::Gradients => sum.collect(),
                Payload::Parameters => base.iter().zip(sum).map(|(base, sum)| base - sum).collect(),
            };
            let weight = weight(&plan.recipe, part.weight, steps_of(worker, part));
            reference.push(&contribution, weight, reference.version);
        }
        reference.end_round();
        for part in &parts {
            let got = part.after.as_deref().unwrap_or_default();
            close(&format!("after round {round}"), got, &reference.params, 1e-6 * (round + 1) as f64 * 8.0)?;
            let same = bits(got) == bits(parts[0].after.as_deref().unwrap_or_default());
            ensure!(same, "after round {round}, workers have different parameters");
        }
    }
    for worker in (0..plan.cluster.workers).map(PeerId) {
        let same = bits(world.params(worker)) == bits(world.params(PeerId(0)));
        ensure!(same, "workers 0 and {worker} end with different parameters");
    }
    Ok(())
}

/// Workers and center move towards each other by the same, so that their sum changes by the updates alone, even if
/// messages are lost, sent again or late. All workers end with the center.
fn elastic(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let center = server_params(scenario, world);
    // The parameters of each worker before it took the center.
    let mut last = BTreeMap::new();
    for (worker, params) in truth.after.values().flatten() {
        last.insert(*worker, params);
    }
    let workers = f64::from(plan.cluster.workers);
    let sum: Vec<f32> =
        (0..center.len()).map(|i| center[i] + last.values().map(|params| params[i]).sum::<f32>()).collect();
    let expected: Vec<f64> = (0..center.len())
        .map(|i| {
            let updates = truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f64 / 1024.0;
            let begun: f64 = truth.first.values().map(|params| f64::from(params[i])).sum();
            f64::from(plan.initial[i]) + begun - updates
        })
        .collect();
    close("center and workers", &sum, &expected, 1e-6 * (plan.steps + 1) as f64 * workers)?;
    for worker in (0..plan.cluster.workers).map(PeerId) {
        ensure!(bits(world.params(worker)) == bits(&center), "worker {worker} does not end with the center");
    }
    Ok(())
}

/// The steps in a worker's part of a round: each has moved the worker's own element by [`UNIT`].
fn steps_of(worker: usize, part: &Round) -> u64 {
    (part.sum[worker] as f32 / 1024.0 / UNIT) as u64
}

/// FedNova: `sum(p H) sum(p d / H)` over the workers of a round, with the shares p of the examples and the steps H.
fn by_steps(truth: &Truth, round: usize) -> Vec<f64> {
    let parts = || truth.rounds.iter().enumerate().filter_map(|(worker, of)| Some((worker, of.get(round)?)));
    let examples: u64 = parts().map(|(_, part)| part.weight).sum();
    let share = |part: &Round| part.weight as f64 / examples as f64;
    let steps = |worker, part| steps_of(worker, part) as f64;
    let mean_steps: f64 = parts().map(|(worker, part)| share(part) * steps(worker, part)).sum();
    let element = |i: usize| {
        let each = parts().map(|(worker, part)| share(part) * (part.sum[i] as f64 / 1024.0) / steps(worker, part));
        mean_steps * each.sum::<f64>()
    };
    (0..truth.rounds.iter().flatten().next().map_or(0, |part| part.sum.len())).map(element).collect()
}

/// A model of periods that follow the loss.
#[derive(Default)]
struct AdaComm {
    /// Steps before the round.
    steps: u64,
    /// The mean losses of the first round and of the last one.
    losses: Option<[f64; 2]>,
}

impl AdaComm {
    /// All workers have taken as many steps for the round as the losses say, or all that were left.
    fn check(&mut self, plan: &Plan, truth: &Truth, round: usize) -> Result<(), Failure> {
        let Adapt::Loss { most } = plan.recipe.adapt() else { return Ok(()) };
        let start = f64::from(plan.recipe.period().at(0));
        let [first, last] = self.losses.unwrap_or([1.0; 2]);
        let exact = (last / first).sqrt() * start;
        // Losses travel as floats.
        let [least, most] =
            [1.0 - 1e-6, 1.0 + 1e-6].map(|error| (exact * error).ceil().clamp(1.0, f64::from(most)) as u64);
        let left = plan.steps - self.steps;
        let (mut taken, mut sum, mut examples) = (0, 0.0, 0);
        for (worker, rounds) in truth.rounds.iter().enumerate() {
            let Some(part) = rounds.get(round) else { continue };
            taken = steps_of(worker, part);
            let fits = (least.min(left)..=most.min(left)).contains(&taken);
            ensure!(fits, "in round {round}, worker {worker} takes {taken} steps, expected {exact} of {left}");
            let losses = (self.steps..self.steps + taken).map(|step| f64::from(loss(worker as u32, step)));
            sum += losses.sum::<f64>() / taken as f64 * part.weight as f64;
            examples += part.weight;
        }
        self.steps += taken;
        let mean = sum / examples as f64;
        self.losses = Some([self.losses.map_or(mean, |[first, _]| first), mean]);
        Ok(())
    }
}

/// Do the programs change their learning rates? Only where the result follows them.
pub(super) fn changes_rate(plan: &Plan) -> bool {
    matches!(plan.recipe.outer(), Outer::Momentum { scale: VelocityScale::Rate, .. })
}

/// True if the workers synchronise after this step, counted from 0.
fn is_synchronised(plan: &Plan, step: u64) -> bool {
    let period = plan.recipe.period();
    period == 1.into() || (step + 1).is_multiple_of(u64::from(period.at(0)))
}

/// R5, for all workers that do not crash.
fn replicas_are_equal_after_each_step(scenario: &Scenario, truth: &Truth) -> Result<(), Failure> {
    let crashing = scenario.crashing();
    for (step, params) in truth.after.iter().filter(|(step, _)| is_synchronised(&scenario.plan, **step)) {
        // A worker that dies may have seen the end of a round that the rest then repeated without it.
        let mut replicas = params.iter().filter(|(worker, _)| !crashing.contains(&PeerId(**worker)));
        let Some((first, expected)) = replicas.next() else { continue };
        for (other, got) in replicas {
            ensure!(
                bits(got) == bits(expected),
                "after step {step}, worker {other} has {got:?}, worker {first} {expected:?}"
            );
        }
    }
    Ok(())
}

/// I-01, I-04, I-05, I-13: the parameters equal the reference model's, round by round.
fn rounds_equal_the_reference(plan: &Plan, truth: &Truth) -> Result<(), Failure> {
    let mut reference = Reference::new(&plan.recipe, plan.cluster.workers, &plan.initial);
    let zeros = || (0, 0, vec![0.0; plan.layout.len()]);
    // Steps, examples and summed updates of each worker since the last synchronisation.
    let mut local: Vec<(u64, u32, Vec<f64>)> = (0..plan.cluster.workers).map(|_| zeros()).collect();
    let last = truth.steps.len() as u64;
    for (step, contributions) in &truth.steps {
        for (worker, (examples, units)) in contributions {
            let (steps, sum_of_examples, sum) = &mut local[*worker as usize];
            *steps += 1;
            *sum_of_examples += examples;
            sum.iter_mut().zip(units).for_each(|(sum, x)| *sum += *x as f64 / 1024.0);
        }
        if !is_synchronised(plan, *step) && step + 1 != last {
            continue;
        }
        let base = reference.params.clone();
        for (worker, entry) in (0..).zip(&mut local) {
            let (steps, examples, sum) = std::mem::replace(entry, zeros());
            let contribution: Vec<f64> = match plan.recipe.payload() {
                Payload::Updates | Payload::Gradients => sum,
                Payload::Parameters => base.iter().zip(&sum).map(|(base, sum)| base - sum).collect(),
            };
            let weight = weight(&plan.recipe, examples.into(), steps.max(1));
            // Recipes with an outer optimizer have a period of 1 here.
            let rate = if changes_rate(plan) { super::rate(worker, *step).into() } else { 1.0 };
            reference.push_at(rate, &contribution, weight, reference.version);
        }
        reference.end_round();
        // The last, incomplete period is contributed when the worker leaves, which the trainer sees as one more step.
        let after = if is_synchronised(plan, *step) { *step } else { step + 1 };
        for (worker, got) in truth.after.get(&after).into_iter().flatten() {
            // Each step so far may have rounded an f32 sum.
            let what = format!("after step {step}, worker {worker}");
            close(&what, got, &reference.params, 1e-6 * (step + 1) as f64)?;
        }
    }
    Ok(())
}

/// R1, R2, I-22: every update is applied exactly once, except for the last ones of a worker that crashed.
fn summed(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let crashing = scenario.crashing();
    // Updates that were in flight to a crashed server are counted as lost.
    if crashing.iter().any(|node| !plan.cluster.is_worker(*node)) {
        return Ok(());
    }
    let applied = server_params(scenario, world);
    // Servers multiply received contributions by lambda; a residual is not multiplied yet.
    let lambda = lambda(plan);
    let applied_of = |i: usize| applied[i] / lambda;
    let kept = kept(plan, world);
    for (worker, sums) in truth.contributed.iter().enumerate() {
        let crashes = crashing.iter().filter(|node| node.index() == worker).count() as f32;
        let (made, there) = (sums[worker] as f32 / 1024.0 / UNIT, (kept[worker] - applied_of(worker)) / UNIT);
        // A crash loses the updates in flight, at most two, and with a codec also the residual. With a longer period,
        // it loses the updates of the last period, and of the period that has begun.
        let most = 2.0 * plan.recipe.period().at(0) as f32;
        ensure!(
            there <= made && (there >= made - most * crashes || (crashes > 0.0 && scenario.kind == Kind::Coded)),
            "worker {worker} contributed {made} updates and crashed {crashes} times; {there} were applied"
        );
    }
    if crashing.is_empty() {
        let total = |i: usize| truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f32 / 1024.0;
        for i in 0..applied.len() {
            let (total, kept, got) = (total(i), kept[i], applied_of(i));
            ensure!(
                got == kept - total,
                "element {i} is {got} over lambda, contributions sum up to {total}, {kept} is kept"
            );
        }
        for worker in (0..plan.cluster.workers).map(PeerId) {
            ensure!(bits(world.params(worker)) == bits(&applied), "worker {worker} ends with other parameters");
        }
    }
    Ok(())
}

/// The factor of a recipe that adds; a power of two in each scenario.
fn lambda(plan: &Plan) -> f32 {
    let Merge::Sum { lambda } = plan.recipe.merge() else { unreachable!("a recipe that adds") };
    lambda.of(plan.cluster.workers)
}

/// The sum of the residuals of all workers at the end.
fn kept(plan: &Plan, world: &World) -> Vec<f32> {
    let mut sum = vec![0.0; plan.layout.len()];
    let lossy = plan.recipe.codec() != Codec::F32;
    for worker in (0..plan.cluster.workers).map(PeerId).filter(|worker| lossy && world.life(*worker) == Life::Done) {
        let buffers = world.saved_buffers(worker);
        sum.iter_mut().zip(&buffers[0]).for_each(|(sum, bits)| *sum += f32::from_bits(*bits));
    }
    sum
}

/// I-27, I-28: every group has c updates, except for the last one.
fn softsync(scenario: &Scenario, world: &World) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let Merge::Softsync { updates } = plan.recipe.merge() else { unreachable!("a softsync scenario") };
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let contributions = plan.steps.div_ceil(u64::from(plan.recipe.period().at(0)));
    let pushes = contributions * u64::from(plan.cluster.workers);
    let groups = pushes.div_ceil(u64::from(updates));
    for server in (plan.cluster.workers..plan.cluster.nodes()).map(PeerId) {
        let Some(status) = world.status(server) else { continue };
        // With one update per group, updates of other workers are applied between a worker's pull and its push.
        let starters = plan.recipe.correction().starters;
        let alone = plan.cluster.workers < 3 || starters > 0 || contributions < 4 || !plan.faults.is_empty();
        ensure!(
            alone || updates > 1 || status.staleness.sum() > 0,
            "updates of {} workers are never stale",
            plan.cluster.workers
        );
        ensure!(status.clock == Clock(groups), "{pushes} updates in groups of {updates} made {}", status.clock);
    }
    Ok(())
}

/// I-22, I-27, I-28: shard by shard, the parameters of a server equal the reference model's. The model merges the same
/// contributions in the order of their arrival, and scales each by its staleness.
fn merged_in_order(scenario: &Scenario, world: &World, truth: &Truth, pushes: &[Push]) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let Topology::Servers { shards } = plan.recipe.topology() else { unreachable!("a server scenario") };
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let got = server_params(scenario, world);
    for shard in 0..shards {
        let range = gradwire_core::shard_range(got.len(), shards, shard);
        let mut reference = Reference::new(&plan.recipe, plan.cluster.workers, &plan.initial[range.clone()]);
        let (mut next, mut last) = (vec![0; truth.rounds.len()], vec![0; truth.rounds.len()]);
        for push in pushes.iter().filter(|push| push.shard.0 == shard && push.weight > 0) {
            // The contributions of a worker arrive in order.
            let count = &mut next[push.worker.index()];
            let made = std::mem::replace(count, *count + 1);
            // A contribution without a body stands for the last one with a body.
            let made = if push.repeats { last[push.worker.index()] } else { made };
            last[push.worker.index()] = made;
            let round = &truth.rounds[push.worker.index()][made];
            let update: Vec<f64> = round.sum[range.clone()].iter().map(|x| *x as f64 / 1024.0).collect();
            reference.push_at(round.rate, &update, push.weight, push.base.0);
        }
        reference.end();
        let tolerance = 1e-6 * (pushes.len() + 1) as f64;
        close(&format!("shard {shard} of {}", plan.recipe), &got[range], &reference.params, tolerance)?;
    }
    Ok(())
}

/// Compares parameters with the parameters of a reference model, element by element.
pub(super) fn close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) -> Result<(), Failure> {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (f64::from(*got) - expected).abs() <= tolerance;
        ensure!(near, "{what}: element {i} is {got}, expected {expected}");
    }
    Ok(())
}

/// I-40, I-44, I-45: replicas are equal, also after crashes in the middle of a message to many. With the residuals that
/// workers have kept, they hold all contributions.
fn mesh(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let kept = kept(plan, world);
    // A mesh multiplies by lambda before it encodes, so residuals are multiplied already.
    let lambda = lambda(plan);
    let crashing = scenario.crashing();
    let done: Vec<PeerId> =
        (0..plan.cluster.workers).map(PeerId).filter(|worker| world.life(*worker) == Life::Done).collect();
    for worker in &done {
        let params = world.params(*worker);
        ensure!(
            bits(params) == bits(world.params(done[0])),
            "replicas of workers {} and {worker} differ: {:?} {params:?}",
            done[0],
            world.params(done[0])
        );
        for (i, got) in params.iter().enumerate() {
            let total = lambda * truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f32 / 1024.0;
            // After crashes, only elements of workers that neither crashed nor were cut off are complete.
            let whole = crashing.is_empty()
                || (i < plan.cluster.workers as usize
                    && !crashing.contains(&PeerId(i as u32))
                    && done.contains(&PeerId(i as u32)));
            let kept = kept[i];
            ensure!(
                !whole || *got == kept - total,
                "element {i} of worker {worker} is {got}, contributions sum up to {total}, {kept} is kept"
            );
        }
    }
    Ok(())
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
fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}
