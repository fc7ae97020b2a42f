//! The exchange of trees and rings: parts of chunks go up to the chunks' roots, and results go to all members.
//!
//! With a codec, every node encodes the mean that it sends up, and the root encodes the result, which all nodes pass on
//! as it is. So all members decode the same body. Each node keeps the error of its own encoding in a residual
//! ([`Hops`]).
//!
//! A *chain* is the path of a chunk from a node that has no children in the chunk's tree until its result is at that node. A
//! node begins few chains at once ([`Window`]): what is under way fits in the caches.
//!
//! With `merge=adasum`, a node merges its contribution with the results of its children, one after the other, in a tree of
//! pairs ([`Shape::Pairs`]). The merge measures tensors, so each chunk is a tensor.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::Job;
use super::chunks::{Chunks, Mean, Progress, Sharing, Takers, even, uneven};
use super::exchange::{Exchange, Outcome, Phase, Round, reject};
use super::hops::Hops;
use super::operations::{Arrival, Epoch, Task};
use super::replica::Replica;
use super::shape::{Routes, Shape};
use super::window::{Limits, Window};
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, ShardId};
use crate::kernel::{Kernel, KernelResult, MEAN_MAX};
use crate::layout::cut;
use crate::machine::commit::Commit;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::machine::{Event, ProtocolError, Rejection};
use crate::recipe::{Merge, Payload};
use crate::rider::Riders;
use crate::status::{Rest, Status};
use crate::wire::{Kind, Message, Part, WEIGHT_MAX};

/// The rounds of a tree or ring.
#[derive(Debug)]
pub(super) struct Reduce {
    routes: Routes,
    chunks: Chunks,
    /// How the contributions of a node and of its children become one.
    merge: Merge,
    /// The codec of the messages; `None` if they are plain floats.
    hops: Option<Hops>,
    /// The application's contribution.
    contribution: BufferId,
    commit: Commit,
    /// The contribution is to be measured when all of it is there.
    measures: bool,
    /// The chains that begin at this node.
    window: Window,
    /// Chunks whose parts are all here, and that wait for a buffer. At most all chunks.
    waiting: VecDeque<usize>,
    round: Round,
}

impl Reduce {
    /// An exchange without members. Declares the buffers of the chunks; a node that is no worker has no buffers.
    pub(super) fn new(hub: &mut Hub, is_worker: bool, contribution: BufferId, commit: Commit) -> Self {
        let Hub { setup, vectors, .. } = hub;
        let (merge, workers) = (setup.recipe.merge, setup.cluster.workers as usize);
        let shape = Shape::of(setup.recipe.topology, merge, workers);
        let ends = match shape {
            _ if !is_worker => Vec::new(),
            // The merge measures tensors, so a tensor is sent when all of it is there.
            Shape::Pairs { .. } => uneven(&cut(&setup.tensors, &(0..setup.len))),
            _ => even(setup.len, setup.recipe.chunk_len(setup.len, setup.cluster.workers)),
        };
        // In a ring, each chain visits a node once, so that no more parts can come than chains are under way at the other
        // members. In a tree, no more parts of a child can come than chains are under way at a member below it: all
        // members begin them in the order of the chunks. Gradients that are given range by range have no such bound.
        let limits = match shape {
            Shape::Ring => Limits::ring(setup.under_way),
            _ => Limits::tree(setup.under_way),
        };
        let chains = ends.first().map_or(0, |len| limits.chains_max(len * 4));
        let sharing = match shape {
            Shape::Ring => Sharing {
                inboxes: Some(chains.saturating_mul(workers.saturating_sub(1))),
                // The next chain can begin while the result of the last one is still on its way to other members.
                results: Some(chains.saturating_add(1).saturating_mul(workers)),
            },
            // A mean or a result without a buffer waits until another one has been sent. A part has its inbox at the
            // parent, so means always get away, and so do the results that follow them.
            Shape::Tree { .. } => {
                let bounded = setup.recipe.payload() != Payload::Gradients;
                Sharing { inboxes: bounded.then_some(chains), results: Some(2 * chains) }
            }
            // Tensors have different lengths.
            Shape::Pairs { .. } => Sharing::default(),
        };
        let chunks = Chunks::new(ends, shape.width(), sharing, setup.keep_below, vectors);
        let hops = Hops::new(&setup.recipe, &chunks, shape.width(), vectors);
        let (routes, round) = (Routes::new(shape), Round::new(chunks.len()));
        let window = Window::new(chunks.count(), limits);
        let waiting = VecDeque::with_capacity(chunks.count());
        Self { routes, chunks, merge, hops, contribution, commit, measures: false, window, waiting, round }
    }

