//! One run of the figure, in virtual time.

use std::time::Duration;

use gradwire_core::{Cluster, PeerId, Recipe};
use gradwire_examples::data::shuffle;
use gradwire_examples::task::{Name, Task};
use gradwire_sim::{App, Network, Plan, Random, World};

const WORKERS: u32 = 30;
const BATCH: usize = 4;
const RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;

/// Where the momentum is.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// In the optimizer of each worker.
    Workers,
    /// At the server, as in the paper.
    Server,
}

struct Learner {
    task: Box<dyn Task>,
    me: PeerId,
    seed: u64,
    random: Random,
    momentum: f32,
    velocity: Vec<f32>,
    gradient: Vec<f32>,
}

impl App for Learner {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_nanos((1e6 * (0.7 + 0.6 * self.random.unit())) as u64)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let all = self.task.examples();
        let share = all / WORKERS as usize;
        let batches = share.div_ceil(BATCH) as u64;
        let mut order: Vec<usize> = (0..all).collect();
        shuffle(&mut order, self.seed ^ (step / batches) << 32);
        let mine = &order[self.me.index() * share..][..share];
        let batch = mine.chunks(BATCH).nth((step % batches) as usize).expect("a batch of the epoch");
        self.task.gradient(params, batch, &mut self.gradient);
        for ((update, velocity), gradient) in update.iter_mut().zip(&mut self.velocity).zip(&self.gradient) {
            *velocity = self.momentum * *velocity + gradient;
            *update = RATE * *velocity;
        }
        batch.len() as u32
    }
}

/// The accuracy on the test data after so many steps of each worker; 0 if the parameters have diverged.
pub(crate) fn accuracy(n: u32, staleness: &str, place: Place, hidden: &[usize], steps: u64, seed: u64) -> f64 {
    let mut text = format!("softsync updates={} staleness={staleness}", WORKERS / n);
    let mut momentum = MOMENTUM;
    if place == Place::Server {
        text += &format!(" outer=momentum mu={MOMENTUM}");
        momentum = 0.0;
    }
    let recipe: Recipe = text.parse().expect("a recipe");
    let mut task = Name::Digits.open(hidden, seed, None).expect("digits in the program");
    let (layout, initial) = (task.layout(), task.initial(seed));
    let len = initial.len();
    let plan = Plan {
        network: Network::calm(),
        steps,
        initial,
        ..Plan::new(seed, layout, recipe, Cluster { workers: WORKERS, servers: 1 })
    };
    let learner = |me: PeerId| -> Box<dyn App> {
        Box::new(Learner {
            task: task.copy(),
            me,
            seed,
            random: Random::new(seed, 10 + u64::from(me.0)),
            momentum,
            velocity: vec![0.0; len],
            gradient: vec![0.0; len],
        })
    };
    let mut world = World::new(plan, learner).expect("a sound plan");
    world.run(u64::MAX, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap_or_else(|halt| panic!("{halt:?}"));
    let params = world.params(PeerId(0)).to_vec();
    if params.iter().all(|x| x.is_finite()) { task.evaluate(&params).0 } else { 0.0 }
}
