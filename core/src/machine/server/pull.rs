//! Parameters as differences to the parameters that the worker holds.
//!
//! ```text
//! difference = echo - version -> encoded -> Delta to the worker
//! echo -= decoded difference;  the worker subtracts the same from its view
//! ```
//! The *echo* equals the worker's parameters, bit for bit, once all messages to it have arrived. If an answer may have
//! got lost, the server sends the whole echo instead of encoding a difference again: the echo is right whether the
//! difference arrived or not. The final parameters are no difference; they travel as they are.

use alloc::vec::Vec;
use core::ops::Range;

use super::{Job, Owed, Port, Server};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::Setup;
use crate::machine::encoding::Encoding;
use crate::vectors::{Keep, Vectors};
use crate::wire::{Message, Reply};

/// The state of a worker's echo of one shard.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Echo {
    /// The contribution that the echo was last sent for. `None`: the worker holds nothing.
    pub(super) answered: Option<Sequence>,
    /// Row clock and version of that answer.
    made: (Clock, Clock),
    /// Kernels and transmissions under way that need the echo or the body as they are.
    pub(super) busy: u32,
}

/// The echoes and the encodings of parameters, by worker. No encodings if parameters travel as floats; no echoes if
/// nothing else needs them either.
#[derive(Debug)]
pub(super) struct Pulls {
    echoes: Vec<BufferId>,
    encoded: Vec<Pull>,
}

#[derive(Debug)]
struct Pull {
    encoding: Encoding,
    /// By shard: the place for the longest body. A transport can still read one while another is written.
    bodies: Vec<Segment>,
}

impl Pulls {
    pub(super) fn new<R: Iterator<Item = Range<usize>>>(
        setup: &Setup,
        ranges: impl Fn() -> R,
        vectors: &mut Vectors,
    ) -> Self {
        let workers = setup.cluster.workers;
        let encodings = Encoding::encoders(workers, setup, setup.recipe.pull, ranges(), vectors);
        let has_echoes = !encodings.is_empty() || setup.recipe.compensate.needs_copies();
        let echoes = (0..workers).filter(|_| has_echoes).map(|_| vectors.floats("echo", setup.len, Keep::No)).collect();
        let pull = |encoding: Encoding| {
            let mut body = |len| {
                let buffer = vectors.bytes("a body of a difference", len, Keep::No);
                Segment { buffer, start: 0, len: len as u32 }
            };
            let bodies = (0..ranges().count()).map(|shard| body(encoding.len_max(shard))).collect();
            Pull { bodies, encoding }
        };
        Self { echoes, encoded: encodings.into_iter().map(pull).collect() }
    }

    pub(super) fn have_echoes(&self) -> bool {
        !self.echoes.is_empty()
    }

    pub(super) fn encodings(&self) -> impl Iterator<Item = &Encoding> {
        self.encoded.iter().map(|pull| &pull.encoding)
    }
}

impl Server {
    fn echo(&self, index: usize, worker: PeerId) -> Segment {
        self.shards[index].part(self.pulls.echoes[worker.index()])
    }

    /// The parameters now, and as the worker had them for a contribution from version `base`. `None`: they are not here
    /// any more, since this server has restarted.
    pub(super) fn moved(&self, index: usize, worker: PeerId, base: Clock) -> Option<[Segment; 2]> {
        let shard = &self.shards[index];
        let (_, version) = shard.seat_of(worker).echo.made;
        (version == base).then(|| [shard.params(), self.echo(index, worker)])
    }

    pub(super) fn send_difference(
        &mut self,
        hub: &mut Port<'_>,
        index: usize,
        worker: PeerId,
        owed: Owed,
        reply: Reply,
    ) {
        let answer = reply.sequence;
        let echo = self.echo(index, worker);
        let shard = &mut self.shards[index];
        let version = shard.current;
        let entry = &mut shard.seat(worker).echo;
        // A worker that goes on with its own parameters does not wait for the parameters of a welcome, and its next
        // contribution does not say whether they have arrived. They are the ones that it holds.
        let repeats = owed == Owed::Welcome && hub.setup.recipe.skips_fetches() && entry.answered.is_some();
        let before = if repeats { Some(answer) } else { entry.answered.replace(answer) };
        if before == Some(answer) {
            // The answer may have got lost: the whole echo goes out.
            let (row, version) = entry.made;
            entry.busy += 1;
            let reply = Reply { row, version, ..reply };
            return hub.transmit(worker, Message::Params(reply), Some(echo), Job::Send { shard: index, worker, owed });
        }
        entry.made = (reply.row, reply.version);
        entry.busy += 1;
        shard.readers[version] += 1;
        if before.is_none() || self.pulls.encoded.is_empty() {
            let kernel = Kernel::Copy { from: shard.params(), into: echo };
            hub.compute(kernel, Job::Echo { shard: index, version, worker });
            return self.send_version(hub, index, worker, owed, reply);
        }
        let pull = &self.pulls.encoded[worker.index()];
        let (encoding, body) = (&pull.encoding, pull.bodies[index]);
        let encode = encoding.write(index, body);
        let difference = encoding.residual(index);
        let subtract = Kernel::Apply { from: echo, update: shard.params(), scale: 1.0, into: difference };
        hub.compute(subtract, Job::Prepare);
        hub.compute(encode, Job::Write { shard: index, version, worker, owed, reply });
    }

    /// A difference has been encoded: the echo follows it, and its body goes out.
    pub(super) fn on_written(
        &mut self,
        hub: &mut Port<'_>,
        index: usize,
        worker: PeerId,
        owed: Owed,
        reply: Reply,
        result: KernelResult,
    ) {
        let KernelResult::Encoded(encoded) = result else { return };
        let echo = self.echo(index, worker);
        let pull = &mut self.pulls.encoded[worker.index()];
        pull.encoding.on_encoded(index, encoded, &mut hub.counters);
        let encoding = &pull.encoding;
        let (coding, sections) = (encoding.coding(index, u64::MAX), encoding.sections(index));
        let (body, difference) = (pull.bodies[index].first(encoded.bytes), encoding.residual(index));
        hub.compute(Kernel::Expand { coding, body, sections, into: difference }, Job::Prepare);
        let shard = &mut self.shards[index];
        let dense = shard.bytes();
        let entry = &mut shard.seat(worker).echo;
        debug_assert!(entry.busy > 0, "the body is in use since the difference was begun");
        entry.busy += 1;
        let current = entry.answered == Some(reply.sequence);
        let follow = Kernel::Apply { from: echo, update: difference, scale: 1.0, into: echo };
        hub.compute(follow, Job::Followed { shard: index, worker });
        if hub.is_agreed(worker) && current {
            let job = Job::Send { shard: index, worker, owed };
            hub.transmit_coded(worker, Message::Delta(reply), Some(body), dense, job);
        } else {
            shard.seat(worker).echo.busy -= 1;
            shard.owe(worker, owed);
        }
    }
}
