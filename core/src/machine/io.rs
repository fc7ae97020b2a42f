//! The interface between a machine and its driver: [`Input`]s, [`Output`]s, and the values in them.
//!
//! All of them are plain `Copy` values, so a run is a list of inputs: the same list gives the same outputs in a
//! process, in the simulator and in a test.

use core::fmt;

use super::Failure;
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, Incarnation, OpId, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::Hint;
use crate::rider::Rider;
use crate::status::Rest;
use crate::tape::Order;
use crate::time::{Duration, Instant, StepTime};
use crate::wire::{Header, Kind};

/// An input of a machine: an event at the transport or the executor, or a request of the application.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "`peer` is the other end of the connection and `op` the operation, everywhere")]
pub enum Input {
    /// The moment of the last [`Output::Wait`] has come.
    Timeout,
    /// A connection to this peer is open.
    Connected { peer: PeerId },
    /// The connection to this peer is closed. The driver then aborts every operation with the peer that it has begun,
    /// before it reports the peer as connected again. The machine takes back the operations that the driver has not
    /// been given.
    Disconnected { peer: PeerId },
    /// A message's header has arrived; its body, if any, is still unread. If the length is not 0, the peer's next
    /// header follows only after an [`Output::Receive`] for this one.
    Header { peer: PeerId, header: Header },
    /// An operation has been carried out. A `Transmit` is complete when its buffer is no longer read.
    Completed {
        op: OpId,
        /// The result of the kernel; [`KernelResult::Nothing`] for transfers.
        result: KernelResult,
    },
    /// An operation will not be carried out.
    Aborted { op: OpId },
    /// The application has written its contribution (an update, or parameters) to [`Machine::contribution`], and waits
    /// for [`Signal::Ready`].
    ///
    /// [`Machine::contribution`]: super::Machine::contribution
    Step {
        /// Examples behind the contribution, at most [`WEIGHT_MAX`](crate::wire::WEIGHT_MAX). 0: there is no
        /// contribution, and the buffer is not read.
        weight: u64,
    },
    /// As [`Step`](Self::Step), for a contribution that the application still writes, range by range. Only in trees,
    /// rings and meshes with rounds. [`Input::Given`] follows for every range, and [`Signal::Ready`] after the last one;
    /// or earlier, if the run has gone on without this node. The buffer is not lent before all of it is there.
    Begin {
        /// Examples behind the contribution. 0: no range is read, and none need follow.
        weight: u64,
    },
    /// After [`Begin`](Self::Begin): the application has written this range of [`Machine::contribution`], in floats, and
    /// leaves it as it is. Has no effect after [`Signal::Ready`].
    ///
    /// [`Machine::contribution`]: super::Machine::contribution
    Given {
        /// The first element.
        first: usize,
        /// The number of elements.
        len: usize,
    },
    /// As [`Step`](Self::Step), for a worker of servers whose application goes on with parameters of its own: it does
    /// not ask for any. [`Signal::Ready`] follows as soon as the servers have the contribution.
    Push {
        /// Examples behind the contribution. 0: there is no contribution.
        weight: u64,
    },
    /// The mean time of the application's local steps since its last contribution, before [`Input::Step`]. Only where
    /// periods follow the workers' speeds ([`Adapt::Speed`](crate::recipe::Adapt::Speed)).
    StepTime {
        /// The mean time of a step.
        mean: StepTime,
    },
    /// The number that travels with the application's contributions from the next one on, before [`Input::Step`]. Only
    /// for recipes that need it: [`Local::notes`](crate::Local::notes) has it.
    Rider {
        /// The number; `None`: it is not known.
        rider: Option<Rider>,
    },
    /// The application's learning rate has changed. Fixed thresholds are scaled with it.
    Rate {
        /// The learning rate, as a multiple of the one at the start.
        scale: f32,
    },
    /// The work that [`Signal::Resume`] or [`Signal::Restore`] has asked for is done.
    Resumed,
    /// The application makes no more contributions.
    Leave {
        /// Wait until all workers have left, so that the node ends with the final parameters.
        stay: bool,
        /// Keep residuals in their buffers for [`Machine::saved`], instead of sending them.
        ///
        /// [`Machine::saved`]: super::Machine::saved
        keep: bool,
    },
    /// The application makes no steps for this long, from now on. The nodes that wait for this one are told.
    Silence {
        /// The length of the silence from now on.
        span: Duration,
    },
    /// This node ends without having left. Its peers are told why; it takes no further input.
    Fail {
        /// The reason, which the peers are told.
        failure: Failure,
    },
}

