//! The reports of connections to users: [`Notice`] for events that leave the run going, [`StreamError`] for failures
//! that end it, and [`Refusal`] for the reasons why a node rejects a connection.

use std::fmt;
use std::io;

use gradwire_core::wire::WireError;
use gradwire_core::{PeerId, RunId};

/// Why the accepting node rejected a connection after reading its preamble.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the value that was expected and the value that came")]
pub enum Refusal {
    /// The protocol versions differ.
    Version { expected: u64, got: u64 },
    /// The cluster names differ. The values are digests of the names.
    Cluster { expected: u64, got: u64 },
    /// The numbers of nodes (workers and servers) differ.
    Nodes { expected: u64, got: u64 },
    /// The dialling rank should be dialled by the accepting node, or is not below `expected`, the number of nodes.
    Rank { expected: u64, got: u64 },
    /// The node that was dialled has another rank. Temporary: addresses can change while nodes restart.
    NotHere { expected: u64, got: u64 },
    /// Another process has this rank and is alive. Temporary: that process may be about to end.
    Taken { rank: u64 },
    /// The announced address cannot be dialled.
    Address { rank: u64 },
    /// The runs differ. Each side has the name of the other's run in its preamble.
    Run,
    /// The accepting node has a key, and the dialling node has no key. Nodes that both have a key cannot exchange
    /// refusals before they know that it is the same one.
    Key,
}

impl Refusal {
    /// The fields `code`, `expected` and `got` of a preamble. Unused values are 0.
    pub(crate) fn code(self) -> (u8, u64, u64) {
        match self {
            Self::Version { expected, got } => (1, expected, got),
            Self::Cluster { expected, got } => (2, expected, got),
            Self::Nodes { expected, got } => (3, expected, got),
            Self::Rank { expected, got } => (4, expected, got),
            Self::NotHere { expected, got } => (5, expected, got),
            Self::Taken { rank } => (6, rank, 0),
            Self::Address { rank } => (7, rank, 0),
            Self::Run => (8, 0, 0),
            Self::Key => (9, 0, 0),
        }
    }

    /// The inverse of [`code`](Self::code). `None` for an unknown code.
    pub(crate) fn from_code(code: u8, expected: u64, got: u64) -> Option<Self> {
        Some(match code {
            1 => Self::Version { expected, got },
            2 => Self::Cluster { expected, got },
            3 => Self::Nodes { expected, got },
            4 => Self::Rank { expected, got },
            5 => Self::NotHere { expected, got },
            6 => Self::Taken { rank: expected },
            7 => Self::Address { rank: expected },
            8 => Self::Run,
            9 => Self::Key,
            _ => return None,
        })
    }

    /// Whether a later attempt can succeed without a change of the configuration.
    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::NotHere { .. } | Self::Taken { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { expected, got } => {
                write!(f, "expected protocol version {expected}, got {got}; run the same release on all nodes")
            }
            Self::Cluster { expected, got } => write!(
                f,
                "expected cluster {expected:016x}, got {got:016x} (digests of the names); use one cluster name on all \
                 nodes"
            ),
            Self::Nodes { expected, got } => {
                write!(f, "expected {expected} nodes, got {got}; use one number of workers and servers on all nodes")
            }
            Self::Rank { expected, got } => {
                write!(
                    f,
                    "expected a rank below {expected} that dials the accepting node, got {got}; use one number of \
                     workers and servers on all nodes"
                )
            }
            // Either side can find this, with its own view of which rank was expected: so both are only listed.
            Self::NotHere { expected, got } => write!(
                f,
                "expected the dialled rank at this address, got another one (ranks {expected} and {got}); check \
                 addresses and ranks"
            ),
            Self::Taken { rank } => {
                write!(f, "rank {rank} is taken by a running process; stop that process or use another rank")
            }
            Self::Address { rank } => write!(
                f,
                "rank {rank} announced an address that cannot be dialled: expected IP:PORT; check the address that it \
                 advertises"
            ),
            Self::Run => write!(f, "it is of another run"),
            Self::Key => write!(f, "expected a node with the cluster's key, and this node has none; give it the key"),
        }
    }
}

