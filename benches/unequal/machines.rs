//! Four simulated workers of unequal speed learn to classify, in virtual time.

use std::sync::Arc;

use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::simulation::{Learner, Links, Network, Random, Simulation, Speed, Step, Validation, Worker};

/// The time of a step of each worker, in milliseconds (the speeds of the test bed of Liu et al. 2024, "Asynchronous
/// local-SGD training for language modeling").
pub(crate) const STEP_MS: [u64; 4] = [580, 750, 1510, 3330];

const CLASSES: usize = 10;
const FEATURES: usize = 20;
const LEN: usize = CLASSES * (FEATURES + 1);
const BATCH: u32 = 16;
const RATE: f32 = 0.05;

/// The machines of a table, and their data.
#[derive(Copy, Clone)]
pub(crate) struct Machines {
    pub(crate) network: Network,
    /// The time of a step of each worker, in milliseconds.
    pub(crate) step_ms: [u64; 4],
    /// The share of a worker's examples that come from two or three classes of its own, from 0 to 1. The rest are of any
    /// class.
    pub(crate) own: f64,
}

/// The results of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The share of the time in which each worker has computed.
    pub(crate) busy: [f64; 4],
    /// Contributions of worker 0.
    pub(crate) rounds: u64,
    /// Examples that all workers have contributed.
    pub(crate) examples: u64,
    /// The loss on other examples of the parameters of the last round, at each of the times.
    pub(crate) losses: Vec<f64>,
}

impl Outcome {
    /// The mean busy share of the machines.
    pub(crate) fn mean_busy(&self) -> f64 {
        self.busy.iter().sum::<f64>() / self.busy.len() as f64
    }
}

/// A mixture of Gaussians with a class for each, around centres that are close to each other.
struct Mixture {
    centres: Vec<[f32; FEATURES]>,
}

impl Mixture {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        Self { centres: (0..CLASSES).map(|_| std::array::from_fn(|_| 0.7 * normal(&mut random))).collect() }
    }

    /// An example of any class, or of a class whose number is `of` modulo 4.
    fn example(&self, random: &mut Random, of: Option<usize>) -> (usize, [f32; FEATURES]) {
        let class = match of {
            Some(of) => of + 4 * random.below((CLASSES - of).div_ceil(4) as u64) as usize,
            None => random.below(CLASSES as u64) as usize,
        };
        (class, std::array::from_fn(|i| self.centres[class][i] + normal(random)))
    }
}

/// A number of the normal distribution (Box and Muller 1958).
fn normal(random: &mut Random) -> f32 {
    let (radius, angle) = (1.0 - random.unit(), random.unit());
    ((-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()) as f32
}

/// The probabilities of the classes.
fn softmax(params: &[f32], x: &[f32; FEATURES]) -> [f32; CLASSES] {
    let score = |class: usize| {
        let row = &params[class * (FEATURES + 1)..(class + 1) * (FEATURES + 1)];
        row[FEATURES] + row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>()
    };
    let scores: [f32; CLASSES] = std::array::from_fn(score);
    let most = scores.iter().fold(f32::MIN, |most, score| most.max(*score));
    let powers = scores.map(|score| (score - most).exp());
    let sum: f32 = powers.iter().sum();
    powers.map(|power| power / sum)
}

/// The cross-entropy on 2,000 examples that no worker trains on.
fn loss(mixture: &Mixture, params: &[f32], seed: u64) -> f64 {
    let (mut random, count) = (Random::new(seed, 2), 2000);
    let examples = (0..count).map(|_| mixture.example(&mut random, None));
    examples.map(|(class, x)| -f64::from(softmax(params, &x)[class].max(1e-9)).ln()).sum::<f64>() / f64::from(count)
}

struct Classifier {
    me: PeerId,
    seed: u64,
    random: Random,
    mixture: Arc<Mixture>,
    /// The share of the examples that come from classes of the worker's own.
    own: f64,
}

impl Learner for Classifier {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        update.fill(0.0);
        let mut loss = 0.0;
        for _ in 0..BATCH {
            let is_own = self.own > 0.0 && self.random.chance(self.own);
            let (class, x) = self.mixture.example(&mut self.random, is_own.then_some(self.me.index()));
            let all = softmax(params, &x);
            loss -= all[class].max(1e-9).ln() / BATCH as f32;
            for (other, p) in all.into_iter().enumerate() {
                let error = RATE / BATCH as f32 * (p - f32::from(u8::from(other == class)));
                let row = &mut update[other * (FEATURES + 1)..(other + 1) * (FEATURES + 1)];
                row.iter_mut().zip(x.iter().chain(&[1.0])).for_each(|(update, x)| *update += error * x);
            }
        }
        Step::of(BATCH).loss(loss)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        Some(Validation::of(loss(&self.mixture, params, self.seed)))
    }
}

/// Trains until the last of the virtual times, in seconds in rising order.
///
/// # Panics
/// If the recipe does not fit the cluster, or the run fails.
pub(crate) fn run(machines: &Machines, recipe: Recipe, seed: u64, seconds: &[u64]) -> Outcome {
    let Machines { network, step_ms, own } = *machines;
    let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
    let mut times = seconds.iter().map(|at| Duration::from_secs(*at));
    let mut simulation = Simulation::new(Layout::flat(LEN), recipe, cluster)
        .seed(seed)
        .links(Links::over(network))
        .patience(Duration::from_secs(1000))
        .record_at(times.clone())
        .until(times.next_back().unwrap_or_default());
    for (rank, step) in (0..).map(PeerId).zip(step_ms) {
        simulation = simulation.speed_of(rank, Speed::constant(Duration::from_millis(step)));
    }
    let mixture = Arc::new(Mixture::new(seed));
    let classifier = |worker: &Worker| {
        let random = Random::new(seed, 10 + u64::from(worker.rank.0));
        Classifier { me: worker.rank, seed, random, mixture: Arc::clone(&mixture), own }
    };
    let outcome = simulation.run(classifier).expect("a recipe that fits the cluster");
    assert!(outcome.end.is_good(), "{}", outcome.end);
    let (last, losses) = (outcome.curve.last(), outcome.curve.iter().skip(1).filter_map(|point| point.validation));
    Outcome {
        busy: [0, 1, 2, 3].map(|rank| outcome.busy(PeerId(rank))),
        rounds: outcome.workers[0].contributions,
        examples: last.map_or(0, |point| point.examples),
        losses: losses.map(|validation| validation.loss).collect(),
    }
}
