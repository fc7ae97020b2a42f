//! The one shape of every machine.
//!
//! A machine decides; its driver does. The driver feeds [`Input`]s with the time, and carries out [`Output`]s until
//! it gets [`Output::Wait`]. Nothing else passes between them, so that a run is a list of inputs: the same list
//! gives the same outputs, in a process, in a simulator, in a test.

mod collective;
mod contract;
mod encoding;
mod hub;
mod mesh;
mod saved;
mod server;
mod worker;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use contract::Contract;
pub(crate) use hub::{Hub, Notice};
pub use saved::{RestoreError, SavedBuffer};

use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, Cluster, Incarnation, OpId, PeerId, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::{ConfigError, Recipe, Topology};
use crate::status::{Status, Waiting};
use crate::time::{Instant, Patience};
use crate::wire::{Header, Kind};

/// What a driver tells a machine.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Input {
    /// The time of the last [`Output::Wait`] has come.
    Timeout,
    /// Bytes can travel to and from this peer.
    Connected {
        /// Whom to.
        peer: PeerId,
    },
    /// They no longer can. Operations with the peer that have not ended are aborted after this, and before the
    /// peer is connected again.
    Disconnected {
        /// Whom to.
        peer: PeerId,
    },
    /// A message's header has come; its body, if any, is still unread. The next message of this peer comes only
    /// after a [`Output::Receive`] for this one, if its length is not 0.
    Header {
        /// From whom.
        peer: PeerId,
        /// The header.
        header: Header,
    },
    /// An operation has been carried out. A `Transmit` is complete when its buffer is no longer needed.
    Completed {
        /// Which.
        op: OpId,
        /// What its kernel found out; [`KernelResult::Nothing`] for transfers.
        found: KernelResult,
    },
    /// An operation will not be carried out.
    Aborted {
        /// Which.
        op: OpId,
    },
    /// The application has put its contribution (an update, or parameters) into
    /// [`Machine::contribution`] and now wants to go on to its next step.
    Step {
        /// Examples behind the contribution. 0: nothing to contribute, the buffer is not read.
        weight: u32,
    },
    /// The application's learning rate has changed: fixed thresholds follow it.
    Rate {
        /// The learning rate, as a multiple of that at the start.
        scale: f32,
    },
    /// The application makes no more contributions.
    Leave {
        /// Stay until everyone has left, to end with everyone's final parameters.
        stay: bool,
        /// What is in residuals stays there ([`Machine::kept`]), to be gone on from, instead of being sent.
        keep: bool,
    },
}

/// What a machine tells its driver.
#[derive(Copy, Clone, Debug, PartialEq)]
#[must_use]
#[allow(clippy::large_enum_variant, reason = "it is a value in a queue that is reused, and must not allocate")]
pub enum Output {
    /// Read the body of this peer's last header into a segment of the same length; `None`: read and drop it.
    Receive {
        /// The operation.
        op: OpId,
        /// From whom.
        peer: PeerId,
        /// Where to.
        into: Option<Segment>,
    },
    /// Send a message.
    Transmit {
        /// The operation.
        op: OpId,
        /// To whom.
        peer: PeerId,
        /// Its header.
        header: Header,
        /// Its body, lent until the operation ends.
        body: Option<Segment>,
    },
    /// Run a kernel. Those of one machine run in the order in which they are given, and before any transfer that is given
    /// after them.
    Compute {
        /// The operation.
        op: OpId,
        /// What to compute.
        kernel: Kernel,
    },
    /// Break the connection: the peer broke the protocol.
    Close {
        /// Whose.
        peer: PeerId,
        /// What it did.
        reason: ProtocolError,
    },
    /// Something the application, the log or a monitor wants to know.
    Event(Event),
    /// Nothing to do until an input comes, or until this moment.
    Wait {
        /// When to give [`Input::Timeout`].
        until: Option<Instant>,
    },
}

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// This node takes part; [`Machine::view`] holds the parameters that everyone starts from.
    Joined,
    /// The step is done and the application may go on. [`Machine::view`] holds the parameters; `changed` is false
    /// when nobody contributed an example.
    Ready {
        /// Steps done, this one included.
        clock: Clock,
        /// Is there anything to take?
        changed: bool,
    },
    /// This node has left; for a node that stayed, [`Machine::view`] holds everyone's final parameters.
    Left,
    /// A server: all workers have left, and the parameters are final.
    Finished,
    /// A peer that has not begun either goes on from another moment.
    Elsewhere {
        /// Who.
        peer: PeerId,
        /// Where it goes on from.
        at: Clock,
    },
    /// This node resumed, but had come back to a run that has gone on since: what its residual held is dropped, as
    /// its former self may have sent it.
    Outdated,
    /// A peer takes part, from this start of it on.
    PeerJoined {
        /// Who.
        peer: PeerId,
        /// Which start.
        incarnation: Incarnation,
    },
    /// A peer has been gone for too long, and the run goes on without it.
    PeerLost {
        /// Who.
        peer: PeerId,
    },
    /// This node cannot go on: the peer has been gone for too long, or has given this node up.
    Cut {
        /// Who.
        peer: PeerId,
    },
    /// Another set of members goes on together.
    View {
        /// Its number, above all before.
        number: u64,
        /// How many there are.
        members: u32,
    },
    /// A contribution was refused before it touched anything.
    Rejected {
        /// Whose.
        peer: PeerId,
        /// Why.
        reason: Rejection,
    },
    /// A peer runs another contract. Its text is in [`THEIRS`], ours in [`OURS`].
    Refused {
        /// Who.
        peer: PeerId,
        /// First line that differs, from 0.
        line: u32,
        /// Length of the peer's text.
        length: u32,
    },
    /// This node has waited for long; see [`Waiting`](crate::status::Waiting).
    Stalled {
        /// For whom.
        on: PeerId,
        /// The clock that the peer is at.
        at: Clock,
        /// Since when.
        since: Instant,
    },
}

