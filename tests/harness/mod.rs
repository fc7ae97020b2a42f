//! The harness: random runs of the real machines in the simulator, checked against invariants and reference models.
//!
//! 1. A *seed* determines a [`Scenario`] (`scenario.rs`): recipe, cluster, network and faults.
//! 2. [`run`] (`check.rs`) executes the scenario in virtual time. It checks some invariants after every event and the
//!    rest at the end of the run. It also counts rare situations in a [`Coverage`], so that a suite can assert that it
//!    has met them.
//! 3. The *reference models* (`reference.rs`) compute in `f64`, from the formulas of the papers, the parameters that a
//!    run must end with.
//! 4. A scenario that fails is reduced by [`shrink`] (`shrink.rs`): it removes faults as long as the run still fails.
//!    [`report`] prints the result with the command that runs it again.
//! 5. The *books* (`books.rs`) count the messages and kernels of each node, and compare them with the counters of the
//!    node's status.
//!
//! Contributions are exact: workers contribute multiples of 2^-10 that floats add without rounding, so that
//! contributions, parameters and residuals can be compared with `==`. Element `j` of the vector belongs to worker `j`,
//! for each `j` below the number of workers. Only that worker changes it, by [`UNIT`] per step, so that any replica
//! shows how many updates of each worker it contains.
//!
//! # Invariants
//!
//! Invariants are numbered `I-n` if they concern the result of an algorithm, and `Rn` if they concern the reliability
//! of the protocol. The doc comment of a test explains the number that it checks (for instance `tests/laws/` and the
//! unit tests of the codecs). The harness checks these:
//!
//! | number | invariant | function |
//! |---|---|---|
//! | I-01, I-04, I-05 | a round equals one step on the union of the workers' batches | `synchronous` |
//! | I-02 | the result of a synchronous recipe does not depend on the order of arrival | `same_on_a_calm_network` |
//! | I-13 | averaging parameters and applying the mean of the updates give the same parameters | `synchronous` |
//! | I-22, R1, R2 | each contribution is applied once: the applied updates add up to the change of a shard | `summed` |
//! | I-27, I-28 | softsync applies groups of c updates; the last, smaller group is divided by its size | `softsync` |
//! | | B-FASGD: in place of a contribution without a body, a server merges the last one of its worker with a body; workers count what they have not sent or fetched | `merged_in_order`, the books |
//! | I-36, R4 | a worker computes at most s clocks ahead of the slowest member (SSP) | `check_lead` |
//! | I-40 | sent quanta plus residual equal the updates: no element is lost | `mesh` |
//! | I-108 to I-110 | rounds of the first contributions: each is merged once or counted as late, no contribution is stale unless the recipe keeps late ones, and the result is that of the members in time | `first` |
//! | I-139, I-142 | periods in time and in examples: a round is the weighted mean of the workers' contributions up to then | `timed` |
//! | | means by steps: a round is the mean direction of a step, times the mean number of steps | `timed` |
//! | | means by batch: the weights are the examples, times the examples per step | `synchronous`, `timed`, `first` |
//! | | periods that follow the loss: all workers take as many steps as the formula says | `timed` |
//! | I-44, I-45 | replicas of a mesh are equal at the end, and contain all contributions | `mesh` |
//! | R5 | replicas of a synchronous recipe are equal after every step | `synchronous` |
//! | R12 | the same seed gives the same run | `tests/schedules.rs` |

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part")]

mod books;
mod check;
mod ends;
mod first;
mod reference;
mod scenario;
mod shrink;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use check::{Coverage, Failure, run};
use gradwire_core::{Duration, PeerId};
use gradwire_sim::{App, Random};
pub use scenario::{Kind, Scenario};
pub use shrink::{report, shrink};

/// The update that a worker contributes to its own element at each step.
pub const UNIT: f32 = 8.0 / 1024.0;

/// The training loss that a worker reports of a step.
pub fn loss(worker: u32, step: u64) -> f32 {
    3.0 / (1.0 + step as f32 / 3.0) + (worker % 3) as f32 / 8.0 + (step % 2) as f32 / 4.0
}

/// The learning rate of a worker's step, relative to that at the start. Workers disagree.
pub fn rate(worker: u32, step: u64) -> f32 {
    [1.0, 0.5, 2.0, 0.25][((step / 2 + u64::from(worker % 2)) % 4) as usize]
}

/// The contributions and the parameters of all workers in a run, as the workers saw them.
#[derive(Debug, Default)]
pub struct Truth {
    /// The sum of each worker's contributions, by worker and element, in units of 2^-10.
    pub contributed: Vec<Vec<i64>>,
    /// Examples and update of each contribution, by step and worker. Updates are in units of 2^-10.
    pub steps: BTreeMap<u64, BTreeMap<u32, (u32, Vec<i64>)>>,
    /// The contributions of each worker in order, by worker: each is its part of one round of a synchronous recipe.
    pub rounds: Vec<Vec<Round>>,
    /// Parameters before the first step, by worker. A worker that comes late begins with the other workers' parameters.
    pub first: BTreeMap<u32, Vec<f32>>,
    /// Parameters after each step, by step and worker.
    pub after: BTreeMap<u64, BTreeMap<u32, Vec<f32>>>,
    /// The first violation that a worker has seen in its parameters.
    pub violation: Option<String>,
}

