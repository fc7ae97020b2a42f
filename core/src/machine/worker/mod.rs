//! The worker of parameter-server recipes: pushes its contributions, takes the parameters that answer them, and goes on
//! as soon as the recipe's pace allows.
//!
//! ```text
//! step -> Push to every shard -> (window of two: own update applied to the view) -> may it go on? -> Ready
//! ```
//! With a window of two contributions, a worker computes while the last one travels. The parameters that it receives
//! then lack the contributions under way, so it subtracts these again before it uses the parameters (read-my-writes, Ho
//! et al. 2013): a worker always sees its own updates.
//!
//! With a codec, a contribution is encoded first, shard by shard, and the part that the codec leaves out stays in a
//! residual. A worker that leaves keeps its residual or contributes it, as the recipe says. If the servers have a codec of
//! their own, they send differences, which the worker subtracts from its view.
//!
//! | file | |
//! |---|---|
//! | `row.rs` | a shard as this worker has it |
//! | `push.rs` | contributions to the servers |
//! | `pull.rs` | parameters from the servers, and the view made of them |
//! | `thin.rs` | updates that are not sent, and parameters that are not taken |
//! | `leave.rs` | the end |

mod leave;
mod pull;
mod push;
mod row;
mod thin;

use alloc::vec;
use alloc::vec::Vec;

use row::{Progress, Row};
use thin::Thinner;

use super::encoding::Encoding;
use super::host::Role;
use super::hub::{self, Awaited, Hub, Incoming};
use super::{Advice, Event, Failure, Misuse, ProtocolError, Rejection, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::layout::shard_range;
use crate::recipe::Correction;
use crate::rider::Rider;
use crate::rule::own_scale;
use crate::rule::pace::{lead_max, window};
use crate::status::{Role as RoleName, Status};
use crate::time::{Duration, Instant, StepTime};
use crate::vectors::Keep;
use crate::wire::{Message, Occasion, Reply};

type Port<'a> = hub::Port<'a, Job>;

/// Longer than any head start: ten years.
const HEAD_START_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A node that trains.
#[derive(Debug)]
pub(crate) struct Worker {
    rows: Vec<Row>,
    servers: Vec<ServerLink>,
    /// The number of the last contribution.
    sequence: Sequence,
    /// The last contributions, at `sequence % window`.
    pushes: Vec<Push>,
    buffers: Buffers,
    encoding: Encoding,
    /// Decodes the servers' differences.
    pull: Encoding,
    /// The worker makes no more contributions, not even with parts of its residual.
    flushed: bool,
    /// Examples of the last contribution that had any.
    weight: u64,
    /// The application takes parameters after its last contribution. If not, it goes on with its own.
    fetching: bool,
    /// The next contribution repeats the last one with a body.
    repeating: bool,
    thinner: Option<Thinner>,
    /// The mean time of the application's local steps, and that of the reference, where periods follow speeds.
    step_time: Option<StepTime>,
    reference: Option<StepTime>,
    /// The number that travels with the contributions.
    rider: Option<Rider>,
    /// The largest lead with which this worker may compute.
    lead_max: Option<u64>,
    /// Factor on an own update that the servers have not merged yet.
    own_scale: f32,
    state: State,
}

#[derive(Copy, Clone, Debug)]
struct Buffers {
    /// The parameters that the application computes with.
    view: BufferId,
    /// With a window of two: the parameters as the servers sent them, without own updates on top.
    rows: BufferId,
    /// Bodies of differences.
    bodies: BufferId,
    /// Differences as floats.
    difference: BufferId,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Until the first parameters of all shards are here.
    Joining,
    /// The application computes.
    Ready,
    /// A step is under way.
    Stepping,
    /// The view is being made of rows and own updates.
    Refreshing {
        /// Kernels that have not ended.
        kernels: u32,
    },
    /// Until all servers know.
    Leaving {
        /// The worker waits for the final parameters first.
        stays: bool,
    },
    Left,
}

/// One of the last contributions, by slot.
#[derive(Copy, Clone, Debug)]
struct Push {
    weight: u64,
    /// It asks for parameters.
    fetches: bool,
    /// It has no body: the servers apply the last one with a body again.
    repeats: bool,
    /// The number that travels with it.
    rider: Option<Rider>,
    /// Transmissions that still read its buffer.
    sending: u32,
    update: BufferId,
}

/// The facts about one server.
#[derive(Copy, Clone, Debug, Default)]
struct ServerLink {
    /// The message that this worker leaves has been sent on the present connection.
    leave_sent: bool,
    /// It has been sent completely at least once.
    leave_delivered: bool,
    /// The server has restarted, and has not answered this worker's offers yet.
    renewing: bool,
}

/// Why an operation was started.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Job {
    /// To prepare for kernels that come later. Kernels run in order, so its end has no consequence.
    Prepare,
    /// To decide what the contribution of a step consists of.
    Decide,
    /// To measure a contribution.
    Measure,
    /// To clip a shard of the residual.
    Clip { shard: usize },
    /// To encode a shard of a contribution; `rest`: of the residual alone.
    Encode { shard: usize, sequence: Sequence, rest: bool },
    /// To send a shard of the contribution in this slot.
    Push { slot: usize },
    /// To receive parameters.
    Row { shard: usize, reply: Reply },
    /// To receive the body of a difference, of `length` bytes.
    Delta { shard: usize, reply: Reply, length: u32 },
    /// To expand it to floats.
    Expand { shard: usize, reply: Reply },
    /// To subtract it from the view.
    Subtract { shard: usize, reply: Reply },
    /// To offer a shard to a server that has restarted.
    Offer,
    /// To apply an own update to the view.
    Local,
    /// To make the view of rows and own updates.
    Refresh,
    /// To tell a server that this worker leaves.
    Leave { server: PeerId, stays: bool },
}

