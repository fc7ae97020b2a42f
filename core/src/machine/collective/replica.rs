//! The state of training at one node: the parameters, the vectors of the commit step, and how a node without them gets
//! them.
//!
//! With `payload=gradients` the state is the application's ([`Carried`]): a round gives it a mean, and the application
//! makes the next state of it. It gives that state to its node with its next contribution.

use alloc::vec::Vec;

use super::Job;
use super::exchange::Outcome;
use super::operations::Epochs;
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, ShardId};
use crate::machine::ProtocolError;
use crate::machine::commit::Places;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::rider::Rider;
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
    /// The application's state, with `payload=gradients`. The places of `vectors` then hold means.
    carried: Carried,
    /// Members of the view that have asked for a state that the application has not given yet.
    askers: Vec<PeerId>,
    /// The mean riders of the first round that had a number, and of the last one.
    riders: Option<[Rider; 2]>,
}

/// The application's state: its parameters, and the vectors of its optimizer. Empty for other payloads.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Of each vector: the buffer that the application fills, and the one for the state of a donor. A receive operation
    /// may write the second while the application exchanges the first.
    vectors: Vec<[BufferId; 2]>,
    /// The first buffers hold the state after the last round.
    given: bool,
    /// The second buffers do: no round has been done since the node has got its state.
    adopted: bool,
}

impl Carried {
    /// The state of a node that has done no round yet: the driver puts the first one into the second buffers.
    pub(super) fn new(vectors: Vec<[BufferId; 2]>) -> Self {
        Self { vectors, given: false, adopted: true }
    }

    fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Which buffers hold the state after the last round; `None` while the application computes it.
    fn place(&self) -> Option<usize> {
        if self.adopted { Some(1) } else { self.given.then_some(0) }
    }
}

/// How far the state of a donor has come.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Fetch {
    /// Rounds that are in it.
    round: Clock,
    /// The donor has been asked.
    asked: bool,
    /// Vectors that are being received, or are here.
    begun: u32,
    /// Vectors that are here.
    arrived: u32,
    /// The donor's riders.
    riders: Option<[Rider; 2]>,
}

/// A vector of a donor's state.
#[derive(Copy, Clone, Debug)]
pub(super) struct Offered {
    /// Rounds that are in the state.
    pub(super) round: Clock,
    /// The number of the vector.
    pub(super) vector: u32,
    pub(super) riders: Option<[Rider; 2]>,
}

/// The state that a donor has given, compared with the state that this node had. A node that has the donor's state asks
/// for nothing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It has more rounds: this node's contribution is in them.
    Advanced,
    /// This node had no state, or one that counts for nothing.
    New,
}

impl Replica {
    /// The state in `vectors` of `len` floats, in which there are `round` rounds.
    pub(super) fn new(vectors: Vec<[BufferId; 2]>, carried: Carried, len: usize, round: Option<Clock>) -> Self {
        let (given_to, askers) = (Vec::new(), Vec::new());
        Self { vectors, current: 0, len, round, fetch: None, given_to, giving: 0, carried, askers, riders: None }
    }

    /// Rounds that are in the state; 0 without a state.
    pub(super) fn round(&self) -> Clock {
        self.round.unwrap_or(Clock(0))
    }

    /// The node has a state. It may be older than that of the view.
    pub(super) fn is_there(&self) -> bool {
        self.round.is_some()
    }

    /// The mean riders of the first round that had a number, and of the last one.
    pub(super) fn riders(&self) -> Option<[Rider; 2]> {
        self.riders
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

    /// The buffer that the application reads: the parameters; with `payload=gradients`, its own when it has got a state,
    /// and else the mean of the last round.
    pub(super) fn view(&self) -> BufferId {
        match self.carried.vectors.first() {
            Some([_, adopted]) if self.carried.adopted => *adopted,
            _ => self.parameters(),
        }
    }

    /// The buffers of a vector of the application's state: the one that the application fills, and the one for the state
    /// of a donor.
    pub(super) fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.carried.vectors.get(index).copied()
    }

    /// The application has given its state after the last round.
    pub(super) fn on_given_state(&mut self) {
        self.carried.given = true;
    }

    /// The buffer that holds the parameters, or the mean of gradients.
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

    /// The round is done. `changed`: the state after it is in the other places. `last`: no round follows.
    pub(super) fn complete_round(&mut self, Outcome { changed, last, rider }: Outcome) {
        if let Some(rider) = rider {
            let [first, _] = self.riders.unwrap_or([rider; 2]);
            self.riders = Some([first, rider]);
        }
        if changed {
            self.current = 1 - self.current;
        }
        if !last {
            (self.carried.given, self.carried.adopted) = (false, false);
        }
        self.round = Some(self.round().next());
    }

