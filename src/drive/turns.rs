//! [`Turns`]: an engine that two threads drive in turn.
//!
//! A call that finds the engine free drives it until the answer is there, on the application's thread: nobody has to be
//! woken. The engine's own thread drives it at all other times. After an answer it leaves the engine free for a moment,
//! for the next call of an application that computes little.
//!
//! ```text
//! own thread   drives … answer | free for GRACE ……………… | drives …
//! application            call -> answer    call -> answer      computes
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Pump, RunState};
use crate::error::Error;
use crate::mailbox::{Answers, Mailbox};
use crate::waits::{Canceller, Wait};

/// How long an engine is free after a call. Messages of peers wait for so long at most, which have had to wait for the
/// application before. A longer time would delay them more, a shorter one would wake the own thread more often.
const GRACE: Duration = Duration::from_millis(1);

/// An engine with a thread of its own, and whose turn it is to drive it.
pub(crate) struct Turns {
    state: Mutex<State>,
    /// Signalled when the own thread should look at the state again.
    changed: Condvar,
    /// Calls may drive the engine.
    shared: bool,
}

struct State {
    /// `None` while a thread drives it, and after its end.
    engine: Option<Box<dyn Pump>>,
    /// When it became free.
    free_since: Instant,
    /// The own thread is to take it at once.
    hurry: bool,
    /// The own thread sleeps until it is woken: a call drives the engine.
    sleeps: bool,
    /// The engine has ended in a call.
    over: bool,
}

impl Turns {
    /// `shared`: calls may drive the engine. It begins with its own thread.
    pub(crate) fn new(engine: Box<dyn Pump>, shared: bool) -> Self {
        let state = State { engine: Some(engine), free_since: Instant::now(), hurry: true, sleeps: false, over: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), shared }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panics does not hold the lock: it has taken the engine out.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the own thread take the engine at once, if it is free.
    pub(crate) fn hurry(&self) {
        let mut state = self.lock();
        state.hurry = true;
        self.changed.notify_one();
    }

    // The application's side

    /// Drives the engine until `find` returns an answer, if the engine is free. `None`: its own thread drives it.
    pub(crate) fn drive<R>(
        &self,
        mailbox: &Mailbox,
        wait: &mut Wait,
        canceller: &Canceller,
        find: &mut impl FnMut(&mut Answers) -> Option<R>,
    ) -> Option<Result<R, Error>> {
        let mut engine = self.lock().engine.take_if(|_| self.shared)?;
        engine.set_caller_driven(true);
        // As on the engine's own thread, a panic in the machine or in a callback ends the engine and fails the call.
        let drive = || super::drive_until(&mut *engine, mailbox, wait, canceller, find);
        let Ok(result) = catch_unwind(AssertUnwindSafe(drive)) else {
            self.lock().over = true;
            self.changed.notify_one();
            return Some(Err(Error::Ended));
        };
        engine.set_caller_driven(false);
        let mut state = self.lock();
        // A message that has not left yet would wait for the own thread.
        state.hurry = result.is_err() || engine.unsent() > 0;
        (state.engine, state.free_since) = (Some(engine), Instant::now());
        if state.hurry || state.sleeps {
            self.changed.notify_one();
        }
        Some(result)
    }

    // The own thread's side

