//! The type [`Recipe`]: one choice on each axis, with setters and getters.

use core::ops::Range;

use super::{
    Adapt, Codec, Compensate, Correction, End, Lambda, Merge, Normalize, OptimizerState, Outer, Pace, Payload, Period,
    Staleness, Topology, Weigh,
};
use crate::id::{Cluster, PeerId};

/// The synchronisation method of a run: one choice on each axis. See [`recipe`](crate::recipe) for tables of all axes
/// and presets.
///
/// A recipe is plain data and may hold choices that contradict each other: [`check`](Self::check) reports the first
/// contradiction, and starting a node does so too. All nodes of a run must have equal recipes; they compare the text
/// forms when they connect.
///
/// A recipe starts from a preset. Setters replace one choice each:
///
/// ```
/// use gradwire_core::Recipe;
/// use gradwire_core::recipe::{Codec, Pace, Staleness, Topology};
///
/// let recipe = Recipe::softsync(4)
///     .with_staleness(Staleness::inverse())
///     .with_topology(Topology::Servers { shards: 2 })
///     .with_pull(Codec::Bf16);
/// assert_eq!(recipe.check(8), Ok(()));
/// assert_eq!(recipe.pace(), Pace::Asynchronous { overlap: false });
/// ```
///
/// The text form is a preset and `key=value` words that change it. [`Display`](core::fmt::Display) writes all axes in a
/// fixed order, and parsing that text gives an equal recipe:
///
/// ```
/// # use gradwire_core::Recipe;
/// let recipe: Recipe = "ssp bound=2 shards=4".parse()?;
/// assert_eq!(
///     recipe.to_string(),
///     "payload=updates period=1 topology=servers shards=4 pace=stale bound=2 merge=sum lambda=1/n \
///      staleness=const codec=f32 pull=f32 optimizer=keep",
/// );
/// assert_eq!(recipe.to_string().parse(), Ok(recipe));
/// # Ok::<(), gradwire_core::recipe::RecipeParseError>(())
/// ```
///
/// Published methods are available by name:
///
/// ```
/// # use gradwire_core::Recipe;
/// assert_eq!(Recipe::preset("petuum"), Some(Recipe::ssp(2)));
/// assert_eq!(Recipe::preset("unknown"), None);
/// ```
///
/// A contradiction names both choices and the reason:
///
/// ```
/// # use gradwire_core::Recipe;
/// # use gradwire_core::recipe::{Codec, End};
/// let error = Recipe::asynchronous().with_codec(Codec::Bf16).with_end(End::Send).with_codec(Codec::F32).check(4).unwrap_err();
/// assert!(error.to_string().starts_with("end=send or spread requires a codec other than f32: "));
/// ```
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Recipe {
    pub(crate) payload: Payload,
    pub(crate) period: Period,
    /// Local steps between fetched parameters. `None`: as many as between contributions.
    pub(crate) fetch: Option<u32>,
    /// The quantity that the length of periods follows.
    pub(crate) adapt: Adapt,
    pub(crate) normalize: Normalize,
    pub(crate) weigh: Weigh,
    pub(crate) topology: Topology,
    pub(crate) pace: Pace,
    pub(crate) merge: Merge,
    pub(crate) staleness: Staleness,
    pub(crate) compensate: Compensate,
    /// Codec of contributions, from a worker to its peers or servers.
    pub(crate) codec: Codec,
    /// Codec of parameters, from a server to a worker.
    pub(crate) pull: Codec,
    pub(crate) correction: Correction,
    /// Factor on a residual before each contribution.
    pub(crate) decay: f32,
    /// The residual of a worker that ends.
    pub(crate) end: End,
    pub(crate) outer: Outer,
    pub(crate) optimizer: OptimizerState,
    /// Longest range of the vector that travels as one message in a tree or ring, in floats.
    pub(crate) chunk: u32,
}

impl Recipe {
    /// Sets the vector that workers contribute.
    #[must_use]
    pub const fn with_payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    /// Sets the number of local steps between synchronisations: a number, or a schedule.
    #[must_use]
    pub fn with_period(self, period: impl Into<Period>) -> Self {
        Self { period: period.into(), ..self }
    }

    /// Sets the number of local steps between two fetches of the servers' parameters, at least 1. In between, a worker
    /// goes on with its own. Without this, it fetches whenever it contributes.
    #[must_use]
    pub const fn with_fetch(self, steps: u32) -> Self {
        Self { fetch: Some(steps), ..self }
    }

