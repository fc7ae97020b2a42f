//! The type [`Status`].

use alloc::vec::Vec;

use super::{Counters, Histogram, LinkStatus, Rest, Role, Waiting, WorkerStatus};
use crate::id::{Clock, PeerId};
use crate::telemetry::Times;

/// A snapshot of one node, for monitors and tests. Making one allocates.
///
/// ```
/// use gradwire_core::Status;
///
/// /// A line for a log.
/// fn line(status: &Status) -> String {
///     let waits = status.waiting.map_or("no peer".to_string(), |waiting| format!("peer {}", waiting.on));
///     let (clock, sent) = (status.clock, status.bytes_out());
///     format!("peer {} at clock {clock}: {sent} bytes sent, waits for {waits}", status.me)
/// }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Rank of this node.
    pub me: PeerId,
    /// The kind of machine that this node runs.
    pub role: Role,
    /// Completed steps. At a server: applications to the shard with the most.
    pub clock: Clock,
    /// The wait of this node, if it waits for a peer.
    pub waiting: Option<Waiting>,
    /// Counts of contributions and messages since the start.
    pub counters: Counters,
    /// Staleness of the updates that this node has applied.
    pub staleness: Histogram,
    /// The workers that this node knows, by rank.
    pub workers: Vec<WorkerStatus>,
    /// Connections to other nodes, by rank.
    pub links: Vec<LinkStatus>,
    /// Euclidean norm of the residual: the part of the contributions that is not sent yet. 0 without a lossy codec.
    pub residual_norm: f64,
    /// Norm of the residual as a multiple of the norm of an update, measured at some of the updates. 0 without a lossy
    /// codec.
    pub residual_updates: f64,
    /// How the residual ended, once this node has ended.
    pub rest: Option<Rest>,
    /// Share of the elements that the last encoded message carried. 0 without a lossy codec. Once the node sends its last
    /// messages, that of all messages before them.
    pub density: f64,
    /// The largest threshold of the last encoded message. 0 without a sparse codec. Once the node sends its last
    /// messages, that of the message before them.
    pub tau: f64,
    /// Sum of the magnitudes that clipping has removed from the residual. This part of the contributions is lost.
    pub clipped: f64,
    /// Sum of the magnitudes that decay has removed from the residual, in messages that this node has encoded: in a tree or
    /// ring, only messages of rounds that count. This part of the contributions is lost.
    pub forgotten: f64,
    /// Time that the node has spent since its start, by activity, and its steps. Drivers measure it: a machine without
    /// one, as in a simulation, leaves it at 0. `wire` is measured only for a monitor.
    pub times: Times,
    /// Operations in progress.
    pub operations: usize,
    /// Mesh: updates of all workers that this node's replica contains.
    pub updates: u64,
    /// Collectives: number of the current view.
    pub view: u64,
    /// Collectives: members of the current view.
    pub members: u32,
}

impl Status {
    /// Bytes sent to all peers, headers and bodies.
    pub fn bytes_out(&self) -> u64 {
        self.links.iter().map(|link| link.bytes_out).sum()
    }

    /// Bytes sent so far, as a share of the bytes of the same messages with plain floats: 1 without a lossy codec. Unlike
    /// [`density`](Self::density), it is of the whole run. 0 if nothing was sent.
    ///
    /// ```
    /// # fn report(status: &gradwire_core::Status) {
    /// println!("sent {:.1} % of the dense bytes in {} steps", 100.0 * status.sent_share(), status.times.steps);
    /// # }
    /// ```
    pub fn sent_share(&self) -> f64 {
        self.bytes_out() as f64 / self.counters.dense_bytes.max(1) as f64
    }

    /// Bytes received from all peers, headers and bodies.
    pub fn bytes_in(&self) -> u64 {
        self.links.iter().map(|link| link.bytes_in).sum()
    }
}
