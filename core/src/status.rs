//! What tests and monitors read: numbers and names, no handles.

pub(crate) mod snapshot;

use crate::id::{Clock, PeerId};
use crate::time::Instant;

// Users reach it at the root of the crate.
pub(crate) use snapshot::Status;

/// What a node is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by their machines")]
pub enum Role {
    Worker,
    Server,
    Collective,
    Mesh,
}

/// Whom a node waits for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The peer that must act next.
    pub on: PeerId,
    /// The clock which that peer is at, as far as is known.
    pub at: Clock,
    /// The clock that this node waits for.
    pub clock: Clock,
    /// Since when.
    pub since: Instant,
    /// Who said so: this node itself, or a peer that waits in turn.
    pub reported_by: PeerId,
}

/// What happened so far. Every contribution that comes in is counted in exactly one of the first six.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Contributions applied, or gathered for the next application.
    pub applied: u64,
    /// Contributions that had come before.
    pub duplicates: u64,
    /// Contributions to a round that was over.
    pub late: u64,
    /// Contributions staler than the recipe's limit.
    pub dropped: u64,
    /// Contributions refused for what was in them.
    pub rejected: u64,
    /// Contributions of weight 0.
    pub empty: u64,
    /// Applications to the parameters.
    pub applications: u64,
    /// Elements that encoded updates said something about.
    pub entries: u64,
    /// Elements of encoded updates that came to something not finite, and were left out.
    pub non_finite: u64,
    /// Messages that became part of another, for peers that did not keep up.
    pub merged: u64,
    /// Bytes that the messages sent would take with all their vectors as plain floats.
    pub dense_bytes: u64,
    /// Contributions that were on their way to a server that started anew, or in it and in nothing that is left.
    pub lost: u64,
    /// Peers that came back after a broken connection.
    pub reconnects: u64,
    /// Messages sent again after a broken connection.
    pub resent: u64,
}

/// A worker as another node sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its rank.
    pub rank: PeerId,
    /// Where it is in its life.
    pub state: Presence,
    /// Steps of it that are in.
    pub clock: Clock,
}

/// Where a peer is in its life.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Not seen yet.
    Awaited,
    /// Takes part.
    Present,
    /// Disconnected, not given up yet.
    Suspect,
    /// Given up.
    Lost,
    /// Has made its last contribution.
    Left,
}

/// Traffic with one peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Which.
    pub peer: PeerId,
    /// Headers and bodies sent.
    pub bytes_out: u64,
    /// Headers and bodies received.
    pub bytes_in: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// When the last message came.
    pub last_heard: Option<Instant>,
    /// How long the peer takes to say something after it was spoken to, smoothed, in nanoseconds: the way there and back, and
    /// whatever it does in between. 0: it has not.
    pub response_ns: u64,
}

/// Counts of small numbers, with their exact mean and maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How often each value came; the last bucket holds all values from its index on.
    buckets: [u64; Self::BUCKETS],
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    /// Values up to one less than this are counted apart.
    pub const BUCKETS: usize = 64;

    /// Counts as they were told: `sum` and `max` of what is in the buckets.
    pub(crate) fn from_parts(buckets: [u64; Self::BUCKETS], sum: u64, max: u64) -> Self {
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

    /// Takes in another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// How often each value came.
    pub fn buckets(&self) -> &[u64; Self::BUCKETS] {
        &self.buckets
    }

    /// How many values came.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Their mean; 0 when none came.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; Self::BUCKETS], count: 0, sum: 0, max: 0 }
    }
}