    /// Sets the quantity that the length of periods follows during the run.
    #[must_use]
    pub const fn with_adapt(self, adapt: Adapt) -> Self {
        Self { adapt, ..self }
    }

    /// Sets how a worker's local steps count in a mean.
    #[must_use]
    pub const fn with_normalize(self, normalize: Normalize) -> Self {
        Self { normalize, ..self }
    }

    /// Sets the weight of a contribution in a mean.
    #[must_use]
    pub const fn with_weigh(self, weigh: Weigh) -> Self {
        Self { weigh, ..self }
    }

    /// Sets the nodes between which vectors travel.
    #[must_use]
    pub const fn with_topology(self, topology: Topology) -> Self {
        Self { topology, ..self }
    }

    /// Sets the longest range of the vector that travels as one message in a tree or ring: in floats, at least 1,
    /// default 65,536. Without effect in other topologies, and with [`Merge::Adasum`], which sends tensors.
    #[must_use]
    pub const fn with_chunk(self, chunk: u32) -> Self {
        Self { chunk, ..self }
    }

    /// Sets the condition under which a worker may go on.
    #[must_use]
    pub const fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Sets how contributions are combined.
    #[must_use]
    pub const fn with_merge(self, merge: Merge) -> Self {
        Self { merge, ..self }
    }

    /// Sets the merge rule to the sum of updates, times `lambda`: a number, or [`Lambda::per_worker`].
    #[must_use]
    pub fn with_lambda(self, lambda: impl Into<Lambda>) -> Self {
        self.with_merge(Merge::Sum { lambda: lambda.into() })
    }

    /// Sets how a late update is scaled.
    #[must_use]
    pub const fn with_staleness(self, staleness: Staleness) -> Self {
        Self { staleness, ..self }
    }

    /// Sets how servers correct late updates before they merge them.
    #[must_use]
    pub const fn with_compensate(self, compensate: Compensate) -> Self {
        Self { compensate, ..self }
    }

    /// Sets the codec of contributions.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// Sets the codec of the parameters that servers send. With any codec but [`Codec::F32`], a server sends the
    /// difference to the parameters that the worker holds.
    #[must_use]
    pub const fn with_pull(self, pull: Codec) -> Self {
        Self { pull, ..self }
    }

    /// Sets the momentum and the start-up schedule that precede a sparse codec.
    #[must_use]
    pub const fn with_correction(self, correction: Correction) -> Self {
        Self { correction, ..self }
    }

    /// Sets the factor on a residual before a contribution is added to it: `residual = decay * residual + contribution`.
    /// From 0 to 1. 1, the default: nothing is forgotten. 0: no error feedback. It stands in for momentum of merged updates
    /// where most of an update stays in the residual (SparseLoCo; Sarfi et al. 2025). The forgotten part is lost, and
    /// counted in [`Status::forgotten`](crate::Status::forgotten).
    #[must_use]
    pub const fn with_decay(self, decay: f32) -> Self {
        Self { decay, ..self }
    }

    /// Sets how the residual of a worker that ends is treated.
    #[must_use]
    pub const fn with_end(self, end: End) -> Self {
        Self { end, ..self }
    }

    /// Sets the optimizer that turns merged updates into new parameters.
    #[must_use]
    pub const fn with_outer(self, outer: Outer) -> Self {
        Self { outer, ..self }
    }

    /// Sets how a synchronisation treats the workers' optimizer state.
    #[must_use]
    pub const fn with_optimizer(self, optimizer: OptimizerState) -> Self {
        Self { optimizer, ..self }
    }

    /// The vector that workers contribute.
    pub const fn payload(&self) -> Payload {
        self.payload
    }

    /// The number of local steps between synchronisations.
    pub const fn period(&self) -> Period {
        self.period
    }

    /// The number of local steps between two fetches of parameters. `None`: a worker fetches whenever it contributes.
    pub const fn fetch(&self) -> Option<u32> {
        self.fetch
    }

    /// The quantity that the length of periods follows during the run.
    pub const fn adapt(&self) -> Adapt {
        self.adapt
    }

    /// How a worker's local steps count in a mean.
    pub const fn normalize(&self) -> Normalize {
        self.normalize
    }