impl Worker {
    pub(crate) fn new(hub: &mut Port<'_>) -> Self {
        let setup = hub.setup.clone();
        let (shards, window) = (setup.recipe.shards(), window(&setup.recipe));
        let ranges = || (0..shards).map(|shard| shard_range(setup.len, shards, shard));
        let vectors = &mut hub.vectors;
        let view = vectors.floats("view", setup.len, Keep::No);
        let rows = vectors.floats("rows", if window > 1 { setup.len } else { 0 }, Keep::No);
        let encoding = Encoding::encoder(&setup, setup.recipe.codec, setup.recipe.correction, ranges(), vectors);
        let pull = Encoding::decoder(&setup, setup.recipe.pull, Correction::none(), ranges(), vectors);
        let bodies = |encoding: &Encoding| match encoding.is_plain() {
            true => 0,
            false => (0..shards as usize).map(|shard| encoding.len_max(shard)).sum(),
        };
        let differences = if pull.is_plain() { 0 } else { setup.len };
        let buffers = Buffers {
            view,
            rows,
            bodies: vectors.bytes("bodies of differences", bodies(&pull), Keep::No),
            difference: vectors.floats("difference", differences, Keep::No),
        };
        let mut push = || Push {
            weight: 0,
            fetches: true,
            repeats: false,
            rider: None,
            sending: 0,
            update: vectors.floats("update", setup.len, Keep::No),
        };
        let pushes = (0..window).map(|_| push()).collect();
        let thinner = Thinner::new(&setup, vectors);
        let mut pulled = 0;
        let mut row = |(index, range)| {
            let longest = if encoding.is_plain() { 0 } else { encoding.len_max(index) };
            // A transport can still read the body of one shard while that of another is written.
            let body = |_| vectors.bytes("a body of an update", longest, Keep::No);
            let row = Row::new(range, (0..window).map(body).collect(), pulled);
            pulled += pull.len_max(index) as u64;
            row
        };
        let worker = Self {
            rows: ranges().enumerate().map(&mut row).collect(),
            servers: vec![ServerLink::default(); setup.cluster.servers as usize],
            sequence: Sequence(0),
            pushes,
            buffers,
            encoding,
            pull,
            flushed: false,
            weight: 0,
            fetching: true,
            repeating: false,
            thinner,
            step_time: None,
            reference: None,
            rider: None,
            lead_max: lead_max(&setup.recipe),
            own_scale: own_scale(&setup.recipe, setup.cluster.workers),
            state: State::Joining,
        };
        for encoding in [&worker.encoding, &worker.pull].into_iter().filter(|encoding| !encoding.is_plain()) {
            encoding.kernels().for_each(|kernel| hub.compute(kernel, Job::Prepare));
        }
        worker
    }

    /// Steps of this worker, as far as all shards have them.
    fn clock(&self) -> Clock {
        self.rows.iter().map(|row| row.own).min().unwrap_or_default()
    }

    fn slot(&self, sequence: Sequence) -> usize {
        (sequence.0 % self.pushes.len() as u64) as usize
    }

    fn update(&self, sequence: Sequence) -> BufferId {
        self.pushes[self.slot(sequence)].update
    }

    fn part(&self, buffer: BufferId, shard: usize) -> Segment {
        Segment::floats(buffer, self.rows[shard].first, self.rows[shard].len)
    }

    fn server(&self, hub: &Hub, shard: usize) -> PeerId {
        hub.setup.cluster.server_of(ShardId(shard as u32))
    }

