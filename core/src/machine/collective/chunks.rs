//! The chunks of a vector: the cut, the buffers, and how far each chunk is in the current round.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::buffer::{BufferId, Segment};
use crate::kernel::MEAN_MAX;
use crate::rider::Rider;
use crate::vectors::{Keep, Vectors};
use crate::wire::Part;

/// Most chunks of a vector.
const CHUNKS_MAX: usize = 16 * 1024;
/// Most children of a node.
const WIDTH: usize = MEAN_MAX - 1;

/// The chunks of a vector.
#[derive(Debug)]
pub(super) struct Chunks {
    states: Vec<Chunk>,
    buffers: Vec<Buffers>,
    /// Inboxes that all chunks share. Empty where each chunk has its own.
    inboxes: Shared,
    /// Buffers for means and results that all chunks share. Empty where each chunk has one of its own.
    results: Shared,
    /// The end of each chunk in the vector, in floats.
    ends: Vec<usize>,
    /// Chunks without a result.
    missing: usize,
    /// The first of them.
    first_missing: usize,
}

/// Buffers of the length of the longest chunk, each for one chunk at a time. The last one that was freed is the next that
/// is taken: it is in the caches.
#[derive(Debug, Default)]
struct Shared {
    all: Vec<BufferId>,
    free: Vec<BufferId>,
}

/// How many buffers all chunks share. `None`: each chunk has its own.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Sharing {
    /// For the parts of each child.
    pub(super) inboxes: Option<usize>,
    /// For means and results.
    pub(super) results: Option<usize>,
}

/// The buffers of a chunk. They are buffers of their own, since a transmission lends whole buffers.
#[derive(Copy, Clone, Debug)]
struct Buffers {
    /// For the mean, and then for the result. Not declared where chunks share such buffers.
    result: BufferId,
    /// For the parts of the children. Only as many are declared as a node can have children, and none where chunks share
    /// their inboxes.
    inboxes: [BufferId; WIDTH],
}

/// A chunk in the current round.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Chunk {
    /// The parts of the children that are here.
    parts: [Option<Mean>; WIDTH],
    /// Parts of the next round: a child may have the result of the current round before this node.
    next_parts: [Option<Mean>; WIDTH],
    /// The shared inboxes of the children's parts of this round and of the next, while the floats are needed.
    inboxes: [[Option<BufferId>; WIDTH]; 2],
    /// The shared buffer for the mean or the result, while its floats are needed.
    result: Option<BufferId>,
    /// The takers that the result is being sent to.
    sending: Takers,
    pub(super) progress: Progress,
}

/// The facts about a mean, without its floats.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mean {
    /// Examples behind it. 0: there is no body.
    pub(super) weight: u64,
    /// All workers with a contribution in it make no further ones.
    pub(super) finishing: bool,
    /// The mean of the riders of the contributions.
    pub(super) rider: Option<Rider>,
}

/// Some of the members that a node sends a result to: a bit for the index of each.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Takers(u16);

impl Takers {
    pub(super) fn has(self, taker: usize) -> bool {
        self.0 & 1 << taker != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn insert(&mut self, taker: usize) {
        self.0 |= 1 << taker;
    }

    pub(super) fn remove(&mut self, taker: usize) {
        self.0 &= !(1 << taker);
    }
}

impl FromIterator<usize> for Takers {
    fn from_iter<I: IntoIterator<Item = usize>>(all: I) -> Self {
        let mut takers = Self::default();
        all.into_iter().for_each(|taker| takers.insert(taker));
        takers
    }
}

/// How far a chunk is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Progress {
    /// A child's part or the own contribution is missing.
    #[default]
    Gathering,
    /// All parts are here. Other chains that begin at this node have to end first, or there is no buffer for the mean.
    Due,
    /// The mean is being made, or is here. `own`: it is this node's contribution, and is sent from there.
    Reduced { mean: Mean, own: bool },
    /// The mean is being sent to the parent, so that its buffer must not be written.
    Sending,
    /// The mean's transmission has ended, and nothing is lent.
    Sent,
    /// The result is here, and has to be sent to the takers in `owed`.
    Done { result: Mean, owed: Takers },
}

