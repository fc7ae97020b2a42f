//! A peer of a mesh. There is no server: every peer holds a replica, sends quanta of its updates to all other peers,
//! and applies the quanta that it receives (Strom 2015).
//!
//! ```text
//! step -> encode (residual += update; take quanta) -> own ledger -> Quanta to every neighbour -> Ready
//! Quanta come -> known? -> Receive -> ledger -> Ack; a relay passes them on
//! ```
//! A replica is `base - unit * ledger`, where the ledger counts in units of the smallest quantum of the run. Addition
//! of integers commutes. So replicas that have applied the same messages are equal bit for bit, for any order of
//! arrival and any quantum of each message.
//!
//! A message is kept until every neighbour has acknowledged it, and is sent again after a broken connection. A mark per
//! origin drops messages that come twice. So each message reaches each peer exactly once. If a peer does not keep up,
//! own messages that have not been sent to it are merged into one message. So up to 7 peers that are held up at different
//! messages hold back nobody, unless an element of the sum would have more quanta than can be written.
//!
//! Peers are members of [`views`](super::views), which their coordinator forms. While a view changes, no peer makes
//! messages, and no message is lost: each member keeps its own until all have them. How a member enters a view is in
//! `sync.rs`. A view that has lost its coordinator goes on, as long as more than half of its members can reach each
//! other; only a change of the members has to wait.
//!
//! In a relay tree, messages travel along a tree that follows from the view. A relay acknowledges a message when the
//! peers behind it have the message, and no peer sends a neighbour more unacknowledged messages than the neighbour has
//! slots for this link. So a message never waits in front of an acknowledgement, and streams in opposite directions
//! cannot wait for each other.
//!
//! | file | keeps |
//! |---|---|
//! | `exchange.rs` | the exchange of messages, made of the next four |
//! | `neighbours.rs` | the peers that this node exchanges messages with |
//! | `marks.rs` | per origin, the messages that are in the ledger, and the end of its stream |
//! | `slots.rs` | the bodies of messages, and the neighbours that still need them |
//! | `replica.rs` | base, ledger and view |
//! | `own.rs` | the stream of own messages: encoder and residual |
//! | `sync.rs` | this node's way into a view |
//! | `snapshots.rs` | the state that this node gives to other nodes on their way into a view |
//! | `state.rs` | the states of the peer |
//! | `job.rs` | the reasons for operations |
//!
//! [`Mesh`] itself keeps the state, and lets the parts act when the state allows it.

mod exchange;
mod job;
mod marks;
mod neighbours;
mod own;
mod replica;
mod slots;
mod snapshots;
mod state;
mod sync;

use exchange::Exchange;
use job::Job;
use marks::Marks;
use neighbours::{Neighbours, Start};
use own::Own;
use replica::Replica;
use slots::Slots;
use snapshots::Snapshots;
use state::{Cause, State};
use sync::{Stage, Sync};

use super::encoding::Encoding;
use super::host::Role;
use super::hub::{Awaited, Hub, Incoming, Port};
use super::views::{Change, Exit, Member, Standing};
use super::{Event, Misuse, ProtocolError, Signal};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, Sequence};
use crate::kernel::{KernelResult, ledger};
use crate::recipe::{Codec, Topology};
use crate::status::{self, Status};
use crate::tape::{Order, Tape};
use crate::vectors::Keep;
use crate::wire::{Message, Wanted};

/// A peer of a mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    member: Member,
    sync: Sync,
    state: State,
    own: Own,
    exchange: Exchange,
    snapshots: Snapshots,
    /// This node's plans, as the coordinator has heard them last: it leaves, it is at the end.
    told: (bool, bool),
}

