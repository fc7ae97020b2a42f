//! [`Recorder`]: the parts of an executor that a kernel module needs to record its commands.

use gradwire_core::{Pool, Segment};

use crate::commands::Commands;
use crate::error::GpuError;
use crate::memory::Memory;
use crate::wgpu;

/// Borrowed parts of a [`Gpu`](crate::Gpu), and the host's pool.
#[derive(Debug)]
pub(crate) struct Recorder<'a> {
    pub(crate) commands: &'a mut Commands,
    pub(crate) memory: &'a mut Memory,
    pub(crate) pool: &'a Pool,
}

impl Recorder<'_> {
    /// The device buffer of a segment that the kernel reads. Uploads bytes that the host has written since.
    pub(crate) fn read(&mut self, segment: Segment) -> Result<wgpu::Buffer, GpuError> {
        self.memory.read(self.commands, segment, self.pool)
    }

    /// The device buffer of a segment that the kernel overwrites completely. A kernel that also reads bytes of the
    /// segment must call [`read`](Self::read) for them first: this call marks the host's bytes as outdated.
    pub(crate) fn write(&mut self, segment: Segment) -> Result<wgpu::Buffer, GpuError> {
        self.memory.write(self.commands, segment, self.pool)
    }
}
