//! The state of training at one node: the parameters, the vectors of the commit step, and how a node without them gets
//! them.

use alloc::vec::Vec;

use super::Job;
use super::operations::Epochs;
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, ShardId};
use crate::machine::ProtocolError;
use crate::machine::commit::Places;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::wire::Message;

/// A node's copy of the state.
#[derive(Debug)]
pub(super) struct Replica {
    /// The parameters, then the vectors of the commit step. Each has two places: one holds the state, and the other
    /// takes the state after the current round. The places of all vectors are exchanged together, when all of the round
    /// is here.
    vectors: Vec<[BufferId; 2]>,
    /// Which of the places holds the state.
    current: usize,
    /// Floats of each vector.
    len: usize,
    /// Rounds that are in the state; `None` without a state.
    round: Option<Clock>,
    /// The node lacks the state that its view begins with.
    fetch: Option<Fetch>,
    /// Members of the view that this node has sent its state.
    given_to: Vec<PeerId>,
    /// Transmissions of the state that have not ended.
    giving: u32,
}

/// How far the state of a donor has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Fetch {
    /// Rounds that are in it.
    round: Clock,
    /// The donor has been asked.
    asked: bool,
    /// Vectors whose bodies are being received, or are here.
    begun: u32,
    /// Vectors that are here.
    arrived: u32,
}

/// The state that a donor has given, compared with the state that this node had. A node whose state is the donor's asks
/// for none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It has more rounds: this node's contribution is in them.
    Advanced,
    /// This node had none, or one that counts for nothing.
    New,
}

impl Replica {
    /// The state in `vectors` of `len` floats, in which there are `round` rounds.
    pub(super) fn new(vectors: Vec<[BufferId; 2]>, len: usize, round: Option<Clock>) -> Self {
        Self { vectors, current: 0, len, round, fetch: None, given_to: Vec::new(), giving: 0 }
    }

    /// Rounds that are in the state; 0 without a state.
    pub(super) fn round(&self) -> Clock {
        self.round.unwrap_or(Clock(0))
    }

    /// The node has a state. It may be older than that of the view.
    pub(super) fn is_there(&self) -> bool {
        self.round.is_some()
    }

    /// Does the node lack the state that its view begins with?
    pub(super) fn is_behind(&self) -> bool {
        self.fetch.is_some()
    }

    /// Is this node sending its state to another node?
    pub(super) fn is_giving(&self) -> bool {
        self.giving > 0
    }

    // Places

    /// The buffer that holds the parameters.
    pub(super) fn parameters(&self) -> BufferId {
        self.vectors[0][self.current]
    }

    /// The buffer for the parameters after the current round.
    pub(super) fn next_parameters(&self) -> BufferId {
        self.vectors[0][1 - self.current]
    }

    /// All vectors of the state, each with its buffer now and after the current round.
    pub(super) fn vectors(&self) -> impl Iterator<Item = (BufferId, BufferId)> + '_ {
        self.vectors.iter().map(|places| (places[self.current], places[1 - self.current]))
    }

    /// The places of a vector of the state before and after the current round.
    pub(super) fn places(&self) -> Places {
        Places { old: self.current, new: 1 - self.current }
    }

    fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.len)
    }

    /// The round is done. `changed`: the state after it is in the other places.
    pub(super) fn complete_round(&mut self, changed: bool) {
        if changed {
            self.current = 1 - self.current;
        }
        self.round = Some(self.round().next());
    }

    // Views

    /// Everyone stops.
    pub(super) fn stop(&mut self) {
        self.fetch = None;
    }

    /// A view begins, after `round` rounds. `behind`: this node has to fetch its state. `returns`: its own state counts
    /// for nothing, since the run has gone on without it.
    pub(super) fn enter(&mut self, round: Clock, behind: bool, returns: bool) {
        self.given_to.clear();
        if returns {
            self.round = None;
        }
        self.fetch = behind.then_some(Fetch { round, asked: false, begun: 0, arrived: 0 });
        if !behind {
            // The donor of a new run has the initial parameters, which are the run's from now on.
            self.round.get_or_insert(Clock(0));
        }
    }

    // The side that lacks the state

    /// Asks the donor of the view, once. Operations of earlier views may still use the places that the answer goes to.
    pub(super) fn maybe_fetch(&mut self, hub: &mut Hub, view: &View, epochs: &Epochs) {
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| !fetch.asked) else { return };
        if epochs.is_clear() && hub.is_agreed(view.donor) {
            fetch.asked = true;
            hub.notify(view.donor, Message::FetchParameters { view: view.number });
        }
    }

    /// A vector of a state of `round` rounds is offered. `wanted`: by the donor of the view that this node is in.
    pub(super) fn on_vector(
        &mut self,
        hub: &mut Port<'_, Job>,
        incoming: &Incoming,
        round: Clock,
        vector: u32,
        wanted: bool,
        epochs: &mut Epochs,
    ) {
        let into = self.whole(self.next_parameters());
        let (expected, got, kind) = (into.len, incoming.length, incoming.message.kind());
        if got != expected {
            return hub.close(incoming.peer, ProtocolError::Length { kind, expected, got });
        }
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| wanted && fetch.round == round) else {
            return hub.discard(incoming);
        };
        // The donor sends every vector once, in order.
        let place = self.vectors.get(vector as usize).filter(|_| vector == fetch.begun);
        let Some(places) = place else {
            return hub.close(incoming.peer, ProtocolError::NoSuchShard { got: ShardId(vector) });
        };
        fetch.begun += 1;
        let into = Segment { buffer: places[1 - self.current], ..into };
        hub.receive(incoming, into, Job::Fetch { epoch: epochs.begin() });
    }

    /// A vector has arrived. When it was the last one, the state is the donor's, and the result says how it relates to
    /// the state that this node had.
    pub(super) fn on_arrived(&mut self) -> Option<Arrival> {
        let fetch = self.fetch.as_mut()?;
        fetch.arrived += 1;
        if fetch.arrived < self.vectors.len() as u32 {
            return None;
        }
        let arrival = match self.round {
            Some(_) => Arrival::Advanced,
            None => Arrival::New,
        };
        self.round = Some(fetch.round);
        self.current = 1 - self.current;
        self.fetch = None;
        Some(arrival)
    }

    // The donor's side

    /// Sends the state to a member of the view that lacks it, once in a view.
    pub(super) fn give(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, view: &View) {
        let lacks = view.members.contains(&peer) && !self.given_to.contains(&peer);
        let Some(round) = self.round.filter(|_| lacks && self.fetch.is_none()) else { return };
        self.given_to.push(peer);
        for (places, vector) in self.vectors.iter().zip(0..) {
            self.giving += 1;
            let body = self.whole(places[self.current]);
            let message = Message::Parameters { view: view.number, round, vector };
            hub.transmit(peer, message, Some(body), Job::Give);
        }
    }

    /// A transmission of [`Self::give`] has ended.
    pub(super) fn on_given(&mut self) {
        self.giving -= 1;
    }
}
