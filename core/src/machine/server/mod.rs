//! The parameter server: holds shards, applies the workers' contributions by the recipe's merge rule, and answers each
//! with parameters as soon as the recipe's pace allows.
//!
//! ```text
//! Push arrives -> its turn, and a free inbox? -> receive -> scan -> queue of its shard -> merge rule -> commit -> reply
//!                 no: held; the body stays with the worker
//! ```
//! Every shard keeps a few *versions* of its parameters. An application writes in place if no reply reads the current
//! version, else into a free one. So a slow worker pins the version that it is being sent, and holds up no other.
//!
//! Synchronous recipes take the contributions of a round in rank order. So the order of arrival has no effect on the
//! result, and one inbox serves any number of workers.
//!
//! With a codec for contributions, a body is expanded to floats before anything else happens to it. With a codec for
//! parameters, the server keeps an *echo*: the parameters as each worker holds them. It sends the difference to the
//! echo. The part of a difference that the codec leaves out stays in the next difference.
//!
//! | file | |
//! |---|---|
//! | `shard.rs` | a shard: versions, clocks, and a [`Seat`] per worker |
//! | `lives.rs` | the workers as this server knows them |
//! | `inbox.rs` | the places for contributions |
//! | `receive.rs` | contributions from the wire to a shard's queue |
//! | `first.rs` | rounds that wait for the first contributions only |
//! | `apply.rs` | contributions from the queue to the parameters |
//! | `reply.rs`, `pull.rs` | parameters to the workers, as they are or as differences |
//! | `repeat.rs` | the last contributions, to be applied again, and magnitudes |
//! | `members.rs` | workers that enter, leave and are lost; the end of the run |
//! | `renew.rs` | a restarted server takes the parameters back from the workers |

mod apply;
mod first;
mod inbox;
mod lives;
mod members;
mod pull;
mod receive;
mod renew;
mod repeat;
mod reply;
mod shard;

use alloc::vec;
use alloc::vec::Vec;

use inbox::{INBOXES, Inboxes};
use lives::{Life, Lives};
use pull::Pulls;
use shard::Shard;

use super::commit::Commit;
use super::encoding::Encoding;
use super::host::Role;
use super::hub::{self, Awaited, Hub, Incoming};
use super::{Misuse, ProtocolError};
use crate::buffer::BufferId;
use crate::id::{PeerId, ShardId};
use crate::kernel::KernelResult;
use crate::layout::shard_range;
use crate::rule::pace::{First, lead_max};
use crate::status::{Presence, Role as RoleName, Status};
use crate::time::{Instant, StepTime};
use crate::vectors::Keep;
use crate::wire::{Message, Offer, Reply};

type Port<'a> = hub::Port<'a, Job>;

/// A node that holds the shards `k` with `k % servers == rank - workers`. Its view is the whole vector; only its own
/// shards in it matter.
#[derive(Debug)]
pub(crate) struct Server {
    shards: Vec<Shard>,
    /// The first version of all shards: the initial and the final parameters of the whole vector.
    view: BufferId,
    inboxes: Inboxes,
    /// The decoder of contributions.
    push: Encoding,
    /// The encoders of parameters.
    pulls: Pulls,
    commit: Commit,
    workers: Lives,
    /// By worker: the time of a local step, as it has told last.
    step_times: Vec<Option<StepTime>>,
    /// The step times of the workers that take part, to be sorted.
    sorted: Vec<StepTime>,
    /// The largest lead with which a worker may compute.
    lead_max: Option<u64>,
    /// For rounds that do not wait for all.
    first: Option<First>,
    /// By worker: the hint has been given that it is always late.
    hinted: Vec<bool>,
    state: State,
    /// When this server learned that it takes the place of an earlier process.
    renewing: Option<Instant>,
    /// At the start: the workers below this rank are there, and have offered their parameters if they have any.
    here_to: u32,
    /// An offer is held.
    holds_offers: bool,
    /// A held contribution of a worker may have become due for another reason than its turn or a free inbox: since its
    /// round is over, or since it is known.
    recheck: bool,
    /// No worker is connected that takes part: all have been lost, or have left.
    alone: bool,
    /// When the first worker came back to a server that had lost all workers. The rest may come back at the same time,
    /// and must not find that the run is over.
    found_since: Option<Instant>,
    /// When a wait at the start or at the end of the run is over.
    alarm: Option<Instant>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    /// Until all workers have said hello.
    Starting,
    Running,
    /// All workers have left: gathered contributions are applied, and the workers that stayed get the final parameters.
    Ending,
    Finished,
}

