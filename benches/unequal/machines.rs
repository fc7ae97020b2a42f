//! Four simulated workers of unequal speed learn to classify, in virtual time.

use std::sync::{Arc, Mutex};

use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe};
use gradwire_sim::{App, Halt, Network, Plan, Random, World};

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

/// The progress of the workers.
#[derive(Default)]
struct Shared {
    rounds: u64,
    examples: u64,
    /// The parameters of the last round of worker 0.
    params: Vec<f32>,
}

struct Learner {
    me: PeerId,
    random: Random,
    mixture: Arc<Mixture>,
    step: Duration,
    /// The share of the examples that come from classes of the worker's own.
    own: f64,
    contributed: bool,
    /// The training loss of the last step.
    loss: f32,
    shared: Arc<Mutex<Shared>>,
}

impl App for Learner {
    fn duration(&mut self, _step: u64) -> Duration {
        self.step
    }

    fn update(&mut self, _step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(0.0);
        self.loss = 0.0;
        for _ in 0..BATCH {
            let is_own = self.own > 0.0 && self.random.chance(self.own);
            let (class, x) = self.mixture.example(&mut self.random, is_own.then_some(self.me.index()));
            let all = softmax(params, &x);
            self.loss -= all[class].max(1e-9).ln() / BATCH as f32;
            for (other, p) in all.into_iter().enumerate() {
                let error = RATE / BATCH as f32 * (p - f32::from(u8::from(other == class)));
                let row = &mut update[other * (FEATURES + 1)..(other + 1) * (FEATURES + 1)];
                row.iter_mut().zip(x.iter().chain(&[1.0])).for_each(|(update, x)| *update += error * x);
            }
        }
        BATCH
    }

    fn loss(&mut self, _step: u64) -> Option<f32> {
        Some(self.loss)
    }

    fn contributes(&mut self, _step: u64, weight: u64) {
        self.contributed = true;
        let mut shared = self.shared.lock().expect("no thread of a simulation panics");
        shared.examples += weight;
        shared.rounds += u64::from(self.me == PeerId(0));
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        if std::mem::take(&mut self.contributed) && self.me == PeerId(0) {
            self.shared.lock().expect("no thread of a simulation panics").params.copy_from_slice(params);
        }
    }
}

/// Why a simulation stops.
enum Stop {
    Over,
    Halt(Halt),
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

/// Trains until the last of the virtual times, in seconds in rising order.
///
/// # Panics
/// If the recipe does not fit the cluster, or the run halts.
pub(crate) fn run(machines: &Machines, recipe: Recipe, seed: u64, seconds: &[u64]) -> Outcome {
    let Machines { network, step_ms, own } = *machines;
    let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
    let plan = Plan {
        network,
        patience: Patience::new(Duration::from_secs(1000)),
        steps: u64::MAX / 2,
        ..Plan::new(seed, Layout::flat(LEN), recipe, cluster)
    };
    let mixture = Arc::new(Mixture::new(seed));
    let shared = Arc::new(Mutex::new(Shared { params: vec![0.0; LEN], ..Shared::default() }));
    let learner = |me: PeerId| -> Box<dyn App> {
        Box::new(Learner {
            me,
            random: Random::new(seed, 10 + u64::from(me.0)),
            mixture: Arc::clone(&mixture),
            step: Duration::from_millis(step_ms[me.index()]),
            own,
            contributed: false,
            loss: 0.0,
            shared: Arc::clone(&shared),
        })
    };
    let mut world = World::new(plan, learner).expect("a recipe that fits the cluster");
    let (mut last, mut computing, mut busy) = (Instant::ORIGIN, [false; 4], [Duration::ZERO; 4]);
    let mut losses = Vec::new();
    let end = Instant::ORIGIN.after(Duration::from_secs(seconds.last().copied().unwrap_or(0)));
    let stop = world.run(u64::MAX, |world, _| {
        let now = world.now().min(end);
        for (worker, computed) in busy.iter_mut().enumerate() {
            if computing[worker] {
                *computed += now.since(last);
            }
            computing[worker] = world.is_computing(PeerId(worker as u32));
        }
        last = now;
        while seconds.get(losses.len()).is_some_and(|at| now >= Instant::ORIGIN.after(Duration::from_secs(*at))) {
            losses.push(loss(&mixture, &shared.lock().expect("no thread of a simulation panics").params, seed));
        }
        if losses.len() == seconds.len() { Err(Stop::Over) } else { Ok(()) }
    });
    match stop {
        Err(Stop::Over) => {}
        Err(Stop::Halt(halt)) => panic!("{halt:?}"),
        Ok(()) => panic!("the run has ended before its time"),
    }
    let shared = shared.lock().expect("no thread of a simulation panics");
    let whole = end.since(Instant::ORIGIN).as_secs_f64();
    let busy = busy.map(|busy| busy.as_secs_f64() / whole);
    Outcome { busy, rounds: shared.rounds, examples: shared.examples, losses }
}
