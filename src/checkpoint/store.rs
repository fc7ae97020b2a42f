//! [`Store`]: the checkpoints of one node of one run, as files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gradwire_core::RunId;

use super::{Checkpoint, CheckpointError, KEPT, Notice, NoticeCallback};

/// The directory of one node of one run.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// `RUN/rank-R`.
    own: PathBuf,
    notices: NoticeCallback,
}

impl Store {
    pub(crate) fn new(directory: &Path, run: RunId, rank: u32, notices: NoticeCallback) -> Self {
        Self { own: own_directory(directory, run, rank), notices }
    }

    /// The checkpoints, newest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files(&self.own)
    }

    /// Removes what an earlier process of this node has left behind half-written.
    pub(crate) fn remove_parts(&self) {
        for part in with_extension(&self.own, "part") {
            // It does no harm but for its size.
            let _ = fs::remove_file(part);
        }
    }

    /// The run goes on from moment `clock`. Checkpoints of later moments belong to a past that did not happen for all
    /// nodes. A later resumption must not take them for moments of this run, so they lose their names, durably.
    pub(crate) fn go_on_from(&self, clock: u64) {
        let later: Vec<_> =
            self.files().into_iter().filter(|path| clock_of(path).is_none_or(|of| of > clock)).collect();
        if later.is_empty() {
            return;
        }
        let renamed = |path: &&PathBuf| fs::rename(path, path.with_extension("stale")).is_ok();
        let files: Vec<PathBuf> = later.iter().filter(renamed).cloned().collect();
        let _ = sync(&self.own);
        self.notices.call(&Notice::SetAside { files, clock });
    }

    /// Writes a checkpoint; see [`Checkpoint::write`].
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        let path = self.own.join(format!("{:012}.gwck", checkpoint.clock));
        let failed = |error| CheckpointError::File { path: path.clone(), error };
        fs::create_dir_all(&self.own).map_err(failed)?;
        let part = self.own.join(format!(".{:012}.{}.part", checkpoint.clock, std::process::id()));
        let mut removed = Vec::new();
        let result = loop {
            // An earlier process with the same id may have crashed and left its file behind.
            let _ = fs::remove_file(&part);
            let result = write_to(checkpoint, &part).and_then(|()| fs::rename(&part, &path));
            if !result.as_ref().is_err_and(is_full) {
                break result;
            }
            let _ = fs::remove_file(&part);
            match self.oldest() {
                Some(old) if fs::remove_file(&old).is_ok() => removed.push(old),
                _ => break result,
            }
        };
        if !removed.is_empty() {
            self.notices.call(&Notice::MadeRoom { files: removed });
        }
        if let Err(error) = result {
            let _ = fs::remove_file(&part);
            return Err(failed(error));
        }
        // Before that, a power failure can undo the renaming. The file is in place all the same.
        if let Err(error) = sync(&self.own) {
            self.notices.call(&Notice::Unsynced { path: path.clone(), error });
        }
        self.remove_old();
        Ok(path)
    }

    /// The file that is needed least: one that was set aside, or the oldest checkpoint if it is not the only one.
    fn oldest(&self) -> Option<PathBuf> {
        let aside = with_extension(&self.own, "stale").into_iter().next_back();
        aside.or_else(|| self.files().into_iter().skip(1).next_back())
    }

    fn remove_old(&self) {
        let files = self.files();
        let aside = if files.len() >= KEPT { with_extension(&self.own, "stale") } else { Vec::new() };
        for old in files.into_iter().skip(KEPT).chain(aside) {
            // A file that cannot be removed does no harm: loading prefers newer ones.
            let _ = fs::remove_file(old);
        }
    }
}

fn write_to(checkpoint: &Checkpoint, part: &Path) -> io::Result<()> {
    // Only for the owner: parameters may be secret. `create_new` follows no link that someone else has put there.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
    let mut hasher = blake3::Hasher::new();
    let start = checkpoint.start();
    for bytes in checkpoint.pieces(&start) {
        hasher.update(bytes);
        file.write_all(bytes)?;
    }
    file.write_all(hasher.finalize().as_bytes())?;
    file.sync_all()
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// No room is left for a file, but less may fit.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) fn own_directory(directory: &Path, run: RunId, rank: u32) -> PathBuf {
    directory.join(run.as_str()).join(format!("rank-{rank}"))
}

/// The checkpoints in a node's directory, newest first. Their names are clocks with leading zeros, so they sort as
/// text.
pub(super) fn files(own: &Path) -> Vec<PathBuf> {
    with_extension(own, "gwck")
}

/// The clock in the name of a checkpoint.
pub(super) fn clock_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn with_extension(own: &Path, wanted: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(own).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|got| got == wanted)).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}
