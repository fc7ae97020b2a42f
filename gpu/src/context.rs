//! [`Context`]: a wgpu device with its queue, its compiled shaders and its properties.
//!
//! The module `open` has the constructors. They run the probe, which itself needs a context; in a module of their own
//! they keep the dependencies free of circles.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::GpuError;
use crate::program::{Program, Programs};
use crate::wgpu;

/// A device and its queue, checked for use by [`Gpu`](crate::Gpu).
///
/// A clone is cheap and refers to the same device. Clones share the compiled shaders.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    name: String,
    /// The adapter flushes denormals: it treats numbers below 2^-126 as 0.
    flushes: bool,
    /// A software adapter, which runs few workgroups at once.
    software: bool,
    programs: Arc<Mutex<Programs>>,
    /// The first loss or uncaptured error that wgpu reported. Never set for a device of the application, because the
    /// callbacks of that device belong to the application.
    lost: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// A context before the probe of its arithmetic.
    pub(crate) fn unprobed(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let info = device.adapter_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let name = format!("{} ({}, {})", info.name, info.backend, info.driver_info);
        let (programs, lost) = (Arc::default(), Arc::default());
        Self { device, queue, name, flushes: false, software, programs, lost }
    }

    /// Sets the result of the probe, before the constructor hands out the context: existing clones do not see it.
    pub(crate) fn set_flushes(&mut self, flushes: bool) {
        if flushes != self.flushes {
            // Shaders have this flag as a constant: the ones compiled so far have the old value.
            self.programs = Arc::default();
        }
        self.flushes = flushes;
    }

    /// Registers callbacks that note a loss of the device. For devices that this crate has opened.
    pub(crate) fn watch(&self) {
        let (on_loss, on_error) = (Arc::clone(&self.lost), Arc::clone(&self.lost));
        self.device.set_device_lost_callback(move |reason, text| note(&on_loss, format!("{reason:?}: {text}")));
        self.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&on_error, error.to_string())));
    }

    /// The adapter's name, backend and driver, for display.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The wgpu device, to create buffers that [`Gpu::put`](crate::Gpu::put) and [`Gpu::get`](crate::Gpu::get) accept.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// The queue to which all commands of this crate are submitted.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// True if the adapter treats numbers below 2^-126 as 0.
    ///
    /// Sums are exact on such an adapter too, because shaders scale small operands. Products below 2^-126 become 0.
    pub fn flushes_denormals(&self) -> bool {
        self.flushes
    }

    /// True if the driver computes on the processor (for example llvmpipe).
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// The pipeline of a program, compiled at its first use.
    pub(crate) fn compiled(&self, program: &'static Program) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.get(&self.device, self.flushes, program)
    }

    /// Fails if wgpu has reported that the device is lost.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref().map_or(Ok(()), |reason| Err(GpuError::Lost { reason: reason.clone() }))
    }

    /// Processes finished work, such as mapped buffers. Does not wait.
    pub(crate) fn poll(&self) -> Result<(), GpuError> {
        self.check()?;
        let polled = self.device.poll(wgpu::PollType::Poll);
        polled.map(drop).map_err(|error| GpuError::Lost { reason: error.to_string() })
    }

    /// Waits until the device has done all submitted work.
    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map_err(|error| GpuError::Lost { reason: error.to_string() })?;
        self.check()
    }
}

/// Keeps the first report only: a lost device causes many more, and they hide the cause.
fn note(lost: &Mutex<Option<String>>, text: String) {
    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}
