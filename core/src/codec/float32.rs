//! f32: as they are. Nothing stays in the residual.

use super::{BodyError, Dense, check_finite, check_words};

/// Writes `residual + update`, and keeps nothing.
pub fn encode(update: Option<&[f32]>, residual: &mut [f32], body: &mut [u32]) -> Dense {
    let mut dense = Dense::default();
    dense.add(update, residual, 0);
    body[..residual.len()].copy_from_slice(bytemuck::cast_slice(residual));
    residual.fill(0.0);
    dense
}

/// # Errors
/// When the body is none; `into` is of no use then.
pub fn expand(body: &[u32], into: &mut [f32]) -> Result<(), BodyError> {
    check_words(body, into.len())?;
    into.copy_from_slice(bytemuck::cast_slice(body));
    check_finite(into)
}
