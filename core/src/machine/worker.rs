//! The worker of parameter-server recipes: pushes what it contributes, takes the parameters it is answered with,
//! and goes on as soon as the recipe's pace allows.
//!
//! ```text
//! step -> Push to every shard -> (bounded staleness: own update applied locally) -> may I go on? -> Ready
//! ```
//! With a window of two contributions, a worker computes while the last one travels. Parameters that come back then
//! lack what is still under way, so it is subtracted again before they are used (read-my-writes, Ho et al. 2013):
//! a worker always sees its own updates.
//!
//! With a codec, a contribution is encoded first, shard by shard, and what the codec cannot say of it stays in a
//! residual; a worker that leaves sends that too, as a last contribution. Where servers have a codec of their own,
//! they send differences, which the worker subtracts from what it holds.

mod push;

use alloc::vec;
use alloc::vec::Vec;

use super::encoding::{self, Encoding, Room};
use super::{Event, Hub, Input, Machine, Misuse, Notice, Output, ProtocolError, Rejection, SavedBuffer, Setup, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::layout::shard_range;
use crate::recipe::{Correction, Merge};
use crate::rule::pace::{lead_max, may_read, window};
use crate::status::{Presence, Role, Status, Waiting};
use crate::time::Instant;
use crate::wire::{Header, Kind, WELCOME};

const VIEW: BufferId = BufferId(2);
/// Parameters as the servers sent them, where the view has own updates on top.
const ROWS: BufferId = BufferId(3);
const FIRST_CODING: u32 = 4;
/// What servers' differences need to be read: sections, the bodies, and the differences as floats.
const PULL_SECTIONS: BufferId = BufferId(FIRST_CODING + encoding::BUFFERS);
const PULLED: BufferId = BufferId(PULL_SECTIONS.0 + 1);
const DIFFERENCE: BufferId = BufferId(PULL_SECTIONS.0 + 2);
const FIRST_UPDATE: u32 = DIFFERENCE.0 + 1;

/// A node that trains. [`Machine::view`] holds its parameters.
#[derive(Debug)]
pub(crate) struct Worker {
    hub: Hub<Job>,
    rows: Vec<Row>,
    /// Contributions made.
    sequence: Sequence,
    /// The last contributions, at `sequence % window`.
    pushes: Vec<Push>,
    encoding: Encoding,
    pull: Encoding,
    /// The residual has been contributed.
    flushed: bool,
    /// Examples of the last contribution that had any.
    weight: u32,
    lead_max: Option<u64>,
    /// Servers that know that this worker leaves.
    told: Vec<bool>,
    /// Servers to whom that is on its way.
    telling: Vec<bool>,
    /// Servers that have started anew, and have not answered with parameters yet.
    renewing: Vec<bool>,
    state: State,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Joining,
    /// The application computes.
    Ready,
    /// A step is under way.
    Stepping,
    /// The view is being put together from rows and own updates; kernels still to end.
    Refreshing {
        kernels: u32,
    },
    /// Until all servers have been told; `stays` until the final parameters are here.
    Leaving {
        stays: bool,
    },
    Left,
}

#[derive(Copy, Clone, Debug)]
enum Job {
    /// Nothing waits for it but kernels that come later.
    Aside,
    Clip,
    Encode {
        shard: usize,
        sequence: Sequence,
        /// It is what is left, for the last time.
        rest: bool,
    },
    Push {
        slot: usize,
    },
    Row {
        shard: usize,
        header: Header,
    },
    /// A difference is here, as a body; as floats; subtracted.
    Delta {
        shard: usize,
        header: Header,
    },
    Expand {
        shard: usize,
        header: Header,
    },
    Subtract {
        shard: usize,
        header: Header,
    },
    /// Parameters for a server that has started anew.
    Offer,
    Local,
    Refresh,
    Leave {
        server: PeerId,
        stays: bool,
    },
}

#[derive(Copy, Clone, Debug, Default)]
struct Push {
    weight: u32,
    /// Transmissions that still read its buffer.
    sending: u32,
}

/// One shard as this worker knows it.
#[derive(Clone, Debug)]
struct Row {
    first: usize,
    len: usize,
    /// Version that was received last.
    version: Clock,
    /// Version that the application computes with.
    base: Clock,
    /// Versions that the contributions in `pushes` were made from.
    bases: Vec<Clock>,
    /// Bytes of these contributions, once they are known.
    lengths: Vec<Option<u32>>,
    /// Where bodies of this shard begin, pushed and pulled.
    starts: (u64, u64),
    /// Steps of everyone that are in `version`.
    clock: Clock,
    /// This worker's own steps.
    own: Clock,
    /// Last contribution that the shard has answered.
    answered: Sequence,
    progress: Progress,
    /// Its parameters are not whole: their transmission broke off.
    torn: bool,
    /// A row has come that is not in the view yet.
    newer: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// No parameters have come yet.
    Awaited,
    Idle,
    Receiving,
    /// The final parameters are here.
    Last,
}

impl Worker {
    pub(crate) fn new(setup: Setup) -> Self {
        let (shards, window) = (setup.recipe.shards(), window(&setup.recipe));
        let ranges = || (0..shards).map(|shard| shard_range(setup.len, shards, shard));
        let room = Room::from(FIRST_CODING);
        let encoding = Encoding::new(&setup, setup.recipe.codec, setup.recipe.correction, ranges(), room);
        let room = Room { sections: PULL_SECTIONS, ..room };
        let pull = Encoding::new(&setup, setup.recipe.pull, Correction::none(), ranges(), room);
        let mut starts = (0, 0);
        let row = |index| {
            let range = shard_range(setup.len, shards, index);
            let start = starts;
            starts =
                (starts.0 + encoding.len_max(index as usize) as u64, starts.1 + pull.len_max(index as usize) as u64);
            Row {
                first: range.start,
                len: range.len(),
                version: Clock(0),
                base: Clock(0),
                bases: vec![Clock(0); window],
                lengths: vec![None; window],
                starts: start,
                clock: Clock(0),
                own: Clock(0),
                answered: Sequence(0),
                progress: Progress::Awaited,
                torn: false,
                newer: false,
            }
        };
        let mut worker = Self {
            rows: (0..shards).map(row).collect(),
            sequence: Sequence(0),
            pushes: vec![Push::default(); window],
            encoding,
            pull,
            flushed: false,
            weight: 0,
            lead_max: lead_max(&setup.recipe),
            told: vec![false; setup.cluster.servers as usize],
            telling: vec![false; setup.cluster.servers as usize],
            renewing: vec![false; setup.cluster.servers as usize],
            state: State::Joining,
            hub: Hub::new(setup),
        };
        let (push, pull) = (&worker.encoding, &worker.pull);
        for encoding in [push, pull].into_iter().filter(|encoding| !encoding.is_plain()) {
            encoding.kernels().for_each(|kernel| worker.hub.compute(kernel, Job::Aside));
        }
        worker
    }

    fn on_notice(&mut self, notice: Notice<Job>) -> Result<(), Misuse> {
        match notice {
            Notice::Agreed { peer, fresh } => self.on_agreed(peer, fresh),
            Notice::Message { peer, header } => self.on_message(peer, header),
            Notice::Done { purpose, result } => self.on_done(purpose, result),
            Notice::Failed { purpose } => self.on_failed(purpose),
            Notice::Step { weight } => self.on_step(weight)?,
            Notice::Leave { stay, keep } => self.on_leave(stay, keep)?,
            Notice::Again => self.on_again(),
            Notice::Rate { scale } => self.encoding.set_rate(scale),
            Notice::Tick => {}
        }
        Ok(())
    }

    // The application

    fn on_step(&mut self, weight: u32) -> Result<(), Misuse> {
        if self.state != State::Ready {
            return Err(Misuse::NotReady);
        }
        self.state = State::Stepping;
        self.contribute(weight, false);
        // With a window of one, the answer replaces the view; else the view goes on from the own update.
        if self.pushes.len() > 1 && weight > 0 {
            let (view, update) = (self.whole(VIEW), self.whole(self.update(self.sequence)));
            self.hub.compute(Kernel::Apply { from: view, update, scale: self.scale(), into: view }, Job::Local);
        }
        Ok(())
    }

    fn on_leave(&mut self, stays: bool, keep: bool) -> Result<(), Misuse> {
        if matches!(self.state, State::Leaving { .. } | State::Left) {
            return Err(Misuse::NotReady);
        }
        self.state = State::Leaving { stays };
        self.flushed = keep;
        Ok(())
    }

    fn on_again(&mut self) {
        if self.sequence == Sequence(0) {
            self.encoding.forget().for_each(|kernel| self.hub.compute(kernel, Job::Clip));
            self.hub.event(Event::Outdated);
        }
    }

    /// Tells a server, once it has all contributions; one that is not connected is told when it is.
    fn tell_leave(&mut self, server: PeerId, stays: bool) -> bool {
        let mut shards = self.rows.iter().enumerate().filter(|(shard, _)| self.server(*shard) == server);
        let knows = |row: &Row| row.answered == self.sequence && row.progress != Progress::Awaited;
        if !self.hub.is_agreed(server) || !shards.all(|(_, row)| knows(row)) {
            return false;
        }
        let base = Clock(u64::from(stays));
        let header = Header { sequence: self.sequence, base, ..self.hub.header(Kind::Leave) };
        self.hub.transmit(server, header, None, Job::Leave { server, stays });
        true
    }

    /// With the final parameters here, the servers are told that they need not wait either.
    fn maybe_left(&mut self) {
        let State::Leaving { stays } = self.state else { return };
        if !self.flushed {
            return;
        }
        for server in self.servers() {
            let index = self.server_index(server);
            if !stays && self.hub.presence(server) == Presence::Lost {
                // Nothing more is wanted of it.
                self.told[index] = true;
            } else if !core::mem::replace(&mut self.telling[index], true) {
                self.telling[index] = self.tell_leave(server, stays);
            }
        }
        if stays && self.rows.iter().all(|row| row.progress == Progress::Last) {
            self.state = State::Leaving { stays: false };
            self.told.fill(false);
            self.telling.fill(false);
            self.maybe_left();
        } else if !stays && self.told.iter().all(|told| *told) {
            self.state = State::Left;
            self.hub.signal(Signal::Left);
        }
    }

    // The servers

    fn on_agreed(&mut self, server: PeerId, fresh: bool) {
        if self.hub.setup.cluster.is_worker(server) {
            return;
        }
        let shards: Vec<usize> = (0..self.rows.len()).filter(|shard| self.server(*shard) == server).collect();
        let index = self.server_index(server);
        self.telling[index] = false;
        // A server that started anew has forgotten the parameters: it is offered those that are here.
        if fresh && self.state == State::Left {
            // It need not wait for this worker.
            self.hub.notify(server, Header { sequence: self.sequence, ..self.hub.header(Kind::Leave) });
            return;
        }
        if fresh && !self.hub.has {
            // What its former self sent does not count.
            shards.iter().for_each(|shard| self.rows[*shard].progress = Progress::Awaited);
        }
        self.renewing[index] |= fresh && self.hub.has;
        if self.renewing[index] {
            shards.into_iter().for_each(|shard| self.offer(shard));
            return;
        }
        for shard in shards {
            let mut unanswered = self.rows[shard].answered.next();
            while unanswered <= self.sequence {
                self.hub.counters.resent += 1;
                self.push(shard, unanswered);
                unanswered = unanswered.next();
            }
        }
    }

    fn on_lost(&mut self, peer: PeerId) {
        match self.state {
            _ if self.hub.setup.cluster.is_worker(peer) => {}
            State::Left => {}
            // Nothing more is wanted of it.
            State::Leaving { stays: false } => {
                let index = self.server_index(peer);
                self.told[index] = true;
            }
            // Where nobody comes back, there is nothing to wait for.
            _ if self.hub.setup.patience.dead_after().is_zero() => self.hub.signal(Signal::Cut { peer }),
            _ => self.hub.event(Event::PeerLost { peer }),
        }
    }

    fn on_message(&mut self, peer: PeerId, header: Header) {
        match header.kind {
            Kind::Params | Kind::Delta if !self.hub.setup.cluster.is_worker(peer) => {
                match self.check_params(peer, &header) {
                    Ok(()) => self.hub.hold(peer, header),
                    Err(reason) => self.hub.close(peer, reason),
                }
            }
            kind => self.hub.close(peer, ProtocolError::Unexpected { kind }),
        }
    }

    fn check_params(&self, peer: PeerId, header: &Header) -> Result<(), ProtocolError> {
        let (kind, got) = (header.kind, header.shard);
        let row = self.rows.get(got.0 as usize).ok_or(ProtocolError::NoSuchShard { got })?;
        let got = header.length;
        let (delta, longest) = (kind == Kind::Delta, self.pull.len_max(header.shard.0 as usize) as u32);
        let expected = if delta { longest } else { row.len as u32 * 4 };
        let fits = if delta { !self.pull.is_plain() && (1..=longest).contains(&got) } else { got == expected };
        if !fits {
            return Err(ProtocolError::Length { kind, expected, got });
        }
        if self.server(header.shard.0 as usize) != peer {
            return Err(ProtocolError::NoSuchShard { got: header.shard });
        }
        if header.sequence > self.sequence {
            return Err(ProtocolError::Gap { expected: self.sequence.0, got: header.sequence.0 });
        }
        Ok(())
    }

    /// Takes the rows that have come, unless the view is being made from the ones before.
    fn maybe_receive(&mut self) {
        if matches!(self.state, State::Refreshing { .. }) {
            return;
        }
        // One after the other: what comes again after a broken connection must not meet a difference half applied.
        loop {
            let idle = |header: &Header| self.rows[header.shard.0 as usize].progress != Progress::Receiving;
            let next = self.hub.held().find(|(_, header)| idle(header));
            let Some((peer, header)) = next else { return };
            self.hub.release(peer, &header);
            let shard = header.shard.0 as usize;
            self.rows[shard].progress = Progress::Receiving;
            if header.kind == Kind::Delta {
                self.hub.receive(peer, self.pulled(shard, header.length), Job::Delta { shard, header });
                continue;
            }
            // Final parameters have nothing on top.
            let direct = self.pushes.len() == 1 || header.weight == 1;
            let into = self.part(if direct { VIEW } else { ROWS }, shard);
            self.hub.receive(peer, into, Job::Row { shard, header });
        }
    }

    fn on_done(&mut self, job: Job, result: KernelResult) {
        match job {
            Job::Aside => {}
            Job::Clip => self.encoding.on_clipped(result),
            Job::Encode { shard, sequence, rest } => self.on_encoded(shard, sequence, rest, result),
            Job::Push { slot } => self.pushes[slot].sending -= 1,
            Job::Row { shard, header } => self.on_row(shard, header),
            Job::Delta { shard, header } => {
                let (coding, sections) = (self.pull.coding(shard, u64::MAX), self.pull.sections(shard));
                let (body, into) = (self.pulled(shard, header.length), self.part(DIFFERENCE, shard));
                self.hub.compute(Kernel::Expand { coding, body, sections, into }, Job::Expand { shard, header });
            }
            Job::Expand { shard, .. } if matches!(result, KernelResult::Malformed(_)) => {
                // A server that writes nonsense cannot be trained with.
                let peer = self.server(shard);
                self.hub.counters.rejected += 1;
                if let KernelResult::Malformed(error) = result {
                    self.hub.event(Event::Rejected { peer, reason: Rejection::Malformed(error) });
                }
                self.hub.signal(Signal::Cut { peer });
            }
            Job::Expand { shard, header } => {
                let (view, update) = (self.part(VIEW, shard), self.part(DIFFERENCE, shard));
                let kernel = Kernel::Apply { from: view, update, scale: 1.0, into: view };
                self.hub.compute(kernel, Job::Subtract { shard, header });
            }
            Job::Subtract { shard, header } => self.on_row(shard, header),
            Job::Local | Job::Offer => {}
            Job::Refresh => {
                if let State::Refreshing { kernels } = &mut self.state {
                    *kernels -= 1;
                }
            }
            Job::Leave { server, stays } => {
                let index = self.server_index(server);
                self.told[index] |= self.state == State::Leaving { stays };
            }
        }
    }

    fn on_failed(&mut self, job: Job) {
        match job {
            Job::Push { slot } => self.pushes[slot].sending -= 1,
            Job::Row { shard, .. } => {
                self.rows[shard].progress = Progress::Idle;
                (self.rows[shard].torn, self.rows[shard].newer) = (true, false);
            }
            Job::Delta { shard, .. } => self.rows[shard].progress = Progress::Idle,
            _ => {}
        }
    }

    fn on_row(&mut self, shard: usize, header: Header) {
        let renewed =
            self.rows[shard].progress == Progress::Receiving && self.renewing[self.server_index(self.server(shard))];
        let row = &mut self.rows[shard];
        if renewed {
            self.hub.counters.lost += header.sequence.0.saturating_sub(row.answered.0);
        }
        row.torn = false;
        row.answered = row.answered.max(header.sequence);
        row.version = header.base;
        row.newer = true;
        row.progress = if header.weight == 1 { Progress::Last } else { Progress::Idle };
        if let Some(lead) = header.weight.checked_sub(WELCOME) {
            // What is under way comes on top.
            let ahead = u64::from(lead) + (self.sequence.0 - row.answered.0);
            (row.clock, row.own) = (header.clock, Clock(header.clock.0 + ahead));
        } else {
            row.clock = row.clock.max(header.clock);
        }
        if renewed {
            self.on_renewed(shard);
        }
    }

    fn maybe_joined(&mut self) {
        let whole = |row: &Row| row.progress == Progress::Idle && !row.torn;
        if self.state != State::Joining || !self.rows.iter().all(whole) {
            return;
        }
        if self.pushes.len() > 1 {
            self.refresh();
        } else {
            self.become_ready(true);
        }
    }

    // Going on

    /// Is the application free to compute its next contribution, as far as this shard is concerned?
    fn may_go_on(&self, row: &Row) -> bool {
        let under_way = self.sequence.0 - row.answered.0;
        (under_way as usize) < self.pushes.len()
            && may_read(row.own, row.clock, self.lead_max)
            && row.progress == Progress::Idle
            && !row.torn
    }

    /// Is there room for another contribution, and may it be made?
    fn is_free(&self) -> bool {
        let buffer_is_free = self.pushes[self.slot(self.sequence.next())].sending == 0;
        buffer_is_free && self.rows.iter().all(|row| self.may_go_on(row))
    }

    fn maybe_ready(&mut self) {
        match self.state {
            State::Stepping => {
                if !self.is_free() {
                    return;
                }
                if self.rows.iter().any(|row| row.newer) && self.pushes.len() > 1 {
                    self.refresh();
                } else {
                    self.become_ready(false);
                }
            }
            State::Refreshing { kernels: 0 } => self.become_ready(self.sequence == Sequence(0)),
            _ => {}
        }
    }

    /// `view = row - own updates that are not in it`, shard by shard.
    fn refresh(&mut self) {
        let mut kernels = 0;
        for shard in 0..self.rows.len() {
            if !core::mem::take(&mut self.rows[shard].newer) {
                continue;
            }
            let (mut from, into) = (self.part(ROWS, shard), self.part(VIEW, shard));
            let mut missing = self.rows[shard].answered.next();
            while missing <= self.sequence && !planted!(self.hub, OwnWritesLost) {
                if self.pushes[self.slot(missing)].weight > 0 {
                    let update = self.part(self.update(missing), shard);
                    self.hub.compute(Kernel::Apply { from, update, scale: self.scale(), into }, Job::Refresh);
                    (from, kernels) = (into, kernels + 1);
                }
                missing = missing.next();
            }
            if from != into {
                self.hub.compute(Kernel::Copy { from, into }, Job::Refresh);
                kernels += 1;
            }
        }
        self.state = State::Refreshing { kernels };
    }

    fn become_ready(&mut self, joined: bool) {
        self.state = State::Ready;
        self.hub.has = true;
        for row in &mut self.rows {
            row.base = row.version;
            row.newer = false;
        }
        let clock = self.clock();
        let signal = if joined { Signal::Joined { clock } } else { Signal::Ready { clock, changed: true } };
        self.hub.signal(signal);
    }

    fn note_waiting(&mut self) {
        let missing = match self.state {
            State::Joining => self.rows.iter().position(|row| row.progress == Progress::Awaited || row.torn),
            State::Stepping => self.rows.iter().position(|row| !self.may_go_on(row)),
            State::Leaving { .. } if !self.flushed => self.rows.iter().position(|row| !self.may_go_on(row)),
            State::Leaving { .. } => self.rows.iter().position(|row| row.progress != Progress::Last),
            State::Ready | State::Refreshing { .. } | State::Left => None,
        };
        match missing {
            Some(shard) => self.hub.wait_for(self.server(shard), self.rows[shard].clock, self.clock()),
            None => self.hub.stop_waiting(),
        }
        let Some(notice) = self.hub.take_stall() else { return };
        for server in self.servers().filter(|server| *server != notice.origin) {
            if self.hub.is_agreed(server) {
                self.hub.notify(server, notice);
            }
        }
    }

    // Places

    fn clock(&self) -> Clock {
        self.rows.iter().map(|row| row.own).min().unwrap_or_default()
    }

    /// What the own update counts for until the servers have merged it.
    fn scale(&self) -> f32 {
        match self.hub.setup.recipe.merge {
            Merge::Sum { lambda } => lambda,
            Merge::Softsync { updates } => 1.0 / updates as f32,
            Merge::Mean => 1.0,
        }
    }

    fn slot(&self, sequence: Sequence) -> usize {
        (sequence.0 % self.pushes.len() as u64) as usize
    }

    fn update(&self, sequence: Sequence) -> BufferId {
        BufferId(FIRST_UPDATE + self.slot(sequence) as u32)
    }

    fn part(&self, buffer: BufferId, shard: usize) -> Segment {
        Segment::floats(buffer, self.rows[shard].first, self.rows[shard].len)
    }

    fn pulled(&self, shard: usize, len: u32) -> Segment {
        Segment { buffer: PULLED, start: self.rows[shard].starts.1, len }
    }

    fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.hub.setup.len)
    }

    fn server(&self, shard: usize) -> PeerId {
        self.hub.setup.cluster.server_of(ShardId(shard as u32))
    }

    fn server_index(&self, server: PeerId) -> usize {
        (server.0 - self.hub.setup.cluster.workers) as usize
    }

    fn servers(&self) -> impl Iterator<Item = PeerId> + use<> {
        let cluster = self.hub.setup.cluster;
        (cluster.workers..cluster.nodes()).map(PeerId)
    }
}

