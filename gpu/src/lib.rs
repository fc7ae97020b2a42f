//! gradwire's kernels on a GPU: WGSL shaders, run through wgpu 30.
//!
//! ```
//! use gradwire_gpu::{Context, Gpu};
//!
//! match Context::open() {
//!     Ok(context) => {
//!         let _executor = Gpu::new(context); // for `Builder::executor`
//!     }
//!     Err(error) => println!("no GPU: {error}"),
//! }
//! ```
//!
//! A gradwire machine describes its arithmetic as [`Kernel`](gradwire_core::kernel::Kernel) values over segments of
//! buffers, and an [`Executor`](gradwire_core::kernel::executor::Executor) runs them. This crate has the executor for
//! devices:
//!
//! - [`Context`] is a wgpu device with its queue and compiled shaders. The device is the application's own
//!   ([`Context::new`]) or one that this crate opens ([`Context::open`]). All executors of a process can share it.
//! - [`Gpu`] is the executor of one machine. A kernel that has no shader runs on the host instead.
//! - [`give`] and [`take`] connect `Session::step_through` to wgpu buffers of the application.
//! - [`GpuError`] lists the reasons why a device cannot be used.
//!
//! Residuals, ledgers and parameters stay in device memory. For each encoded message the host reads a few counters
//! and, with a sparse codec, the list of entries.
//!
//! # How a kernel runs
//!
//! `memory` keeps a device copy of each buffer of the machine's pool and tracks which side has the newer bytes. The
//! module of the kernel (`elementwise`, `outer`, `mean`, `scan`, `scatter`, `dense`, `threshold`) uploads the bytes that
//! the shader reads and records dispatches in `commands`. If the protocol needs the result of a kernel, the kernel
//! copies it to a staging buffer, and [`Gpu`] returns it from a later `poll`.
//!
//! These kernels have no shader: `Norm`, `Clip`, `Mask`, `Compensate`, `Hold`, `Round`, `Adasum`, `Merge`, `Section`,
//! `Compare`; `Encode` for top-k, for signs per column, and with a decay; `Expand` for dense codecs.
//!
//! # Equal results
//!
//! Results equal the CPU kernels of [`gradwire_core`] bit for bit, with two exceptions:
//!
//! - the payload bits of a NaN;
//! - the sum of squares of a residual, which is reported to monitors only.
//!
//! An adapter may flush denormals to zero ([`Context::flushes_denormals`]). Then the shaders make products and sums that
//! are that small in integers.
//!
//! A probe measures the rounding of an adapter when its [`Context`] is created. An adapter with other rounding is an
//! error.
//!
//! # wgpu version
//!
//! wgpu is re-exported. Buffers that an application shares with this crate must come from this version of wgpu.

#![forbid(unsafe_code)]

pub use wgpu;

mod commands;
mod context;
mod dense;
mod elementwise;
mod error;
mod executor;
mod mean;
mod memory;
mod open;
mod outer;
mod probe;
mod program;
mod recorder;
mod scan;
mod scatter;
mod threshold;
mod window;

#[cfg(test)]
mod tests;

pub use context::Context;
pub use error::GpuError;
pub use executor::{Gpu, give, take};
