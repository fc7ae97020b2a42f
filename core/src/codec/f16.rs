//! f16: IEEE half precision, rounded to nearest, ties to even. Magnitudes above 65504 become 65504, and the residual
//! keeps the difference. For the gpu crate, benches and fuzzing; no stable API.

use super::{BodyError, Dense, half};
use crate::kernel::tier::Tier;

/// Length of a body in words, for `len` elements.
pub const fn words(len: usize) -> usize {
    half::words(len)
}

/// The nearest finite f16. `x` must be finite.
#[inline(always)]
pub fn narrow(x: f32) -> u16 {
    let sign = x.to_bits() >> 16 & 0x8000;
    // The largest f16 is 65504.
    let bits = (x.to_bits() & 0x7fff_ffff).min(0x477f_e000);
    // Below 2^-14, neighbouring f16 differ by 2^-24, as do floats from 0.5 to 1. So adding 0.5 rounds to an f16.
    let small = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let large = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
    (sign | if bits < 113 << 23 { small } else { large }) as u16
}

/// An f16 as a float, exactly. Infinities and NaN become infinities.
#[inline(always)]
pub fn widen(x: u16) -> f32 {
    let sign = u32::from(x & 0x8000) << 16;
    let bits = u32::from(x & 0x7fff) << 13;
    // The bits have the exponent bias of f16. Multiplying by 2^112 corrects it, is exact, and normalises subnormals.
    let scaled = f32::from_bits(bits) * f32::from_bits((127 + 112) << 23);
    let magnitude = if bits >= 0x7c00 << 13 { f32::INFINITY } else { scaled };
    f32::from_bits(magnitude.to_bits() | sign)
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
