//! The exchange of a mesh with rounds: every member sends its encoded contribution to every other one, and all of them
//! add up the same bodies in rank order (the exchange of Lin et al. 2018, DGC).
//!
//! ```text
//! round r:  contribution -> encoded once, with residual -> Up to all members
//! Up from all -> sum, in rank order: sum += (weight / first weight) * body -> parameters -= first weight / all * sum
//! ```
//! All members compute on the same bytes in the same order, so replicas are equal bit for bit. A contribution is encoded
//! once: if the round begins anew in another view, the same body is sent again, and the residual stays as it is.
//!
//! Bodies are received in rank order, which needs few buffers. A body that is not due yet stays with its sender, and
//! stands in front of the sender's later messages. Two members send messages that must not wait for other members: the
//! member at the coordinator's node, and the donor of the view, which sends its state to members that lack it. The
//! bodies of these two have buffers of their own, the former's for this round and for the next.

use alloc::vec::Vec;
use core::ops::Range;

use super::Job;
use super::chunks::Mean;
use super::exchange::{Exchange, Outcome, Phase, Round, reject};
use super::operations::{Epoch, Step, Task};
use super::replica::Replica;
use crate::buffer::{BufferId, Segment};
use crate::id::{Clock, PeerId, ShardId};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::commit::Commit;
use crate::machine::encoding::Encoding;
use crate::machine::hub::{Hub, Incoming, Port};
use crate::machine::views::View;
use crate::machine::{Event, ProtocolError, Rejection};
use crate::recipe::Merge;
use crate::rider::Riders;
use crate::status::{Rest, Status};
use crate::vectors::Keep;
use crate::wire::{Message, Part};

/// Buffers for bodies of members in rank order: one is received while another is added.
const IN_ORDER: Range<usize> = 0..2;
/// Buffers for the bodies of the member at the coordinator's node.
const OF_HOST: Range<usize> = 2..4;
/// The buffer for the donor's body of this round.
const OF_DONOR: Range<usize> = 4..5;

/// The rounds of a mesh.
#[derive(Debug)]
pub(super) struct Gather {
    /// The members of the view, by rank, and this node's position among them.
    members: Vec<Member>,
    me: usize,
    /// The member at the coordinator's node; `None` if that node is no member.
    host: Option<PeerId>,
    /// The donor of the view.
    donor: PeerId,
    encoding: Encoding,
    /// The message of this node that is not in a round yet.
    own: Own,
    /// Messages that this node has encoded.
    made: u64,
    /// The application's contribution.
    contribution: Segment,
    body: Segment,
    inboxes: [Inbox; OF_DONOR.end],
    /// The sum of the bodies, in units of the first weight.
    sum: Segment,
    /// One body as floats; empty with a sparse codec.
    floats: Segment,
    /// With means over senders: the examples behind each element of the sum.
    counts: Option<Segment>,
    added: Added,
    commit: Commit,
    round: Round,
}

/// A member of the view.
#[derive(Copy, Clone, Debug)]
struct Member {
    peer: PeerId,
    /// Its messages of this round and of the next. It may be a round ahead of this node.
    messages: [Arrived; 2],
    /// This node's message of the round has been sent to it.
    sent: bool,
    /// That transmission has not ended.
    sending: bool,
}

/// A member's message of one round.
#[derive(Copy, Clone, Debug, Default)]
struct Arrived {
    /// Its header, once that is here and there is an inbox for the body.
    part: Option<Mean>,
    /// The body, which is there or is being received.
    body: Option<Segment>,
    /// There is no body, or all of it is there.
    ready: bool,
}

/// A buffer for the body of one message.
#[derive(Copy, Clone, Debug)]
struct Inbox {
    room: Segment,
    used: bool,
}

/// How far the own message is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Own {
    /// The contribution is not encoded.
    Raw,
    /// It is being encoded.
    Encoding,
    /// It is in the body, in so many bytes.
    Encoded { length: u32 },
}

/// How far the sum is.
#[derive(Copy, Clone, Debug)]
struct Added {
    /// Members that are counted: their messages are in the sum, or carry no body.
    members: usize,
    /// A message is being added.
    busy: bool,
    /// Weight of the first message in the sum, 0 without one.
    first: u64,
    /// Weight of all messages in the sum.
    weight: u64,
    /// All workers so far make no more contributions.
    finishing: bool,
    /// The sum of the riders of the added messages.
    riders: Riders,
}

