//! Laws that the algorithms must obey, on the machines of the library: the staleness of softsync (Zhang et al. 2016),
//! equalities between recipes, and equality of the simulator and real threads.
//!
//! The doc comment of each test explains the invariant whose number (`I-n`) it carries.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use gradwire::recipe::{Adapt, Mu, OptimizerState, Outer, Pace, Period, Pushes, Staleness, Topology};
use gradwire::{Cluster, Event, Layout, Mem, PeerId, Recipe, RunState, Session, Status};
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

/// I-24: softsync with c = 1 and a constant staleness rule equals asynchronous SGD, bit for bit.
#[test]
fn softsync_of_one_equals_asynchronous_sgd() {
    for steps in [Steps::Jittered, Steps::Exponential] {
        let softsync = Recipe::softsync(1).with_staleness(Staleness::constant());
        let (one, _) = simulate(plan(softsync, 5, 40), steps, None);
        let (other, _) = simulate(plan(Recipe::asynchronous().with_lambda(1.0), 5, 40), steps, None);
        assert_eq!(one.params(PeerId(5)), other.params(PeerId(5)));
    }
}

/// I-70: an outer optimizer that does nothing is the recipe without one, bit for bit, with every merge rule.
#[test]
fn momentum_of_zero_at_a_rate_of_one_is_no_outer_optimizer() {
    for recipe in ["sync period=3", "sync topology=ring chunk=5", "hardsync", "async lambda=0.25", "softsync", "sparse"]
    {
        let plain: Recipe = recipe.parse().unwrap();
        for look in [false, true] {
            let outer = plain.with_outer(Outer::Momentum { mu: Mu::Fixed(0.0), rate: 1.0, look });
            let [(one, _), (other, _)] =
                [plain, outer].map(|recipe| simulate(plan(recipe, 5, 24), Steps::Jittered, None));
            let bits = |world: &World| world.params(PeerId(0)).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&one), bits(&other), "{recipe}");
        }
    }
}

/// A fetch at every push is no fetch of its own. And one worker that pushes every update has the parameters that it
/// could fetch: it may fetch as rarely as it likes. Both bit for bit.
#[test]
fn fetching_at_every_push_is_asynchronous_sgd() {
    let run = |recipe: &str, workers| simulate(plan(recipe.parse().unwrap(), workers, 24), Steps::Jittered, None);
    for recipe in ["async", "async period=3", "softsync", "async pull=f16"] {
        let period = recipe.parse::<Recipe>().unwrap().period().at(0);
        let apart = format!("{recipe} fetch={period}");
        assert_eq!(run(recipe, 5).0.params(PeerId(5)), run(&apart, 5).0.params(PeerId(5)), "{recipe}");
    }
    let (_, every) = run("async lambda=1", 1);
    for fetch in [2, 5, 100] {
        assert_eq!(run(&format!("async lambda=1 fetch={fetch}"), 1).1, every, "fetch={fetch}");
    }
    // Two workers see less of each other then.
    assert_ne!(run("async lambda=1 fetch=5", 2).1, run("async lambda=1", 2).1);
}

/// A worker receives parameters when it fetches them, and not when it pushes. Sessions over threads.
#[test]
fn a_push_alone_brings_no_parameters() {
    const LONG: usize = 1000;
    let received = |recipe: &str| {
        let recipe: Recipe = recipe.parse().unwrap();
        let cluster = Cluster { workers: 1, servers: 1 };
        let builder = Session::builder(Layout::flat(LONG), recipe, cluster);
        let mut ends = Mem::cluster(2);
        let server = builder.clone().serve(ends.pop().unwrap(), &[0.0; LONG]).unwrap();
        let mut params = vec![0.0; LONG];
        let mut session = builder.join(ends.pop().unwrap(), &mut params).unwrap();
        for step in 1..=12u8 {
            session.step(&mut params, &[0.5; LONG], 1).unwrap();
            assert_eq!(params[7], -0.5 * f32::from(step), "{recipe}");
        }
        let links = session.status().unwrap().links;
        session.finish(&mut params).unwrap();
        assert_eq!(params, [-6.0; LONG], "{recipe}");
        drop(server);
        let all = |of: fn(&gradwire_core::status::LinkStatus) -> u64| links.iter().map(of).sum::<u64>();
        (all(|link| link.bytes_in) / 4000, all(|link| link.bytes_out) / 4000)
    };
    // Vectors: one to begin with.
    assert_eq!(received("async lambda=1"), (13, 12));
    assert_eq!(received("async lambda=1 fetch=6"), (3, 12));
    assert_eq!(received("async lambda=1 period=3 fetch=12"), (2, 4));
}

