//! [`Error`]: why a simulation cannot be run.

use std::fmt;

use gradwire_core::{Cluster, ConfigError, Duration, LayoutError, PeerId};

/// Why a simulation cannot be run. Runs that fail or diverge are no errors: see [`End`](super::End).
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The recipe does not fit the cluster or the layout.
    Config(ConfigError),
    /// The layout does not fit into memory.
    Layout(LayoutError),
    /// The initial parameters have another length than the layout.
    InitialLength {
        /// Length of the layout.
        expected: usize,
        /// Length of the initial parameters.
        got: usize,
    },
    /// An initial parameter is not finite.
    InitialNotFinite {
        /// Its index.
        index: usize,
        /// Its value.
        got: f32,
    },
    /// A number is out of its range.
    OutOfRange {
        /// The number.
        field: &'static str,
        /// Of which worker. `None`: of all workers, or of the whole run.
        worker: Option<PeerId>,
        /// The accepted range.
        expected: &'static str,
        /// The given number.
        got: f64,
    },
    /// A slow phase ends before it begins.
    EmptyPhase {
        /// Of which worker. `None`: of all.
        worker: Option<PeerId>,
        /// The beginning.
        from: Duration,
        /// The end.
        until: Duration,
    },
    /// A link of 0 bit/s: from a node, to a node, or from one to the other. Of all nodes if both are `None`.
    NoBandwidth {
        /// The sender.
        from: Option<PeerId>,
        /// The receiver.
        to: Option<PeerId>,
    },
    /// No node has this rank.
    UnknownNode {
        /// The setting that names it.
        of: &'static str,
        /// The rank.
        rank: PeerId,
        /// The number of nodes.
        nodes: u32,
    },
    /// No worker has this rank.
    UnknownWorker {
        /// The setting that names it.
        of: &'static str,
        /// The rank.
        rank: PeerId,
        /// The number of workers.
        workers: u32,
    },
    /// A setting between a node and itself.
    SamePeer {
        /// The setting.
        of: &'static str,
        /// The node.
        node: PeerId,
    },
    /// The run has no end.
    NoEnd,
    /// The run ends at a validation figure, and does not validate.
    NoRecord,
    /// A [`Sweep`](super::Sweep) without runs.
    NoRuns,
    /// A run of a [`Sweep`](super::Sweep).
    Run {
        /// Its position, from 0.
        run: usize,
        /// What is wrong with it.
        error: Box<Self>,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |worker: &Option<PeerId>| worker.map(|worker| format!(" of worker {worker}")).unwrap_or_default();
        match self {
            Self::Config(error) => write!(f, "{error}"),
            Self::Layout(error) => write!(f, "{error}"),
            Self::InitialLength { expected, got } => {
                write!(f, "initial parameters: expected {expected} floats, as in the layout, got {got}")
            }
            Self::InitialNotFinite { index, got } => {
                write!(f, "initial parameters: expected finite floats, got {got} at index {index}")
            }
            Self::OutOfRange { field, worker, expected, got } => {
                write!(f, "{field}{}: expected {expected}, got {got}", of(worker))
            }
            Self::EmptyPhase { worker, from, until } => {
                write!(f, "slow phase{}: it ends at {until:?}, and begins at {from:?}", of(worker))
            }
            Self::NoBandwidth { from, to } => {
                write!(f, "a link of 0 bit/s: ")?;
                match (from, to) {
                    (Some(from), Some(to)) => write!(f, "from node {from} to node {to}"),
                    (Some(from), None) => write!(f, "from node {from}"),
                    (None, Some(to)) => write!(f, "to node {to}"),
                    (None, None) => write!(f, "of all nodes"),
                }?;
                write!(f, "; leave the bandwidth out for a link without a limit")
            }
            Self::UnknownNode { of, rank, nodes } => {
                write!(f, "{of} of node {rank}: there are {nodes} nodes, from 0 to {}", nodes.saturating_sub(1))
            }
            Self::UnknownWorker { of, rank, workers } => {
                write!(f, "{of} of worker {rank}: there are {workers} workers, from 0 to {}", workers.saturating_sub(1))
            }
            Self::SamePeer { of, node } => write!(f, "{of} of node {node} and itself: expected two nodes"),
            Self::NoEnd => write!(f, "the run has no end: set a number of steps or examples, or a virtual time"),
            Self::NoRecord => {
                write!(f, "the run ends at a validation figure, and never validates: set when to record")
            }
            Self::NoRuns => write!(f, "a sweep without runs"),
            Self::Run { run, error } => write!(f, "run {run}: {error}"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

pub(super) fn check_range(
    field: &'static str,
    worker: Option<PeerId>,
    expected: &'static str,
    got: f64,
    within: bool,
) -> Result<(), Error> {
    if within { Ok(()) } else { Err(Error::OutOfRange { field, worker, expected, got }) }
}

pub(super) fn check_node(of: &'static str, rank: PeerId, cluster: Cluster) -> Result<(), Error> {
    let nodes = cluster.nodes();
    if rank.0 < nodes { Ok(()) } else { Err(Error::UnknownNode { of, rank, nodes }) }
}
