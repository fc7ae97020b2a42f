//! The reasons for a mesh peer's operations.

use crate::id::{Clock, PeerId, Sequence};

/// Why an operation was started. `slot` is the index of a slot, `from` the index of the neighbour that sent the message
/// in it.
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
    /// Make the view: before the first step, after a step, or at the end.
    View,
    /// Make the base of a new run.
    Found,
    /// Receive the base of a snapshot, in this view.
    Seed { view: Sequence },
    /// Receive the ledger of a snapshot, in this view.
    Ledger { view: Sequence },
    /// Copy the ledger for a member that enters.
    Snapshot { to: PeerId, view: Sequence, applied: Clock },
    /// Send the base or the copied ledger.
    SendSnapshot,
    /// Tell the coordinator that this node has left.
    Leave { stays: bool },
}
