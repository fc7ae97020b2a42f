//! What nodes tell monitors, as plain data with a compact encoding: the same for watching live, recording, replaying, and the
//! simulator.
//!
//! A log is [`MAGIC`] and frames, each a 32-bit length and a body. A body is the kind of frame and numbers: whole ones as
//! LEB128, others as they lie in memory. What is read is checked against limits before anything is allocated for it, and
//! nothing in it is trusted: text is for people to read, and a number may be any number.

mod reader;
mod report;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::id::PeerId;
use crate::machine::{Event, Rejection, Signal};
use crate::status::Status;
use crate::time::Instant;
use reader::Reader;

/// What a log begins with.
pub const MAGIC: [u8; 8] = *b"GRWLOG\x00\x01";
/// The longest body of a frame.
pub const BODY_MAX: usize = 256 * 1024;
/// The most nodes that are told of.
pub const NODES_MAX: usize = 1024 + 64;
/// The longest text.
const TEXT_MAX: usize = 4096;

/// One thing that is told.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "most are reports")]
pub enum Frame {
    /// What is run: told first.
    Run(Run),
    /// How a node is.
    Report(Report),
    /// What happened to a node.
    Note(Note),
}

/// What is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The recipe, in full.
    pub recipe: String,
    /// Nodes that train.
    pub workers: u32,
    /// Nodes that hold shards, or coordinate.
    pub servers: u32,
    /// Floats of the model.
    pub parameters: u64,
}

/// How a node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// When, by the clock that the log is kept by.
    pub at: Instant,
    /// Where it runs, as it says.
    pub host: String,
    /// Its machine.
    pub status: Status,
    /// Where its time goes.
    pub times: Times,
    /// What the application has said.
    pub progress: Progress,
}

/// Nanoseconds so far, and steps they went into.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Steps of the application.
    pub steps: u64,
    /// The application computes: between a step's end and the next one's begin.
    pub compute: u64,
    /// Contributions and differences are encoded.
    pub encode: u64,
    /// Bodies are decoded and looked at.
    pub decode: u64,
    /// Means, updates and replicas are computed.
    pub apply: u64,
    /// The application waits in a step, whatever for; what of that is not spent on the kernels above is the network and others.
    pub wait: u64,
    /// Something that this node sends is on its way; beside all of the others.
    pub wire: u64,
}

/// What the application has said of its training. Not a number: nothing yet.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Progress {
    /// Mean loss, of training.
    pub loss: f32,
    /// From 0 to 1, on examples that are not trained on.
    pub accuracy: f32,
    /// Examples that this node has contributed.
    pub examples: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { loss: f32::NAN, accuracy: f32::NAN, examples: 0 }
    }
}

/// What happened to a node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, by the clock that the log is kept by.
    pub at: Instant,
    /// To whom.
    pub rank: PeerId,
    /// What.
    pub kind: NoteKind,
    /// With whom, where there is someone.
    pub peer: PeerId,
    /// A number that says more, by what it is: a clock, a view, a line; of a refusal, one more than the index of a float that is
    /// not finite, or 0.
    pub number: u64,
}

/// Kinds of notes, as of [`Event`]s.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "named as events are")]
pub enum NoteKind {
    Joined = 1,
    Left = 2,
    Finished = 3,
    PeerJoined = 4,
    PeerLost = 5,
    Cut = 6,
    View = 7,
    Rejected = 8,
    ContractDiffers = 9,
    Stalled = 10,
    ResumedElsewhere = 11,
    Outdated = 12,
}

impl NoteKind {
    const ALL: [Self; 12] = [
        Self::Joined,
        Self::Left,
        Self::Finished,
        Self::PeerJoined,
        Self::PeerLost,
        Self::Cut,
        Self::View,
        Self::Rejected,
        Self::ContractDiffers,
        Self::Stalled,
        Self::ResumedElsewhere,
        Self::Outdated,
    ];

    /// Is it something that people should look at?
    pub fn is_trouble(self) -> bool {
        !matches!(self, Self::Joined | Self::Left | Self::Finished | Self::PeerJoined | Self::View)
    }
}

impl Note {
    /// The note of a machine's event.
    pub fn of_event(at: Instant, rank: PeerId, event: &Event) -> Self {
        let (kind, peer, number) = match *event {
            Event::PeerJoined { peer, .. } => (NoteKind::PeerJoined, peer, 0),
            Event::PeerLost { peer } => (NoteKind::PeerLost, peer, 0),
            Event::View { number, members } => (NoteKind::View, PeerId(members), number),
            Event::Rejected { peer, reason: Rejection::NonFinite { index, .. } } => {
                (NoteKind::Rejected, peer, u64::from(index) + 1)
            }
            Event::Rejected { peer, reason: Rejection::Malformed(_) } => (NoteKind::Rejected, peer, 0),
            Event::Stalled { on, at, .. } => (NoteKind::Stalled, on, at.0),
            Event::Outdated => (NoteKind::Outdated, rank, 0),
        };
        Self { at, rank, kind, peer, number }
    }

