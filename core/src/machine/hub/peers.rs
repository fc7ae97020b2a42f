//! The other nodes as this one sees them: connection, process, traffic.
//!
//! ```text
//! Never -> Connected -> Agreed -> Down -> Lost
//!             ^  (hello)   ^  (disconnect) |  (dead_after; at once if it has failed)
//!             +------------+---------------+
//! ```

use alloc::vec::Vec;

use crate::id::{Incarnation, PeerId};
use crate::machine::Failure;
use crate::status::{LinkStatus, Presence};
use crate::time::{Duration, Instant};
use crate::wire::HEADER_LEN;

#[derive(Debug)]
pub(super) struct Peers(Vec<Peer>);

#[derive(Copy, Clone, Debug)]
pub(super) struct Peer {
    pub(super) link: Link,
    /// Its process, since its first hello; 0 before.
    pub(super) incarnation: Incarnation,
    /// It makes no more contributions: its disappearance is no loss.
    pub(super) left: bool,
    /// Why it has failed, as it has said since its last hello.
    pub(super) failure: Option<Failure>,
    /// It had parameters when it said hello.
    pub(super) had_parameters: bool,
    pub(super) traffic: LinkStatus,
    /// When the oldest message to it was sent that it has not answered with any message.
    unanswered_since: Option<Instant>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There has been no hello.
    Never,
    /// Connected, before the peer's hello.
    Connected,
    /// Connected, and the peer runs the same contract.
    Agreed,
    /// Disconnected; the peer is still a member.
    Down { since: Instant },
    /// Disconnected for `dead_after`, and given up.
    Lost,
}

impl Peers {
    pub(super) fn new(nodes: u32) -> Self {
        let peer = |rank| Peer {
            link: Link::Never,
            incarnation: Incarnation(0),
            left: false,
            failure: None,
            had_parameters: false,
            traffic: LinkStatus {
                peer: PeerId(rank),
                bytes_out: 0,
                bytes_in: 0,
                messages_out: 0,
                messages_in: 0,
                last_heard: None,
                response_ns: 0,
            },
            unanswered_since: None,
        };
        Self((0..nodes).map(peer).collect())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Is there a node of this rank?
    pub(super) fn has(&self, peer: PeerId) -> bool {
        peer.index() < self.0.len()
    }

    pub(super) fn get(&self, peer: PeerId) -> &Peer {
        &self.0[peer.index()]
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> &mut Peer {
        &mut self.0[peer.index()]
    }

    /// The first moment at which a peer that is down has to be given up.
    pub(super) fn deadline(&self, dead_after: Duration) -> Option<Instant> {
        let deadlines = self.0.iter().filter_map(|peer| match peer.link {
            Link::Down { since } if !peer.left => Some(since.after(dead_after)),
            _ => None,
        });
        deadlines.min()
    }

    /// Gives up the next peer that has been down for `dead_after`.
    pub(super) fn take_lost(&mut self, now: Instant, dead_after: Duration) -> Option<PeerId> {
        let lost = self.0.iter().position(|peer| match peer.link {
            Link::Down { since } => !peer.left && (peer.failure.is_some() || since.after(dead_after) <= now),
            _ => false,
        })?;
        self.0[lost].link = Link::Lost;
        Some(PeerId(lost as u32))
    }
}

impl Peer {
    pub(super) fn on_disconnected(&mut self, now: Instant) {
        match self.link {
            Link::Agreed => self.link = Link::Down { since: now },
            Link::Connected if self.incarnation != Incarnation(0) => self.link = Link::Down { since: now },
            Link::Connected => self.link = Link::Never,
            Link::Never | Link::Down { .. } | Link::Lost => {}
        }
    }

    /// Counts a message to the peer.
    pub(super) fn on_sent(&mut self, body: u32, now: Instant) {
        self.traffic.messages_out += 1;
        self.traffic.bytes_out += HEADER_LEN as u64 + u64::from(body);
        self.unanswered_since.get_or_insert(now);
    }

    /// Counts a message of the peer.
    pub(super) fn on_heard(&mut self, body: u32, now: Instant) {
        self.traffic.messages_in += 1;
        self.traffic.bytes_in += HEADER_LEN as u64 + u64::from(body);
        self.traffic.last_heard = Some(now);
        if let Some(since) = self.unanswered_since.take() {
            let took = now.since(since).as_nanos() as u64;
            // An exponential mean, as TCP smooths its round trip times (RFC 6298): each sample counts one eighth.
            let smoothed = self.traffic.response_ns;
            self.traffic.response_ns = if smoothed == 0 { took } else { smoothed - smoothed / 8 + took / 8 };
        }
    }

    pub(super) fn presence(&self) -> Presence {
        match self.link {
            _ if self.left => Presence::Left,
            Link::Agreed => Presence::Present,
            Link::Never => Presence::Awaited,
            Link::Connected if self.incarnation == Incarnation(0) => Presence::Awaited,
            Link::Connected | Link::Down { .. } => Presence::Suspect,
            Link::Lost => Presence::Lost,
        }
    }
}
