//! The header as it lies on the wire.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `GRWR` |
//! | 4 | version | 2 |
//! | 5 | kind | see [`Kind`] |
//! | 6..8 | flags | none defined, must be 0 |
//! | 8..12 | digest | low half of the contract's digest |
//! | 12..16 | origin | rank of the node that made the message (a relay keeps it) |
//! | 16..20 | shard | |
//! | 20..24 | weight | |
//! | 24..32 | incarnation | of the origin |
//! | 32..40 | sequence | |
//! | 40..48 | clock | |
//! | 48..56 | base | |
//! | 56..60 | length | of the body in bytes |
//! | 60..64 | checksum | CRC-32 of the bytes before |
//!
//! The content of shard, weight, sequence, clock and base depends on the kind; `fields.rs` says it. A field that a kind
//! does not use is 0.

use core::fmt;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::fields::Fields;
use super::{Kind, Message};
use crate::id::{Incarnation, PeerId};

/// Bytes of a header.
pub const HEADER_LEN: usize = 64;
/// The version of the format that this crate writes and reads.
pub const VERSION: u8 = 3;

const MAGIC: [u8; 4] = *b"GRWR";

/// A header: a [`Message`], the length of its body, and the facts that every message carries.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Header {
    digest: u32,
    /// For messages that do not name an origin: the sender.
    origin: PeerId,
    incarnation: Incarnation,
    length: u32,
    message: Message,
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
    /// The header of a message with a body of `length` bytes. `digest` is the low half of the contract's digest;
    /// `origin` and `incarnation` are the sender's, and are sent with messages that do not name an origin of their own.
    pub const fn new(digest: u32, origin: PeerId, incarnation: Incarnation, length: u32, message: Message) -> Self {
        Self { digest, origin, incarnation, length, message }
    }

    /// Reads a header. Never allocates.
    ///
    /// # Errors
    /// When the bytes are no header of this version, the kind cannot have a body of this length, or a field has a value
    /// that the kind does not define.
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
        let (kind, length) = (Kind::parse(raw.kind)?, raw.length.get());
        kind.check_length(length)?;
        let fields = Fields {
            origin: raw.origin.get(),
            shard: raw.shard.get(),
            weight: raw.weight.get(),
            incarnation: raw.incarnation.get(),
            sequence: raw.sequence.get(),
            clock: raw.clock.get(),
            base: raw.base.get(),
        };
        Ok(Self {
            digest: raw.digest.get(),
            origin: PeerId(fields.origin),
            incarnation: Incarnation(fields.incarnation),
            length,
            message: Message::parse(kind, &fields, length)?,
        })
    }

    /// Writes the header.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let sender = Fields { origin: self.origin.0, incarnation: self.incarnation.0, ..Fields::default() };
        let fields = self.message.emit(sender);
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION,
            kind: self.kind() as u8,
            flags: U16::ZERO,
            digest: self.digest.into(),
            origin: fields.origin.into(),
            shard: fields.shard.into(),
            weight: fields.weight.into(),
            incarnation: fields.incarnation.into(),
            sequence: fields.sequence.into(),
            clock: fields.clock.into(),
            base: fields.base.into(),
            length: self.length.into(),
            checksum: U32::ZERO,
        };
        let mut bytes = [0; HEADER_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        raw.checksum = checksum(&bytes).into();
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The kind of the message.
    pub const fn kind(&self) -> Kind {
        self.message.kind()
    }

    /// The message that the header carries.
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// Bytes of the body.
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// Low half of the contract's digest.
    pub const fn digest(&self) -> u32 {
        self.digest
    }
}

pub(super) fn checksum(bytes: &[u8; HEADER_LEN]) -> u32 {
    crc32fast::hash(&bytes[..HEADER_LEN - 4])
}

/// Bytes that are no header.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum WireError {
    /// The bytes do not begin with the magic of this protocol.
    Magic { got: [u8; 4] },
    /// The header was damaged on the way.
    Checksum { expected: u32, got: u32 },
    /// Another version of the protocol.
    Version { expected: u8, got: u8 },
    /// Flags that this version does not define.
    Flags { got: u16 },
    /// A kind that this version does not define.
    Kind { got: u8 },
    /// A body that is too long for its kind, in bytes.
    Length { kind: Kind, expected: u32, got: u32 },
    /// A body of floats or integers that is not whole words, in bytes.
    Words { kind: Kind, got: u32 },
    /// A field has a value that its kind does not define, or that contradicts another field.
    Field { kind: Kind, field: &'static str, expected: &'static str, got: u64 },
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
            Self::Field { kind, field, expected, got } => {
                write!(f, "frame: expected {expected} as {field} of {kind:?}, got {got}")
            }
        }
    }
}

impl core::error::Error for WireError {}
