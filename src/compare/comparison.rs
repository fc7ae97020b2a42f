//! [`Comparison`]: the rules to compare, and the conditions.

use std::ops::{ControlFlow, RangeInclusive};

use gradwire_core::{Duration, Recipe};
use gradwire_sim::simulation::{Fault, Links, Speed};

use super::error::Error;
use super::model::Model;
use super::points::{self, Number};
use super::progress::Progress;
use super::report::Report;
use super::results::Results;
use super::{conduct, judge};

/// A comparison of rules on one model, cluster and network, in virtual time.
///
/// Three reference rows are always there: one worker with the same examples, one worker with the batch of all workers,
/// and `sync`. Every row is tuned over the same points on validation loss, and then runs with the same fresh seeds.
///
/// ```
/// use gradwire::Recipe;
/// use gradwire::compare::Comparison;
///
/// let comparison = Comparison::new(8, 16) // workers, and examples of a step
///     .rule("ssp", Recipe::ssp(3))
///     .rule("averaging", "averaging period=20".parse()?)
///     .seeds(3);
/// // `comparison.run(&model)` needs a model: see the example of the module.
/// # let _ = comparison;
/// # Ok::<(), gradwire::recipe::RecipeParseError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Comparison {
    pub(super) workers: u32,
    pub(super) batch: u32,
    pub(super) servers: u32,
    pub(super) rules: Vec<Rule>,
    /// Repeated over the ranks. Not empty.
    pub(super) speeds: Vec<Speed>,
    pub(super) links: Links,
    pub(super) patience: Option<Duration>,
    pub(super) faults: Vec<(Duration, Fault)>,
    pub(super) examples: u64,
    pub(super) samples: u64,
    pub(super) rates: RangeInclusive<f32>,
    pub(super) points: usize,
    pub(super) tuning_examples: Option<u64>,
    pub(super) tuning_seeds: u64,
    pub(super) seeds: u64,
    pub(super) repetition: u64,
    pub(super) target: Option<f64>,
    pub(super) threads: Option<usize>,
}

/// A rule to compare.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) recipe: Recipe,
    pub(super) number: Option<Number>,
}

impl Comparison {
    /// Most workers.
    pub const WORKERS_MAX: u32 = 4096;

    /// A comparison on so many workers, each with so many examples per step, without rules yet.
    ///
    /// Steps take 1 ms and links have a latency of 100 µs. Runs have 10,000 examples, 3 learning rates between 0.01 and
    /// 1 are tried with half of them, and 5 seeds are compared.
    pub fn new(workers: u32, batch: u32) -> Self {
        Self {
            workers,
            batch,
            servers: 1,
            rules: Vec::new(),
            speeds: vec![Speed::constant(Duration::from_millis(1))],
            links: Links::default(),
            patience: None,
            faults: Vec::new(),
            examples: 10_000,
            samples: 32,
            rates: 0.01..=1.0,
            points: 3,
            tuning_examples: None,
            tuning_seeds: 1,
            seeds: 5,
            repetition: 0,
            target: None,
            threads: None,
        }
    }

    // Rules

    /// A rule. Its learning rate is tuned; a correction of delays, as in `dc-asgd`, has the same rate.
    pub fn rule(mut self, name: &str, recipe: Recipe) -> Self {
        self.rules.push(Rule { name: name.into(), recipe, number: None });
        self
    }

    /// A rule of which a number is tuned together with the learning rate: a key of the text form of recipes. Values
    /// between whole numbers are whole. The rule gets as many points as the others.
    pub fn tuned_rule(mut self, name: &str, recipe: Recipe, key: &str, values: RangeInclusive<f64>) -> Self {
        let number = Number { key: key.into(), from: *values.start(), to: *values.end() };
        self.rules.push(Rule { name: name.into(), recipe, number: Some(number) });
        self
    }

    // Cluster

    /// Number of servers of rules that need servers. Default 1.
    pub fn servers(self, servers: u32) -> Self {
        Self { servers, ..self }
    }

    /// The speeds of the workers, by rank; if there are fewer than workers, they repeat. They are those of steps with
    /// the batch of one worker. The reference rows of one worker have the fastest.
    pub fn speeds(self, speeds: impl IntoIterator<Item = Speed>) -> Self {
        Self { speeds: speeds.into_iter().collect(), ..self }
    }

    /// The network.
    pub fn links(self, links: Links) -> Self {
        Self { links, ..self }
    }