/// A step of Adagrad at a server does not depend on the scale of the updates, and an element whose updates are
/// 0 stays where it is.
#[test]
fn downpour_does_not_depend_on_the_scale_of_updates() {
    let ends = |scale: f32| {
        let app = move |me: PeerId| -> Box<dyn App> { Box::new(Constant { me, scale }) };
        let recipe: Recipe = "downpour floor=1e-30".parse().unwrap();
        let mut world = World::new(plan(recipe, 3, 20), app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(0)).to_vec()
    };
    let (one, large) = (ends(1.0), ends(4096.0));
    assert_eq!((one[0], large[0]), (0.0, 0.0));
    assert!(one[1..].iter().all(|x| *x < -0.1), "{one:?}");
    assert!(one.iter().zip(&large).all(|(one, large)| (one - large).abs() < 1e-6), "{one:?} {large:?}");
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

/// 1-bit SGD (Seide et al. 2014): the first step moves each element by the mean of the elements of its column with its
/// sign. Columns are those of the layout.
#[test]
fn signs_move_by_the_means_of_their_columns() {
    let layout = Layout::new().tensor("w", &[40, 3]).tensor("b", &[7]);
    let update: Vec<f32> = (0..127).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0).collect();
    for (recipe, servers) in [("one-bit-sgd", 1), ("sync topology=mesh codec=sign scope=column", 0)] {
        let (recipe, cluster) = (recipe.parse::<Recipe>().unwrap(), Cluster { workers: 1, servers });
        let builder = Session::builder(layout.clone(), recipe, cluster);
        let mut ends = Mem::cluster(1 + servers);
        let server = (servers > 0).then(|| builder.clone().serve(ends.pop().unwrap(), &[0.0; 127]).unwrap());
        let mut params = vec![0.0; 127];
        let mut session = builder.join(ends.pop().unwrap(), &mut params).unwrap();
        session.step(&mut params, &update, 1).unwrap();
        // A server answers with floats first.
        for (i, x) in params.iter().enumerate() {
            let of = |j: &usize| if i < 120 { *j < 120 && j % 3 == i % 3 } else { *j >= 120 };
            let side: Vec<f32> =
                (0..127).filter(of).map(|j| update[j]).filter(|x| (*x < 0.0) == (update[i] < 0.0)).collect();
            let mean = side.iter().sum::<f32>() / side.len() as f32;
            assert!((x + mean).abs() < 1e-5, "{recipe}: element {i} is {x}, expected {}", -mean);
        }
        session.finish(&mut params).unwrap();
        drop(server);
    }
}

/// With all elements, sparse messages leave no residual. So they are the dense recipe, whatever decays, bit for bit.
#[test]
fn all_of_the_largest_elements_are_the_dense_recipe() {
    for dense in ["hardsync period=3", "hardsync shards=2", "async lambda=0.25", "hardsync period=4 outer=momentum"] {
        for sparse in ["codec=topk density=1 decay=1", "codec=topk density=1 decay=0.5"] {
            let [(one, _), (other, _)] = [dense.to_string(), format!("{dense} {sparse}")]
                .map(|recipe| simulate(plan(recipe.parse().unwrap(), 5, 24), Steps::Jittered, None));
            let bits = |world: &World| world.params(PeerId(0)).iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&one), bits(&other), "{dense} {sparse}");
        }
    }
}

