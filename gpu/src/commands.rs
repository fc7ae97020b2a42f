//! What is to be done next, gathered until it is submitted. In the steady state nothing is created but the command buffer:
//! parameters have a place in a ring, and bind groups are kept.

use std::collections::HashMap;

use crate::context::Context;
use crate::error::GpuError;
use crate::program::{Params, Program};
use crate::wgpu;

/// Places for parameters between two submissions.
const PARAMS: usize = 512;
/// Distance of two of them.
const PLACE: usize = 256;
/// Bind groups kept before all are forgotten.
const GROUPS_MAX: usize = 4096;

/// A part of a buffer: in bytes, from a multiple of 256 on.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) buffer: &'a wgpu::Buffer,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl<'a> Part<'a> {
    pub(crate) fn whole(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, start: 0, len: buffer.size() }
    }
}

/// A program, and the buffers that it is bound to: each with a first byte and a length.
type Bound = (&'static str, Vec<(wgpu::Buffer, u64, u64)>);

#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) context: Context,
    encoder: Option<wgpu::CommandEncoder>,
    ring: wgpu::Buffer,
    params: Vec<u8>,
    groups: HashMap<Bound, wgpu::BindGroup>,
    /// Looks up without allocating.
    key: Option<Bound>,
    /// Resources created, for a test that counts them.
    pub(crate) created: u64,
}

impl Commands {
    pub(crate) fn new(context: Context) -> Self {
        let ring = context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (PARAMS * PLACE) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self {
            context,
            encoder: None,
            ring,
            params: Vec::with_capacity(PARAMS * PLACE),
            groups: HashMap::new(),
            key: None,
            created: 0,
        }
    }

    /// Workgroups for so many elements: enough to fill the device, and no more, as each goes on with the next elements.
    pub(crate) fn workgroups(&self, program: &Program, elements: u32) -> u32 {
        let most = if self.context.software { 64 } else { 2048 };
        elements.div_ceil(program.invocations).clamp(1, most)
    }

    pub(crate) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("gradwire") };
        self.encoder.get_or_insert_with(|| self.context.device.create_command_encoder(&descriptor))
    }

    /// Runs a program on these buffers.
    pub(crate) fn run(&mut self, program: &'static Program, parts: &[Part<'_>], params: Params) {
        debug_assert_eq!(parts.len(), program.buffers);
        if self.params.len() == PARAMS * PLACE {
            self.submit();
        }
        let offset = self.params.len() as u32;
        self.params.extend_from_slice(bytemuck::bytes_of(&params));
        self.params.resize(offset as usize + PLACE, 0);
        let (_, mut key) = self.key.take().unwrap_or_default();
        key.clear();
        key.extend(parts.iter().map(|part| (part.buffer.clone(), part.start, part.len)));
        let key = (program.name, key);
        let (pipeline, layout) = self.context.compiled(program);
        if !self.groups.contains_key(&key) {
            if self.groups.len() == GROUPS_MAX {
                self.groups.clear();
            }
            self.created += 1;
            let uniform = wgpu::BufferBinding {
                buffer: &self.ring,
                offset: 0,
                size: std::num::NonZeroU64::new(size_of::<Params>() as u64),
            };
            let resource = |binding: usize| match binding {
                0 => wgpu::BindingResource::Buffer(uniform.clone()),
                _ => {
                    let Part { buffer, start, len } = parts[binding - 1];
                    let size = std::num::NonZeroU64::new(len);
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: start, size })
                }
            };
            let entry = |binding: usize| wgpu::BindGroupEntry { binding: binding as u32, resource: resource(binding) };
            let entries: Vec<_> = (0..=parts.len()).map(entry).collect();
            let group = self.context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(program.name),
                layout: &layout,
                entries: &entries,
            });
            self.groups.insert(key.clone(), group);
        }
        let group = &self.groups[&key];
        let encoder = self.encoder.get_or_insert_with(|| {
            self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gradwire") })
        });
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(program.name), timestamp_writes: None });
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, group, &[offset]);
        pass.dispatch_workgroups(params.groups, 1, 1);
        drop(pass);
        self.key = Some(key);
    }

    pub(crate) fn copy(&mut self, from: Part<'_>, to: &wgpu::Buffer, start: u64) {
        if from.len > 0 {
            self.encoder().copy_buffer_to_buffer(from.buffer, from.start, to, start, from.len);
        }
    }

    /// Writes words into a buffer, before what is gathered from here on and after what was gathered before.
    pub(crate) fn upload(&mut self, buffer: &wgpu::Buffer, start: u64, bytes: &[u8]) {
        // A write goes before everything in the next submission.
        self.submit();
        self.context.queue.write_buffer(buffer, start, bytes);
    }

    pub(crate) fn submit(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.context.queue.write_buffer(&self.ring, 0, &self.params);
            self.context.queue.submit([encoder.finish()]);
        }
        self.params.clear();
    }

    pub(crate) fn check(&self) -> Result<(), GpuError> {
        self.context.check()
    }
}
