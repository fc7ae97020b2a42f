//! The rows of a comparison, and the run of a row with one setting and one seed.

use std::fmt::Write as _;

use gradwire_core::recipe::Compensate;
use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::simulation::Simulation;

use super::comparison::Comparison;
use super::error::Error;
use super::model::{Model, Seat};
use super::points::Number;
use super::report::Kind;

/// The names of the reference rows of one worker.
pub(super) const ONE_WORKER: &str = "one worker";
pub(super) const LARGE_BATCH: &str = "large batch";

/// A row before it is run.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) recipe: Recipe,
    pub(super) number: Option<Number>,
    pub(super) workers: u32,
    pub(super) batch: u32,
}

/// A learning rate, the recipe, and the value of the number that is tuned besides the rate.
pub(super) type Setting = (f32, Recipe, Option<String>);

/// Everything in which the runs of a comparison differ.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Position of the row.
    pub(super) row: usize,
    pub(super) rate: f32,
    pub(super) recipe: Recipe,
    pub(super) seed: u64,
    /// The run tunes settings.
    pub(super) is_tuning: bool,
}

impl Comparison {
    /// The reference rows, then the rules.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let one = |name: &str, kind, batch| Entry {
            name: name.into(),
            kind,
            recipe: Recipe::sync(),
            number: None,
            workers: 1,
            batch,
        };
        let rule = |name: &str, recipe, number| Entry {
            name: name.into(),
            kind: Kind::Rule,
            recipe,
            number,
            workers: self.workers,
            batch: self.batch,
        };
        let mut entries = vec![
            one(ONE_WORKER, Kind::OneWorker, self.batch),
            one(LARGE_BATCH, Kind::LargeBatch, self.batch.saturating_mul(self.workers)),
        ];
        if self.rules.iter().all(|rule| rule.recipe != Recipe::sync() || rule.number.is_some()) {
            entries.push(rule("sync", Recipe::sync(), None));
        }
        entries.extend(self.rules.iter().map(|it| rule(&it.name, it.recipe, it.number.clone())));
        entries
    }
}

impl Entry {
    /// The settings that are tried. A correction of delays has the learning rate of the workers.
    ///
    /// # Errors
    /// If a value of the number does not fit the recipe.
    pub(super) fn settings(&self, rates: &[f32]) -> Result<Vec<Setting>, Error> {
        let mut values = self.number.iter().flat_map(|number| number.values(rates.len()));
        let named = |error| Error::Number { name: self.name.clone(), error };
        let setting = |rate: &f32| {
            let (mut recipe, value) = (self.recipe, values.next());
            if let Some((number, value)) = self.number.as_ref().zip(value.as_ref()) {
                recipe.set(&number.key, value).map_err(named)?;
            }
            if matches!(recipe.compensate(), Compensate::Delay { .. } | Compensate::DelayAdaptive { .. }) {
                recipe.set("worker_rate", &rate.to_string()).map_err(named)?;
            }
            Ok((*rate, recipe, value))
        };
        rates.iter().map(setting).collect()
    }
}

impl Spec {
    /// The simulation of this run, from these parameters.
    pub(super) fn simulation(
        &self,
        comparison: &Comparison,
        entry: &Entry,
        layout: &Layout,
        initial: Vec<f32>,
    ) -> Simulation {
        let examples = if self.is_tuning { comparison.tuning_budget() } else { comparison.examples };
        let servers = if self.recipe.needs_servers() { comparison.servers } else { 0 };
        let cluster = Cluster { workers: entry.workers, servers };
        let every = (examples / comparison.samples).max(1);
        let run = Simulation::new(layout.clone(), self.recipe, cluster)
            .seed(self.seed)
            .initial(initial)
            .links(comparison.links.clone())
            // The run ends when the validated parameters have seen the budget. What is contributed after their last
            // synchronisation is not in them.
            .examples(2 * examples)
            .record_every_examples(every);
        let run = comparison.patience.iter().fold(run, |run, patience| run.patience(*patience));
        match entry.kind {
            Kind::OneWorker => run.speed(comparison.fastest().clone()),
            // A batch of so many workers takes one worker so many times as long.
            Kind::LargeBatch => {
                let factor = f64::from(comparison.workers);
                run.speed(comparison.fastest().clone().slow(Duration::ZERO..Duration::MAX, factor))
            }
            Kind::Rule => {
                let run = (0..entry.workers)
                    .fold(run, |run, rank| run.speed_of(PeerId(rank), comparison.speed_of(rank).clone()));
                comparison.faults.iter().fold(run, |run, (at, fault)| run.fault(*at, *fault))
            }
        }
    }

    /// The place of a learner of this run.
    pub(super) fn seat(&self, entry: &Entry, rank: PeerId) -> Seat {
        Seat { rank, workers: entry.workers, batch: entry.batch, seed: self.seed, rate: self.rate, recipe: self.recipe }
    }

    /// A digest of all settings that decide the run. `initial`: digest of the model and its initial parameters.
    pub(super) fn key(&self, comparison: &Comparison, entry: &Entry, initial: &str) -> String {
        let examples = if self.is_tuning { comparison.tuning_budget() } else { comparison.examples };
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{}\n{initial}\n{}\n{:?} {} {} {}\n{} {} {:?} {examples} {}\n",
            env!("CARGO_PKG_VERSION"),
            self.recipe,
            entry.kind,
            entry.workers,
            entry.batch,
            comparison.servers,
            self.seed,
            self.is_tuning,
            self.rate,
            comparison.samples,
        );
        let _ = write!(text, "{:?}\n{:?}\n", comparison.links, comparison.patience);
        match entry.kind {
            Kind::Rule => {
                (0..entry.workers).for_each(|rank| text += &format!("{:?}\n", comparison.speed_of(rank)));
                text += &format!("{:?}\n", comparison.faults);
            }
            Kind::OneWorker => text += &format!("{:?}\n", comparison.fastest()),
            Kind::LargeBatch => text += &format!("{:?} {}\n", comparison.fastest(), comparison.workers),
        }
        blake3::hash(text.as_bytes()).to_hex()[..24].to_string()
    }
}

/// A digest of the model: its name, its layout, and its initial parameters for a seed.
pub(super) fn initial_digest(model: &impl Model, seed: u64) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.name().as_bytes());
    hasher.update(format!("{:?}", model.layout()).as_bytes());
    for value in model.initial(seed) {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}
