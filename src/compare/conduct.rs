//! Runs a comparison: first the tuning of all rows, then all seeds with the settings that were chosen.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::ControlFlow;

use gradwire_core::{PeerId, Recipe};
use gradwire_sim::simulation::{self, End, Learner as _, Next, Outcome, Simulation, Sweep, Worker};

use super::comparison::Comparison;
use super::criteria::within;
use super::error::Error;
use super::model::Model;
use super::points;
use super::progress::{Meter, Progress};
use super::report::{Sample, Trial, Tuned};
use super::results::{Record, Results};
use super::rows::{Entry, Setting, Spec, initial_digest};
use super::statistics::median;

/// The first seed of the tuning. Those of the comparison begin at 1, and all their repetitions end before it.
const TUNING_SEED: u64 = 1_000_001;
/// Floats of the final parameters of runs that are kept at once.
const FLOATS_MAX: usize = 1 << 28;

/// A row with the records of its runs.
#[derive(Debug)]
pub(super) struct Conducted {
    pub(super) entry: Entry,
    pub(super) recipe: Recipe,
    pub(super) tuned: Tuned,
    /// By seed.
    pub(super) records: Vec<Record>,
}

impl Comparison {
    pub(super) fn tuning_seed_list(&self) -> Vec<u64> {
        if self.points == 1 {
            Vec::new()
        } else {
            {
                let first = TUNING_SEED + self.repetition * self.tuning_seeds;
                (first..first + self.tuning_seeds).collect()
            }
        }
    }

    pub(super) fn seed_list(&self) -> Vec<u64> {
        let first = 1 + self.repetition * self.seeds;
        (first..first + self.seeds).collect()
    }
}

/// Runs all rows.
pub(super) fn all<M: Model>(
    comparison: &Comparison,
    model: &M,
    known: &Results,
    watch: impl FnMut(Progress<'_>) -> ControlFlow<()> + Send,
) -> Result<Vec<Conducted>, Error> {
    let entries = comparison.entries();
    comparison.check(&entries)?;
    let rates = comparison.rate_points();
    let settings: Vec<_> = entries.iter().map(|entry| entry.settings(&rates)).collect::<Result<_, _>>()?;
    let (tuning_seeds, seeds) = (comparison.tuning_seed_list(), comparison.seed_list());
    let spec =
        |row, (rate, recipe, _): &Setting, seed, is_tuning| Spec { row, rate: *rate, recipe: *recipe, seed, is_tuning };
    let mut trials = Vec::new();
    for (row, settings) in settings.iter().enumerate() {
        for setting in settings {
            trials.extend(tuning_seeds.iter().map(|seed| spec(row, setting, *seed, true)));
        }
    }
    let finals = entries.len() * seeds.len();
    let work = trials.len() as u64 * comparison.tuning_budget() + finals as u64 * comparison.examples;
    let meter = Meter::new(trials.len() + finals, work);
    let mut conductor =
        Conductor { comparison, model, entries: &entries, known, watch, meter, digests: BTreeMap::new() };
    conductor.check(&settings, seeds[0])?;

    let mut records = conductor.run(&trials)?.into_iter();
    let mut chosen = Vec::new();
    for settings in &settings {
        let trials = settings.iter().map(|(rate, _, number)| {
            let records = records.by_ref().take(tuning_seeds.len());
            let losses: Vec<f64> = records.map(|it| end_loss(&within(it, comparison.tuning_budget()))).collect();
            Trial { rate: *rate, number: number.clone(), loss: median(&losses) }
        });
        let trials = if tuning_seeds.is_empty() { Vec::new() } else { trials.collect() };
        chosen.push(choose(&entries[chosen.len()], settings, trials));
    }
    let specs = chosen
        .iter()
        .enumerate()
        .flat_map(|(row, (setting, _))| seeds.iter().map(move |seed| spec(row, setting, *seed, false)));
    let mut records = conductor.run(&specs.collect::<Vec<_>>())?.into_iter();
    let rows = entries.iter().zip(chosen).map(|(entry, ((_, recipe, _), tuned))| Conducted {
        entry: entry.clone(),
        recipe,
        tuned,
        records: records.by_ref().take(seeds.len()).map(|record| within(record, comparison.examples)).collect(),
    });
    Ok(rows.collect())
}

/// The best setting of a row. Without trials, it is the only one.
fn choose(entry: &Entry, settings: &[Setting], trials: Vec<Trial>) -> (Setting, Tuned) {
    let best = points::best(&trials).and_then(|best| trials.iter().position(|trial| trial == best)).unwrap_or(0);
    let setting = settings[best].clone();
    let number = entry.number.as_ref().zip(setting.2.clone()).map(|(number, value)| (number.key.clone(), value));
    let is_edge = |edge: fn(f32, f32) -> f32| trials.iter().map(|trial| trial.rate).reduce(edge) == Some(setting.0);
    let at_edge = trials.len() > 1 && (is_edge(f32::min) || is_edge(f32::max));
    let tuned = Tuned { rate: setting.0, number, trials, at_edge };
    (setting, tuned)
}

/// The validation loss at the end of a run. Infinite if it failed.
fn end_loss(record: &Record) -> f64 {
    match (&record.failed, record.curve.last()) {
        (None, Some(sample)) => sample.loss,
        _ => f64::INFINITY,
    }
}

/// What the runs of a comparison share.
struct Conductor<'a, M, W> {
    comparison: &'a Comparison,
    model: &'a M,
    entries: &'a [Entry],
    known: &'a Results,
    watch: W,
    meter: Meter,
    /// Of the model with the initial parameters, by seed.
    digests: BTreeMap<u64, String>,
}

