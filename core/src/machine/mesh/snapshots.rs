//! Snapshots for members that enter the view: the marks, the base and a copy of the ledger.

use alloc::vec;
use alloc::vec::Vec;

use super::job::Job;
use super::marks::Marks;
use super::replica::Replica;
use super::sync::Requests;
use crate::id::{PeerId, Sequence};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::hub::Port;
use crate::tape::Order;
use crate::wire::{Message, SnapshotMark, Wanted};

/// The donor's side.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) requests: Requests,
    /// By rank: the view that this node has given its last snapshot in.
    given: Vec<Sequence>,
    /// Operations that still use the copy of the ledger, or the base.
    open: u32,
}

impl Snapshots {
    pub(super) fn new(workers: u32) -> Self {
        Self { requests: Requests::new(workers), given: vec![Sequence(0); workers as usize], open: 0 }
    }

    /// Is this node giving a snapshot?
    pub(super) fn is_giving(&self) -> bool {
        self.open > 0
    }

    /// Answers the first request of the view. Waits until the ledger holds the messages up to the marks, and until the
    /// last answer is out.
    pub(super) fn maybe_provide(&mut self, hub: &mut Port<'_, Job>, marks: &Marks, replica: &Replica, view: Sequence) {
        while self.open == 0 && !replica.is_decoding() {
            let due = self.requests.take(view, |to| hub.allows(Order::Give { to }));
            let Some((to, wanted)) = due else { return };
            if !hub.is_agreed(to) {
                continue;
            }
            // Again: the first answer did not reach it.
            if core::mem::replace(&mut self.given[to.index()], view) == view {
                hub.break_tape();
            }
            hub.decide(Order::Give { to });
            for (origin, mark) in marks.iter() {
                let (incarnation, sequence, last) = (mark.incarnation, mark.sequence, mark.last);
                hub.notify(to, Message::SnapshotMark(SnapshotMark { view, origin, incarnation, sequence, last }));
            }
            if wanted == Wanted::All {
                self.open += 1;
                hub.transmit(to, Message::Seed { view }, Some(replica.base()), Job::SendSnapshot);
            }
            if wanted != Wanted::Marks {
                self.open += 1;
                let (from, into) = (replica.ledger(), replica.copy());
                hub.compute(Kernel::CopyLedger { from, into }, Job::Snapshot { to, view, applied: replica.applied() });
            }
        }
    }

    /// The ledger has been copied.
    pub(super) fn on_copied(
        &mut self,
        hub: &mut Port<'_, Job>,
        to: PeerId,
        message: Message,
        result: KernelResult,
        replica: &Replica,
    ) {
        let KernelResult::Copied { bytes } = result else { return };
        if hub.is_agreed(to) {
            hub.transmit(to, message, Some(replica.copy().first(bytes)), Job::SendSnapshot);
        } else {
            self.on_sent(hub, replica);
        }
    }

    pub(super) fn on_sent(&mut self, hub: &mut Port<'_, Job>, replica: &Replica) {
        self.open -= 1;
        if self.open == 0 {
            self.give_back(hub, replica);
        }
    }

    /// The copy of the ledger is not used until the next member enters: it gives back its memory.
    pub(super) fn give_back(&self, hub: &mut Port<'_, Job>, replica: &Replica) {
        let buffer = replica.copy().buffer;
        if replica.copy().len > hub.setup.keep_below {
            hub.compute(Kernel::Release { buffer }, Job::Aside);
        }
    }
}
