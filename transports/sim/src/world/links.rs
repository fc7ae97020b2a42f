//! Connections: messages under way, and connections that break and are re-established.

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{Input, Machine, OpId, PeerId, Segment};

use super::{Link, Scheduled, World};
use crate::network::{Message, Stream};
use crate::node::{Life, Side};

impl World {
    /// The link between two nodes, which comes up if it has not before.
    pub(super) fn link(&mut self, a: PeerId, b: PeerId) -> &mut Link {
        // Of the two, the node with fewer links: servers and coordinators have many.
        let [few, many] = match self.routes[a.index()].len() <= self.routes[b.index()].len() {
            true => [a, b],
            false => [b, a],
        };
        let routes = &self.routes[few.index()];
        let number = match routes.binary_search_by_key(&many, |(peer, _)| *peer) {
            Ok(place) => routes[place].1,
            Err(_) => self.add_link(a, b),
        };
        &mut self.links[number as usize]
    }

    fn add_link(&mut self, a: PeerId, b: PeerId) -> u32 {
        let number = self.links.len() as u32;
        self.links.push(Link::default());
        for (node, peer) in [(a, b), (b, a)] {
            let routes = &mut self.routes[node.index()];
            let place = routes.partition_point(|(other, _)| *other < peer);
            routes.insert(place, (peer, number));
        }
        number
    }

    /// A node's side of the connection with a peer.
    pub(super) fn side(&mut self, me: PeerId, peer: PeerId) -> &mut Side {
        &mut self.link(me, peer).sides[usize::from(me > peer)]
    }

    // Wishes

    /// Notes the peers that the machine of a node wants. Returns the peers for which that has changed, by rank.
    fn note_wishes(&mut self, me: PeerId) -> Vec<PeerId> {
        let node = &mut self.nodes[me.index()];
        let Some(machine) = node.machine.as_ref() else { return Vec::new() };
        node.wanted_seen = Some(machine.wanted_changes());
        let wanted = machine.wanted();
        let before = self.routes[me.index()].iter().filter(|(peer, link)| {
            self.links[*link as usize].sides[usize::from(me > *peer)].wanted && wanted.binary_search(peer).is_err()
        });
        let mut changed: Vec<PeerId> = before.map(|(peer, _)| *peer).collect();
        for peer in &changed {
            self.side(me, *peer).wanted = false;
        }
        for peer in wanted {
            let side = self.side(me, peer);
            if !side.wanted {
                side.wanted = true;
                changed.push(peer);
            }
        }
        changed.sort_unstable();
        changed
    }

    /// Connects and disconnects a node if its machine wants other peers than before.
    pub(super) fn follow_wishes(&mut self, me: PeerId) {
        let node = &self.nodes[me.index()];
        let changes = node.machine.as_ref().map(Machine::wanted_changes);
        if changes == node.wanted_seen {
            return;
        }
        for peer in self.note_wishes(me) {
            let link = self.link(me, peer);
            let (wanted, connected) = (link.is_wanted(), link.connected);
            if wanted && !connected && self.nodes[peer.index()].life == Life::Up {
                self.reconnect(me, peer);
            } else if !wanted {
                self.disconnect(me, peer);
            }
        }
    }

    /// A process starts: it is connected with the peers that it wants, and with those that want it.
    pub(super) fn connect_all(&mut self, me: PeerId) {
        self.note_wishes(me);
        for (peer, link) in self.routes[me.index()].clone() {
            let link = &mut self.links[link as usize];
            link.sides[usize::from(me > peer)].restart();
            if link.is_wanted() && self.nodes[peer.index()].life == Life::Up {
                self.reconnect(me, peer);
            }
        }
    }

    /// A process ends: its connections break.
    pub(super) fn disconnect_all(&mut self, me: PeerId) {
        for (peer, _) in self.routes[me.index()].clone() {
            let side = self.side(me, peer);
            (side.receiving, side.wanted) = (None, false);
            self.disconnect(me, peer);
        }
    }

    // Connections

    pub(super) fn stream(&mut self, from: PeerId, to: PeerId) -> &mut Stream {
        let direction = usize::from(from > to);
        &mut self.link(from, to).streams[direction]
    }

    pub(super) fn reconnect(&mut self, a: PeerId, b: PeerId) {
        let after = self.plan.network.reconnect;
        let at = self.now.after(after);
        let link = self.link(a, b);
        let session = link.session;
        let at = at.max(link.blocked_until).max(link.silent_until[0]).max(link.silent_until[1]);
        self.schedule(at, Scheduled::Connect { a, b, session });
    }

    pub(super) fn disconnect(&mut self, a: PeerId, b: PeerId) {
        let link = self.link(a, b);
        if !link.connected {
            return;
        }
        link.connected = false;
        link.session += 1;
        for (from, to) in [(a, b), (b, a)] {
            let open = std::mem::take(&mut *self.stream(from, to)).open;
            let side = self.side(to, from);
            side.inbox.clear();
            side.reading = false;
            self.side(from, to).limbo.extend(open);
            let torn = self.tear(to, from);
            self.side(to, from).limbo.extend(torn);
        }
        let notice = self.now.after(self.plan.network.notice);
        for (node, peer) in [(a, b), (b, a)] {
            let epoch = self.nodes[node.index()].epoch;
            if matches!(self.nodes[peer.index()].life, Life::Down | Life::Cut(_)) {
                self.schedule(notice, Scheduled::Notice { node, epoch, peer });
            } else {
                self.schedule(self.now, Scheduled::Notice { node, epoch, peer });
            }
        }
    }

