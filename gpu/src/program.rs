//! Programs: the shaders of this crate. Each is compiled at its first use, once per device.

use std::collections::HashMap;

use crate::wgpu;

/// One entry point of a WGSL source. A kernel module declares its programs as statics.
#[derive(Debug)]
pub(crate) struct Program {
    /// Name of the entry point, also used as the label of the pipeline. Unique in this crate: it is the cache key.
    pub(crate) name: &'static str,
    /// WGSL source, without [`COMMON`].
    pub(crate) source: &'static str,
    /// Number of storage buffers, which take the bindings from 1 on. At most [`BUFFERS_MAX`].
    pub(crate) buffers: usize,
    /// Invocations of a workgroup, as in the shader's `@workgroup_size`.
    pub(crate) invocations: u32,
}

/// WGSL source that precedes each program.
pub(crate) const COMMON: &str = include_str!("common.wgsl");

/// The uniform parameters of a dispatch, with the layout of `Params` in common.wgsl. Each shader documents its use of
/// the general fields `n`, `more_n` and `f`.
#[derive(Copy, Clone, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    /// Elements that the dispatch covers.
    pub(crate) len: u32,
    /// Always 0. See `opaque` in common.wgsl.
    pub(crate) zero: u32,
    /// Workgroups of the dispatch.
    pub(crate) groups: u32,
    /// Padding to 16 bytes.
    pub(crate) spare: u32,
    /// First word of the segment within each of the bindings 1 to 4.
    pub(crate) at: [u32; 4],
    /// First word of the segment within the bindings from 5 on.
    pub(crate) more_at: [u32; 4],
    pub(crate) n: [u32; 4],
    pub(crate) more_n: [u32; 4],
    pub(crate) f: [f32; 4],
}

/// Most storage buffers of one program. wgpu's default limits allow 8.
pub(crate) const BUFFERS_MAX: usize = 7;

/// The pipelines compiled so far, and one layout per number of buffers.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    compiled: HashMap<&'static str, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    layouts: [Option<(wgpu::BindGroupLayout, wgpu::PipelineLayout)>; BUFFERS_MAX + 1],
}

impl Programs {
    /// The pipeline of a program and its bind group layout. `flushes`: the adapter flushes denormals.
    ///
    /// Compiles the program at its first use. The results are cheap clones of shared handles.
    pub(crate) fn get(
        &mut self,
        device: &wgpu::Device,
        flushes: bool,
        program: &'static Program,
    ) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let layouts = &mut self.layouts[program.buffers];
        let compiled = self.compiled.entry(program.name).or_insert_with(|| {
            let (layout, pipeline_layout) = layouts.get_or_insert_with(|| layout(device, program.buffers));
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(program.name),
                source: wgpu::ShaderSource::Wgsl(format!("{COMMON}\n{}", program.source).into()),
            });
            let constants = [("flushes", f64::from(u8::from(flushes)))];
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(program.name),
                layout: Some(pipeline_layout),
                module: &module,
                entry_point: Some(program.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: None,
            });
            (pipeline, layout.clone())
        });
        compiled.clone()
    }
}

/// The layout of all programs with this many storage buffers: a uniform buffer with a dynamic offset, then the
/// storage buffers.
fn layout(device: &wgpu::Device, buffers: usize) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match binding {
                0 => wgpu::BufferBindingType::Uniform,
                // Inputs are writable too. Two segments of a kernel may lie in one buffer, and wgpu does not accept a
                // buffer that is read-only in one binding and writable in another of the same dispatch.
                _ => wgpu::BufferBindingType::Storage { read_only: false },
            },
            has_dynamic_offset: binding == 0,
            min_binding_size: None,
        },
        count: None,
    };
    let entries: Vec<_> = (0..=buffers).map(entry).collect();
    let label = Some("gradwire");
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    (layout, pipeline_layout)
}