    /// The weight of a contribution in a mean.
    pub const fn weigh(&self) -> Weigh {
        self.weigh
    }

    /// The nodes between which vectors travel.
    pub const fn topology(&self) -> Topology {
        self.topology
    }

    /// The condition under which a worker may go on.
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// How contributions are combined.
    pub const fn merge(&self) -> Merge {
        self.merge
    }

    /// How a late update is scaled.
    pub const fn staleness(&self) -> Staleness {
        self.staleness
    }

    /// How servers correct late updates before they merge them.
    pub const fn compensate(&self) -> Compensate {
        self.compensate
    }

    /// The codec of the parameters that servers send.
    pub const fn pull(&self) -> Codec {
        self.pull
    }

    /// The longest range of the vector that travels as one message in a tree or ring, in floats.
    pub const fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Floats of each message in a tree or ring of `workers` workers, for a vector of `len` floats: at most
    /// [`chunk`](Self::chunk). The last message may be shorter.
    ///
    /// Each member of a ring is the root of as many messages as any other. With one more at some of them, their links would
    /// carry more than the others'.
    ///
    /// ```
    /// let ring: gradwire_core::Recipe = "sync topology=ring".parse()?;
    /// assert_eq!((ring.chunk(), ring.chunk_len(560_000, 4)), (65_536, 46_672)); // 12 messages, 3 for each root
    /// # Ok::<(), gradwire_core::recipe::RecipeParseError>(())
    /// ```
    pub const fn chunk_len(&self, len: usize, workers: u32) -> usize {
        let most = if self.chunk > 0 { self.chunk as usize } else { 1 };
        let least = len.div_ceil(most);
        let count = match self.topology {
            Topology::Ring if workers > 0 => least.next_multiple_of(workers as usize),
            _ => least,
        };
        let even = if count > 0 { len.div_ceil(count) } else { 1 };
        // Whole cache lines, in messages that are long enough for the rounding not to matter.
        let even = if even > 1024 { even.next_multiple_of(16) } else { even };
        if even < most { even } else { most }
    }

    /// The codec of contributions.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The momentum and the start-up schedule that precede a sparse codec.
    pub const fn correction(&self) -> Correction {
        self.correction
    }

    /// The factor on a residual before a contribution is added to it.
    pub const fn decay(&self) -> f32 {
        self.decay
    }

    /// The recipe with [`Topology::Auto`] decided for a cluster and a vector of `len` floats; other recipes unchanged.
    ///
    /// A ring shares the work out over all connections, but its chunks pass twice as many hops as there are workers. So it
    /// is the choice for dense vectors with at least 64 KiB (16,384 floats) for each worker. On a link of 1 Gbit/s and
    /// 0.1 ms, rings are faster from about 2 KiB for each worker on, and with 1 ms from 16 to 256 KiB. A lossy codec rounds
    /// at every hop, and [`Merge::Adasum`] merges pairs: both stay with the tree.
    ///
    /// All nodes decide alike, because a contract holds the decision. [`Setup::new`](crate::machine::Setup::new) makes it.
    pub fn fitted(self, cluster: Cluster, len: usize) -> Self {
        const FLOATS_PER_WORKER: usize = 16 * 1024;
        if self.topology != Topology::Auto {
            return self;
        }
        let enough = len / FLOATS_PER_WORKER >= cluster.workers.max(2) as usize;
        let ring = enough && self.codec == Codec::F32 && self.merge != Merge::Adasum;
        self.with_topology(if ring { Topology::Ring } else { Topology::Tree { fan_in: 2 } })
    }

