//! Published laws, on the machines that ship: staleness (Zhang et al. 2016; the exact law of section "softsync"),
//! equalities between recipes, and equality of the simulator and real threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use gradwire::recipe::{OptimizerState, Pace, Staleness, Topology};
use gradwire::{Cluster, Event, Layout, Mem, PeerId, Recipe, RunState, Session, Status};
use gradwire_core::Patience;
use gradwire_sim::{App, Entry, Life, Network, Plan, Random, World};

const LEN: usize = 9;

/// How long a worker's steps take.
#[derive(Copy, Clone, Debug)]
enum Steps {
    RoundRobin,
    Jittered,
    Exponential,
}

struct Worker {
    me: PeerId,
    random: Random,
    steps: Steps,
    /// Contributes NaN at this step.
    poison: Option<u64>,
    history: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// What worker `rank` contributes at step `step`, and the examples behind it; it depends on the parameters, as a
/// gradient does.
fn update_of(rank: u32, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
    for (i, (update, x)) in update.iter_mut().zip(params).enumerate() {
        let noise = ((u64::from(rank) * 31 + step * 17 + i as u64 * 7) % 23) as f32 / 23.0 - 0.5;
        // Bounded, or thirty stale workers would diverge.
        *update = 0.1 * (x.clamp(-2.0, 2.0) - 1.0) + 0.05 * noise;
    }
    1 + (rank + step as u32) % 3
}

impl App for Worker {
    fn duration(&mut self, step: u64) -> Duration {
        let mean = 1e6;
        let nanos = match self.steps {
            // All start together: an offset puts them in a row.
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

fn plan(recipe: Recipe, workers: u32, steps: u64) -> Plan {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    Plan {
        network: Network { latency: Duration::from_nanos(1), ..Network::calm() },
        patience: Patience::default(),
        steps,
        ..Plan::new(1, Layout::flat(LEN), recipe, cluster)
    }
}

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

/// The server's status when the first worker has taken all its steps: later, fewer than N are in flight.
fn until_one_has_done(plan: Plan, steps: Steps) -> Status {
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

#[derive(Debug)]
enum End {
    Done,
    #[allow(dead_code, reason = "printed")]
    Halt(gradwire_sim::Halt),
}

impl From<gradwire_sim::Halt> for End {
    fn from(halt: gradwire_sim::Halt) -> Self {
        Self::Halt(halt)
    }
}

/// The exact law: when every worker pulls right after its push, the mean staleness is (N - 1) / c, whatever
/// the workers' speeds.
#[test]
fn mean_staleness_is_the_number_of_others_by_c() {
    for steps in [Steps::RoundRobin, Steps::Jittered, Steps::Exponential] {
        for (workers, c) in [(2, 1), (4, 1), (4, 2), (4, 4), (30, 1), (30, 2), (30, 30), (64, 8), (64, 64)] {
            let recipe = Recipe::softsync(c).with_staleness(Staleness::constant());
            let rounds = 400.max(u64::from(workers) * 40);
            let status = until_one_has_done(plan(recipe, workers, rounds), steps);
            let (mean, expected) = (status.staleness.mean(), f64::from(workers - 1) / f64::from(c));
            let error = (mean / expected - 1.0).abs();
            assert!(error < 0.01, "{steps:?}, {workers} workers, c = {c}: {mean}, not {expected}");
            assert!(status.staleness.count() >= rounds && status.counters.rejected == 0);
        }
    }
}

/// Round-robin, 30 workers: tau is 29 always for c = 1, {14, 15} for c = 2, {0, 1} for c = 30, but for the start.
#[test]
fn round_robin_staleness_takes_one_or_two_values() {
    for (c, values) in [(1, 29..=29), (2, 14..=15), (30, 0..=1)] {
        let (world, _) = simulate(plan(Recipe::softsync(c), 30, 1000), Steps::RoundRobin, None);
        let histogram = world.status(PeerId(30)).unwrap().staleness;
        let inside: u64 = histogram.buckets()[*values.start()..=*values.end()].iter().sum();
        assert!(inside as f64 > 0.99 * histogram.count() as f64, "c = {c}: {:?}", histogram.buckets());
    }
}

/// I-24: softsync with c = 1 and a constant rule is asynchronous SGD, bit for bit.
#[test]
fn softsync_of_one_is_asynchronous() {
    for steps in [Steps::Jittered, Steps::Exponential] {
        let softsync = Recipe::softsync(1).with_staleness(Staleness::constant());
        let (one, _) = simulate(plan(softsync, 5, 40), steps, None);
        let (other, _) = simulate(plan(Recipe::asynchronous(), 5, 40), steps, None);
        assert_eq!(one.params(PeerId(5)), other.params(PeerId(5)));
    }
}

/// I-37: SSP with bound 0 and deterministic workers is bulk-synchronous, bit for bit: w -= lambda (d_0 + d_1 + …), in
/// rank order, round by round.
#[test]
fn ssp_of_bound_zero_is_synchronous() {
    let (workers, lambda) = (4, 0.25);
    let recipe = Recipe::ssp(0).with_merge(gradwire::recipe::Merge::Sum { lambda });
    for steps in [Steps::RoundRobin, Steps::Exponential] {
        let (_, history) = simulate(plan(recipe, workers, 25), steps, None);
        let mut params = vec![0.0f32; LEN];
        for (step, got) in (0..).zip(&history) {
            let mut sum = vec![0.0f32; LEN];
            for rank in 0..workers {
                let mut update = vec![0.0; LEN];
                update_of(rank, step, &params, &mut update);
                sum.iter_mut().zip(&update).for_each(|(sum, x)| if rank == 0 { *sum = *x } else { *sum += x });
            }
            params.iter_mut().zip(&sum).for_each(|(p, x)| *p -= lambda * x);
            assert_eq!(got, &params, "after step {step}");
        }
        assert_eq!(history.len(), 25);
    }
}

/// I-01, I-04, I-05, I-13: one step of `workers` workers is one step on the union of their batches; so are averaging
/// with H = 1, and averaging of parameters or of updates. Off by at most N units in the last place per step.
#[test]
fn synchronous_steps_are_steps_on_the_union_batch() {
    let servers = Topology::Servers { shards: 2 };
    let recipes = [
        Recipe::sync(),
        Recipe::sync().with_topology(Topology::Tree { fan_in: 3 }),
        Recipe::sync().with_topology(servers),
        Recipe::averaging(1),
        Recipe::averaging(1).with_topology(servers),
    ];
    for workers in [1, 2, 4, 7] {
        for recipe in recipes {
            let (_, history) = simulate(plan(recipe, workers, 20), Steps::Jittered, None);
            let mut params = vec![0.0f64; LEN];
            for (step, got) in (0..).zip(&history) {
                let (mut sum, mut total) = (vec![0.0f64; LEN], 0.0);
                let current: Vec<f32> = params.iter().map(|p| *p as f32).collect();
                for rank in 0..workers {
                    let mut update = vec![0.0; LEN];
                    let weight = f64::from(update_of(rank, step, &current, &mut update));
                    sum.iter_mut().zip(&update).for_each(|(sum, x)| *sum += weight * f64::from(*x));
                    total += weight;
                }
                params.iter_mut().zip(&sum).for_each(|(p, x)| *p -= x / total);
                let tolerance = f64::from(f32::EPSILON) * f64::from(workers) * (step + 1) as f64;
                for (got, expected) in got.iter().zip(&params) {
                    assert!((f64::from(*got) - expected).abs() <= tolerance, "{recipe}, {workers}: {got} {expected}");
                }
            }
        }
    }
}

/// Sections 2 to 4: averaging parameters every H steps and applying the mean of updates over H steps are the same,
/// for any H and any local optimizer (I-13); so is where it happens (I-23: sharded or not, bit for bit).
#[test]
fn averaging_parameters_is_applying_mean_updates() {
    for period in [1, 5, 20] {
        for momentum in [0.0, 0.9] {
            let train = |recipe| with_momentum(recipe, 3, 40, momentum);
            let parameters = train(Recipe::averaging(period).with_optimizer(OptimizerState::Keep));
            let updates = train(Recipe::sync().with_period(period));
            for (a, b) in parameters.iter().zip(&updates) {
                assert!((a - b).abs() < 1e-5, "H = {period}, momentum {momentum}: {a} {b}");
            }
            let sharded =
                |shards| train(Recipe::sync().with_period(period).with_topology(Topology::Servers { shards }));
            assert_eq!(sharded(1), sharded(4), "H = {period}, momentum {momentum}");
        }
    }
}

/// I-08: with H = 1, momentum that is kept, and momentum that is averaged, are momentum on the mean gradient;
/// momentum that is reset is not.
#[test]
fn momentum_kept_or_averaged_is_momentum_of_the_mean() {
    let (workers, steps, mu) = (3, 12, 0.8f32);
    let mut expected = vec![0.0f32; LEN];
    let mut velocity = vec![0.0f32; LEN];
    for step in 0..steps {
        let (mut sum, mut total) = (vec![0.0f32; LEN], 0.0);
        for rank in 0..workers {
            let mut gradient = vec![0.0; LEN];
            update_of(rank, step, &expected, &mut gradient);
            let weight = 1.0 + rank as f32;
            sum.iter_mut().zip(&gradient).for_each(|(sum, g)| *sum += weight * g);
            total += weight;
        }
        for ((p, v), sum) in expected.iter_mut().zip(&mut velocity).zip(&sum) {
            *v = mu * *v + sum / total;
            *p -= *v;
        }
    }
    let distance = |policy| {
        let got = with_momentum(Recipe::averaging(1).with_optimizer(policy), workers, steps, mu);
        got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(distance(OptimizerState::Keep) < 1e-5);
    // Averaged by examples, as the gradients are.
    assert!(distance(OptimizerState::Average) < 1e-5);
    assert!(distance(OptimizerState::Reset) > 0.01);
}

/// Trains on threads with heavy-ball momentum at each worker; returns the parameters that all end with.
fn with_momentum(recipe: Recipe, workers: u32, steps: u64, mu: f32) -> Vec<f32> {
    let vectors = u32::from(recipe.optimizer() == OptimizerState::Average);
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let builder = Session::builder(Layout::flat(LEN), recipe, cluster).optimizer_vectors(vectors);
    let mut ends = Mem::cluster(cluster.nodes());
    let servers = ends.split_off(workers as usize);
    let servers: Vec<_> = servers.into_iter().map(|end| builder.clone().serve(end, &[0.0; LEN]).unwrap()).collect();
    let threads = ends.into_iter().zip(0..).map(|(transport, rank)| {
        let builder = builder.clone();
        thread::spawn(move || {
            let (mut params, mut gradient, mut velocity) = (vec![0.0; LEN], vec![0.0; LEN], vec![0.0; LEN]);
            let mut session = builder.join(transport, &mut params).unwrap();
            for step in 0..steps {
                update_of(rank, step, &params, &mut gradient);
                for ((p, v), g) in params.iter_mut().zip(&mut velocity).zip(&gradient) {
                    *v = mu * *v + g;
                    *p -= *v;
                }
                // The same share at every step: local momentum adds up to that of the mean only then.
                session.sync_with(&mut params, &mut [&mut velocity], 1 + rank).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    let threads: Vec<_> = threads.collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(results.iter().all(|params| params == &results[0]), "{recipe}");
    drop(servers);
    results.into_iter().next().unwrap()
}

/// I-26: when each worker contributes once from the same version, softsync of all is the mean of the round. I-27: with
/// every update k times as large, so is the step.
#[test]
fn a_full_softsync_group_is_a_round_and_scales() {
    let workers = 4;
    let first = |recipe: Recipe, scale: f32| {
        let plan = plan(recipe, workers, 1);
        let app = |me: PeerId| -> Box<dyn App> { Box::new(Scaled { me, scale }) };
        let mut world = World::new(plan, app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(workers)).to_vec()
    };
    let servers = Topology::Servers { shards: 1 };
    let round = first(Recipe::sync().with_topology(servers), 1.0);
    let group = first(Recipe::softsync(workers).with_staleness(Staleness::constant()), 1.0);
    for (a, b) in round.iter().zip(&group) {
        assert!((a - b).abs() <= 4.0 * f32::EPSILON, "{a} {b}");
    }
    let twice: Vec<f32> = group.iter().map(|x| x * 4.0).collect();
    assert_eq!(first(Recipe::softsync(workers).with_staleness(Staleness::constant()), 4.0), twice);
}

/// Contributes the same weight of whatever it computes, times a factor.
struct Scaled {
    me: PeerId,
    scale: f32,
}

impl App for Scaled {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_micros(1 + u64::from(self.me.0))
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        update_of(self.me.0, step, params, update);
        update.iter_mut().for_each(|x| *x *= self.scale);
        1
    }
}

/// Synchronous recipes give the same bits on real threads as in the simulator, whatever the schedule.
#[test]
fn threads_and_simulator_agree_bit_for_bit() {
    let servers = Topology::Servers { shards: 3 };
    let recipes = [
        Recipe::sync(),
        Recipe::averaging(3),
        Recipe::sync().with_period(4),
        Recipe::sync().with_topology(servers),
        Recipe::averaging(2).with_topology(servers),
        Recipe::ssp(0).with_topology(servers),
        Recipe::ssp(0).with_pace(Pace::Synchronous),
    ];
    for recipe in recipes {
        let workers = 5;
        let (world, _) = simulate(plan(recipe, workers, 13), Steps::Exponential, None);
        for params in on_threads(recipe, workers, 13) {
            assert_eq!(params, world.params(PeerId(0)), "{recipe}");
        }
    }
}

fn on_threads(recipe: Recipe, workers: u32, steps: u64) -> Vec<Vec<f32>> {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let mut ends = Mem::cluster(cluster.nodes());
    let servers: Vec<_> = ends.split_off(workers as usize);
    let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
    let mut servers: Vec<_> = servers.into_iter().map(|end| builder.clone().serve(end, &[0.0; LEN]).unwrap()).collect();
    let threads = ends.into_iter().zip(0..).map(|(transport, rank)| {
        let builder = builder.clone();
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder.join(transport, &mut params).unwrap();
            let mut update = vec![0.0; LEN];
            for step in 0..steps {
                let examples = update_of(rank, step, &params, &mut update);
                session.step(&mut params, &update, examples).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    let threads: Vec<_> = threads.collect();
    let params = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    servers.iter_mut().for_each(|server| {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(20)).unwrap(), RunState::Ended);
    });
    params
}

/// I-46 and its kin: a non-finite update is refused by whoever receives it, named, and touches nothing.
#[test]
fn a_poisoned_update_is_refused_and_named() {
    let servers = Topology::Servers { shards: 1 };
    for recipe in [Recipe::sync().with_topology(servers), Recipe::asynchronous(), Recipe::softsync(2), Recipe::ssp(0)] {
        let (world, _) = simulate(plan(recipe, 3, 6), Steps::Jittered, Some(2));
        let refused: Vec<_> =
            world.log().iter().filter(|log| matches!(log.entry, Entry::Event(Event::Rejected { .. }))).collect();
        assert_eq!(refused.len(), 1, "{recipe}");
        let Entry::Event(Event::Rejected { peer, reason }) = refused[0].entry else { unreachable!() };
        assert_eq!(
            (peer, reason.to_string().as_str()),
            (PeerId(0), "a float that is not finite at index 3 of shard 0")
        );
        let status = world.status(PeerId(3)).unwrap();
        assert_eq!((status.counters.rejected, status.counters.applied), (1, 17), "{recipe}");
        assert!((0..4).all(|node| world.params(PeerId(node)).iter().all(|x| x.is_finite())), "{recipe}");
        assert!((0..3).all(|node| world.life(PeerId(node)) == Life::Done));
    }
    // In a tree, a child's poisoned contribution counts for nothing.
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

/// The same seed gives the same run, another seed another.
#[test]
fn a_run_is_repeatable_from_its_seed() {
    let trace = |seed| {
        let mut plan = plan(Recipe::asynchronous(), 6, 30);
        plan.seed = seed;
        plan.network = Network::stormy(&mut Random::new(seed, 5));
        simulate(plan, Steps::Exponential, None).0.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
