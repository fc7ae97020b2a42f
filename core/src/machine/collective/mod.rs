//! A member of a collective, for synchronous recipes: every round, the weighted mean of all contributions reaches all
//! members (Iandola et al. 2015, FireCaffe, section 3; the article's tree-reduce; Patarasuk and Yuan 2009 for rings).
//!
//! ```text
//! round r, for each chunk:  own contribution + children's means, in order -> mean -> parent      (Up)
//!                           root: the mean is the result -> takers -> their takers              (Down)
//! all chunks here -> parameters -> Ready
//! ```
//! The tree of a chunk follows from the view alone ([`shape`]), and so does the order of summation: the result does not
//! depend on the order of arrival. With `merge=adasum`, the Adasum takes the place of the mean. Members and rounds are
//! agreed on through [`views`](super::views). When a member is lost, joins or leaves, or a connection between members
//! breaks, all members stop, and the round begins anew among the members of the next view. Contributions are kept until
//! their round is done. Parameters change only when all of a round is here. So a round counts at all members or at no
//! member, and a member without its result gets the parameters of a member that has it.
//!
//! | file | keeps |
//! |---|---|
//! | `application.rs` | the application's side: its part in the round, and how it ends |
//! | `given.rs` | the part of the application's contribution that is there |
//! | `exchange.rs` | the trait of exchanges, and the round under way |
//! | `reduce.rs` | the exchange of trees and rings |
//! | `hops.rs` | their codec: a residual per hop |
//! | `gather.rs` | the exchange of a mesh with rounds |
//! | `chunks.rs` | the chunks of the vector: buffers, and how far each is |
//! | `window.rs` | the chains under way that begin at this node |
//! | `shape.rs` | the neighbours of a node in a chunk's tree |
//! | `operations.rs` | the open operations |
//! | `replica.rs` | the parameters, and how a node without them gets them |

mod application;
mod chunks;
mod exchange;
mod gather;
mod given;
mod hops;
mod operations;
mod reduce;
mod replica;
mod shape;
mod window;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use application::{Application, Stage};
use exchange::{Exchange, Outcome};
use gather::Gather;
use operations::{Epoch, Task};
use reduce::Reduce;
use replica::{Arrival, Carried, Offered, Replica};

use super::commit::Commit;
use super::host::Role;
use super::hub::{Awaited, Hub, Incoming, Port};
use super::views::{Change, Exit, Member, Standing, Timing, View};
use super::{Adoption, Advice, Event, Misuse, Signal};
use crate::buffer::BufferId;
use crate::id::{PeerId, Sequence};
use crate::kernel::KernelResult;
use crate::recipe::Payload;
use crate::rider::Rider;
use crate::status::{self, Rest, Status};
use crate::vectors::Keep;
use crate::wire::Message;

/// A node of a collective.
#[derive(Debug)]
pub(crate) struct Collective {
    member: Member,
    replica: Replica,
    exchange: Box<dyn Exchange>,
    /// The buffer of the application's contribution.
    contribution: BufferId,
    /// See [`Machine::is_contribution_free`].
    is_contribution_free: bool,
    application: Application,
    /// With `payload=gradients`: the application's state has been replaced.
    adoption: Adoption,
    /// The last round of the run is done, here or at the donor of the view: no round follows.
    last: bool,
    /// How the residual ended, once this node has left.
    rest: Option<Rest>,
    /// What the partners of this node have been found for.
    partners_for: PartnersFor,
}

/// The state on which it depends which peers a node exchanges messages with.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct PartnersFor {
    view: Sequence,
    /// The node lacks the state of the view's donor.
    behind: bool,
    /// The node has the last round, and has lost the coordinator.
    ends_alone: bool,
}

/// Why an operation was started.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Job {
    /// A part of a round.
    Exchange(Task),
    /// Receives a vector of the state that this node lacks.
    Fetch { epoch: Epoch },
    /// Sends a vector of the state to a node that lacks it.
    Give,
    /// Tells the coordinator that this node has left.
    Leave,
}

