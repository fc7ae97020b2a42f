//! A worker's part in a run.

use std::path::Path;
use std::sync::Arc;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::kernel::scan;
use gradwire_core::recipe::{Codec, OptimizerState, Payload, Period};
use gradwire_core::{Cluster, Event, Layout, Local, PeerId, Pool, Recipe, Segment, Status, Storage};

use crate::builder::Builder;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::desk::{Answer, Command, Desk, Hand, Papers};
use crate::engine::{Pump, State};
use crate::error::Error;

/// A worker's part in a run, from joining to leaving.
///
/// After each batch, call [`step`](Self::step) with what is to be subtracted from the parameters, or, if your
/// optimizer works on them in place, [`sync`](Self::sync) with the parameters. Either waits only as long as the
/// recipe demands, and leaves in `params` what to go on from. Every wait has the builder's deadline and fails with the
/// name of whom it waits for. A session can be dropped at any time: its peers see it go.
#[derive(Debug)]
pub struct Session {
    pub(crate) layout: Layout,
    pub(crate) recipe: Recipe,
    pub(crate) local: Local,
    pub(crate) desk: Arc<Desk>,
    pub(crate) drive: Drive,
    pub(crate) deadline: Duration,
    pub(crate) optimizer_vectors: u32,
    /// Where the next contribution is written.
    pub(crate) spare: Option<Arc<Storage>>,
    pub(crate) steps: u64,
    /// Synchronisations done, by all or (where there are no rounds) by this worker.
    pub(crate) clock: u64,
    pub(crate) rank: PeerId,
    pub(crate) digest: u64,
    /// How often the run had been suspended when this session began.
    pub(crate) suspensions: u64,
    /// Contributions made, those before a suspension included.
    pub(crate) made: u64,
    /// It resumed, but the run had gone on without it.
    pub(crate) outdated: bool,
    /// It has ended, well or with an error.
    pub(crate) over: bool,
}

/// On whose thread the machine is driven.
pub(crate) enum Drive {
    Thread { thread: Option<JoinHandle<()>>, waker: Waker },
    Caller(Box<dyn Pump>),
}

impl Session {
    /// Begins to set a session up.
    pub fn builder(layout: Layout, recipe: Recipe, cluster: Cluster) -> Builder {
        Builder::new(layout, recipe, cluster)
    }

    /// One step of a caller that says what is to be subtracted from the parameters: `update`, after learning rate and
    /// optimizer, made from `examples` examples. Copies `update` once and `params` at most once. Allocates nothing.
    ///
    /// # Errors
    /// When a vector is not of the layout's length, or `update` is not finite: then nothing has changed. When the
    /// updates of a period add up to what is not finite: then `params` has diverged, and nothing was contributed. When
    /// a wait lasted longer than the deadline, or the run cannot go on: then the session has ended.
    pub fn step(&mut self, params: &mut [f32], update: &[f32], examples: u32) -> Result<(), Error> {
        self.check("update", update)?;
        self.check_length("params", params.len())?;
        self.check_vectors(0)?;
        self.steps += 1;
        let weight = self.local.step(params, update, examples, contribution(&mut self.spare));
        let looked_at = !self.local.can_tell_update();
        self.synchronise(params, &mut [], weight, looked_at)
    }

    /// One step of a caller whose optimizer has already changed `params`, from what this session last left there.
    ///
    /// # Errors
    /// As for [`step`](Self::step); and when `step` has been used before.
    pub fn sync(&mut self, params: &mut [f32], examples: u32) -> Result<(), Error> {
        self.sync_with(params, &mut [], examples)
    }

    /// Like [`sync`](Self::sync), with the vectors of optimizer state beside the parameters: each synchronisation
    /// averages them (`optimizer=average`), sets them to zero (`reset`) or leaves them alone (`keep`).
    ///
    /// # Errors
    /// As for [`sync`](Self::sync); and when the vectors are not those that the builder was told of.
    pub fn sync_with(&mut self, params: &mut [f32], state: &mut [&mut [f32]], examples: u32) -> Result<(), Error> {
        self.check("params", params)?;
        self.check_vectors(state.len())?;
        for vector in &*state {
            self.check("optimizer vector", vector)?;
        }
        if !self.local.can_tell_update() {
            return Err(Error::Mixed);
        }
        self.steps += 1;
        let weight = self.local.stepped(params, examples, contribution(&mut self.spare));
        self.synchronise(params, state, weight, self.recipe.payload() == Payload::Parameters)
    }

