//! [`Gpu`]: the executor of one machine. It dispatches each kernel to a kernel module, or runs it on the host.
//!
//! [`give`] and [`take`] are here too: they reach the `Gpu` of a session through `Session::step_through`.

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::kernel::{self, Coding, Kernel, KernelResult};
use gradwire_core::recipe::Control;
use gradwire_core::{Pool, Segment};

use crate::commands::{Commands, Part};
use crate::context::Context;
use crate::dense::Dense;
use crate::error::GpuError;
use crate::memory::{CHUNK, Memory};
use crate::recorder::Recorder;
use crate::scan::Scan;
use crate::scatter::{Outcome, Scatter};
use crate::threshold::Encoder;
use crate::{elementwise, mean, outer, wgpu};

/// Runs the kernels of one machine on a device.
///
/// A session creates its executor through its builder: `.executor(move || Box::new(Gpu::new(context.clone())))`.
///
/// The executor keeps device copies of the pool's buffers and copies bytes only when the other side reads them next. So
/// a vector that the application gives and takes on the device ([`put`](Self::put), [`get`](Self::get)) never passes
/// through host memory. A kernel without a shader runs on the host, on bytes that are downloaded for it.
///
/// # Example
///
/// A kernel on a buffer of 1,024 floats. Kernels with a result need time on the device, so their result comes from a
/// later [`poll`](Executor::poll).
///
/// ```no_run
/// use gradwire_core::kernel::executor::{Executor, ExecutorError};
/// use gradwire_core::kernel::{Kernel, KernelResult};
/// use gradwire_core::{BufferId, Pool, Segment};
/// use gradwire_gpu::{Context, Gpu};
///
/// # fn main() -> Result<(), ExecutorError> {
/// let mut gpu = Gpu::new(Context::open()?);
/// let mut pool = Pool::new([4096]);
/// let x = Segment::floats(BufferId(0), 0, 1024);
///
/// let mut result = gpu.begin(&Kernel::Scan { x }, &mut pool)?;
/// while result.is_none() {
///     gpu.wait()?;
///     result = gpu.poll(&mut pool)?;
/// }
/// assert_eq!(result, Some(KernelResult::Finite));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Gpu {
    commands: Commands,
    memory: Memory,
    scan: Option<Scan>,
    /// One encoder per residual: read lengths and buffers fit the sections of that vector.
    encoders: Vec<(Segment, Encoder)>,
    dense: Option<Dense>,
    scatter: Scatter,
    partial_sums: mean::PartialSums,
    pending: Option<Pending>,
    /// Kernels run on the host so far.
    on_host: u64,
}

/// Returns a `give` for `Session::step_through`: it passes the floats of `from`, from byte `start` on, to the session.
///
/// The floats are copied on the device, after all work that the application has submitted to the queue before. `start`
/// must be a multiple of 4.
pub fn give(
    from: wgpu::Buffer,
    start: u64,
) -> impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static {
    move |executor, segment, pool| Ok(Gpu::of(executor)?.put(segment, &from, start, pool)?)
}

/// Returns a `take` for `Session::step_through`: it copies the session's parameters to `into`, from byte `start` on.
///
/// Work that the application submits to the queue after the step sees the parameters. `start` must be a multiple of 4.
pub fn take(
    into: wgpu::Buffer,
    start: u64,
) -> impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static {
    move |executor, segment, pool| Ok(Gpu::of(executor)?.get(segment, &into, start, pool)?)
}

/// The kernel in progress: its result is still to come.
#[derive(Copy, Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "an executor has one value of this type")]
enum Pending {
    Scan,
    /// A threshold message, by its residual.
    Encode(Segment),
    Dense,
    /// A kernel for the host, which waits for downloads of the bytes that it reads.
    Host(Kernel),
}

impl Gpu {
    /// An executor on this device. Allocates little: device buffers are created when kernels first use them.
    pub fn new(context: Context) -> Self {
        Self {
            commands: Commands::new(context),
            memory: Memory::default(),
            scan: None,
            encoders: Vec::new(),
            dense: None,
            scatter: Scatter::default(),
            partial_sums: mean::PartialSums::default(),
            pending: None,
            on_host: 0,
        }
    }

    /// Downcasts an executor to a `Gpu`.
    ///
    /// # Errors
    /// [`GpuError::Other`] when it is of another type.
    pub fn of(executor: &mut dyn Executor) -> Result<&mut Self, GpuError> {
        executor.as_any().downcast_mut().ok_or(GpuError::Other)
    }

    /// The context that was passed to [`new`](Self::new).
    pub fn context(&self) -> &Context {
        &self.commands.context
    }