impl Collective {
    pub(crate) fn new(hub: &mut Port<'_, Job>) -> Self {
        let recipe = hub.setup.recipe;
        let member = Member::new(hub);
        let is_worker = !member.is_dedicated();
        // A coordinator that is no worker has parameters for its driver, but takes part in no round.
        let (len, round_len) = (hub.setup.len, if is_worker { hub.setup.len } else { 0 });
        let places = [("parameters", len), ("parameters after the round", round_len)];
        let places = places.map(|(name, len)| hub.vectors.floats(name, len, Keep::No));
        let contribution = hub.vectors.floats("contribution", round_len, Keep::No);
        let commit = Commit::new(&recipe, hub.setup.cluster.workers, round_len, true, &mut hub.vectors);
        let mut vectors = vec![places];
        vectors.extend_from_slice(commit.state());
        let state = 0..hub.setup.carried;
        let mut vector = |_| {
            let places = [("state of the application", round_len), ("state of a donor", len)];
            places.map(|(name, len)| hub.vectors.floats(name, len, Keep::No))
        };
        let carried = Carried::new(state.map(&mut vector).collect());
        let round = hub.setup.resumed.map(|resumed| resumed.at);
        let exchange: Box<dyn Exchange> = if hub.setup.recipe.has_chunks() {
            Box::new(Reduce::new(hub, is_worker, contribution, commit))
        } else {
            Box::new(Gather::new(hub, is_worker, member.host(), contribution, commit))
        };
        let mut collective = Self {
            member,
            replica: Replica::new(vectors, carried, len, round),
            exchange,
            contribution,
            is_contribution_free: recipe.has_chunks() && recipe.payload() != Payload::Gradients,
            application: Application::new(if is_worker { Stage::Joining } else { Stage::Hosting }),
            adoption: Adoption::None,
            last: false,
            rest: None,
            partners_for: PartnersFor::default(),
        };
        collective.report(hub);
        if hub.setup.cluster.nodes() == 1 {
            // No input of a peer will ever come: this node starts at once.
            collective.settle(hub);
        }
        collective
    }

    fn standing(&self) -> Standing {
        Standing {
            round: self.replica.round(),
            has: self.replica.is_there(),
            leaves: self.application.leaves() && !self.last,
            last: self.last && !self.replica.is_behind(),
        }
    }

    fn report(&mut self, hub: &mut Hub) {
        self.member.report(hub, self.standing());
    }

    // Views

    /// Lets the coordinator act, if it is at this node, and carries out its decisions.
    fn coordinate(&mut self, hub: &mut Port<'_, Job>) {
        self.member.advance(hub);
        while let Some(change) = self.member.take_change(hub, self.standing()) {
            self.on_change(hub, change);
        }
    }

    fn on_change(&mut self, hub: &mut Port<'_, Job>, change: Change) {
        match change {
            Change::Stop => self.stop(hub),
            // A node that has left enters no view.
            Change::Enter { .. } if self.has_left() => {}
            Change::Enter { view, returns } => self.enter(hub, view, returns),
            // The coordinator releases again: this node's message got lost.
            Change::Released if self.has_left() => self.member.repeat_goodbye(hub),
            Change::Released => {}
            Change::HostLost => {
                // The other nodes have to know whether this node has the last round.
                self.report(hub);
                if self.member.is_released() || self.application.leaves() {
                    self.become_left(hub);
                }
            }
        }
    }

    fn stop(&mut self, hub: &mut Port<'_, Job>) {
        if planted!(hub, HalfRoundApplied) {
            self.exchange.apply_half(hub, &self.replica);
        }
        self.exchange.round_mut().stop();
        // The view was to begin after the last round. This node has not got that far.
        self.last &= !self.replica.is_behind();
        self.replica.stop();
        self.report(hub);
    }

    fn enter(&mut self, hub: &mut Port<'_, Job>, view: View, returns: bool) {
        let me = hub.setup.me;
        self.member.enter(hub, view);
        hub.begin_exchange();
        let view = self.member.view();
        // In a new run, the donor has no state yet but the initial parameters, which become the run's.
        let has = self.replica.is_there() || view.donor == me;
        let behind = !has || returns || (self.replica.round() < view.round && !planted!(hub, BehindNotFetched));
        let done = if behind { view.round } else { self.replica.round() };
        self.exchange.enter(me, view, done.next());
        self.replica.enter(view.round, behind, returns);
        // A last round that the other members have not seen does not count.
        self.last = view.last || (self.last && !returns);
        if !behind {
            self.on_current(hub);
        }
    }

