//! The output of `cluster`: a line per epoch during the run and a table at its end, or one JSON object.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use gradwire::telemetry::Times;
use gradwire_examples::options::Options;
use gradwire_examples::outcome::{self, Outcome, number};
use gradwire_examples::task::Task;
use gradwire_examples::threads::{Progress, staleness, traffic};

/// Prints the progress and the result of a run.
pub(crate) struct Report {
    options: Options,
    parameters: usize,
    begun: Instant,
    /// A JSON object per epoch.
    curve: Vec<String>,
}

impl Report {
    /// Prints the header of the table of epochs.
    pub(crate) fn new(options: &Options, task: &dyn Task) -> Self {
        let parameters = task.layout().len();
        let report = Self { options: options.clone(), parameters, begun: Instant::now(), curve: Vec::new() };
        let servers = match options.cluster.servers {
            0 => String::new(),
            servers => format!(" and {servers} server{}", if servers == 1 { "" } else { "s" }),
        };
        report.print(&format!(
            "{} workers{servers} learn {}, {} parameters\nrecipe {}: {}\n\
             learning rate {}, batch {} per worker, {} epochs, seed {}\n\n\
             {}",
            options.cluster.workers,
            task.about(),
            parameters,
            options.name,
            options.recipe.fitted(options.cluster, parameters),
            options.rate,
            options.batch,
            options.epochs,
            options.seed,
            if is_coded(options) {
                "epoch test acc train loss     steps density     tau     sent of dense  left"
            } else {
                "epoch test acc train loss     steps staleness     sent of dense  left"
            },
        ));
        report
    }

    /// Prints a line of text, unless the output is JSON.
    fn print(&self, text: &str) {
        if !self.options.json {
            // An error is ignored: with a closed pipe (`| head`), the exit code still shows the result.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Evaluates the model and prints a line, for every epoch that worker 0 has ended since the last call.
    pub(crate) fn update(&mut self, progress: &Progress, task: &mut dyn Task) {
        loop {
            let ended = progress.epochs.lock().unwrap_or_else(|error| error.into_inner()).pop_front();
            let Some((epoch, loss, params)) = ended else { return };
            let (accuracy, test_loss) = task.evaluate(&params);
            *progress.accuracy.lock().unwrap_or_else(|error| error.into_inner()) = Some(accuracy);
            let seconds = self.begun.elapsed().as_secs_f64();
            self.curve.push(outcome::point(epoch, seconds, loss, (accuracy, test_loss)));
            if !self.options.json {
                self.line(progress, epoch, loss, accuracy);
            }
        }
    }

    /// A JSON array of the epochs so far.
    pub(crate) fn curve(&self) -> String {
        format!("[{}]", self.curve.join(","))
    }

    /// Prints the line of an epoch.
    fn line(&self, progress: &Progress, epoch: u32, loss: f64, accuracy: f64) {
        let steps = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed));
        let (min, max) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
        let statuses = progress.statuses.lock().unwrap_or_else(|error| error.into_inner());
        let known = || statuses.iter().flatten();
        let (sent, dense) = traffic(known());
        let clocks = if min == max { format!("{max}") } else { format!("{min}-{max}") };
        // Test accuracy, and what has been learned of the training data.
        let (test, share) = (accuracy * 100.0, 100.0 * sent as f64 / dense.max(1) as f64);
        let left = self.begun.elapsed().as_secs_f64() / f64::from(epoch) * f64::from(self.options.epochs - epoch);
        let middle = match known().next().filter(|_| is_coded(&self.options)) {
            Some(worker) => format!("{:>6.3}% {:>7.1e}", worker.density * 100.0, worker.tau),
            None => format!("{:>9.2}", staleness(known()).mean()),
        };
        self.print(&format!(
            "{epoch:>5} {test:>7.1}% {loss:>10.3} {clocks:>9} {middle} {:>8} {share:>7.1}% {:>5}",
            bytes(sent),
            time_left(left),
        ));
    }