impl Mesh {
    /// The peer, which declares its vectors.
    ///
    /// # Panics
    /// When the recipe is not a mesh's.
    pub(crate) fn new(hub: &mut Port<'_, Job>) -> Self {
        let member = Member::new(hub);
        let Hub { setup, vectors, .. } = &mut **hub;
        let Codec::Threshold(threshold) = setup.recipe.codec else { unreachable!("a mesh's recipe has a threshold") };
        let Topology::Mesh { relay } = setup.recipe.topology else { unreachable!("a mesh's recipe says mesh") };
        let (workers, len) = (setup.cluster.workers, setup.len);
        let mut vector = |name, len| Segment::floats(vectors.floats(name, len, Keep::No), 0, len);
        let [view, update, base] = ["view", "update", "base"].map(|name| vector(name, len));
        let touched = vector("touched lines", ledger::map_words(len));
        let [ledger, copy] = ["ledger", "second ledger"].map(|name| vectors.brief(name));
        let [ledger, copy] = [ledger, copy].map(|buffer| Segment::floats(buffer, 0, ledger::words(len)));
        let (whole, correction) = (core::iter::once(0..len), setup.recipe.correction);
        let encoding = Encoding::encoder(setup, setup.recipe.codec, correction, whole, vectors);
        let neighbours = Neighbours::new(workers, relay);
        let mut marks = Marks::new(workers);
        marks.get_mut(setup.me).incarnation = setup.incarnation;
        // Messages that wait for their turn on a tape must not keep back acknowledgements.
        let apart = relay > 0 || matches!(setup.tape, Tape::Follow(_));
        let most = Neighbours::most(workers, relay);
        let slots = Slots::new(vectors, apart, most, encoding.len_max(0), setup.keep_below);
        let replica = Replica::new(view, [ledger, copy], touched, base, encoding.sections(0), threshold.unit());
        for kernel in encoding.kernels() {
            hub.compute(kernel, Job::Aside);
        }
        let mut mesh = Self {
            member,
            sync: Sync::new(workers),
            state: State::Joining,
            own: Own::new(encoding, update),
            exchange: Exchange::new(neighbours, marks, slots, replica),
            snapshots: Snapshots::new(workers),
            told: (false, false),
        };
        mesh.report(hub);
        if hub.setup.cluster.nodes() == 1 {
            // No input of a peer will ever come: this node starts at once.
            mesh.settle(hub);
        }
        mesh
    }

    // Views

    fn standing(&self) -> Standing {
        let round = self.exchange.replica.applied();
        let (leaves, last) = self.told;
        Standing { round, has: self.sync.holds(), leaves, last }
    }

    fn report(&mut self, hub: &mut Hub) {
        self.member.report(hub, self.standing());
    }

    /// Lets the coordinator act, if it is at this node, and carries out its decisions.
    fn coordinate(&mut self, hub: &mut Port<'_, Job>) {
        self.member.advance(hub);
        while let Some(change) = self.member.take_change(hub, self.standing()) {
            self.on_change(hub, change);
        }
    }

    fn on_change(&mut self, hub: &mut Port<'_, Job>, change: Change) {
        match change {
            Change::Stop => {
                self.sync.stop();
                self.report(hub);
            }
            // A node that has left enters no view.
            Change::Enter { .. } if self.state == State::Left => {}
            Change::Enter { view, returns } => {
                self.member.enter(hub, view);
                self.sync.enter(returns);
            }
            // The coordinator releases again: this node's message got lost.
            Change::Released if self.state == State::Left => self.member.repeat_goodbye(hub),
            Change::Released => {}
            Change::HostLost => {
                // The other nodes have to know whether this node is at the end.
                self.report(hub);
                if self.member.is_released() || self.told.0 {
                    self.close(hub);
                }
            }
        }
    }

    /// Enters the view that has come, when no operation of the view before is open.
    fn maybe_enter(&mut self, hub: &mut Port<'_, Job>) {
        if self.sync.stage() == Stage::Entering && self.exchange.is_quiet() {
            let (me, view) = (hub.setup.me, self.member.view());
            if self.exchange.view != Sequence(0) {
                // The members have changed during the run.
                hub.break_tape();
            }
            self.exchange.enter(hub, view);
            self.sync.begin(view.donor == me);
            match self.sync.stage() {
                Stage::Founding => self.exchange.replica.found(hub),
                Stage::Current => self.begin(hub),
                _ => {}
            }
        }
        if !self.snapshots.is_giving() {
            self.sync.maybe_ask(hub, self.member.view());
        }
    }

    /// This node has the state that the view begins with.
    fn begin(&mut self, hub: &mut Port<'_, Job>) {
        self.sync.become_current();
        hub.has_parameters = true;
        self.exchange.begin(hub, self.own.sequence());
    }

