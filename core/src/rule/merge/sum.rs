//! The sum of updates, times lambda.
//!
//! Without rounds (Dean et al. 2012, Downpour), each update d is applied on arrival: `w -= lambda a(tau) d`, where a is
//! the factor of the recipe's staleness rule. In rounds (`pace=synchronous`, or `stale` with bound 0), the updates of a
//! round are added up in rank order and applied once.

use super::{Merged, Merging, Verdict};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::recipe::Staleness;

/// The sum without rounds: applies every update on arrival.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Sum {
    lambda: f32,
    staleness: Staleness,
}

impl Sum {
    pub(crate) fn new(lambda: f32, staleness: Staleness) -> Self {
        Self { lambda, staleness }
    }
}

impl Merging for Sum {
    fn admit(&mut self, _worker: PeerId, _update: Segment, _weight: u64, staleness: u64) -> Verdict {
        match self.staleness.scale(staleness) {
            Some(scale) => Verdict::Apply { scale: self.lambda * scale },
            None => Verdict::Drop,
        }
    }

    fn take(&mut self) -> Option<Merged> {
        None
    }
}

/// The sum of a round.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RoundSum {
    lambda: f32,
    sum: Segment,
    /// Updates gathered in this round.
    gathered: u32,
}

impl RoundSum {
    pub(crate) fn new(lambda: f32, sum: Segment) -> Self {
        Self { lambda, sum, gathered: 0 }
    }
}

impl Merging for RoundSum {
    fn admit(&mut self, _worker: PeerId, update: Segment, _weight: u64, _staleness: u64) -> Verdict {
        self.gathered += 1;
        // The first of a round overwrites the sum of the round before.
        let first = self.gathered == 1;
        Verdict::Gather { kernel: Kernel::Accumulate { update, scale: 1.0, first, into: self.sum } }
    }

    fn take(&mut self) -> Option<Merged> {
        (core::mem::take(&mut self.gathered) > 0).then_some(Merged { vector: self.sum, scale: self.lambda })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferId;

    const UPDATE: Segment = Segment { buffer: BufferId(0), start: 0, len: 16 };
    const SUM: Segment = Segment { buffer: BufferId(1), start: 0, len: 16 };

    #[test]
    fn updates_apply_on_arrival_and_drop_above_the_limit() {
        let mut sum = Sum::new(0.5, Staleness::inverse().dropping_above(4));
        let mut admit = |staleness| sum.admit(PeerId(0), UPDATE, 1, staleness);
        assert_eq!(admit(0), Verdict::Apply { scale: 0.5 });
        assert_eq!(admit(4), Verdict::Apply { scale: 0.125 });
        assert_eq!(admit(5), Verdict::Drop);
        assert_eq!(sum.take(), None);
    }

    #[test]
    fn a_round_is_added_up_and_lambda_applied_once() {
        let mut sum = RoundSum::new(0.25, SUM);
        let admit = |sum: &mut RoundSum| sum.admit(PeerId(0), UPDATE, 1, 0);
        let add =
            |first| Verdict::Gather { kernel: Kernel::Accumulate { update: UPDATE, scale: 1.0, first, into: SUM } };
        assert_eq!(sum.take(), None);
        assert_eq!(admit(&mut sum), add(true));
        assert_eq!(admit(&mut sum), add(false));
        assert_eq!(sum.take(), Some(Merged { vector: SUM, scale: 0.25 }));
        assert_eq!(admit(&mut sum), add(true));
    }
}
