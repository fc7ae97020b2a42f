//! Top-k: the elements of largest magnitude, as floats (Lin et al. 2018). The other elements stay in the residual. For
//! the gpu crate, benches and fuzzing; no stable API.
//!
//! A body is a header of three words (number of entries, form of the list, words of the list), the list of indices and
//! signs as [`entries`] writes it, and the magnitudes as floats above 0. Among equal magnitudes the lowest indices are
//! sent.

use super::entries::{self, Reader};
use super::{BodyError, Encoded, Form, bytes, squares};
use crate::kernel::threshold::NEGATIVE;
use crate::kernel::tier::Tier;

/// Length of a body's header in words.
pub const HEADER_WORDS: usize = 3;

/// The largest length in words of a body with `count` entries over `len` elements.
pub const fn words_max(len: usize, count: usize) -> usize {
    HEADER_WORDS + entries::words_max(len) + count
}

/// Number of elements for a density, at least 1.
pub fn count(len: usize, density: f32) -> usize {
    ((f64::from(density) * len as f64) as usize).clamp(1, len)
}

/// Elements of the sample that [`floor`] takes.
const SAMPLE: usize = 4096;

/// The bits of a magnitude that a few more than `count` elements reach, by a strided sample. It saves the exact
/// selection from looking at all other elements. 0: the sample would save nothing.
fn floor(x: &[f32], count: usize) -> u32 {
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

/// Writes the indices of the elements whose magnitude is at least `floor` to `into`, and returns their number.
fn candidates(x: &[f32], floor: u32, into: &mut [u32]) -> usize {
    const BLOCK: usize = 16;
    let mut found = 0;
    Tier::best().run(|| {
        for (block, x) in x.chunks(BLOCK).enumerate() {
            // A fold without a branch vectorises. Most blocks have no candidate.
            let reach = |x: &f32| u32::from(x.to_bits() & !NEGATIVE >= floor);
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
/// A radix selection: three passes count by the next 11, 11 and 9 bits of the magnitude. Time is linear, and it neither
/// sorts nor allocates.
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

/// Writes the `count` largest elements of `residual + update` to `body`, without elements that are 0, and keeps the
/// other elements in the residual. `scratch` needs one word per element, `body` [`words_max`].
///
/// # Panics
/// If `update`, `scratch` or `body` is too short, or `count` is 0 or above the length.
pub fn encode(
    count: usize,
    update: Option<&[f32]>,
    residual: &mut [f32],
    scratch: &mut [u32],
    body: &mut [u32],
) -> Encoded {
    let mut dense = super::Dense::default();
    dense.add(update, residual, 0);
    let mut considered = candidates(residual, floor(residual, count), scratch);
    if considered < count {
        // The sample was not typical of the vector.
        considered = candidates(residual, 0, scratch);
    }
    let (kth, mut ties) = kth(residual, &scratch[..considered], count);
    let mut found = 0;
    for i in 0..considered {
        let index = scratch[i];
        let bits = residual[index as usize].to_bits();
        let magnitude = bits & !NEGATIVE;
        // Of the elements equal to the smallest sent magnitude, the first ones, as many as belong to the `count`
        // largest.
        let tie = magnitude == kth && ties > 0;
        ties -= usize::from(tie);
        if (magnitude > kth || tie) && magnitude != 0 {
            scratch[found] = bits & NEGATIVE | index;
            found += 1;
        }
    }
    let (form, words) = entries::write(&scratch[..found], found as u32, residual.len(), &mut body[HEADER_WORDS..]);
    body[..HEADER_WORDS].copy_from_slice(&[found as u32, form as u32, words as u32]);
    let values = &mut body[HEADER_WORDS + words..][..found];
    for (value, word) in values.iter_mut().zip(&scratch[..found]) {
        let residual = &mut residual[(word & !NEGATIVE) as usize];
        // Sent exactly, so nothing of the element stays in the residual.
        *value = core::mem::take(residual).to_bits() & !NEGATIVE;
    }
    let bytes = (HEADER_WORDS + words + found) as u32 * 4;
    let mut encoded = Encoded { bytes, entries: found as u32, squares: squares(residual), ..Encoded::default() };
    encoded.threshold = f32::from_bits(kth);
    encoded.add_non_finite(dense.non_finite, dense.first_non_finite);
    encoded
}

/// Calls `visit` with index and value of each entry.
///
/// # Errors
/// If the body is malformed. Entries may have been visited before the error is found.
pub fn read(body: &[u32], len: usize, mut visit: impl FnMut(usize, f32)) -> Result<(), BodyError> {
    let short = BodyError::Short { expected: bytes(HEADER_WORDS), got: bytes(body.len()) };
    let (&[nnz, number, words], rest) = body.split_first_chunk::<HEADER_WORDS>().ok_or(short)?;
    let form = Form::from_number(number).ok_or(BodyError::UnknownForm { got: number })?;
    let expected = u64::from(words) + u64::from(nnz);
    if expected != rest.len() as u64 {
        let expected = bytes(expected as usize);
        return Err(BodyError::Trailing { expected, got: bytes(rest.len()) });
    }
    let (list, values) = rest.split_at(words as usize);
    // The magnitude bits of a finite float above 0.
    if let Some(at) = values.iter().position(|value| !(1..0x7f80_0000).contains(value)) {
        return Err(BodyError::Value { index: at as u32, got: f32::from_bits(values[at]) });
    }
    let mut values = values.iter();
    let mut reader = Reader::new(form, nnz, len, list)?;
    while let Some(block) = reader.next_block()? {
        for (entry, value) in block.entries().zip(&mut values) {
            if entry.count.abs() != 1 {
                return Err(BodyError::Count { limit: 1, index: entry.index });
            }
            visit(entry.index as usize, f32::from_bits(*value).copysign(entry.count as f32));
        }
    }
    Ok(())
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    into.fill(0.0);
    read(body, into.len(), |index, value| into[index] = value)
}
