//! The peers that this node exchanges messages with: all other members of the view in a full mesh; the parent and the
//! children in a relay tree, whose shape follows from the members' order.

use alloc::vec;
use alloc::vec::Vec;

use crate::id::{PeerId, Sequence};

/// The neighbours of a view, in order of their ranks.
#[derive(Clone, Debug)]
pub(super) struct Neighbours {
    /// Children of each node of the relay tree; 0 in a full mesh.
    fan_out: u32,
    list: Vec<PeerId>,
    /// The other members of the view.
    others: Vec<PeerId>,
    /// By rank, neighbour or not: the peer's report on this node's stream, from the present connection.
    starts: Vec<Option<Start>>,
    /// By rank: the last view in which the peer has been current, on any connection. It takes no snapshot in that view
    /// any more.
    current: Vec<Sequence>,
}

/// A peer's view, and how much it has of this node's stream.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) view: Sequence,
    /// This node's last message that the peer has in its ledger.
    pub(super) have: Sequence,
}

impl Neighbours {
    pub(super) fn new(workers: u32, fan_out: u32) -> Self {
        let list = Vec::with_capacity(Self::most(workers, fan_out));
        let (starts, current) = (vec![None; workers as usize], vec![Sequence(0); workers as usize]);
        Self { fan_out, list, others: Vec::with_capacity(workers as usize), starts, current }
    }

    /// Most neighbours that a node can have.
    pub(super) fn most(workers: u32, fan_out: u32) -> usize {
        let others = workers.saturating_sub(1);
        (if fan_out == 0 { others } else { others.min(fan_out.saturating_add(1)) }) as usize
    }

    /// A view begins, with these members.
    pub(super) fn enter(&mut self, me: PeerId, members: &[PeerId]) {
        let own = members.iter().position(|member| *member == me);
        let fan_out = self.fan_out as usize;
        let is_child = |child: usize, parent: usize| child > 0 && (child - 1) / fan_out == parent;
        let is_neighbour = |(index, _): &(usize, &PeerId)| match (own, fan_out) {
            (None, _) => false,
            (Some(own), 0) => *index != own,
            (Some(own), _) => is_child(*index, own) || is_child(own, *index),
        };
        self.others.clear();
        self.others.extend(members.iter().filter(|member| **member != me));
        self.list.clear();
        self.list.extend(members.iter().enumerate().filter(is_neighbour).map(|(_, member)| *member));
    }

    pub(super) fn is_relay(&self) -> bool {
        self.fan_out > 0
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn index_of(&self, peer: PeerId) -> Option<usize> {
        self.list.iter().position(|neighbour| *neighbour == peer)
    }

    pub(super) fn get(&self, index: usize) -> PeerId {
        self.list[index]
    }

    /// The other members of the view, neighbours or not.
    pub(super) fn others(&self) -> &[PeerId] {
        &self.others
    }

    // Starts

    /// A worker has reported its view, and how much it has of this node's stream.
    pub(super) fn set_start(&mut self, peer: PeerId, start: Start) {
        self.starts[peer.index()] = Some(start);
        self.current[peer.index()] = start.view;
    }

    /// The connection to a peer is new.
    pub(super) fn forget_start(&mut self, peer: PeerId) {
        if let Some(start) = self.starts.get_mut(peer.index()) {
            *start = None;
        }
    }

    /// Can no message that is made now get to the nodes at or behind this neighbour in a snapshot as well? In a relay
    /// tree, all other nodes can be behind it.
    pub(super) fn is_past_snapshots(&self, index: usize, view: Sequence) -> bool {
        let is_current = |peer: &PeerId| self.current[peer.index()] == view;
        if self.is_relay() { self.others.iter().all(is_current) } else { is_current(&self.list[index]) }
    }

    /// The start that a peer in this view has sent on the present connection.
    pub(super) fn start(&self, peer: PeerId, view: Sequence) -> Option<Start> {
        self.starts.get(peer.index()).copied().flatten().filter(|start| start.view == view)
    }
}