    /// Is this part of a snapshot part of the answer that this node waits for?
    fn expects(&self, incoming: &Incoming, wanted: impl Fn(Wanted) -> bool) -> bool {
        let view = self.member.view();
        let of = match incoming.message {
            Message::SnapshotMark(mark) => mark.view,
            Message::Seed { view } | Message::Ledger { view, .. } => view,
            _ => return false,
        };
        of == view.number && incoming.peer == view.donor && self.sync.expects(wanted)
    }

    /// A mark of the donor has come, perhaps the last.
    fn maybe_compare(&mut self, hub: &mut Port<'_, Job>) {
        let Exchange { marks, neighbours, .. } = &self.exchange;
        if self.sync.compare(hub, marks, self.member.view(), neighbours.is_relay()) == Some(true) {
            self.begin(hub);
        }
    }

    /// A part of the donor's snapshot is here.
    fn on_snapshot(&mut self, hub: &mut Port<'_, Job>, is_ledger: bool) {
        self.sync.on_received();
        if !is_ledger {
            self.sync.on_base();
        } else if let Some(applied) = self.sync.take_snapshot(&self.exchange.marks) {
            self.exchange.replica.take_copy(applied);
            self.snapshots.give_back(hub, &self.exchange.replica);
            self.exchange.adopt(hub, self.sync.offered());
            self.begin(hub);
        }
    }

    // Steps

    /// Lets the application begin, if the first ranks are far enough ahead.
    fn maybe_join(&mut self, hub: &mut Port<'_, Job>) {
        let may_begin = self.exchange.marks.may_begin(hub.setup.me, &hub.setup.recipe.correction);
        if self.state == State::Joining && self.sync.is_current() && may_begin && hub.allows(Order::Go) {
            hub.decide(Order::Go);
            self.state = State::Basing;
            self.exchange.replica.materialise(hub, Job::View);
        }
    }

    /// May this node make messages? Not while the view changes, nor without most of its members.
    fn may_contribute(&self, hub: &Hub) -> bool {
        self.sync.is_current() && self.member.is_in_view() && self.member.has_quorum(hub)
    }

    /// Encodes a message, or makes room for it: where messages wait for a neighbour that does not keep up, two of them are
    /// merged.
    fn maybe_encode(&mut self, hub: &mut Port<'_, Job>) {
        let State::Blocked(cause) = self.state else { return };
        if !self.may_contribute(hub) {
            return;
        }
        // The merge depends on the messages that have been sent. With a tape, this node waits for its neighbours instead.
        if !hub.is_taped() && self.exchange.slots.should_merge() {
            self.exchange.maybe_merge(hub, &self.own.encoding);
        } else if let Some(slot) = self.exchange.slots.free_own() {
            if !hub.allows(Order::Make) {
                return;
            }
            self.own.encode(hub, &mut self.exchange, slot, cause != Cause::Step);
            self.state = State::Encoding { slot, cause };
        }
    }

    fn on_encoded(&mut self, hub: &mut Port<'_, Job>, result: KernelResult) {
        let (State::Encoding { slot, cause }, KernelResult::Encoded(encoded)) = (self.state, result) else { return };
        hub.decide(Order::Make);
        self.own.on_encoded(hub, &mut self.exchange, slot, encoded, cause != Cause::Step);
        match cause {
            Cause::Step => self.make_view(hub),
            Cause::Leave { stays } => self.become_leaving(hub, stays),
        }
    }

    fn make_view(&mut self, hub: &mut Port<'_, Job>) {
        self.state = State::Due;
        self.maybe_view(hub);
    }

    fn maybe_view(&mut self, hub: &mut Port<'_, Job>) {
        if self.state == State::Due && hub.allows(Order::Go) {
            hub.decide(Order::Go);
            self.state = State::Viewing;
            self.exchange.replica.materialise(hub, Job::View);
        }
    }

    fn on_viewed(&mut self, hub: &mut Port<'_, Job>) {
        match self.state {
            State::Basing => {
                self.state = State::Ready;
                // The messages in the view: by now, further ones can be in the ledger.
                let clock = Clock(self.exchange.replica.seen().0 / u64::from(hub.setup.cluster.workers));
                hub.signal(Signal::Joined { clock });
            }
            State::Viewing => {
                self.state = State::Ready;
                hub.signal(Signal::Ready { clock: self.clock(), changed: true });
            }
            State::Closing { .. } => self.say_goodbye(hub),
            _ => {}
        }
    }

    // Leaving

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