    /// This node has the parameters of its view.
    fn on_current(&mut self, hub: &mut Port<'_, Job>) {
        hub.has_parameters = true;
        if self.application.join() {
            self.adoption = Adoption::None;
            hub.signal(Signal::Joined { clock: self.replica.round() });
        }
        if self.last {
            self.report(hub);
        }
    }

    /// Names the peers that this node exchanges messages with, when they have changed.
    fn maybe_set_partners(&mut self, hub: &mut Hub) {
        let view = self.member.view();
        let ends_alone = self.last && self.member.has_lost_host(hub);
        let now = PartnersFor { view: view.number, behind: self.replica.is_behind(), ends_alone };
        if now == self.partners_for {
            return;
        }
        self.partners_for = now;
        let mut partners = self.exchange.partners();
        if planted!(hub, ParentNotWanted) && now.view > Sequence(1) && !partners.is_empty() {
            partners.remove(0);
        }
        if now.behind {
            partners.push(view.donor);
        }
        if now.ends_alone {
            // The members find out for themselves whether any of them lacks the last round.
            partners.extend(&view.members);
        }
        partners.retain(|peer| *peer != hub.setup.me);
        hub.set_partners(&partners);
    }

    // Parameters

    fn maybe_fetch(&mut self, hub: &mut Port<'_, Job>) {
        if self.member.is_in_view() {
            self.replica.maybe_fetch(hub, self.member.view(), &self.exchange.round().epochs);
        }
    }

    fn on_fetched(&mut self, hub: &mut Port<'_, Job>, epoch: Epoch) {
        if !self.exchange.round_mut().epochs.end(epoch) {
            return;
        }
        let Some(arrival) = self.replica.on_arrived() else { return };
        if self.replica.carried(0).is_some() {
            self.adoption = Adoption::Untold;
        }
        let advanced = match arrival {
            Arrival::Advanced => {
                // This node missed the end of the round, which has its contribution in it.
                self.exchange.on_advanced();
                true
            }
            Arrival::New => self.drop_stale(hub),
        };
        if advanced && !self.last {
            self.go_on(hub, true);
        }
        self.on_current(hub);
    }

    /// The run has gone on without this node. An update that waits for its round goes into the next one. Parameters
    /// would pull the mean back to where the other members were before, so they are dropped, and counted. So are
    /// gradients: the application that applies the next mean needs the others' state first. Returns whether the
    /// application goes on.
    fn drop_stale(&mut self, hub: &mut Hub) -> bool {
        let Some(own) = self.application.contribution() else { return false };
        let stale = match hub.setup.recipe.payload() {
            Payload::Updates => false,
            Payload::Parameters => own.weight > 0,
            Payload::Gradients => true,
        };
        hub.counters.lost += u64::from(stale && own.weight > 0);
        stale
    }

    /// The application has contributed to the next round, and with `payload=gradients` has given its state. If the run has
    /// left that state behind, the contribution counts for nothing, and the application is told at once.
    fn take_state(&mut self, hub: &mut Hub, weight: u64) {
        if self.adoption == Adoption::Untold {
            hub.counters.lost += u64::from(weight > 0);
            return self.go_on(hub, true);
        }
        self.adoption = Adoption::None;
        self.replica.on_given_state();
    }

    // Rounds

    fn maybe_begin(&mut self, hub: &mut Port<'_, Job>) {
        let Some(own) = self.application.contribution() else { return };
        let may = self.member.is_in_view() && !self.replica.is_behind() && !self.last;
        let is_there = self.exchange.takes_ranges() || self.exchange.round().given.is_whole();
        if may && is_there && self.exchange.round().can_begin() {
            self.exchange.begin(hub, &self.replica, own);
            self.maybe_complete(hub);
        }
    }

