//! Arithmetic that the models share.

use crate::data::next;

/// `into += scale * x`.
pub(super) fn add_scaled(into: &mut [f32], x: &[f32], scale: f32) {
    into.iter_mut().zip(x).for_each(|(into, x)| *into += scale * x);
}

/// The dot product. Eight partial sums let the compiler use vector instructions.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// A random number that is approximately standard normal: the sum of twelve uniform numbers, minus 6.
pub(super) fn normal(state: &mut u64) -> f32 {
    (0..12).map(|_| (next(state) >> 24) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
}

/// The state of a random number generator for a seed.
pub(super) fn seeded(seed: u64) -> u64 {
    seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// The cross-entropy of the softmax of scores. `delta` receives its gradient by the scores, times `share`.
pub(super) fn cross_entropy(scores: &[f32], label: usize, share: f32, delta: &mut [f32]) -> f32 {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let total: f32 = scores.iter().map(|score| (score - largest).exp()).sum();
    for (class, (delta, score)) in delta.iter_mut().zip(scores).enumerate() {
        *delta = share * ((score - largest).exp() / total - f32::from(u8::from(class == label)));
    }
    total.ln() + largest - scores[label]
}

/// The class with the highest score.
pub(super) fn best(scores: &[f32]) -> Option<usize> {
    (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
}

/// A hash of numbers (FNV-1a, a number at a time), to compare the data of processes.
pub(super) fn fingerprint(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0xcbf2_9ce4_8422_2325, |hash, number| (hash ^ number).wrapping_mul(0x0100_0000_01b3))
}
