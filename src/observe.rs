//! Publishes a node's reports and notes to a board, with the time in which messages are under way.
//!
//! A node without a board has an observer as well, which does nothing and reads no clock.

use std::collections::BTreeMap;
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
    /// The transfers under way, with the peer from which a body arrives. `None`: a transmission.
    transfers: Vec<(OpId, Option<PeerId>)>,
    /// When a transfer is under way.
    wire: Spans,
    /// When a body arrives, by the peer that it comes from.
    arriving: BTreeMap<PeerId, Spans>,
}

/// The time in which at least one of some transfers was under way.
#[derive(Debug, Default)]
struct Spans {
    /// Transfers under way, and when the first of them began.
    under_way: u32,
    since: Option<Instant>,
    /// Nanoseconds before that.
    past: u64,
}

impl Spans {
    fn begins(&mut self, now: Instant) {
        self.since.get_or_insert(now);
        self.under_way += 1;
    }

    fn ends(&mut self, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.past = self.total(now);
            self.since = None;
        }
    }

    /// Nanoseconds up to now.
    fn total(&self, now: Instant) -> u64 {
        self.past + self.since.map_or(0, |since| nanos(now.saturating_duration_since(since)))
    }
}

impl Observer {
    /// For a node without a board.
    pub(crate) fn inactive() -> Self {
        Self(None)
    }

    /// `host`: the display name of the machine.
    pub(crate) fn new(board: Board, host: &str, me: PeerId, incarnation: Incarnation) -> Self {
        Self(Some(Active {
            board,
            host: host.to_string(),
            me,
            incarnation,
            run: None,
            progress: Progress::default(),
            reported: None,
            transfers: Vec::new(),
            wire: Spans::default(),
            arriving: BTreeMap::new(),
        }))
    }

    pub(crate) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    /// A message is being sent, or its body arrives from a peer.
    pub(crate) fn transfer_begins(&mut self, op: OpId, from: Option<PeerId>) {
        let Some(active) = &mut self.0 else { return };
        let now = Instant::now();
        active.transfers.push((op, from));
        active.wire.begins(now);
        if let Some(from) = from {
            active.arriving.entry(from).or_default().begins(now);
        }
    }

    /// An operation of the transport has ended.
    pub(crate) fn transfer_ends(&mut self, op: OpId) {
        let Some(active) = &mut self.0 else { return };
        let Some(at) = active.transfers.iter().position(|(transfer, _)| *transfer == op) else { return };
        // The order does not matter: only which are under way.
        let (_, from) = active.transfers.swap_remove(at);
        let now = Instant::now();
        active.wire.ends(now);
        if let Some(spans) = from.and_then(|from| active.arriving.get_mut(&from)) {
            spans.ends(now);
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
    pub(crate) fn report(&mut self, at: Moment, stage: Stage, examples: u64, mut status: Status) {
        let Some(active) = &mut self.0 else { return };
        let now = Instant::now();
        active.reported = Some(now);
        for link in &mut status.links {
            link.arriving_ns = active.arriving.get(&link.peer).map_or(0, |spans| spans.total(now));
        }
        let times = Times { wire: active.wire.total(now), ..status.times };
        let progress = Progress { examples, ..active.progress };
        let (host, run, incarnation) = (active.host.clone(), active.run, active.incarnation);
        active.board.report(Report { at, host, run, incarnation, stage, status, times, progress });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transfers that overlap count once.
    #[test]
    fn spans_are_the_time_of_a_union() {
        let (begun, mut spans) = (Instant::now(), Spans::default());
        let at = |ms: u64| begun + Duration::from_millis(ms);
        spans.begins(at(0));
        spans.begins(at(10));
        spans.ends(at(20));
        assert_eq!(spans.total(at(25)), 25_000_000);
        spans.ends(at(30));
        assert_eq!(spans.total(at(90)), 30_000_000);
        spans.begins(at(100));
        spans.ends(at(105));
        assert_eq!(spans.total(at(200)), 35_000_000);
    }
}
