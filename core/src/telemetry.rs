//! Telemetry: the data that nodes publish for monitors, and its encoding. Live connections, recordings, replays and the
//! simulator use the same format.
//!
//! A *log* is [`MAGIC`] followed by frames. A [`Frame`] is a 32-bit little-endian length and a body of that many bytes:
//!
//! | body | content |
//! |---|---|
//! | byte 0 | kind of frame: 1 [`Run`], 2 [`Report`], 3 [`Note`], 4 [`Present`] |
//! | rest | the fields in order: integers as LEB128, floats as 32 bits little-endian, text as its length and UTF-8 |
//!
//! Monitors read logs from untrusted nodes. Parsing checks each length against a limit before it allocates, and accepts
//! any value of a number. Text may contain any characters: show it through [`printable`].

mod meter;
mod reader;
mod report;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::id::{Incarnation, PeerId};
use crate::machine::{Event, PeerRefusal, Rejection, Signal};
use crate::recipe::Hint;
use crate::run_id::RunId;
use crate::status::Status;
use crate::time::Instant;
pub use meter::Meter;
use reader::Reader;

/// The first 8 bytes of a log: a signature, and the format version in the last two.
pub const MAGIC: [u8; 8] = *b"GRWLOG\x00\x04";
/// Limit of a frame's body in bytes.
pub const BODY_MAX: usize = 256 * 1024;
/// Limit of the number of workers, and of links, in a report. Longer lists are cut when they are written.
pub const NODES_MAX: usize = 1024 + 64;
/// Limit of a text in bytes. Longer texts are cut when they are written.
const TEXT_MAX: usize = 4096;

/// One entry of a log.
///
/// ```
/// use gradwire_core::telemetry::{Frame, Run};
///
/// let run = Run { recipe: "sync".into(), workers: 4, servers: 0, parameters: 650, name: None };
/// let mut log = Vec::new();
/// Frame::Run(run.clone()).emit(&mut log);
///
/// assert_eq!(Frame::parse(&log), Ok(Some((Frame::Run(run), log.len()))));
/// assert_eq!(Frame::parse(&log[..3]), Ok(None)); // incomplete: read more bytes first
/// ```
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "most frames are reports")]
pub enum Frame {
    /// The description of the run: the first frame of a log.
    Run(Run),
    /// The state of a node, sent several times a second.
    Report(Report),
    /// An event at a node.
    Note(Note),
    /// The present of the board: the first frame of each of its updates. It comes also when there is nothing to tell.
    Present(Present),
}

/// The present of a board.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The moment, by the clock of the process that keeps the log.
    pub at: Instant,
    /// The start of the board, in nanoseconds since 1970. It tells two boards apart, for instance of a process that was
    /// restarted: another start is another log.
    pub start: u64,
}

/// The description of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The text form of the recipe.
    pub recipe: String,
    /// Number of workers.
    pub workers: u32,
    /// Number of server nodes.
    pub servers: u32,
    /// Length of the parameter vector in floats.
    pub parameters: u64,
    /// The run's name, if it was known when the log began.
    pub name: Option<RunId>,
}

/// The state of a node at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The moment, by the clock of the process that keeps the log.
    pub at: Instant,
    /// Name of the machine on which the node runs, as the node reports it.
    pub host: String,
    /// The run that the node is of, if it knows. Reports of another run do not belong to this log.
    pub run: Option<RunId>,
    /// The node's process: a restarted node has another incarnation.
    pub incarnation: Incarnation,
    /// How far the node is.
    pub stage: Stage,
    /// Snapshot of the node's machine.
    pub status: Status,
    /// Time that the node has spent, by activity.
    pub times: Times,
    /// Training progress, as the application reports it.
    pub progress: Progress,
}

/// How far a node is in its part of the run.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It does not take part yet.
    Joining,
    /// It takes part.
    #[default]
    Active,
    /// It has made its last step, and waits for the end of its part.
    Leaving,
    /// It has left. The run goes on without it.
    Left,
    /// The run has ended: all workers have left.
    Finished,
    /// It has failed, or its application has ended without leaving.
    Failed,
}

impl Stage {
    pub(crate) const ALL: [Self; 6] =
        [Self::Joining, Self::Active, Self::Leaving, Self::Left, Self::Finished, Self::Failed];

    /// True if the node's part is over: no further report follows from its process.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Left | Self::Finished | Self::Failed)
    }
}

