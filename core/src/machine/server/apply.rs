//! Contributions from a shard's queue to its parameters: the merge rule decides, the commit step makes the new
//! parameters.

use super::inbox::Received;
use super::receive::holds;
use super::{Job, Port, Server, State};
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::machine::hub::Hub;
use crate::recipe::Merge;
use crate::rider::Riders;
use crate::rule::{Merged, Verdict};
use crate::tape::Order;
use crate::wire::Push;

impl Server {
    /// Hands the shard's next contributions to the merge rule, while no kernel writes the parameters.
    pub(super) fn maybe_merge(&mut self, hub: &mut Port<'_>, index: usize) {
        while !self.shards[index].busy {
            let Some((at, inbox)) = self.next_to_merge(hub, index) else { return };
            // The rule's verdict changes its state, so it is asked for only when an application has a version to go to.
            let Some(into) = self.shards[index].free_version() else { return };
            let shard = &mut self.shards[index];
            shard.queue.remove(at);
            let Received { worker, push, .. } = self.inboxes.get(inbox);
            if !hub.setup.recipe.has_rounds() {
                hub.decide(Order::Admit { shard: push.shard, worker });
            }
            let weight = if planted!(hub, DenominatorByCount) { 1 } else { push.weight };
            let staleness = if planted!(hub, StalenessIgnored) { 0 } else { shard.version.ahead_of(push.base) };
            let update = self.inboxes.floats(inbox, shard.len);
            let verdict = match push.weight {
                0 => Verdict::Skip,
                _ => shard.rule.admit(worker, update, weight, staleness),
            };
            if !matches!(verdict, Verdict::Drop | Verdict::Skip) {
                self.compensate(hub, index, inbox);
            }
            let shard = &mut self.shards[index];
            let (kernel, into) = match verdict {
                Verdict::Drop | Verdict::Skip => {
                    let dropped = verdict == Verdict::Drop;
                    hub.counters.dropped += u64::from(dropped);
                    hub.counters.empty += u64::from(!dropped);
                    self.account(hub, inbox);
                    continue;
                }
                Verdict::Apply { scale } => (
                    {
                        let (next, old, into) = (shard.version.next(), shard.params(), shard.version(into));
                        let factors = self.commit.factors(scale, push.rider);
                        self.commit.kernel_at(next, shard.start(), old, update, factors, into)
                    },
                    Some(into),
                ),
                Verdict::Gather { kernel } => {
                    shard.riders.add(push.rider, push.weight);
                    (kernel, None)
                }
            };
            hub.counters.applied += 1;
            hub.staleness.record(staleness);
            shard.busy = true;
            hub.compute(kernel, Job::Merge { shard: index, inbox, into });
        }
    }

    /// The contribution in a shard's queue that is merged next: its place, and its inbox. The first, unless the node
    /// follows a tape.
    pub(super) fn next_to_merge(&self, hub: &Hub, index: usize) -> Option<(usize, usize)> {
        let shard = &self.shards[index];
        let is_next = |inbox: &usize| {
            let Received { worker, push, .. } = self.inboxes.get(*inbox);
            // A contribution without a body is here before the one that its worker has sent before it.
            let is_later = |other: &Received| {
                let (same_worker, same_shard) = (other.worker == worker, other.push.shard == push.shard);
                same_worker && same_shard && other.push.sequence < push.sequence
            };
            let in_order = hub.setup.recipe.has_rounds() || hub.allows(Order::Admit { shard: shard.id, worker });
            in_order && !self.inboxes.iter().any(is_later)
        };
        shard.queue.iter().copied().enumerate().find(|(_, inbox)| is_next(inbox))
    }

    /// Corrects a contribution in its inbox for the changes since the parameters that it was computed from.
    fn compensate(&self, hub: &mut Port<'_>, index: usize, inbox: usize) {
        let shard = &self.shards[index];
        let Some((formula, state)) = shard.compensation else { return };
        let Received { worker, push, .. } = self.inboxes.get(inbox);
        let params = if formula.reads_parameters() { self.moved(index, worker, push.base) } else { None };
        if formula.reads_parameters() && params.is_none() {
            return;
        }
        let update = self.inboxes.floats(inbox, shard.len);
        hub.compute(Kernel::Compensate { formula, update, state, params }, Job::Prepare);
        self.measure(hub, index);
    }

