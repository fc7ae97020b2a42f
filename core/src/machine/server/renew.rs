//! A server that takes the place of a former self: workers offer it the parameters as they have them.
//!
//! Of each shard, the offer of the highest version is taken: the work that is lost is what no worker had seen. What a
//! worker had under way counts as lost with it, and its stream goes on behind that, so that nothing is applied twice.

use super::*;

impl Server {
    /// A worker with parameters meets this server for the first time: it is going to offer them.
    pub(super) fn expect_offers(&mut self, worker: PeerId) {
        let now = self.hub.now();
        self.renewing.get_or_insert(now);
        for shard in &mut self.shards {
            shard.offers[worker.index()] = true;
        }
    }

    /// Nothing is expected of it any more.
    pub(super) fn forget_offers(&mut self, worker: PeerId) {
        for shard in &mut self.shards {
            shard.offers[worker.index()] = false;
        }
    }

    pub(super) fn awaits_offers(&self, worker: PeerId) -> bool {
        self.shards.iter().any(|shard| shard.offers[worker.index()])
    }

    pub(super) fn check_offer(&self, header: &Header) -> Result<(), ProtocolError> {
        let (kind, got) = (header.kind, header.shard);
        let shard = self.shards.iter().find(|shard| shard.id == got).ok_or(ProtocolError::NoSuchShard { got })?;
        let expected = if header.weight > 0 { shard.len as u32 * 4 } else { 0 };
        if header.length != expected {
            return Err(ProtocolError::Length { kind, expected, got: header.length });
        }
        Ok(())
    }

    /// Takes an offer that is better than what is here, as far as there is room; the rest is dropped.
    pub(super) fn on_offer(&mut self, worker: PeerId, header: Header) {
        let index = self.shard_of(header.shard);
        let shard = &mut self.shards[index];
        let better = self.state == State::Starting && header.base > shard.version && header.weight > 0;
        if !better || !shard.offers[worker.index()] {
            self.hub.discard(worker, header);
            return self.on_told(index, worker, header);
        }
        if shard.offered {
            return self.hub.hold(worker, header);
        }
        shard.offered = true;
        let into = self.gathered(index);
        self.hub.receive(worker, into, Job::Offer { shard: index, worker, header });
    }

    pub(super) fn on_offered(&mut self, index: usize, worker: PeerId, header: Header) {
        self.shards[index].offered = false;
        if self.state == State::Starting && header.base > self.shards[index].version {
            let (from, into) = (self.gathered(index), self.version(index, 0));
            self.hub.compute(Kernel::Copy { from, into }, Job::Aside);
            self.shards[index].version = header.base;
            self.shards[index].clocks.begin_at(header.clock);
        }
        self.on_told(index, worker, header);
    }

    /// Takes the offers that have waited for their turn.
    pub(super) fn take_offers(&mut self) {
        loop {
            let due = |(_, header): &(PeerId, Header)| {
                header.kind == Kind::State && !self.shards[self.shard_of(header.shard)].offered
            };
            let Some((peer, header)) = self.hub.held().find(due) else { return };
            self.hub.release(peer, &header);
            self.on_offer(peer, header);
        }
    }

    /// A worker has said where its stream to a shard goes on.
    fn on_told(&mut self, index: usize, worker: PeerId, header: Header) {
        let shard = &mut self.shards[index];
        if !core::mem::take(&mut shard.offers[worker.index()]) {
            // It has said so before, and has not got what it was answered with.
            if self.state == State::Running && shard.clocks.is_member(worker) {
                shard.replies[worker.index()] = Some(Owed::Welcome);
            }
            return;
        }
        shard.marks[worker.index()] = header.sequence;
        if self.state == State::Running && !self.awaits_offers(worker) {
            self.welcome(worker);
        }
    }

    /// Begins when all are here and have said what they have; in place of a former self, with those who are.
    pub(super) fn maybe_start(&mut self) {
        if self.state != State::Starting {
            return;
        }
        let patience = self.hub.setup.patience.dead_after();
        let deadline = self.renewing.map(|since| since.after(patience));
        let late = deadline.is_some_and(|deadline| self.hub.now() >= deadline);
        self.hub.set_alarm(deadline.filter(|_| !late));
        let here = |worker: u32| self.workers[worker as usize] != Life::Awaited && !self.awaits_offers(PeerId(worker));
        let workers = 0..self.workers.len() as u32;
        let enough = workers.clone().all(here) || (late && workers.clone().any(here));
        if !enough {
            return;
        }
        let (here, missing): (Vec<u32>, Vec<u32>) = workers.partition(|worker| here(*worker));
        self.state = State::Running;
        self.hub.has = true;
        self.hub.set_alarm(None);
        for worker in missing {
            // One that says hello again later takes part from then on.
            self.workers[worker as usize] = match self.workers[worker as usize] {
                Life::Awaited => Life::Lost,
                life => life,
            };
        }
        for worker in here {
            if self.workers[worker as usize] == Life::Present {
                self.welcome(PeerId(worker));
            }
        }
    }
}
