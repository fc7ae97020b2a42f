//! Messages: others' into the ledger, own ones out of the residual, kept until all who need them have them.

use super::*;

impl Mesh {
    /// Takes the messages that are held, as far as there are slots.
    pub(super) fn maybe_receive(&mut self) {
        if matches!(self.state, State::Joining { .. } | State::Basing) && !planted!(self.hub, SnapshotAppliedLate) {
            return;
        }
        while let Some((peer, header, slot)) = self.next_held() {
            self.hub.release(peer, &header);
            let from = self.index_of(peer).expect("held headers are of neighbours");
            let mark = self.marks[header.origin.index()];
            let Some(slot) = slot else {
                self.hub.counters.duplicates += 1;
                self.hub.discard(peer, header);
                // It is acknowledged when its slot is free; if that is over, the acknowledgement got lost.
                let held = |slot: &Slot| slot.message.is_some_and(|m| m.is(&header)) && slot.from == Some(from);
                if !self.slots.iter().any(held) {
                    self.ack(from, header);
                }
                continue;
            };
            let other = mark.incarnation != header.incarnation && mark.incarnation != Incarnation(0);
            if other || (!self.relay && header.origin != peer) {
                let (expected, got) = (mark.incarnation, header.incarnation);
                self.hub.close(peer, ProtocolError::WrongIncarnation { expected, got });
                continue;
            }
            let follows = header.clock.0 == mark.sequence.next().0 && header.sequence.0 >= header.clock.0;
            if !follows && !planted!(self.hub, NoDedup) {
                let (expected, got) = (mark.sequence.next().0, header.clock.0);
                self.hub.close(peer, ProtocolError::Gap { expected, got });
                continue;
            }
            let Header { origin, incarnation, sequence, base, length, .. } = header;
            let first = Sequence(header.clock.0);
            let message = Message { origin, incarnation, first, sequence, base, length, ready: false };
            self.occupy(slot, Some(from), message);
            if length > 0 {
                self.hub.receive(peer, self.body(slot, length), Job::Receive { slot, from });
            } else {
                self.on_applied(slot, from);
            }
        }
    }

    /// A held message that is known (no slot needed) or for which there is a slot.
    pub(super) fn next_held(&self) -> Option<(PeerId, Header, Option<usize>)> {
        self.hub.held().find_map(|(peer, header)| {
            let mark = self.marks[header.origin.index()];
            if header.incarnation == mark.incarnation
                && header.sequence <= mark.sequence
                && !planted!(self.hub, NoDedup)
            {
                return Some((peer, header, None));
            }
            let from = self.index_of(peer)?;
            let first = OWN_SLOTS + from * INBOUND_SLOTS;
            let slots = if self.relay { first..first + INBOUND_SLOTS } else { OWN_SLOTS..self.slots.len() };
            let free = slots.into_iter().find(|slot| self.slots[*slot].is_free());
            // Two messages of one origin must not be under way at once: the mark is not there yet.
            let busy = self
                .slots
                .iter()
                .any(|slot| slot.message.is_some_and(|message| message.origin == header.origin && !message.ready));
            free.filter(|_| !busy).map(|slot| (peer, header, Some(slot)))
        })
    }

    pub(super) fn on_decoded(&mut self, slot: usize, from: usize, result: KernelResult) {
        self.applying -= 1;
        if let KernelResult::Malformed(error) = result {
            let peer = self.neighbours[from].peer;
            self.slots[slot].message = None;
            self.hub.counters.rejected += 1;
            self.hub.event(Event::Rejected { peer, reason: Rejection::Malformed(error) });
            self.hub.close(peer, ProtocolError::Unexpected { kind: Kind::Quanta });
            return;
        }
        self.on_applied(slot, from);
    }

    pub(super) fn occupy(&mut self, slot: usize, from: Option<usize>, message: Message) {
        self.stamps += 1;
        let entry = &mut self.slots[slot];
        (entry.message, entry.from, entry.stamp) = (Some(message), from, self.stamps);
        entry.sent.fill(false);
        entry.fixed.fill(false);
    }

