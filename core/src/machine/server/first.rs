//! Rounds that wait for the first contributions only (`pace=first`; Chen et al. 2016, section 3.2).
//!
//! ```text
//! of the shard's version:  into an inbox, scanned -> among the ready ones
//! enough are ready, and the grace is over (or all members have contributed)
//!                       -> the round is closed: the ready ones, in rank order -> queue -> merged -> next version
//! of an earlier version:   late: dropped and counted, or ready for the next round to close; the worker goes on at once
//! ```
//! A contribution is in time if its whole body was here when its round closed. So a slow connection holds up a round as
//! little as a slow machine does. That takes an inbox for each worker: N vectors of a shard, and twice as many with
//! `late=next`. In return, ready contributions are merged in rank order. The result of a round follows from the set of
//! workers that were in time, not from the order of arrival. If all were in time, it is the result of
//! `pace=synchronous`, bit for bit.
//!
//! A merge rule that needs all contributions of a round gets the same ones, in the same order. A worker has one vote in
//! it: its late contribution and its contribution from the present version count as their mean.
//!
//! Each shard closes its own rounds, with its own first. So a worker can be in time at one shard and late at another.
//! That blocks no worker. Of the shards at which a worker waits, take the one where the last round closed first. A
//! member that waits elsewhere has contributed there from a version that is newer than this shard's last round.
//! It contributed to this shard as well, with the same step, so while the present round was open: in time, or late. So
//! once all members wait, all have contributed to this round or were late in it. This needs late contributions not to wait
//! for a round, so their workers are answered at once, also with `late=next`. At most N - K workers are late in a round, so
//! the other workers are enough, unless some have left since. Then a round can be waiting for members alone that were
//! late in it and may wait at another shard for a member that waits here. It cannot know, so after
//! [`Patience::stall_after`] it closes without them, and gives them the parameters of the next round, for which they
//! are in time. Each time in a row it waits for twice as long, so that a member that is just slow takes part in the
//! end.
//!
//! A worker that enters, or is back, takes part in the round that is open. If a contribution of its rank is ready (of its
//! earlier process, or from before its connection broke), it takes part in the next one, and may wait for that while other
//! shards wait for its contribution. So these treat it as one that was late.
//!
//! [`Patience::stall_after`]: crate::Patience::stall_after

use alloc::vec::Vec;

use super::inbox::Received;
use super::{Life, Owed, Port, Server, Shard, State};
use crate::id::{Clock, PeerId};
use crate::machine::Event;
use crate::machine::hub::{Awaited, Hub};
use crate::recipe::{Grace, Hint, Late};
use crate::rule::pace::First;
use crate::time::{Duration, Instant};
use crate::wire::Push;

/// The exponent of 2 up to which rounds wait longer for members that are excused again.
const SPARED_MAX: u32 = 10;

/// Contributions of a worker that are dropped in a row, at each of a server's shards, before a hint says so. A worker that
/// is slower now and then is in time sooner.
const LATE_MAX: u32 = 16;

/// The present round of a shard.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Inboxes with contributions to the round, or to the next one if this one is closed. At most one contribution of a
    /// worker is made from the shard's version, and at most one is late.
    ready: Vec<usize>,
    /// Since when enough are ready.
    enough_since: Option<Instant>,
    /// Since when only members are missing that are excused.
    excused_since: Option<Instant>,
    /// The contributions are being merged. Contributions that come from now on are late.
    closed: bool,
}

impl Round {
    /// A round with room for so many contributions.
    pub(super) fn new(room: usize) -> Self {
        Self { ready: Vec::with_capacity(room), ..Self::default() }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The next version is there: its round is open.
    pub(super) fn open(&mut self) {
        self.closed = false;
    }
}

impl Shard {
    /// Has the round ended to which a contribution from this version belongs?
    pub(super) fn is_over(&self, base: Clock) -> bool {
        base < self.version || self.round.closed
    }

    /// The members that have contributed to the open round, or take part in the next one.
    fn waiting(&self) -> impl Iterator<Item = PeerId> {
        self.clocks.members().filter(|(_, clock)| *clock > self.version).map(|(worker, _)| worker)
    }

    /// The members that have not contributed to the open round.
    fn missing(&self) -> impl Iterator<Item = (PeerId, Clock)> {
        self.clocks.members().filter(|(_, clock)| *clock <= self.version)
    }

    /// When the round closes that has enough contributions since `since`, if no more come.
    fn graced(&self, grace: Grace, since: Instant) -> Instant {
        // A member that is rounds behind computes with older parameters, and will be late.
        let here = self.missing().filter(|(_, clock)| *clock == self.version);
        grace.until(since, here.map(|(worker, _)| &self.seat_of(worker).work))
    }

    /// Was the worker late in the open round, or has it entered in it?
    fn is_excused(&self, worker: PeerId) -> bool {
        self.seat_of(worker).excused == Some(self.version)
    }

