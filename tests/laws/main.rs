//! Laws that the algorithms must obey, on the machines of the library: the staleness of softsync (Zhang et al. 2016),
//! equalities between recipes, and equality of the simulator and real threads.
//!
//! The doc comment of each test explains the invariant whose number (`I-n`) it carries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod first;
mod late;
mod rates;
mod rounds;
mod senders;
mod threads;
mod vote;
mod weigh;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gradwire::recipe::{Mu, Outer, Staleness, Topology, VelocityScale};
use gradwire::{Cluster, Event, Layout, PeerId, Recipe, Status};
use gradwire_core::Patience;
use gradwire_sim::{App, Entry, Life, Network, Plan, Random, World};

const LEN: usize = 9;

/// The distribution of the durations of a worker's steps, with a mean of 1 ms.
#[derive(Copy, Clone, Debug)]
enum Steps {
    /// All equal; the workers take turns.
    RoundRobin,
    /// Uniform, within 30 % of the mean.
    Jittered,
    Exponential,
}

/// The program of a simulated worker.
struct Worker {
    me: PeerId,
    random: Random,
    steps: Steps,
    /// The step at which the worker contributes a NaN.
    poison: Option<u64>,
    /// The parameters after each step of worker 0.
    history: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// Computes the update of worker `rank` at step `step`, and returns its number of examples. The update depends on the
/// parameters, as a gradient does.
fn update_of(rank: u32, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
    for (i, (update, x)) in update.iter_mut().zip(params).enumerate() {
        let noise = ((u64::from(rank) * 31 + step * 17 + i as u64 * 7) % 23) as f32 / 23.0 - 0.5;
        // Clamped: with unbounded gradients, thirty stale workers would diverge.
        *update = 0.1 * (x.clamp(-2.0, 2.0) - 1.0) + 0.05 * noise;
    }
    1 + (rank + step as u32) % 3
}

impl App for Worker {
    fn duration(&mut self, step: u64) -> Duration {
        let mean = 1e6;
        let nanos = match self.steps {
            // All workers start together. The first step is longer by rank, so that they take turns from then on.
            Steps::RoundRobin if step == 0 => mean + mean / 64.0 * f64::from(self.me.0),
            Steps::RoundRobin => mean,
            Steps::Jittered => mean * (0.7 + 0.6 * self.random.unit()),
            Steps::Exponential => self.random.exponential(mean),
        };
        Duration::from_nanos(nanos as u64)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let examples = update_of(self.me.0, step, params, update);
        if self.poison == Some(step) {
            update[3] = f32::NAN;
        }
        examples
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        if self.me == PeerId(0) {
            self.history.lock().unwrap().push(params.to_vec());
        }
    }
}

/// A run without faults, over a network with a negligible delay.
fn plan(recipe: Recipe, workers: u32, steps: u64) -> Plan {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    Plan {
        network: Network { latency: Duration::from_nanos(1), ..Network::calm() },
        patience: Patience::default(),
        steps,
        ..Plan::new(1, Layout::flat(LEN), recipe, cluster)
    }
}

/// Runs a plan to its end. Returns the parameters after each step of worker 0 as well. `poison`: the step at which
/// worker 0 contributes a NaN.
fn simulate(plan: Plan, steps: Steps, poison: Option<u64>) -> (World, Vec<Vec<f32>>) {
    let history = Arc::new(Mutex::new(Vec::new()));
    let app = |me: PeerId| -> Box<dyn App> {
        let poison = poison.filter(|_| me == PeerId(0));
        Box::new(Worker {
            me,
            random: Random::new(plan.seed, 9 + u64::from(me.0)),
            steps,
            poison,
            history: Arc::clone(&history),
        })
    };
    let mut world = World::new(plan.clone(), app).unwrap();
    world.run(50_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap_or_else(|halt| panic!("{halt:?}"));
    let history = std::mem::take(&mut *history.lock().unwrap());
    (world, history)
}

/// The status of the server at the moment when the first worker has taken all of its steps. Afterwards fewer than N
/// updates are in flight, so that the law of staleness no longer holds.
fn status_at_first_finish(plan: Plan, steps: Steps) -> Status {
    let (workers, rounds) = (plan.cluster.workers, plan.steps);
    let app = |me: PeerId| -> Box<dyn App> {
        Box::new(Worker {
            me,
            random: Random::new(7, 9 + u64::from(me.0)),
            steps,
            poison: None,
            history: Arc::default(),
        })
    };
    let mut world = World::new(plan, app).unwrap();
    let end = world.run(50_000_000, |world, node| match world.steps(node) {
        taken if node.0 < workers && taken >= rounds => Err(End::Done),
        _ => Ok(()),
    });
    assert!(matches!(end, Err(End::Done)), "{end:?}");
    world.status(PeerId(workers)).unwrap()
}

/// Why a simulation was stopped before its end.
#[derive(Debug)]
enum End {
    /// The first worker has taken all of its steps.
    Done,
    #[allow(dead_code, reason = "printed by Debug")]
    Halt(gradwire_sim::Halt),
}

impl From<gradwire_sim::Halt> for End {
    fn from(halt: gradwire_sim::Halt) -> Self {
        Self::Halt(halt)
    }
}

/// Softsync with c updates per group and N workers that pull right after each push has a mean staleness of (N - 1) / c,
/// independent of the workers' speeds. Tolerance: 1 %, for the start of the run.
#[test]
fn mean_staleness_of_softsync_is_n_minus_1_over_c() {
    for steps in [Steps::RoundRobin, Steps::Jittered, Steps::Exponential] {
        for (workers, c) in [(2, 1), (4, 1), (4, 2), (4, 4), (30, 1), (30, 2), (30, 30), (64, 8), (64, 64)] {
            let recipe = Recipe::softsync(c).with_staleness(Staleness::constant());
            let rounds = 400.max(u64::from(workers) * 40);
            let status = status_at_first_finish(plan(recipe, workers, rounds), steps);
            let (mean, expected) = (status.staleness.mean(), f64::from(workers - 1) / f64::from(c));
            let error = (mean / expected - 1.0).abs();
            assert!(error < 0.01, "{steps:?}, {workers} workers, c = {c}: got {mean}, expected {expected}");
            assert!(status.staleness.count() >= rounds && status.counters.rejected == 0);
        }
    }
}

/// With 30 workers that take turns, the staleness is 29 for c = 1, 14 or 15 for c = 2, and 0 or 1 for c = 30, except at
/// the start of the run.
#[test]
fn round_robin_staleness_takes_one_or_two_values() {
    for (c, values) in [(1, 29..=29), (2, 14..=15), (30, 0..=1)] {
        let (world, _) = simulate(plan(Recipe::softsync(c), 30, 1000), Steps::RoundRobin, None);
        let histogram = world.status(PeerId(30)).unwrap().staleness;
        let inside: u64 = histogram.buckets()[*values.start()..=*values.end()].iter().sum();
        assert!(inside as f64 > 0.99 * histogram.count() as f64, "c = {c}: {:?}", histogram.buckets());
    }
}

/// Softsync with c = 1 and a constant staleness rule equals asynchronous SGD, bit for bit.
#[test]
fn softsync_of_one_equals_asynchronous_sgd() {
    for steps in [Steps::Jittered, Steps::Exponential] {
        let softsync = Recipe::softsync(1).with_staleness(Staleness::constant());
        let (one, _) = simulate(plan(softsync, 5, 40), steps, None);
        let (other, _) = simulate(plan(Recipe::asynchronous().with_lambda(1.0), 5, 40), steps, None);
        assert_eq!(one.params(PeerId(5)), other.params(PeerId(5)));
    }
}

/// An outer optimizer that does nothing is the recipe without one, bit for bit, with every merge rule.
#[test]
fn momentum_of_zero_at_a_rate_of_one_is_no_outer_optimizer() {
    for recipe in ["sync period=3", "sync topology=ring chunk=5", "hardsync", "async lambda=0.25", "softsync", "sparse"]
    {
        let plain: Recipe = recipe.parse().unwrap();
        for look in [false, true] {
            let outer =
                plain.with_outer(Outer::Momentum { mu: Mu::Fixed(0.0), rate: 1.0, look, scale: VelocityScale::Update });
            let [(one, _), (other, _)] =
                [plain, outer].map(|recipe| simulate(plan(recipe, 5, 24), Steps::Jittered, None));
            let bits = |world: &World| world.params(PeerId(0)).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&one), bits(&other), "{recipe}");
        }
    }
}