/// Nanoseconds that a node has spent since its start, by activity, and the number of steps. [`Meter`] measures them.
///
/// Activities under way count up to the moment of the report. Rates are exact over whole steps: between two reports,
/// the difference of `steps` by the difference of `stepped`.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// From the node's start to the report, by the node's clock.
    pub elapsed: u64,
    /// Steps of the application, local steps included.
    pub steps: u64,
    /// `elapsed` at the end of the last step. Before the first step, when the node began to take part.
    pub stepped: u64,
    /// `compute` at the end of the last step.
    pub stepped_compute: u64,
    /// Computation of the application: from the end of a step call to the start of the next.
    pub compute: u64,
    /// Encoding of contributions, and of differences that servers send.
    pub encode: u64,
    /// Decoding and checking of received bodies.
    pub decode: u64,
    /// Means, applications of updates, and replicas.
    pub apply: u64,
    /// Time in which the application is blocked in a step. Minus `encode`, `decode` and `apply`, this is the network
    /// and the wait for peers.
    pub wait: u64,
    /// Time with at least one message under way: being sent, or its body arriving. Overlaps the other fields.
    pub wire: u64,
}

/// Training progress, as the application reports it. A value of NaN means that it has not been reported.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Progress {
    /// Mean training loss.
    pub loss: f32,
    /// Share of correct answers on held-out examples, from 0 to 1.
    pub accuracy: f32,
    /// Number of examples behind this node's steps so far, local steps included.
    pub examples: u64,
}

impl Default for Progress {
    fn default() -> Self {
        Self { loss: f32::NAN, accuracy: f32::NAN, examples: 0 }
    }
}

/// An event at a node, in a form of fixed size.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The moment, by the clock of the process that keeps the log.
    pub at: Instant,
    /// Rank of the node.
    pub rank: PeerId,
    /// Kind of event.
    pub kind: NoteKind,
    /// The peer that the event concerns. The node itself if there is no peer; the number of members for
    /// [`NoteKind::View`], of messages for [`NoteKind::Rest`], and which hint for [`NoteKind::Hint`].
    pub peer: PeerId,
    /// A number that depends on the kind. `View`: its number. `Stalled`: the clock of the peer. `ContractDiffers`: the
    /// first differing line. `ResumedElsewhere`: the clock of the peer's checkpoint. `Rejected`: the index of the
    /// element that is not finite, plus 1, or 0 for a malformed body. `Resumed`: the moment. `PeerFailed`: which failure. `OtherRun`: the digest of the run's name. `Rest`: hundredths of the norm of an update.
    /// `Hint`: messages, norms of an update, or the rank of a worker. `AnotherLog`: 1 if it is of the same run. Otherwise 0.
    pub number: u64,
}

/// Kinds of notes: the variants of [`Event`] and [`Signal`], and a mark of monitors. The numbers are part of the format.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, reason = "the variants have the names of events and signals, which are documented")]
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
    Rest = 13,
    Hint = 14,
    LedgerFull = 15,
    OtherRun = 16,
    Resumed = 17,
    PeerFailed = 18,
    OuterLost = 19,
    /// A mark of a monitor, which no node makes: from here on it shows another log.
    AnotherLog = 20,
}

impl NoteKind {
    const ALL: [Self; 20] = [
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
        Self::Rest,
        Self::Hint,
        Self::LedgerFull,
        Self::OtherRun,
        Self::Resumed,
        Self::PeerFailed,
        Self::OuterLost,
        Self::AnotherLog,
    ];

    /// True if the event needs attention: a lost peer, a stall, a refusal.
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            Self::Joined
                | Self::Left
                | Self::Finished
                | Self::PeerJoined
                | Self::View
                | Self::Rest
                | Self::Resumed
                | Self::AnotherLog
        )
    }
}

