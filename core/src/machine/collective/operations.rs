//! The operations of an exchange, and the count of the open ones.

use super::chunks::Mean;
use crate::buffer::Segment;
use crate::id::{Clock, PeerId};

/// A span of an exchange without a stop. An operation carries the epoch that it began in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// Counts open operations, by epoch.
///
/// When the exchange stops, a new epoch begins. Operations of earlier epochs then have no effect when they end. But as
/// long as one is open, it may still read or write buffers, which nothing else may write.
#[derive(Debug)]
pub(super) struct Epochs {
    current: Epoch,
    /// Open operations of the current epoch.
    open: u32,
    /// Transmissions among them.
    sending: u32,
    /// Open operations of earlier epochs.
    stale: u32,
}

impl Epochs {
    pub(super) fn new() -> Self {
        Self { current: Epoch(0), open: 0, sending: 0, stale: 0 }
    }

    /// Begins the next epoch.
    pub(super) fn advance(&mut self) {
        self.current.0 += 1;
        self.stale += self.open;
        (self.open, self.sending) = (0, 0);
    }

    /// An operation begins that does not send.
    pub(super) fn begin(&mut self) -> Epoch {
        self.open += 1;
        self.current
    }

    /// An operation that does not send has ended. Returns whether it is one of the current epoch.
    pub(super) fn end(&mut self, epoch: Epoch) -> bool {
        let current = epoch == self.current;
        if current {
            self.open -= 1;
        } else {
            self.stale -= 1;
        }
        current
    }

    /// A transmission begins.
    pub(super) fn begin_sending(&mut self) -> Epoch {
        self.sending += 1;
        self.begin()
    }

    /// A transmission has ended. Returns whether it is one of the current epoch.
    pub(super) fn end_sending(&mut self, epoch: Epoch) -> bool {
        let current = self.end(epoch);
        self.sending -= u32::from(current);
        current
    }

    /// Have all operations of earlier epochs ended? Only then may their buffers be written again.
    pub(super) fn is_clear(&self) -> bool {
        self.stale == 0
    }

    /// Is a transmission of the current epoch open?
    pub(super) fn is_sending(&self) -> bool {
        self.sending > 0
    }
}

/// An operation of the exchange.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Task {
    /// Receives a child's part.
    Receive(Arrival),
    /// Looks for elements in it that are not finite.
    Scan(Arrival),
    /// Makes the message about a chunk: the mean, encoded if there is a codec.
    Reduce { epoch: Epoch, chunk: usize },
    /// Sends a mean to the parent.
    Up { epoch: Epoch, chunk: usize },
    /// Sends a result to a taker.
    Down { epoch: Epoch, chunk: usize, taker: usize },
    /// Receives the result of a chunk.
    Result { epoch: Epoch, chunk: usize, result: Mean },
    /// Decodes the result of a chunk.
    Expand { epoch: Epoch, chunk: usize, result: Mean },
    /// Measures the contribution.
    Measure,
    /// Makes the next parameters of a result. Also any other kernel on which only later kernels depend.
    Commit,
    /// A part of the exchange of a mesh.
    Gather(Step),
}

/// An operation of the exchange of a mesh.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Step {
    /// Encodes the own message.
    Encode,
    /// Clips the residual.
    Clip,
    /// Sends the own message to a member.
    Send { epoch: Epoch, member: usize },
    /// Receives the message of the member at this position.
    Receive { epoch: Epoch, member: usize, round: Clock },
    /// Adds the next message in rank order to the sum.
    Add { epoch: Epoch },
}

/// A child's part of a chunk.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Arrival {
    pub(super) epoch: Epoch,
    pub(super) from: PeerId,
    pub(super) chunk: usize,
    /// The index of the sender among the chunk's children.
    pub(super) child: usize,
    pub(super) part: Mean,
    /// Where its floats go.
    pub(super) inbox: Segment,
    /// It is a part of the round after the current one.
    pub(super) next: bool,
}
