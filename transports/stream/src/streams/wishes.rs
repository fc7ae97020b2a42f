//! The wishes of [`Streams`]: with which peers this node is connected.
//!
//! - Two nodes are connected if at least one of them wants the other. Rank 0 is connected with all: it tells their
//!   addresses.
//! - Of two nodes that want each other, [`Streams::dials`] says which one dials. A node that wants a peer which should
//!   dial waits for [`TURN`] and then dials as well, since the peer may not want it. If both dial at once, the call of
//!   the node whose turn it is counts: that node closes the other call.
//! - Each side tells the other when it no longer wants the connection ([`Control::Wanted`]). The connection is closed
//!   when neither has wanted it for a while: views change often and come back, and frames under way arrive first.

use std::time::{Duration, Instant};

use gradwire_core::PeerId;

use super::Streams;
use crate::carrier::Carrier;
use crate::control::Control;

/// How long a node waits for the call of a peer that dials if both want each other.
const TURN: Duration = Duration::from_millis(100);
/// How long a call of this node may take before the call of a peer out of turn is taken in its place: the peer may be
/// reachable in one direction only.
const CALL_MAX: Duration = Duration::from_millis(500);
/// How long a new connection is not replaced by a call of the same process out of turn: the call was under way.
const YOUNG: Duration = Duration::from_secs(1);

impl<C: Carrier> Streams<C> {
    /// Whether this node does something for a connection with the node of this rank.
    fn is_wanted(&self, rank: usize) -> bool {
        self.peers[rank].wanted || rank == 0
    }

    /// Whether all peers that this node wants are connected, and no other.
    pub(super) fn is_complete(&self) -> bool {
        let me = self.config.rank.index();
        (0..self.peers.len()).all(|rank| {
            let peer = &self.peers[rank];
            rank == me || peer.spare_since.is_none() && (peer.open || !self.is_wanted(rank))
        })
    }

    pub(super) fn is_dial_due(&self, rank: usize, now: Instant) -> bool {
        let (me, peer) = (self.config.rank.index(), &self.peers[rank]);
        // All nodes dial rank 0.
        let may = rank != me && me != 0 && self.is_wanted(rank);
        may && peer.link.is_none() && peer.address.is_some() && now >= peer.dial_at + self.turn(rank)
    }

    /// How long this node waits before it dials.
    fn turn(&self, rank: usize) -> Duration {
        if self.dials(rank) { Duration::ZERO } else { TURN }
    }

    /// Sets the peers that the machine of this node wants.
    pub(super) fn set_wishes(&mut self, wanted: &[PeerId]) {
        let now = Instant::now();
        let mut wanted = wanted.iter().peekable();
        for rank in 0..self.peers.len() {
            let is_wanted = wanted.next_if(|peer| peer.index() == rank).is_some();
            let peer = &mut self.peers[rank];
            if peer.wanted == is_wanted {
                continue;
            }
            peer.wanted = is_wanted;
            if is_wanted && !peer.open {
                (peer.attempts, peer.dial_at) = (0, now);
                self.timer = now;
            }
            self.tell_wish(rank);
        }
        debug_assert!(wanted.next().is_none(), "peers come by rank, each once");
    }

    /// Tells a peer whether this node wants the connection. A connection is wanted until the peer hears otherwise.
    pub(super) fn tell_wish(&mut self, rank: usize) {
        let peer = &mut self.peers[rank];
        let (wanted, now) = (peer.wanted, Instant::now());
        let is_news = peer.told != wanted;
        let Some(slot) = peer.link.filter(|_| peer.open && is_news) else { return };
        peer.told = wanted;
        if let Some(link) = &mut self.links[slot] {
            link.writer.control(Control::Wanted { wanted });
            link.queued_at = now;
            self.mark_runnable(slot);
        }
        self.note_spare(rank, now);
    }

    /// A peer has said whether it wants the connection.
    pub(super) fn on_wish(&mut self, rank: usize, wanted: bool, now: Instant) {
        self.peers[rank].wants = wanted;
        self.note_spare(rank, now);
    }

    fn note_spare(&mut self, rank: usize, now: Instant) {
        let is_meeting = rank == 0 || self.config.rank == PeerId(0);
        let peer = &mut self.peers[rank];
        peer.spare_since = if peer.open && !peer.wanted && !peer.wants && !is_meeting {
            Some(peer.spare_since.unwrap_or(now))
        } else {
            None
        };
    }

    /// Closes the connections that neither node has wanted for a while.
    pub(super) fn let_go(&mut self, now: Instant) {
        let after = self.config.dead_after / 2;
        for rank in 0..self.peers.len() {
            let peer = &self.peers[rank];
            let is_due = peer.spare_since.is_some_and(|since| now >= since + after);
            if let Some(slot) = peer.link.filter(|_| is_due) {
                self.break_link(slot, "neither node needs the connection".to_string());
            }
        }
    }

    /// Whether the call of a peer can be closed without an answer. It has called although it is this node's turn, and
    /// this node is calling it, or has just got through.
    pub(super) fn is_redundant(&self, rank: usize, instance: u64, now: Instant) -> bool {
        let peer = &self.peers[rank];
        let Some(link) = peer.link.and_then(|slot| self.links[slot].as_ref()) else { return false };
        let own = self.dials(rank) && link.dialled.is_some();
        let (same, max) = if peer.open { (peer.instance == instance, YOUNG) } else { (true, CALL_MAX) };
        own && same && now < link.started_at + max
    }
}
