//! [`SimNode`], one simulated node: a machine, its buffers, and an [`App`] that stands for the training program.

use std::collections::VecDeque;
use std::ops::Range;

use gradwire_core::kernel::{Kernel, KernelResult};
use gradwire_core::wire::{Header, Message};
use gradwire_core::{Duration, Event, Incarnation, Instant, Local, Node, OpId, Order, PeerId, Pool, Segment, Signal};

use crate::leases::Leased;
use crate::network::Message as Flying;
use crate::plan::Plan;

/// The training program of a simulated worker. Steps are counted from 0, over all restarts of the worker.
pub trait App: Send {
    /// The virtual time that the computation of this step takes.
    fn duration(&mut self, step: u64) -> Duration;

    /// Computes the update of this step, which will be subtracted from `params`. Returns the number of examples in it,
    /// the weight of the update.
    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32;

    /// Computes this step with an optimizer that changes the parameters in place, in place of
    /// [`update`](Self::update). Returns the number of examples. `None`: the program has no such optimizer, and has
    /// changed nothing. Not called with `payload=gradients`.
    fn sync(&mut self, _step: u64, _params: &mut [f32]) -> Option<u32> {
        None
    }

    /// The training loss of this step, called after [`update`](Self::update). `None`: the program reports no loss.
    fn loss(&mut self, _step: u64) -> Option<f32> {
        None
    }

    /// The learning rate of this step, relative to that at the start, called after [`update`](Self::update). `None`: it has
    /// not changed.
    fn rate(&mut self, _step: u64) -> Option<f32> {
        None
    }

    /// Called when a contribution of `weight` examples is made: after step `step`, or at the end of the run instead of
    /// it. [`done`](Self::done) for the same step follows with the parameters of the synchronisation.
    fn contributes(&mut self, _step: u64, _weight: u64) {}

    /// Called when the second part of an elastic synchronisation without rounds contributes. The first part has fetched the
    /// center.
    fn second(&mut self, _step: u64, _weight: u64) {}

    /// Called at the end of a step, after its synchronisation if there was one. `params` are the new parameters.
    fn done(&mut self, _step: u64, _params: &[f32]) {}
}

/// The state of a simulated node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Not started, or crashed.
    Down,
    /// Its machine and, of a worker, its program are running.
    Up,
    /// Ended in good order: a worker has left, or a server has finished.
    Done,
    /// Ended because it cannot continue without this peer.
    Cut(PeerId),
}

/// A signal, an event or an entry of the tape of a node's machine, with its time.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "at: virtual time; node: its rank")]
pub struct Log {
    /// The virtual time.
    pub at: Instant,
    /// The node's rank.
    pub node: PeerId,
    /// The signal, event or entry.
    pub entry: Entry,
}

/// An output of a machine that is no operation.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "named as the outputs are")]
pub enum Entry {
    Signal(Signal),
    Event(Event),
    Order(Order),
}

/// An input of a machine, or an action that it has asked for, in a form that tests can count.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "few at a time")]
#[allow(missing_docs, reason = "`peer` is the other node")]
pub enum Deed {
    /// A process of the node starts: all of its counts begin anew.
    Started,
    /// The machine has sent this message.
    Sent { peer: PeerId, header: Header },
    /// The machine was given this header.
    Heard { peer: PeerId, header: Header },
    /// The machine drops the body of this message unread.
    Dropped { peer: PeerId, message: Message },
    /// The machine has read the body of this message into this segment.
    Read { peer: PeerId, message: Message, into: Segment },
    /// The machine has asked for this kernel.
    Asked { kernel: Kernel },
    /// A kernel has ended, and the machine has its result.
    Computed { result: KernelResult },
}

/// The state of a worker's training program.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits until the machine has joined the run.
    Joining,
    /// Computes step `SimNode::step`.
    Computing,
    /// Waits until the machine has the new parameters.
    Syncing,
    /// Has made its last contribution, and waits until all other workers have.
    Finishing,
}

/// A kernel that takes time.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Running {
    pub(crate) op: OpId,
    pub(crate) work: Work,
}

/// How far a [`Running`] kernel is.
#[derive(Copy, Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "each node has one, in place")]
pub(crate) enum Work {
    /// The kernel runs when its time is over.
    Ahead(Kernel),
    /// The kernel has run. The machine gets the result when its time is over.
    Done(KernelResult),
}

/// The receive operation of a message, while its body is being read.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Receiving {
    pub(crate) op: OpId,
    pub(crate) into: Option<Segment>,
}

/// A node's side of the connection with a peer.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// The node's machine wants to be connected with the peer.
    pub(crate) wanted: bool,
    /// Messages that have arrived and not been received.
    pub(crate) inbox: VecDeque<Flying>,
    /// The machine has the header of the first message in `inbox`, and has not received its body.
    pub(crate) reading: bool,
    /// The operation that reads the body of the first message in `inbox`, if that takes time.
    pub(crate) receiving: Option<Receiving>,
    /// The machine regards the peer as connected. It learns of a broken connection later than the network.
    pub(crate) connected: bool,
    /// Operations on a broken connection. They are aborted when the machine learns that it broke.
    pub(crate) limbo: Vec<OpId>,
    /// Operations with a scheduled abort. The connection is not re-established before.
    pub(crate) aborting: u32,
}