/// Why an operation was started.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Job {
    /// To receive the shard that a worker offers a restarted server.
    Offer { shard: usize, worker: PeerId, offer: Offer },
    /// To receive a contribution.
    Receive { inbox: usize },
    /// To find out whether a contribution is finite, or can be decoded.
    Scan { inbox: usize },
    /// To merge a contribution: into the version `into`, or into the gathered vector.
    Merge { shard: usize, inbox: usize, into: Option<usize> },
    /// To commit the gathered vector to the version `into`.
    Apply { shard: usize, into: usize },
    /// To send a version.
    Reply { shard: usize, version: usize, worker: PeerId, owed: Owed },
    /// To prepare for kernels that come later. Kernels run in order, so its end has no consequence.
    Prepare,
    /// To measure the mean of the magnitudes of a shard's updates.
    Measure { shard: usize },
    /// To copy a version to a worker's echo.
    Echo { shard: usize, version: usize, worker: PeerId },
    /// To encode the difference between a worker's echo and a version.
    Write { shard: usize, version: usize, worker: PeerId, owed: Owed, reply: Reply },
    /// To subtract the encoded difference from the echo.
    Followed { shard: usize, worker: PeerId },
    /// To send a difference, or the whole echo.
    Send { shard: usize, worker: PeerId, owed: Owed },
    /// To copy the shard's final parameters to the view.
    View { shard: usize },
}

/// Parameters that a worker is owed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    /// The worker enters, and needs the clock that it enters at.
    Welcome,
    /// The worker has contributed. Due when the pace allows.
    Answer,
    /// The worker has contributed, and asks for no parameters: it is told that the contribution is here.
    Receipt,
    /// The final parameters.
    Final,
}

impl Server {
    pub(crate) fn new(hub: &mut Port<'_>) -> Self {
        let setup = hub.setup.clone();
        let (cluster, recipe, len) = (setup.cluster, setup.recipe, setup.len);
        let count = recipe.shards();
        let mine = (0..count).filter(|id| cluster.server_of(ShardId(*id)) == setup.me);
        let ranges = || mine.clone().map(|id| shard_range(len, count, id));
        let vectors = &mut hub.vectors;
        let view = vectors.floats("view", len, Keep::No);
        let push = Encoding::decoder(&setup, recipe.codec, recipe.correction, ranges(), vectors);
        let longest = (0..ranges().count()).map(|shard| push.len_max(shard)).max().unwrap_or(0);
        let first = First::new(&recipe, cluster.workers);
        // A round that waits for all takes one contribution to each shard at a time.
        let own = ranges().count();
        let unless_first = if recipe.is_synchronous() { INBOXES.min(own.max(1)) } else { INBOXES };
        let inboxes = first.map_or(unless_first, |first| Self::inboxes_of(&first, cluster.workers, own));
        let kept = if first.is_some() { inboxes } else { 1 };
        let shards = mine.clone().map(|id| Shard::new(&setup, ShardId(id), view, inboxes, vectors)).collect();
        let body_len = if push.is_plain() { 0 } else { longest };
        let server = Self {
            shards,
            view,
            inboxes: Inboxes::new([inboxes, kept], len.div_ceil(count as usize), body_len, setup.keep_below, vectors),
            push,
            pulls: Pulls::new(&setup, ranges, vectors),
            commit: Commit::new(&recipe, cluster.workers, len, false, vectors),
            workers: Lives::new(cluster.workers),
            step_times: vec![None; cluster.workers as usize],
            sorted: Vec::with_capacity(cluster.workers as usize),
            lead_max: lead_max(&recipe),
            first,
            hinted: vec![false; cluster.workers as usize],
            state: State::Starting,
            renewing: None,
            here_to: 0,
            holds_offers: false,
            recheck: false,
            alone: false,
            found_since: None,
            alarm: None,
        };
        let encodings = server.pulls.encodings().chain(Some(&server.push)).filter(|encoding| !encoding.is_plain());
        encodings.flat_map(Encoding::kernels).for_each(|kernel| hub.compute(kernel, Job::Prepare));
        server
    }

