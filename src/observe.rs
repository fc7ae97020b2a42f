//! Publishes a node's reports and notes to a board, with the time of its transmissions.
//!
//! A node without a board has an observer as well, which does nothing and reads no clock.

use std::time::{Duration, Instant};

use gradwire_core::telemetry::{Note, Progress, Report, Stage, Times};
use gradwire_core::{Event, Incarnation, Instant as Moment, OpId, PeerId, RunId, Signal, Status};

use crate::monitor::Board;
use crate::stopwatch::nanos;

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
    progress: Progress,
    reported: Option<Instant>,
    /// The operations of the transmissions under way.
    sending: Vec<OpId>,
    /// When `sending` last became non-empty, and the time of transmissions before that.
    sending_since: Instant,
    wire: u64,
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
            progress: Progress::default(),
            reported: None,
            sending: Vec::new(),
            sending_since: now,
            wire: 0,
        }))
    }

    pub(crate) fn is_active(&self) -> bool {
        self.0.is_some()
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
            active.wire += nanos(active.sending_since.elapsed());
        }
    }

    pub(crate) fn signal(&mut self, signal: &Signal) {
        let Some(active) = &mut self.0 else { return };
        if let Some(note) = Note::of_signal(active.board.now(), active.me, signal) {
            active.board.note(note);
        }
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

    /// Publishes a report, with the examples of the application so far. `at` is the machine's time, in which the status
    /// was taken.
    pub(crate) fn report(&mut self, at: Moment, stage: Stage, examples: u64, status: Status) {
        let Some(active) = &mut self.0 else { return };
        active.reported = Some(Instant::now());
        let sending = if active.sending.is_empty() { 0 } else { nanos(active.sending_since.elapsed()) };
        let times = Times { wire: active.wire + sending, ..status.times };
        let progress = Progress { examples, ..active.progress };
        let (host, run, incarnation) = (active.host.clone(), active.run, active.incarnation);
        active.board.report(Report { at, host, run, incarnation, stage, status, times, progress });
    }
}
