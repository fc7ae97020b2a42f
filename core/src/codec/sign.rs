//! Sign: one bit per element, and a scale per block of 1,024 elements (1-bit SGD, Seide et al. 2014; error feedback as
//! in Karimireddy et al. 2019). For the gpu crate, benches and fuzzing; no stable API.
//!
//! An element is decoded as ± the scale. The scale is the largest power of two up to the block's mean magnitude.
//! Karimireddy et al. take the mean itself; a power of two does not depend on the last bits of the sum. The sign of 0
//! is plus. A body is the scales, a float per block, then the signs, a set bit for minus. A block whose elements are
//! too small for a scale has scale 0 and no set bits.

use super::{BodyError, Dense, squares};
use crate::kernel::threshold::is_power_of_two;
use crate::kernel::tier::Tier;

/// Elements per block.
pub const BLOCK: usize = 1024;

/// The largest scale, 2^100. It keeps sums over a block of decoded elements finite.
const SCALE_MAX: f32 = f32::from_bits((127 + 100) << 23);

/// Length of a body in words, for `len` elements.
pub const fn words(len: usize) -> usize {
    len.div_ceil(BLOCK) + len.div_ceil(32)
}

/// Writes scales and signs of `residual + update` to `body`, and keeps the difference to the decoded vector in the
/// residual.
pub fn encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    let body = &mut body[..words(residual.len())];
    let (scales, signs) = body.split_at_mut(residual.len().div_ceil(BLOCK));
    let mut dense = Dense::default();
    for (i, (residual, signs)) in residual.chunks_mut(BLOCK).zip(signs.chunks_mut(BLOCK / 32)).enumerate() {
        let update = update.map(|update| &update[i * BLOCK..i * BLOCK + residual.len()]);
        tier.run(|| dense.add(update, residual, i * BLOCK));
        let sum = tier.run(|| super::magnitudes(residual));
        let mean = ((sum / residual.len() as f64) as f32).min(SCALE_MAX);
        // The exponent bits alone are the power of two; a subnormal mean gives scale 0.
        let scale = f32::from_bits(mean.to_bits() & 0x7f80_0000);
        scales[i] = scale.to_bits();
        tier.run(|| block(residual, signs, scale));
        dense.squares += tier.run(|| squares(residual));
    }
    dense
}

/// Encodes the signs of a block with a given scale.
#[inline(always)]
fn block(residual: &mut [f32], signs: &mut [u32], scale: f32) {
    for (residual, signs) in residual.chunks_mut(32).zip(signs) {
        *signs = 0;
        // Without a scale, signs have no meaning, and bodies are canonical.
        if scale == 0.0 {
            continue;
        }
        let word = residual.iter().enumerate().fold(0, |word, (bit, x)| word | u32::from(*x < 0.0) << bit);
        *signs = word;
        for residual in residual {
            *residual -= if *residual < 0.0 { -scale } else { scale };
        }
    }
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    super::check_words(body, words(into.len()))?;
    let (scales, signs) = body.split_at(into.len().div_ceil(BLOCK));
    // Unused bits of the last word must be 0, because bodies are canonical.
    let used = into.len() % 32;
    if let Some(last) = signs.last().filter(|last| used > 0 && **last >> used != 0) {
        return Err(BodyError::Padding { got: last >> used });
    }
    for (i, (into, signs)) in into.chunks_mut(BLOCK).zip(signs.chunks(BLOCK / 32)).enumerate() {
        let scale = f32::from_bits(scales[i]);
        let empty = scales[i] == 0 && signs.iter().all(|signs| *signs == 0);
        let valid = is_power_of_two(scale) && scale <= SCALE_MAX;
        if !empty && !valid {
            return Err(BodyError::Scale { block: i as u32, got: scale });
        }
        tier.run(|| {
            for (into, signs) in into.chunks_mut(32).zip(signs) {
                for (bit, into) in into.iter_mut().enumerate() {
                    *into = f32::from_bits(scale.to_bits() | (signs >> bit & 1) << 31);
                }
            }
        });
        if empty {
            into.fill(0.0);
        }
    }
    Ok(())
}
