//! The stream of this node's own messages: from the application's contributions to encoded quanta.

use super::exchange::Exchange;
use super::job::Job;
use crate::buffer::Segment;
use crate::codec::Encoded;
use crate::id::{Sequence, ShardId};
use crate::kernel::Kernel;
use crate::machine::encoding::Encoding;
use crate::machine::hub::Port;
use crate::machine::{Event, Rejection};
use crate::wire::Quanta;

#[derive(Debug)]
pub(super) struct Own {
    pub(super) encoding: Encoding,
    /// The place of the application's contribution.
    update: Segment,
    /// Number of the last message.
    sequence: Sequence,
}

impl Own {
    pub(super) fn new(encoding: Encoding, update: Segment) -> Self {
        Self { encoding, update, sequence: Sequence(0) }
    }

    pub(super) fn update(&self) -> Segment {
        self.update
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    /// Starts to encode the next message into a free slot: the contribution, or if `last`, a part of the residual.
    pub(super) fn encode(&mut self, hub: &mut Port<'_, Job>, exchange: &mut Exchange, slot: usize, last: bool) {
        self.sequence = self.sequence.next();
        let (origin, incarnation, base) = (hub.setup.me, hub.setup.incarnation, exchange.replica.seen());
        let quanta = Quanta { origin, incarnation, first: self.sequence, last: self.sequence, base };
        exchange.slots.occupy(slot, None, quanta, 0, true);
        let body = exchange.slots.room(slot);
        if last {
            self.encoding.begin_last();
            hub.compute(self.encoding.last(0, body), Job::Encode);
        } else {
            let (norm, scale) = self.encoding.prepare(self.update, self.sequence.0);
            norm.into_iter().for_each(|kernel| hub.compute(kernel, Job::Measure));
            scale.into_iter().for_each(|kernel| hub.compute(kernel, Job::Aside));
            let (before, encode) = self.encoding.encode(0, self.sequence.0, self.update, body);
            before.into_iter().for_each(|kernel| hub.compute(kernel, Job::Aside));
            hub.compute(encode, Job::Encode);
        }
        if planted!(hub, ResidualDropped) {
            let (update, into) = (self.update, self.encoding.residual(0));
            hub.compute(Kernel::Accumulate { update, scale: 0.0, first: true, into }, Job::Own);
            exchange.replica.on_decoding();
        }
    }

    /// The message in a slot has been encoded, and is sent. `last`: as in [`encode`](Self::encode).
    pub(super) fn on_encoded(
        &mut self,
        hub: &mut Port<'_, Job>,
        exchange: &mut Exchange,
        slot: usize,
        encoded: Encoded,
        last: bool,
    ) {
        self.encoding.on_encoded(0, encoded, &mut hub.counters);
        self.encoding.give_back(&encoded).into_iter().for_each(|kernel| hub.compute(kernel, Job::Aside));
        if let Some(index) = encoded.first_non_finite {
            let (peer, reason) = (hub.setup.me, Rejection::NonFinite { shard: ShardId(0), index });
            hub.event(Event::Rejected { peer, reason });
        }
        if !last {
            let body = exchange.slots.room(slot).first(encoded.bytes);
            let (mask, clip) = self.encoding.after(0, self.sequence.0, body);
            mask.into_iter().for_each(|kernel| hub.compute(kernel, Job::Aside));
            clip.into_iter().for_each(|kernel| hub.compute(kernel, Job::Clip));
            self.encoding.watch().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
        }
        exchange.on_encoded(hub, slot, encoded.bytes);
    }

    /// No message is due any more: reports how the residual ended.
    pub(super) fn tell_rest(&mut self, hub: &mut Port<'_, Job>) {
        if let Some(rest) = self.encoding.take_rest() {
            hub.event(Event::Rest(rest));
            self.encoding.late_hint().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
        }
    }

    /// Drops the residual from before a suspension: an earlier process of this rank may have sent it already.
    pub(super) fn on_outdated(&mut self, hub: &mut Port<'_, Job>) {
        if self.sequence == Sequence(0) {
            self.encoding.forget().for_each(|kernel| hub.compute(kernel, Job::Clip));
            hub.event(Event::Outdated);
        }
    }
}
