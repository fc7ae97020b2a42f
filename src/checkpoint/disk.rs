//! [`Disk`]: the file operations that write checkpoints. Tests replace the system's files by a model, which can lose
//! unsynchronised changes at a crash.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file operations of a [`Store`](super::Store).
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Creates a directory. An error if it exists, or its parent does not.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    fn is_directory(&self, path: &Path) -> bool;

    /// Creates a file for writing. An error if there is a file of this name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file. Replaces a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in a directory are on the disk.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The paths of the files in a directory, in any order; empty if it cannot be read.
    fn list(&self, directory: &Path) -> Vec<PathBuf>;
}

/// A file that is being written.
pub(crate) trait DiskFile: Write {
    /// Waits until the contents are on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The files of the system.
#[derive(Debug)]
pub(crate) struct System;

impl Disk for System {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        // Only for the owner: parameters may be secret. `create_new` follows no link that another user has put there.
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, directory: &Path) -> Vec<PathBuf> {
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }
}

impl DiskFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
