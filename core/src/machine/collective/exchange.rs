//! One round among the members of a view: chunks up, results down.

use super::*;

/// Most chunks of a vector.
const CHUNKS_MAX: usize = 16 * 1024;
/// Most children of a node.
const WIDTH: usize = MEAN_MAX - 1;

/// Where the chunks of the current round are.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) shape: Shape,
    chunks: Vec<Chunk>,
    chunk_len: usize,
    len: usize,
    /// Raised whenever everyone stops: ends of what was begun before change nothing.
    epoch: u64,
    /// Operations of this epoch and of earlier ones that have not ended.
    open: u32,
    stale: u32,
    /// Those among them that send.
    sending: u32,
    /// The own contribution is in.
    begun: bool,
    /// Chunks without a result, and the first of them.
    missing: usize,
    first: usize,
    /// Parameters have been asked for in this view.
    pub(super) asked: bool,
    /// Members who have asked for them here.
    pub(super) given_to: Vec<PeerId>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Chunk {
    /// What children have given, to this round and to the next.
    given: [[Option<Given>; WIDTH]; 2],
    /// Its mean is being made, or has been.
    reduced: bool,
    /// The mean, and where it has got to.
    up: Option<(Given, Up)>,
    /// The result, and the children who have been sent it.
    result: Option<(Given, u16)>,
}

/// Where a mean is on its way up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Up {
    /// It lies here: in the chunk's own place, or in the application's contribution.
    Here {
        own: bool,
    },
    Sending,
    Sent,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Given {
    weight: u32,
    /// All of whom it comes from are finishing.
    finishing: bool,
}

impl Exchange {
    /// For vectors of `len` floats, at most `most` of them in a chunk. The cut does not depend on the view.
    pub(super) fn new(shape: Shape, len: usize, workers: usize, most: usize) -> Self {
        let chunk_len = shape.chunk_len(len, workers, most).max(len.div_ceil(CHUNKS_MAX));
        Self {
            shape,
            chunks: vec![Chunk::default(); len.div_ceil(chunk_len).max(1)],
            chunk_len,
            len,
            epoch: 0,
            open: 0,
            stale: 0,
            sending: 0,
            begun: false,
            missing: 0,
            first: 0,
            asked: false,
            given_to: Vec::new(),
        }
    }

    /// The round ends here, undone.
    pub(super) fn stop(&mut self) {
        self.epoch += 1;
        self.stale += core::mem::take(&mut self.open);
        self.sending = 0;
        self.begun = false;
    }

    /// Begins anew, in another view.
    pub(super) fn form(&mut self) {
        self.stop();
        self.asked = false;
        self.given_to.clear();
        self.chunks.fill(Chunk::default());
        (self.missing, self.first) = (self.chunks.len(), 0);
    }

