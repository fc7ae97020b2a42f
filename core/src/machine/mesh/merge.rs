//! Messages that wait for a peer that does not keep up become one: their quanta are summed.
//!
//! Only own messages that follow each other and wait for the same peers, none of which can have either of them: a
//! message that has been sent, even on a connection that broke, must stay as it is, because a receiver takes a
//! range of sequences whole or not at all.

use super::*;

impl Mesh {
    pub(super) fn is_merging(&self, slot: usize) -> bool {
        self.merging.is_some_and(|(one, other)| slot == one || slot == other)
    }

    /// Makes room for the next message, if none is free.
    pub(super) fn maybe_merge(&mut self) {
        let full = (0..OWN_SLOTS).all(|slot| !self.slots[slot].is_free());
        if self.merging.is_some() || !full || !matches!(self.state, State::Blocked { .. }) {
            return;
        }
        let pairs = (0..OWN_SLOTS).flat_map(|one| (0..OWN_SLOTS).map(move |other| (one, other)));
        let Some((one, other)) = pairs.into_iter().find(|(one, other)| self.can_merge(*one, *other)) else { return };
        let message = |slot: usize| self.slots[slot].message.expect("a message to merge");
        let bodies = [one, other].map(|slot| self.body(slot, message(slot).length));
        let place = Segment { buffer: self.spare, start: 0, len: self.encoding.len_max(0) as u32 };
        let (unit, place) = (self.threshold.unit(), self.encoding.place(0, place));
        self.merging = Some((one, other));
        self.hub.compute(Kernel::Merge { one: bodies[0], other: bodies[1], unit, place }, Job::Merge);
    }

    fn can_merge(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.slots[one], &self.slots[other]);
        let (Some(a), Some(b)) = (one.message, other.message) else { return false };
        let loose = |slot: &Slot| {
            let fixed = slot.pending.iter().zip(&slot.fixed).any(|(pending, fixed)| *pending && *fixed);
            slot.sending == 0 && !fixed && slot.message.is_some_and(|message| message.ready && message.length > 0)
        };
        a.sequence.next() == b.first && one.pending == other.pending && loose(one) && loose(other)
    }

    pub(super) fn on_merged(&mut self, result: KernelResult) {
        let Some((one, other)) = self.merging.take() else { return };
        let (Some(first), Some(last)) = (self.slots[one].message, self.slots[other].message) else { return };
        if let KernelResult::Merged { bytes } = result {
            if !planted!(self.hub, MergeForgets) {
                core::mem::swap(&mut self.slots[one].buffer, &mut self.spare);
            }
            let length = if planted!(self.hub, MergeForgets) { first.length } else { bytes };
            self.slots[one].message = Some(Message { sequence: last.sequence, length, ..first });
            self.slots[other].pending.fill(false);
            self.slots[other].message = None;
            self.hub.counters.merged += 1;
        } else {
            // Too many quanta for one entry: they stay two, and this node waits for the peer.
            self.slots[one].fixed.fill(true);
        }
        // Whom they were for may have gone in the meantime.
        self.maybe_free(one);
        self.maybe_free(other);
        self.send_on();
    }

    fn send_on(&mut self) {
        for to in 0..self.neighbours.len() {
            self.send_next(to);
        }
    }
}
