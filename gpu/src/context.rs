//! A device and a queue, borrowed or opened, and what is known of how it counts.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::GpuError;
use crate::program::{Program, Programs};
use crate::{probe, wgpu};

/// A device and its queue. Cloning it is cheap; all clones are of one device.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    name: String,
    /// Numbers below 2^-126 are taken for 0.
    pub(crate) flushes: bool,
    /// Of a kind that runs few workgroups at once.
    pub(crate) software: bool,
    /// Compiled once for all who use the device.
    pub(crate) programs: Arc<Mutex<Programs>>,
    /// What the device said when it was lost, or refused a command.
    lost: Arc<Mutex<Option<String>>>,
}

impl Context {
    /// Uses a device and a queue of the application's. It stays the application's: errors that the application causes are its
    /// own, and the device may be shared with anyone.
    ///
    /// # Errors
    /// When the adapter's arithmetic differs from a CPU's in what equal bits depend on.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, GpuError> {
        let info = device.adapter_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let name = format!("{} ({}, {})", info.name, info.backend, info.driver_info);
        let (programs, lost) = (Arc::default(), Arc::default());
        let mut context = Self { device, queue, name, flushes: false, software, programs, lost };
        context.flushes = probe::run(&context)?;
        if context.flushes {
            // Those compiled so far do not know yet.
            context.programs = Arc::default();
        }
        Ok(context)
    }

    /// Opens an adapter: the one that `WGPU_ADAPTER_NAME` names a part of, if it is set, of the backends that `WGPU_BACKEND`
    /// allows. Blocks until it is there.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open() -> Result<Self, GpuError> {
        pollster::block_on(Self::opened())
    }

    async fn opened() -> Result<Self, GpuError> {
        let descriptor = wgpu::InstanceDescriptor::new_without_display_handle().with_env();
        let instance = wgpu::Instance::new(descriptor);
        let adapter = match std::env::var("WGPU_ADAPTER_NAME") {
            Ok(wanted) => {
                let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
                let found = adapters.iter().map(|adapter| adapter.get_info().name).collect();
                let matches = |name: String| name.to_lowercase().contains(&wanted.to_lowercase());
                let adapter = adapters.into_iter().find(|adapter| matches(adapter.get_info().name));
                let wanted = format!("an adapter whose name has {wanted:?} in it (WGPU_ADAPTER_NAME)");
                adapter.ok_or(GpuError::NoAdapter { wanted, found })?
            }
            Err(_) => {
                let options = wgpu::RequestAdapterOptions {
                    power_preference: wgpu::PowerPreference::HighPerformance,
                    ..wgpu::RequestAdapterOptions::default()
                };
                let adapter = instance.request_adapter(&options).await;
                let wanted = "an adapter".to_string();
                adapter.map_err(|_| GpuError::NoAdapter { wanted, found: Vec::new() })?
            }
        };
        // The defaults are enough for vectors of 64 million floats; longer ones need longer buffers, where there are.
        let required_limits =
            wgpu::Limits { max_buffer_size: adapter.limits().max_buffer_size, ..wgpu::Limits::default() };
        let descriptor =
            wgpu::DeviceDescriptor { label: Some("gradwire"), required_limits, ..wgpu::DeviceDescriptor::default() };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| GpuError::NoDevice { adapter: adapter.get_info().name, reason: error.to_string() })?;
        let lost = Arc::<Mutex<Option<String>>>::default();
        let (said, refused) = (Arc::clone(&lost), Arc::clone(&lost));
        device.set_device_lost_callback(move |reason, text| note(&said, format!("{reason:?}: {text}")));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&refused, error.to_string())));
        let mut context = Self::new(device, queue)?;
        context.lost = lost;
        Ok(context)
    }

    /// The adapter's name, its backend and driver.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Its queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    /// Does the adapter take numbers below 2^-126 for 0? Sums come out right all the same; products that small are 0.
    pub fn flushes_denormals(&self) -> bool {
        self.flushes
    }

    /// A program, compiled when it is first needed.
    pub(crate) fn compiled(&self, program: &'static Program) -> (wgpu::ComputePipeline, wgpu::BindGroupLayout) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.get(self, program)
    }

    /// Is it a driver that computes on the processor?
    pub fn is_software(&self) -> bool {
        self.software
    }

    /// Fails if the device is lost. A device of the application's is the application's to watch.
    pub(crate) fn check(&self) -> Result<(), GpuError> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.as_ref().map_or(Ok(()), |reason| Err(GpuError::Lost { reason: reason.clone() }))
    }

    /// Goes on with what the device has done meanwhile, without waiting.
    pub(crate) fn poll(&self) -> Result<(), GpuError> {
        self.check()?;
        let polled = self.device.poll(wgpu::PollType::Poll);
        polled.map(drop).map_err(|error| GpuError::Lost { reason: error.to_string() })
    }

    /// Waits for all that was submitted.
    pub(crate) fn wait(&self) -> Result<(), GpuError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map_err(|error| GpuError::Lost { reason: error.to_string() })?;
        self.check()
    }
}

/// The first word is the reason; what follows from it is not.
fn note(lost: &Mutex<Option<String>>, text: String) {
    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
}
