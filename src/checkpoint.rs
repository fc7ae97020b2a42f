//! Checkpoints: one file per node and moment, either intact or absent.
//!
//! | bytes | field | contents |
//! |---|---|---|
//! | 0..8 | magic | `GRWCKPT` and the version, 2 |
//! | 8..16 | digest | of the contract: layout, recipe, cluster |
//! | 16..20 | rank | of the node |
//! | 20..24 | vectors | number: the parameters, then the optimizer vectors |
//! | 24..32 | clock | rounds done in trees and rings; else how often the run has been suspended |
//! | 32..40 | steps | of this worker |
//! | 40..48 | length | of each vector, in floats |
//! | 48..56 | contributions | of this worker |
//! | 56..64 | saved | number of machine buffers: residuals, thresholds, velocities |
//! | 64.. | contents | the length of each machine buffer, in 32-bit words; the vectors; the machine buffers |
//! | last 32 | checksum | BLAKE3 of all bytes before it |
//!
//! Numbers are little-endian. A file is written under a temporary name, synchronised to the disk, and then renamed, so
//! that a crash leaves no partial checkpoint under a checkpoint's name. The newest [`KEPT`] files of a node are kept.
//! Loading takes the newest intact one.

mod error;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytemuck::{cast_slice, cast_slice_mut};
use gradwire_core::PeerId;

pub use error::{CheckpointError, Damage};

/// The number of checkpoints of a node that are kept. Older ones are removed after a new one is on the disk.
pub const KEPT: usize = 3;

const MAGIC: [u8; 8] = *b"GRWCKPT\x02";
const HEADER: usize = 64;
const CHECKSUM: usize = 32;

/// The contents of a node's checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The digest of the run's contract: layout, recipe and cluster.
    pub digest: u64,
    /// The node's rank.
    pub rank: u32,
    /// Rounds done in trees and rings; else how often the run has been suspended, this time included.
    pub clock: u64,
    /// Steps of this worker; 0 for a server.
    pub steps: u64,
    /// Contributions of this worker; 0 for a server.
    pub contributions: u64,
    /// The parameters, then the optimizer vectors, all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// The machine's buffers that outlive a suspension, in 32-bit words: residuals, thresholds, velocities.
    pub saved: Vec<Vec<u32>>,
}

/// The run and the node that a checkpoint belongs to.
#[derive(Copy, Clone, Debug)]
pub(crate) struct NodeIdentity {
    /// The digest of the run's contract.
    pub(crate) digest: u64,
    pub(crate) rank: PeerId,
}

/// A checkpoint that fits the node that resumes from it.
#[derive(Debug)]
pub(crate) struct LoadedCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    /// The node's directory, for errors.
    pub(crate) path: PathBuf,
}

impl LoadedCheckpoint {
    /// Loads the newest intact checkpoint of a node, which must have `vectors` vectors of `len` floats.
    pub(crate) fn load(
        directory: &Path,
        NodeIdentity { digest, rank }: NodeIdentity,
        vectors: usize,
        len: usize,
    ) -> Result<Self, CheckpointError> {
        let (checkpoint, _) = Checkpoint::newest(directory, rank.0)?;
        let path = own_directory(directory, rank.0);
        if checkpoint.digest != digest {
            return Err(CheckpointError::Contract { path, expected: digest, got: checkpoint.digest });
        }
        // A file can have been copied from another rank's directory.
        if checkpoint.rank != rank.0 {
            return Err(CheckpointError::Rank { path, expected: rank.0, got: checkpoint.rank });
        }
        let got = checkpoint.vectors.len();
        if got != vectors || checkpoint.vectors.iter().any(|vector| vector.len() != len) {
            return Err(CheckpointError::Vectors { path, expected: vectors, got });
        }
        Ok(Self { checkpoint, path })
    }
}

