//! Softsync (Zhang et al. 2016, section 3; Gupta et al. 2015, Rudra): the server applies the mean of every c updates in
//! order of arrival, each scaled by its staleness on arrival.
//!
//! ```text
//! on push(g, j): tau = T - j;  buf += a(tau) g;  if ++k == c: w -= buf / c;  T += 1;  buf = 0;  k = 0
//! ```
//! g is an update computed from version j of the parameters, T the current version, a the factor of the staleness rule.
//! T cannot change while the buffer fills, so staleness on arrival equals staleness at application. The divisor is
//! always c, even if one worker contributed twice; an incomplete group at the end of a run is divided by its own size.
//! With c = 1 and `staleness=const` this is asynchronous SGD, bit for bit.

use super::{Merging, Verdict};
use crate::recipe::Staleness;

/// A group that is applied when it has `updates` members.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Softsync {
    /// Updates per application: c in the formula.
    updates: u32,
    staleness: Staleness,
    /// Updates in the group so far: k in the formula.
    gathered: u32,
}

impl Softsync {
    pub(crate) fn new(updates: u32, staleness: Staleness) -> Self {
        Self { updates, staleness, gathered: 0 }
    }
}

impl Merging for Softsync {
    fn admit(&mut self, _weight: u32, staleness: u64) -> Verdict {
        let Some(scale) = self.staleness.scale(staleness) else { return Verdict::Drop };
        // A group of one needs no gathered vector, and skipping it keeps this path identical to `merge=sum`.
        if self.updates == 1 {
            return Verdict::Apply { scale };
        }
        self.gathered += 1;
        Verdict::Add { scale, first: self.gathered == 1 }
    }

    fn is_full(&self) -> bool {
        self.gathered == self.updates
    }

    fn take(&mut self) -> Option<f32> {
        let gathered = core::mem::take(&mut self.gathered);
        (gathered > 0).then(|| 1.0 / gathered as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_group_is_applied_and_the_next_one_starts_empty() {
        let mut rule = Softsync::new(3, Staleness::inverse());
        for (tau, scale) in [(0, 1.0), (2, 0.5), (4, 0.25)] {
            assert!(!rule.is_full());
            assert_eq!(rule.admit(1, tau), Verdict::Add { scale, first: tau == 0 });
        }
        assert!(rule.is_full());
        assert_eq!(rule.take(), Some(1.0 / 3.0));
        assert!(!rule.is_full());
        assert_eq!(rule.admit(1, 0), Verdict::Add { scale: 1.0, first: true });
    }

    /// The end of a run applies an incomplete group.
    #[test]
    fn an_incomplete_group_is_divided_by_its_own_size() {
        let mut rule = Softsync::new(4, Staleness::constant());
        rule.admit(1, 0);
        rule.admit(1, 0);
        assert_eq!(rule.take(), Some(0.5));
        assert_eq!(rule.take(), None);
    }

    #[test]
    fn a_dropped_update_does_not_count_for_the_group() {
        let mut rule = Softsync::new(2, Staleness::constant().dropping_above(1));
        rule.admit(1, 0);
        assert_eq!(rule.admit(1, 2), Verdict::Drop);
        assert!(!rule.is_full());
    }
}