    /// One step of a caller whose vectors are where the executor's are, for instance on the same device: `give` puts what is to
    /// be subtracted at a segment of the executor's, and `take` gets the parameters from another, both in the order of the
    /// device's work. Nothing of the vectors need come to the host. `take` is not called when nothing has changed.
    ///
    /// For recipes that synchronise updates at every step and write them by a threshold: that refuses what is not finite
    /// element by element, and others would have to look at every float first.
    ///
    /// # Errors
    /// When the recipe is another; when `give` or `take` fails; and as for [`step`](Self::step).
    pub fn step_through(
        &mut self,
        examples: u32,
        give: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static,
        take: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static,
    ) -> Result<(), Error> {
        let coded = matches!(self.recipe.codec(), Codec::Threshold(_));
        if self.recipe.payload() != Payload::Updates || self.recipe.period() != Period::every(1) || !coded {
            return Err(Error::Through { got: self.recipe.to_string() });
        }
        self.check_vectors(0)?;
        if self.over {
            return Err(Error::Ended);
        }
        self.steps += 1;
        let Some(weight) = self.local.step_elsewhere(examples) else { return Ok(()) };
        self.made += u64::from(weight > 0);
        self.command(Command::Hand { weight, give: Hand(Box::new(give)), take: Hand(Box::new(take)) });
        let Answer::Ready { clock, .. } = self.answer("take a step")? else {
            unreachable!("a step is answered with ready")
        };
        self.clock = clock;
        Ok(())
    }

    /// Says that the learning rate is now `scale` times what it was at the start. Residuals hold updates, which have
    /// the learning rate in them: where a recipe sends quanta of a fixed size, they follow it, from the next step on.
    pub fn set_learning_rate(&mut self, scale: f32) {
        self.desk.lock().rate = Some(scale);
    }

    /// It resumed from a checkpoint, but a former self had taken part in the run since: its parameters are the others', and
    /// what its residual held is dropped, as it may have been sent.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Steps taken, those before a checkpoint included.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Writes a checkpoint of this worker below `directory`, from which [`Builder::resume`] goes on: `params` and the
    /// optimizer vectors `state` as the last step has left them. `Ok(false)`: local steps have been taken since the last
    /// synchronisation, and nothing is written; ask again after the next step. Every worker writes its own, at the same
    /// steps. For recipes of trees and rings; others are saved by [`suspend`](Self::suspend).
    ///
    /// # Errors
    /// When the recipe's workers share no rounds, a vector is not of the layout's length, or the disk says no: then
    /// older checkpoints are still there, and the session goes on.
    pub fn checkpoint(&mut self, directory: &Path, params: &[f32], state: &[&[f32]]) -> Result<bool, Error> {
        if !self.recipe.is_collective() {
            return Err(CheckpointError::NoRounds.into());
        }
        for vector in [params].iter().chain(state) {
            self.check_length("checkpoint", vector.len())?;
        }
        if !self.local.is_at_rest() {
            return Ok(false);
        }
        let vectors = std::iter::once(params).chain(state.iter().copied()).map(<[f32]>::to_vec).collect();
        let Self { digest, clock, steps, made, rank, .. } = *self;
        Checkpoint { digest, rank: rank.0, clock, steps, made, vectors, kept: Vec::new() }.write(directory)?;
        Ok(true)
    }

    /// Says for monitors how the training goes: the mean loss of training, and the accuracy, from 0 to 1, on examples that are
    /// not trained on; not a number where it is not known.
    pub fn progress(&mut self, loss: f32, accuracy: f32) {
        self.desk.lock().progress = Some((loss, accuracy));
    }

