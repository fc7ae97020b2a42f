//! A peer of a mesh. There is no server: every peer holds a replica, sends quanta of its updates to all other peers,
//! and applies the quanta that it receives (Strom 2015).
//!
//! ```text
//! step -> encode (residual += update; take quanta) -> own ledger -> Quanta to every neighbour -> Ready
//! Quanta come -> known? -> Receive -> ledger -> Ack; a relay passes them on
//! ```
//! A replica is `base - unit * ledger`, where the ledger counts in units of the smallest quantum of the run. Addition
//! of integers commutes. So replicas that have applied the same messages are equal bit for bit, in whatever order the
//! messages came, and with whatever quantum each was made.
//!
//! A message is kept until every neighbour has acknowledged it, and is sent again after a broken connection. A mark per
//! origin drops messages that come twice. So each message reaches each peer exactly once. If a peer does not keep up,
//! own messages that have not been sent to it are merged into one message. The peer holds back its senders only when an
//! element of the sum would have more quanta than can be written.
//!
//! In a full mesh, a peer that restarts takes a snapshot (marks, base, ledger) from a neighbour and goes on from there.
//! In a relay tree, messages travel along the tree; its inner nodes cannot be replaced during the run. A relay
//! acknowledges a message when the peers behind it have the message, and no peer sends a neighbour more unacknowledged
//! messages than the neighbour has slots for this link. So a message never waits in front of an acknowledgement, and
//! streams in opposite directions cannot wait for each other.
//!
//! | file | keeps |
//! |---|---|
//! | `exchange.rs` | the exchange of messages, made of the next four |
//! | `neighbours.rs` | the peers at the other ends of this node's connections |
//! | `marks.rs` | per origin, the messages that are in the ledger, and the end of its stream |
//! | `slots.rs` | the bodies of messages, and the neighbours that still need them |
//! | `replica.rs` | base, ledger and view |
//! | `own.rs` | the stream of own messages: encoder and residual |
//! | `joining.rs` | this node's request for a snapshot |
//! | `snapshots.rs` | the neighbours' requests for snapshots |
//! | `state.rs` | the states of the peer |
//! | `job.rs` | the reasons for operations |
//!
//! [`Mesh`] itself keeps the state, and lets the parts act when the state allows it.

mod exchange;
mod job;
mod joining;
mod marks;
mod neighbours;
mod own;
mod replica;
mod slots;
mod snapshots;
mod state;

use exchange::Exchange;
use job::Job;
use joining::Joining;
use marks::{End, Marks};
use neighbours::{Neighbours, Start};
use own::Own;
use replica::Replica;
use slots::Slots;
use snapshots::Snapshots;
use state::{Cause, State};

use super::encoding::Encoding;
use super::host::Role;
use super::hub::{Awaited, Hub, Incoming, Port};
use super::{Misuse, ProtocolError, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId};
use crate::kernel::{KernelResult, ledger};
use crate::recipe::{Codec, Topology};
use crate::status::{self, Status};
use crate::vectors::Keep;
use crate::wire::{Message, SnapshotMark};

/// A peer of a mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    state: State,
    joining: Joining,
    own: Own,
    exchange: Exchange,
    snapshots: Snapshots,
}

impl Mesh {
    /// The peer, which declares its vectors.
    ///
    /// # Panics
    /// When the recipe is not a mesh's.
    pub(crate) fn new(hub: &mut Port<'_, Job>) -> Self {
        let Hub { setup, vectors, .. } = &mut **hub;
        let Codec::Threshold(threshold) = setup.recipe.codec else { unreachable!("a mesh's recipe has a threshold") };
        let Topology::Mesh { relay } = setup.recipe.topology else { unreachable!("a mesh's recipe says mesh") };
        let (me, workers, len) = (setup.me, setup.cluster.workers, setup.len);
        let mut vector = |name, len| Segment::floats(vectors.floats(name, len, Keep::No), 0, len);
        let [view, update, base] = ["view", "update", "base"].map(|name| vector(name, len));
        let [ledger, copy] = ["ledger", "snapshot"].map(|name| vector(name, ledger::words(len)));
        let (whole, correction) = (core::iter::once(0..len), setup.recipe.correction);
        let encoding = Encoding::encoder(setup, setup.recipe.codec, correction, whole, vectors);
        let neighbours = Neighbours::new(me, workers, relay);
        let mut marks = Marks::new(workers);
        marks.get_mut(me).incarnation = setup.incarnation;
        let slots = Slots::new(vectors, neighbours.is_relay(), neighbours.len(), encoding.len_max(0));
        let replica = Replica::new(view, ledger, base, encoding.sections(0), threshold.unit());
        for kernel in encoding.kernels() {
            hub.compute(kernel, Job::Aside);
        }
        let mut mesh = Self {
            state: State::Joining,
            joining: Joining::default(),
            own: Own::new(encoding, update),
            snapshots: Snapshots::new(copy, neighbours.len()),
            exchange: Exchange { neighbours, marks, slots, replica },
        };
        mesh.maybe_join(hub);
        mesh
    }

