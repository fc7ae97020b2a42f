//! Means weighted by examples: `sum(m_j x_j) / sum(m_j)`.
//!
//! Sums are in f64, where the product of a float and a weight of up to 29 bits is exact; larger weights make an error that
//! is far below the precision of f32. The division is a
//! multiplication by the reciprocal of the total, whose error is far below the precision of f32. So the mean of equal
//! vectors is that vector, and the error of a result is at most one unit in the last place of the largest operand. Sums
//! run in the order of the inputs, which machines derive from ranks, so the order of arrival does not matter.

use super::MEAN_MAX;
use super::tier::Tier;

/// `into` = the weighted mean of `inputs`.
///
/// # Panics
/// If there are no inputs or more than [`MEAN_MAX`], a weight is 0, or lengths differ.
pub fn mean(into: &mut [f32], inputs: &[(&[f32], u64)]) {
    assert!((1..=MEAN_MAX).contains(&inputs.len()));
    // Up to four inputs, the usual case, run in loops that are unrolled over the inputs.
    match *inputs {
        [a] => into.copy_from_slice(a.0),
        [a, b] => fused(Tier::best(), into, None, [a, b]),
        [a, b, c] => fused(Tier::best(), into, None, [a, b, c]),
        [a, b, c, d] => fused(Tier::best(), into, None, [a, b, c, d]),
        _ => {
            check(into, inputs);
            // The same operations in the same order as the loops above, so that results do not depend on the number of
            // inputs.
            let per_total = 1.0 / inputs.iter().map(|(_, weight)| *weight as f64).sum::<f64>();
            for (i, into) in into.iter_mut().enumerate() {
                let sum: f64 = inputs.iter().map(|(x, weight)| f64::from(x[i]) * *weight as f64).sum();
                *into = (sum * per_total) as f32;
            }
        }
    }
}

/// `into` = the weighted mean of `into`, with weight `held`, and of `others`, in one pass over memory. With `held` 0
/// and a single other vector, this is a copy.
///
/// # Panics
/// If `others` is empty, a weight in it is 0, or lengths differ.
pub fn in_place<const N: usize>(tier: Tier, into: &mut [f32], held: u64, others: [(&[f32], u64); N]) {
    match others.first() {
        // Not a weight of 0 for `into`: its content may be NaN, and 0 · NaN is NaN.
        Some((only, _)) if N == 1 && held == 0 => into.copy_from_slice(only),
        first => {
            assert!(first.is_some());
            fused(tier, into, Some(held), others);
        }
    }
}

fn check(into: &[f32], inputs: &[(&[f32], u64)]) {
    assert!(inputs.iter().all(|(x, weight)| x.len() == into.len() && *weight > 0));
}

/// The mean of `N` inputs in one pass. `into` is an additional first input if it has a weight. Vector code converts
/// between f32 and f64 explicitly, because the compiler does not vectorise these conversions.
#[inline(always)]
fn fused<const N: usize>(tier: Tier, into: &mut [f32], held: Option<u64>, inputs: [(&[f32], u64); N]) {
    check(into, &inputs);
    let weights = inputs.map(|(_, weight)| weight as f64);
    let total = held.map_or(0.0, |held| held as f64) + weights.iter().sum::<f64>();
    let sum = Sum {
        into,
        held: held.map(|held| held as f64),
        inputs: inputs.map(|(x, _)| x),
        weights,
        per_total: 1.0 / total,
    };
    // The vector code uses fused multiply-add. While the product is exact (weights below 2^29), it rounds as separate
    // operations do. Larger weights take the portable loop.
    let tier = if sum.weights.iter().chain(&sum.held).all(|weight| *weight < (1 << 29) as f64) {
        tier
    } else {
        Tier::Portable
    };
    match tier {
        Tier::Portable => sum.one_by_one(0),
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        Tier::Avx2(simd) => simd.vectorize(Avx2(simd, sum)),
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        Tier::Avx512(simd) => simd.vectorize(Avx512(simd, sum)),
    }
}