impl<M: Model, W: FnMut(Progress<'_>) -> ControlFlow<()> + Send> Conductor<'_, M, W> {
    /// Checks all rules on the cluster, and that the model validates.
    fn check(&self, settings: &[Vec<Setting>], seed: u64) -> Result<(), Error> {
        let (layout, initial) = (self.model.layout(), self.model.initial(seed));
        for (row, (entry, settings)) in self.entries.iter().zip(settings).enumerate() {
            for (rate, recipe, _) in settings {
                let spec = Spec { row, rate: *rate, recipe: *recipe, seed, is_tuning: false };
                let run = spec.simulation(self.comparison, entry, &layout, initial.clone());
                run.check().map_err(|error| Error::Rule { name: entry.name.clone(), error })?;
            }
        }
        let (rate, recipe, _) = settings[0][0];
        let spec = Spec { row: 0, rate, recipe, seed, is_tuning: false };
        match self.model.learner(&spec.seat(&self.entries[0], PeerId(0))).validate(&initial) {
            None => Err(Error::NoValidation { model: self.model.name() }),
            Some(validation) if !validation.loss.is_finite() => Err(Error::InitialLoss { seed, got: validation.loss }),
            Some(_) => Ok(()),
        }
    }

    /// The records of runs, in order. Those that are known are not run.
    fn run(&mut self, specs: &[Spec]) -> Result<Vec<Record>, Error> {
        let mut keys = Vec::new();
        for spec in specs {
            let model = self.model;
            let digest = self.digests.entry(spec.seed).or_insert_with(|| initial_digest(model, spec.seed));
            keys.push(spec.key(self.comparison, &self.entries[spec.row], digest));
        }
        let mut records: Vec<Option<Record>> = keys.iter().map(|key| self.known.find(key).cloned()).collect();
        for (record, spec) in records.iter().zip(specs) {
            if record.is_some() {
                self.meter.is_known(self.budget(spec));
            }
        }
        let ahead: Vec<usize> = (0..specs.len()).filter(|at| records[*at].is_none()).collect();
        let cores =
            self.comparison.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
        // The parameters of all runs of a sweep are kept until its end.
        let most = (FLOATS_MAX / self.model.layout().len().max(1)).max(cores.max(1));
        for part in ahead.chunks(most) {
            self.sweep(specs, &keys, part, &mut records)?;
        }
        Ok(records.into_iter().flatten().collect())
    }

    fn budget(&self, spec: &Spec) -> u64 {
        if spec.is_tuning { self.comparison.tuning_budget() } else { self.comparison.examples }
    }

    /// Runs the runs at these positions, side by side.
    fn sweep(
        &mut self,
        specs: &[Spec],
        keys: &[String],
        part: &[usize],
        records: &mut [Option<Record>],
    ) -> Result<(), Error> {
        let (comparison, model, entries) = (self.comparison, self.model, self.entries);
        let layout = model.layout();
        let simulation = |at: &usize| -> Simulation {
            let spec = &specs[*at];
            spec.simulation(comparison, &entries[spec.row], &layout, model.initial(spec.seed))
        };
        let sweep = Sweep::new(part.iter().map(simulation));
        let sweep = comparison.threads.iter().fold(sweep, |sweep, threads| sweep.threads(*threads));
        let learner = |worker: &Worker| {
            let spec = &specs[part[worker.run]];
            model.learner(&spec.seat(&entries[spec.row], worker.rank))
        };
        let budgets: Vec<u64> = part.iter().map(|at| self.budget(&specs[*at])).collect();
        let (watch, meter) = (&mut self.watch, &mut self.meter);
        let mut stopped = false;
        // Runs that have learned from all examples of the budget.
        let mut used_up = vec![false; part.len()];
        // Examples of the runs under way.
        let mut under_way = vec![0; part.len()];
        let outcomes = sweep.run_watched(learner, |progress: simulation::Progress<'_>| {
            let (run, spec) = (progress.run, &specs[part[progress.run]]);
            let is_stopped = |outcome: &Outcome| outcome.end == End::Stopped && !used_up[run];
            let is_whole = progress.outcome.is_some_and(|outcome| !is_stopped(outcome));
            if progress.outcome.is_some() && !is_whole {
                return Next::EndAll;
            }
            let line = progress.outcome.map(|outcome| record(outcome).line(&keys[part[run]]));
            under_way[run] = progress.point.examples.min(budgets[run]);
            if is_whole {
                under_way[run] = 0;
                meter.has_ended(budgets[run]);
            }
            let seen = Progress {
                runs: meter.runs,
                ended: meter.ended,
                known: meter.known,
                row: &entries[spec.row].name,
                is_tuning: spec.is_tuning,
                left: meter.left(under_way.iter().sum()),
                line: line.as_deref(),
            };
            used_up[run] |= progress.point.seen >= budgets[run];
            match watch(seen) {
                ControlFlow::Continue(()) if used_up[run] => Next::EndRun,
                ControlFlow::Continue(()) => Next::Continue,
                ControlFlow::Break(()) => {
                    stopped = true;
                    Next::EndAll
                }
            }
        });
        let outcomes = outcomes.map_err(|error| match error {
            simulation::Error::Run { run, error } => {
                Error::Rule { name: entries[specs[part[run]].row].name.clone(), error: *error }
            }
            error => Error::Rule { name: entries[0].name.clone(), error },
        })?;
        if stopped {
            return Err(Error::Stopped { ended: self.meter.ended, runs: self.meter.runs });
        }
        for (at, outcome) in part.iter().zip(outcomes) {
            records[*at] = Some(record(&outcome));
        }
        Ok(())
    }
}

