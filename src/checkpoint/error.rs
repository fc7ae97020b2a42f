//! Errors of checkpoints: [`CheckpointError`], and [`Damage`] for the contents of a file.

use std::fmt;
use std::io;
use std::path::PathBuf;

use gradwire_core::RestoreError;

/// Why a checkpoint could not be written, or a run could not resume from one.
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the file, the value that was expected and the one that was found")]
pub enum CheckpointError {
    /// An I/O error of the file system.
    File { path: PathBuf, error: io::Error },
    /// The file is no intact checkpoint.
    Damaged { path: PathBuf, what: Damage },
    /// The checkpoint belongs to another run: its digest of layout, recipe and cluster differs.
    Contract { path: PathBuf, expected: u64, got: u64 },
    /// The checkpoint belongs to another run than its directory.
    Run { path: PathBuf, expected: String, got: String },
    /// The checkpoint belongs to another node.
    Rank { path: PathBuf, expected: u32, got: u32 },
    /// The checkpoint has another number of vectors than the call, or vectors of another length than the layout.
    Vectors { path: PathBuf, expected: usize, got: usize },
    /// The directory has no checkpoint of this rank.
    None { directory: PathBuf },
    /// The peers resumed from another moment: rounds done in trees and rings, else suspensions of the run.
    Moment { expected: u64, got: u64 },
    /// The checkpoint has another number of machine buffers than this node's machine.
    SavedBuffers { path: PathBuf, expected: usize, got: usize },
    /// A machine buffer in the checkpoint does not fit this node's machine.
    SavedState { path: PathBuf, error: RestoreError },
    /// [`Session::checkpoint`](crate::Session::checkpoint) in a recipe without rounds that all workers share.
    NoRounds,
    /// [`Session::suspend`](crate::Session::suspend) in a recipe with rounds that all workers share.
    Rounds,
}

/// Why the bytes of a file are no checkpoint.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the number of bytes that was expected and the one that was found")]
pub enum Damage {
    /// The path is a directory, a link, a pipe or a device.
    Kind,
    /// The first 8 bytes are not the magic of this version.
    Magic,
    /// The file is longer or shorter than its header says.
    Length { expected: u64, got: u64 },
    /// The bytes of the run's name are not a valid name.
    Run,
    /// The checksum in the file is not the checksum of its bytes.
    Checksum,
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "checkpoint {}: {error}", path.display()),
            Self::Damaged { path, what } => write!(f, "checkpoint {}: {what}", path.display()),
            Self::Contract { path, expected, got } => write!(
                f,
                "checkpoint {}: expected contract {expected:016x} (layout, recipe and cluster), got {got:016x}: it \
                 belongs to another model, recipe or cluster",
                path.display()
            ),
            Self::Run { path, expected, got } => {
                write!(f, "checkpoint {}: expected run {expected}, got run {got}", path.display())
            }
            Self::Rank { path, expected, got } => {
                write!(f, "checkpoint {}: expected rank {expected}, got rank {got}", path.display())
            }
            Self::Vectors { path, expected, got } => {
                write!(
                    f,
                    "checkpoint {}: expected {expected} vectors as long as the layout, got {got} vectors",
                    path.display()
                )
            }
            Self::None { directory } => write!(f, "checkpoint: none in {}", directory.display()),
            Self::Moment { expected, got } => write!(
                f,
                "checkpoint: the peers resumed from moment {expected} (rounds done, or suspensions), this node from \
                 {got}; remove the newer checkpoints, so that all nodes have the same newest one"
            ),
            Self::SavedBuffers { path, expected, got } => {
                write!(f, "checkpoint {}: expected {expected} buffers of the machine, got {got}", path.display())
            }
            Self::SavedState { path, error } => write!(f, "checkpoint {}: {error}", path.display()),
            Self::NoRounds => write!(
                f,
                "checkpoint: expected a recipe with topology tree or ring; a run with servers or a mesh is saved with \
                 suspend()"
            ),
            Self::Rounds => write!(
                f,
                "suspend: expected a recipe with servers or a mesh; a run in a tree or ring is saved with checkpoint()"
            ),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => write!(f, "expected a regular file, got another kind of file"),
            Self::Magic => write!(f, "expected a checkpoint of version 3, got another format"),
            Self::Length { expected, got } => write!(f, "expected {expected} bytes, got {got}"),
            Self::Run => write!(f, "expected the name of a run, got another text: the file is damaged"),
            Self::Checksum => write!(f, "the checksum does not match: the file is damaged"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::SavedState { error, .. } => Some(error),
            _ => None,
        }
    }
}
