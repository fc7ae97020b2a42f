//! What a transport must do.

use core::task::Waker;

use crate::buffer::{Pool, Segment};
use crate::id::{OpId, PeerId};
use crate::machine::{Input, ProtocolError};
use crate::time::Duration;
use crate::wire::Header;

/// Moves bytes between nodes: reliable, in order, one stream per pair of nodes. It knows no rule and looks into no
/// message.
///
/// Every operation ends exactly once, as [`Input::Completed`] or [`Input::Aborted`] from [`poll`](Self::poll). When
/// a connection breaks, [`Input::Disconnected`] is given and then its operations are aborted; a transport that can
/// reconnect then does so, and gives [`Input::Connected`].
pub trait Transport: Send {
    /// What can go wrong with the transport as a whole. Trouble with one peer is `Disconnected`.
    type Error: core::error::Error + Send + Sync + 'static;

    /// This node's rank, and how many nodes there are.
    fn place(&self) -> (PeerId, u32);

    /// How long a peer may stay disconnected before it counts as gone, where the transport knows better than its
    /// user: threads of one process never come back.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Sends a message. The body is lent until the operation ends.
    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool);

    /// Reads the body of the peer's last header into a segment of that length, or drops it.
    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, pool: &mut Pool);

    /// Breaks a connection.
    fn close(&mut self, peer: PeerId, reason: ProtocolError);

    /// Tells all peers that this node may not be heard of for a while, and should not be missed.
    fn busy(&mut self, span: Duration) {
        let _ = span;
    }

    /// The next thing that happened. Waits for at most `wait` (`None`: for ever), or until woken; `Ok(None)` when
    /// nothing happened.
    ///
    /// # Errors
    /// When the transport as a whole has failed.
    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, Self::Error>;

    /// Ends a [`poll`](Self::poll) that waits in another thread.
    fn waker(&self) -> Waker;
}