/// Bytes of a long chunk.
const LONG: usize = 16 << 10;

/// The ends of chunks of equal length, at most `most`, in a vector of `len` floats.
pub(super) fn even(len: usize, most: usize) -> Vec<usize> {
    let chunk_len = most.max(len.div_ceil(CHUNKS_MAX)).max(1);
    (1..=len.div_ceil(chunk_len)).map(|chunk| len.min(chunk * chunk_len)).collect()
}

/// The ends of chunks of these lengths.
pub(super) fn uneven(lens: &[u32]) -> Vec<usize> {
    let mut end = 0;
    let ends = lens.iter().map(|len| {
        end += *len as usize;
        end
    });
    ends.collect()
}

impl Shared {
    fn new(name: &'static str, count: usize, floats: usize, is_brief: bool, vectors: &mut Vectors) -> Self {
        let all = (0..count).map(|_| match is_brief {
            true => vectors.brief(name),
            false => vectors.floats(name, floats, Keep::No),
        });
        let all: Vec<_> = all.collect();
        Self { free: all.clone(), all }
    }

    /// All buffers are free again.
    fn reset(&mut self) {
        self.free.clone_from(&self.all);
    }
}

impl Chunks {
    /// Chunks with these ends, and their buffers. The cut does not depend on the view. There are enough shared buffers for
    /// the largest windows, so those of long chunks, and of more than `keep_below` bytes, have memory once they are used.
    pub(super) fn new(
        ends: Vec<usize>,
        children: usize,
        sharing: Sharing,
        keep_below: u32,
        vectors: &mut Vectors,
    ) -> Self {
        let count = ends.len();
        let floats = |chunk: usize| ends[chunk] - if chunk == 0 { 0 } else { ends[chunk - 1] };
        let most = (0..count).map(floats).max().unwrap_or(0);
        let is_brief = most * 4 > (keep_below as usize).min(LONG);
        let mut shared = |name, wanted: Option<usize>, each: usize| {
            let count = wanted.unwrap_or(0).min(count) * each;
            Shared::new(name, count, most, is_brief, vectors)
        };
        let inboxes = shared("a child's part of a chunk", sharing.inboxes, children);
        let results = shared("a chunk's result", sharing.results, 1);
        let mut chunks = Self {
            states: vec![Chunk::default(); count],
            buffers: Vec::with_capacity(count),
            inboxes,
            results,
            ends,
            missing: count,
            first_missing: 0,
        };
        for chunk in 0..count {
            let floats = chunks.chunk_len(chunk);
            let mut buffers = Buffers { result: BufferId(u32::MAX), inboxes: [BufferId(u32::MAX); WIDTH] };
            if sharing.results.is_none() {
                buffers.result = vectors.floats("a chunk's result", floats, Keep::No);
            }
            let children = if sharing.inboxes.is_some() { 0 } else { children };
            for inbox in &mut buffers.inboxes[..children] {
                *inbox = vectors.floats("a child's part of a chunk", floats, Keep::No);
            }
            chunks.buffers.push(buffers);
        }
        chunks
    }

    pub(super) fn count(&self) -> usize {
        self.states.len()
    }

    /// Floats of the vector.
    pub(super) fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Forgets the round.
    pub(super) fn reset(&mut self) {
        self.states.fill(Chunk::default());
        self.inboxes.reset();
        self.results.reset();
        (self.missing, self.first_missing) = (self.count(), 0);
    }

    /// Goes on to the next round.
    pub(super) fn next_round(&mut self) {
        for chunk in &mut self.states {
            let (inboxes, result, sending) = ([chunk.inboxes[1], [None; WIDTH]], chunk.result, chunk.sending);
            *chunk = Chunk { parts: chunk.next_parts, inboxes, result, sending, ..Chunk::default() };
        }
        (self.missing, self.first_missing) = (self.count(), 0);
    }

