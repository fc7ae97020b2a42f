//! Parameters to the workers that are owed some, when the pace allows; and the worker that holds up the rest.

use super::receive::holds;
use super::{Job, Life, Owed, Port, Server, Shard, State};
use crate::id::{Clock, PeerId};
use crate::machine::hub::{Awaited, Hub};
use crate::recipe::Adapt;
use crate::rule::pace::may_read;
use crate::rule::period::reference;
use crate::tape::Order;
use crate::time::StepTime;
use crate::wire::{Message, Occasion, Reply};

impl Server {
    pub(super) fn maybe_reply(&mut self, hub: &mut Port<'_>, index: usize) {
        // A tape can have the answers in another order than that of the ranks.
        while self.reply_to_all(hub, index) && hub.is_following() {}
    }

    /// Replies to the workers that may have become able to get the parameters that they are owed. Returns whether one has
    /// got them.
    fn reply_to_all(&mut self, hub: &mut Port<'_>, index: usize) -> bool {
        let (mut replied, shard) = (false, &mut self.shards[index]);
        // The parameters of a round that is closed are out of date for a contribution.
        if shard.busy || shard.round.is_closed() {
            return false;
        }
        let now = Some(row(hub, shard)).filter(|_| !hub.is_following());
        let before = core::mem::replace(&mut shard.replied_at, now);
        let workers = shard.take_stirred(now.is_none() || before != now);
        for worker in workers.iter().copied() {
            let shard = &self.shards[index];
            let Some(owed) = shard.owed(worker) else { continue };
            let lead_max = self.lead_max.map(|lead| lead + u64::from(planted!(hub, BoundOffByOne)));
            let at_once = match owed {
                Owed::Answer => false,
                // A newcomer may read at once, except in rounds: there it waits for the round to be applied.
                Owed::Welcome => !hub.setup.recipe.has_rounds(),
                Owed::Final | Owed::Receipt => true,
            };
            let may = at_once || may_read(shard.clocks.clock(worker), row(hub, shard), lead_max);
            let free = shard.seat_of(worker).echo.busy == 0;
            let order = Order::Answer { shard: shard.id, worker };
            // Neither the final parameters nor the parameters of a round depend on the order of messages.
            let free_of_order = owed == Owed::Final || hub.setup.recipe.has_rounds();
            if hub.is_agreed(worker) && may && free && (free_of_order || hub.allows(order)) {
                if !free_of_order {
                    hub.decide(order);
                }
                self.shards[index].set_owed(worker, None);
                self.reply(hub, index, worker, owed);
                replied = true;
            }
        }
        self.shards[index].return_stirred(workers);
        replied
    }

    fn reply(&mut self, hub: &mut Port<'_>, index: usize, worker: PeerId, owed: Owed) {
        let reference = self.reference_step(hub);
        self.shards[index].seat(worker).work.begin(hub.now());
        let shard = &self.shards[index];
        let row = row(hub, shard);
        let magnitude = self.magnitude(index, worker);
        let occasion = match owed {
            Owed::Receipt => {
                // If it gets lost, the worker sends the contribution again.
                let sequence = shard.seat_of(worker).mark;
                return hub.notify(worker, Message::Receipt { shard: shard.id, sequence, magnitude });
            }
            Owed::Answer if !shard.seat_of(worker).in_doubt => Occasion::Answer { reference },
            Owed::Final => Occasion::Final,
            // Contributions that the worker pushed before it was welcomed may be in by now: then it is ahead of the
            // row.
            Owed::Welcome | Owed::Answer => {
                let (lead, version) = (shard.clocks.clock(worker).ahead_of(row), shard.version);
                let seat = self.shards[index].seat(worker);
                (seat.welcomed, seat.in_doubt) = (Some(version), false);
                Occasion::Welcome { lead: u32::try_from(lead).unwrap_or(u32::MAX) }
            }
        };
        let shard = &self.shards[index];
        let sequence = shard.seat_of(worker).mark;
        let reply = Reply { shard: shard.id, sequence, row, version: shard.version, occasion, magnitude };
        // The final parameters are exact with any codec, so that all workers end with the same ones.
        if !self.pulls.have_echoes() || owed == Owed::Final {
            return self.send_version(hub, index, worker, owed, reply);
        }
        self.send_difference(hub, index, worker, owed, reply);
    }

