//! How a node enters a view: with the ledger of the view's donor, and its own messages that the donor does not have.
//!
//! ```text
//! Out -> Entering -> Asking -> Loading -> Current        a node without parameters, or without the run's
//! Out -> Entering -> Asking ------------> Current        a node whose marks agree with the donor's
//! Out -> Entering ----------------------> Current        the donor
//! ```
//! A message of a member is kept by its origin until all members have it. So it does not matter whether a member or the
//! donor is ahead in the stream of another member: the stream goes on. Messages of a worker that is no member any more
//! cannot be had again. If two members have different parts of them, one of the two has to give way: a member with
//! other marks of these streams than the donor takes the donor's ledger, and adds its own messages that are not in it.
//! So all members have the same messages of all other workers, and no contribution of a member is lost.
//!
//! In a relay tree a message reaches a node through other nodes, which may have it already. There, all marks have to
//! agree before the first message of the view.

use alloc::vec;
use alloc::vec::Vec;

use super::marks::{Mark, Marks};
use crate::id::{Clock, PeerId, Sequence};
use crate::machine::hub::Hub;
use crate::machine::views::View;
use crate::wire::{Message, SnapshotMark, Wanted};

/// How far this node has come into its view.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// In no view, or all members stop.
    Out,
    /// The view has come. Operations of the view before are still open.
    Entering,
    /// The donor has the parameters. `asked`: it has been asked for the parts that this node needs.
    Asking { asked: bool, wanted: Wanted },
    /// This node founds the mesh with its own parameters.
    Founding,
    /// This node exchanges messages.
    Current,
}

/// This node's way into a view.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    stage: Stage,
    /// The ledger here is one of the run, and the base is that of the run.
    holds: bool,
    /// The donor's marks, as far as they have come.
    offered: Vec<Mark>,
    /// Messages in the ledger that comes.
    applied: Clock,
    /// Number of snapshot bodies that are being received.
    receiving: u32,
    /// The base of the snapshot is here, or not needed.
    based: bool,
    /// Origins with streams in which this node and the donor are not equally far. The view has to begin anew if one of
    /// them turns out to be another process, of which the rest of the stream cannot come.
    trusted: Vec<PeerId>,
}

