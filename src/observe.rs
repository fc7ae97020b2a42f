//! Measures where a node's time goes, and publishes reports and notes to a board.
//!
//! A node without a board has an observer as well, which does nothing and reads no clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gradwire_core::kernel::Kernel;
use gradwire_core::telemetry::{Meter, Note, Progress, Report, Stage, Times};
use gradwire_core::{Event, Incarnation, Instant as Moment, OpId, PeerId, RunId, Signal, Status};

use crate::monitor::Board;

/// Time between two reports of a node.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Observer(Option<Active>);

#[derive(Debug)]
struct Active {
    board: Board,
    host: String,
    me: PeerId,
    incarnation: Incarnation,
    run: Option<RunId>,
    steps: Steps,
    /// The times of kernels and transmissions. The other fields are 0.
    times: Times,
    progress: Progress,
    /// The kernel that runs, and its start.
    kernel: Option<(KernelClass, Instant)>,
    reported: Option<Instant>,
    /// The operations of the transmissions under way.
    sending: Vec<OpId>,
    /// When `sending` last became non-empty.
    sending_since: Instant,
}

/// The steps of a node's application. The application's thread marks them, also those within a local period, of which
/// the engine does not hear. A node without a board marks nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    origin: Instant,
    meter: Mutex<Meter>,
}

impl Steps {
    fn active() -> Self {
        Self(Some(Arc::new(Shared { origin: Instant::now(), meter: Mutex::new(Meter::new(0)) })))
    }

    /// Marks a change of what the application does, at the present in nanoseconds.
    pub(crate) fn mark(&self, change: impl FnOnce(&mut Meter, u64)) {
        let Some(shared) = &self.0 else { return };
        // A meter is whole after each of its calls.
        let mut meter = shared.meter.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut meter, nanos(shared.origin.elapsed()));
    }

    /// The stage, the times and the examples up to now.
    fn read(&self) -> (Stage, Times, u64) {
        let mut read = Default::default();
        self.mark(|meter, now| read = (meter.stage(), meter.times(now), meter.examples()));
        read
    }
}

/// The counter of [`Times`] that a kernel's time goes to.
#[derive(Copy, Clone, Debug)]
enum KernelClass {
    Encode,
    Decode,
    Apply,
}

impl Observer {
    /// For a node without a board.
    pub(crate) fn inactive() -> Self {
        Self(None)
    }

    /// `host`: the display name of the machine.
    pub(crate) fn new(board: Board, host: &str, me: PeerId, incarnation: Incarnation) -> Self {
        let now = Instant::now();
        Self(Some(Active {
            board,
            host: host.to_string(),
            me,
            incarnation,
            run: None,
            steps: Steps::active(),
            times: Times::default(),
            progress: Progress::default(),
            kernel: None,
            reported: None,
            sending: Vec::new(),
            sending_since: now,
        }))
    }

    pub(crate) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// The steps of the node's application, for the thread that takes them.
    pub(crate) fn steps(&self) -> Steps {
        self.0.as_ref().map(|active| active.steps.clone()).unwrap_or_default()
    }

    pub(crate) fn kernel_begins(&mut self, kernel: &Kernel) {
        let Some(active) = &mut self.0 else { return };
        let class = match kernel {
            Kernel::Encode { .. }
            | Kernel::Merge { .. }
            | Kernel::Mask { .. }
            | Kernel::Clip { .. }
            | Kernel::Scale { .. }
            | Kernel::Norm { .. } => KernelClass::Encode,
            Kernel::Decode { .. }
            | Kernel::Expand { .. }
            | Kernel::Scatter { .. }
            | Kernel::ScatterSent { .. }
            | Kernel::Scan { .. } => KernelClass::Decode,
            _ => KernelClass::Apply,
        };
        active.kernel = Some((class, Instant::now()));
    }

    pub(crate) fn kernel_ends(&mut self) {
        let Some(active) = &mut self.0 else { return };
        let Some((class, since)) = active.kernel.take() else { return };
        let took = nanos(since.elapsed());
        match class {
            KernelClass::Encode => active.times.encode += took,
            KernelClass::Decode => active.times.decode += took,
            KernelClass::Apply => active.times.apply += took,
        }
    }

    pub(crate) fn transmission_begins(&mut self, op: OpId) {
        let Some(active) = &mut self.0 else { return };
        if active.sending.is_empty() {
            active.sending_since = Instant::now();
        }
        active.sending.push(op);
    }

    /// An operation of the transport has ended. It is ignored if it received.
    pub(crate) fn operation_ends(&mut self, op: OpId) {
        let Some(active) = &mut self.0 else { return };
        let Some(at) = active.sending.iter().position(|sending| *sending == op) else { return };
        // The order does not matter: only whether anything is being sent.
        active.sending.swap_remove(at);
        if active.sending.is_empty() {
            active.times.wire += nanos(active.sending_since.elapsed());
        }
    }

    pub(crate) fn signal(&mut self, signal: &Signal) {
        let Some(active) = &mut self.0 else { return };
        if let Some(note) = Note::of_signal(active.board.now(), active.me, signal) {
            active.board.note(note);
        }
    }

    /// The node's part is over.
    pub(crate) fn ends(&mut self, stage: Stage) {
        let Some(active) = &mut self.0 else { return };
        active.steps.mark(|meter, now| meter.ends(now, stage));
    }

    pub(crate) fn event(&self, event: &Event) {
        let Some(active) = &self.0 else { return };
        active.board.note(Note::of_event(active.board.now(), active.me, event));
    }

    /// The node belongs to this run for good.
    pub(crate) fn set_run(&mut self, run: RunId) {
        let Some(active) = &mut self.0 else { return };
        active.run = Some(run);
        active.board.set_run(run);
    }

    /// Training loss and accuracy, as the application reports them.
    pub(crate) fn set_progress(&mut self, loss: f32, accuracy: f32) {
        let Some(active) = &mut self.0 else { return };
        (active.progress.loss, active.progress.accuracy) = (loss, accuracy);
    }

    /// Time until the next report is due; `None` without a board.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        let active = self.0.as_ref()?;
        Some(active.reported.map_or(Duration::ZERO, |reported| PERIOD.saturating_sub(reported.elapsed())))
    }

    /// Publishes a report. `at` is the machine's time, in which the status was taken.
    pub(crate) fn report(&mut self, at: Moment, status: Status) {
        let Some(active) = &mut self.0 else { return };
        active.reported = Some(Instant::now());
        let (stage, steps, examples) = active.steps.read();
        let Times { encode, decode, apply, wire, .. } = active.times;
        let sending = if active.sending.is_empty() { 0 } else { nanos(active.sending_since.elapsed()) };
        let times = Times { encode, decode, apply, wire: wire + sending, ..steps };
        let progress = Progress { examples, ..active.progress };
        let (host, run, incarnation) = (active.host.clone(), active.run, active.incarnation);
        active.board.report(Report { at, host, run, incarnation, stage, status, times, progress });
    }
}

fn nanos(span: Duration) -> u64 {
    span.as_nanos() as u64
}
