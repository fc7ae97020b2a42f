//! How a session or server reaches its engine: on a thread of the engine's own, or on the caller's thread.

mod turns;

use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gradwire_core::{Event, Failure, Instant as Moment, Layout, Status};

use crate::error::Error;
use crate::mailbox::{Answer, Answers, Mailbox, ReadStatus, Request};
use crate::monitor::Board;
use crate::stopwatch::Steps;
pub(crate) use turns::Turns;

use crate::waits::{Canceller, Wait, WaitKind, Waits};

/// How long [`Drive::flush`] waits while no byte leaves.
const FLUSH_STALL: Duration = Duration::from_millis(250);

/// Whether a node still takes part in the run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum RunState {
    /// The run goes on.
    Running,
    /// The node's part is over: a worker has left, or all workers of a server have left or are lost.
    Ended,
}

/// An engine as its session or server sees it, over any transport.
pub(crate) trait Pump: Send {
    /// Does the work at hand. Waits at most `wait` (`None`: for ever) for one input, if there is no work.
    fn pump(&mut self, wait: Option<Duration>) -> Result<RunState, Error>;

    /// Tells the peers that this node has failed, unless its part is over. `None`: says nothing.
    fn say_failed(&mut self, failure: Option<Failure>);

    /// Bytes that the transport has queued and not handed over.
    fn unsent(&self) -> u64;

    /// From now on, the application's thread pumps while it waits in a call (`true`), or a thread of the engine's own.
    fn set_caller_driven(&mut self, caller_driven: bool);
}

/// The thread on which the engine runs.
pub(crate) enum Driver {
    /// A thread of the engine's own, in turn with calls. `waker` interrupts the transport's wait.
    Thread { thread: Option<JoinHandle<()>>, turns: Arc<Turns>, waker: Waker },
    /// The application's thread, during its calls.
    Caller(Box<dyn Pump>),
}

/// The engine of a session or server, and the calls to it. Dropping it stops the engine and closes its connections.
#[derive(Debug)]
pub(crate) struct Drive {
    mailbox: Arc<Mailbox>,
    driver: Driver,
    waits: Waits,
    canceller: Canceller,
    /// A call has failed: the application's vectors and the machine may disagree, so no call can follow.
    failed: bool,
    /// The last call was refused because of this node's own vector.
    refusal: Option<Failure>,
    /// The lengths of periods that a tape gives.
    lengths: Arc<[u32]>,
    /// The steps of the application, and the board that the node publishes to.
    steps: Steps,
    board: Option<Board>,
}

impl Drive {
    /// `waker` interrupts the transport's wait.
    pub(crate) fn new(mailbox: Arc<Mailbox>, driver: Driver, waits: Waits, canceller: Canceller, waker: Waker) -> Self {
        canceller.watch(&mailbox, waker);
        Self {
            mailbox,
            driver,
            waits,
            canceller,
            failed: false,
            refusal: None,
            lengths: Arc::default(),
            steps: Steps::default(),
            board: None,
        }
    }

    /// With a board that the node publishes to, and the steps that it publishes.
    pub(crate) fn with_board(mut self, steps: Steps, board: Option<Board>) -> Self {
        (self.steps, self.board) = (steps, board);
        self
    }

    pub(crate) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// The node's part is over: waits for a moment until the monitors of its board know.
    pub(crate) fn farewell(&self) {
        self.board.iter().for_each(Board::farewell);
    }

    pub(crate) fn with_lengths(mut self, lengths: Arc<[u32]>) -> Self {
        self.lengths = lengths;
        self
    }

    pub(crate) fn lengths(&self) -> Arc<[u32]> {
        Arc::clone(&self.lengths)
    }

    /// Makes a call and waits for its answer. A failure is final. `purpose` completes the sentence "waited … to …" in
    /// the error.
    pub(crate) fn call<R: Request>(
        &mut self,
        purpose: &'static str,
        kind: WaitKind,
        request: R,
    ) -> Result<R::Answer, Error> {
        self.check()?;
        self.refusal = None;
        self.mailbox.send(request);
        let mut wait = Wait::new(purpose, kind, self.waits.limit(kind));
        self.attend(&mut wait, true, Answers::take).map_err(|error| self.end_with(error))
    }

