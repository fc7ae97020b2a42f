//! The executor: kernels of one machine, on the device where there is a program for them, else on the host.

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::kernel::{self, Coding, Kernel, KernelResult};
use gradwire_core::recipe::Control;
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::context::Context;
use crate::dense::Dense;
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory};
use crate::scan::Scan;
use crate::scatter::{Issued, Scatter};
use crate::threshold::Encoder;
use crate::{elementwise, mean, wgpu};

/// Carries out kernels on a device. It keeps copies of the buffers that these work on, and brings over the bus what the other
/// side reads next, and no more: a vector that the application gives and takes on the device ([`put`](Self::put),
/// [`get`](Self::get)) never leaves it.
#[derive(Debug)]
pub struct Gpu {
    commands: Commands,
    memory: Memory,
    scan: Option<Scan>,
    /// By the residual that they work on: its lists are its own.
    encoders: Vec<(Segment, Encoder)>,
    dense: Option<Dense>,
    scatter: Scatter,
    sums: mean::Room,
    pending: Option<Pending>,
    /// Kernels that were for the host, so far.
    on_host: u64,
}

/// Gives a session the floats of the application's buffer from byte `start` on, for its `step_through`: they are copied on the
/// device, after what was submitted to the queue before.
pub fn give(
    from: wgpu::Buffer,
    start: u64,
) -> impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static {
    move |executor, segment, pool| Ok(Gpu::of(executor)?.put(segment, &from, start, pool)?)
}

/// Takes a session's parameters into the application's buffer, from byte `start` on; what is submitted to the queue after the
/// step sees them.
pub fn take(
    into: wgpu::Buffer,
    start: u64,
) -> impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static {
    move |executor, segment, pool| Ok(Gpu::of(executor)?.get(segment, &into, start, pool)?)
}

/// What is under way.
#[derive(Copy, Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
enum Pending {
    Scan,
    /// Of this residual.
    Encode(Segment),
    Dense,
    /// The host needs what the kernel reads.
    Host(Kernel),
}

impl Gpu {
    /// An executor on this device.
    pub fn new(context: Context) -> Self {
        Self {
            commands: Commands::new(context),
            memory: Memory::default(),
            scan: None,
            encoders: Vec::new(),
            dense: None,
            scatter: Scatter::default(),
            sums: mean::Room::default(),
            pending: None,
            on_host: 0,
        }
    }

    /// This executor, if it is one of these.
    ///
    /// # Errors
    /// When it is another.
    pub fn of(executor: &mut dyn Executor) -> Result<&mut Self, GpuError> {
        executor.as_any().downcast_mut().ok_or(GpuError::Other)
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.commands.context
    }

    /// Device resources made so far: buffers and bind groups. In the steady state a step makes none.
    pub fn resources_made(&self) -> u64 {
        self.commands.created
    }

    /// Kernels carried out on the host so far, as there is no program for them.
    pub fn on_host(&self) -> u64 {
        self.on_host
    }

    /// Copies floats of the application's, on the device, to where `segment` is; in the order of its queue.
    ///
    /// # Errors
    /// When the device is lost, or `from` is too short.
    pub fn put(&mut self, segment: Segment, from: &wgpu::Buffer, start: u64, pool: &Pool) -> Result<(), GpuError> {
        self.fits(from, start, segment)?;
        let target = self.memory.write(&mut self.commands, segment, pool)?;
        self.commands.copy(Part { buffer: from, start, len: u64::from(segment.len) }, &target, segment.start);
        self.commands.submit();
        self.commands.check()
    }