    /// Announces the end of this node's stream when its neighbours have all messages, tells the coordinator when nothing
    /// more is to be done, and leaves when the coordinator allows it.
    fn maybe_leave(&mut self, hub: &mut Port<'_, Job>) {
        if let (Some(Exit::Cut { peer }), true) = (self.member.exit(hub), self.state != State::Left) {
            self.state = State::Left;
            return hub.signal(Signal::Cut { peer });
        }
        let State::Leaving { stays, announced } = self.state else { return };
        let delivered = self.exchange.slots.are_all_free() && self.exchange.is_quiet();
        // A node that has never had parameters has no stream that could end.
        let has_stream = hub.has_parameters;
        if !announced && delivered && (self.sync.is_current() || !has_stream) {
            self.state = State::Leaving { stays, announced: true };
            if has_stream {
                let (me, incarnation) = (hub.setup.me, hub.setup.incarnation);
                self.exchange.note_end(hub, me, incarnation, self.own.sequence());
            }
        }
        let announced = matches!(self.state, State::Leaving { announced: true, .. });
        let complete = self.sync.is_current() && self.exchange.marks.first_incomplete().is_none();
        // Messages of other nodes that come after this node has said that it leaves do not keep it: their origins have
        // them, and deliver them in the next view. Own messages that are due again do keep it.
        let may_leave = delivered || (self.told.0 && self.exchange.slots.own().next().is_none());
        let plans = (announced && may_leave && !stays, announced && delivered && stays && complete);
        // A view that does not begin from this node's state takes nothing back.
        if plans != self.told {
            self.told = plans;
            self.report(hub);
            self.coordinate(hub);
        }
        let may_go = self.member.exit(hub).is_some() || self.member.ends_without_host(hub, self.told.1);
        if may_go && !self.snapshots.is_giving() && delivered {
            self.close(hub);
        }
    }

    /// Makes the last view.
    fn close(&mut self, hub: &mut Port<'_, Job>) {
        if let State::Leaving { stays, .. } = self.state {
            self.state = State::Closing { stays };
            self.exchange.replica.materialise(hub, Job::View);
        }
    }

    fn say_goodbye(&mut self, hub: &mut Port<'_, Job>) {
        let State::Closing { stays } = self.state else { return };
        let host_lost = hub.presence(self.member.host()) == status::Presence::Lost;
        match self.member.exit(hub) {
            Some(Exit::Tell { host, goodbye }) => {
                self.state = State::Left;
                hub.transmit(host, goodbye, None, Job::Leave { stays });
            }
            Some(Exit::Alone) => self.become_left(hub),
            None if host_lost => self.become_left(hub),
            // It tries again when the coordinator's node is connected.
            _ => self.state = State::Leaving { stays, announced: true },
        }
    }

    fn become_left(&mut self, hub: &mut Hub) {
        self.state = State::Left;
        hub.signal(Signal::Left);
    }

    /// Messages that this node has made.
    fn clock(&self) -> Clock {
        Clock(self.own.sequence().0)
    }
}

impl Role for Mesh {
    type Job = Job;

    fn on_agreed(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, fresh: bool) {
        if fresh {
            let incarnation = hub.incarnation(peer);
            hub.event(Event::PeerJoined { peer, incarnation });
        }
        // The rest of a stream that this node relies on does not come from another process.
        let doubtful = fresh && self.sync.trusts(peer);
        self.member.on_agreed(hub, peer, doubtful, fresh, self.standing());
        self.snapshots.requests.forget(peer);
        if self.exchange.marks.contains(peer) {
            self.exchange.on_agreed(hub, peer);
            if doubtful {
                self.exchange.doubt(peer);
            }
        }
        if peer == self.member.view().donor {
            self.sync.restart();
        }
    }

    fn on_lost(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if self.state == State::Left {
            return;
        }
        hub.event(Event::PeerLost { peer });
        if let Some(change) = self.member.on_lost(hub, peer) {
            self.on_change(hub, change);
        }
    }

    fn needs(&self, _hub: &Hub, peer: PeerId) -> bool {
        let marks = &self.exchange.marks;
        let needs = match self.state {
            State::Left => false,
            // At the end, members can do without the coordinator, but not without the rest of its node's stream.
            State::Leaving { announced: true, .. } => marks.contains(peer) && !marks.get(peer).is_complete(),
            _ => true,
        };
        needs && peer == self.member.host()
    }