    /// Lengths of its buffers in bytes: for each chunk, a place for means and results, and one for each child's.
    pub(super) fn buffers(&self) -> impl Iterator<Item = usize> + '_ {
        let each = 1 + self.shape.width();
        (0..self.chunks.len()).flat_map(move |chunk| core::iter::repeat_n(self.chunk(chunk) * 4, each))
    }

    /// Floats of a chunk.
    fn chunk(&self, chunk: usize) -> usize {
        self.chunk_len.min(self.len - chunk * self.chunk_len)
    }

    fn buffer(&self, chunk: usize, index: usize) -> Segment {
        let buffer = BufferId(FIRST_CHUNK + (chunk * (1 + self.shape.width()) + index) as u32);
        Segment::floats(buffer, 0, self.chunk(chunk))
    }

    /// Where the mean and the result of a chunk are put together. A buffer of its own: what is lent to a transport is
    /// whole buffers.
    fn place(&self, chunk: usize) -> Segment {
        self.buffer(chunk, 0)
    }

    /// Where a child's part of a chunk goes.
    fn inbox(&self, chunk: usize, child: usize) -> Segment {
        self.buffer(chunk, 1 + child)
    }

    pub(super) fn begin(&mut self) -> u64 {
        self.open += 1;
        self.epoch
    }

    /// An operation has ended. Is it of this epoch?
    pub(super) fn ended(&mut self, epoch: u64) -> bool {
        if epoch == self.epoch {
            self.open -= 1;
            return true;
        }
        self.stale -= 1;
        false
    }

    /// A transmission has ended. Is it of this epoch?
    pub(super) fn sent(&mut self, epoch: u64) -> bool {
        let current = self.ended(epoch);
        self.sending -= u32::from(current);
        current
    }

    /// May buffers be written again that earlier views had use of?
    pub(super) fn is_clear(&self) -> bool {
        self.stale == 0
    }

    pub(super) fn may_fetch(&self) -> bool {
        self.is_clear() && self.sending == 0 && !self.asked
    }

    fn segment(&self, buffer: BufferId, chunk: usize) -> Segment {
        Segment::floats(buffer, chunk * self.chunk_len, self.chunk(chunk))
    }

    fn children(&self, chunk: usize, at: usize, count: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let shape = self.shape;
        (0..shape.width()).filter_map(move |index| Some((index, shape.child(chunk, at, count, index)?)))
    }

    /// Whom the first chunk without a result waits for.
    pub(super) fn awaited(&self, at: usize, members: &[PeerId]) -> Option<PeerId> {
        let chunk = self.chunks.get(self.first)?;
        let mut children = self.children(self.first, at, members.len());
        let child = children.find(|(child, _)| chunk.given[0][*child].is_none()).map(|(_, position)| position);
        let position = child.or_else(|| self.shape.parent(self.first, at, members.len()))?;
        members.get(position).copied()
    }

    /// Children that have given a chunk to this round.
    pub(super) fn given(&self, at: usize, members: &[PeerId]) -> Vec<PeerId> {
        let children = |(index, chunk): (usize, &Chunk)| {
            let given = chunk.given[0];
            self.children(index, at, members.len()).filter(move |(child, _)| given[*child].is_some())
        };
        let positions = self.chunks.iter().enumerate().flat_map(children);
        positions.filter_map(|(_, position)| members.get(position).copied()).collect()
    }
}

impl Collective {
    /// Begins the round when the application has contributed.
    pub(super) fn maybe_begin(&mut self) {
        let given = matches!(self.own, Own::Given { .. });
        let free = self.exchange.is_clear() && self.exchange.sending == 0 && !self.exchange.begun;
        if !given || !free || !self.is_in_view() || self.fetching.is_some() || self.ready.is_some() || self.last {
            return;
        }
        self.exchange.begun = true;
        for chunk in 0..self.exchange.chunks.len() {
            self.maybe_reduce(chunk);
        }
    }

    fn parent(&self, chunk: usize) -> Option<PeerId> {
        let position = self.exchange.shape.parent(chunk, self.position(), self.members.len())?;
        self.members.get(position).copied()
    }

    fn check_length(&self, header: &Header) -> Result<usize, ProtocolError> {
        let chunk = header.shard.0 as usize;
        if chunk >= self.exchange.chunks.len() {
            return Err(ProtocolError::NoSuchShard { got: header.shard });
        }
        let expected = if header.weight > 0 { self.exchange.segment(OWN, chunk).len } else { 0 };
        if header.length != expected {
            return Err(ProtocolError::Length { kind: header.kind, expected, got: header.length });
        }
        Ok(chunk)
    }

    // Up

