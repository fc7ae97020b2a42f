//! The invariants.

use std::sync::{Arc, Mutex};

use gradwire_core::recipe::{Codec, Merge, Pace, Payload, Topology};
use gradwire_core::status::Presence;
use gradwire_core::wire::{Message, Push};
use gradwire_core::{Clock, Duration, Event, PeerId, Signal, Status};
use gradwire_sim::{App, Entry, Fault, Halt, Life, Network, Plan, Random, World};

use super::reference::Reference;
use super::{Kind, Scenario, Trainer, Truth, UNIT};

/// What a run did, for the marks that the suite must reach.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub trace: u64,
    pub events: u64,
    pub duplicates: u64,
    pub late: u64,
    pub reconnects: u64,
    pub resent: u64,
    pub lost: u64,
    pub rejoined: u64,
    pub cut: u64,
    pub blocked: u64,
    pub merged: u64,
    /// Views after the first.
    pub views: u64,
    /// Coordinators that came back to a run that was under way.
    pub resumed: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    Halt(Halt),
    Broken(String),
}

impl From<Halt> for Failure {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        let holds: bool = $condition;
        if !holds {
            return Err(Failure::Broken(format!($($message)*)));
        }
    };
}

const BUDGET: u64 = 300_000;

/// Runs a scenario and checks it, during and after.
pub fn run(scenario: &Scenario) -> Result<Seen, Failure> {
    let plan = &scenario.plan;
    let (workers, len) = (plan.cluster.workers, plan.layout.len());
    let truth = Arc::new(Mutex::new(Truth { contributed: vec![vec![0; len]; workers as usize], ..Truth::default() }));
    let crashing = scenario.crashing();
    // What is in a residual nobody sees yet.
    let plain = plan.recipe.codec() == Codec::F32;
    let sum = plain && plan.recipe.merge() == Merge::Sum { lambda: 1.0 } && plan.recipe.needs_servers();
    let lag = match plan.recipe.pace() {
        Pace::Stale { bound } if plain && crashing.is_empty() => Some(bound),
        _ => None,
    };
    let trainer = Trainer {
        me: PeerId(0),
        workers,
        random: Random::new(0, 0),
        pace: Duration::from_millis(2),
        spread: scenario.spread,
        own: None,
        sees_own: sum && crashing.is_empty(),
        lag,
        truth: Arc::clone(&truth),
    };
    let mut world = world(plan, &trainer)?;
    let mut seen = Seen::default();
    let mut pushes = Vec::new();
    let result = world.run(BUDGET, |world, node| {
        seen.events += 1;
        let pushed = |(_, _, message): &(PeerId, PeerId, Message)| match message {
            Message::Push(push) => Some(*push),
            _ => None,
        };
        pushes.extend(world.delivered().iter().filter_map(pushed));
        if let Some(complaint) = truth.lock().unwrap().complaint.take() {
            return Err(Failure::Broken(complaint));
        }
        during(scenario, world, node, &mut seen)
    });
    // One who was never met is waited for; so is a server that has gone by one who starts anew.
    match result {
        Err(Failure::Halt(_)) if waits_for_the_dead(scenario, &world) => {}
        other => {
            other?;
            world.settle(BUDGET)?;
        }
    }
    after(scenario, &world, &truth.lock().unwrap(), &pushes)?;
    if plan.recipe.is_synchronous() && crashing.is_empty() {
        same_on_a_calm_network(scenario, &world)?;
    }
    seen.trace = world.trace();
    for status in statuses(&world, plan.cluster.nodes()) {
        seen.duplicates += status.counters.duplicates;
        seen.late += status.counters.late;
        seen.reconnects += status.counters.reconnects;
        seen.resent += status.counters.resent;
        seen.merged += status.counters.merged;
    }
    let mut joined = vec![0; plan.cluster.nodes() as usize];
    for entry in world.log() {
        match entry.entry {
            Entry::Event(Event::PeerLost { .. }) => seen.lost += 1,
            Entry::Signal(Signal::Cut { .. }) => seen.cut += 1,
            Entry::Signal(Signal::Joined { .. }) => joined[entry.node.index()] += 1,
            Entry::Event(Event::View { number, .. }) if number > 1 && entry.node == PeerId(0) => seen.views += 1,
            _ => {}
        }
    }
    seen.resumed = u64::from(joined[0] > 1 && plan.recipe.is_collective());
    seen.rejoined = joined.iter().filter(|times| **times > 1).count() as u64;
    Ok(seen)
}

