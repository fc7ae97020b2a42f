//! Training runs in virtual time: your model and its arithmetic, on a cluster that need not exist.
//!
//! A [`Simulation`] describes a run: recipe, workers and their [`Speed`]s, [`Links`], [`Fault`]s, and when it ends. Each
//! worker is a [`Learner`], your own training step. The run uses the machines that real runs use, and computes real
//! updates; only the time is simulated. Equal settings give equal runs, bit for bit. A [`Sweep`] runs many of them on all
//! cores.
//!
//! The arithmetic of all workers runs on one thread, one step after the other. So a run costs the real time of all
//! steps, however long they take in virtual time, and memory for the buffers of all nodes.

mod error;
mod learner;
mod links;
mod outcome;
mod run;
mod speed;
mod step_times;
mod sweep;

use gradwire_core::{Cluster, Duration, Layout, Patience, PeerId, Recipe};

pub use crate::network::Network;
pub use crate::node::Life;
pub use crate::plan::Fault;
pub use crate::random::Random;
pub use error::Error;
pub use learner::{InPlace, Learner, Step, Validation, Worker};
pub use links::{GBIT, Links, MBIT};
pub use outcome::{End, Outcome, Point, WorkerOutcome};
pub use speed::Speed;
pub use step_times::StepTimes;
pub use sweep::{Next, Progress, Sweep};

use error::{check_node, check_range};

/// A training run to simulate.
///
/// ```
/// use std::time::Duration;
/// use gradwire_core::{Cluster, Layout, PeerId, Recipe};
/// use gradwire_sim::simulation::{Learner, Links, MBIT, Simulation, Speed, Step, Validation, Worker};
///
/// /// Minimises (x - target)²; each worker has a target of its own.
/// struct Parabola(f32);
///
/// impl Learner for Parabola {
///     fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
///         let error = params[0] - self.0;
///         update[0] = 0.1 * error; // learning rate times gradient; it is subtracted
///         Step::of(32).loss(error * error)
///     }
///
///     fn validate(&mut self, params: &[f32]) -> Option<Validation> {
///         Some(Validation::of(f64::from((params[0] - 1.5) * (params[0] - 1.5))))
///     }
/// }
///
/// let cluster = Cluster { workers: 4, servers: 0 };
/// let outcome = Simulation::new(Layout::flat(1), Recipe::sync(), cluster)
///     .seed(7)
///     .speed(Speed::constant(Duration::from_millis(100)).jitter(0.1))
///     .speed_of(PeerId(3), Speed::constant(Duration::from_millis(400)))
///     .links(Links::new(Duration::from_millis(1)).bandwidth(100 * MBIT))
///     .record_every(Duration::from_secs(5))
///     .until(Duration::from_secs(60))
///     .run(|worker: &Worker| Parabola(worker.rank.0 as f32))?;
///
/// // The slowest worker decides: its steps take 0.4 s, and the messages of a round a few milliseconds.
/// assert!((140..150).contains(&outcome.workers[0].steps), "{:?}", outcome.workers[0]);
/// assert!(outcome.busy(PeerId(3)) > 0.95 && outcome.busy(PeerId(0)) < 0.26);
/// let losses: Vec<f64> = outcome.curve.iter().map(|point| point.validation.unwrap().loss).collect();
/// assert!(losses.len() == 13 && losses[0] == 2.25 && losses[12] < 1e-6);
/// # Ok::<(), gradwire_sim::simulation::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Simulation {
    layout: Layout,
    recipe: Recipe,
    cluster: Cluster,
    seed: u64,
    /// `None`: zeros.
    initial: Option<Vec<f32>>,
    speed: Speed,
    speeds: Vec<(PeerId, Speed)>,
    links: Links,
    patience: Patience,
    faults: Vec<(Duration, Fault)>,
    record: Record,
    ends: Ends,
}

/// When the curve gets a point.
#[derive(Clone, Debug, Default)]
struct Record {
    every: Option<Duration>,
    examples: Option<u64>,
    /// In rising order.
    at: Vec<Duration>,
}

impl Record {
    fn is_empty(&self) -> bool {
        self.every.is_none() && self.examples.is_none() && self.at.is_empty()
    }
}

/// When the run ends: at whichever comes first.
#[derive(Clone, Debug)]
struct Ends {
    time: Option<Duration>,
    steps: Option<u64>,
    examples: Option<u64>,
    loss: Option<f64>,
    accuracy: Option<f64>,
    events: u64,
}

impl Simulation {
    /// The most events of a run, unless [`events`](Self::events) sets another number.
    pub const EVENTS: u64 = 1_000_000_000;

