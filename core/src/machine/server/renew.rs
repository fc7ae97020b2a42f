//! A restarted server takes its parameters back: the workers offer them.
//!
//! For each shard, the server takes the offer of the highest version. So the run loses only the contributions that no
//! worker had seen the effect of. Contributions that were under way to the earlier process count as lost, because it
//! may have applied them and other workers may have seen that: each worker's stream continues behind them, and nothing
//! is applied twice.
//!
//! Workers do not hold the state of an outer optimizer, so it begins with zeros, and an event says so: a velocity of
//! zeros is filled again within a few commits, while one of a wrong moment would carry the parameters away. To keep the
//! state, resume the server from its checkpoint.

use alloc::vec::Vec;

use super::{Job, Life, Owed, Port, Server, Shard, State};
use crate::id::{Clock, PeerId};
use crate::kernel::Kernel;
use crate::machine::hub::{Hub, Incoming};
use crate::machine::{Event, ProtocolError};
use crate::wire::{Kind, Message, Offer};

impl Server {
    /// A worker with parameters meets this process for the first time, and is going to offer them.
    pub(super) fn expect_offers(&mut self, hub: &Port<'_>, worker: PeerId) {
        self.renewing.get_or_insert_with(|| hub.now());
        for shard in &mut self.shards {
            shard.seat(worker).awaits_offer = true;
        }
        self.here_to = self.here_to.min(worker.0);
    }

    pub(super) fn forget_offers(&mut self, worker: PeerId) {
        for shard in &mut self.shards {
            shard.seat(worker).awaits_offer = false;
        }
    }

    /// Is the worker here, and going to offer its parameters? A worker that has been lost does so when it is back.
    pub(super) fn awaits_offers(&self, worker: PeerId) -> bool {
        let is_here = self.workers.get(worker) == Life::Present;
        is_here && self.shards.iter().any(|shard| shard.seat_of(worker).awaits_offer)
    }

    fn check_offer(&self, incoming: &Incoming, offer: &Offer) -> Result<(), ProtocolError> {
        let shard = self.find_shard(offer.shard)?;
        let expected = if offer.whole { shard.bytes() } else { 0 };
        if incoming.length != expected {
            return Err(ProtocolError::Length { kind: Kind::State, expected, got: incoming.length });
        }
        Ok(())
    }

    pub(super) fn on_offer(&mut self, hub: &mut Port<'_>, incoming: Incoming, offer: Offer) {
        match self.check_offer(&incoming, &offer) {
            Ok(()) => self.take_offer(hub, incoming, offer),
            Err(reason) => hub.close(incoming.peer, reason),
        }
    }

    /// Receives an offer that is better than the parameters that are here; drops any other.
    fn take_offer(&mut self, hub: &mut Port<'_>, incoming: Incoming, offer: Offer) {
        let (worker, index) = (incoming.peer, self.shard_of(hub, offer.shard));
        let shard = &mut self.shards[index];
        let newer = offer.version > shard.version || planted!(hub, LastOffer);
        let better = self.state == State::Starting && newer && offer.whole;
        if !better || !shard.seat(worker).awaits_offer {
            hub.discard(&incoming);
            return self.on_offer_seen(hub, index, worker, &offer);
        }
        if shard.receiving_offer {
            // There is one place to receive an offer.
            self.holds_offers = true;
            return hub.hold(incoming);
        }
        shard.on_offer();
        let into = shard.offered();
        hub.receive(&incoming, into, Job::Offer { shard: index, worker, offer });
    }

    pub(super) fn on_offered(&mut self, hub: &mut Port<'_>, index: usize, worker: PeerId, offer: Offer) {
        let shard = &mut self.shards[index];
        shard.receiving_offer = false;
        if self.state == State::Starting && (offer.version > shard.version || planted!(hub, LastOffer)) {
            let (from, into) = (shard.offered(), shard.version(0));
            hub.compute(Kernel::Copy { from, into }, Job::Prepare);
            shard.version = offer.version;
            self.recheck = true;
            shard.clocks.begin_at(offer.row);
        }
        self.on_offer_seen(hub, index, worker, &offer);
    }

