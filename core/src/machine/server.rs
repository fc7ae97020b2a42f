//! The parameter server: holds shards, applies what workers push by the recipe's merge rule, and answers each push
//! with parameters as soon as the recipe's pace allows.
//!
//! ```text
//! push comes -> its turn? a free inbox? -> Receive -> scan -> queue of its shard -> merge rule -> applied -> reply
//!                no: the body stays with the worker (flow control is "no Receive")
//! ```
//! Every shard keeps a few *versions* of its parameters. An application writes in place when nobody reads the
//! current version, else into a free one: a slow reader pins what it reads, and holds up nobody.
//!
//! Synchronous recipes take the contributions of a round in rank order, so that the order of arrival plays no part
//! in the result, and one inbox serves any number of workers.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, Setup};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Found, Kernel};
use crate::layout::shard_range;
use crate::recipe::{Merge, Payload};
use crate::rule::pace::{VectorClock, lead_max, may_read};
use crate::rule::{Merging, Verdict, merging};
use crate::status::{Presence, Role, Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Kind};

/// Versions per shard: the current one, and those that slow readers still read.
const VERSIONS: usize = 4;
/// Bodies that can be received or wait for their application at once.
const INBOXES: usize = 4;

const INBOX: BufferId = BufferId(2);
const GATHERED: BufferId = BufferId(3);
const FIRST_VERSION: u32 = 4;

/// A node that holds the shards `k` with `k % servers == rank - workers`. [`Machine::view`] holds the parameters of
/// the whole vector; a server fills it before its first input, and only its own shards matter.
#[derive(Debug)]
pub(crate) struct Server {
    hub: Hub<Job>,
    shards: Vec<Shard>,
    inboxes: [Inbox; INBOXES],
    /// Longest shard, in floats.
    inbox_len: usize,
    workers: Vec<Life>,
    lead_max: Option<u64>,
    state: State,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Until all workers have said hello.
    Starting,
    Running,
    /// All have left: what has been gathered is applied, and those who stayed get the final parameters.
    Ending,
    Finished,
}

/// Why an operation was started.
#[derive(Copy, Clone, Debug)]
enum Job {
    Receive {
        inbox: usize,
    },
    Scan {
        inbox: usize,
    },
    /// The contribution of this inbox reaches the parameters or what has been gathered.
    Merge {
        shard: usize,
        inbox: usize,
        into: Option<usize>,
    },
    /// What has been gathered reaches the parameters.
    Apply {
        shard: usize,
        into: usize,
    },
    Reply {
        shard: usize,
        version: usize,
        worker: PeerId,
        owed: Owed,
    },
    /// The shard's final parameters reach the view.
    View {
        shard: usize,
    },
}

/// Parameters that a worker is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Owed {
    /// As it enters, with the clock that it enters at.
    Welcome,
    /// For what it contributed, when the pace allows.
    Answer,
    /// The final ones.
    Last,
}

#[derive(Debug)]
struct Shard {
    id: ShardId,
    first: usize,
    len: usize,
    rule: alloc::boxed::Box<dyn Merging>,
    /// Applications so far.
    version: Clock,
    /// Index of the version buffer that holds it.
    current: usize,
    /// Replies that read each version buffer.
    readers: [u32; VERSIONS],
    clocks: VectorClock,
    /// Last update of each worker that is in.
    marks: Vec<Sequence>,
    /// What each worker is owed.
    replies: Vec<Option<Owed>>,
    /// Inboxes that wait for their application.
    queue: VecDeque<usize>,
    /// A kernel is at work on the parameters or on what has been gathered.
    busy: bool,
    /// The worker whose contribution is being received, in a synchronous round.
    taking: Option<PeerId>,
    /// The final parameters are being sent to those who stayed.
    ending: bool,
}

