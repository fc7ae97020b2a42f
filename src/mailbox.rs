//! The mailbox between the application's calls and the engine that drives the machine.
//!
//! A call is a [`Request`]. It puts its [`Command`] into the mailbox, wakes the engine, and waits for the answer that
//! its type names. Each type of answer has a slot of its own, so a call cannot take the answer to another call.
//!
//! Vectors change hands as pointers (`Arc<Storage>`), so the lock is held for a few instructions with a model of any
//! size, and a step allocates nothing.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::status::Waiting;
use gradwire_core::{Advice, Event, Failure, Input, PeerId, Pool, RunId, Segment, Status, Storage};

use crate::checkpoint::Checkpoint;
use crate::error::{Awaited, Error, Overdue, PeerLink};
use crate::waits::{Canceller, Patience, Wait};

/// Events that wait for the application to ask for them. A further event replaces the oldest.
const EVENTS_MAX: usize = 256;

/// A call of the application.
pub(crate) trait Request {
    /// The answer that the engine owes this call.
    type Answer: Answer;

    /// The call, as the engine takes it.
    fn into_command(self) -> Command;
}

/// An answer of the engine.
pub(crate) trait Answer: Sized {
    /// The slot of this type.
    fn slot(answers: &mut Answers) -> &mut Option<Self>;
}

/// A request of any type, as the engine takes it.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and a box would be an allocation per step")]
pub(crate) enum Command {
    Step(Step),
    Begin(Begin),
    GiveRange(GiveRange),
    StepThrough(StepThrough),
    Leave(Leave),
    NextRound(NextRound),
    Save(Save),
    ReadStatus(ReadStatus),
    ExpectSilence(ExpectSilence),
}

/// Contribute the vector in `filled`, and wait for parameters.
#[derive(Debug)]
pub(crate) struct Step {
    /// Examples behind the contribution.
    pub(crate) weight: u64,
    /// Whether the worker takes parameters. If not, it goes on with the application's own.
    pub(crate) fetches: bool,
    pub(crate) filled: Arc<Storage>,
    /// With `payload=gradients`: the application's state from which the gradient was computed.
    pub(crate) state: Vec<Arc<Storage>>,
    /// The learning rate relative to the start of the run, if it has changed since the last contribution.
    pub(crate) rate: Option<f32>,
    /// Local steps of the period, for a tape, where they depend on the time.
    pub(crate) length: Option<u32>,
    /// Inputs that tell the machine the measurements of the last period.
    pub(crate) notes: [Option<Input>; 2],
}

/// Contribute a vector that is given range by range. The answer to it and to [`GiveRange`] comes at once, and
/// [`Stepped`] at the end of the round.
#[derive(Debug)]
pub(crate) struct Begin {
    /// Examples behind the contribution. 0: no ranges follow.
    pub(crate) weight: u64,
    /// The buffer that takes the contribution.
    pub(crate) filled: Arc<Storage>,
    /// As in [`Step`].
    pub(crate) state: Vec<Arc<Storage>>,
}

/// The next range of a contribution.
#[derive(Debug)]
pub(crate) struct GiveRange {
    /// A vector with this range in it.
    pub(crate) filled: Arc<Storage>,
    /// The first element of the range, and their number.
    pub(crate) first: usize,
    pub(crate) len: usize,
}

/// Contribute a vector that `give` writes to the executor's memory, and pass the parameters there to `take`.
#[derive(Debug)]
pub(crate) struct StepThrough {
    /// The facts that the machine needs first.
    pub(crate) notes: [Option<Input>; 2],
    pub(crate) weight: u64,
    pub(crate) rate: Option<f32>,
    pub(crate) give: DeviceCopy,
    pub(crate) take: DeviceCopy,
}

/// Make no more contributions.
#[derive(Debug)]
pub(crate) struct Leave {
    /// Wait until all workers have left.
    pub(crate) stay: bool,
    /// Keep residuals in their buffers and return them, instead of sending them.
    pub(crate) keep: bool,
    pub(crate) rate: Option<f32>,
    /// With `payload=gradients` and `stay`: the application's state.
    pub(crate) state: Vec<Arc<Storage>>,
}

