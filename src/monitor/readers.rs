//! [`Board::farewell`]: the readers of a board get its last reports before the process can end.
//!
//! A reader is a monitor, or the thread that forwards the board's reports to another process. It notes how far it has
//! got. While a node says farewell, readers do not wait for their next turn.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::board::Board;

/// How long a node that has finished waits for the last reports of other processes, and then for the readers.
const OTHERS_MAX: Duration = Duration::from_millis(500);
const READERS_MAX: Duration = Duration::from_millis(250);
/// Time between two looks at the last reports of other processes.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) struct Readers {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the last report or note that each reader has sent. Bounded by the connections of the board.
    sent: BTreeMap<u64, u64>,
    /// The readers so far.
    count: u64,
    /// Nodes that say farewell now.
    farewells: u32,
}

/// A reader of a board, as long as this value exists.
pub(super) struct Reader {
    readers: Arc<Readers>,
    id: u64,
}

impl Readers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can leave this state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new reader, which has sent nothing.
    pub(super) fn enter(self: &Arc<Self>) -> Reader {
        let mut state = self.lock();
        state.count += 1;
        let id = state.count;
        state.sent.insert(id, 0);
        Reader { readers: Arc::clone(self), id }
    }

    /// Waits for this long, or until a node says farewell.
    pub(super) fn sleep(&self, span: Duration) {
        let until = Instant::now() + span;
        let mut state = self.lock();
        while state.farewells == 0 && Instant::now() < until {
            let rest = until.saturating_duration_since(Instant::now());
            (state, _) = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Reader {
    /// The reader has sent everything up to this number.
    pub(super) fn has_sent(&self, number: u64) {
        let mut state = self.readers.lock();
        if state.sent.insert(self.id, number) != Some(number) {
            self.readers.changed.notify_all();
        }
    }

    /// Whether a node says farewell, and this reader has not sent this number.
    pub(super) fn is_awaited(&self, number: u64) -> bool {
        let state = self.readers.lock();
        state.farewells > 0 && state.sent.get(&self.id).is_some_and(|sent| *sent < number)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.lock().sent.remove(&self.id);
        self.readers.changed.notify_all();
    }
}

impl Board {
    /// Waits until monitors, and the board that the reports of this process go to, have the last reports: 0.25 s at
    /// most. If the run has ended, the last reports of other processes are waited for as well, for 0.5 s at most. Does
    /// not wait without readers.
    ///
    /// A node calls it when its part is over: the process may end next.
    pub(crate) fn farewell(&self) {
        let (readers, begun) = (self.readers(), Instant::now());
        if readers.lock().sent.is_empty() {
            return;
        }
        while self.awaits_reports() && begun.elapsed() < OTHERS_MAX {
            std::thread::sleep(LOOK);
        }
        let (number, until) = (self.number(), Instant::now() + READERS_MAX);
        let mut state = readers.lock();
        state.farewells += 1;
        readers.changed.notify_all();
        while state.sent.values().any(|sent| *sent < number) && Instant::now() < until {
            let rest = until.saturating_duration_since(Instant::now());
            (state, _) = readers.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner);
        }
        state.farewells -= 1;
    }
}