    /// The kernel that merges the own contribution and those of the children, which are vectors with their examples.
    fn kernel(&self, inputs: [Option<(Segment, u64)>; MEAN_MAX], into: Segment) -> Kernel {
        match self.merge {
            Merge::Adasum => Kernel::Adasum { inputs: inputs.map(|input| input.map(|(x, _)| x)), into },
            _ => Kernel::Mean { inputs, into },
        }
    }

    /// Checks the chunk and the length of a part or result.
    fn check(&self, incoming: &Incoming, part: &Part) -> Result<usize, ProtocolError> {
        let chunk = part.chunk as usize;
        if chunk >= self.chunks.count() {
            return Err(ProtocolError::NoSuchShard { got: ShardId(part.chunk) });
        }
        let length = self.hops.as_ref().map_or_else(|| self.chunks.bytes(chunk), |hops| hops.body(chunk).len);
        let expected = if part.weight > 0 { length } else { 0 };
        if incoming.length != expected {
            let kind = incoming.message.kind();
            return Err(ProtocolError::Length { kind, expected, got: incoming.length });
        }
        Ok(chunk)
    }

    // Up

    fn on_arrived(&mut self, hub: &mut Port<'_, Job>, arrival: Arrival) {
        if !self.round.epochs.end(arrival.epoch) {
            return;
        }
        self.round.epochs.begin();
        let (chunk, child, x) = (arrival.chunk, arrival.child, arrival.inbox);
        let kernel = match &self.hops {
            // A body that can be decoded has no float that is not finite.
            Some(hops) => hops.expand(hops.inbox(chunk, child), x),
            None => Kernel::Scan { x },
        };
        hub.compute(kernel, Job::Exchange(Task::Scan(arrival)));
    }

    fn on_scanned(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, arrival: Arrival, result: KernelResult) {
        let Arrival { epoch, from, chunk, child, mut part, inbox, mut next } = arrival;
        if !self.round.epochs.end(epoch) {
            return;
        }
        let reason = match result {
            KernelResult::NonFinite { index } => Some(Rejection::NonFinite { shard: ShardId(chunk as u32), index }),
            KernelResult::Malformed(error) => Some(Rejection::Malformed(error)),
            _ => None,
        };
        if let Some(reason) = reason {
            reject(hub, from, reason);
            part.weight = 0;
        }
        let inbox = Some(inbox).filter(|_| part.weight > 0);
        if inbox.is_none() {
            self.chunks.free_inbox(arrival.inbox);
        }
        // The round that was the next when the part came may have begun since.
        next &= self.chunks.get(chunk).is_reduced();
        self.chunks.add_part(chunk, child, next, part, inbox);
        self.maybe_reduce(hub, replica, chunk);
    }

    /// Measures the contribution, if that is due and all of it is there.
    fn maybe_measure(&mut self, hub: &mut Port<'_, Job>) {
        if self.measures && self.round.given.is_whole() {
            self.measures = false;
            let x = Segment::floats(self.contribution, 0, self.chunks.len());
            hub.compute(Kernel::Norm { x, limit: 0.0 }, Job::Exchange(Task::Measure));
        }
    }

    /// Does a chunk's chain begin at this node?
    fn begins(&self, chunk: usize) -> bool {
        self.routes.children(chunk).next().is_none() && !self.routes.is_alone()
    }

    /// Begins chains that have waited for others to end.
    fn begin_due(&mut self, hub: &mut Port<'_, Job>, replica: &Replica) {
        while let Phase::Running { own: Some(own) } = self.round.phase {
            let Some(chunk) = self.window.begin_due(|chunk| self.chunks.bytes(chunk)) else { return };
            self.reduce(hub, replica, chunk, own);
        }
    }

