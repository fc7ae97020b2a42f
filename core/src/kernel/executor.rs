//! Where kernels run. A machine asks for arithmetic on segments of buffers; an executor does it, on the host's memory
//! or on copies of its own elsewhere.

use alloc::boxed::Box;
use core::any::Any;
use core::error::Error;
use core::fmt;

use super::{Kernel, KernelResult, run};
use crate::buffer::{Pool, Segment};

/// Why a kernel was not carried out: a device that is gone, or cannot do it. The run cannot go on.
pub type ExecutorError = Box<dyn Error + Send + Sync>;

/// Carries out the kernels of one machine, one after the other, on its pool or on copies of the pool's buffers.
///
/// The host's memory is what transports and the application see. An executor with copies is told of what the host
/// writes ([`written`](Self::written)), and asked for what the host is about to read ([`fetch`](Self::fetch)). Results
/// are those of [`run`], bit for bit.
pub trait Executor: Send + fmt::Debug {
    /// Begins a kernel; the one before has ended. `None`: it is not known yet what it finds, ask [`poll`](Self::poll).
    ///
    /// # Errors
    /// When it cannot be carried out.
    fn begin(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError>;

    /// What the kernel that was begun has found, once that is known. Does not wait.
    ///
    /// # Errors
    /// When it cannot be carried out after all.
    fn poll(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError>;

    /// The host has written these bytes, or is about to.
    fn written(&mut self, segment: Segment);

    /// Itself, for who knows what it is.
    fn as_any(&mut self) -> &mut dyn Any;

    /// Sees to it that the host's copy of these bytes is what the kernels before have made of them. `false`: not yet;
    /// ask again. Does not wait.
    ///
    /// # Errors
    /// When they cannot be had any more.
    fn fetch(&mut self, segment: Segment, pool: &mut Pool) -> Result<bool, ExecutorError>;
}

/// On the host, at once.
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
