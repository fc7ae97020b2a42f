//! The sum of updates, times lambda.
//!
//! Without rounds (Dean et al. 2012, Downpour), each update d is applied on arrival: `w -= lambda a(tau) d`, where a is
//! the factor of the recipe's staleness rule. In rounds (`pace=synchronous`, or `stale` with bound 0), the updates of a
//! round are added up in rank order and applied once.

use super::{Merging, Verdict};
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
    fn admit(&mut self, _weight: u32, staleness: u64) -> Verdict {
        match self.staleness.scale(staleness) {
            Some(scale) => Verdict::Apply { scale: self.lambda * scale },
            None => Verdict::Drop,
        }
    }

    fn take(&mut self) -> Option<f32> {
        None
    }
}

/// The sum of a round.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RoundSum {
    lambda: f32,
    /// Updates gathered in this round.
    gathered: u32,
}

impl RoundSum {
    pub(crate) fn new(lambda: f32) -> Self {
        Self { lambda, gathered: 0 }
    }
}

impl Merging for RoundSum {
    fn admit(&mut self, _weight: u32, _staleness: u64) -> Verdict {
        self.gathered += 1;
        Verdict::Add { scale: 1.0, first: self.gathered == 1 }
    }

    fn take(&mut self) -> Option<f32> {
        (core::mem::take(&mut self.gathered) > 0).then_some(self.lambda)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_apply_on_arrival_and_drop_above_the_limit() {
        let mut sum = Sum::new(0.5, Staleness::inverse().dropping_above(4));
        assert_eq!(sum.admit(1, 0), Verdict::Apply { scale: 0.5 });
        assert_eq!(sum.admit(1, 4), Verdict::Apply { scale: 0.125 });
        assert_eq!(sum.admit(1, 5), Verdict::Drop);
        assert_eq!(sum.take(), None);
    }

    #[test]
    fn a_round_is_added_up_and_lambda_applied_once() {
        let mut sum = RoundSum::new(0.25);
        assert_eq!(sum.take(), None);
        assert_eq!(sum.admit(1, 0), Verdict::Add { scale: 1.0, first: true });
        assert_eq!(sum.admit(1, 0), Verdict::Add { scale: 1.0, first: false });
        assert_eq!(sum.take(), Some(0.25));
        assert_eq!(sum.admit(1, 0), Verdict::Add { scale: 1.0, first: true });
    }
}
