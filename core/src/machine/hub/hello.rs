//! Hellos: which process a peer is, whether it is of the same run and the same contract, and where the contracts differ.

use super::peers::Link;
use super::{Hub, Incoming, Notice, Purpose, millis};
use crate::buffer::Segment;
use crate::id::{Clock, Incarnation, PeerId};
use crate::kernel::{Kernel, KernelResult};
use crate::machine::{Event, OURS, PeerRefusal, ProtocolError, Setup, Signal, THEIRS};
use crate::wire::{Hello, Message};

/// A peer with a different contract.
#[derive(Copy, Clone, Debug)]
pub(super) struct Differing {
    peer: PeerId,
    digest: u64,
    /// Bytes of its text.
    length: u32,
}

impl Hub {
    pub(super) fn on_connected(&mut self, peer: PeerId) {
        self.peers.change(peer, |entry| entry.link = Link::Connected);
        let Setup { me, incarnation, .. } = self.setup;
        let (digest, length) = (self.setup.contract.digest(), self.setup.contract.len());
        let (has_parameters, resumed_at) = (self.has_parameters, self.resumed_at());
        let hello = Hello { rank: me, incarnation, digest, has_parameters, resumed_at, run: self.run_tag() };
        let text = Segment { buffer: OURS, start: 0, len: length };
        self.send(peer, Message::Hello(hello), Some(text), length, Purpose::Nothing);
    }

    /// The digest of this node's run; 0: not known.
    pub(super) fn run_tag(&self) -> u64 {
        self.setup.run.map_or(0, |run| run.tag())
    }

    /// Does this node take part in a run? A stranger must not end it then.
    pub(super) fn has_begun(&self) -> bool {
        self.joined || self.has_parameters
    }

    /// The moment that this node resumed from; 0: it did not resume.
    pub(super) fn resumed_at(&self) -> Clock {
        self.setup.resumed.map_or(Clock(0), |resumed| resumed.at)
    }

    pub(super) fn on_hello(&mut self, peer: PeerId, hello: Hello, length: u32) -> Option<Notice> {
        if hello.rank != peer {
            self.close(peer, ProtocolError::WrongRank { expected: peer, got: hello.rank });
            return None;
        }
        let ours = self.run_tag();
        if ours != 0 && hello.run != 0 && ours != hello.run && !planted!(self, RunNotChecked) {
            let run = hello.run;
            if self.has_begun() {
                self.event(Event::PeerRefused { peer, reason: PeerRefusal::OtherRun { run } });
            } else {
                self.signal(Signal::OtherRun { peer, run });
            }
            self.close(peer, ProtocolError::OtherRun { expected: ours, got: run });
            return None;
        }
        if hello.digest != self.setup.contract.digest() {
            // There is one buffer for a peer's text: while one difference is looked for, other peers are only cut off.
            if self.comparing.is_some() || length == 0 {
                self.close_contract(peer, hello.digest);
            } else {
                self.comparing = Some(Differing { peer, digest: hello.digest, length });
                let into = Some(Segment { buffer: THEIRS, start: 0, len: length });
                self.read(peer, into, Purpose::ReadContract);
            }
            return None;
        }
        self.discard(&Incoming { peer, message: Message::Hello(hello), length });
        let neither_has_begun = !self.has_parameters && !hello.has_parameters;
        // Collectives compare rounds instead, with the coordinator.
        let suspends = !self.setup.recipe.is_collective();
        if suspends && neither_has_begun && hello.resumed_at != self.resumed_at() {
            self.signal(Signal::ResumedElsewhere { peer, at: hello.resumed_at });
        }
        let before = self.incarnation(peer);
        let fresh = before != hello.incarnation;
        let restarted = fresh && before != Incarnation(0);
        self.counters.reconnects += u64::from(!fresh);
        self.peers.change(peer, |entry| entry.on_hello(hello.incarnation, hello.has_parameters));
        if restarted && hello.resumed_at > Clock(0) {
            self.notify(peer, Message::Again);
        }
        // The peer may have missed this while it was away.
        if let Some(waiting) = self.stalls.reported().filter(|wait| wait.on != peer) {
            self.tell_waiting(peer, waiting);
        }
        self.stalls.set_silence(peer, None);
        if let Some(until) = self.stalls.silence_of(self.setup.me, self.now) {
            self.notify(peer, Message::Silence { span_ms: millis(until.since(self.now)) });
        }
        Some(Notice::Agreed { peer, fresh })
    }

    fn close_contract(&mut self, peer: PeerId, got: u64) {
        self.close(peer, ProtocolError::Contract { expected: self.setup.contract.digest(), got });
    }

    pub(super) fn compare(&mut self) {
        let Some(Differing { length, .. }) = self.comparing else { return };
        let ours = Segment { buffer: OURS, start: 0, len: self.setup.contract.len() };
        let theirs = Segment { buffer: THEIRS, start: 0, len: length };
        self.run(Kernel::Compare { ours, theirs }, Purpose::Compare);
    }

    pub(super) fn on_compared(&mut self, result: KernelResult) {
        let Some(Differing { peer, digest, length }) = self.comparing.take() else { return };
        let line = if let KernelResult::Differs { line } = result { line } else { 0 };
        if self.has_begun() {
            self.event(Event::PeerRefused { peer, reason: PeerRefusal::Contract { line } });
        } else {
            self.signal(Signal::ContractDiffers { peer, line, length });
        }
        self.close_contract(peer, digest);
    }
}
