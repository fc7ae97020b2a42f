//! The wire format: a fixed header of 64 bytes, little-endian, with a checksum of its own, and a body.
//!
//! `header.rs` holds the layout of the 64 bytes. `message.rs` holds the [`Message`]s: one variant per message, with a
//! name and a type for each of its fields. Only `fields.rs` knows which field of a message lies where in the header.
//! Parsing a header yields a message whose fields fit together, or a [`WireError`]; re-emitting it yields the same
//! bytes.

mod fields;
mod header;
mod kind;
mod message;

pub use header::{HEADER_LEN, Header, VERSION, WireError};
pub use kind::{CONTRACT_LEN_MAX, Kind};
pub use message::{
    Ack, Commit, Hello, Leave, Message, Moments, Occasion, Offer, Part, Push, Quanta, Reply, Report, SnapshotMark,
    WEIGHT_MAX, Wanted,
};

#[cfg(test)]
mod tests;
