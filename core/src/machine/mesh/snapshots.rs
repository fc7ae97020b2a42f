//! Snapshots for neighbours that join: the marks, the base and a copy of the ledger.

use alloc::collections::VecDeque;

use super::job::Job;
use super::marks::Marks;
use super::replica::Replica;
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::machine::hub::Port;
use crate::wire::{Message, SnapshotMark};

#[derive(Debug)]
pub(super) struct Snapshots {
    /// The copy of the ledger.
    copy: Segment,
    /// The neighbours that have asked for a snapshot: the last request of each.
    requests: VecDeque<Request>,
    /// Transmissions that still read the copy or the base.
    sending: u32,
}

/// A neighbour's request for a snapshot.
#[derive(Copy, Clone, Debug)]
struct Request {
    from: PeerId,
    /// Every part of the answer repeats it.
    number: u32,
}

impl Snapshots {
    pub(super) fn new(copy: Segment, neighbours: usize) -> Self {
        Self { copy, requests: VecDeque::with_capacity(neighbours), sending: 0 }
    }

    pub(super) fn on_request(&mut self, from: PeerId, number: u32) {
        self.requests.retain(|request| request.from != from);
        self.requests.push_back(Request { from, number });
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Answers the first request. Waits until the ledger holds what the marks say, and until the last answer is out.
    pub(super) fn maybe_provide(&mut self, hub: &mut Port<'_, Job>, marks: &Marks, replica: &Replica) {
        if replica.is_decoding() || self.sending > 0 {
            return;
        }
        let Some(Request { from: to, number: request }) = self.requests.pop_front() else { return };
        if !hub.is_agreed(to) {
            return;
        }
        for (origin, mark) in marks.iter() {
            let last = mark.end.map(|end| end.last);
            let (incarnation, sequence, lost) = (mark.incarnation, mark.sequence, mark.lost);
            let mark = SnapshotMark { request, origin, incarnation, sequence, last, lost };
            hub.notify(to, Message::SnapshotMark(mark));
        }
        self.sending = 2;
        hub.transmit(to, Message::Seed { request }, Some(replica.base()), Job::SendSnapshot);
        hub.compute(Kernel::Copy { from: replica.ledger(), into: self.copy }, Job::Snapshot { to, request });
    }

    /// The ledger has been copied.
    pub(super) fn on_copied(&mut self, hub: &mut Port<'_, Job>, to: PeerId, request: u32, replica: &Replica) {
        if hub.is_agreed(to) {
            let ledger = Message::Ledger { request, applied: replica.applied() };
            hub.transmit(to, ledger, Some(self.copy), Job::SendSnapshot);
        } else {
            self.sending -= 1;
        }
    }

    pub(super) fn on_sent(&mut self) {
        self.sending -= 1;
    }
}
