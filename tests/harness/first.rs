//! Rounds that wait for the first contributions only: which contributions a server has merged, and the consequences.
//!
//! Delays decide which workers are in time, so the harness reads it off the kernels that a server asks for: a body that
//! was read into a segment is merged by the kernel that reads the segment, and a round ends with the kernel that
//! commits the gathered vector.

use std::collections::{BTreeMap, BTreeSet};

use gradwire_core::kernel::Kernel;
use gradwire_core::recipe::{Codec, Late, Merge, Pace, Payload, Topology};
use gradwire_core::wire::{Message, Push};
use gradwire_core::{PeerId, Segment, shard_range};
use gradwire_sim::{Deed, World};

use super::check::{Failure, ensure, server_params};
use super::ends::{changes_rate, close};
use super::reference::{Reference, weight};
use super::{Scenario, Truth};

/// A server, and a segment in its buffers.
type Place = (PeerId, u32, u64);

/// The contributions that the servers have merged, by shard and round.
#[derive(Default)]
pub struct Rounds {
    /// By segment: the contribution that has its body there.
    bodies: BTreeMap<Place, Push>,
    /// By segment: the shard that has its contributions gathered there.
    gathered: BTreeMap<Place, u32>,
    /// By shard: the rounds that have been committed, and the one that has not, each with its contributions in the order
    /// in which they were merged.
    rounds: BTreeMap<u32, Vec<Vec<Push>>>,
    /// Contributions that the present processes of the servers have merged.
    merged: BTreeSet<(PeerId, u32, u32, u64, u64)>,
    /// The first contribution that was merged twice.
    twice: Option<Push>,
}

fn place(server: PeerId, segment: Segment) -> Place {
    (server, segment.buffer.0, segment.start)
}

impl Rounds {
    pub fn take(&mut self, deeds: &[(PeerId, Deed)]) {
        for (node, deed) in deeds {
            match *deed {
                Deed::Started => {
                    self.bodies.retain(|(server, ..), _| server != node);
                    self.merged.retain(|(server, ..)| server != node);
                }
                Deed::Read { message: Message::Push(push), into, .. } => {
                    self.bodies.insert(place(*node, into), push);
                }
                Deed::Asked { kernel: Kernel::Expand { body, into, .. } } => {
                    if let Some(push) = self.bodies.get(&place(*node, body)).copied() {
                        self.bodies.insert(place(*node, into), push);
                    }
                }
                Deed::Asked {
                    kernel:
                        Kernel::Blend { x, into, .. }
                        | Kernel::BlendSent { x, into, .. }
                        | Kernel::Accumulate { update: x, into, .. },
                } => self.on_merged(*node, x, into),
                Deed::Asked { kernel: Kernel::Hold { x, rows, .. } } => self.on_merged(*node, x, rows.first),
                Deed::Asked { kernel: Kernel::Round { rows, into, .. } } => {
                    if let Some(shard) = self.gathered.get(&place(*node, rows.first)).copied() {
                        self.gathered.insert(place(*node, into), shard);
                    }
                }
                Deed::Asked {
                    kernel:
                        Kernel::Apply { update: from, .. } | Kernel::Outer { update: from, .. } | Kernel::Copy { from, .. },
                } => {
                    if let Some(shard) = self.gathered.get(&place(*node, from)) {
                        self.rounds.entry(*shard).or_default().push(Vec::new());
                    }
                }
                _ => {}
            }
        }
    }

    fn on_merged(&mut self, server: PeerId, x: Segment, into: Segment) {
        let Some(push) = self.bodies.get(&place(server, x)).copied() else { return };
        self.gathered.insert(place(server, into), push.shard.0);
        let key = (server, push.shard.0, push.worker.0, push.incarnation.0, push.sequence.0);
        if !self.merged.insert(key) {
            self.twice.get_or_insert(push);
        }
        let rounds = self.rounds.entry(push.shard.0).or_default();
        if rounds.is_empty() {
            rounds.push(Vec::new());
        }
        rounds.last_mut().expect("one is there").push(push);
    }
}

