//! Workers that enter, leave and are lost, and the end of the run.

use super::reply::breaks_tape;
use super::{Job, Life, Owed, Port, Server, Shard, State};
use crate::id::{PeerId, Sequence};
use crate::kernel::Kernel;
use crate::machine::hub::{Awaited, Hub};
use crate::machine::{Event, Signal};

impl Server {
    pub(super) fn on_worker(&mut self, hub: &mut Port<'_>, worker: PeerId, fresh: bool) {
        if core::mem::take(&mut self.alone) {
            self.found_since = Some(hub.now());
        }
        // It is connected: the parameters that it is owed can be sent.
        self.shards.iter_mut().for_each(|shard| shard.stir(worker));
        if planted!(hub, DedupClearedOnReconnect) {
            self.shards.iter_mut().for_each(|shard| shard.seat(worker).mark = Sequence(0));
        }
        match (self.workers.get(worker), fresh) {
            (_, true) | (Life::Lost | Life::Refused, _) if matches!(self.state, State::Ending | State::Finished) => {
                self.workers.set(worker, Life::Refused);
                hub.refuse(worker);
            }
            // A broken connection does not change the answers that a worker is owed.
            (Life::Present, false) if self.state == State::Starting || self.awaits_offers(worker) => {}
            // A welcome may have got lost: a worker cannot ask for it.
            (Life::Present, false) => {
                for seat in self.shards.iter_mut().map(|shard| shard.seat(worker)) {
                    seat.in_doubt = seat.welcomed.is_some();
                }
                // Nor can it have been lost where none was sent.
                let welcomed =
                    |shard: &&mut Shard| shard.clocks.is_member(worker) && shard.seat_of(worker).mark == Sequence(0);
                for shard in self.shards.iter_mut().filter(welcomed) {
                    if shard.set_owed(worker, Some(Owed::Welcome)).is_none() {
                        breaks_tape(hub);
                    }
                }
            }
            (Life::Staying | Life::Stayed, false) => {
                self.workers.set(worker, Life::Staying);
                for shard in self.shards.iter_mut().filter(|shard| shard.ending) {
                    shard.set_owed(worker, Some(Owed::Final));
                }
            }
            (Life::Left, false) => {}
            (Life::Awaited | Life::Lost | Life::Refused, _) | (_, true) => self.enter(hub, worker, fresh),
        }
    }

    fn enter(&mut self, hub: &mut Port<'_>, worker: PeerId, fresh: bool) {
        if fresh {
            self.forget(worker);
            self.forget_offers(worker);
        }
        let incarnation = hub.incarnation(worker);
        hub.event(Event::PeerJoined { peer: worker, incarnation });
        self.workers.set(worker, Life::Present);
        self.here_to = self.here_to.min(worker.0);
        if fresh && hub.had_parameters(worker) {
            self.expect_offers(hub, worker);
        } else if self.state == State::Running && !self.awaits_offers(worker) {
            // Only the offer of a worker that has one tells where its stream continues.
            self.welcome(hub, worker);
        }
    }

    /// Enters a worker at the clock of the slowest, and owes it the parameters. With `pace=first` the worker enters
    /// each shard in the round that it can take part in. In synchronous recipes the worker enters all shards in the
    /// same round: otherwise its contribution to a later round of one shard could hold back the contributions to an
    /// earlier round of another.
    pub(super) fn welcome(&mut self, hub: &Port<'_>, worker: PeerId) {
        let rows = self.shards.iter().map(|shard| shard.clocks.row());
        let round = rows.max().filter(|_| hub.setup.recipe.is_synchronous());
        for index in 0..self.shards.len() {
            if self.shards[index].keeps_waiting(&hub.setup.recipe.correction, worker) {
                continue;
            }
            if self.first.is_some() {
                self.enter_round(index, worker);
            } else {
                let row = self.shards[index].clocks.row();
                self.shards[index].clocks.join(worker, round.unwrap_or(row));
            }
            self.shards[index].set_owed(worker, Some(Owed::Welcome));
        }
    }

    /// Enters the workers that have waited for the starters of a shard.
    ///
    /// It happens when the last contribution of the head start is accounted for, before any other: so the clock at which
    /// they enter follows from the order of the contributions, also when a tape is followed.
    pub(super) fn end_head_start(&mut self, hub: &Hub, index: usize) {
        self.shards[index].head_start = 0;
        let correction = &hub.setup.recipe.correction;
        let waits = |(worker, life): &(PeerId, Life)| *life == Life::Present && correction.comes_later(worker.0);
        for (worker, _) in self.workers.iter().filter(waits) {
            if !self.awaits_offers(worker) {
                let shard = &mut self.shards[index];
                let row = shard.clocks.row();
                shard.clocks.join(worker, row);
                shard.set_owed(worker, Some(Owed::Welcome));
            }
        }
    }

    /// Without starters, the other workers begin.
    pub(super) fn maybe_end_head_start(&mut self, hub: &Hub) {
        let starters = hub.setup.recipe.correction.starters as usize;
        let starts = |(_, life): (PeerId, Life)| matches!(life, Life::Awaited | Life::Present);
        let waits = self.shards.iter().any(|shard| shard.head_start > 0);
        if !waits || self.state != State::Running || self.workers.iter().take(starters).any(starts) {
            return;
        }
        for index in 0..self.shards.len() {
            if self.shards[index].head_start > 0 {
                self.end_head_start(hub, index);
            }
        }
    }