    pub(super) fn transmit(&mut self, me: PeerId, op: OpId, peer: PeerId, header: Header, body: Option<Segment>) {
        let node = &mut self.nodes[me.index()];
        let (epoch, body) = (node.epoch, body.map(|body| node.pool.lend(body)));
        let bytes = (HEADER_LEN + body.as_ref().map_or(0, |body| body.bytes().len())) as u64;
        if !self.link(me, peer).connected {
            return self.abort(me, peer, op);
        }
        let (network, start) = self.traffic.send(self.plan.network, me, peer, self.now, bytes);
        let mut random = self.random.clone();
        let link = self.link(me, peer);
        let (session, blocked_until) = (link.session, link.blocked_until);
        let stream = self.stream(me, peer);
        stream.open.push(op);
        let flight = stream.send(&network, &mut random, start, bytes);
        self.random = random;
        let message = Message { op, header: header.emit(), body, line: Some(flight.line) };
        if network.buffered {
            self.schedule(flight.sent, Scheduled::Sent { node: me, epoch, peer, session, op });
        }
        for at in flight.arrivals.into_iter().flatten() {
            let (from, to, number, message) = (me, peer, flight.number, message.clone());
            let at = if at < blocked_until { blocked_until.after(network.retransmit) } else { at };
            self.schedule(at, Scheduled::Arrival { from, to, session, number, message });
        }
    }

    /// Aborts an operation on a broken connection: now if the machine knows that it is broken, else when it learns of
    /// it.
    pub(super) fn abort(&mut self, me: PeerId, peer: PeerId, op: OpId) {
        let now = self.now;
        let side = self.side(me, peer);
        if side.connected {
            side.limbo.push(op);
        } else {
            let machine = self.nodes[me.index()].machine.as_mut().expect("it has just begun the operation");
            machine.handle_input(now, Input::Aborted { op }).expect("an open operation");
        }
    }

    pub(super) fn on_arrival(
        &mut self,
        from: PeerId,
        to: PeerId,
        session: u64,
        number: u64,
        mut message: Message,
    ) -> Option<PeerId> {
        let (now, retransmit) = (self.now, self.plan.network.retransmit);
        let link = self.link(from, to);
        if link.session != session || !link.connected {
            return None;
        }
        let blocked_until = link.blocked_until.max(*link.silent_until(from, to));
        if blocked_until > now {
            let at = blocked_until.after(retransmit);
            self.schedule(at, Scheduled::Arrival { from, to, session, number, message });
            return None;
        }
        let bytes = message.bytes();
        if let Some(at) = self.traffic.receive(to, &mut message, now, bytes) {
            self.schedule(at, Scheduled::Arrival { from, to, session, number, message });
            return None;
        }
        let link = self.link(from, to);
        let (stream, side) = (&mut link.streams[usize::from(from > to)], &mut link.sides[usize::from(to > from)]);
        let mut ready = stream.arrive(number, message);
        while let Some(message) = ready {
            side.inbox.push_back(message);
            ready = stream.take_early();
        }
        if side.is_due() {
            self.nodes[to.index()].note_due(from);
        }
        self.deliver(to)
    }

    /// Delivers the headers that a node can take: of each peer, the next one unless a body of the peer is unread.
    pub(super) fn deliver(&mut self, me: PeerId) -> Option<PeerId> {
        if self.nodes[me.index()].paused_until > self.now {
            return None;
        }
        let (mut touched, mut first) = (None, PeerId(0));
        // In order of rank, so that a run does not depend on the order in which peers have become due.
        loop {
            let due = &self.nodes[me.index()].due;
            let Some(peer) = due.get(due.partition_point(|peer| *peer < first)).copied() else { break };
            while let Some(header) = self.next_header(me, peer) {
                touched = self.feed(me, Input::Header { peer, header });
                touched?;
            }
            let due = &mut self.nodes[me.index()].due;
            if let Ok(place) = due.binary_search(&peer) {
                due.remove(place);
            }
            first = PeerId(peer.0 + 1);
        }
        touched
    }

    pub(super) fn next_header(&mut self, me: PeerId, peer: PeerId) -> Option<Header> {
        let runs = self.nodes[me.index()].machine.is_some();
        let side = self.side(me, peer);
        if !runs || side.reading {
            return None;
        }
        let message = side.inbox.front()?;
        let header = Header::parse(&message.header).expect("headers travel unharmed");
        if message.body.is_some() {
            side.reading = true;
        } else {
            let message = side.take()?;
            self.received(me, peer, message.op);
        }
        Some(header)
    }

    /// Completes the sender's operation now that the receiver has the message. A link that buffers has completed it
    /// already.
    pub(super) fn received(&mut self, me: PeerId, peer: PeerId, op: OpId) {
        if !self.plan.network.buffered {
            let at = self.now.after(self.plan.lines.latency(&self.plan.network, me, peer));
            let (epoch, session) = (self.nodes[peer.index()].epoch, self.link(me, peer).session);
            self.schedule(at, Scheduled::Sent { node: peer, epoch, peer: me, session, op });
        }
    }
}
