//! What an encoder learns about its own work: the size of updates, messages without content, a residual that grows.

use super::Encoding;
use crate::buffer::Segment;
use crate::kernel::norm::square_root;
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::Hint;

/// Messages in a row without an element that call for a hint. Shorter silences are common at the start of a run and
/// with elements that rarely change.
const EMPTY_MAX: u64 = 16;
/// A residual of error feedback grows until its elements are sent as fast as they gather: to about 1 / density updates,
/// less what updates of different signs cancel. The hint is for residuals that have gone far beyond that and still
/// double from one power of two of the messages to the next.
const GROWTH_FROM: u64 = 64;
const GROWN: f64 = 50.0;

/// Observations from message to message.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Watch {
    /// Messages in a row that carried no element.
    empty: u64,
    /// Norm of the residual at the last power of two.
    norm: f64,
    /// Hints that have been given.
    told_empty: bool,
    told_growth: bool,
}

impl Encoding {
    /// Kernels over a whole contribution, before its parts are encoded: clipping by norm, and the factor lambda of a
    /// mesh. `message`: its number, from 1. The first kernel finds [`KernelResult::Norm`], for
    /// [`on_measured`](Self::on_measured).
    pub(in crate::machine) fn prepare(&self, update: Segment, message: u64) -> (Option<Kernel>, Option<Kernel>) {
        // Without a limit, the norm is measured for monitors only: at messages that become rarer and rarer.
        let measures = !self.is_plain() && (self.clip_norm > 0.0 || message.is_power_of_two());
        let norm = measures.then_some(Kernel::Norm { x: update, limit: self.clip_norm });
        let scale = (self.lambda != 1.0).then_some(Kernel::Scale { x: update, factor: self.lambda });
        (norm, scale)
    }

    /// The norm of a contribution.
    pub(in crate::machine) fn on_measured(&mut self, result: KernelResult) {
        if let KernelResult::Norm { squares } = result {
            let norm = square_root(squares);
            let clipped = if self.clip_norm > 0.0 { norm.min(f64::from(self.clip_norm)) } else { norm };
            self.measured = clipped * f64::from(self.lambda);
        }
    }

    /// The norm of the residual, as a multiple of that of an update.
    pub(super) fn residual_updates(&self) -> f64 {
        if self.measured > 0.0 { square_root(self.squares()) / self.measured } else { 0.0 }
    }

    /// All parts of an ordinary message have been written. Returns a hint that is due.
    pub(in crate::machine) fn watch(&mut self) -> Option<Hint> {
        self.messages += 1;
        let entries: u32 = self.parts.iter().map(|part| part.last.entries).sum();
        let watch = &mut self.watch;
        watch.empty = if self.codec.is_sparse() && entries == 0 { watch.empty + 1 } else { 0 };
        if watch.empty >= EMPTY_MAX && !watch.told_empty {
            watch.told_empty = true;
            let tau = f64::from(self.parts.iter().map(|part| part.last.threshold).fold(0.0, f32::max));
            return Some(Hint::NothingSent { messages: EMPTY_MAX, tau });
        }
        if !self.messages.is_power_of_two() {
            return None;
        }
        let (norm, updates) = (square_root(self.squares()), self.residual_updates());
        let grows = self.messages > GROWTH_FROM && updates > GROWN && norm > 2.0 * self.watch.norm;
        self.watch.norm = norm;
        let told = self.watch.told_growth;
        self.watch.told_growth |= grows;
        (grows && !told).then_some(Hint::ResidualGrows { updates })
    }
}
