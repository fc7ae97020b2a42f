//! The other nodes as this one sees them: connection, process, traffic.
//!
//! ```text
//! Never -> Connected -> Agreed -> Down -> Lost          Never -> Down (it becomes a partner)
//!             ^  (hello)   ^  (disconnect) |  (dead_after; at once if it has failed)
//!             +------------+---------------+
//! ```
//!
//! # Wanted peers
//!
//! A driver that connects peers on demand ([`Setup::on_demand`]) asks which peers this node *wants* to be connected with.
//! Those are the nodes that are always wanted, for instance that of the coordinator, or the servers; the *partners* that
//! the role names,
//! for instance the neighbours in the tree of the present view; and peers that were lost and have not been met again,
//! since two nodes that have lost each other can take part together only after they have met.
//!
//! - A partner is known to take part. If it is not connected when it becomes a partner, it is down from then on, and is
//!   lost after `dead_after`.
//! - A peer that is not wanted is not missed: when its connection ends, it is as if it had not been met.
//!
//! [`Setup::on_demand`]: crate::Setup::on_demand

use alloc::collections::VecDeque;
use core::ops::Range;

use super::table::Table;
use crate::id::{Incarnation, PeerId};
use crate::machine::Failure;
use crate::status::{LinkStatus, Presence};
use crate::time::{Duration, Instant};
use crate::wire::HEADER_LEN;

#[derive(Debug)]
pub(super) struct Peers {
    /// The neighbours, by rank. Sparse where the driver connects peers on demand.
    all: Table<Peer>,
    /// In place of a node that has not come up.
    stranger: Peer,
    /// The peers that can be lost, see [`Peer::is_down`], in the order in which their connections ended. So the first
    /// one is due first, and an input looks at no other peer.
    down: VecDeque<PeerId>,
    /// Those of them that have failed: they are due at once.
    failed: usize,
    /// Peers that are given up.
    lost: usize,
    /// The number of the exchange that the role is in, from 1 on; 0 before the first.
    exchange: u64,
    /// How often the set of wanted peers has changed.
    changes: u64,
}

#[derive(Copy, Clone, Debug)]
pub(super) struct Peer {
    pub(super) link: Link,
    /// It is wanted all the time.
    always: bool,
    /// It takes part with this node, as the role has said.
    partner: bool,
    /// It was lost, and has not said hello since.
    missed: bool,
    /// The host has said that it is lost, while it was down here and not given up yet.
    rumoured: bool,
    /// The exchange in which the connection with it broke last; 0: in none.
    broke_in: u64,
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
    /// Disconnected, or not connected yet though it is a partner; the peer is still a member.
    Down { since: Instant },
    /// Disconnected for `dead_after`, and given up.
    Lost,
}

impl Peers {
    /// `sparse`: few of the neighbours come up. `always`: the peers that this node always wants.
    pub(super) fn new(neighbours: Range<u32>, sparse: bool, always: Range<u32>) -> Self {
        let all = match sparse {
            true => Table::sparse(neighbours),
            false => Table::dense(neighbours, |rank| Peer::new(PeerId(rank))),
        };
        let (stranger, down) = (Peer::new(PeerId(u32::MAX)), VecDeque::new());
        let mut peers = Self { all, stranger, down, failed: 0, lost: 0, exchange: 0, changes: 0 };
        always.map(PeerId).for_each(|rank| peers.change(rank, |peer| peer.always = true));
        peers.changes = 0;
        peers
    }

    /// The ranks of the neighbours, among which may be this node itself.
    pub(super) fn ranks(&self) -> impl Iterator<Item = PeerId> + use<> {
        self.all.range().map(PeerId)
    }

    /// Neighbours that have come up, among which may be this node itself. The others are not connected.
    pub(super) fn count(&self) -> usize {
        self.all.count()
    }

    /// The rank of the `index`-th neighbour that has come up.
    pub(super) fn rank(&self, index: usize) -> PeerId {
        self.all.rank(index)
    }

    /// Is the node of this rank a neighbour?
    pub(super) fn has(&self, peer: PeerId) -> bool {
        self.all.range().contains(&peer.0)
    }

    pub(super) fn get(&self, peer: PeerId) -> &Peer {
        self.all.get(peer).unwrap_or(&self.stranger)
    }

    /// The peer, to count its messages.
    pub(super) fn traffic(&mut self, peer: PeerId) -> &mut Peer {
        self.all.entry(peer, || Peer::new(peer))
    }

