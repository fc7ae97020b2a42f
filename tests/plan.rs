//! The closed forms of `gradwire::plan`: against published tables, and against the simulator, which runs the machines
//! that ship.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gradwire::plan::{Case, Costs, Hosts, Law, Link, PlanError, Sharing, Waits};
use gradwire_core::{Layout, PeerId, Recipe, Signal};
use gradwire_sim::{App, Entry, Halt, Network, Plan, World};

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap()
}

/// A program with steps of constant length.
struct Program(Duration);

impl App for Program {
    fn duration(&mut self, _step: u64) -> Duration {
        self.0
    }

    fn update(&mut self, step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(1.0 / (1 + step) as f32);
        16
    }
}

/// The same case as the simulator's: a link per pair, and arithmetic that takes no time.
fn case(params: usize, steps: Vec<f64>, bandwidth: f64, latency: f64) -> Case {
    let link = Link { sharing: Sharing::Pair, ..Link::symmetric(bandwidth, latency) };
    Case { costs: Costs::none(), hosts: Hosts::Own, ..Case::new(params, steps, link) }
}

/// Seconds of a mean step in the simulator: of all workers, after the first rounds.
fn simulated(case: &Case, recipe: Recipe, rounds: u64) -> f64 {
    const WARM_UP: usize = 2;
    let network = Network {
        latency: Duration::from_secs_f64(case.link.latency),
        bandwidth: case.link.up as u64,
        // A socket takes the bytes of a message from the sender before they arrive.
        buffered: true,
        ..Network::calm()
    };
    let cluster = case.cluster(&recipe);
    let period = u64::from(recipe.period().at(0));
    let plan = Plan { network, steps: rounds * period, ..Plan::new(1, Layout::flat(case.params), recipe, cluster) };
    let step = |rank: PeerId| Duration::from_secs_f64(case.steps[rank.index()]);
    let mut world = World::new(plan, |rank| Box::new(Program(step(rank)))).unwrap();
    world.run(20_000_000, |_, _| Ok::<(), Halt>(())).unwrap();
    let mean = |rank: u32| {
        let ready = |entry: &Entry| matches!(entry, Entry::Signal(Signal::Ready { .. }));
        let log = world.log().iter().filter(|log| log.node == PeerId(rank) && ready(&log.entry));
        let times: Vec<f64> = log.map(|log| log.at.as_nanos() as f64 * 1e-9).collect();
        // The last one is of the end.
        let times = &times[WARM_UP..rounds as usize];
        (times[times.len() - 1] - times[0]) / ((times.len() - 1) as u64 * period) as f64
    };
    let rate: f64 = (0..cluster.workers).map(|rank| 1.0 / mean(rank)).sum();
    f64::from(cluster.workers) / rate
}

/// Local steps per second of all workers in the simulator, over many rounds.
fn simulated_rate(case: &Case, recipe: Recipe, seconds: f64) -> f64 {
    /// The time is over.
    #[derive(Debug)]
    enum End {
        Over,
        Halt,
    }

    impl From<Halt> for End {
        fn from(_: Halt) -> Self {
            Self::Halt
        }
    }

    let cluster = case.cluster(&recipe);
    let network = Network {
        latency: Duration::from_secs_f64(case.link.latency),
        bandwidth: case.link.up as u64,
        buffered: true,
        ..Network::calm()
    };
    let plan = Plan { network, steps: u64::MAX, ..Plan::new(1, Layout::flat(case.params), recipe, cluster) };
    let step = |rank: PeerId| Duration::from_secs_f64(case.steps[rank.index()]);
    let mut world = World::new(plan, |rank| Box::new(Program(step(rank)))).unwrap();
    let mut begun = None;
    let mut done = 0.0;
    let ended = world.run(20_000_000, |world, _| {
        let now = world.now().as_nanos() as f64 * 1e-9;
        let steps: u64 = (0..cluster.workers).map(|rank| world.steps(PeerId(rank))).sum();
        if now < 0.1 * seconds {
            begun = Some((now, steps));
        } else if now > seconds {
            let (then, before) = begun.unwrap();
            done = (steps - before) as f64 / (now - then);
            return Err(End::Over);
        }
        Ok(())
    });
    assert!(matches!(ended, Err(End::Over)), "{ended:?}");
    done
}

