//! Axis types.

/// What travels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The worker's parameters.
    Parameters,
    /// What the worker would subtract from the parameters, after learning rate and optimizer.
    Updates,
}

/// Between whom it travels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Parameter servers: the vector is cut into `shards` ranges, which go round the server nodes.
    Servers {
        /// How many ranges, at least 1.
        shards: u32,
    },
    /// A tree over the workers, rank 0 at its root: reduce up, broadcast down.
    Tree {
        /// Children per node, 1 to 8. The depth follows.
        fan_in: u32,
    },
    /// A ring of the workers: each passes parts of the vector on to the next.
    Ring,
    /// Every worker holds a replica and sends its updates to all others.
    Mesh {
        /// 0: everyone to everyone. Otherwise updates travel along a tree with this many children per node.
        relay: u32,
    },
}

/// When a worker may go on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When all have contributed (bulk-synchronous parallel).
    Synchronous,
    /// While it is at most `bound` clocks ahead of the slowest (stale-synchronous parallel; s in Ho et al. 2013).
    Stale {
        /// The largest lead with which a worker may compute.
        bound: u64,
    },
    /// At once.
    Asynchronous {
        /// Compute the next update while the last one travels. Hides latency, roughly doubles staleness.
        overlap: bool,
    },
}

/// How many updates become one.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Merge {
    /// The mean, weighted by examples.
    Mean,
    /// The sum, times `lambda`.
    Sum {
        /// Factor on every update.
        lambda: f32,
    },
    /// The mean of every `updates` updates, in order of arrival (the article's s; floor(lambda / n) in the papers).
    Softsync {
        /// How many updates are gathered per application (c).
        updates: u32,
    },
}

/// What becomes of the worker's optimizer state when parameters are averaged.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum OptimizerState {
    /// It stays with the worker.
    Keep,
    /// It is set to zero after each synchronisation.
    Reset,
    /// It is averaged with the parameters.
    Average,
}
