//! The parts of a [`Status`], the snapshot of a node that monitors and tests read. All are plain data.

mod rest;
pub(crate) mod snapshot;

use crate::id::{Clock, PeerId};
use crate::time::Instant;

// The public path of this type is the root of the crate.
pub(crate) use snapshot::Status;

pub use rest::Rest;

/// The kind of machine that a node runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker of parameter servers.
    Worker,
    /// A server node: it holds shards, or hosts the coordinator of a collective.
    Server,
    /// A member of a tree or ring.
    Collective,
    /// A peer of a mesh.
    Mesh,
}

/// The wait of a node for a peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The peer that must act next. Peers report their own waits, so this is the end of a chain of waits if one is
    /// known.
    pub on: PeerId,
    /// The clock of that peer, as far as this node knows.
    pub at: Clock,
    /// The clock that this node waits for.
    pub clock: Clock,
    /// The moment at which the wait started.
    pub since: Instant,
    /// The source of this information: this node itself, or a peer that reported its own wait.
    pub reported_by: PeerId,
}

/// Counts since the start of a node. Each contribution that arrives is counted in exactly one of the first six fields.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Contributions applied, or gathered for the next application.
    pub applied: u64,
    /// Contributions that had arrived before.
    pub duplicates: u64,
    /// Contributions to a round that was over, which were dropped.
    pub late: u64,
    /// Contributions with a staleness above the recipe's limit.
    pub dropped: u64,
    /// Contributions refused because of their content: elements that are not finite, or a malformed body.
    pub rejected: u64,
    /// Contributions of weight 0.
    pub empty: u64,
    /// Contributions to a round that was over, which joined a later round (`late=next`). They are counted in `applied`
    /// or `empty` as well.
    pub deferred: u64,
    /// Applications to the parameters.
    pub applications: u64,
    /// Elements that encoded messages of this node carried.
    pub entries: u64,
    /// Elements that an encoder of this node left out because update plus residual was not finite.
    pub non_finite: u64,
    /// Mesh: messages that were merged into another because a neighbour was slow.
    pub merged: u64,
    /// Bytes that the sent messages would have taken with plain floats in place of encoded bodies.
    pub dense_bytes: u64,
    /// Contributions lost with a server that restarted: in flight to it, or applied by it and in no worker's
    /// parameters. Trees and rings: parameters of this node that were dropped, because the run had gone on without it.
    pub lost: u64,
    /// Reconnections of peers.
    pub reconnects: u64,
    /// Contributions sent to the same peer again after a broken connection. 0 in rounds without servers: a round that
    /// breaks off begins anew.
    pub resent: u64,
    /// At a server: contributions without a body, for which it has applied the last one of their worker again (B-FASGD).
    /// They are counted in one of the first six fields as well.
    pub repeated: u64,
    /// At a worker: updates that it has not sent, since a server would apply the last one again (B-FASGD).
    pub skipped_pushes: u64,
    /// At a worker: updates after which it has taken no parameters (B-FASGD).
    pub skipped_fetches: u64,
}

/// A worker from the perspective of another node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Rank of the worker.
    pub rank: PeerId,
    /// Participation of the worker.
    pub state: Presence,
    /// Steps of the worker that this node has received.
    pub clock: Clock,
}

/// The participation of a peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Has not connected yet.
    Awaited,
    /// Connected, and takes part in the run.
    Present,
    /// Disconnected for less than [`Patience::dead_after`](crate::Patience::dead_after).
    Suspect,
    /// Disconnected for longer, and given up.
    Lost,
    /// Has made its last contribution.
    Left,
}

/// Traffic with one peer since the start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Rank of the peer.
    pub peer: PeerId,
    /// Bytes of the messages handed to the driver, headers and bodies.
    pub bytes_out: u64,
    /// Bytes received, headers and bodies.
    pub bytes_in: u64,
    /// Number of messages handed to the driver.
    pub messages_out: u64,
    /// Number of messages received.
    pub messages_in: u64,
    /// Arrival of the last message.
    pub last_heard: Option<Instant>,
    /// Time in nanoseconds between a message to the peer and the next message from it, smoothed with weight 1/8. It
    /// includes the peer's own work. 0: not measured yet.
    pub response_ns: u64,
    /// Time in nanoseconds in which a body from the peer was arriving, one under way included. It is the link's own time,
    /// because buffers of the sender's system hide how long it takes to send. 0: not measured. A node that publishes to a
    /// monitor measures it.
    pub arriving_ns: u64,
}

/// A histogram of small integers, with exact mean and maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// Occurrences of each value. The last bucket counts its index and all larger values.
    buckets: [u64; Self::BUCKETS],
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Number of buckets. Values from `BUCKETS - 1` on share the last bucket.
    pub const BUCKETS: usize = 64;

    /// A histogram from its encoding. The parts come from outside and may contradict each other.
    pub(crate) fn from_parts(buckets: [u64; Self::BUCKETS], sum: u64, max: u64) -> Self {
        // Saturating, because a log may state any numbers.
        let count = buckets.iter().fold(0u64, |all, count| all.saturating_add(*count));
        Self { buckets, count, sum, max }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.buckets[(value as usize).min(Self::BUCKETS - 1)] += 1;
        self.count += 1;
        self.sum += value;
        self.max = self.max.max(value);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Occurrences of each value. The last bucket counts its index and all larger values.
    pub fn buckets(&self) -> &[u64; Self::BUCKETS] {
        &self.buckets
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value; 0 without values.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Mean of the values; 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS], count: 0, sum: 0, max: 0 }
    }
}