    /// Merges a chunk when the own contribution to it and the parts of all children are here.
    fn maybe_reduce(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize) {
        let Phase::Running { own: Some(own) } = self.round.phase else { return };
        let state = self.chunks.get(chunk);
        if state.is_reduced() || self.routes.children(chunk).any(|(child, _)| state.part(child).is_none()) {
            return;
        }
        let contribution = self.chunks.segment(self.contribution, chunk);
        if own.weight > 0 && !self.round.given.has(contribution) {
            return;
        }
        // A message without a body costs nothing. But the next member can add a body to it, which needs an inbox.
        let counts = own.weight > 0 || self.routes.is_ring() || self.chunks.share_inboxes();
        if counts && self.begins(chunk) && !self.window.begin(hub.now(), chunk, contribution.len) {
            *self.chunks.progress_mut(chunk) = Progress::Due;
            return;
        }
        self.reduce(hub, replica, chunk, own);
    }

    /// Merges a chunk of which all parts are here.
    fn reduce(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize, own: Mean) {
        let (state, contribution) = (self.chunks.get(chunk), self.chunks.segment(self.contribution, chunk));
        // In the order of the children, so that the sum does not depend on which part comes first.
        let mut inputs = [None; MEAN_MAX];
        inputs[0] = (own.weight > 0).then_some((contribution, own.weight));
        let (mut finishing, mut riders) = (own.finishing, Riders::nothing());
        riders.add(own.rider, own.weight);
        for (child, _) in self.routes.children(chunk) {
            let Some(part) = state.part(child) else { continue };
            finishing &= part.finishing;
            riders.add(part.rider, part.weight);
            inputs[child + 1] = (part.weight > 0).then_some((self.chunks.inbox(chunk, child), part.weight));
        }
        let weight = inputs.iter().flatten().map(|(_, weight)| weight).sum::<u64>().min(WEIGHT_MAX);
        if planted!(hub, DenominatorByCount) {
            inputs.iter_mut().flatten().for_each(|(_, weight)| *weight = 1);
        }
        // A mean of this node's contribution alone is sent from where it is. At the root it becomes the result, which
        // needs a buffer of its own.
        let own = inputs[1..].iter().all(Option::is_none) && self.routes.parent(chunk).is_some();
        // A transmission lends the whole buffer, which the application still writes until all of it is there. The mean
        // of one vector is a copy of it. A codec's message has a buffer of its own.
        let own = own && (self.round.given.is_whole() || self.hops.is_some());
        let mean = Mean { weight, finishing, rider: riders.mean() };
        let into = match weight > 0 && !own {
            false => contribution,
            true => match self.chunks.take_result(chunk) {
                Some(into) => into,
                None => {
                    *self.chunks.progress_mut(chunk) = Progress::Due;
                    return self.waiting.push_back(chunk);
                }
            },
        };
        *self.chunks.progress_mut(chunk) = Progress::Reduced { mean, own };
        let reduce = (weight > 0 && !own).then(|| self.kernel(inputs, into));
        let encode = self.hops.as_mut().map(|hops| match weight {
            0 => [Some(hops.skip(contribution)), None],
            _ => hops.encode(chunk, into, contribution).map(Some),
        });
        // The last of these kernels says when the message is there. Kernels run in order.
        let kernels = reduce.into_iter().chain(encode.into_iter().flatten().flatten());
        let mut kernels = kernels.peekable();
        if kernels.peek().is_none() || weight == 0 {
            kernels.for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
            return self.on_reduced(hub, replica, chunk);
        }
        let epoch = self.round.epochs.begin();
        while let Some(kernel) = kernels.next() {
            let task = if kernels.peek().is_some() { Task::Commit } else { Task::Reduce { epoch, chunk } };
            hub.compute(kernel, Job::Exchange(task));
        }
    }

