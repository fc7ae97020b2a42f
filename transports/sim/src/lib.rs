//! A seeded network in virtual time.
//!
//! [`World`] hosts any number of the machines that ship, each with its own buffers and an [`App`] in the place of
//! the training program, and carries their messages over a simulated [`Network`]: latency, jitter, heavy tails,
//! bandwidth; loss, duplication and reordering below the reliable stream; broken connections, partitions, pauses,
//! crashes and restarts. Everything follows from one seed: two runs of the same [`World`] are equal to the bit, and
//! [`World::trace`] is a hash that shows it.

mod network;
mod node;
mod random;
mod world;

pub use network::Network;
pub use node::{App, Entry, Life, Log};
pub use random::Random;
pub use world::{Fault, Halt, Plan, Saved, World};
