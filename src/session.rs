//! [`Session`]: a worker's part in a run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gradwire_core::kernel::executor::{Executor, Failure};
use gradwire_core::recipe::{Codec, OptimizerState, Payload, Period};
use gradwire_core::{Event, Layout, Local, Pool, Recipe, Segment, Status, Storage};

use crate::check;
use crate::checkpoint::{Checkpoint, CheckpointError, NodeIdentity};
use crate::drive::Drive;
use crate::error::Error;
use crate::mailbox::{
    Departure, DeviceCopy, Ended, ExpectSilence, Joined, Leave, NextRound, Save, Saved, SilenceAnnounced, Step,
    StepThrough, Stepped, SteppedThrough,
};

/// A worker's part in a run, from joining to leaving.
///
/// After each batch, call [`step`](Self::step) with the update to subtract from the parameters, or [`sync`](Self::sync)
/// if your optimizer changes the parameters in place. Both wait only as long as the recipe demands, and leave in
/// `params` the parameters to compute the next batch with. A run ends with [`finish`](Self::finish).
///
/// Each wait has the builder's deadline. A call that reaches it fails with [`Error::Deadline`], which names the peer
/// that the machine waits for. An error of a wait ends the session; later calls return [`Error::Ended`]. A session can
/// be dropped at any time: its peers see the connection close.
///
/// ```
/// use gradwire::{Cluster, Error, Layout, Mem, Recipe, Session};
///
/// // Minimises (x - target)² with the targets 1 and 3 on two workers: the mean of the gradients leads to x = 2.
/// fn train(target: f32, transport: Mem) -> Result<f32, Error> {
///     let cluster = Cluster { workers: 2, servers: 0 };
///     let mut params = vec![0.0];
///     let mut session = Session::builder(Layout::flat(1), Recipe::sync(), cluster).join(transport, &mut params)?;
///     for _ in 0..50 {
///         let gradient = 2.0 * (params[0] - target);
///         session.step(&mut params, &[0.1 * gradient], 1)?;
///     }
///     session.finish(&mut params)?;
///     Ok(params[0])
/// }
///
/// let workers = Mem::cluster(2).into_iter().zip([1.0, 3.0]);
/// let threads: Vec<_> =
///     workers.map(|(transport, target)| std::thread::spawn(move || train(target, transport))).collect();
/// for thread in threads {
///     assert!((thread.join().unwrap()? - 2.0).abs() < 1e-3);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    layout: Layout,
    recipe: Recipe,
    /// Counts local steps, and fills contributions.
    local: Local,
    drive: Drive,
    /// Optimizer vectors that travel behind the parameters.
    optimizer_vectors: u32,
    /// The buffer for the next contribution. The engine has it during a call; after a failed one it is gone.
    spare: Option<Arc<Storage>>,
    /// The learning rate as a multiple of the one at the start, if it has changed since the last contribution.
    rate: Option<f32>,
    /// Steps taken, including those before a checkpoint.
    steps: u64,
    /// The machine's clock: rounds done in trees and rings, else synchronisations of this worker.
    clock: u64,
    /// Contributions made, including those before a checkpoint.
    contributions: u64,
    identity: NodeIdentity,
    /// How often the run had been suspended when this session began.
    suspensions: u64,
    outdated: bool,
}

impl Session {
    /// Waits until the engine has joined. `params` receives the parameters to start from.
    pub(crate) fn enter(
        layout: Layout,
        recipe: Recipe,
        optimizer_vectors: u32,
        identity: NodeIdentity,
        mut drive: Drive,
        from: Option<&Checkpoint>,
        params: &mut [f32],
    ) -> Result<Self, Error> {
        let Joined { clock, view, spare, outdated } = drive.wait_for("join")?;
        let mut local = Local::new(recipe);
        let mut suspensions = 0;
        if let Some(checkpoint) = from {
            if !recipe.is_collective() {
                suspensions = checkpoint.clock;
            } else if clock != checkpoint.clock {
                return Err(CheckpointError::Moment { expected: clock, got: checkpoint.clock }.into());
            }
            local.resume(checkpoint.steps);
        }
        local.start(params, view.floats());
        Ok(Self {
            layout,
            recipe,
            local,
            drive,
            optimizer_vectors,
            spare: Some(spare),
            rate: None,
            steps: from.map_or(0, |from| from.steps),
            clock,
            contributions: from.map_or(0, |from| from.contributions),
            identity,
            suspensions,
            outdated,
        })
    }

    // Training

