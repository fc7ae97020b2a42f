//! Contributions: encoded, pushed to every shard, pushed again; and the residual as the last of them.

use super::*;

impl Worker {
    /// Contributes what the application has made, or what is left of all it has made.
    pub(super) fn contribute(&mut self, weight: u32, rest: bool) {
        self.sequence = self.sequence.next();
        let sequence = self.sequence;
        let slot = self.slot(sequence);
        self.pushes[slot].weight = weight;
        self.weight = if weight > 0 { weight } else { self.weight };
        for shard in 0..self.rows.len() {
            let row = &mut self.rows[shard];
            row.own = row.own.next();
            row.bases[slot] = row.base;
            row.lengths[slot] = match weight {
                _ if self.encoding.is_plain() => Some(row.len as u32 * 4),
                0 => Some(0),
                _ => None,
            };
            if self.rows[shard].lengths[slot].is_some() {
                self.push(shard, sequence);
                continue;
            }
            let body = self.body(shard, sequence);
            if rest {
                self.hub.compute(self.encoding.flush(shard, body), Job::Encode { shard, sequence, rest });
                continue;
            }
            let update = self.part(self.update(sequence), shard);
            let (before, encode) = self.encoding.encode(shard, sequence.0, update, body);
            before.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Aside));
            self.hub.compute(encode, Job::Encode { shard, sequence, rest });
        }
    }

    pub(super) fn on_encoded(&mut self, shard: usize, sequence: Sequence, rest: bool, result: KernelResult) {
        let KernelResult::Encoded(encoded) = result else { return };
        self.encoding.on_encoded(shard, encoded, &mut self.hub.counters);
        if !rest {
            let body = self.body(shard, sequence).first(encoded.bytes);
            let (mask, clip) = self.encoding.after(shard, sequence.0, body);
            mask.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Aside));
            clip.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Clip));
        }
        let slot = self.slot(sequence);
        self.rows[shard].lengths[slot] = Some(encoded.bytes);
        self.push(shard, sequence);
    }

    /// A leaver's residual is its last contribution, of the same weight as the one before.
    pub(super) fn maybe_flush(&mut self) {
        if self.flushed || !matches!(self.state, State::Leaving { .. }) {
            return;
        }
        if self.encoding.is_plain() || self.weight == 0 {
            self.flushed = true;
        } else if self.is_free() {
            self.flushed = true;
            for row in &mut self.rows {
                row.base = row.version;
            }
            self.contribute(self.weight, true);
        }
    }

    pub(super) fn push(&mut self, shard: usize, sequence: Sequence) {
        // One that has started anew has to be told first where it is.
        if !self.hub.is_agreed(self.server(shard)) || self.rows[shard].progress == Progress::Awaited {
            return;
        }
        let slot = self.slot(sequence);
        let row = &self.rows[shard];
        // One that is being encoded goes when that is done.
        let Some(length) = row.lengths[slot] else { return };
        self.pushes[slot].sending += 1;
        let header = Header {
            shard: ShardId(shard as u32),
            weight: self.pushes[slot].weight,
            sequence,
            clock: row.own,
            base: row.bases[slot],
            length,
            ..self.hub.header(Kind::Push)
        };
        let body = (length > 0).then(|| self.body(shard, sequence).first(length));
        let (server, dense) = (self.server(shard), row.len as u32 * 4);
        self.hub.transmit_coded(server, header, body, dense, Job::Push { slot });
    }

    /// Offers a server that has started anew what it has forgotten. What is under way to it counts as lost: its former
    /// self may have applied it, and others may have seen that.
    pub(super) fn offer(&mut self, shard: usize) {
        let row = &mut self.rows[shard];
        row.progress = Progress::Awaited;
        let (whole, base, clock) = (!row.torn, row.version, row.clock);
        let body = whole.then(|| self.part(if self.pushes.len() > 1 { ROWS } else { VIEW }, shard));
        let header = Header {
            shard: ShardId(shard as u32),
            weight: u32::from(whole),
            sequence: self.sequence,
            clock,
            base,
            length: body.map_or(0, |body| body.len),
            ..self.hub.header(Kind::State)
        };
        self.hub.transmit(self.server(shard), header, body, Job::Offer);
    }

    /// A server that has started anew has answered: it gets what was made in the meantime.
    pub(super) fn on_renewed(&mut self, shard: usize) {
        let mut unanswered = self.rows[shard].answered.next();
        while unanswered <= self.sequence {
            self.push(shard, unanswered);
            unanswered = unanswered.next();
        }
        let server = self.server(shard);
        let mut shards = (0..self.rows.len()).filter(|shard| self.server(*shard) == server);
        if shards.all(|shard| self.rows[shard].progress != Progress::Awaited) {
            let index = self.server_index(server);
            self.renewing[index] = false;
        }
    }

    /// Where a contribution's body lies: as it is, or encoded.
    pub(super) fn body(&self, shard: usize, sequence: Sequence) -> Segment {
        if self.encoding.is_plain() {
            return self.part(self.update(sequence), shard);
        }
        let buffer = BufferId(FIRST_UPDATE + (self.pushes.len() + self.slot(sequence)) as u32);
        Segment { buffer, start: self.rows[shard].starts.0, len: self.encoding.len_max(shard) as u32 }
    }
}