    /// A chunk's message is there, encoded if there is a codec.
    fn on_made(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize, result: KernelResult) {
        let Some(hops) = &mut self.hops else { return self.on_reduced(hub, replica, chunk) };
        if let Some(index) = hops.on_encoded(chunk, result, &mut hub.counters) {
            let (me, shard) = (hub.setup.me, ShardId(chunk as u32));
            hub.event(Event::Rejected { peer: me, reason: Rejection::NonFinite { shard, index } });
        }
        if self.routes.parent(chunk).is_some() {
            // The message is the encoded body.
            self.chunks.free_result(chunk);
        } else if let Some(into) = self.chunks.result(chunk) {
            // The root takes the result that all other nodes decode.
            let kernel = hops.expand(hops.body(chunk), into);
            hub.compute(kernel, Job::Exchange(Task::Commit));
        }
        self.on_reduced(hub, replica, chunk);
        self.reduce_waiting(hub, replica);
    }

    /// Merges chunks that have waited for a buffer.
    fn reduce_waiting(&mut self, hub: &mut Port<'_, Job>, replica: &Replica) {
        while let Phase::Running { own: Some(own) } = self.round.phase {
            let Some(chunk) = self.waiting.front().copied().filter(|chunk| self.chunks.has_result_buffer(*chunk))
            else {
                return;
            };
            self.waiting.pop_front();
            self.reduce(hub, replica, chunk, own);
        }
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
        if !self.round.can_reach(hub, parent) {
            return;
        }
        *self.chunks.progress_mut(chunk) = Progress::Sending;
        // Without a buffer: there is no body, or the contribution or a codec's message is the body.
        let plain = self.chunks.segment(self.contribution, chunk);
        let plain = self.chunks.result(chunk).filter(|_| !own).unwrap_or(plain);
        let from = self.hops.as_ref().map_or(plain, |hops| hops.body(chunk));
        let message = Message::Up(self.round.part(chunk as u32, mean));
        let task = Task::Up { epoch: self.round.epochs.begin_sending(), chunk };
        let dense = mean.body(plain).map_or(0, |plain| plain.len);
        hub.transmit_coded(parent, message, mean.body(from), dense, Job::Exchange(task));
    }

    /// The transmission of a mean has ended, also without success: its buffer is free for the result. In a ring, the result
    /// comes from another member than the one that the mean went to. So it can come although the connection with that one
    /// has broken, and must not be held in front of the coordinator's messages.
    fn on_up_sent(&mut self, epoch: Epoch, chunk: usize) {
        let current = self.round.epochs.end_sending(epoch);
        let progress = self.chunks.progress_mut(chunk);
        if current && *progress == Progress::Sending {
            *progress = Progress::Sent;
            self.chunks.free_result(chunk);
        }
    }

    /// A transmission of a result has ended, also without success.
    fn on_down_sent(&mut self, epoch: Epoch, chunk: usize, taker: usize) {
        if self.round.epochs.end_sending(epoch) {
            self.chunks.end_sending(chunk, taker);
        }
    }

    // Down

    /// A result has been received, and is decoded first if it is encoded.
    fn on_result_arrived(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize, result: Mean) {
        let Some(hops) = &self.hops else { return self.on_result(hub, replica, chunk, result) };
        let Some(into) = self.chunks.result(chunk) else { unreachable!("taken before the reception") };
        let kernel = hops.expand(hops.body(chunk), into);
        let epoch = self.round.epochs.begin();
        hub.compute(kernel, Job::Exchange(Task::Expand { epoch, chunk, result }));
    }

    fn on_expanded(
        &mut self,
        hub: &mut Port<'_, Job>,
        replica: &Replica,
        chunk: usize,
        mean: Mean,
        result: KernelResult,
    ) {
        if let KernelResult::Malformed(error) = result {
            // Without this result the round cannot end. The connection breaks, and the next view begins the round anew.
            let Some(peer) = self.routes.giver(chunk) else { return };
            reject(hub, peer, Rejection::Malformed(error));
            return hub.close(peer, ProtocolError::Unexpected { kind: Kind::Down });
        }
        self.on_result(hub, replica, chunk, mean);
    }

