//! What people should know, and what ends a run.

use std::fmt;
use std::io;

use gradwire_core::PeerId;
use gradwire_core::wire::WireError;

/// Why a connection was turned away in its preamble.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum Refusal {
    /// Another version of the protocol.
    Version { expected: u64, got: u64 },
    /// Another cluster: digests of the names.
    Cluster { expected: u64, got: u64 },
    /// Another number of nodes.
    Nodes { expected: u64, got: u64 },
    /// A rank that does not exist, or must not dial this one.
    Rank { expected: u64, got: u64 },
    /// Another rank was meant to be here.
    NotHere { expected: u64, got: u64 },
    /// A process with this rank takes part already.
    Taken { rank: u64 },
    /// An address that cannot be one.
    Address { rank: u64 },
}

impl Refusal {
    pub(crate) fn code(self) -> (u8, u64, u64) {
        match self {
            Self::Version { expected, got } => (1, expected, got),
            Self::Cluster { expected, got } => (2, expected, got),
            Self::Nodes { expected, got } => (3, expected, got),
            Self::Rank { expected, got } => (4, expected, got),
            Self::NotHere { expected, got } => (5, expected, got),
            Self::Taken { rank } => (6, rank, 0),
            Self::Address { rank } => (7, rank, 0),
        }
    }

    pub(crate) fn from_code(code: u8, expected: u64, got: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Version { expected, got },
            2 => Self::Cluster { expected, got },
            3 => Self::Nodes { expected, got },
            4 => Self::Rank { expected, got },
            5 => Self::NotHere { expected, got },
            6 => Self::Taken { rank: expected },
            7 => Self::Address { rank: expected },
            _ => return None,
        })
    }

    /// Can it be otherwise when asked again?
    pub(crate) fn passes(self) -> bool {
        matches!(self, Self::NotHere { .. } | Self::Taken { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { expected, got } => write!(f, "expected protocol {expected}, got {got}"),
            Self::Cluster { expected, got } => write!(f, "expected cluster {expected:016x}, got {got:016x}"),
            Self::Nodes { expected, got } => write!(f, "expected {expected} nodes, got {got}"),
            Self::Rank { expected, got } => write!(f, "expected a rank between this one's and {expected}, got {got}"),
            Self::NotHere { expected, got } => write!(f, "expected to be asked for rank {expected}, got {got}"),
            Self::Taken { rank } => write!(f, "a process with rank {rank} takes part already"),
            Self::Address { rank } => write!(f, "rank {rank} says that it is where nobody can be"),
        }
    }
}

/// What happened to connections. None of these ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say who and why")]
pub enum Notice {
    /// A peer is connected.
    Connected { peer: PeerId, address: String },
    /// Its connection broke.
    Disconnected { peer: PeerId, reason: String },
    /// A connection was turned away.
    TurnedAway { address: String, reason: String },
    /// This node was turned away, and will ask again.
    Refused { peer: PeerId, address: String, reason: Refusal },
    /// A peer cannot be reached; said at the first failure and then once in a while.
    Unreachable { peer: PeerId, address: String, reason: String },
    /// Connections of strangers were closed without a notice each, unheard or turned away, since the last such notice.
    Flooded { count: u64 },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { peer, address } => write!(f, "peer {peer} is connected ({address})"),
            Self::Disconnected { peer, reason } => write!(f, "peer {peer} is disconnected: {reason}"),
            Self::TurnedAway { address, reason } => write!(f, "turned away {address}: {reason}"),
            Self::Refused { peer, address, reason } => {
                write!(f, "turned away by peer {peer} ({address}): {reason}; asking again")
            }
            Self::Unreachable { peer, address, reason } => {
                write!(f, "peer {peer} ({address}) cannot be reached: {reason}; trying again")
            }
            Self::Flooded { count } => {
                write!(f, "closed {count} more connections of strangers: too many to tell of each")
            }
        }
    }
}

/// What ends a run.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say who and why")]
pub enum StreamError {
    /// A peer will not have this node.
    Refused { peer: PeerId, address: String, reason: Refusal },
    /// A peer ends every connection before anything is said.
    Handshake { peer: PeerId, address: String, times: u32 },
    /// What it waits on failed.
    Io(io::Error),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { peer, address, reason } => write!(f, "turned away by peer {peer} ({address}): {reason}"),
            Self::Handshake { peer, address, times } => write!(
                f,
                "peer {peer} ({address}) ended {times} connections before anything was said: it has another key, or \
                 one of the two has none, or it is no gradwire node"
            ),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io(error) = self { Some(error) } else { None }
    }
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A frame that cannot be read ends its connection.
pub(crate) fn malformed(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
