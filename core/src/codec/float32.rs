//! f32: plain floats. The residual is 0 after each message. For benches and fuzzing; no stable API.

use super::{BodyError, Dense, check_finite, check_words};

/// Writes `residual + update` to `body` and sets the residual to 0.
///
/// # Panics
/// If `update` or `body` is shorter than the residual.
pub fn encode(update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    let mut dense = Dense::default();
    dense.add(update, residual, 0);
    body[..residual.len()].copy_from_slice(bytemuck::cast_slice(residual));
    // The codec is exact, so only elements that were not finite lose their update.
    residual.fill(0.0);
    dense
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    check_words(body, into.len())?;
    into.copy_from_slice(bytemuck::cast_slice(body));
    check_finite(into)
}
