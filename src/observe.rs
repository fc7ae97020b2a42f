//! What an engine notes of itself for monitors: where its time goes, and how it is, ten times a second.

use std::time::{Duration, Instant as Time};

use gradwire_core::kernel::Kernel;
use gradwire_core::telemetry::{Progress, Report, Times};
use gradwire_core::{Instant, OpId, Status};

use crate::monitor::Board;

/// How often a node says how it is.
const PERIOD: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) board: Board,
    host: String,
    times: Times,
    progress: Progress,
    /// When the application's step began, or its last one ended.
    turned: Time,
    /// The kernel under way, and since when.
    kernel: Option<(Part, Time)>,
    reported: Option<Time>,
    /// What is being sent, and since when there is anything.
    sending: Vec<OpId>,
    sends: Time,
}

/// Where a kernel's time counts.
#[derive(Copy, Clone, Debug)]
enum Part {
    Encode,
    Decode,
    Apply,
}

impl Observer {
    pub(crate) fn new(board: Board, host: &str) -> Self {
        Self {
            board,
            host: host.to_string(),
            times: Times::default(),
            progress: Progress::default(),
            turned: Time::now(),
            kernel: None,
            reported: None,
            sending: Vec::new(),
            sends: Time::now(),
        }
    }

    /// The application hands over its contribution.
    pub(crate) fn begins(&mut self, examples: u32) {
        self.times.compute += self.turn();
        self.progress.examples += u64::from(examples);
    }

    /// The application goes on.
    pub(crate) fn ends(&mut self) {
        self.times.wait += self.turn();
        self.times.steps += 1;
    }

    fn turn(&mut self) -> u64 {
        let now = Time::now();
        let took = now.duration_since(std::mem::replace(&mut self.turned, now));
        took.as_nanos() as u64
    }

    pub(crate) fn kernel_begins(&mut self, kernel: &Kernel) {
        let part = match kernel {
            Kernel::Encode { .. } | Kernel::Merge { .. } | Kernel::Mask { .. } | Kernel::Clip { .. } => Part::Encode,
            Kernel::Decode { .. } | Kernel::Expand { .. } | Kernel::Scan { .. } => Part::Decode,
            _ => Part::Apply,
        };
        self.kernel = Some((part, Time::now()));
    }

    pub(crate) fn kernel_ends(&mut self) {
        let Some((part, since)) = self.kernel.take() else { return };
        let took = since.elapsed().as_nanos() as u64;
        match part {
            Part::Encode => self.times.encode += took,
            Part::Decode => self.times.decode += took,
            Part::Apply => self.times.apply += took,
        }
    }

    /// A transmission begins.
    pub(crate) fn sends(&mut self, op: OpId) {
        if self.sending.is_empty() {
            self.sends = Time::now();
        }
        self.sending.push(op);
    }

    /// An operation has ended, a transmission perhaps.
    pub(crate) fn ended(&mut self, op: OpId) {
        let Some(at) = self.sending.iter().position(|sending| *sending == op) else { return };
        self.sending.swap_remove(at);
        if self.sending.is_empty() {
            self.times.wire += self.sends.elapsed().as_nanos() as u64;
        }
    }

    pub(crate) fn progress(&mut self, loss: f32, accuracy: f32) {
        (self.progress.loss, self.progress.accuracy) = (loss, accuracy);
    }

    /// Is it time to say how this node is?
    pub(crate) fn is_due(&self) -> bool {
        self.reported.is_none_or(|reported| reported.elapsed() >= PERIOD)
    }

    /// When it will be.
    pub(crate) fn due_in(&self) -> Duration {
        self.reported.map_or(Duration::ZERO, |reported| PERIOD.saturating_sub(reported.elapsed()))
    }

    pub(crate) fn report(&mut self, at: Instant, status: Status) {
        self.reported = Some(Time::now());
        let (host, times, progress) = (self.host.clone(), self.times, self.progress);
        self.board.report(Report { at, host, status, times, progress });
    }
}