impl Note {
    /// The note for an event of a machine.
    pub fn of_event(at: Instant, rank: PeerId, event: &Event) -> Self {
        let (kind, peer, number) = match *event {
            Event::PeerJoined { peer, .. } => (NoteKind::PeerJoined, peer, 0),
            Event::PeerLost { peer } => (NoteKind::PeerLost, peer, 0),
            Event::PeerFailed { peer, failure } => (NoteKind::PeerFailed, peer, u64::from(failure.code().0)),
            // The format has two numbers, and a view has no peer: the number of members takes the place of one.
            Event::View { number, members } => (NoteKind::View, PeerId(members), number),
            Event::Rejected { peer, reason: Rejection::NonFinite { index, .. } } => {
                // 0 stands for a malformed body.
                (NoteKind::Rejected, peer, u64::from(index) + 1)
            }
            Event::Rejected { peer, reason: Rejection::Malformed(_) } => (NoteKind::Rejected, peer, 0),
            Event::Stalled { on, at, .. } => (NoteKind::Stalled, on, at.0),
            Event::Outdated => (NoteKind::Outdated, rank, 0),
            Event::OuterLost => (NoteKind::OuterLost, rank, 0),
            Event::PeerRefused { peer, reason: PeerRefusal::Contract { line } } => {
                (NoteKind::ContractDiffers, peer, u64::from(line))
            }
            Event::PeerRefused { peer, reason: PeerRefusal::OtherRun { run } } => (NoteKind::OtherRun, peer, run),
            Event::Rest(rest) => (NoteKind::Rest, PeerId(rest.messages), (rest.updates * 100.0) as u64),
            Event::Hint(Hint::DensePull) => (NoteKind::Hint, PeerId(0), 0),
            Event::Hint(Hint::NothingSent { messages, .. }) => (NoteKind::Hint, PeerId(1), messages),
            Event::Hint(Hint::ResidualGrows { updates }) => (NoteKind::Hint, PeerId(2), updates as u64),
            Event::Hint(Hint::LateElements { messages, .. }) => (NoteKind::Hint, PeerId(3), messages),
            Event::Hint(Hint::OuterMomentum { period, .. }) => (NoteKind::Hint, PeerId(4), u64::from(period)),
            Event::Hint(Hint::Copies) => (NoteKind::Hint, PeerId(5), 0),
            Event::Hint(Hint::Repeats) => (NoteKind::Hint, PeerId(8), 0),
            Event::Hint(Hint::Senders) => (NoteKind::Hint, PeerId(6), 0),
            Event::Hint(Hint::OptimizerKept) => (NoteKind::Hint, PeerId(9), 0),
            Event::Hint(Hint::AlwaysLate { worker, .. }) => (NoteKind::Hint, PeerId(7), u64::from(worker.0)),
        };
        Self { at, rank, kind, peer, number }
    }

    /// The note for a signal of a machine. `None` for [`Signal::Ready`], which occurs at every step, and for
    /// [`Signal::Restore`].
    pub fn of_signal(at: Instant, rank: PeerId, signal: &Signal) -> Option<Self> {
        let (kind, peer, number) = match *signal {
            Signal::Ready { .. } | Signal::Restore => return None,
            Signal::Resume { at, own } => (NoteKind::Resumed, PeerId(own.into()), at.0),
            Signal::Joined { .. } => (NoteKind::Joined, rank, 0),
            Signal::Left => (NoteKind::Left, rank, 0),
            Signal::Finished => (NoteKind::Finished, rank, 0),
            Signal::Cut { peer } | Signal::PeerFailed { peer, .. } => (NoteKind::Cut, peer, 0),
            Signal::ContractDiffers { peer, line, .. } => (NoteKind::ContractDiffers, peer, u64::from(line)),
            Signal::OtherRun { peer, run } => (NoteKind::OtherRun, peer, run),
            Signal::ResumedElsewhere { peer, at } => (NoteKind::ResumedElsewhere, peer, at.0),
            Signal::LedgerFull { index } => (NoteKind::LedgerFull, rank, u64::from(index)),
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
            NoteKind::PeerJoined => write!(f, "is joined by peer {peer}"),
            NoteKind::PeerLost => write!(f, "has given up peer {peer}"),
            NoteKind::PeerFailed => write!(f, "was told by peer {peer} that it has failed"),
            NoteKind::Cut => write!(f, "cannot go on without peer {peer}"),
            NoteKind::View => write!(f, "view {number}: {peer} workers go on together"),
            NoteKind::Rejected if *number == 0 => {
                write!(f, "refused a contribution of peer {peer}: malformed body")
            }
            NoteKind::Rejected => {
                write!(f, "refused a contribution of peer {peer}: element {} is not finite", number - 1)
            }
            NoteKind::ContractDiffers => write!(f, "refused peer {peer}: its contract differs (line {number})"),
            NoteKind::Stalled => write!(f, "waits for peer {peer} (at clock {number})"),
            NoteKind::LedgerFull => write!(f, "cannot go on: the ledger is full at element {number}"),
            NoteKind::Resumed => {
                let whose = if peer.0 > 0 { "its own checkpoint" } else { "that of peers" };
                write!(f, "goes on from moment {number}, from {whose}")
            }
            NoteKind::OtherRun => write!(f, "refused peer {peer}: it is of another run"),
            NoteKind::ResumedElsewhere => {
                write!(f, "refused peer {peer}: it resumed from another checkpoint (moment {number})")
            }
            NoteKind::Rest => {
                write!(f, "ended with {:.2} updates in its residual, ", *number as f64 / 100.0)?;
                match peer.0 {
                    0 => write!(f, "which were not sent"),
                    messages => write!(f, "and sent them in {messages} messages"),
                }
            }
            NoteKind::Hint => match peer.0 {
                0 => write!(f, "hint: sparse updates are answered with dense parameters (pull=)"),
                1 => write!(f, "hint: {number} messages in a row carried no element (tau, density)"),
                2 => write!(f, "hint: the residual grows, and holds {number} updates (density, tau)"),
                6 => write!(f, "hint: elements that few workers send take long steps (merge, learning rate)"),
                9 => write!(f, "hint: the optimizer's state is not reset (optimizer, sync_with)"),
                8 => write!(f, "hint: servers keep the last update of each worker (push_cost)"),
                7 => {
                    write!(f, "hint: worker {number} is always late, and its contributions are dropped (late, period)")
                }
                5 => write!(f, "hint: servers keep a copy of their parameters for each worker (compensate)"),
                4 => write!(f, "hint: the outer momentum is large for a period of {number} steps (mu, rate, period)"),
                _ => write!(f, "hint: most elements are sent less than once in {number} messages (density)"),
            },
            NoteKind::OuterLost => write!(f, "started again: the outer optimizer begins with zeros"),
            NoteKind::AnotherLog if *number == 0 => write!(f, "another run begins here"),
            NoteKind::AnotherLog => write!(f, "the run is shown anew from here: its first process was restarted"),
            NoteKind::Outdated => write!(f, "resumed from an outdated checkpoint and dropped its residual"),
        }
    }
}

