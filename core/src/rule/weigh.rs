//! The weight of a contribution in a mean.
//!
//! ```text
//! weigh=examples:  m             m: examples of the contribution, H: local steps
//! weigh=batch:     m (m / H)     the token weight of Decoupled DiLoCo (2026), where examples are tokens
//! ```
//! A machine is told the examples, and H as the rider of a contribution. It weighs before anything else, so servers, trees,
//! rings and meshes get numbers that are weights already, and the rider does not travel. Weights are whole numbers: those
//! by batch are in units of 1/16, rounded, so that small batches of unequal size differ, and a mean of thousands of
//! workers with batches of millions stays below [`WEIGHT_MAX`].

use crate::recipe::Weigh;
use crate::rider::Rider;
use crate::wire::WEIGHT_MAX;

/// Weights by batch per example and example of a step.
const UNITS: u128 = 16;

/// How a node weighs its contributions.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Weighing {
    weigh: Weigh,
    /// Local steps behind the next contribution.
    steps: u64,
}

impl Weighing {
    pub(crate) const fn new(weigh: Weigh) -> Self {
        Self { weigh, steps: 1 }
    }

    /// Takes the rider of the next contribution. Returns the rider that travels.
    pub(crate) fn take(&mut self, rider: Option<Rider>) -> Option<Rider> {
        match self.weigh {
            Weigh::Examples => rider,
            Weigh::Batch => {
                self.steps = rider.map_or(1, |steps| (steps.get() as u64).max(1));
                None
            }
        }
    }

    /// The weight of a contribution of so many examples. 0 only without examples.
    pub(crate) fn weight(&self, examples: u64) -> u64 {
        match self.weigh {
            Weigh::Batch if examples > 0 => by_batch(examples, self.steps),
            _ => examples,
        }
    }
}

/// `examples · examples / steps` in units of 1/16, rounded; at least 1.
fn by_batch(examples: u64, steps: u64) -> u64 {
    let (examples, steps) = (u128::from(examples), u128::from(steps));
    let weight = (examples * examples).saturating_mul(UNITS).saturating_add(steps / 2) / steps;
    weight.clamp(1, WEIGHT_MAX.into()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(weigh: Weigh, examples: u64, steps: Option<f64>) -> u64 {
        let mut weighing = Weighing::new(weigh);
        weighing.take(steps.and_then(Rider::new));
        weighing.weight(examples)
    }

    #[test]
    fn large_steps_count_for_more_than_many_small_ones() {
        assert_eq!(weight(Weigh::Batch, 64, Some(8.0)), 16 * 64 * 8);
        assert_eq!(weight(Weigh::Batch, 64, Some(4.0)), 16 * 64 * 16);
        // 7 · 7 / 3, rounded to sixteenths.
        assert_eq!(weight(Weigh::Batch, 7, Some(3.0)), 261);
        assert_eq!(weight(Weigh::Batch, 5, None), 16 * 25);
        assert_eq!(weight(Weigh::Batch, 1, Some(1000.0)), 1);
        assert_eq!(weight(Weigh::Batch, 0, Some(3.0)), 0);
        assert_eq!(weight(Weigh::Batch, WEIGHT_MAX, Some(1.0)), WEIGHT_MAX);
        assert_eq!(weight(Weigh::Examples, 7, Some(3.0)), 7);
    }

    /// With batches of one size, it is the mean by examples.
    #[test]
    fn weights_of_equal_batches_have_the_ratio_of_their_examples() {
        for (steps, batch) in [(1, 1), (3, 1), (1, 7), (5, 8), (1000, 1 << 19)] {
            assert_eq!(by_batch(steps * batch, steps), 16 * batch * steps * batch);
        }
    }

    #[test]
    fn the_rider_of_other_recipes_travels() {
        let rider = Rider::new(2.5);
        assert_eq!(Weighing::new(Weigh::Examples).take(rider), rider);
        assert_eq!(Weighing::new(Weigh::Batch).take(rider), None);
    }
}