    /// A chunk's result is here: passes it on, and makes the next parameters of it.
    fn on_result(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, chunk: usize, result: Mean) {
        let owed = self.routes.takers(chunk).map(|(taker, _)| taker).collect();
        self.chunks.set_result(chunk, result, owed);
        self.send_down(hub, chunk, None);
        // The next parameters have a place of their own: the present ones stay until all of the round is here.
        let place = |buffer| self.chunks.segment(buffer, chunk);
        if result.weight == 0 {
            for (old, new) in replica.vectors() {
                hub.compute(self.commit.unchanged(place(old), place(new)), Job::Exchange(Task::Commit));
            }
        } else if !self.is_direct(chunk) {
            let (old, new) = (place(replica.parameters()), place(replica.next_parameters()));
            let Some(merged) = self.chunks.result(chunk) else { unreachable!("a result that is here has a buffer") };
            let factors = self.commit.factors(1.0, result.rider);
            let kernel = self.commit.kernel(old.start, old, merged, factors, new, replica.places());
            hub.compute(kernel, Job::Exchange(Task::Commit));
            // Kernels end before transfers that are asked for later.
            self.chunks.free_result(chunk);
        }
        self.window.end(hub.now(), chunk);
        self.begin_due(hub, replica);
        self.reduce_waiting(hub, replica);
    }

    /// Is a chunk's result received right where the next parameters are? Not if it is sent on: a transmission lends
    /// whole buffers. Parameters travel as plain floats, without a codec.
    fn is_direct(&self, chunk: usize) -> bool {
        self.hops.is_none()
            && self.commit.is_identity()
            && self.routes.takers(chunk).next().is_none()
            && !self.routes.is_alone()
    }

    /// Sends a result to the takers that it is owed to: to all, or only to one.
    fn send_down(&mut self, hub: &mut Port<'_, Job>, chunk: usize, only: Option<PeerId>) {
        let Progress::Done { result, mut owed } = self.chunks.get(chunk).progress else { return };
        if owed.is_empty() {
            return;
        }
        let message = Message::Down(self.round.part(chunk as u32, result));
        let body = match &self.hops {
            _ if result.weight == 0 => None,
            Some(hops) => Some(hops.body(chunk)),
            None => self.chunks.result(chunk),
        };
        let dense = if result.weight > 0 { self.chunks.bytes(chunk) } else { 0 };
        for (taker, peer) in self.routes.takers(chunk) {
            if !owed.has(taker) || only.is_some_and(|only| only != peer) || !self.round.can_reach(hub, peer) {
                continue;
            }
            owed.remove(taker);
            let task = Task::Down { epoch: self.round.epochs.begin_sending(), chunk, taker };
            self.chunks.begin_sending(chunk, taker);
            hub.transmit_coded(peer, message, body, dense, Job::Exchange(task));
        }
        if planted!(hub, TakerForgotten) {
            owed = Takers::default();
        }
        *self.chunks.progress_mut(chunk) = Progress::Done { result, owed };
    }
}

impl Exchange for Reduce {
    fn round(&self) -> &Round {
        &self.round
    }

    fn round_mut(&mut self) -> &mut Round {
        &mut self.round
    }

    fn enter(&mut self, me: PeerId, view: &View, round: Clock) {
        self.round.enter(view, round);
        self.chunks.reset();
        self.routes.set(me, &view.members);
    }

    fn partners(&self) -> Vec<PeerId> {
        self.routes.neighbours().collect()
    }

    /// In a tree whose chunks share their inboxes, members begin their chains in one order.
    fn takes_ranges(&self) -> bool {
        self.routes.is_ring() || !self.chunks.share_inboxes()
    }

    fn on_given(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, range: &Range<usize>) {
        if self.round.is_running() {
            self.maybe_measure(hub);
            for chunk in self.chunks.within(range) {
                self.maybe_reduce(hub, replica, chunk);
            }
        }
    }

    fn begin(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, own: Mean) {
        self.round.phase = Phase::Running { own: Some(own) };
        if planted!(hub, BrokenRoundInResidual) {
            self.on_advanced();
        }
        self.waiting.clear();
        self.window.begin_round(self.round.given.is_whole() || self.routes.is_ring());
        self.measures = self.hops.as_mut().is_some_and(|hops| hops.begin(own.weight > 0));
        self.maybe_measure(hub);
        for chunk in 0..self.chunks.count() {
            self.maybe_reduce(hub, replica, chunk);
        }
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        if !self.round.is_running() || !self.chunks.is_complete() {
            return None;
        }
        let changed = self.chunks.results().any(|(_, result)| result.weight > 0);
        let last = self.chunks.results().all(|(_, result)| result.finishing);
        // In a ring each chunk adds up in an order of its own. All members take the first.
        let rider = self.chunks.results().next().and_then(|(_, result)| result.rider);
        self.chunks.next_round();
        self.on_advanced();
        let outcome = Outcome { changed, last, rider };
        self.round.complete(outcome);
        Some(outcome)
    }