fn world(plan: &Plan, trainer: &Trainer) -> Result<World, Failure> {
    let app = |me: PeerId| {
        let random = Random::new(plan.seed, 100 + u64::from(me.0));
        let app: Box<dyn App> = Box::new(Trainer { me, random, ..trainer.clone() });
        app
    };
    World::new(plan.clone(), app).map_err(|error| Failure::Broken(error.to_string()))
}

/// I-02: the result of a synchronous recipe does not depend on who comes first, on delays or on broken connections.
fn same_on_a_calm_network(scenario: &Scenario, stormy: &World) -> Result<(), Failure> {
    let mut plan = scenario.plan.clone();
    (plan.network, plan.faults) = (Network::calm(), Vec::new());
    let (workers, len) = (plan.cluster.workers, plan.layout.len());
    let truth = Truth { contributed: vec![vec![0; len]; workers as usize], ..Truth::default() };
    let trainer = Trainer {
        me: PeerId(0),
        workers,
        random: Random::new(0, 0),
        pace: Duration::from_millis(2),
        spread: 0.0,
        own: None,
        sees_own: false,
        lag: None,
        truth: Arc::new(Mutex::new(truth)),
    };
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

/// Everyone who is still up waits for one who is down for good (or, starting late, for one who is done) and says so.
fn waits_for_the_dead(scenario: &Scenario, world: &World) -> bool {
    let cluster = scenario.plan.cluster;
    let up = (0..cluster.nodes()).map(PeerId).filter(|node| world.life(*node) == Life::Up);
    let names_one = |node| {
        let waiting = world.status(node).and_then(|status| status.waiting);
        // A server waits only while it owes someone an answer.
        waiting.map_or_else(|| !cluster.is_worker(node), |waiting| world.life(waiting.on) != Life::Up)
    };
    !scenario.crashing().is_empty() && up.into_iter().all(names_one)
}

/// After every event.
fn during(scenario: &Scenario, world: &World, node: PeerId, seen: &mut Seen) -> Result<(), Failure> {
    let plan = &scenario.plan;
    if let Pace::Stale { bound } = plan.recipe.pace() {
        if !plan.cluster.is_worker(node) || !world.is_computing(node) {
            seen.blocked += u64::from(plan.cluster.is_worker(node));
            return Ok(());
        }
        // A server that starts anew goes on from what a worker had seen: clocks of others may be ahead of that.
        if scenario.crashing().iter().any(|node| !plan.cluster.is_worker(*node)) {
            return Ok(());
        }
        let Some(own) = world.status(node).map(|status| status.clock) else { return Ok(()) };
        // I-36, R4: nobody computes with a lead above s over a member.
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
    }
    Ok(())
}

/// When everyone is done.
fn after(scenario: &Scenario, world: &World, truth: &Truth, pushes: &[Push]) -> Result<(), Failure> {
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
    match scenario.kind {
        Kind::Tree | Kind::Averaging | Kind::ServerSync | Kind::SspZero => synchronous(scenario, world, truth),
        Kind::Async | Kind::Ssp => {
            summed(scenario, world, truth)?;
            merged_in_order(scenario, world, truth, pushes)
        }
        Kind::Coded => summed(scenario, world, truth),
        // Equal to a calm network's, which has been checked; there is no formula for what a codec makes of a mean.
        Kind::CodedSync => Ok(()),
        Kind::Softsync => {
            softsync(scenario, world)?;
            merged_in_order(scenario, world, truth, pushes)
        }
        Kind::Mesh | Kind::Relay => mesh(scenario, world, truth),
    }
}

/// R5: replicas are equal at every step; without a crash, they are what the formula says.
fn synchronous(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    // One that comes back enters at a later step than it left.
    let comes_back = |fault: &Fault| match fault {
        Fault::Crash { restart, .. } => restart.is_some(),
        _ => false,
    };
    let restarted = plan.faults.iter().any(|(_, fault)| comes_back(fault));
    let synced = |step: &u64| {
        plan.recipe.period() == 1.into() || (step + 1).is_multiple_of(u64::from(plan.recipe.period().at(0)))
    };
    let crashing = scenario.crashing();
    if !restarted {
        for (step, params) in truth.after.iter().filter(|(step, _)| synced(step)) {
            // One that dies may have seen the end of a round that the others then did without it.
            let mut replicas = params.iter().filter(|(worker, _)| !crashing.contains(&PeerId(**worker)));
            let Some((first, expected)) = replicas.next() else { continue };
            for (other, got) in replicas {
                ensure!(
                    bits(got) == bits(expected),
                    "after step {step}, worker {other} has {got:?}, worker {first} {expected:?}"
                );
            }
        }
    }
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    // I-01, I-04, I-05, I-13: the parameters are those of the reference model, round by round.
    let mut reference = Reference::new(&plan.recipe, &plan.initial);
    let zeros = || (0, vec![0.0; plan.layout.len()]);
    let mut local: Vec<(u32, Vec<f64>)> = (0..plan.cluster.workers).map(|_| zeros()).collect();
    let last = truth.steps.len() as u64;
    for (step, contributions) in &truth.steps {
        for (worker, (examples, units)) in contributions {
            let (weight, sum) = &mut local[*worker as usize];
            *weight += examples;
            sum.iter_mut().zip(units).for_each(|(sum, x)| *sum += *x as f64 / 1024.0);
        }
        if !synced(step) && step + 1 != last {
            continue;
        }
        let base = reference.params.clone();
        for entry in &mut local {
            let (weight, sum) = std::mem::replace(entry, zeros());
            let contribution: Vec<f64> = match plan.recipe.payload() {
                Payload::Updates => sum,
                Payload::Parameters => base.iter().zip(&sum).map(|(base, sum)| base - sum).collect(),
            };
            reference.push(&contribution, weight, reference.version);
        }
        reference.end_round();
        // The rest of a period counts as a step of its own.
        let after = if synced(step) { *step } else { step + 1 };
        for (worker, got) in truth.after.get(&after).into_iter().flatten() {
            // The tolerance of an f32 sum at each of the steps so far.
            let what = format!("after step {step}, worker {worker}");
            close(&what, got, &reference.params, 1e-6 * (step + 1) as f64)?;
        }
    }
    for worker in (0..plan.cluster.workers).map(PeerId) {
        let same = bits(world.params(worker)) == bits(world.params(PeerId(0)));
        ensure!(same, "workers 0 and {worker} end with different parameters");
    }
    Ok(())
}

/// R1, R2, I-22: every update is applied exactly once.
fn summed(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let crashing = scenario.crashing();
    if crashing.iter().any(|node| !plan.cluster.is_worker(*node)) {
        return Ok(());
    }
    let applied = server_params(scenario, world);
    for (worker, sums) in truth.contributed.iter().enumerate() {
        let crashes = crashing.iter().filter(|node| node.index() == worker).count() as f32;
        let (made, there) = (sums[worker] as f32 / 1024.0 / UNIT, -applied[worker] / UNIT);
        // A crash can take with it what was under way: at most two updates.
        ensure!(
            there <= made && (there >= made - 2.0 * crashes || (crashes > 0.0 && scenario.kind == Kind::Coded)),
            "worker {worker} contributed {made} updates and crashed {crashes} times; {there} were applied"
        );
    }
    if crashing.is_empty() {
        let total = |i: usize| truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f32 / 1024.0;
        for (i, got) in applied.iter().enumerate() {
            ensure!(*got == -total(i), "element {i} is {got}, contributions sum up to {}", total(i));
        }
        for worker in (0..plan.cluster.workers).map(PeerId) {
            ensure!(bits(world.params(worker)) == bits(&applied), "worker {worker} ends with other parameters");
        }
    }
    Ok(())
}

/// I-27, I-28: groups are of c updates, but for a rest.
fn softsync(scenario: &Scenario, world: &World) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let Merge::Softsync { updates } = plan.recipe.merge() else { unreachable!("a softsync scenario") };
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let pushes = plan.steps * u64::from(plan.cluster.workers);
    let groups = pushes.div_ceil(u64::from(updates));
    for server in (plan.cluster.workers..plan.cluster.nodes()).map(PeerId) {
        let Some(status) = world.status(server) else { continue };
        // With one update per application, those of other workers come in between.
        let alone = plan.cluster.workers < 3 || plan.steps < 4 || !plan.faults.is_empty();
        ensure!(
            alone || updates > 1 || status.staleness.sum() > 0,
            "updates of {} workers are never stale",
            plan.cluster.workers
        );
        ensure!(status.clock == Clock(groups), "{pushes} updates in groups of {updates} made {}", status.clock);
    }
    Ok(())
}

