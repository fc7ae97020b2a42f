//! The wire: a fixed header of 64 bytes, little-endian, with its own checksum, and a body of the length it says.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `GRWR` |
//! | 4 | version | 2 |
//! | 5 | kind | see [`Kind`] |
//! | 6..8 | flags | none defined, must be 0 |
//! | 8..12 | digest | of layout, recipe and cluster, as compared at join |
//! | 12..16 | origin | rank of the node that made the message (a relay keeps it) |
//! | 16..20 | shard | |
//! | 20..24 | weight | examples behind the body |
//! | 24..32 | incarnation | of the origin |
//! | 32..40 | sequence | |
//! | 40..48 | clock | |
//! | 48..56 | base | |
//! | 56..60 | length | of the body in bytes |
//! | 60..64 | checksum | CRC-32 of the bytes before |
//!
//! What sequence, clock and base mean is said at each [`Kind`]. Checks that need only the header happen in
//! [`Header::parse`]; past it, no kind comes with a length that it cannot have.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;
/// The version of the format that this crate writes and reads.
pub const VERSION: u8 = 2;
/// Longest text that a hello may carry.
pub const CONTRACT_LEN_MAX: u32 = 64 * 1024;

/// Weight of parameters that welcome a worker which is not ahead of anyone.
pub const WELCOME: u32 = 2;

const MAGIC: [u8; 4] = *b"GRWR";

/// What a message is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First message on every connection: `incarnation` of the sender; `base` = the whole 64-bit digest; `weight` 1 if it
    /// has parameters; `clock` = the suspension that it goes on from, or 0; body = the contract's text.
    Hello = 1,
    /// The receiver cannot take part any more: it was given up, or the run is over.
    Refuse = 2,
    /// Worker to server: one shard of an update (or of parameters) made from version `base`, as step `clock`.
    Push = 3,
    /// Server to worker: one shard of the parameters. `base` = version, `clock` = row clock (every update of
    /// earlier clocks is in it), `sequence` = the worker's last update that is in. `weight` 0: an answer; 1: the
    /// final ones; [`WELCOME`] or more: a welcome, and by how much the worker is ahead of the row clock.
    Params = 4,
    /// Collective, in view `sequence`, child to parent: the weighted mean of a subtree for round `clock`, of the chunk
    /// `shard`. `base` 1: all below are finishing.
    Up = 5,
    /// Parent to child: the result for that chunk. `base` 1: it is the last round.
    Down = 6,
    /// Mesh: the sum of the messages of quanta `clock` to `sequence` of `origin` (mostly one), the first of which was
    /// computed when `base` messages were in its replica.
    Quanta = 7,
    /// Mesh: quanta of `origin` up to `sequence` are in.
    Ack = 8,
    /// Mesh. `base` 0: the snapshot that follows holds the quanta of (`origin`, `incarnation`) up to `sequence`;
    /// `weight` 0 if that origin was given up; `clock` 0, or one more than its last. `base` 1, after each hello: the sender's quanta on this connection
    /// begin after `sequence`; `weight` 1 if it has joined.
    Mark = 9,
    /// Mesh: the initial parameters. `shard` of this and the rest of an answer: that of the request.
    Seed = 10,
    /// Mesh: the ledger of quanta of a running mesh; `clock` = messages in it.
    Ledger = 11,
    /// Mesh: a node that comes later asks for marks, seed and ledger; `shard` = the number of its request. Collective:
    /// a member that lacks the parameters asks for them in view `sequence`.
    Fetch = 12,
    /// The origin has made its last contribution, `sequence`. `base` 1: it stays for the end of the run.
    Leave = 13,
    /// The sender waits for `origin`, which is at `clock`: told to those who wait for the sender.
    Awaits = 14,
    /// Server to worker: what [`Params`](Self::Params) are less than what the worker holds. Sequence, clock, base and
    /// weight as there.
    Delta = 15,
    /// Collective, to the coordinator: the sender has heard of view `sequence` and done round `clock`. `weight`: 1 it
    /// has the parameters, 2 it leaves, 4 that was the last round, 8 a connection broke; `base`: one more than the rank
    /// of a member that it has lost, or 0.
    Report = 16,
    /// Members of view `sequence`: bit i of `base` is rank 64 `shard` + i.
    Member = 17,
    /// `weight` 0: stop, view `sequence` is about to be. 1 (2): it goes on after (the last) round `clock`, whose result
    /// rank `shard` has; its members have just been told.
    View = 18,
    /// Collective, in view `sequence`: the parameters after round `clock`. Servers: a worker has met a server that has
    /// started anew, and offers it the `shard` as it has it: version `base`, row clock `clock`; its own contributions up
    /// to `sequence` are in or lost. `weight` 0: it has none that is whole.
    State = 19,
    /// The run is over for the receiver.
    Release = 20,
    /// The receiver goes on from a suspension, but a former self of it has been here since.
    Again = 21,
}

impl Kind {
    const ALL: [Self; 21] = [
        Self::Hello,
        Self::Refuse,
        Self::Push,
        Self::Params,
        Self::Up,
        Self::Down,
        Self::Quanta,
        Self::Ack,
        Self::Mark,
        Self::Seed,
        Self::Ledger,
        Self::Fetch,
        Self::Leave,
        Self::Awaits,
        Self::Delta,
        Self::Report,
        Self::Member,
        Self::View,
        Self::State,
        Self::Release,
        Self::Again,
    ];

