//! Drives a machine over a transport, with the CPU as executor.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gradwire_core::kernel::executor::Executor;
use gradwire_core::status::Waiting;
use gradwire_core::telemetry::Note;
use gradwire_core::{
    Clock, Contract, Event, Input, Instant, Machine, Node, OpId, Output, PeerId, Pool, RestoreError, Segment, Setup,
    Signal, Storage, THEIRS, Transport,
};

use crate::builder::Watcher;
use crate::checkpoint::CheckpointError;
use crate::desk::{Answer, Command, Desk, Hand};
use crate::error::Error;
use crate::monitor::Board;
use crate::observe::Observer;

#[derive(Debug)]
pub(crate) struct Engine<T> {
    machine: Node,
    pool: Pool,
    executor: Box<dyn Executor>,
    /// The kernel that it is at.
    computing: Option<OpId>,
    me: PeerId,
    /// Who takes the parameters after the step that is under way, if not the host.
    hand: Option<Hand>,
    /// Floats that the machine exchanges.
    len: usize,
    /// What waits until the host has what it is about.
    held: Option<Output>,
    transport: T,
    desk: Arc<Desk>,
    /// The buffer that the last contribution took the place of.
    spare: Option<Arc<Storage>>,
    /// The wait that the desk has been told of.
    told: Option<Waiting>,
    state: State,
    contract: Contract,
    watcher: Watcher,
    /// What it goes on from.
    at: Clock,
    /// What is in residuals is kept at the end.
    keep: bool,
    outdated: bool,
    observer: Option<Observer>,
}

/// Why nothing more can be done at once.
struct Rest {
    /// When the machine wants to be woken.
    until: Option<Instant>,
    /// A device is at work; what comes after it is not known.
    busy: bool,
}

/// How long to look after the transport between two looks at a device.
const GLANCE: Duration = Duration::from_micros(50);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    /// The machine has left, or the server has finished.
    Done,
}

/// What a session needs of its engine, whatever the transport.
pub(crate) trait Pump: Send {
    /// Does what can be done, waiting at most `wait` for something to happen.
    fn pump(&mut self, wait: Option<Duration>) -> Result<State, Error>;

    /// Pumps until done or told to stop; what goes wrong is left on the desk.
    fn run(&mut self);
}

impl<T: Transport> Engine<T> {
    /// An engine whose machine's view holds `initial`.
    pub(crate) fn new(
        setup: Setup,
        transport: T,
        executor: Box<dyn Executor>,
        initial: &[f32],
        desk: Arc<Desk>,
        watcher: Watcher,
    ) -> Result<Self, Error> {
        let me = setup.me;
        let (len, at) = (setup.len, setup.resumed.map_or(Clock(0), |resumed| resumed.at));
        let contract = setup.contract.clone();
        let (machine, pool) = Node::open(setup, initial)?;
        let spare = Some(Arc::new(Storage::zeroed(len * 4)));
        let mut engine = Self {
            machine,
            pool,
            executor,
            computing: None,
            me,
            hand: None,
            len,
            held: None,
            transport,
            desk,
            spare,
            told: None,
            state: State::Running,
            contract,
            watcher,
            at,
            keep: false,
            outdated: false,
            observer: None,
        };
        engine.feed(Input::Timeout);
        Ok(engine)
    }

    /// Has itself watched.
    pub(crate) fn observe(&mut self, board: Board, host: &str) {
        self.observer = Some(Observer::new(board, host));
    }

    /// Puts back what a suspended worker kept.
    pub(crate) fn restore(&mut self, saved: &[Vec<u32>], path: &Path) -> Result<(), Error> {
        // What the machine begins with comes first.
        while self.drain()?.busy {}
        let kept = self.machine.saved();
        let (expected, got) = (kept.len(), saved.len());
        let failed = |error| Error::from(CheckpointError::Kept { path: path.to_path_buf(), error });
        if expected != got {
            return Err(failed(RestoreError::Length { expected, got }));
        }
        for (kept, saved) in kept.iter().zip(saved) {
            kept.restore(&mut self.pool, saved).map_err(failed)?;
            self.executor.written(kept.whole(&self.pool));
        }
        Ok(())
    }

    fn feed(&mut self, input: Input) {
        let now = Instant::from_nanos(self.desk.origin.elapsed().as_nanos() as u64);
        let result = self.machine.handle_input(now, input);
        result.expect("the session keeps the order of calls");
    }

