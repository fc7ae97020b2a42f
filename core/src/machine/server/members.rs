//! Workers that come, go and come back, and the end of a run.

use super::*;

impl Server {
    pub(super) fn on_agreed(&mut self, peer: PeerId, fresh: bool) {
        if !self.hub.setup.cluster.is_worker(peer) {
            return;
        }
        let state = self.workers[peer.index()];
        if planted!(self.hub, DedupClearedOnReconnect) {
            self.shards.iter_mut().for_each(|shard| shard.marks[peer.index()] = Sequence(0));
        }
        match (state, fresh) {
            // The run is over for whoever comes now.
            (_, true) | (Life::Lost | Life::Refused, _) if matches!(self.state, State::Ending | State::Finished) => {
                self.workers[peer.index()] = Life::Refused;
                self.hub.refuse(peer);
            }
            // A broken connection: what was owed is still owed. A welcome that got lost is sent again.
            (Life::Present, false) if self.state == State::Starting || self.awaits_offers(peer) => {}
            (Life::Present, false) => {
                for shard in self.shards.iter_mut().filter(|shard| shard.marks[peer.index()] == Sequence(0)) {
                    shard.replies[peer.index()] = Some(Owed::Welcome);
                }
            }
            (Life::Staying, false) => {
                for shard in self.shards.iter_mut().filter(|shard| shard.ending) {
                    shard.replies[peer.index()] = Some(Owed::Last);
                }
            }
            (Life::Left, false) => {}
            _ => {
                if fresh {
                    self.forget(peer);
                }
                let incarnation = self.hub.incarnation(peer);
                self.hub.event(Event::PeerJoined { peer, incarnation });
                self.workers[peer.index()] = Life::Present;
                self.forget_offers(peer);
                if fresh && self.hub.had_parameters(peer) {
                    self.expect_offers(peer);
                } else if self.state == State::Running {
                    self.welcome(peer);
                }
            }
        }
    }

    /// Enters a worker at the clock of the slowest, and owes it the parameters. In synchronous rounds it enters all
    /// shards in the same one: its contribution to a later round would stand in front of those to an earlier.
    pub(super) fn welcome(&mut self, worker: PeerId) {
        let rows = self.shards.iter().map(|shard| shard.clocks.row());
        let round = rows.max().filter(|_| self.hub.setup.recipe.is_synchronous());
        for shard in &mut self.shards {
            shard.clocks.join(worker, round.unwrap_or_else(|| shard.clocks.row()));
            shard.replies[worker.index()] = Some(Owed::Welcome);
        }
    }

    /// A worker restarted: what its former self sent is in, and its stream begins anew.
    pub(super) fn forget(&mut self, worker: PeerId) {
        self.retire(worker, Life::Lost);
        for shard in &mut self.shards {
            shard.marks[worker.index()] = Sequence(0);
            shard.echoes[worker.index()].answered = None;
        }
    }

    pub(super) fn retire(&mut self, worker: PeerId, state: Life) {
        self.workers[worker.index()] = state;
        for shard in self.shards.iter_mut().filter(|shard| shard.clocks.is_member(worker)) {
            shard.clocks.leave(worker);
            shard.replies[worker.index()] = None;
        }
    }

    pub(super) fn on_lost(&mut self, peer: PeerId) {
        if !self.hub.setup.cluster.is_worker(peer) {
            return;
        }
        self.forget_offers(peer);
        match self.workers[peer.index()] {
            Life::Present => {
                self.retire(peer, Life::Lost);
                self.hub.event(Event::PeerLost { peer });
            }
            Life::Staying => self.retire(peer, Life::Left),
            Life::Awaited | Life::Lost | Life::Left | Life::Refused => {}
        }
    }

    /// A worker that stays says so again when it has the final parameters.
    pub(super) fn on_leave(&mut self, peer: PeerId, stays: bool) {
        self.forget_offers(peer);
        if stays {
            self.retire(peer, Life::Staying);
        } else {
            self.hub.mark_left(peer);
            self.retire(peer, Life::Left);
        }
    }

    /// Nothing more can come: what has been gathered is applied, and those who stayed get the result.
    pub(super) fn maybe_end(&mut self) {
        let present = |life: &Life| matches!(life, Life::Awaited | Life::Present);
        let idle = self.inboxes.iter().all(|inbox| inbox.push.is_none()) && self.shards.iter().all(|s| !s.busy);
        if self.state == State::Running && !self.workers.iter().any(present) && idle {
            self.state = State::Ending;
            for index in 0..self.shards.len() {
                self.apply_gathered(index);
            }
        }
        if self.state != State::Ending || self.shards.iter().any(|shard| shard.busy) {
            return;
        }
        for shard in self.shards.iter_mut().filter(|shard| !shard.ending) {
            shard.ending = true;
            for (reply, life) in shard.replies.iter_mut().zip(&self.workers) {
                *reply = (*life == Life::Staying).then_some(Owed::Last);
            }
        }
        if !self.workers.contains(&Life::Staying) {
            self.finish();
        }
    }

    /// Puts the parameters of all shards together in the view.
    pub(super) fn finish(&mut self) {
        let moved = (0..self.shards.len()).find(|index| self.shards[*index].current != 0);
        match moved {
            None => {
                self.state = State::Finished;
                self.hub.signal(Signal::Finished);
            }
            Some(index) => {
                let (from, into) = (self.version(index, self.shards[index].current), self.version(index, 0));
                self.shards[index].current = 0;
                self.shards[index].busy = true;
                self.hub.compute(Kernel::Copy { from, into }, Job::View { shard: index });
            }
        }
    }
}