    fn on_message(&mut self, hub: &mut Port<'_, Job>, incoming: Incoming) {
        let Incoming { peer, message, length } = incoming;
        let Exchange { neighbours, marks, slots, replica, .. } = &self.exchange;
        let (base, copy) = (replica.base(), replica.copy());
        match message {
            Message::Quanta(_) if length > slots.capacity() => close_length(hub, &incoming, slots.capacity()),
            Message::Quanta(quanta) if marks.contains(quanta.origin) => match self.exchange.is_timely(peer) {
                true => hub.hold(incoming),
                false => hub.discard(&incoming),
            },
            Message::QuantaAck(ack) if marks.contains(ack.origin) => {
                if let Some(from) = neighbours.index_of(peer).filter(|_| self.exchange.is_timely(peer)) {
                    self.exchange.on_ack(hub, from, ack);
                }
            }
            Message::StreamEnd { origin, incarnation, last } if marks.contains(origin) => {
                if self.exchange.is_timely(peer) {
                    self.exchange.on_end(hub, origin, incarnation, last);
                }
            }
            Message::Have { view, last: have } if marks.contains(peer) => {
                self.exchange.on_have(hub, peer, Start { view, have });
            }
            Message::FetchSnapshot { view, wanted } => self.snapshots.requests.put(peer, view, wanted),
            Message::SnapshotMark(mark) => {
                if self.expects(&incoming, |_| true) {
                    self.sync.on_mark(&mark, marks.len());
                    self.maybe_compare(hub);
                }
            }
            Message::Seed { .. } if length != base.len => close_length(hub, &incoming, base.len),
            Message::Ledger { .. } if ![copy.len, replica.low_len()].contains(&length) => {
                close_length(hub, &incoming, copy.len);
            }
            Message::Seed { view } if self.expects(&incoming, |wanted| wanted == Wanted::All) => {
                self.sync.on_receiving();
                hub.receive(&incoming, base, Job::Seed { view });
            }
            Message::Ledger { view, applied } if self.expects(&incoming, |wanted| wanted != Wanted::Marks) => {
                self.sync.set_applied(applied);
                self.sync.on_receiving();
                hub.receive(&incoming, copy.first(length), Job::Ledger { view });
            }
            // Parts of an answer that is not waited for any more.
            Message::Seed { .. } | Message::Ledger { .. } => hub.discard(&incoming),
            _ => {
                if let Some(change) = self.member.on_message(hub, &incoming, self.standing()) {
                    self.on_change(hub, change);
                }
            }
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_, Job>, job: Job, result: KernelResult) {
        match job {
            Job::Encode => self.on_encoded(hub, result),
            Job::Aside => {}
            Job::Measure => self.own.encoding.on_measured(result),
            Job::Clip => self.own.encoding.on_clipped(0, result),
            Job::Merge => self.exchange.on_merged(hub, result),
            Job::Own => self.exchange.on_own(hub, result),
            Job::Receive { slot, from } => self.exchange.on_received(hub, slot, from),
            Job::Decode { slot, from } => self.exchange.on_decoded(hub, slot, from, result),
            Job::Send { slot } => self.exchange.on_sent(hub, slot),
            Job::View => self.on_viewed(hub),
            Job::Found if self.sync.stage() == Stage::Founding => self.begin(hub),
            Job::Found => {}
            Job::Seed { view } if self.is_asking(view) => self.on_snapshot(hub, false),
            Job::Ledger { view } if self.is_asking(view) => self.on_snapshot(hub, true),
            Job::Seed { .. } | Job::Ledger { .. } => self.sync.on_received(),
            Job::Snapshot { to, view, applied } => {
                let (message, replica) = (Message::Ledger { view, applied }, &self.exchange.replica);
                self.snapshots.on_copied(hub, to, message, result, replica);
            }
            Job::SendSnapshot => self.snapshots.on_sent(hub, &self.exchange.replica),
            Job::Leave { .. } => hub.signal(Signal::Left),
        }
    }

    fn on_failed(&mut self, hub: &mut Port<'_, Job>, job: Job) {
        match job {
            Job::Receive { slot, .. } => self.exchange.slots.abandon(slot),
            Job::Send { slot } => self.exchange.on_sent(hub, slot),
            Job::SendSnapshot => self.snapshots.on_sent(hub, &self.exchange.replica),
            Job::Seed { .. } | Job::Ledger { .. } => {
                self.sync.on_received();
                self.sync.restart();
            }
            // Where no peer is waited for, the loss of the node comes before the end of the operations with it. The
            // node needs nothing from the coordinator any more.
            Job::Leave { .. } if hub.presence(self.member.host()) == status::Presence::Lost => self.become_left(hub),
            // It tries again when the coordinator's node is connected.
            Job::Leave { stays } => self.state = State::Leaving { stays, announced: true },
            _ => {}
        }
    }

    fn on_step(&mut self, hub: &mut Port<'_, Job>, weight: u64) -> Result<(), Misuse> {
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
        let has_joined = self.state != State::Joining;
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
        loop {
            let decisions = hub.decisions();
            self.coordinate(hub);
            self.maybe_enter(hub);
            self.exchange.maybe_receive(hub);
            self.exchange.maybe_apply(hub);
            self.maybe_view(hub);
            // The messages that have just been received can be the ones that a node waits for before it begins.
            self.maybe_join(hub);
            self.maybe_encode(hub);
            if self.sync.is_current() && !self.sync.is_receiving() {
                let Exchange { marks, replica, view, .. } = &self.exchange;
                self.snapshots.maybe_provide(hub, marks, replica, *view);
            }
            self.maybe_leave(hub);
            // A decision lets the next one of a tape be made.
            if !self.member.has_commands() && hub.decisions() == decisions {
                break;
            }
        }
    }

    fn awaited(&self, hub: &Hub) -> Option<Awaited> {
        let marks = &self.exchange.marks;
        let view = self.member.view();
        let on = match self.state {
            State::Joining | State::Blocked(_) | State::Leaving { .. } if !self.member.is_in_view() => {
                self.member.awaited()
            }
            State::Joining | State::Blocked(_) | State::Leaving { .. } if !self.sync.is_current() => Some(view.donor),
            State::Joining => marks.slowest_starter(&hub.setup.recipe.correction),
            State::Blocked(_) if !self.member.has_quorum(hub) => self.member.first_lost(hub),
            State::Blocked(_) | State::Leaving { announced: false, .. } => self.exchange.awaited(hub),
            State::Leaving { .. } => {
                // Without a lost member nothing more may come of any stream, before there is a new view.
                let lost = self.member.first_lost(hub).or_else(|| marks.first_incomplete());
                lost.or_else(|| self.member.awaited())
            }
            State::Left if self.member.hosts() => self.member.awaited(),
            _ => None,
        };
        let on = on.filter(|on| *on != hub.setup.me)?;
        let at = if marks.contains(on) { Clock(marks.get(on).sequence.0) } else { Clock(0) };
        Some(Awaited { on, at, clock: self.clock().next() })
    }

    fn is_awaited_by(&self, hub: &Hub, peer: PeerId) -> bool {
        hub.setup.cluster.is_worker(peer)
    }

    fn contribution(&self) -> BufferId {
        self.own.update().buffer
    }

    /// A message is encoded before the view is made.
    fn is_contribution_free(&self) -> bool {
        true
    }

    fn view(&self) -> BufferId {
        self.exchange.replica.view().buffer
    }

    fn status(&self, hub: &Hub) -> Status {
        let Exchange { marks, replica, .. } = &self.exchange;
        let clock = |peer| Clock(if marks.contains(peer) { marks.get(peer).sequence.0 } else { 0 });
        let status = hub.status(status::Role::Mesh, self.clock(), clock);
        let (view, members) = (self.member.view().number.0, self.member.view().members.len() as u32);
        self.own.encoding.report(Status { updates: replica.applied().0, view, members, ..status })
    }
}

impl Mesh {
    /// Does this node still wait for the snapshot of this view?
    fn is_asking(&self, view: Sequence) -> bool {
        view == self.member.view().number && self.sync.expects(|_| true)
    }
}

/// Closes the connection to a peer that has sent a body of the wrong length.
fn close_length(hub: &mut Hub, incoming: &Incoming, expected: u32) {
    let Incoming { peer, message, length: got } = *incoming;
    hub.close(peer, ProtocolError::Length { kind: message.kind(), expected, got });
}

#[cfg(test)]
mod tests;
