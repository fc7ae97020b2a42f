//! A simulated network in virtual time, for tests and demonstrations.
//!
//! A [`World`] runs the same machines as the real transports, each with buffers of its own and an [`App`] in place of
//! the training program. It carries their messages over a [`Network`] that models latency, jitter, heavy tails and
//! bandwidth, and loss, duplication and reordering below a reliable stream. A [`Plan`] adds [`Fault`]s: broken
//! connections, partitions, pauses, crashes and restarts. Its [`Effort`] says how long kernels and bodies take.
//!
//! All random numbers follow from one seed. So two runs of the same plan are equal, bit for bit; [`World::trace`] is a
//! hash to compare them by. No time passes in reality except for the arithmetic.

mod leases;
mod lines;
mod network;
mod node;
mod plan;
mod random;
pub mod simulation;
mod world;

pub use lines::{Line, Lines, Path};
pub use network::Network;
pub use node::{App, Deed, Entry, Life, Log};
pub use plan::{Effort, Fault, Plan, Saved};
pub use random::Random;
pub use world::{Halt, World};
