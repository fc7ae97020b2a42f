//! Checks of paths before a run: an error is better then than after the training.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Whether a file can be written at this path. Leaves nothing behind, and an existing file as it is.
///
/// # Errors
/// Why it cannot be written.
pub fn try_file(path: &Path) -> io::Result<()> {
    let existed = path.exists();
    OpenOptions::new().create(true).append(true).open(path)?;
    if existed {
        return Ok(());
    }
    match fs::remove_file(path) {
        // Another process of the run has tried the same path.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Creates a directory if it is missing, and a file in it, which is removed again.
///
/// # Errors
/// Why no file can be created there.
pub fn try_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let probe = directory.join(format!(".probe-{}", std::process::id()));
    fs::File::create(&probe)?;
    fs::remove_file(probe)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_try_leaves_nothing_behind() {
        let directory = std::env::temp_dir().join(format!("gradwire-paths-{}", std::process::id()));
        let (missing, kept) = (directory.join("new/file"), directory.join("kept"));
        try_directory(&directory).unwrap();
        assert_eq!(try_file(&missing).unwrap_err().kind(), ErrorKind::NotFound);
        fs::write(&kept, "text").unwrap();
        try_file(&kept).unwrap();
        try_file(&directory.join("other")).unwrap();
        assert!(try_file(&directory).is_err() && try_directory(&kept).is_err());
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((names, fs::read_to_string(&kept).unwrap().as_str()), (vec!["kept".into()], "text"));
        fs::remove_dir_all(directory).unwrap();
    }
}
