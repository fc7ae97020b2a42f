//! The rounds of a view: parts of chunks go up to the chunks' roots, and results come down.

use alloc::vec::Vec;

use super::Job;
use super::chunks::{Chunks, Mean, Progress};
use super::operations::{Arrival, Epoch, Epochs, Task};
use super::replica::Replica;
use super::shape::{Routes, Shape};
use crate::buffer::BufferId;
use crate::id::{Clock, PeerId, Sequence, ShardId};
use crate::kernel::{Kernel, KernelResult, MEAN_MAX};
use crate::machine::commit::Commit;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::machine::{Event, ProtocolError, Rejection};
use crate::wire::{Message, Part};

/// The exchange among the members of a view.
#[derive(Debug)]
pub(super) struct Exchange {
    routes: Routes,
    chunks: Chunks,
    /// The application's contribution.
    contribution: BufferId,
    commit: Commit,
    /// The view, and the round that is under way in it.
    view: Sequence,
    round: Clock,
    phase: Phase,
    /// The open operations of the exchange, and those that fetch the state.
    pub(super) epochs: Epochs,
}

/// What the node does in the exchange. Parts of children are taken in every phase.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The node's contribution is missing.
    Idle,
    /// The round is under way. `own` is this node's contribution, and `None` if the application has left since.
    Running { own: Option<Mean> },
    /// The round is done. The application is told when everything is sent that other members need of the round: a
    /// driver on the application's thread may not come back to this machine for long.
    Done { changed: bool },
}

/// How a round has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Some worker has contributed to it.
    pub(super) changed: bool,
    /// No worker contributes any more: it was the last.
    pub(super) last: bool,
}

impl Exchange {
    /// An exchange without members. Declares the buffers of the chunks, of which a node that is no worker has none.
    pub(super) fn new(hub: &mut Hub, is_worker: bool, contribution: BufferId, commit: Commit) -> Self {
        let setup = &hub.setup;
        let shape = Shape::of(setup.recipe.topology);
        let most = shape.chunk_len(setup.len, setup.cluster.workers as usize, setup.recipe.chunk as usize);
        let len = if is_worker { setup.len } else { 0 };
        Self {
            routes: Routes::new(shape),
            chunks: Chunks::new(len, most, shape.width(), &mut hub.vectors),
            contribution,
            commit,
            view: Sequence(0),
            round: Clock(0),
            phase: Phase::Idle,
            epochs: Epochs::new(),
        }
    }

    // Views

    /// The round ends here, undone.
    pub(super) fn stop(&mut self) {
        self.epochs.advance();
        if let Phase::Running { .. } = self.phase {
            self.phase = Phase::Idle;
        }
    }

    /// Begins anew in a view that this node has entered.
    pub(super) fn enter(&mut self, me: PeerId, view: &View, round: Clock) {
        self.stop();
        self.chunks.reset();
        self.routes.set(me, &view.members);
        (self.view, self.round) = (view.number, round);
    }

    // The application's side

    /// Can the next round begin?
    pub(super) fn can_begin(&self) -> bool {
        self.phase == Phase::Idle && self.epochs.is_clear() && !self.epochs.is_sending()
    }

    /// Begins the round with the application's contribution.
    pub(super) fn begin(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, own: Mean) {
        self.phase = Phase::Running { own: Some(own) };
        for chunk in 0..self.chunks.count() {
            self.maybe_reduce(hub, replica, chunk);
        }
    }

    /// The application has left: its contribution goes into no further chunk.
    pub(super) fn withdraw(&mut self) {
        if let Phase::Running { own } = &mut self.phase {
            *own = None;
        }
    }

    /// Ends the round when all results are here. The next parameters are then the node's.
    pub(super) fn take_outcome(&mut self) -> Option<Outcome> {
        if !matches!(self.phase, Phase::Running { .. }) || !self.chunks.is_complete() {
            return None;
        }
        let changed = self.chunks.results().any(|(_, result)| result.weight > 0);
        let last = self.chunks.results().all(|(_, result)| result.finishing);
        self.chunks.next_round();
        self.round = self.round.next();
        self.phase = if last { Phase::Idle } else { Phase::Done { changed } };
        Some(Outcome { changed, last })
    }

    /// Returns once that a round is done, and whether it has changed something, when the application can be told.
    pub(super) fn take_done(&mut self) -> Option<bool> {
        let Phase::Done { changed } = self.phase else { return None };
        if self.epochs.is_sending() {
            return None;
        }
        self.phase = Phase::Idle;
        Some(changed)
    }