    /// Makes a call without waiting for its answer, which [`wait_for`](Self::wait_for) takes later. An engine without a
    /// thread does the work at hand.
    pub(crate) fn begin<R: Request>(&mut self, request: R) -> Result<(), Error> {
        self.check()?;
        self.refusal = None;
        self.mailbox.send(request);
        self.wake();
        self.pump()
    }

    /// Waits for an answer that no request asks for, or to a request that has been sent. A failure is final.
    pub(crate) fn wait_for<A: Answer>(&mut self, purpose: &'static str, kind: WaitKind) -> Result<A, Error> {
        self.check()?;
        let mut wait = Wait::new(purpose, kind, self.waits.limit(kind));
        self.wait(&mut wait, Answers::take).map_err(|error| self.end_with(error))
    }

    /// Ends this node because of an error. At once: the application may keep the session for long, and its peers would
    /// wait.
    pub(crate) fn end_with(&mut self, error: Error) -> Error {
        self.failed = true;
        self.stop(error.failure(self.mailbox.me()));
        error
    }

    /// Ends this node because the application has given up a call that it had begun.
    pub(crate) fn abandon(&mut self) {
        if !self.failed {
            self.failed = true;
            self.stop(Some(self.ended()));
        }
    }

    /// The reason that peers get if the application ends now.
    fn ended(&self) -> Failure {
        let ended = if std::thread::panicking() { Failure::Panicked } else { Failure::Dropped };
        self.refusal.unwrap_or(ended)
    }

    /// Waits until `find` returns an answer.
    pub(crate) fn wait<R>(&mut self, wait: &mut Wait, find: impl FnMut(&mut Answers) -> Option<R>) -> Result<R, Error> {
        self.attend(wait, false, find)
    }

    /// Waits until `find` returns an answer, and drives the engine meanwhile unless its own thread does. `asks`: a request
    /// has been left for the engine.
    fn attend<R>(
        &mut self,
        wait: &mut Wait,
        asks: bool,
        mut find: impl FnMut(&mut Answers) -> Option<R>,
    ) -> Result<R, Error> {
        let (mailbox, canceller) = (&self.mailbox, &self.canceller);
        match &mut self.driver {
            Driver::Caller(engine) => drive_until(&mut **engine, mailbox, wait, canceller, &mut find),
            Driver::Thread { turns, waker, .. } => {
                turns.drive(mailbox, wait, canceller, &mut find).unwrap_or_else(|| {
                    if asks {
                        // After the request is in: the engine looks into the mailbox once per wake-up, and then sleeps in
                        // its transport.
                        waker.wake_by_ref();
                    }
                    mailbox.wait(wait, canceller, &mut find)
                })
            }
        }
    }

    /// For how much longer a wait may last.
    ///
    /// # Errors
    /// If it is over or cancelled.
    pub(crate) fn patience(&self, wait: &mut Wait) -> Result<Duration, Error> {
        self.mailbox.patience(wait, &self.canceller)
    }

    /// Requests a snapshot of the machine's status, for a call to [`wait`](Self::wait).
    pub(crate) fn request_status(&self) {
        self.mailbox.send(ReadStatus);
        self.wake();
    }

    pub(crate) fn status(&mut self) -> Result<Status, Error> {
        self.call("read the status", WaitKind::Step, ReadStatus)
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.mailbox.take_events()
    }

    /// Adds an event of the session's own.
    pub(crate) fn push_event(&self, event: Event) {
        self.mailbox.push_event(event);
    }

    pub(crate) fn report_progress(&self, loss: f32, accuracy: f32) {
        self.mailbox.set_progress(loss, accuracy);
    }

    /// The present moment, by the clock of this node.
    pub(crate) fn now(&self) -> Moment {
        Moment::ORIGIN.after(self.mailbox.elapsed())
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    pub(crate) fn canceller(&self) -> &Canceller {
        &self.canceller
    }

    /// An error if an earlier call has failed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.failed { Err(Error::Ended) } else { Ok(()) }
    }

    /// Does the work at hand without waiting, if the engine has no thread.
    pub(crate) fn pump(&mut self) -> Result<(), Error> {
        if let (Driver::Caller(engine), false) = (&mut self.driver, self.failed) {
            let result = engine.pump(Some(Duration::ZERO)).map(|_| ());
            return result.map_err(|error| self.end_with(error));
        }
        Ok(())
    }

