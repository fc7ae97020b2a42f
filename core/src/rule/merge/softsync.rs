//! Softsync (Zhang et al. 2016, section 3; Gupta et al. 2015, Rudra): the server applies the mean of every c updates in
//! order of arrival, each scaled by its staleness on arrival.
//!
//! ```text
//! on push(g, j): tau = T - j;  buf += a(tau) g;  if ++k == c: w -= buf / c;  T += 1;  buf = 0;  k = 0
//! ```
//! g is an update computed from version j of the parameters, T the current version, a the factor of the staleness rule.
//! T cannot change while the buffer fills, so staleness on arrival equals staleness at application. The divisor is
//! always c, even if one worker contributed twice; an incomplete group at the end of a run is divided by its own size.
//! A group of one needs no buffer: [`merging`](super::merging) makes it a [`Sum`](super::sum::Sum), so that c = 1 with
//! `staleness=const` is asynchronous SGD, bit for bit.

use super::{Merged, Merging, Verdict};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::recipe::Staleness;

/// A group that is applied when it has `updates` members.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Softsync {
    /// Updates per application: c in the formula.
    updates: u32,
    staleness: Staleness,
    /// buf in the formula.
    buffer: Segment,
    /// Updates in the group so far: k in the formula.
    gathered: u32,
}

impl Softsync {
    pub(crate) fn new(updates: u32, staleness: Staleness, buffer: Segment) -> Self {
        Self { updates, staleness, buffer, gathered: 0 }
    }
}

impl Merging for Softsync {
    fn admit(&mut self, _worker: PeerId, update: Segment, _weight: u64, staleness: u64) -> Verdict {
        let Some(scale) = self.staleness.scale(staleness) else { return Verdict::Drop };
        self.gathered += 1;
        // The first of a group overwrites the sum of the group before.
        let first = self.gathered == 1;
        Verdict::Gather { kernel: Kernel::Accumulate { update, scale, first, into: self.buffer } }
    }

    fn is_full(&self) -> bool {
        self.gathered == self.updates
    }

    fn take(&mut self) -> Option<Merged> {
        let gathered = core::mem::take(&mut self.gathered);
        (gathered > 0).then(|| Merged { vector: self.buffer, scale: 1.0 / gathered as f32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferId;

    const UPDATE: Segment = Segment { buffer: BufferId(0), start: 0, len: 16 };
    const BUFFER: Segment = Segment { buffer: BufferId(1), start: 0, len: 16 };

    fn admit(rule: &mut Softsync, staleness: u64) -> Verdict {
        rule.admit(PeerId(0), UPDATE, 1, staleness)
    }

    fn add(scale: f32, first: bool) -> Verdict {
        Verdict::Gather { kernel: Kernel::Accumulate { update: UPDATE, scale, first, into: BUFFER } }
    }

    #[test]
    fn a_full_group_is_applied_and_the_next_one_starts_empty() {
        let mut rule = Softsync::new(3, Staleness::inverse(), BUFFER);
        for (tau, scale) in [(0, 1.0), (2, 0.5), (4, 0.25)] {
            assert!(!rule.is_full());
            assert_eq!(admit(&mut rule, tau), add(scale, tau == 0));
        }
        assert!(rule.is_full());
        assert_eq!(rule.take(), Some(Merged { vector: BUFFER, scale: 1.0 / 3.0 }));
        assert!(!rule.is_full());
        assert_eq!(admit(&mut rule, 0), add(1.0, true));
    }

    /// The end of a run applies an incomplete group.
    #[test]
    fn an_incomplete_group_is_divided_by_its_own_size() {
        let mut rule = Softsync::new(4, Staleness::constant(), BUFFER);
        admit(&mut rule, 0);
        admit(&mut rule, 0);
        assert_eq!(rule.take(), Some(Merged { vector: BUFFER, scale: 0.5 }));
        assert_eq!(rule.take(), None);
    }

    #[test]
    fn a_dropped_update_does_not_count_for_the_group() {
        let mut rule = Softsync::new(2, Staleness::constant().dropping_above(1), BUFFER);
        admit(&mut rule, 0);
        assert_eq!(admit(&mut rule, 2), Verdict::Drop);
        assert!(!rule.is_full());
    }
}
