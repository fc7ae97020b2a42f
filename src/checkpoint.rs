//! Checkpoints: one file per node, written whole or not at all.
//!
//! | bytes | | |
//! |---|---|---|
//! | 0..8 | magic | `GRWCKPT` and the version, 2 |
//! | 8..16 | digest | of the contract: layout, recipe, cluster |
//! | 16..20 | rank | |
//! | 20..24 | vectors | parameters, then optimizer vectors |
//! | 24..32 | clock | rounds done; where there are none, how often the run has been suspended |
//! | 32..40 | steps | of this worker |
//! | 40..48 | length | of each vector, in floats |
//! | 48..56 | contributions | of this worker |
//! | 56..64 | kept | buffers of the machine: residuals, thresholds, velocities |
//! | 64.. | length of each of these, in words; then the vectors, and these | |
//! | last 32 | checksum | BLAKE3 of all before |
//!
//! A file is written beside its place, synchronised to the disk, and then put there; the last [`KEPT`] are kept. Loading
//! takes the newest one that is whole, and says which were not.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytemuck::cast_slice;
use gradwire_core::RestoreError;

/// Checkpoints of a node that are kept.
pub const KEPT: usize = 3;

const MAGIC: [u8; 8] = *b"GRWCKPT\x02";
const HEADER: usize = 64;
const CHECKSUM: usize = 32;

/// What a node keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Of the contract that it belongs to.
    pub digest: u64,
    /// Whose it is.
    pub rank: u32,
    /// Rounds done; where there are none, how often the run has been suspended.
    pub clock: u64,
    /// Steps of this worker.
    pub steps: u64,
    /// Contributions of this worker.
    pub made: u64,
    /// Parameters, then optimizer vectors: all of one length.
    pub vectors: Vec<Vec<f32>>,
    /// What the machine keeps: residuals, thresholds, velocities.
    pub kept: Vec<Vec<u32>>,
}

/// Why there is no checkpoint.
#[derive(Debug)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum CheckpointError {
    /// The system said no.
    File { path: PathBuf, error: io::Error },
    /// Not a checkpoint, or not a whole one.
    Damaged { path: PathBuf, what: Damage },
    /// Of another run: another layout, recipe or cluster.
    Contract { path: PathBuf, expected: u64, got: u64 },
    /// Of another node.
    Rank { path: PathBuf, expected: u32, got: u32 },
    /// Another number of vectors than the session has, or of other lengths.
    Vectors { path: PathBuf, expected: usize, got: usize },
    /// There is none.
    None { directory: PathBuf },
    /// The others go on from another round, or another suspension.
    Moment { expected: u64, got: u64 },
    /// What the machine kept does not fit.
    Kept { path: PathBuf, error: RestoreError },
    /// In recipes without rounds that everyone shares, no moment is everyone's but one at which the run is suspended.
    NoRounds,
    /// In recipes with rounds, a run need not be suspended to be saved.
    Rounds,
}

/// What is wrong with a file.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum Damage {
    Kind,
    Magic,
    Length { expected: u64, got: u64 },
    Checksum,
}

impl Checkpoint {
    /// Writes the file of this clock in a node's own directory below `directory`, and removes older ones.
    ///
    /// # Errors
    /// When the system says no; then older ones are still there.
    pub fn write(&self, directory: &Path) -> Result<PathBuf, CheckpointError> {
        let own = own_directory(directory, self.rank);
        let path = own.join(format!("{:012}.gwck", self.clock));
        let failed = |error| CheckpointError::File { path: path.clone(), error };
        fs::create_dir_all(&own).map_err(failed)?;
        let part = own.join(format!(".{:012}.{}.part", self.clock, std::process::id()));
        // What a former self left behind there is not ours to append to.
        let _ = fs::remove_file(&part);
        let result =
            self.write_to(&part).and_then(|()| fs::rename(&part, &path)).and_then(|()| File::open(&own)?.sync_all());
        if let Err(error) = result {
            let _ = fs::remove_file(&part);
            return Err(failed(error));
        }
        for old in files(&own).into_iter().skip(KEPT) {
            // It is in nobody's way.
            let _ = fs::remove_file(old);
        }
        Ok(path)
    }

    fn write_to(&self, part: &Path) -> io::Result<()> {
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
        header[48..56].copy_from_slice(&self.made.to_le_bytes());
        header[56..64].copy_from_slice(&(self.kept.len() as u64).to_le_bytes());
        [&header[..], cast_slice(&self.kept.iter().map(|kept| kept.len() as u64).collect::<Vec<_>>())].concat()
    }

