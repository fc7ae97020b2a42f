//! Where the application's thread and the one that drives the machine meet. Large vectors change hands by pointer;
//! the lock is held for a few instructions.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::status::Waiting;
use gradwire_core::{Event, Pool, Segment, Status, Storage};

use crate::error::{Awaited, Error, Overdue};

/// Events kept for an application that does not look.
const EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(crate) struct Desk {
    papers: Mutex<Papers>,
    changed: Condvar,
    /// The machine's origin of time.
    pub(crate) origin: Clock,
}

#[derive(Debug, Default)]
pub(crate) struct Papers {
    pub(crate) command: Option<Command>,
    pub(crate) answer: Option<Answer>,
    /// The learning rate, if it has changed, as a multiple of that at the start.
    pub(crate) rate: Option<f32>,
    /// For how long peers should not miss this node.
    pub(crate) busy: Option<Duration>,
    /// Loss and accuracy, as the application last said.
    pub(crate) progress: Option<(f32, f32)>,
    pub(crate) status_wanted: bool,
    pub(crate) status: Option<Status>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) failure: Option<Error>,
    pub(crate) stop: bool,
    /// The machine's last status, once it is done.
    pub(crate) last: Option<Status>,
}

/// Gives a vector to an executor, or takes one: told where it is.
pub(crate) type Give = dyn FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send;

pub(crate) struct Hand(pub(crate) Box<Give>);

impl std::fmt::Debug for Hand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hand")
    }
}

/// What the application wants.
#[derive(Debug)]
pub(crate) enum Command {
    /// To contribute what is in `filled`.
    Step {
        weight: u32,
        filled: Arc<Storage>,
    },
    /// The same, where the contribution is given and the parameters are taken by who knows the executor.
    Hand {
        weight: u32,
        give: Hand,
        take: Hand,
    },
    Leave {
        stay: bool,
        keep: bool,
    },
}

/// What it gets.
#[derive(Debug)]
pub(crate) enum Answer {
    Joined {
        /// The machine's.
        clock: u64,
        view: Arc<Storage>,
        spare: Arc<Storage>,
        /// It goes on from a checkpoint, but the run has gone on since.
        outdated: bool,
    },
    /// `spare`: a buffer for the next contribution.
    Ready { clock: u64, view: Arc<Storage>, changed: bool, spare: Option<Arc<Storage>> },
    /// `kept`: what a suspended worker goes on from.
    Left { view: Arc<Storage>, kept: Vec<Vec<u32>> },
}

impl Desk {
    pub(crate) fn new() -> Self {
        let papers = Papers { events: VecDeque::with_capacity(EVENTS_MAX), ..Papers::default() };
        Self { papers: Mutex::new(papers), changed: Condvar::new(), origin: Clock::now() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Papers> {
        // A panicking driver leaves a failure behind; what it had written is whole.
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the papers and wakes whoever waits for a change.
    pub(crate) fn put(&self, change: impl FnOnce(&mut Papers)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `found` finds something, or a failure, or the deadline.
    pub(crate) fn wait<R>(
        &self,
        what: &'static str,
        deadline: Duration,
        mut found: impl FnMut(&mut Papers) -> Option<R>,
    ) -> Result<R, Error> {
        let begun = Clock::now();
        let mut papers = self.lock();
        loop {
            if let Some(result) = found(&mut papers) {
                return Ok(result);
            }
            if let Some(failure) = papers.failure.take() {
                return Err(failure);
            }
            if papers.last.is_some() {
                return Err(Error::Ended);
            }
            let waited = begun.elapsed();
            let Some(rest) = deadline.checked_sub(waited).filter(|rest| !rest.is_zero()) else {
                return Err(self.overdue(&papers, what, waited));
            };
            papers = self.changed.wait_timeout(papers, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn overdue(&self, papers: &Papers, what: &'static str, waited: Duration) -> Error {
        let on = papers.waiting.map(|waiting| Awaited {
            peer: waiting.on,
            at: waiting.at.0,
            clock: waiting.clock.0,
            since: self.origin.elapsed().saturating_sub(Duration::from_nanos(waiting.since.as_nanos())),
            told_by: waiting.reported_by,
        });
        Error::Deadline(Overdue { what, waited, on })
    }

    pub(crate) fn push_event(&self, event: Event) {
        let mut papers = self.lock();
        if papers.events.len() == EVENTS_MAX {
            papers.events.pop_front();
        }
        papers.events.push_back(event);
    }
}
