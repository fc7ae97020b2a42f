//! Contributions: encoded, pushed to every shard, pushed again after a broken connection; and the residual as the last
//! of them, if the recipe says so.

use alloc::vec::Vec;

use super::row::Pushed;
use super::{Job, Port, Progress, State, Worker};
use crate::buffer::Segment;
use crate::id::{PeerId, Sequence, ShardId};
use crate::kernel::KernelResult;
use crate::machine::Event;
use crate::wire::{self, Leave, Message, Offer};

impl Worker {
    /// Contributes the application's update; `rest`: a part of the residual.
    pub(super) fn contribute(&mut self, hub: &mut Port<'_>, weight: u64, rest: bool) {
        self.sequence = self.sequence.next();
        let sequence = self.sequence;
        let slot = self.slot(sequence);
        (self.pushes[slot].weight, self.pushes[slot].fetches) = (weight, self.fetching);
        self.pushes[slot].repeats = self.repeating;
        self.pushes[slot].rider = self.next_rider();
        self.weight = if weight > 0 { weight } else { self.weight };
        if weight > 0 && !rest && !self.repeating {
            let whole = Segment::floats(self.update(sequence), 0, hub.setup.len);
            let (norm, scale) = self.encoding.prepare(whole, sequence.0);
            norm.into_iter().for_each(|kernel| hub.compute(kernel, Job::Measure));
            scale.into_iter().for_each(|kernel| hub.compute(kernel, Job::Prepare));
        }
        for shard in 0..self.rows.len() {
            let row = &mut self.rows[shard];
            row.own = row.own.next();
            row.last_base = if self.repeating { row.last_base } else { row.base };
            row.pushed[slot] = Pushed { base: row.last_base, length: None, sent: false };
            row.pushed[slot].length = match weight {
                0 => Some(0),
                _ if self.repeating => Some(0),
                _ if self.encoding.is_plain() => Some(row.bytes()),
                _ => None,
            };
            if row.pushed[slot].length.is_some() {
                self.push(hub, shard, sequence);
                continue;
            }
            let body = self.body(shard, sequence);
            if rest {
                hub.compute(self.encoding.last(shard, body), Job::Encode { shard, sequence, rest });
                continue;
            }
            let update = self.part(self.update(sequence), shard);
            let (before, encode) = self.encoding.encode(shard, sequence.0, update, body);
            before.into_iter().for_each(|kernel| hub.compute(kernel, Job::Prepare));
            hub.compute(encode, Job::Encode { shard, sequence, rest });
        }
    }

    pub(super) fn on_encoded(
        &mut self,
        hub: &mut Port<'_>,
        shard: usize,
        sequence: Sequence,
        rest: bool,
        result: KernelResult,
    ) {
        let KernelResult::Encoded(encoded) = result else { return };
        self.encoding.on_encoded(shard, encoded, &mut hub.counters);
        self.encoding.give_back(&encoded).into_iter().for_each(|kernel| hub.compute(kernel, Job::Prepare));
        if !rest {
            let body = self.body(shard, sequence).first(encoded.bytes);
            let (mask, clip) = self.encoding.after(shard, sequence.0, body);
            mask.into_iter().for_each(|kernel| hub.compute(kernel, Job::Prepare));
            clip.into_iter().for_each(|kernel| hub.compute(kernel, Job::Clip { shard }));
        }
        let slot = self.slot(sequence);
        self.rows[shard].pushed[slot].length = Some(encoded.bytes);
        if !rest && self.is_encoded(sequence) {
            self.encoding.watch().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
        }
        self.push(hub, shard, sequence);
    }

    /// A worker that leaves makes contributions of its residual, if the recipe says so, with the weight of the
    /// contribution before.
    pub(super) fn maybe_flush(&mut self, hub: &mut Port<'_>) {
        let is_open = !self.is_encoded(self.sequence) || self.encoding.is_clipping() || self.is_deciding();
        if self.flushed || !matches!(self.state, State::Leaving { .. }) || is_open {
            return;
        }
        self.encoding.begin_end();
        if !self.encoding.wants_last() {
            self.flushed = true;
            self.encoding.take_rest().into_iter().for_each(|rest| hub.event(Event::Rest(rest)));
            self.encoding.late_hint().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
        } else if self.is_free() {
            for row in &mut self.rows {
                row.base = row.version;
            }
            self.encoding.begin_last();
            (self.fetching, self.repeating) = (true, false);
            self.contribute(hub, self.weight.max(1), true);
        }
    }

    /// Are all shards of one of the last contributions encoded?
    fn is_encoded(&self, sequence: Sequence) -> bool {
        let slot = self.slot(sequence);
        sequence == Sequence(0) || self.rows.iter().all(|row| row.pushed[slot].length.is_some())
    }

