//! The trait [`Transport`]: the contract between a driver and the code that moves messages.

use alloc::boxed::Box;
use core::task::Waker;

use crate::buffer::{Pool, Segment};
use crate::id::{OpId, PeerId};
use crate::machine::{Input, ProtocolError};
use crate::run_id::RunId;
use crate::time::Duration;
use crate::wire::Header;

/// A failure of a transport as a whole. `downcast_ref` gives the transport's own type of error.
pub type TransportError = Box<dyn core::error::Error + Send + Sync>;

/// Moves messages between nodes: reliably, in order, over one stream per pair of nodes. A transport does not interpret
/// headers beyond the length of the body, and does not read bodies.
///
/// Every operation ends exactly once: [`poll`](Self::poll) returns [`Input::Completed`] or [`Input::Aborted`] for it.
/// When a connection breaks, `poll` returns [`Input::Disconnected`] and then [`Input::Aborted`] for each operation of
/// that connection. A transport that can reconnect does so on its own, and then returns [`Input::Connected`].
///
/// `Box<dyn Transport>` is a transport too, for programs that choose one at run time:
///
/// ```
/// use gradwire_core::Transport;
///
/// /// The rank and the number of nodes, of any transport.
/// fn place(transport: &dyn Transport) -> (u32, u32) {
///     let (rank, nodes) = transport.place();
///     (rank.0, nodes)
/// }
///
/// fn choose(fast: bool, shm: impl Transport + 'static, tcp: impl Transport + 'static) -> Box<dyn Transport> {
///     if fast { Box::new(shm) } else { Box::new(tcp) }
/// }
/// ```
pub trait Transport: Send {
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

    /// Whether this transport connects nodes on demand: [`want`](Self::want) then says with which peers. `false`, the
    /// default: it connects this node with all others.
    fn connects_on_demand(&self) -> bool {
        false
    }

    /// Sets the peers that this node wants to be connected with from now on, by rank. Two nodes are connected if at
    /// least one of them wants the other; a transport may close a connection that neither wants, and may keep it. All
    /// peers are wanted until the first call. The default does nothing.
    fn want(&mut self, peers: &[PeerId]) {
        let _ = peers;
    }

    /// From now on, the application computes on the thread that calls [`poll`](Self::poll), and so not while a poll waits
    /// (`true`), or on another thread (`false`, at first). In the first case, a transport may spin before it sleeps where
    /// nodes share processors. The default does nothing.
    fn set_caller_driven(&mut self, caller_driven: bool) {
        let _ = caller_driven;
    }

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
    /// If the transport as a whole has failed. A failure of one connection is not an error but
    /// [`Input::Disconnected`].
    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, TransportError>;

    /// A waker that ends a waiting [`poll`](Self::poll) of another thread.
    fn waker(&self) -> Waker;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn place(&self) -> (PeerId, u32) {
        (**self).place()
    }

    fn patience(&self) -> Option<Duration> {
        (**self).patience()
    }

    fn run(&self) -> Option<RunId> {
        (**self).run()
    }

    fn set_run(&mut self, run: RunId) {
        (**self).set_run(run);
    }

    fn propose_run(&mut self, run: RunId) {
        (**self).propose_run(run);
    }

    fn connects_on_demand(&self) -> bool {
        (**self).connects_on_demand()
    }

    fn want(&mut self, peers: &[PeerId]) {
        (**self).want(peers);
    }

    fn set_caller_driven(&mut self, caller_driven: bool) {
        (**self).set_caller_driven(caller_driven);
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        (**self).transmit(op, peer, header, body, pool);
    }

    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, pool: &mut Pool) {
        (**self).receive(op, peer, into, pool);
    }

    fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        (**self).close(peer, reason);
    }

    fn busy(&mut self, span: Duration) {
        (**self).busy(span);
    }

    fn unsent(&self) -> u64 {
        (**self).unsent()
    }

    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, TransportError> {
        (**self).poll(pool, wait)
    }

    fn waker(&self) -> Waker {
        (**self).waker()
    }
}