/// I-22, I-27, I-28: contributions that servers merge in the order of their arrival make the parameters of the reference model,
/// shard by shard, with the factor of each contribution's staleness.
fn merged_in_order(scenario: &Scenario, world: &World, truth: &Truth, pushes: &[Push]) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let Topology::Servers { shards } = plan.recipe.topology() else { unreachable!("a server scenario") };
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let got = server_params(scenario, world);
    for shard in 0..shards {
        let range = gradwire_core::shard_range(got.len(), shards, shard);
        let mut reference = Reference::new(&plan.recipe, &plan.initial[range.clone()]);
        for push in pushes.iter().filter(|push| push.shard.0 == shard && push.weight > 0) {
            // With a period of 1, a worker's contribution number n is of its step n - 1.
            let (_, units) = &truth.steps[&(push.sequence.0 - 1)][&push.worker.0];
            let update: Vec<f64> = units[range.clone()].iter().map(|x| *x as f64 / 1024.0).collect();
            reference.push(&update, push.weight, push.base.0);
        }
        reference.end();
        let tolerance = 1e-6 * (pushes.len() + 1) as f64;
        close(&format!("shard {shard} of {}", plan.recipe), &got[range], &reference.params, tolerance)?;
    }
    Ok(())
}

fn close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) -> Result<(), Failure> {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let near = (f64::from(*got) - expected).abs() <= tolerance;
        ensure!(near, "{what}: element {i} is {got}, not {expected}");
    }
    Ok(())
}

/// I-40, I-44, I-45: replicas are equal, and as all residuals were sent at the end, they lack nothing.
fn mesh(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let crashing = scenario.crashing();
    let done: Vec<PeerId> =
        (0..plan.cluster.workers).map(PeerId).filter(|worker| world.life(*worker) == Life::Done).collect();
    for worker in &done {
        let params = world.params(*worker);
        if crashing.is_empty() {
            ensure!(
                bits(params) == bits(world.params(done[0])),
                "replicas of workers {} and {worker} differ: {:?} {params:?}",
                done[0],
                world.params(done[0])
            );
        }
        for (i, got) in params.iter().enumerate() {
            let total = truth.contributed.iter().map(|sums| sums[i]).sum::<i64>() as f32 / 1024.0;
            let whole = crashing.is_empty()
                || (i < plan.cluster.workers as usize
                    && !crashing.contains(&PeerId(i as u32))
                    && done.contains(&PeerId(i as u32)));
            ensure!(
                !whole || *got == -total,
                "element {i} of worker {worker} is {got}, contributions sum up to {total}"
            );
        }
    }
    Ok(())
}

fn server_params(scenario: &Scenario, world: &World) -> Vec<f32> {
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

fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}