    /// How long the round waits for members that are excused.
    fn patience(&self, hub: &Hub) -> Duration {
        let spared = self.missing().map(|(worker, _)| self.seat_of(worker).spared).max().unwrap_or(0);
        hub.setup.patience.stall_after().saturating_mul(1 << spared.min(SPARED_MAX))
    }

    /// The round in which a worker takes part next, if it has not contributed to an open round.
    fn next_round(&self) -> Clock {
        if self.round.closed { self.version.next() } else { self.version }
    }
}

impl Server {
    /// Inboxes of a server with so many shards. Each worker has one per shard, and one for late contributions if these
    /// are kept.
    pub(super) fn inboxes_of(first: &First, workers: u32, shards: usize) -> usize {
        let each = if first.late == Late::Next { 2 } else { 1 };
        workers as usize * each * shards
    }

    /// Can this contribution be handled now? While a round is being merged, its worker could only be answered with the
    /// parameters of a round that is over.
    pub(super) fn may_take(&self, first: &First, index: usize, worker: PeerId, push: &Push) -> bool {
        let shard = &self.shards[index];
        let late = push.base < shard.version;
        let of_worker = |received: &Received| {
            received.worker == worker
                && received.push.shard == push.shard
                && (received.push.base < shard.version) == late
        };
        match late {
            _ if shard.round.closed => false,
            true if first.late == Late::Drop => true,
            _ => self.inboxes.has_room() && !self.inboxes.iter().any(of_worker),
        }
    }

    /// A contribution has arrived, and can be merged.
    pub(super) fn on_ready(&mut self, hub: &mut Port<'_>, first: &First, inbox: usize) {
        let Received { worker, push, .. } = self.inboxes.get(inbox);
        let index = self.shard_of(hub, push.shard);
        let replaced = push.incarnation != hub.incarnation(worker);
        let shard = &mut self.shards[index];
        let over = shard.is_over(push.base);
        // A contribution of a replaced process would be added to a contribution of the present process.
        if replaced || (over && first.late == Late::Drop && !planted!(hub, LateMerged)) {
            self.inboxes.take(inbox);
            return self.drop_late(hub, index, worker, &push);
        }
        shard.round.ready.push(inbox);
        if over {
            hub.counters.deferred += 1;
            self.excuse(hub, index, worker, &push);
        } else if shard.clocks.is_member(worker) {
            shard.clocks.advance(worker, shard.version.next());
            shard.seat(worker).work.end(hub.now());
            (shard.seat(worker).spared, shard.seat(worker).dropped) = (0, 0);
        }
    }

    /// A contribution comes after its round has ended, and is dropped.
    pub(super) fn drop_late(&mut self, hub: &mut Port<'_>, index: usize, worker: PeerId, push: &Push) {
        hub.counters.late += 1;
        if self.first.is_some() && push.incarnation == hub.incarnation(worker) {
            let seat = self.shards[index].seat(worker);
            seat.dropped = seat.dropped.saturating_add(1);
            let is_late = |shard: &Shard| shard.seat_of(worker).dropped >= LATE_MAX;
            let hinted = &mut self.hinted[worker.index()];
            if !*hinted && self.shards.iter().all(is_late) {
                *hinted = true;
                hub.event(Event::Hint(Hint::AlwaysLate { worker, contributions: LATE_MAX }));
            }
        }
        self.excuse(hub, index, worker, push);
    }

    /// A worker with a contribution that is late, or was refused when its round was over, goes on with the parameters
    /// of the next round that it can take part in.
    pub(super) fn excuse(&mut self, hub: &Port<'_>, index: usize, worker: PeerId, push: &Push) {
        let shard = &mut self.shards[index];
        if push.incarnation != hub.incarnation(worker) {
            return;
        }
        let mark = shard.seat_of(worker).mark;
        shard.seat(worker).mark = mark.max(push.sequence);
        shard.seat(worker).work.end(hub.now());
        // Its clock did not tick, so an answer would not tell it where it is. A welcome does.
        shard.set_owed(worker, Some(Owed::Welcome));
        self.recheck |= hub.held_of(worker).next().is_some();
        if self.first.is_some() && shard.clocks.is_member(worker) {
            let round = shard.next_round();
            shard.clocks.advance(worker, round);
            shard.seat(worker).excused = Some(shard.version);
        }
    }

    /// A worker enters a shard in the round that it can take part in.
    pub(super) fn enter_round(&mut self, index: usize, worker: PeerId) {
        let (round, is_running) = (self.round_of(index, worker), self.state == State::Running);
        let shard = &mut self.shards[index];
        shard.clocks.join_round(worker, round);
        // All are waited for that are there when the run begins.
        shard.seat(worker).excused = Some(shard.version).filter(|_| is_running);
    }