    fn shard_of(&self, hub: &Hub, id: ShardId) -> usize {
        (id.0 / hub.setup.cluster.servers) as usize
    }

    fn settle_shards(&mut self, hub: &mut Port<'_>) {
        for shard in 0..self.shards.len() {
            // Replies come first: a worker's staleness counts from the parameters right after its own push.
            self.maybe_reply(hub, shard);
            self.maybe_close(hub, shard);
            self.maybe_merge(hub, shard);
            self.maybe_end_round(hub, shard);
            // The merge or the end of the round may have brought a worker within its bound.
            self.maybe_reply(hub, shard);
        }
    }

    /// The shard that a message is about, if this server holds it.
    fn find_shard(&self, got: ShardId) -> Result<&Shard, ProtocolError> {
        self.shards.iter().find(|shard| shard.id == got).ok_or(ProtocolError::NoSuchShard { got })
    }
}

impl Role for Server {
    type Job = Job;

    fn on_agreed(&mut self, hub: &mut Port<'_>, peer: PeerId, fresh: bool) {
        if hub.setup.cluster.is_worker(peer) {
            self.on_worker(hub, peer, fresh);
        }
    }

    fn on_lost(&mut self, hub: &mut Port<'_>, peer: PeerId) {
        if hub.setup.cluster.is_worker(peer) {
            self.on_worker_lost(hub, peer);
        }
    }

    fn needs(&self, _hub: &Hub, _peer: PeerId) -> bool {
        false
    }