/// Take part in the next round without a contribution, after [`Departure::Round`].
#[derive(Debug)]
pub(crate) struct NextRound {
    /// With `payload=gradients`: the application's state after the round.
    pub(crate) state: Vec<Arc<Storage>>,
}

/// Copy the machine's buffers that belong into a checkpoint.
#[derive(Debug)]
pub(crate) struct Save;

/// Take a snapshot of the machine's status.
#[derive(Debug)]
pub(crate) struct ReadStatus;

/// Tell the peers that this node may be silent for this long.
#[derive(Debug)]
pub(crate) struct ExpectSilence(pub(crate) Duration);

/// This worker takes part.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The machine's clock: synchronisations done.
    pub(crate) clock: u64,
    /// The parameters to start from.
    pub(crate) view: Arc<Storage>,
    /// A buffer for the first contribution.
    pub(crate) spare: Arc<Storage>,
    /// With `payload=gradients`: buffers for the application's state, and the state to start from.
    pub(crate) state: Vec<Arc<Storage>>,
    pub(crate) adopted: Vec<Arc<Storage>>,
    /// The checkpoint that the node goes on from.
    pub(crate) restored: Option<Box<Checkpoint>>,
    /// The moment that the run goes on from; 0: a new run, or one that this node has come to late.
    pub(crate) moment: u64,
    /// The node resumed from a checkpoint that is older than the run.
    pub(crate) outdated: bool,
    /// The machine's knowledge of the other workers.
    pub(crate) advice: Advice,
}

/// A step is done.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) clock: u64,
    pub(crate) view: Arc<Storage>,
    /// The parameters differ from the ones after the step before.
    pub(crate) changed: bool,
    /// A buffer for the next contribution; `None` after [`Begin`], whose answer brings it.
    pub(crate) spare: Option<Arc<Storage>>,
    /// The machine's knowledge of the other workers.
    pub(crate) advice: Advice,
    /// With `payload=gradients`: buffers for the application's state.
    pub(crate) state: Vec<Arc<Storage>>,
    /// If the run has gone on without this worker: another worker's state. `view` is then no mean.
    pub(crate) adopted: Option<Vec<Arc<Storage>>>,
}

/// The engine has taken a range, or the beginning of a contribution.
#[derive(Debug)]
pub(crate) struct RangeTaken {
    /// A buffer for the next range.
    pub(crate) spare: Arc<Storage>,
}

/// A step is done. Its parameters, if they have changed, were passed to [`StepThrough::take`].
#[derive(Debug)]
pub(crate) struct SteppedThrough {
    pub(crate) clock: u64,
}

/// How far [`Leave`] has come.
#[derive(Debug)]
pub(crate) enum Departure {
    /// The other workers have done another round. The engine waits for [`NextRound`].
    Round {
        clock: u64,
        view: Arc<Storage>,
        changed: bool,
        /// As in [`Stepped`].
        state: Vec<Arc<Storage>>,
        adopted: Option<Vec<Arc<Storage>>>,
    },
    /// This worker has left. Boxed, as it is much larger than `Round`.
    Left(Box<Ended>),
}

/// The node's part in the run is over. A server is not asked: it gives this answer when all workers are gone.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) view: Arc<Storage>,
    /// Buffers for a checkpoint, in the order of the machine's list; empty for a worker that left without keeping them.
    pub(crate) saved: Vec<Vec<u32>>,
    /// The run of the node, and the moment that it went on from.
    pub(crate) run: RunId,
    pub(crate) moment: u64,
    /// As in [`Stepped`].
    pub(crate) adopted: Option<Vec<Arc<Storage>>>,
    pub(crate) status: Status,
}

/// The buffers for a checkpoint of a node that goes on, in the order of the machine's list.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) buffers: Vec<Vec<u32>>,
    /// The run of the node.
    pub(crate) run: RunId,
}

