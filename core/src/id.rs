//! Names of things that must not be mixed up.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A node's rank: workers come first (`0..workers`), then servers.
    PeerId(u32), ""
);
id!(
    /// One contiguous range of the flat vector, held by one server node.
    ShardId(u32), "shard "
);
id!(
    /// A count of completed steps of a worker, or of applications at a server.
    Clock(u64), "clock "
);
id!(
    /// Drawn at random at each start of a node, so that a restarted node is never taken for its former self.
    Incarnation(u64), "incarnation "
);
id!(
    /// Position of an update in its origin's stream, from 1.
    Sequence(u64), "#"
);
id!(
    /// An operation handed to the driver. It ends exactly once, completed or aborted.
    OpId(u64), "op "
);

impl Clock {
    /// The next clock.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How far `self` is ahead of `other`; zero when it is not.
    pub const fn ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl Sequence {
    /// The next position.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PeerId {
    /// The rank as an index into tables of nodes.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who takes part: ranks `0..workers` train, ranks `workers..workers + servers` hold shards.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// How many nodes train, at least 1.
    pub workers: u32,
    /// How many nodes hold shards: 0 unless the recipe's topology is parameter servers. For a tree or ring, 1 is a node
    /// that hosts the coordinator and does nothing else.
    pub servers: u32,
}

impl Cluster {
    /// How many nodes there are in all.
    pub const fn nodes(self) -> u32 {
        self.workers + self.servers
    }

    /// Does this rank train?
    pub const fn is_worker(self, peer: PeerId) -> bool {
        peer.0 < self.workers
    }

    /// The node that holds a shard: shards go round the servers.
    ///
    /// # Panics
    /// When the cluster has no servers.
    pub const fn server_of(self, shard: ShardId) -> PeerId {
        PeerId(self.workers + shard.0 % self.servers)
    }
}