    /// A snapshot of numbers: clocks, staleness, traffic, who waits for whom. Allocates.
    ///
    /// # Errors
    /// When the session has ended.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.desk.lock().status_wanted = true;
        self.wake();
        self.wait("read the status", |papers| papers.status.take())
    }

    /// What happened since the last call: peers that joined or were lost, contributions that were refused, stalls. At
    /// most 256 are kept.
    pub fn events(&mut self) -> Vec<Event> {
        self.desk.lock().events.drain(..).collect()
    }

    /// For caller-driven sessions: carries communication on without waiting, for instance between the layers of a
    /// model. Does nothing for others.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub fn pump(&mut self) -> Result<(), Error> {
        if let (Drive::Caller(engine), false) = (&mut self.drive, self.over)
            && let Err(error) = engine.pump(Some(Duration::ZERO))
        {
            self.over = true;
            return Err(error);
        }
        Ok(())
    }

    /// Tells the peers that this node may not be heard of for `span` (a long validation, say) and should not be given up
    /// in the meantime. Sessions that are driven by their caller need it before they do not call for more than two fifths
    /// of `dead_after`; those on a thread of their own are heard of whatever the application does.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub fn busy(&mut self, span: Duration) -> Result<(), Error> {
        self.desk.lock().busy = Some(span);
        self.wake();
        self.pump()
    }

    /// Makes no more steps: what is left of a period is synchronised, what is left in a residual is sent, and the
    /// others are told. They go on without this worker.
    ///
    /// # Errors
    /// When a wait lasted longer than the deadline, or the run cannot go on.
    pub fn leave(mut self, params: &mut [f32]) -> Result<Status, Error> {
        self.rest(params)?;
        self.command(Command::Leave { stay: false, keep: false });
        while !matches!(self.answer("leave")?, Answer::Left { .. }) {}
        self.last_status()
    }

    /// Makes no more steps, and waits until all others make none either: then everyone has the same `params`.
    ///
    /// # Errors
    /// When a wait lasted longer than the deadline, or the run cannot go on.
    pub fn finish(mut self, params: &mut [f32]) -> Result<Status, Error> {
        self.end(params, "finish", false).map(|(status, _)| status)
    }

    /// Like [`finish`](Self::finish), but what is in residuals stays there, and all that this worker needs to go on is
    /// written to a checkpoint below `directory`: [`Builder::resume`] goes on as if nothing had happened between. Nothing
    /// is lost and nothing sent twice: what has been contributed is in everyone's parameters. Every worker suspends;
    /// servers write their part by [`Server::checkpoint`](crate::Server::checkpoint). `state`: the optimizer's vectors.
    ///
    /// For recipes of servers and meshes; trees and rings are saved by [`checkpoint`](Self::checkpoint) as they go.
    ///
    /// # Errors
    /// When the recipe has rounds that all share, a vector is not of the layout's length, a wait lasted longer than the
    /// deadline, the run cannot go on, or the disk says no: then `params` are everyone's all the same.
    pub fn suspend(mut self, directory: &Path, params: &mut [f32], state: &[&[f32]]) -> Result<Status, Error> {
        if self.recipe.is_collective() {
            return Err(CheckpointError::Rounds.into());
        }
        for vector in state {
            self.check_length("suspend", vector.len())?;
        }
        let (status, kept) = self.end(params, "suspend", true)?;
        let vectors = std::iter::once(&*params).chain(state.iter().copied()).map(<[f32]>::to_vec).collect();
        let Self { digest, steps, made, rank, .. } = self;
        let clock = self.suspensions + 1;
        Checkpoint { digest, rank: rank.0, clock, steps, made, vectors, kept }.write(directory)?;
        Ok(status)
    }

    /// Waits for the end of the run with everyone; says what is kept.
    fn end(&mut self, params: &mut [f32], what: &'static str, keep: bool) -> Result<(Status, Vec<Vec<u32>>), Error> {
        self.rest(params)?;
        self.command(Command::Leave { stay: true, keep });
        loop {
            match self.answer(what)? {
                Answer::Ready { view, changed, spare, .. } => {
                    self.local.take(params, view.floats(), changed);
                    let filled = spare.or_else(|| self.spare.take()).expect("a buffer comes back with every answer");
                    self.command(Command::Step { weight: 0, filled });
                }
                Answer::Left { view, kept } => {
                    params.copy_from_slice(&view.floats()[..params.len()]);
                    return Ok((self.last_status()?, kept));
                }
                Answer::Joined { .. } => unreachable!("a session joins once"),
            }
        }
    }

    fn last_status(&mut self) -> Result<Status, Error> {
        self.over = true;
        self.desk.lock().last.take().ok_or(Error::Ended)
    }

    /// Synchronises a period that has begun. With averaged optimizer vectors there is none to go with it, and what
    /// the others have is kept clean of it.
    fn rest(&mut self, params: &mut [f32]) -> Result<(), Error> {
        self.check_length("params", params.len())?;
        let weight = self.local.rest(params, contribution(&mut self.spare));
        self.synchronise(params, &mut [], weight.filter(|_| self.optimizer_vectors == 0), false)
    }

    /// Contributes what has been written, if it is time, and takes what comes of it.
    fn synchronise(
        &mut self,
        params: &mut [f32],
        state: &mut [&mut [f32]],
        weight: Option<u32>,
        looked_at: bool,
    ) -> Result<(), Error> {
        let Some(weight) = weight else { return if self.over { Err(Error::Ended) } else { Ok(()) } };
        let len = params.len();
        // Finite updates can add up to what is not. What travels as it was given has been looked at.
        if !looked_at {
            check_finite("contribution", &self.layout, &contribution(&mut self.spare)[..len])?;
        }
        let tail = &mut contribution(&mut self.spare)[len..];
        for (into, vector) in tail.chunks_mut(len).zip(&*state) {
            into.copy_from_slice(vector);
        }
        let filled = self.spare.take().expect("a session at rest has a spare buffer");
        self.made += u64::from(weight > 0);
        self.command(Command::Step { weight, filled });
        let Answer::Ready { clock, view, changed, spare } = self.answer("take a step")? else {
            unreachable!("a step is answered with ready")
        };
        self.clock = clock;
        self.spare = spare;
        self.local.take(params, view.floats(), changed);
        match self.recipe.optimizer() {
            OptimizerState::Average if changed => {
                for (vector, from) in state.iter_mut().zip(view.floats()[len..].chunks(len)) {
                    vector.copy_from_slice(from);
                }
            }
            OptimizerState::Reset => state.iter_mut().for_each(|vector| vector.fill(0.0)),
            OptimizerState::Average | OptimizerState::Keep => {}
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        self.desk.lock().command = Some(command);
        self.wake();
    }

    pub(crate) fn answer(&mut self, what: &'static str) -> Result<Answer, Error> {
        self.wait(what, |papers| papers.answer.take())
    }

    fn wake(&self) {
        if let Drive::Thread { waker, .. } = &self.drive {
            waker.wake_by_ref();
        }
    }

    fn wait<R>(&mut self, what: &'static str, found: impl FnMut(&mut Papers) -> Option<R>) -> Result<R, Error> {
        if self.over {
            return Err(Error::Ended);
        }
        let result = self.drive.wait(&self.desk, what, self.deadline, found);
        self.over = result.is_err();
        result
    }

    fn check(&self, what: &'static str, vector: &[f32]) -> Result<(), Error> {
        self.check_length(what, vector.len())?;
        check_finite(what, &self.layout, vector)
    }

    fn check_length(&self, what: &'static str, got: usize) -> Result<(), Error> {
        if self.over {
            return Err(Error::Ended);
        }
        let expected = self.layout.len();
        if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
    }

    /// Vectors to average must be given; vectors to reset or keep may be.
    fn check_vectors(&self, got: usize) -> Result<(), Error> {
        let average = self.recipe.optimizer() == OptimizerState::Average;
        let (expected, got) = (self.optimizer_vectors, got as u32);
        if average && expected != got {
            return Err(Error::OptimizerVectors { expected, got });
        }
        Ok(())
    }
}