    /// The note of a machine's signal; `None` for [`Signal::Ready`], which comes with every step.
    pub fn of_signal(at: Instant, rank: PeerId, signal: &Signal) -> Option<Self> {
        let (kind, peer, number) = match *signal {
            Signal::Ready { .. } => return None,
            Signal::Joined { .. } => (NoteKind::Joined, rank, 0),
            Signal::Left => (NoteKind::Left, rank, 0),
            Signal::Finished => (NoteKind::Finished, rank, 0),
            Signal::Cut { peer } => (NoteKind::Cut, peer, 0),
            Signal::ContractDiffers { peer, line, .. } => (NoteKind::ContractDiffers, peer, u64::from(line)),
            Signal::ResumedElsewhere { peer, at } => (NoteKind::ResumedElsewhere, peer, at.0),
        };
        Some(Self { at, rank, kind, peer, number })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, number, .. } = self;
        match self.kind {
            NoteKind::Joined => write!(f, "takes part"),
            NoteKind::Left => write!(f, "has left"),
            NoteKind::Finished => write!(f, "all workers have left"),
            NoteKind::PeerJoined => write!(f, "sees peer {peer}"),
            NoteKind::PeerLost => write!(f, "has given up peer {peer}"),
            NoteKind::Cut => write!(f, "cannot go on without peer {peer}"),
            NoteKind::View => write!(f, "view {number}: {peer} workers go on together"),
            NoteKind::Rejected if *number == 0 => {
                write!(f, "refused a contribution of peer {peer}: no body of its codec")
            }
            NoteKind::Rejected => {
                write!(f, "refused a contribution of peer {peer}: not finite at index {}", number - 1)
            }
            NoteKind::ContractDiffers => write!(f, "met peer {peer}, which runs something else (line {number})"),
            NoteKind::Stalled => write!(f, "waits for peer {peer} (at clock {number})"),
            NoteKind::ResumedElsewhere => write!(f, "met peer {peer}, which goes on from moment {number}"),
            NoteKind::Outdated => write!(f, "came back to a run that has gone on, and dropped its residual"),
        }
    }
}

/// Bytes that are no frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// Not the beginning of a log of this version.
    Magic,
    /// A frame or a list in it is longer than is allowed.
    Length {
        /// The most.
        limit: usize,
        /// What it says.
        got: usize,
    },
    /// A kind of frame, node or note that is none.
    Kind {
        /// Its number.
        got: u8,
    },
    /// The body ends too early, or goes on.
    Body,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => write!(f, "log: expected one of version 1, got something else"),
            Self::Length { limit, got } => write!(f, "log: expected at most {limit} of something, got {got}"),
            Self::Kind { got } => write!(f, "log: expected a kind that there is, got {got}"),
            Self::Body => write!(f, "log: expected a frame's body to end where it says"),
        }
    }
}

impl core::error::Error for LogError {}

impl Frame {
    /// Appends the frame to a log.
    pub fn emit(&self, log: &mut Vec<u8>) {
        let start = log.len();
        log.extend([0; 4]);
        match self {
            Self::Run(run) => {
                log.push(1);
                text(log, &run.recipe);
                numbers(log, &[u64::from(run.workers), u64::from(run.servers), run.parameters]);
            }
            Self::Report(report) => {
                log.push(2);
                report::emit(log, report);
            }
            Self::Note(note) => {
                log.extend([3, note.kind as u8]);
                let Note { at, rank, peer, number: more, .. } = *note;
                numbers(log, &[at.as_nanos(), u64::from(rank.0), u64::from(peer.0), more]);
            }
        }
        let len = (log.len() - start - 4) as u32;
        log[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Reads a frame, and how many bytes it takes; `None`: there are not enough yet.
    ///
    /// # Errors
    /// When the bytes are no frame. Nothing is allocated beyond what the limits allow.
    pub fn parse(log: &[u8]) -> Result<Option<(Self, usize)>, LogError> {
        let Some((len, rest)) = log.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len > BODY_MAX {
            return Err(LogError::Length { limit: BODY_MAX, got: len });
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        let mut reader = Reader::new(body);
        let frame = match reader.byte()? {
            1 => Self::Run(Run {
                recipe: reader.text(TEXT_MAX)?,
                workers: reader.short()?,
                servers: reader.short()?,
                parameters: reader.number()?,
            }),
            2 => Self::Report(report::parse(&mut reader)?),
            3 => {
                let got = reader.byte()?;
                let kind = NoteKind::ALL.into_iter().find(|kind| *kind as u8 == got).ok_or(LogError::Kind { got })?;
                let at = Instant::from_nanos(reader.number()?);
                let (rank, peer) = (PeerId(reader.short()?), PeerId(reader.short()?));
                Self::Note(Note { at, rank, kind, peer, number: reader.number()? })
            }
            got => return Err(LogError::Kind { got }),
        };
        reader.end()?;
        Ok(Some((frame, 4 + len)))
    }
}

/// LEB128.
fn number(log: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        log.push(n as u8 | 0x80);
        n >>= 7;
    }
    log.push(n as u8);
}

fn numbers(log: &mut Vec<u8>, all: &[u64]) {
    all.iter().for_each(|n| number(log, *n));
}

fn text(log: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    number(log, end as u64);
    log.extend(&text.as_bytes()[..end]);
}

/// Text from elsewhere as it may be shown: printable, on one line, and not long.
pub fn printable(text: &str, longest: usize) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(longest).collect();
    shown.trim().to_string()
}

#[cfg(test)]
mod tests;
