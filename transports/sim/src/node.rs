//! One simulated node: a machine, its buffers, and an application.

use std::collections::VecDeque;

use gradwire_core::{Duration, Event, Incarnation, Instant, Local, Node, OpId, PeerId, Pool, Signal};

use crate::network::Message;

/// The training program of a simulated worker.
pub trait App: Send {
    /// How long the step takes that begins now.
    fn duration(&mut self, step: u64) -> Duration;

    /// Computes what is subtracted from `params`; returns the examples behind it.
    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32;

    /// The step, and with it the synchronisation if there was one, is done.
    fn done(&mut self, _step: u64, _params: &[f32]) {}
}

/// Where a simulated node is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// Not started, or crashed.
    Down,
    /// Its machine runs.
    Up,
    /// It has left, or a server has finished.
    Done,
    /// It could not go on without this peer.
    Cut(PeerId),
}

/// A signal or event of a node's machine, with its time.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Log {
    /// The virtual time.
    pub at: Instant,
    /// The node.
    pub node: PeerId,
    /// What the machine said.
    pub entry: Entry,
}

/// What a machine said, besides what it asked its driver to do.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "named as the outputs are")]
pub enum Entry {
    Signal(Signal),
    Event(Event),
}

/// What the host of a worker does next.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Waits for the machine to join.
    Joining,
    /// Computes step `step`.
    Computing,
    /// Waits for the machine to be ready.
    Syncing,
    /// Has made its last contribution and stays for the end.
    Finishing,
}

pub(crate) struct SimNode {
    pub(crate) life: Life,
    pub(crate) machine: Option<Node>,
    pub(crate) pool: Pool,
    pub(crate) app: Option<Box<dyn App>>,
    pub(crate) local: Local,
    pub(crate) params: Vec<f32>,
    pub(crate) update: Vec<f32>,
    pub(crate) phase: Phase,
    /// Steps taken, over all its starts.
    pub(crate) step: u64,
    /// Contributions with examples, those before a resumption included.
    pub(crate) made: u64,
    pub(crate) incarnation: Incarnation,
    /// Raised at each start and crash, so that what was scheduled for a former self is nothing.
    pub(crate) epoch: u64,
    /// Delivered and not yet read, by peer; the front may be waiting for its body to be read.
    pub(crate) inbox: Vec<VecDeque<Message>>,
    pub(crate) reading: Vec<bool>,
    /// What the machine has been told of its connections.
    pub(crate) connected: Vec<bool>,
    /// Operations to abort when it is told that the connection broke.
    pub(crate) limbo: Vec<Vec<OpId>>,
    pub(crate) paused_until: Instant,
    pub(crate) wake: Option<Instant>,
}