    pub(super) fn push(&mut self, hub: &mut Port<'_>, shard: usize, sequence: Sequence) {
        let (server, row, slot) = (self.server(hub, shard), &self.rows[shard], self.slot(sequence));
        // A restarted server first has to be told where it is.
        if !hub.is_agreed(server) || row.progress == Progress::Awaited {
            return;
        }
        // If the contribution is still being encoded, it is pushed when that is done.
        let Some(length) = row.pushed[slot].length else { return };
        let push = wire::Push {
            shard: ShardId(shard as u32),
            worker: hub.setup.me,
            incarnation: hub.setup.incarnation,
            sequence,
            base: row.pushed[slot].base,
            weight: self.pushes[slot].weight,
            repeats: self.pushes[slot].repeats,
            fetches: self.pushes[slot].fetches,
            step_time: self.step_time,
            rider: self.pushes[slot].rider,
        };
        let dense = row.bytes();
        let body = (length > 0).then(|| self.body(shard, sequence).first(length));
        self.pushes[slot].sending += 1;
        let again = core::mem::replace(&mut self.rows[shard].pushed[slot].sent, true);
        hub.counters.resent += u64::from(again && !planted!(hub, ResentUncounted));
        hub.transmit_coded(server, Message::Push(push), body, dense, Job::Push { slot });
    }

    /// Pushes the contributions to a shard that have not been answered.
    fn push_unanswered(&mut self, hub: &mut Port<'_>, shard: usize) {
        let answered = self.rows[shard].answered.0;
        (answered + 1..=self.sequence.0).for_each(|sequence| self.push(hub, shard, Sequence(sequence)));
    }

    pub(super) fn on_server(&mut self, hub: &mut Port<'_>, server: PeerId, fresh: bool) {
        let shards: Vec<usize> = (0..self.rows.len()).filter(|shard| self.server(hub, *shard) == server).collect();
        let (last, left) = (self.sequence, self.state == State::Left);
        if fresh {
            self.forget_magnitudes(hub, server);
        }
        let link = self.link(hub, server);
        link.leave_sent = false;
        if fresh && left {
            // A restarted server must not wait for this worker.
            let (origin, incarnation) = (hub.setup.me, hub.setup.incarnation);
            return hub.notify(server, Message::Leave(Leave { origin, incarnation, last, stays: false }));
        }
        link.renewing |= fresh && hub.has_parameters;
        let renewing = link.renewing;
        if renewing && fresh && !hub.setup.recipe.has_rounds() {
            hub.break_tape();
        }
        if fresh && !hub.has_parameters {
            // Parameters that an earlier process of the server sent do not count: that run has not begun.
            shards.iter().for_each(|shard| self.rows[*shard].progress = Progress::Awaited);
        }
        for shard in shards {
            if renewing {
                self.offer(hub, shard);
            } else {
                self.push_unanswered(hub, shard);
            }
        }
    }

    /// Offers a restarted server the shard as this worker has it. Contributions under way to the server count as lost:
    /// its earlier process may have applied them, and other workers may have seen that.
    fn offer(&mut self, hub: &mut Port<'_>, shard: usize) {
        let source = if self.pushes.len() > 1 { self.buffers.rows } else { self.buffers.view };
        let row = &mut self.rows[shard];
        row.progress = Progress::Awaited;
        let offer = Offer {
            shard: ShardId(shard as u32),
            sequence: self.sequence,
            row: row.clock,
            version: row.version,
            whole: !row.torn,
        };
        let body = offer.whole.then(|| self.part(source, shard));
        hub.transmit(self.server(hub, shard), Message::Offer(offer), body, Job::Offer);
    }

    /// A restarted server has answered: it gets the contributions that were made in the meantime.
    pub(super) fn on_renewed(&mut self, hub: &mut Port<'_>, shard: usize) {
        self.push_unanswered(hub, shard);
        let server = self.server(hub, shard);
        let mut shards = (0..self.rows.len()).filter(|shard| self.server(hub, *shard) == server);
        if shards.all(|shard| self.rows[shard].progress != Progress::Awaited) {
            self.link(hub, server).renewing = false;
        }
    }

    /// The body of a contribution: the update itself, or the place for the longest encoding of it.
    fn body(&self, shard: usize, sequence: Sequence) -> Segment {
        if self.encoding.is_plain() {
            return self.part(self.update(sequence), shard);
        }
        let buffer = self.rows[shard].bodies[self.slot(sequence)];
        Segment { buffer, start: 0, len: self.encoding.len_max(shard) as u32 }
    }
}