#[derive(Copy, Clone, Debug)]
struct Inbox {
    /// The push whose body is here.
    push: Option<(PeerId, Header)>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Life {
    Awaited,
    Present,
    Lost,
    /// It makes no more contributions and waits for the final parameters.
    Staying,
    Left,
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { me, cluster, recipe, len, .. } = setup;
        let count = recipe.shards();
        let shards = (0..count).filter(|id| cluster.server_of(ShardId(*id)) == me).map(|id| {
            let range = shard_range(len, count, id);
            Shard {
                id: ShardId(id),
                first: range.start,
                len: range.len(),
                rule: merging(&recipe),
                version: Clock(0),
                current: 0,
                readers: [0; VERSIONS],
                clocks: VectorClock::new(cluster.workers),
                marks: vec![Sequence(0); cluster.workers as usize],
                replies: vec![None; cluster.workers as usize],
                queue: VecDeque::with_capacity(INBOXES),
                busy: false,
                taking: None,
                ending: false,
            }
        });
        Self {
            shards: shards.collect(),
            inboxes: [Inbox { push: None }; INBOXES],
            inbox_len: len.div_ceil(count as usize),
            workers: vec![Life::Awaited; cluster.workers as usize],
            lead_max: lead_max(&recipe),
            state: State::Starting,
            hub: Hub::new(setup),
        }
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, found } => self.on_done(purpose, found),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { .. } | Notice::Leave { .. } => return Err(Misuse::NotReady),
            Notice::Tick => {}
        }
        Ok(())
    }

    // Members

    fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        if !self.hub.setup.cluster.is_worker(peer) {
            return;
        }
        let state = self.workers[peer.index()];
        if planted!(self.hub, DedupClearedOnReconnect) {
            self.shards.iter_mut().for_each(|shard| shard.marks[peer.index()] = Sequence(0));
        }
        match (state, fresh) {
            // The run is over for whoever comes now.
            (_, true) | (Life::Lost | Life::Left, _) if matches!(self.state, State::Ending | State::Finished) => {
                self.workers[peer.index()] = Life::Left;
                self.hub.refuse(peer);
            }
            // A broken connection: what was owed is still owed. A welcome that got lost is sent again.
            (Life::Present, false) if self.state == State::Starting => {}
            (Life::Present, false) => {
                for shard in self.shards.iter_mut().filter(|shard| shard.marks[peer.index()] == Sequence(0)) {
                    shard.replies[peer.index()] = Some(Owed::Welcome);
                }
            }
            (Life::Staying, false) => {
                for shard in self.shards.iter_mut().filter(|shard| shard.ending) {
                    shard.replies[peer.index()] = Some(Owed::Last);
                }
            }
            (Life::Left, false) => {}
            _ => {
                if fresh {
                    self.forget(peer);
                }
                let incarnation = self.hub.incarnation(peer);
                self.hub.event(Event::PeerJoined { peer, incarnation });
                self.workers[peer.index()] = Life::Present;
                if self.state == State::Running {
                    self.welcome(peer);
                }
            }
        }
        if self.state == State::Starting && self.workers.iter().all(|life| *life == Life::Present) {
            self.state = State::Running;
            for worker in 0..self.workers.len() as u32 {
                self.welcome(PeerId(worker));
            }
        }
    }

    /// Enters a worker at the clock of the slowest, and owes it the parameters. In synchronous rounds it enters all
    /// shards in the same one: its contribution to a later round would stand in front of those to an earlier.
    fn welcome(&mut self, worker: PeerId) {
        let rows = self.shards.iter().map(|shard| shard.clocks.row());
        let round = rows.max().filter(|_| self.hub.setup.recipe.is_synchronous());
        for shard in &mut self.shards {
            shard.clocks.join(worker, round.unwrap_or_else(|| shard.clocks.row()));
            shard.replies[worker.index()] = Some(Owed::Welcome);
        }
    }

    /// A worker restarted: what its former self sent is in, and its stream begins anew.
    fn forget(&mut self, worker: PeerId) {
        self.retire(worker, Life::Lost);
        for shard in &mut self.shards {
            shard.marks[worker.index()] = Sequence(0);
        }
    }

    fn retire(&mut self, worker: PeerId, state: Life) {
        self.workers[worker.index()] = state;
        for shard in self.shards.iter_mut().filter(|shard| shard.clocks.is_member(worker)) {
            shard.clocks.leave(worker);
            shard.replies[worker.index()] = None;
        }
    }

    fn on_lost(&mut self, peer: PeerId) {
        if !self.hub.setup.cluster.is_worker(peer) {
            return;
        }
        match self.workers[peer.index()] {
            Life::Present => {
                self.retire(peer, Life::Lost);
                self.hub.event(Event::PeerLost { peer });
            }
            Life::Staying => self.retire(peer, Life::Left),
            Life::Awaited | Life::Lost | Life::Left => {}
        }
    }

    /// A worker that stays says so again when it has the final parameters.
    fn on_leave(&mut self, peer: PeerId, stays: bool) {
        if stays {
            self.retire(peer, Life::Staying);
        } else {
            self.hub.mark_left(peer);
            self.retire(peer, Life::Left);
        }
    }

    // Pushes

    fn on_message(&mut self, peer: PeerId, header: Header) {
        match header.kind {
            // One that was refused may not have heard of it yet.
            Kind::Push if self.workers.get(peer.index()).is_some_and(|life| *life != Life::Present) => {
                self.hub.discard(peer, header);
            }
            Kind::Push if self.hub.setup.cluster.is_worker(peer) => match self.check_push(peer, &header) {
                Ok(()) => self.hub.hold(peer, header),
                Err(reason) => self.hub.close(peer, reason),
            },
            Kind::Leave if self.hub.setup.cluster.is_worker(peer) => self.on_leave(peer, header.base == Clock(1)),
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    fn check_push(&self, peer: PeerId, header: &Header) -> Result<(), ProtocolError> {
        let (kind, got) = (header.kind, header.shard);
        let shard = self.shards.iter().find(|shard| shard.id == got).ok_or(ProtocolError::NoSuchShard { got })?;
        let length = shard.len as u32 * 4;
        if header.length != length {
            return Err(ProtocolError::Length { kind, expected: length, got: header.length });
        }
        let incarnation = self.hub.incarnation(peer);
        if header.incarnation != incarnation || header.origin != peer {
            return Err(ProtocolError::WrongIncarnation { expected: incarnation, got: header.incarnation });
        }
        let expected = self.admitted(shard, peer).next();
        if header.sequence > expected {
            return Err(ProtocolError::Gap { expected: expected.0, got: header.sequence.0 });
        }
        if header.base > shard.version {
            return Err(ProtocolError::FromTheFuture { version: shard.version, got: header.base });
        }
        Ok(())
    }

    /// The last contribution of this worker that is in, or on its way from an inbox.
    fn admitted(&self, shard: &Shard, peer: PeerId) -> Sequence {
        let incarnation = self.hub.incarnation(peer);
        let of_worker = |(from, header): &(PeerId, Header)| {
            *from == peer && header.shard == shard.id && header.incarnation == incarnation
        };
        let inboxes = self.inboxes.iter().filter_map(|inbox| inbox.push).filter(of_worker);
        inboxes.map(|(_, header)| header.sequence).fold(shard.marks[peer.index()], Sequence::max)
    }

    /// Starts what can be started with the bodies that wait at their senders.
    fn maybe_receive(&mut self) {
        while let Some((peer, header)) = self.next_held() {
            self.hub.release(peer);
            let index = self.shard_of(header.shard);
            let known = header.sequence <= self.admitted(&self.shards[index], peer);
            let shard = &mut self.shards[index];
            if known && !planted!(self.hub, NoDedup) {
                self.hub.counters.duplicates += 1;
                // One that is still on its way is answered when it is in.
                if header.sequence <= shard.marks[peer.index()] {
                    shard.replies[peer.index()].get_or_insert(Owed::Answer);
                }
                self.hub.discard(peer, header);
            } else if self.hub.setup.recipe.is_synchronous() && header.base < shard.version {
                self.hub.counters.late += 1;
                shard.marks[peer.index()] = header.sequence;
                // Its clock did not tick: it is told anew where it is.
                shard.replies[peer.index()] = Some(Owed::Welcome);
                self.hub.discard(peer, header);
            } else {
                let Some(inbox) = self.inboxes.iter().position(|inbox| inbox.push.is_none()) else { return };
                shard.taking = Some(peer);
                let len = shard.len;
                self.inboxes[inbox].push = Some((peer, header));
                let into = self.inbox(inbox, len);
                self.hub.receive(peer, into, Job::Receive { inbox });
            }
        }
    }

    /// The first held push that can be handled now.
    fn next_held(&self) -> Option<(PeerId, Header)> {
        let room = self.inboxes.iter().any(|inbox| inbox.push.is_none());
        let synchronous = self.hub.setup.recipe.is_synchronous();
        self.hub.held().find(|(peer, header)| {
            let shard = &self.shards[self.shard_of(header.shard)];
            let known = header.sequence <= self.admitted(shard, *peer);
            let late = synchronous && header.base < shard.version;
            known || late || (room && (!synchronous || self.is_turn(shard, *peer)))
        })
    }

    /// In a synchronous round, contributions are taken one at a time in rank order.
    fn is_turn(&self, shard: &Shard, peer: PeerId) -> bool {
        if planted!(self.hub, ArrivalOrder) {
            return shard.taking.is_none();
        }
        shard.taking.is_none() && shard.clocks.slowest().is_some_and(|(next, _)| next == peer)
    }

    fn on_done(&mut self, job: Job, found: Found) {
        match job {
            Job::Receive { inbox } => {
                let (_, header) = self.push(inbox);
                let len = self.shards[self.shard_of(header.shard)].len;
                self.hub.compute(Kernel::Scan { x: self.inbox(inbox, len) }, Job::Scan { inbox });
            }
            Job::Scan { inbox } => self.on_scanned(inbox, found),
            Job::Merge { shard, inbox, into } => {
                self.shards[shard].busy = false;
                match into {
                    Some(version) => self.on_applied(shard, version),
                    None => self.maybe_full(shard),
                }
                self.account(inbox);
            }
            Job::Apply { shard, into } => {
                self.shards[shard].busy = false;
                self.on_applied(shard, into);
            }
            Job::Reply { shard, version, .. } => self.shards[shard].readers[version] -= 1,
            Job::View { shard } => self.shards[shard].busy = false,
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            Job::Receive { inbox } => {
                let (_, header) = self.push(inbox);
                let index = self.shard_of(header.shard);
                self.shards[index].taking = None;
                self.inboxes[inbox].push = None;
            }
            Job::Reply { shard, version, worker, owed } => {
                let shard = &mut self.shards[shard];
                shard.readers[version] -= 1;
                // The worker asks again if it comes back; for a welcome it cannot ask.
                if shard.clocks.is_member(worker) && shard.replies[worker.index()] != Some(Owed::Welcome) {
                    shard.replies[worker.index()] = Some(owed);
                }
            }
            Job::Scan { .. } | Job::Merge { .. } | Job::Apply { .. } | Job::View { .. } => {}
        }
    }

    fn on_scanned(&mut self, inbox: usize, found: Found) {
        let (peer, header) = self.push(inbox);
        let index = self.shard_of(header.shard);
        match found {
            // Refused before it touches anything; its clock ticks, so that nobody waits for it.
            Found::NonFinite { index: at } if header.weight > 0 => {
                let reason = Rejection::NonFinite { shard: header.shard, index: at };
                self.hub.event(Event::Rejected { peer, reason });
                self.hub.counters.rejected += 1;
                self.answer(index, peer, header);
                self.inboxes[inbox].push = None;
            }
            _ => self.shards[index].queue.push_back(inbox),
        }
    }

    // Applications

    /// Hands the shard's next contribution to the merge rule, when the parameters are free.
    fn maybe_merge(&mut self, index: usize) {
        while !self.shards[index].busy {
            let Some(&inbox) = self.shards[index].queue.front() else { return };
            // An application needs somewhere to go; the verdict is asked for only when there is such a place.
            let Some(into) = self.free_version(index) else { return };
            let shard = &mut self.shards[index];
            shard.queue.pop_front();
            let (_, header) = self.inboxes[inbox].push.expect("a queued inbox holds a push");
            let mut staleness = shard.version.ahead_of(header.base);
            let verdict = if header.weight == 0 {
                Verdict::Skip
            } else {
                if planted!(self.hub, StalenessIgnored) {
                    staleness = 0;
                }
                let weight = if planted!(self.hub, DenominatorByCount) { 1 } else { header.weight };
                shard.rule.admit(weight, staleness)
            };
            let counters = &mut self.hub.counters;
            match verdict {
                Verdict::Drop => counters.dropped += 1,
                Verdict::Skip => counters.empty += 1,
                _ => {
                    counters.applied += 1;
                    self.hub.staleness.record(staleness);
                }
            }
            let update = self.inbox(inbox, self.shards[index].len);
            match verdict {
                Verdict::Drop | Verdict::Skip => self.account(inbox),
                Verdict::Apply { scale } => {
                    let from = self.version(index, self.shards[index].current);
                    let kernel = Kernel::Apply { from, update, scale, into: self.version(index, into) };
                    self.merge(kernel, index, inbox, Some(into));
                }
                Verdict::Add { scale, first } => {
                    let kernel = Kernel::Accumulate { update, scale, first, into: self.gathered(index) };
                    self.merge(kernel, index, inbox, None);
                }
                Verdict::Blend { held } => {
                    let weight = if planted!(self.hub, DenominatorByCount) { 1 } else { header.weight };
                    let kernel = Kernel::Blend { x: update, weight, held, into: self.gathered(index) };
                    self.merge(kernel, index, inbox, None);
                }
            }
        }
    }

    fn merge(&mut self, kernel: Kernel, shard: usize, inbox: usize, into: Option<usize>) {
        self.shards[shard].busy = true;
        self.hub.compute(kernel, Job::Merge { shard, inbox, into });
    }

    fn maybe_full(&mut self, shard: usize) {
        if self.shards[shard].rule.is_full() {
            self.apply_gathered(shard);
        }
    }

    /// Applies what has been gathered, if there is anything.
    fn apply_gathered(&mut self, index: usize) -> bool {
        let into = self.free_version(index).unwrap_or(self.shards[index].current);
        let Some(mut scale) = self.shards[index].rule.take() else { return false };
        if planted!(self.hub, RestDividedByC)
            && self.state == State::Ending
            && let Merge::Softsync { updates } = self.hub.setup.recipe.merge
        {
            scale = 1.0 / updates as f32;
        }
        self.shards[index].busy = true;
        let (from, into_segment) = (self.version(index, self.shards[index].current), self.version(index, into));
        let kernel = match self.hub.setup.recipe.payload {
            Payload::Parameters => Kernel::Copy { from: self.gathered(index), into: into_segment },
            Payload::Updates => Kernel::Apply { from, update: self.gathered(index), scale, into: into_segment },
        };
        self.hub.compute(kernel, Job::Apply { shard: index, into });
        true
    }

    fn on_applied(&mut self, index: usize, version: usize) {
        let shard = &mut self.shards[index];
        shard.current = version;
        shard.version = shard.version.next();
        self.hub.counters.applications += 1;
    }

    /// The contribution of an inbox is in: its clock ticks, its worker is owed an answer, the inbox is free.
    fn account(&mut self, inbox: usize) {
        let (peer, header) = self.push(inbox);
        self.inboxes[inbox].push = None;
        let index = self.shard_of(header.shard);
        self.answer(index, peer, header);
    }

    fn answer(&mut self, index: usize, peer: PeerId, header: Header) {
        let shard = &mut self.shards[index];
        shard.taking = None;
        // Its worker may have been given up, or have restarted, in the meantime.
        let current = shard.clocks.is_member(peer) && header.incarnation == self.hub.incarnation(peer);
        if current && header.sequence > shard.marks[peer.index()] {
            shard.marks[peer.index()] = header.sequence;
            shard.clocks.tick(peer);
            shard.replies[peer.index()].get_or_insert(Owed::Answer);
        }
    }

    /// A synchronous round ends when every member has contributed.
    fn maybe_end_round(&mut self, index: usize) {
        let shard = &self.shards[index];
        if !self.hub.setup.recipe.is_synchronous() || shard.busy || !shard.queue.is_empty() {
            return;
        }
        let ended = match shard.clocks.slowest() {
            Some((_, clock)) => clock > shard.version,
            None => false,
        };
        // A round without examples changes nothing, and ends all the same.
        if ended && self.free_version(index).is_some() && !self.apply_gathered(index) {
            let shard = &mut self.shards[index];
            shard.version = shard.version.next();
        }
    }

    // Replies

    fn row(&self, shard: &Shard) -> Clock {
        #[cfg(planted)]
        if planted!(self.hub, MinimumOverDead) {
            return shard.clocks.row_of_all();
        }
        if self.hub.setup.recipe.is_synchronous() { shard.version } else { shard.clocks.row() }
    }

    fn maybe_reply(&mut self, index: usize) {
        for worker in (0..self.workers.len() as u32).map(PeerId) {
            let shard = &self.shards[index];
            let Some(owed) = shard.replies[worker.index()] else { continue };
            let lead_max = self.lead_max.map(|lead| lead + u64::from(planted!(self.hub, BoundOffByOne)));
            // A newcomer may read at once, but for a synchronous round that is about to be applied.
            let at_once = match owed {
                Owed::Answer => false,
                Owed::Welcome => !self.hub.setup.recipe.is_synchronous(),
                Owed::Last => true,
            };
            let may = at_once || may_read(shard.clocks.clock(worker), self.row(shard), lead_max);
            if self.hub.is_agreed(worker) && may && !shard.busy {
                self.shards[index].replies[worker.index()] = None;
                self.reply(index, worker, owed);
            }
        }
    }

    fn reply(&mut self, index: usize, worker: PeerId, owed: Owed) {
        let row = self.row(&self.shards[index]);
        let shard = &mut self.shards[index];
        let (clock, weight) = match owed {
            Owed::Answer => (row, 0),
            Owed::Last => (row, 1),
            Owed::Welcome => (shard.clocks.clock(worker), 2),
        };
        let version = shard.current;
        shard.readers[version] += 1;
        let header = Header {
            shard: shard.id,
            sequence: shard.marks[worker.index()],
            clock,
            base: shard.version,
            weight,
            length: shard.len as u32 * 4,
            ..self.hub.header(Kind::Params)
        };
        let body = self.version(index, version);
        self.hub.transmit(worker, header, Some(body), Job::Reply { shard: index, version, worker, owed });
    }

    /// Nothing more can come: what has been gathered is applied, and those who stayed get the result.
    fn maybe_end(&mut self) {
        let present = |life: &Life| matches!(life, Life::Awaited | Life::Present);
        let idle = self.inboxes.iter().all(|inbox| inbox.push.is_none()) && self.shards.iter().all(|s| !s.busy);
        if self.state == State::Running && !self.workers.iter().any(present) && idle {
            self.state = State::Ending;
            for index in 0..self.shards.len() {
                self.apply_gathered(index);
            }
        }
        if self.state != State::Ending || self.shards.iter().any(|shard| shard.busy) {
            return;
        }
        for shard in self.shards.iter_mut().filter(|shard| !shard.ending) {
            shard.ending = true;
            for (reply, life) in shard.replies.iter_mut().zip(&self.workers) {
                *reply = (*life == Life::Staying).then_some(Owed::Last);
            }
        }
        if !self.workers.contains(&Life::Staying) {
            self.finish();
        }
    }

    /// Puts the parameters of all shards together in the view.
    fn finish(&mut self) {
        let moved = (0..self.shards.len()).find(|index| self.shards[*index].current != 0);
        match moved {
            None => {
                self.state = State::Finished;
                self.hub.event(Event::Finished);
            }
            Some(index) => {
                let (from, into) = (self.version(index, self.shards[index].current), self.version(index, 0));
                self.shards[index].current = 0;
                self.shards[index].busy = true;
                self.hub.compute(Kernel::Copy { from, into }, Job::View { shard: index });
            }
        }
    }

    // Who is waited for

    fn note_waiting(&mut self) {
        let awaited = match self.state {
            State::Starting => {
                let missing = self.workers.iter().position(|life| *life != Life::Present);
                missing.map(|rank| (PeerId(rank as u32), Clock(0), Clock(0)))
            }
            State::Running => self.shards.iter().find_map(|shard| {
                let owed = shard.replies.iter().zip(&self.workers);
                let held = owed.filter(|(reply, life)| reply.is_some() && **life == Life::Present);
                let (slowest, at) = shard.clocks.slowest()?;
                let waiting = held.count() > 0 && shard.replies[slowest.index()].is_none();
                waiting.then_some((slowest, at, at.next()))
            }),
            State::Ending | State::Finished => None,
        };
        match awaited {
            Some((on, at, clock)) => self.hub.wait_for(on, at, clock),
            None => self.hub.stop_waiting(),
        }
        if let Some(notice) = self.hub.take_stall() {
            for worker in (0..self.workers.len() as u32).map(PeerId) {
                if worker != notice.origin && self.hub.is_agreed(worker) {
                    self.hub.notify(worker, notice);
                }
            }
        }
    }

    // Places

    fn shard_of(&self, id: ShardId) -> usize {
        (id.0 / self.hub.setup.cluster.servers) as usize
    }

    fn push(&self, inbox: usize) -> (PeerId, Header) {
        self.inboxes[inbox].push.expect("an inbox in use holds a push")
    }

    fn inbox(&self, inbox: usize, len: usize) -> Segment {
        Segment::floats(INBOX, inbox * self.inbox_len, len)
    }

    fn gathered(&self, shard: usize) -> Segment {
        Segment::floats(GATHERED, self.shards[shard].first, self.shards[shard].len)
    }

    fn version(&self, shard: usize, version: usize) -> Segment {
        let shard = &self.shards[shard];
        Segment::floats(BufferId(FIRST_VERSION + version as u32), shard.first, shard.len)
    }

    /// Where the next application can go: in place, unless someone reads the current version.
    fn free_version(&self, shard: usize) -> Option<usize> {
        let shard = &self.shards[shard];
        let current = (shard.readers[shard.current] == 0).then_some(shard.current);
        current.or_else(|| shard.readers.iter().position(|readers| *readers == 0))
    }
}

impl Machine for Server {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(peer) = self.hub.take_lost() {
            self.on_lost(peer);
        }
        self.maybe_receive();
        for shard in 0..self.shards.len() {
            // Replies first: a worker's staleness counts from the parameters right after its own push.
            self.maybe_reply(shard);
            self.maybe_merge(shard);
            self.maybe_end_round(shard);
            self.maybe_reply(shard);
        }
        self.maybe_receive();
        self.maybe_end();
        (0..self.shards.len()).for_each(|shard| self.maybe_reply(shard));
        self.note_waiting();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        self.hub.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        let [ours, theirs] = self.hub.buffers();
        let len = self.hub.setup.len * 4;
        let mut buffers = vec![ours, theirs, self.inbox_len * INBOXES * 4, len];
        buffers.extend([len; VERSIONS]);
        buffers
    }

    fn contribution(&self) -> BufferId {
        self.view()
    }

    fn view(&self) -> BufferId {
        BufferId(FIRST_VERSION)
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let clock = self.shards.iter().map(|shard| shard.version).max().unwrap_or_default();
        let mut status = self.hub.status(Role::Server, clock, |worker| {
            self.shards.iter().map(|shard| shard.clocks.clock(worker)).min().unwrap_or_default()
        });
        for worker in &mut status.workers {
            // Present members may be suspect; of the others, this machine knows better than their connections.
            match self.workers[worker.rank.index()] {
                Life::Present => {}
                Life::Awaited => worker.state = Presence::Awaited,
                Life::Lost => worker.state = Presence::Lost,
                Life::Staying | Life::Left => worker.state = Presence::Left,
            }
        }
        status
    }
}
