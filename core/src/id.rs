//! Newtypes for numbers that must not be mixed up: ranks, shards, clocks, operations. And [`Cluster`], the numbers of
//! nodes.

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
    /// The rank of a node: `0..workers` are workers, `workers..workers + servers` are servers.
    PeerId(u32), ""
);
id!(
    /// The number of a shard: a contiguous range of the flat vector, held by one server node.
    ShardId(u32), "shard "
);
id!(
    /// A logical clock: the number of completed steps of a worker, or of applications to the parameters at a server.
    Clock(u64), "clock "
);
id!(
    /// A number that a node draws at random when it starts. It tells a restarted node from its previous incarnation
    /// with the same rank.
    Incarnation(u64), "incarnation "
);
id!(
    /// The position of an update among all updates of its worker, from 1.
    Sequence(u64), "#"
);
id!(
    /// The number of an operation that a machine asked its driver for. It ends exactly once, completed or aborted.
    OpId(u64), "op "
);

impl Clock {
    /// The next clock.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The lead of `self` over `other`; 0 if `self` is not ahead.
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
    /// The rank as an index into a table of nodes.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The numbers of nodes of a run. Ranks `0..workers` train, ranks `workers..workers + servers` are servers.
///
/// ```
/// use gradwire_core::{Cluster, Recipe};
///
/// let cluster = Cluster { workers: 4, servers: 1 };
/// assert_eq!(cluster.nodes(), 5);
/// let recipe: Recipe = "ssp bound=3".parse()?;
/// assert!(recipe.faults(cluster, 1000).is_empty());
/// let without = Cluster { workers: 4, servers: 0 };
/// println!("{}", recipe.faults(without, 1000)[0]); // a recipe with servers needs at least one
/// # Ok::<(), gradwire_core::recipe::RecipeParseError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Number of nodes that train, at least 1.
    pub workers: u32,
    /// Number of server nodes. With parameter servers: 1 to the number of shards. In a tree or ring: 0, or 1 for a node
    /// that hosts only the coordinator. In a mesh: 0.
    pub servers: u32,
}

impl Cluster {
    /// Number of all nodes.
    pub const fn nodes(self) -> u32 {
        self.workers + self.servers
    }

    /// True if the node with this rank trains.
    pub const fn is_worker(self, peer: PeerId) -> bool {
        peer.0 < self.workers
    }

    /// The node that holds a shard: shard `k` is held by server `k % servers`.
    ///
    /// # Panics
    /// If the cluster has no servers.
    pub const fn server_of(self, shard: ShardId) -> PeerId {
        PeerId(self.workers + shard.0 % self.servers)
    }
}
