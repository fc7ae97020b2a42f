//! [`Model`]: the model that rules are compared on, and [`Seat`], the place of one of its learners.

use std::ops::Range;

use gradwire_core::{Layout, PeerId, Recipe};
use gradwire_sim::simulation::{Learner, Random};

/// A model with its data, and the training step of a worker.
///
/// For an honest comparison, a learner takes the examples at the [positions](Seat::positions) of its seat, in an order
/// that depends on the [seed](Seat::seed) only. Then all rules see the same examples in the same order, and `sync`
/// computes what one worker with the batch of all workers computes.
pub trait Model: Sync {
    /// The training program of a worker. It must [validate](Learner::validate), and can
    /// [test](Learner::test).
    type Learner: Learner + 'static;

    /// The name of the model and its data, in one line. It is a part of what decides a run: change it whenever the code
    /// or the data of the learner change, or results of the old code are taken for those of the new one.
    fn name(&self) -> String;

    /// The tensors of the parameter vector.
    fn layout(&self) -> Layout;

    /// The initial parameters for a seed, with the length of the layout.
    fn initial(&self, seed: u64) -> Vec<f32>;

    /// The training program of one worker.
    fn learner(&self, seat: &Seat) -> Self::Learner;
}

/// The place of a learner in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Seat {
    /// Rank of the worker.
    pub rank: PeerId,
    /// Number of workers.
    pub workers: u32,
    /// Examples of a step. It differs between rows: a reference row has the batch of all workers.
    pub batch: u32,
    /// Seed of the run: for the initial parameters, and for the order of examples.
    pub seed: u64,
    /// The learning rate.
    pub rate: f32,
    /// The recipe of the run.
    pub recipe: Recipe,
}

impl Seat {
    /// Concern of the generators of examples.
    const EXAMPLES: u64 = 1 << 34;

    /// A place outside of a comparison, as in a run on real threads that is compared with a simulated one.
    pub const fn new(rank: PeerId, workers: u32, batch: u32, seed: u64, rate: f32, recipe: Recipe) -> Self {
        Self { rank, workers, batch, seed, rate, recipe }
    }

    /// The positions of the examples of a step of this worker, from 0, in the order of all examples of the run. Step k
    /// of all workers together takes the next `workers * batch` positions, worker after worker.
    pub fn positions(&self, step: u64) -> Range<u64> {
        let (workers, batch) = (u64::from(self.workers), u64::from(self.batch));
        let start = (step * workers + u64::from(self.rank.0)) * batch;
        start..start + batch
    }

    /// A generator for the example at a position. It depends on the seed and the position only.
    pub fn random(&self, position: u64) -> Random {
        Random::new(self.seed, Self::EXAMPLES + position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step of all workers takes the examples that one worker with the batch of all of them takes.
    #[test]
    fn workers_share_the_examples_of_one_large_batch() {
        let seat = |rank, workers, batch| Seat {
            rank: PeerId(rank),
            workers,
            batch,
            seed: 1,
            rate: 0.1,
            recipe: Recipe::sync(),
        };
        let shared: Vec<u64> = (0..3).flat_map(|rank| seat(rank, 3, 4).positions(7)).collect();
        assert_eq!(shared, seat(0, 1, 12).positions(7).collect::<Vec<_>>());
        assert_eq!(shared, (84..96).collect::<Vec<_>>());
        let draw = |workers, position| seat(0, workers, 4).random(position).next();
        assert_eq!(draw(3, 5), draw(1, 5));
        assert_ne!(draw(3, 5), draw(3, 6));
    }
}
