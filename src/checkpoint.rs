//! Checkpoints: one file per run, node and moment, either intact or absent.
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0..8 | magic | `GRWCKPT` and the version, 3 |
//! | 8..16 | digest | of the contract without its notes: layout, recipe, cluster |
//! | 16..20 | rank | of the node |
//! | 20..24 | vectors | number: the parameters, then the optimizer vectors |
//! | 24..32 | clock | rounds done in trees and rings; else how often the run has been suspended |
//! | 32..40 | steps | of this worker |
//! | 40..48 | length | of each vector, in floats |
//! | 48..56 | contributions | of this worker |
//! | 56..64 | saved | number of machine buffers: residuals, thresholds, velocities |
//! | 64..128 | run | name of the run, padded with zeros |
//! | 128..136 | written | time at which the file was written, in milliseconds since 1970 |
//! | 136.. | contents | the length of each machine buffer, in 32-bit words; the vectors; the machine buffers |
//! | last 32 | checksum | BLAKE3 of all bytes before it |
//!
//! Numbers are little-endian. The file of a moment is `RUN/rank-R/CLOCK.gwck`. It is written under a temporary name,
//! synchronised to the disk, and then renamed, so that a crash leaves no partial checkpoint under a checkpoint's name.
//! The newest [`KEPT`] files of a node of a run are kept. Files of other runs are left alone.

mod disk;
mod error;
mod notice;
mod resume;
mod store;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytemuck::{cast_slice, cast_slice_mut};
use gradwire_core::{PeerId, RunId};

use disk::System;
pub use error::{CheckpointError, Damage};
pub use notice::Notice;
pub(crate) use notice::NoticeCallback;
pub use resume::newest_run;
pub(crate) use resume::{Candidates, LoadedCheckpoint, has_run};
pub(crate) use store::Store;

/// The number of checkpoints of a node that are kept. Older ones are removed after a new one is on the disk.
pub const KEPT: usize = 3;

const MAGIC: [u8; 8] = *b"GRWCKPT\x03";
const HEADER: usize = 136;
const CHECKSUM: usize = 32;

/// The contents of a node's checkpoint.
///
/// ```
/// use gradwire::checkpoint::Checkpoint;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("gradwire-doc-checkpoint-{}", std::process::id()));
/// let checkpoint = Checkpoint {
///     run: "digits-1".parse()?,
///     digest: 0,
///     rank: 0,
///     clock: 10,
///     steps: 100,
///     contributions: 10,
///     written: 0,
///     vectors: vec![vec![0.5, 1.5]],
///     saved: Vec::new(),
/// };
/// checkpoint.write(&directory)?; // sessions do that: `Session::checkpoint`
///
/// // The newest file of rank 0 that is intact, and the files that are not.
/// let (newest, damaged) = Checkpoint::newest(&directory, checkpoint.run, 0)?;
/// assert!(newest == checkpoint && damaged.is_empty());
/// println!("step {}: {:?}", newest.steps, newest.vectors[0]);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The name of the run that the checkpoint belongs to.
    pub run: RunId,
    /// The digest of the run's contract without its notes: layout, recipe and cluster.
    pub digest: u64,
    /// The node's rank.
    pub rank: u32,
    /// Rounds done in trees and rings; else how often the run has been suspended, this time included.
    pub clock: u64,
    /// Steps of this worker; 0 for a server.
    pub steps: u64,
    /// Contributions of this worker; 0 for a server.
    pub contributions: u64,
    /// When the checkpoint was made, in milliseconds since 1970, by the clock of the node's machine.
    pub written: u64,
    /// The parameters, then the optimizer vectors, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// The machine's buffers that outlive a suspension, in 32-bit words: residuals, thresholds, velocities.
    pub saved: Vec<Vec<u32>>,
}

/// The node that a checkpoint belongs to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct NodeIdentity {
    /// The digest of the run's contract without its notes.
    pub(crate) digest: u64,
    pub(crate) rank: PeerId,
}