    /// For how long nodes wait for a peer without a connection. Default 5 s.
    pub fn patience(self, dead_after: Duration) -> Self {
        Self { patience: Some(dead_after), ..self }
    }

    /// A fault at a virtual time, in the runs of all rules. The reference rows of one worker have no faults.
    pub fn fault(mut self, at: Duration, fault: Fault) -> Self {
        self.faults.push((at, fault));
        self
    }

    // Budget

    /// E: the examples of a run, of all workers together.
    pub fn examples(self, examples: u64) -> Self {
        Self { examples, ..self }
    }

    /// Number of validations of a run, at equal distances in examples, besides the one at the start. Default 32. Times
    /// and examples to the target are interpolated between them.
    pub fn samples(self, samples: u64) -> Self {
        Self { samples, ..self }
    }

    /// The validation loss that counts as reached. Default: the loss that one worker has after a share of the budget,
    /// the median over seeds. The share is 2 / workers, from 1/8 to 1/2: at half of the ideal speed, all workers
    /// together use the budget up in that time.
    pub fn target(self, loss: f64) -> Self {
        Self { target: Some(loss), ..self }
    }

    // Tuning

    /// The learning rates that are tried: so many points of this range, even in log space.
    pub fn rates(self, rates: RangeInclusive<f32>, points: usize) -> Self {
        Self { rates, points, ..self }
    }

    /// The examples of a run of the tuning. Default: half of the budget.
    pub fn tuning_examples(self, examples: u64) -> Self {
        Self { tuning_examples: Some(examples), ..self }
    }

    /// Seeds per point of the tuning. Default 1. They are none of those that are compared.
    pub fn tuning_seeds(self, seeds: u64) -> Self {
        Self { tuning_seeds: seeds, ..self }
    }

    /// Number of seeds that are compared. Default 5. With fewer than 5, no difference is shown.
    pub fn seeds(self, seeds: u64) -> Self {
        Self { seeds, ..self }
    }

    /// A repetition of the same comparison with other seeds, from 0 to 999. Default 0, of which the compared seeds begin
    /// at 1. No two repetitions share a seed, neither of the tuning nor of the comparison. See
    /// [`Stability`](super::Stability).
    pub fn repetition(self, repetition: u64) -> Self {
        Self { repetition, ..self }
    }

    // Run

    /// The number of threads. Default: [`std::thread::available_parallelism`]. It does not change the report.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Compares.
    ///
    /// # Errors
    /// If a setting is wrong, or the model does not validate. Runs that fail or diverge are rows of the report.
    ///
    /// # Panics
    /// If the model or a learner panics.
    pub fn run(&self, model: &impl Model) -> Result<Report, Error> {
        self.run_watched(model, &Results::default(), |_| ControlFlow::Continue(()))
    }

    /// As [`run`](Self::run). Runs that are `known` are not run again. `watch` sees the progress, and can stop the
    /// comparison. It runs on one thread at a time.
    ///
    /// For a comparison that can be resumed, write [`Results::header`] and each [`Progress::line`] to a file, and pass
    /// what [`Results::read`] finds there.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`Error::Stopped`] if `watch` stops it.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_watched<M: Model>(
        &self,
        model: &M,
        known: &Results,
        watch: impl FnMut(Progress<'_>) -> ControlFlow<()> + Send,
    ) -> Result<Report, Error> {
        let rows = conduct::all(self, model, known, watch)?;
        Ok(judge::report(self, model, rows))
    }

    // Derived settings

    /// Examples of a run of the tuning.
    pub(super) fn tuning_budget(&self) -> u64 {
        self.tuning_examples.unwrap_or(self.examples / 2).max(1)
    }

    /// The learning rates of all points.
    pub(super) fn rate_points(&self) -> Vec<f32> {
        points::rates(*self.rates.start(), *self.rates.end(), self.points)
    }

    /// The share of the budget after which one worker has the target.
    pub(super) fn target_share(&self) -> f64 {
        (2.0 / f64::from(self.workers)).clamp(0.125, 0.5)
    }

    /// The speed of a worker.
    pub(super) fn speed_of(&self, rank: u32) -> &Speed {
        &self.speeds[rank as usize % self.speeds.len()]
    }

    /// The fastest of the workers; of equal ones, the first.
    pub(super) fn fastest(&self) -> &Speed {
        let used = &self.speeds[..self.speeds.len().min(self.workers as usize)];
        used.iter().min_by_key(|speed| speed.mean()).unwrap_or(&self.speeds[0])
    }
}