/// A delay of strength 0, or of one worker, corrects nothing, bit for bit. More workers are late.
#[test]
fn without_delays_a_correction_of_delays_is_asynchronous_sgd() {
    let run = |recipe: &str, workers| {
        let (world, _) = simulate(plan(recipe.parse().unwrap(), workers, 24), Steps::Jittered, None);
        world.params(PeerId(workers)).to_vec()
    };
    for preset in ["dc-asgd", "dc-asgd-a"] {
        assert_eq!(run(&format!("{preset} strength=0"), 5), run("async", 5), "{preset}");
        assert_eq!(run(preset, 1), run("async", 1), "{preset}");
        assert_ne!(run(preset, 5), run("async", 5), "{preset}");
        assert_eq!(on_threads(preset.parse().unwrap(), 1, 24), on_threads(Recipe::asynchronous(), 1, 24), "{preset}");
    }
}

/// A step of FASGD does not depend on the scale of the updates, and an element whose updates are 0 stays.
#[test]
fn fasgd_does_not_depend_on_the_scale_of_updates() {
    let ends = |scale: f32| {
        let app = move |me: PeerId| -> Box<dyn App> { Box::new(Constant { me, scale }) };
        let recipe: Recipe = "fasgd least=1e-30".parse().unwrap();
        let mut world = World::new(plan(recipe, 3, 20), app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(0)).to_vec()
    };
    let (one, large) = (ends(1.0), ends(4096.0));
    assert_eq!((one[0], &one), (0.0, &large));
    assert!(one[1..].iter().all(|x| *x < -0.05), "{one:?}");
}

/// Elastic averaging over threads. Workers that do not move stay where the center is, and constant updates
/// move the sum of workers and center by themselves alone.
#[test]
fn workers_and_center_of_elastic_averaging_move_by_their_updates() {
    for recipe in ["easgd period=2", "aeasgd period=2 shards=2", "easgd period=1 alpha=1/n", "aeasgd period=3 alpha=1"]
    {
        for update in [0.0f32, 0.125] {
            let recipe: Recipe = recipe.parse().unwrap();
            let cluster = Cluster { workers: 3, servers: 1 };
            let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
            let mut ends = Mem::cluster(4);
            let mut server = builder.clone().serve(ends.pop().unwrap(), &[5.0; LEN]).unwrap();
            let threads = ends.into_iter().map(|end| {
                let builder = builder.clone();
                thread::spawn(move || {
                    let mut params = vec![0.0; LEN];
                    let mut session = builder.join(end, &mut params).unwrap();
                    // A multiple of all periods.
                    for _ in 0..12 {
                        session.step(&mut params, &[update; LEN], 1).unwrap();
                    }
                    let own = params.clone();
                    session.finish(&mut params).unwrap();
                    (own, params)
                })
            });
            let threads: Vec<_> = threads.collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let mut center = vec![0.0; LEN];
            assert_eq!(server.wait(&mut center, Duration::from_secs(20)).unwrap(), RunState::Ended);
            for i in 0..LEN {
                let sum = center[i] + ended.iter().map(|(own, _)| own[i]).sum::<f32>();
                assert!((sum - (20.0 - 36.0 * update)).abs() < 1e-5, "{recipe}: {sum}");
            }
            assert!(ended.iter().all(|(_, params)| *params == center), "{recipe}");
            assert!(update != 0.0 || center == [5.0; LEN], "{recipe}");
        }
    }
}