    // Joining

    /// Founds the mesh, or asks for a snapshot.
    fn maybe_join(&mut self, hub: &mut Port<'_, Job>) {
        if self.state != State::Joining {
            return;
        }
        let Exchange { neighbours, replica, .. } = &self.exchange;
        if self.joining.may_found(hub.setup.me, neighbours) {
            self.state = State::Basing;
            replica.found(hub);
        } else {
            self.joining.maybe_ask(hub, neighbours);
        }
    }

    /// Is this part of a snapshot part of the answer to the last request?
    fn expects(&self, peer: PeerId, request: u32) -> bool {
        self.state == State::Joining && self.joining.expects(peer, request)
    }

    /// Marks, base and ledger are here.
    fn on_snapshot(&mut self, hub: &mut Port<'_, Job>) {
        let Exchange { neighbours, marks, replica, .. } = &mut self.exchange;
        if self.joining.accept(hub, neighbours, marks) {
            self.state = State::Basing;
            replica.materialise(hub, Job::Base);
        }
    }

    /// The view holds parameters.
    fn on_based(&mut self, hub: &mut Port<'_, Job>) {
        self.state = State::Held;
        hub.has_parameters = true;
        self.maybe_begin(hub);
        for to in 0..self.exchange.neighbours.len() {
            self.tell_start(hub, to);
        }
    }

    /// Lets the application begin, if the first ranks are far enough ahead.
    fn maybe_begin(&mut self, hub: &mut Port<'_, Job>) {
        let Exchange { marks, replica, .. } = &mut self.exchange;
        if self.state != State::Held || !marks.may_begin(hub.setup.me, &hub.setup.recipe.correction) {
            return;
        }
        if replica.applied() > replica.seen() {
            // The first ranks' messages are in the ledger, and not in the view yet.
            self.state = State::Basing;
            replica.materialise(hub, Job::Base);
        } else {
            self.state = State::Ready;
            hub.signal(Signal::Joined { clock: self.clock() });
        }
    }

    fn tell_start(&self, hub: &mut Hub, to: usize) {
        self.exchange.tell_start(hub, to, self.own.sequence(), self.state.has_parameters());
    }

    // Messages

    /// Takes the held messages. A snapshot that comes later would overwrite their effect, so they wait for it.
    fn maybe_receive(&mut self, hub: &mut Port<'_, Job>) {
        if self.state.has_parameters() || planted!(hub, SnapshotAppliedLate) {
            self.exchange.maybe_receive(hub);
        }
    }

    /// Encodes a message, or makes room for it: if all own slots are in use, two of their messages are merged.
    fn maybe_encode(&mut self, hub: &mut Port<'_, Job>) {
        let State::Blocked(cause) = self.state else { return };
        if let Some(slot) = self.exchange.slots.free_own() {
            self.own.encode(hub, &mut self.exchange, slot, cause != Cause::Step);
            self.state = State::Encoding { slot, cause };
        } else {
            self.exchange.maybe_merge(hub, &self.own.encoding);
        }
    }

    fn on_encoded(&mut self, hub: &mut Port<'_, Job>, result: KernelResult) {
        let (State::Encoding { slot, cause }, KernelResult::Encoded(encoded)) = (self.state, result) else { return };
        self.own.on_encoded(hub, &mut self.exchange, slot, encoded, cause != Cause::Step);
        match cause {
            Cause::Step => self.make_view(hub),
            Cause::Leave { stays } => self.become_leaving(hub, stays),
        }
    }

    /// The application makes no more contributions. Perhaps messages with parts of the residual are due before the node
    /// leaves.
    fn become_leaving(&mut self, hub: &mut Port<'_, Job>, stays: bool) {
        if self.own.encoding.wants_last() {
            self.state = State::Blocked(Cause::Leave { stays });
        } else {
            self.own.tell_rest(hub);
            self.state = State::Leaving { stays, announced: false };
        }
    }

    fn make_view(&mut self, hub: &mut Port<'_, Job>) {
        self.state = State::Viewing;
        self.exchange.replica.materialise(hub, Job::View);
    }

    fn on_viewed(&mut self, hub: &mut Hub) {
        if self.state == State::Closing {
            self.state = State::Left;
            hub.signal(Signal::Left);
        } else if self.state == State::Viewing {
            self.state = State::Ready;
            hub.signal(Signal::Ready { clock: self.clock(), changed: true });
        }
    }

