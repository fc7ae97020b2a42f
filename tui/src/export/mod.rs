//! Exports of a recording: a CSV file with a line per report, or an HTML page with plots.

mod csv;
mod html;
mod svg;
#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use gradwire_core::telemetry::Frame;

use crate::Failure;
use crate::feed::new_file;
use crate::model::Model;

/// Writes the exports of a recording to these paths, which end with `.csv` or `.html`. All paths are
/// checked before the first file is written.
///
/// # Errors
/// For another ending, if a file exists and `overwrite` is not set, and on an I/O error. The message names option and path.
pub(crate) fn write(paths: &[PathBuf], frames: &[Frame], name: &str, overwrite: bool) -> Result<(), Failure> {
    let failed = |path: &Path, what: &dyn std::fmt::Display| format!("--export {}: {what}", path.display());
    for path in paths {
        if format_of(path).is_none() {
            return Err(failed(path, &"expected a name that ends with .csv or .html"));
        }
        check_new(path, overwrite).map_err(|error| failed(path, &error))?;
    }
    for path in paths {
        let text = match format_of(path) {
            Some(Format::Html) => html::page(&played(frames), name),
            _ => csv::text(frames),
        };
        let written = new_file(path, overwrite).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(path, &error))?;
    }
    Ok(())
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    Html,
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "csv" => Some(Format::Csv),
        "html" | "htm" => Some(Format::Html),
        _ => None,
    }
}

/// Whether [`new_file`] could create a file. Leaves nothing behind.
fn check_new(path: &Path, overwrite: bool) -> std::io::Result<()> {
    if overwrite && path.exists() {
        return OpenOptions::new().write(true).open(path).map(drop);
    }
    new_file(path, false)?;
    std::fs::remove_file(path)
}

/// The model after all frames.
fn played(frames: &[Frame]) -> Model {
    let mut model = Model::default();
    frames.iter().for_each(|frame| model.take(frame.clone()));
    model
}
