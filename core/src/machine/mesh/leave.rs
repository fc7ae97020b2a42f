//! How a peer leaves, alone or with everyone, so that nobody goes before its neighbours know what it knows.

use super::*;

impl Mesh {
    pub(super) fn on_peer_leaves(&mut self, from: usize, header: Header) {
        let (origin, stays, peer) = (header.origin, header.base == Clock(1), self.neighbours[from].peer);
        self.neighbours[from].knows[origin.index()] = true;
        let ack = Header { origin, incarnation: header.incarnation, weight: 1, ..self.hub.header(Kind::Ack) };
        self.hub.notify(peer, ack);
        if self.marks[origin.index()].last.is_some() || origin == self.hub.setup.me {
            return;
        }
        if origin == peer && !stays && !self.relay {
            self.hub.mark_left(origin);
            self.forget(from);
        }
        self.note_last(origin, header.sequence, stays);
    }

    /// The origin's last message is `sequence`; a relay says so to its other neighbours.
    pub(super) fn note_last(&mut self, origin: PeerId, sequence: Sequence, stays: bool) {
        let mark = &mut self.marks[origin.index()];
        (mark.last, mark.stays) = (Some(sequence), stays);
        for to in 0..self.neighbours.len() {
            self.tell_leave(origin, to);
        }
    }

    /// Does this neighbour have to hear from this node that the origin leaves?
    pub(super) fn must_tell(&self, origin: PeerId, to: usize) -> bool {
        let neighbour = &self.neighbours[to];
        let mine = self.relay || origin == self.hub.setup.me;
        mine && neighbour.member && origin != neighbour.peer && !neighbour.knows[origin.index()]
    }

    pub(super) fn tell_leave(&mut self, origin: PeerId, to: usize) {
        let (peer, mark) = (self.neighbours[to].peer, self.marks[origin.index()]);
        let Some(sequence) = mark.last.filter(|_| self.must_tell(origin, to) && self.hub.is_agreed(peer)) else {
            return;
        };
        let (incarnation, base) = (mark.incarnation, Clock(u64::from(mark.stays)));
        let header = Header { origin, incarnation, sequence, base, ..self.hub.header(Kind::Leave) };
        self.hub.notify(peer, header);
    }

    /// Is all of this origin in, or given up?
    pub(super) fn is_whole(mark: &Mark) -> bool {
        mark.lost || mark.last == Some(mark.sequence)
    }

    pub(super) fn maybe_leave(&mut self) {
        let State::Leaving { stays, told } = self.state else { return };
        if self.slots.iter().any(|slot| !slot.is_free()) || self.applying > 0 {
            return;
        }
        if !told {
            self.state = State::Leaving { stays, told: true };
            self.note_last(self.hub.setup.me, self.sequence, stays);
        }
        // A relay stays on, or it would cut the tree. Nobody goes before its neighbours know what it knows.
        let origins =
            || (0..self.marks.len() as u32).map(PeerId).filter(|origin| self.marks[origin.index()].last.is_some());
        let untold = (0..self.neighbours.len()).any(|to| origins().any(|origin| self.must_tell(origin, to)));
        let whole = !(stays || self.relay) || self.marks.iter().all(Self::is_whole);
        if self.fetches.is_empty() && whole && !untold {
            self.state = State::Closing;
            self.materialise(Job::View);
        }
    }
}