    /// Answers a neighbour's request for a snapshot. Waits for the end of encoding: until then the number of own
    /// messages, which starts of streams announce, is ahead of the own mark.
    fn maybe_provide(&mut self, hub: &mut Port<'_, Job>) {
        if self.state.has_parameters() && !matches!(self.state, State::Encoding { .. }) {
            self.snapshots.maybe_provide(hub, &self.exchange.marks, &self.exchange.replica);
        }
    }

    /// Leaves, alone or at the end of the run, after the neighbours have learned all that this node knows.
    fn maybe_leave(&mut self, hub: &mut Port<'_, Job>) {
        let State::Leaving { stays, announced } = self.state else { return };
        if !self.exchange.slots.are_all_free() || self.exchange.replica.is_decoding() {
            return;
        }
        if !announced {
            self.state = State::Leaving { stays, announced: true };
            let (me, last) = (hub.setup.me, self.own.sequence());
            self.exchange.note_end(hub, me, End { last, stays });
        }
        let Exchange { neighbours, marks, .. } = &self.exchange;
        // A relay stays until the end of the run: without it the tree would fall apart.
        let complete = !(stays || neighbours.is_relay()) || marks.first_incomplete().is_none();
        if !self.snapshots.is_asked() && complete && neighbours.know_all_leaves(marks) {
            self.state = State::Closing;
            self.exchange.replica.materialise(hub, Job::View);
        }
    }

    /// Messages that this node has made.
    fn clock(&self) -> Clock {
        Clock(self.own.sequence().0)
    }
}

impl Role for Mesh {
    type Job = Job;

    fn on_agreed(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, fresh: bool) {
        let Some(index) = self.exchange.neighbours.index_of(peer) else { return };
        if !self.exchange.admit(hub, index, fresh) {
            return;
        }
        if self.state == State::Joining {
            self.joining.on_agreed();
        }
        self.tell_start(hub, index);
        self.exchange.resume(hub, index);
    }

    fn on_lost(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if self.state != State::Left {
            self.exchange.on_lost(hub, peer);
        }
    }

