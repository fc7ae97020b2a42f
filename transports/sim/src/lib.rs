//! A simulated network in virtual time, for tests and demonstrations.
//!
//! ```
//! use std::time::Duration;
//!
//! use gradwire_core::{Cluster, Layout};
//! use gradwire_sim::simulation::{Learner, Simulation, Speed, Step, Sweep, Worker};
//!
//! /// Draws each parameter to 0.
//! struct Shrink;
//!
//! impl Learner for Shrink {
//!     fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
//!         update.iter_mut().zip(params).for_each(|(update, param)| *update = 0.1 * param);
//!         Step::of(16)
//!     }
//! }
//!
//! let run = Simulation::new(Layout::flat(4), "sync".parse()?, Cluster { workers: 3, servers: 0 })
//!     .initial(vec![1.0; 4])
//!     .speed(Speed::constant(Duration::from_millis(100)))
//!     .until(Duration::from_secs(10));
//! let outcomes = Sweep::new([run]).run(|_: &Worker| Shrink)?;
//! assert!(outcomes[0].bytes > 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
