//! Parameters as differences to what the worker holds.
//!
//! ```text
//! difference = echo - version -> encoded -> Delta to the worker
//! echo -= what the body says;  the worker does the same with its view
//! ```
//! The echo is what the worker holds, bit for bit, once all that was sent has come. An answer that may have got lost
//! is not worked out again: the worker gets the whole echo, which is the same whether it had the difference or not.

use super::*;

/// What a worker holds of a shard, or will.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Echo {
    /// For which contribution it was answered last, and whether with the final parameters. None: it holds nothing.
    pub(super) answered: Option<(Sequence, bool)>,
    /// Row clock and version of that.
    made: (Clock, Clock),
    /// Kernels and transmissions that need the echo or the body as it is.
    pub(super) busy: u32,
}

/// Buffers of a worker.
const EACH: u32 = 3;

pub(super) const fn sections(worker: u32) -> BufferId {
    BufferId(FIRST_PULL + worker * EACH)
}

impl Server {
    fn echo(&self, shard: usize, worker: PeerId) -> Segment {
        Segment { buffer: BufferId(sections(worker.0).0 + 1), ..self.version(shard, 0) }
    }

    fn pulled(&self, shard: usize, worker: PeerId) -> Segment {
        let pull = &self.pulls[worker.index()];
        let start = (0..shard).map(|shard| pull.len_max(shard) as u64).sum();
        Segment { buffer: BufferId(sections(worker.0).0 + 2), start, len: pull.len_max(shard) as u32 }
    }

    pub(super) fn send_difference(&mut self, index: usize, worker: PeerId, owed: Owed, header: Header) {
        let answer = (header.sequence, owed == Owed::Last);
        let (version, echo) = (self.shards[index].current, self.echo(index, worker));
        let entry = &mut self.shards[index].echoes[worker.index()];
        let before = entry.answered.replace(answer);
        if before == Some(answer) {
            let (clock, base) = entry.made;
            entry.busy += 1;
            let header = Header { clock, base, ..header };
            self.hub.transmit(worker, header, Some(echo), Job::Send { shard: index, worker, owed });
            return;
        }
        entry.made = (header.clock, header.base);
        if before.is_none() {
            let kernel = Kernel::Copy { from: self.version(index, version), into: echo };
            self.shards[index].readers[version] += 1;
            self.shards[index].echoes[worker.index()].busy += 1;
            self.hub.compute(kernel, Job::Echo { shard: index, version, worker });
            return self.send_version(index, worker, owed, header);
        }
        self.shards[index].echoes[worker.index()].busy += 1;
        let (pull, body) = (&self.pulls[worker.index()], self.pulled(index, worker));
        let difference = pull.residual(index);
        let encode = if owed == Owed::Last { pull.flush(index, body) } else { pull.write(index, body) };
        let subtract = Kernel::Apply { from: echo, update: self.version(index, version), scale: 1.0, into: difference };
        self.shards[index].readers[version] += 1;
        self.hub.compute(subtract, Job::Aside);
        self.hub.compute(encode, Job::Write { shard: index, version, worker, owed, header });
    }

    /// The body is there: the echo follows, and the body goes out.
    pub(super) fn on_written(
        &mut self,
        index: usize,
        worker: PeerId,
        owed: Owed,
        header: Header,
        result: KernelResult,
    ) {
        let KernelResult::Encoded(encoded) = result else { return };
        let (pull, echo) = (&mut self.pulls[worker.index()], self.shards[index].echoes[worker.index()]);
        pull.on_encoded(index, encoded, &mut self.hub.counters);
        debug_assert!(echo.busy > 0);
        let (coding, sections, into) = (pull.coding(index, u64::MAX), pull.sections(index), pull.residual(index));
        let (body, echo) = (self.pulled(index, worker).first(encoded.bytes), self.echo(index, worker));
        self.hub.compute(Kernel::Expand { coding, body, sections, into }, Job::Aside);
        self.shards[index].echoes[worker.index()].busy += 1;
        let follow = Kernel::Apply { from: echo, update: into, scale: 1.0, into: echo };
        self.hub.compute(follow, Job::Followed { shard: index, worker });
        let member = self.shards[index].echoes[worker.index()].answered == Some((header.sequence, owed == Owed::Last));
        if self.hub.is_agreed(worker) && member {
            let (dense, header) = (header.length, Header { kind: Kind::Delta, length: encoded.bytes, ..header });
            self.hub.transmit_coded(worker, header, Some(body), dense, Job::Send { shard: index, worker, owed });
        } else {
            self.shards[index].echoes[worker.index()].busy -= 1;
            self.owe(index, worker, owed);
        }
    }
}
