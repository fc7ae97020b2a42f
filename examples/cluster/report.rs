//! What is printed: a line per epoch while it runs, a table at its end, or one JSON object.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::Ordering;

use gradwire::Status;

use crate::data::Data;
use crate::model::Model;
use crate::options::Options;
use crate::train::{Outcome, Progress, staleness};

pub(crate) struct Report {
    options: Options,
    parameters: usize,
}

impl Report {
    pub(crate) fn new(options: &Options, model: &Model, train: &Data, test: &Data) -> Self {
        let parameters = model.layout().len();
        let report = Self { options: options.clone(), parameters };
        let servers = match options.cluster.servers {
            0 => String::new(),
            servers => format!(" and {servers} server{}", if servers == 1 { "" } else { "s" }),
        };
        report.print(&format!(
            "{} workers{servers} learn {} images of {} pixels ({} more to test), {} parameters\nrecipe {}: {}\n\
             learning rate {}, batch {} per worker, {} epochs, seed {}\n\n\
             epoch  accuracy   loss    steps of each   staleness   sent     of dense{}",
            options.cluster.workers,
            train.len(),
            train.pixels,
            test.len(),
            parameters,
            options.name,
            options.recipe,
            options.rate,
            options.batch,
            options.epochs,
            options.seed,
            if options.is_coded() { "   density       tau   a step" } else { "" },
        ));
        report
    }

    fn print(&self, text: &str) {
        if !self.options.json {
            // A closed pipe (`| head`) does not matter: the exit code still says how it ended.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// Prints a line for every epoch that worker 0 has ended.
    pub(crate) fn look(&mut self, progress: &Progress, model: &mut Model, test: &Data) {
        loop {
            let ended = progress.epochs.lock().unwrap_or_else(|error| error.into_inner()).pop_front();
            let Some((epoch, loss, params)) = ended else { return };
            if !self.options.json {
                self.line(progress, epoch, loss, model.evaluate(&params, test).0);
            }
        }
    }

    fn line(&self, progress: &Progress, epoch: u32, loss: f64, accuracy: f64) {
        let steps = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed));
        let (least, most) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
        let statuses = progress.statuses.lock().unwrap_or_else(|error| error.into_inner());
        let known = || statuses.iter().flatten();
        let (sent, dense) = traffic(known());
        let clocks = if least == most { format!("{most}") } else { format!("{least} to {most}") };
        let mean = staleness(known()).mean();
        let steps: u64 = progress.steps.iter().map(|steps| steps.load(Ordering::Relaxed)).sum();
        let coded = match known().next().filter(|_| self.options.is_coded()) {
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

    pub(crate) fn end(&self, outcome: &Outcome, (accuracy, loss): (f64, f64)) {
        let (sent, dense) = traffic(outcome.statuses.iter());
        let stale = staleness(outcome.statuses.iter());
        let rate = outcome.examples as f64 / outcome.seconds;
        let worker = &outcome.statuses[0];
        let workers = self.options.cluster.workers;
        let equal = match outcome.replicas_equal() {
            true if workers == 1 => String::new(),
            true => format!(", the same on all {workers} workers"),
            false => format!(", others on other workers: {:016x?}", outcome.digests),
        };
        if self.options.json {
            let mut text = String::new();
            let Options { recipe, name, cluster, .. } = &self.options;
            let name = name.replace(['"', '\\'], "");
            let _ = write!(
                text,
                "{{\"recipe\":\"{name}\",\"recipe_in_full\":\"{recipe}\",\"workers\":{},\"servers\":{},\
                 \"parameters\":{},\"accuracy\":{accuracy:.4},\"loss\":{loss:.5},\"steps\":{},\"examples\":{},\
                 \"seconds\":{:.3},\"examples_per_second\":{rate:.1},\"bytes_sent\":{sent},\"bytes_dense\":{dense},\
                 \"staleness_mean\":{:.4},\"staleness_max\":{},\"density\":{:.6},\
                 \"tau\":{:e},\"bytes_per_step\":{},\"residual_norm\":{:.6},\"clipped\":{:.6},\"merged\":{},\
                 \"replicas_equal\":{},\"digest\":\"{:016x}\"}}",
                cluster.workers,
                cluster.servers,
                self.parameters,
                outcome.steps,
                outcome.examples,
                outcome.seconds,
                stale.mean(),
                stale.max(),
                worker.density,
                worker.tau,
                sent / outcome.steps.max(1),
                worker.residual_norm,
                worker.clipped,
                outcome.statuses.iter().map(|status| status.counters.merged).sum::<u64>(),
                outcome.replicas_equal(),
                outcome.digests[0],
            );
            let _ = writeln!(std::io::stdout(), "{text}");
            return;
        }
        self.print(&format!(
            "\naccuracy        {:.2} % on the test images\nloss            {loss:.4}\nsteps           {} in all, {} per worker\n\
             time            {:.2} s, {rate:.0} examples/s\nsent            {}, as dense floats {} ({:.1} %)\n\
             staleness       mean {:.2}, at most {}\nparameters      digest {:016x}{equal}",
            accuracy * 100.0,
            outcome.steps,
            outcome.steps / u64::from(self.options.cluster.workers),
            outcome.seconds,
            bytes(sent),
            bytes(dense),
            100.0 * sent as f64 / dense.max(1) as f64,
            stale.mean(),
            stale.max(),
            outcome.digests[0],
        ));
    }
}

/// Bytes sent by all nodes, and what these messages would take as dense floats.
fn traffic<'a>(statuses: impl Iterator<Item = &'a Status>) -> (u64, u64) {
    statuses.fold((0, 0), |(sent, dense), status| (sent + status.bytes_out(), dense + status.counters.dense_bytes))
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} B"),
        10_000..10_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
