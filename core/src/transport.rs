//! The trait [`Transport`]: the contract between a driver and the code that moves messages.

use core::task::Waker;

use crate::buffer::{Pool, Segment};
use crate::id::{OpId, PeerId};
use crate::machine::{Input, ProtocolError};
use crate::run_id::RunId;
use crate::time::Duration;
use crate::wire::Header;

/// Moves messages between nodes: reliably, in order, over one stream per pair of nodes. A transport does not interpret
/// headers beyond the length of the body, and does not read bodies.
///
/// Every operation ends exactly once: [`poll`](Self::poll) returns [`Input::Completed`] or [`Input::Aborted`] for it.
/// When a connection breaks, `poll` returns [`Input::Disconnected`] and then [`Input::Aborted`] for each operation of
/// that connection. A transport that can reconnect does so on its own, and then returns [`Input::Connected`].
pub trait Transport: Send {
    /// A failure of the transport as a whole. A failure of one connection is not an error but [`Input::Disconnected`].
    type Error: core::error::Error + Send + Sync + 'static;

    /// The rank of this node, and the number of nodes of the run.
    fn place(&self) -> (PeerId, u32);

    /// The longest time for which a peer may stay disconnected before it is given up, if the transport prescribes one.
    /// `None`, the default: the user's setting applies. Threads of one process cannot reconnect and return zero.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// The run of this node, as far as the transport knows it: as [`set_run`](Self::set_run) has set it, or as the
    /// peers say. `None`, the default: not known, or the transport has no means to exchange it.
    fn run(&self) -> Option<RunId> {
        None
    }

    /// Sets the run of this node for good. Peers of another run are refused from now on, and peers without a run adopt
    /// it. The default does nothing.
    fn set_run(&mut self, run: RunId) {
        let _ = run;
    }

    /// Proposes a name for a run that may be new. It gives way to a run that a peer knows, until
    /// [`set_run`](Self::set_run). The default does nothing.
    fn propose_run(&mut self, run: RunId) {
        let _ = run;
    }

    /// The application computes on the thread that calls [`poll`](Self::poll), and so not while a poll waits. A transport
    /// may then spin before it sleeps where nodes share processors. The default does nothing.
    fn set_caller_driven(&mut self) {}

    /// Starts to send a message. The body is lent from `pool` until the operation ends.
    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool);

    /// Starts to receive the body of the last header from `peer`. `into`: a segment with the length of the body, or
    /// `None` to drop the body.
    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, pool: &mut Pool);

    /// Closes the connection to `peer`, which violated the protocol.
    fn close(&mut self, peer: PeerId, reason: ProtocolError);

    /// Asks all peers not to treat silence of this node as a failure for the next `span`. The default does nothing.
    fn busy(&mut self, span: Duration) {
        let _ = span;
    }

    /// Bytes of messages that have been given to [`transmit`](Self::transmit) and that only further calls of
    /// [`poll`](Self::poll) move on. The default is 0.
    fn unsent(&self) -> u64 {
        0
    }

    /// Returns the next event. Waits for at most `wait` (`None`: without limit) or until [`waker`](Self::waker) is
    /// used; then returns `Ok(None)`.
    ///
    /// # Errors
    /// If the transport as a whole has failed.
    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, Self::Error>;

    /// A waker that ends a waiting [`poll`](Self::poll) of another thread.
    fn waker(&self) -> Waker;
}
