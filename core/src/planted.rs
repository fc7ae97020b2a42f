//! Bugs to plant, so that the property harness can show that it would find them. Compiled with `--cfg planted`
//! only.

/// One mistake that this kind of system makes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by what they do")]
pub enum Bug {
    /// A server applies an update again when it comes again.
    NoDedup,
    /// A server forgets which updates it has when a worker reconnects.
    DedupClearedOnReconnect,
    /// The stale-synchronous bound is off by one.
    BoundOffByOne,
    /// The row clock counts the dead.
    MinimumOverDead,
    /// A mean divides by the number of contributions, not by their examples.
    DenominatorByCount,
    /// What an encoder keeps back is forgotten.
    ResidualDropped,
    /// A later joiner takes messages before its snapshot, and the snapshot overwrites them.
    SnapshotAppliedLate,
    /// A round is applied in order of arrival.
    ArrivalOrder,
    /// Late updates get the scale of fresh ones.
    StalenessIgnored,
    /// Softsync divides a rest by c.
    RestDividedByC,
    /// A worker's refreshed parameters lack its own updates that are still under way.
    OwnWritesLost,
    /// A message that becomes part of another is forgotten.
    MergeForgets,
    /// A member that lacks a round goes on without it.
    BehindNotFetched,
    /// A member applies what it has of a round when everyone stops.
    HalfRoundApplied,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::NoDedup,
        Self::DedupClearedOnReconnect,
        Self::BoundOffByOne,
        Self::MinimumOverDead,
        Self::DenominatorByCount,
        Self::ResidualDropped,
        Self::SnapshotAppliedLate,
        Self::ArrivalOrder,
        Self::StalenessIgnored,
        Self::RestDividedByC,
        Self::OwnWritesLost,
        Self::MergeForgets,
        Self::BehindNotFetched,
        Self::HalfRoundApplied,
    ];
}
