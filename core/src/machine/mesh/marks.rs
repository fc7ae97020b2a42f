//! The marks: how much of each origin's stream is in the ledger, and which origins make no more messages.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{Incarnation, PeerId, Sequence};
use crate::recipe::Correction;
use crate::wire::Quanta;

/// A [`Mark`] for each origin, by rank.
#[derive(Clone, Debug)]
pub(super) struct Marks(Vec<Mark>);

/// The state of one origin's stream of messages.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// The origin's process; 0 until a message of it has come. A new process has a new stream.
    pub(super) incarnation: Incarnation,
    /// The origin's last message in the ledger.
    pub(super) sequence: Sequence,
    /// The last message that the origin makes, once it has said so.
    pub(super) last: Option<Sequence>,
    /// The origin is no member of the view: it makes no messages in it.
    pub(super) out: bool,
    /// In a relay tree: the origin's last message that this node has taken to pass on, in this view.
    pub(super) passed: Sequence,
}

impl Marks {
    pub(super) fn new(workers: u32) -> Self {
        Self(vec![Mark::default(); workers as usize])
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
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

    /// A view begins, with these members. An end that another process of the origin has announced does not count.
    pub(super) fn enter(&mut self, members: &[PeerId], process: impl Fn(PeerId) -> Incarnation) {
        for (origin, mark) in (0..).map(PeerId).zip(&mut self.0) {
            mark.out = !members.contains(&origin);
            mark.passed = Sequence(0);
            if !mark.out && mark.incarnation != process(origin) {
                mark.last = None;
            }
        }
    }

    /// Takes the donor's marks, with its ledger.
    pub(super) fn adopt(&mut self, donor: &[Mark]) {
        for (own, theirs) in self.0.iter_mut().zip(donor) {
            // The origin may have announced its end to this node before it did so to the donor.
            let known = own.last.filter(|_| own.incarnation == theirs.incarnation);
            let last = theirs.last.or(known);
            *own = Mark { last, out: own.out, passed: own.passed, ..*theirs };
        }
    }

    /// The first origin with an incomplete stream.
    pub(super) fn first_incomplete(&self) -> Option<PeerId> {
        self.iter().find(|(_, mark)| !mark.is_complete()).map(|(origin, _)| origin)
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
        Self { incarnation, sequence, ..Self::default() }
    }

    /// The origin makes no more messages.
    pub(super) fn is_over(&self) -> bool {
        self.out || self.last.is_some()
    }

    /// The ledger holds all messages that the origin has made or will make, or the origin is no member.
    pub(super) fn is_complete(&self) -> bool {
        self.out || self.last == Some(self.sequence)
    }

    /// The message is in the ledger already.
    pub(super) fn covers(&self, quanta: &Quanta) -> bool {
        quanta.incarnation == self.incarnation && quanta.last <= self.sequence
    }

    /// Do both marks say that the same messages of the origin are in the ledger? Not if they name different processes, even
    /// if these have made no messages: one of the ledgers can hold messages of an earlier process.
    pub(super) fn stands_for_the_same(&self, other: &Self) -> bool {
        (self.sequence, self.incarnation) == (other.sequence, other.incarnation)
    }

    /// The origin has not been heard of.
    pub(super) fn is_unheard(&self) -> bool {
        self.incarnation == Incarnation(0)
    }

    /// Can this process of the origin go on behind this mark? A mark without a process cannot be told from one whose
    /// ledger lacks the messages of an earlier process.
    pub(super) fn may_flow(&self, process: Incarnation) -> bool {
        self.incarnation == process
    }

    /// The number of the next message of this process of the origin.
    pub(super) fn next(&self, incarnation: Incarnation) -> Sequence {
        if incarnation == self.incarnation { self.sequence.next() } else { Sequence(1) }
    }
}