/// The header of a file.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Header {
    pub(crate) run: RunId,
    pub(crate) digest: u64,
    pub(crate) rank: u32,
    pub(crate) clock: u64,
    pub(crate) steps: u64,
    pub(crate) contributions: u64,
    pub(crate) written: u64,
    /// Number of vectors, and floats of each.
    pub(crate) vectors: (u64, u64),
    /// Number of machine buffers.
    pub(crate) saved: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, Damage> {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
        if bytes[..8] != MAGIC {
            return Err(Damage::Magic);
        }
        let run = bytes[64..128].try_into().ok().and_then(RunId::from_bytes).ok_or(Damage::Run)?;
        Ok(Self {
            run,
            digest: number(8),
            rank: short(16),
            vectors: (u64::from(short(20)), number(40)),
            clock: number(24),
            steps: number(32),
            contributions: number(48),
            saved: number(56),
            written: number(128),
        })
    }

    fn emit(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.digest.to_le_bytes());
        header[16..20].copy_from_slice(&self.rank.to_le_bytes());
        header[20..24].copy_from_slice(&(self.vectors.0 as u32).to_le_bytes());
        header[24..32].copy_from_slice(&self.clock.to_le_bytes());
        header[32..40].copy_from_slice(&self.steps.to_le_bytes());
        header[40..48].copy_from_slice(&self.vectors.1.to_le_bytes());
        header[48..56].copy_from_slice(&self.contributions.to_le_bytes());
        header[56..64].copy_from_slice(&self.saved.to_le_bytes());
        header[64..128].copy_from_slice(&self.run.to_bytes());
        header[128..136].copy_from_slice(&self.written.to_le_bytes());
        header
    }
}