    /// Ends the round when all of it is here.
    fn maybe_complete(&mut self, hub: &mut Port<'_, Job>) {
        let Some(outcome) = self.exchange.take_outcome() else { return };
        let Outcome { changed, last, .. } = outcome;
        self.replica.complete_round(outcome);
        if changed {
            hub.counters.applied += 1;
            hub.counters.applications += 1;
            hub.staleness.record(0);
        }
        if last {
            self.last = true;
            self.report(hub);
        }
    }

    fn maybe_ready(&mut self, hub: &mut Port<'_, Job>) {
        if let Some(changed) = self.exchange.round_mut().take_done() {
            self.go_on(hub, changed);
        }
    }

    /// Lets the application go on, if it waits for its round.
    fn go_on(&mut self, hub: &mut Hub, changed: bool) {
        if self.application.go_on() {
            if self.adoption == Adoption::Untold {
                self.adoption = Adoption::Told;
            }
            hub.signal(Signal::Ready { clock: self.replica.round(), changed });
        }
    }

    // Messages

    /// Takes messages that were held: of a view that has come or has ended, or that waited for a buffer.
    fn take_held(&mut self, hub: &mut Port<'_, Job>) {
        while let Some(incoming) = self.member.take_due(hub) {
            self.on_message(hub, incoming);
        }
        loop {
            let (clear, exchange) = (self.exchange.round().epochs.is_clear(), &self.exchange);
            let may = |incoming: &Incoming| {
                (clear || !matches!(incoming.message, Message::Up(_))) && !exchange.must_wait(incoming)
            };
            // Once all members stop, or go on in a later view, no message is worth waiting for.
            let due = |_: &Hub, incoming: &Incoming| match view_of(&incoming.message).map(|of| self.member.timing(of)) {
                Some(Timing::Past) => true,
                Some(Timing::Current) => may(incoming),
                Some(Timing::Early) | None => false,
            };
            let Some(incoming) = hub.take_held(due) else { break };
            self.on_message(hub, incoming);
        }
        // Contributions and results that wait for messages that may not come in this view stand in front of news for
        // the coordinator, and of its commands. The contributions are given again in the next view.
        if self.member.view_is_over() {
            let view = self.member.view().number;
            let is_part = |incoming: &Incoming| matches!(incoming.message, Message::Up(_) | Message::Down(_));
            let due = |_: &Hub, incoming: &Incoming| is_part(incoming) && view_of(&incoming.message) == Some(view);
            while let Some(incoming) = hub.take_held(due) {
                hub.discard(&incoming);
            }
        }
    }

    // Leaving

    /// Leaves after the last round, or after the application, when the coordinator allows it.
    fn maybe_leave(&mut self, hub: &mut Port<'_, Job>) {
        match self.application.stage() {
            Stage::Hosting if self.member.is_over() => {
                self.application.become_finished();
                return hub.signal(Signal::Finished);
            }
            Stage::Hosting | Stage::Finished | Stage::Left => return,
            _ => {}
        }
        if self.replica.is_giving() || self.replica.is_behind() {
            return;
        }
        let last = self.standing().last;
        match self.member.exit(hub) {
            None if self.member.ends_without_host(hub, last) => self.become_left(hub),
            Some(Exit::Cut { peer }) => {
                self.end(hub);
                hub.signal(Signal::Cut { peer });
            }
            Some(Exit::Alone) => self.become_left(hub),
            Some(Exit::Tell { host, goodbye }) => {
                self.end(hub);
                hub.transmit(host, goodbye, None, Job::Leave);
            }
            None => {}
        }
    }

    fn become_left(&mut self, hub: &mut Hub) {
        self.end(hub);
        hub.signal(Signal::Left);
    }

    /// The application has no part in the run any more. Its residual is not sent: in a round, all workers contribute at
    /// once.
    fn end(&mut self, hub: &mut Hub) {
        self.application.become_left();
        if self.rest.is_none() {
            self.rest = self.exchange.take_rest(hub);
            self.rest.into_iter().for_each(|rest| hub.event(Event::Rest(rest)));
        }
    }

    fn has_left(&self) -> bool {
        self.application.stage() == Stage::Left
    }
}

impl Role for Collective {
    type Job = Job;

