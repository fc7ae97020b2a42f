//! Waits of calls: how long each kind may last ([`Waits`]), one wait that is under way ([`Wait`]), and the token that
//! cancels waits from another thread ([`Canceller`]).
//!
//! A wait counts the time in which it could have ended. Time in which the peer that it waits for is in a silence that
//! it has announced ([`Session::expect_silence`](crate::Session::expect_silence)) does not count.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::mailbox::Mailbox;

/// The longest waits of a node, by kind.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Waits {
    /// The limit of each kind that has no limit of its own.
    pub(crate) all: Duration,
    pub(crate) join: Option<Duration>,
    pub(crate) step: Option<Duration>,
    pub(crate) leave: Option<Duration>,
}

impl Waits {
    pub(crate) fn limit(&self, kind: WaitKind) -> Duration {
        let own = match kind {
            WaitKind::Join => self.join,
            WaitKind::Step => self.step,
            WaitKind::Leave => self.leave,
        };
        own.unwrap_or(self.all)
    }

    /// After so long, each node tells the nodes that wait for it which peer it waits for. So the error of a wait that
    /// reaches its limit names the last node in the chain.
    pub(crate) fn explained(&self) -> Duration {
        self.limit(WaitKind::Step).min(self.limit(WaitKind::Leave)) / 4
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self { all: Duration::from_secs(60), join: None, step: None, leave: None }
    }
}

/// The purpose of a wait.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// To take part: nothing is lost if it ends early.
    Join,
    /// For the result of a step, or for an answer of the engine.
    Step,
    /// For the end of this node's part.
    Leave,
}

/// A wait that is under way.
#[derive(Debug)]
pub(crate) struct Wait {
    /// Completes the sentence "waited … to …".
    pub(crate) purpose: &'static str,
    kind: WaitKind,
    limit: Duration,
    begun: Instant,
    /// Up to when `counted` counts.
    seen: Instant,
    /// The time that counts towards the limit.
    counted: Duration,
    /// Until when time does not count, as of the last look.
    excused: Option<Instant>,
}

/// Whether a wait goes on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It goes on for at most this time, and is then to be asked again.
    Lasts(Duration),
    /// The limit is reached.
    Over,
    /// The wait was cancelled.
    Cancelled,
}

impl Wait {
    pub(crate) fn new(purpose: &'static str, kind: WaitKind, limit: Duration) -> Self {
        let now = Instant::now();
        Self { purpose, kind, limit, begun: now, seen: now, counted: Duration::ZERO, excused: None }
    }

    /// How long the wait has lasted, announced silences included.
    pub(crate) fn lasted(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Counts the time since the last call. `excused`: for how much longer the awaited peer is silent as announced.
    pub(crate) fn patience(&mut self, excused: Option<Duration>, canceller: &Canceller) -> Patience {
        let now = Instant::now();
        let cancelled_in = canceller.due_in(self.kind, now);
        if cancelled_in == Some(Duration::ZERO) {
            return Patience::Cancelled;
        }
        let before = std::mem::replace(&mut self.seen, now);
        let from = self.excused.map_or(before, |until| until.clamp(before, now));
        self.counted += now.saturating_duration_since(from);
        self.excused = excused.map(|rest| now + rest);
        let rest = self.limit.saturating_sub(self.counted);
        if rest.is_zero() {
            return Patience::Over;
        }
        // During an announced silence the limit does not come closer: look again when the silence is over.
        let lasts = excused.unwrap_or(rest);
        Patience::Lasts(cancelled_in.map_or(lasts, |cancelled| cancelled.min(lasts)))
    }
}

/// Longer than any run.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Cancels the waits of sessions and servers, from any thread, for instance from a signal handler's.
///
/// Clones are handles of one canceller. Pass it to [`Builder::canceller`](crate::Builder::canceller). A wait that is
/// cancelled fails with [`Error::Cancelled`](crate::Error::Cancelled), and the session has then ended.
///
/// ```
/// use std::time::Duration;
///
/// use gradwire::{Canceller, Cluster, Error, Layout, Mem, Recipe, Session};
///
/// let canceller = Canceller::new();
/// let cluster = Cluster { workers: 2, servers: 0 };
/// let builder = Session::builder(Layout::flat(1), Recipe::sync(), cluster).canceller(&canceller);
/// // The other worker never comes.
/// let (first, _second) = { let mut all = Mem::cluster(2); (all.remove(0), all.remove(0)) };
/// let waits = std::thread::spawn(move || builder.join(first, &mut [0.0]).map(drop));
/// canceller.cancel();
/// assert!(matches!(waits.join().unwrap(), Err(Error::Cancelled(_))));
/// ```
#[derive(Clone, Default)]
pub struct Canceller(Arc<Mutex<Cancelled>>);

#[derive(Default)]
struct Cancelled {
    /// When waits to join end, and when all waits end.
    at: Option<(Instant, Instant)>,
    /// The calls that may be waiting: mailboxes of sessions, and the wakers of their transports.
    calls: Vec<(Weak<Mailbox>, Waker)>,
}

impl Canceller {
    /// A canceller that has cancelled nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends all waits now, and every later one at its start.
    pub fn cancel(&self) {
        self.cancel_after(Duration::ZERO);
    }

