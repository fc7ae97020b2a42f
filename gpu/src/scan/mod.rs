//! The first float that is not finite.

use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory, Staging};
use crate::program::{Params, Program};
use crate::wgpu;
use crate::window::Window;

pub(crate) static SCAN: Program =
    Program { name: "scan", source: include_str!("scan.wgsl"), buffers: 2, invocations: 256 };

/// A word on the device, and where it is read.
#[derive(Debug)]
pub(crate) struct Scan {
    found: wgpu::Buffer,
    staging: Staging,
}

impl Scan {
    pub(crate) fn new(commands: &mut Commands) -> Self {
        commands.created += 1;
        let found = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("found"),
            size: 256,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { found, staging: Staging::new(commands, 4) }
    }

    pub(crate) fn issue(
        &self,
        x: Segment,
        commands: &mut Commands,
        memory: &mut Memory,
        pool: &Pool,
    ) -> Result<(), GpuError> {
        let buffer = memory.read(commands, x, pool)?;
        commands.upload(&self.found, 0, &u32::MAX.to_le_bytes());
        let len = x.len as usize / 4;
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let window = Window::new(&buffer, x, first, count);
            let mut params = Params { len: count as u32, ..Params::default() };
            params.groups = commands.workgroups(&SCAN, params.len);
            (params.at[0], params.n[0]) = (window.at, first as u32);
            commands.run(&SCAN, &[window.part, Part::whole(&self.found)], params);
        }
        commands.copy(Part { buffer: &self.found, start: 0, len: 4 }, &self.staging.buffer, 0);
        commands.submit();
        self.staging.map(4);
        Ok(())
    }

    /// Once it is known: the index, if there is one.
    pub(crate) fn poll(&self, commands: &Commands) -> Result<Option<Option<u32>>, GpuError> {
        if !self.staging.is_ready(commands)? {
            return Ok(None);
        }
        let first = self.staging.take(4, |bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))?;
        Ok(Some((first != u32::MAX).then_some(first)))
    }
}
