//! Deliberate bugs, compiled with `--cfg planted` only. `tests/planted.rs` turns on one at a time and checks that the
//! random schedules of the property harness find it.

/// A mistake that is typical of this kind of system.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A server applies an update again if it arrives twice.
    NoDedup,
    /// A server forgets which updates of a worker it has applied when the worker reconnects.
    DedupClearedOnReconnect,
    /// The stale-synchronous bound is off by one.
    BoundOffByOne,
    /// The row clock includes lost workers.
    MinimumOverDead,
    /// A mean divides by the number of contributions instead of the number of examples.
    DenominatorByCount,
    /// The residual of an encoder is set to zero after each message.
    ResidualDropped,
    /// A mesh peer that takes the donor's ledger does not add its own messages that are not in it.
    SnapshotOverwrites,
    /// The contributions of a round are merged in order of arrival instead of rank order.
    ArrivalOrder,
    /// Late updates get the factor of fresh updates.
    StalenessIgnored,
    /// Softsync divides an incomplete group by c instead of its size.
    RestDividedByC,
    /// The parameters that a worker receives lack its own updates that are still in flight.
    OwnWritesLost,
    /// A mesh message that is merged into another is lost.
    MergeForgets,
    /// A member that lacks the result of a round continues without it.
    BehindNotFetched,
    /// A member applies its part of an incomplete round when the view changes.
    HalfRoundApplied,
    /// The residual of a hop keeps the remains of a round that was broken off.
    BrokenRoundInResidual,
    /// A member of a ring forgets to send a result on to a member that it is not connected with yet.
    TakerForgotten,
    /// A member of a mesh encodes its contribution again when a round begins anew.
    EncodedTwice,
    /// An operation that the driver has not been given when its connection breaks goes out on the next one.
    OldConnection,
    /// A member of a view is sent messages of it after its process was replaced.
    StrangersTold,
    /// A new process of a worker is taken for the one before, of which a message is missing.
    StreamsMixed,
    /// A restarted server begins with the offer that comes last, instead of the newest parameters.
    LastOffer,
    /// A server takes a body for complete though its connection broke.
    StaleBody,
    /// A worker does not count the contributions that it sends again.
    ResentUncounted,
    /// A contribution whose round closed while its body came is merged into the next one, though late ones are dropped.
    LateMerged,
    /// A late contribution that joins a round counts among the first of it.
    LateAmongFirst,
    /// A view is formed with one worker less than the quorum.
    QuorumOffByOne,
    /// A worker that was given up counts as one that has left of its own.
    EjectedAsLeft,
    /// A node takes part with peers of another run.
    RunNotChecked,
    /// A node that resumes takes the newest moment that it has itself, even if its peers lack it.
    UncommittedMoment,
    /// A node that waits for a silent one does not tell the nodes that wait for it.
    SilenceNotPassedOn,
    /// A node of a tree does not want to be connected with its parent in a later view.
    ParentNotWanted,
}

impl Bug {
    /// All bugs that schedules find, in the order of the enum.
    pub const ALL: [Self; 25] = [
        Self::NoDedup,
        Self::DedupClearedOnReconnect,
        Self::BoundOffByOne,
        Self::MinimumOverDead,
        Self::DenominatorByCount,
        Self::ResidualDropped,
        Self::SnapshotOverwrites,
        Self::ArrivalOrder,
        Self::StalenessIgnored,
        Self::RestDividedByC,
        Self::OwnWritesLost,
        Self::MergeForgets,
        Self::BehindNotFetched,
        Self::HalfRoundApplied,
        Self::BrokenRoundInResidual,
        Self::TakerForgotten,
        Self::EncodedTwice,
        Self::OldConnection,
        Self::StrangersTold,
        Self::StreamsMixed,
        Self::LastOffer,
        Self::StaleBody,
        Self::ResentUncounted,
        Self::LateMerged,
        Self::LateAmongFirst,
    ];
}