    fn on_advanced(&mut self) {
        self.hops.iter_mut().for_each(Hops::complete);
    }

    /// The member that the first chunk without a result waits for; with all results here, the one that is to take the first.
    fn awaited(&self) -> Option<PeerId> {
        let missing = self.chunks.first_missing().filter(|_| !self.round.is_done());
        let Some(index) = missing else {
            let (chunk, takers) = self.chunks.first_untaken()?;
            return self.routes.takers(chunk).find(|(taker, _)| takers.has(*taker)).map(|(_, member)| member);
        };
        let chunk = self.chunks.get(index);
        let child = self.routes.children(index).find(|(child, _)| chunk.part(*child).is_none());
        child.map(|(_, member)| member).or_else(|| self.routes.giver(index))
    }

    /// The children that have sent a part of this round.
    fn contributors(&self) -> Vec<PeerId> {
        let of = |index| {
            let chunk = self.chunks.get(index);
            self.routes.children(index).filter(move |(child, _)| chunk.part(*child).is_some())
        };
        (0..self.chunks.count()).flat_map(of).map(|(_, member)| member).collect()
    }

    fn on_up(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part) {
        let peer = incoming.peer;
        let chunk = match self.check(&incoming, &part) {
            Ok(chunk) => chunk,
            Err(reason) => return hub.close(peer, reason),
        };
        let Some((child, _)) = self.routes.children(chunk).find(|(_, member)| *member == peer) else {
            return hub.close(peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        };
        // A child may have the result of this round before this node, and be at the next round.
        let next = part.round == self.round.number.next();
        let state = self.chunks.get(chunk);
        let fits = part.round == self.round.number || (next && state.is_reduced());
        if !fits || state.part_of(child, next).is_some() {
            return hub.close(peer, ProtocolError::Gap { expected: self.round.number.0, got: part.round.0 });
        }
        let mean = Mean::of(&part);
        if mean.weight == 0 {
            hub.counters.empty += 1;
            self.chunks.add_part(chunk, child, next, mean, None);
            return self.maybe_reduce(hub, replica, chunk);
        }
        if !self.round.epochs.is_clear() {
            // A message of an earlier view may still be on its way into the same buffer.
            return hub.hold(incoming);
        }
        let Some(inbox) = self.chunks.take_inbox(chunk, child) else { return hub.hold(incoming) };
        let arrival = Arrival { epoch: self.round.epochs.begin(), from: peer, chunk, child, part: mean, inbox, next };
        let into = self.hops.as_ref().map_or(inbox, |hops| hops.inbox(chunk, child));
        hub.receive(&incoming, into, Job::Exchange(Task::Receive(arrival)));
    }

    fn on_down(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part) {
        let peer = incoming.peer;
        let chunk = match self.check(&incoming, &part) {
            Ok(chunk) => chunk,
            Err(reason) => return hub.close(peer, reason),
        };
        let progress = self.chunks.get(chunk).progress;
        let due = matches!(progress, Progress::Sending | Progress::Sent);
        if self.routes.giver(chunk) != Some(peer) || part.round != self.round.number || !due {
            return hub.close(peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
        }
        let result = Mean::of(&part);
        if result.weight == 0 {
            return self.on_result(hub, replica, chunk, result);
        }
        if progress == Progress::Sending {
            // The mean is in the result already, but this node's transmission has not ended: its buffer is still lent.
            return hub.hold(incoming);
        }
        let into = if self.is_direct(chunk) {
            self.chunks.segment(replica.next_parameters(), chunk)
        } else {
            let Some(into) = self.chunks.take_result(chunk) else { return hub.hold(incoming) };
            self.hops.as_ref().map_or(into, |hops| hops.body(chunk))
        };
        let epoch = self.round.epochs.begin();
        hub.receive(&incoming, into, Job::Exchange(Task::Result { epoch, chunk, result }));
    }

    /// Is a message a result whose buffer is still lent to a transmission, or a part for which there is no place?
    fn must_wait(&self, incoming: &Incoming) -> bool {
        let part = match incoming.message {
            Message::Down(part) => part,
            Message::Up(part) => return part.weight > 0 && !self.chunks.has_inbox(),
            _ => return false,
        };
        let chunk = part.chunk as usize;
        if chunk >= self.chunks.count() {
            return false;
        }
        match self.chunks.get(chunk).progress {
            Progress::Sending => part.weight > 0,
            Progress::Sent => part.weight > 0 && !self.is_direct(chunk) && !self.chunks.has_result_buffer(chunk),
            _ => false,
        }
    }

    fn send_due(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if !self.round.is_running() {
            return;
        }
        for chunk in 0..self.chunks.count() {
            if self.routes.parent(chunk) == Some(peer) {
                self.send_up(hub, chunk, peer);
            }
            self.send_down(hub, chunk, Some(peer));
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, task: Task, result: KernelResult) {
        match task {
            Task::Receive(arrival) => self.on_arrived(hub, arrival),
            Task::Scan(arrival) => self.on_scanned(hub, replica, arrival, result),
            Task::Reduce { epoch, chunk } => {
                if self.round.epochs.end(epoch) {
                    self.chunks.free_inboxes(chunk);
                    self.on_made(hub, replica, chunk, result);
                }
            }
            Task::Up { epoch, chunk } => {
                self.on_up_sent(epoch, chunk);
                self.reduce_waiting(hub, replica);
            }
            Task::Down { epoch, chunk, taker } => {
                self.on_down_sent(epoch, chunk, taker);
                self.reduce_waiting(hub, replica);
            }
            Task::Result { epoch, chunk, result } => {
                if self.round.epochs.end(epoch) {
                    self.on_result_arrived(hub, replica, chunk, result);
                }
            }
            Task::Expand { epoch, chunk, result: mean } => {
                if self.round.epochs.end(epoch) {
                    self.on_expanded(hub, replica, chunk, mean, result);
                }
            }
            Task::Measure => self.hops.iter_mut().for_each(|hops| hops.on_measured(result)),
            Task::Commit => {}
            Task::Gather(_) => unreachable!("a task of a mesh"),
        }
    }

    fn on_failed(&mut self, task: Task) {
        match task {
            // The message comes again in the next view, which begins when the connection is back.
            Task::Receive(Arrival { epoch, .. }) | Task::Result { epoch, .. } => {
                self.round.epochs.end(epoch);
            }
            // The connection has broken, and the round begins anew. Chunks that wait for a buffer wait until then.
            Task::Up { epoch, chunk } => self.on_up_sent(epoch, chunk),
            Task::Down { epoch, chunk, taker } => self.on_down_sent(epoch, chunk, taker),
            // Kernels are not aborted.
            Task::Scan(_) | Task::Reduce { .. } | Task::Expand { .. } | Task::Measure | Task::Commit => {}
            Task::Gather(_) => unreachable!("a task of a mesh"),
        }
    }

    fn on_rate(&mut self, _scale: f32) {}

    fn residuals(&self) -> Vec<BufferId> {
        self.hops.iter().map(Hops::residual).collect()
    }

    fn report(&self, status: Status) -> Status {
        match &self.hops {
            Some(hops) => hops.report(status),
            None => status,
        }
    }

    fn take_rest(&mut self, _hub: &mut Hub) -> Option<Rest> {
        self.hops.as_ref().and_then(Hops::rest)
    }

    fn apply_half(&self, hub: &mut Port<'_, Job>, replica: &Replica) {
        for (chunk, _) in self.chunks.results().filter(|(_, result)| result.weight > 0) {
            let place = |buffer| self.chunks.segment(buffer, chunk);
            let (from, into) = (place(replica.next_parameters()), place(replica.parameters()));
            hub.compute(Kernel::Copy { from, into }, Job::Exchange(Task::Commit));
        }
    }
}