    fn on_agreed(&mut self, hub: &mut Port<'_, Job>, peer: PeerId, fresh: bool) {
        if fresh {
            let incarnation = hub.incarnation(peer);
            hub.event(Event::PeerJoined { peer, incarnation });
            if self.member.hosts() && self.member.is_in_view() {
                self.exchange.round_mut().add_stranger(peer);
            }
        }
        // Messages of this view may have been lost with the connection: the round has to begin anew.
        let breaks = !fresh && hub.has_broken(peer);
        let may_send = self.member.on_agreed(hub, peer, breaks, fresh, self.standing());
        if may_send && self.member.is_in_view() {
            self.exchange.send_due(hub, peer);
            self.maybe_complete(hub);
        }
    }

    fn on_lost(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if self.has_left() {
            return;
        }
        hub.event(Event::PeerLost { peer });
        if let Some(change) = self.member.on_lost(hub, peer) {
            self.on_change(hub, change);
        }
    }

    fn needs(&self, _hub: &Hub, peer: PeerId) -> bool {
        // At the end, members can do without the coordinator.
        let at_end = self.has_left() || self.application.leaves() || self.last;
        peer == self.member.host() && !at_end
    }

    fn on_message(&mut self, hub: &mut Port<'_, Job>, incoming: Incoming) {
        let timing = view_of(&incoming.message).map(|view| (view, self.member.timing(view)));
        let is_current = timing.is_some_and(|(_, timing)| timing == Timing::Current);
        match (incoming.message, timing) {
            (_, Some((view, Timing::Early))) => self.member.hold(hub, view, incoming),
            (Message::Up(_) | Message::Down(_), Some((_, Timing::Past))) => hub.discard(&incoming),
            (Message::Up(part), _) => self.exchange.on_up(hub, &self.replica, incoming, part),
            (Message::Down(part), _) => self.exchange.on_down(hub, &self.replica, incoming, part),
            (Message::Parameters { round, vector, riders, .. }, _) => {
                let wanted = is_current && incoming.peer == self.member.view().donor;
                let offered = Offered { round, vector, riders };
                self.replica.on_vector(hub, &incoming, offered, wanted, &mut self.exchange.round_mut().epochs);
            }
            (Message::FetchParameters { .. }, _) if is_current => {
                self.replica.give(hub, incoming.peer, self.member.view());
            }
            (Message::FetchParameters { .. }, _) => {}
            _ => {
                if let Some(change) = self.member.on_message(hub, &incoming, self.standing()) {
                    self.on_change(hub, change);
                }
            }
        }
        self.maybe_complete(hub);
    }

    fn on_done(&mut self, hub: &mut Port<'_, Job>, job: Job, result: KernelResult) {
        match job {
            Job::Exchange(task) => {
                self.exchange.on_done(hub, &self.replica, task, result);
                self.maybe_complete(hub);
            }
            Job::Fetch { epoch } => self.on_fetched(hub, epoch),
            Job::Give => self.replica.on_given(),
            Job::Leave => hub.signal(Signal::Left),
        }
    }

    fn on_failed(&mut self, hub: &mut Port<'_, Job>, job: Job) {
        match job {
            Job::Exchange(task) => self.exchange.on_failed(task),
            Job::Fetch { epoch } => {
                self.exchange.round_mut().epochs.end(epoch);
            }
            Job::Give => self.replica.on_given(),
            // Where no peer is waited for, the loss of the node comes before the end of the operations with it. The
            // node needs nothing from the coordinator any more.
            Job::Leave if hub.presence(self.member.host()) == status::Presence::Lost => self.become_left(hub),
            // It tries again when the coordinator's node is connected.
            Job::Leave => self.application.become_leaving(),
        }
    }

    fn on_step(&mut self, hub: &mut Port<'_, Job>, weight: u64) -> Result<(), Misuse> {
        self.application.on_step(weight)?;
        self.exchange.round_mut().given.begin(true);
        self.take_state(hub, weight);
        Ok(())
    }

    fn on_begin(&mut self, hub: &mut Port<'_, Job>, weight: u64) -> Result<(), Misuse> {
        self.application.on_step(weight)?;
        self.exchange.round_mut().given.begin(weight == 0);
        self.take_state(hub, weight);
        Ok(())
    }