    pub(super) fn on_up(&mut self, peer: PeerId, header: Header) {
        let chunk = match self.check_length(&header) {
            Ok(chunk) => chunk,
            Err(reason) => return self.hub.close(peer, reason),
        };
        let (at, count) = (self.position(), self.members.len());
        let mut children = self.exchange.children(chunk, at, count);
        let Some((child, _)) = children.find(|(_, position)| self.members[*position] == peer) else {
            return self.hub.close(peer, ProtocolError::Unexpected { kind: Kind::Up });
        };
        // A child may have the result of this round before this node, and be at the next.
        let (current, early) = (self.current(), header.clock == self.current().next());
        let entry = &self.exchange.chunks[chunk];
        let fits = early && entry.reduced || header.clock == current;
        if !fits || entry.given[usize::from(early)][child].is_some() {
            let (expected, got) = (current.0, header.clock.0);
            return self.hub.close(peer, ProtocolError::Gap { expected, got });
        }
        let finishing = header.base == Clock(1);
        if header.weight == 0 {
            self.hub.counters.empty += 1;
            self.exchange.chunks[chunk].given[usize::from(early)][child] = Some(Given { weight: 0, finishing });
            return self.maybe_reduce(chunk);
        }
        if !self.exchange.is_clear() {
            // A message of an earlier view is still being written to the same place.
            return self.hub.hold(peer, header);
        }
        let epoch = self.exchange.begin();
        let arrival = Arrival { epoch, from: peer, chunk, child, weight: header.weight, finishing, early };
        self.hub.receive(peer, self.exchange.inbox(chunk, child), Job::Receive(arrival));
    }

    pub(super) fn on_arrived(&mut self, arrival: Arrival) {
        if self.exchange.ended(arrival.epoch) {
            self.exchange.begin();
            let x = self.exchange.inbox(arrival.chunk, arrival.child);
            self.hub.compute(Kernel::Scan { x }, Job::Scan(arrival));
        }
    }

    pub(super) fn on_scanned(&mut self, arrival: Arrival, result: KernelResult) {
        let Arrival { epoch, from, chunk, child, mut weight, finishing, mut early } = arrival;
        if !self.exchange.ended(epoch) {
            return;
        }
        if let KernelResult::NonFinite { index } = result {
            let reason = Rejection::NonFinite { shard: ShardId(chunk as u32), index };
            self.hub.event(Event::Rejected { peer: from, reason });
            self.hub.counters.rejected += 1;
            weight = 0;
        }
        // The round that was the next when it came may have begun since.
        early &= self.exchange.chunks[chunk].reduced;
        self.exchange.chunks[chunk].given[usize::from(early)][child] = Some(Given { weight, finishing });
        self.maybe_reduce(chunk);
    }

    /// Makes the mean of a chunk when everyone below has given.
    fn maybe_reduce(&mut self, chunk: usize) {
        let Own::Given { weight: own } = self.own else { return };
        let (at, count) = (self.position(), self.members.len());
        let entry = self.exchange.chunks[chunk];
        let mut children = self.exchange.children(chunk, at, count);
        if !self.exchange.begun || entry.reduced || children.any(|(child, _)| entry.given[0][child].is_none()) {
            return;
        }
        let mut inputs = [None; MEAN_MAX];
        inputs[0] = (own > 0).then_some((self.exchange.segment(OWN, chunk), own));
        let mut finishing = self.finishing;
        for (child, _) in self.exchange.children(chunk, at, count) {
            let Some(given) = entry.given[0][child] else { continue };
            finishing &= given.finishing;
            inputs[child + 1] = (given.weight > 0).then_some((self.exchange.inbox(chunk, child), given.weight));
        }
        let weight = inputs.iter().flatten().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        if planted!(self.hub, DenominatorByCount) {
            inputs.iter_mut().flatten().for_each(|(_, weight)| *weight = 1);
        }
        let root = self.parent(chunk).is_none();
        let only_own = inputs[1..].iter().all(Option::is_none);
        let entry = &mut self.exchange.chunks[chunk];
        entry.reduced = true;
        let given = Given { weight, finishing };
        // What is only this node's own is sent from where it is.
        let own = only_own && !root;
        entry.up = Some((given, Up::Here { own }));
        if weight == 0 || own {
            return self.on_reduced(chunk);
        }
        let into = self.exchange.place(chunk);
        let epoch = self.exchange.begin();
        self.hub.compute(Kernel::Mean { inputs, into }, Job::Mean { epoch, chunk });
    }

    pub(super) fn on_mean(&mut self, epoch: u64, chunk: usize) {
        if self.exchange.ended(epoch) {
            self.on_reduced(chunk);
        }
    }

    fn on_reduced(&mut self, chunk: usize) {
        match self.parent(chunk) {
            Some(parent) => self.send_up(chunk, parent),
            None => {
                if let Some((given, _)) = self.exchange.chunks[chunk].up {
                    self.have(chunk, given);
                }
            }
        }
    }