impl Checkpoint {
    /// Writes the file `rank-R/CLOCK.gwck` below `directory`, and removes the oldest files if there are more than
    /// [`KEPT`]. Returns its path. Blocks until the file is on the disk.
    ///
    /// # Errors
    /// On an I/O error. Older checkpoints are then intact.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, CheckpointError> {
        let own = own_directory(directory, self.rank);
        let path = own.join(format!("{:012}.gwck", self.clock));
        let failed = |error| CheckpointError::File { path: path.clone(), error };
        fs::create_dir_all(&own).map_err(failed)?;
        let part = own.join(format!(".{:012}.{}.part", self.clock, std::process::id()));
        // An earlier process with the same id may have crashed and left its file behind.
        let _ = fs::remove_file(&part);
        // The directory is synchronised last: before that, a power failure can undo the renaming.
        let result =
            self.write_to(&part).and_then(|()| fs::rename(&part, &path)).and_then(|()| File::open(&own)?.sync_all());
        if let Err(error) = result {
            let _ = fs::remove_file(&part);
            return Err(failed(error));
        }
        for old in files(&own).into_iter().skip(KEPT) {
            // A file that cannot be removed does no harm: loading prefers newer ones.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }

    fn write_to(&self, part: &Path) -> io::Result<()> {
        // Only for the owner: parameters may be secret. `create_new` follows no link that someone else has put there.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part)?;
        let mut hasher = blake3::Hasher::new();
        let header = self.header();
        for bytes in self.pieces(&header) {
            hasher.update(bytes);
            file.write_all(bytes)?;
        }
        file.write_all(hasher.finalize().as_bytes())?;
        file.sync_all()
    }

    /// The header, and the lengths of the machine buffers.
    fn header(&self) -> Vec<u8> {
        let mut header = [0; HEADER];
        let len = self.vectors.first().map_or(0, Vec::len);
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.digest.to_le_bytes());
        header[16..20].copy_from_slice(&self.rank.to_le_bytes());
        header[20..24].copy_from_slice(&(self.vectors.len() as u32).to_le_bytes());
        header[24..32].copy_from_slice(&self.clock.to_le_bytes());
        header[32..40].copy_from_slice(&self.steps.to_le_bytes());
        header[40..48].copy_from_slice(&(len as u64).to_le_bytes());
        header[48..56].copy_from_slice(&self.contributions.to_le_bytes());
        header[56..64].copy_from_slice(&(self.saved.len() as u64).to_le_bytes());
        let lens: Vec<u64> = self.saved.iter().map(|words| words.len() as u64).collect();
        [&header[..], cast_slice(&lens)].concat()
    }

    /// All bytes of the file but the checksum.
    fn pieces<'a>(&'a self, header: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let vectors = self.vectors.iter().map(|vector| cast_slice(vector));
        std::iter::once(header).chain(vectors).chain(self.saved.iter().map(|words| cast_slice(words)))
    }

    /// The bytes of the file.
    pub fn emit(&self) -> Vec<u8> {
        let header = self.header();
        let mut bytes = self.pieces(&header).collect::<Vec<_>>().concat();
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
        let failed = |error| CheckpointError::File { path: path.to_path_buf(), error };
        let damaged = |what| CheckpointError::Damaged { path: path.to_path_buf(), what };
        // Opening a pipe or a device could block for ever.
        let kind = fs::symlink_metadata(path).map_err(failed)?;
        if !kind.is_file() {
            return Err(damaged(Damage::Kind));
        }
        Self::load(File::open(path).map_err(failed)?, kind.len()).map_err(failed)?.map_err(damaged)
    }

    /// Reads a file of `got` bytes. Every length is compared with that before memory is allocated for it.
    fn load(mut from: impl Read, got: u64) -> io::Result<Result<Self, Damage>> {
        let least = (HEADER + CHECKSUM) as u64;
        if got < least {
            return Ok(Err(Damage::Length { expected: least, got }));
        }
        let mut header = [0; HEADER];
        from.read_exact(&mut header)?;
        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap_or_default());
        let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap_or_default());
        if header[..8] != MAGIC {
            return Ok(Err(Damage::Magic));
        }
        let (count, len, saved) = (u64::from(short(20)), number(40), number(56));
        let table = saved.checked_mul(8).and_then(|table| table.checked_add(least)).unwrap_or(u64::MAX);
        if table > got {
            return Ok(Err(Damage::Length { expected: table, got }));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        let mut lens = vec![0u64; saved as usize];
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
        let (clock, steps, contributions) = (number(24), number(32), number(48));
        Ok(Ok(Self { digest: number(8), rank: short(16), clock, steps, contributions, vectors, saved }))
    }

    /// Reads the newest intact checkpoint of a node. Returns it with the errors of newer files.
    ///
    /// # Errors
    /// If there is no intact checkpoint. With damaged files only, the error is that of the newest.
    pub fn newest(directory: &Path, rank: u32) -> Result<(Self, Vec<CheckpointError>), CheckpointError> {
        let mut errors = Vec::new();
        for path in files(&own_directory(directory, rank)) {
            match Self::read(&path) {
                Ok(checkpoint) => return Ok((checkpoint, errors)),
                Err(error) => errors.push(error),
            }
        }
        Err(errors.into_iter().next().unwrap_or_else(|| CheckpointError::None { directory: directory.to_path_buf() }))
    }
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

fn own_directory(directory: &Path, rank: u32) -> PathBuf {
    directory.join(format!("rank-{rank}"))
}

/// The checkpoints in a node's directory, newest first. Their names are clocks with leading zeros, so they sort as
/// text.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "gwck")).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

#[cfg(test)]
mod tests;
