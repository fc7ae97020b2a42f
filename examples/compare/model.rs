//! A task of the examples as a model to compare rules on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use gradwire::Layout;
use gradwire::compare::{Model, Seat};
use gradwire::sim::{Learner, Step, Validation};
use gradwire_examples::data::{DataError, shuffle};
use gradwire_examples::task::{Name, Part, Task};

/// A task with plain SGD. The seed of a run decides its data and their split, the initial parameters, and the order of
/// examples.
pub(crate) struct TaskModel {
    task: Name,
    hidden: Vec<usize>,
    /// Images of the user's own, in place of those in the program.
    data: Option<PathBuf>,
    /// The digest of the data.
    digest: u64,
    layout: Layout,
    /// By seed, opened when they are first needed.
    tasks: Mutex<BTreeMap<u64, Box<dyn Task>>>,
}

impl TaskModel {
    pub(crate) fn open(task: Name, hidden: Vec<usize>, data: Option<PathBuf>) -> Result<Self, DataError> {
        let first = task.open(&hidden, 1, data.as_deref())?;
        let (digest, layout) = (first.digest(), first.layout());
        Ok(Self { task, hidden, data, digest, layout, tasks: Mutex::new(BTreeMap::from([(1, first)])) })
    }

    /// A copy of the task with the data of a seed.
    fn task(&self, seed: u64) -> Box<dyn Task> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // The user's files are read once, and are the same for all seeds.
        let seed = if self.data.is_some() { 1 } else { seed };
        let open = || self.task.open(&self.hidden, seed, None).expect("data in the program, opened before");
        tasks.entry(seed).or_insert_with(open).copy()
    }
}

impl Model for TaskModel {
    type Learner = TaskLearner;

    fn name(&self) -> String {
        let sizes: Vec<String> = self.hidden.iter().map(usize::to_string).collect();
        let of = self
            .data
            .as_ref()
            .map_or_else(String::new, |data| format!(" of {}, digest {:016x}", data.display(), self.digest));
        format!("{}{of} (hidden {})", self.task.text(), sizes.join(","))
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn initial(&self, seed: u64) -> Vec<f32> {
        self.task(seed).initial(seed)
    }

    fn learner(&self, seat: &Seat) -> TaskLearner {
        TaskLearner { task: self.task(seat.seed), seat: seat.clone(), step: 0, epoch: None, order: Vec::new() }
    }
}

/// Plain SGD on a task.
pub(crate) struct TaskLearner {
    task: Box<dyn Task>,
    seat: Seat,
    step: u64,
    /// The epoch of the order.
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl TaskLearner {
    /// The example at a position in the order of all examples: a shuffle per epoch.
    fn example(&mut self, position: u64) -> usize {
        let all = self.task.examples() as u64;
        let epoch = position / all;
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.order = (0..self.task.examples()).collect();
            shuffle(&mut self.order, self.seat.seed ^ epoch << 32);
        }
        self.order[(position % all) as usize]
    }
}

impl Learner for TaskLearner {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        let batch: Vec<usize> = self.seat.positions(self.step).map(|position| self.example(position)).collect();
        self.step += 1;
        let loss = self.task.gradient(params, &batch, update);
        update.iter_mut().for_each(|x| *x *= self.seat.rate);
        Step::of(self.seat.batch).loss(loss)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let (accuracy, loss) = self.task.evaluate_on(params, Part::Validation);
        Some(Validation::of(loss).accuracy(accuracy))
    }

    fn test(&mut self, params: &[f32]) -> Option<Validation> {
        let (accuracy, loss) = self.task.evaluate_on(params, Part::Test);
        Some(Validation::of(loss).accuracy(accuracy))
    }
}