    fn check_length(self, length: u32) -> Result<(), WireError> {
        let limit = match self {
            Self::Hello => CONTRACT_LEN_MAX,
            Self::Push
            | Self::Params
            | Self::Delta
            | Self::Up
            | Self::Down
            | Self::Quanta
            | Self::Seed
            | Self::Ledger
            | Self::State => u32::MAX,
            _ => 0,
        };
        if length > limit {
            return Err(WireError::Length { kind: self, expected: limit, got: length });
        }
        if limit == u32::MAX && !length.is_multiple_of(4) {
            return Err(WireError::Words { kind: self, got: length });
        }
        Ok(())
    }
}

/// A message's header, checked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the module's table")]
pub struct Header {
    pub kind: Kind,
    pub digest: u32,
    pub origin: PeerId,
    pub shard: ShardId,
    pub weight: u32,
    pub incarnation: Incarnation,
    pub sequence: Sequence,
    pub clock: Clock,
    pub base: Clock,
    pub length: u32,
}

/// The header as it lies on the wire.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    flags: U16,
    digest: U32,
    origin: U32,
    shard: U32,
    weight: U32,
    incarnation: U64,
    sequence: U64,
    clock: U64,
    base: U64,
    length: U32,
    checksum: U32,
}

const _: () = {
    assert!(size_of::<Raw>() == HEADER_LEN);
    assert!(core::mem::offset_of!(Raw, incarnation) == 24);
    assert!(core::mem::offset_of!(Raw, length) == 56);
    assert!(core::mem::offset_of!(Raw, checksum) == 60);
};

impl Header {
    /// Reads a header. Never allocates.
    ///
    /// # Errors
    /// When the bytes are no header of this version, or the length is none that the kind can have.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, WireError> {
        let Ok(raw) = Raw::ref_from_bytes(bytes) else { unreachable!("Raw is unaligned and as long as a header") };
        if raw.magic != MAGIC {
            return Err(WireError::Magic { got: raw.magic });
        }
        let checksum = checksum(bytes);
        if raw.checksum != checksum {
            return Err(WireError::Checksum { expected: checksum, got: raw.checksum.get() });
        }
        if raw.version != VERSION {
            return Err(WireError::Version { expected: VERSION, got: raw.version });
        }
        if raw.flags != 0 {
            return Err(WireError::Flags { got: raw.flags.get() });
        }
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u8 == raw.kind);
        let kind = kind.ok_or(WireError::Kind { got: raw.kind })?;
        kind.check_length(raw.length.get())?;
        Ok(Self {
            kind,
            digest: raw.digest.get(),
            origin: PeerId(raw.origin.get()),
            shard: ShardId(raw.shard.get()),
            weight: raw.weight.get(),
            incarnation: Incarnation(raw.incarnation.get()),
            sequence: Sequence(raw.sequence.get()),
            clock: Clock(raw.clock.get()),
            base: Clock(raw.base.get()),
            length: raw.length.get(),
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION,
            kind: self.kind as u8,
            flags: U16::ZERO,
            digest: self.digest.into(),
            origin: self.origin.0.into(),
            shard: self.shard.0.into(),
            weight: self.weight.into(),
            incarnation: self.incarnation.0.into(),
            sequence: self.sequence.0.into(),
            clock: self.clock.0.into(),
            base: self.base.0.into(),
            length: self.length.into(),
            checksum: U32::ZERO,
        };
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        raw.checksum = checksum(&bytes).into();
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }
}

fn checksum(bytes: &[u8; HEADER_LEN]) -> u32 {
    crc32fast::hash(&bytes[..HEADER_LEN - 4])
}

/// Bytes that are no header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum WireError {
    /// Not our protocol.
    Magic { got: [u8; 4] },
    /// Damaged on the way.
    Checksum { expected: u32, got: u32 },
    /// Another version of the protocol.
    Version { expected: u8, got: u8 },
    /// Flags that this version does not define.
    Flags { got: u16 },
    /// A kind that this version does not define.
    Kind { got: u8 },
    /// Too long for its kind.
    Length { kind: Kind, expected: u32, got: u32 },
    /// A body of floats or integers that is not whole words.
    Words { kind: Kind, got: u32 },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { got } => write!(f, "frame: expected magic \"GRWR\", got \"{}\"", got.escape_ascii()),
            Self::Checksum { expected, got } => write!(f, "frame: expected checksum {expected:08x}, got {got:08x}"),
            Self::Version { expected, got } => write!(f, "frame: expected version {expected}, got {got}"),
            Self::Flags { got } => write!(f, "frame: expected no flags, got {got:#06x}"),
            Self::Kind { got } => write!(f, "frame: expected kind 1 to {}, got {got}", Kind::ALL.len()),
            Self::Length { kind, expected, got } => {
                write!(f, "frame: expected at most {expected} bytes after {kind:?}, got {got}")
            }
            Self::Words { kind, got } => {
                write!(f, "frame: expected whole 32-bit words after {kind:?}, got {got} bytes")
            }
        }
    }
}

impl core::error::Error for WireError {}

#[cfg(test)]
mod tests;