impl Machine for Worker {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Some(notice) = self.hub.handle_input(now, input)? {
            self.on_notice(notice)?;
        }
        while let Some(peer) = self.hub.take_lost() {
            self.on_lost(peer);
        }
        self.maybe_receive();
        self.maybe_joined();
        self.maybe_ready();
        self.maybe_flush();
        self.maybe_left();
        self.note_waiting();
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        self.hub.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        let [ours, theirs] = self.hub.buffers();
        let len = self.hub.setup.len * 4;
        let rows = if self.pushes.len() > 1 { len } else { 0 };
        let mut buffers = vec![ours, theirs, len, rows];
        let bodies = |encoding: &Encoding| (0..self.rows.len()).map(|shard| encoding.len_max(shard)).sum();
        buffers.extend(self.encoding.buffers());
        let [_, sections, ..] = self.pull.buffers();
        buffers.extend(if self.pull.is_plain() { [0; 3] } else { [sections, bodies(&self.pull), len] });
        buffers.extend(self.pushes.iter().map(|_| len));
        let encoded = if self.encoding.is_plain() { 0 } else { bodies(&self.encoding) };
        buffers.extend(self.pushes.iter().map(|_| encoded));
        buffers
    }

    fn contribution(&self) -> BufferId {
        self.update(self.sequence.next())
    }

    fn view(&self) -> BufferId {
        VIEW
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        self.encoding.saved()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.hub.waiting()
    }

    fn status(&self) -> Status {
        let mut status = self.hub.status(Role::Worker, self.clock(), |_| Clock(0));
        status.workers.clear();
        self.encoding.report(status)
    }
}
