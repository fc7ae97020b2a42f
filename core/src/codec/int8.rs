//! int8: blocks of 64 elements, each element an integer from -127 to 127 times the block's scale. For the gpu crate,
//! benches and fuzzing; no stable API.
//!
//! The scale is the power of two at which the largest element of the block takes 7 bits. Because it is a power of two,
//! the error in the residual is exact. A body is the exponents of the scales, a byte per block, then the elements, a
//! byte each; both parts are padded with zeros to whole words. A block whose elements are too small for a scale has
//! exponent 0 and elements 0.

use super::{BodyError, Dense, squares};
use crate::kernel::tier::{Tier, Work};

/// Elements per block.
pub const BLOCK: usize = 64;

/// Elements per pass. Three loops run over a chunk while it is in the cache.
const CHUNK: usize = 64 * BLOCK;

/// Length of a body in words, for `len` elements.
pub const fn words(len: usize) -> usize {
    len.div_ceil(BLOCK).div_ceil(4) + len.div_ceil(4)
}

/// The biased exponent of the scale for a block's largest magnitude, 6 below its own exponent. 0: the block is too
/// small to have a scale.
fn exponent(magnitude_bits: u32) -> u32 {
    (magnitude_bits >> 23).saturating_sub(6)
}

/// The scale with this biased exponent: a power of two, or 0.
fn scale(exponent: u32) -> f32 {
    f32::from_bits(exponent << 23)
}

/// Writes `residual + update` to `body`, rounded, and keeps the rounding errors in the residual.
pub fn encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    let body = &mut body[..words(residual.len())];
    body.fill(0);
    let (scales, values) = body.split_at_mut(residual.len().div_ceil(BLOCK).div_ceil(4));
    let scales: &mut [u8] = bytemuck::cast_slice_mut(scales);
    let values: &mut [i8] = bytemuck::cast_slice_mut(values);
    let mut dense = Dense::default();
    for (i, (residual, values)) in residual.chunks_mut(CHUNK).zip(values.chunks_mut(CHUNK)).enumerate() {
        let update = update.map(|update| &update[i * CHUNK..i * CHUNK + residual.len()]);
        tier.run(|| dense.add(update, residual, i * CHUNK));
        let scales = &mut scales[i * (CHUNK / BLOCK)..];
        tier.run(Blocks { residual, values, scales });
        dense.squares += tier.run(|| squares(residual));
    }
    dense
}

/// The blocks of a chunk. A type with `call` marked as inline, so that [`Tier::run`] builds the loop for the tier; the
/// body is too long for a closure to be inlined.
struct Blocks<'a> {
    residual: &'a mut [f32],
    values: &'a mut [i8],
    scales: &'a mut [u8],
}

impl Work for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let blocks = self.residual.chunks_mut(BLOCK).zip(self.values.chunks_mut(BLOCK));
        for ((residual, values), scale) in blocks.zip(self.scales) {
            *scale = block(residual, values);
        }
    }
}

/// Encodes a block and returns the exponent of its scale.
#[inline(always)]
fn block(residual: &mut [f32], values: &mut [i8]) -> u8 {
    // 1.5 * 2^23: adding and subtracting it rounds to an integer, ties to even.
    const WHOLE: f32 = 12_582_912.0;
    let largest = residual.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest));
    let exponent = exponent(largest);
    // Too small for a scale: the elements stay in the residual.
    if exponent == 0 {
        return 0;
    }
    // 254 - e is the biased exponent of the reciprocal, so the division is an exact multiplication.
    let (scale, per_scale) = (scale(exponent), scale(254 - exponent));
    for (residual, value) in residual.iter_mut().zip(values) {
        let whole = ((*residual * per_scale + WHOLE) - WHOLE).clamp(-127.0, 127.0);
        *residual -= whole * scale;
        *value = whole as i8;
    }
    exponent as u8
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    super::check_words(body, words(into.len()))?;
    let blocks = into.len().div_ceil(BLOCK);
    let (scales, values) = body.split_at(blocks.div_ceil(4));
    let (scales, values): (&[u8], &[i8]) = (bytemuck::cast_slice(scales), bytemuck::cast_slice(values));
    let padding = scales[blocks..].iter().copied().chain(values[into.len()..].iter().map(|value| *value as u8));
    if let Some(got) = padding.into_iter().find(|byte| *byte != 0) {
        return Err(BodyError::Padding { got: u32::from(got) });
    }
    for (i, (into, values)) in into.chunks_mut(BLOCK).zip(values.chunks(BLOCK)).enumerate() {
        let exponent = u32::from(scales[i]);
        let values = &values[..into.len()];
        // The encoder takes the smallest scale at which the largest element fits 7 bits, so that element is at least
        // 64.
        let largest = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        let fits = if exponent == 0 { largest == 0 } else { exponent <= 248 && (64..=127).contains(&largest) };
        if !fits {
            return Err(BodyError::Scale { block: i as u32, got: scale(exponent) });
        }
        let scale = scale(exponent);
        tier.run(|| {
            for (into, value) in into.iter_mut().zip(values) {
                *into = f32::from(*value) * scale;
            }
        });
    }
    Ok(())
}
