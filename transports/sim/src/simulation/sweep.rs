//! [`Sweep`]: many simulated runs, on the cores there are.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Error, Learner, Outcome, Point, Simulation, Worker, run};

/// Many runs, for instance over recipes and seeds. They run side by side, on as many threads as there are cores; their
/// results do not depend on the number of threads.
///
/// ```
/// use gradwire_core::{Cluster, Layout, Recipe};
/// use gradwire_sim::simulation::{Simulation, Step, Sweep, Worker};
///
/// let cluster = Cluster { workers: 2, servers: 0 };
/// let run = |seed| Simulation::new(Layout::flat(3), Recipe::sync(), cluster).seed(seed).steps(100);
/// let outcomes = Sweep::new((1..=4).map(run)).run(|worker: &Worker| {
///     let mut random = worker.random();
///     move |params: &[f32], update: &mut [f32]| {
///         update.iter_mut().zip(params).for_each(|(update, x)| *update = 0.1 * (x - random.unit() as f32));
///         Step::of(1)
///     }
/// })?;
/// assert_eq!(outcomes.len(), 4);
/// assert_ne!(outcomes[0].digest, outcomes[1].digest);
/// # Ok::<(), gradwire_sim::simulation::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Sweep {
    runs: Vec<Simulation>,
    threads: Option<usize>,
}

/// What a watch decides.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// The run goes on.
    Continue,
    /// The run ends here.
    EndRun,
    /// This run and all other runs of the sweep end, as soon as they notice. Runs ahead are not begun.
    EndAll,
}

/// The progress of a [`Sweep`].
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Position of the run among all runs, from 0.
    pub run: usize,
    /// Number of all runs.
    pub runs: usize,
    /// Number of the runs that have ended, with this one if it has.
    pub ended: usize,
    /// The newest point of the curve of this run.
    pub point: &'a Point,
    /// The result of this run, if it has ended.
    pub outcome: Option<&'a Outcome>,
}

impl Sweep {
    /// These runs.
    pub fn new(runs: impl IntoIterator<Item = Simulation>) -> Self {
        Self { runs: runs.into_iter().collect(), threads: None }
    }

    /// The number of threads. Default: [`std::thread::available_parallelism`]. 0 is taken as 1. Each thread needs the
    /// memory of a run.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: Some(threads), ..self }
    }

    /// Runs all, and returns their results in order. `learner` makes the training program of each worker of each run;
    /// [`Worker::run`] tells the run.
    ///
    /// # Errors
    /// If there are no runs, or a setting of a run is wrong: then no run is begun.
    ///
    /// # Panics
    /// If a learner panics.
    pub fn run<L: Learner + 'static>(&self, learner: impl Fn(&Worker) -> L + Sync) -> Result<Vec<Outcome>, Error> {
        self.run_watched(learner, |_| Next::Continue)
    }

    /// As [`run`](Self::run). `watch` sees each point of each curve, and each result. It runs on one thread at a time.
    /// Runs that it ends or does not let begin have the end [`End::Stopped`](super::End::Stopped).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_watched<L: Learner + 'static>(
        &self,
        learner: impl Fn(&Worker) -> L + Sync,
        watch: impl FnMut(Progress<'_>) -> Next + Send,
    ) -> Result<Vec<Outcome>, Error> {
        let runs = self.runs.len();
        if runs == 0 {
            return Err(Error::NoRuns);
        }
        for (run, simulation) in self.runs.iter().enumerate() {
            simulation.check().map_err(|error| Error::Run { run, error: Box::new(error) })?;
        }
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        let threads = self.threads.unwrap_or_else(cores).clamp(1, runs);
        let (ahead, ended, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let results: Vec<Mutex<Option<Result<Outcome, Error>>>> = (0..runs).map(|_| Mutex::new(None)).collect();
        let watch = Mutex::new(watch);
        let tell = |run, point: &Point, outcome: Option<&Outcome>| {
            let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
            let next = watch(Progress { run, runs, ended: ended.load(Ordering::Relaxed), point, outcome });
            stop.fetch_or(next == Next::EndAll, Ordering::Relaxed);
            next
        };
        let work = || {
            loop {
                let run = ahead.fetch_add(1, Ordering::Relaxed);
                let Some(simulation) = self.runs.get(run) else { return };
                let outcome = if stop.load(Ordering::Relaxed) {
                    Ok(Outcome::not_begun(simulation.cluster.workers))
                } else {
                    run::run(simulation, run, &learner, &mut |point| tell(run, point, None), Some(&stop))
                };
                ended.fetch_add(1, Ordering::Relaxed);
                if let Ok(outcome) = &outcome
                    && let Some(point) = outcome.curve.last()
                {
                    tell(run, point, Some(outcome));
                }
                *results[run].lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            }
        };
        thread::scope(|scope| {
            // The calling thread works as well.
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let outcomes = results.into_iter().zip(&self.runs).map(|(result, simulation)| {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            result.unwrap_or_else(|| Ok(Outcome::not_begun(simulation.cluster.workers)))
        });
        outcomes.collect()
    }
}