    fn link(&mut self, hub: &Hub, server: PeerId) -> &mut ServerLink {
        &mut self.servers[(server.0 - hub.setup.cluster.workers) as usize]
    }
}

impl Role for Worker {
    type Job = Job;

    fn on_agreed(&mut self, hub: &mut Port<'_>, peer: PeerId, fresh: bool) {
        if !hub.setup.cluster.is_worker(peer) {
            self.on_server(hub, peer, fresh);
        }
    }

    fn on_lost(&mut self, hub: &mut Port<'_>, peer: PeerId) {
        match self.state {
            _ if hub.setup.cluster.is_worker(peer) => {}
            State::Left => {}
            // This worker needs nothing from it any more.
            State::Leaving { stays: false } => self.link(hub, peer).leave_delivered = true,
            // The host ends this node, and says why.
            _ if hub.failure(peer).is_some_and(|failure| failure != Failure::Cancelled) => {}
            // If no peer is waited for after its connection broke, the run cannot go on without a server.
            _ if hub.setup.patience.dead_after().is_zero() => hub.signal(Signal::Cut { peer }),
            _ => hub.event(Event::PeerLost { peer }),
        }
    }

    fn needs(&self, hub: &Hub, peer: PeerId) -> bool {
        let is_done = matches!(self.state, State::Left | State::Leaving { stays: false });
        !hub.setup.cluster.is_worker(peer) && !is_done
    }