impl Sync {
    pub(super) fn new(workers: u32) -> Self {
        let offered = Vec::with_capacity(workers as usize);
        let trusted = Vec::with_capacity(workers as usize);
        Self { stage: Stage::Out, holds: false, offered, applied: Clock(0), receiving: 0, based: false, trusted }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn is_current(&self) -> bool {
        self.stage == Stage::Current
    }

    /// This node has parameters of the run, which it could hand on.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// All members stop.
    pub(super) fn stop(&mut self) {
        self.stage = Stage::Out;
    }

    /// A view has come. `returns`: the run has gone on without this node.
    pub(super) fn enter(&mut self, returns: bool) {
        self.stage = Stage::Entering;
        self.holds &= !returns;
        self.trusted.clear();
    }

    /// No operation of the view before is open any more. `is_donor`: this node has the state that the view begins with.
    pub(super) fn begin(&mut self, is_donor: bool) {
        self.stage = match (is_donor, self.holds) {
            (true, true) => Stage::Current,
            (true, false) => Stage::Founding,
            (false, true) => Stage::Asking { asked: false, wanted: Wanted::Marks },
            (false, false) => Stage::Asking { asked: false, wanted: Wanted::All },
        };
    }

    pub(super) fn become_current(&mut self) {
        (self.stage, self.holds) = (Stage::Current, true);
    }

    /// The connection to the donor is new: the answer has to be asked for again.
    pub(super) fn restart(&mut self) {
        if let Stage::Asking { asked, .. } = &mut self.stage {
            *asked = false;
        }
    }

    /// Asks the donor, once on each connection. Bodies of an earlier answer may still be written to the same buffers.
    pub(super) fn maybe_ask(&mut self, hub: &mut Hub, view: &View) {
        let Stage::Asking { asked: asked @ false, wanted } = &mut self.stage else { return };
        if self.receiving > 0 || !hub.is_agreed(view.donor) {
            return;
        }
        *asked = true;
        self.offered.clear();
        self.based = *wanted != Wanted::All;
        hub.notify(view.donor, Message::FetchSnapshot { view: view.number, wanted: *wanted });
    }

    /// Does this node expect parts of a snapshot?
    pub(super) fn expects(&self, wanted: impl Fn(Wanted) -> bool) -> bool {
        matches!(self.stage, Stage::Asking { asked: true, wanted: asked } if wanted(asked))
    }

    /// A mark of the donor has come. They come in order of rank.
    pub(super) fn on_mark(&mut self, mark: &SnapshotMark, workers: usize) {
        let SnapshotMark { origin, incarnation, sequence, last, .. } = *mark;
        if origin.index() == self.offered.len() && origin.index() < workers {
            self.offered.push(Mark { incarnation, sequence, last, ..Mark::default() });
        }
    }

    /// If only marks have been asked for and all are here: can this node keep its ledger? If not, it needs the donor's.
    pub(super) fn compare(&mut self, hub: &Hub, marks: &Marks, view: &View, relay: bool) -> Option<bool> {
        let complete = self.offered.len() == marks.len();
        if !complete || !self.expects(|wanted| wanted == Wanted::Marks) {
            return None;
        }
        // The process whose stream goes on, of a member that this node exchanges messages with.
        let flowing = |origin: PeerId| (!relay && view.members.contains(&origin)).then(|| hub.process(origin));
        let mut agrees = true;
        for ((origin, own), theirs) in marks.iter().zip(&self.offered) {
            let may_flow = |mark: &Mark, process| {
                mark.may_flow(process) || (mark.sequence == Sequence(0) && planted!(hub, StreamsMixed))
            };
            let flows = flowing(origin).is_some_and(|process| may_flow(own, process) && may_flow(theirs, process));
            // This node's own mark names its process before the first message.
            let begins = origin == hub.setup.me && own.sequence == Sequence(0);
            match own.stands_for_the_same(theirs) || (begins && theirs.is_unheard()) {
                true => {}
                false if flows => self.trusted.push(origin),
                false => agrees = false,
            }
        }
        if !agrees {
            self.stage = Stage::Asking { asked: false, wanted: Wanted::Ledger };
        }
        Some(agrees)
    }

    /// Does this node rely on the rest of this origin's stream?
    pub(super) fn trusts(&self, origin: PeerId) -> bool {
        self.trusted.contains(&origin)
    }

    /// The donor's marks.
    pub(super) fn offered(&self) -> &[Mark] {
        &self.offered
    }

    /// The body of a part of the snapshot is being received.
    pub(super) fn on_receiving(&mut self) {
        self.receiving += 1;
    }

    /// It is not being received any more.
    pub(super) fn on_received(&mut self) {
        self.receiving -= 1;
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.receiving > 0
    }

    pub(super) fn on_base(&mut self) {
        self.based = true;
    }

    /// The ledger begins to come, with so many messages in it.
    pub(super) fn set_applied(&mut self, applied: Clock) {
        self.applied = applied;
    }

    /// The ledger is here. Returns the number of messages in it, if the snapshot is complete.
    pub(super) fn take_snapshot(&self, marks: &Marks) -> Option<Clock> {
        let complete = self.based && self.offered.len() == marks.len();
        complete.then_some(self.applied)
    }
}

/// The requests of members that enter the view, which this node answers as its donor.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    /// By rank: the last request.
    list: Vec<Option<(Sequence, Wanted)>>,
}

impl Requests {
    pub(super) fn new(workers: u32) -> Self {
        Self { list: vec![None; workers as usize] }
    }

    pub(super) fn put(&mut self, from: PeerId, view: Sequence, wanted: Wanted) {
        if let Some(entry) = self.list.get_mut(from.index()) {
            *entry = Some((view, wanted));
        }
    }

    /// The connection is new: a request of the old one has no answer.
    pub(super) fn forget(&mut self, from: PeerId) {
        if let Some(entry) = self.list.get_mut(from.index()) {
            *entry = None;
        }
    }

    /// Takes the first request of this view that is due. Requests of earlier views are dropped.
    pub(super) fn take(&mut self, view: Sequence, is_due: impl Fn(PeerId) -> bool) -> Option<(PeerId, Wanted)> {
        for (from, entry) in (0..).map(PeerId).zip(&mut self.list) {
            match entry {
                Some((of, wanted)) if *of == view && is_due(from) => {
                    let wanted = *wanted;
                    *entry = None;
                    return Some((from, wanted));
                }
                Some((of, _)) if *of < view => *entry = None,
                _ => {}
            }
        }
        None
    }
}
