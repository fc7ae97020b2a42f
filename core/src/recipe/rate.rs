//! The learning rate under a recipe: how far a step of all workers moves the parameters.

use super::{Late, Merge, Pace, Payload, Recipe};
use crate::kernel::norm::square_root;

/// Largest factor on the learning rate for a larger batch, see [`Recipe::learning_rate`].
const SPEEDUP_MAX: f32 = 4.0;

impl Recipe {
    /// How far the parameters move when each of `workers` workers has taken one local step, relative to one worker that
    /// takes one step with the same learning rate. Updates of equal size and direction are assumed.
    ///
    /// | recipe | gain |
    /// |---|---|
    /// | `merge=mean`, `merge=elastic` | 1 |
    /// | `merge=sum lambda=1/n` | 1, times the factor of the staleness rule |
    /// | `merge=sum lambda=L` | n L, times the factor of the staleness rule |
    /// | `merge=trimmed-mean`, `median`, `norm-clip`, `centred-clip`, `krum`, `adasum` or `rda` | 1 |
    /// | `merge=mean-of-senders` | 1 where all workers send the same elements, up to n where one sends alone; taken as 1 |
    /// | `merge=vote` | none: an element moves by `length`; taken as 1 |
    /// | `merge=softsync updates=c` | n / c, times the factor of the staleness rule |
    ///
    /// The factor of the staleness rule is that of the mean staleness: n - 1 updates for sums, (n - 1) / c for softsync
    /// (Zhang et al. 2016). [`Correction::momentum`](super::Correction::momentum) m multiplies the gain by 1 / (1 - m),
    /// as the momentum of an optimizer does. An [outer](super::Outer) momentum mu with a rate multiplies it by
    /// rate / (1 - mu); outer Adagrad and Adam have steps of their own length, and count as 1.
    ///
    /// ```
    /// use gradwire_core::Recipe;
    ///
    /// assert_eq!(Recipe::sync().gain(8), 1.0);
    /// assert_eq!(Recipe::asynchronous().gain(8), 1.0);
    /// assert_eq!(Recipe::asynchronous().with_lambda(1.0).gain(8), 8.0);
    /// ```
    pub fn gain(&self, workers: u32) -> f32 {
        let per_application = match self.merge {
            Merge::Softsync { updates } => updates.max(1),
            _ => 1,
        };
        let staleness = u64::from(workers.saturating_sub(1).div_ceil(per_application));
        // Above the limit an update is dropped. As a mean that cannot be, so the factor is the one at the limit.
        let staleness = self.staleness.drop_above.map_or(staleness, |limit| staleness.min(limit));
        let late = if self.merge.is_round() { 1.0 } else { self.staleness.scale(staleness).unwrap_or(1.0) };
        self.gain_of_fresh(workers) * late
    }

    /// The gain if no update is late.
    fn gain_of_fresh(&self, workers: u32) -> f32 {
        let outer = self.outer.gain(workers);
        let merged = match self.merge {
            Merge::Sum { lambda } => {
                let applied = match self.pace {
                    Pace::First { count, late: Late::Drop, .. } => count.of(workers),
                    _ => workers,
                };
                applied as f32 * lambda.of(workers.max(1))
            }
            Merge::Softsync { updates } => workers as f32 / updates.max(1) as f32,
            _ => 1.0,
        };
        merged * outer / (1.0 - self.correction.momentum)
    }

    /// A learning rate to start with, if `single` is the best rate of one worker without momentum, with the same batch
    /// per worker.
    ///
    /// `single` itself is safe wherever the [gain](Self::gain) is near 1. A step of n workers is a step on a batch that
    /// is n times as large, which allows n times the rate, up to a limit (Goyal et al. 2017). So this returns `single`
    /// times n, at most 4, divided by the gain of updates that are not late: some updates are not, also where most are.
    /// Averaged parameters use the square root of n, because each worker takes steps on small batches between two
    /// averages.
    ///
    /// ```
    /// use gradwire_core::Recipe;
    ///
    /// assert_eq!(Recipe::sync().learning_rate(0.1, 2), 0.2);
    /// // A sum that is not divided by the number of workers moves n times as far.
    /// assert_eq!(Recipe::asynchronous().with_lambda(1.0).learning_rate(0.1, 2), 0.1);
    /// ```
    pub fn learning_rate(&self, single: f32, workers: u32) -> f32 {
        let n = workers.max(1) as f32;
        let speedup = match self.payload {
            // Contributions add up as far as they differ, which is the gain of a larger batch.
            _ if self.merge == Merge::Adasum => 1.0,
            Payload::Parameters => square_root(f64::from(n)) as f32,
            Payload::Updates | Payload::Gradients => n,
        };
        single * speedup.min(SPEEDUP_MAX) / self.gain_of_fresh(workers.max(1))
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::{Correction, PRESETS, Recipe};

    #[test]
    fn the_rate_of_one_machine_is_safe_for_every_preset() {
        for preset in PRESETS {
            let recipe = (preset.recipe)();
            for workers in [2, 4, 8] {
                // Momentum has the gain of the optimizer that it replaces.
                let outer = recipe.outer().gain(workers);
                let gain = recipe.gain(workers) * (1.0 - recipe.correction().momentum) / outer;
                assert!((0.1..=2.0).contains(&gain), "{} with {workers} workers: {gain}", preset.name);
            }
        }
    }

    #[test]
    fn momentum_of_the_codec_lowers_the_rate() {
        let recipe = Recipe::sparse(0.01);
        let heavy = recipe.with_correction(Correction { momentum: 0.75, ..Correction::none() });
        assert_eq!((recipe.learning_rate(0.1, 4), heavy.learning_rate(0.1, 4)), (0.4, 0.1));
        // A mean of two updates of four workers, however late they are.
        assert_eq!(Recipe::softsync(2).learning_rate(0.1, 4), 0.2);
    }
}