/// Delayed Nesterov with a milestone at each update is Nesterov's momentum, bit for bit.
#[test]
fn a_milestone_at_each_update_is_nesterovs_momentum() {
    for recipe in ["async lambda=0.25", "softsync", "ssp shards=2"] {
        let mu = Mu::Fixed(0.5);
        let plain: Recipe = recipe.parse().unwrap();
        let bits = |outer| {
            let (world, _) = simulate(plan(plain.with_outer(outer), 5, 24), Steps::Jittered, None);
            world.params(PeerId(0)).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let momentum = bits(Outer::Momentum { mu, rate: 0.7, look: true });
        assert_eq!(bits(Outer::DelayedNesterov { mu, rate: 0.7, pushes: Pushes::Fixed(1) }), momentum, "{recipe}");
        assert_ne!(bits(Outer::DelayedNesterov { mu, rate: 0.7, pushes: Pushes::Fixed(2) }), momentum, "{recipe}");
    }
}

/// Delayed Nesterov: n updates that n workers have computed from the same parameters move them as far as one step of
/// Nesterov's momentum on their mean.
#[test]
fn delayed_nesterov_of_all_workers_is_a_round_of_diloco() {
    let (_, each) =
        simulate(plan("async outer=delayed-nesterov mu=0.5".parse().unwrap(), 1, 24), Steps::Jittered, None);
    let (_, round) = simulate(plan("diloco period=1 mu=0.5".parse().unwrap(), 1, 24), Steps::Jittered, None);
    assert_eq!(each, round);
    // Constant updates: the gain is that of the momentum, n updates after n updates.
    let recipe: Recipe = "async outer=delayed-nesterov mu=0.5 rate=0.5".parse().unwrap();
    let params = on_threads_with(recipe, 4, 40, |_, _, _, update| update.fill(1.0));
    let (mut velocity, mut expected) = (0.0f32, 0.0f32);
    for _ in 0..40 {
        velocity = 0.5 * velocity + 0.5;
        expected -= 0.5 + 0.5 * velocity;
    }
    assert!(params.iter().flatten().all(|x| (x - expected).abs() < 1e-4), "{params:?} {expected}");
}

fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}

/// I-92, I-108: a round that waits for the first n of n contributions is a synchronous round, bit for bit, whatever the
/// grace and the order of arrival, with every merge rule of rounds, also over broken connections.
#[test]
fn the_first_n_of_n_are_a_synchronous_round() {
    for base in [
        "hardsync",
        "hardsync shards=3 period=2",
        "hardsync merge=sum lambda=0.25",
        "averaging period=2 topology=servers shards=2",
        "diloco topology=servers period=2",
        "hardsync codec=int8 pull=bf16",
    ] {
        for numbers in ["count=n", "count=5 grace=3ms", "count=n grace=20s late=next", "count=n late=drop"] {
            let late = if base.starts_with("averaging") { "late=drop" } else { "" };
            let run = |pace: &str| {
                let recipe: Recipe = format!("{base} {pace}").parse().unwrap();
                let mut plan = plan(recipe, 5, 24);
                plan.cluster.servers = if base.contains("shards=3") { 2 } else { 1 };
                plan.network = Network::stormy(&mut Random::new(3, 5));
                let (world, history) = simulate(plan, Steps::Exponential, None);
                let counters = world.status(PeerId(5)).unwrap().counters;
                assert_eq!((counters.late, counters.deferred), (0, 0), "{recipe}");
                (bits(world.params(PeerId(0))), history.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>())
            };
            assert_eq!(run(""), run(&format!("pace=first {numbers} {late}")), "{base} {numbers}");
        }
    }
}

/// The times at which a server has ended its rounds, in milliseconds since the workers have begun.
fn round_times(count: u32, workers: u32, steps: u64, seed: u64) -> Vec<f64> {
    let recipe: Recipe = format!("backup-workers count={count}").parse().unwrap();
    let plan = Plan { seed, ..plan(recipe, workers, steps) };
    let app = |me: PeerId| -> Box<dyn App> { Box::new(worker(me, seed)) };
    let (mut world, mut times, mut begun) = (World::new(plan, app).unwrap(), Vec::new(), None);
    world
        .run(50_000_000, |world, _| {
            if begun.is_none() && world.is_computing(PeerId(0)) {
                begun = Some(world.now());
            }
            let version = world.status(PeerId(workers)).map_or(0, |status| status.clock.0);
            if version > times.len() as u64 {
                times.push(world.now().since(begun.unwrap()).as_nanos() as f64 / 1e6);
            }
            Ok::<(), gradwire_sim::Halt>(())
        })
        .unwrap();
    times
}