    /// A run from parameters of zero. Steps take 1 ms, links have a latency of 100 µs, and nothing fails. Set when it
    /// ends before you run it.
    pub fn new(layout: Layout, recipe: Recipe, cluster: Cluster) -> Self {
        Self {
            layout,
            recipe,
            cluster,
            seed: 1,
            initial: None,
            speed: Speed::constant(Duration::from_millis(1)),
            speeds: Vec::new(),
            links: Links::default(),
            patience: Patience::default(),
            faults: Vec::new(),
            record: Record::default(),
            ends: Ends { time: None, steps: None, examples: None, loss: None, accuracy: None, events: Self::EVENTS },
        }
    }

    /// Seed of all random numbers of the run. Default 1.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The parameters at the beginning, with the length of the layout. Default: zeros.
    pub fn initial(self, params: Vec<f32>) -> Self {
        Self { initial: Some(params), ..self }
    }

    // Cluster

    /// The speed of all workers.
    pub fn speed(self, speed: Speed) -> Self {
        Self { speed, ..self }
    }

    /// The speed of one worker.
    pub fn speed_of(mut self, worker: PeerId, speed: Speed) -> Self {
        self.speeds.push((worker, speed));
        self
    }

    /// The network.
    pub fn links(self, links: Links) -> Self {
        Self { links, ..self }
    }

    /// For how long nodes wait for a peer without a connection. Default 5 s.
    pub fn patience(self, dead_after: Duration) -> Self {
        Self { patience: Patience::new(dead_after), ..self }
    }

    /// A fault at a virtual time. A crashed worker that starts again keeps its learner, and the count of its steps.
    pub fn fault(mut self, at: Duration, fault: Fault) -> Self {
        self.faults.push((at, fault));
        self
    }

    /// The network splits at a virtual time: for a while, no packet gets from these nodes to the others, or back.
    pub fn split(mut self, at: Duration, lasts: Duration, part: &[PeerId]) -> Self {
        for one in part {
            for other in (0..self.cluster.nodes()).map(PeerId).filter(|other| !part.contains(other)) {
                self.faults.push((at, Fault::Silence { from: *one, to: other, lasts }));
                self.faults.push((at, Fault::Silence { from: other, to: *one, lasts }));
            }
        }
        self
    }

    // Curve

    /// A point of the curve, with a validation, at the beginning and after each such virtual time. Every run has a point
    /// at its end.
    pub fn record_every(mut self, time: Duration) -> Self {
        self.record.every = Some(time);
        self
    }

    /// A point of the curve, with a validation, at the beginning and each time that so many more examples have been
    /// contributed.
    pub fn record_every_examples(mut self, examples: u64) -> Self {
        self.record.examples = Some(examples);
        self
    }

    /// A point of the curve, with a validation, at the beginning and at these virtual times.
    pub fn record_at(mut self, times: impl IntoIterator<Item = Duration>) -> Self {
        self.record.at.extend(times);
        self.record.at.sort_unstable();
        self
    }

    // End

    /// The run ends after this virtual time, wherever it then is.
    pub fn until(mut self, time: Duration) -> Self {
        self.ends.time = Some(time);
        self
    }

    /// The run ends when each worker has taken so many steps: in good order, so that all workers end with the same
    /// parameters.
    pub fn steps(mut self, steps: u64) -> Self {
        self.ends.steps = Some(steps);
        self
    }

    /// The run ends when all workers together have contributed so many examples.
    pub fn examples(mut self, examples: u64) -> Self {
        self.ends.examples = Some(examples);
        self
    }

    /// The run ends when a validation has at most this loss.
    pub fn until_loss(mut self, loss: f64) -> Self {
        self.ends.loss = Some(loss);
        self
    }

    /// The run ends when a validation has at least this accuracy.
    pub fn until_accuracy(mut self, accuracy: f64) -> Self {
        self.ends.accuracy = Some(accuracy);
        self
    }

    /// The run fails after so many events of the simulator. Default [`EVENTS`](Self::EVENTS). This ends runs that would
    /// not end otherwise, for instance because a fault is never repaired.
    pub fn events(mut self, most: u64) -> Self {
        self.ends.events = most;
        self
    }

    // Run