impl Checkpoint {
    /// Writes the file `RUN/rank-R/CLOCK.gwck` below `directory`, and removes the oldest files of this run and rank if
    /// there are more than [`KEPT`]. If the disk is full, older files of this run and rank are removed first, except
    /// the newest. Returns the path. Blocks until the file is on the disk.
    ///
    /// # Errors
    /// On an I/O error. The newest older checkpoint is then intact.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, CheckpointError> {
        Store::new(directory, self.run, self.rank, NoticeCallback::default()).write(self)
    }

    fn header(&self) -> Header {
        let len = self.vectors.first().map_or(0, Vec::len);
        let Self { run, digest, rank, clock, steps, contributions, written, .. } = *self;
        let (vectors, saved) = ((self.vectors.len() as u64, len as u64), self.saved.len() as u64);
        Header { run, digest, rank, clock, steps, contributions, written, vectors, saved }
    }

    /// The header, and the lengths of the machine buffers.
    fn start(&self) -> Vec<u8> {
        let lens: Vec<u64> = self.saved.iter().map(|words| words.len() as u64).collect();
        [&self.header().emit()[..], cast_slice(&lens)].concat()
    }

    /// All bytes of the file but the checksum.
    fn pieces<'a>(&'a self, start: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let vectors = self.vectors.iter().map(|vector| cast_slice(vector));
        std::iter::once(start).chain(vectors).chain(self.saved.iter().map(|words| cast_slice(words)))
    }

    /// The bytes of the file.
    pub fn emit(&self) -> Vec<u8> {
        let start = self.start();
        let mut bytes = self.pieces(&start).collect::<Vec<_>>().concat();
        bytes.extend(checksum(&bytes));
        bytes
    }

    /// Parses the bytes of a file.
    ///
    /// # Errors
    /// If the bytes are no intact checkpoint.
    pub fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let result = Self::load(bytes, bytes.len() as u64);
        // A slice that ends early is the only I/O error here, and the length has been compared before.
        result.unwrap_or(Err(Damage::Length { expected: bytes.len() as u64, got: 0 }))
    }

    /// Reads one file. Allocates at most as much memory as the file is long.
    ///
    /// # Errors
    /// If the file cannot be read, or is no intact checkpoint.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let (file, len) = open(path)?;
        let damaged = |what| CheckpointError::Damaged { path: path.to_path_buf(), what };
        let failed = |error| CheckpointError::File { path: path.to_path_buf(), error };
        Self::load(file, len).map_err(failed)?.map_err(damaged)
    }

    /// Reads a file of `got` bytes. Every length is compared with that before memory is allocated for it.
    fn load(mut from: impl Read, got: u64) -> io::Result<Result<Self, Damage>> {
        let least = (HEADER + CHECKSUM) as u64;
        if got < least {
            return Ok(Err(Damage::Length { expected: least, got }));
        }
        let mut bytes = [0; HEADER];
        from.read_exact(&mut bytes)?;
        let header = match Header::parse(&bytes) {
            Ok(header) => header,
            Err(damage) => return Ok(Err(damage)),
        };
        let (count, len) = header.vectors;
        let table = header.saved.checked_mul(8).and_then(|table| table.checked_add(least)).unwrap_or(u64::MAX);
        if table > got {
            return Ok(Err(Damage::Length { expected: table, got }));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        let mut lens = vec![0u64; header.saved as usize];
        from.read_exact(cast_slice_mut(&mut lens))?;
        hasher.update(cast_slice(&lens));
        let expected = file_len(table, count, len, &lens);
        // Empty vectors add nothing to the length of the file, so a header could claim 2^32 of them. They are refused.
        if expected != got || (len == 0 && count > 0) || (count == 0 && len > 0) {
            return Ok(Err(Damage::Length { expected, got }));
        }
        let mut read = |len: u64| {
            let mut words = vec![0u32; len as usize];
            from.read_exact(cast_slice_mut(&mut words))?;
            hasher.update(cast_slice(&words));
            Ok::<_, io::Error>(words)
        };
        let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let vectors = (0..count).map(|_| read(len).map(floats)).collect::<Result<Vec<_>, _>>()?;
        let saved = lens.into_iter().map(&mut read).collect::<Result<Vec<_>, _>>()?;
        let mut checksum = [0; CHECKSUM];
        from.read_exact(&mut checksum)?;
        if hasher.finalize() != checksum {
            return Ok(Err(Damage::Checksum));
        }
        let Header { run, digest, rank, clock, steps, contributions, written, .. } = header;
        Ok(Ok(Self { run, digest, rank, clock, steps, contributions, written, vectors, saved }))
    }

    /// Reads the newest intact checkpoint of a node of a run. Returns it with the errors of newer files.
    ///
    /// # Errors
    /// If there is no intact checkpoint. With damaged files only, the error is that of the newest.
    pub fn newest(directory: &Path, run: RunId, rank: u32) -> Result<(Self, Vec<CheckpointError>), CheckpointError> {
        let mut errors = Vec::new();
        for path in store::files(&System, &store::own_directory(directory, run, rank)) {
            match Self::read(&path) {
                Ok(checkpoint) => return Ok((checkpoint, errors)),
                Err(error) => errors.push(error),
            }
        }
        Err(errors.into_iter().next().unwrap_or_else(|| CheckpointError::None { directory: directory.to_path_buf() }))
    }
}

/// Opens a checkpoint, and returns its length.
fn open(path: &Path) -> Result<(File, u64), CheckpointError> {
    let failed = |error| CheckpointError::File { path: path.to_path_buf(), error };
    // Opening a pipe or a device could block for ever.
    let kind = fs::symlink_metadata(path).map_err(failed)?;
    if !kind.is_file() {
        return Err(CheckpointError::Damaged { path: path.to_path_buf(), what: Damage::Kind });
    }
    Ok((File::open(path).map_err(failed)?, kind.len()))
}

/// The checksum at the end of a file, over all bytes before it.
pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    *blake3::hash(bytes).as_bytes()
}

/// The length of a file in bytes; `u64::MAX` if the lengths in it add up to more. `table`: the header, the lengths of
/// the machine buffers and the checksum.
fn file_len(table: u64, count: u64, len: u64, lens: &[u64]) -> u64 {
    let floats = count.checked_mul(len);
    let words = lens.iter().try_fold(floats, |sum, len| Some(sum?.checked_add(*len))).flatten();
    let bytes = words.and_then(|words| words.checked_mul(4));
    bytes.and_then(|bytes| bytes.checked_add(table)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