/// The transport has queued the announcement of a silence.
#[derive(Debug)]
pub(crate) struct SilenceAnnounced;

/// A function that copies one vector to or from the memory of an executor.
pub(crate) struct DeviceCopy(pub(crate) Box<CopyFn>);

pub(crate) type CopyFn = dyn FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send;

impl fmt::Debug for DeviceCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceCopy")
    }
}

macro_rules! requests {
    ($($request:ident -> $answer:ty,)*) => {$(
        impl Request for $request {
            type Answer = $answer;

            fn into_command(self) -> Command {
                Command::$request(self)
            }
        }
    )*};
}

requests! {
    Step -> Stepped,
    Begin -> RangeTaken,
    GiveRange -> RangeTaken,
    StepThrough -> SteppedThrough,
    Leave -> Departure,
    NextRound -> Departure,
    Save -> Saved,
    ReadStatus -> Status,
    ExpectSilence -> SilenceAnnounced,
}

macro_rules! answers {
    ($($slot:ident: $answer:ty,)*) => {
        /// Answers that have not been taken yet: one slot per type.
        #[derive(Debug, Default)]
        pub(crate) struct Answers {
            $($slot: Option<$answer>,)*
        }

        $(impl Answer for $answer {
            fn slot(answers: &mut Answers) -> &mut Option<Self> {
                &mut answers.$slot
            }
        })*
    };
}

answers! {
    joined: Joined,
    stepped: Stepped,
    range_taken: RangeTaken,
    stepped_through: SteppedThrough,
    departure: Departure,
    ended: Ended,
    saved: Saved,
    status: Status,
    silence: SilenceAnnounced,
}

impl Answers {
    pub(crate) fn take<A: Answer>(&mut self) -> Option<A> {
        A::slot(self).take()
    }
}

/// Shared by one session or server and its engine.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The node of the engine.
    me: PeerId,
    contents: Mutex<Contents>,
    /// Signalled when the engine has put something in. The engine itself sleeps in its transport.
    changed: Condvar,
    /// Answers that a call of the application has waited for.
    answered: AtomicU64,
    /// Time 0 of the machine.
    origin: Instant,
}

#[derive(Debug, Default)]
struct Contents {
    /// At most one: a session is borrowed exclusively by each call, and a call waits for its answer, or for that of the
    /// call before.
    command: Option<Command>,
    answers: Answers,
    /// Training loss and accuracy, as the application reported them last.
    progress: Option<(f32, f32)>,
    /// The peer that the machine waits for.
    waiting: Option<Waiting>,
    /// The connection to that peer.
    link: PeerLink,
    /// Until when that peer is silent, as it has announced; a time since the machine's origin.
    silent_until: Option<Duration>,
    /// The failure that the engine reports to the peers when it stops. `None`: it reports nothing.
    failure_of_application: Option<Failure>,
    events: VecDeque<Event>,
    failure: Option<Error>,
    /// The session or server has been dropped.
    stop: bool,
    /// The engine has stopped: no further answer will come.
    over: bool,
    /// Calls that sleep. A notification is a system call, which is spared if there are none.
    sleepers: u32,
}

impl Mailbox {
    pub(crate) fn new(me: PeerId) -> Self {
        // Room for all events from the start, so that a burst of them allocates nothing in the middle of a step.
        let contents = Contents { events: VecDeque::with_capacity(EVENTS_MAX), ..Contents::default() };
        let (changed, answered) = (Condvar::new(), AtomicU64::new(0));
        Self { me, contents: Mutex::new(contents), changed, answered, origin: Instant::now() }
    }

    /// The node of the engine.
    pub(crate) fn me(&self) -> PeerId {
        self.me
    }

