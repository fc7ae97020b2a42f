//! Exports of a recording: a CSV file with a line per report, or an HTML page with plots.

mod csv;
mod html;
mod svg;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;

use gradwire_core::telemetry::Frame;

use crate::Failure;
use crate::feed::new_file;
use crate::model::Model;

/// Writes the export of a recording to `path`, whose ending says which one it is: `.csv` or `.html`.
///
/// # Errors
/// For another ending, if the file exists and `overwrite` is not set, and on an I/O error. The message names the option.
pub(crate) fn write(path: &Path, frames: &[Frame], name: &str, overwrite: bool) -> Result<(), Failure> {
    let text = match path.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => csv::text(frames),
        Some("html" | "htm") => html::page(&played(frames), name),
        _ => return Err(format!("--export {}: expected a name that ends with .csv or .html", path.display())),
    };
    let written = new_file(path, overwrite).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("--export {}: {error}", path.display()))
}

/// The model after all frames.
fn played(frames: &[Frame]) -> Model {
    let mut model = Model::default();
    frames.iter().for_each(|frame| model.take(frame.clone()));
    model
}
