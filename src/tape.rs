//! Tapes as files: the decisions of a node of a run without rounds, in order; see [`Order`].
//!
//! A tape is text. Its first lines name the format, the contract and the rank; then follows a line per decision. The
//! last line is `end DIGEST`, of the final parameters, if the node took part until the end of the run.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use gradwire_core::recipe::Pace;
use gradwire_core::{Order, PeerId, Setup, Tape};

const FORMAT: &str = "gradwire tape 1";

/// Longest line in bytes, with its end.
const LINE_MAX: u64 = 64;

/// Why a tape could not be written, or a run could not follow it.
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the file, the value that was expected and the one that was found")]
pub enum TapeError {
    /// An I/O error of the file system.
    File { path: PathBuf, error: io::Error },
    /// A line is not valid in a tape. Lines are counted from 1.
    Malformed { path: PathBuf, line: usize, expected: String, got: String },
    /// The tape belongs to a run with another contract: its recipe, layout, cluster or a note differs.
    Contract { path: PathBuf, expected: u64, got: u64 },
    /// The tape belongs to another node.
    Rank { path: PathBuf, expected: u32, got: u32 },
    /// In the recorded run, a worker was lost or came again, or a connection broke during an answer, so that it cannot
    /// be run again.
    Broken { path: PathBuf, line: usize },
    /// The recipe has `pace=first`: which contributions are in time for a round depends on the time, and no tape tells
    /// it.
    Timed,
    /// The run followed the tape, and ended with other parameters: the application did something else. The values are
    /// digests of the final parameters.
    Differs { path: PathBuf, expected: u64, got: u64 },
}

/// Whether a node writes or follows a tape, as the application has asked for.
#[derive(Clone, Debug, Default)]
pub(crate) enum TapePlan {
    #[default]
    Off,
    /// Writes a tape into this directory.
    Record(PathBuf),
    /// Follows the tape in this directory.
    Follow(PathBuf),
}

/// The tape of a running node.
#[derive(Debug)]
pub(crate) enum TapeFile {
    Off,
    Record {
        path: PathBuf,
        file: BufWriter<File>,
    },
    /// `end`: the digest of the final parameters of the recorded run.
    Follow {
        path: PathBuf,
        end: Option<u64>,
    },
}

impl TapePlan {
    /// Opens the tape of a node, and gives its decisions to the setup.
    pub(crate) fn open(&self, setup: &mut Setup) -> Result<TapeFile, TapeError> {
        let timed = matches!(setup.recipe.pace(), Pace::First { .. });
        if timed && !matches!(self, Self::Off) {
            return Err(TapeError::Timed);
        }
        let (rank, digest) = (setup.me, setup.contract.digest());
        let path = |directory: &Path| directory.join(format!("rank-{}.tape", rank.0));
        match self {
            Self::Off => Ok(TapeFile::Off),
            Self::Record(directory) => {
                let path = path(directory);
                let created = std::fs::create_dir_all(directory).and_then(|()| {
                    let mut file = BufWriter::new(File::create(&path)?);
                    writeln!(file, "{FORMAT}\ncontract {digest:016x}\nrank {}", rank.0)?;
                    Ok(file)
                });
                let file = created.map_err(|error| TapeError::File { path: path.clone(), error })?;
                setup.tape = Tape::Record;
                Ok(TapeFile::Record { path, file })
            }
            Self::Follow(directory) => {
                let path = path(directory);
                let (orders, end) = read(&path, digest, rank)?;
                setup.tape = Tape::Follow(orders.into());
                Ok(TapeFile::Follow { path, end })
            }
        }
    }
}

impl TapeFile {
    /// Appends a decision as a line, if this node records.
    pub(crate) fn write(&mut self, order: Order) -> Result<(), TapeError> {
        match self {
            Self::Record { path, file } => {
                writeln!(file, "{order}").map_err(|error| TapeError::File { path: path.clone(), error })
            }
            Self::Off | Self::Follow { .. } => Ok(()),
        }
    }