    /// Takes one step with `update`, which is subtracted from the parameters: the gradient after learning rate and
    /// optimizer, computed from `examples` examples. Copies `update` once and `params` at most once. Allocates nothing.
    ///
    /// # Errors
    /// If a vector has another length than the layout, or `update` has an element that is not finite: then nothing has
    /// changed. If the updates of a period add up to a value that is not finite: then `params` have diverged, and
    /// nothing was contributed. If a wait reaches the deadline, or the run cannot go on: then the session has ended.
    pub fn step(&mut self, params: &mut [f32], update: &[f32], examples: u32) -> Result<(), Error> {
        self.check_vector("update", update)?;
        self.check_length("params", params.len())?;
        self.check_optimizer_vectors(0)?;
        self.steps += 1;
        let weight = self.local.step(params, update, examples, contribution(&mut self.spare));
        // Without a base, the contribution is `update` itself, which has been checked above.
        let checked = !self.local.can_tell_update();
        self.synchronise(params, &mut [], weight, checked)
    }

    /// Takes one step with an optimizer that has already changed `params`, starting from the values that this session
    /// left there. Copies `params` at most twice.
    ///
    /// # Errors
    /// As for [`step`](Self::step). Also if an earlier call to `step` dropped the values that the update is computed
    /// from.
    pub fn sync(&mut self, params: &mut [f32], examples: u32) -> Result<(), Error> {
        self.sync_with(params, &mut [], examples)
    }

    /// As [`sync`](Self::sync), with the vectors of optimizer state. Each synchronisation averages them
    /// (`optimizer=average`), sets them to zero (`reset`) or leaves them as they are (`keep`).
    ///
    /// # Errors
    /// As for [`sync`](Self::sync). Also if a recipe that averages gets another number of vectors than
    /// [`Builder::optimizer_vectors`](crate::Builder::optimizer_vectors) has set.
    pub fn sync_with(&mut self, params: &mut [f32], state: &mut [&mut [f32]], examples: u32) -> Result<(), Error> {
        self.check_vector("params", params)?;
        self.check_optimizer_vectors(state.len())?;
        for vector in &*state {
            self.check_vector("optimizer vector", vector)?;
        }
        if !self.local.can_tell_update() {
            return Err(Error::Mixed);
        }
        self.steps += 1;
        let weight = self.local.stepped(params, examples, contribution(&mut self.spare));
        // Parameters travel as they were given, and have been checked. Differences can overflow.
        let checked = self.recipe.payload() == Payload::Parameters;
        self.synchronise(params, state, weight, checked)
    }

    /// Takes one step with vectors in the executor's memory, for instance on the same GPU, without a copy on the host.
    /// `give` writes the update to a segment of the executor's buffers; `take` reads the parameters from another one.
    /// Both run on the thread that drives the machine, in the order of the device's work. `take` is not called if the
    /// parameters have not changed. Boxes both functions.
    ///
    /// Only for recipes that synchronise updates at every step and encode them by a threshold. The threshold kernel
    /// refuses values that are not finite one by one; the other codecs would need the whole vector checked first.
    ///
    /// # Errors
    /// If the recipe is another one, if `give` or `take` fails, and as for [`step`](Self::step).
    pub fn step_through(
        &mut self,
        examples: u32,
        give: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), Failure> + Send + 'static,
        take: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Error> {
        let coded = matches!(self.recipe.codec(), Codec::Threshold(_));
        if self.recipe.payload() != Payload::Updates || self.recipe.period() != Period::every(1) || !coded {
            return Err(Error::Through { got: self.recipe.to_string() });
        }
        self.check_optimizer_vectors(0)?;
        self.drive.check()?;
        self.steps += 1;
        let Some(weight) = self.local.step_elsewhere(examples) else { return Ok(()) };
        self.contributions += u64::from(weight > 0);
        let (give, take) = (DeviceCopy(Box::new(give)), DeviceCopy(Box::new(take)));
        let request = StepThrough { weight, rate: self.rate.take(), give, take };
        let SteppedThrough { clock } = self.drive.call("take a step", request)?;
        self.clock = clock;
        Ok(())
    }

    /// Sets the learning rate to `scale` times the one at the start, from the next step on. Residuals hold updates,
    /// which include the learning rate: a recipe with a fixed threshold scales the threshold with it.
    pub fn set_learning_rate(&mut self, scale: f32) {
        self.rate = Some(scale);
    }

    // Observation

