//! The output of `cluster`: a line per epoch during the run and a table at its end, or one JSON object.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::Ordering;

use gradwire_examples::options::Options;
use gradwire_examples::outcome::{Outcome, number};
use gradwire_examples::task::Task;
use gradwire_examples::threads::{Progress, staleness, traffic};

/// Prints the progress and the result of a run.
pub(crate) struct Report {
    options: Options,
    parameters: usize,
}

impl Report {
    /// Prints the header of the table of epochs.
    pub(crate) fn new(options: &Options, task: &dyn Task) -> Self {
        let parameters = task.layout().len();
        let report = Self { options: options.clone(), parameters };
        let servers = match options.cluster.servers {
            0 => String::new(),
            servers => format!(" and {servers} server{}", if servers == 1 { "" } else { "s" }),
        };
        report.print(&format!(
            "{} workers{servers} learn {}, {} parameters\nrecipe {}: {}\n\
             learning rate {}, batch {} per worker, {} epochs, seed {}\n\n\
             epoch  accuracy   loss    steps of each   staleness   sent     of dense{}",
            options.cluster.workers,
            task.about(),
            parameters,
            options.name,
            options.recipe.fitted(options.cluster, parameters),
            options.rate,
            options.batch,
            options.epochs,
            options.seed,
            if is_coded(options) { "   density       tau   a step" } else { "" },
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
            if !self.options.json || self.options.monitor.is_some() {
                let (accuracy, _) = task.evaluate(&params);
                *progress.accuracy.lock().unwrap_or_else(|error| error.into_inner()) = Some(accuracy);
                if !self.options.json {
                    self.line(progress, epoch, loss, accuracy);
                }
            }
        }
    }

    /// Prints the line of an epoch.
    fn line(&self, progress: &Progress, epoch: u32, loss: f64, accuracy: f64) {
        let steps = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed));
        let (min, max) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
        let statuses = progress.statuses.lock().unwrap_or_else(|error| error.into_inner());
        let known = || statuses.iter().flatten();
        let (sent, dense) = traffic(known());
        let clocks = if min == max { format!("{max}") } else { format!("{min} to {max}") };
        let mean = staleness(known()).mean();
        let steps: u64 = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed)).sum();
        let coded = match known().next().filter(|_| is_coded(&self.options)) {
            Some(worker) => {
                format!("  {:>7.3}%  {:>8.1e}  {:>7}", worker.density * 100.0, worker.tau, bytes(sent / steps.max(1)))
            }
            None => String::new(),
        };
        self.print(&format!(
            "{epoch:>5}  {:>7.1}%  {loss:>6.3}  {clocks:>14}  {mean:>9.2}  {:>8}  {:>7.1}%{coded}",
            accuracy * 100.0,
            bytes(sent),
            100.0 * sent as f64 / dense.max(1) as f64,
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
                "{{\"recipe\":\"{name}\",\"recipe_in_full\":\"{recipe}\",\"workers\":{},\"servers\":{},\
                 \"task\":\"{}\",\"parameters\":{},\"accuracy\":{},\"loss\":{},{}\"steps\":{steps},\
                 \"examples\":{examples},\"seconds\":{seconds:.3},\"examples_per_second\":{rate:.1},\
                 \"bytes_sent\":{sent},\"bytes_dense\":{dense},\"staleness_mean\":{:.4},\"staleness_max\":{},\
                 \"density\":{:.6},\"tau\":{:e},\"bytes_per_step\":{},\"residual_norm\":{:.6},\"clipped\":{:.6},\
                 \"forgotten\":{:.6},\"merged\":{},\"late\":{},\"deferred\":{},\"skipped_pushes\":{},\"skipped_fetches\":{},\"replicas_equal\":{},\
                 \"digest\":\"{digest:016x}\",\"hints\":{}}}",
                cluster.workers,
                cluster.servers,
                self.options.task.text(),
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
            );
            let _ = writeln!(std::io::stdout(), "{text}");
            return;
        }
        self.print(&format!(
            "\naccuracy        {:.2} % on the test data\nloss            {loss:.4}\n{}\
             steps           {steps} in total, {} per worker\n\
             time            {seconds:.2} s, {rate:.0} examples/s\nsent            {}, as dense floats {} ({:.1} %)\n\
             staleness       mean {:.2}, at most {}\n{}parameters      digest {digest:016x}{equal}",
            accuracy * 100.0,
            outcome.ending.text(&self.options, (accuracy, loss)),
            steps / u64::from(workers),
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

/// A number of bytes with a unit.
fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