    fn pieces<'a>(&'a self, header: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let vectors = self.vectors.iter().map(|vector| cast_slice(vector));
        std::iter::once(header).chain(vectors).chain(self.kept.iter().map(|kept| cast_slice(kept)))
    }

    /// The bytes of its file.
    pub fn emit(&self) -> Vec<u8> {
        let header = self.header();
        let mut bytes = self.pieces(&header).collect::<Vec<_>>().concat();
        bytes.extend(checksum(&bytes));
        bytes
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let result = Self::load(bytes, bytes.len() as u64);
        result.unwrap_or(Err(Damage::Length { expected: bytes.len() as u64, got: 0 }))
    }

    /// Reads one file. Allocates no more than the file is long.
    ///
    /// # Errors
    /// When it cannot be read, or is not whole.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let failed = |error| CheckpointError::File { path: path.to_path_buf(), error };
        let damaged = |what| CheckpointError::Damaged { path: path.to_path_buf(), what };
        // Never a pipe or a device, which could keep us waiting.
        let kind = fs::symlink_metadata(path).map_err(failed)?;
        if !kind.is_file() {
            return Err(damaged(Damage::Kind));
        }
        Self::load(File::open(path).map_err(failed)?, kind.len()).map_err(failed)?.map_err(damaged)
    }

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
        let (count, len, kept) = (u64::from(short(20)), number(40), number(56));
        let table = kept.checked_mul(8).and_then(|table| table.checked_add(least)).unwrap_or(u64::MAX);
        if table > got {
            return Ok(Err(Damage::Length { expected: table, got }));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        let mut lens = vec![0u64; kept as usize];
        from.read_exact(bytemuck::cast_slice_mut(&mut lens))?;
        hasher.update(cast_slice(&lens));
        let floats = count.checked_mul(len);
        let words = lens.iter().try_fold(floats, |sum, len| Some(sum?.checked_add(*len))).flatten();
        let bytes = words.and_then(|words| words.checked_mul(4));
        let expected = bytes.and_then(|bytes| bytes.checked_add(table)).unwrap_or(u64::MAX);
        // Nothing says how many vectors of no length there are.
        if expected != got || (len == 0 && count > 0) || (count == 0 && len > 0) {
            return Ok(Err(Damage::Length { expected, got }));
        }
        let mut read = |len: u64| {
            let mut words = vec![0u32; len as usize];
            from.read_exact(bytemuck::cast_slice_mut(&mut words))?;
            hasher.update(cast_slice(&words));
            Ok::<_, io::Error>(words)
        };
        let floats = |words: Vec<u32>| words.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let vectors = (0..count).map(|_| read(len).map(floats)).collect::<Result<Vec<_>, _>>()?;
        let kept = lens.into_iter().map(&mut read).collect::<Result<Vec<_>, _>>()?;
        let mut checksum = [0; CHECKSUM];
        from.read_exact(&mut checksum)?;
        if hasher.finalize() != checksum {
            return Ok(Err(Damage::Checksum));
        }
        let (clock, steps, made) = (number(24), number(32), number(48));
        Ok(Ok(Self { digest: number(8), rank: short(16), clock, steps, made, vectors, kept }))
    }

    /// The newest whole checkpoint of a node, and what was wrong with newer ones.
    ///
    /// # Errors
    /// When there is none.
    pub fn newest(directory: &Path, rank: u32) -> Result<(Self, Vec<CheckpointError>), CheckpointError> {
        let mut wrong = Vec::new();
        for path in files(&own_directory(directory, rank)) {
            match Self::read(&path) {
                Ok(checkpoint) => return Ok((checkpoint, wrong)),
                Err(error) => wrong.push(error),
            }
        }
        // One that is damaged says more than that there is none.
        Err(wrong.into_iter().next().unwrap_or_else(|| CheckpointError::None { directory: directory.to_path_buf() }))
    }
}

/// What a file ends with.
pub fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    *blake3::hash(bytes).as_bytes()
}

fn own_directory(directory: &Path, rank: u32) -> PathBuf {
    directory.join(format!("rank-{rank}"))
}