    /// Number of device buffers and bind groups created so far. In the steady state a step creates no resource.
    pub fn resources_made(&self) -> u64 {
        self.commands.created
    }

    /// Number of kernels run on the host so far.
    pub fn on_host(&self) -> u64 {
        self.on_host
    }

    /// Copies floats from a buffer of the application to `segment`, on the device and in the order of the queue.
    ///
    /// `start` is the first byte of the floats within `from`, a multiple of 4.
    ///
    /// # Errors
    /// [`GpuError::Limit`] when `from` is too short, and [`GpuError::Lost`] when the device is lost.
    pub fn put(&mut self, segment: Segment, from: &wgpu::Buffer, start: u64, pool: &Pool) -> Result<(), GpuError> {
        check_range(from, start, segment)?;
        let target = self.memory.write(&mut self.commands, segment, pool)?;
        self.commands.copy(Part { buffer: from, start, len: u64::from(segment.len) }, &target, segment.start);
        // At once: the application may overwrite `from` with its next submission.
        self.commands.submit();
        self.commands.check()
    }

    /// Copies the floats of `segment` to a buffer of the application, on the device and in the order of the queue.
    ///
    /// `start` is the byte of `into` that receives the first of them, a multiple of 4.
    ///
    /// # Errors
    /// [`GpuError::Limit`] when `into` is too short, and [`GpuError::Lost`] when the device is lost.
    pub fn get(&mut self, segment: Segment, into: &wgpu::Buffer, start: u64, pool: &Pool) -> Result<(), GpuError> {
        check_range(into, start, segment)?;
        let source = self.memory.read(&mut self.commands, segment, pool)?;
        let part = Part { buffer: &source, start: segment.start, len: u64::from(segment.len) };
        self.commands.copy(part, into, start);
        // At once: the application's next submission reads `into`.
        self.commands.submit();
        self.commands.check()
    }

    /// Submits all recorded commands and waits until the device has done them.
    ///
    /// # Errors
    /// [`GpuError::Lost`] when the device is lost.
    pub fn wait(&mut self) -> Result<(), GpuError> {
        self.commands.submit();
        self.commands.context.wait()
    }

    /// Starts a kernel. Returns `None` if its result is pending.
    fn start(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        match *kernel {
            // Shaders keep no map of touched lines: the whole replica is made.
            Kernel::Refresh { base, ledger, unit, into, .. } => {
                self.start(&Kernel::Materialise { base, ledger, unit, into }, pool)
            }
            Kernel::Release { buffer } => {
                if !self.memory.finish(&mut self.commands, pool)? {
                    self.pending = Some(Pending::Host(*kernel));
                    return Ok(None);
                }
                self.pending = None;
                self.memory.release(buffer);
                Ok(Some(kernel::run(kernel, pool)))
            }
            // Texts, sections and merged bodies are small and on the host already.
            Kernel::Section { .. } | Kernel::Compare { .. } | Kernel::Merge { .. } => self.run_on_host(kernel, pool),
            Kernel::Scan { x } if x.len > 0 => {
                let scan = self.scan.get_or_insert_with(|| Scan::new(&mut self.commands));
                scan.begin(x, &mut Recorder { commands: &mut self.commands, memory: &mut self.memory, pool })?;
                self.pending = Some(Pending::Scan);
                Ok(None)
            }
            Kernel::Encode { .. } => self.encode(kernel, pool),
            Kernel::Decode { .. } | Kernel::Expand { .. } | Kernel::Scatter { .. } => {
                let mut recorder = Recorder { commands: &mut self.commands, memory: &mut self.memory, pool };
                match self.scatter.record(kernel, &mut recorder)? {
                    Outcome::Done(result) => Ok(Some(result)),
                    Outcome::Unsupported => self.run_on_host(kernel, pool),
                }
            }
            // Shaders read the low words of the counts only.
            Kernel::Materialise { ledger, .. } if !self.scatter.is_small(ledger) => self.run_on_host(kernel, pool),
            _ => {
                let mut recorder = Recorder { commands: &mut self.commands, memory: &mut self.memory, pool };
                if elementwise::record(kernel, &mut recorder)?
                    || outer::record(kernel, &mut recorder)?
                    || mean::record(kernel, &mut self.partial_sums, &mut recorder)?
                {
                    // These kernels have no result, so the machine can go on before the device has run them. Later
                    // kernels come after them on the queue.
                    return Ok(Some(KernelResult::Nothing));
                }
                self.run_on_host(kernel, pool)
            }
        }
    }