    fn on_message(&mut self, hub: &mut Port<'_, Job>, incoming: Incoming) {
        let Incoming { peer, message, length } = incoming;
        let Exchange { neighbours, marks, slots, replica } = &self.exchange;
        let Some(from) = neighbours.index_of(peer) else {
            return hub.close(peer, ProtocolError::Unexpected { kind: message.kind() });
        };
        let (base, ledger) = (replica.base(), replica.ledger());
        match message {
            Message::Quanta(quanta) if marks.contains(quanta.origin) && length <= slots.capacity() => {
                hub.hold(incoming);
            }
            Message::Quanta(_) => close_length(hub, &incoming, slots.capacity()),
            Message::QuantaAck(ack) if marks.contains(ack.origin) => self.exchange.on_ack(hub, from, ack),
            Message::LeaveAck { origin, .. } if marks.contains(origin) => {
                self.exchange.neighbours.get_mut(from).knows[origin.index()] = true;
            }
            Message::Leave(leave) if marks.contains(leave.origin) => self.exchange.on_leave(hub, from, leave),
            Message::StreamStart { after, joined } => {
                let start = Start { after, joined };
                self.exchange.on_start(hub, from, start, self.state != State::Joining);
            }
            // Parts of the answer to an earlier request.
            Message::SnapshotMark(SnapshotMark { request, .. })
            | Message::Seed { request }
            | Message::Ledger { request, .. }
                if !self.expects(peer, request) =>
            {
                hub.discard(&incoming);
            }
            Message::SnapshotMark(mark) if marks.contains(mark.origin) => {
                if mark.origin != hub.setup.me {
                    self.exchange.marks.adopt(&mark);
                }
            }
            Message::Seed { .. } if length == base.len => hub.receive(&incoming, base, Job::Seed),
            Message::Ledger { applied, .. } if length == ledger.len => {
                self.exchange.replica.set_applied(applied);
                hub.receive(&incoming, ledger, Job::Ledger);
            }
            Message::Seed { .. } => close_length(hub, &incoming, base.len),
            Message::Ledger { .. } => close_length(hub, &incoming, ledger.len),
            Message::FetchSnapshot { request } => self.snapshots.on_request(peer, request),
            _ => hub.close(peer, ProtocolError::Unexpected { kind: message.kind() }),
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_, Job>, job: Job, result: KernelResult) {
        match job {
            Job::Encode => self.on_encoded(hub, result),
            Job::Aside => {}
            Job::Measure => self.own.encoding.on_measured(result),
            Job::Clip => self.own.encoding.on_clipped(result),
            Job::Merge => self.exchange.on_merged(hub, result),
            Job::Own => self.exchange.on_own(hub, result),
            Job::Receive { slot, from } => self.exchange.on_received(hub, slot, from),
            Job::Decode { slot, from } => self.exchange.on_decoded(hub, slot, from, result),
            Job::Send { slot } => self.exchange.on_sent(hub, slot),
            Job::View => self.on_viewed(hub),
            Job::Base => self.on_based(hub),
            Job::Seed => self.joining.on_base(),
            Job::Ledger if self.state == State::Joining && self.joining.has_base() => self.on_snapshot(hub),
            Job::Ledger => {}
            Job::Snapshot { to, request } => self.snapshots.on_copied(hub, to, request, &self.exchange.replica),
            Job::SendSnapshot => self.snapshots.on_sent(),
        }
    }

    fn on_failed(&mut self, hub: &mut Port<'_, Job>, job: Job) {
        match job {
            Job::Receive { slot, .. } => self.exchange.slots.abandon(slot),
            Job::Send { slot } => self.exchange.on_sent(hub, slot),
            Job::SendSnapshot => self.snapshots.on_sent(),
            Job::Seed | Job::Ledger => {
                self.state = State::Joining;
                self.joining.restart();
            }
            _ => {}
        }
    }

    fn on_step(&mut self, hub: &mut Port<'_, Job>, weight: u32) -> Result<(), Misuse> {
        match self.state {
            State::Ready if weight > 0 => self.state = State::Blocked(Cause::Step),
            State::Ready => {
                hub.counters.empty += 1;
                self.make_view(hub);
            }
            _ => return Err(Misuse::NotReady),
        }
        Ok(())
    }

    fn on_leave(&mut self, hub: &mut Port<'_, Job>, stays: bool, keep: bool) -> Result<(), Misuse> {
        let has_joined = self.state.has_parameters();
        self.state = self.state.leave(stays)?;
        // Without parameters there is no ledger yet that a last message could enter.
        if !keep && has_joined {
            self.own.encoding.begin_end();
            self.become_leaving(hub, stays);
        }
        Ok(())
    }

    fn on_rate(&mut self, scale: f32) {
        self.own.encoding.set_rate(scale);
    }

    fn on_outdated(&mut self, hub: &mut Port<'_, Job>) {
        self.own.on_outdated(hub);
    }

    fn settle(&mut self, hub: &mut Port<'_, Job>) {
        self.maybe_join(hub);
        self.maybe_receive(hub);
        // The messages that have just been received can be the ones that a node waits for before it begins.
        self.maybe_begin(hub);
        self.maybe_encode(hub);
        self.maybe_provide(hub);
        self.maybe_leave(hub);
        hub.set_alarm(self.joining.retry().filter(|_| self.state == State::Joining));
    }

    fn awaited(&self, hub: &Hub) -> Option<Awaited> {
        let Exchange { neighbours, marks, slots, .. } = &self.exchange;
        let on = match self.state {
            State::Joining => self.joining.awaited(hub, neighbours, marks),
            State::Held => marks.slowest_starter(&hub.setup.recipe.correction),
            State::Blocked(_) | State::Leaving { announced: false, .. } => {
                slots.first_awaited().map(|index| neighbours.get(index).peer)
            }
            State::Leaving { .. } => marks.first_incomplete(),
            _ => None,
        }?;
        let (at, clock) = (Clock(marks.get(on).sequence.0), self.clock().next());
        Some(Awaited { on, at, clock })
    }

    fn is_awaited_by(&self, _hub: &Hub, peer: PeerId) -> bool {
        self.exchange.neighbours.index_of(peer).is_some()
    }

    fn contribution(&self) -> BufferId {
        self.own.update().buffer
    }

    fn view(&self) -> BufferId {
        self.exchange.replica.view().buffer
    }

    fn status(&self, hub: &Hub) -> Status {
        let Exchange { marks, replica, .. } = &self.exchange;
        let clock = |peer| Clock(if marks.contains(peer) { marks.get(peer).sequence.0 } else { 0 });
        let status = hub.status(status::Role::Mesh, self.clock(), clock);
        self.own.encoding.report(Status { updates: replica.applied().0, ..status })
    }
}

/// Closes the connection to a peer that has sent a body of the wrong length.
fn close_length(hub: &mut Hub, incoming: &Incoming, expected: u32) {
    let Incoming { peer, message, length: got } = *incoming;
    hub.close(peer, ProtocolError::Length { kind: message.kind(), expected, got });
}

#[cfg(test)]
mod tests;
