//! Train one model on many workers: threads, processes, machines.
//!
//! gradwire exchanges flat vectors of `f32` between the workers of a data-parallel training run, by the rule that a
//! [`Recipe`] names: parameter averaging, synchronous SGD, asynchronous SGD, softsync, bounded staleness, or a mesh of
//! sparse quanta with residual. It computes no gradients and owns no tensor type: your loop, your buffers.
//!
//! ```
//! use gradwire::{Cluster, Layout, Mem, Recipe, Session};
//!
//! let layout = Layout::new().tensor("weight", &[2]).tensor("bias", &[1]);
//! let cluster = Cluster { workers: 2, servers: 0 };
//! let workers = Mem::cluster(2).into_iter().map(|transport| {
//!     let layout = layout.clone();
//!     std::thread::spawn(move || -> Result<Vec<f32>, gradwire::Error> {
//!         let mut params = vec![0.0; 3];
//!         let mut session = Session::builder(layout, Recipe::sync(), cluster).join(transport, &mut params)?;
//!         for _ in 0..10 {
//!             let update = vec![0.1; 3]; // learning rate times gradient: what is to be subtracted
//!             session.step(&mut params, &update, 32)?; // 32 examples stand behind it
//!         }
//!         session.finish(&mut params)?; // everyone ends with the same parameters
//!         Ok(params)
//!     })
//! });
//! let threads: Vec<_> = workers.collect();
//! for thread in threads {
//!     assert!((thread.join().unwrap()?[0] + 1.0).abs() < 1e-6);
//! }
//! # Ok::<(), gradwire::Error>(())
//! ```
//!
//! The decisions are made by the machines of [`core`](gradwire_core), which do no IO; a [`Session`] drives one over a
//! [`Transport`], by default on a thread of its own, so that communication goes on while you compute.
//!
//! # Features
//!
//! No feature is on by default. The last column is processor time of a first release build; two cores take about half of
//! it.
//!
//! | feature | adds | costs |
//! |---|---|---|
//! | (no feature) | [`Mem`]: threads of one process | 70 s |
//! | `shm` | `gradwire::shm`: processes of one host, over shared memory | 15 s more |
//! | `tcp` | `gradwire::tcp`: machines of a network, with or without encryption | 45 s more; a C compiler |
//! | `gpu` | `gradwire::gpu`: arithmetic on a GPU, by wgpu | 200 s more |

#![forbid(unsafe_code)]

mod builder;
pub mod checkpoint;
mod desk;
mod engine;
mod error;
pub mod monitor;
mod observe;
mod place;
mod server;
mod session;

pub use builder::Builder;
pub use error::{Awaited, Error, Overdue};
pub use gradwire_core::kernel::executor;
pub use gradwire_core::{
    Cluster, ConfigError, Event, Layout, PeerId, Pool, Recipe, Segment, Status, Transport, recipe, shard_range, status,
    telemetry,
};
#[cfg(feature = "gpu")]
pub use gradwire_gpu as gpu;
pub use gradwire_mem::Mem;
#[cfg(feature = "shm")]
pub use gradwire_shm as shm;
#[cfg(feature = "tcp")]
pub use gradwire_tcp as tcp;
pub use place::{Place, PlaceError};
pub use server::Server;
pub use session::Session;
