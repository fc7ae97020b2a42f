//! Runs without rounds are run again from the tapes of their nodes, bit for bit: in virtual time, on other networks and
//! with other speeds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use gradwire_core::recipe::{PRESETS, Topology};
use gradwire_core::{Cluster, Duration, Instant, Layout, Order, Patience, PeerId, Recipe, Tape};
use gradwire_sim::{App, Effort, Entry, Fault, Halt, Network, Plan, Random, World};

const WORKERS: u32 = 4;
const STEPS: u64 = 12;
const LEN: usize = 24;

/// The parameters that each worker saw after each of its steps, as bits.
type History = Arc<Mutex<Vec<Vec<Vec<u32>>>>>;

/// A worker with updates that depend on its parameters, so that a difference in order never goes away. `speeds`
/// determines the times of its steps.
struct Descent {
    me: usize,
    speeds: Random,
    history: History,
}

impl App for Descent {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_nanos(self.speeds.exponential(3e6) as u64 + 1)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        for (index, (update, x)) in update.iter_mut().zip(params).enumerate() {
            let target = ((index * 7 + self.me * 5 + step as usize * 3) % 11) as f32 - 5.0;
            *update = 0.1 * (x - target) + 0.01 * x * x.signum();
        }
        // Some steps have no examples.
        if (step + self.me as u64) % 5 == 4 { 0 } else { 1 + (step % 3) as u32 }
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        self.history.lock().unwrap()[self.me].push(params.iter().map(|x| x.to_bits()).collect());
    }
}

struct Run {
    history: Vec<Vec<Vec<u32>>>,
    /// The final parameters of all nodes.
    ends: Vec<Vec<u32>>,
    orders: Vec<Vec<Order>>,
}

fn cluster(recipe: &Recipe) -> Cluster {
    let servers = match recipe.topology() {
        Topology::Servers { shards } => shards.min(2),
        _ => 0,
    };
    Cluster { workers: WORKERS, servers }
}

fn run(recipe: Recipe, seed: u64, tapes: Vec<Tape>, faults: Vec<(Instant, Fault)>) -> Result<Run, Halt> {
    run_on(Network::stormy(&mut Random::new(seed, 8)), recipe, seed, tapes, faults)
}

fn run_on(
    network: Network,
    recipe: Recipe,
    seed: u64,
    tapes: Vec<Tape>,
    faults: Vec<(Instant, Fault)>,
) -> Result<Run, Halt> {
    let cluster = cluster(&recipe);
    let history: History = Arc::new(Mutex::new(vec![Vec::new(); WORKERS as usize]));
    let ms = Duration::from_millis;
    let plan = Plan {
        steps: STEPS,
        tapes,
        network,
        effort: Effort { kernel: Duration::from_micros(200), body: Duration::from_micros(500), abort: ms(1) },
        patience: Patience::new(ms(10_000)),
        faults,
        ..Plan::new(seed, Layout::flat(LEN), recipe, cluster)
    };
    let speeds = |rank: PeerId| Random::new(seed, 40 + u64::from(rank.0));
    let mut world = World::new(plan, |rank| {
        Box::new(Descent { me: rank.index(), speeds: speeds(rank), history: Arc::clone(&history) })
    })
    .unwrap();
    world.run(2_000_000, |_, _| Ok(()))?;
    let mut orders = vec![Vec::new(); cluster.nodes() as usize];
    for log in world.log() {
        if let Entry::Order(order) = log.entry {
            orders[log.node.index()].push(order);
        }
    }
    let bits = |rank: u32| world.params(PeerId(rank)).iter().map(|x| x.to_bits()).collect();
    let ends = (0..WORKERS).map(bits).collect();
    let history = std::mem::take(&mut *history.lock().unwrap());
    Ok(Run { history, ends, orders })
}

/// All presets without rounds, and settings that change which decisions a node may take.
fn recipes() -> Vec<String> {
    let presets = PRESETS.iter().map(|preset| preset.name.to_string());
    let mut recipes: Vec<String> = presets.filter(|name| !name.parse::<Recipe>().unwrap().has_rounds()).collect();
    assert!(recipes.len() >= 8, "{recipes:?}");
    recipes.extend(
        [
            "async overlap=true",
            "async overlap=true shards=3 codec=int8",
            "async shards=3 codec=topk density=0.2 end=send",
            "softsync updates=3 pull=topk pull_density=0.3",
            "ssp bound=1 shards=2 codec=sign",
            "downpour outer=momentum mu=0.5",
            "async period=3",
            "async period=9ms",
            "async period=6 adapt=speed",
            "async period=2 fetch=3 shards=2",
            "async period=2 outer=momentum scale=rate",
            "b-fasgd push_cost=0.01 fetch_cost=0.01 shards=2",
            "b-fasgd push_cost=0.01 codec=int8 pull=bf16 period=2",
            "async starters=1 head_start=5 shards=2",
            "async overlap=true starters=2 head_start=7",
            "softsync updates=2 starters=1 head_start=99",
            "mesh relay=2",
            "mesh momentum=0.9 starters=1 head_start=3",
            "mesh control=density density=0.2 end=spread messages=3",
        ]
        .map(str::to_string),
    );
    recipes
}

