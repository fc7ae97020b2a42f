//! Majority vote (Bernstein et al. 2018, "signSGD: compressed optimisation for non-convex problems", and 2019, "signSGD
//! with majority vote is communication efficient and fault tolerant").
//!
//! ```text
//! into = length * sign(sum of sign(x) over the rows x),  sign(0) = +
//! ```
//! A tie says that there is no way to prefer. The element then goes back on its last step: it takes the opposite sign of the
//! last result, and plus at first. A fixed sign for all ties would move tied elements ever further in one direction: of 8
//! random votes, 27 % are ties. An element that stays would take a third value, for which a vote of one bit has no room.

use super::BLOCK;
use crate::kernel::tier::Tier;

/// `into` = ±`length` by the majority of the signs of each element. On a tie, the opposite sign of `into`.
pub(super) fn majority<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], count: usize, length: f32) {
    for start in (0..into.len()).step_by(BLOCK) {
        let into = &mut into[start..];
        let len = into.len().min(BLOCK);
        let mut sums = [0i32; BLOCK];
        for index in 0..count {
            let x = &row(index)[start..start + len];
            // -0 is not below 0, so it counts as plus.
            Tier::best().run(|| sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += if *x < 0.0 { -1 } else { 1 }));
        }
        Tier::best().run(|| {
            for (into, sum) in into[..len].iter_mut().zip(sums) {
                let minus = sum < 0 || (sum == 0 && *into > 0.0);
                *into = if minus { -length } else { length };
            }
        });
    }
}
