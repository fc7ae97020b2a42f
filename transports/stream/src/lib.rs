//! The part that gradwire's stream transports (TCP and shared memory) have in common.
//!
//! ```
//! use std::time::Duration;
//!
//! // The settings that all stream transports share; their builders fill them in.
//! let mut config = gradwire_stream::Config::new(0, 2);
//! config.dead_after = Duration::from_secs(10);
//! config.notices = Box::new(|notice| eprintln!("{notice}"));
//! assert_eq!((config.servers, config.cluster.as_str()), (0, "gradwire"));
//! ```
//!
//! Both transports carry one ordered stream of bytes between each two nodes. This crate builds a
//! [`Transport`](gradwire_core::Transport) on such streams: [`Streams`] dials and accepts, greets, frames messages,
//! reconnects, sends keep-alives and enforces limits. A transport crate adds a [`Carrier`], which knows how to listen,
//! dial, read and write.
//!
//! - **Dialling.** Two nodes are connected if one of them wants the other, and all with rank 0. All nodes dial rank 0, and
//!   workers dial servers; of two workers or servers, the higher rank dials the lower one. A node that waits in vain for
//!   a peer that it wants dials it. Where addresses are not known beforehand, rank 0 is the
//!   meeting point: each node reports the address where it listens to rank 0, and rank 0 sends the *address book*
//!   (rank and address of all known nodes) to each node, again whenever an address changes.
//! - **Greeting.** Each side first sends a *preamble* of fixed length: protocol version, cluster, run, rank, and
//!   the *instance*, a random number drawn once per process. If the preambles do not match, the accepting side answers
//!   with a [`Refusal`]; both sides report it to their users ([`Notice`], [`StreamError`]).
//! - **Runs.** Nodes of different runs refuse each other. A node that has not been given a run adopts the run of a
//!   peer. If no node was given one, rank 0 draws a name and proposes it to all. A proposal gives way to a run that a
//!   peer knows, until the node has entered the run.
//! - **Framing.** A message is gradwire's 64-byte header, followed by the body. After a header, the reader stops until
//!   the machine has named the destination of the body; then it reads the body directly into that destination. Until
//!   then the body is *held*: it stays in the buffers of the connection and of the sender. If the carrier does not
//!   detect damaged bytes itself, each body is followed by a CRC-32, and is complete only when that matches.
//! - **Keep-alive.** A node that has sent nothing for a tenth of `dead_after` sends a keep-alive frame. A peer that
//!   has been silent for two fifths of `dead_after`, while this node was ready to read, is disconnected. The machines
//!   give it up after the remaining three fifths, unless it reconnects. Every byte counts: a slow peer is not silent.
//! - **Strangers.** A *stranger* is an accepted connection that has not completed its greeting. At most
//!   [`STRANGERS_MAX`] are open at once, and fewer when the process runs short of descriptors. A newcomer always gets a
//!   place: the oldest stranger of the host with the most strangers is closed for it. Each stranger must complete its
//!   greeting within [`GREETING_MAX`], and costs at most a few kilobytes. Accepting takes a bounded part of each call of
//!   `poll`.
//!
//! This crate copies at most the first 4 KiB of a body, which can arrive together with the header. The carrier adds
//! its own copies: in and out of the kernel for TCP, in and out of the ring for shared memory. Sending and receiving
//! allocate nothing once the queues have grown to their working size.

#![forbid(unsafe_code)]

mod carrier;
mod causes;
mod control;
mod link;
mod notice;
mod preamble;
mod reader;
mod strangers;
mod streams;
mod writer;

pub use carrier::{Carrier, Stream};
pub use notice::{Notice, Refusal, Runs, StreamError};
pub use strangers::{Host, STRANGERS_MAX};
pub use streams::{Config, DEAD_AFTER_MAX, DEAD_AFTER_MIN, GREETING_MAX, Streams};

/// Parsers that fuzzing feeds directly. Not a stable API: this module can change in any release.
#[doc(hidden)]
pub mod parts {
    pub use crate::control::{CONTROL_LEN, Control, parse_book};
    pub use crate::preamble::{KnownRun, PREAMBLE_LEN, Preamble};
    pub use crate::reader::{Reader, Step};
}