impl Added {
    const fn nothing() -> Self {
        let riders = Riders::nothing();
        Self { members: 0, busy: false, first: 0, weight: 0, finishing: true, riders }
    }
}

impl Gather {
    /// An exchange without members. Declares its buffers; a node that is no worker has no buffers.
    pub(super) fn new(
        hub: &mut Port<'_, Job>,
        is_worker: bool,
        host: PeerId,
        contribution: BufferId,
        commit: Commit,
    ) -> Self {
        let Hub { setup, vectors, .. } = &mut **hub;
        let (codec, len) = (setup.recipe.codec, if is_worker { setup.len } else { 0 });
        let whole = core::iter::once(0..len);
        let encoding = if is_worker {
            Encoding::encoder(setup, codec, setup.recipe.correction, whole, vectors)
        } else {
            Encoding::decoder(setup, codec, setup.recipe.correction, whole, vectors)
        };
        let capacity = if is_worker { encoding.len_max(0) } else { 0 };
        let mut room =
            |name| Segment { buffer: vectors.bytes(name, capacity, Keep::No), start: 0, len: capacity as u32 };
        let body = room("the own message");
        let inboxes = [(); OF_DONOR.end].map(|()| Inbox { room: room("a member's message"), used: false });
        let sum = Segment::floats(vectors.floats("sum of the messages", len, Keep::No), 0, len);
        let floats = if codec.is_sparse() { 0 } else { len };
        let floats = Segment::floats(vectors.floats("a message as floats", floats, Keep::No), 0, floats);
        let senders = setup.recipe.merge == Merge::MeanOfSenders;
        let counts =
            senders.then(|| Segment::floats(vectors.floats("examples of each element", len, Keep::No), 0, len));
        let kernels: Vec<Kernel> = if is_worker { encoding.kernels().collect() } else { Vec::new() };
        kernels.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
        Self {
            members: Vec::new(),
            me: 0,
            donor: host,
            host: hub.setup.cluster.is_worker(host).then_some(host),
            encoding,
            own: Own::Raw,
            made: 0,
            contribution: Segment::floats(contribution, 0, len),
            body,
            inboxes,
            sum,
            floats,
            counts,
            added: Added::nothing(),
            commit,
            round: Round::new(len),
        }
    }

    /// The place of a peer in the view.
    fn position(&self, peer: PeerId) -> Option<usize> {
        self.members.iter().position(|member| member.peer == peer)
    }

    // The own message

