//! A task of the example programs as the learner of simulated workers.

use std::sync::{Mutex, PoisonError};

use gradwire::sim::{Learner, Outcome, Simulation, Step, Sweep, Validation, Worker};
use gradwire::{Cluster, Recipe};
use gradwire_examples::data::shuffle;
use gradwire_examples::task::{Name, Task};

use super::Error;

/// Runs that learn, except for their seeds.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    pub(crate) recipe: String,
    pub(crate) workers: u32,
    pub(crate) task: Name,
    /// The sizes of the hidden layers.
    pub(crate) hidden: Vec<usize>,
    /// Examples of a step of one worker.
    pub(crate) batch: usize,
    pub(crate) rate: f32,
    /// Momentum in the optimizer of each worker.
    pub(crate) momentum: f32,
}

impl Training {
    /// With the default model of the task, and plain SGD.
    pub(crate) fn new(recipe: impl Into<String>, workers: u32, task: Name, batch: usize, rate: f32) -> Self {
        Self { recipe: recipe.into(), workers, task, hidden: task.hidden().to_vec(), batch, rate, momentum: 0.0 }
    }

    /// Runs the seeds from 1 on. `set` completes each simulation, given the steps of an epoch.
    pub(crate) fn run(&self, seeds: u64, set: impl Fn(Simulation, u64) -> Simulation) -> Result<Vec<Outcome>, Error> {
        let recipe: Recipe = self.recipe.parse()?;
        let cluster = Cluster { workers: self.workers, servers: u32::from(recipe.needs_servers()) };
        let open = |seed| self.task.open(&self.hidden, seed, None);
        let tasks = (1..=seeds).map(open).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let steps = (tasks[0].examples() / self.workers as usize).div_ceil(self.batch) as u64;
        let simulations = (1..).zip(&tasks).map(|(seed, task)| {
            set(Simulation::new(task.layout(), recipe, cluster).seed(seed).initial(task.initial(seed)), steps)
        });
        let sweep = Sweep::new(simulations);
        let tasks: Vec<Mutex<Box<dyn Task>>> = tasks.into_iter().map(Mutex::new).collect();
        let outcomes = sweep.run(|worker: &Worker| {
            let task = tasks[worker.run].lock().unwrap_or_else(PoisonError::into_inner).copy();
            Trainee::new(self, task, worker)
        })?;
        Ok(outcomes)
    }
}

/// Loss and accuracy at the end of each run. Infinite and 0 if the run has diverged.
pub(crate) fn ends(outcomes: &[Outcome]) -> (Vec<f64>, Vec<f64>) {
    let end = |outcome: &Outcome| {
        let validation = outcome.validation().filter(|it| outcome.end.is_good() && it.loss.is_finite());
        validation.map_or((f64::INFINITY, 0.0), |it| (it.loss, it.accuracy.unwrap_or(0.0)))
    };
    outcomes.iter().map(end).unzip()
}

/// A worker. All workers go through the examples in the same order, of which each takes its part.
struct Trainee {
    task: Box<dyn Task>,
    rank: usize,
    workers: usize,
    seed: u64,
    batch: usize,
    rate: f32,
    momentum: f32,
    velocity: Vec<f32>,
    gradient: Vec<f32>,
    /// The examples of this worker in the present epoch, and how many of them are taken.
    order: Vec<usize>,
    taken: usize,
    epoch: u64,
}

impl Trainee {
    fn new(training: &Training, task: Box<dyn Task>, worker: &Worker) -> Self {
        let len = task.layout().len();
        Self {
            task,
            rank: worker.rank.index(),
            workers: worker.workers as usize,
            seed: worker.seed,
            batch: training.batch,
            rate: training.rate,
            momentum: training.momentum,
            velocity: vec![0.0; len],
            gradient: vec![0.0; len],
            order: Vec::new(),
            taken: 0,
            epoch: 0,
        }
    }

    fn begin_epoch(&mut self) {
        let all = self.task.examples();
        let share = all / self.workers;
        let mut order: Vec<usize> = (0..all).collect();
        shuffle(&mut order, self.seed ^ (self.epoch << 32));
        self.order.clear();
        self.order.extend_from_slice(&order[self.rank * share..][..share]);
        (self.taken, self.epoch) = (0, self.epoch + 1);
    }
}

impl Learner for Trainee {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        if self.taken == self.order.len() {
            self.begin_epoch();
        }
        let batch = &self.order[self.taken..(self.taken + self.batch).min(self.order.len())];
        let loss = self.task.gradient(params, batch, &mut self.gradient);
        for ((update, velocity), gradient) in update.iter_mut().zip(&mut self.velocity).zip(&self.gradient) {
            *velocity = self.momentum * *velocity + gradient;
            *update = self.rate * *velocity;
        }
        let examples = batch.len();
        self.taken += examples;
        Step::of(examples as u32).loss(loss)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let (accuracy, loss) = self.task.evaluate(params);
        Some(Validation::of(loss).accuracy(accuracy))
    }
}