fn record(recipe: Recipe, seed: u64) -> Run {
    let nodes = cluster(&recipe).nodes() as usize;
    run(recipe, seed, vec![Tape::Record; nodes], Vec::new()).unwrap()
}

fn tapes(run: &Run) -> Vec<Tape> {
    run.orders.iter().map(|orders| Tape::Follow(orders.as_slice().into())).collect()
}

#[test]
fn a_run_without_rounds_is_run_again_from_its_tapes() {
    for text in recipes() {
        let recipe: Recipe = text.parse().unwrap();
        let mut differing = 0;
        for seed in 0..6 {
            let first = record(recipe, seed);
            assert!(first.orders.iter().flatten().all(|order| *order != Order::Break), "{text} {:?}", first.orders);
            let again =
                run(recipe, 1000 + seed, tapes(&first), Vec::new()).unwrap_or_else(|halt| panic!("{text}: {halt:?}"));
            assert!(again.history == first.history, "{text}, seed {seed}");
            assert_eq!(again.ends, first.ends, "{text}, seed {seed}");
            assert!(again.orders.iter().all(Vec::is_empty), "a node that follows a tape records none");
            // Without the tapes, it is another run.
            let other = run(recipe, 1000 + seed, Vec::new(), Vec::new()).unwrap();
            differing += u32::from(other.history != first.history);
        }
        assert!(differing >= 5, "{text}: {differing} of 6 runs would have been other ones");
    }
}

/// In rounds, the order of messages has no effect, and there is nothing to record.
#[test]
fn synchronous_runs_have_empty_tapes() {
    for text in ["hardsync", "hardsync shards=2 codec=int8", "ssp bound=0", "sync", "sparse", "averaging"] {
        let run = record(text.parse().unwrap(), 3);
        assert!(run.orders.iter().all(Vec::is_empty), "{text}");
    }
}

/// If a worker is lost in a run, the tape records it.
#[test]
fn a_lost_worker_breaks_the_tape() {
    // After about half of the steps.
    let at = Instant::from_nanos(20_000_000);
    for text in ["async", "ssp", "mesh"] {
        let recipe: Recipe = text.parse().unwrap();
        let nodes = cluster(&recipe).nodes() as usize;
        let crash = vec![(at, Fault::Crash { node: PeerId(2), restart: None })];
        let run = run_on(Network::calm(), recipe, 5, vec![Tape::Record; nodes], crash).unwrap();
        assert!(run.orders.iter().any(|orders| orders.contains(&Order::Break)), "{text}");
    }
}

/// After broken connections, a tape records all of their effects, or records that it cannot.
#[test]
fn broken_connections_are_followed_or_told() {
    let mut followed = 0;
    for text in ["async", "ssp", "softsync", "mesh", "mesh relay=2", "async overlap=true"] {
        let recipe: Recipe = text.parse().unwrap();
        let nodes = cluster(&recipe).nodes() as usize;
        for seed in 0..12 {
            let mut random = Random::new(seed, 9);
            let cut = |at: u64| {
                let a = random.below(nodes as u64) as u32;
                let b = (a + 1 + random.below(nodes as u64 - 1) as u32) % nodes as u32;
                (Instant::from_nanos(at * 4_000_000), Fault::Cut { a: PeerId(a), b: PeerId(b) })
            };
            let cuts = (1..6).map(cut).collect();
            let first = run(recipe, seed, vec![Tape::Record; nodes], cuts).unwrap();
            if first.orders.iter().flatten().any(|order| *order == Order::Break) {
                continue;
            }
            let again =
                run(recipe, 1000 + seed, tapes(&first), Vec::new()).unwrap_or_else(|halt| panic!("{text}: {halt:?}"));
            assert_eq!((again.history, again.ends), (first.history, first.ends), "{text}, seed {seed}");
            followed += 1;
        }
    }
    assert!(followed > 20, "only {followed} runs with broken connections were followed");
}

/// In rounds, only the lengths of periods can depend on the time.
#[test]
fn rounds_with_periods_in_time_are_run_again() {
    for text in ["sync period=9ms", "hardsync period=9ms", "averaging period=9ms", "hardsync period=6 adapt=speed"] {
        let recipe: Recipe = text.parse().unwrap();
        for seed in 0..4 {
            let first = record(recipe, seed);
            let counted = |order: &Order| matches!(order, Order::Steps { .. });
            assert!(first.orders.iter().all(|orders| orders.iter().all(counted)), "{text}");
            let again =
                run(recipe, 1000 + seed, tapes(&first), Vec::new()).unwrap_or_else(|halt| panic!("{text}: {halt:?}"));
            assert!(again.history == first.history && again.ends == first.ends, "{text}, seed {seed}");
        }
    }
}