    // Segments

    /// The first float of a chunk in the vector.
    fn start(&self, chunk: usize) -> usize {
        if chunk == 0 { 0 } else { self.ends[chunk - 1] }
    }

    fn chunk_len(&self, chunk: usize) -> usize {
        self.ends[chunk] - self.start(chunk)
    }

    /// The chunk's place in a buffer that holds the whole vector.
    pub(super) fn segment(&self, buffer: BufferId, chunk: usize) -> Segment {
        Segment::floats(buffer, self.start(chunk), self.chunk_len(chunk))
    }

    /// The chunks that have elements of a range of the vector.
    pub(super) fn within(&self, range: &Range<usize>) -> Range<usize> {
        let first = self.ends.partition_point(|end| *end <= range.start);
        let last = self.ends.partition_point(|end| *end < range.end);
        if range.is_empty() { first..first } else { first..last + 1 }
    }

    /// Bytes of a chunk.
    pub(super) fn bytes(&self, chunk: usize) -> u32 {
        (self.chunk_len(chunk) * 4) as u32
    }

    /// The buffer that holds the chunk's mean, or its result. `None`: it holds neither.
    pub(super) fn result(&self, chunk: usize) -> Option<Segment> {
        let own = self.results.all.is_empty().then(|| self.buffers[chunk].result);
        own.or(self.states[chunk].result).map(|buffer| Segment::floats(buffer, 0, self.chunk_len(chunk)))
    }

    /// Is there a buffer for the chunk's mean or result?
    pub(super) fn has_result_buffer(&self, chunk: usize) -> bool {
        self.result(chunk).is_some() || !self.results.free.is_empty()
    }

    /// The buffer for the chunk's mean, or for its result. `None`: all are in use.
    pub(super) fn take_result(&mut self, chunk: usize) -> Option<Segment> {
        if self.result(chunk).is_none() {
            self.states[chunk].result = Some(self.results.free.pop()?);
        }
        self.result(chunk)
    }

    /// The mean or the result is not needed any more, but for the transmissions that are open or to come.
    pub(super) fn free_result(&mut self, chunk: usize) {
        let state = &mut self.states[chunk];
        if state.sending.is_empty() && state.owed().is_empty() {
            self.results.free.extend(state.result.take());
        }
    }

    /// The result is being sent to a taker.
    pub(super) fn begin_sending(&mut self, chunk: usize, taker: usize) {
        self.states[chunk].sending.insert(taker);
    }

    /// The transmission of the result to a taker has ended.
    pub(super) fn end_sending(&mut self, chunk: usize, taker: usize) {
        self.states[chunk].sending.remove(taker);
        self.free_result(chunk);
    }

    /// Is there a bound on the parts that can come, so that chunks share their inboxes?
    pub(super) fn share_inboxes(&self) -> bool {
        !self.inboxes.all.is_empty()
    }

    /// Is there a place for a child's part of a chunk?
    pub(super) fn has_inbox(&self) -> bool {
        !self.share_inboxes() || !self.inboxes.free.is_empty()
    }

    /// A place for a child's part of a chunk. `None`: all are in use.
    pub(super) fn take_inbox(&mut self, chunk: usize, child: usize) -> Option<Segment> {
        let buffer = match self.share_inboxes() {
            true => self.inboxes.free.pop()?,
            false => self.buffers[chunk].inboxes[child],
        };
        Some(Segment::floats(buffer, 0, self.chunk_len(chunk)))
    }

    /// Frees a place.
    pub(super) fn free_inbox(&mut self, inbox: Segment) {
        if self.share_inboxes() {
            self.inboxes.free.push(inbox.buffer);
        }
    }

    /// Frees the places of a chunk's parts, which have been merged.
    pub(super) fn free_inboxes(&mut self, chunk: usize) {
        let inboxes = core::mem::take(&mut self.states[chunk].inboxes[0]);
        self.inboxes.free.extend(inboxes.into_iter().flatten());
    }