/// Why a contribution was refused.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum Rejection {
    /// A float that is not finite.
    NonFinite { shard: ShardId, index: u32 },
    /// A body that is none.
    Malformed(crate::codec::BodyError),
}

/// The contract's text of this node.
pub const OURS: BufferId = BufferId(0);
/// The text of a peer that differs.
pub const THEIRS: BufferId = BufferId(1);

/// How a peer broke the protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum ProtocolError {
    /// Spoke before its hello.
    NoHello { kind: Kind },
    /// A hello with the rank of another.
    WrongRank { expected: PeerId, got: PeerId },
    /// Runs another contract.
    Contract { expected: u64, got: u64 },
    /// A message of a start that is over, or has not been announced.
    WrongIncarnation { expected: Incarnation, got: Incarnation },
    /// A message that this role never gets.
    Unexpected { kind: Kind },
    /// A shard that is not here.
    NoSuchShard { got: ShardId },
    /// A body of the wrong length.
    Length { kind: Kind, expected: u32, got: u32 },
    /// Made from parameters that do not exist yet.
    FromTheFuture { version: Clock, got: Clock },
    /// A gap in a stream that has none.
    Gap { expected: u64, got: u64 },
}

/// The caller has a bug.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A step before the last one was done, before joining, or after leaving.
    NotReady,
    /// The end of an operation that is not under way.
    UnknownOp {
        /// Which.
        op: OpId,
    },
    /// A rank that the cluster does not have, or the machine's own.
    UnknownPeer {
        /// Which.
        peer: PeerId,
    },
}

/// What a node is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Its rank.
    pub me: PeerId,
    /// Who takes part.
    pub cluster: Cluster,
    /// What is done.
    pub recipe: Recipe,
    /// Floats exchanged: the layout's, and those of averaged optimizer vectors.
    pub len: usize,
    /// Floats of each tensor, in order: where thresholds are per tensor.
    pub tensors: Arc<[usize]>,
    /// Drawn at random at each start.
    pub incarnation: Incarnation,
    /// The timeouts.
    pub patience: Patience,
    /// Fewest workers that go on without the others, where there are views; at least 1.
    pub quorum: u32,
    /// What the run goes on from: [`Machine::view`] then holds the parameters of that moment before the first input, and
    /// [`Machine::kept`] what was kept before the first step, on every node.
    pub resumed: Option<Resumed>,
    /// What peers must agree on.
    pub contract: Contract,
    /// The bug to run with, in tests of the tests.
    #[cfg(planted)]
    pub bug: Option<crate::planted::Bug>,
}

/// From where a run goes on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The moment, the same on every node: rounds that are done where all share rounds, else how often the run has been
    /// suspended.
    pub at: Clock,
    /// Contributions that this node has made before.
    pub made: u64,
}

/// A state machine without IO, clock, threads or floats.
pub trait Machine: fmt::Debug + Send {
    /// Takes one input. Several may be given before outputs are drained.
    ///
    /// # Errors
    /// When the caller has a bug; the machine is unchanged then.
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse>;

    /// The next thing to do, until [`Output::Wait`].
    fn poll_output(&mut self) -> Output;

