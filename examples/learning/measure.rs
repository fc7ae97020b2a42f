//! Runs of a recipe over several seeds.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Command;
use gradwire_examples::cli;
use gradwire_examples::options::{self, Options};
use gradwire_examples::task::Name;
use gradwire_examples::threads::{self, Progress};

use crate::rows::{Rate, Setup};

/// The result of a run, or the reason for its failure.
pub(crate) type Ran = Result<Run, String>;

/// The result of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Loss and accuracy on the test data after the last step of worker 0.
    pub(crate) before: (f64, f64),
    /// The same after the end.
    pub(crate) after: (f64, f64),
    /// The residual of worker 0 as a multiple of an update.
    pub(crate) residual_updates: f64,
    /// Bytes sent, as a share of the bytes of dense floats.
    pub(crate) share: f64,
    pub(crate) hints: Vec<String>,
}

/// Runs recipes, each with all seeds. Equal setups run once.
pub(crate) struct Measure {
    seeds: u64,
    epochs: Option<u32>,
    /// The learning rate of one worker, in place of the task's own.
    rate: Option<f32>,
    /// Seconds of a run after which it counts as failed.
    limit: u64,
    known: BTreeMap<String, Vec<Ran>>,
}

impl Measure {
    pub(crate) fn new(seeds: u64, epochs: Option<u32>, rate: Option<f32>, limit: u64) -> Self {
        Self { seeds, epochs, rate, limit, known: BTreeMap::new() }
    }

    /// The results of a setup, by seed.
    pub(crate) fn runs(&mut self, setup: &Setup) -> Vec<Ran> {
        let key = format!("{setup:?}");
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let runs: Vec<Ran> = (1..=self.seeds).map(|seed| self.run(setup, seed)).collect();
        self.known.insert(key, runs.clone());
        runs
    }

    fn run(&self, setup: &Setup, seed: u64) -> Ran {
        let options = self.options(setup, seed)?;
        let (done, result) = mpsc::channel();
        // A run that hangs keeps its threads; the program goes on without it.
        thread::spawn(move || done.send(thread::spawn(move || train(&options)).join()));
        match result.recv_timeout(Duration::from_secs(self.limit)) {
            Ok(Ok(ran)) => ran,
            Ok(Err(_)) => Err("panicked".to_string()),
            Err(_) => Err(format!("no end within {} s", self.limit)),
        }
    }

    fn options(&self, setup: &Setup, seed: u64) -> Result<Options, String> {
        let Setup { task, workers, ref recipe, rate, bad } = *setup;
        let epochs = self.epochs.unwrap_or(match task {
            Name::Digits => 20,
            Name::Sequence | Name::Mixture => 8,
        });
        let args = format!("learning --json --task {} --epochs {epochs} --seed {seed} --recipe", task.text());
        let args = args.split(' ').map(Into::into).chain([recipe.into()]).collect();
        let matches = cli::matches(options::training(Command::new("learning")), args);
        let options = matches.and_then(|matches| Options::from_matches(&matches, workers));
        let options = options.map_err(|(_, text)| text)?;
        let single = self.rate.unwrap_or_else(|| task.rate());
        let rate = match rate {
            Rate::Default => options.recipe.learning_rate(single, workers),
            // The momentum of a codec replaces that of an optimizer. The optimizer's best rate is lower by the same
            // factor.
            Rate::Single => single * (1.0 - options.recipe.correction().momentum),
        };
        let bad = bad.map(|bad| (workers - 1, bad));
        Ok(Options { rate, bad, deadline: Some(std::time::Duration::from_secs(self.limit.max(1))), ..options })
    }
}

/// Trains on threads, and evaluates.
fn train(options: &Options) -> Ran {
    let mut task = options.open().map_err(|(_, text)| text)?;
    let initial = task.initial(options.seed);
    let progress = Arc::new(Progress::new(options));
    let update = || progress.epochs.lock().unwrap_or_else(|error| error.into_inner()).clear();
    let ended = threads::run(options, &*task, &progress, &initial, update).map_err(|error| error.to_string())?;
    options.hint(&*task, true);
    let outcome = ended.evaluated(options, &mut *task);
    let (accuracy, loss) = outcome.ending.before;
    Ok(Run {
        before: (loss, accuracy),
        after: (outcome.loss, outcome.accuracy),
        residual_updates: outcome.ending.residual_updates,
        share: outcome.sent as f64 / outcome.dense.max(1) as f64,
        hints: outcome.hints.texts(),
    })
}