    /// The slowest starter, if workers wait for its contributions.
    pub(super) fn awaited_starter(&self, hub: &Hub) -> Option<Awaited> {
        let correction = &hub.setup.recipe.correction;
        let waits = |(worker, life): (PeerId, Life)| life == Life::Present && correction.comes_later(worker.0);
        let shard = self.shards.iter().find(|shard| shard.head_start > 0)?;
        let (on, at) = shard.clocks.slowest().filter(|_| self.workers.iter().any(waits))?;
        Some(Awaited { on, at, clock: at.next() })
    }

    /// A worker has restarted: the contributions of its earlier process are in, and its stream begins anew.
    fn forget(&mut self, worker: PeerId) {
        self.retire(worker, Life::Lost);
        for shard in &mut self.shards {
            let seat = shard.seat(worker);
            seat.mark = Sequence(0);
            seat.has_last = false;
            (seat.welcomed, seat.in_doubt) = (None, false);
            seat.echo.answered = None;
            seat.work.forget_begin();
            seat.dropped = 0;
        }
    }

    /// A worker that this server has lost, and that can come back.
    pub(super) fn first_lost(&self) -> Option<Awaited> {
        let on = self.workers.first(&[Life::Lost, Life::Stayed])?;
        let at = self.shards.iter().map(|shard| shard.clocks.clock(on)).min().unwrap_or_default();
        Some(Awaited { on, at, clock: at.next() })
    }

    fn retire(&mut self, worker: PeerId, life: Life) {
        self.workers.set(worker, life);
        self.step_times[worker.index()] = None;
        for shard in self.shards.iter_mut().filter(|shard| shard.clocks.is_member(worker)) {
            shard.clocks.leave(worker);
            shard.set_owed(worker, None);
        }
    }

    pub(super) fn on_worker_lost(&mut self, hub: &mut Port<'_>, worker: PeerId) {
        match self.workers.get(worker) {
            Life::Present => {
                self.retire(worker, Life::Lost);
                hub.event(Event::PeerLost { peer: worker });
                breaks_tape(hub);
            }
            Life::Staying => self.retire(worker, Life::Stayed),
            Life::Awaited | Life::Lost | Life::Stayed | Life::Left | Life::Refused => {}
        }
        self.alone = !self.workers.any(&[Life::Present, Life::Staying]);
    }

    /// A worker makes no more contributions. One that stays says so a second time, without staying, when it has the
    /// final parameters.
    pub(super) fn on_worker_leaves(&mut self, hub: &mut Port<'_>, worker: PeerId, stays: bool) {
        self.forget_offers(worker);
        if stays {
            self.retire(worker, Life::Staying);
        } else {
            hub.mark_left(worker);
            self.retire(worker, Life::Left);
        }
    }

    /// When no contribution can come any more, the gathered ones are committed, and the workers that stayed get the
    /// result. Only a worker that says so has left: a server that has lost all workers may be the one that is cut off,
    /// and waits.
    pub(super) fn maybe_end(&mut self, hub: &mut Port<'_>) {
        let stays = |(worker, life): (PeerId, Life)| life == Life::Staying && hub.is_agreed(worker);
        let stays = || self.workers.any(&[Life::Staying]) && self.workers.iter().any(stays);
        // Without reconnection, a lost worker cannot come back.
        let may_come_back = !hub.setup.patience.dead_after().is_zero();
        let waits = may_come_back && self.state != State::Ending && !self.workers.any(&[Life::Left]) && !stays();
        let since = self.found_since.filter(|_| self.workers.any(&[Life::Lost, Life::Stayed]));
        let until = since.map(|since| since.after(hub.setup.patience.dead_after()));
        let until = until.filter(|until| hub.now() < *until);
        if self.found_since.is_some() {
            self.alarm = until;
        }
        if waits || until.is_some() {
            return;
        }
        let present = self.workers.any(&[Life::Awaited, Life::Present]);
        let idle = self.inboxes.is_empty() && self.shards.iter().all(|shard| !shard.busy);
        if self.state == State::Running && !present && idle {
            self.state = State::Ending;
            for index in 0..self.shards.len() {
                self.apply_gathered(hub, index);
            }
        }
        if self.state != State::Ending || self.shards.iter().any(|shard| shard.busy) {
            return;
        }
        for shard in self.shards.iter_mut().filter(|shard| !shard.ending) {
            shard.ending = true;
            for (worker, life) in self.workers.iter() {
                shard.set_owed(worker, (life == Life::Staying).then_some(Owed::Final));
            }
        }
        if !self.workers.any(&[Life::Staying]) {
            self.finish(hub);
        }
    }

    /// Puts the parameters of all shards together in the view.
    fn finish(&mut self, hub: &mut Port<'_>) {
        let moved = (0..self.shards.len()).find(|index| self.shards[*index].current != 0);
        let Some(index) = moved else {
            self.state = State::Finished;
            return hub.signal(Signal::Finished);
        };
        let shard = &mut self.shards[index];
        let (from, into) = (shard.params(), shard.version(0));
        (shard.current, shard.busy) = (0, true);
        hub.compute(Kernel::Copy { from, into }, Job::View { shard: index });
    }
}
