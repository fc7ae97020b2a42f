//! Sessions over threads: equal to the simulator, and to each other.

use std::thread;
use std::time::Duration;

use gradwire::recipe::{Adapt, Pace, Period, Topology};
use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, RunState, Session, Status};

use crate::{LEN, Steps, plan, simulate, update_of};

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
        "sync merge=adasum".parse().unwrap(),
        "sync merge=adasum outer=momentum mu=0.5".parse().unwrap(),
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
pub(crate) fn on_threads(recipe: Recipe, workers: u32, steps: u64) -> Vec<Vec<f32>> {
    train(recipe, workers, steps, |_, _, _, _| {}).0
}

/// Trains on threads, and calls `before` before each step with the session, its rank, the step, and the update.
pub(crate) fn on_threads_with(
    recipe: Recipe,
    workers: u32,
    steps: u64,
    before: impl Fn(&mut Session, u32, u64, &mut [f32]) + Copy + Send + 'static,
) -> Vec<Vec<f32>> {
    train(recipe, workers, steps, before).0
}

/// The same with one server, and its last status.
pub(crate) fn with_servers(recipe: Recipe, workers: u32, steps: u64) -> (Vec<Vec<f32>>, Status) {
    let (params, mut statuses) = train(recipe, workers, steps, |_, _, _, _| {});
    (params, statuses.remove(0))
}

pub(crate) fn train(
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