    /// Changes the state of a peer.
    pub(super) fn change(&mut self, peer: PeerId, change: impl FnOnce(&mut Peer)) {
        let entry = self.all.entry(peer, || Peer::new(peer));
        let before = entry.is_down().then_some(entry.failure.is_some());
        let was_wanted = entry.is_wanted();
        self.lost -= usize::from(entry.link == Link::Lost);
        change(entry);
        self.lost += usize::from(entry.link == Link::Lost);
        self.changes += u64::from(entry.is_wanted() != was_wanted);
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

    // Wanted peers

    /// How often the set of wanted peers has changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The wanted peers, by rank, among which may be this node itself.
    pub(super) fn wanted(&self) -> impl Iterator<Item = PeerId> + '_ {
        (0..self.count()).map(|index| self.rank(index)).filter(|peer| self.get(*peer).is_wanted())
    }

    /// An exchange begins.
    pub(super) fn begin_exchange(&mut self) {
        self.exchange += 1;
    }

    /// Sets the partners. Has no effect where all peers are connected. `waits`: a partner that does not come is given up
    /// after a time.
    pub(super) fn set_partners(&mut self, partners: &[PeerId], now: Instant, waits: bool) {
        if !self.all.is_sparse() {
            return;
        }
        for index in 0..self.count() {
            let peer = self.rank(index);
            if !partners.contains(&peer) {
                self.change(peer, Peer::end_partnership);
            }
        }
        for partner in partners {
            self.change(*partner, |peer| peer.begin_partnership(now, waits));
        }
    }

    /// Did the connection with the peer break within the present exchange? Messages of the exchange may be lost then.
    pub(super) fn has_broken(&self, peer: PeerId) -> bool {
        !self.all.is_sparse() || self.get(peer).broke_in == self.exchange
    }

    /// The connection to a peer has ended.
    pub(super) fn on_disconnected(&mut self, peer: PeerId, now: Instant) {
        let exchange = self.exchange;
        self.change(peer, |entry| {
            if entry.link == Link::Agreed {
                entry.broke_in = exchange;
            }
            entry.on_disconnected(now);
        });
    }

    /// Peers that are given up.
    pub(super) fn lost(&self) -> usize {
        self.lost
    }

    /// The first moment at which a peer that is down has to be given up.
    pub(super) fn deadline(&self, dead_after: Duration) -> Option<Instant> {
        Some(self.get(*self.down.front()?).down_since()?.after(dead_after))
    }

    /// The host has said that a peer is lost. One that is down here is given up in its own time, or is a partner no more
    /// before that.
    pub(super) fn on_rumour(&mut self, lost: PeerId) {
        self.change(lost, |peer| peer.rumoured = peer.is_down());
    }

    /// The next peer that the host has called lost, and that is no longer missed here.
    pub(super) fn take_rumour(&mut self) -> Option<PeerId> {
        let is_due = |peer: &PeerId| self.get(*peer).rumoured && self.get(*peer).is_far();
        let lost = (0..self.count()).map(|index| self.rank(index)).find(is_due)?;
        self.change(lost, |peer| peer.rumoured = false);
        Some(lost)
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
        self.change(lost, |peer| (peer.link, peer.missed, peer.rumoured) = (Link::Lost, true, false));
        Some(lost)
    }
}

impl Peer {
    fn new(rank: PeerId) -> Self {
        Self {
            link: Link::Never,
            always: false,
            partner: false,
            missed: false,
            rumoured: false,
            broke_in: 0,
            incarnation: Incarnation(0),
            left: false,
            failure: None,
            had_parameters: false,
            traffic: LinkStatus {
                peer: rank,
                bytes_out: 0,
                bytes_in: 0,
                messages_out: 0,
                messages_in: 0,
                last_heard: None,
                response_ns: 0,
                arriving_ns: 0,
            },
            unanswered_since: None,
        }
    }

    /// It is not connected, and nothing is expected of it.
    pub(super) fn is_far(&self) -> bool {
        self.link == Link::Never
    }

    fn is_wanted(&self) -> bool {
        self.always || self.partner || self.missed
    }

    fn begin_partnership(&mut self, now: Instant, waits: bool) {
        self.partner = true;
        if self.link == Link::Never && waits {
            self.link = Link::Down { since: now };
        }
    }

    fn end_partnership(&mut self) {
        self.partner = false;
        if !self.is_wanted() && self.is_down() {
            self.link = Link::Never;
        }
    }

    /// The peer has said hello, from this process.
    pub(super) fn on_hello(&mut self, incarnation: Incarnation, had_parameters: bool) {
        self.left &= self.incarnation == incarnation;
        (self.link, self.missed, self.rumoured) = (Link::Agreed, false, false);
        (self.incarnation, self.had_parameters, self.failure) = (incarnation, had_parameters, None);
    }

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

    fn on_disconnected(&mut self, now: Instant) {
        match self.link {
            Link::Agreed | Link::Connected if !self.is_wanted() => self.link = Link::Never,
            Link::Agreed => self.link = Link::Down { since: now },
            // A partner is known to exist.
            Link::Connected if self.partner || self.incarnation != Incarnation(0) => {
                self.link = Link::Down { since: now };
            }
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
