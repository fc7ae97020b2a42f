//! What stream transports of gradwire share.
//!
//! TCP and shared memory both carry a stream of bytes per pair of nodes. Everything above that is here, once: who
//! dials whom, what is said first, framing, reconnecting, keeping alive, budgets. A transport adds a [`Carrier`]: how
//! to listen, dial, read and write.
//!
//! - **Who dials.** The higher rank dials the lower one. Where addresses are not known beforehand, rank 0 is the
//!   meeting point: each node tells it where it listens, and is told where the others do, also when that changes.
//! - **What is said first.** A *preamble* of fixed length each way: protocol, cluster, rank, and a number drawn at
//!   the start of the process. Whoever does not fit is told why, and so is the user on either side ([`Notice`]).
//! - **Frames.** Gradwire's own header, then the body, which is read straight into its place once the machine has
//!   said where that is; until then it stays with the sender. Where the carrier does not protect its bytes itself, a
//!   body is followed by its checksum. A body is complete only when that has been checked.
//! - **Alive.** Every node says something at least every tenth of `dead_after`. A peer that is read from and silent
//!   for two fifths of it is disconnected, and given up by the machines after the rest, unless it comes back. A peer
//!   that moves, however slowly, is not silent.
//! - **Strangers.** At most [`STRANGERS_MAX`] connections have not said who they are; each has [`GREETING_MAX`] for
//!   that and costs a few kilobytes. Accepting takes a bounded part of each turn.
//!
//! Copies on the way of a body: none here (the carrier's own: the kernel's on either side for TCP, in and out of the
//! ring for shared memory). Nothing is allocated per message once queues have grown to their working size.

#![forbid(unsafe_code)]

mod carrier;
mod control;
mod link;
mod notice;
mod preamble;
mod reader;
mod streams;
mod writer;

pub use carrier::{Carrier, Stream};
pub use notice::{Notice, Refusal, StreamError};
pub use streams::{Config, GREETING_MAX, STRANGERS_MAX, Streams};

/// What fuzzing feeds bytes to.
pub mod parts {
    pub use crate::control::{CONTROL_LEN, Control, parse_book};
    pub use crate::preamble::{PREAMBLE_LEN, Preamble};
    pub use crate::reader::{Reader, Step};
}
