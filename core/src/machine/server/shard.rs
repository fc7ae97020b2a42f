//! A shard: one range of the vector, its versions, and the facts about each worker.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::Owed;
use super::first::Round;
use super::pull::Echo;
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::compensate::Formula;
use crate::layout::{cut, shard_range};
use crate::machine::Setup;
use crate::recipe::Correction;
use crate::rider::{Rider, Riders};
use crate::rule::grace::Work;
use crate::rule::pace::VectorClock;
use crate::rule::{Merging, merging};
use crate::vectors::{Keep, Vectors};
use crate::wire::Push;

/// Versions per shard: the current one, and the ones that are still being sent to slow workers. All but the first have
/// memory only while they are used.
pub(super) const VERSIONS: usize = 4;

/// Applications for which a version is not used before it gives back its memory.
const IDLE_MAX: u32 = 16;

#[derive(Debug)]
pub(super) struct Shard {
    pub(super) id: ShardId,
    /// The first float of the shard in the vector.
    first: usize,
    /// Floats of the shard.
    pub(super) len: usize,
    /// How a late contribution is corrected before it is merged, with the state of the formula.
    pub(super) compensation: Option<(Formula, Option<Segment>)>,
    /// With B-FASGD, by worker: the place of its last contribution.
    pub(super) last: Vec<Segment>,
    /// With B-FASGD: the mean of the moving means of magnitudes, once it is measured.
    pub(super) magnitude: Option<Rider>,
    pub(super) rule: Box<dyn Merging>,
    /// The sum of the riders of the gathered contributions.
    pub(super) riders: Riders,
    /// Applications so far.
    pub(super) version: Clock,
    /// Which of the version buffers holds it.
    pub(super) current: usize,
    /// Replies under way from each version buffer.
    pub(super) readers: Vec<u32>,
    versions: Vec<Segment>,
    /// By version: applications since it was the current one or was read, as far as it has memory to give back.
    idle: Vec<Option<u32>>,
    /// Unused versions give back their memory.
    gives_back: bool,
    /// The server has no other shard.
    is_alone: bool,
    pub(super) clocks: VectorClock,
    seats: Vec<Seat>,
    /// The workers that are owed parameters: 64 ranks in each word.
    owing: Vec<u64>,
    /// Workers that may have become able to get the parameters that they are owed. Only these are looked at, unless the
    /// row clock has changed.
    stirred: Vec<PeerId>,
    /// An empty list, to take the place of `stirred` while its workers are looked at.
    spare: Vec<PeerId>,
    /// The row clock for which all workers have been looked at.
    pub(super) replied_at: Option<Clock>,
    /// Inboxes with contributions that wait for their application.
    pub(super) queue: VecDeque<usize>,
    /// A kernel writes the parameters or the gathered vector.
    pub(super) busy: bool,
    /// With `pace=first`: the present round.
    pub(super) round: Round,
    /// The worker whose contribution is being received, in a round that waits for all.
    pub(super) taking: Option<PeerId>,
    /// The final parameters are being sent.
    pub(super) ending: bool,
    /// Contributions of the starters for which the other workers still wait, see
    /// [`Correction::starters`](crate::recipe::Correction::starters).
    pub(super) head_start: u64,
    /// The shard is being received from a worker, to replace the copy of an earlier process of this server.
    pub(super) receiving_offer: bool,
}

/// The facts about one worker at one shard.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Seat {
    /// The worker's last contribution that is in the parameters, refused or dropped.
    pub(super) mark: Sequence,
    /// Parameters that the worker has to be sent.
    owed: Option<Owed>,
    /// The version with which the worker was welcomed, until a contribution made from a later one shows that the welcome
    /// has arrived. A worker that never got it would count its clocks from another start than the server.
    pub(super) welcomed: Option<Clock>,
    /// The connection has broken since then: the next answer is a welcome as well.
    pub(super) in_doubt: bool,
    /// The worker is in [`Shard::stirred`].
    is_stirred: bool,
    /// The worker is going to offer the shard.
    pub(super) awaits_offer: bool,
    /// With `pace=first`: the version whose round the worker entered, or was late in.
    pub(super) excused: Option<Clock>,
    /// With `pace=first`: rounds in a row that were closed because they waited for such workers alone.
    pub(super) spared: u32,
    /// With `pace=first`: late contributions in a row that were dropped.
    pub(super) dropped: u32,
    /// With `pace=first`: the times that the worker takes.
    pub(super) work: Work,
    /// The worker's last contribution with a body is in its place in [`Shard::last`].
    pub(super) has_last: bool,
    /// The parameters as the worker holds them, where differences are sent.
    pub(super) echo: Echo,
}

