//! The mean of a round: `sum(m_j x_j) / sum(m_j)` over workers j, where m_j is the number of examples behind x_j.
//!
//! With `payload=parameters` this is parameter averaging (Su and Chen 2015), with `payload=updates` synchronous SGD. A
//! contribution of weight 0 is skipped instead of multiplied by 0, because 0 · NaN is NaN. A round in which all weights
//! are 0 leaves the parameters as they are.

use super::{Merged, Merging, Verdict};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::wire::WEIGHT_MAX;

/// A weighted mean that runs over the contributions of a round.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Mean {
    gathered: Segment,
    /// Examples behind the gathered vector.
    held: u64,
}

impl Mean {
    pub(crate) fn new(gathered: Segment) -> Self {
        Self { gathered, held: 0 }
    }
}

impl Merging for Mean {
    fn admit(&mut self, _worker: PeerId, update: Segment, weight: u64, _staleness: u64) -> Verdict {
        if weight == 0 {
            return Verdict::Skip;
        }
        let held = self.held;
        self.held = (held + weight).min(WEIGHT_MAX);
        Verdict::Gather { kernel: Kernel::Blend { x: update, weight, held, into: self.gathered } }
    }

    fn take(&mut self) -> Option<Merged> {
        // The gathered vector is a mean already, so its factor is 1.
        (core::mem::take(&mut self.held) > 0).then_some(Merged { vector: self.gathered, scale: 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_and_a_round_without_examples_applies_nothing() {
        let [update, into] = [0, 1].map(|buffer| Segment::floats(crate::BufferId(buffer), 0, 4));
        let mut mean = Mean::new(into);
        let admit = |mean: &mut Mean, weight| mean.admit(PeerId(0), update, weight, 0);
        let blend = |weight, held| Verdict::Gather { kernel: Kernel::Blend { x: update, weight, held, into } };
        assert_eq!(admit(&mut mean, 3), blend(3, 0));
        assert_eq!(admit(&mut mean, 0), Verdict::Skip);
        assert_eq!(admit(&mut mean, 5), blend(5, 3));
        assert_eq!(mean.take(), Some(Merged { vector: into, scale: 1.0 }));
        assert_eq!(admit(&mut mean, 0), Verdict::Skip);
        assert_eq!(mean.take(), None);
    }
}