    // Views

    /// All members stop: open requests for the state are dropped.
    pub(super) fn stop(&mut self) {
        self.fetch = None;
        self.askers.clear();
    }

    /// A view begins, after `round` rounds. `behind`: this node has to fetch its state. `returns`: its own state counts
    /// for nothing, since the run has gone on without it.
    pub(super) fn enter(&mut self, round: Clock, behind: bool, returns: bool) {
        self.given_to.clear();
        self.askers.clear();
        if returns {
            self.round = None;
        }
        self.fetch = behind.then_some(Fetch { round, asked: false, begun: 0, arrived: 0, riders: None });
        if !behind {
            // The donor of a new run has the initial parameters, which are the run's from now on.
            self.round.get_or_insert(Clock(0));
        }
    }

    // The side that lacks the state

    /// Asks the donor of the view, once. Operations of earlier views may still use the places that the answer goes to.
    pub(super) fn maybe_fetch(&mut self, hub: &mut Hub, view: &View, epochs: &Epochs) {
        // The answer may go where this node's own answer to another still comes from.
        let is_lent = !self.carried.is_empty() && self.is_giving();
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| !fetch.asked && !is_lent) else { return };
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
        offered: Offered,
        wanted: bool,
        epochs: &mut Epochs,
    ) {
        let Offered { round, vector, riders } = offered;
        let into = self.whole(self.next_parameters());
        let (expected, got, kind) = (into.len, incoming.length, incoming.message.kind());
        if got != expected {
            return hub.close(incoming.peer, ProtocolError::Length { kind, expected, got });
        }
        let Some(fetch) = self.fetch.as_mut().filter(|fetch| wanted && fetch.round == round) else {
            return hub.discard(incoming);
        };
        // The donor sends every vector once, in order.
        let place = match self.carried.vectors.get(vector as usize) {
            Some([_, adopted]) => Some(*adopted),
            None if self.carried.is_empty() => self.vectors.get(vector as usize).map(|places| places[1 - self.current]),
            None => None,
        };
        let Some(buffer) = place.filter(|_| vector == fetch.begun) else {
            return hub.close(incoming.peer, ProtocolError::NoSuchShard { got: ShardId(vector) });
        };
        (fetch.begun, fetch.riders) = (fetch.begun + 1, riders);
        let into = Segment { buffer, ..into };
        hub.receive(incoming, into, Job::Fetch { epoch: epochs.begin() });
    }

    /// A vector has arrived. When it was the last one, the state is the donor's, and the result says how it relates to
    /// the state that this node had.
    pub(super) fn on_arrived(&mut self) -> Option<Arrival> {
        let fetch = self.fetch.as_mut()?;
        fetch.arrived += 1;
        let vectors = if self.carried.is_empty() { &self.vectors } else { &self.carried.vectors };
        if fetch.arrived < vectors.len() as u32 {
            return None;
        }
        let arrival = match self.round {
            Some(_) => Arrival::Advanced,
            None => Arrival::New,
        };
        (self.round, self.riders) = (Some(fetch.round), fetch.riders);
        if self.carried.is_empty() {
            self.current = 1 - self.current;
        } else {
            (self.carried.given, self.carried.adopted) = (false, true);
        }
        self.fetch = None;
        Some(arrival)
    }

    // The donor's side

    /// Sends the state to the members that have asked for it before the application had given it.
    pub(super) fn give_due(&mut self, hub: &mut Port<'_, Job>, view: &View) {
        if self.carried.place().is_some() {
            for peer in core::mem::take(&mut self.askers) {
                self.give(hub, peer, view);
            }
        }
    }

    /// Sends the state to a member of the view that lacks it, once in a view. Later, if the application still computes
    /// it.
    pub(super) fn give(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, view: &View) {
        let lacks = view.members.contains(&peer) && !self.given_to.contains(&peer);
        let Some(round) = self.round.filter(|_| lacks && self.fetch.is_none()) else { return };
        let (vectors, place) = match self.carried.place() {
            _ if self.carried.is_empty() => (&self.vectors, self.current),
            Some(place) => (&self.carried.vectors, place),
            // Once, however often it asks.
            None if self.askers.contains(&peer) => return,
            None => return self.askers.push(peer),
        };
        self.given_to.push(peer);
        for (places, vector) in vectors.iter().zip(0..) {
            self.giving += 1;
            let body = self.whole(places[place]);
            let message = Message::Parameters { view: view.number, round, vector, riders: self.riders };
            hub.transmit(peer, message, Some(body), Job::Give);
        }
    }

    /// A transmission of [`Self::give`] has ended.
    pub(super) fn on_given(&mut self) {
        self.giving -= 1;
    }
}