/// Dense exchanges, wherever the closed form is exact: within 5 % of the machines, and half of them within 0.5 %.
#[test]
fn dense_exchanges_are_those_of_the_simulator() {
    let recipes = [
        "sync",
        "sync topology=tree",
        "sync fan_in=1",
        "sync fan_in=4 chunk=10000",
        "sync topology=ring",
        "sync topology=ring chunk=5000",
        "hardsync",
        "hardsync shards=3",
        "averaging",
        "averaging period=3 topology=ring chunk=4000",
        "sync topology=mesh codec=int8",
        "async",
        "async period=4 shards=2",
        "ssp",
        "async overlap=true",
        "ring-bf16 chunk=3000",
        "sync codec=int8",
        "diloco",
    ];
    // Thin, fast, far and slow links: parameters, bytes per second, latency, seconds of a step.
    let networks = [
        (60_000, 12.5e6, 1e-4, 0.02),
        (200_000, 125e6, 1e-3, 0.01),
        (20_000, 12.5e6, 0.02, 0.05),
        (50_000, 1e6, 1e-4, 0.1),
    ];
    let mut errors = Vec::new();
    for workers in [2, 3, 7] {
        for (params, bandwidth, latency, step) in networks {
            let case = case(params, vec![step; workers], bandwidth, latency);
            for text in recipes {
                let shards =
                    if let Some((_, shards)) = text.split_once("shards=") { shards.parse().unwrap() } else { 1 };
                // Windows of more workers wait for the versions of a server, which have no closed form.
                let window = text == "ssp" || text.contains("overlap");
                if shards > workers || (window && workers > 3) {
                    continue;
                }
                let rounds = if window { 30 } else { 6 };
                let planned = case.forecast(&recipe(text)).unwrap().step;
                let got = simulated(&case, recipe(text), rounds);
                let error = (planned / got - 1.0).abs();
                errors
                    .push((error, format!("{text}, {workers} workers, {params} at {bandwidth}: {planned}, got {got}")));
            }
        }
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (error, text) in errors.iter().take(10) {
        eprintln!("{:.1} % {text}", error * 100.0);
    }
    assert!(errors[0].0 < 0.05, "{:?}", errors[0]);
    assert!(errors[errors.len() / 2].0 < 0.005, "{:?}", errors[errors.len() / 2]);
}

/// The four speeds of Liu et al. 2024: waits for the slowest, periods in time, and paces without rounds.
#[test]
fn unequal_machines_are_those_of_the_simulator() {
    let case = case(1000, vec![0.58, 0.75, 1.51, 3.33], 12.5e6, 1e-4);
    let mut errors = Vec::new();
    for text in [
        "sync",
        "averaging period=20",
        "sync period=20s",
        "hardsync period=10s",
        "hardsync period=20 adapt=speed",
        "async",
        "async period=5",
        "softsync",
        "ssp bound=2",
        "mesh",
        "hardsync pace=first count=3",
        "hardsync pace=first count=2 late=next",
        "hardsync pace=first count=3 grace=200ms late=next",
        "hardsync pace=first count=2 grace=adaptive cap=1s late=next",
    ] {
        let forecast = case.forecast(&recipe(text)).unwrap();
        let got = simulated_rate(&case, recipe(text), 3000.0);
        let planned = 4.0 / forecast.step;
        errors.push(((planned / got - 1.0).abs(), format!("{text}: {planned}, got {got}")));
    }
    errors.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (error, text) in &errors {
        eprintln!("{:.1} % {text}", error * 100.0);
    }
    assert!(errors[0].0 < 0.05, "{:?}", errors[0]);
}

/// Synchronous use of the machines is the mean of the slowest step over each: 46 % here.
#[test]
fn the_straggler_law() {
    let case = case(1000, vec![0.58, 0.75, 1.51, 3.33], 1e9, 0.0);
    let sync = case.forecast(&recipe("averaging")).unwrap();
    assert!((sync.busy - 0.463).abs() < 0.001, "{}", sync.busy);
    assert_eq!(sync.waits, Waits::Stragglers(Some(3)));
    let timed = case.forecast(&recipe("averaging period=60s")).unwrap();
    assert!(timed.busy > 0.98 && timed.waits == Waits::Nothing, "{timed:?}");
    // Random stragglers shrink with the root of the period; constant ones do not.
    let random = |period: u32| {
        let case = Case { spread: 0.5, steps: vec![0.1; 16], ..case.clone() };
        let forecast = case.forecast(&Recipe::averaging(period)).unwrap();
        assert!(forecast.waits == Waits::Nothing || forecast.waits == Waits::Stragglers(None), "{forecast:?}");
        forecast.parts.straggle / forecast.parts.compute
    };
    let shrinks = random(1) / random(100);
    assert!((9.0..12.5).contains(&shrinks), "{shrinks}");
    // Exponential steps: a round of N takes H_N steps, with b spare workers H_N - H_b.
    let harmonic = |n: u32| (1..=n).map(|i| 1.0 / f64::from(i)).sum::<f64>();
    let case = Case { spread: 1.0, steps: vec![0.1; 16], ..case };
    for (text, expected) in [("hardsync", harmonic(16)), ("hardsync pace=first count=n-4", harmonic(16) - harmonic(4))]
    {
        let step = case.forecast(&recipe(text)).unwrap().step;
        assert!((step / (0.1 * expected) - 1.0).abs() < 0.002, "{text}: {step}");
    }
}

/// Local SGD of ResNet-50 on 32 GPUs, 4096 images a step, as published in the documentation of PaddlePaddle FleetX:
/// images per second by period. Compute and exchange follow from periods of 1 and 16; the rest is predicted.
#[test]
fn local_sgd_of_resnet_50_is_predicted_within_5_percent() {
    let published = [(1, 8271.0), (2, 8716.0), (4, 8763.0), (8, 9185.0), (16, 9431.0)];
    let seconds = published.map(|(period, rate)| (f64::from(period), 4096.0 / rate));
    let law = Law::through(seconds[0], seconds[4]).unwrap();
    assert!((law.compute - 0.430).abs() < 0.001 && (law.exchange - 0.065).abs() < 0.001, "{law:?}");
    // The model has 25.6 million parameters, and a machine of 8 GPUs one port. The bandwidth follows from the exchange.
    let case = |bandwidth| {
        let link = Link::symmetric(bandwidth, 0.0);
        Case { costs: Costs::none(), ..Case::new(25_600_000, vec![law.compute; 4], link) }
    };
    let ring = |case: &Case, period: u32| {
        case.forecast(&Recipe::sync().with_topology(gradwire::recipe::Topology::Ring).with_period(period)).unwrap().step
    };
    let bandwidth = 1e9 * (ring(&case(1e9), 1) - law.compute) / law.exchange;
    for (period, (_, measured)) in [2, 4, 8].into_iter().zip(&seconds[1..4]) {
        let planned = ring(&case(bandwidth), period);
        eprintln!(
            "H = {period}: {planned:.4} s, published {measured:.4} s, {:+.1} %",
            100.0 * (planned / measured - 1.0)
        );
        assert!((planned / measured - 1.0).abs() < 0.05, "{period}: {planned}, published {measured}");
        assert!((planned / law.step(f64::from(period)) - 1.0).abs() < 1e-3);
    }
}

/// Faster R-CNN with deep gradient compression on two machines, from the same source: a dense step takes 0.3725 s at
/// 100 Gbit/s and 2.45 s at 1 Gbit/s, a compressed one 0.375 s at 1, 10 and 100 Gbit/s. The dense step at 10 Gbit/s was
/// 0.55 s.
#[test]
fn a_dense_step_at_10_gbit_is_predicted_within_7_percent_from_that_at_1_gbit() {
    let law = Law::through((1.0, 2.45), (100.0, 0.3725)).unwrap();
    // Twice the vector through a port of 125 MB/s, less its half that two machines keep.
    let params = (law.exchange * 125e6 / 4.0) as usize;
    let case = |gbit: f64| {
        let link = Link::symmetric(gbit * 125e6, 0.0);
        Case { costs: Costs::none(), ..Case::new(params, vec![law.compute; 2], link) }
    };
    let dense = |gbit| case(gbit).forecast(&recipe("sync topology=ring")).unwrap().step;
    for (gbit, published) in [(1.0, 2.45), (10.0, 0.55), (100.0, 0.3725)] {
        let planned = dense(gbit);
        eprintln!(
            "{gbit} Gbit/s: {planned:.4} s, published {published} s, {:+.1} %",
            100.0 * (planned / published - 1.0)
        );
        assert!((planned / published - 1.0).abs() < 0.07, "{gbit} Gbit/s: {planned}, published {published}");
    }
    // The compressed step takes as long at all three; so it pays by these factors.
    assert!((dense(1.0) / 0.375 / 6.5 - 1.0).abs() < 0.05 && (dense(10.0) / 0.375 / 1.47 - 1.0).abs() < 0.05);
}

/// The bytes and the port of each topology at one port per machine, and the reason of the wait.
#[test]
fn ports_carry_the_bytes_of_all_their_messages() {
    let case = |workers: usize| Case {
        costs: Costs::none(),
        ..Case::new(1_000_000, vec![0.001; workers], Link::symmetric(12.5e6, 1e-5))
    };
    let vector = 4e6;
    for (text, workers, busiest, waits) in [
        // Four workers in a tree of two children: the root and rank 1 carry two vectors each way.
        ("sync topology=tree", 4, 2.0, Waits::Inner),
        ("sync", 4, 1.5, Waits::Wire),
        ("sync topology=ring", 4, 1.5, Waits::Wire),
        // A server beside one of the workers carries the vectors of three more.
        ("hardsync", 4, 3.0, Waits::Server),
        ("hardsync shards=4", 4, 0.75, Waits::Wire),
        ("async", 4, 3.0, Waits::Server),
        ("sync topology=mesh codec=bf16", 4, 1.5, Waits::Wire),
    ] {
        let forecast = case(workers).forecast(&recipe(text)).unwrap();
        assert!((forecast.busiest / vector / busiest - 1.0).abs() < 0.01, "{text}: {}", forecast.busiest / vector);
        assert_eq!(forecast.waits, waits, "{text}: {forecast:?}");
        // The busiest port is the bound, and a pipeline keeps it busy.
        let least = busiest * vector / 12.5e6;
        let most = if text.starts_with("hardsync") { 2.0 * least } else { 1.35 * least };
        assert!((least..=most * 1.01 + 0.01).contains(&forecast.step), "{text}: {} of {least}", forecast.step);
    }
}

/// The steps of `benches/thin/run.py` over links of 100 Mbit/s, in milliseconds (BENCHMARKS.md, "Steps over a thin link"):
/// no compute, and processes that share two processors. Headers and encryption take 6 % of the link.
#[test]
fn steps_over_a_thin_link_are_near_the_measured_ones() {
    let rows = [
        ("sync topology=ring", [198.0, 396.0, 5580.0, 8975.0]),
        ("ring-bf16", [102.0, 167.0, 2844.0, 4508.0]),
        ("ring-int8", [51.0, 87.0, 1401.0, 2324.0]),
        ("local-bf16", [5.4, 9.8, 0.0, 0.0]),
        ("sync topology=ring codec=sign", [7.7, 12.6, 0.0, 0.0]),
        ("sparse", [6.8, 16.4, 258.0, 446.0]),
        ("sync topology=mesh codec=threshold density=0.01", [2.5, 7.2, 116.0, 230.0]),
        ("sync topology=tree", [242.0, 563.0, 0.0, 0.0]),
        ("hardsync", [397.0, 1072.0, 0.0, 0.0]),
    ];
    let cells = [(2, 560_000), (4, 560_000), (2, 14_600_000), (4, 14_600_000)];
    let mut errors = Vec::new();
    for (text, measured) in rows {
        for ((workers, params), measured) in cells.into_iter().zip(measured).filter(|(_, measured)| *measured > 0.0) {
            let case = Case::new(params, vec![1e-9; workers], Link::symmetric(12.5e6 * 0.94, 1e-4));
            let planned = 1e3 * case.forecast(&recipe(text)).unwrap().step;
            errors.push((
                planned / measured - 1.0,
                format!("{text}, {workers} x {params}: {planned:.1} ms, measured {measured}"),
            ));
        }
    }
    for (error, text) in &errors {
        eprintln!("{:+.0} % {text}", error * 100.0);
    }
    let within =
        |limit: f64| errors.iter().filter(|(error, _)| error.abs() < limit).count() as f64 / errors.len() as f64;
    assert!(within(0.12) > 0.5 && within(0.17) > 0.7, "{} and {}", within(0.12), within(0.17));
}

#[test]
fn wrong_numbers_are_named() {
    let good = Case::new(10, vec![0.1; 2], Link::symmetric(1e6, 0.0));
    let cases = [
        (Case { params: 0, ..good.clone() }, "params: expected at least 1, got 0"),
        (Case { steps: vec![], ..good.clone() }, "workers: expected 1 to 100000, got 0"),
        (
            Case { steps: vec![0.1, f64::NAN], ..good.clone() },
            "step: expected a finite number of seconds above 0, got NaN",
        ),
        (Case { steps: vec![-0.1], ..good.clone() }, "step: expected a finite number of seconds above 0, got -0.1"),
        (Case { link: good.link.times(0.0), ..good.clone() }, "link: expected above 0 bytes per second to send, got 0"),
        (Case { spread: f64::NAN, ..good.clone() }, "spread: expected from 0 to 10, got NaN"),
        (Case { density: 0.0, ..good.clone() }, "density: expected above 0, and at most 1, got 0"),
    ];
    for (case, text) in cases {
        assert_eq!(case.forecast(&Recipe::sync()).unwrap_err().to_string(), text);
    }
    assert_eq!(good.forecast(&recipe("sync period=64ex")), Err(PlanError::NoBatch));
    let text = good.forecast(&recipe("softsync updates=3")).unwrap_err().to_string();
    assert!(text.contains('3'), "{text}");
    // One worker alone waits for nothing.
    let alone = Case { steps: vec![0.1], ..good }.forecast(&Recipe::sync()).unwrap();
    assert_eq!((alone.speed_up, alone.bytes, alone.waits), (1.0, 0.0, Waits::Nothing));
}

/// A server with several shards answers the first one while the last is pushed.
#[test]
fn shards_of_one_server_overlap_as_in_the_simulator() {
    let case = Case { servers: Some(1), ..case(60_000, vec![0.02; 3], 12.5e6, 1e-4) };
    for text in ["hardsync shards=3", "hardsync shards=8", "async shards=2"] {
        let (planned, got) = (case.forecast(&recipe(text)).unwrap().step, simulated(&case, recipe(text), 6));
        assert!((planned / got - 1.0).abs() < 0.05, "{text}: {planned}, got {got}");
    }
}
