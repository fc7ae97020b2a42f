//! The replica of the parameters: `base - unit * ledger`, and the view that the application reads.

use super::job::Job;
use crate::buffer::Segment;
use crate::id::Clock;
use crate::kernel::{Kernel, ledger};
use crate::machine::hub::{Hub, Port};

#[derive(Clone, Debug)]
pub(super) struct Replica {
    view: Segment,
    /// The view was made of this ledger, and differs from it in touched lines only.
    follows: bool,
    /// An integer per parameter: the sum of the quanta of all messages. It trades places with the copy.
    ledger: Segment,
    /// The lines of the ledger that messages have touched since the view was made.
    touched: Segment,
    /// A second ledger: the copy that a newcomer is sent, or the donor's that comes. It has memory only meanwhile.
    copy: Segment,
    /// The initial parameters.
    base: Segment,
    /// The sections of a body, for decoding.
    sections: Segment,
    /// The smallest quantum, which is the unit of the ledger's counts.
    unit: f32,
    /// Messages in the ledger, of all origins.
    applied: Clock,
    /// The value of `applied` for which the view was last made.
    seen: Clock,
    /// Decoding kernels that have not ended. The ledger is ahead of the marks by their messages.
    decoding: u32,
}

impl Replica {
    /// A replica without parameters: `ledger` and `base` are to be filled.
    pub(super) fn new(
        view: Segment,
        [ledger, copy]: [Segment; 2],
        touched: Segment,
        base: Segment,
        sections: Segment,
        unit: f32,
    ) -> Self {
        let (applied, seen) = (Clock(0), Clock(0));
        let follows = false;
        Self { view, follows, ledger, touched, copy, base, sections, unit, applied, seen, decoding: 0 }
    }

    pub(super) fn view(&self) -> Segment {
        self.view
    }

    pub(super) fn ledger(&self) -> Segment {
        self.ledger
    }

    pub(super) fn copy(&self) -> Segment {
        self.copy
    }

    /// Bytes of the words that hold all of a ledger without counts above 32 bits.
    pub(super) fn low_len(&self) -> u32 {
        ledger::low_words(self.base.len as usize / 4) as u32 * 4
    }

    pub(super) fn base(&self) -> Segment {
        self.base
    }

    pub(super) fn unit(&self) -> f32 {
        self.unit
    }

    pub(super) fn applied(&self) -> Clock {
        self.applied
    }

    pub(super) fn seen(&self) -> Clock {
        self.seen
    }

    /// The donor's ledger has come into the copy, with so many messages in it: it is this node's from now on.
    pub(super) fn take_copy(&mut self, applied: Clock) {
        core::mem::swap(&mut self.ledger, &mut self.copy);
        (self.applied, self.follows) = (applied, false);
    }

    /// The parameters in the view become the base of a new run.
    pub(super) fn found(&self, hub: &mut Port<'_, Job>) {
        hub.compute(Kernel::Copy { from: self.view, into: self.base }, Job::Found);
    }

    /// Makes the view.
    pub(super) fn materialise(&mut self, hub: &mut Port<'_, Job>, job: Job) {
        self.seen = self.applied;
        let Self { base, ledger, unit, touched, view: into, .. } = *self;
        // Lines that were touched before the whole view is made are made twice.
        let kernel = match core::mem::replace(&mut self.follows, true) {
            true => Kernel::Refresh { base, ledger, unit, touched, into },
            false => Kernel::Materialise { base, ledger, unit, into },
        };
        hub.compute(kernel, job);
    }

    /// Adds a body to the ledger. Its end is [`on_decoded`](Self::on_decoded).
    pub(super) fn decode(&mut self, hub: &mut Port<'_, Job>, body: Segment, job: Job) {
        let Self { sections, unit, ledger, touched, .. } = *self;
        hub.compute(Kernel::Decode { body, sections, unit, ledger, touched }, job);
        self.on_decoding();
    }

    /// A kernel that counts as decoding has been started.
    pub(super) fn on_decoding(&mut self) {
        self.decoding += 1;
    }

    pub(super) fn on_decoded(&mut self) {
        self.decoding -= 1;
    }

    pub(super) fn is_decoding(&self) -> bool {
        self.decoding > 0
    }

    /// Counts `count` own messages.
    pub(super) fn on_own(&mut self, count: u64) {
        self.applied = Clock(self.applied.0 + count);
    }

    /// Counts a message of another origin, made of `count` messages. Records the staleness of each.
    pub(super) fn on_applied(&mut self, hub: &mut Hub, count: u64, base: Clock) {
        hub.counters.applied += count;
        // A sum counts as all of its messages, made when the first of them was.
        for _ in 0..count {
            hub.staleness.record(self.applied.ahead_of(base));
            self.applied = self.applied.next();
        }
    }
}