    /// The time of a step of the reference, if the workers tell theirs.
    fn reference_step(&mut self, hub: &Hub) -> Option<StepTime> {
        if hub.setup.recipe.adapt == Adapt::None {
            return None;
        }
        let present = self.workers.iter().zip(&self.step_times).filter(|((_, life), _)| *life == Life::Present);
        self.sorted.clear();
        self.sorted.extend(present.filter_map(|(_, time)| *time));
        reference(&mut self.sorted)
    }

    pub(super) fn send_version(&mut self, hub: &mut Port<'_>, index: usize, worker: PeerId, owed: Owed, reply: Reply) {
        let shard = &mut self.shards[index];
        let version = shard.current;
        shard.readers[version] += 1;
        let job = Job::Reply { shard: index, version, worker, owed };
        hub.transmit(worker, Message::Params(reply), Some(shard.params()), job);
    }

    /// An answer did not reach its worker. The next one can have other parameters.
    pub(super) fn owe_again(&mut self, hub: &mut Port<'_>, shard: usize, worker: PeerId, owed: Owed) {
        self.shards[shard].owe(worker, owed);
        if owed != Owed::Final {
            breaks_tape(hub);
        }
    }

    /// At the start, the first worker that is not there or has not offered its parameters.
    pub(super) fn awaited_at_start(&self) -> Option<Awaited> {
        let missing = Some(PeerId(self.here_to)).filter(|worker| worker.index() < self.workers.len());
        missing.map(|on| Awaited { on, at: Clock(0), clock: Clock(0) })
    }

    /// The slowest worker, if another is owed parameters or has contributed out of its turn.
    pub(super) fn held_up(&self, hub: &Hub) -> Option<Awaited> {
        debug_assert_eq!(self.state, State::Running);
        if let Some(first) = &self.first {
            return self.round_waits_for(first);
        }
        self.shards.iter().find_map(|shard| {
            let held = |worker: PeerId| self.workers.get(worker) == Life::Present;
            let (slowest, at) = shard.clocks.slowest()?;
            let of_shard = |message: &Message| matches!(message, Message::Push(push) if push.shard == shard.id);
            let queued = || hub.held().any(|held| of_shard(&held.message)) && !holds(hub, slowest, shard.id);
            let waiting = (shard.owed(slowest).is_none() && shard.owing().any(held)) || queued();
            waiting.then_some(Awaited { on: slowest, at, clock: at.next() })
        })
    }

    /// The first worker that still contributes, if another stays for the end.
    pub(super) fn stays_for(&self) -> Option<Awaited> {
        let on = self.workers.first(&[Life::Present]).filter(|_| self.workers.any(&[Life::Staying]))?;
        let at = self.shards.iter().map(|shard| shard.clocks.clock(on)).min().unwrap_or_default();
        Some(Awaited { on, at, clock: at.next() })
    }
}

/// The parameters that a worker gets depend on when a connection broke, or on which worker was lost.
pub(super) fn breaks_tape(hub: &mut Hub) {
    if !hub.setup.recipe.has_rounds() {
        hub.break_tape();
    }
}

/// The row clock: every contribution of earlier clocks is in the parameters.
fn row(hub: &Hub, shard: &Shard) -> Clock {
    #[cfg(planted)]
    if planted!(hub, MinimumOverDead) {
        return shard.clocks.row_of_all();
    }
    if hub.setup.recipe.has_rounds() { shard.version } else { shard.clocks.row() }
}
