//! The portable loop: sixteen elements per iteration, with one test whether any of them emits.

#![allow(clippy::needless_range_loop, reason = "the compiler vectorises these loops, and iterators not")]

use super::{LANES, Pass};

impl Pass<'_> {
    pub(super) fn portable(&mut self, update: &[f32], residual: &mut [f32]) {
        let (chunks, rest) = residual.as_chunks_mut::<LANES>();
        let (updates, rest_update) = update.as_chunks::<LANES>();
        // Without their sign, floats compare as integers. NaN and infinities lie above every threshold.
        let threshold = self.quantum.threshold.to_bits() as i32;
        for (at, (chunk, update)) in chunks.iter_mut().zip(updates).enumerate() {
            let mut acc = [0.0f32; LANES];
            let mut any = 0;
            // A sum of flags instead of an early exit: the loop vectorises, and exits are rare anyway.
            for lane in 0..LANES {
                acc[lane] = chunk[lane] + update[lane];
                any |= i32::from((acc[lane].to_bits() & 0x7fff_ffff) as i32 >= threshold);
            }
            if any != 0 {
                self.some(at * LANES, acc, chunk, threshold);
                continue;
            }
            *chunk = acc;
            for lane in 0..LANES {
                self.lanes[lane] += acc[lane] * acc[lane];
            }
        }
        self.one_by_one(chunks.len() * LANES, rest_update, rest);
    }

    /// Handles sixteen elements of which at least one emits. Not inlined: it would keep the compiler from vectorising
    /// the main loop.
    #[inline(never)]
    fn some(&mut self, at: usize, mut acc: [f32; LANES], chunk: &mut [f32; LANES], threshold: i32) {
        // Groups of four first: at usual densities, most of them have no element that emits.
        for quad in (0..LANES).step_by(4) {
            let reached = |lane: usize| (acc[lane].to_bits() & 0x7fff_ffff) as i32 >= threshold;
            if !(reached(quad) | reached(quad + 1) | reached(quad + 2) | reached(quad + 3)) {
                continue;
            }
            for lane in quad..quad + 4 {
                if (acc[lane].to_bits() & 0x7fff_ffff) as i32 >= threshold {
                    acc[lane] = self.emit(self.first + (at + lane) as u32, acc[lane], chunk[lane]);
                }
            }
        }
        *chunk = acc;
        for lane in 0..LANES {
            self.lanes[lane] += acc[lane] * acc[lane];
        }
    }
}