    pub(super) fn maybe_full(&mut self, hub: &mut Port<'_>, shard: usize) {
        if self.shards[shard].rule.is_full() {
            self.apply_gathered(hub, shard);
        }
    }

    /// Commits the gathered contributions, if there are any.
    pub(super) fn apply_gathered(&mut self, hub: &mut Port<'_>, index: usize) -> bool {
        let shard = &mut self.shards[index];
        let into = shard.free_version().unwrap_or(shard.current);
        let riders = core::mem::replace(&mut shard.riders, Riders::nothing());
        // Kernels run in order: the one that commits finds the merged vector.
        let kernels = (0..).map_while(|part| shard.rule.merge(part));
        kernels.for_each(|kernel| hub.compute(kernel, Job::Prepare));
        let Some(Merged { vector, mut scale }) = shard.rule.take() else { return false };
        if planted!(hub, RestDividedByC)
            && self.state == State::Ending
            && let Merge::Softsync { updates } = hub.setup.recipe.merge
        {
            scale = 1.0 / updates as f32;
        }
        shard.busy = true;
        let next = shard.version.next();
        let (old, into_version) = (shard.params(), shard.version(into));
        let factors = self.commit.factors(scale, riders.mean());
        let kernel = self.commit.kernel_at(next, shard.start(), old, vector, factors, into_version);
        hub.compute(kernel, Job::Apply { shard: index, into });
        true
    }

    pub(super) fn on_applied(&mut self, hub: &mut Port<'_>, index: usize, version: usize) {
        let unused = self.shards[index].set_current(version);
        unused.into_iter().for_each(|buffer| hub.compute(Kernel::Release { buffer }, Job::Prepare));
        self.advance(hub, index);
        hub.counters.applications += 1;
    }

    /// The contribution of an inbox has been merged: its clock ticks, its worker is owed an answer, the inbox is free.
    pub(super) fn account(&mut self, hub: &Port<'_>, inbox: usize) {
        let Received { worker, push, .. } = self.inboxes.take(inbox);
        let index = self.shard_of(hub, push.shard);
        self.answer(hub, index, worker, &push);
    }

    pub(super) fn answer(&mut self, hub: &Port<'_>, index: usize, worker: PeerId, push: &Push) {
        let shard = &mut self.shards[index];
        shard.taking = None;
        // The worker may have restarted since it sent the contribution. A worker that has been given up can come back,
        // and sends its unanswered contributions again.
        if push.incarnation != hub.incarnation(worker) || push.sequence <= shard.seat(worker).mark {
            return;
        }
        shard.seat(worker).mark = push.sequence;
        self.recheck |= holds(hub, worker, push.shard);
        if shard.clocks.is_member(worker) {
            match self.first {
                Some(_) => shard.clocks.advance(worker, shard.version.next()),
                None => shard.clocks.tick(worker),
            }
            shard.owe_answer(worker, push);
        }
        if shard.head_start > 0 {
            shard.head_start -= 1;
            if shard.head_start == 0 {
                self.end_head_start(hub, index);
            }
        }
    }

    /// A synchronous round ends when every member has contributed; one that waits for the first only, when it is closed.
    pub(super) fn maybe_end_round(&mut self, hub: &mut Port<'_>, index: usize) {
        let shard = &self.shards[index];
        if !hub.setup.recipe.has_rounds() || shard.busy || !shard.queue.is_empty() {
            return;
        }
        let ended = match self.first {
            Some(_) => shard.round.is_closed(),
            None => shard.clocks.slowest().is_some_and(|(_, clock)| clock > shard.version),
        };
        // A round without examples ends as well, and changes nothing.
        if ended && shard.free_version().is_some() && !self.apply_gathered(hub, index) {
            self.advance(hub, index);
        }
    }

    /// The parameters of a shard are the next version, with or without contributions.
    fn advance(&mut self, hub: &Hub, index: usize) {
        self.shards[index].advance();
        // A held contribution to the round before would be late.
        self.recheck |= hub.setup.recipe.has_rounds();
    }
}