    /// A message is in the ledger: pass it on if that is this node's task, and acknowledge it.
    pub(super) fn on_applied(&mut self, slot: usize, from: usize) {
        let message = self.slots[slot].message.as_mut().expect("a slot in use holds a message");
        message.ready = true;
        let message = *message;
        self.hub.counters.applied += message.count();
        // One that is the sum of several counts as those, made when the first was.
        for _ in 0..message.count() {
            self.hub.staleness.record(self.applied.ahead_of(message.base));
            self.applied = self.applied.next();
        }
        let mark = &mut self.marks[message.origin.index()];
        (mark.incarnation, mark.sequence) = (message.incarnation, message.sequence);
        if self.relay {
            self.send_to_all(slot, Some(from));
        }
        self.maybe_free(slot);
    }

    pub(super) fn ack(&mut self, to: usize, quanta: Header) {
        let peer = self.neighbours[to].peer;
        if self.hub.is_agreed(peer) {
            let Header { origin, incarnation, sequence, .. } = quanta;
            let header = Header { origin, incarnation, sequence, ..self.hub.header(Kind::Ack) };
            self.hub.notify(peer, header);
        }
    }

    pub(super) fn on_ack(&mut self, from: usize, header: Header) {
        if header.weight == 1 {
            self.neighbours[from].knows[header.origin.index()] = true;
            return;
        }
        for slot in 0..self.slots.len() {
            let Some(message) = self.slots[slot].message else { continue };
            if message.is(&header) {
                self.slots[slot].pending[from] = false;
                self.maybe_free(slot);
            }
        }
        self.send_next(from);
    }

    /// Nobody needs a message any more: its slot is free, and whoever sent it may send another.
    pub(super) fn maybe_free(&mut self, slot: usize) {
        let merging = self.is_merging(slot);
        let entry = &mut self.slots[slot];
        let Some(message) = entry.message.filter(|message| message.ready) else { return };
        if entry.sending > 0 || entry.pending.contains(&true) || merging {
            return;
        }
        entry.message = None;
        if let Some(from) = entry.from.take() {
            self.ack(from, self.quanta(message));
        }
    }

    pub(super) fn on_step(&mut self, weight: u32) -> Result<(), Misuse> {
        if self.state != State::Ready {
            return Err(Misuse::NotReady);
        }
        if weight == 0 {
            self.hub.counters.empty += 1;
            self.view_next();
        } else {
            self.state = State::Blocked { leaving: None };
        }
        Ok(())
    }

    pub(super) fn on_leave(&mut self, stay: bool, keep: bool) -> Result<(), Misuse> {
        match self.state {
            State::Ready if !keep => {
                self.state = State::Blocked { leaving: Some(stay) };
                Ok(())
            }
            State::Ready | State::Joining { .. } | State::Held | State::Blocked { .. } => {
                self.state = State::Leaving { stays: stay, told: false };
                Ok(())
            }
            _ => Err(Misuse::NotReady),
        }
    }

