//! The greeting of [`Streams`]: the exchange and check of preambles on a new connection, and the address book that rank
//! 0 sends to all nodes.
//!
//! The dialling node sends its preamble first. The accepting node checks it and answers with its own preamble, which
//! either accepts or carries a [`Refusal`]. Only an accepted connection becomes a peer's link.

use std::io;
use std::time::Instant;

use gradwire_core::{Input, PeerId};

use super::Streams;
use crate::carrier::{Carrier, Stream};
use crate::causes::Cause;
use crate::control;
use crate::link::State;
use crate::notice::{Clusters, Notice, Refusal, Runs, StreamError};
use crate::preamble::{KnownRun, Preamble};

impl<C: Carrier> Streams<C> {
    /// This node's preamble for the node of rank `to`. `calls`: this node has dialled it.
    fn preamble(&self, to: usize, calls: bool, refusal: Option<Refusal>) -> Preamble {
        Preamble {
            cluster: self.cluster,
            cluster_name: self.config.cluster.clone(),
            nodes: self.config.nodes,
            rank: self.config.rank.0,
            to: to as u32,
            instance: self.instance,
            address: self.carrier.own_address(),
            run: self.run,
            out_of_turn: calls && !self.dials(to),
            refusal,
        }
    }

    /// Continues a greeting as far as the bytes that have come allow.
    pub(super) fn greet(&mut self, slot: usize, now: Instant) -> Result<(), StreamError> {
        match self.try_greet(slot, now) {
            Err(Failure::Connection(error)) => self.on_greeting_failed(slot, &error),
            Err(Failure::Run(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    fn try_greet(&mut self, slot: usize, now: Instant) -> Result<(), Failure> {
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        let dialled = link.dialled.map(|rank| rank as usize);
        if let State::Establishing = link.state {
            let established = link.establish()?;
            if dialled.is_none() && link.stream.is_proven() {
                self.strangers.prove(slot);
            }
            if !established {
                return Ok(());
            }
            // The accepting side sends nothing yet: a stranger learns nothing before it has identified itself.
            if let Some(rank) = dialled {
                let preamble = self.preamble(rank, true, None);
                if let Some(link) = &mut self.links[slot] {
                    link.greet(&preamble)?;
                }
            }
        }
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        let Some(theirs) = link.read_preamble()? else { return Ok(()) };
        match dialled {
            Some(rank) => self.on_answer(slot, rank, &theirs, now),
            None => self.on_caller(slot, theirs, now),
        }
    }

    /// The runs, if both are known and differ. Runs of different clusters differ as well, if they are only proposed.
    fn different_runs(&self, theirs: &Preamble) -> Option<Runs> {
        let decided = |run: &KnownRun| run.known || theirs.cluster != self.cluster;
        let (ours, theirs) = (self.run.filter(decided)?.run, theirs.run.filter(decided)?.run);
        (ours != theirs).then_some(Runs { ours, theirs })
    }

    /// Takes the run of a peer, if this node knows no run.
    fn adopt_run(&mut self, theirs: &Preamble) {
        let Some(new) = theirs.run else { return };
        let Some(own) = self.run else {
            self.run = Some(new);
            return;
        };
        // Of two proposals, that of rank 0's present process counts.
        if own.known || !(new.known || (theirs.rank == 0 && self.config.rank != PeerId(0))) {
            return;
        }
        self.run = Some(new);
        if own.run != new.run && self.config.rank == PeerId(0) {
            // Peers that have adopted the proposal must hear of the run before anything else happens between them and
            // this node: they greet again.
            for slot in 0..self.links.len() {
                if self.links[slot].as_ref().is_some_and(|link| matches!(link.state, State::Open { .. })) {
                    self.break_link(slot, format!("greeting again, since the run is {}", new.run));
                }
            }
        }
    }

    /// The checks that both sides make: run, cluster, number of nodes, and the rank that the sender expects here.
    fn mismatch(&self, theirs: &Preamble) -> Option<Refusal> {
        let (nodes, me) = (self.config.nodes, self.config.rank.0);
        if self.different_runs(theirs).is_some() {
            return Some(Refusal::Run);
        }
        if theirs.cluster != self.cluster {
            return Some(Refusal::Cluster { expected: self.cluster, got: theirs.cluster });
        }
        if theirs.nodes != nodes {
            return Some(Refusal::Nodes { expected: nodes.into(), got: theirs.nodes.into() });
        }
        if theirs.to != me {
            return Some(Refusal::NotHere { expected: me.into(), got: theirs.to.into() });
        }
        None
    }

    /// The answer to a preamble that this node sent to `rank`.
    fn on_answer(&mut self, slot: usize, rank: usize, theirs: &Preamble, now: Instant) -> Result<(), Failure> {
        // The peer's own reason comes first: it has seen both preambles.
        let mismatch = theirs.refusal.or_else(|| self.mismatch(theirs)).or_else(|| {
            let (expected, got) = (rank as u64, u64::from(theirs.rank));
            (expected != got).then_some(Refusal::NotHere { expected, got })
        });
        let Some(reason) = mismatch else {
            self.adopt_run(theirs);
            self.open(slot, rank, theirs.instance, now);
            return Ok(());
        };
        self.remove(slot);
        let runs = self.different_runs(theirs).filter(|_| reason == Refusal::Run);
        let peer = &mut self.peers[rank];
        let address = peer.address.clone().unwrap_or_default();
        if let Some(runs) = runs {
            let (peer, runs) = (PeerId(rank as u32), Box::new(runs));
            return Err(Failure::Run(StreamError::OtherRun { peer, address, runs }));
        }
        if let Refusal::Cluster { .. } = reason {
            let (peer, ours, theirs) = (PeerId(rank as u32), self.config.cluster.clone(), theirs.cluster_name.clone());
            return Err(Failure::Run(StreamError::OtherCluster { peer, address, ours, theirs }));
        }
        let since = *peer.refused_since.get_or_insert(now);
        let peer = PeerId(rank as u32);
        // A temporary reason has `dead_after` to pass: by then a process that has died no longer holds its rank.
        if !reason.is_temporary() || now > since + self.config.dead_after {
            return Err(Failure::Run(StreamError::Refused { peer, address, reason }));
        }
        if since == now {
            (self.config.notices)(Notice::Refused { peer, address, reason });
        }
        Ok(())
    }

    /// The preamble of a node that dialled this one.
    fn on_caller(&mut self, slot: usize, theirs: Preamble, now: Instant) -> Result<(), Failure> {
        let (rank, nodes) = (theirs.rank as usize, self.config.nodes);
        let refusal = self.mismatch(&theirs).or_else(|| {
            if rank == self.config.rank.index() {
                return Some(Refusal::Taken { rank: rank as u64 });
            }
            // Both nodes of a pair know which of them dials, if they agree on the number of servers, and all nodes dial
            // rank 0. This also keeps `rank` within `peers` below.
            if rank >= nodes as usize || rank == 0 || theirs.out_of_turn != self.dials(rank) {
                return Some(Refusal::Rank { expected: nodes.into(), got: theirs.rank.into() });
            }
            let peer = &self.peers[rank];
            let alive = peer.link.and_then(|slot| self.links[slot].as_ref());
            // Half of the time after which a silent peer is disconnected: a restarted process need not wait for all of
            // it when its former connection ended without a trace.
            // A connection over which no message has come counts from its start: otherwise a process that completes the
            // greeting, and then sends nothing but signs of life, would keep the node of this rank out.
            let alive = alive.is_some_and(|link| {
                let heard_at = if link.spoke { link.heard_at } else { link.started_at };
                now < heard_at + self.silence() / 2
            });
            // The same process may always replace its own connection.
            (peer.open && alive && peer.instance != theirs.instance).then_some(Refusal::Taken { rank: rank as u64 })
        });
        if refusal.is_none() && self.is_redundant(rank, theirs.instance, now) {
            // Without an answer, the caller dials again if it has to.
            self.remove(slot);
            return Ok(());
        }
        let mut address = None;
        let refusal = refusal.or_else(|| {
            // An address from the configuration is not replaced by an announced one.
            if self.carrier.address(PeerId(theirs.rank)).is_some() {
                return None;
            }
            let link = self.links[slot].as_ref()?;
            match self.carrier.complete(&theirs.address, &link.stream) {
                Ok(complete) => address = Some(complete),
                Err(_) => return Some(Refusal::Address { rank: rank as u64 }),
            }
            None
        });
        let runs = self.different_runs(&theirs);
        if refusal.is_none() {
            self.adopt_run(&theirs);
        }
        let answer = self.preamble(rank, false, refusal);
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        link.greet(&answer)?;
        if let Some(refusal) = refusal {
            // Closing only the sending direction lets the peer read the refusal.
            link.stream.shutdown();
            if let Some(link) = self.remove(slot) {
                let cause = Cause::Refused { code: refusal.code().0, rank: theirs.rank };
                let (ours, name) = (self.config.cluster.clone(), theirs.cluster_name);
                let reason = || match (runs, refusal) {
                    (Some(runs), _) => runs.to_string(),
                    (None, Refusal::Cluster { .. }) => Clusters { ours: &ours, theirs: &name }.to_string(),
                    (None, refusal) => refusal.to_string(),
                };
                self.count_rejected(&link, cause, Some(refusal), || format!("rank {rank}: {}", reason()));
            }
            return Ok(());
        }
        // The former connection must be reported as broken before the new one is reported as open.
        if let Some(old) = self.peers[rank].link {
            self.break_link(old, "replaced by a new connection of the same rank".to_string());
        }
        if let Some(address) = address {
            self.peers[rank].address = Some(address);
        }
        self.open(slot, rank, theirs.instance, now);
        if self.config.rank == PeerId(0) {
            self.send_book(rank);
        }
        Ok(())
    }

    /// Makes a greeted connection the link of its peer, and reports it to the machine and the user.
    pub(super) fn open(&mut self, slot: usize, rank: usize, instance: u64, now: Instant) {
        let Some(link) = &mut self.links[slot] else { return };
        link.state = State::Open { peer: rank };
        (link.heard_at, link.queued_at, link.started_at) = (now, now, now);
        self.strangers.remove(slot);
        link.stream.greeted();
        let (address, obstacle) = (link.stream.seen(), link.stream.obstacle());
        let peer = &mut self.peers[rank];
        (peer.link, peer.open, peer.instance) = (Some(slot), true, instance);
        (peer.attempts, peer.failed_handshakes, peer.busy_until) = (0, 0, None);
        (peer.refused_since, peer.unreachable_notice_at) = (None, now);
        (peer.told, peer.wants, peer.spare_since) = (true, true, None);
        peer.unseen_connects += 1;
        let peer = PeerId(rank as u32);
        (self.config.notices)(Notice::Connected { peer, address });
        if let Some(reason) = obstacle {
            (self.config.notices)(Notice::Slow { peer, reason });
        }
        self.ready.push_back(Input::Connected { peer });
        self.tell_wish(rank);
    }

    // Addresses

    /// Sends the newcomer the addresses of all other nodes, and each other node the address of the newcomer.
    fn send_book(&mut self, newcomer: usize) {
        let known = |rank: usize| Some((rank as u32, self.peers[rank].address.as_deref()?));
        let all = control::emit_book((1..self.peers.len()).filter(|rank| *rank != newcomer).filter_map(known));
        let one = control::emit_book(known(newcomer).into_iter());
        for rank in 1..self.peers.len() {
            let Some(slot) = self.peers[rank].link.filter(|_| self.peers[rank].open) else { continue };
            let book = if rank == newcomer { &all } else { &one };
            // An empty book consists of its checksum, 4 bytes.
            if let Some(link) = self.links[slot].as_mut().filter(|_| book.len() > 4) {
                link.writer.book(book.clone());
            }
            self.mark_runnable(slot);
        }
    }

    /// An address book from the peer `from`. Only the meeting point, rank 0, may send one.
    pub(super) fn on_book(&mut self, from: usize, book: Vec<(u32, String)>) {
        let me = self.config.rank.0;
        if from != 0 {
            return;
        }
        let zero = self.peers[0].link.and_then(|slot| self.links[slot].as_ref());
        let local = |address: String| match zero {
            Some(zero) => self.carrier.localize(&address, &zero.stream),
            None => address,
        };
        let book: Vec<_> = book.into_iter().map(|(rank, address)| (rank, local(address))).collect();
        for (rank, address) in book {
            let fits = rank != 0 && rank != me && rank < self.config.nodes && self.carrier.may_dial(&address);
            let Some(peer) = self.peers.get_mut(rank as usize).filter(|_| fits) else { continue };
            if peer.address.as_ref() != Some(&address) {
                peer.address = Some(address);
                // Attempts at the old address say nothing about the new one: dial now, with the shortest pauses.
                (peer.attempts, peer.dial_at, peer.failed_handshakes) = (0, Instant::now(), 0);
                self.timer = Instant::now();
            }
        }
    }
}

/// The reach of a failed greeting.
enum Failure {
    /// This connection has failed. Dialling is retried.
    Connection(io::Error),
    /// The run must end.
    Run(StreamError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connection(error)
    }
}