    /// Prints the result.
    pub(crate) fn end(&self, outcome: &Outcome) {
        let Outcome { accuracy, loss, steps, examples, seconds, sent, dense, .. } = *outcome;
        let rate = examples as f64 / seconds;
        let workers = self.options.cluster.workers;
        let equal = match outcome.replicas_equal() {
            true if workers == 1 => String::new(),
            true => format!(", the same on all {workers} workers"),
            false => format!(", different on other workers: {:016x?}", outcome.digests),
        };
        let digest = outcome.digests.first().copied().unwrap_or(0);
        if self.options.json {
            let mut text = String::new();
            let Options { recipe, name, cluster, .. } = &self.options;
            let recipe = recipe.fitted(*cluster, self.parameters);
            let name = name.replace(['"', '\\'], "");
            let _ = write!(
                text,
                "{{\"recipe\":\"{name}\",\"version\":\"{}\",\"recipe_in_full\":\"{recipe}\",\"workers\":{},\"servers\":{},\
                 \"task\":\"{}\",\"seed\":{},\"rate\":{},\"batch\":{},\"epochs\":{},\"momentum\":{},\"rate_decay\":{},\
                 \"hidden\":{:?},\"waits\":{},\"parameters\":{},\"accuracy\":{},\"loss\":{},{}\"steps\":{steps},\
                 \"examples\":{examples},\"seconds\":{seconds:.3},\"examples_per_second\":{rate:.1},\
                 \"bytes_sent\":{sent},\"bytes_dense\":{dense},\"staleness_mean\":{:.4},\"staleness_max\":{},\
                 \"density\":{:.6},\"tau\":{:e},\"bytes_per_step\":{},\"residual_norm\":{:.6},\"clipped\":{:.6},\
                 \"forgotten\":{:.6},\"merged\":{},\"late\":{},\"deferred\":{},\"skipped_pushes\":{},\"skipped_fetches\":{},\"replicas_equal\":{},\
                 \"digest\":\"{digest:016x}\",\"hints\":{},\"curve\":{}}}",
                env!("CARGO_PKG_VERSION"),
                cluster.workers,
                cluster.servers,
                self.options.task.text(),
                self.options.seed,
                self.options.rate,
                self.options.batch,
                self.options.epochs,
                self.options.momentum,
                self.options.decay,
                self.options.hidden,
                waits(&outcome.times),
                self.parameters,
                number(accuracy, 4),
                number(loss, 5),
                outcome.ending.json(),
                outcome.staleness_mean,
                outcome.staleness_max,
                outcome.density,
                outcome.tau,
                sent / steps.max(1),
                outcome.residual_norm,
                outcome.clipped,
                outcome.forgotten,
                outcome.merged,
                outcome.late,
                outcome.deferred,
                outcome.skipped[0],
                outcome.skipped[1],
                outcome.replicas_equal(),
                outcome.hints.json(),
                outcome.curve,
            );
            let _ = writeln!(std::io::stdout(), "{text}");
            return;
        }
        self.print(&format!(
            "\naccuracy        {:.2} % on the test data\ntest loss       {loss:.4}\n{}\
             steps           {steps} in total, {} per worker\n\
             time            {seconds:.2} s, {rate:.0} examples/s\n{}sent            {}, as dense floats {} ({:.1} %)\n\
             staleness       mean {:.2}, at most {}\n{}parameters      digest {digest:016x}{equal}",
            accuracy * 100.0,
            outcome.ending.text(&self.options, (accuracy, loss)),
            steps / u64::from(workers),
            outcome.waits(),
            bytes(sent),
            bytes(dense),
            100.0 * sent as f64 / dense.max(1) as f64,
            outcome.staleness_mean,
            outcome.staleness_max,
            outcome.lateness(&self.options) + &outcome.savings(&self.options),
        ));
        for hint in outcome.hints.texts() {
            self.print(&format!("hint            {hint}"));
        }
    }
}

/// True if updates are encoded: then density, threshold and bytes per step are printed.
fn is_coded(options: &Options) -> bool {
    options.recipe.codec() != gradwire::recipe::Codec::F32
}

/// A JSON array with an object per worker: the seconds that it has computed, waited, encoded, decoded and applied.
fn waits(times: &[Times]) -> String {
    let objects: Vec<String> =
        times.iter().map(|times| format!("{{{}}}", outcome::times(times).trim_end_matches(','))).collect();
    format!("[{}]", objects.join(","))
}

/// A span of time in a few characters.
fn time_left(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} s"),
        ..6000.0 => format!("{:.0} m", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// A number of bytes with a unit.
fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
