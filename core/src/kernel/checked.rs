//! Kernels that write a contribution and look for NaN and infinities in it, in one pass over memory.
//!
//! ```text
//! for each block:
//!     into = value of each element; bad |= exponent of the value is all ones
//!     if bad and no block before was: search the index in this block
//! ```
//! A block lies in the first-level cache when it is searched. The inner loop has no branch, so that it vectorises. The
//! whole vector is written also if an element is not finite: a host without the check contributes it as it is.

use super::scan::is_non_finite;
use super::tier::Tier;

/// Floats that are written between two looks at the flag.
const BLOCK: usize = 1024;

/// `into[i] = from[i]`; returns the index of the first NaN or infinity.
///
/// # Panics
/// If the lengths differ.
pub fn copy_finite(into: &mut [f32], from: &[f32]) -> Option<usize> {
    copy_by(Tier::best(), into, from)
}

/// `into[i] = from[i] - update[i]`; returns the index of the first difference that is a NaN or an infinity.
///
/// # Panics
/// If the lengths differ.
pub fn subtract_finite(into: &mut [f32], from: &[f32], update: &[f32]) -> Option<usize> {
    subtract_by(Tier::best(), into, from, update)
}

/// `update[i] = from[i] - update[i]`; returns the index of the first difference that is a NaN or an infinity.
///
/// # Panics
/// If the lengths differ.
pub fn subtract_in_place_finite(update: &mut [f32], from: &[f32]) -> Option<usize> {
    subtract_in_place_by(Tier::best(), update, from)
}

fn copy_by(tier: Tier, into: &mut [f32], from: &[f32]) -> Option<usize> {
    assert_eq!(into.len(), from.len());
    tier.run(|| {
        let mut first = None;
        for (block, (into, from)) in into.chunks_mut(BLOCK).zip(from.chunks(BLOCK)).enumerate() {
            let mut bad = 0;
            for (into, from) in into.iter_mut().zip(from) {
                *into = *from;
                bad |= u32::from(is_non_finite(*from));
            }
            if bad != 0 && first.is_none() {
                first = search(block, into);
            }
        }
        first
    })
}

fn subtract_by(tier: Tier, into: &mut [f32], from: &[f32], update: &[f32]) -> Option<usize> {
    assert!(into.len() == from.len() && into.len() == update.len());
    tier.run(|| {
        let mut first = None;
        let blocks = into.chunks_mut(BLOCK).zip(from.chunks(BLOCK)).zip(update.chunks(BLOCK));
        for (block, ((into, from), update)) in blocks.enumerate() {
            let mut bad = 0;
            for ((into, from), update) in into.iter_mut().zip(from).zip(update) {
                let difference = from - update;
                *into = difference;
                bad |= u32::from(is_non_finite(difference));
            }
            if bad != 0 && first.is_none() {
                first = search(block, into);
            }
        }
        first
    })
}

fn subtract_in_place_by(tier: Tier, update: &mut [f32], from: &[f32]) -> Option<usize> {
    assert_eq!(update.len(), from.len());
    tier.run(|| {
        let mut first = None;
        for (block, (update, from)) in update.chunks_mut(BLOCK).zip(from.chunks(BLOCK)).enumerate() {
            let mut bad = 0;
            for (update, from) in update.iter_mut().zip(from) {
                *update = from - *update;
                bad |= u32::from(is_non_finite(*update));
            }
            if bad != 0 && first.is_none() {
                first = search(block, update);
            }
        }
        first
    })
}

/// The index in the whole vector of the first element of a block that is not finite.
#[cold]
fn search(block: usize, values: &[f32]) -> Option<usize> {
    values.iter().position(|x| !x.is_finite()).map(|within| block * BLOCK + within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    /// All tiers against the naive version, on destinations that were poisoned.
    #[track_caller]
    fn check(from: &[f32], update: &[f32]) {
        let naive = |x: &[f32]| x.iter().position(|x| !x.is_finite());
        let difference: Vec<f32> = from.iter().zip(update).map(|(from, update)| from - update).collect();
        for tier in Tier::all() {
            let mut into = alloc::vec![f32::NAN; from.len()];
            assert_eq!(copy_by(tier, &mut into, from), naive(from), "{}", tier.name());
            assert_eq!(bits(&into), bits(from), "{}", tier.name());
            into.fill(f32::NAN);
            assert_eq!(subtract_by(tier, &mut into, from, update), naive(&difference), "{}", tier.name());
            // Which NaN a difference of NaNs is, is not specified.
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            assert!(into.iter().zip(&difference).all(same), "{}", tier.name());
        }
    }

    proptest! {
        #[test]
        fn all_tiers_agree_with_the_naive_version(pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 0..300)) {
            let (from, update): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            check(&from, &update);
        }

        /// Over several blocks, and the rest after the last whole one.
        #[test]
        fn the_first_of_several_is_found(
            len in 1usize..3 * BLOCK + 70, bad in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>()), 0..4))
        {
            let mut from = alloc::vec![-0.0f32; len];
            for (at, bits) in bad {
                from[at.index(len)] = f32::from_bits(bits | 0x7f80_0000);
            }
            check(&from, &alloc::vec![1.0; len]);
            check(&alloc::vec![1.0; len], &from);
        }
    }

    #[test]
    fn a_difference_of_finite_floats_that_overflows_is_found() {
        let (from, mut update) = (alloc::vec![f32::MAX; 2 * BLOCK], alloc::vec![0.0; 2 * BLOCK]);
        update[BLOCK + 7] = -f32::MAX;
        check(&from, &update);
        let mut into = alloc::vec![0.0; from.len()];
        assert_eq!(subtract_finite(&mut into, &from, &update), Some(BLOCK + 7));
        assert_eq!(copy_finite(&mut into, &from), None);
    }
}
