//! Where a node's time goes: [`Steps`] of the application, and the [`Stopwatch`] of its engine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gradwire_core::kernel::Kernel;
use gradwire_core::telemetry::{Meter, Stage, Times};

/// The steps of a node's application. The application's thread marks them, also those within a local period, of which
/// the engine does not hear. Clones share the steps.
#[derive(Clone, Debug)]
pub(crate) struct Steps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    meter: Mutex<Meter>,
}

impl Default for Steps {
    fn default() -> Self {
        Self(Arc::new(Shared { origin: Instant::now(), meter: Mutex::new(Meter::new(0)) }))
    }
}

impl Steps {
    /// Marks a change of what the application does, at the present in nanoseconds.
    pub(crate) fn mark(&self, change: impl FnOnce(&mut Meter, u64)) {
        // A meter is whole after each of its calls.
        let mut meter = self.0.meter.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut meter, nanos(self.0.origin.elapsed()));
    }

    /// The stage, the times and the examples up to now.
    fn read(&self) -> (Stage, Times, u64) {
        let mut read = Default::default();
        self.mark(|meter, now| read = (meter.stage(), meter.times(now), meter.examples()));
        read
    }
}

/// Measures how long kernels run, beside the steps of the application.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    steps: Steps,
    /// The times of kernels. The other fields are 0.
    kernels: Times,
    /// The kernel that runs, and its start.
    kernel: Option<(KernelClass, Instant)>,
}

/// The counter of [`Times`] that a kernel's time goes to.
#[derive(Copy, Clone, Debug)]
enum KernelClass {
    Encode,
    Decode,
    Apply,
}

impl KernelClass {
    fn of(kernel: &Kernel) -> Self {
        match kernel {
            Kernel::Encode { .. }
            | Kernel::Merge { .. }
            | Kernel::Mask { .. }
            | Kernel::Clip { .. }
            | Kernel::Scale { .. }
            | Kernel::Norm { .. } => Self::Encode,
            Kernel::Decode { .. }
            | Kernel::Expand { .. }
            | Kernel::Scatter { .. }
            | Kernel::ScatterSent { .. }
            | Kernel::Scan { .. } => Self::Decode,
            _ => Self::Apply,
        }
    }
}

impl Stopwatch {
    pub(crate) fn new(steps: Steps) -> Self {
        Self { steps, kernels: Times::default(), kernel: None }
    }

    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    pub(crate) fn kernel_begins(&mut self, kernel: &Kernel) {
        self.kernel = Some((KernelClass::of(kernel), Instant::now()));
    }

    pub(crate) fn kernel_ends(&mut self) {
        let Some((class, since)) = self.kernel.take() else { return };
        let took = nanos(since.elapsed());
        match class {
            KernelClass::Encode => self.kernels.encode += took,
            KernelClass::Decode => self.kernels.decode += took,
            KernelClass::Apply => self.kernels.apply += took,
        }
    }

    /// The stage, the times up to now, and the examples of the application. The time of transmissions is 0.
    pub(crate) fn read(&self) -> (Stage, Times, u64) {
        let (stage, steps, examples) = self.steps.read();
        let Times { encode, decode, apply, .. } = self.kernels;
        (stage, Times { encode, decode, apply, ..steps }, examples)
    }
}

pub(crate) fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}
