//! [`Failure`]: why a node has failed, as it says to its peers.
//!
//! A node that ends without having left says so with its last message ([`Message::Failed`]). Its peers need not wait
//! for `dead_after`: they give it up at once, and tell their applications which node has failed, and why
//! ([`Event::PeerFailed`]).
//!
//! | the node that has failed | its peers |
//! |---|---|
//! | a worker | go on without it, as after a loss |
//! | a server, or the host of the coordinator | cannot go on, and end ([`Signal::PeerFailed`]) |
//! | any node that was cancelled | wait for it to come back, if they need it: it was told to end, and may be restarted |
//!
//! Where nodes are connected on demand, the coordinator's node or the first server tells the nodes that are not connected
//! with the one that has failed or is given up ([`Message::PeerLost`]).
//!
//! A process that is killed says nothing, and is given up after `dead_after`.
//!
//! [`Message::Failed`]: crate::wire::Message::Failed
//! [`Message::PeerLost`]: crate::wire::Message::PeerLost
//! [`Event::PeerFailed`]: super::Event::PeerFailed
//! [`Signal::PeerFailed`]: super::Signal::PeerFailed

use core::fmt;

use crate::id::PeerId;

/// Why a node has failed, as it says to its peers.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// The application has ended without leaving.
    Dropped,
    /// The application has panicked.
    Panicked,
    /// The node was told to end.
    Cancelled,
    /// The application's vector had an element that is not finite.
    NonFinite {
        /// Index of the element in the flat vector.
        index: u32,
    },
    /// A wait for this peer has reached the deadline. The node itself: no particular peer.
    Overdue {
        /// The peer that was waited for.
        on: PeerId,
    },
    /// The node could not go on without this peer.
    Without {
        /// The peer that the node needs.
        peer: PeerId,
    },
    /// The sum of the quanta of an element no longer fits into the node's ledger.
    LedgerFull {
        /// Index of the element in the flat vector.
        index: u32,
    },
    /// The device that runs the node's kernels has failed.
    Executor,
    /// The node's transport as a whole has failed.
    Transport,
}

impl Failure {
    /// The numbers that are sent.
    pub(crate) const fn code(self) -> (u32, u64) {
        match self {
            Self::Dropped => (0, 0),
            Self::Panicked => (1, 0),
            Self::Cancelled => (2, 0),
            Self::NonFinite { index } => (3, index as u64),
            Self::Overdue { on } => (4, on.0 as u64),
            Self::Without { peer } => (5, peer.0 as u64),
            Self::LedgerFull { index } => (6, index as u64),
            Self::Executor => (7, 0),
            Self::Transport => (8, 0),
        }
    }

    /// The inverse of [`code`](Self::code). `None` for numbers that no failure has.
    pub(crate) fn from_code(code: u32, value: u64) -> Option<Self> {
        let value = u32::try_from(value).ok()?;
        let failure = match code {
            0 => Self::Dropped,
            1 => Self::Panicked,
            2 => Self::Cancelled,
            3 => Self::NonFinite { index: value },
            4 => Self::Overdue { on: PeerId(value) },
            5 => Self::Without { peer: PeerId(value) },
            6 => Self::LedgerFull { index: value },
            7 => Self::Executor,
            8 => Self::Transport,
            _ => return None,
        };
        Some(failure).filter(|failure| failure.code() == (code, value.into()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => write!(f, "its application ended without leaving the run"),
            Self::Panicked => write!(f, "its application panicked"),
            Self::Cancelled => write!(f, "it was told to end"),
            Self::NonFinite { index } => write!(f, "element {index} of its vector is not a finite number"),
            Self::Overdue { on } => write!(f, "it waited for peer {on} until its deadline"),
            Self::Without { peer } => write!(f, "it could not go on without peer {peer}"),
            Self::LedgerFull { index } => write!(f, "its ledger is full at element {index}; raise tau"),
            Self::Executor => write!(f, "its executor failed"),
            Self::Transport => write!(f, "its transport failed"),
        }
    }
}