    fn encode(&mut self, hub: &mut Port<'_, Job>) {
        self.own = Own::Encoding;
        self.made += 1;
        let (norm, _) = self.encoding.prepare(self.contribution, self.made);
        norm.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Measure)));
        let (before, encode) = self.encoding.encode(0, self.made, self.contribution, self.body);
        before.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
        hub.compute(encode, Job::Exchange(Task::Gather(Step::Encode)));
    }

    fn on_encoded(&mut self, hub: &mut Port<'_, Job>, result: KernelResult) {
        let KernelResult::Encoded(encoded) = result else { return };
        self.own = Own::Encoded { length: encoded.bytes };
        self.encoding.on_encoded(0, encoded, &mut hub.counters);
        let unused = self.encoding.give_back(&encoded);
        unused.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
        if let Some(index) = encoded.first_non_finite {
            let (me, shard) = (hub.setup.me, ShardId(0));
            hub.event(Event::Rejected { peer: me, reason: Rejection::NonFinite { shard, index } });
        }
        let (mask, clip) = self.encoding.after(0, self.made, self.body.first(encoded.bytes));
        mask.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
        clip.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Gather(Step::Clip))));
        self.encoding.watch().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
    }

    /// The own message is there: it takes part in the sum, and is sent to all members.
    fn maybe_contribute(&mut self, hub: &mut Port<'_, Job>) {
        let Phase::Running { own: Some(own) } = self.round.phase else { return };
        let length = match self.own {
            _ if own.weight == 0 => 0,
            Own::Encoded { length } => length,
            Own::Raw => return self.encode(hub),
            Own::Encoding => return,
        };
        let body = (own.weight > 0).then(|| self.body.first(length));
        let message = &mut self.members[self.me].messages[0];
        if message.part.is_none() {
            *message = Arrived { part: Some(own), body, ready: true };
        }
        for member in 0..self.members.len() {
            self.send(hub, member);
        }
    }

    fn send(&mut self, hub: &mut Port<'_, Job>, to: usize) {
        let Arrived { part: Some(own), body, .. } = self.members[self.me].messages[0] else { return };
        let Member { peer, sent, .. } = self.members[to];
        if to == self.me || sent || !self.round.can_reach(hub, peer) {
            return;
        }
        (self.members[to].sent, self.members[to].sending) = (true, true);
        let task = Task::Gather(Step::Send { epoch: self.round.epochs.begin_sending(), member: to });
        let message = Message::Up(self.round.part(0, own));
        let dense = body.map_or(0, |_| self.sum.len);
        hub.transmit_coded(peer, message, body, dense, Job::Exchange(task));
    }

    fn on_sent(&mut self, epoch: Epoch, to: usize) {
        if self.round.epochs.end_sending(epoch) {
            self.members[to].sending = false;
        }
    }

    // The members' messages

    /// The inbox for a member's message about this round or the next, if one is free and the message's turn has come.
    fn free_inbox(&self, member: usize, next: bool) -> Option<usize> {
        let is_apart = |peer: PeerId| Some(peer) == self.host || peer == self.donor;
        // In rank order: not before the headers of all members of lower rank are here.
        let is_known =
            |(i, other): (usize, &Member)| i == self.me || is_apart(other.peer) || other.messages[0].part.is_some();
        let peer = self.members[member].peer;
        let (inboxes, is_due) = match next {
            _ if Some(peer) == self.host => (OF_HOST, true),
            false if peer == self.donor => (OF_DONOR, true),
            false => (IN_ORDER, self.members[..member].iter().enumerate().all(is_known)),
            true => (IN_ORDER, false),
        };
        inboxes.into_iter().find(|index| is_due && !self.inboxes[*index].used)
    }

    /// Is this a message about the next round?
    fn is_next(&self, part: &Part) -> bool {
        part.round == self.round.number.next()
    }

    fn check(&self, incoming: &Incoming, part: &Part) -> Result<usize, ProtocolError> {
        let (kind, got) = (incoming.message.kind(), incoming.length);
        let member = self.position(incoming.peer).ok_or(ProtocolError::Unexpected { kind })?;
        if part.chunk != 0 {
            return Err(ProtocolError::NoSuchShard { got: ShardId(part.chunk) });
        }
        let expected = if part.weight > 0 { self.body.len } else { 0 };
        if got > expected || (part.weight > 0 && got == 0) {
            return Err(ProtocolError::Length { kind, expected, got });
        }
        let known = self.members[member].messages[usize::from(self.is_next(part))].part.is_some();
        if known || (part.round != self.round.number && !self.is_next(part)) {
            return Err(ProtocolError::Gap { expected: self.round.number.0, got: part.round.0 });
        }
        Ok(member)
    }

    fn on_received(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, member: usize, round: Clock) {
        let next = usize::from(round != self.round.number);
        self.members[member].messages[next].ready = true;
        self.maybe_add(hub, replica);
    }

    // The sum

    /// Adds the next messages in rank order, as far as they are here. After the last one, makes the next parameters.
    fn maybe_add(&mut self, hub: &mut Port<'_, Job>, replica: &Replica) {
        while self.round.is_running() && !self.added.busy {
            let Some(member) = self.members.get(self.added.members) else { return };
            let Arrived { part: Some(part), body, ready: true } = member.messages[0] else { return };
            self.added.finishing &= part.finishing;
            match body {
                Some(body) => self.add(hub, part.weight, body),
                None => self.on_counted(hub, replica),
            }
        }
    }

    fn add(&mut self, hub: &mut Port<'_, Job>, weight: u64, body: Segment) {
        self.added.busy = true;
        let task = Step::Add { epoch: self.round.epochs.begin() };
        let (coding, sections) = (self.encoding.coding(0, u64::MAX), self.encoding.sections(0));
        let kernel = match (self.added.first, self.counts) {
            (first, Some(counts)) => {
                let unit = if first > 0 { first } else { weight };
                Kernel::ScatterSent { coding, body, sections, weight, unit, first: first == 0, counts, into: self.sum }
            }
            (0, None) => Kernel::Expand { coding, body, sections, into: self.sum },
            _ if self.floats.len == 0 => {
                Kernel::Scatter { coding, body, sections, scale: self.scale(weight), into: self.sum }
            }
            _ => Kernel::Expand { coding, body, sections, into: self.floats },
        };
        hub.compute(kernel, Job::Exchange(Task::Gather(task)));
    }

    fn on_added(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, result: KernelResult) {
        let Member { peer, messages: [message, _], .. } = self.members[self.added.members];
        let weight = message.part.map_or(0, |part| part.weight);
        self.added.busy = false;
        if let KernelResult::Malformed(error) = result {
            reject(hub, peer, Rejection::Malformed(error));
        } else {
            if self.added.first == 0 {
                self.added.first = weight;
            } else if self.floats.len > 0 {
                let kernel =
                    Kernel::Accumulate { update: self.floats, scale: self.scale(weight), first: false, into: self.sum };
                hub.compute(kernel, Job::Exchange(Task::Commit));
            }
            self.added.weight = self.added.weight.saturating_add(weight);
            self.added.riders.add(message.part.and_then(|part| part.rider), weight);
        }
        self.on_counted(hub, replica);
        self.maybe_add(hub, replica);
    }

    /// The factor on a message, in units of the first weight: equal weights, the usual case, are added without a
    /// rounding.
    fn scale(&self, weight: u64) -> f32 {
        (weight as f64 / self.added.first as f64) as f32
    }

    /// A member's message is in the sum, or has no body. After the last one, the next parameters are made.
    fn on_counted(&mut self, hub: &mut Port<'_, Job>, replica: &Replica) {
        let body = self.members[self.added.members].messages[0].body;
        let is_its = |inbox: &&mut Inbox| body.is_some_and(|body| body.buffer == inbox.room.buffer);
        self.inboxes.iter_mut().find(is_its).into_iter().for_each(|inbox| inbox.used = false);
        self.added.members += 1;
        if self.is_complete() && self.added.weight > 0 {
            let place = |buffer| Segment { buffer, ..self.sum };
            let (old, new) = (place(replica.parameters()), place(replica.next_parameters()));
            let unit = self.added.first;
            let share = self.counts.map(|counts| Kernel::MeanSent { counts, unit, x: self.sum });
            let scale = if share.is_some() { 1.0 } else { (unit as f64 / self.added.weight as f64) as f32 };
            share.into_iter().for_each(|kernel| hub.compute(kernel, Job::Exchange(Task::Commit)));
            let factors = self.commit.factors(scale, self.added.riders.mean());
            hub.compute(
                self.commit.kernel(old.start, old, self.sum, factors, new, replica.places()),
                Job::Exchange(Task::Commit),
            );
        }
    }

    /// Are the messages of all members in the sum?
    fn is_complete(&self) -> bool {
        self.added.members == self.members.len() && !self.added.busy
    }
}