impl Truth {
    /// The record of a run that has not begun, for `workers` workers and a vector of `len` elements.
    pub fn new(workers: u32, len: usize) -> Arc<Mutex<Self>> {
        let (contributed, rounds) = (vec![vec![0; len]; workers as usize], vec![Vec::new(); workers as usize]);
        Arc::new(Mutex::new(Self { contributed, rounds, ..Self::default() }))
    }
}

/// A worker's part of a round.
#[derive(Clone, Debug)]
pub struct Round {
    pub weight: u64,
    /// The sum of its updates, in units of 2^-10.
    pub sum: Vec<i64>,
    /// The mean learning rate of its steps.
    pub rate: f64,
    /// The worker's parameters after the round.
    pub after: Option<Vec<f32>>,
}

/// The training loop of a simulated worker: it contributes random integers, and checks the parameters that it sees.
#[derive(Clone)]
pub struct Trainer {
    pub me: PeerId,
    pub workers: u32,
    /// Determines the contributions. Step times have a generator of their own, so that a change of the step times does
    /// not change the contributions.
    pub random: Random,
    /// The mean duration of a step.
    pub pace: Duration,
    /// The random share of a step's duration, from 0 to 1.
    pub spread: f64,
    /// The value that this worker's own element must have at its next step.
    pub own: Option<f32>,
    /// Check that each step sees all earlier updates of this worker.
    pub sees_own: bool,
    /// Check that step c sees the first `c - lag` updates of every worker. Only valid in runs without crashes.
    pub lag: Option<u64>,
    /// The sum of the updates since the last contribution, in units of 2^-10.
    pub local: Vec<i64>,
    /// The learning rates of the steps since the last contribution.
    pub rates: Vec<f64>,
    /// The program changes its learning rate.
    pub changes_rate: bool,
    pub truth: Arc<Mutex<Truth>>,
}

impl Trainer {
    /// A worker of a run with this seed, which checks nothing but counts its contributions in `truth`.
    pub fn new(seed: u64, me: PeerId, workers: u32, spread: f64, truth: &Arc<Mutex<Truth>>) -> Self {
        Self {
            me,
            workers,
            random: Random::new(seed, 100 + u64::from(me.0)),
            pace: Duration::from_millis(2),
            spread,
            own: None,
            sees_own: false,
            lag: None,
            local: Vec::new(),
            rates: Vec::new(),
            changes_rate: false,
            truth: Arc::clone(truth),
        }
    }

    /// Records a violation, if it is the first of the run: later ones are often consequences of the first.
    fn violate(&self, truth: &mut Truth, message: String) {
        truth.violation.get_or_insert(message);
    }
}

impl App for Trainer {
    fn duration(&mut self, _step: u64) -> Duration {
        let mut random = Random::new(self.random.clone().next(), 4);
        let factor = 1.0 - self.spread + random.exponential(self.spread);
        Duration::from_nanos((self.pace.as_nanos() as f64 * factor) as u64 + 1)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let mine = self.me.index();
        let truth = Arc::clone(&self.truth);
        let mut truth = truth.lock().unwrap();
        truth.first.entry(self.me.0).or_insert_with(|| params.to_vec());
        let seen = params[mine];
        if let Some(expected) = self.own.filter(|expected| self.sees_own && *expected != seen) {
            let message = format!("worker {mine} at step {step} sees its own element at {seen}, expected {expected}");
            self.violate(&mut truth, message);
        }
        if let Some(lag) = self.lag {
            for (other, own) in params.iter().enumerate().take(self.workers as usize) {
                let count = (-own / UNIT).round();
                if count < step.saturating_sub(lag) as f32 {
                    let message = format!("worker {mine} at step {step} sees only {count} updates of worker {other}");
                    self.violate(&mut truth, message);
                }
            }
        }
        // In units of 2^-10: UNIT for the own element, 0 for elements of other workers, random for the shared rest.
        for (i, x) in update.iter_mut().enumerate() {
            let units = match i {
                _ if i == mine => 8,
                _ if i < self.workers as usize => 0,
                _ => self.random.below(17) as i64 - 8,
            };
            *x = units as f32 / 1024.0;
        }
        let units: Vec<i64> = update.iter().map(|x| (x * 1024.0) as i64).collect();
        for (sum, x) in truth.contributed[mine].iter_mut().zip(&units) {
            *sum += x;
        }
        self.local.resize(units.len(), 0);
        self.local.iter_mut().zip(&units).for_each(|(sum, x)| *sum += x);
        let examples = 1 + self.random.below(4) as u32;
        truth.steps.entry(step).or_default().insert(self.me.0, (examples, units));
        self.own = Some(seen - UNIT);
        examples
    }

    fn loss(&mut self, step: u64) -> Option<f32> {
        Some(loss(self.me.0, step))
    }

    fn rate(&mut self, step: u64) -> Option<f32> {
        let rate = self.changes_rate.then(|| rate(self.me.0, step));
        self.rates.push(rate.unwrap_or(1.0).into());
        rate
    }

    fn contributes(&mut self, _step: u64, weight: u64) {
        let rate = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        self.rates.clear();
        let round = Round { weight, sum: std::mem::take(&mut self.local), rate, after: None };
        self.truth.lock().unwrap().rounds[self.me.index()].push(round);
    }

    fn done(&mut self, step: u64, params: &[f32]) {
        let mut truth = self.truth.lock().unwrap();
        // The first step after a contribution is the one that ends with it.
        if let Some(round) = truth.rounds[self.me.index()].last_mut() {
            round.after.get_or_insert_with(|| params.to_vec());
        }
        truth.after.entry(step).or_default().insert(self.me.0, params.to_vec());
    }
}
