//! bf16: the upper half of a float, rounded to nearest, ties to even. What does not fit is cut to the largest.

use super::{BodyError, Dense, half};
use crate::kernel::tier::Tier;

/// Words of a body.
pub const fn words(len: usize) -> usize {
    half::words(len)
}

/// The nearest bf16 that is finite.
#[inline(always)]
pub fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    let sign = rounded & 0x8000;
    (sign | (rounded & 0x7fff).min(0x7f7f)) as u16
}

/// A bf16 as a float, exactly.
#[inline(always)]
pub fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

/// Writes `residual + update`, and keeps what rounding takes away.
pub fn encode(tier: Tier, update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    half::encode(tier, update, residual, body, narrow, widen)
}

/// # Errors
/// When the body is none; `into` is of no use then.
pub fn expand(tier: Tier, body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    half::expand(tier, body, into, widen)
}
