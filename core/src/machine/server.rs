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
//!
//! With a codec for contributions, a body is written out as floats before anything else happens to it. With one for
//! parameters, the server remembers what each worker holds, and sends the difference to that: what the codec leaves
//! out stays in the difference, and is sent with the next.

mod apply;
mod members;
mod pull;
mod renew;
mod reply;

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::encoding::{Encoding, Room};
use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, Setup, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::layout::shard_range;
use crate::recipe::{Correction, Merge, Payload};
use crate::rule::pace::{VectorClock, lead_max, may_read};
use crate::rule::{Merging, Verdict, merging};
use crate::status::{Presence, Role, Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Kind, WELCOME};

/// Versions per shard: the current one, and those that slow readers still read.
const VERSIONS: usize = 4;
/// Bodies that can be received or wait for their application at once.
const INBOXES: usize = 4;

const INBOX: BufferId = BufferId(2);
const GATHERED: BufferId = BufferId(3);
const FIRST_VERSION: u32 = 4;
/// What contributions need to be read: sections, and their bodies.
const PUSH_SECTIONS: BufferId = BufferId(FIRST_VERSION + VERSIONS as u32);
const BODIES: BufferId = BufferId(PUSH_SECTIONS.0 + 1);
/// What differences need to be written: themselves as floats, and room.
const DIFFERENCE: BufferId = BufferId(PUSH_SECTIONS.0 + 2);
const SCRATCH: BufferId = BufferId(PUSH_SECTIONS.0 + 3);
/// For each worker: sections, what it holds, and the body under way.
const FIRST_PULL: u32 = SCRATCH.0 + 1;

