//! The reasons for a mesh peer's operations.

use crate::id::PeerId;

/// Why an operation was started. `slot` is an index of a slot, `from` that of the neighbour whose message is in it.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Job {
    /// Encode the next own message.
    Encode,
    /// A kernel on which only later kernels depend.
    Aside,
    /// Measure the contribution.
    Measure,
    /// Clip the residual.
    Clip,
    /// Merge two own messages.
    Merge,
    /// Add an own message to the ledger.
    Own,
    /// Receive a body.
    Receive { slot: usize, from: usize },
    /// Add a received body to the ledger.
    Decode { slot: usize, from: usize },
    /// Send a message to a neighbour.
    Send { slot: usize },
    /// Make the view, after a step or at the end.
    View,
    /// Make the base of a new run, or the view before the first step.
    Base,
    /// Receive the base of a snapshot.
    Seed,
    /// Receive the ledger of a snapshot.
    Ledger,
    /// Copy the ledger for a neighbour's request.
    Snapshot { to: PeerId, request: u32 },
    /// Send the base or the copied ledger.
    SendSnapshot,
}
