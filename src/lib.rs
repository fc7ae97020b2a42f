//! Data-parallel training of one model on many workers: threads, processes, machines.
//!
//! gradwire exchanges flat vectors of `f32` between workers, by the rule that a [`Recipe`] names: parameter averaging,
//! synchronous or asynchronous SGD, softsync, bounded staleness, or a mesh of sparse updates. It computes no gradients
//! and has no tensor type: the training loop and the buffers stay yours.
//!
//! ```
//! use gradwire::{Cluster, Error, Layout, Mem, Recipe, Session};
//!
//! fn train(transport: Mem) -> Result<Vec<f32>, Error> {
//!     let layout = Layout::new().tensor("weight", &[2]).tensor("bias", &[1]);
//!     let cluster = Cluster { workers: 2, servers: 0 };
//!     let mut params = vec![0.0; 3];
//!     let mut session = Session::builder(layout, Recipe::sync(), cluster).join(transport, &mut params)?;
//!     for _ in 0..10 {
//!         let update = vec![0.1; 3]; // learning rate times gradient, of a batch of 32 examples
//!         session.step(&mut params, &update, 32)?; // subtracts the mean of all workers' updates
//!     }
//!     session.finish(&mut params)?; // all workers end with the same parameters
//!     Ok(params)
//! }
//!
//! let workers = Mem::cluster(2).into_iter().map(|transport| std::thread::spawn(|| train(transport)));
//! for worker in workers.collect::<Vec<_>>() {
//!     assert!((worker.join().unwrap()?[0] + 1.0).abs() < 1e-6);
//! }
//! # Ok::<(), Error>(())
//! ```
//!
//! # Where to start
//!
//! The [`guide`] has pages: a first run in ten minutes, the choice of a recipe, embedding, machines, what to do when it is
//! slow or breaks, and a [reference](mod@guide::reference) of every key of a recipe.
//!
//! - A worker is a [`Session`], made by [`Session::builder`] and [`Builder::join`].
//! - A parameter server is a [`Server`], made by [`Builder::serve`]. Only some recipes need servers.
//! - The rule is a [`Recipe`]: a preset such as [`Recipe::ssp`], or a text such as `"ssp bound=5".parse()`.
//! - The vector is described by a [`Layout`], the nodes by a [`Cluster`].
//! - A [`Transport`] connects the nodes: [`Mem`] between threads, `tcp` between machines, `shm` between processes of
//!   one host.
//! - A process that was started by torchrun, MPI, Slurm or Kubernetes finds its rank with [`LaunchEnv`].
//! - [`plan`] says whether distributing is worth it, before anything is run.
//! - [`monitor::Board`] publishes the state of a run; [`checkpoint`] is the format of saved runs; [`device`] is for
//!   vectors on a GPU.
//!
//! # Features
//!
//! No feature is on by default. A feature adds items and changes no behaviour. The last column is processor time of a
//! first release build; two cores take about half of it.
//!
//! | feature | adds | costs |
//! |---|---|---|
//! | (no feature) | [`Mem`]: threads of one process | 70 s |
//! | `shm` | `gradwire::shm`: processes of one host, over shared memory | 15 s more |
//! | `sim` | `gradwire::sim`: training runs in virtual time, on clusters that need not exist; `gradwire::compare`: which recipe is best for a model and a cluster | 8 s more |
//! | `tcp` | `gradwire::tcp`: machines of a network, with or without encryption | 45 s more; a C compiler |
//! | `gpu` | `gradwire::gpu`: kernels on a GPU, by wgpu | 200 s more |
//!
//! The decisions are made by the state machines of [`gradwire_core`], which do no IO. A session drives one over its
//! transport, by default on a thread of its own, so that communication goes on while the application computes. While the
//! application waits in a call, its thread can drive the machine instead.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod builder;
mod check;
pub mod checkpoint;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub mod compare;
mod compute;
pub mod device;
mod drive;
mod engine;
mod error;
mod exchange;
pub mod guide;
mod launch_env;
mod launch_run;
mod mailbox;
pub mod monitor;
mod node;
mod observe;
mod owned;
#[doc(hidden)]
pub mod pages;
mod parts;
mod pending;
pub mod plan;
mod publish;
mod server;
mod session;
mod stopwatch;
mod tape;
mod waits;
mod watch;

pub use builder::Builder;
pub use drive::RunState;
pub use error::{Awaited, Error, Overdue, PeerLink};
pub use gradwire_core::{
    Cluster, ConfigError, Event, Failure, Layout, LayoutError, PeerId, Recipe, RunId, RunIdError, Status, Transport,
    TransportError, recipe, shard_range, status, telemetry,
};
#[cfg(feature = "gpu")]
#[cfg_attr(docsrs, doc(cfg(feature = "gpu")))]
#[doc(inline)]
pub use gradwire_gpu as gpu;
pub use gradwire_mem::Mem;
#[cfg(feature = "shm")]
#[cfg_attr(docsrs, doc(cfg(feature = "shm")))]
#[doc(inline)]
pub use gradwire_shm as shm;
#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub use gradwire_sim::simulation as sim;
#[cfg(feature = "tcp")]
#[cfg_attr(docsrs, doc(cfg(feature = "tcp")))]
#[doc(inline)]
pub use gradwire_tcp as tcp;
pub use launch_env::{LaunchEnv, LaunchEnvError, LaunchFlags};
pub use owned::OwnedSession;
pub use parts::{MeanParts, PartError};
pub use server::Server;
pub use session::{Mean, Session};
pub use tape::TapeError;
pub use waits::Canceller;