    /// Is a round done that the application has not been told of?
    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done { .. })
    }

    /// The member that the first chunk without a result waits for.
    pub(super) fn awaited(&self) -> Option<PeerId> {
        let index = self.chunks.first_missing()?;
        let chunk = self.chunks.get(index);
        let child = self.routes.children(index).find(|(child, _)| chunk.part(*child).is_none());
        child.map(|(_, member)| member).or_else(|| self.routes.parent(index))
    }

    /// The children that have sent a part of this round.
    pub(super) fn contributors(&self) -> Vec<PeerId> {
        let of = |index| {
            let chunk = self.chunks.get(index);
            self.routes.children(index).filter(move |(child, _)| chunk.part(*child).is_some())
        };
        (0..self.chunks.count()).flat_map(of).map(|(_, member)| member).collect()
    }

    // Operations

    pub(super) fn on_done(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, task: Task, result: KernelResult) {
        match task {
            Task::Receive(arrival) => self.on_arrived(hub, arrival),
            Task::Scan(arrival) => self.on_scanned(hub, replica, arrival, result),
            Task::Reduce { epoch, chunk } => {
                if self.epochs.end(epoch) {
                    self.on_reduced(hub, replica, chunk);
                }
            }
            Task::Up { epoch, chunk } => self.on_up_sent(epoch, chunk),
            Task::Down { epoch } => {
                self.epochs.end_sending(epoch);
            }
            Task::Result { epoch, chunk, result } => {
                if self.epochs.end(epoch) {
                    self.on_result(hub, replica, chunk, result);
                }
            }
            Task::Commit => {}
        }
    }

    pub(super) fn on_failed(&mut self, task: Task) {
        match task {
            // The message comes again in the next view, which begins when the connection is back.
            Task::Receive(Arrival { epoch, .. }) | Task::Result { epoch, .. } => {
                self.epochs.end(epoch);
            }
            Task::Up { epoch, .. } | Task::Down { epoch } => {
                self.epochs.end_sending(epoch);
            }
            // Kernels are not aborted.
            Task::Scan(_) | Task::Reduce { .. } | Task::Commit => {}
        }
    }

    /// Checks the chunk and the length of a part or result.
    fn check(&self, incoming: &Incoming, part: &Part) -> Result<usize, ProtocolError> {
        let chunk = part.chunk as usize;
        if chunk >= self.chunks.count() {
            return Err(ProtocolError::NoSuchShard { got: ShardId(part.chunk) });
        }
        let expected = if part.weight > 0 { self.chunks.result(chunk).len } else { 0 };
        if incoming.length != expected {
            let kind = incoming.message.kind();
            return Err(ProtocolError::Length { kind, expected, got: incoming.length });
        }
        Ok(chunk)
    }

    // Up

    /// A child's part of a chunk.
    pub(super) fn on_up(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part) {
        let peer = incoming.peer;
        let chunk = match self.check(&incoming, &part) {
            Ok(chunk) => chunk,
            Err(reason) => return hub.close(peer, reason),
        };
        let Some((child, _)) = self.routes.children(chunk).find(|(_, member)| *member == peer) else {
            return hub.close(peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        };
        // A child may have the result of this round before this node, and be at the next round.
        let next = part.round == self.round.next();
        let state = self.chunks.get(chunk);
        let fits = part.round == self.round || (next && state.is_reduced());
        if !fits || state.part_of(child, next).is_some() {
            return hub.close(peer, ProtocolError::Gap { expected: self.round.0, got: part.round.0 });
        }
        let mean = Mean { weight: part.weight, finishing: part.finishing };
        if mean.weight == 0 {
            hub.counters.empty += 1;
            self.chunks.add_part(chunk, child, next, mean);
            return self.maybe_reduce(hub, replica, chunk);
        }
        if !self.epochs.is_clear() {
            // A message of an earlier view may still be on its way into the same buffer.
            return hub.hold(incoming);
        }
        let arrival = Arrival { epoch: self.epochs.begin(), from: peer, chunk, child, part: mean, next };
        hub.receive(&incoming, self.chunks.inbox(chunk, child), Job::Exchange(Task::Receive(arrival)));
    }

    fn on_arrived(&mut self, hub: &mut Port<'_, Job>, arrival: Arrival) {
        if self.epochs.end(arrival.epoch) {
            self.epochs.begin();
            let x = self.chunks.inbox(arrival.chunk, arrival.child);
            hub.compute(Kernel::Scan { x }, Job::Exchange(Task::Scan(arrival)));
        }
    }

    fn on_scanned(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, arrival: Arrival, result: KernelResult) {
        let Arrival { epoch, from, chunk, child, mut part, mut next } = arrival;
        if !self.epochs.end(epoch) {
            return;
        }
        if let KernelResult::NonFinite { index } = result {
            let reason = Rejection::NonFinite { shard: ShardId(chunk as u32), index };
            hub.event(Event::Rejected { peer: from, reason });
            hub.counters.rejected += 1;
            part.weight = 0;
        }
        // The round that was the next when the part came may have begun since.
        next &= self.chunks.get(chunk).is_reduced();
        self.chunks.add_part(chunk, child, next, part);
        self.maybe_reduce(hub, replica, chunk);
    }

    /// Makes the mean of a chunk when the own contribution and the parts of all children are here.
    fn maybe_reduce(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize) {
        let Phase::Running { own: Some(own) } = self.phase else { return };
        let state = self.chunks.get(chunk);
        if state.is_reduced() || self.routes.children(chunk).any(|(child, _)| state.part(child).is_none()) {
            return;
        }
        // In the order of the children, so that the sum does not depend on which part comes first.
        let mut inputs = [None; MEAN_MAX];
        let contribution = self.chunks.segment(self.contribution, chunk);
        inputs[0] = (own.weight > 0).then_some((contribution, own.weight));
        let mut finishing = own.finishing;
        for (child, _) in self.routes.children(chunk) {
            let Some(part) = state.part(child) else { continue };
            finishing &= part.finishing;
            inputs[child + 1] = (part.weight > 0).then_some((self.chunks.inbox(chunk, child), part.weight));
        }
        let weight = inputs.iter().flatten().fold(0u32, |sum, (_, weight)| sum.saturating_add(*weight));
        if planted!(hub, DenominatorByCount) {
            inputs.iter_mut().flatten().for_each(|(_, weight)| *weight = 1);
        }
        // A mean of this node's contribution alone is sent from where it is. At the root it becomes the result, which
        // needs a buffer of its own.
        let own = inputs[1..].iter().all(Option::is_none) && self.routes.parent(chunk).is_some();
        let mean = Mean { weight, finishing };
        *self.chunks.progress_mut(chunk) = Progress::Reduced { mean, own };
        if weight == 0 || own {
            return self.on_reduced(hub, replica, chunk);
        }
        let (epoch, into) = (self.epochs.begin(), self.chunks.result(chunk));
        hub.compute(Kernel::Mean { inputs, into }, Job::Exchange(Task::Reduce { epoch, chunk }));
    }

    fn on_reduced(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize) {
        if let Some(parent) = self.routes.parent(chunk) {
            self.send_up(hub, chunk, parent);
        } else if let Progress::Reduced { mean, .. } = self.chunks.get(chunk).progress {
            self.on_result(hub, replica, chunk, mean);
        }
    }

    fn send_up(&mut self, hub: &mut Port<'_, Job>, chunk: usize, parent: PeerId) {
        let Progress::Reduced { mean, own } = self.chunks.get(chunk).progress else { return };
        if !hub.is_agreed(parent) {
            return;
        }
        *self.chunks.progress_mut(chunk) = Progress::Sending;
        let from = if own { self.chunks.segment(self.contribution, chunk) } else { self.chunks.result(chunk) };
        let message = Message::Up(self.message(chunk, mean));
        let task = Task::Up { epoch: self.epochs.begin_sending(), chunk };
        hub.transmit(parent, message, mean.body(from), Job::Exchange(task));
    }

    fn message(&self, chunk: usize, mean: Mean) -> Part {
        let Mean { weight, finishing } = mean;
        Part { view: self.view, round: self.round, chunk: chunk as u32, weight, finishing }
    }

    /// A mean has been sent up, and its buffer is free for the result.
    fn on_up_sent(&mut self, epoch: Epoch, chunk: usize) {
        let current = self.epochs.end_sending(epoch);
        let progress = self.chunks.progress_mut(chunk);
        if current && *progress == Progress::Sending {
            *progress = Progress::Sent;
        }
    }

    // Down

    /// The result of a chunk.
    pub(super) fn on_down(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part) {
        let peer = incoming.peer;
        let chunk = match self.check(&incoming, &part) {
            Ok(chunk) => chunk,
            Err(reason) => return hub.close(peer, reason),
        };
        let progress = self.chunks.get(chunk).progress;
        let due = matches!(progress, Progress::Sending | Progress::Sent);
        if self.routes.parent(chunk) != Some(peer) || part.round != self.round || !due {
            return hub.close(peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        }
        let result = Mean { weight: part.weight, finishing: part.finishing };
        if result.weight == 0 {
            return self.on_result(hub, replica, chunk, result);
        }
        if progress == Progress::Sending {
            // The parent has the mean already, but this node's transmission has not ended: its buffer is still lent.
            return hub.hold(incoming);
        }
        let epoch = self.epochs.begin();
        let into = if self.is_direct(chunk) {
            self.chunks.segment(replica.next_parameters(), chunk)
        } else {
            self.chunks.result(chunk)
        };
        hub.receive(&incoming, into, Job::Exchange(Task::Result { epoch, chunk, result }));
    }

    /// Is a message a result whose buffer is still lent to a transmission?
    pub(super) fn must_wait(&self, message: &Message) -> bool {
        let Message::Down(part) = message else { return false };
        let chunk = part.chunk as usize;
        chunk < self.chunks.count() && self.chunks.get(chunk).progress == Progress::Sending
    }

    /// A chunk's result is here: passes it on, and makes the next parameters of it.
    fn on_result(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize, result: Mean) {
        self.chunks.set_result(chunk, result);
        self.send_down(hub, chunk, None);
        // The next parameters have a place of their own: the present ones stay until all of the round is here.
        let place = |buffer| self.chunks.segment(buffer, chunk);
        if result.weight == 0 {
            for (old, new) in replica.vectors() {
                hub.compute(self.commit.unchanged(place(old), place(new)), Job::Exchange(Task::Commit));
            }
        } else if !self.is_direct(chunk) {
            let (old, new) = (place(replica.parameters()), place(replica.next_parameters()));
            hub.compute(self.commit.kernel(old, self.chunks.result(chunk), 1.0, new), Job::Exchange(Task::Commit));
        }
    }

    /// Is a chunk's result received right where the next parameters are? Not if it is sent on: a transmission lends
    /// whole buffers.
    fn is_direct(&self, chunk: usize) -> bool {
        self.commit.is_identity() && self.routes.children(chunk).next().is_none() && !self.routes.is_alone()
    }

    /// Sends a result to the children that have not been sent it: to all, or only to one.
    fn send_down(&mut self, hub: &mut Port<'_, Job>, chunk: usize, only: Option<PeerId>) {
        let Progress::Done { result, mut sent } = self.chunks.get(chunk).progress else { return };
        let message = Message::Down(self.message(chunk, result));
        for (child, peer) in self.routes.children(chunk) {
            if sent & 1 << child != 0 || only.is_some_and(|only| only != peer) || !hub.is_agreed(peer) {
                continue;
            }
            sent |= 1 << child;
            let task = Task::Down { epoch: self.epochs.begin_sending() };
            hub.transmit(peer, message, result.body(self.chunks.result(chunk)), Job::Exchange(task));
        }
        *self.chunks.progress_mut(chunk) = Progress::Done { result, sent };
    }

    /// A member that was not connected is connected now: sends the messages that are due to it.
    pub(super) fn send_due(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if !matches!(self.phase, Phase::Running { .. }) {
            return;
        }
        for chunk in 0..self.chunks.count() {
            if self.routes.parent(chunk) == Some(peer) {
                self.send_up(hub, chunk, peer);
            }
            self.send_down(hub, chunk, Some(peer));
        }
    }

    /// The planted bug: chunks of a round that is not complete change the parameters.
    #[cfg_attr(not(planted), allow(dead_code, reason = "called when it is planted"))]
    pub(super) fn apply_half(&self, hub: &mut Port<'_, Job>, replica: &Replica) {
        for (chunk, _) in self.chunks.results().filter(|(_, result)| result.weight > 0) {
            let (from, into) = (self.chunks.result(chunk), self.chunks.segment(replica.parameters(), chunk));
            hub.compute(Kernel::Copy { from, into }, Job::Exchange(Task::Commit));
        }
    }
}