fn worker(me: PeerId, seed: u64) -> Worker {
    let random = Random::new(seed, 9 + u64::from(me.0));
    Worker { me, random, steps: Steps::Exponential, poison: None, history: Arc::default() }
}

/// I-111: where all workers begin together, a round takes as long as the K-th fastest of N; with exponential times of
/// mean 1 ms that is `H_N - H_(N-K)` on average. Tolerance: 4 standard errors of the 1,000 rounds.
#[test]
fn a_round_takes_as_long_as_the_kth_fastest_worker() {
    for (count, workers) in [(1, 4), (3, 4), (4, 4), (6, 8)] {
        let runs = 1000;
        let times: Vec<f64> = (0..runs).map(|seed| round_times(count, workers, 1, seed)[0]).collect();
        let mean = times.iter().sum::<f64>() / f64::from(runs as u32);
        let parts = || (workers - count + 1..=workers).map(f64::from);
        let expected: f64 = parts().map(|i| 1.0 / i).sum();
        let variance: f64 = parts().map(|i| 1.0 / (i * i)).sum();
        let tolerance = 4.0 * (variance / f64::from(runs as u32)).sqrt();
        assert!((mean - expected).abs() < tolerance, "first {count} of {workers}: {mean}, expected {expected}");
    }
}

/// I-93, I-111: nobody waits for a late worker. All rounds of a run end when a model says so that knows only the
/// durations of the steps: a worker begins a step when the round ends that its contribution is in, or at once when it is
/// late.
#[test]
fn rounds_end_as_the_durations_of_the_steps_say() {
    let (count, workers, steps) = (3, 5, 60);
    for seed in 0..5 {
        let got = round_times(count, workers, steps, seed);
        let mut apps: Vec<Worker> = (0..workers).map(|rank| worker(PeerId(rank), seed)).collect();
        // By worker: when its present step ends, the round that the step belongs to, and the steps that it has begun.
        let mut ends: Vec<(f64, usize, u64)> = Vec::new();
        for app in &mut apps {
            ends.push((app.duration(0).as_nanos() as f64 / 1e6, 0, 1));
        }
        let (mut round, mut here, mut expected) = (0, Vec::new(), Vec::new());
        // Until a worker has taken all of its steps.
        while ends.iter().all(|(.., begun)| *begun < steps) {
            let busy = (0..workers as usize).filter(|worker| !here.contains(worker));
            let next = busy.min_by(|a, b| ends[*a].0.total_cmp(&ends[*b].0)).unwrap();
            let (now, of, _) = ends[next];
            let mut free = vec![next];
            if of == round {
                here.push(next);
                if here.len() < count as usize {
                    continue;
                }
                (round, free) = (round + 1, std::mem::take(&mut here));
                expected.push(now);
            }
            for worker in free {
                let begun = ends[worker].2;
                ends[worker] = (now + apps[worker].duration(begun).as_nanos() as f64 / 1e6, round, begun + 1);
            }
        }
        assert!(expected.len() > 30, "{} rounds", expected.len());
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            // Each message takes a nanosecond or more.
            assert!((got - expected).abs() < 0.01, "seed {seed}, round {i}: {got} ms, expected {expected} ms");
        }
    }
}