    /// True if this session resumed from a checkpoint that is older than the run: an earlier process of this rank had
    /// rejoined after it. The parameters then come from the other workers, and the checkpoint's residual was dropped,
    /// since the earlier process may have sent it.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Steps taken, including those before the checkpoint that the session resumed from.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Reports the state of the training to monitors: the mean training loss, and the accuracy from 0 to 1 on examples
    /// that are not trained on. NaN where a value is not known. Without
    /// [`Builder::publish_to`](crate::Builder::publish_to), it has no effect.
    pub fn report_progress(&mut self, loss: f32, accuracy: f32) {
        self.drive.report_progress(loss, accuracy);
    }

    /// A snapshot of this node's status: clocks, staleness, traffic, the peer that it waits for. Allocates.
    ///
    /// # Errors
    /// If the session has ended, or its engine does not answer by the deadline.
    pub fn status(&mut self) -> Result<Status, Error> {
        self.drive.status()
    }

    /// The events since the last call: peers that joined or were lost, views, refused contributions, stalls. At most
    /// the newest 256 are held.
    pub fn events(&mut self) -> Vec<Event> {
        self.drive.events()
    }

    /// For [caller-driven](crate::Builder::caller_driven) sessions: carries on the communication without waiting, for
    /// instance between two layers of a model. Has no effect on other sessions.
    ///
    /// # Errors
    /// If the run cannot go on.
    pub fn pump(&mut self) -> Result<(), Error> {
        self.drive.pump()
    }

    /// Tells the peers that this node may be silent for `span`, for instance during a long validation, and must not be
    /// given up meanwhile. A [caller-driven](crate::Builder::caller_driven) session needs this before it makes no call
    /// for more than two fifths of `dead_after`. A session with a thread of its own is never silent.
    ///
    /// # Errors
    /// If the run cannot go on.
    pub fn expect_silence(&mut self, span: Duration) -> Result<(), Error> {
        let SilenceAnnounced = self.drive.call("announce a silence", ExpectSilence(span))?;
        // The message to the peers is only queued so far. Before the caller goes silent, it has to leave.
        self.drive.pump()
    }

    // Leaving

    /// Leaves the run, which goes on without this worker. Contributes the rest of a period that has begun and the
    /// residual, if there is one. `params` are then this worker's last ones. Returns the last status.
    ///
    /// # Errors
    /// If `params` have another length than the layout, a wait reaches the deadline, or the run cannot go on.
    pub fn leave(mut self, params: &mut [f32]) -> Result<Status, Error> {
        self.contribute_rest(params)?;
        Ok(self.depart(params, "leave", false, false)?.status)
    }

    /// Makes no more contributions, and waits until all workers have left. Then all of them have the same `params`.
    /// Returns the last status.
    ///
    /// # Errors
    /// If `params` have another length than the layout, a wait reaches the deadline, or the run cannot go on.
    pub fn finish(mut self, params: &mut [f32]) -> Result<Status, Error> {
        self.contribute_rest(params)?;
        Ok(self.depart(params, "finish", true, false)?.status)
    }

    /// As [`finish`](Self::finish), but leaves residuals in their buffers and writes everything that this worker needs
    /// to go on to a checkpoint below `directory`. [`Builder::resume`](crate::Builder::resume) goes on from there; no
    /// contribution is lost or counted twice. `state`: the optimizer's vectors. Every worker suspends, and each server
    /// writes its part with [`Server::checkpoint`](crate::Server::checkpoint).
    ///
    /// For recipes of servers and meshes. Trees and rings write [`checkpoint`](Self::checkpoint)s while the run goes
    /// on.
    ///
    /// # Errors
    /// If the recipe is one of trees or rings, a vector has another length than the layout, a wait reaches the
    /// deadline, the run cannot go on, or on an I/O error. After an I/O error, `params` are still the common final
    /// parameters.
    pub fn suspend(mut self, directory: &Path, params: &mut [f32], state: &[&[f32]]) -> Result<Status, Error> {
        if self.recipe.is_collective() {
            return Err(CheckpointError::Rounds.into());
        }
        for vector in state {
            self.check_length("suspend", vector.len())?;
        }
        self.contribute_rest(params)?;
        let Ended { saved, status, .. } = self.depart(params, "suspend", true, true)?;
        self.snapshot(self.suspensions + 1, params, state, saved).write(directory)?;
        Ok(status)
    }

