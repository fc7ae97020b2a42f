//! Who is there: preambles, and the addresses that rank 0 tells everyone.

use std::io;
use std::time::Instant as Clock;

use gradwire_core::{Input, PeerId};

use super::Streams;
use crate::carrier::{Carrier, Stream};
use crate::control;
use crate::link::State;
use crate::notice::{Notice, Refusal, StreamError};
use crate::preamble::Preamble;

impl<C: Carrier> Streams<C> {
    fn preamble(&self, to: usize, refusal: Option<Refusal>) -> Preamble {
        Preamble {
            cluster: self.cluster,
            nodes: self.config.nodes,
            rank: self.config.rank.0,
            to: to as u32,
            instance: self.instance,
            address: self.carrier.own_address(),
            refusal,
        }
    }

    /// Carries a greeting on.
    pub(super) fn greet(&mut self, slot: usize, now: Clock) -> Result<(), StreamError> {
        match self.try_greet(slot, now) {
            Err(Failure::Greeting(error)) => self.on_greeting_failed(slot, &error),
            Err(Failure::End(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    fn try_greet(&mut self, slot: usize, now: Clock) -> Result<(), Failure> {
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        let dialled = link.dialled.map(|rank| rank as usize);
        if let State::Establishing = link.state {
            if !link.establish()? {
                return Ok(());
            }
            if let Some(rank) = dialled {
                let preamble = self.preamble(rank, None);
                if let Some(link) = &mut self.links[slot] {
                    link.greet(&preamble)?;
                }
            }
        }
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        let Some(theirs) = link.greeting()? else { return Ok(()) };
        match dialled {
            Some(rank) => self.on_answer(slot, rank, &theirs, now),
            None => self.on_caller(slot, theirs, now),
        }
    }

    /// What does not fit in a preamble.
    fn misfit(&self, theirs: &Preamble) -> Option<Refusal> {
        let (nodes, me) = (self.config.nodes, self.config.rank.0);
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

    fn on_answer(&mut self, slot: usize, rank: usize, theirs: &Preamble, now: Clock) -> Result<(), Failure> {
        let mismatch = theirs.refusal.or_else(|| self.misfit(theirs)).or_else(|| {
            let (expected, got) = (rank as u64, u64::from(theirs.rank));
            (expected != got).then_some(Refusal::NotHere { expected, got })
        });
        let Some(reason) = mismatch else {
            self.open(slot, rank, theirs.instance, now);
            return Ok(());
        };
        self.remove(slot);
        let peer = &mut self.peers[rank];
        let address = peer.address.clone().unwrap_or_default();
        let since = *peer.refused.get_or_insert(now);
        let peer = PeerId(rank as u32);
        if !reason.passes() || now > since + self.config.dead_after {
            return Err(Failure::End(StreamError::Refused { peer, address, reason }));
        }
        if since == now {
            (self.config.notices)(Notice::Refused { peer, address, reason });
        }
        Ok(())
    }

    fn on_caller(&mut self, slot: usize, theirs: Preamble, now: Clock) -> Result<(), Failure> {
        let (rank, nodes) = (theirs.rank as usize, self.config.nodes);
        let refusal = self.misfit(&theirs).or_else(|| {
            if rank <= self.config.rank.index() || rank >= nodes as usize {
                return Some(Refusal::Rank { expected: nodes.into(), got: theirs.rank.into() });
            }
            let peer = &self.peers[rank];
            let alive = peer.link.and_then(|slot| self.links[slot].as_ref());
            // One that has been silent for a while may be gone without a word.
            let alive = alive.is_some_and(|link| now < link.heard + self.silence() / 2);
            (peer.open && alive && peer.instance != theirs.instance).then_some(Refusal::Taken { rank: rank as u64 })
        });
        let mut address = None;
        let refusal = refusal.or_else(|| {
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
        let answer = self.preamble(rank, refusal);
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        link.greet(&answer)?;
        if let Some(refusal) = refusal {
            link.stream.shutdown();
            if let Some(link) = self.remove(slot) {
                self.turned_away(&link, format!("rank {rank}: {refusal}"));
            }
            return Ok(());
        }
        if let Some(old) = self.peers[rank].link {
            self.break_link(old, "it came anew".to_string());
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

    pub(super) fn open(&mut self, slot: usize, rank: usize, instance: u64, now: Clock) {
        let Some(link) = &mut self.links[slot] else { return };
        link.state = State::Open { peer: rank };
        (link.heard, link.said) = (now, now);
        let peer = &mut self.peers[rank];
        (peer.link, peer.open, peer.instance) = (Some(slot), true, instance);
        (peer.attempts, peer.ended, peer.busy, peer.refused, peer.tell) = (0, 0, None, None, now);
        let (id, address) =
            (PeerId(rank as u32), self.links[slot].as_ref().map_or_else(String::new, |l| l.stream.seen()));
        (self.config.notices)(Notice::Connected { peer: id, address });
        self.peers[rank].untold += 1;
        self.ready.push_back(Input::Connected { peer: id });
    }

    // Addresses

    /// Tells everyone where everyone is: the newcomer of the others, the others of the newcomer.
    fn send_book(&mut self, newcomer: usize) {
        let known = |rank: usize| Some((rank as u32, self.peers[rank].address.as_deref()?));
        let all = control::emit_book((1..self.peers.len()).filter(|rank| *rank != newcomer).filter_map(known));
        let one = control::emit_book(known(newcomer).into_iter());
        for rank in 1..self.peers.len() {
            let Some(slot) = self.peers[rank].link.filter(|_| self.peers[rank].open) else { continue };
            let book = if rank == newcomer { &all } else { &one };
            if let Some(link) = self.links[slot].as_mut().filter(|_| book.len() > 4) {
                link.writer.book(book.clone());
            }
            self.mark(slot);
        }
    }

    pub(super) fn on_book(&mut self, from: usize, book: Vec<(u32, String)>) {
        let me = self.config.rank.0;
        if from != 0 {
            return;
        }
        for (rank, address) in book {
            let fits = rank != 0 && rank != me && rank < self.config.nodes && self.carrier.may_dial(&address);
            let Some(peer) = self.peers.get_mut(rank as usize).filter(|_| fits) else { continue };
            if peer.address.as_ref() != Some(&address) {
                peer.address = Some(address);
                (peer.attempts, peer.dial, peer.ended) = (0, Clock::now(), 0);
                self.timer = Clock::now();
            }
        }
    }
}

enum Failure {
    /// Of this connection.
    Greeting(io::Error),
    /// Of the run.
    End(StreamError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Greeting(error)
    }
}
