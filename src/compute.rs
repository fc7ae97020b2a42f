//! The buffers of a machine, and the executor that runs kernels on them.
//!
//! An executor may hold copies of buffers on a device. The engine announces each write of the host
//! ([`Compute::written`]) and asks for a copy before the host reads ([`Compute::fetch`]).

use std::sync::Arc;

use gradwire_core::kernel::executor::{Cpu, Executor};
use gradwire_core::kernel::{Kernel, KernelResult};
use gradwire_core::{BufferId, OpId, Pool, RestoreError, SavedBuffer, Segment, Storage};

use crate::error::Error;
use crate::mailbox::DeviceCopy;

#[derive(Debug)]
pub(crate) struct Compute {
    pub(crate) pool: Pool,
    executor: Box<dyn Executor>,
    /// The kernel that runs on the device. Its result has not come yet.
    running: Option<OpId>,
}

impl Compute {
    pub(crate) fn new(pool: Pool, executor: Box<dyn Executor>) -> Self {
        Self { pool, executor, running: None }
    }

    /// Starts a kernel. `None`: its result comes from [`poll`](Self::poll).
    pub(crate) fn begin(&mut self, op: OpId, kernel: &Kernel) -> Result<Option<KernelResult>, Error> {
        let result = self.executor.begin(kernel, &mut self.pool).map_err(Error::Executor)?;
        self.running = result.is_none().then_some(op);
        Ok(result)
    }

    /// Kernels run on the host's copy, and there is no other.
    pub(crate) fn is_on_host(&mut self) -> bool {
        self.executor.as_any().is::<Cpu>()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The result of the running kernel, if the device has returned it.
    pub(crate) fn poll(&mut self) -> Result<Option<(OpId, KernelResult)>, Error> {
        let Some(op) = self.running else { return Ok(None) };
        let result = self.executor.poll(&mut self.pool).map_err(Error::Executor)?;
        if result.is_some() {
            self.running = None;
        }
        Ok(result.map(|result| (op, result)))
    }

    /// Announces that the host has written, or is about to write, these bytes.
    pub(crate) fn written(&mut self, segment: Segment) {
        self.executor.written(segment);
    }

    /// Brings the host's copy of these bytes up to date. `false`: not yet, ask again.
    pub(crate) fn fetch(&mut self, segment: Segment) -> Result<bool, Error> {
        self.executor.fetch(segment, &mut self.pool).map_err(Error::Executor)
    }

    /// As [`fetch`](Self::fetch), for all of these buffers.
    pub(crate) fn fetch_all(&mut self, buffers: &[SavedBuffer]) -> Result<bool, Error> {
        for buffer in buffers {
            if !self.fetch(buffer.whole(&self.pool))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies buffers for a checkpoint. They have been fetched.
    pub(crate) fn save(&self, buffers: &[SavedBuffer]) -> Vec<Vec<u32>> {
        buffers.iter().map(|buffer| buffer.save(&self.pool)).collect()
    }

    /// Writes a buffer of a checkpoint back.
    pub(crate) fn restore(&mut self, buffer: SavedBuffer, words: &[u32]) -> Result<(), RestoreError> {
        buffer.restore(&mut self.pool, words)?;
        self.executor.written(buffer.whole(&self.pool));
        Ok(())
    }

    /// Puts `storage` in the place of a buffer, without a copy. Returns the storage that was there.
    pub(crate) fn replace(&mut self, buffer: BufferId, storage: Arc<Storage>) -> Arc<Storage> {
        let replaced = self.pool.replace(buffer, storage);
        self.executor.written(self.whole(buffer));
        replaced
    }

    /// Lets the application copy a vector to or from the executor's memory.
    pub(crate) fn copy_with(&mut self, copy: DeviceCopy, segment: Segment) -> Result<(), Error> {
        (copy.0)(&mut *self.executor, segment, &mut self.pool).map_err(Error::Executor)
    }

    /// The segment of a whole buffer.
    pub(crate) fn whole(&self, buffer: BufferId) -> Segment {
        Segment::floats(buffer, 0, self.pool.len(buffer) / 4)
    }
}