/// An event of a connection. The run goes on after each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "peer: rank of the other node; address: where it is; reason: text for the log")]
pub enum Notice {
    /// This node listens at another place than might be expected. Given before the transport is returned.
    Listens { address: String, reason: String },
    /// The connection to a peer is open.
    Connected { peer: PeerId, address: String },
    /// A connection that has just been opened is slower than it could be.
    Slow { peer: PeerId, reason: String },
    /// The connection to a peer is closed. Dialling starts again if that is this node's part.
    Disconnected { peer: PeerId, reason: String },
    /// This node rejected `count` strangers for one cause, or their greeting failed. Address and reason belong to the
    /// first of them. Given at the first rejection for a cause; further ones are counted, and told after a minute, then
    /// at intervals that double up to an hour. `refusal`: the answer of this node to its preamble.
    TurnedAway { address: String, reason: String, refusal: Option<Refusal>, count: u64 },
    /// A peer refused this node for a temporary reason. Dialling continues.
    Refused { peer: PeerId, address: String, reason: Refusal },
    /// A peer could not be dialled or greeted. Given at the first failure, then at most every 10 s for each peer.
    Unreachable { peer: PeerId, address: String, reason: String },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listens { address, reason } => write!(f, "listens on {address}: {reason}"),
            Self::Connected { peer, address } => write!(f, "peer {peer} is connected ({address})"),
            Self::Slow { peer, reason } => write!(f, "peer {peer}: {reason}"),
            Self::Disconnected { peer, reason } => write!(f, "peer {peer} is disconnected: {reason}"),
            Self::TurnedAway { address, reason, count: 1, .. } => {
                write!(f, "rejected a connection from {address}: {reason}")
            }
            Self::TurnedAway { address, reason, count, .. } => {
                write!(f, "rejected {count} more connections, the first of them from {address}: {reason}")
            }
            Self::Refused { peer, address, reason } => {
                write!(f, "peer {peer} ({address}) refused this node: {reason}; retrying")
            }
            Self::Unreachable { peer, address, reason } => {
                write!(f, "peer {peer} ({address}) is unreachable: {reason}; retrying")
            }
        }
    }
}

/// The names of the clusters of two nodes that have met.
pub(crate) struct Clusters<'a> {
    pub(crate) ours: &'a str,
    pub(crate) theirs: &'a str,
}

impl fmt::Display for Clusters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, theirs } = self;
        write!(f, "expected cluster \"{ours}\", got \"{theirs}\"; use one cluster name on all nodes")
    }
}

/// The runs of two nodes that have met and do not belong together.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// The run of this node.
    pub ours: RunId,
    /// The run of the peer.
    pub theirs: RunId,
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this node is of run {}, the peer is of run {}", self.ours, self.theirs)
    }
}

/// A failure that ends the run.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "peer: rank of the other node; address: where it was dialled")]
pub enum StreamError {
    /// A peer refused this node: for a reason that will not pass, or for longer than `dead_after`.
    Refused { peer: PeerId, address: String, reason: Refusal },
    /// A peer that was never connected has answered the last `times` handshakes as a node with another key, or as another
    /// kind of program, over more than half of `dead_after`. A peer that closes the connection without an answer is not
    /// counted: it may be making room for other connections.
    Handshake { peer: PeerId, address: String, times: u32 },
    /// A peer is of another cluster.
    OtherCluster { peer: PeerId, address: String, ours: String, theirs: String },
    /// A peer is of another run.
    OtherRun { peer: PeerId, address: String, runs: Box<Runs> },
    /// The system calls to wait for events failed.
    Io(io::Error),
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { peer, address, reason } => {
                write!(f, "peer {peer} ({address}) refused this node: {reason}")
            }
            Self::Handshake { peer, address, times } => write!(
                f,
                "peer {peer} ({address}) answered {times} handshakes as no node with this key does: its key differs \
                 from this node's, only one of the two nodes has a key, or another program listens there; check key \
                 and address"
            ),
            Self::OtherCluster { peer, address, ours, theirs } => {
                write!(f, "peer {peer} ({address}) refused this node: {}", Clusters { ours: theirs, theirs: ours })
            }
            Self::OtherRun { peer, address, runs } => {
                write!(f, "peer {peer} ({address}): {runs}; give each run an address of its own")
            }
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

/// An invalid message header, as the error that ends its connection.
pub(crate) fn malformed(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