/// What is kept of a run.
fn record(outcome: &Outcome) -> Record {
    let finite = |loss: f64| if loss.is_finite() { loss } else { f64::INFINITY };
    let curve = outcome.curve.iter().filter_map(|point| {
        let validation = point.validation?;
        Some(Sample {
            seconds: point.time.as_secs_f64(),
            examples: point.seen,
            bytes: point.bytes,
            loss: finite(validation.loss),
            accuracy: validation.accuracy.filter(|accuracy| accuracy.is_finite()),
        })
    });
    let seconds = outcome.time.as_secs_f64();
    let busy: f64 = outcome.workers.iter().map(|worker| worker.busy.as_secs_f64()).sum();
    let compute = (seconds > 0.0).then(|| busy / seconds / outcome.workers.len() as f64);
    let failed = (!outcome.end.is_good()).then(|| outcome.end.to_string().replace(['\t', '\n'], " "));
    let quantile = |share| Some(outcome.step_times.quantile(share)?.as_secs_f64());
    let steps = quantile(0.5).zip(quantile(0.9)).map(|(p50, p90)| [p50, p90]);
    let test = outcome.test.map(|test| (finite(test.loss), test.accuracy.filter(|accuracy| accuracy.is_finite())));
    Record { failed, compute, steps, test, curve: curve.collect() }
}