    /// Takes the offers that had to wait for another.
    pub(super) fn take_offers(&mut self, hub: &mut Port<'_>) {
        let due = |server: &Self, hub: &Hub, incoming: &Incoming| match incoming.message {
            Message::Offer(offer) => !server.shards[server.shard_of(hub, offer.shard)].receiving_offer,
            _ => false,
        };
        // Contributions of all workers can be held as well.
        while self.holds_offers {
            let Some(incoming) = hub.take_held(|hub, incoming| due(self, hub, incoming)) else { break };
            if let Message::Offer(offer) = incoming.message {
                self.take_offer(hub, incoming, offer);
            }
        }
        self.holds_offers = self.holds_offers && hub.held().any(|held| matches!(held.message, Message::Offer(_)));
    }

    /// A worker has said where its stream to a shard continues.
    fn on_offer_seen(&mut self, hub: &Port<'_>, index: usize, worker: PeerId, offer: &Offer) {
        let shard = &mut self.shards[index];
        if !core::mem::take(&mut shard.seat(worker).awaits_offer) {
            // The worker offers a second time, since the reply to its first offer got lost.
            if self.state == State::Running && shard.clocks.is_member(worker) {
                shard.set_owed(worker, Some(Owed::Welcome));
            }
            return;
        }
        shard.seat(worker).mark = offer.sequence;
        self.recheck |= hub.held_of(worker).next().is_some();
        let is_here = self.workers.get(worker) == Life::Present;
        if self.state == State::Running && is_here && !self.awaits_offers(worker) {
            self.welcome(hub, worker);
        }
    }

    /// At the start: is nothing to be expected of this worker before the run begins?
    fn is_here(&self, worker: u32) -> bool {
        self.workers.get(PeerId(worker)) != Life::Awaited && !self.awaits_offers(PeerId(worker))
    }

    /// Begins when all workers are here and have offered their parameters. A restarted server waits for `dead_after`,
    /// and begins with the workers that are here then.
    pub(super) fn maybe_start(&mut self, hub: &mut Port<'_>) {
        if self.state != State::Starting {
            return;
        }
        let patience = hub.setup.patience.dead_after();
        let deadline = self.renewing.map(|since| since.after(patience));
        let late = deadline.is_some_and(|deadline| hub.now() >= deadline);
        self.alarm = deadline.filter(|_| !late);
        let workers = 0..self.workers.len() as u32;
        while workers.contains(&self.here_to) && self.is_here(self.here_to) {
            self.here_to += 1;
        }
        let here = |worker: u32| self.is_here(worker);
        let enough = self.here_to == workers.end || (late && workers.clone().any(here));
        if !enough {
            return;
        }
        let (here, missing): (Vec<u32>, Vec<u32>) = workers.partition(|worker| here(*worker));
        let of_shard = |shard: &Shard| shard.compensation.is_some_and(|(_, state)| state.is_some());
        let has_state = !self.commit.state().is_empty() || self.shards.iter().any(of_shard);
        if self.renewing.is_some() && hub.setup.resumed.is_none() && has_state {
            hub.event(Event::OuterLost);
        }
        hub.has_parameters = true;
        self.alarm = None;
        // The head start is that of a run, and this run has begun before.
        self.shards.iter_mut().filter(|shard| shard.version > Clock(0)).for_each(|shard| shard.head_start = 0);
        for worker in missing {
            // A missing worker takes part from its next hello on.
            if self.workers.get(PeerId(worker)) == Life::Awaited {
                self.workers.set(PeerId(worker), Life::Lost);
            }
        }
        for worker in here {
            if self.workers.get(PeerId(worker)) == Life::Present {
                self.welcome(hub, PeerId(worker));
            }
        }
        self.state = State::Running;
    }
}
