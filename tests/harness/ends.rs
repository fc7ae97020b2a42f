//! What must hold at the end of a run, for each kind of scenario: replicas, rounds and sums against the reference.

use std::collections::BTreeMap;

use gradwire_core::recipe::{
    Adapt, Codec, Correction, Merge, Normalize, Outer, Payload, TopK, Topology, Values, VelocityScale,
};
use gradwire_core::wire::Push;
use gradwire_core::{Clock, PeerId, Recipe};
use gradwire_sim::{App, Fault, Life, Plan, World};

use super::check::{Failure, bits, ensure, server_params};
use super::reference::{Reference, weight};
use super::{Kind, Round, Scenario, Truth, UNIT, loss};

/// R5: replicas are equal after every synchronised step. Without crashes, they equal the reference model.
pub(super) fn synchronous(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
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
pub(super) fn timed(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
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
pub(super) fn elastic(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
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
pub(super) fn summed(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
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
pub(super) fn softsync(scenario: &Scenario, world: &World) -> Result<(), Failure> {
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
pub(super) fn merged_in_order(
    scenario: &Scenario,
    world: &World,
    truth: &Truth,
    pushes: &[Push],
) -> Result<(), Failure> {
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
pub(super) fn mesh(scenario: &Scenario, world: &World, truth: &Truth) -> Result<(), Failure> {
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
