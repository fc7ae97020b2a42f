//! Handwritten digits, classified by a multi-layer perceptron.

use std::path::Path;

use super::perceptron::Perceptron;
use crate::data::{Data, DataError};

/// The images of a directory with IDX files, or the digits in the program.
pub fn open(hidden: &[usize], seed: u64, directory: Option<&Path>) -> Result<Perceptron, DataError> {
    let (train, test) = directory.map_or_else(Data::digits, Data::load)?.split(seed);
    Ok(Perceptron::new(about(&train, &test), train, test, hidden))
}

fn about(train: &Data, test: &Data) -> String {
    let about = format!("{} images of {} pixels ({} more to test)", train.len(), train.pixels, test.len());
    let (Some(source), [first, .., last]) = (&train.source, &train.classes[..]) else { return about };
    format!("{about}, {} classes (labels {first} to {last}), from {}", train.classes.len(), source.display())
}