    /// The cluster with the servers that the recipe has by default, and the recipe with its shards: for a vector of `len`
    /// floats that is long enough, a server for each worker, and up to 8 shards of 64 KiB (16,384 floats) or more for each
    /// server. Server `k` belongs on the host of worker `k`. Recipes without servers are unchanged.
    ///
    /// One server makes the link of its host carry the traffic of all workers. With a server beside each worker, each link
    /// carries the same. While a shard is pushed, the one before it is answered. In return, a host that is lost
    /// takes a shard with it: the other workers wait until it is back. And each host has the memory of a server. So a short
    /// vector stays with one server: below 256 KiB (65,536 floats) for each worker. A recipe that names several shards
    /// keeps their number, and rules that need whole vectors keep one shard.
    ///
    /// All nodes have to decide alike: the contract holds the number of servers and the shards.
    ///
    /// ```
    /// use gradwire_core::{Cluster, Recipe};
    ///
    /// let (recipe, cluster) = Recipe::asynchronous().spread(4, 14_600_000);
    /// assert_eq!(cluster, Cluster { workers: 4, servers: 4 });
    /// assert!(recipe.to_string().contains("shards=32"));
    /// assert_eq!(Recipe::asynchronous().spread(4, 50_826).1.servers, 1);
    /// ```
    pub fn spread(self, workers: u32, len: usize) -> (Self, Cluster) {
        const FLOATS_PER_WORKER: usize = 64 * 1024;
        const FLOATS_PER_SHARD: usize = 16 * 1024;
        const SHARDS_PER_SERVER: usize = 8;
        let Topology::Servers { shards } = self.topology else { return (self, Cluster { workers, servers: 0 }) };
        let one = (self, Cluster { workers, servers: 1 });
        if workers < 2 || len / FLOATS_PER_WORKER < workers as usize {
            return one;
        }
        let of_each = (len / workers as usize / FLOATS_PER_SHARD).clamp(1, SHARDS_PER_SERVER) as u32;
        let shards = if shards == 1 { workers.saturating_mul(of_each) } else { shards };
        let (recipe, cluster) =
            (self.with_topology(Topology::Servers { shards }), Cluster { workers, servers: shards.min(workers) });
        if recipe.faults(cluster, len).is_empty() { (recipe, cluster) } else { one }
    }

    /// How the residual of a worker that ends is treated.
    pub const fn end(&self) -> End {
        self.end
    }

    /// The optimizer that turns merged updates into new parameters.
    pub const fn outer(&self) -> Outer {
        self.outer
    }

    /// How a synchronisation treats the workers' optimizer state.
    pub const fn optimizer(&self) -> OptimizerState {
        self.optimizer
    }

    /// True for a tree, a ring, and a mesh with a synchronous pace: the members agree on numbered views and on the
    /// result of every round.
    pub const fn is_collective(&self) -> bool {
        match self.topology {
            Topology::Auto | Topology::Tree { .. } | Topology::Ring => true,
            Topology::Mesh { .. } => matches!(self.pace, Pace::Synchronous),
            Topology::Servers { .. } => false,
        }
    }

    /// True for a tree or ring: their messages are chunks of the vector.
    pub(crate) const fn has_chunks(&self) -> bool {
        matches!(self.topology, Topology::Auto | Topology::Tree { .. } | Topology::Ring)
    }

    /// True for a mesh without rounds: its replicas count quanta in a ledger.
    pub(crate) const fn has_ledger(&self) -> bool {
        matches!(self.topology, Topology::Mesh { .. }) && !self.is_collective()
    }

    /// True if the cluster must have server nodes.
    pub const fn needs_servers(&self) -> bool {
        matches!(self.topology, Topology::Servers { .. })
    }

    /// Whether the number of local steps between synchronisations depends on the time that they take.
    pub fn is_timed(&self) -> bool {
        self.period.has_time() || self.adapt == Adapt::Speed
    }

    /// True if all contributions of a round are applied before any worker goes on. [`Pace::Stale`] with bound 0 is
    /// synchronous too.
    pub const fn is_synchronous(&self) -> bool {
        matches!(self.pace, Pace::Synchronous | Pace::Stale { bound: 0 })
    }

    /// True if workers fetch parameters at other steps than the ones at which they contribute.
    pub(crate) fn fetches_apart(&self) -> bool {
        self.fetch.is_some_and(|steps| self.period != Period::every(steps))
    }

    /// True if a worker can contribute without taking parameters.
    pub(crate) fn skips_fetches(&self) -> bool {
        self.fetches_apart() || self.compensate.skips_fetches()
    }

    /// True if contributions are merged in rounds: a synchronous pace (or bound 0), or [`Pace::First`].
    pub const fn has_rounds(&self) -> bool {
        self.is_synchronous() || matches!(self.pace, Pace::First { .. })
    }

