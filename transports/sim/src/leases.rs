//! [`Leased`]: a machine whose operations are checked as leases on its buffers.
//!
//! A transmission reads its body until it ends, and a reception writes its destination until it ends. Meanwhile no
//! operation that the machine begins may write the body, or touch the destination. Drivers lend buffers and run kernels
//! in such a way that a violation is mostly only a copy, so the results of a run do not show it. On a device, or with
//! another transport, it is a torn vector.
//!
//! Kernels hold no lease: a driver runs them in the order in which they are asked for, and ends each before it begins a
//! transfer that the machine asks for later.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use gradwire_core::status::Waiting;
use gradwire_core::{
    Adoption, Advice, BufferId, Input, Instant, Machine, Misuse, Node, OpId, Output, PeerId, SavedBuffer, Segment,
    Status,
};

/// A machine, and the leases of its open transfers. A server that sends parameters to a thousand workers has a thousand
/// leases, so they are found by their buffer.
#[derive(Debug)]
pub(crate) struct Leased {
    machine: Node,
    /// The buffer of each open transfer.
    open: BTreeMap<OpId, BufferId>,
    /// The open transmissions: what they read, and for which peer.
    reads: BTreeMap<(BufferId, OpId), (Segment, PeerId)>,
    /// The open receptions: what they write.
    writes: BTreeMap<(BufferId, OpId), Segment>,
    /// Floats of the contribution that the application still writes.
    unwritten: usize,
    conflict: Option<String>,
}

impl Leased {
    pub(crate) fn new(machine: Node) -> Self {
        let (open, reads, writes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { machine, open, reads, writes, unwritten: 0, conflict: None }
    }

    /// The first conflict of an operation with an open transfer, in words.
    pub(crate) fn conflict(&self) -> Option<&str> {
        self.conflict.as_deref()
    }

    /// An operation begins that reads this segment.
    fn check_read(&mut self, what: &Output, segment: Segment) {
        let found = self.writes.range(of(segment)).find(|(_, taken)| overlap(segment, **taken));
        if let Some(((_, op), taken)) = found {
            let text = || format!("{what:?} reads {segment:?}, of which {op} writes {taken:?}");
            self.conflict.get_or_insert_with(text);
        }
    }

    /// An operation begins that writes this segment.
    fn check_write(&mut self, what: &Output, segment: Segment) {
        self.check_read(what, segment);
        // The peer's message can be the answer to this transmission, which the peer then has. The end of the
        // transmission may be reported later.
        let answers = |to: PeerId| matches!(what, Output::Receive { peer, .. } if *peer == to);
        let conflicts = |lent: Segment, to: PeerId| overlap(segment, lent) && !answers(to);
        let found = self.reads.range(of(segment)).find(|(_, (lent, to))| conflicts(*lent, *to));
        if let Some(((_, op), (lent, to))) = found {
            let text = || format!("{what:?} writes {segment:?}, of which {op} sends {lent:?} to {to}");
            self.conflict.get_or_insert_with(text);
        }
    }

    /// A transfer has ended.
    fn end(&mut self, op: OpId) {
        if let Some(buffer) = self.open.remove(&op)
            && self.reads.remove(&(buffer, op)).is_none()
        {
            self.writes.remove(&(buffer, op));
        }
    }
}

/// The leases of the buffer of a segment.
fn of(segment: Segment) -> RangeInclusive<(BufferId, OpId)> {
    (segment.buffer, OpId(0))..=(segment.buffer, OpId(u64::MAX))
}

fn overlap(one: Segment, other: Segment) -> bool {
    let end = |segment: Segment| segment.start + u64::from(segment.len);
    one.buffer == other.buffer && one.start < end(other) && other.start < end(one)
}

impl Machine for Leased {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Input::Completed { op, .. } | Input::Aborted { op } = input {
            self.end(op);
        }
        if let Input::Connected { peer } | Input::Disconnected { peer } = input {
            // Transmissions on a broken connection do not reach the peer, so their leases end.
            self.reads.retain(|_, (_, to)| *to != peer);
        }
        self.machine.handle_input(now, input)?;
        self.unwritten = match input {
            Input::Begin { weight: 1.. } => self.machine.buffers()[self.machine.contribution().0 as usize] / 4,
            Input::Step { .. } | Input::Leave { .. } => 0,
            Input::Given { len, .. } => self.unwritten.saturating_sub(len),
            _ => self.unwritten,
        };
        Ok(())
    }

    fn poll_output(&mut self) -> Output {
        let output = self.machine.poll_output();
        match &output {
            Output::Compute { kernel, .. } => {
                kernel.reads().for_each(|segment| self.check_read(&output, segment));
                kernel.writes().for_each(|segment| self.check_write(&output, segment));
            }
            Output::Transmit { op, peer, body: Some(body), .. } => {
                self.check_read(&output, *body);
                // A transmission lends the whole buffer.
                if self.unwritten > 0 && body.buffer == self.machine.contribution() {
                    self.conflict.get_or_insert_with(|| format!("{output:?} lends what the application still writes"));
                }
                self.open.insert(*op, body.buffer);
                self.reads.insert((body.buffer, *op), (*body, *peer));
            }
            Output::Receive { op, into: Some(into), .. } => {
                self.check_write(&output, *into);
                self.open.insert(*op, into.buffer);
                self.writes.insert((into.buffer, *op), *into);
            }
            _ => {}
        }
        output
    }

    fn buffers(&self) -> Vec<usize> {
        self.machine.buffers()
    }

    fn contribution(&self) -> BufferId {
        self.machine.contribution()
    }

    fn is_contribution_free(&self) -> bool {
        self.machine.is_contribution_free()
    }

    fn view(&self) -> BufferId {
        self.machine.view()
    }

    fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.machine.carried(index)
    }

    fn adoption(&self) -> Adoption {
        self.machine.adoption()
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        self.machine.saved()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.machine.waiting()
    }

    fn awaited_silence(&self) -> Option<Instant> {
        self.machine.awaited_silence()
    }

    fn advice(&self) -> Advice {
        self.machine.advice()
    }

    fn status(&self) -> Status {
        self.machine.status()
    }

    fn wanted_changes(&self) -> u64 {
        self.machine.wanted_changes()
    }

    fn wanted(&self) -> Vec<PeerId> {
        self.machine.wanted()
    }
}
