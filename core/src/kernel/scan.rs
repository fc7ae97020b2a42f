//! The check for NaN and infinities. A node scans each contribution before it changes anything with it.

/// A float is finite if its exponent is not all ones.
#[inline(always)]
pub(super) const fn is_non_finite(x: f32) -> bool {
    x.to_bits() & 0x7f80_0000 == 0x7f80_0000
}

/// The index of the first NaN or infinity.
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    const BLOCK: usize = 64;
    // The inner loop has no branch, so that it vectorises; the exact index is searched in the one block that needs it.
    let block = x.chunks(BLOCK).position(|block| {
        let bad = block.iter().fold(0u32, |bad, x| bad | u32::from(is_non_finite(*x)));
        bad != 0
    })?;
    let start = block * BLOCK;
    x[start..].iter().position(|x| !x.is_finite()).map(|i| start + i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_naive_search(mut x in prop::collection::vec(any::<f32>(), 0..300)) {
            prop_assert_eq!(first_non_finite(&x), x.iter().position(|x| !x.is_finite()));
            x.iter_mut().for_each(|x| if !x.is_finite() { *x = f32::MAX });
            prop_assert_eq!(first_non_finite(&x), None);
        }

        #[test]
        fn a_single_non_finite_float_is_found(
            len in 1usize..300, at in any::<prop::sample::Index>(), bits in any::<u32>())
        {
            let mut x = alloc::vec![-0.0f32; len];
            let at = at.index(len);
            x[at] = f32::from_bits(bits | 0x7f80_0000);
            prop_assert_eq!(first_non_finite(&x), Some(at));
        }
    }
}
