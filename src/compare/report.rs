//! [`Report`]: the answer of a comparison, as plain data.

use gradwire_core::Recipe;

/// The answer of a comparison. Equal settings give equal reports, bit for bit.
///
/// Figures that do not exist, such as the time to a target that a run has not reached, are `None` in a run, and
/// infinite in a [`Summary`] of seeds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// What was compared, and under which conditions. Verdicts hold under them only.
    pub conditions: Conditions,
    /// The validation loss that counts as reached. Infinite: there is none, since one worker failed.
    pub target: f64,
    /// T: the virtual seconds in which one worker reaches the target, the median over seeds. `None`: it does not.
    pub target_time: Option<f64>,
    /// The reference rows, then the rules in their order.
    pub rows: Vec<Row>,
    /// The winner of each criterion, in the order of [`Criterion::ALL`]. A criterion has no entry if no rule has a
    /// figure for it.
    pub winners: Vec<Winner>,
    /// Positions of the rules that no other rule beats in time, loss and bytes at the end of the budget at once.
    pub pareto: Vec<usize>,
    /// The answer in sentences, with its conditions.
    pub verdict: Vec<String>,
}

/// The conditions of a comparison.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Conditions {
    /// The name of the model and its data.
    pub model: String,
    /// Length of the parameter vector.
    pub parameters: usize,
    /// Number of workers.
    pub workers: u32,
    /// Number of servers of rules that need servers.
    pub servers: u32,
    /// Examples of a step of one worker.
    pub batch: u32,
    /// Mean seconds of a step of each worker, by rank.
    pub steps: Vec<f64>,
    /// The network in words.
    pub links: String,
    /// The faults in words. Empty: nothing fails.
    pub faults: Vec<String>,
    /// Examples of a run: the budget of every row.
    pub examples: u64,
    /// Examples of a run of the tuning.
    pub tuning_examples: u64,
    /// The learning rates that every row was tuned over. A single one: rates were not tuned.
    pub rates: Vec<f32>,
    /// Seeds of the tuning. None of them is a seed of the comparison.
    pub tuning_seeds: Vec<u64>,
    /// Seeds of the comparison, the same for all rows.
    pub seeds: Vec<u64>,
}

/// Why a row is in the table.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One worker with the same examples and the batch of one worker.
    OneWorker,
    /// One worker with the batch of all workers together. This is what synchronous SGD computes.
    LargeBatch,
    /// A rule on all workers.
    Rule,
}

/// The results of a rule, or of a reference.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Whether it is a rule.
    pub kind: Kind,
    /// The recipe of its runs, with the tuned number if there is one.
    pub recipe: Recipe,
    /// Number of workers.
    pub workers: u32,
    /// Examples of a step of one worker.
    pub batch: u32,
    /// The tuned settings, and how they were found.
    pub tuned: Tuned,
    /// By seed, in the order of [`Conditions::seeds`].
    pub runs: Vec<Run>,
    /// Summary of each figure over the seeds, in the order of [`Measure::all`].
    pub summaries: Vec<(Measure, Summary)>,
}

/// The settings that were tuned on validation loss, with seeds of their own.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tuned {
    /// The learning rate.
    pub rate: f32,
    /// The key of the recipe that was tuned besides the rate, and its value.
    pub number: Option<(String, String)>,
    /// All points that were tried. Empty: there was only one.
    pub trials: Vec<Trial>,
    /// The chosen rate is the smallest or the largest one that was tried: a better one may lie beyond.
    pub at_edge: bool,
}

/// A point of the tuning.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Trial {
    /// The learning rate.
    pub rate: f32,
    /// The value of the number that is tuned besides it.
    pub number: Option<String>,
    /// Validation loss at the end, the median over the seeds of the tuning. Infinite: it failed or diverged.
    pub loss: f64,
}