    /// Time since the machine's origin.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // A thread that panics while it holds the lock leaves whole values behind: each change is one assignment.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Contents)) {
        let mut contents = self.lock();
        change(&mut contents);
        self.notify(contents);
    }

    /// Wakes the calls that sleep, if there are any.
    fn notify(&self, contents: MutexGuard<'_, Contents>) {
        let sleepers = contents.sleepers;
        drop(contents);
        if sleepers > 0 {
            self.changed.notify_all();
        }
    }

    // The application's side

    /// Leaves a request for the engine, which the caller then has to wake.
    pub(crate) fn send<R: Request>(&self, request: R) {
        let mut contents = self.lock();
        // A call that reached its deadline may have left its answer behind.
        *R::Answer::slot(&mut contents.answers) = None;
        contents.command = Some(request.into_command());
    }

    /// Wakes a waiting call, which then checks its wait again.
    pub(crate) fn ring(&self) {
        // With the lock: a call between its check and its sleep would miss the signal.
        self.change(|_| {});
    }

    /// Asks the engine to stop, and to tell the peers why the application ends.
    pub(crate) fn stop(&self, failure: Option<Failure>) {
        let mut contents = self.lock();
        if !contents.stop {
            (contents.stop, contents.failure_of_application) = (true, failure);
        }
    }

    pub(crate) fn set_progress(&self, loss: f32, accuracy: f32) {
        self.lock().progress = Some((loss, accuracy));
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        self.lock().events.drain(..).collect()
    }

    /// Looks for an answer without waiting.
    pub(crate) fn find<R>(&self, find: &mut impl FnMut(&mut Answers) -> Option<R>) -> Option<R> {
        find(&mut self.lock().answers)
    }

    /// Waits until `find` returns an answer, the engine fails, or the wait is over.
    pub(crate) fn wait<R>(
        &self,
        wait: &mut Wait,
        canceller: &Canceller,
        find: &mut impl FnMut(&mut Answers) -> Option<R>,
    ) -> Result<R, Error> {
        let mut contents = self.lock();
        loop {
            // Before the failure: an engine can answer and then fail, and the answer is still good.
            if let Some(result) = find(&mut contents.answers) {
                return Ok(result);
            }
            if let Some(failure) = contents.failure.take() {
                return Err(failure);
            }
            if contents.over {
                return Err(Error::Ended);
            }
            let rest = self.patience_in(&contents, wait, canceller)?;
            contents.sleepers += 1;
            contents = self.changed.wait_timeout(contents, rest).unwrap_or_else(PoisonError::into_inner).0;
            contents.sleepers -= 1;
        }
    }

    /// The time after which a wait has to be checked again.
    ///
    /// # Errors
    /// If the wait is over or cancelled. The error names the peer that the machine waits for.
    pub(crate) fn patience(&self, wait: &mut Wait, canceller: &Canceller) -> Result<Duration, Error> {
        self.patience_in(&self.lock(), wait, canceller)
    }

    fn patience_in(&self, contents: &Contents, wait: &mut Wait, canceller: &Canceller) -> Result<Duration, Error> {
        let rest = contents.silent_until.map(|until| until.saturating_sub(self.elapsed()));
        match wait.patience(rest.filter(|rest| !rest.is_zero()), canceller) {
            Patience::Lasts(rest) => Ok(rest),
            Patience::Over => Err(Error::Deadline(self.overdue_in(contents, wait))),
            Patience::Cancelled => Err(Error::Cancelled(self.overdue_in(contents, wait))),
        }
    }

    fn overdue_in(&self, contents: &Contents, wait: &Wait) -> Overdue {
        let on = contents.waiting.map(|waiting| Awaited {
            peer: waiting.on,
            at: waiting.at.0,
            clock: waiting.clock.0,
            since: self.elapsed().saturating_sub(Duration::from_nanos(waiting.since.as_nanos())),
            reported_by: Some(waiting.reported_by).filter(|by| *by != self.me),
            link: contents.link,
        });
        Overdue { what: wait.purpose, waited: wait.lasted(), on }
    }

    // The engine's side

    pub(crate) fn take_command(&self) -> Option<Command> {
        self.lock().command.take()
    }

    pub(crate) fn has_command(&self) -> bool {
        self.lock().command.is_some()
    }

    /// How many answers have been given that a call waits for.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stop
    }

    pub(crate) fn take_failure_of_application(&self) -> Option<Failure> {
        self.lock().failure_of_application.take()
    }

    pub(crate) fn answer<A: Answer>(&self, answer: A) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.change(|contents| *A::slot(&mut contents.answers) = Some(answer));
    }

    /// Gives a buffer back. No call waits for that: the application computes the next range.
    pub(crate) fn answer_range(&self, taken: RangeTaken) {
        self.change(|contents| *RangeTaken::slot(&mut contents.answers) = Some(taken));
    }

    /// Gives the last answer: no further one will come.
    pub(crate) fn answer_last<A: Answer>(&self, answer: A) {
        self.change(|contents| {
            *A::slot(&mut contents.answers) = Some(answer);
            contents.over = true;
        });
    }

    pub(crate) fn fail(&self, error: Error) {
        self.change(|contents| contents.failure = Some(error));
    }

    /// `link`: the connection to the peer that the machine waits for.
    pub(crate) fn set_waiting(&self, waiting: Option<Waiting>, link: PeerLink, silent_until: Option<Duration>) {
        let mut contents = self.lock();
        (contents.waiting, contents.link) = (waiting, link);
        let changed = std::mem::replace(&mut contents.silent_until, silent_until) != silent_until;
        // A call that waits counts time differently from now on.
        if changed {
            self.notify(contents);
        }
    }

    pub(crate) fn take_progress(&self) -> Option<(f32, f32)> {
        self.lock().progress.take()
    }

    pub(crate) fn push_event(&self, event: Event) {
        let mut contents = self.lock();
        if contents.events.len() == EVENTS_MAX {
            contents.events.pop_front();
        }
        contents.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::WaitKind;

    fn saved(buffers: Vec<Vec<u32>>) -> Saved {
        Saved { buffers, run: RunId::drawn(1) }
    }

    fn wait<A: Answer>(mailbox: &Mailbox) -> Result<A, Error> {
        let mut wait = Wait::new("test", WaitKind::Step, Duration::ZERO);
        mailbox.wait(&mut wait, &Canceller::new(), &mut Answers::take)
    }

    #[test]
    fn a_call_takes_only_the_answer_of_its_type() {
        let mailbox = Mailbox::new(PeerId(0));
        mailbox.answer(SteppedThrough { clock: 7 });
        assert!(matches!(wait::<Saved>(&mailbox), Err(Error::Deadline(_))));
        assert_eq!(wait::<SteppedThrough>(&mailbox).unwrap().clock, 7);
        assert!(matches!(wait::<SteppedThrough>(&mailbox), Err(Error::Deadline(_))));
    }

    #[test]
    fn a_late_answer_is_not_the_answer_to_the_next_call() {
        let mailbox = Mailbox::new(PeerId(0));
        mailbox.send(Save);
        assert!(matches!(wait::<Saved>(&mailbox), Err(Error::Deadline(_))));
        mailbox.answer(saved(vec![vec![1]]));
        mailbox.send(Save);
        assert!(matches!(wait::<Saved>(&mailbox), Err(Error::Deadline(_))));
    }

    #[test]
    fn an_answer_comes_before_the_failure_after_it() {
        let mailbox = Mailbox::new(PeerId(0));
        mailbox.answer_last(saved(Vec::new()));
        mailbox.fail(Error::Ended);
        assert!(wait::<Saved>(&mailbox).is_ok());
        assert!(matches!(wait::<Saved>(&mailbox), Err(Error::Ended)));
    }

    #[test]
    fn the_newest_events_are_held() {
        let mailbox = Mailbox::new(PeerId(0));
        for number in 0..EVENTS_MAX as u64 + 3 {
            mailbox.push_event(Event::View { number, members: 1 });
        }
        let events = mailbox.take_events();
        assert_eq!((events.len(), events[0]), (EVENTS_MAX, Event::View { number: 3, members: 1 }));
    }
}
