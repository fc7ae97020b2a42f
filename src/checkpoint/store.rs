//! [`Store`]: the checkpoints of one node of one run, as files.

use std::io;
use std::path::{Path, PathBuf};

use gradwire_core::RunId;

use super::disk::{Disk, System};
use super::{Checkpoint, CheckpointError, KEPT, Notice, NoticeCallback};

/// The directory of one node of one run.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// The path `RUN/rank-R`, below the application's directory.
    own: PathBuf,
    notices: NoticeCallback,
    disk: &'static dyn Disk,
}

impl Store {
    pub(crate) fn new(directory: &Path, run: RunId, rank: u32, notices: NoticeCallback) -> Self {
        Self { own: own_directory(directory, run, rank), notices, disk: &System }
    }

    /// The same store on another disk.
    #[cfg(test)]
    pub(super) fn on(self, disk: &'static dyn Disk) -> Self {
        Self { disk, ..self }
    }

    /// The checkpoints, newest first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        files(self.disk, &self.own)
    }

    /// Removes half-written files that an earlier process of this node has left behind.
    pub(crate) fn remove_parts(&self) {
        for part in with_extension(self.disk, &self.own, "part") {
            // It does no harm but for its size.
            let _ = self.disk.remove(&part);
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
        let renamed = |path: &&PathBuf| self.disk.rename(path, &path.with_extension("stale")).is_ok();
        let files: Vec<PathBuf> = later.iter().filter(renamed).cloned().collect();
        let _ = self.disk.sync_directory(&self.own);
        self.notices.call(&Notice::SetAside { files, clock });
    }

    /// Writes a checkpoint; see [`Checkpoint::write`].
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> Result<PathBuf, CheckpointError> {
        let path = self.own.join(format!("{:012}.gwck", checkpoint.clock));
        let failed = |error| CheckpointError::File { path: path.clone(), error };
        let rooted = self.make_directory().map_err(failed)?;
        let part = self.own.join(format!(".{:012}.{}.part", checkpoint.clock, std::process::id()));
        let mut removed = Vec::new();
        let result = loop {
            // An earlier process with the same id may have crashed and left its file behind.
            let _ = self.disk.remove(&part);
            let result = self.write_to(checkpoint, &part).and_then(|()| self.disk.rename(&part, &path));
            if !result.as_ref().is_err_and(is_full) {
                break result;
            }
            let _ = self.disk.remove(&part);
            match self.oldest() {
                Some(old) if self.disk.remove(&old).is_ok() => removed.push(old),
                _ => break result,
            }
        };
        if !removed.is_empty() {
            self.notices.call(&Notice::MadeRoom { files: removed });
        }
        if let Err(error) = result {
            let _ = self.disk.remove(&part);
            return Err(failed(error));
        }
        // Before that, a power failure can undo the renaming. The file is in place all the same.
        let synced = self.disk.sync_directory(&self.own).and(rooted);
        // The older checkpoints that a power failure may bring back in its place must stay. Not all can: the disk would
        // fill up.
        self.remove_old(if synced.is_ok() { KEPT } else { 2 * KEPT });
        if let Err(error) = synced {
            self.notices.call(&Notice::Unsynced { path: path.clone(), error });
        }
        Ok(path)
    }

    /// Creates the directory of the node, and waits until its name and its parents' names are on the disk. The inner
    /// result is the result of waiting. Waits also if the directory exists, because an earlier process may have crashed
    /// before it had waited.
    fn make_directory(&self) -> io::Result<io::Result<()>> {
        let mut missing = Vec::new();
        let mut path = self.own.as_path();
        while !self.disk.is_directory(path) {
            missing.push(path);
            match path.parent() {
                Some(parent) if parent != Path::new("") => path = parent,
                _ => break,
            }
        }
        for path in missing.iter().rev() {
            match self.disk.create_directory(path) {
                // Another node of the run has created it in the meantime.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        // Names are entries of the parent. The run's directory and its parent are not the application's.
        let parents = self.own.ancestors().skip(1).take(missing.len().max(2));
        Ok(parents.filter(|parent| *parent != Path::new("")).try_for_each(|parent| self.disk.sync_directory(parent)))
    }

    fn write_to(&self, checkpoint: &Checkpoint, part: &Path) -> io::Result<()> {
        let mut file = self.disk.create(part)?;
        let mut hasher = blake3::Hasher::new();
        let start = checkpoint.start();
        for bytes in checkpoint.pieces(&start) {
            hasher.update(bytes);
            file.write_all(bytes)?;
        }
        file.write_all(hasher.finalize().as_bytes())?;
        file.sync()
    }

    /// The file that is needed least: one that was set aside, or the oldest checkpoint if it is not the only one.
    fn oldest(&self) -> Option<PathBuf> {
        let aside = with_extension(self.disk, &self.own, "stale").into_iter().next_back();
        aside.or_else(|| self.files().into_iter().skip(1).next_back())
    }

    fn remove_old(&self, kept: usize) {
        let files = self.files();
        let aside = if files.len() >= kept { with_extension(self.disk, &self.own, "stale") } else { Vec::new() };
        for old in files.into_iter().skip(kept).chain(aside) {
            // A file that cannot be removed does no harm: loading prefers newer ones.
            let _ = self.disk.remove(&old);
        }
    }
}

/// Whether the error tells of a full disk or quota. Removing files can then make room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) fn own_directory(directory: &Path, run: RunId, rank: u32) -> PathBuf {
    directory.join(run.as_str()).join(format!("rank-{rank}"))
}

/// The checkpoints in a node's directory, newest first. Their names are clocks with leading zeros, so they sort as
/// text.
pub(super) fn files(disk: &dyn Disk, own: &Path) -> Vec<PathBuf> {
    with_extension(disk, own, "gwck")
}

/// The clock in the name of a checkpoint.
pub(super) fn clock_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn with_extension(disk: &dyn Disk, own: &Path, wanted: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        disk.list(own).into_iter().filter(|path| path.extension().is_some_and(|got| got == wanted)).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}