    /// The place of a child's part of the chunk, which is here.
    pub(super) fn inbox(&self, chunk: usize, child: usize) -> Segment {
        let buffer = self.states[chunk].inboxes[0][child].unwrap_or(self.buffers[chunk].inboxes[child]);
        Segment::floats(buffer, 0, self.chunk_len(chunk))
    }

    // States

    pub(super) fn get(&self, chunk: usize) -> &Chunk {
        &self.states[chunk]
    }

    pub(super) fn progress_mut(&mut self, chunk: usize) -> &mut Progress {
        &mut self.states[chunk].progress
    }

    /// Notes a child's part, of this round or of the next, and its place.
    pub(super) fn add_part(&mut self, chunk: usize, child: usize, next: bool, part: Mean, inbox: Option<Segment>) {
        let inbox = inbox.filter(|_| self.share_inboxes());
        let chunk = &mut self.states[chunk];
        chunk.inboxes[usize::from(next)][child] = inbox.map(|inbox| inbox.buffer);
        let parts = if next { &mut chunk.next_parts } else { &mut chunk.parts };
        parts[child] = Some(part);
    }

    /// Notes the result of a chunk. `owed`: as in [`Progress::Done`].
    pub(super) fn set_result(&mut self, chunk: usize, result: Mean, owed: Takers) {
        self.states[chunk].progress = Progress::Done { result, owed };
        self.missing -= 1;
        let is_done = |chunk: &Chunk| matches!(chunk.progress, Progress::Done { .. });
        while self.states.get(self.first_missing).is_some_and(is_done) {
            self.first_missing += 1;
        }
    }

    /// The first chunk without a result.
    pub(super) fn first_missing(&self) -> Option<usize> {
        (self.missing > 0).then_some(self.first_missing)
    }

    /// The first chunk whose result has to be sent to members, or is being sent to them; and these.
    pub(super) fn first_untaken(&self) -> Option<(usize, Takers)> {
        let untaken = |chunk: &Chunk| if chunk.owed().is_empty() { chunk.sending } else { chunk.owed() };
        self.states.iter().map(untaken).enumerate().find(|(_, takers)| !takers.is_empty())
    }

    /// Are the results of all chunks here, and on their way to all who take them from this node?
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0 && self.states.iter().all(|chunk| chunk.owed().is_empty())
    }

    /// The results that are here, with their chunks.
    pub(super) fn results(&self) -> impl Iterator<Item = (usize, Mean)> + '_ {
        self.states.iter().enumerate().filter_map(|(index, chunk)| Some((index, chunk.result()?)))
    }
}

impl Mean {
    /// The mean that a message describes.
    pub(super) fn of(part: &Part) -> Self {
        Self { weight: part.weight, finishing: part.finishing, rider: part.rider }
    }

    /// The body of a message with this mean, which is at `at`.
    pub(super) fn body(self, at: Segment) -> Option<Segment> {
        (self.weight > 0).then_some(at)
    }
}

impl Chunk {
    /// A child's part of this round, if it is here.
    pub(super) fn part(&self, child: usize) -> Option<Mean> {
        self.parts[child]
    }

    /// A child's part of this round or of the next, if it is here.
    pub(super) fn part_of(&self, child: usize, next: bool) -> Option<Mean> {
        if next { self.next_parts[child] } else { self.parts[child] }
    }

    /// Are all parts here?
    pub(super) fn is_reduced(&self) -> bool {
        self.progress != Progress::Gathering
    }

    /// The members that the result, which is here, has to be sent to.
    fn owed(&self) -> Takers {
        if let Progress::Done { owed, .. } = self.progress { owed } else { Takers::default() }
    }

    /// The result, if it is here.
    pub(super) fn result(&self) -> Option<Mean> {
        if let Progress::Done { result, .. } = self.progress { Some(result) } else { None }
    }
}