    /// The run has ended with these parameters. Writes their digest, or compares it with the recorded run's.
    pub(crate) fn end(&mut self, params: &[f32]) -> Result<(), TapeError> {
        match self {
            Self::Off | Self::Follow { end: None, .. } => Ok(()),
            Self::Record { path, file } => {
                let ended = writeln!(file, "end {:016x}", digest(params)).and_then(|()| file.flush());
                ended.map_err(|error| TapeError::File { path: path.clone(), error })
            }
            Self::Follow { path, end: Some(expected) } => match digest(params) {
                got if got == *expected => Ok(()),
                got => Err(TapeError::Differs { path: path.clone(), expected: *expected, got }),
            },
        }
    }
}

/// FNV-1a over the bits of the parameters.
fn digest(params: &[f32]) -> u64 {
    let bytes = params.iter().flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The decisions of a tape, and the digest of its last line, if there is one.
fn read(path: &Path, contract: u64, rank: PeerId) -> Result<(Vec<Order>, Option<u64>), TapeError> {
    let in_file = |error| TapeError::File { path: path.to_path_buf(), error };
    let mut file = BufReader::new(File::open(path).map_err(in_file)?);
    let (mut orders, mut end, mut count) = (Vec::new(), None, 0);
    let mut text = String::new();
    loop {
        text.clear();
        let length = (&mut file).take(LINE_MAX).read_line(&mut text).map_err(in_file)?;
        count += 1;
        let malformed = |expected: &str| TapeError::Malformed {
            path: path.to_path_buf(),
            line: count,
            expected: expected.to_string(),
            got: text.chars().filter(|c| !c.is_control()).collect(),
        };
        let Some(line) = text.strip_suffix('\n') else {
            // A process that is killed can leave a part of a line. Without a complete header, the file is no tape.
            return match length as u64 {
                LINE_MAX => Err(malformed("a line of at most 63 characters")),
                _ if count <= 3 => Err(malformed("a tape: its format, contract and rank")),
                _ => Ok((orders, end)),
            };
        };
        let hex = |name: &str| line.strip_prefix(name).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        match count {
            1 if line == FORMAT => {}
            1 => return Err(malformed(FORMAT)),
            2 => match hex("contract ").ok_or_else(|| malformed("contract DIGEST"))? {
                got if got == contract => {}
                got => return Err(TapeError::Contract { path: path.to_path_buf(), expected: contract, got }),
            },
            3 => {
                let got = line.strip_prefix("rank ").and_then(|digits| digits.parse().ok());
                match got.ok_or_else(|| malformed("rank RANK"))? {
                    got if got == rank.0 => {}
                    got => return Err(TapeError::Rank { path: path.to_path_buf(), expected: rank.0, got }),
                }
            }
            _ if end.is_some() => return Err(malformed("nothing after the end")),
            _ if line.starts_with("end ") => end = Some(hex("end ").ok_or_else(|| malformed("end DIGEST"))?),
            _ => match line.parse() {
                Ok(Order::Break) => return Err(TapeError::Broken { path: path.to_path_buf(), line: count }),
                Ok(order) => orders.push(order),
                Err(error) => {
                    let expected = error.to_string();
                    return Err(malformed(expected.strip_prefix("expected ").unwrap_or(&expected)));
                }
            },
        }
    }
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "tape {}: {error}", path.display()),
            Self::Malformed { path, line, expected, got } => {
                write!(f, "tape {}: line {line}: expected {expected}, got {got:?}", path.display())
            }
            Self::Contract { path, expected, got } => write!(
                f,
                "tape {}: expected contract {expected:016x} (recipe, layout, cluster and notes such as the seed), got \
                 {got:016x}: it belongs to another run",
                path.display()
            ),
            Self::Rank { path, expected, got } => {
                write!(f, "tape {}: expected rank {expected}, got rank {got}", path.display())
            }
            Self::Broken { path, line } => write!(
                f,
                "tape {}: line {line}: in the recorded run, a worker was lost or came again, or a connection broke during an \
                 answer; such a run cannot be run again from its tape",
                path.display()
            ),
            Self::Timed => write!(
                f,
                "tape: expected a recipe without pace=first, whose rounds take the contributions that are in time; no tape \
                 tells which these were"
            ),
            Self::Differs { path, expected, got } => write!(
                f,
                "tape {}: the run followed it and ended with other parameters (expected digest {expected:016x}, got \
                 {got:016x}): the application has made other contributions",
                path.display()
            ),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for TapeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            _ => None,
        }
    }
}
