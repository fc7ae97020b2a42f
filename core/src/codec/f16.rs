//! f16: IEEE half precision, rounded to nearest, ties to even. What does not fit is cut to the largest.

use super::{BodyError, Dense, half};
use crate::kernel::tier::Tier;

/// Words of a body.
pub const fn words(len: usize) -> usize {
    half::words(len)
}

/// The nearest f16 that is finite.
#[inline(always)]
pub fn narrow(x: f32) -> u16 {
    let sign = x.to_bits() >> 16 & 0x8000;
    // The largest f16 is 65504.
    let bits = (x.to_bits() & 0x7fff_ffff).min(0x477f_e000);
    // Below 2^-14 the distance between f16 is 2^-24: that of floats from 0.5 to 1, so an addition rounds.
    let small = (f32::from_bits(bits) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let large = bits.wrapping_sub(112 << 23).wrapping_add(0xfff + (bits >> 13 & 1)) >> 13;
    (sign | if bits < 113 << 23 { small } else { large }) as u16
}

/// An f16 as a float, exactly.
#[inline(always)]
pub fn widen(x: u16) -> f32 {
    let sign = u32::from(x & 0x8000) << 16;
    let bits = u32::from(x & 0x7fff) << 13;
    // Scaled by 2^112, which is exact, and makes ordinary numbers of small ones; what is not finite stays so.
    let scaled = f32::from_bits(bits) * f32::from_bits((127 + 112) << 23);
    let magnitude = if bits >= 0x7c00 << 13 { f32::INFINITY } else { scaled };
    f32::from_bits(magnitude.to_bits() | sign)
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
