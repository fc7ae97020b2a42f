//! How a node gets its first parameters: rank 0 founds the mesh, any other node takes a snapshot (marks, base and
//! ledger) from a neighbour.

use super::marks::{Mark, Marks};
use super::neighbours::{Neighbour, Neighbours};
use crate::id::{Incarnation, PeerId};
use crate::machine::hub::Hub;
use crate::time::{Duration, Instant};
use crate::wire::Message;

/// The requests of a node without parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Joining {
    /// The neighbour that has been asked for a snapshot.
    provider: Option<PeerId>,
    /// The base of the snapshot is here.
    based: bool,
    /// Number of the last request. Parts of the answer to an earlier one are ignored.
    request: u32,
    /// When to ask again, after a snapshot that did not serve.
    retry: Option<Instant>,
}

impl Joining {
    /// The answer to the last request does not come, or does not serve.
    pub(super) fn restart(&mut self) {
        (self.provider, self.based) = (None, false);
    }

    /// A neighbour is connected: it can be asked at once. The last request may have got lost with its old connection.
    pub(super) fn on_agreed(&mut self) {
        self.restart();
        self.retry = None;
    }

    /// When to ask again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.retry
    }

    /// May rank 0 start the mesh with its own parameters? All its neighbours must be there, and none may be running.
    pub(super) fn may_found(&self, me: PeerId, neighbours: &Neighbours) -> bool {
        let fresh = |n: &Neighbour| n.start.is_some() && !n.is_running();
        me == PeerId(0) && self.provider.is_none() && !self.based && neighbours.iter().all(fresh)
    }

    /// Asks a neighbour for a snapshot: a neighbour that has parameters, or rank 0 (in a relay tree, the parent), which
    /// will have them.
    pub(super) fn maybe_ask(&mut self, hub: &mut Hub, neighbours: &Neighbours) {
        if self.retry.is_some_and(|retry| hub.now() < retry) {
            return;
        }
        self.retry = None;
        if self.provider.is_some_and(|provider| hub.is_agreed(provider)) {
            return;
        }
        let (me, relay) = (hub.setup.me, neighbours.is_relay());
        let ready = || neighbours.iter().filter(|n| n.start.is_some() && hub.is_agreed(n.peer));
        let founder = || ready().find(|n| n.peer < me && (relay || n.peer == PeerId(0)));
        let provider = ready().find(|n| n.is_running()).or_else(founder).map(|n| n.peer);
        self.restart();
        self.provider = provider;
        if let Some(provider) = provider {
            self.request = self.request.wrapping_add(1);
            hub.notify(provider, Message::FetchSnapshot { request: self.request });
        }
    }

    /// Is this part of a snapshot part of the answer to the last request?
    pub(super) fn expects(&self, peer: PeerId, request: u32) -> bool {
        self.provider == Some(peer) && self.request == request
    }

    pub(super) fn on_base(&mut self) {
        self.based = true;
    }

    pub(super) fn has_base(&self) -> bool {
        self.based
    }

    /// Checks a complete snapshot. It serves if no message falls between it and the neighbours' streams. If one does,
    /// returns false, and the node asks again later.
    pub(super) fn accept(&mut self, hub: &Hub, neighbours: &Neighbours, marks: &mut Marks) -> bool {
        let connects = |n: &Neighbour| {
            let mark = marks.get(n.peer);
            let same = mark.incarnation == hub.incarnation(n.peer);
            match n.start {
                Some(start) => !same || mark.sequence >= start.after,
                None => mark.is_complete() || mark.incarnation == Incarnation(0),
            }
        };
        if !neighbours.iter().all(connects) {
            let pause = hub.setup.patience.dead_after() / 20;
            self.retry = Some(hub.now().after(pause.max(Duration::from_millis(10))));
            self.restart();
            return false;
        }
        for neighbour in neighbours.iter() {
            let incarnation = hub.incarnation(neighbour.peer);
            let mark = marks.get_mut(neighbour.peer);
            if let Some(start) = neighbour.start.filter(|_| mark.incarnation != incarnation) {
                *mark = Mark::new(incarnation, start.after);
            }
        }
        true
    }

    /// The neighbour that a node without parameters waits for.
    pub(super) fn awaited(&self, hub: &Hub, neighbours: &Neighbours, marks: &Marks) -> Option<PeerId> {
        let missing = || neighbours.iter().map(|n| n.peer).filter(|peer| !hub.is_agreed(*peer));
        let absent = missing().find(|peer| !marks.get(*peer).is_complete());
        absent.filter(|_| !neighbours.is_relay()).or(self.provider).or_else(|| missing().next())
    }
}
