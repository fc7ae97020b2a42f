//! The mean of a round over the senders of each element: of sparse messages, only the workers that have sent an element
//! count in its mean. A count per element holds the examples behind it, so a server needs memory for one more vector of
//! its shards than the plain mean does.

use super::{Merged, Merging, Verdict};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;

/// A mean of the senders that runs over the contributions of a round.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Senders {
    gathered: Segment,
    /// The examples behind each element of the gathered vector.
    counts: Segment,
    /// There is a contribution in the gathered vector.
    any: bool,
}

impl Senders {
    pub(crate) fn new(gathered: Segment, counts: Segment) -> Self {
        Self { gathered, counts, any: false }
    }
}

impl Merging for Senders {
    fn admit(&mut self, _worker: PeerId, update: Segment, weight: u64, _staleness: u64) -> Verdict {
        if weight == 0 {
            return Verdict::Skip;
        }
        let first = !core::mem::replace(&mut self.any, true);
        let kernel = Kernel::BlendSent { x: update, weight, first, counts: self.counts, into: self.gathered };
        Verdict::Gather { kernel }
    }

    fn take(&mut self) -> Option<Merged> {
        // The gathered vector is a mean already, so its factor is 1.
        core::mem::take(&mut self.any).then_some(Merged { vector: self.gathered, scale: 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferId;

    #[test]
    fn each_round_begins_anew() {
        let [x, counts, into] = [0, 1, 2].map(|buffer| Segment::floats(BufferId(buffer), 0, 4));
        let mut rule = Senders::new(into, counts);
        let blend = |weight, first| Verdict::Gather { kernel: Kernel::BlendSent { x, weight, first, counts, into } };
        for _ in 0..2 {
            assert_eq!(rule.take(), None);
            assert_eq!(rule.admit(PeerId(0), x, 0, 0), Verdict::Skip);
            assert_eq!(rule.admit(PeerId(1), x, 3, 0), blend(3, true));
            assert_eq!(rule.admit(PeerId(2), x, 5, 0), blend(5, false));
            assert_eq!(rule.take(), Some(Merged { vector: into, scale: 1.0 }));
        }
    }
}