/// I-109, I-110: on threads, each contribution is applied or late, none is stale, and the slow worker holds up nobody.
#[test]
fn on_threads_each_contribution_is_applied_or_late() {
    for (text, workers, steps) in [
        ("backup-workers", 4, 40),
        ("backup-workers count=1 shards=2", 3, 40),
        ("backup-workers count=2 grace=1ms late=next", 4, 40),
        ("backup-workers count=n-1 late=next shards=3 codec=int8 pull=bf16", 5, 40),
    ] {
        let recipe: Recipe = text.parse().unwrap();
        let (params, server) = with_servers(recipe, workers, steps);
        assert!(params.iter().all(|other| bits(other) == bits(&params[0])), "{text}");
        let (counters, made) = (server.counters, u64::from(workers) * steps * u64::from(shards(&recipe)));
        assert_eq!(counters.applied + counters.late, made, "{text}: {counters:?}");
        let drops = !text.contains("late=next");
        assert!(if drops { counters.deferred == 0 } else { counters.late == 0 }, "{text}: {counters:?}");
        assert!(!drops || server.staleness.max() == 0, "{text}: {:?}", server.staleness);
    }
}

fn shards(recipe: &Recipe) -> u32 {
    let Topology::Servers { shards } = recipe.topology() else { return 1 };
    shards
}

/// I-77: one worker with a rate and no momentum is Lookahead (Zhang et al. 2019): after H steps, the parameters go a
/// share of the way from where they were to where the steps have led.
#[test]
fn one_worker_with_a_rate_is_lookahead() {
    let (_, history) = simulate(plan("lookahead period=4".parse().unwrap(), 1, 24), Steps::Jittered, None);
    let (mut slow, mut fast) = (vec![0.0f32; LEN], vec![0.0f32; LEN]);
    for (step, got) in (0..).zip(&history) {
        let mut update = vec![0.0; LEN];
        update_of(0, step, &fast, &mut update);
        fast.iter_mut().zip(&update).for_each(|(x, update)| *x -= update);
        if step % 4 == 3 {
            slow.iter_mut().zip(&fast).for_each(|(slow, fast)| *slow += 0.8 * (fast - *slow));
            fast.clone_from(&slow);
        }
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6;
        assert!(got.iter().zip(&fast).all(near), "after step {step}: {got:?} instead of {fast:?}");
    }
    assert_eq!(history.len(), 24);
}

/// I-16, I-72: with constant updates, the parameters move by `rate / (1 - mu)` times the update in each round, once the
/// velocity is there.
#[test]
fn a_constant_update_moves_by_the_gain() {
    let recipe: Recipe = "diloco period=1 mu=0.5".parse().unwrap();
    let session = move |rank: u32, transport: Mem| {
        let cluster = Cluster { workers: 2, servers: 0 };
        let mut params = vec![0.0f32];
        let mut session = Session::builder(Layout::flat(1), recipe, cluster).join(transport, &mut params).unwrap();
        let mut moves = Vec::new();
        for _ in 0..40 {
            let before = params[0];
            session.step(&mut params, &[if rank == 0 { 0.5 } else { 1.5 }], 1).unwrap();
            moves.push(before - params[0]);
        }
        session.finish(&mut params).unwrap();
        moves
    };
    let threads: Vec<_> =
        (0..).zip(Mem::cluster(2)).map(|(rank, end)| thread::spawn(move || session(rank, end))).collect();
    for moves in threads.into_iter().map(|thread| thread.join().unwrap()) {
        // I-71: from a velocity of 0, one round moves by rate (1 + mu) looking ahead.
        assert!((moves[0] - 1.05).abs() < 1e-6 && (moves[39] - 1.4).abs() < 1e-5, "{moves:?}");
    }
}

/// I-37: SSP with bound 0 and deterministic workers is bulk-synchronous, bit for bit: each round is
/// w -= lambda (d_0 + d_1 + …), summed in rank order.
#[test]
fn ssp_with_bound_zero_is_bulk_synchronous() {
    let (workers, lambda) = (4, 0.25);
    let recipe = Recipe::ssp(0).with_lambda(lambda);
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

/// I-01, I-04, I-05, I-13: a synchronous step of N workers equals a step on the union of their batches, and so does
/// averaging of parameters with H = 1. Tolerance: N units in the last place per step.
#[test]
fn a_synchronous_step_equals_a_step_on_the_union_batch() {
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
                    assert!((f64::from(*got) - expected).abs() <= tolerance, "{recipe}, {workers}: {got}, {expected}");
                }
            }
        }
    }
}