/// A run with one seed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// Why it failed or diverged. `None`: it ended with its budget.
    pub failed: Option<String>,
    /// Its progress, from the start to the end. Times rise; examples and bytes do not fall.
    pub curve: Vec<Sample>,
    /// Its figures.
    pub figures: Figures,
}

/// A moment of a run.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// Virtual seconds.
    pub seconds: f64,
    /// Examples that all workers had contributed when the validated parameters were synchronised.
    pub examples: u64,
    /// Bytes of all messages.
    pub bytes: u64,
    /// Validation loss. Infinite if it is not finite.
    pub loss: f64,
    /// Validation accuracy, from 0 to 1.
    pub accuracy: Option<f64>,
}

/// The figures of a run.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// Examples of all workers per virtual second, without the first eighth of the budget.
    pub speed: Option<f64>,
    /// Share of the time in which workers compute, the mean over workers, from 0 to 1. They wait in the rest.
    pub compute: Option<f64>,
    /// Virtual seconds that half of the steps do not exceed, waits included: from the end of a worker's step to the end
    /// of its next one. Within 0.6 %.
    pub step_p50: Option<f64>,
    /// Virtual seconds that nine tenths of the steps do not exceed.
    pub step_p90: Option<f64>,
    /// The loss on the test part, of the parameters with the smallest validation loss of the run. `None`: the model has
    /// no test part.
    pub test_loss: Option<f64>,
    /// The accuracy there, from 0 to 1.
    pub test_accuracy: Option<f64>,
    /// The best validation loss until it no longer improves.
    pub attained: Option<Attained>,
    /// Validation loss at T/4, T/2, T and 2T.
    pub at_time: [Option<Value>; 4],
    /// Validation loss at E/4, E/2 and E.
    pub at_examples: [Option<Value>; 3],
    /// Virtual seconds to the target. `None`: not within the budget.
    pub seconds_to_target: Option<f64>,
    /// Examples to the target.
    pub examples_to_target: Option<f64>,
    /// Bytes to the target.
    pub bytes_to_target: Option<f64>,
}

/// The best validation loss of a run.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Attained {
    /// The loss.
    pub loss: f64,
    /// The budget was over while the loss still improved: more examples may give a lower one.
    pub capped: bool,
}

/// A validation loss at a moment.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Value {
    /// The loss.
    pub loss: f64,
    /// The run had used up its examples before: this is the loss of its end.
    pub ended: bool,
}

/// A figure of a run that rows are compared by.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Examples per virtual second. The only figure of which more is better.
    Speed,
    /// Virtual seconds that half of the steps do not exceed.
    StepP50,
    /// Virtual seconds that nine tenths of the steps do not exceed.
    StepP90,
    /// The best validation loss.
    Attained,
    /// The loss on the test part.
    TestLoss,
    /// Validation loss at T/4, T/2, T and 2T: 0 to 3.
    AtTime(usize),
    /// Virtual seconds to the target.
    SecondsToTarget,
    /// Validation loss at E/4, E/2 and E: 0 to 2.
    AtExamples(usize),
    /// Examples to the target.
    ExamplesToTarget,
    /// Bytes to the target.
    BytesToTarget,
}

/// The four criteria. Rules rank differently under each.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Criterion {
    /// Examples per second.
    Speed,
    /// The loss on the test part, of the parameters with the smallest validation loss; without a test part, the best
    /// validation loss.
    Attainable,
    /// Loss for time.
    WallClock,
    /// Loss for examples.
    Examples,
}

/// A figure over the seeds.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Summary {
    /// The median. Infinite, or 0 for the speed, if most seeds have no such figure.
    pub median: f64,
    /// The smallest value.
    pub least: f64,
    /// The largest value.
    pub most: f64,
}

/// The winner of a criterion.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Winner {
    /// The criterion.
    pub criterion: Criterion,
    /// The figure that decided: time and examples to the target, or the loss if no rule has reached it.
    pub measure: Measure,
    /// The position of the row with the best median.
    pub row: usize,
    /// The differences of all other rules to it.
    pub differences: Vec<Difference>,
}