    /// Copies what `segment` holds to a buffer of the application's; in the order of its queue.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn get(&mut self, segment: Segment, into: &wgpu::Buffer, start: u64, pool: &Pool) -> Result<(), GpuError> {
        self.fits(into, start, segment)?;
        let source = self.memory.read(&mut self.commands, segment, pool)?;
        let part = Part { buffer: &source, start: segment.start, len: u64::from(segment.len) };
        self.commands.copy(part, into, start);
        self.commands.submit();
        self.commands.check()
    }

    /// Submits what has been given so far, and waits until the device has done it.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn wait(&mut self) -> Result<(), GpuError> {
        self.commands.submit();
        self.commands.context.wait()
    }

    fn fits(&self, buffer: &wgpu::Buffer, start: u64, segment: Segment) -> Result<(), GpuError> {
        let (expected, got) = (buffer.size(), start.saturating_add(u64::from(segment.len)));
        if got <= expected { Ok(()) } else { Err(GpuError::Limit { limit: "the buffer's size", expected, got }) }
    }

    fn start(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        let Self { commands, memory, .. } = self;
        match *kernel {
            // What a machine says of texts and sections is on the host, and stays there.
            Kernel::Section { .. } | Kernel::Compare { .. } | Kernel::Merge { .. } => return self.host(kernel, pool),
            Kernel::Scan { x } if x.len > 0 => {
                let scan = self.scan.get_or_insert_with(|| Scan::new(commands));
                scan.issue(x, commands, memory, pool)?;
                self.pending = Some(Pending::Scan);
                return Ok(None);
            }
            Kernel::Encode { coding: Coding::Threshold(aim), update, residual, place } => {
                let longest = pool.sections(place.sections).iter().map(|section| section.len as usize).max();
                let longest = longest.unwrap_or(0);
                let sampled = matches!(aim.control, Control::Density { .. } | Control::Budget { .. });
                if longest == 0 || (sampled && longest > 3 * CHUNK) {
                    return self.host(kernel, pool);
                }
                let index = match self.encoders.iter().position(|(key, _)| *key == residual) {
                    Some(index) if self.encoders[index].1.room() >= longest => index,
                    _ => {
                        self.encoders.retain(|(key, _)| *key != residual);
                        self.encoders.push((residual, Encoder::new(commands, longest)));
                        self.encoders.len() - 1
                    }
                };
                let (key, encoder) = &mut self.encoders[index];
                encoder.begin((aim, update, residual, place), commands, memory, pool)?;
                self.pending = Some(Pending::Encode(*key));
                return Ok(None);
            }
            Kernel::Encode { coding, update, residual, place } => {
                let dense = self.dense.get_or_insert_with(|| Dense::new(commands));
                if !dense.begin((coding, update, residual, place.body), commands, memory, pool)? {
                    return self.host(kernel, pool);
                }
                self.pending = Some(Pending::Dense);
                return Ok(None);
            }
            Kernel::Decode { .. } | Kernel::Expand { .. } => {
                return match self.scatter.issue(kernel, commands, memory, pool)? {
                    Issued::Done(found) => Ok(Some(found)),
                    Issued::Host => self.host(kernel, pool),
                };
            }
            _ => {}
        }
        if elementwise::issue(kernel, commands, memory, pool)?
            || mean::issue(kernel, &mut self.sums, commands, memory, pool)?
        {
            return Ok(Some(KernelResult::Nothing));
        }
        self.host(kernel, pool)
    }

    /// Carries a kernel out on the host, when all that it reads is there.
    fn host(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        for segment in kernel.reads() {
            if !self.memory.fetch(&mut self.commands, segment, pool)? {
                self.pending = Some(Pending::Host(*kernel));
                return Ok(None);
            }
        }
        self.pending = None;
        self.on_host += 1;
        let found = kernel::run(kernel, pool);
        kernel.writes().for_each(|segment| self.memory.written(segment));
        if let Kernel::Decode { ledger, .. } = kernel {
            self.scatter.counted(pool.integers(*ledger));
        }
        Ok(Some(found))
    }

    fn go_on(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        let Self { commands, memory, .. } = self;
        let found = match self.pending {
            None => return Ok(None),
            Some(Pending::Host(kernel)) => return self.host(&kernel, pool),
            Some(Pending::Scan) => {
                let Some(scan) = &self.scan else { return Ok(None) };
                let found =
                    |first: Option<u32>| first.map_or(KernelResult::Finite, |index| KernelResult::NonFinite { index });
                scan.poll(commands)?.map(found)
            }
            Some(Pending::Dense) => {
                let Some(dense) = &self.dense else { return Ok(None) };
                dense.poll(commands)?
            }
            Some(Pending::Encode(key)) => {
                let encoder = self.encoders.iter_mut().find(|(other, _)| *other == key);
                let Some((_, encoder)) = encoder else { return Ok(None) };
                encoder.poll(commands, memory, pool)?
            }
        };
        if found.is_some() {
            self.pending = None;
        }
        Ok(found)
    }
}

impl Executor for Gpu {
    fn begin(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        debug_assert!(self.pending.is_none());
        let found = self.start(kernel, pool)?;
        self.commands.check()?;
        Ok(found)
    }

    fn poll(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        Ok(self.go_on(pool)?)
    }

    fn written(&mut self, segment: Segment) {
        self.memory.written(segment);
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn fetch(&mut self, segment: Segment, pool: &mut Pool) -> Result<bool, ExecutorError> {
        let here = self.memory.fetch(&mut self.commands, segment, pool)?;
        self.commands.check()?;
        Ok(here)
    }
}
