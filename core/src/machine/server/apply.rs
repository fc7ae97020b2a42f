//! From an inbox to the parameters: the merge rule is asked, and its verdict carried out.

use super::*;

impl Server {
    /// Hands the shard's next contribution to the merge rule, when the parameters are free.
    pub(super) fn maybe_merge(&mut self, index: usize) {
        while !self.shards[index].busy {
            let Some(&inbox) = self.shards[index].queue.front() else { return };
            // An application needs somewhere to go; the verdict is asked for only when there is such a place.
            let Some(into) = self.free_version(index) else { return };
            let shard = &mut self.shards[index];
            shard.queue.pop_front();
            let (_, header) = self.inboxes[inbox].push.expect("a queued inbox holds a push");
            let mut staleness = shard.version.ahead_of(header.base);
            let verdict = if header.weight == 0 {
                Verdict::Skip
            } else {
                if planted!(self.hub, StalenessIgnored) {
                    staleness = 0;
                }
                let weight = if planted!(self.hub, DenominatorByCount) { 1 } else { header.weight };
                shard.rule.admit(weight, staleness)
            };
            let counters = &mut self.hub.counters;
            match verdict {
                Verdict::Drop => counters.dropped += 1,
                Verdict::Skip => counters.empty += 1,
                _ => {
                    counters.applied += 1;
                    self.hub.staleness.record(staleness);
                }
            }
            let update = self.inbox(inbox, self.shards[index].len);
            match verdict {
                Verdict::Drop | Verdict::Skip => self.account(inbox),
                Verdict::Apply { scale } => {
                    let from = self.version(index, self.shards[index].current);
                    let kernel = Kernel::Apply { from, update, scale, into: self.version(index, into) };
                    self.merge(kernel, index, inbox, Some(into));
                }
                Verdict::Add { scale, first } => {
                    let kernel = Kernel::Accumulate { update, scale, first, into: self.gathered(index) };
                    self.merge(kernel, index, inbox, None);
                }
                Verdict::Blend { held } => {
                    let weight = if planted!(self.hub, DenominatorByCount) { 1 } else { header.weight };
                    let kernel = Kernel::Blend { x: update, weight, held, into: self.gathered(index) };
                    self.merge(kernel, index, inbox, None);
                }
            }
        }
    }

    pub(super) fn merge(&mut self, kernel: Kernel, shard: usize, inbox: usize, into: Option<usize>) {
        self.shards[shard].busy = true;
        self.hub.compute(kernel, Job::Merge { shard, inbox, into });
    }

    pub(super) fn maybe_full(&mut self, shard: usize) {
        if self.shards[shard].rule.is_full() {
            self.apply_gathered(shard);
        }
    }

    /// Applies what has been gathered, if there is anything.
    pub(super) fn apply_gathered(&mut self, index: usize) -> bool {
        let into = self.free_version(index).unwrap_or(self.shards[index].current);
        let Some(mut scale) = self.shards[index].rule.take() else { return false };
        if planted!(self.hub, RestDividedByC)
            && self.state == State::Ending
            && let Merge::Softsync { updates } = self.hub.setup.recipe.merge
        {
            scale = 1.0 / updates as f32;
        }
        self.shards[index].busy = true;
        let (from, into_segment) = (self.version(index, self.shards[index].current), self.version(index, into));
        let kernel = match self.hub.setup.recipe.payload {
            Payload::Parameters => Kernel::Copy { from: self.gathered(index), into: into_segment },
            Payload::Updates => Kernel::Apply { from, update: self.gathered(index), scale, into: into_segment },
        };
        self.hub.compute(kernel, Job::Apply { shard: index, into });
        true
    }

    pub(super) fn on_applied(&mut self, index: usize, version: usize) {
        let shard = &mut self.shards[index];
        shard.current = version;
        shard.version = shard.version.next();
        self.hub.counters.applications += 1;
    }

    /// The contribution of an inbox is in: its clock ticks, its worker is owed an answer, the inbox is free.
    pub(super) fn account(&mut self, inbox: usize) {
        let (peer, header) = self.push(inbox);
        self.inboxes[inbox].push = None;
        let index = self.shard_of(header.shard);
        self.answer(index, peer, header);
    }

    pub(super) fn answer(&mut self, index: usize, peer: PeerId, header: Header) {
        let shard = &mut self.shards[index];
        shard.taking = None;
        // Its worker may have been given up, or have restarted, in the meantime.
        let current = shard.clocks.is_member(peer) && header.incarnation == self.hub.incarnation(peer);
        if current && header.sequence > shard.marks[peer.index()] {
            shard.marks[peer.index()] = header.sequence;
            shard.clocks.tick(peer);
            shard.replies[peer.index()].get_or_insert(Owed::Answer);
        }
    }

    /// A synchronous round ends when every member has contributed.
    pub(super) fn maybe_end_round(&mut self, index: usize) {
        let shard = &self.shards[index];
        if !self.hub.setup.recipe.is_synchronous() || shard.busy || !shard.queue.is_empty() {
            return;
        }
        let ended = match shard.clocks.slowest() {
            Some((_, clock)) => clock > shard.version,
            None => false,
        };
        // A round without examples changes nothing, and ends all the same.
        if ended && self.free_version(index).is_some() && !self.apply_gathered(index) {
            let shard = &mut self.shards[index];
            shard.version = shard.version.next();
        }
    }
}
