//! Softsync (Zhang et al. 2016, section 3; Gupta et al. 2015, Rudra): the server applies the mean of every c
//! updates, in order of arrival, each scaled by its staleness when it comes.
//!
//! ```text
//! on push(g, j): tau = T - j;  buf += a(tau) g;  if ++k == c: w -= buf / c;  T += 1;  buf = 0;  k = 0
//! ```
//! The version T cannot move while the buffer fills, so staleness at receipt is staleness at application. It is
//! divided by c always, even when one worker contributed twice; what is left at the end of a run is divided by how
//! many there are. With c = 1 and a constant rule this is asynchronous SGD, bit for bit.

use super::{Merging, Verdict};
use crate::recipe::Staleness;

/// A group that fills up.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Softsync {
    /// c
    updates: u32,
    staleness: Staleness,
    /// k
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
    fn fills_scales_and_begins_anew() {
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

    /// I-28: what is left at the end is divided by how many there are.
    #[test]
    fn a_rest_is_divided_by_its_own_number() {
        let mut rule = Softsync::new(4, Staleness::constant());
        rule.admit(1, 0);
        rule.admit(1, 0);
        assert_eq!(rule.take(), Some(0.5));
        assert_eq!(rule.take(), None);
    }

    #[test]
    fn a_dropped_update_takes_no_place() {
        let mut rule = Softsync::new(2, Staleness::constant().dropping_above(1));
        rule.admit(1, 0);
        assert_eq!(rule.admit(1, 2), Verdict::Drop);
        assert!(!rule.is_full());
    }
}