    fn take_command(&mut self) -> Result<(), Error> {
        let (command, rate, busy, status_wanted) = {
            let mut papers = self.desk.lock();
            let command = papers.command.take();
            let rate = if command.is_some() { papers.rate.take() } else { None };
            (command, rate, papers.busy.take(), std::mem::take(&mut papers.status_wanted))
        };
        if let Some(span) = busy {
            self.transport.busy(span);
        }
        if let Some(scale) = rate {
            self.feed(Input::Rate { scale });
        }
        match command {
            Some(Command::Step { weight, filled }) => {
                if let Some(observer) = &mut self.observer {
                    observer.begins(weight);
                }
                let contribution = self.machine.contribution();
                self.spare = Some(self.pool.replace(contribution, filled));
                self.executor.written(Segment::floats(contribution, 0, self.pool.len(contribution) / 4));
                self.feed(Input::Step { weight });
            }
            Some(Command::Hand { weight, give, take }) => {
                if let Some(observer) = &mut self.observer {
                    observer.begins(weight);
                }
                let contribution = Segment::floats(self.machine.contribution(), 0, self.len);
                (give.0)(&mut *self.executor, contribution, &mut self.pool).map_err(Error::Executor)?;
                self.hand = Some(take);
                self.feed(Input::Step { weight });
            }
            Some(Command::Leave { stay, keep }) => {
                self.keep = keep;
                self.feed(Input::Leave { stay, keep });
            }
            None => {}
        }
        if status_wanted {
            let status = self.machine.status();
            self.desk.put(|papers| papers.status = Some(status));
        }
        Ok(())
    }

    /// Carries out outputs until the machine waits, or something has to come from a device first.
    fn drain(&mut self) -> Result<Rest, Error> {
        const BUSY: Rest = Rest { until: None, busy: true };
        loop {
            if let Some(op) = self.computing {
                let Some(result) = self.executor.poll(&mut self.pool).map_err(Error::Executor)? else {
                    return Ok(BUSY);
                };
                self.computing = None;
                if let Some(observer) = &mut self.observer {
                    observer.kernel_ends();
                }
                self.feed(Input::Completed { op, result });
            }
            let output = self.held.take().unwrap_or_else(|| self.machine.poll_output());
            if !self.is_here(&output)? {
                self.held = Some(output);
                return Ok(BUSY);
            }
            match output {
                Output::Compute { op, kernel } => {
                    if let Some(observer) = &mut self.observer {
                        observer.kernel_begins(&kernel);
                    }
                    match self.executor.begin(&kernel, &mut self.pool).map_err(Error::Executor)? {
                        Some(result) => {
                            if let Some(observer) = &mut self.observer {
                                observer.kernel_ends();
                            }
                            self.feed(Input::Completed { op, result });
                        }
                        None => self.computing = Some(op),
                    }
                }
                Output::Transmit { op, peer, header, body } => {
                    if let Some(observer) = &mut self.observer {
                        observer.sends(op);
                    }
                    self.transport.transmit(op, peer, header, body, &self.pool);
                }
                Output::Receive { op, peer, into } => {
                    if let Some(into) = into {
                        self.executor.written(into);
                    }
                    self.transport.receive(op, peer, into, &mut self.pool);
                }
                Output::Close { peer, reason } => self.transport.close(peer, reason),
                Output::Signal(signal) => self.on_signal(signal)?,
                Output::Event(event) => self.on_event(event),
                Output::Wait { until } => return Ok(Rest { until, busy: false }),
            }
        }
    }

    /// Has the host what it needs to carry this out?
    fn is_here(&mut self, output: &Output) -> Result<bool, Error> {
        match *output {
            Output::Transmit { body: Some(body), .. } => {
                self.executor.fetch(body, &mut self.pool).map_err(Error::Executor)
            }
            Output::Signal(Signal::Ready { .. }) if self.hand.is_some() => Ok(true),
            Output::Signal(
                signal @ (Signal::Joined { .. } | Signal::Ready { .. } | Signal::Left | Signal::Finished),
            ) => {
                let keep = signal == Signal::Left && self.keep;
                for kept in if keep { self.machine.saved() } else { Vec::new() } {
                    let whole = kept.whole(&self.pool);
                    if !self.executor.fetch(whole, &mut self.pool).map_err(Error::Executor)? {
                        return Ok(false);
                    }
                }
                let view = self.machine.view();
                let view = Segment::floats(view, 0, self.pool.len(view) / 4);
                self.executor.fetch(view, &mut self.pool).map_err(Error::Executor)
            }
            _ => Ok(true),
        }
    }

    /// Tells monitors, if there may be any and it is time.
    fn say_how_it_is(&mut self) {
        let Some(observer) = &mut self.observer else { return };
        let told = self.desk.lock().progress.take();
        if let Some((loss, accuracy)) = told {
            observer.progress(loss, accuracy);
        }
        if observer.is_due() || self.state == State::Done {
            let now = Instant::from_nanos(self.desk.origin.elapsed().as_nanos() as u64);
            observer.report(now, self.machine.status());
        }
    }

    fn view(&self) -> Arc<Storage> {
        self.pool.share(self.machine.view())
    }