    /// Carries on the communication of an engine without a thread until all that is queued has left, or no byte has
    /// left for a while because peers do not read.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.pump()?;
        let (mut before, mut moved) = (u64::MAX, Instant::now());
        while let Driver::Caller(engine) = &mut self.driver {
            let unsent = engine.unsent();
            if unsent != before {
                (before, moved) = (unsent, Instant::now());
            }
            if unsent == 0 || moved.elapsed() > FLUSH_STALL {
                break;
            }
            let pumped = engine.pump(Some(Duration::from_millis(5)));
            let _ = pumped.map_err(|error| self.end_with(error))?;
        }
        Ok(())
    }

    /// Notes that a check has refused the application's vector: the reason that peers get if the application ends now.
    pub(crate) fn note_refusal(&mut self, error: &Error, layout: &Layout) {
        if let Error::NonFinite { tensor, index, .. } = error {
            let start = layout.range(tensor).map_or(0, |range| range.start);
            let index = u32::try_from(start + index).unwrap_or(u32::MAX);
            self.refusal = Some(Failure::NonFinite { index });
        }
    }

    /// Ends the engine, which reports the reason to the peers.
    fn stop(&mut self, failure: Option<Failure>) {
        // In this order: a thread that wakes up before the flag is set goes back to sleep.
        self.mailbox.stop(failure);
        self.wake();
        if let Driver::Caller(engine) = &mut self.driver {
            engine.say_failed(self.mailbox.take_failure_of_application());
        }
    }

    /// Makes the engine's own thread look into the mailbox.
    fn wake(&self) {
        if let Driver::Thread { turns, waker, .. } = &self.driver {
            turns.hurry();
            waker.wake_by_ref();
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.stop(Some(self.ended()));
        if let Driver::Thread { thread, .. } = &mut self.driver {
            // A panic of the thread has already reached the application as a failure of its call.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

/// Drives an engine on the caller's thread until `find` returns an answer.
fn drive_until<R>(
    engine: &mut dyn Pump,
    mailbox: &Mailbox,
    wait: &mut Wait,
    canceller: &Canceller,
    find: &mut impl FnMut(&mut Answers) -> Option<R>,
) -> Result<R, Error> {
    loop {
        // The work at hand comes first: an engine that sleeps with an output undone can make its peers wait for it.
        let state = engine.pump(Some(Duration::ZERO))?;
        if let Some(result) = mailbox.find(find) {
            return Ok(result);
        }
        if state == RunState::Ended {
            return Err(Error::Ended);
        }
        let rest = mailbox.patience(wait, canceller)?;
        // Sleeps until one input has come. Its consequences are the work at hand of the next iteration.
        let _ = engine.pump(Some(rest))?;
        if let Some(result) = mailbox.find(find) {
            return Ok(result);
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Thread { .. } => "Thread",
            Self::Caller(_) => "Caller",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine that sends its bytes one by one, until only `stuck` are left.
    struct Slow {
        left: u64,
        stuck: u64,
    }

    impl Pump for Slow {
        fn pump(&mut self, wait: Option<Duration>) -> Result<RunState, Error> {
            if wait.is_some_and(|wait| !wait.is_zero()) {
                std::thread::sleep(FLUSH_STALL / 10);
                self.left = self.stuck.max(self.left.saturating_sub(1));
            }
            Ok(RunState::Running)
        }

        fn say_failed(&mut self, _: Option<Failure>) {}

        fn unsent(&self) -> u64 {
            self.left
        }

        fn set_caller_driven(&mut self, _: bool) {}
    }

    /// The bytes that are left after a flush.
    fn flush(stuck: u64) -> u64 {
        let engine = Box::new(Slow { left: 25, stuck });
        let mailbox = Arc::new(Mailbox::new(gradwire_core::PeerId(0)));
        let (waits, canceller) = (Waits::default(), Canceller::new());
        let driver = Driver::Caller(engine);
        let mut drive = Drive::new(mailbox, driver, waits, canceller, Waker::noop().clone());
        drive.flush().unwrap();
        match &drive.driver {
            Driver::Caller(engine) => engine.unsent(),
            Driver::Thread { .. } => unreachable!("it has no thread"),
        }
    }

    /// A flush goes on for as long as bytes leave, longer than it waits for one that does not.
    #[test]
    fn a_flush_ends_when_all_bytes_or_no_more_have_left() {
        // A machine with other work can stop the test for longer than that.
        assert!((0..5).any(|_| flush(0) == 0));
        assert_eq!(flush(25), 25);
    }
}