    /// Drives the engine whenever it is this thread's turn, until its end or until the mailbox says to stop.
    pub(crate) fn run(&self, mailbox: &Mailbox) {
        /// A panic in the machine or a callback fails the application's call at once, instead of at its deadline.
        struct Guard<'a>(&'a Mailbox);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.fail(Error::Ended);
                }
            }
        }
        let _guard = Guard(mailbox);
        while let Some(mut engine) = self.take() {
            let mut answered = mailbox.answered();
            loop {
                if mailbox.is_stopped() {
                    return engine.say_failed(mailbox.take_failure_of_application());
                }
                match engine.pump(None) {
                    Ok(RunState::Running) => {}
                    Ok(RunState::Ended) => return,
                    Err(error) => {
                        engine.say_failed(error.failure(mailbox.me()));
                        return mailbox.fail(error);
                    }
                }
                let before = std::mem::replace(&mut answered, mailbox.answered());
                if self.shared && answered != before && engine.unsent() == 0 {
                    let mut state = self.lock();
                    // A call looks for a free engine after it has left its command.
                    if !mailbox.has_command() {
                        (state.engine, state.free_since, state.hurry) = (Some(engine), Instant::now(), false);
                        break;
                    }
                }
            }
        }
    }

    /// Waits until it is the own thread's turn. `None`: the engine has ended in a call.
    fn take(&self) -> Option<Box<dyn Pump>> {
        let mut state = self.lock();
        loop {
            if state.over {
                return None;
            }
            let rest = GRACE.saturating_sub(state.free_since.elapsed());
            let is_due = state.hurry || rest.is_zero();
            match state.engine.take_if(|_| is_due) {
                Some(engine) => {
                    state.hurry = false;
                    return Some(engine);
                }
                None if state.engine.is_some() => {
                    state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
                }
                None => {
                    state.sleeps = true;
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.sleeps = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::{self, ThreadId};

    use gradwire_core::{Failure, PeerId};

    use super::*;
    use crate::mailbox::{Command, Save, Saved};
    use crate::waits::WaitKind;

    /// Answers requests to save, and notes the threads that pump. Sleeps as a transport does.
    struct Fake {
        mailbox: Arc<Mailbox>,
        pumped_by: Arc<Mutex<Vec<ThreadId>>>,
        /// What the next pump of a call does.
        ends: Ends,
        said: Arc<Mutex<Option<Failure>>>,
        caller_driven: bool,
    }

    #[derive(Copy, Clone, PartialEq)]
    enum Ends {
        Never,
        ByPanic,
        ByError,
    }

    impl Pump for Fake {
        fn pump(&mut self, wait: Option<Duration>) -> Result<RunState, Error> {
            self.pumped_by.lock().unwrap().push(thread::current().id());
            match self.mailbox.take_command() {
                Some(_) if self.caller_driven && self.ends == Ends::ByPanic => panic!("a callback panics"),
                Some(_) if self.caller_driven && self.ends == Ends::ByError => Err(Error::Cut { peer: PeerId(7) }),
                Some(Command::Save(Save)) => {
                    let run = gradwire_core::RunId::drawn(1);
                    self.mailbox.answer(Saved { buffers: Vec::new(), run });
                    Ok(RunState::Running)
                }
                Some(command) => unreachable!("{command:?}"),
                None => {
                    thread::sleep(wait.unwrap_or(GRACE / 10).min(GRACE / 10));
                    Ok(RunState::Running)
                }
            }
        }

        fn say_failed(&mut self, failure: Option<Failure>) {
            *self.said.lock().unwrap() = failure;
        }

        fn unsent(&self) -> u64 {
            0
        }

        fn set_caller_driven(&mut self, caller_driven: bool) {
            self.caller_driven = caller_driven;
        }
    }

    struct Case {
        mailbox: Arc<Mailbox>,
        pumped_by: Arc<Mutex<Vec<ThreadId>>>,
        said: Arc<Mutex<Option<Failure>>>,
        turns: Arc<Turns>,
        own: Option<thread::JoinHandle<()>>,
    }

    impl Case {
        fn new(shared: bool, ends: Ends) -> Self {
            let mailbox = Arc::new(Mailbox::new(PeerId(0)));
            let (pumped_by, said) = (Arc::default(), Arc::default());
            let fake = Fake {
                mailbox: Arc::clone(&mailbox),
                pumped_by: Arc::clone(&pumped_by),
                ends,
                said: Arc::clone(&said),
                caller_driven: false,
            };
            let turns = Arc::new(Turns::new(Box::new(fake), shared));
            let own = {
                let (turns, mailbox) = (Arc::clone(&turns), Arc::clone(&mailbox));
                thread::spawn(move || turns.run(&mailbox))
            };
            Self { mailbox, pumped_by, said, turns, own: Some(own) }
        }

        /// A call. Returns its result, and whether it has driven the engine itself.
        fn call(&self) -> (Result<Saved, Error>, bool) {
            let (mut wait, canceller) = (Wait::new("save", WaitKind::Step, Duration::from_secs(20)), Canceller::new());
            self.mailbox.send(Save);
            match self.turns.drive(&self.mailbox, &mut wait, &canceller, &mut Answers::take) {
                Some(result) => (result, true),
                None => (self.mailbox.wait(&mut wait, &canceller, &mut Answers::take), false),
            }
        }

        /// Calls until one drives the engine. Returns its result.
        fn drive(&self) -> Result<Saved, Error> {
            let begun = Instant::now();
            loop {
                let (result, drives) = self.call();
                if drives {
                    return result;
                }
                assert!(result.is_ok() && begun.elapsed() < Duration::from_secs(20), "no call drives");
            }
        }

        /// Waits until the engine has been pumped by the own thread after this moment.
        fn wait_for_own_thread(&self) {
            let own = self.own.as_ref().unwrap().thread().id();
            self.pumped_by.lock().unwrap().clear();
            let begun = Instant::now();
            while !self.pumped_by.lock().unwrap().contains(&own) {
                assert!(begun.elapsed() < Duration::from_secs(20), "the own thread does not drive");
                thread::sleep(GRACE);
            }
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            self.mailbox.stop(None);
            self.turns.hurry();
            self.own.take().unwrap().join().unwrap();
        }
    }

    #[test]
    fn calls_drive_a_free_engine_and_its_own_thread_drives_it_between_them() {
        let case = Case::new(true, Ends::Never);
        for _ in 0..3 {
            case.drive().unwrap();
            case.wait_for_own_thread();
        }
    }

    /// A call that is made while the own thread drives is answered by it.
    #[test]
    fn calls_leave_an_engine_that_is_not_shared_to_its_thread() {
        let case = Case::new(false, Ends::Never);
        for _ in 0..20 {
            let (result, drives) = case.call();
            assert!(result.is_ok() && !drives);
        }
    }

    #[test]
    fn a_panic_in_a_call_fails_the_call_and_ends_the_thread() {
        let mut case = Case::new(true, Ends::ByPanic);
        assert!(matches!(case.drive(), Err(Error::Ended)));
        let begun = Instant::now();
        while !case.own.as_ref().unwrap().is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the own thread waits for an engine that is gone");
            thread::sleep(GRACE);
        }
        case.own = Some(thread::spawn(|| {}));
    }

    /// The own thread tells the peers why the node ends.
    #[test]
    fn an_error_in_a_call_is_that_of_the_call() {
        let case = Case::new(true, Ends::ByError);
        assert!(matches!(case.drive(), Err(Error::Cut { peer: PeerId(7) })));
        case.mailbox.stop(Some(Failure::Dropped));
        case.turns.hurry();
        let begun = Instant::now();
        while case.said.lock().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(20), "the peers are not told");
            thread::sleep(GRACE);
        }
    }
}