/// An output of a machine: a task for its driver.
#[derive(Copy, Clone, Debug, PartialEq)]
#[must_use]
#[allow(clippy::large_enum_variant, reason = "it is a value in a queue that is reused, and must not allocate")]
#[allow(missing_docs, reason = "`peer` is the other end of the connection and `op` the operation, everywhere")]
pub enum Output {
    /// Read the body of this peer's last header.
    Receive {
        op: OpId,
        peer: PeerId,
        /// A segment as long as the body; `None`: read the body and drop it.
        into: Option<Segment>,
    },
    /// Send a message.
    Transmit {
        op: OpId,
        peer: PeerId,
        header: Header,
        /// The body, lent until the operation ends.
        body: Option<Segment>,
    },
    /// Run a kernel. The kernels of one machine run in the order in which they are given, and before every transfer
    /// that is given after them.
    Compute { op: OpId, kernel: Kernel },
    /// Close the connection: the peer broke the protocol.
    Close { peer: PeerId, reason: ProtocolError },
    /// The machine has reached a state that the driver must act on.
    Signal(Signal),
    /// Something for the application, a log or a monitor. The driver need not act on it.
    Event(Event),
    /// With [`Tape::Record`](crate::Tape::Record): the next entry of the tape.
    Order(Order),
    /// The machine has no further output until the next input.
    Wait {
        /// When to give [`Input::Timeout`], unless another input comes first.
        until: Option<Instant>,
    },
}

/// A state of the machine that its driver must act on.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "`peer` is the other node")]
pub enum Signal {
    /// This node takes part. [`Machine::view`](super::Machine::view) holds the parameters to start from.
    Joined {
        /// The synchronisations of each worker that are in these parameters: 0 in a new run. In a mesh without rounds,
        /// the mean of the workers, rounded down.
        clock: Clock,
    },
    /// The nodes that resume have agreed on a moment. If this node has its checkpoint, the driver puts the parameters
    /// into [`Machine::view`](super::Machine::view), and then gives [`Input::Resumed`]. Checkpoints of later moments
    /// must not be used any more.
    Resume {
        at: Clock,
        /// This node has the checkpoint. If not, it gets the parameters of a peer, and there is nothing to do.
        own: bool,
    },
    /// After [`Signal::Resume`], and after the kernels that have come since: the driver puts the checkpoint's buffers
    /// into [`Machine::saved`](super::Machine::saved), and then gives [`Input::Resumed`].
    Restore,
    /// The step is done and the application may go on. [`Machine::view`](super::Machine::view) holds the parameters.
    Ready {
        /// Steps done, this one included.
        clock: Clock,
        /// False if the parameters have not changed since the step before, because no worker contributed an example, or
        /// because this worker has taken no parameters.
        changed: bool,
    },
    /// This node has left. If it stayed for the end, [`Machine::view`](super::Machine::view) holds the final
    /// parameters.
    Left,
    /// A server or coordinator: all workers have left, and the parameters are final.
    Finished,
    /// This node cannot go on: the peer has been gone for too long, or has given this node up.
    Cut { peer: PeerId },
    /// This node cannot go on without the peer, which has failed.
    PeerFailed { peer: PeerId, failure: Failure },
    /// This node and the peer resumed from different checkpoints, and neither has begun.
    ResumedElsewhere {
        peer: PeerId,
        /// The moment that the peer resumed from.
        at: Clock,
    },
    /// This node cannot go on: the sum of the quanta of an element no longer fits into its ledger.
    LedgerFull {
        /// Index of the element.
        index: u32,
    },
    /// The peer is of another run, and neither of the two nodes has begun.
    OtherRun {
        peer: PeerId,
        /// Digest of the name of the peer's run.
        run: u64,
    },
    /// The peer runs another contract. Its text is in [`THEIRS`], this node's in [`OURS`].
    ContractDiffers {
        peer: PeerId,
        /// The first line that differs, counted from 0.
        line: u32,
        /// Bytes of the peer's text.
        length: u32,
    },
}

/// Something that an application, a log or a monitor may want to know.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "`peer` is the other node")]
pub enum Event {
    /// A peer takes part.
    PeerJoined {
        peer: PeerId,
        /// Its process: a restarted peer joins with another incarnation.
        incarnation: Incarnation,
    },
    /// A peer has been unreachable for longer than `dead_after`, or has failed. The run goes on without it.
    PeerLost { peer: PeerId },
    /// A peer has failed, as it says itself. It is given up at once, so that [`PeerLost`](Self::PeerLost) follows.
    PeerFailed { peer: PeerId, failure: Failure },
    /// The members of a collective have agreed on a new view.
    View {
        /// The number of the view. Numbers grow.
        number: u64,
        /// How many workers are members.
        members: u32,
    },
    /// A contribution was refused before it changed anything.
    Rejected { peer: PeerId, reason: Rejection },
    /// This node has waited for a peer for longer than `stall_after`; see [`Waiting`](crate::status::Waiting).
    Stalled {
        /// The peer at the end of the chain of waits.
        on: PeerId,
        /// The clock that the peer is at.
        at: Clock,
        /// When the wait began.
        since: Instant,
    },
    /// A peer has come that does not belong to this run. It is refused; the run goes on.
    PeerRefused { peer: PeerId, reason: PeerRefusal },
    /// This node ends, and its residual held a part of its updates.
    Rest(Rest),
    /// A choice of the recipe costs much in this run.
    Hint(Hint),
    /// This server was started again without a checkpoint. Workers gave the parameters back, but no node has the state
    /// of the outer optimizer, or of a correction of late updates, which begins with zeros.
    OuterLost,
    /// The checkpoint that this node resumed from is older than the run: an earlier process of this rank rejoined after
    /// it. The saved residual is dropped, since that process may have sent it already.
    Outdated,
}