impl Shard {
    /// A shard of which at most `inboxes` contributions wait at once.
    pub(super) fn new(setup: &Setup, id: ShardId, view: BufferId, inboxes: usize, vectors: &mut Vectors) -> Self {
        let (workers, recipe) = (setup.cluster.workers, &setup.recipe);
        let range = shard_range(setup.len, recipe.shards(), id.0);
        // Other shards write the view while a reply reads it, which would copy all of it. So it is used at the ends of the
        // run alone, where a server has several shards.
        let is_alone = recipe.shards() == setup.cluster.servers;
        let mut versions = vec![Segment::floats(view, range.start, range.len())];
        let others = if is_alone { VERSIONS - 1 } else { VERSIONS };
        let brief = if is_alone { 0 } else { 1 };
        versions.extend((0..others).map(|version| {
            let kept = version < brief;
            let buffer = if kept { vectors.floats("version", range.len(), Keep::No) } else { vectors.brief("version") };
            Segment::floats(buffer, 0, range.len())
        }));
        let compensation = recipe.compensate.formula().map(|formula| {
            let mut state = || vectors.floats("state of the compensation", range.len(), Keep::Floats);
            (formula, formula.has_state().then(|| Segment::floats(state(), 0, range.len())))
        });
        let mut last = |_| Segment::floats(vectors.floats("last contribution", range.len(), Keep::No), 0, range.len());
        let last = (0..workers).filter(|_| recipe.compensate.repeats()).map(&mut last).collect();
        Self {
            id,
            first: range.start,
            len: range.len(),
            compensation,
            last,
            magnitude: None,
            rule: merging(recipe, workers, &cut(&setup.tensors, &range), vectors),
            riders: Riders::nothing(),
            version: Clock(0),
            current: 0,
            readers: vec![0; versions.len()],
            idle: vec![None; versions.len()],
            gives_back: range.len() * 4 > setup.keep_below as usize,
            versions,
            is_alone,
            clocks: VectorClock::new(workers),
            seats: vec![Seat::default(); workers as usize],
            owing: vec![0; workers.div_ceil(u64::BITS) as usize],
            stirred: Vec::with_capacity(workers as usize),
            spare: Vec::with_capacity(workers as usize),
            replied_at: None,
            queue: VecDeque::with_capacity(inboxes),
            busy: false,
            round: Round::new(inboxes),
            taking: None,
            ending: false,
            head_start: if recipe.correction.starters > 0 { recipe.correction.head_start.into() } else { 0 },
            receiving_offer: false,
        }
    }

    /// The parameters are in this version now. Returns a version that gives back its memory.
    pub(super) fn set_current(&mut self, version: usize) -> Option<BufferId> {
        self.current = version;
        // Where there are several shards, the second version takes the place of the first, which is part of the view.
        let first = if self.is_alone { 1 } else { 2 };
        for other in first..if self.gives_back { self.versions.len() } else { 0 } {
            let used = other == version || self.readers[other] > 0;
            self.idle[other] = if used { Some(0) } else { self.idle[other].map(|idle| idle + 1) };
        }
        let idle = (first..self.idle.len()).find(|at| self.idle[*at].is_some_and(|idle| idle >= IDLE_MAX))?;
        self.idle[idle] = None;
        Some(self.versions[idle].buffer)
    }

    /// The facts about a worker, to be changed.
    pub(super) fn seat(&mut self, worker: PeerId) -> &mut Seat {
        self.stir(worker);
        &mut self.seats[worker.index()]
    }

    /// Something may let the worker have the parameters that it is owed: a change of its seat, or a new connection.
    pub(super) fn stir(&mut self, worker: PeerId) {
        if !core::mem::replace(&mut self.seats[worker.index()].is_stirred, true) {
            self.stirred.push(worker);
        }
    }

