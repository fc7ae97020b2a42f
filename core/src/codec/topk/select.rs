//! Selection of the elements of largest magnitude: exact, in linear time, without sorting or allocating.

use crate::kernel::threshold::NEGATIVE;
use crate::kernel::tier::Tier;

/// Elements of the sample that [`floor`] takes.
const SAMPLE: usize = 4096;

/// Bits by which a guess is below the last chunk's smallest selected magnitude: a factor of about 0.84. Chunks of one
/// tensor are alike, so most chunks have enough candidates at that magnitude, and few too many.
const MARGIN: u32 = 1 << 21;

/// The bits of a magnitude that a few more than `count` elements reach, by a strided sample. It saves the exact
/// selection from looking at all other elements. 0: the sample would save nothing.
pub(super) fn floor(x: &[f32], count: usize) -> u32 {
    let stride = x.len() / SAMPLE;
    // The rank in the sample, and four standard deviations more.
    let expected = count / stride.max(1);
    let rank = expected + 4 * expected.isqrt() + 8;
    if stride < 8 || rank >= SAMPLE / 2 {
        return 0;
    }
    let mut sample = [0u32; SAMPLE];
    for (magnitude, x) in sample.iter_mut().zip(x.iter().step_by(stride)) {
        *magnitude = x.to_bits() & !NEGATIVE;
    }
    *sample.select_nth_unstable(SAMPLE - 1 - rank).1
}

/// The floor for a chunk that follows one whose smallest selected magnitude has the bits `kth`.
pub(super) const fn guess(kth: u32) -> u32 {
    kth.saturating_sub(MARGIN)
}

/// Writes the `count` largest elements of `x`, without elements that are 0, to `into`: for each a word with its sign in
/// the top bit, and `first` plus its index below. Among equal magnitudes the lowest indices are taken. `floor`: the bits
/// of a magnitude that probably enough elements reach. Returns the number of words, and the bits of the `count`-th
/// largest magnitude.
///
/// # Panics
/// If `into` is shorter than `x`, or `count` is 0 or above the length.
pub(super) fn select(x: &[f32], first: usize, count: usize, floor: u32, into: &mut [u32]) -> (usize, u32) {
    let mut considered = candidates(x, floor, into);
    if considered < count {
        // The floor was not typical of the vector.
        considered = candidates(x, 0, into);
    }
    let (kth, mut ties) = kth(x, &into[..considered], count);
    let mut found = 0;
    for i in 0..considered {
        let index = into[i];
        let bits = x[index as usize].to_bits();
        let magnitude = bits & !NEGATIVE;
        // Of the elements equal to the smallest selected magnitude, the first ones, as many as belong to the `count`
        // largest.
        let tie = magnitude == kth && ties > 0;
        ties -= usize::from(tie);
        if (magnitude > kth || tie) && magnitude != 0 {
            into[found] = bits & NEGATIVE | (first as u32 + index);
            found += 1;
        }
    }
    (found, kth)
}

/// Writes the indices of the elements whose magnitude is at least `floor` to `into`, and returns their number.
fn candidates(x: &[f32], floor: u32, into: &mut [u32]) -> usize {
    const BLOCK: usize = 16;
    let mut found = 0;
    // A fold without a branch vectorises.
    let reach = |x: &f32| u32::from(x.to_bits() & !NEGATIVE >= floor);
    Tier::best().run(|| {
        if x.len() <= super::CHUNK {
            // The floor of a chunk is low enough for candidates in most blocks. This loop has no branch to predict.
            for (i, x) in x.iter().enumerate() {
                into[found] = i as u32;
                found += reach(x) as usize;
            }
            return;
        }
        for (block, x) in x.chunks(BLOCK).enumerate() {
            // Most blocks have no candidate.
            if x.iter().fold(0, |any, x| any | reach(x)) == 0 {
                continue;
            }
            for (i, _) in x.iter().enumerate().filter(|(_, x)| reach(x) == 1) {
                into[found] = (block * BLOCK + i) as u32;
                found += 1;
            }
        }
    });
    found
}

/// Selects the `count`-th largest magnitude of the candidates. Returns its bits, and the number of elements with exactly
/// this magnitude that are among the `count` largest.
///
/// A radix selection: three passes count by the next 11, 11 and 9 bits of the magnitude.
fn kth(x: &[f32], candidates: &[u32], count: usize) -> (u32, usize) {
    const BITS: [(u32, u32); 3] = [(20, 11), (9, 11), (0, 9)];
    let (mut prefix, mut left) = (0u32, count);
    for (shift, bits) in BITS {
        let mut bins = [0u32; 1 << 11];
        let above = shift + bits;
        for index in candidates {
            let magnitude = x[*index as usize].to_bits() & !NEGATIVE;
            if above == 31 || magnitude >> above == prefix >> above {
                bins[(magnitude >> shift & ((1 << bits) - 1)) as usize] += 1;
            }
        }
        // Walk down from the largest bin to the one that holds the wanted rank.
        let mut bin = (1usize << bits) - 1;
        while (bins[bin] as usize) < left {
            left -= bins[bin] as usize;
            bin -= 1;
        }
        prefix |= (bin as u32) << shift;
    }
    (prefix, left)
}
