//! [`Stopwatch`]: the times in the status of a node.

use std::time::{Duration, Instant};

use gradwire_core::kernel::Kernel;
use gradwire_core::telemetry::Times;

/// Measures how long the application computes, how long it waits in steps, and how long kernels run.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    times: Times,
    /// When the application last changed between computing and waiting.
    turned: Instant,
    /// The application waits in a call.
    waits: bool,
    /// The kernel that runs, and its start.
    kernel: Option<(KernelClass, Instant)>,
}

/// The counter of [`Times`] that a kernel's time goes to.
#[derive(Copy, Clone, Debug)]
pub(crate) enum KernelClass {
    Encode,
    Decode,
    Apply,
}

impl KernelClass {
    pub(crate) fn of(kernel: &Kernel) -> Self {
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
    pub(crate) fn new() -> Self {
        Self { times: Times::default(), turned: Instant::now(), waits: false, kernel: None }
    }

    /// The application has called for a synchronisation, and waits.
    pub(crate) fn wait_begins(&mut self) {
        if !self.waits {
            self.times.compute += self.turn();
            self.waits = true;
        }
    }

    /// The application goes on: it has joined, or its synchronisation is done.
    pub(crate) fn wait_ends(&mut self) {
        let took = self.turn();
        if self.waits {
            self.times.wait += took;
            self.times.steps += 1;
            self.waits = false;
        }
    }

    pub(crate) fn kernel_begins(&mut self, kernel: &Kernel) {
        self.kernel = Some((KernelClass::of(kernel), Instant::now()));
    }

    pub(crate) fn kernel_ends(&mut self) {
        let Some((class, since)) = self.kernel.take() else { return };
        let took = nanos(since.elapsed());
        match class {
            KernelClass::Encode => self.times.encode += took,
            KernelClass::Decode => self.times.decode += took,
            KernelClass::Apply => self.times.apply += took,
        }
    }

    /// The times so far, with the present computation or wait.
    pub(crate) fn times(&self) -> Times {
        let mut times = self.times;
        let under_way = nanos(self.turned.elapsed());
        if self.waits {
            times.wait += under_way;
        } else {
            times.compute += under_way;
        }
        times
    }

    /// Nanoseconds since the last turn; a new one begins.
    fn turn(&mut self) -> u64 {
        let now = Instant::now();
        nanos(now.duration_since(std::mem::replace(&mut self.turned, now)))
    }
}

fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}
