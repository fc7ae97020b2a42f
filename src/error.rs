//! [`Error`]: why a call to a session, a server or a builder failed.

use std::fmt;
use std::time::Duration;

use gradwire_core::kernel::executor::ExecutorError;
use gradwire_core::recipe::RecipeParseError;
use gradwire_core::{ConfigError, Failure, LayoutError, PeerId, RunId, RunIdError};

use crate::checkpoint::CheckpointError;
use crate::launch_env::LaunchEnvError;
use crate::parts::PartError;
use crate::tape::TapeError;

/// Why a call failed. The call has then changed nothing, unless its documentation says otherwise.
///
/// `Debug` writes the sentence of `Display`, and then the causes that it does not name, so that `main` can return this
/// error. `?` makes it of the errors of transports, recipes, layouts, launchers and checkpoints:
///
/// ```no_run
/// use gradwire::{Cluster, Error, LaunchEnv, Layout, Recipe, Session};
///
/// fn main() -> Result<(), Error> {
///     let recipe: Recipe = "ring-bf16".parse()?;
///     let env = LaunchEnv::detect()?.unwrap_or_else(LaunchEnv::alone);
///     # #[cfg(feature = "tcp")]
///     let transport = gradwire::tcp::Builder::new(env.rank, env.processes, "10.0.0.1:29510").open()?;
///     # #[cfg(not(feature = "tcp"))]
///     # let transport = gradwire::Mem::cluster(1).remove(0);
///     let cluster = Cluster { workers: env.processes, servers: 0 };
///     let mut params = vec![0.0; 10];
///     let session = Session::builder(Layout::flat(10), recipe, cluster).join(transport, &mut params)?;
///     session.finish(&mut params)?;
///     Ok(())
/// }
/// ```
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the name of a vector, the value that was expected and the one that came"
)]
pub enum Error {
    /// The recipe contradicts itself or does not fit the cluster.
    Config(ConfigError),
    /// The text of a recipe is wrong.
    Recipe(RecipeParseError),
    /// The environment of a launcher does not say where this process belongs.
    Launch(LaunchEnvError),
    /// A text is not the name of a run.
    Run(RunIdError),
    /// Several things are wrong at once: the error of each, the most basic first.
    Several(Vec<Self>),
    /// The transport could not be opened, or its key could not be read.
    Open(Box<dyn std::error::Error + Send + Sync>),
    /// The address for monitors cannot be used.
    Monitor { address: String, error: std::io::Error },
    /// A file or connection of the application, by `?`.
    Io(std::io::Error),
    /// A tensor of the layout does not fit into memory.
    Layout(LayoutError),
    /// The transport connects another number of nodes than the cluster has.
    Nodes { expected: u32, got: u32 },
    /// A worker's call at the rank of a server, or a server's call at the rank of a worker.
    Role { rank: PeerId, expected: &'static str, got: &'static str },
    /// A vector has the wrong length, in floats.
    Length { what: &'static str, expected: usize, got: usize },
    /// A vector has a NaN or an infinity. `index` counts within the tensor.
    NonFinite { what: &'static str, tensor: String, index: usize, got: f32 },
    /// A call has the wrong number of optimizer vectors.
    OptimizerVectors { expected: u32, got: u32 },
    /// `sync` was called after `step`, which keeps no copy of the parameters at the last synchronisation.
    Mixed,
    /// A session cannot own its vectors with this recipe.
    Owned { got: String },
    /// Of a session that owns its vectors: the call contributes the vector that another call hands out, and that call
    /// was not made since the last contribution.
    Unwritten { call: &'static str, expected: &'static str },
    /// Of a session that owns its vectors: an update can be contributed only where each step is a synchronisation.
    LocalSteps { got: String },
    /// A peer runs another contract (recipe, layout, cluster, or a note of the application). The fields are the first
    /// line that differs.
    Contract { peer: PeerId, expected: String, got: String },
    /// A peer belongs to another run. `theirs`: a digest of its name, [`RunId::tag`].
    OtherRun { peer: PeerId, ours: RunId, theirs: u64 },
    /// A wait has reached the deadline. The session has ended.
    Deadline(Overdue),
    /// A [`Canceller`](crate::Canceller) has ended a wait. The session has ended.
    Cancelled(Overdue),
    /// A peer that this node needs is lost, or has given this node up.
    Cut { peer: PeerId },
    /// A peer that this node needs has failed, by its own report.
    PeerFailed { peer: PeerId, failure: Failure },
    /// A mesh: the sum of all quanta of an element, counted from 0 in the flat vector, no longer fits into 64 bits. The
    /// threshold is too small for the distance that this parameter moves.
    LedgerFull { index: u32 },
    /// A checkpoint could not be written, or the node could not resume from one.
    Checkpoint(CheckpointError),
    /// A tape could not be written, or the run could not follow one.
    Tape(TapeError),
    /// `step_through` was called for a recipe that does not encode every update by a threshold.
    Through { got: String },
    /// The call belongs to recipes with another payload.
    Payload { call: &'static str, expected: &'static str, got: String },
    /// A range of a gradient is wrong, or is missing.
    Part(PartError),
    /// `finish` was called, and other workers have done another round. With `payload=gradients`, only the application
    /// can apply its mean. The session has ended.
    FinishedEarly { round: u64 },
    /// The device that runs the kernels has failed.
    Executor(ExecutorError),
    /// The transport as a whole has failed.
    Transport(Box<dyn std::error::Error + Send + Sync>),
    /// The session or server has ended before, with an error that an earlier call returned, or at the end of the run.
    Ended,
}

impl Error {
    /// A peer's contract differs from this node's in this line, counted from 0.
    pub(crate) fn contract(peer: PeerId, ours: &str, theirs: &[u8], line: usize) -> Self {
        // The peer's text comes from the network: without control characters and cut, it is fit to print.
        let printable = |text: &str| {
            let line = text.lines().nth(line).unwrap_or("(nothing)");
            line.chars().filter(|c| !c.is_control()).take(200).collect()
        };
        Self::Contract { peer, expected: printable(ours), got: printable(&String::from_utf8_lossy(theirs)) }
    }
}

impl Error {
    /// The failure to report to the peers when a node ends with this error. `None`: the node has not taken part, or
    /// ends well.
    pub(crate) fn failure(&self, me: PeerId) -> Option<Failure> {
        Some(match self {
            Self::Deadline(overdue) => Failure::Overdue { on: overdue.on.as_ref().map_or(me, |on| on.peer) },
            Self::Cancelled(_) => Failure::Cancelled,
            Self::Cut { peer } | Self::PeerFailed { peer, .. } => Failure::Without { peer: *peer },
            Self::LedgerFull { index } => Failure::LedgerFull { index: *index },
            Self::Executor(_) => Failure::Executor,
            Self::Transport(_) => Failure::Transport,
            _ => return None,
        })
    }
}

/// A wait that has reached its deadline or was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// The purpose of the wait, as an infinitive: "take a step".
    pub what: &'static str,
    /// How long the call has waited.
    pub waited: Duration,
    /// The peer that the machine waits for, if it waits for a particular peer.
    pub on: Option<Awaited>,
}

/// A peer that a machine waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The rank of the awaited peer.
    pub peer: PeerId,
    /// The last clock of the peer that is known.
    pub at: u64,
    /// The clock that the peer has to reach.
    pub clock: u64,
    /// How long the machine has waited for the peer.
    pub since: Duration,
    /// The connection of this node to the peer.
    pub link: PeerLink,
    /// The node that named the peer, if that is the next one in a chain of waits and not this node.
    pub reported_by: Option<PeerId>,
}