/// I-93, I-108 to I-110 at the end of a run.
pub fn check(scenario: &Scenario, world: &World, truth: &Truth, rounds: &Rounds) -> Result<(), Failure> {
    let plan = &scenario.plan;
    let Pace::First { count, late, .. } = plan.recipe.pace() else { unreachable!("rounds of the first") };
    ensure!(rounds.twice.is_none(), "a contribution was merged twice: {:?}", rounds.twice);
    if !scenario.crashing().is_empty() {
        return Ok(());
    }
    let Topology::Servers { shards } = plan.recipe.topology() else { unreachable!("a server scenario") };
    let (workers, coded) = (plan.cluster.workers, plan.recipe.codec() != Codec::F32);
    let (mut applied, mut dropped) = (0, 0);
    for server in (workers..plan.cluster.nodes()).map(PeerId) {
        let Some(status) = world.status(server) else { continue };
        applied += status.counters.applied;
        dropped += status.counters.late;
        ensure!(late == Late::Drop || status.counters.late == 0, "server {server} has dropped late contributions");
        ensure!(late == Late::Next || status.staleness.max() == 0, "server {server} has applied stale contributions");
    }
    let made = plan.steps * u64::from(workers) * u64::from(shards);
    // A worker that ends can contribute its residual as well.
    ensure!(
        applied + dropped == made || (coded && applied + dropped > made),
        "{made} contributions were made, {applied} applied and {dropped} late"
    );
    // Contributions are small multiples of 2^-10, which halves represent exactly, so nothing is left for a residual.
    if !matches!(plan.recipe.codec(), Codec::F32 | Codec::Bf16 | Codec::F16) {
        return Ok(());
    }
    let got = server_params(scenario, world);
    // Rules that need all contributions of a round count workers.
    let one_vote = !matches!(plan.recipe.merge(), Merge::Mean | Merge::Sum { .. });
    for shard in 0..shards {
        let range = shard_range(got.len(), shards, shard);
        let mut reference = Reference::new(&plan.recipe, workers, &plan.initial[range.clone()]);
        for round in rounds.rounds.get(&shard).into_iter().flatten().filter(|round| !round.is_empty()) {
            check_round(round, reference.version, late, count.of(workers), plan.steps)?;
            let base = reference.params.clone();
            // Contributions with their learning rates and examples, by worker.
            let mut parts: Vec<(PeerId, f64, Vec<f64>, u64)> = Vec::new();
            for push in round {
                // The period is 1, sequence numbers begin at 1 and steps at 0.
                let step = truth.steps.get(&(push.sequence.0 - 1)).and_then(|step| step.get(&push.worker.0));
                if let Some((examples, _)) = step {
                    let expected = weight(&plan.recipe, (*examples).into(), 1);
                    ensure!(push.weight == expected, "{push:?} has {examples} examples, expected weight {expected}");
                }
                // A worker that ends contributes its residual, which is zero.
                ensure!(step.is_some() || coded, "{push:?} is a contribution of no step");
                let unit = |i: usize| step.map_or(0, |(_, units)| units[i]);
                let sum = range.clone().map(|i| f64::from(unit(i) as i32) / 1024.0);
                let contribution: Vec<f64> = match plan.recipe.payload() {
                    Payload::Updates | Payload::Gradients => sum.collect(),
                    // Only contributions from this version are merged.
                    Payload::Parameters => base.iter().zip(sum).map(|(base, sum)| base - sum).collect(),
                };
                let step = push.sequence.0 - 1;
                let rate: f64 = if changes_rate(plan) { super::rate(push.worker.0, step).into() } else { 1.0 };
                match parts.last_mut() {
                    Some((worker, rates, mean, examples)) if one_vote && *worker == push.worker => {
                        let sum = *examples + push.weight;
                        let blend = |(mean, x): (&mut f64, f64)| {
                            *mean = (*mean * *examples as f64 + x * push.weight as f64) / sum as f64;
                        };
                        mean.iter_mut().zip(contribution).for_each(&blend);
                        blend((rates, rate));
                        *examples = sum;
                    }
                    _ => parts.push((push.worker, rate, contribution, push.weight)),
                }
            }
            for (_, rate, contribution, examples) in parts {
                reference.push_at(rate, &contribution, examples, reference.version);
            }
            reference.end_round();
        }
        let tolerance = 1e-6 * (made + 1) as f64;
        close(&format!("shard {shard} of {}", plan.recipe), &got[range], &reference.params, tolerance)?;
    }
    for worker in (0..workers).map(PeerId) {
        let same = world.params(worker).iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
        ensure!(same, "worker {worker} ends with other parameters than the servers");
    }
    Ok(())
}

/// The contributions of one round, in the order in which they were merged.
fn check_round(round: &[Push], version: u64, late: Late, count: u32, steps: u64) -> Result<(), Failure> {
    let order: Vec<_> = round.iter().map(|push| (push.worker, push.sequence)).collect();
    ensure!(order.is_sorted(), "a round was not merged in rank order: {order:?}");
    for (of_version, kept) in [(true, "from its version"), (false, "that is late")] {
        let mut workers: Vec<_> =
            round.iter().filter(|push| (push.base.0 == version) == of_version).map(|push| push.worker).collect();
        let all = workers.len();
        workers.dedup();
        ensure!(workers.len() == all, "round {version} has two contributions {kept} of a worker: {round:?}");
        ensure!(of_version || late == Late::Next || all == 0, "round {version} has contributions {kept}: {round:?}");
    }
    // Once a worker has ended, a round can take fewer.
    let fresh = round.iter().filter(|push| push.base.0 == version).count();
    let may_have_ended = round.iter().any(|push| push.sequence.0 + 1 >= steps) || version + 1 >= steps;
    ensure!(
        may_have_ended || fresh >= count as usize,
        "round {version} of {count} has {fresh} contributions from its version: {round:?}"
    );
    Ok(())
}