/// The spare buffer, to write to.
fn contribution(spare: &mut Option<Arc<Storage>>) -> &mut [f32] {
    let spare = spare.as_mut().expect("a session at rest has a spare buffer");
    Arc::make_mut(spare).floats_mut()
}

/// Refuses a vector with a float that is not finite, and says where.
pub(crate) fn check_finite(what: &'static str, layout: &Layout, vector: &[f32]) -> Result<(), Error> {
    let Some(index) = scan::first_non_finite(vector) else { return Ok(()) };
    let (tensor, within) = layout.locate(index).unwrap_or(("", index));
    Err(Error::NonFinite { what, tensor: tensor.to_string(), index: within, got: vector[index] })
}

impl Drive {
    /// Waits for something on the desk, driving the machine meanwhile if nobody else does.
    pub(crate) fn wait<R>(
        &mut self,
        desk: &Desk,
        what: &'static str,
        deadline: Duration,
        mut found: impl FnMut(&mut Papers) -> Option<R>,
    ) -> Result<R, Error> {
        let engine = match self {
            Self::Thread { .. } => return desk.wait(what, deadline, found),
            Self::Caller(engine) => engine,
        };
        let begun = Clock::now();
        loop {
            // What there is to do is done before the first wait.
            let rest = deadline.saturating_sub(begun.elapsed());
            let state = engine.pump(Some(Duration::ZERO))?;
            if let Some(result) = found(&mut desk.lock()) {
                return Ok(result);
            }
            if rest.is_zero() || state == State::Done {
                return Err(desk.overdue(&desk.lock(), what, begun.elapsed()));
            }
            engine.pump(Some(rest))?;
            if let Some(result) = found(&mut desk.lock()) {
                return Ok(result);
            }
        }
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if let Self::Thread { thread, waker } = self {
            waker.wake_by_ref();
            // A panic of the driver has been told as a failure.
            let _ = thread.take().map(JoinHandle::join);
        }
    }
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Thread { .. } => "Thread",
            Self::Caller(_) => "Caller",
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.desk.lock().stop = true;
    }
}