    /// The round in which a worker takes part that enters now.
    fn round_of(&self, index: usize, worker: PeerId) -> Clock {
        let shard = &self.shards[index];
        let has_contributed = self.fresh(shard).any(|received| received.worker == worker);
        if has_contributed { shard.version.next() } else { shard.next_round() }
    }

    /// The contributions to the open round that are not late.
    fn fresh<'a>(&'a self, shard: &'a Shard) -> impl Iterator<Item = Received> + 'a {
        let ready = shard.round.ready.iter().map(|inbox| self.inboxes.get(*inbox));
        ready.filter(|received| !shard.is_over(received.push.base))
    }

    #[cfg_attr(not(planted), allow(unused_variables, reason = "the hub says which bug is planted"))]
    fn has_enough(&self, hub: &Hub, first: &First, shard: &Shard) -> bool {
        if planted!(hub, LateAmongFirst) {
            return shard.round.ready.len() >= first.count as usize;
        }
        self.fresh(shard).count() >= first.count as usize
    }

    /// Closes the round when no contribution to it can come, or enough are here and the grace is over.
    pub(super) fn maybe_close(&mut self, hub: &Port<'_>, index: usize) {
        let Some(first) = self.first else { return };
        let shard = &self.shards[index];
        if shard.round.closed {
            return;
        }
        // Without members, only late contributions are left.
        let waits = match shard.clocks.slowest() {
            Some(_) => shard.waiting().next().is_some(),
            None => !shard.round.ready.is_empty(),
        };
        let all = waits && shard.missing().next().is_none();
        let excused = waits && shard.missing().all(|(worker, _)| shard.is_excused(worker));
        let (enough, patience, now) = (self.has_enough(hub, &first, shard), shard.patience(hub), hub.now());
        let round = &mut self.shards[index].round;
        round.enough_since = round.enough_since.or(Some(now)).filter(|_| enough);
        round.excused_since = round.excused_since.or(Some(now)).filter(|_| excused && !enough);
        let (enough_since, excused_since) = (round.enough_since, round.excused_since);
        let graced = enough_since.is_some_and(|since| now >= self.shards[index].graced(first.grace, since));
        let spared = excused_since.is_some_and(|since| now >= since.after(patience));
        if !all && !graced && !spared {
            return;
        }
        let round = &mut self.shards[index].round;
        (round.closed, round.enough_since, round.excused_since) = (true, None, None);
        if spared && !all {
            self.spare(index);
        }
        let round = &mut self.shards[index].round;
        // Of one worker, the late contribution comes first: its sequence number is lower.
        let order = |inbox: &usize| {
            let Received { worker, push, .. } = self.inboxes.get(*inbox);
            (worker, push.incarnation, push.sequence)
        };
        round.ready.sort_unstable_by_key(order);
        let Shard { round, queue, .. } = &mut self.shards[index];
        queue.extend(round.ready.drain(..));
    }

    /// A round has been closed without the members that were late in it. They get the parameters of the next one.
    fn spare(&mut self, index: usize) {
        let shard = &mut self.shards[index];
        for worker in (0..self.workers.len() as u32).map(PeerId) {
            if shard.clocks.is_member(worker) && shard.clocks.clock(worker) <= shard.version {
                shard.clocks.advance(worker, shard.version.next());
                shard.set_owed(worker, Some(Owed::Welcome));
                shard.seat(worker).spared += 1;
            }
        }
    }

    /// When a round closes that waits for nothing but the time.
    pub(super) fn closes_at(&self, hub: &Hub) -> Option<Instant> {
        let first = self.first?;
        let deadline = |shard: &Shard| {
            let grace = shard.round.enough_since.map(|since| shard.graced(first.grace, since));
            grace.or_else(|| Some(shard.round.excused_since?.after(shard.patience(hub))))
        };
        self.shards.iter().filter_map(deadline).min()
    }

    /// A member that a round waits for, if a worker waits for the round: the slowest, if all missing members are
    /// needed, else the one that is expected next. No round waits for a worker that is rounds behind unless it needs
    /// all.
    pub(super) fn round_waits_for(&self, first: &First) -> Option<Awaited> {
        self.shards.iter().filter(|shard| !shard.round.closed).find_map(|shard| {
            shard.waiting().find(|worker| self.workers.get(*worker) == Life::Present)?;
            let missing = || shard.missing().filter(|(worker, _)| shard.owed(*worker).is_none());
            let needed = (first.count as usize).saturating_sub(self.fresh(shard).count());
            let all = needed >= missing().count();
            // Ranks rise, and of equal clocks the first is meant.
            let slowest = missing().min_by_key(|(_, at)| *at);
            let next = missing().min_by_key(|(_, at)| shard.version.ahead_of(*at));
            let (on, at) = if all { slowest } else { next }?;
            Some(Awaited { on, at, clock: shard.version.next() })
        })
    }
}
