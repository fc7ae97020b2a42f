//! The axes of a recipe that are a plain choice: payload, topology, pace, merge and optimizer state.
//!
//! The other axes have files of their own: `first.rs` (numbers of a pace), `period.rs`, `lambda.rs`, `staleness.rs`, `codec.rs` and `end.rs`.

use super::{Count, Grace, Lambda, Late};

/// The payload axis: the vector that a worker contributes at a synchronisation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The worker's parameters. Requires a synchronous pace and [`Merge::Mean`].
    Parameters,
    /// The sum of the worker's updates since the previous synchronisation: the vector to subtract from the parameters,
    /// after learning rate and optimizer.
    Updates,
    /// The gradient of a step. The weighted mean of a round goes back to the callers, which apply it with optimizers of
    /// their own; the library changes no parameters. Requires rounds without servers.
    Gradients,
}

/// The quantity that the length of periods follows during the run. Text form: `adapt=`; left out if it is `none`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Adapt {
    /// All workers have the period of the recipe.
    None,
    /// A worker of speed v has the share v / r of the period, rounded down to whole steps, and at least one step (DyLU,
    /// Liu et al. 2024). r is the 90th percentile of the workers' speeds, and limits v: the fastest tenth have the whole
    /// period. Speeds are steps per second in the last period. Servers tell their workers r with each answer. Before
    /// the first, a period is one step. Requires [`Topology::Servers`].
    Speed,
    /// All workers have the same period, which follows their mean training loss F and learning rate a (AdaComm, Wang and
    /// Joshi 2019): `ceil(sqrt(F a0 / (F0 a)) H)` steps, where H is the period of the recipe, and F0 and a0 are the
    /// loss and the rate of the first period. Workers say their loss with their contributions, and the mean decides at
    /// the end of each round. Where a worker knows no loss, the period stays as it is. A resumed run measures F0 anew.
    /// Requires rounds without servers.
    Loss {
        /// The most steps of a period: at least the recipe's number.
        most: u32,
    },
}

/// The topology axis: the nodes between which vectors travel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Parameter servers (Li et al. 2014). The vector is cut into contiguous ranges, the shards; shard `k` is held by
    /// server node `k % servers`.
    Servers {
        /// Number of shards: at least 1, and at least the number of server nodes.
        shards: u32,
    },
    /// A ring where it is faster than a tree, else a binary tree: see [`Recipe::fitted`](super::Recipe::fitted), which
    /// decides when the length of the vector and the number of workers are known. Before that, a binary tree.
    Auto,
    /// A tree over the workers with rank 0 at the root: reduce towards the root, then broadcast.
    Tree {
        /// Children per node, 1 to 8. The number of workers determines the depth.
        fan_in: u32,
    },
    /// A ring of the workers (Patarasuk and Yuan 2009). Each chunk of the vector is reduced along a chain of all
    /// workers to a root, and the result travels back. Roots rotate over the workers, so that all connections are in
    /// use.
    Ring,
    /// No server: every worker holds a replica of the parameters and sends its encoded updates to all other workers.
    /// With a synchronous pace, all workers apply the mean of the messages of each round.
    Mesh {
        /// 0: every worker sends to every other. Above 0: updates are relayed along a tree with this many children per
        /// node.
        relay: u32,
    },
}

impl Topology {
    /// The word of the text form.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Servers { .. } => "servers",
            Self::Auto => "auto",
            Self::Tree { .. } => "tree",
            Self::Ring => "ring",
            Self::Mesh { .. } => "mesh",
        }
    }
}

