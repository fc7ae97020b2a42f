//! gradwire's kernels on any GPU: WGSL on wgpu 30.
//!
//! A machine of gradwire asks for arithmetic on segments of buffers; [`Gpu`] does it on a device, the application's own
//! ([`Context::new`]) or one that it opens ([`Context::open`]). Residuals, ledgers and parameters stay on the device; the entries
//! of a sparse message are what comes to the host.
//!
//! Results are those of the CPU kernels of [`gradwire_core`], bit for bit, with these exceptions: which of the many ways to
//! say "not a number" comes out; the sum of squares of a residual, which is for people; and, on adapters that take numbers below
//! 2^-126 for 0 ([`Context::flushes_denormals`]), products that small. How an adapter counts is looked at when it is opened: one
//! that rounds otherwise is an error.
//!
//! wgpu is re-exported: buffers that are shared with this crate must be of this version.

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
mod probe;
mod program;
mod scan;
mod scatter;
mod threshold;
mod window;

#[cfg(test)]
mod tests;

pub use context::Context;
pub use error::GpuError;
pub use executor::{Gpu, give, take};