impl Side {
    /// A new process of the node knows of no connection.
    pub(crate) fn restart(&mut self) {
        (self.connected, self.aborting) = (false, 0);
        self.limbo.clear();
    }

    /// Takes the first message out of the inbox.
    pub(crate) fn take(&mut self) -> Option<Flying> {
        let message = self.inbox.pop_front();
        if self.inbox.is_empty() {
            // The next message takes the place that is in the cache.
            self.inbox.clear();
        }
        message
    }

    /// Can the machine be given the next header of the peer?
    pub(crate) fn is_due(&self) -> bool {
        !self.reading && !self.inbox.is_empty()
    }
}

pub(crate) struct SimNode {
    pub(crate) life: Life,
    /// `None` before the first start and after a crash.
    pub(crate) machine: Option<Leased>,
    pub(crate) pool: Pool,
    /// The training program. `None` for a server.
    pub(crate) app: Option<Box<dyn App>>,
    /// Local steps between synchronisations.
    pub(crate) local: Local,
    /// The parameters as the training program sees them.
    pub(crate) params: Vec<f32>,
    /// The update that the training program computes.
    pub(crate) update: Vec<f32>,
    pub(crate) phase: Phase,
    /// The contribution that the training program gives range by range, and the ranges that are to come, last one first.
    pub(crate) whole: Vec<f32>,
    pub(crate) ranges: Vec<Range<usize>>,
    /// Steps done, over all starts of the node.
    pub(crate) step: u64,
    /// Contributions with examples, including contributions before a resumption.
    pub(crate) made: u64,
    pub(crate) incarnation: Incarnation,
    /// Incremented at each start and crash. Scheduled events carry it, and are dropped if it has changed.
    pub(crate) epoch: u64,
    /// The ranks of the nodes that this one can be connected with.
    pub(crate) neighbours: Range<u32>,
    /// The value of [`Machine::wanted_changes`] that `Link::wanted` goes by; `None` before the start.
    ///
    /// [`Machine::wanted_changes`]: gradwire_core::Machine::wanted_changes
    pub(crate) wanted_seen: Option<u64>,
    /// The peers with a message that the machine can be given, by rank: a message is in their inbox, and no body of
    /// theirs is unread. A peer is taken out when it is found to have none.
    pub(crate) due: Vec<PeerId>,
    /// The kernel in progress, if it takes time. Until it ends, the machine's outputs wait.
    pub(crate) running: Option<Running>,
    pub(crate) paused_until: Instant,
    /// When the machine wants its next `Timeout`.
    pub(crate) wake: Option<Instant>,
}

impl SimNode {
    /// A node before its first start. `app`: the training program of a worker.
    pub(crate) fn new(me: PeerId, plan: &Plan, app: Option<Box<dyn App>>) -> Self {
        let saved = plan.resumed.get(me.index());
        let neighbours = plan.recipe.neighbours(plan.cluster, me);
        let len = if app.is_some() { plan.layout.len() } else { 0 };
        Self {
            life: Life::Down,
            machine: None,
            pool: Pool::default(),
            app,
            local: Local::new(plan.recipe, plan.cluster.workers),
            params: saved.map_or(&plan.initial, |saved| &saved.params).clone(),
            update: vec![0.0; len],
            phase: Phase::Joining,
            whole: Vec::new(),
            ranges: Vec::new(),
            step: 0,
            made: saved.map_or(0, |saved| saved.resumed.made),
            incarnation: Incarnation(0),
            epoch: 0,
            neighbours,
            wanted_seen: None,
            due: Vec::new(),
            running: None,
            paused_until: Instant::ORIGIN,
            wake: None,
        }
    }

    /// The process of the node starts: its machine knows of no connection.
    pub(crate) fn start(&mut self, machine: Node, pool: Pool, incarnation: Incarnation, local: Local) {
        self.epoch += 1;
        (self.life, self.phase, self.wake) = (Life::Up, Phase::Joining, None);
        (self.machine, self.pool) = (Some(Leased::new(machine)), pool);
        (self.incarnation, self.local) = (incarnation, local);
        self.ranges.clear();
    }

    /// The process of the node is gone.
    pub(crate) fn crash(&mut self) {
        self.epoch += 1;
        (self.machine, self.running, self.wanted_seen) = (None, None, None);
    }

    /// A message of the peer is there, and no body of the peer is unread.
    pub(crate) fn note_due(&mut self, peer: PeerId) {
        if let Err(place) = self.due.binary_search(&peer) {
            self.due.insert(place, peer);
        }
    }
}
