//! The common part of bf16 and f16: 16 bits per element, two elements per word, rounding errors in the residual.

use super::{BodyError, Dense, squares};
use crate::kernel::tier::Tier;

/// Elements per pass. Three loops run over a chunk while it is in the cache.
const CHUNK: usize = 4096;

pub(super) const fn words(len: usize) -> usize {
    len.div_ceil(2)
}

#[inline(always)]
pub(super) fn encode(
    tier: Tier,
    update: Option<&[f32]>,
    residual: &mut [f32],
    body: &mut [u32],
    narrow: impl Fn(f32) -> u16 + Copy,
    widen: impl Fn(u16) -> f32 + Copy,
) -> Dense {
    let body = &mut body[..words(residual.len())];
    // The unused half of the last word must be 0, because bodies are canonical.
    if let Some(last) = body.last_mut() {
        *last = 0;
    }
    let out: &mut [u16] = bytemuck::cast_slice_mut(body);
    let mut dense = Dense::default();
    for (i, (residual, out)) in residual.chunks_mut(CHUNK).zip(out.chunks_mut(CHUNK)).enumerate() {
        let update = update.map(|update| &update[i * CHUNK..i * CHUNK + residual.len()]);
        // Separate loops: the compiler does not vectorise them as one.
        tier.run(|| dense.add(update, residual, i * CHUNK));
        tier.run(|| {
            for (residual, out) in residual.iter_mut().zip(out) {
                *out = narrow(*residual);
                *residual -= widen(*out);
            }
        });
        dense.squares += tier.run(|| squares(residual));
    }
    dense
}

#[inline(always)]
pub(super) fn expand(
    tier: Tier,
    body: &[u32],
    into: &mut [f32],
    widen: impl Fn(u16) -> f32 + Copy,
) -> Result<(), BodyError> {
    super::check_words(body, words(into.len()))?;
    let values: &[u16] = bytemuck::cast_slice(body);
    if let Some(got) = values[into.len()..].iter().find(|value| **value != 0) {
        return Err(BodyError::Padding { got: u32::from(*got) });
    }
    tier.run(|| {
        for (into, value) in into.iter_mut().zip(values) {
            *into = widen(*value);
        }
    });
    super::check_finite(into)
}
