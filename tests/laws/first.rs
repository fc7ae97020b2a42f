//! Rounds that wait for the first contributions only.

use std::sync::Arc;

use gradwire::{PeerId, Recipe};
use gradwire_sim::{App, Network, Plan, Random, World};

use crate::threads::with_servers;
use crate::{Steps, Worker, bits, plan, shards, simulate};

/// A round that waits for the first n of n contributions is a synchronous round, bit for bit, whatever the
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
        "hardsync merge=median shards=3 codec=bf16",
        "averaging period=2 topology=servers shards=2 merge=trimmed-mean",
        "hardsync merge=krum best=2 outer=momentum",
        "hardsync merge=norm-clip period=2",
        "hardsync merge=centred-clip radius=0.1",
        "hardsync merge=adasum",
        "hardsync merge=rda",
    ] {
        for numbers in ["count=n", "count=5 grace=3ms", "count=n grace=20s late=next", "count=n grace=adaptive"] {
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
    round_times_of(&format!("backup-workers count={count}"), workers, steps, seed)
}

fn round_times_of(recipe: &str, workers: u32, steps: u64, seed: u64) -> Vec<f64> {
    let recipe: Recipe = recipe.parse().unwrap();
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

/// Where all workers begin together, a round takes as long as the K-th fastest of N; with exponential times of
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

/// Nobody waits for a late worker. All rounds of a run end when a model says so that knows only the
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

/// A worker in a model of rounds with a grace; times are in milliseconds.
#[derive(Clone)]
struct Modelled {
    /// When its present step ends, with which parameters and when it has begun.
    ends: f64,
    round: usize,
    begun: f64,
    /// Mean and mean deviation of its times.
    estimate: Option<[f64; 2]>,
    steps: u64,
}

/// An adaptive grace waits for the workers that are expected before the cap, until they should be here, and
/// never longer than the cap. All rounds end when a model says so that knows only the durations of the steps.
#[test]
fn an_adaptive_grace_waits_as_long_as_the_estimates_say() {
    let (count, workers, steps, cap) = (2, 5, 60, 0.75);
    let (mut in_grace, mut without) = (0, 0);
    for seed in 0..8 {
        let got = round_times_of(&format!("backup-workers count={count} cap=0.75ms"), workers, steps, seed);
        let mut apps: Vec<Worker> = (0..workers).map(|rank| worker(PeerId(rank), seed)).collect();
        let begin = |worker: &mut Modelled, app: &mut Worker, now: f64, round| {
            let ends = now + app.duration(worker.steps).as_nanos() as f64 / 1e6;
            (worker.ends, worker.round, worker.begun, worker.steps) = (ends, round, now, worker.steps + 1);
        };
        let new = Modelled { ends: 0.0, round: 0, begun: 0.0, estimate: None, steps: 0 };
        let mut all = vec![new; workers as usize];
        all.iter_mut().zip(&mut apps).for_each(|(worker, app)| begin(worker, app, 0.0, 0));
        let (mut round, mut here, mut expected) = (0, Vec::new(), Vec::new());
        // When the round has had enough contributions, and its last one.
        let (mut since, mut last) = (0.0, 0.0);
        while all.iter().all(|worker| worker.steps < steps) {
            let busy = (0..workers as usize).filter(|worker| !here.contains(worker));
            let next = busy.min_by(|a, b| all[*a].ends.total_cmp(&all[*b].ends));
            let missing = all.iter().enumerate().filter(|(i, worker)| !here.contains(i) && worker.round == round);
            let due = |worker: &Modelled| match worker.estimate {
                None => since + cap,
                Some([mean, _]) if worker.begun + mean > since + cap => since,
                Some([mean, deviation]) => (worker.begun + mean + 2.0 * deviation).clamp(since, since + cap),
            };
            let graced = missing.map(|(_, worker)| due(worker)).fold(since, f64::max);
            let arrives = next.map_or(f64::INFINITY, |next| all[next].ends);
            if here.len() >= count && graced <= arrives {
                let now = graced.max(last);
                (in_grace, without) =
                    if here.len() > count { (in_grace + 1, without) } else { (in_grace, without + 1) };
                expected.push(now);
                round += 1;
                for worker in here.drain(..) {
                    begin(&mut all[worker], &mut apps[worker], now, round);
                }
                continue;
            }
            let (next, now) = (next.unwrap(), arrives);
            let time = now - all[next].begun;
            all[next].estimate = Some(match all[next].estimate {
                None => [time, time / 2.0],
                Some([mean, d]) => [mean + (time - mean) / 4.0, d + ((time - mean).abs() - d) / 4.0],
            });
            if all[next].round < round {
                begin(&mut all[next], &mut apps[next], now, round);
                continue;
            }
            here.push(next);
            last = now;
            if here.len() == count {
                since = now;
            }
        }
        assert!(expected.len() > 20, "{} rounds", expected.len());
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            assert!((got - expected).abs() < 0.01, "seed {seed}, round {i}: {got} ms, expected {expected} ms");
        }
    }
    assert!(in_grace > 50 && without > 50, "{in_grace} rounds with more than the first, {without} without");
}

/// On threads, each contribution is applied or late, none is stale, and the slow worker holds up nobody.
#[test]
fn on_threads_each_contribution_is_applied_or_late() {
    for (text, workers, steps) in [
        ("backup-workers", 4, 40),
        ("backup-workers count=1 shards=2", 3, 40),
        ("backup-workers count=2 grace=1ms late=next", 4, 40),
        ("backup-workers count=2 grace=adaptive cap=1ms", 4, 40),
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
