//! The peers that this node exchanges messages with: all others in a full mesh; the parent and the children in a relay
//! tree.

use alloc::vec;
use alloc::vec::Vec;

use super::marks::{Mark, Marks};
use crate::id::{PeerId, Sequence};
use crate::machine::hub::Hub;
use crate::wire::{Leave, Message};

/// The neighbours, in order of their ranks.
#[derive(Clone, Debug)]
pub(super) struct Neighbours {
    me: PeerId,
    workers: u32,
    /// Children of each node of the relay tree; 0 in a full mesh.
    fan_out: u32,
    list: Vec<Neighbour>,
}

#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) peer: PeerId,
    /// The neighbour takes part: every message from now on must reach it.
    pub(super) member: bool,
    /// The start of the neighbour's stream, as announced on this connection.
    pub(super) start: Option<Start>,
    /// The neighbour has had parameters, on this connection or an earlier one. It takes no snapshot any more.
    pub(super) joined: bool,
    /// By rank of the origin: the neighbour knows that the origin leaves.
    pub(super) knows: Vec<bool>,
}

/// The start of a neighbour's stream on the present connection.
#[derive(Copy, Clone, Debug)]
pub(super) struct Start {
    /// The neighbour's last message that does not come on this connection.
    pub(super) after: Sequence,
    /// The neighbour has parameters.
    pub(super) joined: bool,
}

impl Neighbours {
    pub(super) fn new(me: PeerId, workers: u32, fan_out: u32) -> Self {
        let (knows, me) = (vec![false; workers as usize], me.0);
        let is_child = |child: u32, parent: u32| child > 0 && (child - 1) / fan_out == parent;
        let is_neighbour = |rank: &u32| match fan_out {
            0 => *rank != me,
            _ => is_child(*rank, me) || is_child(me, *rank),
        };
        let neighbour =
            |rank| Neighbour { peer: PeerId(rank), member: false, start: None, joined: false, knows: knows.clone() };
        let list = (0..workers).filter(is_neighbour).map(neighbour).collect();
        Self { me: PeerId(me), workers, fan_out, list }
    }

    pub(super) fn is_relay(&self) -> bool {
        self.fan_out > 0
    }

    /// Is this neighbour in a relay tree a child without children?
    pub(super) fn is_leaf(&self, peer: PeerId) -> bool {
        let first_child = peer.0.saturating_mul(self.fan_out).saturating_add(1);
        peer > self.me && first_child >= self.workers
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn index_of(&self, peer: PeerId) -> Option<usize> {
        self.list.iter().position(|neighbour| neighbour.peer == peer)
    }

    pub(super) fn get(&self, index: usize) -> &Neighbour {
        &self.list[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Neighbour {
        &mut self.list[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.list.iter()
    }

    // Leaves

    /// Must neighbour `to` still learn from this node that the origin leaves? In a full mesh each node announces its
    /// own leave; a relay passes on the leaves of all nodes.
    fn must_tell(&self, origin: PeerId, to: usize) -> bool {
        let neighbour = &self.list[to];
        let mine = self.is_relay() || origin == self.me;
        mine && neighbour.member && origin != neighbour.peer && !neighbour.knows[origin.index()]
    }

    /// Announces the end of an origin's stream to neighbour `to`, if the neighbour must learn it.
    pub(super) fn tell_leave(&self, hub: &mut Hub, origin: PeerId, mark: &Mark, to: usize) {
        let peer = self.list[to].peer;
        if let Some(end) = mark.end.filter(|_| self.must_tell(origin, to) && hub.is_agreed(peer)) {
            let leave = Leave { origin, incarnation: mark.incarnation, last: end.last, stays: end.stays };
            hub.notify(peer, Message::Leave(leave));
        }
    }

    /// Do all neighbours know of all leaves that this node has to announce?
    pub(super) fn know_all_leaves(&self, marks: &Marks) -> bool {
        let leaves = || marks.iter().filter(|(_, mark)| mark.end.is_some());
        (0..self.list.len()).all(|to| leaves().all(|(origin, _)| !self.must_tell(origin, to)))
    }
}

impl Neighbour {
    /// The neighbour has parameters, and has said so on this connection.
    pub(super) fn is_running(&self) -> bool {
        self.start.is_some_and(|start| start.joined)
    }
}
