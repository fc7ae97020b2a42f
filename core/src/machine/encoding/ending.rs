//! The end of a worker's messages: its residual is kept, or sent ([`End`]).
//!
//! Protocol of use: [`Encoding::begin_end`] when the worker makes no more contributions; while
//! [`Encoding::wants_last`], a message of [`Encoding::last`]; then [`Encoding::take_rest`], once.

use super::Encoding;
use crate::buffer::Segment;
use crate::kernel::Kernel;
use crate::kernel::norm::square_root;
use crate::recipe::{End, Hint};
use crate::status::Rest;

/// Most messages of [`End::Send`] with a sparse codec. A threshold message carries up to 128 times the tau of the recipe
/// per element, so only a run that does not learn comes near this limit.
const MESSAGES_MAX: u32 = 1024;
/// The same with a dense codec, which leaves an error with each message. The end is where this share of the norm is
/// left. Only `sign` takes more than one message: 16 of them leave 7 % of a Gaussian residual, and 1,024 leave 0.2 %.
/// Before the end, a residual of a dense codec is about as large as an update, so a small share of it does not matter.
const DENSE_MESSAGES_MAX: u32 = 16;
const DENSE_SHARE: f64 = 1.0 / 16.0;

/// How far the end of a worker's messages is.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Ending {
    /// Norm of the residual when the end began, and the threshold of the last message before it.
    norm: Option<f64>,
    tau: f64,
    /// Last messages made so far.
    messages: u32,
    /// Sum of squares of the residual before the last of them.
    before: f64,
    /// The worker has been told how the residual ended.
    told: bool,
}

impl Ending {
    pub(super) fn has_begun(&self) -> bool {
        self.norm.is_some()
    }

    /// The threshold of the last message before the end, once it has begun.
    pub(super) fn tau(&self) -> Option<f64> {
        self.norm.map(|_| self.tau)
    }
}

impl Encoding {
    /// The worker makes no more contributions.
    pub(in crate::machine) fn begin_end(&mut self) {
        if !self.ending.has_begun() {
            (self.ending.norm, self.ending.tau) = (Some(square_root(self.squares())), self.tau());
        }
    }

    /// Is another message due before the worker may go?
    pub(in crate::machine) fn wants_last(&self) -> bool {
        let Ending { norm, messages, before, .. } = self.ending;
        if self.is_plain() || !(self.has_encoded() || self.resumed) {
            return false;
        }
        let carried = self.parts.iter().any(|part| part.last.entries > 0);
        let squares = self.squares();
        match self.end {
            End::Keep => false,
            // A resumed worker that has not encoded anything yet does not know its residual.
            _ if messages == 0 => squares > 0.0 || !self.has_encoded(),
            End::Spread { messages: most } => messages < most && squares > 0.0 && carried,
            End::Send if self.codec.is_sparse() => messages < MESSAGES_MAX && squares > 0.0 && carried,
            End::Send => {
                let enough = norm.is_some_and(|norm| squares <= (DENSE_SHARE * norm) * (DENSE_SHARE * norm));
                messages < DENSE_MESSAGES_MAX && squares < before && !enough
            }
        }
    }

    /// A last message begins: the kernels of [`last`](Self::last) follow, one for each part.
    pub(in crate::machine) fn begin_last(&mut self) {
        self.ending.messages += 1;
        self.ending.before = if self.has_encoded() { self.squares() } else { f64::INFINITY };
    }

    /// The kernel that writes a part of the residual to `body`, as its end demands.
    pub(in crate::machine) fn last(&self, part: usize, body: Segment) -> Kernel {
        match self.end {
            End::Send => self.flush(part, body),
            End::Spread { .. } | End::Keep => self.write(part, body),
        }
    }

    /// How the residual ended. Returned once, when no message is due any more; `None` if nothing was encoded.
    pub(in crate::machine) fn take_rest(&mut self) -> Option<Rest> {
        let first = !core::mem::replace(&mut self.ending.told, true);
        self.rest().filter(|_| first)
    }

    /// The same, as often as asked; `None` before it is told.
    pub(in crate::machine) fn rest(&self) -> Option<Rest> {
        let norm = self.ending.norm.filter(|_| self.ending.told && !self.is_plain() && self.has_encoded())?;
        let updates = if self.measured > 0.0 { norm / self.measured } else { 0.0 };
        Some(Rest { norm, updates, messages: self.ending.messages, kept: square_root(self.squares()) })
    }

    /// The hint for a run that was shorter than its elements waited.
    pub(in crate::machine) fn late_hint(&self) -> Option<Hint> {
        let hint = self.correction.late_elements(&self.codec, self.made + self.messages);
        hint.filter(|_| self.has_encoded())
    }
}