    /// Takes the stirred workers, in order of rank; `all`: the workers that are owed parameters as well. The list comes
    /// back through [`Self::return_stirred`], so that nothing is allocated.
    pub(super) fn take_stirred(&mut self, all: bool) -> Vec<PeerId> {
        for word in 0..if all { self.owing.len() } else { 0 } {
            let mut owing = self.owing[word];
            while owing != 0 {
                self.stir(PeerId(word as u32 * u64::BITS + owing.trailing_zeros()));
                owing &= owing - 1;
            }
        }
        let mut stirred = core::mem::replace(&mut self.stirred, core::mem::take(&mut self.spare));
        stirred.sort_unstable();
        for worker in &stirred {
            self.seats[worker.index()].is_stirred = false;
        }
        stirred
    }

    /// Takes back the list of [`Self::take_stirred`].
    pub(super) fn return_stirred(&mut self, mut list: Vec<PeerId>) {
        list.clear();
        self.spare = list;
    }

    /// The parameters that a worker has to be sent.
    pub(super) fn owed(&self, worker: PeerId) -> Option<Owed> {
        self.seat_of(worker).owed
    }

    /// The workers that have to be sent parameters, by rank.
    pub(super) fn owing(&self) -> impl Iterator<Item = PeerId> {
        let words = self.owing.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(index, word)| {
            let bits = (0..u64::BITS).filter(|bit| *word & 1 << *bit != 0);
            bits.map(move |bit| PeerId(index as u32 * u64::BITS + bit))
        })
    }

    /// Sets the parameters that a worker has to be sent, and returns those that it had to be sent before.
    pub(super) fn set_owed(&mut self, worker: PeerId, owed: Option<Owed>) -> Option<Owed> {
        let (word, bit) = (worker.index() / u64::BITS as usize, 1 << (worker.0 % u64::BITS));
        match owed {
            Some(_) => self.owing[word] |= bit,
            None => self.owing[word] &= !bit,
        }
        core::mem::replace(&mut self.seat(worker).owed, owed)
    }

    /// The contribution of a worker is here. Parameters that it is owed already answer it as well.
    pub(super) fn owe_answer(&mut self, worker: PeerId, push: &Push) {
        let answer = if push.fetches { Owed::Answer } else { Owed::Receipt };
        if matches!(self.owed(worker), None | Some(Owed::Receipt)) {
            self.set_owed(worker, Some(answer));
        }
    }

    pub(super) fn seat_of(&self, worker: PeerId) -> &Seat {
        &self.seats[worker.index()]
    }

    /// The parameters are the next version, with or without contributions.
    pub(super) fn advance(&mut self) {
        self.version = self.version.next();
        self.round.open();
    }

    /// Bytes of the shard as floats.
    pub(super) fn bytes(&self) -> u32 {
        self.len as u32 * 4
    }

    /// The byte at which the shard begins in the whole vector.
    pub(super) fn start(&self) -> u64 {
        self.versions[0].start
    }

    /// One of the versions. The first is the shard's part of the view.
    pub(super) fn version(&self, version: usize) -> Segment {
        self.versions[version]
    }

    /// The shard's current parameters.
    pub(super) fn params(&self) -> Segment {
        self.version(self.current)
    }

    /// Must this worker wait for the starters?
    pub(super) fn keeps_waiting(&self, correction: &Correction, worker: PeerId) -> bool {
        self.head_start > 0 && correction.comes_later(worker.0)
    }

    /// The place for a worker's offer. Until the server starts, it uses no other version than the first.
    pub(super) fn offered(&self) -> Segment {
        self.version(1)
    }

    /// An offer comes to its place, which is a version that gives back its memory later.
    pub(super) fn on_offer(&mut self) {
        self.receiving_offer = true;
        self.idle[1] = Some(0);
    }

    /// The shard in a buffer of the whole vector.
    pub(super) fn part(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, self.first, self.len)
    }

    /// Where the next application can go: in place, unless a reply reads the current version.
    pub(super) fn free_version(&self) -> Option<usize> {
        let is_free = |version: &usize| self.readers[*version] == 0 && (*version > 0 || self.is_alone);
        Some(self.current).filter(is_free).or_else(|| (0..self.versions.len()).find(is_free))
    }

    /// Is there a contribution in the queue that can be merged now?
    pub(super) fn can_merge(&self) -> bool {
        !self.busy && !self.queue.is_empty() && self.free_version().is_some()
    }

    /// A reply did not reach the worker. If the worker comes back it asks again, except for a welcome.
    pub(super) fn owe(&mut self, worker: PeerId, owed: Owed) {
        if self.clocks.is_member(worker) && self.owed(worker) != Some(Owed::Welcome) {
            self.set_owed(worker, Some(owed));
        }
    }
}