    /// Simulates the run. `learner` makes the training program of each worker, and one more of worker 0 for validations.
    ///
    /// # Errors
    /// If a setting is wrong, as [`check`](Self::check) finds. A run that fails or diverges is a result: see
    /// [`Outcome::end`].
    ///
    /// # Panics
    /// If a learner panics.
    pub fn run<L: Learner + 'static>(&self, learner: impl Fn(&Worker) -> L) -> Result<Outcome, Error> {
        self.run_watched(learner, |_| Next::Continue)
    }

    /// As [`run`](Self::run). `watch` sees each point of the curve, and decides whether the run goes on.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_watched<L: Learner + 'static>(
        &self,
        learner: impl Fn(&Worker) -> L,
        mut watch: impl FnMut(&Point) -> Next,
    ) -> Result<Outcome, Error> {
        self.check()?;
        run::run(self, 0, &learner, &mut watch, None)
    }

    /// Measures the real time of a step of worker 0's learner: the median of so many steps, after one that is not
    /// counted. Pass it to [`Speed::constant`]. The measured time differs from call to call; runs with the same number
    /// are equal.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn measure<L: Learner>(&self, learner: impl Fn(&Worker) -> L, steps: usize) -> Result<Duration, Error> {
        self.check()?;
        let mut learner = learner(&self.worker(0, PeerId(0)));
        let (mut params, mut update) = (self.initial_params(), vec![0.0; self.layout.len()]);
        let mut times: Vec<Duration> = (0..steps.max(1) + 1)
            .map(|_| {
                let begun = std::time::Instant::now();
                if learner.sync(&mut params).is_none() {
                    learner.step(&params, &mut update);
                    params.iter_mut().zip(&update).for_each(|(param, update)| *param -= update);
                }
                begun.elapsed()
            })
            .skip(1)
            .collect();
        times.sort_unstable();
        // A clock may be too coarse for a step.
        Ok(times[times.len() / 2].max(Duration::from_nanos(1)))
    }

    /// Checks all settings.
    ///
    /// # Errors
    /// The first one that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let Cluster { workers, .. } = self.cluster;
        self.layout.check()?;
        self.recipe.check_cluster(self.cluster, self.layout.len())?;
        if let Some(initial) = &self.initial {
            let (expected, got) = (self.layout.len(), initial.len());
            if expected != got {
                return Err(Error::InitialLength { expected, got });
            }
            if let Some(index) = initial.iter().position(|x| !x.is_finite()) {
                return Err(Error::InitialNotFinite { index, got: initial[index] });
            }
        }
        self.speed.check(None)?;
        for (rank, speed) in &self.speeds {
            if rank.0 >= workers {
                return Err(Error::UnknownWorker { of: "the speed", rank: *rank, workers });
            }
            speed.check(Some(*rank))?;
        }
        self.links.check(self.cluster)?;
        for (_, fault) in &self.faults {
            self.check_fault(*fault)?;
        }
        let Record { every, examples, .. } = &self.record;
        let every = every.map_or(1.0, |every| every.as_secs_f64());
        check_range("seconds between records", None, "above 0", every, every > 0.0)?;
        check_range("examples between records", None, "at least 1", 0.0, *examples != Some(0))?;
        self.check_ends()
    }

    fn check_ends(&self) -> Result<(), Error> {
        let Ends { time, steps, examples, loss, accuracy, events } = &self.ends;
        check_range("steps", None, "at least 1", 0.0, *steps != Some(0))?;
        check_range("examples", None, "at least 1", 0.0, *examples != Some(0))?;
        check_range("events", None, "at least 1", 0.0, *events > 0)?;
        let loss_or_zero = loss.unwrap_or_default();
        check_range("loss at the end", None, "a finite number", loss_or_zero, loss_or_zero.is_finite())?;
        let share = accuracy.unwrap_or_default();
        check_range("accuracy at the end", None, "from 0 to 1", share, (0.0..=1.0).contains(&share))?;
        if time.is_none() && steps.is_none() && examples.is_none() {
            return Err(Error::NoEnd);
        }
        if (loss.is_some() || accuracy.is_some()) && self.record.is_empty() {
            return Err(Error::NoRecord);
        }
        Ok(())
    }

    fn check_fault(&self, fault: Fault) -> Result<(), Error> {
        let pair = match fault {
            Fault::Cut { a, b } | Fault::Partition { a, b, .. } => [a, b],
            Fault::Silence { from, to, .. } => [from, to],
            Fault::Pause { node, .. } | Fault::Crash { node, .. } => return check_node("a fault", node, self.cluster),
        };
        pair.into_iter().try_for_each(|node| check_node("a fault", node, self.cluster))?;
        if pair[0] == pair[1] { Err(Error::SamePeer { of: "a fault", node: pair[0] }) } else { Ok(()) }
    }

    fn initial_params(&self) -> Vec<f32> {
        self.initial.clone().unwrap_or_else(|| vec![0.0; self.layout.len()])
    }

    fn worker(&self, run: usize, rank: PeerId) -> Worker {
        Worker { run, rank, workers: self.cluster.workers, seed: self.seed, recipe: self.recipe }
    }

    fn speed_at(&self, worker: PeerId) -> &Speed {
        self.speeds.iter().rev().find(|(rank, _)| *rank == worker).map_or(&self.speed, |(_, speed)| speed)
    }
}
