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

use gradwire_core::status::Waiting;
use gradwire_core::{
    Adoption, Advice, BufferId, Input, Instant, Machine, Misuse, Node, OpId, Output, PeerId, SavedBuffer, Segment,
    Status,
};

/// A machine, and the leases of its open transfers.
#[derive(Debug)]
pub(crate) struct Leased {
    machine: Node,
    open: BTreeMap<OpId, Lease>,
    /// Floats of the contribution that the application still writes.
    unwritten: usize,
    conflict: Option<String>,
}

#[derive(Copy, Clone, Debug)]
enum Lease {
    /// A transmission to this peer reads this.
    Reads(Segment, PeerId),
    /// A reception writes this.
    Writes(Segment),
}

impl Leased {
    pub(crate) fn new(machine: Node) -> Self {
        Self { machine, open: BTreeMap::new(), unwritten: 0, conflict: None }
    }

    /// The first conflict of an operation with an open transfer, in words.
    pub(crate) fn conflict(&self) -> Option<&str> {
        self.conflict.as_deref()
    }

    /// An operation begins that reads and writes these segments.
    fn check(&mut self, what: &Output, reads: &[Segment], writes: &[Segment]) {
        for (op, lease) in &self.open {
            let touched = match *lease {
                // The peer's message can be the answer to this transmission, which the peer then has. The end of the
                // transmission may be reported later.
                Lease::Reads(_, to) if matches!(what, Output::Receive { peer, .. } if *peer == to) => None,
                Lease::Reads(lent, _) => writes.iter().find(|segment| overlap(**segment, lent)),
                Lease::Writes(taken) => reads.iter().chain(writes).find(|segment| overlap(**segment, taken)),
            };
            if let Some(segment) = touched {
                self.conflict.get_or_insert_with(|| format!("{what:?} touches {segment:?}, held by {op} as {lease:?}"));
            }
        }
    }
}

fn overlap(one: Segment, other: Segment) -> bool {
    let end = |segment: Segment| segment.start + u64::from(segment.len);
    one.buffer == other.buffer && one.start < end(other) && other.start < end(one)
}

impl Machine for Leased {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        if let Input::Completed { op, .. } | Input::Aborted { op } = input {
            self.open.remove(&op);
        }
        if let Input::Connected { peer } | Input::Disconnected { peer } = input {
            // Transmissions on a broken connection do not reach the peer, so their leases end.
            self.open.retain(|_, lease| !matches!(lease, Lease::Reads(_, to) if *to == peer));
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
                let (reads, writes): (Vec<_>, Vec<_>) = (kernel.reads().collect(), kernel.writes().collect());
                self.check(&output, &reads, &writes);
            }
            Output::Transmit { op, peer, body: Some(body), .. } => {
                self.check(&output, &[*body], &[]);
                // A transmission lends the whole buffer.
                if self.unwritten > 0 && body.buffer == self.machine.contribution() {
                    self.conflict.get_or_insert_with(|| format!("{output:?} lends what the application still writes"));
                }
                self.open.insert(*op, Lease::Reads(*body, *peer));
            }
            Output::Receive { op, into: Some(into), .. } => {
                self.check(&output, &[], &[*into]);
                self.open.insert(*op, Lease::Writes(*into));
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
}
