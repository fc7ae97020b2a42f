//! The other nodes as this one sees them: connection, process, traffic.
//!
//! ```text
//! Never -> Connected -> Agreed -> Down -> Lost
//!             ^  (hello)   ^  (disconnect) |  (dead_after; at once if it has failed)
//!             +------------+---------------+
//! ```

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use crate::id::{Incarnation, PeerId};
use crate::machine::Failure;
use crate::status::{LinkStatus, Presence};
use crate::time::{Duration, Instant};
use crate::wire::HEADER_LEN;

#[derive(Debug)]
pub(super) struct Peers {
    /// The lowest rank of a neighbour.
    first: u32,
    /// The neighbours, by rank.
    all: Vec<Peer>,
    /// In place of a node that is no neighbour.
    stranger: Peer,
    /// The peers that can be lost, see [`Peer::is_down`], in the order in which their connections ended. So the first
    /// one is due first, and an input looks at no other peer.
    down: VecDeque<PeerId>,
    /// Those of them that have failed: they are due at once.
    failed: usize,
    /// Peers that are given up.
    lost: usize,
}

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
    pub(super) fn new(neighbours: Range<u32>) -> Self {
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
        let (first, stranger) = (neighbours.start, peer(u32::MAX));
        Self { first, all: neighbours.map(peer).collect(), stranger, down: VecDeque::new(), failed: 0, lost: 0 }
    }

    /// The ranks of the neighbours, among which may be this node itself.
    pub(super) fn ranks(&self) -> impl Iterator<Item = PeerId> + use<> {
        (self.first..self.first + self.all.len() as u32).map(PeerId)
    }

    /// Is the node of this rank a neighbour?
    pub(super) fn has(&self, peer: PeerId) -> bool {
        peer.0.checked_sub(self.first).is_some_and(|index| (index as usize) < self.all.len())
    }

    pub(super) fn get(&self, peer: PeerId) -> &Peer {
        let index = peer.0.checked_sub(self.first);
        index.and_then(|index| self.all.get(index as usize)).unwrap_or(&self.stranger)
    }

    /// The peer, to count its messages.
    pub(super) fn traffic(&mut self, peer: PeerId) -> &mut Peer {
        &mut self.all[(peer.0 - self.first) as usize]
    }

    /// Changes the state of a peer.
    pub(super) fn change(&mut self, peer: PeerId, change: impl FnOnce(&mut Peer)) {
        let entry = &mut self.all[(peer.0 - self.first) as usize];
        let before = entry.is_down().then_some(entry.failure.is_some());
        self.lost -= usize::from(entry.link == Link::Lost);
        change(entry);
        self.lost += usize::from(entry.link == Link::Lost);
        let after = entry.is_down().then_some(entry.failure.is_some());
        self.failed += usize::from(after == Some(true));
        self.failed -= usize::from(before == Some(true));
        match (before, after) {
            // Time does not run backwards: the peer is the last of those that are down.
            (None, Some(_)) => self.down.push_back(peer),
            (Some(_), None) => self.down.retain(|down| *down != peer),
            _ => {}
        }
    }

    /// Peers that are given up.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    /// The first moment at which a peer that is down has to be given up.
    pub(super) fn deadline(&self, dead_after: Duration) -> Option<Instant> {
        Some(self.get(*self.down.front()?).down_since()?.after(dead_after))
    }

    /// Gives up the next peer that has been down for `dead_after`, or has failed: of several, the lowest rank.
    pub(super) fn take_lost(&mut self, now: Instant, dead_after: Duration) -> Option<PeerId> {
        if self.failed == 0 && self.deadline(dead_after).is_none_or(|deadline| deadline > now) {
            return None;
        }
        let is_due = |peer: &PeerId| {
            let peer = self.get(*peer);
            peer.failure.is_some() || peer.down_since().is_some_and(|since| since.after(dead_after) <= now)
        };
        let lost = self.down.iter().copied().filter(is_due).min()?;
        self.change(lost, |peer| peer.link = Link::Lost);
        Some(lost)
    }
}

impl Peer {
    /// Since when the peer is disconnected, if it is still a member.
    fn down_since(&self) -> Option<Instant> {
        match self.link {
            Link::Down { since } if !self.left => Some(since),
            _ => None,
        }
    }

    fn is_down(&self) -> bool {
        self.down_since().is_some()
    }

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
