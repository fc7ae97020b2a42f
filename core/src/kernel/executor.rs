//! Executors: the trait [`Executor`] for code that runs kernels, and [`Cpu`], the executor on the host.

use alloc::boxed::Box;
use core::any::Any;
use core::error::Error;
use core::fmt;

use super::{Kernel, KernelResult, run};
use crate::buffer::{Pool, Segment};

/// A failure of an executor, for instance a lost device. The run cannot continue after it.
pub type ExecutorError = Box<dyn Error + Send + Sync>;

/// Runs the kernels of one machine, one after the other, on the buffers of its pool or on copies of them.
///
/// Transports and the application access only the pool, the *host's copy*. An executor with copies in other memory
/// keeps both consistent: the driver calls [`written`](Self::written) when the host has written a segment, and
/// [`fetch`](Self::fetch) before the host reads one.
///
/// Results must equal the results of [`run`], bit for bit.
pub trait Executor: Send + fmt::Debug {
    /// Starts a kernel. The previous kernel must have ended. Returns the result, or `None` if it is not known yet;
    /// [`poll`](Self::poll) returns it later.
    ///
    /// # Errors
    /// If the kernel cannot be executed.
    fn begin(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError>;

    /// Returns the result of the kernel in progress, or `None` if it is not known yet. Does not block.
    ///
    /// # Errors
    /// If the kernel has failed.
    fn poll(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError>;

    /// Notes that the host has written these bytes of its copy, or is about to.
    fn written(&mut self, segment: Segment);

    /// For downcasting to the concrete executor.
    fn as_any(&mut self) -> &mut dyn Any;

    /// Brings the host's copy of these bytes up to date with all kernels so far. `false`: the transfer is in progress,
    /// call again. Does not block.
    ///
    /// # Errors
    /// If the bytes cannot be read back.
    fn fetch(&mut self, segment: Segment, pool: &mut Pool) -> Result<bool, ExecutorError>;
}

/// The executor on the host: runs each kernel at once, on the pool itself.
#[derive(Copy, Clone, Debug, Default)]
pub struct Cpu;

impl Executor for Cpu {
    fn begin(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        Ok(Some(run(kernel, pool)))
    }

    fn poll(&mut self, _: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        Ok(None)
    }

    fn written(&mut self, _: Segment) {}

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn fetch(&mut self, _: Segment, _: &mut Pool) -> Result<bool, ExecutorError> {
        Ok(true)
    }
}
