//! What can go wrong, and whose doing it is.

use std::fmt;
use std::time::Duration;

use gradwire_core::kernel::executor::ExecutorError;
use gradwire_core::{ConfigError, PeerId};

use crate::checkpoint::CheckpointError;

/// Why a call failed. What it was to change is unchanged, unless it says otherwise.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum Error {
    /// The recipe makes no sense, or not with this cluster.
    Config(ConfigError),
    /// The transport connects another number of nodes than the cluster has.
    Nodes { expected: u32, got: u32 },
    /// A worker's call at the rank of a server, or the other way round.
    Role { rank: PeerId, expected: &'static str, got: &'static str },
    /// A vector of the wrong length.
    Length { what: &'static str, expected: usize, got: usize },
    /// A float that is not finite, refused before it touched anything.
    NonFinite { what: &'static str, tensor: String, index: usize, got: f32 },
    /// The wrong number of optimizer vectors.
    OptimizerVectors { expected: u32, got: u32 },
    /// `sync` after `step`: what changed since the last synchronisation is not known any more.
    Mixed,
    /// A peer runs something else. One differing line of both contracts.
    Contract { peer: PeerId, expected: String, got: String },
    /// A wait lasted longer than the deadline. The session cannot be used any more.
    Deadline(Overdue),
    /// A peer without which this node cannot go on is gone, or has given this node up.
    Cut { peer: PeerId },
    /// There is no checkpoint to go on from, or none could be written.
    Checkpoint(CheckpointError),
    /// Vectors that stay where the executor has them need a recipe that writes every update by a threshold.
    Through { got: String },
    /// The device that kernels run on failed.
    Executor(ExecutorError),
    /// The transport as a whole failed.
    Transport(Box<dyn std::error::Error + Send + Sync>),
    /// The session has ended with an error before.
    Ended,
}

/// A wait that lasted too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// What was waited for.
    pub what: &'static str,
    /// How long.
    pub waited: Duration,
    /// Whom for, the clock that this peer is at, and since when; unless nobody in particular.
    pub on: Option<Awaited>,
}

/// A peer that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Who.
    pub peer: PeerId,
    /// The clock that it is at, as far as is known.
    pub at: u64,
    /// The clock that this node waits for.
    pub clock: u64,
    /// For how long.
    pub since: Duration,
    /// Who said so.
    pub told_by: PeerId,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Nodes { expected, got } => {
                write!(f, "transport: expected {expected} nodes (workers and servers), got {got}")
            }
            Self::Role { rank, expected, got } => write!(f, "rank {rank}: expected a {expected}, got a {got}"),
            Self::Length { what, expected, got } => write!(f, "{what}: expected {expected} floats, got {got}"),
            Self::NonFinite { what, tensor, index, got } => {
                write!(f, "{what}: expected finite floats, got {got} at index {index} of {tensor:?}")
            }
            Self::OptimizerVectors { expected, got } => {
                write!(f, "optimizer vectors: expected {expected}, got {got}")
            }
            Self::Mixed => {
                write!(f, "sync: expected a session that never used step, whose update is all that travelled")
            }
            Self::Contract { peer, expected, got } => {
                write!(f, "peer {peer} runs something else: expected \"{expected}\", got \"{got}\"")
            }
            Self::Deadline(overdue) => overdue.fmt(f),
            Self::Cut { peer } => write!(f, "peer {peer} is gone, or has given this node up, and the run cannot go on"),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Through { got } => {
                write!(f, "step_through: expected a recipe with payload=updates period=1 codec=threshold, got {got}")
            }
            Self::Executor(error) => write!(f, "executor: {error}"),
            Self::Transport(error) => write!(f, "transport: {error}"),
            Self::Ended => write!(f, "this session has ended with an error before"),
        }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:.1} s to {}", self.waited.as_secs_f64(), self.what)?;
        let Some(Awaited { peer, at, clock, since, told_by }) = &self.on else { return Ok(()) };
        write!(
            f,
            ": waiting for peer {peer} (at clock {at}) since {:.1} s, to reach clock {clock}",
            since.as_secs_f64()
        )?;
        write!(f, ", says peer {told_by}")
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Checkpoint(error) => Some(error),
            Self::Executor(error) | Self::Transport(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}