    /// Lengths in bytes of the buffers that the driver must provide, numbered from 0. The first holds the
    /// contract's text, the rest zeros.
    fn buffers(&self) -> Vec<usize>;

    /// Where the next contribution goes.
    fn contribution(&self) -> BufferId;

    /// Where the parameters are when an event says so; before joining, where the node that provides them puts the
    /// initial ones.
    fn view(&self) -> BufferId;

    /// What a node that has left with `keep` goes on from, besides the parameters.
    fn kept(&self) -> Vec<SavedBuffer> {
        Vec::new()
    }

    /// Whom this node waits for, if it does.
    fn waiting(&self) -> Option<Waiting>;

    /// A snapshot of numbers. Allocates.
    fn status(&self) -> Status;
}

/// The machine of a rank: what it is follows from the recipe's topology.
#[derive(Debug)]
pub struct Node(Box<dyn Machine>);

impl Node {
    /// The machine for a setup.
    ///
    /// # Errors
    /// When recipe and cluster do not go together.
    pub fn new(setup: Setup) -> Result<Self, ConfigError> {
        setup.recipe.check_cluster(setup.cluster, setup.len)?;
        setup.recipe.check_budget(setup.tensors.len())?;
        Ok(Self(match setup.recipe.topology {
            Topology::Servers { .. } if setup.cluster.is_worker(setup.me) => Box::new(worker::Worker::new(setup)),
            Topology::Servers { .. } => Box::new(server::Server::new(setup)),
            Topology::Tree { .. } | Topology::Ring => Box::new(collective::Collective::new(setup)),
            Topology::Mesh { .. } => Box::new(mesh::Mesh::new(setup)),
        }))
    }
}

impl Machine for Node {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        self.0.handle_input(now, input)
    }

    fn poll_output(&mut self) -> Output {
        self.0.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        self.0.buffers()
    }

    fn contribution(&self) -> BufferId {
        self.0.contribution()
    }

    fn view(&self) -> BufferId {
        self.0.view()
    }

    fn kept(&self) -> Vec<SavedBuffer> {
        self.0.kept()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.0.waiting()
    }

    fn status(&self) -> Status {
        self.0.status()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined => write!(f, "takes part"),
            Self::Ready { clock, .. } => write!(f, "ready at {clock}"),
            Self::Left => write!(f, "has left"),
            Self::Finished => write!(f, "all workers have left"),
            Self::Elsewhere { peer, at } => write!(f, "peer {peer} goes on from another moment ({at})"),
            Self::Outdated => write!(f, "the run has gone on since this checkpoint: what its residual held is dropped"),
            Self::PeerJoined { peer, .. } => write!(f, "peer {peer} is here"),
            Self::PeerLost { peer } => write!(f, "peer {peer} is gone, and given up"),
            Self::Cut { peer } => write!(f, "given up by peer {peer}, or unable to go on without it"),
            Self::View { number, members } => write!(f, "view {number}: {members} workers go on together"),
            Self::Rejected { peer, reason } => write!(f, "refused a contribution of peer {peer}: {reason}"),
            Self::Refused { peer, .. } => write!(f, "peer {peer} runs something else"),
            Self::Stalled { on, at, .. } => write!(f, "waiting for peer {on} (at {at})"),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHello { kind } => write!(f, "expected a hello first, got {kind:?}"),
            Self::WrongRank { expected, got } => {
                write!(f, "expected a hello of rank {expected}, got one of rank {got}")
            }
            Self::Contract { expected, got } => write!(f, "expected contract {expected:016x}, got {got:016x}"),
            Self::WrongIncarnation { expected, got } => write!(f, "expected {expected}, got {got}"),
            Self::Unexpected { kind } => write!(f, "expected no {kind:?} at this role"),
            Self::NoSuchShard { got } => write!(f, "expected a shard that is held here, got {got}"),
            Self::Length { kind, expected, got } => write!(f, "expected {expected} bytes after {kind:?}, got {got}"),
            Self::FromTheFuture { version, got } => write!(f, "expected a base of at most {version}, got {got}"),
            Self::Gap { expected, got } => write!(f, "expected sequence {expected}, got {got}"),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFinite { shard, index } => write!(f, "a float that is not finite at index {index} of {shard}"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => write!(f, "a step needs the last one to be done, and neither begins before joining"),
            Self::UnknownOp { op } => write!(f, "{op} is not under way"),
            Self::UnknownPeer { peer } => write!(f, "there is no peer of rank {peer}"),
        }
    }
}

impl core::error::Error for Misuse {}

#[cfg(test)]
mod tests;