/// Why a peer was refused by a node that takes part in a run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields name the difference")]
pub enum PeerRefusal {
    /// It is of another run. `run`: digest of that run's name.
    OtherRun { run: u64 },
    /// Its contract differs, first in this line, counted from 0.
    Contract { line: u32 },
}

/// Why a contribution was refused.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields name the place")]
pub enum Rejection {
    /// The contribution has an infinite or NaN element at this index of the shard.
    NonFinite { shard: ShardId, index: u32 },
    /// The body could not be decoded.
    Malformed(crate::codec::BodyError),
}

/// The buffer that holds the contract's text of this node.
pub const OURS: BufferId = BufferId(0);
/// The buffer that receives the contract's text of a peer, where it differs.
pub const THEIRS: BufferId = BufferId(1);

/// How a peer broke the protocol.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum ProtocolError {
    /// A message before the hello.
    NoHello { kind: Kind },
    /// A hello with another node's rank.
    WrongRank { expected: PeerId, got: PeerId },
    /// A contract with another digest.
    Contract { expected: u64, got: u64 },
    /// A node of another run. The values are digests of the names.
    OtherRun { expected: u64, got: u64 },
    /// A message of a process that has ended, or has not said hello.
    WrongIncarnation { expected: Incarnation, got: Incarnation },
    /// A message that this role does not take, or not now.
    Unexpected { kind: Kind },
    /// A shard that this node does not hold.
    NoSuchShard { got: ShardId },
    /// A body of the wrong length, in bytes.
    Length { kind: Kind, expected: u32, got: u32 },
    /// A contribution made from a version of the parameters that does not exist yet.
    FromTheFuture { version: Clock, got: Clock },
    /// A contribution repeats the last one of its worker, which the server does not have.
    NothingToRepeat { got: Sequence },
    /// A gap in the sequence numbers.
    Gap { expected: u64, got: u64 },
}

/// The driver broke the contract of [`Machine`](super::Machine): a bug in the caller.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields name the culprit")]
pub enum Misuse {
    /// A step before the last one was done, before joining, or after leaving.
    NotReady,
    /// The end of an operation that is not open.
    UnknownOp { op: OpId },
    /// A rank that the cluster does not have, or the machine's own.
    UnknownPeer { peer: PeerId },
    /// A range of the contribution that is there already, or that lies outside the vector. In floats.
    Range { first: usize, len: usize },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OuterLost => {
                write!(f, "this server started again without a checkpoint: its outer optimizer begins with zeros")
            }
            Self::Outdated => write!(f, "the run is ahead of this checkpoint: its saved residual is dropped"),
            Self::Rest(rest) => rest.fmt(f),
            Self::PeerRefused { peer, reason } => write!(f, "refused peer {peer}: {reason}"),
            Self::Hint(hint) => write!(f, "hint: {hint}"),
            Self::PeerJoined { peer, .. } => write!(f, "peer {peer} has joined"),
            Self::PeerLost { peer } => {
                write!(f, "peer {peer} was unreachable for too long; the run goes on without it")
            }
            Self::PeerFailed { peer, failure } => write!(f, "peer {peer} has failed: {failure}"),
            Self::View { number, members } => write!(f, "view {number}: {members} workers go on together"),
            Self::Rejected { peer, reason } => write!(f, "rejected a contribution of peer {peer}: {reason}"),
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
            Self::OtherRun { expected, got } => {
                write!(f, "expected a node of run {expected:016x} (digest of the name), got one of run {got:016x}")
            }
            Self::WrongIncarnation { expected, got } => write!(f, "expected {expected}, got {got}"),
            Self::Unexpected { kind } => write!(f, "expected no {kind:?} at this role"),
            Self::NoSuchShard { got } => write!(f, "expected a shard that this node holds, got {got}"),
            Self::Length { kind, expected, got } => write!(f, "expected {expected} bytes after {kind:?}, got {got}"),
            Self::NothingToRepeat { got } => {
                write!(f, "expected a body, got contribution {} that repeats the last one", got.0)
            }
            Self::FromTheFuture { version, got } => write!(f, "expected a base of at most {version}, got {got}"),
            Self::Gap { expected, got } => write!(f, "expected sequence {expected}, got {got}"),
        }
    }
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherRun { run } => write!(f, "it is of another run ({run:016x})"),
            Self::Contract { line } => write!(f, "its contract differs in line {}", line + 1),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonFinite { shard, index } => write!(f, "element {index} of {shard} is not a finite number"),
            Self::Malformed(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => write!(f, "a step needs the last one to be done, and none begins before joining"),
            Self::UnknownOp { op } => write!(f, "{op} is not open"),
            Self::UnknownPeer { peer } => write!(f, "the cluster has no other node of rank {peer}"),
            Self::Range { first, len } => {
                write!(f, "expected a range of the vector that is missing, got {len} elements from {first} on")
            }
        }
    }
}

impl core::error::Error for Misuse {}
