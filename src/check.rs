//! Checks of the vectors that an application passes in. Each error has the expected value and the value that came.

use gradwire_core::kernel::{checked, scan};
use gradwire_core::recipe::{OptimizerState, Payload};
use gradwire_core::{Layout, Recipe};

use crate::error::Error;

/// Refuses a vector of another length, in floats. `what` is the name of the vector in the error.
pub(crate) fn length(what: &'static str, expected: usize, got: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}

/// Refuses a vector with a NaN or an infinity, and names the first one's tensor and index.
pub(crate) fn finite(what: &'static str, layout: &Layout, vector: &[f32]) -> Result<(), Error> {
    scan::first_non_finite(vector).map_or(Ok(()), |index| Err(non_finite(what, layout, index, vector[index])))
}

/// Copies a vector. Refuses it as [`finite`] does; the content of `into` is then unspecified.
pub(crate) fn copy_finite(what: &'static str, layout: &Layout, into: &mut [f32], from: &[f32]) -> Result<(), Error> {
    checked::copy_finite(into, from).map_or(Ok(()), |index| Err(non_finite(what, layout, index, from[index])))
}

/// The refusal of a vector whose element `index` is `got`, a NaN or an infinity.
pub(crate) fn non_finite(what: &'static str, layout: &Layout, index: usize, got: f32) -> Error {
    let (tensor, within) = layout.locate(index).unwrap_or(("", index));
    Error::NonFinite { what, tensor: tensor.to_string(), index: within, got }
}

/// Refuses optimizer vectors for a recipe that neither averages nor carries them, and demands at least one if it
/// averages them.
pub(crate) fn averaged_vectors(recipe: &Recipe, count: u32) -> Result<(), Error> {
    if recipe.payload() == Payload::Gradients {
        return Ok(());
    }
    let averages = recipe.optimizer() == OptimizerState::Average;
    if averages == (count > 0) {
        return Ok(());
    }
    Err(Error::OptimizerVectors { expected: u32::from(averages), got: count })
}

/// A recipe that carries the application's state needs all of it: a newcomer takes it from any worker.
pub(crate) fn carried_vectors(recipe: &Recipe, expected: u32, got: usize) -> Result<(), Error> {
    let got = got as u32;
    if recipe.payload() != Payload::Gradients || got == expected {
        return Ok(());
    }
    Err(Error::OptimizerVectors { expected, got })
}