    fn send_up(&mut self, chunk: usize, parent: PeerId) {
        let Some((given, Up::Here { own })) = self.exchange.chunks[chunk].up else { return };
        if !self.hub.is_agreed(parent) {
            return;
        }
        self.exchange.chunks[chunk].up = Some((given, Up::Sending));
        let from = if own { self.exchange.segment(OWN, chunk) } else { self.exchange.place(chunk) };
        self.send(parent, Kind::Up, chunk, given, from);
    }

    fn send(&mut self, to: PeerId, kind: Kind, chunk: usize, given: Given, from: Segment) {
        let body = (given.weight > 0).then_some(from);
        let header = Header {
            shard: ShardId(chunk as u32),
            sequence: self.view,
            clock: self.round.next(),
            weight: given.weight,
            base: Clock(u64::from(given.finishing)),
            length: body.map_or(0, |body| body.len),
            ..self.hub.header(kind)
        };
        let epoch = self.exchange.begin();
        self.exchange.sending += 1;
        let job = if kind == Kind::Up { Job::Up { epoch, chunk } } else { Job::Down { epoch } };
        self.hub.transmit(to, header, body, job);
    }

    /// A mean has gone up, and its place is free for the result.
    pub(super) fn on_up_sent(&mut self, epoch: u64, chunk: usize) {
        if self.exchange.sent(epoch)
            && let Some((_, up)) = &mut self.exchange.chunks[chunk].up
        {
            *up = Up::Sent;
        }
    }

    // Down

    pub(super) fn on_down(&mut self, peer: PeerId, header: Header) {
        let chunk = match self.check_length(&header) {
            Ok(chunk) => chunk,
            Err(reason) => return self.hub.close(peer, reason),
        };
        let entry = &self.exchange.chunks[chunk];
        let due = matches!(entry.up, Some((_, Up::Sending | Up::Sent))) && entry.result.is_none();
        if self.parent(chunk) != Some(peer) || header.clock != self.round.next() || !due {
            return self.hub.close(peer, ProtocolError::Unexpected { kind: Kind::Down });
        }
        let (weight, last) = (header.weight, header.base == Clock(1));
        if weight == 0 {
            return self.have(chunk, Given { weight, finishing: last });
        }
        if matches!(self.exchange.chunks[chunk].up, Some((_, Up::Sending))) {
            // The other side has it; that this one has sent it is about to be told.
            return self.hub.hold(peer, header);
        }
        let epoch = self.exchange.begin();
        let into =
            if self.is_direct(chunk) { self.exchange.segment(self.after(), chunk) } else { self.exchange.place(chunk) };
        self.hub.receive(peer, into, Job::Result { epoch, chunk, weight, last });
    }

    /// Is this a result for a place that is still being read?
    pub(super) fn must_wait(&self, header: &Header) -> bool {
        let chunk = self.exchange.chunks.get(header.shard.0 as usize);
        header.kind == Kind::Down && chunk.is_some_and(|chunk| matches!(chunk.up, Some((_, Up::Sending))))
    }

    pub(super) fn on_result(&mut self, epoch: u64, chunk: usize, weight: u32, last: bool) {
        if self.exchange.ended(epoch) {
            self.have(chunk, Given { weight, finishing: last });
        }
    }

    /// A chunk of the result is here: it goes down, and the round is done when it was the last one.
    fn have(&mut self, chunk: usize, given: Given) {
        self.exchange.chunks[chunk].result = Some((given, 0));
        self.exchange.missing -= 1;
        while self.exchange.chunks.get(self.exchange.first).is_some_and(|chunk| chunk.result.is_some()) {
            self.exchange.first += 1;
        }
        self.send_down(chunk, None);
        // Beside the parameters, which change only when all of the round is here.
        let (old, result) = (self.exchange.segment(self.params(), chunk), self.exchange.place(chunk));
        let new = self.exchange.segment(self.after(), chunk);
        let kernel = match self.hub.setup.recipe.payload {
            // Nobody had anything to say of these.
            _ if given.weight == 0 => Kernel::Copy { from: old, into: new },
            Payload::Parameters if self.is_direct(chunk) => return self.maybe_complete(),
            Payload::Parameters => Kernel::Copy { from: result, into: new },
            Payload::Updates => Kernel::Apply { from: old, update: result, scale: 1.0, into: new },
        };
        self.hub.compute(kernel, Job::Aside);
        self.maybe_complete();
    }

