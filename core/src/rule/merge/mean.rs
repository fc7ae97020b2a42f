//! The mean of a round: `sum(m_j x_j) / sum(m_j)` over workers j, where m_j is the number of examples behind x_j.
//!
//! With `payload=parameters` this is parameter averaging (Su and Chen 2015), with `payload=updates` synchronous SGD. A
//! contribution of weight 0 is skipped instead of multiplied by 0, because 0 · NaN is NaN. A round in which all weights
//! are 0 leaves the parameters as they are.

use super::{Merging, Verdict};

/// A weighted mean that runs over the contributions of a round.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Mean {
    /// Examples behind the gathered vector.
    held: u32,
}

impl Merging for Mean {
    fn admit(&mut self, weight: u32, _staleness: u64) -> Verdict {
        if weight == 0 {
            return Verdict::Skip;
        }
        let held = self.held;
        self.held = held.saturating_add(weight);
        Verdict::Blend { held }
    }

    fn take(&mut self) -> Option<f32> {
        // The gathered vector is a mean already, so its factor is 1.
        (core::mem::take(&mut self.held) > 0).then_some(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_and_a_round_without_examples_applies_nothing() {
        let mut mean = Mean::default();
        assert_eq!(mean.admit(3, 0), Verdict::Blend { held: 0 });
        assert_eq!(mean.admit(0, 0), Verdict::Skip);
        assert_eq!(mean.admit(5, 0), Verdict::Blend { held: 3 });
        assert_eq!(mean.take(), Some(1.0));
        assert_eq!(mean.admit(0, 0), Verdict::Skip);
        assert_eq!(mean.take(), None);
    }
}