/// The difference of a row to the best one, seed by seed.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Difference {
    /// The position of the row.
    pub row: usize,
    /// Median of its figure minus that of the best row, over seeds.
    pub median: f64,
    /// Bounds of the interval that holds the median with a confidence of 95 %, by the bootstrap.
    pub low: f64,
    /// See [`low`](Self::low).
    pub high: f64,
    /// The interval does not contain 0, and so many equal signs are rare between equal rules (at most one case of 16, by
    /// the sign test). Else no difference is shown.
    pub shown: bool,
}

impl Criterion {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 4] = [Self::Speed, Self::Attainable, Self::WallClock, Self::Examples];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Attainable => "attainable loss",
            Self::WallClock => "loss for wall-clock",
            Self::Examples => "loss for examples",
        }
    }
}

impl Measure {
    /// All of them, in the order of [`Row::summaries`].
    pub fn all() -> impl Iterator<Item = Self> {
        let times = (0..4).map(Self::AtTime);
        let examples = (0..3).map(Self::AtExamples);
        [Self::Speed, Self::StepP50, Self::StepP90, Self::Attained, Self::TestLoss]
            .into_iter()
            .chain(times)
            .chain([Self::SecondsToTarget])
            .chain(examples)
            .chain([Self::ExamplesToTarget, Self::BytesToTarget])
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Speed => "examples per second",
            Self::StepP50 => "step time p50",
            Self::StepP90 => "step time p90",
            Self::Attained => "best loss",
            Self::TestLoss => "test loss",
            Self::AtTime(at) => ["loss at T/4", "loss at T/2", "loss at T", "loss at 2T"][at],
            Self::SecondsToTarget => "seconds to the target",
            Self::AtExamples(at) => ["loss at E/4", "loss at E/2", "loss at E"][at],
            Self::ExamplesToTarget => "examples to the target",
            Self::BytesToTarget => "bytes to the target",
        }
    }

    /// True if more is better.
    pub const fn is_more_better(self) -> bool {
        matches!(self, Self::Speed)
    }

    /// The figure of a run. `None`: there is no such figure.
    pub fn of(self, figures: &Figures) -> Option<f64> {
        match self {
            Self::Speed => figures.speed,
            Self::StepP50 => figures.step_p50,
            Self::StepP90 => figures.step_p90,
            Self::TestLoss => figures.test_loss,
            Self::Attained => figures.attained.map(|attained| attained.loss),
            Self::AtTime(at) => figures.at_time[at].map(|value| value.loss),
            Self::SecondsToTarget => figures.seconds_to_target,
            Self::AtExamples(at) => figures.at_examples[at].map(|value| value.loss),
            Self::ExamplesToTarget => figures.examples_to_target,
            Self::BytesToTarget => figures.bytes_to_target,
        }
    }
}

impl Row {
    /// The summary of a figure over the seeds.
    pub fn summary(&self, measure: Measure) -> Summary {
        let found = self.summaries.iter().find(|(other, _)| *other == measure);
        found.map_or(Summary { median: f64::INFINITY, least: f64::INFINITY, most: f64::INFINITY }, |(_, it)| *it)
    }

    /// Number of runs that failed or diverged.
    pub fn failures(&self) -> usize {
        self.runs.iter().filter(|run| run.failed.is_some()).count()
    }

    /// Number of runs whose loss still improved at the end of the budget.
    pub fn capped(&self) -> usize {
        self.runs.iter().filter(|run| run.figures.attained.is_some_and(|attained| attained.capped)).count()
    }
}

impl Winner {
    /// Rows whose difference to the winner is not shown.
    pub fn tied(&self) -> impl Iterator<Item = usize> {
        self.differences.iter().filter(|difference| !difference.shown).map(|difference| difference.row)
    }
}
