//! The scan kernel: finds the first float of a segment that is not finite.

use gradwire_core::Segment;

use crate::commands::{Commands, Part};
use crate::error::GpuError;
use crate::memory::{CHUNK, Staging};
use crate::program::{Params, Program};
use crate::recorder::Recorder;
use crate::wgpu;
use crate::window::Window;

pub(crate) static SCAN: Program =
    Program { name: "scan", source: include_str!("scan.wgsl"), buffers: 2, invocations: 256 };

/// The result when all floats are finite.
const ALL_FINITE: u32 = u32::MAX;

/// Device resources of scans, kept from one scan to the next.
#[derive(Debug)]
pub(crate) struct Scan {
    /// One word: the smallest index found so far, or `ALL_FINITE`.
    first: wgpu::Buffer,
    staging: Staging,
}

impl Scan {
    pub(crate) fn new(commands: &mut Commands) -> Self {
        commands.created += 1;
        let first = commands.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("first index that is not finite"),
            size: 256,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { first, staging: Staging::new(commands, 4) }
    }

    /// Submits a scan of `x`. [`poll`](Self::poll) has the result.
    pub(crate) fn begin(&self, x: Segment, recorder: &mut Recorder<'_>) -> Result<(), GpuError> {
        let buffer = recorder.read(x)?;
        let commands = &mut *recorder.commands;
        commands.upload(&self.first, 0, &ALL_FINITE.to_le_bytes());
        let len = x.len as usize / 4;
        for first in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - first);
            let window = Window::new(&buffer, x, first, count);
            let mut params = Params { len: count as u32, ..Params::default() };
            params.groups = commands.workgroups(&SCAN, params.len);
            (params.at[0], params.n[0]) = (window.at, first as u32);
            commands.run(&SCAN, &[window.part, Part::whole(&self.first)], params);
        }
        commands.copy(Part { buffer: &self.first, start: 0, len: 4 }, &self.staging.buffer, 0);
        commands.submit();
        self.staging.map(4);
        Ok(())
    }

    /// The result, or `None` while the device works. `Some(Some(index))` is the first float that is not finite,
    /// `Some(None)` means that all are finite.
    pub(crate) fn poll(&self, commands: &Commands) -> Result<Option<Option<u32>>, GpuError> {
        if !self.staging.is_ready(commands)? {
            return Ok(None);
        }
        let first = self.staging.take(4, |bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))?;
        Ok(Some((first != ALL_FINITE).then_some(first)))
    }
}
