//! Equalities of rounds: between recipes, with one worker, and with a step on the union of batches.

use std::thread;
use std::time::Duration;

use gradwire::recipe::{OptimizerState, Staleness, Topology};
use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, Session};
use gradwire_core::Patience;
use gradwire_sim::{App, Plan, World};

use crate::{LEN, Steps, plan, simulate, update_of};

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

/// One worker with a rate and no momentum is Lookahead (Zhang et al. 2019): after H steps, the parameters go a
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

/// With constant updates, the parameters move by `rate / (1 - mu)` times the update in each round, once the
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
        // From a velocity of 0, one round moves by rate (1 + mu) looking ahead.
        assert!((moves[0] - 1.05).abs() < 1e-6 && (moves[39] - 1.4).abs() < 1e-5, "{moves:?}");
    }
}

/// SSP with bound 0 and deterministic workers is bulk-synchronous, bit for bit: each round is
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

/// A synchronous step of N workers equals a step on the union of their batches, and so does
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

/// Averaging parameters every H steps gives the same result as applying the mean of the updates over H steps, for
/// any H and any local optimizer. The number of shards does not change the result, bit for bit.
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

/// With H = 1, local momentum that is kept or averaged equals momentum on the mean gradient. Momentum that is
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

/// If each worker contributes once from the same version, a softsync group of all workers equals the mean of a
/// synchronous round. If every update is k times as large, the step is k times as large.
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
