//! How a mesh is founded, and how a peer that comes later takes a snapshot: marks, base and ledger.

use super::*;

impl Mesh {
    /// Rank 0 starts the mesh with its own parameters, once all its neighbours are there and none is running.
    pub(super) fn maybe_found(&mut self) {
        let joining = self.state == State::Joining { provider: None, based: false };
        let fresh = |n: &Neighbour| n.start.is_some() && !n.running;
        if self.hub.setup.me == PeerId(0) && joining && self.neighbours.iter().all(fresh) {
            self.state = State::Basing;
            self.hub.compute(Kernel::Copy { from: self.whole(VIEW), into: self.whole(BASE) }, Job::Based);
        }
    }

    /// Asks a neighbour for parameters: one that has them, or rank 0 (in a relay tree, the parent), which will.
    pub(super) fn maybe_fetch(&mut self) {
        let State::Joining { provider, .. } = self.state else { return };
        if self.retry.is_some_and(|retry| self.hub.now() < retry) {
            return;
        }
        self.retry = None;
        if provider.is_some_and(|provider| self.hub.is_agreed(provider)) {
            return;
        }
        let me = self.hub.setup.me;
        let ready = |n: &&Neighbour| n.start.is_some() && self.hub.is_agreed(n.peer);
        let running = self.neighbours.iter().filter(ready).find(|n| n.running);
        let founder = self.neighbours.iter().filter(ready).find(|n| n.peer < me && (self.relay || n.peer == PeerId(0)));
        let result = running.or(founder).map(|n| n.peer);
        self.state = State::Joining { provider: result, based: false };
        if let Some(provider) = result {
            self.fetch = ShardId(self.fetch.0.wrapping_add(1));
            self.hub.notify(provider, Header { shard: self.fetch, ..self.hub.header(Kind::Fetch) });
        }
    }

    /// Answers one who asks, when the marks say what is in the ledger.
    pub(super) fn maybe_provide(&mut self) {
        let unsure = matches!(self.state, State::Joining { .. } | State::Basing | State::Encoding { .. });
        if unsure || self.applying + self.sending_snapshot > 0 {
            return;
        }
        let Some((to, shard)) = self.fetches.pop_front() else { return };
        if !self.hub.is_agreed(to) {
            return;
        }
        for (origin, mark) in self.marks.iter().enumerate() {
            let origin = PeerId(origin as u32);
            let (incarnation, sequence) = (mark.incarnation, mark.sequence);
            let (weight, clock) = (u32::from(!mark.lost), Clock(mark.last.map_or(0, |last| last.0 + 1)));
            let header = Header { shard, origin, incarnation, sequence, weight, clock, ..self.hub.header(Kind::Mark) };
            self.hub.notify(to, header);
        }
        self.sending_snapshot = 2;
        let base = self.whole(BASE);
        let seed = Header { shard, length: base.len, ..self.hub.header(Kind::Seed) };
        self.hub.transmit(to, seed, Some(base), Job::SendSnapshot);
        self.hub.compute(
            Kernel::Copy { from: self.whole(LEDGER), into: self.whole(SNAPSHOT) },
            Job::Snapshot { to, shard },
        );
    }

    pub(super) fn on_snapshot(&mut self, to: PeerId, shard: ShardId) {
        if !self.hub.is_agreed(to) {
            self.sending_snapshot -= 1;
            return;
        }
        let snapshot = self.whole(SNAPSHOT);
        let header = Header { shard, clock: self.applied, length: snapshot.len, ..self.hub.header(Kind::Ledger) };
        self.hub.transmit(to, header, Some(snapshot), Job::SendSnapshot);
    }

    /// Marks, base and ledger are here. They serve if no message falls between them and the neighbours' streams.
    pub(super) fn on_ledger(&mut self) {
        let whole = |n: &Neighbour| {
            let mark = self.marks[n.peer.index()];
            let same = mark.incarnation == self.hub.incarnation(n.peer);
            match n.start {
                Some(start) => !same || mark.sequence >= start,
                None => Self::is_whole(&mark) || mark.incarnation == Incarnation(0),
            }
        };
        if !self.neighbours.iter().all(whole) {
            let pause = self.hub.setup.patience.dead_after() / 20;
            self.retry = Some(self.hub.now().after(pause.max(Duration::from_millis(10))));
            self.state = State::Joining { provider: None, based: false };
            return;
        }
        for neighbour in &self.neighbours {
            let incarnation = self.hub.incarnation(neighbour.peer);
            let mark = &mut self.marks[neighbour.peer.index()];
            if let Some(start) = neighbour.start.filter(|_| mark.incarnation != incarnation) {
                *mark = Mark { incarnation, sequence: start, ..Mark::default() };
            }
        }
        self.state = State::Basing;
        self.materialise(Job::Based);
    }

    pub(super) fn on_again(&mut self) {
        if self.sequence == Sequence(0) {
            self.encoding.forget().for_each(|kernel| self.hub.compute(kernel, Job::Clip));
            self.hub.event(Event::Outdated);
        }
    }

    pub(super) fn on_based(&mut self) {
        self.state = State::Held;
        self.hub.has = true;
        self.maybe_release();
        for to in 0..self.neighbours.len() {
            self.tell_start(to);
        }
    }

    /// The first ranks begin alone, until they have made so many messages or cannot make them any more (Strom 2015,
    /// section 4: a model far from anything is best moved by few).
    pub(super) fn maybe_release(&mut self) {
        let correction = self.hub.setup.recipe.correction;
        let (starters, me) = (correction.starters, self.hub.setup.me);
        let done = |mark: &Mark| mark.lost || mark.last.is_some();
        let ahead = self.marks.iter().take(starters as usize);
        let free = starters == 0 || me.0 < starters || ahead.clone().all(done) || {
            let made: u64 = ahead.map(|mark| mark.sequence.0).sum();
            made >= u64::from(correction.head_start)
        };
        match self.state {
            // What the others have done in the meantime is in the ledger.
            State::Held if free && self.applied > self.seen => {
                self.state = State::Basing;
                self.materialise(Job::Based);
            }
            State::Held if free => {
                self.state = State::Ready;
                self.hub.signal(Signal::Joined { clock: Clock(self.sequence.0) });
            }
            _ => {}
        }
    }

    /// Says where own quanta on this connection begin, and whether this node has parameters.
    pub(super) fn tell_start(&mut self, to: usize) {
        let peer = self.neighbours[to].peer;
        if self.hub.is_agreed(peer) {
            let weight = u32::from(!matches!(self.state, State::Joining { .. } | State::Basing));
            // What it has not acknowledged is sent again; the rest went by before it was a member.
            let me = self.hub.setup.me;
            let pending = self.slots.iter().filter(|slot| slot.pending[to]).filter_map(|slot| slot.message);
            let first = pending.filter(|message| message.origin == me).map(|message| message.first).min();
            let sequence = first.map_or(self.sequence, |first| Sequence(first.0 - 1));
            let header = Header { base: Clock(1), sequence, weight, ..self.hub.header(Kind::Mark) };
            self.hub.notify(peer, header);
        }
    }
}