/// A worker whose update of element i is i, times a factor.
struct Constant {
    me: PeerId,
    scale: f32,
}

impl App for Constant {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_micros(10 + u64::from(self.me.0))
    }

    fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        (0u8..).zip(update).for_each(|(i, x)| *x = self.scale * f32::from(i));
        1
    }
}

fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}

fn shards(recipe: &Recipe) -> u32 {
    let Topology::Servers { shards } = recipe.topology() else { return 1 };
    shards
}

/// An update with a NaN is refused by the receiver, with the sender and the index of the element, and changes no
/// parameters.
#[test]
fn an_update_with_a_nan_is_refused() {
    let servers = Topology::Servers { shards: 1 };
    for recipe in [
        Recipe::sync().with_topology(servers),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::softsync(2),
        Recipe::ssp(0).with_lambda(1.0),
    ] {
        let (world, _) = simulate(plan(recipe, 3, 6), Steps::Jittered, Some(2));
        let refused: Vec<_> =
            world.log().iter().filter(|log| matches!(log.entry, Entry::Event(Event::Rejected { .. }))).collect();
        assert_eq!(refused.len(), 1, "{recipe}");
        let Entry::Event(Event::Rejected { peer, reason }) = refused[0].entry else { unreachable!() };
        assert_eq!((peer, reason.to_string().as_str()), (PeerId(0), "element 3 of shard 0 is not a finite number"));
        let status = world.status(PeerId(3)).unwrap();
        assert_eq!((status.counters.rejected, status.counters.applied), (1, 17), "{recipe}");
        assert!((0..4).all(|node| world.params(PeerId(node)).iter().all(|x| x.is_finite())), "{recipe}");
        assert!((0..3).all(|node| world.life(PeerId(node)) == Life::Done));
    }
    // In a tree, the parent leaves the contribution out of its mean.
    let mut tree = plan(Recipe::sync(), 3, 6);
    tree.seed = 2;
    let history = Arc::new(Mutex::new(Vec::new()));
    let app = |me: PeerId| -> Box<dyn App> {
        let poison = (me == PeerId(2)).then_some(2);
        Box::new(Worker {
            me,
            random: Random::new(2, 9),
            steps: Steps::Jittered,
            poison,
            history: Arc::clone(&history),
        })
    };
    let mut world = World::new(tree, app).unwrap();
    world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
    assert_eq!(world.status(PeerId(0)).unwrap().counters.rejected, 1);
    assert!(history.lock().unwrap().iter().flatten().all(|x: &f32| x.is_finite()));
}

/// The same seed gives the same run, and another seed a different one.
#[test]
fn a_seed_determines_the_run() {
    let trace = |seed| {
        let mut plan = plan(Recipe::asynchronous().with_lambda(1.0), 6, 30);
        plan.seed = seed;
        plan.network = Network::stormy(&mut Random::new(seed, 5));
        simulate(plan, Steps::Exponential, None).0.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