/// Checkpoints in a directory, newest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "gwck")).collect();
    files.sort_unstable_by(|a, b| b.cmp(a));
    files
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "checkpoint {}: {error}", path.display()),
            Self::Damaged { path, what } => write!(f, "checkpoint {}: {what}", path.display()),
            Self::Contract { path, expected, got } => write!(
                f,
                "checkpoint {}: expected one of contract {expected:016x} (layout, recipe, cluster), got {got:016x}",
                path.display()
            ),
            Self::Rank { path, expected, got } => {
                write!(f, "checkpoint {}: expected one of rank {expected}, got {got}", path.display())
            }
            Self::Vectors { path, expected, got } => {
                write!(f, "checkpoint {}: expected {expected} vectors of the layout, got {got}", path.display())
            }
            Self::None { directory } => write!(f, "checkpoint: none in {}", directory.display()),
            Self::Moment { expected, got } => write!(
                f,
                "checkpoint: expected one of moment {expected} (rounds done, or suspensions), from which the others go on, \
                 got one of moment {got}"
            ),
            Self::Kept { path, error } => write!(f, "checkpoint {}: {error}", path.display()),
            Self::NoRounds => write!(
                f,
                "checkpoint: expected a recipe whose topology is tree or ring; in others a run is saved by suspending it"
            ),
            Self::Rounds => write!(
                f,
                "suspend: expected a recipe of servers or a mesh; in trees and rings a run is saved by checkpoints as it goes"
            ),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => write!(f, "expected a file, got something else"),
            Self::Magic => write!(f, "expected a checkpoint of version 2, got something else"),
            Self::Length { expected, got } => write!(f, "expected {expected} bytes, got {got}"),
            Self::Checksum => write!(f, "expected contents that match their checksum, got others"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::File { error, .. } = self { Some(error) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gradwire-checkpoint-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn checkpoint(clock: u64) -> Checkpoint {
        let vectors = vec![vec![1.0, -0.0, f32::MIN_POSITIVE, 3.5], vec![0.25; 4]];
        let kept = vec![vec![5, 6, 7], vec![], vec![8]];
        Checkpoint { digest: 7, rank: 2, clock, steps: 10 * clock, made: 9 * clock, vectors, kept }
    }

    #[test]
    fn the_newest_comes_back_and_three_are_kept() {
        let directory = scratch("newest");
        (1..=5).for_each(|clock| drop(checkpoint(clock).write(&directory).unwrap()));
        assert_eq!(Checkpoint::newest(&directory, 2).unwrap().0, checkpoint(5));
        assert_eq!(files(&own_directory(&directory, 2)).len(), KEPT);
        assert!(matches!(Checkpoint::newest(&directory, 1), Err(CheckpointError::None { .. })));
    }

    /// Every truncation and every flipped bit is noticed, and the one before is taken.
    #[test]
    fn what_is_not_whole_is_not_taken() {
        let directory = scratch("damage");
        checkpoint(1).write(&directory).unwrap();
        let path = checkpoint(2).write(&directory).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(Checkpoint::read(&path).is_err(), "{len}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert!(Checkpoint::read(&path).is_err(), "bit {bit}");
        }
        let (fallback, wrong) = Checkpoint::newest(&directory, 2).unwrap();
        assert_eq!((fallback, wrong.len()), (checkpoint(1), 1));
    }

    /// Lengths that no file can have are refused before anything is allocated for them.
    #[test]
    fn absurd_lengths_are_refused() {
        let directory = scratch("absurd");
        let path = checkpoint(1).write(&directory).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in [u64::MAX, 1 << 63, 1 << 40] {
            let mut bad = whole.clone();
            for at in [40, 56, 64, 72] {
                bad[at..at + 8].copy_from_slice(&len.to_le_bytes());
                fs::write(&path, &bad).unwrap();
                let error = Checkpoint::read(&path).unwrap_err();
                assert!(matches!(error, CheckpointError::Damaged { what: Damage::Length { .. }, .. }), "{error}");
            }
        }
    }

    #[test]
    fn what_is_no_file_is_named() {
        let directory = scratch("kinds");
        let path = directory.join("rank-0").join("1.gwck");
        fs::create_dir_all(&path).unwrap();
        assert!(Checkpoint::read(&path).unwrap_err().to_string().ends_with("expected a file, got something else"));
        let target = checkpoint(1).write(&directory).unwrap();
        let link = directory.join("link.gwck");
        std::os::unix::fs::symlink(target, &link).unwrap();
        assert!(Checkpoint::read(&link).is_err());
        let error = checkpoint(1).write(&PathBuf::from("/proc/nowhere")).unwrap_err().to_string();
        assert!(error.starts_with("checkpoint /proc/nowhere/rank-2/000000000001.gwck: "), "{error}");
    }
}
