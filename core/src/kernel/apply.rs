//! Application of an update: `into = from - scale * update`.
//!
//! Multiplication and subtraction are rounded separately. A fused multiply-subtract would round once, and not all CPU
//! tiers and GPUs have it, so results would differ.

use super::tier::Tier;

/// `into[i] = from[i] - scale * update[i]`
///
/// # Panics
/// If the lengths differ.
pub fn apply(into: &mut [f32], from: &[f32], update: &[f32], scale: f32) {
    assert!(into.len() == from.len() && into.len() == update.len());
    Tier::best().run(|| {
        for ((into, from), update) in into.iter_mut().zip(from).zip(update) {
            *into = from - scale * update;
        }
    });
}

/// `into[i] -= scale * update[i]`
///
/// # Panics
/// If the lengths differ.
pub fn in_place(tier: Tier, into: &mut [f32], update: &[f32], scale: f32) {
    assert_eq!(into.len(), update.len());
    tier.run(|| {
        for (into, update) in into.iter_mut().zip(update) {
            *into -= scale * update;
        }
    });
}

/// `into[i] = scale * update[i]`
///
/// # Panics
/// If the lengths differ.
pub fn scale(into: &mut [f32], update: &[f32], scale: f32) {
    assert_eq!(into.len(), update.len());
    Tier::best().run(|| {
        for (into, update) in into.iter_mut().zip(update) {
            *into = scale * update;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn in_place_and_out_of_place_agree_with_the_oracle(
            pairs in prop::collection::vec((-1e6f32..1e6, -1e6f32..1e6), 0..200), scale in -2f32..2.0)
        {
            let (from, update): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let oracle: Vec<f32> = (0..from.len()).map(|i| { let p = scale * update[i]; from[i] - p }).collect();
            let mut out = alloc::vec![f32::NAN; from.len()];
            apply(&mut out, &from, &update, scale);
            prop_assert_eq!(&out, &oracle);
            for tier in Tier::all() {
                let mut same = from.clone();
                in_place(tier, &mut same, &update, scale);
                prop_assert_eq!(&same, &oracle);
            }
        }
    }
}