impl Exchange for Gather {
    fn round(&self) -> &Round {
        &self.round
    }

    fn round_mut(&mut self) -> &mut Round {
        &mut self.round
    }

    fn enter(&mut self, me: PeerId, view: &View, round: Clock) {
        self.round.enter(view, round);
        self.members.clear();
        let member =
            |peer: &PeerId| Member { peer: *peer, messages: [Arrived::default(); 2], sent: false, sending: false };
        self.members.extend(view.members.iter().map(member));
        self.donor = view.donor;
        self.me = self.position(me).expect("a node that enters a view is a member");
        self.inboxes.iter_mut().for_each(|inbox| inbox.used = false);
        self.added = Added::nothing();
    }

    fn takes_ranges(&self) -> bool {
        // A message is encoded from the whole vector, and added up as a whole.
        false
    }

    fn begin(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, own: Mean) {
        self.round.phase = Phase::Running { own: Some(own) };
        if planted!(hub, EncodedTwice) {
            self.own = Own::Raw;
        }
        self.maybe_contribute(hub);
        self.maybe_add(hub, replica);
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        if !self.round.is_running() || !self.is_complete() {
            return None;
        }
        let Added { weight, finishing, riders, .. } = self.added;
        let outcome = Outcome { changed: weight > 0, last: finishing, rider: riders.mean() };
        self.added = Added::nothing();
        for member in &mut self.members {
            member.messages = [member.messages[1], Arrived::default()];
            member.sent = false;
        }
        self.on_advanced();
        self.round.complete(outcome);
        Some(outcome)
    }

    fn on_advanced(&mut self) {
        self.own = Own::Raw;
    }

    fn awaited(&self) -> Option<PeerId> {
        let is_awaited = |member: &&Member| match self.round.is_done() {
            true => member.sending,
            // After a broken connection, the body is still to come, though its header is here.
            false => !member.messages[0].ready,
        };
        self.members.iter().find(is_awaited).map(|member| member.peer)
    }