/// The arguments of a pass.
struct Sum<'a, const N: usize> {
    into: &'a mut [f32],
    /// Weight of `into`; `None` if it is not an input.
    held: Option<f64>,
    inputs: [&'a [f32]; N],
    weights: [f64; N],
    /// 1 / sum of all weights.
    per_total: f64,
}

impl<const N: usize> Sum<'_, N> {
    /// The portable loop, from element `first` on.
    fn one_by_one(self, first: usize) {
        for i in first..self.into.len() {
            let mut sum = self.held.map_or(0.0, |held| f64::from(self.into[i]) * held);
            for (x, weight) in self.inputs.iter().zip(self.weights) {
                sum += f64::from(x[i]) * weight;
            }
            self.into[i] = (sum * self.per_total) as f32;
        }
    }
}

/// Defines the loop of a tier, in vectors of `$lanes` doubles, two vectors per iteration.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
macro_rules! vectors {
    ($name:ident, $token:ty, $part:ident, $fused:ident, $lanes:literal,
     $set:ident, $widen:ident, $mul:ident, $fma:ident, $narrow:ident) => {
        struct $name<'a, const N: usize>($token, Sum<'a, N>);

        impl<const N: usize> pulp::NullaryFnOnce for $name<'_, N> {
            type Output = ();

            #[inline(always)]
            fn call(self) {
                let Self(simd, sum) = self;
                let (simd, fused) = (simd.$part, simd.$fused);
                let per_total = simd.$set(sum.per_total);
                let held = simd.$set(sum.held.unwrap_or(0.0));
                let mut weights = [per_total; N];
                let mut inputs: [&[[[f32; $lanes]; 2]]; N] = [&[]; N];
                for input in 0..N {
                    weights[input] = simd.$set(sum.weights[input]);
                    inputs[input] = sum.inputs[input].as_chunks::<$lanes>().0.as_chunks().0;
                }
                let (chunks, _) = sum.into.as_chunks_mut::<$lanes>().0.as_chunks_mut::<2>();
                for (i, into) in chunks.iter_mut().enumerate() {
                    let [mut low, mut high] = [simd.$set(0.0); 2];
                    if sum.held.is_some() {
                        low = simd.$mul(simd.$widen(bytemuck::cast(into[0])), held);
                        high = simd.$mul(simd.$widen(bytemuck::cast(into[1])), held);
                    }
                    for input in 0..N {
                        let x = &inputs[input][i];
                        low = fused.$fma(simd.$widen(bytemuck::cast(x[0])), weights[input], low);
                        high = fused.$fma(simd.$widen(bytemuck::cast(x[1])), weights[input], high);
                    }
                    into[0] = bytemuck::cast(simd.$narrow(simd.$mul(low, per_total)));
                    into[1] = bytemuck::cast(simd.$narrow(simd.$mul(high, per_total)));
                }
                let first = chunks.len() * 2 * $lanes;
                sum.one_by_one(first);
            }
        }
    };
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
vectors!(
    Avx2,
    pulp::x86::V3,
    avx,
    fma,
    4,
    _mm256_set1_pd,
    _mm256_cvtps_pd,
    _mm256_mul_pd,
    _mm256_fmadd_pd,
    _mm256_cvtpd_ps
);
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
vectors!(
    Avx512,
    pulp::x86::V4,
    avx512f,
    avx512f,
    8,
    _mm512_set1_pd,
    _mm512_cvtps_pd,
    _mm512_mul_pd,
    _mm512_fmadd_pd,
    _mm512_cvtpd_ps
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WEIGHT_MAX;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Small weights, and some whose product with a float is not exact.
    fn inputs() -> impl Strategy<Value = Vec<(Vec<f32>, u64)>> {
        let weight = prop_oneof![4 => 1u64..1000, 1 => 1u64 << 29..WEIGHT_MAX].boxed();
        (0usize..70).prop_flat_map(move |len| {
            prop::collection::vec((prop::collection::vec(-1e6f32..1e6, len), weight.clone()), 1..=MEAN_MAX)
        })
    }

    fn slices(inputs: &[(Vec<f32>, u64)]) -> Vec<(&[f32], u64)> {
        inputs.iter().map(|(x, weight)| (&x[..], *weight)).collect()
    }

    /// A fused multiply-add would find the part that the rounding of the second product has taken away.
    #[test]
    fn products_of_large_weights_are_rounded_with_any_instructions() {
        let (x, weight) = (1.0 + f32::EPSILON, (1u64 << 53) - 1);
        let product = f64::from(x) * weight as f64;
        let (minus, x) = ([-1.0; 70], [x; 70]);
        let mut got = [f32::NAN; 70];
        mean(&mut got, &[(&minus, product as u64), (&x, weight)]);
        assert_eq!(got, [0.0; 70]);
    }

    proptest! {
        #[test]
        fn all_loops_agree_with_the_naive_mean(inputs in inputs()) {
            let len = inputs[0].0.len();
            let total: f64 = inputs.iter().map(|(_, w)| *w as f64).sum();
            let oracle: Vec<f32> = (0..len).map(|i| {
                let mut sum = 0.0;
                for (x, w) in &inputs { sum += f64::from(x[i]) * *w as f64; }
                (sum * (1.0 / total)) as f32
            }).collect();
            let mut got = alloc::vec![f32::NAN; len];
            mean(&mut got, &slices(&inputs));
            prop_assert_eq!(&got, &oracle);
            if let [(first, held), (a, m), (b, n), (c, o)] = &inputs[..] {
                for tier in Tier::all() {
                    let mut same = first.clone();
                    in_place(tier, &mut same, *held, [(a, *m), (b, *n), (c, *o)]);
                    prop_assert_eq!(&same, &oracle);
                }
            }
        }

        #[test]
        fn the_mean_of_equal_vectors_is_that_vector_for_any_weights(x in prop::collection::vec(-1e30f32..1e30, 1..50),
            weights in prop::collection::vec(prop_oneof![1u64..100_000, Just(u64::from(u32::MAX)), 1u64..WEIGHT_MAX], 1..=MEAN_MAX))
        {
            let inputs: Vec<(&[f32], u64)> = weights.iter().map(|w| (&x[..], *w)).collect();
            let mut got = alloc::vec![f32::NAN; x.len()];
            mean(&mut got, &inputs);
            prop_assert_eq!(&got, &x);
            let mut held = 0;
            for weight in weights {
                in_place(Tier::best(), &mut got, held, [(&x, weight)]);
                held += weight;
            }
            prop_assert_eq!(&got, &x);
        }

        /// In particular, averaged second moments of an optimizer stay at least 0.
        #[test]
        fn a_mean_lies_between_its_inputs(inputs in inputs()) {
            let mut got = alloc::vec![f32::NAN; inputs[0].0.len()];
            mean(&mut got, &slices(&inputs));
            for (i, got) in got.into_iter().enumerate() {
                let column = || inputs.iter().map(|(x, _)| x[i]);
                prop_assert!(column().fold(f32::INFINITY, f32::min) <= got);
                prop_assert!(column().fold(f32::NEG_INFINITY, f32::max) >= got);
            }
        }

        /// At most one rounding per input.
        #[test]
        fn a_running_mean_is_close_to_the_mean_of_all_inputs(inputs in inputs()) {
            let len = inputs[0].0.len();
            let (mut all, mut running, mut held) = (alloc::vec![0.0; len], alloc::vec![f32::NAN; len], 0);
            mean(&mut all, &slices(&inputs));
            for (x, weight) in &inputs {
                in_place(Tier::best(), &mut running, held, [(x, *weight)]);
                held += weight;
            }
            let largest = inputs.iter().flat_map(|(x, _)| x).fold(0f32, |m, x| m.max(x.abs()));
            let ulp = f32::from_bits(largest.to_bits() + 1) - largest;
            for (a, b) in all.iter().zip(&running) {
                prop_assert!((a - b).abs() <= inputs.len() as f32 * ulp, "{a} {b}");
            }
        }
    }
}
