//! [`Board::flush`]: the outputs of a board write the last values before the process ends.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;

/// How long [`Board::flush`] waits for files.
const FILES_MAX: Duration = Duration::from_secs(5);

/// How long [`Board::flush`] waits for boards that publish to this one.
const SOURCES_MAX: Duration = Duration::from_secs(1);

/// Time between two looks at the reports of other processes.
const LOOK: Duration = Duration::from_millis(5);

/// The outputs of a board that have to end, and the last scrape of its metrics.
#[derive(Default)]
pub(super) struct Ending(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// The outputs write the last values, and end.
    ends: bool,
    /// Outputs that have not ended.
    outputs: usize,
    /// Boards of other processes can publish to this one.
    gathers: bool,
    /// Those that do.
    sources: usize,
    /// When the metrics were last scraped, and the number of the board's last report then.
    scraped: Option<(Instant, u64)>,
}

/// An output that [`Board::flush`] waits for, until this value is dropped.
pub(super) struct Output(Arc<(Mutex<State>, Condvar)>);

impl Drop for Output {
    fn drop(&mut self) {
        lock(&self.0).outputs -= 1;
        self.0.1.notify_all();
    }
}

/// A board that publishes to this one, until this value is dropped.
pub(super) struct Source(Arc<(Mutex<State>, Condvar)>);

impl Drop for Source {
    fn drop(&mut self) {
        lock(&self.0).sources -= 1;
        self.0.1.notify_all();
    }
}

fn lock(shared: &(Mutex<State>, Condvar)) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ending {
    /// Boards of other processes can publish to this one from now on.
    pub(super) fn gathers(&self) {
        lock(&self.0).gathers = true;
    }

    /// Waits for this long, or until the outputs have to end. Returns true in the latter case.
    pub(super) fn wait(&self, span: Duration) -> bool {
        self.wait_until(Instant::now() + span, |state| state.ends)
    }

    /// A client has been given the metrics, with all reports up to this number.
    pub(super) fn scraped(&self, number: u64, now: Instant) {
        lock(&self.0).scraped = Some((now, number));
        self.0.1.notify_all();
    }

    /// Waits until a condition holds. Returns false if it does not hold at this time.
    fn wait_until(&self, until: Instant, holds: impl Fn(&State) -> bool) -> bool {
        let mut state = lock(&self.0);
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if holds(&state) || rest.is_zero() {
                return holds(&state);
            }
            (state, _) = self.0.1.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Board {
    /// An output that ends by itself after [`Ending::wait`] has returned true.
    pub(super) fn output(&self) -> Output {
        lock(&self.ending().0).outputs += 1;
        Output(Arc::clone(&self.ending().0))
    }

    /// A board of another process publishes to this one.
    pub(super) fn source(&self) -> Source {
        lock(&self.ending().0).sources += 1;
        Source(Arc::clone(&self.ending().0))
    }

    /// Writes the last values of all nodes: call it after the last node of this process has finished, before the process
    /// ends. Boards that publish to this one have 1 s to end before, and nodes
    /// that have not reported yet to report. Event files of TensorBoard and the board that this one
    /// publishes to get the values at once, and are complete. Metrics that have been scraped before stay
    /// until the next scrape, but for `linger` at most; metrics that were never scraped are not waited for.
    ///
    /// Returns false if a file was not written within 5 s, or the metrics were not scraped within `linger`.
    pub fn flush(&self, linger: Duration) -> bool {
        let ending = self.ending();
        // The processes of a run end at the same time. One of them may not have reported anything yet.
        let until = Instant::now() + SOURCES_MAX;
        if lock(&ending.0).gathers {
            while self.lacks_reports() && Instant::now() < until {
                std::thread::sleep(LOOK);
            }
        }
        ending.wait_until(until, |state| state.sources == 0);
        let (begun, last) = (Instant::now(), self.number());
        lock(&ending.0).ends = true;
        ending.0.1.notify_all();
        let written = ending.wait_until(begun + FILES_MAX, |state| state.outputs == 0);
        // The client reads its answer after it was made.
        let is_read = |(at, number): (Instant, u64)| number >= last && at.elapsed() >= READ;
        let scraped = loop {
            let scraped = lock(&ending.0).scraped;
            let Some((at, number)) = scraped else { break true };
            if is_read((at, number)) {
                break true;
            }
            let rest = (begun + linger).saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break number >= last;
            }
            std::thread::sleep(rest.min(READ / 2));
        };
        written && scraped
    }
}

/// The time that a client of the metrics has to read its answer before the process ends.
const READ: Duration = Duration::from_millis(100);
