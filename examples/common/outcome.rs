//! The result of a run.

use gradwire::recipe::{Codec, Compensate, Late, Pace};
use gradwire::status::Rest;
use gradwire::telemetry::Times;

use super::hints::Hints;
use super::options::Options;

/// The result of a run of the cluster.
pub struct Outcome {
    /// Share of the test examples that are classified correctly, 0 to 1.
    pub accuracy: f64,
    /// Mean loss on the test examples.
    pub loss: f64,
    pub ending: Ending,
    pub hints: Hints,
    /// A digest of each worker's parameters.
    pub digests: Vec<u64>,
    /// Steps of all workers together.
    pub steps: u64,
    pub examples: u64,
    pub seconds: f64,
    /// Bytes sent by all nodes.
    pub sent: u64,
    /// Bytes that the same messages take as dense floats.
    pub dense: u64,
    pub staleness_mean: f64,
    pub staleness_max: u64,
    /// Share of the elements in the last message of worker 0, 0 to 1.
    pub density: f64,
    /// Threshold of the last message of worker 0.
    pub tau: f64,
    /// Norm of the residual of worker 0.
    pub residual_norm: f64,
    /// Total that worker 0 has cut from its residual.
    pub clipped: f64,
    /// Total that decay has removed from the residual of worker 0.
    pub forgotten: f64,
    /// Mesh messages that were summed for slow neighbours.
    pub merged: u64,
    /// Contributions that servers have applied, including late contributions that joined a later round.
    pub applied: u64,
    /// Contributions that came after the end of their round and were dropped.
    pub late: u64,
    /// Contributions that came after the end of their round and joined a later one.
    pub deferred: u64,
    /// Where the time of each worker has gone, by rank.
    pub times: Vec<Times>,
    /// A JSON array with an object per epoch of worker 0, from which learning can be plotted.
    pub curve: String,
    /// Updates that workers have not sent, and after which they have fetched no parameters.
    pub skipped: [u64; 2],
}

/// The end of a run: the model of worker 0 before it, and the residuals.
#[derive(Copy, Clone, Debug)]
pub struct Ending {
    /// Accuracy (0 to 1) and mean loss after the last step of worker 0.
    pub before: (f64, f64),
    /// Norm of the residual of worker 0 as a multiple of the norm of an update.
    pub residual_updates: f64,
    /// The residual of worker 0 at its end.
    pub rest: Option<Rest>,
    /// Norms of the unsent rests of the residuals, summed over all workers.
    pub kept: f64,
}

impl Outcome {
    /// A line of the summary: where the time of the workers has gone, in seconds.
    pub fn waits(&self) -> String {
        let span = |of: fn(&Times) -> u64| {
            let seconds = || self.times.iter().map(|times| of(times) as f64 / 1e9);
            (seconds().fold(f64::INFINITY, f64::min), seconds().fold(0.0, f64::max))
        };
        let ((c0, c1), (w0, w1)) = (span(|times| times.compute), span(|times| times.wait));
        format!("of a worker     {c0:.2} to {c1:.2} s computed, {w0:.2} to {w1:.2} s waited\n")
    }

    /// A line of the summary for rounds that wait for the first contributions only.
    pub fn lateness(&self, options: &Options) -> String {
        let all = (self.applied + self.late).max(1);
        let share = |part: u64| 100.0 * part as f64 / all as f64;
        match options.recipe.pace() {
            Pace::First { late: Late::Drop, .. } => {
                format!("late            {} of {all} contributions dropped ({:.1} %)\n", self.late, share(self.late))
            }
            Pace::First { late: Late::Next, .. } => format!(
                "late            {} of {all} contributions joined a later round ({:.1} %)\n",
                self.deferred,
                share(self.deferred)
            ),
            _ => String::new(),
        }
    }

    /// A line of the summary for workers that do not send or fetch everything.
    pub fn savings(&self, options: &Options) -> String {
        let contributions = self.steps / u64::from(options.recipe.period().at(0)).max(1);
        let [pushes, fetches] = self.skipped.map(|part| 100.0 * part as f64 / contributions.max(1) as f64);
        match options.recipe.compensate() {
            Compensate::Magnitude { push_cost, fetch_cost, .. } if push_cost > 0.0 || fetch_cost > 0.0 => {
                format!("skipped         {pushes:.1} % of the pushes, {fetches:.1} % of the fetches\n")
            }
            _ => String::new(),
        }
    }

    /// True if all workers have the same parameters, bit for bit.
    pub fn replicas_equal(&self) -> bool {
        self.digests.iter().all(|digest| *digest == self.digests[0])
    }
}

/// An epoch of the worker that reports, as a JSON object.
pub fn point(epoch: u32, seconds: f64, train_loss: f64, (accuracy, loss): (f64, f64)) -> String {
    format!(
        "{{\"epoch\":{epoch},\"seconds\":{seconds:.3},\"train_loss\":{},\"test_accuracy\":{},\"test_loss\":{}}}",
        number(train_loss, 5),
        number(accuracy, 4),
        number(loss, 5),
    )
}

/// The times of a node as JSON fields, each followed by a comma.
pub fn times(times: &Times) -> String {
    let [computed, waited, encoded, decoded, applied] =
        [times.compute, times.wait, times.encode, times.decode, times.apply].map(|nanos| nanos as f64 / 1e9);
    format!(
        "\"computed\":{computed:.4},\"waited\":{waited:.4},\"encoded\":{encoded:.4},\"decoded\":{decoded:.4},\
         \"applied_in\":{applied:.4},"
    )
}

impl Ending {
    /// Lines of the summary. `after`: accuracy and loss after the end.
    pub fn text(&self, options: &Options, after: (f64, f64)) -> String {
        let mut text = String::new();
        let (accuracy, loss) = self.before;
        if self.before != after || options.recipe.codec() != Codec::F32 {
            text += &format!("before the end  {:.2} %, loss {loss:.4}\n", accuracy * 100.0);
        }
        if let Some(rest) = self.rest {
            text += &format!("the end         {rest}\n");
        }
        text
    }

    /// The fields of a JSON object, each followed by a comma.
    pub fn json(&self) -> String {
        let rest = self.rest.map_or_else(
            || "null".to_string(),
            |Rest { norm, updates, messages, kept }| {
                let [norm, updates, kept] = [norm, updates, kept].map(|x| number(x, 6));
                format!("{{\"norm\":{norm},\"updates\":{updates},\"messages\":{messages},\"kept\":{kept}}}")
            },
        );
        format!(
            "\"accuracy_before_end\":{},\"loss_before_end\":{},\"residual_updates\":{},\"rest\":{rest},\
             \"kept_in_all\":{},",
            number(self.before.0, 4),
            number(self.before.1, 5),
            number(self.residual_updates, 3),
            number(self.kept, 6),
        )
    }
}

/// A number for a JSON object, which has no infinities and no NaN: `null` instead of them.
pub fn number(x: f64, digits: usize) -> String {
    if x.is_finite() { format!("{x:.digits$}") } else { "null".to_string() }
}
