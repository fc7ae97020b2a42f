//! The engine: drives one machine over a transport and an executor, on behalf of a session or a server.
//!
//! ```text
//! pump: command from the mailbox -> Input
//!       drain: Output -> kernels, transfers, answers, events, until the machine waits
//!       one input from the transport, or the machine's timeout -> drain again
//! ```
//!
//! The machine decides when a call of the application is answered: the engine remembers the call ([`Pending`]), and the
//! machine's next [`Signal`] completes it.

use std::sync::Arc;
use std::time::Duration;

use gradwire_core::kernel::executor::Executor;
use gradwire_core::status::Waiting;
use gradwire_core::telemetry::Stage;
use gradwire_core::{
    Adoption, Clock, Contract, Event, Failure, Input, Instant as Moment, Machine, Node, Order, Output, PeerId, RunId,
    Segment, Setup, Signal, Status, Storage, THEIRS, Transport,
};

use crate::checkpoint::{Candidates, CheckpointError, LoadedCheckpoint};
use crate::compute::Compute;
use crate::drive::{Pump, RunState};
use crate::error::{Error, PeerLink};
use crate::mailbox::{
    Begin, Command, Departure, Ended, ExpectSilence, GiveRange, Joined, Leave, Mailbox, NextRound, RangeTaken, Save,
    Saved, SilenceAnnounced, Step, StepThrough, Stepped, SteppedThrough,
};
use crate::observe::Observer;
use crate::pages;
use crate::pending::Pending;
use crate::stopwatch::{Steps, Stopwatch};
use crate::tape::TapeFile;
use crate::watch::EventCallback;

/// How long the engine sleeps between two looks at a device that works. A device cannot wake it.
const DEVICE_POLL: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(crate) struct Engine<T> {
    machine: Node,
    compute: Compute,
    transport: T,
    mailbox: Arc<Mailbox>,
    /// The call that the next signal answers.
    pending: Pending,
    /// The application has asked for a copy of the saved buffers.
    saving: bool,
    /// An output that reads bytes which a device is still copying to the host.
    postponed: Option<Output>,
    state: RunState,
    /// Floats of the vector that the machine exchanges.
    len: usize,
    contract: Contract,
    /// The run that this node belongs to for good: it has been given the run, or has joined it.
    known_run: Option<RunId>,
    /// The checkpoints that this node can resume from.
    candidates: Option<Candidates>,
    /// The checkpoint that this node resumes from, until it has joined.
    restored: Option<LoadedCheckpoint>,
    /// The moment that the nodes resumed from; 0 in a new run.
    moment: u64,
    /// The checkpoint is older than the run.
    outdated: bool,
    /// The wait that the mailbox shows, and until when the awaited peer is silent as announced.
    shown: (Option<Waiting>, PeerLink, Option<Moment>),
    callback: EventCallback,
    observer: Observer,
    stopwatch: Stopwatch,
    /// The connection to each peer, by rank.
    links: Vec<PeerLink>,
    tape: TapeFile,
    /// [`Machine::wanted_changes`] when the transport was told last.
    wanted_seen: Option<u64>,
    /// Between steps, the application has the machine's buffer for contributions.
    lends: bool,
}

/// Why the engine has nothing more to do.
#[derive(Copy, Clone)]
enum Idle {
    /// The machine waits for an input, at most until this moment.
    Machine { until: Option<Moment> },
    /// A device runs kernels, and cannot wake the engine.
    Device,
}

impl<T: Transport> Engine<T> {
    /// An engine for the machine of a setup. `initial` are the parameters to start from.
    ///
    /// # Errors
    /// When the recipe does not fit the cluster.
    pub(crate) fn new(
        setup: Setup,
        transport: T,
        executor: Box<dyn Executor>,
        initial: &[f32],
        candidates: Option<Candidates>,
        callback: EventCallback,
        observer: Observer,
    ) -> Result<Self, Error> {
        let (len, contract, known_run) = (setup.len, setup.contract.clone(), setup.run);
        let (me, nodes, carried) = (setup.me, setup.cluster.nodes(), setup.carried);
        let is_worker = setup.cluster.is_worker(me);
        let (machine, pool) = Node::open_with(setup, initial, pages::zeroed)?;
        let mut compute = Compute::new(pool, executor);
        let lends = compute.is_on_host() && machine.is_contribution_free();
        let pending = Pending::at_start(is_worker, len, carried, lends);
        let mut engine = Self {
            machine,
            compute,
            lends,
            transport,
            mailbox: Arc::new(Mailbox::new(me)),
            pending,
            saving: false,
            postponed: None,
            state: RunState::Running,
            len,
            contract,
            known_run,
            candidates,
            restored: None,
            moment: 0,
            outdated: false,
            shown: (None, PeerLink::Never, None),
            callback,
            observer,
            stopwatch: Stopwatch::new(Steps::default()),
            links: vec![PeerLink::Never; nodes as usize],
            tape: TapeFile::Off,
            wanted_seen: None,
        };
        // A machine acts on inputs only; a timeout makes it start its first kernels.
        engine.feed(Input::Timeout);
        engine.follow_wishes();
        if engine.known_run.is_some() {
            engine.confirm_run();
        }
        Ok(engine)
    }