/// A node that holds the shards `k` with `k % servers == rank - workers`. [`Machine::view`] holds the parameters of
/// the whole vector; a server fills it before its first input, and only its own shards matter.
#[derive(Debug)]
pub(crate) struct Server {
    hub: Hub<Job>,
    shards: Vec<Shard>,
    inboxes: [Inbox; INBOXES],
    /// Longest shard, in floats.
    inbox_len: usize,
    /// How contributions are written.
    push: Encoding,
    /// Length of a place for the body of one.
    body_len: usize,
    /// How parameters are written, to each worker; none if as they are.
    pulls: Vec<Encoding>,
    workers: Vec<Life>,
    lead_max: Option<u64>,
    state: State,
    /// Since when it has known that it takes the place of a former self.
    renewing: Option<Instant>,
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
    /// A worker offers what a former self had.
    Offer {
        shard: usize,
        worker: PeerId,
        header: Header,
    },
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
    /// Nothing waits for it but kernels that come later.
    Aside,
    /// What the worker holds is made what this version is.
    Echo {
        shard: usize,
        version: usize,
        worker: PeerId,
    },
    /// The difference between what a worker holds and this version is written.
    Write {
        shard: usize,
        version: usize,
        worker: PeerId,
        owed: Owed,
        header: Header,
    },
    /// What the worker holds follows what has been written.
    Followed {
        shard: usize,
        worker: PeerId,
    },
    /// A difference, or all that the worker holds, is sent.
    Send {
        shard: usize,
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
    /// Workers whose offer is awaited.
    offers: Vec<bool>,
    /// An offer is being received.
    offered: bool,
    /// What each worker holds, where differences are sent.
    echoes: Vec<pull::Echo>,
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
    /// It came when the run was over.
    Refused,
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Self {
        let Setup { me, cluster, recipe, len, .. } = setup;
        let count = recipe.shards();
        let mine = (0..count).filter(|id| cluster.server_of(ShardId(*id)) == me);
        let ranges = || mine.clone().map(|id| shard_range(len, count, id));
        let none = BufferId(0);
        let room = Room { residual: none, sections: PUSH_SECTIONS, scratch: none, velocity: none };
        let push = Encoding::new(&setup, recipe.codec, Correction::none(), ranges(), room);
        let pull = |worker: u32| {
            let room =
                Room { residual: DIFFERENCE, sections: pull::sections(worker), scratch: SCRATCH, velocity: none };
            Encoding::new(&setup, recipe.pull, Correction::none(), ranges(), room)
        };
        let pulls: Vec<_> = (0..cluster.workers).map(pull).filter(|pull| !pull.is_plain()).collect();
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
                offers: vec![false; cluster.workers as usize],
                offered: false,
                echoes: vec![pull::Echo::default(); cluster.workers as usize],
            }
        });
        let shards: Vec<_> = shards.collect();
        let mut server = Self {
            body_len: (0..shards.len()).map(|shard| push.len_max(shard)).max().unwrap_or(0),
            push,
            pulls,
            shards,
            inboxes: [Inbox { push: None }; INBOXES],
            inbox_len: len.div_ceil(count as usize),
            workers: vec![Life::Awaited; cluster.workers as usize],
            lead_max: lead_max(&recipe),
            state: State::Starting,
            renewing: None,
            hub: Hub::new(setup),
        };
        let kernels = server.pulls.iter().chain(Some(&server.push)).filter(|encoding| !encoding.is_plain());
        kernels.flat_map(Encoding::kernels).for_each(|kernel| server.hub.compute(kernel, Job::Aside));
        server
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, result } => self.on_done(purpose, result),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { .. } | Notice::Leave { .. } => return Err(Misuse::NotReady),
            Notice::Rate { .. } | Notice::Again | Notice::Tick => {}
        }
        Ok(())
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
            Kind::State if self.hub.setup.cluster.is_worker(peer) => match self.check_offer(&header) {
                Ok(()) => self.on_offer(peer, header),
                Err(reason) => self.hub.close(peer, reason),
            },
            Kind::Leave if self.hub.setup.cluster.is_worker(peer) => self.on_leave(peer, header.base == Clock(1)),
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    fn check_push(&self, peer: PeerId, header: &Header) -> Result<(), ProtocolError> {
        let (kind, got) = (header.kind, header.shard);
        let shard = self.shards.iter().find(|shard| shard.id == got).ok_or(ProtocolError::NoSuchShard { got })?;
        let index = self.shard_of(header.shard);
        let (plain, longest) = (shard.len as u32 * 4, self.push.len_max(index) as u32);
        let fits = match header.weight {
            _ if self.push.is_plain() => header.length == plain,
            0 => header.length == 0,
            _ => (1..=longest).contains(&header.length),
        };
        if !fits {
            return Err(ProtocolError::Length { kind, expected: longest, got: header.length });
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
            self.hub.release(peer, &header);
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
                if header.length == 0 {
                    self.shards[index].queue.push_back(inbox);
                    continue;
                }
                let plain = self.push.is_plain();
                let into = if plain { self.inbox(inbox, len) } else { self.body(inbox, header.length) };
                self.hub.receive(peer, into, Job::Receive { inbox });
            }
        }
    }

    /// The first held push that can be handled now.
    fn next_held(&self) -> Option<(PeerId, Header)> {
        let room = self.inboxes.iter().any(|inbox| inbox.push.is_none());
        let synchronous = self.hub.setup.recipe.is_synchronous();
        self.hub.held().filter(|(_, header)| header.kind == Kind::Push).find(|(peer, header)| {
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

    fn on_done(&mut self, job: Job, result: KernelResult) {
        match job {
            Job::Offer { shard, worker, header } => self.on_offered(shard, worker, header),
            Job::Receive { inbox } => {
                let (_, header) = self.push(inbox);
                let index = self.shard_of(header.shard);
                let x = self.inbox(inbox, self.shards[index].len);
                let (body, sections) = (self.body(inbox, header.length), self.push.sections(index));
                let coding = self.push.coding(index, u64::MAX);
                let expand = Kernel::Expand { coding, body, sections, into: x };
                let kernel = if self.push.is_plain() { Kernel::Scan { x } } else { expand };
                self.hub.compute(kernel, Job::Scan { inbox });
            }
            Job::Scan { inbox } => self.on_scanned(inbox, result),
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
            Job::Aside => {}
            Job::Echo { shard, version, worker } => {
                self.shards[shard].readers[version] -= 1;
                self.shards[shard].echoes[worker.index()].busy -= 1;
            }
            Job::Write { shard, version, worker, owed, header } => {
                self.shards[shard].readers[version] -= 1;
                self.on_written(shard, worker, owed, header, result);
            }
            Job::Followed { shard, worker } | Job::Send { shard, worker, .. } => {
                self.shards[shard].echoes[worker.index()].busy -= 1;
            }
            Job::View { shard } => self.shards[shard].busy = false,
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            // It is made again when the worker is back.
            Job::Offer { shard, .. } => self.shards[shard].offered = false,
            Job::Receive { inbox } => {
                let (_, header) = self.push(inbox);
                let index = self.shard_of(header.shard);
                self.shards[index].taking = None;
                self.inboxes[inbox].push = None;
            }
            Job::Reply { shard, version, worker, owed } => {
                self.shards[shard].readers[version] -= 1;
                self.owe(shard, worker, owed);
            }
            Job::Send { shard, worker, owed } => {
                self.shards[shard].echoes[worker.index()].busy -= 1;
                self.owe(shard, worker, owed);
            }
            _ => {}
        }
    }

    /// A reply did not get through. The worker asks again if it comes back; for a welcome it cannot ask.
    fn owe(&mut self, shard: usize, worker: PeerId, owed: Owed) {
        let shard = &mut self.shards[shard];
        if shard.clocks.is_member(worker) && shard.replies[worker.index()] != Some(Owed::Welcome) {
            shard.replies[worker.index()] = Some(owed);
        }
    }

    fn on_scanned(&mut self, inbox: usize, result: KernelResult) {
        let (peer, header) = self.push(inbox);
        let index = self.shard_of(header.shard);
        match result {
            // Refused before it touches anything; its clock ticks, so that nobody waits for it.
            KernelResult::NonFinite { .. } | KernelResult::Malformed(_) if header.weight > 0 => {
                let reason = match result {
                    KernelResult::NonFinite { index } => Rejection::NonFinite { shard: header.shard, index },
                    KernelResult::Malformed(error) => Rejection::Malformed(error),
                    _ => unreachable!("one of the two above"),
                };
                self.hub.event(Event::Rejected { peer, reason });
                self.hub.counters.rejected += 1;
                self.answer(index, peer, header);
                self.inboxes[inbox].push = None;
            }
            _ => self.shards[index].queue.push_back(inbox),
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

    fn body(&self, inbox: usize, len: u32) -> Segment {
        Segment { buffer: BODIES, start: (inbox * self.body_len) as u64, len }
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
        self.take_offers();
        self.maybe_start();
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
        let [_, sections, ..] = self.push.buffers();
        let bodies = if self.push.is_plain() { 0 } else { INBOXES * self.body_len };
        buffers.extend([sections, bodies]);
        let [difference, _, scratch, _] = self.pulls.first().map_or([0; 4], Encoding::buffers);
        buffers.extend([difference, scratch]);
        for pull in &self.pulls {
            let [_, sections, ..] = pull.buffers();
            let body = (0..self.shards.len()).map(|shard| pull.len_max(shard)).sum();
            buffers.extend([sections, len, body]);
        }
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
                Life::Lost | Life::Refused => worker.state = Presence::Lost,
                Life::Staying | Life::Left => worker.state = Presence::Left,
            }
        }
        status
    }
}
