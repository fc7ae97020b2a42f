//! The protocol of gradwire as state machines without IO, clock, threads or randomness.
//!
//! Data-parallel training exchanges flat vectors of `f32` between workers by a method: parameter averaging, synchronous
//! or asynchronous updates, softsync, bounded staleness, or quanta with residual. A [`Recipe`] describes the method,
//! and a [`Machine`] runs it on one node. The machine takes [`Input`]s and returns [`Output`]s. It names buffers and
//! does not access them, so the same machine runs in a thread of a training program, with gradients on a GPU, or in a
//! simulator.
//!
//! | module or type | content |
//! |---|---|
//! | [`Node`], [`Machine`], [`Input`], [`Output`] | the state machine of one node and its interface |
//! | [`Recipe`], [`recipe`] | the method of a run: axes, presets, text form |
//! | [`Layout`] | the tensors of a model in one flat vector |
//! | [`Pool`], [`Segment`] | the buffers of a node, which the driver owns |
//! | [`kernel`] | the arithmetic that a machine asks for, and executors for it |
//! | [`codec`] | the encodings of vectors on the wire |
//! | [`wire`] | the header of a message |
//! | [`Transport`] | the contract between a driver and a transport |
//! | [`Local`] | a worker's local steps between synchronisations |
//! | [`Tape`] | the order of a run, recorded or followed |
//! | [`Status`], [`telemetry`] | the state of a node as numbers, and its encoding for monitors |
//!
//! Most users want `Session` of the `gradwire` crate, which drives a machine. The following program is a complete
//! driver, for one worker that trains alone, so that its transport has no messages to carry:
//!
//! ```
//! use gradwire_core::*;
//! use gradwire_core::kernel;
//!
//! let (layout, recipe) = (Layout::flat(3), Recipe::sync());
//! let cluster = Cluster { workers: 1, servers: 0 };
//! let setup = Setup::new(PeerId(0), cluster, recipe, &layout, 0);
//! let (mut machine, mut pool) = Node::open(setup, &[0.0; 3])?;
//!
//! let now = Instant::ORIGIN; // a driver reads its own clock here
//! let mut steps = 0;
//! loop {
//!     match machine.poll_output() {
//!         Output::Compute { op, kernel } => {
//!             let result = kernel::run(&kernel, &mut pool);
//!             machine.handle_input(now, Input::Completed { op, result })?;
//!         }
//!         // A driver hands these to its transport, which answers with `Completed` or `Aborted`.
//!         Output::Transmit { .. } | Output::Receive { .. } | Output::Close { .. } => unreachable!("alone"),
//!         Output::Signal(Signal::Joined { .. }) => {}
//!         Output::Signal(Signal::Ready { .. }) => {
//!             steps += 1;
//!             let params = pool.floats(Segment::floats(machine.view(), 0, 3));
//!             assert_eq!(params, [-1.0, -2.0, -3.0].map(|x| x * steps as f32));
//!         }
//!         Output::Signal(_) | Output::Event(_) | Output::Order(_) => {}
//!         // No more outputs: a driver waits for its transport, the application or a timeout.
//!         Output::Wait { .. } if steps == 2 => break,
//!         Output::Wait { .. } => {
//!             let update = Segment::floats(machine.contribution(), 0, 3);
//!             pool.floats_mut(update).copy_from_slice(&[1.0, 2.0, 3.0]);
//!             machine.handle_input(now, Input::Step { weight: 32 })?;
//!         }
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

#[macro_use]
mod macros;

mod buffer;
pub mod codec;
mod id;
pub mod kernel;
mod layout;
mod local;
mod machine;
#[cfg(planted)]
pub mod planted;
mod ranges;
pub mod recipe;
mod rider;
mod rule;
mod run_id;
mod saved;
pub mod status;
mod tape;
pub mod telemetry;
mod time;
mod transport;
mod vectors;
pub mod wire;

pub use buffer::{Allocate, BufferId, Lent, Memory, Pool, Segment, Storage};
pub use id::{Clock, Cluster, Incarnation, OpId, PeerId, Sequence, ShardId};
pub use layout::{Layout, LayoutError, Tensor, shard_range};
pub use local::Local;
pub use machine::{
    Adoption, Advice, Contract, ContractNote, Event, Failure, Input, Machine, Misuse, Node, OURS, Output, PeerRefusal,
    ProtocolError, Rejection, Resumed, Setup, Signal, THEIRS,
};
pub use ranges::Ranges;
pub use recipe::check::ConfigError;
pub use recipe::settings::Recipe;
pub use rider::Rider;
pub use run_id::{RunId, RunIdError};
pub use saved::{RestoreError, SavedBuffer};
pub use status::snapshot::Status;
pub use tape::{Order, OrderParseError, Tape};
pub use time::{Duration, Instant, Patience, StepTime};
pub use transport::{Transport, TransportError};
