//! The observations of an encoder about its own work: the size of updates, messages without content, a residual that
//! grows.

use super::Encoding;
use crate::buffer::Segment;
use crate::kernel::norm::square_root;
use crate::kernel::{Kernel, KernelResult};
use crate::recipe::Hint;

/// Messages in a row without an element that call for a hint. Shorter silences are common at the start of a run and
/// with elements that rarely change.
const EMPTY_MAX: u64 = 16;
/// A residual that collects updates without sending them grows with the number of messages n: as n if the updates have
/// one direction, as the root of n if their directions are random. So it grows by a factor of 2 or 1.4 from one power of
/// two to the next, and by less once elements are sent as fast as they gather. With a density, that is the case after
/// about 1 / density messages.
const GROWTH: f64 = 1.25;
const GROWTH_FROM: u64 = 64;
/// Norm of a residual, in updates, below which it is not worth a hint.
const GROWN: f64 = 50.0;

/// Is the norm of this contribution measured? It takes a pass over the vector.
pub(in crate::machine) fn is_measured(message: u64) -> bool {
    message.is_power_of_two() || message.is_multiple_of(32)
}

/// A mean of measured norms that follows them: norms vary by some factor from one contribution to the next.
pub(in crate::machine) fn smooth(mean: f64, norm: f64) -> f64 {
    if mean == 0.0 { norm } else { mean + (norm - mean) / 4.0 }
}

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
        // Without a limit, the norm is measured for monitors only: at the first messages, and later now and then.
        let measures = !self.is_plain() && (self.clip_norm > 0.0 || is_measured(message));
        let norm = measures.then_some(Kernel::Norm { x: update, limit: self.clip_norm });
        let scale = (self.lambda != 1.0).then_some(Kernel::Scale { x: update, factor: self.lambda });
        (norm, scale)
    }

    /// The norm of a contribution.
    pub(in crate::machine) fn on_measured(&mut self, result: KernelResult) {
        // Elements that are not finite are refused one by one by the encoder. They say nothing of the other updates.
        if let KernelResult::Norm { squares } = result
            && squares.is_finite()
        {
            let norm = square_root(squares);
            let clipped = if self.clip_norm > 0.0 { norm.min(f64::from(self.clip_norm)) } else { norm };
            self.measured = smooth(self.measured, clipped * f64::from(self.lambda));
        }
    }

    /// The norm of the residual, as a multiple of that of an update.
    pub(super) fn residual_updates(&self) -> f64 {
        if self.measured > 0.0 { square_root(self.squares()) / self.measured } else { 0.0 }
    }

    /// All parts of an ordinary message have been written. Returns a hint that is due.
    pub(in crate::machine) fn watch(&mut self) -> Option<Hint> {
        self.messages += 1;
        let silent = self.parts.iter().all(|part| part.last.entries == 0);
        let watch = &mut self.watch;
        watch.empty = if self.codec.is_sparse() && silent { watch.empty + 1 } else { 0 };
        if watch.empty >= EMPTY_MAX && !watch.told_empty {
            watch.told_empty = true;
            let tau = f64::from(self.parts.iter().map(|part| part.last.threshold).fold(0.0, f32::max));
            return Some(Hint::NothingSent { messages: EMPTY_MAX, tau });
        }
        if !self.messages.is_power_of_two() {
            return None;
        }
        let (norm, updates) = (square_root(self.squares()), self.residual_updates());
        let settled = self.codec.density().is_none_or(|density| self.messages as f64 * f64::from(density) >= 2.0);
        let due = self.messages > GROWTH_FROM && settled && updates > GROWN;
        let grows = due && norm > GROWTH * self.watch.norm;
        self.watch.norm = norm;
        let told = self.watch.told_growth;
        self.watch.told_growth |= grows;
        (grows && !told).then_some(Hint::ResidualGrows { updates })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoded;
    use crate::machine::Setup;
    use crate::status::Counters;
    use crate::vectors::Vectors;

    fn encoding(recipe: &str) -> Encoding {
        let recipe: crate::recipe::Recipe = recipe.parse().unwrap();
        let (layout, cluster) = (crate::Layout::flat(1000), crate::Cluster { workers: 2, servers: 1 });
        let setup = Setup::new(crate::PeerId(0), cluster, recipe, &layout, 0);
        let whole = core::iter::once(0..1000);
        Encoding::encoder(&setup, recipe.codec, recipe.correction, whole, &mut Vectors::default())
    }

    /// Updates of norm 1. `encoded`: entries, and norm of the residual, after a number of messages.
    fn first_hint(recipe: &str, encoded: impl Fn(u64) -> (u32, f64)) -> Option<(u64, Hint)> {
        let mut encoding = encoding(recipe);
        encoding.on_measured(KernelResult::Norm { squares: 1.0 });
        (1..=10_000).find_map(|message| {
            let (entries, norm) = encoded(message);
            let encoded = Encoded { bytes: 4, entries, squares: norm * norm, threshold: 0.5, ..Encoded::default() };
            encoding.on_encoded(0, encoded, &mut Counters::default());
            Some((message, encoding.watch()?))
        })
    }

    #[test]
    fn silence_calls_for_a_hint_once() {
        let silent = |message| (u32::from(message == 3), 1.0);
        let hint = Hint::NothingSent { messages: 16, tau: 0.5 };
        assert_eq!(first_hint("strom", silent), Some((19, hint)));
        assert_eq!(first_hint("strom", |message| (u32::from(message % 16 == 0), 1.0)), None);
        let mut encoding = encoding("strom");
        let hints = (0..100).filter(|_| encoding.watch().is_some());
        assert_eq!(hints.count(), 1);
    }

    #[test]
    fn a_residual_that_keeps_growing_calls_for_a_hint() {
        let grows = |recipe, norm: fn(f64) -> f64| {
            let hint = first_hint(recipe, |message| (1, norm(message as f64)));
            hint.map(|(message, hint)| (message, matches!(hint, Hint::ResidualGrows { .. })))
        };
        // Updates of one direction, and random ones, of which almost nothing is sent.
        assert_eq!(grows("strom lambda=1", |n| n), Some((128, true)));
        assert_eq!(grows("strom lambda=1", square_root), Some((4096, true)));
        // Elements are sent as fast as they gather.
        assert_eq!(grows("strom lambda=1", |n| n.min(60.0)), None);
        // Until each element has been sent about twice, every residual of a density grows.
        assert_eq!(grows("async codec=topk density=0.01", |n| n.min(100.0)), None);
        assert_eq!(grows("async codec=topk density=0.01", |n| n), Some((256, true)));
    }
}