    /// Do a chunk's results arrive where they are wanted? Not where they are sent on from: what is lent is whole buffers.
    fn is_direct(&self, chunk: usize) -> bool {
        let (at, count) = (self.position(), self.members.len());
        let leaf = self.exchange.children(chunk, at, count).next().is_none();
        self.hub.setup.recipe.payload == Payload::Parameters && leaf && count > 1
    }

    fn maybe_complete(&mut self) {
        if self.exchange.missing == 0 {
            self.complete();
        }
    }

    /// Sends a result to children who have not got it: to all, or to one.
    fn send_down(&mut self, chunk: usize, only: Option<PeerId>) {
        let (at, count) = (self.position(), self.members.len());
        for (child, position) in self.exchange.children(chunk, at, count) {
            let Some((given, told)) = self.exchange.chunks[chunk].result else { return };
            let peer = self.members[position];
            if told & 1 << child != 0 || only.is_some_and(|only| only != peer) || !self.hub.is_agreed(peer) {
                continue;
            }
            self.exchange.chunks[chunk].result = Some((given, told | 1 << child));
            self.send(peer, Kind::Down, chunk, given, self.exchange.place(chunk));
        }
    }

    /// A member that was not connected is now: what is due to it is sent.
    pub(super) fn send_due(&mut self, peer: PeerId) {
        if !self.is_in_view() || !self.exchange.begun {
            return;
        }
        for chunk in 0..self.exchange.chunks.len() {
            if self.parent(chunk) == Some(peer) {
                self.send_up(chunk, peer);
            }
            self.send_down(chunk, Some(peer));
        }
    }

    /// What must not be: the chunks that are here reach the parameters.
    #[cfg_attr(not(planted), allow(dead_code, reason = "called when it is planted"))]
    pub(super) fn apply_half(&mut self) {
        for chunk in 0..self.exchange.chunks.len() {
            if self.exchange.chunks[chunk].result.is_some_and(|(given, _)| given.weight > 0) {
                let (from, into) = (self.exchange.place(chunk), self.exchange.segment(self.params(), chunk));
                self.hub.compute(Kernel::Copy { from, into }, Job::Aside);
            }
        }
    }

    /// All of the result is here: parameters follow, and the application goes on.
    fn complete(&mut self) {
        let results = || self.exchange.chunks.iter().filter_map(|chunk| chunk.result);
        let changed = results().any(|(given, _)| given.weight > 0);
        let last = results().all(|(given, _)| given.finishing);
        if changed {
            self.params = 1 - self.params;
            self.hub.counters.applied += 1;
            self.hub.counters.applications += 1;
            self.hub.staleness.record(0);
        }
        self.round = self.round.next();
        self.last = last;
        self.exchange.begun = false;
        (self.exchange.missing, self.exchange.first) = (self.exchange.chunks.len(), 0);
        for chunk in &mut self.exchange.chunks {
            *chunk = Chunk { given: [chunk.given[1], [None; WIDTH]], ..Chunk::default() };
        }
        if self.last {
            self.own = Own::Given { weight: 0 };
            self.report();
        } else {
            self.ready = Some(changed);
        }
    }

    /// Lets the application go on when all that others still need of the round has been sent: whoever drives this machine
    /// on the application's thread may not come back to it for long.
    pub(super) fn maybe_ready(&mut self) {
        if self.exchange.sending > 0 {
            return;
        }
        let Some(changed) = self.ready.take() else { return };
        if matches!(self.own, Own::Given { .. }) {
            self.own = Own::Computing;
            self.hub.signal(Signal::Ready { clock: self.round, changed });
        }
    }
}
