//! Recipes: every method is one choice on each of a few axes.
//!
//! | axis | question | values here |
//! |---|---|---|
//! | payload | what travels | parameters, updates |
//! | period | how often | every H local steps, H by a schedule |
//! | topology | between whom | parameter servers, tree, ring, mesh (full or relayed) |
//! | pace | when may a worker go on | synchronous, stale-synchronous, asynchronous |
//! | merge | how many become one | example-weighted mean, sum times lambda, softsync |
//! | staleness | how a late update is scaled | const, inverse, inverse-plus-one, exp, poly; drop-above |
//! | codec, each way | how it is written | f32, bf16, f16, int8, sign, threshold, top-k |
//! | correction | what goes before a sparse codec | momentum with masking, warm-up, ramp, head start |
//! | optimizer | what becomes of the worker's optimizer state | keep, reset, average |
//!
//! Code follows the axes: a rule lives in one file of its axis, and a published method is a preset
//! ([`presets`](crate::recipe::PRESETS)), never a code path of its own.

mod check;
mod codec;
mod presets;
mod text;

pub use check::ConfigError;
pub(crate) use check::check_range;
pub use codec::{Codec, Control, Correction, Threshold, TopK};
pub use presets::{PRESETS, Preset};
pub use text::RecipeParseError;

pub use crate::rule::period::{Period, PeriodParseError};
pub use crate::rule::staleness::{Scaling, Staleness};

/// What a run does: one choice on each axis. Plain data; [`Recipe::check`] says whether the choices make sense
/// together, and joining compares the recipes of all nodes field by field.
///
/// ```
/// use gradwire_core::{Recipe, recipe::Staleness};
/// let recipe = Recipe::softsync(4).with_staleness(Staleness::inverse());
/// assert!(recipe.check(8).is_ok());
/// assert_eq!(recipe.to_string().parse(), Ok(recipe));
/// ```
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Recipe {
    pub(crate) payload: Payload,
    pub(crate) period: Period,
    pub(crate) topology: Topology,
    pub(crate) pace: Pace,
    pub(crate) merge: Merge,
    pub(crate) staleness: Staleness,
    /// How contributions are written.
    pub(crate) codec: Codec,
    /// How parameters that a server sends are written.
    pub(crate) pull: Codec,
    pub(crate) correction: Correction,
    pub(crate) optimizer: OptimizerState,
    /// Longest part of the vector that travels as one message in a tree or ring, in floats.
    pub(crate) chunk: u32,
}

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

impl Recipe {
    /// Sets what travels.
    #[must_use]
    pub const fn with_payload(self, payload: Payload) -> Self {
        Self { payload, ..self }
    }

    /// Sets how many local steps lie between synchronisations: a number, or a schedule.
    #[must_use]
    pub fn with_period(self, period: impl Into<Period>) -> Self {
        Self { period: period.into(), ..self }
    }

    /// Sets between whom it travels.
    #[must_use]
    pub const fn with_topology(self, topology: Topology) -> Self {
        Self { topology, ..self }
    }

    /// Sets the longest part of the vector, in floats, that travels as one message in a tree or ring.
    #[must_use]
    pub const fn with_chunk(self, chunk: u32) -> Self {
        Self { chunk, ..self }
    }

    /// Sets when a worker may go on.
    #[must_use]
    pub const fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Sets how many updates become one.
    #[must_use]
    pub const fn with_merge(self, merge: Merge) -> Self {
        Self { merge, ..self }
    }

    /// Sets how a late update is scaled.
    #[must_use]
    pub const fn with_staleness(self, staleness: Staleness) -> Self {
        Self { staleness, ..self }
    }

    /// Sets how contributions are written to the wire.
    #[must_use]
    pub const fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// Sets how servers write parameters: those that the worker has not heard of, as differences.
    #[must_use]
    pub const fn with_pull(self, pull: Codec) -> Self {
        Self { pull, ..self }
    }

    /// Sets what goes before a sparse codec.
    #[must_use]
    pub const fn with_correction(self, correction: Correction) -> Self {
        Self { correction, ..self }
    }

    /// Sets what becomes of the worker's optimizer state.
    #[must_use]
    pub const fn with_optimizer(self, optimizer: OptimizerState) -> Self {
        Self { optimizer, ..self }
    }

    /// What travels.
    pub const fn payload(&self) -> Payload {
        self.payload
    }

    /// How many local steps lie between synchronisations.
    pub const fn period(&self) -> Period {
        self.period
    }

    /// Between whom it travels.
    pub const fn topology(&self) -> Topology {
        self.topology
    }

    /// When a worker may go on.
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// How many updates become one.
    pub const fn merge(&self) -> Merge {
        self.merge
    }

    /// Scaling of updates by their staleness.
    pub const fn staleness(&self) -> Staleness {
        self.staleness
    }

    /// Codec of the parameters that servers send.
    pub const fn pull(&self) -> Codec {
        self.pull
    }

    /// Longest message of a tree or ring, in floats.
    pub const fn chunk(&self) -> u32 {
        self.chunk
    }

    /// How contributions are written to the wire.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// What goes before a sparse codec.
    pub const fn correction(&self) -> Correction {
        self.correction
    }

    /// What becomes of the worker's optimizer state.
    pub const fn optimizer(&self) -> OptimizerState {
        self.optimizer
    }

    /// Is it a tree or a ring, whose members agree on views?
    pub const fn is_collective(&self) -> bool {
        matches!(self.topology, Topology::Tree { .. } | Topology::Ring)
    }

    /// Does the recipe need server nodes?
    pub const fn needs_servers(&self) -> bool {
        matches!(self.topology, Topology::Servers { .. })
    }

    /// Is every contribution of a round applied before anyone goes on? True of `Stale { bound: 0 }` too.
    pub const fn is_synchronous(&self) -> bool {
        matches!(self.pace, Pace::Synchronous | Pace::Stale { bound: 0 })
    }

    /// How many ranges the vector is cut into.
    pub(crate) const fn shards(&self) -> u32 {
        match self.topology {
            Topology::Servers { shards } => shards,
            Topology::Tree { .. } | Topology::Ring | Topology::Mesh { .. } => 1,
        }
    }
}