    fn on_message(&mut self, hub: &mut Port<'_>, incoming: Incoming) {
        let Incoming { peer, message, .. } = incoming;
        match message {
            Message::Params(reply) | Message::Delta(reply) if !hub.setup.cluster.is_worker(peer) => {
                self.on_reply(hub, incoming, reply);
            }
            Message::Receipt { shard, sequence, magnitude } if !hub.setup.cluster.is_worker(peer) => {
                self.on_receipt(hub, incoming, shard, sequence, magnitude);
            }
            _ => hub.close(peer, ProtocolError::Unexpected { kind: message.kind() }),
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_>, job: Job, result: KernelResult) {
        match job {
            Job::Prepare | Job::Local | Job::Offer => {}
            Job::Decide => self.on_decided(hub, result),
            Job::Measure => self.encoding.on_measured(result),
            Job::Clip { shard } => self.encoding.on_clipped(shard, result),
            Job::Encode { shard, sequence, rest } => self.on_encoded(hub, shard, sequence, rest, result),
            Job::Push { slot } => self.pushes[slot].sending -= 1,
            Job::Row { shard, reply } | Job::Subtract { shard, reply } => self.on_row(hub, shard, reply),
            Job::Delta { shard, reply, length } => {
                let (coding, sections) = (self.pull.coding(shard, u64::MAX), self.pull.sections(shard));
                let (body, into) = (self.pulled(shard, length), self.part(self.buffers.difference, shard));
                hub.compute(Kernel::Expand { coding, body, sections, into }, Job::Expand { shard, reply });
            }
            Job::Expand { shard, reply } => match result {
                KernelResult::Malformed(error) => {
                    // The view does not follow the server's parameters any more: this worker cannot go on.
                    let peer = self.server(hub, shard);
                    hub.counters.rejected += 1;
                    hub.event(Event::Rejected { peer, reason: Rejection::Malformed(error) });
                    hub.signal(Signal::Cut { peer });
                }
                _ => {
                    let view = self.part(self.buffers.view, shard);
                    let update = self.part(self.buffers.difference, shard);
                    let kernel = Kernel::Apply { from: view, update, scale: 1.0, into: view };
                    hub.compute(kernel, Job::Subtract { shard, reply });
                }
            },
            Job::Refresh => {
                if let State::Refreshing { kernels } = &mut self.state {
                    *kernels -= 1;
                }
            }
            Job::Leave { server, stays } => {
                // A message of the first stage, when the worker stays, does not count for the second.
                let current = self.state == State::Leaving { stays };
                self.link(hub, server).leave_delivered |= current;
            }
        }
    }

    fn on_failed(&mut self, hub: &mut Port<'_>, job: Job) {
        if matches!(job, Job::Row { .. } | Job::Delta { .. }) && self.pushes.len() > 1 {
            // These parameters count as taken, and come again.
            hub.break_tape();
        }
        match job {
            Job::Push { slot } => self.pushes[slot].sending -= 1,
            Job::Row { shard, reply } => {
                let row = &mut self.rows[shard];
                (row.progress, row.torn, row.newer) = (Progress::Idle, true, false);
                // A second answer, which the server does not owe again: the last contribution asks for another. Final
                // parameters come again by themselves.
                if row.answered == self.sequence && reply.occasion != Occasion::Final {
                    row.answered = Sequence(self.sequence.0.saturating_sub(1));
                }
            }
            Job::Delta { shard, .. } => self.rows[shard].progress = Progress::Idle,
            _ => {}
        }
    }

    fn on_step(&mut self, hub: &mut Port<'_>, weight: u64) -> Result<(), Misuse> {
        if self.state != State::Ready {
            return Err(Misuse::NotReady);
        }
        self.state = State::Stepping;
        self.begin_step(hub, weight);
        // With a window of one, the answer replaces the view; else the view goes on from the own update.
        if self.pushes.len() > 1 && weight > 0 {
            let whole = |buffer| Segment::floats(buffer, 0, hub.setup.len);
            let (view, update) = (whole(self.buffers.view), whole(self.update(self.sequence)));
            hub.compute(Kernel::Apply { from: view, update, scale: self.own_scale, into: view }, Job::Local);
        }
        Ok(())
    }

    fn on_push(&mut self, hub: &mut Port<'_>, weight: u64) -> Result<(), Misuse> {
        // With a larger window, the view has own updates on top, of which receipts would not tell whether it has them.
        if self.state != State::Ready || self.pushes.len() > 1 {
            return Err(Misuse::NotReady);
        }
        self.state = State::Stepping;
        (self.fetching, self.repeating) = (false, false);
        self.contribute(hub, weight, false);
        Ok(())
    }

    fn on_leave(&mut self, _hub: &mut Port<'_>, stay: bool, keep: bool) -> Result<(), Misuse> {
        if matches!(self.state, State::Leaving { .. } | State::Left) {
            return Err(Misuse::NotReady);
        }
        self.state = State::Leaving { stays: stay };
        self.flushed = keep;
        Ok(())
    }

    fn on_rate(&mut self, scale: f32) {
        self.encoding.set_rate(scale);
    }

    fn on_step_time(&mut self, mean: StepTime) {
        self.step_time = Some(mean);
    }

    fn on_rider(&mut self, rider: Option<Rider>) {
        self.rider = rider;
    }

    fn advice(&self) -> Advice {
        Advice { reference: self.reference, ..Advice::default() }
    }

    fn on_outdated(&mut self, hub: &mut Port<'_>) {
        if self.sequence == Sequence(0) {
            let kernels = self.encoding.forget().enumerate();
            kernels.for_each(|(shard, kernel)| hub.compute(kernel, Job::Clip { shard }));
            hub.event(Event::Outdated);
        }
    }

    fn settle(&mut self, hub: &mut Port<'_>) {
        self.maybe_receive(hub);
        self.maybe_joined(hub);
        self.maybe_ready(hub);
        self.maybe_flush(hub);
        self.maybe_left(hub);
    }

    fn awaited(&self, hub: &Hub) -> Option<Awaited> {
        let mut rows = self.rows.iter();
        let missing = match self.state {
            State::Joining => rows.position(|row| row.progress == Progress::Awaited || row.torn),
            State::Stepping => rows.position(|row| !self.may_go_on(row)),
            State::Leaving { .. } if !self.flushed => rows.position(|row| !self.may_go_on(row)),
            State::Leaving { .. } => rows.position(|row| row.progress != Progress::Final),
            State::Ready | State::Refreshing { .. } | State::Left => None,
        };
        let shard = missing?;
        Some(Awaited { on: self.server(hub, shard), at: self.rows[shard].clock, clock: self.clock() })
    }

    /// A head start is no stall: it does not count until a server says that a starter makes no contributions.
    fn excused_until(&self, hub: &Hub) -> Option<Instant> {
        let cluster = hub.setup.cluster;
        let waits = self.state == State::Joining && hub.setup.recipe.correction.comes_later(hub.setup.me.0);
        let connected = || (cluster.workers..cluster.nodes()).all(|server| hub.is_agreed(PeerId(server)));
        let by_itself = hub.waiting().filter(|waiting| waiting.reported_by == hub.setup.me && waits && connected());
        let head_start = by_itself.map(|waiting| waiting.since.after(HEAD_START_MAX));
        hub.awaited_silence().or(head_start)
    }

    fn is_awaited_by(&self, hub: &Hub, peer: PeerId) -> bool {
        !hub.setup.cluster.is_worker(peer)
    }

    fn contribution(&self) -> BufferId {
        self.update(self.sequence.next())
    }

    fn view(&self) -> BufferId {
        self.buffers.view
    }

    fn status(&self, hub: &Hub) -> Status {
        let mut status = hub.status(RoleName::Worker, self.clock(), |_| Clock(0));
        // A worker hears nothing of the others' clocks.
        status.workers.clear();
        self.encoding.report(status)
    }
}