    fn on_message(&mut self, hub: &mut Port<'_>, incoming: Incoming) {
        let Incoming { peer, message, .. } = incoming;
        if !hub.setup.cluster.is_worker(peer) {
            return hub.close(peer, ProtocolError::Unexpected { kind: message.kind() });
        }
        match message {
            Message::Push(push) => self.on_push(hub, incoming, push),
            Message::Offer(offer) => self.on_offer(hub, incoming, offer),
            Message::Leave(leave) => self.on_worker_leaves(hub, peer, leave.stays),
            _ => hub.close(peer, ProtocolError::Unexpected { kind: message.kind() }),
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_>, job: Job, result: KernelResult) {
        match job {
            Job::Offer { shard, worker, offer } => self.on_offered(hub, shard, worker, offer),
            Job::Receive { inbox } => self.on_received(hub, inbox),
            Job::Scan { inbox } => self.on_scanned(hub, inbox, result),
            Job::Merge { shard, inbox, into } => {
                self.shards[shard].busy = false;
                match into {
                    Some(version) => self.on_applied(hub, shard, version),
                    None => self.maybe_full(hub, shard),
                }
                self.account(hub, inbox);
            }
            Job::Apply { shard, into } => {
                self.shards[shard].busy = false;
                self.on_applied(hub, shard, into);
            }
            Job::Reply { shard, version, .. } => self.shards[shard].readers[version] -= 1,
            Job::Prepare => {}
            Job::Measure { shard } => self.on_measured(shard, result),
            Job::Echo { shard, version, worker } => {
                self.shards[shard].readers[version] -= 1;
                self.shards[shard].seat(worker).echo.busy -= 1;
            }
            Job::Write { shard, version, worker, owed, reply } => {
                self.shards[shard].readers[version] -= 1;
                self.on_written(hub, shard, worker, owed, reply, result);
            }
            Job::Followed { shard, worker } | Job::Send { shard, worker, .. } => {
                self.shards[shard].seat(worker).echo.busy -= 1;
            }
            Job::View { shard } => self.shards[shard].busy = false,
        }
    }

    fn on_failed(&mut self, hub: &mut Port<'_>, job: Job) {
        match job {
            #[cfg(planted)]
            Job::Receive { inbox } if planted!(hub, StaleBody) => self.on_received(hub, inbox),
            // The worker offers the shard again when it is back.
            Job::Offer { shard, .. } => self.shards[shard].receiving_offer = false,
            Job::Receive { inbox } => self.on_not_received(hub, inbox),
            Job::Reply { shard, version, worker, owed } => {
                self.shards[shard].readers[version] -= 1;
                self.owe_again(hub, shard, worker, owed);
            }
            Job::Send { shard, worker, owed } => {
                self.shards[shard].seat(worker).echo.busy -= 1;
                self.owe_again(hub, shard, worker, owed);
            }
            _ => {}
        }
    }

    fn on_step(&mut self, _hub: &mut Port<'_>, _weight: u64) -> Result<(), Misuse> {
        Err(Misuse::NotReady)
    }

    fn on_leave(&mut self, _hub: &mut Port<'_>, _stay: bool, _keep: bool) -> Result<(), Misuse> {
        Err(Misuse::NotReady)
    }

    fn settle(&mut self, hub: &mut Port<'_>) {
        self.take_offers(hub);
        self.maybe_start(hub);
        self.maybe_end_head_start(hub);
        self.maybe_receive(hub);
        loop {
            let decisions = hub.decisions();
            self.settle_shards(hub);
            // Merging has freed inboxes, and the next round has begun.
            let received = self.maybe_receive(hub);
            // A contribution without a body is here at once, and a decision lets the next one of a tape be made.
            let can_merge = |index: usize| self.shards[index].can_merge() && self.next_to_merge(hub, index).is_some();
            let may_close = self.first.is_some() && received;
            if hub.decisions() == decisions && !may_close && !(0..self.shards.len()).any(can_merge) {
                break;
            }
        }
        self.maybe_end(hub);
        // The end owes the final parameters to the workers that stayed.
        (0..self.shards.len()).for_each(|shard| self.maybe_reply(hub, shard));
        let alarm = self.alarm.into_iter().chain(self.closes_at(hub)).min();
        hub.set_alarm(alarm);
    }

    fn awaited(&self, hub: &Hub) -> Option<Awaited> {
        match self.state {
            State::Starting => self.awaited_at_start(),
            State::Running if self.alone => self.first_lost(),
            State::Running => self.held_up(hub).or_else(|| self.awaited_starter(hub)).or_else(|| self.stays_for()),
            State::Ending | State::Finished => None,
        }
    }

    fn is_awaited_by(&self, hub: &Hub, peer: PeerId) -> bool {
        hub.setup.cluster.is_worker(peer)
    }

    fn state(&self) -> Vec<BufferId> {
        self.commit.state().iter().map(|places| places[0]).collect()
    }

    fn contribution(&self) -> BufferId {
        self.view()
    }

    fn view(&self) -> BufferId {
        self.view
    }

    fn status(&self, hub: &Hub) -> Status {
        let clock = self.shards.iter().map(|shard| shard.version).max().unwrap_or_default();
        let mut status = hub.status(RoleName::Server, clock, |worker| {
            self.shards.iter().map(|shard| shard.clocks.clock(worker)).min().unwrap_or_default()
        });
        for worker in &mut status.workers {
            // For a member, the hub's view of the connection is better; for other workers, this role's.
            match self.workers.get(worker.rank) {
                Life::Present => {}
                Life::Awaited => worker.state = Presence::Awaited,
                Life::Lost | Life::Stayed | Life::Refused => worker.state = Presence::Lost,
                Life::Staying | Life::Left => worker.state = Presence::Left,
            }
        }
        status
    }
}