/// I-13: averaging parameters every H steps gives the same result as applying the mean of the updates over H steps, for
/// any H and any local optimizer. I-23: the number of shards does not change the result, bit for bit.
#[test]
fn averaging_parameters_equals_applying_mean_updates() {
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

/// I-08: with H = 1, local momentum that is kept or averaged equals momentum on the mean gradient. Momentum that is
/// reset does not.
#[test]
fn kept_or_averaged_momentum_equals_momentum_of_the_mean_gradient() {
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
    // Momentum is weighted by examples, as the gradients are.
    assert!(distance(OptimizerState::Average) < 1e-5);
    assert!(distance(OptimizerState::Reset) > 0.01);
}

/// Trains on threads, with heavy-ball momentum at each worker. Returns the final parameters, which all workers share.
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
                // The weight of a worker is constant: only then does averaged momentum equal momentum of the mean.
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

/// I-26: if each worker contributes once from the same version, a softsync group of all workers equals the mean of a
/// synchronous round. I-27: if every update is k times as large, the step is k times as large.
#[test]
fn a_softsync_group_of_all_workers_equals_a_round() {
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
    let four_times: Vec<f32> = group.iter().map(|x| x * 4.0).collect();
    assert_eq!(first(Recipe::softsync(workers).with_staleness(Staleness::constant()), 4.0), four_times);
}

/// A contribution without examples has no body. It is in its turn as soon as the ones before it are merged, whoever came
/// first, and then nothing else happens that could wake the server.
#[test]
fn workers_without_examples_hold_up_no_round() {
    for text in ["hardsync", "hardsync shards=2 codec=int8", "ssp bound=1", "softsync updates=2 codec=sign"] {
        for busy in [[false, true, true], [true, false, false], [false, false, true], [false; 3]] {
            // Without timeouts, nothing but messages wakes a node.
            let plan = Plan { patience: Patience::none(), ..plan(text.parse().unwrap(), 3, 4) };
            let app = |me: PeerId| -> Box<dyn App> { Box::new(Partly { me, busy: busy[me.index()] }) };
            let mut world = World::new(plan, app).unwrap();
            world
                .run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(()))
                .unwrap_or_else(|halt| panic!("{text}: {halt:?}"));
            let reconnects = world.status(PeerId(3)).unwrap().counters.reconnects;
            assert_eq!(reconnects, 0, "{text}: a connection was closed");
        }
    }
}

/// A worker that has examples if it is busy. The last ranks are the fastest.
struct Partly {
    me: PeerId,
    busy: bool,
}

impl App for Partly {
    fn duration(&mut self, _step: u64) -> gradwire_core::Duration {
        gradwire_core::Duration::from_millis(10 - u64::from(self.me.0))
    }

    fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(0.5);
        u32::from(self.busy)
    }
}

/// A worker whose updates are multiplied by a factor, and always have the weight 1.
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

