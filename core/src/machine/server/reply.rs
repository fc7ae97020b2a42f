//! What workers are owed: parameters, when the pace allows; and who is waited for.

use super::*;

impl Server {
    pub(super) fn row(&self, shard: &Shard) -> Clock {
        #[cfg(planted)]
        if planted!(self.hub, MinimumOverDead) {
            return shard.clocks.row_of_all();
        }
        if self.hub.setup.recipe.is_synchronous() { shard.version } else { shard.clocks.row() }
    }

    pub(super) fn maybe_reply(&mut self, index: usize) {
        for worker in (0..self.workers.len() as u32).map(PeerId) {
            let shard = &self.shards[index];
            let Some(owed) = shard.replies[worker.index()] else { continue };
            let lead_max = self.lead_max.map(|lead| lead + u64::from(planted!(self.hub, BoundOffByOne)));
            // A newcomer may read at once, but for a synchronous round that is about to be applied.
            let at_once = match owed {
                Owed::Answer => false,
                Owed::Welcome => !self.hub.setup.recipe.is_synchronous(),
                Owed::Last => true,
            };
            let may = at_once || may_read(shard.clocks.clock(worker), self.row(shard), lead_max);
            let free = shard.echoes[worker.index()].busy == 0;
            if self.hub.is_agreed(worker) && may && !shard.busy && free {
                self.shards[index].replies[worker.index()] = None;
                self.reply(index, worker, owed);
            }
        }
    }

    pub(super) fn reply(&mut self, index: usize, worker: PeerId, owed: Owed) {
        let row = self.row(&self.shards[index]);
        let shard = &mut self.shards[index];
        let lead = shard.clocks.clock(worker).ahead_of(row);
        let weight = match owed {
            Owed::Answer => 0,
            Owed::Last => 1,
            // What it has pushed may be in by now: then it is ahead of the row already.
            Owed::Welcome => WELCOME.saturating_add(u32::try_from(lead).unwrap_or(u32::MAX)),
        };
        let header = Header {
            shard: shard.id,
            sequence: shard.marks[worker.index()],
            clock: row,
            base: shard.version,
            weight,
            length: shard.len as u32 * 4,
            ..self.hub.header(Kind::Params)
        };
        if self.pulls.is_empty() {
            return self.send_version(index, worker, owed, header);
        }
        self.send_difference(index, worker, owed, header);
    }

    pub(super) fn send_version(&mut self, index: usize, worker: PeerId, owed: Owed, header: Header) {
        let version = self.shards[index].current;
        self.shards[index].readers[version] += 1;
        let body = self.version(index, version);
        self.hub.transmit(worker, header, Some(body), Job::Reply { shard: index, version, worker, owed });
    }

    pub(super) fn note_waiting(&mut self) {
        let awaited = match self.state {
            State::Starting => {
                let blocks =
                    |rank: &u32| self.workers[*rank as usize] == Life::Awaited || self.awaits_offers(PeerId(*rank));
                let missing = (0..self.workers.len() as u32).find(blocks);
                missing.map(|rank| (PeerId(rank), Clock(0), Clock(0)))
            }
            State::Running => self.held_up().or_else(|| self.stays_for()),
            State::Ending | State::Finished => None,
        };
        match awaited {
            Some((on, at, clock)) => self.hub.wait_for(on, at, clock),
            None => self.hub.stop_waiting(),
        }
        if let Some(notice) = self.hub.take_stall() {
            for worker in (0..self.workers.len() as u32).map(PeerId) {
                if worker != notice.origin && self.hub.is_agreed(worker) {
                    self.hub.notify(worker, notice);
                }
            }
        }
    }

    /// Whom the slowest of those who are owed something waits for.
    fn held_up(&self) -> Option<(PeerId, Clock, Clock)> {
        self.shards.iter().find_map(|shard| {
            let owed = shard.replies.iter().zip(&self.workers);
            let held = owed.filter(|(reply, life)| reply.is_some() && **life == Life::Present);
            let (slowest, at) = shard.clocks.slowest()?;
            // A contribution whose turn has not come waits as well.
            let pushed = |peer: PeerId| self.hub.held().any(|(from, header)| from == peer && header.shard == shard.id);
            let queued = self.hub.held().any(|(_, header)| header.shard == shard.id) && !pushed(slowest);
            let waiting = (held.count() > 0 && shard.replies[slowest.index()].is_none()) || queued;
            waiting.then_some((slowest, at, at.next()))
        })
    }

    /// Whom those who stay for the end wait for.
    fn stays_for(&self) -> Option<(PeerId, Clock, Clock)> {
        let stays = self.workers.contains(&Life::Staying);
        let rank = self.workers.iter().position(|life| stays && *life == Life::Present)?;
        let at = self.shards.iter().map(|shard| shard.clocks.clock(PeerId(rank as u32))).min().unwrap_or_default();
        Some((PeerId(rank as u32), at, at.next()))
    }
}
