//! bf16: the upper half of a float, rounded to nearest, ties to even. Finite floats that would round to infinity become
//! the largest finite bf16, and the residual keeps the difference. For the gpu crate, benches and fuzzing; no stable
//! API.

use super::{BodyError, Dense, half};
use crate::kernel::tier::Tier;

/// Length of a body in words, for `len` elements.
pub const fn words(len: usize) -> usize {
    half::words(len)
}

/// The nearest finite bf16. `x` must be finite.
#[inline(always)]
pub fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    // Adding 0x7fff, and 1 if the kept part is odd, rounds to nearest with ties to even.
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    let sign = rounded & 0x8000;
    // 0x7f7f is the largest finite bf16.
    (sign | (rounded & 0x7fff).min(0x7f7f)) as u16
}

/// A bf16 as a float, exactly.
#[inline(always)]
pub fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Writes `residual + update` to `body`, rounded, and keeps the rounding errors in the residual.
pub fn encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    half::encode(tier, update, residual, body, narrow, widen)
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    half::expand(tier, body, into, widen)
}
