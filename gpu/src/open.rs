//! Constructors of [`Context`]: they select an adapter, open its device, and probe the arithmetic.

use crate::context::Context;
use crate::error::GpuError;
use crate::{probe, wgpu};

impl Context {
    /// Uses a device and a queue of the application.
    ///
    /// The application keeps its device: it may go on to submit work of its own, and it handles wgpu's error and loss
    /// callbacks itself. Runs one small shader and waits for it.
    ///
    /// # Errors
    /// [`GpuError::Arithmetic`] when the adapter rounds differently from a CPU, and [`GpuError::Lost`] when the device
    /// does not answer.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self, GpuError> {
        Self::unprobed(device, queue).probed()
    }

    /// Opens a device of its own. Blocks until it is ready.
    ///
    /// The environment selects the adapter: `WGPU_BACKEND` restricts the backends, and `WGPU_ADAPTER_NAME` is a part
    /// of the adapter's name, in any case. Default: the adapter that wgpu rates as the fastest.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`] when no adapter matches, [`GpuError::NoDevice`] when the adapter cannot be opened, and
    /// the errors of [`new`](Self::new).
    pub fn open() -> Result<Self, GpuError> {
        let (device, queue) = pollster::block_on(request_device())?;
        let context = Self::unprobed(device, queue);
        // Before the probe: without a handler, wgpu panics on the first error.
        context.watch();
        context.probed()
    }

    fn probed(mut self) -> Result<Self, GpuError> {
        let flushes = probe::run(&self)?;
        self.set_flushes(flushes);
        Ok(self)
    }
}

async fn request_device() -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let adapter = match std::env::var("WGPU_ADAPTER_NAME") {
        Ok(wanted) => adapter_by_name(&instance, &wanted).await?,
        Err(_) => fastest_adapter(&instance).await?,
    };
    // wgpu's default limits suffice for vectors of 64 million floats. Longer vectors need longer buffers, so this
    // limit is raised to the adapter's own.
    let required_limits = wgpu::Limits { max_buffer_size: adapter.limits().max_buffer_size, ..wgpu::Limits::default() };
    let descriptor =
        wgpu::DeviceDescriptor { label: Some("gradwire"), required_limits, ..wgpu::DeviceDescriptor::default() };
    let opened = adapter.request_device(&descriptor).await;
    opened.map_err(|error| GpuError::NoDevice { adapter: adapter.get_info().name, reason: error.to_string() })
}

async fn adapter_by_name(instance: &wgpu::Instance, wanted: &str) -> Result<wgpu::Adapter, GpuError> {
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let found = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    let matches = |name: String| name.to_lowercase().contains(&wanted.to_lowercase());
    let adapter = adapters.into_iter().find(|adapter| matches(adapter.get_info().name));
    let wanted = format!("an adapter whose name contains {wanted:?} (WGPU_ADAPTER_NAME)");
    adapter.ok_or(GpuError::NoAdapter { wanted, found })
}

async fn fastest_adapter(instance: &wgpu::Instance) -> Result<wgpu::Adapter, GpuError> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    let adapter = instance.request_adapter(&options).await;
    adapter.map_err(|_| GpuError::NoAdapter { wanted: "an adapter".into(), found: Vec::new() })
}