    /// The ranks of the nodes that node `me` talks to, among which may be `me` itself. Other nodes need not be connected
    /// with it: at servers, workers talk to the servers only, and servers to the workers. In trees, rings and meshes,
    /// every node may have to talk to every other one.
    pub const fn neighbours(&self, cluster: Cluster, me: PeerId) -> Range<u32> {
        match self.topology {
            Topology::Servers { .. } if cluster.is_worker(me) => cluster.workers..cluster.nodes(),
            Topology::Servers { .. } => 0..cluster.workers,
            Topology::Auto | Topology::Tree { .. } | Topology::Ring | Topology::Mesh { .. } => 0..cluster.nodes(),
        }
    }

    /// Number of ranges into which the vector is cut.
    pub(crate) const fn shards(&self) -> u32 {
        match self.topology {
            Topology::Servers { shards } => shards,
            Topology::Auto | Topology::Tree { .. } | Topology::Ring | Topology::Mesh { .. } => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_vectors_have_a_server_beside_each_worker() {
        let chosen = |text: &str, workers, len| {
            let (recipe, cluster) = text.parse::<Recipe>().unwrap().spread(workers, len);
            (recipe.shards(), cluster.servers)
        };
        for (workers, enough) in [(2, 2), (3, 3), (64, 64)] {
            assert_eq!(chosen("hardsync", workers, enough * 64 * 1024), (4 * workers, workers));
            assert_eq!(chosen("hardsync", workers, enough << 20), (8 * workers, workers));
            assert_eq!(chosen("hardsync", workers, enough * 64 * 1024 - 1), (1, 1));
        }
        assert_eq!(chosen("async", 1, 1 << 24), (1, 1));
        // The number of shards that was asked for stays.
        assert_eq!([chosen("async shards=2", 4, 1 << 24), chosen("async shards=9", 4, 1 << 24)], [(2, 2), (9, 4)]);
        // Whole vectors, and no servers.
        assert_eq!([chosen("norm-clip", 4, 1 << 24), chosen("hardsync merge=krum", 4, 1 << 24)], [(1, 1); 2]);
        assert_eq!([chosen("sync", 4, 1 << 24).1, chosen("mesh", 4, 1 << 24).1], [0; 2]);
    }

    #[test]
    fn each_member_of_a_ring_is_the_root_of_as_many_chunks() {
        for (workers, len, chunk) in
            [(2, 8, 1), (3, 7, 3), (4, 560_000, 65_536), (3, 14_600_000, 65_536), (5, 1000, 65_536)]
        {
            let recipe = Recipe::sync().with_topology(Topology::Ring).with_chunk(chunk);
            let got = recipe.chunk_len(len, workers);
            let count = len.div_ceil(got);
            assert!((1..=chunk as usize).contains(&got), "{got}");
            assert_eq!(count % workers as usize, 0, "{workers} workers, {count} chunks");
        }
        assert_eq!(Recipe::sync().with_topology(Topology::Ring).chunk_len(0, 2), 1);
        assert_eq!(Recipe::sync().with_topology(Topology::Tree { fan_in: 2 }).with_chunk(3).chunk_len(7, 5), 3);
    }

    #[test]
    fn long_vectors_go_round_a_ring_and_short_ones_over_a_tree() {
        let chosen = |text: &str, workers, len| {
            let recipe: Recipe = text.parse().unwrap();
            recipe.fitted(Cluster { workers, servers: 0 }, len).topology
        };
        let tree = Topology::Tree { fan_in: 2 };
        for (workers, enough) in [(1, 2), (2, 2), (3, 3), (4, 4), (64, 64)] {
            assert_eq!(chosen("sync", workers, enough * 16 * 1024), Topology::Ring, "{workers}");
            assert_eq!(chosen("sync", workers, enough * 16 * 1024 - 1), tree, "{workers}");
        }
        // A codec that rounds, and a merge of pairs.
        assert_eq!([chosen("sync codec=int8", 2, 1 << 24), chosen("sync merge=adasum", 2, 1 << 24)], [tree; 2]);
        assert_eq!(chosen("averaging", 4, 1 << 20), Topology::Ring);
        // What was asked for stays.
        assert_eq!(chosen("sync fan_in=3", 4, 1 << 20), Topology::Tree { fan_in: 3 });
        assert_eq!(chosen("sync topology=tree", 4, 1 << 20), tree);
        assert_eq!(chosen("sync topology=ring", 4, 1), Topology::Ring);
        assert_eq!(chosen("async shards=2", 4, 1 << 20), Topology::Servers { shards: 2 });
    }
}
