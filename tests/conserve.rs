//! Nothing is lost between contributions, messages and residuals: over any number of rounds, at every hop, as an
//! equality. And a run that is suspended and resumed goes on with the same residuals, bit for bit.
//!
//! All contributions are small multiples of 2^-10 with equal weights, and the numbers of workers are powers of two. So
//! all sums are exact, and the equality has no tolerance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::{App, Halt, Network, Plan, Random, Saved, World};

const LEN: usize = 40;

/// A worker with contributions that follow from its rank and the number of the step.
struct Worker {
    rank: PeerId,
    /// Steps before this part of the run.
    before: u64,
    /// The parameters of worker 0 before each step.
    history: History,
}

type History = Arc<Mutex<Vec<Vec<f32>>>>;

impl Worker {
    fn contribution(rank: PeerId, step: u64) -> Vec<f32> {
        let mut random = Random::new(31 * step + u64::from(rank.0), 5);
        (0..LEN).map(|_| (random.below(8001) as f32 - 4000.0) / 1024.0).collect()
    }
}

impl App for Worker {
    fn duration(&mut self, step: u64) -> Duration {
        Duration::from_nanos(1_000_000 + 10_000 * (step * 7 + u64::from(self.rank.0) * 3) % 100_000)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        if self.rank == PeerId(0) {
            self.history.lock().unwrap().push(params.to_vec());
        }
        update.copy_from_slice(&Self::contribution(self.rank, self.before + step));
        16
    }
}

fn run(recipe: Recipe, workers: u32, before: u64, steps: u64, resumed: Vec<Saved>, seed: u64) -> World {
    run_with(recipe, workers, before, steps, resumed, seed, &History::default())
}

fn run_with(
    recipe: Recipe,
    workers: u32,
    before: u64,
    steps: u64,
    resumed: Vec<Saved>,
    seed: u64,
    history: &History,
) -> World {
    let cluster = Cluster { workers, servers: 0 };
    let mut random = Random::new(seed, 1);
    let network = if seed == 0 { Network::calm() } else { Network::stormy(&mut random) };
    let plan = Plan {
        steps,
        resumed,
        suspend: true,
        network,
        ..Plan::new(seed, Layout::new().tensor("a", &[15]).tensor("b", &[25]), recipe, cluster)
    };
    let mut world = World::new(plan, |rank| Box::new(Worker { rank, before, history: Arc::clone(history) })).unwrap();
    world.run(5_000_000, |_, _| Ok::<(), Halt>(())).unwrap_or_else(|halt| panic!("{recipe}: {halt:?}"));
    world
}

fn saved(world: &World, workers: u32) -> Vec<Saved> {
    (0..workers).map(|rank| world.saved(PeerId(rank)).expect("the run is suspended")).collect()
}

/// The residual of a node. Other saved buffers are sections and velocities.
fn residual(saved: &Saved) -> Vec<f64> {
    let floats = saved.buffers.iter().find(|words| words.len() >= LEN).expect("a residual is saved");
    floats[floats.len() - LEN..].iter().map(|word| f64::from(f32::from_bits(*word))).collect()
}

/// The share of the result that a node's message has: the workers below it, itself included, of all.
fn shares(recipe: &Recipe, workers: u32) -> Box<dyn Fn(usize, usize) -> f64> {
    use gradwire_core::recipe::Topology;
    let n = workers as usize;
    match recipe.fitted(Cluster { workers, servers: 0 }, LEN).topology() {
        Topology::Tree { fan_in } => {
            let below = move |node: usize| {
                let is_below = |mut at: usize| loop {
                    match at {
                        _ if at == node => return true,
                        0 => return false,
                        _ => at = (at - 1) / fan_in as usize,
                    }
                };
                (0..n).filter(|at| is_below(*at)).count() as f64 / n as f64
            };
            Box::new(move |node, _chunk| below(node))
        }
        // The chain of a chunk begins behind its root.
        Topology::Ring => Box::new(move |node, chunk| ((node + n - 1 - chunk % n) % n + 1) as f64 / n as f64),
        _ => Box::new(move |_, _| 1.0 / n as f64),
    }
}

const RECIPES: [&str; 12] = [
    "sync codec=bf16",
    "sync codec=int8",
    "sync codec=sign",
    "sync codec=f16 chunk=7",
    "sync topology=ring codec=int8",
    "sync topology=ring codec=sign",
    "sparse density=0.1",
    "sparse density=0.1 values=f16",
    "sparse density=0.1 scope=chunk values=int8",
    "sync topology=mesh codec=threshold tau=0.125 density=0.1 scope=tensor",
    "sync topology=mesh codec=int8",
    "sync topology=mesh codec=sign",
];