/// The pace axis: the condition under which a worker may start its next step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// After the contributions of all workers to this round are applied (bulk-synchronous parallel, Valiant 1990).
    Synchronous,
    /// While the worker is at most `bound` clocks ahead of the slowest worker (stale-synchronous parallel, Ho et al.
    /// 2013). Bound 0 is synchronous.
    Stale {
        /// Largest lead, in clocks, with which a worker may compute: s in Ho et al. 2013.
        bound: u64,
    },
    /// At once, without waiting for other workers.
    Asynchronous {
        /// Compute the next update while the previous contribution is in flight. Hides latency and roughly doubles
        /// staleness.
        overlap: bool,
    },
    /// After the contributions of the first `count` workers to this round, and the ones that come within `grace` after
    /// them, are applied (Chen et al. 2016, "Revisiting distributed synchronous SGD", section 3.2). A slow worker holds
    /// up no other: its contribution is `late`, and it goes on with the parameters of the round that is open then. A
    /// round takes one contribution of a worker, and merges in rank order, so its result follows from which workers
    /// were in time. Each shard ends its own rounds: a worker can be in time at one shard, and late at another.
    /// Requires [`Topology::Servers`].
    First {
        /// Contributions that a round waits for; when fewer workers take part, all of theirs. All workers: bitwise
        /// [`Pace::Synchronous`].
        count: Count,
        /// How long a round waits for the other contributions, from the moment at which the server has `count` of them.
        grace: Grace,
        /// The treatment of contributions that come after their round has ended.
        late: Late,
    },
}

/// The merge axis: how contributions are combined before they change the parameters.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Merge {
    /// The mean of a round, weighted by the number of examples behind each contribution.
    Mean,
    /// The sum, times `lambda`.
    Sum {
        /// Factor on every update: finite and above 0. 1 applies updates as they are. A mesh scales an update before it
        /// encodes it, a server when it applies it.
        lambda: Lambda,
    },
    /// The mean of every `updates` updates in order of arrival (Zhang et al. 2016, section 3).
    Softsync {
        /// Updates per application: c in the paper, 1 to the number of workers. Their n-softsync with λ workers is
        /// c = floor(λ / n).
        updates: u32,
    },
    /// Elastic averaging (Zhang, Choromanska and LeCun 2015): workers and server keep parameters of their own, and are
    /// drawn to each other. At a synchronisation, a worker goes `alpha` times its distance towards the server's
    /// parameters, the center, and the center goes as far towards the worker. The center is the result of the run.
    Elastic {
        /// The share of the distance, from 0 to 1.
        alpha: Lambda,
    },
    /// The mean of each element without its `trim` smallest and `trim` largest values in the round (Yin et al. 2018).
    /// Each worker counts once, with any number of examples. Of n contributions, at most (n - 1) / 2 values are cut
    /// at each end. Requires servers, as all variants below; each server holds a vector per worker until the round ends.
    TrimmedMean {
        /// Values to cut at each end. 0 is [`Merge::Mean`], with its weights, bit for bit.
        trim: u32,
    },
    /// The median of each element in the round (Yin et al. 2018). Each worker counts once. Of an even number of values,
    /// it is the mean of the two in the middle.
    Median,
    /// The mean of a round, weighted by examples, of contributions that are scaled down to the median of their norms
    /// (as SparseLoCo, Sarfi et al. 2025, runs in production). The norm is that of the whole contribution, so it requires
    /// one shard.
    NormClip,
    /// Centred clipping (Karimireddy et al. 2021): the merged update of the last round, moved `iterations` times by the
    /// mean, weighted by examples, of the ways to the contributions, each clipped to `radius`. Requires one shard.
    CentredClip {
        /// The longest way that a contribution moves the result, before the weights: above 0, in the unit of updates, which
        /// is learning rate times gradient. Infinite is [`Merge::Mean`], bit for bit.
        radius: f32,
        /// Moves per round, at least 1.
        iterations: u32,
    },
    /// The `best` contributions with the smallest sums of squared distances to their n - `faulty` - 2 nearest neighbours,
    /// as a mean weighted by examples (Blanchard et al. 2017). Requires one shard, and at least 2 `faulty` + 3 workers. If
    /// fewer contribute, `faulty` is lowered.
    Krum {
        /// Workers that may contribute anything.
        faulty: u32,
        /// Contributions to take: from 1 to the number of workers that are not faulty. Above 1, it is multi-Krum.
        best: u32,
    },
    /// Adasum (Maleki et al. 2021) of each tensor, in pairs by rank: the sum where two are orthogonal, the mean where they
    /// are parallel. Each worker counts once, with any number of examples. Requires one shard, or a tree with a fan-in of
    /// 2, at most 256 workers and [`Codec::F32`](super::Codec::F32). The tree is that of the pairs: rank 0 merges its
    /// contribution with that of rank 1, the result with that of ranks 2 and 3, and so on. Its messages are tensors.
    Adasum,
    /// The mean norm in the direction of the mean of the directions of each tensor, both weighted by examples (as in
    /// Decoupled DiLoCo, 2026): contributions that are nearly orthogonal are not shortened by merging. Requires one shard.
    Rda,
    /// The mean of each element over the workers that have sent it, weighted by their examples, in place of all workers
    /// (as the programs of SparseLoCo compute it; the paper, Sarfi et al. 2025, divides by the number of workers). An
    /// element that few workers send moves further than with [`Merge::Mean`], up to as many times as there are workers. A
    /// message carries no element that is 0, also where it is dense. Requires a sparse codec. Each server or member of a
    /// mesh needs memory for a count per element.
    MeanOfSenders,
    /// The majority of the signs of each element, times `length` (signSGD with majority vote, Bernstein et al. 2018 and
    /// 2019). The sign of 0 is plus, and a tie takes the element back on its last step. Each worker counts once. A vote has no
    /// size, so it takes codecs without a residual: `f32`, or [`Recipe::decay`](super::Recipe::decay) 0.
    Vote {
        /// How far each element moves per round: finite and above 0, in the unit of updates, which is learning rate times
        /// gradient. The workers' learning rate has no effect.
        length: f32,
    },
}

