//! The checkpoints that a node can resume from: the run, the moments of its checkpoints, and the checkpoint of one
//! moment.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use gradwire_core::RunId;

use super::{
    CHECKSUM, Checkpoint, CheckpointError, Damage, HEADER, Header, KEPT, NodeIdentity, Notice, NoticeCallback, Store,
    System, open, store,
};

/// The run below `directory` that was written last, by any rank, and the other runs there.
pub fn newest_run(directory: &Path) -> Option<(RunId, Vec<RunId>)> {
    let mut runs: Vec<(u64, RunId)> = subdirectories(directory)
        .filter_map(|path| {
            let run = path.file_name()?.to_str()?.parse().ok()?;
            let newest = |rank: PathBuf| store::files(&System, &rank).iter().find_map(|path| written(path));
            Some((subdirectories(&path).filter_map(newest).max()?, run))
        })
        .collect();
    runs.sort_unstable();
    let (_, newest) = runs.pop()?;
    Some((newest, runs.into_iter().rev().map(|(_, run)| run).collect()))
}

/// Whether a run has a checkpoint of any rank below `directory`.
pub(crate) fn has_run(directory: &Path, run: RunId) -> bool {
    subdirectories(&directory.join(run.as_str())).any(|rank| !store::files(&System, &rank).is_empty())
}

fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// When a file was written, as its header says.
fn written(path: &Path) -> Option<u64> {
    let (mut file, _) = open(path).ok()?;
    let mut bytes = [0; HEADER];
    file.read_exact(&mut bytes).ok()?;
    Header::parse(&bytes).ok().map(|header| header.written)
}

/// The intact checkpoints of a node of a run.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    pub(crate) run: RunId,
    store: Store,
    /// Header and path of each checkpoint, newest first.
    files: Vec<(Header, PathBuf)>,
    notices: NoticeCallback,
}

impl Candidates {
    /// Finds the checkpoints that a node can resume from. `run`: the run that the node has been given; without it, the
    /// run that was written last is taken. Returns `None` if there is no run. Reads all checkpoints of the node.
    ///
    /// # Errors
    /// If a checkpoint does not fit the node, which must have `vectors` vectors of `len` floats.
    pub(crate) fn find(
        directory: &Path,
        run: Option<RunId>,
        identity: NodeIdentity,
        vectors: usize,
        len: usize,
        notices: &NoticeCallback,
    ) -> Result<Option<Self>, CheckpointError> {
        let nothing = || notices.call(&Notice::Nothing { directory: directory.to_path_buf() });
        let run = match run {
            Some(run) => run,
            None => {
                let Some((run, others)) = newest_run(directory) else {
                    nothing();
                    return Ok(None);
                };
                if !others.is_empty() {
                    notices.call(&Notice::RunChosen { directory: directory.to_path_buf(), run, others });
                }
                run
            }
        };
        let store = Store::new(directory, run, identity.rank.0, notices.clone());
        store.remove_parts();
        let (mut files, mut damaged) = (Vec::new(), Vec::new());
        for path in store.files() {
            match verify(&path) {
                Ok(header) => files.push((header, path)),
                Err(error) => damaged.push((store::clock_of(&path), error)),
            }
        }
        for (clock, error) in damaged {
            let older = |(header, _): &&(Header, PathBuf)| clock.is_none_or(|clock| header.clock < clock);
            let instead = files.iter().find(older).map(|(header, _)| header.clock);
            notices.call(&Notice::Skipped { error, instead });
        }
        for (header, path) in &files {
            fits(header, path, run, identity, vectors, len)?;
        }
        if files.is_empty() {
            nothing();
        }
        files.truncate(KEPT);
        Ok(Some(Self { run, store, files, notices: notices.clone() }))
    }

    /// The moments, newest first, each with the number of contributions that this node had made.
    pub(crate) fn moments(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.files.iter().map(|(header, _)| (header.clock, header.contributions))
    }

    /// Reads the checkpoint of a moment.
    pub(crate) fn load(&self, clock: u64) -> Result<LoadedCheckpoint, CheckpointError> {
        let found = self.files.iter().find(|(header, _)| header.clock == clock);
        let (_, path) = found.ok_or_else(|| CheckpointError::None { directory: PathBuf::from(self.run.as_str()) })?;
        Ok(LoadedCheckpoint { checkpoint: Checkpoint::read(path)?, path: path.clone() })
    }

    /// The run goes on from moment `clock`.
    pub(crate) fn go_on_from(&self, clock: u64, own: bool) {
        let run = self.run;
        self.notices.call(&if own { Notice::Resumed { run, clock } } else { Notice::WithoutOwn { run, clock } });
        self.store.go_on_from(clock);
    }
}

/// Checks that a checkpoint belongs to this node.
fn fits(
    header: &Header,
    path: &Path,
    run: RunId,
    identity: NodeIdentity,
    vectors: usize,
    len: usize,
) -> Result<(), CheckpointError> {
    let path = path.to_path_buf();
    let NodeIdentity { digest, rank } = identity;
    // A file can have been copied from the directory of another run or rank.
    if header.run != run {
        return Err(CheckpointError::Run { path, expected: run.to_string(), got: header.run.to_string() });
    }
    if header.digest != digest {
        return Err(CheckpointError::Contract { path, expected: digest, got: header.digest });
    }
    if header.rank != rank.0 {
        return Err(CheckpointError::Rank { path, expected: rank.0, got: header.rank });
    }
    if header.vectors != (vectors as u64, len as u64) {
        return Err(CheckpointError::Vectors { path, expected: vectors, got: header.vectors.0 as usize });
    }
    Ok(())
}

/// Checks that a file is intact, in little memory. Returns its header.
fn verify(path: &Path) -> Result<Header, CheckpointError> {
    let (mut file, len) = open(path)?;
    let failed = |error| CheckpointError::File { path: path.to_path_buf(), error };
    let damaged = |what| CheckpointError::Damaged { path: path.to_path_buf(), what };
    let least = (HEADER + CHECKSUM) as u64;
    let Some(rest) = len.checked_sub(least) else {
        return Err(damaged(Damage::Length { expected: least, got: len }));
    };
    let mut bytes = [0; HEADER];
    file.read_exact(&mut bytes).map_err(failed)?;
    let header = Header::parse(&bytes).map_err(damaged)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes);
    io::copy(&mut (&mut file).take(rest), &mut hasher).map_err(failed)?;
    let mut checksum = [0; CHECKSUM];
    file.read_exact(&mut checksum).map_err(failed)?;
    if hasher.finalize() == checksum { Ok(header) } else { Err(damaged(Damage::Checksum)) }
}

/// A checkpoint that fits the node that resumes from it.
#[derive(Debug)]
pub(crate) struct LoadedCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    /// The file, for errors.
    pub(crate) path: PathBuf,
}