    fn on_event(&mut self, event: Event) {
        if let Some(Observer { board, .. }) = &self.observer {
            board.note(Note::of_event(board.now(), self.me, &event));
        }
        self.outdated |= event == Event::Outdated;
        self.watcher.tell(event);
        self.desk.push_event(event);
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), Error> {
        if let Some(observer) = &mut self.observer {
            if let Signal::Ready { .. } = signal {
                observer.ends();
            }
            let board = &observer.board;
            Note::of_signal(board.now(), self.me, &signal).into_iter().for_each(|note| board.note(note));
        }
        let answer = match signal {
            Signal::Joined { clock: Clock(clock) } => {
                let (view, outdated) = (self.view(), self.outdated);
                self.spare.take().map(|spare| Answer::Joined { clock, view, spare, outdated })
            }
            Signal::Ready { changed, clock } => {
                if let Some(take) = self.hand.take().filter(|_| changed) {
                    let view = Segment::floats(self.machine.view(), 0, self.len);
                    (take.0)(&mut *self.executor, view, &mut self.pool).map_err(Error::Executor)?;
                }
                Some(Answer::Ready { clock: clock.0, view: self.view(), changed, spare: self.spare.take() })
            }
            Signal::Left | Signal::Finished => {
                self.state = State::Done;
                let kept = self.machine.saved().into_iter().filter(|_| self.keep);
                Some(Answer::Left { view: self.view(), kept: kept.map(|kept| kept.save(&self.pool)).collect() })
            }
            Signal::Cut { peer } => return Err(Error::Cut { peer }),
            Signal::ResumedElsewhere { at, .. } => {
                return Err(CheckpointError::Moment { expected: at.0, got: self.at.0 }.into());
            }
            Signal::ContractDiffers { peer, line, length } => {
                let theirs = self.pool.bytes(Segment { buffer: THEIRS, start: 0, len: length });
                let theirs = String::from_utf8_lossy(theirs);
                let (expected, got) = (nth_line(self.contract.text(), line), nth_line(&theirs, line));
                return Err(Error::Contract { peer, expected, got });
            }
        };
        if let Some(answer) = answer {
            let last = (self.state == State::Done).then(|| self.machine.status());
            self.desk.put(|papers| (papers.answer, papers.last) = (Some(answer), last));
        }
        Ok(())
    }
}

/// A line of a contract as it may be shown: printable, and not too long.
fn nth_line(text: &str, line: u32) -> String {
    let line = text.lines().nth(line as usize).unwrap_or("(nothing)");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

impl<T: Transport> Pump for Engine<T> {
    fn pump(&mut self, wait: Option<Duration>) -> Result<State, Error> {
        self.take_command()?;
        let Rest { until, busy } = self.drain()?;
        self.say_how_it_is();
        let waiting = self.machine.waiting();
        if waiting != self.told {
            self.told = waiting;
            self.desk.put(|papers| papers.waiting = waiting);
        }
        if self.state == State::Done {
            return Ok(State::Done);
        }
        let elapsed = self.desk.origin.elapsed();
        let timer = until.map(|until| Duration::from_nanos(until.as_nanos()).saturating_sub(elapsed));
        let due = self.observer.as_ref().map(Observer::due_in);
        let wait = due.map_or(wait, |due| Some(wait.map_or(due, |wait| wait.min(due))));
        let wait = if busy { Some(wait.map_or(GLANCE, |wait| wait.min(GLANCE))) } else { wait };
        let wait = match (wait, timer) {
            (Some(wait), Some(timer)) => Some(wait.min(timer)),
            (wait, timer) => wait.or(timer),
        };
        let polled = self.transport.poll(&mut self.pool, wait).map_err(|error| Error::Transport(Box::new(error)))?;
        match polled {
            Some(input) => {
                if let (Some(observer), Input::Completed { op, .. } | Input::Aborted { op }) =
                    (&mut self.observer, input)
                {
                    observer.ended(op);
                }
                self.feed(input);
            }
            None if timer.is_some_and(|timer| self.desk.origin.elapsed() >= elapsed + timer) => {
                self.feed(Input::Timeout)
            }
            None => {}
        }
        self.drain()?;
        if self.state == State::Done {
            self.say_how_it_is();
        }
        Ok(self.state)
    }

    fn run(&mut self) {
        // A panic in the machine must not leave the application waiting for its deadline.
        struct Guard(Arc<Desk>);
        impl Drop for Guard {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.put(|papers| papers.failure = Some(Error::Ended));
                }
            }
        }
        let _guard = Guard(Arc::clone(&self.desk));
        while !self.desk.lock().stop {
            match self.pump(None) {
                Ok(State::Running) => {}
                Ok(State::Done) => return,
                Err(error) => return self.desk.put(|papers| papers.failure = Some(error)),
            }
        }
    }
}
