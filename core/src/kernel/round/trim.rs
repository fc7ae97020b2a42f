//! The trimmed mean and the median, element by element (Yin et al. 2018).
//!
//! A sorting network compares whole rows of a block: each comparison is a minimum and a maximum of many elements at once,
//! which vector instructions do. The network is Batcher's merge exchange (Knuth, volume 3, algorithm 5.2.2M), for any
//! number of rows.

use super::BLOCK;
use crate::kernel::tier::Tier;

/// `into` = the mean of each element without its `trim` smallest and largest values, at most (n - 1) / 2 of each. The
/// values that are left are added up in ascending order, in f64. `keys`: [`BLOCK`] words per row.
pub(super) fn trimmed<'a>(
    into: &mut [f32],
    row: impl Fn(usize) -> &'a [f32],
    count: usize,
    trim: usize,
    keys: &mut [u32],
) {
    let trim = trim.min((count - 1) / 2);
    let per_kept = (count - 2 * trim) as f64;
    let keys: &mut [i32] = bytemuck::cast_slice_mut(keys);
    for start in (0..into.len()).step_by(BLOCK) {
        let len = (into.len() - start).min(BLOCK);
        for (index, keys) in keys.chunks_exact_mut(BLOCK).take(count).enumerate() {
            let x = &row(index)[start..start + len];
            Tier::best().run(|| keys.iter_mut().zip(x).for_each(|(key, x)| *key = key_of(*x)));
        }
        exchanges(count, |low, high| {
            let (below, above) = keys.split_at_mut(high * BLOCK);
            let (low, high) = (&mut below[low * BLOCK..][..BLOCK], &mut above[..BLOCK]);
            Tier::best().run(|| exchange(low, high));
        });
        let mut sums = [0.0f64; BLOCK];
        for keys in keys.chunks_exact(BLOCK).take(count - trim).skip(trim) {
            Tier::best().run(|| sums.iter_mut().zip(keys).for_each(|(sum, key)| *sum += f64::from(float_of(*key))));
        }
        into[start..start + len].iter_mut().zip(sums).for_each(|(into, sum)| *into = (sum / per_kept) as f32);
    }
}

/// An integer that is ordered as the float is, with -0 below +0. Equal integers are equal bits, so that a minimum is
/// always one of its two arguments.
#[inline(always)]
const fn key_of(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

#[inline(always)]
const fn float_of(key: i32) -> f32 {
    f32::from_bits((key ^ (((key >> 31) as u32) >> 1) as i32) as u32)
}

#[inline(always)]
fn exchange(low: &mut [i32], high: &mut [i32]) {
    for (low, high) in low.iter_mut().zip(high) {
        (*low, *high) = ((*low).min(*high), (*low).max(*high));
    }
}

/// The pairs of a network that sorts `n` rows, the smaller index first.
fn exchanges(n: usize, mut pair: impl FnMut(usize, usize)) {
    let top = n.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            for i in (0..n.saturating_sub(d)).filter(|i| i & p == r) {
                pair(i, i + d);
            }
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// A network that sorts all sequences of zeros and ones sorts everything (Knuth, 5.3.4, theorem Z).
    #[test]
    fn the_network_sorts_any_number_of_rows() {
        for n in 1..=12usize {
            for bits in 0u32..1 << n {
                let mut x: Vec<u32> = (0..n).map(|i| bits >> i & 1).collect();
                exchanges(n, |i, j| {
                    assert!(i < j && j < n);
                    if x[i] > x[j] {
                        x.swap(i, j);
                    }
                });
                assert!(x.is_sorted(), "{n} rows: {x:?}");
            }
        }
    }

    #[test]
    fn keys_are_ordered_as_floats_and_turn_back_into_them() {
        let floats = [f32::MIN, -1e30, -1.5, -1e-40, -0.0, 0.0, 1e-40, 1.5, 1e30, f32::MAX];
        assert!(floats.map(key_of).is_sorted_by(|a, b| a < b));
        assert_eq!(floats.map(|x| float_of(key_of(x)).to_bits()), floats.map(f32::to_bits));
    }
}
