//! The file of results: read at the start, and appended to with each run that ends.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use gradwire::compare::Results;
use gradwire_examples::options::exit;

/// An open file of results.
pub(crate) struct File {
    path: PathBuf,
    file: fs::File,
    known: Results,
}

impl File {
    /// Opens a file, or makes a new one. A last line that was cut is dropped, and said.
    pub(crate) fn open(path: &Path) -> Result<Self, (u8, String)> {
        let named = |error: &dyn std::fmt::Display| (exit::DATA, format!("--results {}: {error}", path.display()));
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(named(&error)),
        };
        let reading = Results::read(&text).map_err(|error| named(&error))?;
        let options = OpenOptions::new().create(true).append(true).open(path);
        let mut file = options.map_err(|error| named(&error))?;
        if reading.is_cut {
            file.set_len(reading.whole as u64).map_err(|error| named(&error))?;
            let note = "its last line was cut, as by an interrupted write, and is dropped";
            let _ = writeln!(std::io::stderr(), "--results {}: {note}", path.display());
        }
        if reading.whole == 0 {
            file.write_all(Results::header().as_bytes()).map_err(|error| named(&error))?;
        }
        Ok(Self { path: path.into(), file, known: reading.results })
    }

    /// The runs that were in the file.
    pub(crate) fn take_known(&mut self) -> Results {
        std::mem::take(&mut self.known)
    }

    /// Adds the line of a run.
    pub(crate) fn append(&mut self, line: &str) -> Result<(), (u8, String)> {
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|error| (exit::DATA, format!("--results {}: {error}", self.path.display())))
    }
}