/// Why bytes could not be parsed as a log.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogError {
    /// The first bytes are not [`MAGIC`]: not a log, or a log of another format version.
    Magic,
    /// A frame, list or text is longer than its limit.
    Length {
        /// The limit: bytes, or elements of a list.
        limit: usize,
        /// The length that the log states.
        got: usize,
    },
    /// The number of a kind of frame, note, role or presence is unknown.
    Kind {
        /// The unknown number.
        got: u8,
    },
    /// The body of a frame is truncated, has trailing bytes, or contains a number or text in a wrong encoding.
    Body,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => {
                write!(f, "log: expected a gradwire log of format version {}, got other first bytes", MAGIC[7])
            }
            Self::Length { limit, got } => write!(f, "log: expected a length of at most {limit}, got {got}"),
            Self::Kind { got } => write!(f, "log: expected a known kind, got {got} (from a newer version?)"),
            Self::Body => write!(f, "log: expected a complete frame, got a malformed body"),
        }
    }
}

impl core::error::Error for LogError {}

impl Frame {
    /// Appends the frame to a log. Texts and lists beyond their limits are cut.
    pub fn emit(&self, log: &mut Vec<u8>) {
        let start = log.len();
        log.extend([0; 4]);
        match self {
            Self::Run(run) => {
                log.push(1);
                text(log, &run.recipe);
                numbers(log, &[u64::from(run.workers), u64::from(run.servers), run.parameters]);
                text(log, run.name.as_ref().map_or("", RunId::as_str));
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
            Self::Present(Present { at, start }) => {
                log.push(4);
                numbers(log, &[at.as_nanos(), *start]);
            }
        }
        // The length is known only now: it replaces the four zeros in front of the body.
        let len = (log.len() - start - 4) as u32;
        log[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }

    /// Parses the first frame of `log`, and returns it with its length in bytes. `Ok(None)`: the frame is incomplete.
    ///
    /// Allocates memory for texts and lists, at most up to the limits of this module.
    ///
    /// # Errors
    /// [`LogError`] if the bytes are not a frame. Later frames cannot be found then, so the log ends there.
    pub fn parse(log: &[u8]) -> Result<Option<(Self, usize)>, LogError> {
        let Some((len, rest)) = log.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        // Before waiting for the bytes: a hostile length would make the monitor buffer without end.
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
                name: reader.run()?,
            }),
            2 => Self::Report(report::parse(&mut reader)?),
            3 => {
                let got = reader.byte()?;
                let kind = NoteKind::ALL.into_iter().find(|kind| *kind as u8 == got).ok_or(LogError::Kind { got })?;
                let at = Instant::from_nanos(reader.number()?);
                let (rank, peer) = (PeerId(reader.short()?), PeerId(reader.short()?));
                Self::Note(Note { at, rank, kind, peer, number: reader.number()? })
            }
            4 => Self::Present(Present { at: Instant::from_nanos(reader.number()?), start: reader.number()? }),
            got => return Err(LogError::Kind { got }),
        };
        reader.end()?;
        Ok(Some((frame, 4 + len)))
    }
}

/// Appends `n` as LEB128: 7 bits per byte, the lowest first; the top bit is set in all bytes but the last.
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

/// Appends a length and UTF-8, cut at a character boundary.
fn text(log: &mut Vec<u8>, text: &str) {
    // Cut here, so that a long host name cannot make a frame that monitors refuse.
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    number(log, end as u64);
    log.extend(&text.as_bytes()[..end]);
}

/// Text from an untrusted source, made safe to show: without control characters, trimmed, at most `longest` characters.
pub fn printable(text: &str, longest: usize) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(longest).collect();
    shown.trim().to_string()
}

#[cfg(test)]
mod tests;