    /// Ends waits to join now, and all other waits after `grace`: a step that is under way can be done until then, and
    /// the worker can leave. A second call can only make the grace shorter. A grace is capped at a century.
    pub fn cancel_after(&self, grace: Duration) {
        let now = Instant::now();
        let mut cancelled = self.lock();
        // A moment so far away that the clock cannot name it would make the sum panic.
        let all = now + grace.min(CENTURY);
        cancelled.at = Some(cancelled.at.map_or((now, all), |(join, before)| (join, before.min(all))));
        cancelled.calls.retain(|(mailbox, waker)| {
            let alive = mailbox.upgrade();
            if let Some(mailbox) = &alive {
                mailbox.ring();
                waker.wake_by_ref();
            }
            alive.is_some()
        });
    }

    /// True after a call to [`cancel`](Self::cancel) or [`cancel_after`](Self::cancel_after).
    pub fn is_cancelled(&self) -> bool {
        self.lock().at.is_some()
    }

    /// Adds a call that a cancellation wakes.
    pub(crate) fn watch(&self, mailbox: &Arc<Mailbox>, waker: Waker) {
        let mut cancelled = self.lock();
        cancelled.calls.retain(|(mailbox, _)| mailbox.strong_count() > 0);
        cancelled.calls.push((Arc::downgrade(mailbox), waker));
    }

    /// How long a wait of this kind may still last. `None`: it is not cancelled.
    fn due_in(&self, kind: WaitKind, now: Instant) -> Option<Duration> {
        let (join, all) = self.lock().at?;
        let at = if kind == WaitKind::Join { join } else { all };
        Some(at.saturating_duration_since(now))
    }

    fn lock(&self) -> MutexGuard<'_, Cancelled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("cancelled", &self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Nodes report the peers that they wait for in time for the shortest wait that needs it.
    #[test]
    fn every_limit_leaves_time_for_explanations() {
        let waits = |step, leave| Waits { step, leave, ..Waits::default() };
        let second = Duration::from_secs(1);
        assert_eq!(waits(None, None).explained(), 15 * second);
        assert_eq!(waits(Some(4 * second), None).explained(), second);
        assert_eq!(waits(None, Some(4 * second)).explained(), second);
        assert_eq!(waits(Some(LONG), Some(LONG)).explained(), LONG / 4);
    }

    #[test]
    fn an_announced_silence_does_not_count() {
        let canceller = Canceller::new();
        let mut wait = Wait::new("test", WaitKind::Step, Duration::from_secs(2));
        assert_eq!(wait.patience(Some(LONG), &canceller), Patience::Lasts(LONG));
        std::thread::sleep(Duration::from_millis(100));
        // The silence has ended early: nothing has counted.
        assert!(matches!(wait.patience(None, &canceller), Patience::Lasts(rest) if rest > Duration::from_millis(1950)));
        let mut wait = Wait::new("test", WaitKind::Step, Duration::from_millis(50));
        assert!(matches!(wait.patience(Some(Duration::from_millis(20)), &canceller), Patience::Lasts(_)));
        // The silence ends in time: only the time after it counts.
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(wait.patience(None, &canceller), Patience::Over);
    }

    #[test]
    fn a_grace_is_for_waits_other_than_to_join() {
        let canceller = Canceller::new();
        canceller.cancel_after(LONG);
        let patience = |kind| Wait::new("test", kind, LONG * 2).patience(None, &canceller);
        assert_eq!(patience(WaitKind::Join), Patience::Cancelled);
        assert!(matches!(patience(WaitKind::Leave), Patience::Lasts(rest) if rest <= LONG));
        canceller.cancel();
        canceller.cancel_after(LONG);
        assert_eq!(patience(WaitKind::Step), Patience::Cancelled);
    }
}
