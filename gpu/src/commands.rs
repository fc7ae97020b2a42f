//! Commands for the device: dispatches and copies, collected in one command encoder until [`Commands::submit`].
//!
//! In the steady state a submission creates a command buffer and nothing else. Parameters are written to slots of
//! one uniform buffer, and bind groups are cached by the program and the buffers that they bind.

use std::collections::HashMap;

use crate::context::Context;
use crate::error::GpuError;
use crate::program::{Params, Program};
use crate::wgpu;

/// Dispatches between two submissions: each needs a slot for its parameters.
const SLOTS: usize = 512;
/// Bytes from one slot to the next: the default limit `min_uniform_buffer_offset_alignment`.
const SLOT_STRIDE: usize = 256;
/// Bind groups that are cached. When the cache is full it is emptied.
const BIND_GROUPS_MAX: usize = 4096;

/// A range of a buffer, in bytes. As a binding it must start at a multiple of 256.
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

/// Key of a bind group: the name of a program, and the buffers that it binds, each with first byte and length.
type BindKey = (&'static str, Vec<(wgpu::Buffer, u64, u64)>);

#[derive(Debug)]
pub(crate) struct Commands {
    pub(crate) context: Context,
    encoder: Option<wgpu::CommandEncoder>,
    /// The slots, on the device.
    params_buffer: wgpu::Buffer,
    /// The slots filled so far, on the host. Written to the device by `submit`.
    params: Vec<u8>,
    bind_groups: HashMap<BindKey, wgpu::BindGroup>,
    /// The key of the last dispatch. Its allocation is reused for the next lookup.
    key: Option<BindKey>,
    /// Buffers and bind groups created so far, for a test of the steady state.
    pub(crate) created: u64,
}

impl Commands {
    pub(crate) fn new(context: Context) -> Self {
        let params_buffer = context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters"),
            size: (SLOTS * SLOT_STRIDE) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self {
            context,
            encoder: None,
            params_buffer,
            params: Vec::with_capacity(SLOTS * SLOT_STRIDE),
            bind_groups: HashMap::new(),
            key: None,
            created: 0,
        }
    }

    /// Number of workgroups to dispatch for this many elements: as many as can run at once, at most. Each workgroup
    /// then loops over its share of the elements.
    pub(crate) fn workgroups(&self, program: &Program, elements: u32) -> u32 {
        let most = if self.context.is_software() { 64 } else { 2048 };
        elements.div_ceil(program.invocations).clamp(1, most)
    }

    pub(crate) fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("gradwire") };
        self.encoder.get_or_insert_with(|| self.context.device.create_command_encoder(&descriptor))
    }

    /// Records one dispatch of `params.groups` workgroups. `parts` are the program's storage buffers, in the order of
    /// their bindings.
    pub(crate) fn run(&mut self, program: &'static Program, parts: &[Part<'_>], params: Params) {
        debug_assert_eq!(parts.len(), program.buffers);
        if self.params.len() == SLOTS * SLOT_STRIDE {
            self.submit();
        }
        let offset = self.params.len() as u32;
        self.params.extend_from_slice(bytemuck::bytes_of(&params));
        self.params.resize(offset as usize + SLOT_STRIDE, 0);
        let (_, mut key) = self.key.take().unwrap_or_default();
        key.clear();
        key.extend(parts.iter().map(|part| (part.buffer.clone(), part.start, part.len)));
        let key = (program.name, key);
        let (pipeline, layout) = self.context.compiled(program);
        if !self.bind_groups.contains_key(&key) {
            // Not an LRU cache: a run has far fewer combinations, unless buffers keep changing, and then old bind
            // groups would only keep dead buffers alive.
            if self.bind_groups.len() == BIND_GROUPS_MAX {
                self.bind_groups.clear();
            }
            self.created += 1;
            let bind_group = self.bind(program, &layout, parts);
            self.bind_groups.insert(key.clone(), bind_group);
        }
        let bind_group = &self.bind_groups[&key];
        // Not `self.encoder()`, which would borrow all of `self`.
        let encoder = self.encoder.get_or_insert_with(|| {
            self.context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("gradwire") })
        });
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(program.name), timestamp_writes: None });
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, bind_group, &[offset]);
        pass.dispatch_workgroups(params.groups, 1, 1);
        drop(pass);
        self.key = Some(key);
    }

    /// Creates a bind group: binding 0 is the parameter slot, at a dynamic offset; `parts` follow.
    fn bind(&self, program: &Program, layout: &wgpu::BindGroupLayout, parts: &[Part<'_>]) -> wgpu::BindGroup {
        let uniform = wgpu::BufferBinding {
            buffer: &self.params_buffer,
            offset: 0,
            size: std::num::NonZeroU64::new(size_of::<Params>() as u64),
        };
        let storage = parts.iter().map(|part| wgpu::BufferBinding {
            buffer: part.buffer,
            offset: part.start,
            size: std::num::NonZeroU64::new(part.len),
        });
        let bindings = std::iter::once(uniform).chain(storage);
        let entries: Vec<_> = (0..)
            .zip(bindings)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(buffer) })
            .collect();
        self.context.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(program.name),
            layout,
            entries: &entries,
        })
    }

    /// Records a copy on the device. An empty `from` records nothing.
    pub(crate) fn copy(&mut self, from: Part<'_>, to: &wgpu::Buffer, start: u64) {
        if from.len > 0 {
            self.encoder().copy_buffer_to_buffer(from.buffer, from.start, to, start, from.len);
        }
    }

    /// Writes host bytes into a buffer: after all commands recorded so far, before all commands recorded later.
    pub(crate) fn upload(&mut self, buffer: &wgpu::Buffer, start: u64, bytes: &[u8]) {
        // `write_buffer` runs before all commands of the next submission. Without this submission it would overtake
        // the commands recorded so far.
        self.submit();
        self.context.queue.write_buffer(buffer, start, bytes);
    }

    /// Submits the recorded commands to the queue. Does not wait for them.
    pub(crate) fn submit(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.context.queue.write_buffer(&self.params_buffer, 0, &self.params);
            self.context.queue.submit([encoder.finish()]);
        }
        // The queue runs in order: the next write to the slots comes after the dispatches that read them.
        self.params.clear();
    }

    /// Fails if the device is lost.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        self.context.check()
    }
}
