//! The type [`Recipe`].

use super::{Codec, Correction, Merge, OptimizerState, Pace, Payload, Period, Staleness, Topology};

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
