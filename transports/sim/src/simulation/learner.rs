//! [`Learner`]: the training program of a simulated worker.

use gradwire_core::{Duration, PeerId, Recipe};

use crate::random::Random;

/// The training program of one worker: real arithmetic, in virtual time.
///
/// A closure `FnMut(&[f32], &mut [f32]) -> Step + Send` is a learner without validation:
///
/// ```
/// use std::time::Duration;
///
/// use gradwire_core::{Cluster, Layout, Recipe};
/// use gradwire_sim::simulation::{Simulation, Speed, Step, Worker};
///
/// let outcome = Simulation::new(Layout::flat(1), Recipe::sync(), Cluster { workers: 2, servers: 0 })
///     .speed(Speed::constant(Duration::from_millis(10)))
///     .until(Duration::from_secs(1))
///     .run(|_: &Worker| |params: &[f32], update: &mut [f32]| {
///         update[0] = 0.1 * (params[0] - 1.0);
///         Step::of(8)
///     })?;
/// assert!(outcome.workers[0].steps > 50);
/// # Ok::<(), gradwire_sim::simulation::Error>(())
/// ```
///
/// A learner whose optimizer changes
/// the parameters in place is an [`InPlace`], or implements [`sync`](Self::sync).
///
/// For equal runs, a learner draws its random numbers from a generator of its own, such as [`Worker::random`], and shares
/// no mutable state with other learners. It keeps its state while its worker is down.
pub trait Learner: Send {
    /// Computes one step: fills `update`, which will be subtracted from `params`. It is the gradient of a batch, after
    /// learning rate and optimizer. `update` holds the values of an earlier step. Both have the length of the layout.
    ///
    /// With `payload=gradients`, the mean of all workers' vectors is subtracted from the parameters.
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step;

    /// Takes one step with an optimizer that changes `params` in place, as `Session::sync` expects it. `None`, the
    /// default: the learner has changed nothing, and [`step`](Self::step) is called. Not called with
    /// `payload=gradients`.
    fn sync(&mut self, _params: &mut [f32]) -> Option<Step> {
        None
    }

    /// The learning rate of the step that has just been computed, as a multiple of the one at the start, as
    /// `Session::set_learning_rate` takes it. `None`, the default: it has not changed.
    fn rate(&mut self) -> Option<f32> {
        None
    }

    /// The virtual time of the next step, if it depends on the data of the step. `None`, the default: it follows from
    /// the [`Speed`](super::Speed) of the worker.
    fn step_time(&mut self) -> Option<Duration> {
        None
    }

    /// Judges parameters on examples that are not trained on. `None`, the default: there are no such examples.
    ///
    /// A run makes one more learner of worker 0, and calls this on it only. So validations have no effect on the
    /// training, and take no virtual time.
    fn validate(&mut self, _params: &[f32]) -> Option<Validation> {
        None
    }

    /// Judges parameters on examples that nothing chooses by: neither the training, nor a tuning, nor the moment at
    /// which a run ends. `None`, the default: there are no such examples.
    ///
    /// A run calls it once, at its end, on the learner of the validations, with the parameters of the smallest
    /// validation loss. See [`Outcome::test`](super::Outcome::test).
    fn test(&mut self, _params: &[f32]) -> Option<Validation> {
        None
    }
}

impl<F: FnMut(&[f32], &mut [f32]) -> Step + Send> Learner for F {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        self(params, update)
    }
}

/// A learner whose optimizer changes the parameters in place.
#[derive(Clone, Debug)]
pub struct InPlace<F>(
    /// Takes one step: changes the parameters.
    pub F,
);

impl<F: FnMut(&mut [f32]) -> Step + Send> Learner for InPlace<F> {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        update.copy_from_slice(params);
        let step = (self.0)(update);
        update.iter_mut().zip(params).for_each(|(new, old)| *new = old - *new);
        step
    }

    fn sync(&mut self, params: &mut [f32]) -> Option<Step> {
        Some((self.0)(params))
    }
}

/// The numbers of one step.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Step {
    /// Examples in the batch: the weight of the update.
    pub examples: u32,
    /// Mean training loss of the batch. `None`: not known.
    pub loss: Option<f32>,
}

impl Step {
    /// A step whose loss is not known.
    pub const fn of(examples: u32) -> Self {
        Self { examples, loss: None }
    }

    /// The step with its training loss.
    #[must_use]
    pub const fn loss(self, loss: f32) -> Self {
        Self { loss: Some(loss), ..self }
    }
}

/// The judgement of [`Learner::validate`]. Ordered by loss.
#[derive(Copy, Clone, Debug, PartialEq, PartialOrd)]
pub struct Validation {
    /// Mean loss.
    pub loss: f64,
    /// Share of correct answers, from 0 to 1. `None`: there is no such figure.
    pub accuracy: Option<f64>,
}

impl Validation {
    /// A validation without an accuracy.
    pub const fn of(loss: f64) -> Self {
        Self { loss, accuracy: None }
    }

    /// The validation with its accuracy.
    #[must_use]
    pub const fn accuracy(self, accuracy: f64) -> Self {
        Self { accuracy: Some(accuracy), ..self }
    }
}

/// The worker for which a learner is made.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Worker {
    /// Position of the run among the runs of a [`Sweep`](super::Sweep), from 0.
    pub run: usize,
    /// Rank of the worker.
    pub rank: PeerId,
    /// Number of workers.
    pub workers: u32,
    /// Seed of the run.
    pub seed: u64,
    /// Recipe of the run, for instance for [`Recipe::learning_rate`].
    pub recipe: Recipe,
}

impl Worker {
    /// The concern of the generators of learners. Those of the simulator itself are smaller.
    const CONCERN: u64 = 1 << 32;

    /// A generator of random numbers that depends on the seed and the rank only.
    pub fn random(&self) -> Random {
        Random::new(self.seed, Self::CONCERN + u64::from(self.rank.0))
    }

    /// A generator of random numbers that depends on the seed only: the same at all workers.
    pub fn common_random(&self) -> Random {
        Random::new(self.seed, Self::CONCERN - 1)
    }
}
