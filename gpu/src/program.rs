//! Kernels as the device knows them: compiled once, when first needed, and kept.

use std::collections::HashMap;

use crate::context::Context;
use crate::wgpu;

/// One entry point of one source, and how many buffers it works on.
#[derive(Debug)]
pub(crate) struct Program {
    /// The entry point, and what the pipeline is called.
    pub(crate) name: &'static str,
    pub(crate) source: &'static str,
    pub(crate) buffers: usize,
    /// Invocations of a workgroup.
    pub(crate) invocations: u32,
}

pub(crate) const COMMON: &str = include_str!("common.wgsl");

/// What every kernel is told; the same as `Params` in WGSL.
#[derive(Copy, Clone, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    pub(crate) len: u32,
    pub(crate) zero: u32,
    pub(crate) groups: u32,
    pub(crate) spare: u32,
    pub(crate) at: [u32; 4],
    pub(crate) more_at: [u32; 4],
    pub(crate) n: [u32; 4],
    pub(crate) more_n: [u32; 4],
    pub(crate) f: [f32; 4],
}

/// Most buffers that a program works on.
pub(crate) const BUFFERS_MAX: usize = 6;

/// Every program in this crate.
#[cfg(test)]
pub(crate) const ALL: &[&Program] = &[
    &crate::probe::PROBE,
    &crate::scan::SCAN,
    &crate::elementwise::APPLY,
    &crate::elementwise::APPLY_IN_PLACE,
    &crate::elementwise::SCALE,
    &crate::elementwise::ACCELERATE,
    &crate::elementwise::MATERIALISE,
    &crate::threshold::TAKE,
    &crate::threshold::COUNT,
    &crate::threshold::GATHER,
    &crate::threshold::TALLY,
    &crate::threshold::PICK,
    &crate::threshold::PUT_BACK,
    &crate::scatter::ADD,
    &crate::scatter::PUT,
    &crate::mean::MEAN,
    &crate::dense::HALF,
    &crate::dense::INT8,
    &crate::dense::SIGN,
];

/// The programs compiled so far.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    compiled: HashMap<&'static str, (wgpu::ComputePipeline, wgpu::BindGroupLayout)>,
    layouts: [Option<(wgpu::BindGroupLayout, wgpu::PipelineLayout)>; BUFFERS_MAX + 1],
}

impl Programs {
    /// Cloning what it returns copies two pointers.
    pub(crate) fn get(
        &mut self,
        context: &Context,
        program: &'static Program,
    ) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let layouts = &mut self.layouts[program.buffers];
        let compiled = self.compiled.entry(program.name).or_insert_with(|| {
            let (layout, pipeline_layout) = layouts.get_or_insert_with(|| layout(&context.device, program.buffers));
            let module = context.device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(program.name),
                source: wgpu::ShaderSource::Wgsl(format!("{COMMON}\n{}", program.source).into()),
            });
            let constants = [("flushes", f64::from(u8::from(context.flushes)))];
            let pipeline = context.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
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

/// Parameters at an offset that changes, then so many buffers. All can be written: two of a kernel's segments may lie in
/// one buffer.
fn layout(device: &wgpu::Device, buffers: usize) -> (wgpu::BindGroupLayout, wgpu::PipelineLayout) {
    let entry = |binding: usize| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: match binding {
                0 => wgpu::BufferBindingType::Uniform,
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