    /// Encodes what the application contributed, or a leaver's rest, into a free slot.
    pub(super) fn maybe_encode(&mut self) {
        let State::Blocked { leaving } = self.state else { return };
        let Some(slot) = (0..OWN_SLOTS).find(|slot| self.slots[*slot].is_free()) else { return };
        let body = self.body(slot, self.encoding.len_max(0) as u32);
        self.sequence = self.sequence.next();
        let (origin, incarnation) = (self.hub.setup.me, self.hub.setup.incarnation);
        let base = self.seen;
        let (first, sequence) = (self.sequence, self.sequence);
        let message = Message { origin, incarnation, first, sequence, base, length: 0, ready: false };
        self.occupy(slot, None, message);
        self.state = State::Encoding { slot, leaving };
        match leaving {
            Some(_) => self.hub.compute(self.encoding.flush(0, body), Job::Encode),
            None => {
                let (before, encode) = self.encoding.encode(0, sequence.0, self.whole(UPDATE), body);
                before.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Aside));
                self.hub.compute(encode, Job::Encode);
            }
        }
        if planted!(self.hub, ResidualDropped) {
            let (update, into) = (self.whole(UPDATE), self.encoding.residual(0));
            self.hub.compute(Kernel::Accumulate { update, scale: 0.0, first: true, into }, Job::Own);
            self.applying += 1;
        }
    }

    pub(super) fn on_encoded(&mut self, result: KernelResult) {
        let (State::Encoding { slot, leaving }, KernelResult::Encoded(encoded)) = (self.state, result) else { return };
        let bytes = encoded.bytes;
        self.encoding.on_encoded(0, encoded, &mut self.hub.counters);
        if let Some(index) = encoded.first_non_finite {
            let reason = Rejection::NonFinite { shard: ShardId(0), index };
            self.hub.event(Event::Rejected { peer: self.hub.setup.me, reason });
        }
        if leaving.is_none() {
            let (mask, clip) = self.encoding.after(0, self.sequence.0, self.body(slot, bytes));
            mask.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Aside));
            clip.into_iter().for_each(|kernel| self.hub.compute(kernel, Job::Clip));
        }
        let message = self.slots[slot].message.as_mut().expect("the slot being encoded holds a message");
        (message.length, message.ready) = (bytes, true);
        self.applying += 1;
        self.applied = self.applied.next();
        // Own messages have a mark like all others: one that is echoed back is known.
        self.marks[self.hub.setup.me.index()].sequence = self.sequence;
        self.hub.compute(self.decode(slot, bytes), Job::Own);
        self.send_to_all(slot, None);
        match leaving {
            None => self.view_next(),
            Some(stays) => self.state = State::Leaving { stays, told: false },
        }
        self.maybe_free(slot);
    }

    pub(super) fn send_to_all(&mut self, slot: usize, except: Option<usize>) {
        for to in 0..self.neighbours.len() {
            if self.neighbours[to].member && Some(to) != except {
                self.slots[slot].pending[to] = true;
                self.slots[slot].fixed[to] = !self.neighbours[to].joined;
                self.send_next(to);
            }
        }
    }

    /// Sends a neighbour what is due to it, in order of arrival, as far as it has slots. One that has no parameters
    /// yet gets nothing: what cannot be taken would stand in front of the snapshot.
    pub(super) fn send_next(&mut self, to: usize) {
        let ready = self.neighbours[to].running || planted!(self.hub, SnapshotAppliedLate);
        if !ready || !self.hub.is_agreed(self.neighbours[to].peer) {
            return;
        }
        loop {
            let open = self.slots.iter().filter(|slot| slot.sent[to] && slot.pending[to]).count();
            let due =
                |slot: &&Slot| slot.pending[to] && !slot.sent[to] && slot.message.is_some_and(|message| message.ready);
            let first = self.slots.iter().filter(due).map(|slot| slot.stamp).min();
            let Some(first) = first.filter(|_| open < INBOUND_SLOTS) else { return };
            let slot = self.slots.iter().position(|slot| slot.message.is_some() && slot.stamp == first);
            // What is being merged goes when that is done, and nothing overtakes it.
            let Some(slot) = slot.filter(|slot| !self.is_merging(*slot)) else { return };
            (self.slots[slot].sent[to], self.slots[slot].fixed[to]) = (true, true);
            self.send(slot, to);
        }
    }

    pub(super) fn send(&mut self, slot: usize, to: usize) {
        let message = self.slots[slot].message.expect("a message to send");
        self.slots[slot].sending += 1;
        let body = (message.length > 0).then(|| self.body(slot, message.length));
        let dense = self.whole(VIEW).len;
        self.hub.transmit_coded(self.neighbours[to].peer, self.quanta(message), body, dense, Job::Send { slot });
    }

    pub(super) fn quanta(&self, message: Message) -> Header {
        let Message { origin, incarnation, first, sequence, base, length, .. } = message;
        let clock = Clock(first.0);
        Header { origin, incarnation, sequence, clock, base, length, ..self.hub.header(Kind::Quanta) }
    }

    pub(super) fn view_next(&mut self) {
        self.state = State::Viewing;
        self.materialise(Job::View);
    }

    pub(super) fn materialise(&mut self, job: Job) {
        self.seen = self.applied;
        let (base, ledger, into) = (self.whole(BASE), self.whole(LEDGER), self.whole(VIEW));
        self.hub.compute(Kernel::Materialise { base, ledger, unit: self.threshold.unit(), into }, job);
    }

    pub(super) fn on_viewed(&mut self) {
        if self.state == State::Closing {
            self.state = State::Left;
            self.hub.signal(Signal::Left);
        } else if self.state == State::Viewing {
            self.state = State::Ready;
            self.hub.signal(Signal::Ready { clock: Clock(self.sequence.0), changed: true });
        }
    }
}