    /// Sets the tape that the machine's decisions go to. Before the first pump.
    pub(crate) fn set_tape(&mut self, tape: TapeFile) {
        self.tape = tape;
    }

    /// The steps of the application, for the thread that takes them.
    pub(crate) fn steps(&self) -> Steps {
        self.stopwatch.steps().clone()
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// The present moment on the machine's clock, counted from the start of the mailbox.
    fn now(&self) -> Moment {
        Moment::from_nanos(self.mailbox.elapsed().as_nanos() as u64)
    }

    fn feed(&mut self, input: Input) {
        let result = self.machine.handle_input(self.now(), input);
        // Misuse is a bug of this crate, since applications only reach the machine through calls that wait.
        result.expect("a session waits for the answer to each call before the next one");
    }

    /// Tells the transport which peers the machine wants, if that has changed.
    fn follow_wishes(&mut self) {
        let changes = Some(self.machine.wanted_changes());
        if changes != self.wanted_seen {
            self.wanted_seen = changes;
            self.transport.want(&self.machine.wanted());
        }
    }

    // Commands

    fn take_command(&mut self) -> Result<(), Error> {
        match self.mailbox.take_command() {
            None => {}
            Some(Command::Step(Step { weight, fetches, filled, mut state, rate, notes, length })) => {
                if let Some(count) = length {
                    self.tape.write(Order::Steps { count })?;
                }
                // The buffers trade places: the application fills the old buffer next, while peers read the new one.
                let contribution = self.machine.contribution();
                let spare = self.compute.replace(contribution, filled);
                self.exchange_state(&mut state);
                self.pending = Pending::Step { spare: Some(spare), state };
                self.set_rate(rate);
                notes.into_iter().flatten().for_each(|note| self.feed(note));
                self.feed(if fetches { Input::Step { weight } } else { Input::Push { weight } });
            }
            Some(Command::Begin(Begin { weight, filled, mut state })) => {
                // A new buffer: a peer may still read the last contribution.
                let spare = self.compute.replace(self.machine.contribution(), filled);
                self.exchange_state(&mut state);
                self.pending = Pending::Step { spare: None, state };
                self.mailbox.answer_range(RangeTaken { spare });
                self.feed(Input::Begin { weight });
            }
            Some(Command::GiveRange(GiveRange { filled, first, len })) => {
                let into = Segment::floats(self.machine.contribution(), first, len);
                self.compute.written(into);
                self.compute.pool.floats_mut(into).copy_from_slice(&filled.floats()[first..first + len]);
                // Before the kernels and messages of this range.
                self.mailbox.answer_range(RangeTaken { spare: filled });
                self.feed(Input::Given { first, len });
            }
            Some(Command::StepThrough(StepThrough { notes, weight, rate, give, take })) => {
                let contribution = Segment::floats(self.machine.contribution(), 0, self.len);
                if self.compute.pool.len(contribution.buffer) == 0 {
                    // The application has the buffer for contributions that it gives on the host.
                    self.compute.replace(contribution.buffer, Arc::new(pages::zeroed(self.len * 4)));
                }
                self.compute.copy_with(give, contribution)?;
                self.pending = Pending::StepThrough { take };
                self.set_rate(rate);
                notes.into_iter().flatten().for_each(|note| self.feed(note));
                self.feed(Input::Step { weight });
            }
            Some(Command::Leave(Leave { stay, keep, rate, mut state })) => {
                self.exchange_state(&mut state);
                self.pending = Pending::Leave { stay, keep, state };
                self.set_rate(rate);
                self.feed(Input::Leave { stay, keep });
            }
            // The pending call is still `Leave`. A step of weight 0 reads no contribution, so no buffer changes hands.
            Some(Command::NextRound(NextRound { state: mut given })) => {
                self.exchange_state(&mut given);
                if let Pending::Leave { state, .. } = &mut self.pending {
                    *state = given;
                }
                self.feed(Input::Step { weight: 0 });
            }
            Some(Command::Save(Save)) => self.saving = true,
            Some(Command::ReadStatus(_)) => self.mailbox.answer(self.status()),
            Some(Command::ExpectSilence(ExpectSilence(span))) => {
                // The machine's message moves deadlines, so it goes first. The transport's own message follows.
                self.feed(Input::Silence { span });
                let _ = self.drain()?;
                self.transport.busy(span);
                self.mailbox.answer(SilenceAnnounced);
            }
        }
        Ok(())
    }

    /// Gives the application's state to the machine: the buffers trade places, as the contribution's buffers do.
    fn exchange_state(&mut self, state: &mut [Arc<Storage>]) {
        for (index, storage) in state.iter_mut().enumerate() {
            if let Some([given, _]) = self.machine.carried(index) {
                *storage = self.compute.replace(given, Arc::clone(storage));
            }
        }
    }

    /// Puts the application's first state where the machine looks for it, for peers without one. The parameters are
    /// there already.
    pub(crate) fn provide(&mut self, optimizer: &[&mut [f32]]) {
        for (index, vector) in optimizer.iter().enumerate() {
            self.adopt(1 + index, vector);
        }
    }

    fn adopt(&mut self, index: usize, vector: &[f32]) {
        if let Some([_, adopted]) = self.machine.carried(index) {
            let segment = Segment::floats(adopted, 0, vector.len());
            self.compute.written(segment);
            self.compute.pool.floats_mut(segment).copy_from_slice(vector);
        }
    }

    /// The state that a donor has given. Allocates, and is called only at the start and after this node was left out.
    fn adopted(&self) -> Vec<Arc<Storage>> {
        let carried = (0..).map_while(|index| self.machine.carried(index));
        carried.map(|[_, adopted]| self.compute.pool.share(adopted)).collect()
    }

    /// Before the contribution that was made with this learning rate: the machine scales its threshold first.
    fn set_rate(&mut self, rate: Option<f32>) {
        if let Some(scale) = rate {
            self.feed(Input::Rate { scale });
        }
    }

    // Outputs

    /// Carries out outputs until the machine waits, or an output has to wait for a device.
    fn drain(&mut self) -> Result<Idle, Error> {
        loop {
            // Kernels run one after the other, and before the transfers that follow them: no output is taken meanwhile.
            if self.compute.is_running() {
                let Some((op, result)) = self.compute.poll()? else { return Ok(Idle::Device) };
                self.stopwatch.kernel_ends();
                self.feed(Input::Completed { op, result });
            }
            let output = self.postponed.take().unwrap_or_else(|| self.machine.poll_output());
            if !self.is_on_host(&output)? {
                self.postponed = Some(output);
                return Ok(Idle::Device);
            }
            match output {
                Output::Compute { op, kernel } => {
                    self.stopwatch.kernel_begins(&kernel);
                    if let Some(result) = self.compute.begin(op, &kernel)? {
                        self.stopwatch.kernel_ends();
                        self.feed(Input::Completed { op, result });
                    }
                }
                Output::Transmit { op, peer, header, body } => {
                    self.observer.transfer_begins(op, None);
                    self.transport.transmit(op, peer, header, body, &self.compute.pool);
                }
                Output::Receive { op, peer, into } => {
                    // A device must not take its copy of these bytes for the newest while the transport writes.
                    if let Some(into) = into {
                        self.compute.pool.make_room_for(into);
                        self.compute.written(into);
                    }
                    self.observer.transfer_begins(op, Some(peer));
                    self.transport.receive(op, peer, into, &mut self.compute.pool);
                }
                Output::Close { peer, reason } => self.transport.close(peer, reason),
                Output::Signal(signal) => self.on_signal(signal)?,
                Output::Event(event) => self.on_event(event),
                Output::Order(order) => self.tape.write(order)?,
                Output::Wait { until } => return Ok(Idle::Machine { until }),
            }
        }
    }

    /// Whether the host's copy of the bytes that this output reads is up to date. Starts to copy them if not.
    fn is_on_host(&mut self, output: &Output) -> Result<bool, Error> {
        match *output {
            Output::Transmit { body: Some(body), .. } => self.compute.fetch(body),
            // The parameters go from one device buffer to another.
            Output::Signal(Signal::Ready { .. }) if matches!(self.pending, Pending::StepThrough { .. }) => Ok(true),
            Output::Signal(Signal::Joined { .. } | Signal::Ready { .. }) => self.fetch_view(),
            Output::Signal(Signal::Left | Signal::Finished) => {
                let buffers = if self.pending.keeps() { self.machine.saved() } else { Vec::new() };
                Ok(self.compute.fetch_all(&buffers)? && self.fetch_view()?)
            }
            _ => Ok(true),
        }
    }

    /// Aborts the message to this peer that waits for the device, if there is one: it must not go out on the next
    /// connection.
    fn abort_postponed(&mut self, peer: PeerId) {
        let of_peer = |output: &mut Output| matches!(output, Output::Transmit { peer: to, .. } if *to == peer);
        if let Some(Output::Transmit { op, .. }) = self.postponed.take_if(of_peer) {
            self.feed(Input::Aborted { op });
        }
    }

    fn fetch_view(&mut self) -> Result<bool, Error> {
        self.compute.fetch(self.compute.whole(self.machine.view()))
    }

    /// Answers a request to save, once the buffers are on the host. `false`: a device still copies them.
    fn maybe_save(&mut self) -> Result<bool, Error> {
        if self.saving {
            let buffers = self.machine.saved();
            if !self.compute.fetch_all(&buffers)? {
                return Ok(false);
            }
            self.saving = false;
            self.mailbox.answer(Saved { buffers: self.compute.save(&buffers), run: self.run_id() });
        }
        Ok(true)
    }

    // Signals and events

    fn on_event(&mut self, event: Event) {
        // For the answer to `Join`.
        self.outdated |= event == Event::Outdated;
        self.observer.event(&event);
        self.callback.call(event);
        self.mailbox.push_event(event);
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), Error> {
        self.observer.signal(&signal);
        match signal {
            Signal::Joined { clock } => self.on_joined(clock),
            Signal::Resume { at, own } => self.on_resume(at, own)?,
            Signal::Restore => self.on_restore()?,
            Signal::Ready { clock, changed } => self.on_ready(clock, changed)?,
            Signal::Left | Signal::Finished => self.on_ended()?,
            // Errors leave the pump, which ends the engine and with it the call that waits.
            Signal::Cut { peer } => return Err(Error::Cut { peer }),
            Signal::PeerFailed { peer, failure } => return Err(Error::PeerFailed { peer, failure }),
            Signal::LedgerFull { index } => return Err(Error::LedgerFull { index }),
            Signal::ResumedElsewhere { at, .. } => {
                return Err(CheckpointError::Moment { expected: at.0, got: self.moment }.into());
            }
            Signal::OtherRun { peer, run } => {
                return Err(Error::OtherRun { peer, ours: self.run_id(), theirs: run });
            }
            Signal::ContractDiffers { peer, line, length } => {
                let theirs = self.compute.pool.bytes(Segment { buffer: THEIRS, start: 0, len: length });
                return Err(Error::contract(peer, self.contract.text(), theirs, line as usize));
            }
        }
        Ok(())
    }

    /// The nodes have agreed on the moment to go on from. Puts the parameters of this node's checkpoint back.
    fn on_resume(&mut self, Clock(at): Clock, own: bool) -> Result<(), Error> {
        self.moment = at;
        let Some(candidates) = &self.candidates else { return Ok(()) };
        candidates.go_on_from(at, own);
        if !own {
            return Ok(());
        }
        let loaded = candidates.load(at)?;
        // The averaged optimizer vectors follow the parameters in the vector that the machine exchanges.
        let vectors = loaded.checkpoint.vectors.iter().flatten().copied();
        let view = Segment::floats(self.machine.view(), 0, self.len);
        self.compute.written(view);
        self.compute.pool.floats_mut(view).iter_mut().zip(vectors).for_each(|(into, from)| *into = from);
        for (index, vector) in loaded.checkpoint.vectors.iter().enumerate().skip(1) {
            self.adopt(index, vector);
        }
        self.restored = Some(loaded);
        self.feed(Input::Resumed);
        Ok(())
    }

    /// Puts the machine's buffers of the checkpoint back.
    fn on_restore(&mut self) -> Result<(), Error> {
        if let Some(LoadedCheckpoint { checkpoint, path }) = &self.restored {
            let buffers = self.machine.saved();
            let (expected, got) = (buffers.len(), checkpoint.saved.len());
            if expected != got {
                return Err(CheckpointError::SavedBuffers { path: path.clone(), expected, got }.into());
            }
            for (buffer, words) in buffers.into_iter().zip(&checkpoint.saved) {
                let restored = self.compute.restore(buffer, words);
                restored.map_err(|error| CheckpointError::SavedState { path: path.clone(), error })?;
            }
        }
        self.feed(Input::Resumed);
        Ok(())
    }

    /// The buffer for the next contribution: `spare`, unless the machine's is free.
    fn next_buffer(&mut self, spare: Arc<Storage>) -> Arc<Storage> {
        if self.lends { self.compute.replace(self.machine.contribution(), spare) } else { spare }
    }

    fn on_joined(&mut self, Clock(clock): Clock) {
        self.confirm_run();
        if let Pending::Join { spare, state } = self.pending.take_if(|pending| matches!(pending, Pending::Join { .. }))
        {
            let spare = self.next_buffer(spare);
            let (view, outdated, moment) = (self.view(), self.outdated, self.moment);
            let restored = self.restored.take().map(|loaded| Box::new(loaded.checkpoint));
            let adopted = self.adopted();
            let advice = self.machine.advice();
            self.mailbox.answer(Joined { clock, view, spare, state, adopted, restored, moment, outdated, advice });
        }
    }

    fn on_ready(&mut self, Clock(clock): Clock, changed: bool) -> Result<(), Error> {
        // A collective goes on until all members have left, and this member takes part in their rounds.
        let adopted = (self.machine.adoption() != Adoption::None).then(|| self.adopted());
        let view = self.view();
        if let Pending::Leave { stay: true, state, .. } = &mut self.pending {
            let state = std::mem::take(state);
            self.mailbox.answer(Departure::Round { clock, view, changed, state, adopted });
            return Ok(());
        }
        let is_step = |pending: &Pending| matches!(pending, Pending::Step { .. } | Pending::StepThrough { .. });
        match self.pending.take_if(is_step) {
            Pending::Step { spare, state } => {
                let (advice, spare) = (self.machine.advice(), spare.map(|spare| self.next_buffer(spare)));
                self.mailbox.answer(Stepped { clock, view, changed, spare, advice, state, adopted });
            }
            Pending::StepThrough { take } => {
                if changed {
                    let view = Segment::floats(self.machine.view(), 0, self.len);
                    self.compute.copy_with(take, view)?;
                }
                self.mailbox.answer(SteppedThrough { clock });
            }
            _ => {}
        }
        Ok(())
    }

    fn on_ended(&mut self) -> Result<(), Error> {
        self.confirm_run();
        self.state = RunState::Ended;
        let stays = matches!(self.pending, Pending::Serve | Pending::Leave { stay: true, .. });
        // Before the answer, after which the process may end.
        let stage = if stays { Stage::Finished } else { Stage::Left };
        self.stopwatch.steps().mark(|meter, now| meter.ends(now, stage));
        self.report();
        // A node that leaves before the end has no final parameters.
        if stays {
            let view = Segment::floats(self.machine.view(), 0, self.len);
            self.tape.end(self.compute.pool.floats(view))?;
        }
        let saved = if self.pending.keeps() { self.compute.save(&self.machine.saved()) } else { Vec::new() };
        let (run, moment) = (self.run_id(), self.moment);
        let adopted = (self.machine.adoption() != Adoption::None).then(|| self.adopted());
        let ended = Ended { view: self.view(), saved, run, moment, adopted, status: self.status() };
        match self.pending {
            Pending::Serve => self.mailbox.answer_last(ended),
            _ => self.mailbox.answer_last(Departure::Left(Box::new(ended))),
        }
        Ok(())
    }

    /// The run of this node. A transport that cannot exchange runs leaves a node without a name for a run that has not
    /// been given one.
    fn run_id(&self) -> RunId {
        let unnamed = || RunId::from_text("unnamed").expect("a text that is a name");
        self.known_run.or_else(|| self.transport.run()).unwrap_or_else(unnamed)
    }

    /// This node takes part in the run, and belongs to it for good.
    fn confirm_run(&mut self) {
        if let Some(run) = self.known_run.or_else(|| self.transport.run()) {
            self.transport.set_run(run);
            self.known_run = Some(run);
            self.observer.set_run(run);
        }
    }

    fn view(&self) -> Arc<Storage> {
        self.compute.pool.share(self.machine.view())
    }

    // Observation

    /// Publishes a report, if there is a board and it is time, or the run has ended.
    fn report(&mut self) {
        if !self.observer.is_active() {
            return; // without a lock: this runs in every pump
        }
        if let Some((loss, accuracy)) = self.mailbox.take_progress() {
            self.observer.set_progress(loss, accuracy);
        }
        if self.state == RunState::Ended || self.observer.due_in() == Some(Duration::ZERO) {
            let (stage, times, examples) = self.stopwatch.read();
            let status = Status { times, ..self.machine.status() };
            self.observer.report(self.now(), stage, examples, status);
        }
    }

    fn status(&self) -> Status {
        Status { times: self.stopwatch.read().1, ..self.machine.status() }
    }

    fn link_changes(&mut self, peer: PeerId, link: PeerLink) {
        if let Some(known) = self.links.get_mut(peer.index()) {
            *known = link;
        }
    }

    /// Shows the machine's wait to the application, for the error of a call that waits too long.
    fn show_waiting(&mut self) {
        let waiting = self.machine.waiting();
        let link = waiting.and_then(|waiting| self.links.get(waiting.on.index())).copied();
        let shown = (waiting, link.unwrap_or(PeerLink::Connected), self.machine.awaited_silence());
        // Most pumps change nothing, and need no lock.
        if shown != self.shown {
            self.shown = shown;
            let silent_until = shown.2.map(|until| until.since(Moment::ORIGIN));
            self.mailbox.set_waiting(shown.0, shown.1, silent_until);
        }
    }
}

impl<T: Transport> Pump for Engine<T> {
    fn pump(&mut self, wait: Option<Duration>) -> Result<RunState, Error> {
        let answered = self.mailbox.answered();
        self.take_command()?;
        let mut idle = self.drain()?;
        if !self.maybe_save()? {
            idle = Idle::Device;
        }
        self.follow_wishes();
        if self.state == RunState::Ended {
            return Ok(RunState::Ended);
        }
        self.report();
        self.show_waiting();
        // Read once, so that the time of the wait and of the timeout's test below have the same origin.
        let elapsed = self.mailbox.elapsed();
        let (timeout, device) = match idle {
            Idle::Machine { until } => (until.map(|until| until.since(Moment::ORIGIN).saturating_sub(elapsed)), None),
            Idle::Device => (None, Some(DEVICE_POLL)),
        };
        // The call that waits for an answer may be on this thread. A device has ended its work only now.
        let given = (self.mailbox.answered() != answered).then_some(Duration::ZERO);
        let wait = [wait, timeout, device, self.observer.due_in(), given].into_iter().flatten().min();
        let polled = self.transport.poll(&mut self.compute.pool, wait);
        match polled.map_err(Error::Transport)? {
            Some(input) => {
                if let Input::Completed { op, .. } | Input::Aborted { op } = input {
                    self.observer.transfer_ends(op);
                }
                self.feed(input);
                match input {
                    Input::Connected { peer } => self.link_changes(peer, PeerLink::Connected),
                    Input::Disconnected { peer } => {
                        self.link_changes(peer, PeerLink::Lost);
                        self.abort_postponed(peer);
                    }
                    _ => {}
                }
            }
            // Only when it is due: the transport also returns after a wake-up, or for a report or a device.
            None if timeout.is_some_and(|timeout| self.mailbox.elapsed() >= elapsed.saturating_add(timeout)) => {
                self.feed(Input::Timeout);
            }
            None => {}
        }
        // Once more: a caller-driven session may not pump again for long, and peers wait for these outputs.
        let _ = self.drain()?;
        self.follow_wishes();
        Ok(self.state)
    }

    fn say_failed(&mut self, failure: Option<Failure>) {
        if let (Some(failure), RunState::Running) = (failure, self.state) {
            self.state = RunState::Ended;
            self.stopwatch.steps().mark(|meter, now| meter.ends(now, Stage::Failed));
            self.report();
            self.feed(Input::Fail { failure });
            // Dropping the transport sends the messages that it has queued. A further error changes nothing.
            let _ = self.drain();
        }
    }

    fn unsent(&self) -> u64 {
        self.transport.unsent()
    }

    fn set_caller_driven(&mut self, caller_driven: bool) {
        self.transport.set_caller_driven(caller_driven);
    }
}