impl Merge {
    /// The factor of [`Elastic`](Self::Elastic) in a cluster of so many workers.
    pub(crate) fn elastic(self, workers: u32) -> Option<f32> {
        match self {
            Self::Elastic { alpha } => Some(alpha.of(workers)),
            _ => None,
        }
    }
}

/// How a worker's steps since the last synchronisation count in a mean. Text form: `normalize=`; left out if it is
/// `none`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Normalize {
    /// Contributions weigh by their examples, so that a worker that has taken more steps pulls for longer.
    None,
    /// A contribution d of H steps and m examples is sent as d / H. Their mean, weighted by examples, is multiplied by the
    /// mean number of steps, weighted likewise (FedNova, Wang et al. 2020): the parameters move along the mean direction
    /// of a step, by as many steps as the workers have taken on average. Requires [`Payload::Updates`],
    /// [`Merge::Mean`], and periods of unequal numbers of steps. With equal steps, it is the plain mean: bit for bit if
    /// their number is a power of two, and else to 3 units in the last place of the largest update.
    Steps,
}

/// The weight of a contribution in a mean. Text form: `weigh=`; left out if it is `examples`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Weigh {
    /// The number of its examples.
    Examples,
    /// The number of its examples, times the mean number of examples per local step: `m (m / H)` for m examples in H
    /// steps. Of two workers with as many examples, the one that took fewer and larger steps counts more, since its
    /// steps are less noisy. This is the token weight of Decoupled DiLoCo (2026), where examples are tokens. Without
    /// examples, it is 0. With batches of one size, it is the mean by examples: bit for bit if their size is a power of
    /// two. Weights are rounded to 1/16, and limited to 2^56. Requires a merge rule that weighs contributions.
    Batch,
}

/// The optimizer axis: how a worker's optimizer state is treated when parameters are averaged.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OptimizerState {
    /// Each worker keeps its own state.
    Keep,
    /// The state is set to zero after each synchronisation.
    Reset,
    /// The state is averaged together with the parameters. Requires [`Payload::Parameters`].
    Average,
}
