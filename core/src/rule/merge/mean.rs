//! The mean of a round, weighted by examples: `sum(m_j x_j) / sum(m_j)`.
//!
//! Parameter averaging (Su and Chen 2015) when parameters travel, synchronous SGD when updates do; the two differ
//! only in what the mean is of. A contribution of weight 0 is skipped, not multiplied (0 · NaN is NaN), and a round
//! without examples changes nothing.

use super::{Merging, Verdict};

/// The running weight of a round.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Mean {
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
        (core::mem::take(&mut self.held) > 0).then_some(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_run_up_and_empty_rounds_change_nothing() {
        let mut mean = Mean::default();
        assert_eq!(mean.admit(3, 0), Verdict::Blend { held: 0 });
        assert_eq!(mean.admit(0, 0), Verdict::Skip);
        assert_eq!(mean.admit(5, 0), Verdict::Blend { held: 3 });
        assert_eq!(mean.take(), Some(1.0));
        assert_eq!(mean.admit(0, 0), Verdict::Skip);
        assert_eq!(mean.take(), None);
    }
}
