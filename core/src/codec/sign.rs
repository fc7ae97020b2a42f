//! Sign: one bit per element, and a scale per block of 1,024.
//!
//! The scale is the largest power of two up to the block's mean magnitude (Karimireddy et al. 2019 take the mean
//! itself; a power of two makes the body the same on every machine). The sign of 0 is +. A body is the scales, a
//! float per block, then the signs, a set bit for -; a block too small to have a scale has 0 and no bits.

use super::{BodyError, Dense, squares};
use crate::kernel::threshold::is_power_of_two;
use crate::kernel::tier::Tier;

/// Elements of a block.
pub const BLOCK: usize = 1024;

/// The largest scale: a block's sum does not overflow. 2^100.
const SCALE_MAX: f32 = f32::from_bits((127 + 100) << 23);

/// Words of a body.
pub const fn words(len: usize) -> usize {
    len.div_ceil(BLOCK) + len.div_ceil(32)
}

/// Writes the signs of `residual + update`, and keeps what these do not say.
pub fn encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    let body = &mut body[..words(residual.len())];
    let (scales, signs) = body.split_at_mut(residual.len().div_ceil(BLOCK));
    let mut dense = Dense::default();
    for (i, (residual, signs)) in residual.chunks_mut(BLOCK).zip(signs.chunks_mut(BLOCK / 32)).enumerate() {
        let update = update.map(|update| &update[i * BLOCK..i * BLOCK + residual.len()]);
        tier.run(|| dense.add(update, residual, i * BLOCK));
        let sum = tier.run(|| super::magnitudes(residual));
        let mean = ((sum / residual.len() as f64) as f32).min(SCALE_MAX);
        let scale = f32::from_bits(mean.to_bits() & 0x7f80_0000);
        scales[i] = scale.to_bits();
        tier.run(|| block(residual, signs, scale));
        dense.squares += tier.run(|| squares(residual));
    }
    dense
}

#[inline(always)]
fn block(residual: &mut [f32], signs: &mut [u32], scale: f32) {
    for (residual, signs) in residual.chunks_mut(32).zip(signs) {
        *signs = 0;
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

/// # Errors
/// When the body is none; `into` is of no use then.
pub fn expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    super::check_words(body, words(into.len()))?;
    let (scales, signs) = body.split_at(into.len().div_ceil(BLOCK));
    let used = into.len() % 32;
    if let Some(last) = signs.last().filter(|last| used > 0 && **last >> used != 0) {
        return Err(BodyError::Padding { got: last >> used });
    }
    for (i, (into, signs)) in into.chunks_mut(BLOCK).zip(signs.chunks(BLOCK / 32)).enumerate() {
        let scale = f32::from_bits(scales[i]);
        let none = scales[i] == 0 && signs.iter().all(|signs| *signs == 0);
        let sound = is_power_of_two(scale) && scale <= SCALE_MAX;
        if !none && !sound {
            return Err(BodyError::Scale { block: i as u32, got: scale });
        }
        tier.run(|| {
            for (into, signs) in into.chunks_mut(32).zip(signs) {
                for (bit, into) in into.iter_mut().enumerate() {
                    *into = f32::from_bits(scale.to_bits() | (signs >> bit & 1) << 31);
                }
            }
        });
        if none {
            into.fill(0.0);
        }
    }
    Ok(())
}