    /// Writes a checkpoint of this worker below `directory`, while the run goes on.
    /// [`Builder::resume`](crate::Builder::resume) goes on from there. `params` and the optimizer vectors `state` are
    /// as the last step has left them. Every worker writes its own, after the same steps. Copies all vectors.
    ///
    /// Returns false and writes nothing if local steps have been taken since the last synchronisation; try again after
    /// the next step.
    ///
    /// For recipes of trees and rings. Servers and meshes have no moment that all workers share; they use
    /// [`suspend`](Self::suspend).
    ///
    /// # Errors
    /// If the recipe is one of servers or a mesh, a vector has another length than the layout, or on an I/O error: then
    /// older checkpoints are intact, and the session goes on. If the run cannot go on: then the session has ended.
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
        let Saved(saved) = self.drive.call("save the machine's buffers", Save)?;
        self.snapshot(self.clock, params, state, saved).write(directory)?;
        Ok(true)
    }

    fn snapshot(&self, clock: u64, params: &[f32], state: &[&[f32]], saved: Vec<Vec<u32>>) -> Checkpoint {
        let NodeIdentity { digest, rank } = self.identity;
        Checkpoint {
            digest,
            rank: rank.0,
            clock,
            steps: self.steps,
            contributions: self.contributions,
            vectors: [params].iter().chain(state).map(|vector| vector.to_vec()).collect(),
            saved,
        }
    }

    // Calls to the engine

    /// Sends [`Leave`], and takes part in rounds without contributions until this worker has left. The deadline counts
    /// from the last round. With `stay`, `params` receive the final parameters.
    fn depart(&mut self, params: &mut [f32], purpose: &'static str, stay: bool, keep: bool) -> Result<Ended, Error> {
        let leave = Leave { stay, keep, rate: self.rate.take() };
        let mut departure = self.drive.call(purpose, leave)?;
        loop {
            match departure {
                Departure::Left(ended) => {
                    if stay {
                        params.copy_from_slice(&ended.view.floats()[..params.len()]);
                    }
                    return Ok(ended);
                }
                // Taken at once, so that a failure of the next round leaves `params` at the last one that is done.
                Departure::Round { view, changed } => self.local.take(params, view.floats(), changed),
            }
            departure = self.drive.call(purpose, NextRound)?;
        }
    }

    /// Contributes the rest of a period that has begun.
    fn contribute_rest(&mut self, params: &mut [f32]) -> Result<(), Error> {
        self.check_length("params", params.len())?;
        let weight = self.local.rest(params, contribution(&mut self.spare));
        // Averaged optimizer vectors are not at hand here. Without them a contribution would spoil the others' average.
        self.synchronise(params, &mut [], weight.filter(|_| self.optimizer_vectors == 0), false)
    }

    /// Contributes the vector in the spare buffer, if the local period is over (`weight` is some), and takes the
    /// resulting parameters. `checked`: all of its elements are known to be finite.
    fn synchronise(
        &mut self,
        params: &mut [f32],
        state: &mut [&mut [f32]],
        weight: Option<u32>,
        checked: bool,
    ) -> Result<(), Error> {
        let Some(weight) = weight else { return Ok(()) };
        let len = params.len();
        // Finite updates can add up to an infinity, and peers would refuse or spread it.
        if !checked {
            check::finite("contribution", &self.layout, &contribution(&mut self.spare)[..len])?;
        }
        let tail = &mut contribution(&mut self.spare)[len..];
        for (into, vector) in tail.chunks_mut(len).zip(&*state) {
            into.copy_from_slice(vector);
        }
        self.contributions += u64::from(weight > 0);
        let filled = self.spare.take().expect(HAS_SPARE);
        let request = Step { weight, filled, rate: self.rate.take() };
        let Stepped { clock, view, changed, spare } = self.drive.call("take a step", request)?;
        self.clock = clock;
        self.spare = Some(spare);
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

    // Checks

    fn check_vector(&self, what: &'static str, vector: &[f32]) -> Result<(), Error> {
        self.check_length(what, vector.len())?;
        check::finite(what, &self.layout, vector)
    }

    /// Refuses a vector of another length, and every call after a failure.
    fn check_length(&self, what: &'static str, got: usize) -> Result<(), Error> {
        self.drive.check()?;
        check::length(what, self.layout.len(), got)
    }

    /// A recipe that averages optimizer vectors needs all of them. For other recipes they are optional.
    fn check_optimizer_vectors(&self, got: usize) -> Result<(), Error> {
        let (expected, got) = (self.optimizer_vectors, got as u32);
        if self.recipe.optimizer() == OptimizerState::Average && expected != got {
            return Err(Error::OptimizerVectors { expected, got });
        }
        Ok(())
    }
}

const HAS_SPARE: &str = "a session that has not failed has a spare buffer between calls";

/// The spare buffer, for writing. Copies nothing: the engine has given its reference up.
fn contribution(spare: &mut Option<Arc<Storage>>) -> &mut [f32] {
    Arc::make_mut(spare.as_mut().expect(HAS_SPARE)).floats_mut()
}