    fn on_given(&mut self, hub: &mut Port<'_, Job>, range: &Range<usize>) -> Result<(), Misuse> {
        // Without a contribution, the run has gone on: the application will see that when it has given all ranges.
        if self.application.contribution().is_some_and(|own| own.weight > 0) {
            self.exchange.round_mut().given.add(range)?;
            self.exchange.on_given(hub, &self.replica, range);
            self.maybe_complete(hub);
        }
        Ok(())
    }

    fn on_rate(&mut self, scale: f32) {
        self.exchange.on_rate(scale);
    }

    fn on_rider(&mut self, rider: Option<Rider>) {
        self.application.set_rider(rider);
    }

    fn advice(&self) -> Advice {
        Advice { riders: self.replica.riders(), ..Advice::default() }
    }

    fn on_leave(&mut self, hub: &mut Port<'_, Job>, stay: bool, _keep: bool) -> Result<(), Misuse> {
        self.application.on_leave(stay)?;
        if stay {
            self.exchange.round_mut().given.begin(true);
            self.take_state(hub, 0);
        } else {
            self.exchange.round_mut().withdraw();
            self.report(hub);
        }
        Ok(())
    }

    fn settle(&mut self, hub: &mut Port<'_, Job>) {
        loop {
            self.coordinate(hub);
            self.take_held(hub);
            self.maybe_fetch(hub);
            self.replica.give_due(hub, self.member.view());
            // Before the next round begins: the application is told of every round.
            self.maybe_ready(hub);
            self.maybe_begin(hub);
            // A member that is alone has its round done at once: no other input may come.
            self.maybe_ready(hub);
            // A round that ends at once can be news for the coordinator.
            if !self.member.has_commands() {
                break;
            }
        }
        self.maybe_set_partners(hub);
        self.maybe_leave(hub);
    }

    fn awaited(&self, _hub: &Hub) -> Option<Awaited> {
        let on = match self.application.stage() {
            Stage::Hosting | Stage::Finished => self.member.awaited(),
            Stage::Left => None,
            Stage::Computing if self.member.is_in_view() => None,
            // The application still computes a part of its contribution.
            Stage::Contributed { .. } if self.member.is_in_view() && !self.exchange.round().given.is_whole() => None,
            // The next view decides which members go on.
            _ if self.member.awaits_view() => self.member.awaited(),
            _ if self.exchange.round().is_done() => self.exchange.awaited(),
            _ if self.replica.is_behind() => Some(self.member.view().donor),
            _ if self.last || self.application.leaves() => self.member.awaited(),
            _ => self.exchange.awaited(),
        };
        let round = self.replica.round();
        on.map(|on| Awaited { on, at: round, clock: round.next() })
    }

    fn is_awaited_by(&self, hub: &Hub, peer: PeerId) -> bool {
        hub.setup.cluster.is_worker(peer)
    }

    fn state(&self) -> Vec<BufferId> {
        // The parameters are the first vector; drivers save them apart.
        let vectors = self.replica.vectors().skip(1).map(|(now, _)| now);
        vectors.chain(self.exchange.residuals()).collect()
    }

    fn contribution(&self) -> BufferId {
        self.contribution
    }

    /// A round of a tree or ring ends after all parts have been sent. A gradient that is given range by range is in both
    /// buffers.
    fn is_contribution_free(&self) -> bool {
        self.is_contribution_free
    }

    fn view(&self) -> BufferId {
        self.replica.view()
    }

    fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.replica.carried(index)
    }

    fn adoption(&self) -> Adoption {
        self.adoption
    }

    fn status(&self, hub: &Hub) -> Status {
        let (round, contributors) = (self.replica.round(), self.exchange.contributors());
        let clock = |peer| if contributors.contains(&peer) { round.next() } else { round };
        let view = self.member.view();
        let status = self.exchange.report(hub.status(status::Role::Collective, round, clock));
        Status { view: view.number.0, members: view.members.len() as u32, rest: self.rest, ..status }
    }
}

/// The view of a message of the exchange.
fn view_of(message: &Message) -> Option<Sequence> {
    match *message {
        Message::Up(part) | Message::Down(part) => Some(part.view),
        Message::FetchParameters { view } | Message::Parameters { view, .. } => Some(view),
        _ => None,
    }
}
