//! The marks: how much of each origin's stream is in the ledger, and which origins make no more messages.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Incarnation, PeerId, Sequence};
use crate::recipe::Correction;
use crate::wire::{Quanta, SnapshotMark};

/// A [`Mark`] for each origin, by rank.
#[derive(Clone, Debug)]
pub(super) struct Marks(Vec<Mark>);

/// The state of one origin's stream of messages.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Mark {
    /// The origin's process; 0 until it is known.
    pub(super) incarnation: Incarnation,
    /// The origin's last message in the ledger.
    pub(super) sequence: Sequence,
    /// The end of the stream, once the origin has announced it.
    pub(super) end: Option<End>,
    /// The origin has been given up.
    pub(super) lost: bool,
}

/// The end of an origin's stream.
#[derive(Copy, Clone, Debug)]
pub(super) struct End {
    /// The origin's last message.
    pub(super) last: Sequence,
    /// The origin stays for the final parameters.
    pub(super) stays: bool,
}

impl Marks {
    pub(super) fn new(workers: u32) -> Self {
        Self(vec![Mark::default(); workers as usize])
    }

    pub(super) fn contains(&self, origin: PeerId) -> bool {
        origin.index() < self.0.len()
    }

    pub(super) fn get(&self, origin: PeerId) -> &Mark {
        &self.0[origin.index()]
    }

    pub(super) fn get_mut(&mut self, origin: PeerId) -> &mut Mark {
        &mut self.0[origin.index()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &Mark)> {
        (0..).map(PeerId).zip(&self.0)
    }

    /// The first origin whose stream is not complete.
    pub(super) fn first_incomplete(&self) -> Option<PeerId> {
        self.iter().find(|(_, mark)| !mark.is_complete()).map(|(origin, _)| origin)
    }

    /// Takes the mark of an origin from a snapshot.
    pub(super) fn adopt(&mut self, mark: &SnapshotMark) {
        let SnapshotMark { incarnation, sequence, .. } = *mark;
        let own = self.get(mark.origin);
        let lost = own.lost || mark.lost;
        // The origin may have announced its end to this node before it did so to the provider.
        let known = own.end.filter(|_| own.incarnation == incarnation).map(|end| end.last);
        let end = mark.last.or(known).map(|last| End { last, stays: true });
        *self.get_mut(mark.origin) = Mark { incarnation, sequence, end, lost };
    }

    /// May this node begin? The first ranks begin alone, until they have made so many messages or cannot make them any
    /// more (Strom 2015, section 4: a model far from anything is best moved by few).
    pub(super) fn may_begin(&self, me: PeerId, correction: &Correction) -> bool {
        let Correction { starters, head_start, .. } = *correction;
        let ahead = || self.0.iter().take(starters as usize);
        starters == 0
            || me.0 < starters
            || ahead().all(Mark::is_over)
            || ahead().map(|mark| mark.sequence.0).sum::<u64>() >= u64::from(head_start)
    }

    /// The one of the first ranks that is furthest behind and still makes messages.
    pub(super) fn slowest_starter(&self, correction: &Correction) -> Option<PeerId> {
        let ahead = || self.iter().take(correction.starters as usize).filter(|(_, mark)| !mark.is_over());
        ahead().min_by_key(|(_, mark)| mark.sequence).map(|(origin, _)| origin)
    }
}

impl Mark {
    /// The mark of a process whose messages up to `sequence` are in the ledger.
    pub(super) fn new(incarnation: Incarnation, sequence: Sequence) -> Self {
        Self { incarnation, sequence, end: None, lost: false }
    }

    /// The origin makes no more messages.
    pub(super) fn is_over(&self) -> bool {
        self.lost || self.end.is_some()
    }

    /// The ledger holds all messages that the origin has made or will make, or the origin has been given up.
    pub(super) fn is_complete(&self) -> bool {
        self.lost || self.end.is_some_and(|end| end.last == self.sequence)
    }

    /// The message is in the ledger already.
    pub(super) fn covers(&self, quanta: &Quanta) -> bool {
        quanta.incarnation == self.incarnation && quanta.last <= self.sequence
    }
}