/// Synchronous recipes end with the same parameters on real threads and in the simulator, bit for bit.
#[test]
fn threads_and_simulator_agree_bit_for_bit() {
    let servers = Topology::Servers { shards: 3 };
    let recipes = [
        Recipe::sync(),
        Recipe::averaging(3),
        Recipe::sync().with_period(4),
        Recipe::sync().with_topology(servers),
        Recipe::averaging(2).with_topology(servers),
        Recipe::ssp(0).with_lambda(1.0).with_topology(servers),
        Recipe::ssp(0).with_lambda(1.0).with_pace(Pace::Synchronous),
        "diloco period=2".parse().unwrap(),
        "fedadam period=3 topology=ring chunk=3".parse().unwrap(),
        "bmuf period=2 topology=servers shards=3".parse().unwrap(),
        "diloco period=2 topology=servers shards=3 merge=trimmed-mean".parse().unwrap(),
        "hardsync merge=norm-clip".parse().unwrap(),
        "hardsync merge=centred-clip radius=0.125 outer=momentum".parse().unwrap(),
        "hardsync merge=krum best=3".parse().unwrap(),
        "hardsync merge=adasum".parse().unwrap(),
    ];
    for recipe in recipes {
        let workers = 5;
        let (world, _) = simulate(plan(recipe, workers, 13), Steps::Exponential, None);
        for params in on_threads(recipe, workers, 13) {
            assert_eq!(params, world.params(PeerId(0)), "{recipe}");
        }
    }
}

/// AdaComm: periods go by the mean loss, divided by the learning rate, that the sessions report.
#[test]
fn periods_follow_the_losses_that_sessions_report() {
    for base in ["averaging", "sync topology=ring", "sparse codec=int8"] {
        let adaptive: Recipe = format!("{base} period=4 adapt=loss").parse().unwrap();
        let fixed = |period: u32| on_threads(adaptive.with_adapt(Adapt::None).with_period(period), 3, 16);
        let train = |loss: fn(u32) -> f32, rate: f32| {
            on_threads_with(adaptive, 3, 16, move |session, rank, step, _| {
                // From the end of the first period on.
                session.set_learning_rate(if step < 4 { 1.0 } else { rate });
                session.report_progress(if step < 4 { 2.0 } else { loss(rank) }, f32::NAN);
            })
        };
        assert_eq!(train(|_| 2.0, 1.0), fixed(4), "{base}");
        assert_eq!(on_threads(adaptive, 3, 16), fixed(4), "{base}: no loss is reported");
        // Periods of 4, 4, 2, 2, 2 and 2 steps, in all of these.
        let short = train(|_| 0.5, 1.0);
        assert_ne!(short, fixed(4), "{base}");
        assert_eq!(short, on_threads(adaptive.with_adapt(Adapt::None).with_period(halved()), 3, 16), "{base}");
        assert_eq!(train(|_| 1.0, 2.0), short, "{base}: twice the rate");
    }
}

/// Periods of 4 steps, and from step 8 on of 2.
fn halved() -> Period {
    "4,2@8".parse().unwrap()
}

/// Trains on threads. Returns the final parameters of each worker.
fn on_threads(recipe: Recipe, workers: u32, steps: u64) -> Vec<Vec<f32>> {
    train(recipe, workers, steps, |_, _, _, _| {}).0
}

/// Trains on threads, and calls `before` before each step with the session, its rank, the step, and the update.
fn on_threads_with(
    recipe: Recipe,
    workers: u32,
    steps: u64,
    before: impl Fn(&mut Session, u32, u64, &mut [f32]) + Copy + Send + 'static,
) -> Vec<Vec<f32>> {
    train(recipe, workers, steps, before).0
}

/// The same with one server, and its last status.
fn with_servers(recipe: Recipe, workers: u32, steps: u64) -> (Vec<Vec<f32>>, Status) {
    let (params, mut statuses) = train(recipe, workers, steps, |_, _, _, _| {});
    (params, statuses.remove(0))
}

fn train(
    recipe: Recipe,
    workers: u32,
    steps: u64,
    before: impl Fn(&mut Session, u32, u64, &mut [f32]) + Copy + Send + 'static,
) -> (Vec<Vec<f32>>, Vec<Status>) {
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
                before(&mut session, rank, step, &mut update);
                session.step(&mut params, &update, examples).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    let threads: Vec<_> = threads.collect();
    let params = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let statuses = servers.iter_mut().map(|server| {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(20)).unwrap(), RunState::Ended);
        server.status().unwrap()
    });
    (params, statuses.collect())
}

/// I-46: an update with a NaN is refused by the receiver, with the sender and the index of the element, and changes no
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