    fn contributors(&self) -> Vec<PeerId> {
        let others = self.members.iter().enumerate().filter(|(i, member)| *i != self.me && member.messages[0].ready);
        others.map(|(_, member)| member.peer).collect()
    }

    fn on_up(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, incoming: Incoming, part: Part) {
        let member = match self.check(&incoming, &part) {
            Ok(member) => member,
            Err(reason) => return hub.close(incoming.peer, reason),
        };
        let next = self.is_next(&part);
        let mean = Mean::of(&part);
        if mean.weight == 0 {
            hub.counters.empty += 1;
            self.members[member].messages[usize::from(next)] = Arrived { part: Some(mean), body: None, ready: true };
            return self.maybe_add(hub, replica);
        }
        // A message of an earlier view may still be on its way into an inbox.
        let inbox = self.free_inbox(member, next).filter(|_| self.round.epochs.is_clear());
        let Some(inbox) = inbox else { return hub.hold(incoming) };
        self.inboxes[inbox].used = true;
        let body = self.inboxes[inbox].room.first(incoming.length);
        self.members[member].messages[usize::from(next)] = Arrived { part: Some(mean), body: Some(body), ready: false };
        let task = Step::Receive { epoch: self.round.epochs.begin(), member, round: part.round };
        hub.receive(&incoming, body, Job::Exchange(Task::Gather(task)));
    }

    fn on_down(&mut self, hub: &mut Port<'_, Job>, _replica: &Replica, incoming: Incoming, _part: Part) {
        hub.close(incoming.peer, ProtocolError::Unexpected { kind: incoming.message.kind() });
    }

    fn must_wait(&self, incoming: &Incoming) -> bool {
        let Message::Up(part) = &incoming.message else { return false };
        let member = self.position(incoming.peer).filter(|_| part.weight > 0);
        member.is_some_and(|member| self.free_inbox(member, self.is_next(part)).is_none())
    }

    fn send_due(&mut self, hub: &mut Port<'_, Job>, peer: PeerId) {
        if self.round.is_running()
            && let Some(member) = self.position(peer)
        {
            self.send(hub, member);
        }
    }

    fn on_done(&mut self, hub: &mut Port<'_, Job>, replica: &Replica, task: Task, result: KernelResult) {
        let step = match task {
            Task::Gather(step) => step,
            Task::Measure => return self.encoding.on_measured(result),
            _ => return,
        };
        match step {
            // The message is the same in every view.
            Step::Encode => {
                self.on_encoded(hub, result);
                self.maybe_contribute(hub);
                self.maybe_add(hub, replica);
            }
            Step::Clip => self.encoding.on_clipped(0, result),
            Step::Send { epoch, member } => self.on_sent(epoch, member),
            Step::Receive { epoch, member, round } => {
                if self.round.epochs.end(epoch) {
                    self.on_received(hub, replica, member, round);
                }
            }
            Step::Add { epoch } => {
                if self.round.epochs.end(epoch) {
                    self.on_added(hub, replica, result);
                }
            }
        }
    }

    fn on_failed(&mut self, task: Task) {
        match task {
            Task::Gather(Step::Send { epoch, member }) => self.on_sent(epoch, member),
            // The message comes again in the next view, which begins when the connection is back.
            Task::Gather(Step::Receive { epoch, .. }) => {
                self.round.epochs.end(epoch);
            }
            // Kernels are not aborted.
            _ => {}
        }
    }

    fn on_rate(&mut self, scale: f32) {
        self.encoding.set_rate(scale);
    }

    fn residuals(&self) -> Vec<BufferId> {
        // A contribution is encoded once, so the residual has one place, which is declared to be kept.
        Vec::new()
    }

    fn report(&self, status: Status) -> Status {
        self.encoding.report(status)
    }

    fn take_rest(&mut self, hub: &mut Hub) -> Option<Rest> {
        self.encoding.begin_end();
        self.encoding.late_hint().into_iter().for_each(|hint| hub.event(Event::Hint(hint)));
        self.encoding.take_rest()
    }

    fn apply_half(&self, hub: &mut Port<'_, Job>, replica: &Replica) {
        if self.added.first > 0 {
            let into = Segment { buffer: replica.parameters(), ..self.sum };
            let factors = self.commit.factors(1.0, self.added.riders.mean());
            let kernel = self.commit.kernel(into.start, into, self.sum, factors, into, replica.places());
            hub.compute(kernel, Job::Exchange(Task::Commit));
        }
    }
}