    /// Starts an `Encode`, on the device if its codec and the lengths allow it.
    fn encode(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        let Kernel::Encode { coding, decay, update, residual, place: target } = *kernel else { return Ok(None) };
        // The forgotten part of a residual is summed on the host: there is no shader for it.
        if decay != 1.0 {
            return self.run_on_host(kernel, pool);
        }
        let Coding::Threshold(aim) = coding else {
            let dense = self.dense.get_or_insert_with(|| Dense::new(&mut self.commands));
            let mut recorder = Recorder { commands: &mut self.commands, memory: &mut self.memory, pool };
            if !dense.begin(coding, update, residual, target.body, &mut recorder)? {
                return self.run_on_host(kernel, pool);
            }
            self.pending = Some(Pending::Dense);
            return Ok(None);
        };
        let longest = pool.sections(target.sections).iter().map(|section| section.len as usize).max().unwrap_or(0);
        // The shader takes its sample through one binding, which does not reach all of a longer section.
        let sampled = matches!(aim.control, Control::Density { .. } | Control::Budget { .. });
        if longest == 0 || (sampled && longest > 3 * CHUNK) {
            return self.run_on_host(kernel, pool);
        }
        let index = match self.encoders.iter().position(|(key, _)| *key == residual) {
            Some(index) if self.encoders[index].1.capacity() >= longest => index,
            _ => {
                self.encoders.retain(|(key, _)| *key != residual);
                self.encoders.push((residual, Encoder::new(&mut self.commands, longest)));
                self.encoders.len() - 1
            }
        };
        let (key, encoder) = &mut self.encoders[index];
        let mut recorder = Recorder { commands: &mut self.commands, memory: &mut self.memory, pool };
        encoder.begin(aim, update, residual, target, &mut recorder)?;
        self.pending = Some(Pending::Encode(*key));
        Ok(None)
    }

    /// Runs a kernel on the host once the host has all bytes that it reads. Until then the kernel is pending.
    fn run_on_host(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        for segment in kernel.reads() {
            if !self.memory.fetch(&mut self.commands, segment, pool)? {
                self.pending = Some(Pending::Host(*kernel));
                return Ok(None);
            }
        }
        self.pending = None;
        self.on_host += 1;
        let result = kernel::run(kernel, pool);
        // The device copies of the outputs are outdated now.
        kernel.writes().for_each(|segment| self.memory.written(segment));
        match *kernel {
            Kernel::Decode { ledger, .. } | Kernel::Materialise { ledger, .. } => {
                self.scatter.measure_ledger(ledger, pool.integers(ledger));
            }
            _ => kernel.writes().for_each(|segment| self.scatter.written(segment)),
        }
        Ok(Some(result))
    }

    /// Polls the pending kernel.
    fn poll_pending(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, GpuError> {
        let Self { commands, memory, .. } = self;
        let result = match self.pending {
            None => return Ok(None),
            Some(Pending::Host(kernel @ Kernel::Release { .. })) => return self.start(&kernel, pool),
            Some(Pending::Host(kernel)) => return self.run_on_host(&kernel, pool),
            Some(Pending::Scan) => {
                let Some(scan) = &self.scan else { return Ok(None) };
                let result =
                    |first: Option<u32>| first.map_or(KernelResult::Finite, |index| KernelResult::NonFinite { index });
                scan.poll(commands)?.map(result)
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
        if result.is_some() {
            self.pending = None;
        }
        Ok(result)
    }
}

/// Fails if a segment does not fit into `buffer` from byte `start` on.
fn check_range(buffer: &wgpu::Buffer, start: u64, segment: Segment) -> Result<(), GpuError> {
    let (expected, got) = (buffer.size(), start.saturating_add(u64::from(segment.len)));
    if got <= expected { Ok(()) } else { Err(GpuError::Limit { limit: "the buffer's size", expected, got }) }
}

impl Executor for Gpu {
    fn begin(&mut self, kernel: &Kernel, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        debug_assert!(self.pending.is_none());
        kernel.make_room(pool);
        let result = self.start(kernel, pool)?;
        // A lost device ignores commands, and its results would be zeros.
        self.commands.check()?;
        Ok(result)
    }

    fn poll(&mut self, pool: &mut Pool) -> Result<Option<KernelResult>, ExecutorError> {
        Ok(self.poll_pending(pool)?)
    }

    fn written(&mut self, segment: Segment) {
        self.memory.written(segment);
        self.scatter.written(segment);
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn fetch(&mut self, segment: Segment, pool: &mut Pool) -> Result<bool, ExecutorError> {
        let fetched = self.memory.fetch(&mut self.commands, segment, pool)?;
        self.commands.check()?;
        Ok(fetched)
    }
}