#[test]
fn the_parameters_and_the_residuals_hold_all_contributions() {
    const STEPS: u64 = 23;
    for text in RECIPES {
        let recipe: Recipe = text.parse().unwrap();
        let counts: &[u32] = if text.contains("ring") { &[2] } else { &[1, 2, 4] };
        for &workers in counts {
            let world = run(recipe, workers, 0, STEPS, Vec::new(), 3);
            let share = shares(&recipe, workers);
            let nodes = saved(&world, workers);
            // A ring cuts the vector into a chunk per worker, a tree into chunks of `chunk`.
            let chunk_len = recipe.chunk_len(LEN, workers);
            let mut left = 0.0;
            for i in 0..LEN {
                let contributed: f64 = (0..STEPS)
                    .flat_map(|step| (0..workers).map(move |rank| (rank, step)))
                    .map(|(rank, step)| f64::from(Worker::contribution(PeerId(rank), step)[i]) / f64::from(workers))
                    .sum();
                let kept: f64 =
                    nodes.iter().enumerate().map(|(node, saved)| share(node, i / chunk_len) * residual(saved)[i]).sum();
                let moved = -f64::from(world.params(PeerId(0))[i]);
                assert_eq!(moved + kept, contributed, "element {i} of {text} with {workers} workers");
                left += kept.abs();
            }
            assert!(left > 0.0, "{text} with {workers} workers: no residual, so the test shows nothing");
        }
    }
}

#[test]
fn a_resumed_run_goes_on_with_the_same_residuals() {
    let heavy = "sparse density=0.1 momentum=0.5 ramp=10 warmup=3";
    for text in RECIPES.into_iter().chain([heavy]) {
        let recipe: Recipe = text.parse().unwrap();
        for workers in [2, 3] {
            let whole = run(recipe, workers, 0, 20, Vec::new(), 0);
            let first = run(recipe, workers, 0, 9, Vec::new(), 4);
            let second = run(recipe, workers, 9, 11, saved(&first, workers), 5);
            for rank in (0..workers).map(PeerId) {
                assert_eq!(whole.params(rank), second.params(rank), "{text}, worker {rank} of {workers}");
            }
            let residuals = |world| saved(world, workers).iter().map(residual).collect::<Vec<_>>();
            assert_eq!(residuals(&whole), residuals(&second), "{text}");
        }
    }
}

/// With a decay b, over T rounds: residuals + sum of b^(T - t) moved(t) = sum of b^(T - t) contributed(t), over the
/// residuals and contributions of all nodes, each by its share. The forgotten amount is the rest of the plain books. It
/// has no sum over nodes, so it is checked where one node encodes.
#[test]
fn a_residual_that_decays_keeps_discounted_books_and_counts_what_it_forgets() {
    // So few that all sums are exact: each round takes one more bit.
    const STEPS: u64 = 5;
    for (text, decay) in RECIPES.into_iter().flat_map(|text| [(text, 0.5), (text, 0.0)]) {
        let recipe: Recipe = format!("{text} decay={decay}").parse().unwrap();
        let counts: &[u32] = if text.contains("ring") { &[2] } else { &[1, 2, 4] };
        for &workers in counts {
            let history = History::default();
            let world = run_with(recipe, workers, 0, STEPS, Vec::new(), 3, &history);
            let mut params = std::mem::take(&mut *history.lock().unwrap());
            params.push(world.params(PeerId(0)).to_vec());
            let share = shares(&recipe, workers);
            let nodes = saved(&world, workers);
            let chunk_len = recipe.chunk_len(LEN, workers);
            let at = |step: u64, i: usize| f64::from(params[step as usize][i]);
            let mut forgotten = 0.0;
            for i in 0..LEN {
                let mut expected = 0.0;
                for step in 0..STEPS {
                    let contributed: f64 = (0..workers)
                        .map(|rank| f64::from(Worker::contribution(PeerId(rank), step)[i]) / f64::from(workers))
                        .sum();
                    forgotten += (1.0 - decay) * f64::abs(expected);
                    expected = decay * expected + contributed - (at(step, i) - at(step + 1, i));
                }
                let kept: f64 =
                    nodes.iter().enumerate().map(|(node, saved)| share(node, i / chunk_len) * residual(saved)[i]).sum();
                assert_eq!(kept, expected, "element {i} of {recipe} with {workers} workers");
            }
            let counted = world.status(PeerId(0)).unwrap().forgotten;
            assert!(counted > 0.0, "{recipe} with {workers} workers: nothing was forgotten, so the test shows nothing");
            assert!(workers > 1 || counted == forgotten, "{recipe}: counted {counted}, expected {forgotten}");
        }
    }
}
