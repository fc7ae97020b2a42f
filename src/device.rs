//! Vectors and arithmetic on a device: the types in the signatures of [`Builder::executor`](crate::Builder::executor)
//! and [`Session::step_through`](crate::Session::step_through).
//!
//! An [`Executor`] runs the kernels of a machine. It works on the buffers of a [`Pool`] in host memory, as [`Cpu`]
//! does, or on copies of them in the memory of a device, as the executor of the crate `gradwire-gpu` does. A
//! [`Segment`] names a range of a buffer. The functions that `step_through` takes get all three: the executor, the
//! segment to write or read, and the pool.

pub use gradwire_core::kernel::executor::{Cpu, Executor, ExecutorError};
pub use gradwire_core::{Pool, Segment};