/// The connection of a node to a peer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerLink {
    /// There has been no connection.
    #[default]
    Never,
    /// The nodes are connected.
    Connected,
    /// There was a connection, and it is broken.
    Lost,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Recipe(error) => error.fmt(f),
            Self::Launch(error) => error.fmt(f),
            Self::Run(error) => write!(f, "run: {error}"),
            Self::Several(errors) => {
                for (i, error) in errors.iter().enumerate() {
                    write!(f, "{}{error}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
            Self::Open(error) => error.fmt(f),
            Self::Monitor { address, error } => write!(f, "monitor {address}: {error}"),
            Self::Io(error) => error.fmt(f),
            Self::Layout(error) => write!(f, "layout: {error}"),
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
            Self::Mixed => write!(
                f,
                "sync() cannot follow step() in one session: with period=1, step() keeps no copy of the parameters \
                 from which sync() could compute the update"
            ),
            Self::Owned { got } => write!(
                f,
                "join_owned: expected a recipe without payload=gradients, merge=elastic, optimizer=average and a fetch of \
                 its own, got {got}"
            ),
            Self::Unwritten { call, expected } => {
                write!(
                    f,
                    "{call}(): expected a vector that {expected}() has handed out since the last call of {call}()"
                )
            }
            Self::LocalSteps { got } => write!(
                f,
                "update_mut(): expected a recipe with period=1, got {got}; take local steps with params_mut() and sync()"
            ),
            Self::Contract { peer, expected, got } => write!(
                f,
                "peer {peer} runs another contract (recipe, layout, cluster or a note): expected \"{expected}\", got \"{got}\""
            ),
            Self::OtherRun { peer, ours, theirs } => {
                write!(f, "this node is of run {ours}, peer {peer} is of another one (digest {theirs:016x})")
            }
            Self::Deadline(overdue) => overdue.fmt(f),
            Self::Cancelled(overdue) => write!(f, "cancelled: {overdue}"),
            Self::Cut { peer } => {
                write!(f, "peer {peer} is lost, or has given this node up; this node cannot go on")
            }
            Self::PeerFailed { peer, failure } => {
                write!(f, "peer {peer} has failed: {failure}; this node cannot go on")
            }
            Self::LedgerFull { index } => write!(
                f,
                "mesh: the sum of the quanta of element {index} no longer fits into 64 bits: tau is too small for the \
                 distance that this parameter moves; raise tau"
            ),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Tape(error) => error.fmt(f),
            Self::Part(error) => error.fmt(f),
            Self::Through { got } => {
                write!(f, "step_through: expected a recipe with payload=updates period=1 codec=threshold, got {got}")
            }
            Self::Payload { call, expected, got } => write!(f, "{call}: expected a recipe with {expected}, got {got}"),
            Self::FinishedEarly { round } => write!(
                f,
                "finish: expected that all workers finish after the same round, but others have done round {round}; \
                 with payload=gradients, finish_with() applies the means of such rounds"
            ),
            Self::Executor(error) => write!(f, "executor: {error}"),
            Self::Transport(error) => write!(f, "transport: {error}"),
            Self::Ended => write!(f, "the session or server has already ended; enter the run with a new one"),
        }
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:.1} s to {}", self.waited.as_secs_f64(), self.what)?;
        // Without a peer, the machine was busy or had not been asked: the message has the purpose only.
        let Some(Awaited { peer, at, clock, since, reported_by, link }) = &self.on else { return Ok(()) };
        // Clocks say nothing about a peer that this node has never met.
        match (link, reported_by) {
            (PeerLink::Never, None) => {
                return write!(
                    f,
                    ": peer {peer} has not connected; expected a process of rank {peer} with the same recipe and address"
                );
            }
            (PeerLink::Lost, None) => {
                return write!(
                    f,
                    ": the connection to peer {peer} (at clock {at}) is broken, and it has not come back; waiting since \
                     {:.1} s for clock {clock}",
                    since.as_secs_f64()
                );
            }
            _ => {}
        }
        write!(
            f,
            ": waiting for peer {peer} (at clock {at}) since {:.1} s, to reach clock {clock}",
            since.as_secs_f64()
        )?;
        reported_by.map_or(Ok(()), |by| write!(f, "; reported by peer {by}"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Recipe(error) => Some(error),
            Self::Launch(error) => Some(error),
            Self::Run(error) => Some(error),
            Self::Several(errors) => errors.first().map(|error| error as _),
            Self::Monitor { error, .. } | Self::Io(error) => Some(error),
            Self::Layout(error) => Some(error),
            Self::Checkpoint(error) => Some(error),
            Self::Tape(error) => Some(error),
            Self::Part(error) => Some(error),
            Self::Executor(error) | Self::Transport(error) | Self::Open(error) => Some(&**error),
            _ => None,
        }
    }
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<TapeError> for Error {
    fn from(error: TapeError) -> Self {
        Self::Tape(error)
    }
}

impl From<LayoutError> for Error {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<RecipeParseError> for Error {
    fn from(error: RecipeParseError) -> Self {
        Self::Recipe(error)
    }
}

impl From<LaunchEnvError> for Error {
    fn from(error: LaunchEnvError) -> Self {
        Self::Launch(error)
    }
}

impl From<RunIdError> for Error {
    fn from(error: RunIdError) -> Self {
        Self::Run(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// [`Error::Open`] of the errors with which transports and devices are opened, and of their parts.
macro_rules! opens {
    ($($feature:literal: $error:ty,)*) => {$(
        #[cfg(feature = $feature)]
        impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Open(Box::new(error))
            }
        }
    )*};
}

opens! {
    "tcp": gradwire_tcp::TcpError,
    "tcp": gradwire_tcp::KeyError,
    "tcp": gradwire_tcp::AddressError,
    "shm": gradwire_shm::ShmError,
    "gpu": gradwire_gpu::GpuError,
}

impl From<std::convert::Infallible> for Error {
    fn from(error: std::convert::Infallible) -> Self {
        match error {}
    }
}

// `main` prints the error that it returns by `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let sentence = error.to_string();
            // Most sentences have their causes in them.
            if !text.contains(&sentence) {
                text += &format!(": {sentence}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn debug_is_the_sentence_with_the_causes_that_it_does_not_name() {
        let error = Error::from("ssp bond=1".parse::<gradwire_core::Recipe>().unwrap_err());
        assert_eq!(format!("{error:?}"), "recipe: \"bond\" is not a setting (did you mean \"bound\"?)");

        #[derive(Debug)]
        struct Outer(io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the device is gone")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::Transport(Box::new(Outer(io::Error::other("no power"))));
        assert_eq!(format!("{error:?}"), "transport: the device is gone: no power");
    }

    #[test]
    fn a_wait_for_a_peer_that_never_came_has_no_clocks() {
        let on = |link, reported_by| {
            let on = Awaited { peer: PeerId(3), at: 0, clock: 1, since: Duration::from_secs(2), reported_by, link };
            Overdue { what: "join", waited: Duration::from_secs(2), on: Some(on) }.to_string()
        };
        let never = on(PeerLink::Never, None);
        assert!(never.starts_with("waited 2.0 s to join: peer 3 has not connected; ") && !never.contains("clock"));
        assert!(on(PeerLink::Lost, None).contains("the connection to peer 3 (at clock 0) is broken"));
        let chain = on(PeerLink::Never, Some(PeerId(1)));
        assert!(chain.ends_with("waiting for peer 3 (at clock 0) since 2.0 s, to reach clock 1; reported by peer 1"));
    }
}
