//! [`Session`]: a worker's part in a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gradwire_core::kernel::executor::{Executor, ExecutorError};
use gradwire_core::recipe::{Codec, Hint, OptimizerState, Payload, Period};
use gradwire_core::{Event, Pool, RunId, Segment, Status};

use crate::check;
use crate::checkpoint::{Checkpoint, CheckpointError, NodeIdentity, NoticeCallback, Store};
use crate::error::Error;
use crate::exchange::{Beginning, Exchange};
use crate::mailbox::{DeviceCopy, Ended, ExpectSilence, Save, Saved, SilenceAnnounced};
use crate::parts::MeanParts;
use crate::waits::{Canceller, WaitKind};
use crate::watch::EventCallback;

/// The outcome of [`Session::mean`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[must_use = "after `Adopted`, the caller must not take a step"]
pub enum Mean {
    /// The vector is the mean of the round: take a step with it.
    Given,
    /// Another worker's parameters and optimizer vectors have replaced this worker's: take no step. The vector is
    /// unchanged.
    Adopted,
}

/// A worker's part in a run, from joining to leaving.
///
/// After each batch, call [`step`](Self::step) with the update to subtract from the parameters, or [`sync`](Self::sync)
/// if your optimizer changes the parameters in place. Both wait only as long as the recipe demands, and leave in
/// `params` the parameters to compute the next batch with. A run ends with [`finish`](Self::finish).
///
/// Each wait has the builder's deadline for its kind. A call that reaches it fails with [`Error::Deadline`], which
/// names the peer that the machine waits for. A [`Canceller`] ends waits earlier. An error of a wait ends the session;
/// later calls return [`Error::Ended`]. A session can be dropped at any time: its peers are told that it has ended
/// without leaving, and why if its last call was refused because of a vector that is not finite.
///
/// # Memory
///
/// In vectors of the parameters' length, beside the caller's own:
///
/// | recipe | vectors | what they are |
/// |---|---|---|
/// | servers, a window of one (`hardsync`, `async`, `softsync`) | 3 | parameters, contribution, the buffer for the next contribution |
/// | servers, a window of two (`ssp`) | 5 | as well the servers' parameters, and a second contribution under way |
/// | mesh without rounds | 5 | parameters, contribution, base, ledger, residual |
/// | ring, tree | 3 | parameters, those after the round, contribution |
/// | tree with `payload=gradients` or `merge=adasum` | 3, and 1 for each child | as well the parts of the children |
///
/// Rings and trees have the chunks under way as well: few, unless the link has a long delay. A codec at servers adds its
/// residual, and momentum before a codec its velocity. In a mesh, buffers of messages and the memory of the encoder are
/// there while they are used. A message that takes every element, as in a warm-up, needs two vectors more while it is
/// encoded, and half a vector until all members have it. A member that enters needs a second ledger meanwhile, and so does
/// its donor. Counts above 32 bits add a vector to the ledger. With an executor on a device, meshes, rings and trees have a
/// buffer for the next contribution as well. An [`OwnedSession`](crate::OwnedSession) of a ring or tree needs no vector of
/// the caller.
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
    pub(crate) exchange: Exchange,
    /// Steps taken, including the steps before a checkpoint.
    pub(crate) steps: u64,
    identity: NodeIdentity,
    notices: NoticeCallback,
    /// The moment at which this session began: of a checkpoint, or the clock of a run that it has joined.
    begun_at: u64,
    /// The directory and the run of the last checkpoint, and their store. Its half-written files have been removed.
    store: Option<(PathBuf, RunId, Store)>,
    /// The synchronisations of each worker before this session joined.
    joined_at: u64,
    /// How often the run had been suspended when this session began.
    suspensions: u64,
    outdated: bool,
    /// The hint that the recipe's `optimizer=reset` has no effect, until it is given.
    keeps_optimizer: Option<EventCallback>,
}

impl Session {
    /// Waits until the engine has joined. `params` receives the parameters to start from.
    pub(crate) fn enter(
        mut exchange: Exchange,
        identity: NodeIdentity,
        params: &mut [f32],
        state: &mut [&mut [f32]],
        notices: NoticeCallback,
        callback: EventCallback,
    ) -> Result<Self, Error> {
        let beginning = exchange.join()?;
        exchange.start(params, &beginning.view);
        let Beginning { adopted, restored, .. } = &beginning;
        for (into, vector) in state.iter_mut().zip(adopted.iter().skip(1)) {
            into.copy_from_slice(vector.floats());
        }
        let vectors = restored.iter().filter(|_| adopted.is_empty()).flat_map(|checkpoint| &checkpoint.vectors[1..]);
        for (into, vector) in state.iter_mut().zip(vectors) {
            check::length("resume", vector.len(), into.len())?;
            into.copy_from_slice(vector);
        }
        Ok(Self::begun(exchange, &beginning, identity, notices, callback))
    }

    /// A session whose exchange has joined.
    pub(crate) fn begun(
        exchange: Exchange,
        &Beginning { ref restored, moment, outdated, .. }: &Beginning,
        identity: NodeIdentity,
        notices: NoticeCallback,
        callback: EventCallback,
    ) -> Self {
        let steps = restored.as_ref().map_or(0, |checkpoint| checkpoint.steps);
        // The clock of a checkpoint counts rounds in a collective, and suspensions elsewhere.
        let begun_at = if exchange.recipe().is_collective() { exchange.clock() } else { moment };
        let joined_at = exchange.clock();
        let resets = exchange.recipe().optimizer() == OptimizerState::Reset;
        let keeps_optimizer = resets.then_some(callback);
        let (store, suspensions) = (None, moment);
        Self { exchange, steps, identity, notices, begun_at, store, joined_at, suspensions, outdated, keeps_optimizer }
    }

    // Training

    /// Takes one step with `update`, which is subtracted from the parameters: the gradient after learning rate and
    /// optimizer, computed from `examples` examples. With `optimizer=reset`, it gives [`Hint::OptimizerKept`] once: it does
    /// not have the optimizer's state, which [`sync_with`](Self::sync_with) resets. Copies `update` once and `params` at most once. Allocates nothing.
    ///
    /// # Errors
    /// If a vector has another length than the layout, or `update` has an element that is not finite: then nothing has
    /// changed. If the updates of a period add up to a value that is not finite: then `params` have diverged, and
    /// nothing was contributed. If a wait reaches the deadline, or the run cannot go on: then the session has ended.
    pub fn step(&mut self, params: &mut [f32], update: &[f32], examples: u32) -> Result<(), Error> {
        self.exchange.check_payload("step", false)?;
        self.exchange.check_length("update", update.len())?;
        self.exchange.check_length("params", params.len())?;
        self.exchange.check_optimizer_vectors(0)?;
        let due = self.exchange.step_locally(params, update, examples)?;
        self.hint_at_kept_optimizer();
        self.steps += 1;
        self.exchange.synchronise(params, &mut [], due)?;
        self.exchange.count(true, examples.into());
        Ok(())
    }

    /// The recipe says that synchronisations reset the optimizer's state, which this call has not been given.
    pub(crate) fn hint_at_kept_optimizer(&mut self) {
        if let Some(callback) = self.keeps_optimizer.take() {
            let hint = Event::Hint(Hint::OptimizerKept);
            callback.call(hint);
            self.exchange.drive().push_event(hint);
        }
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
        self.exchange.check_payload("sync", false)?;
        self.exchange.check_length("params", params.len())?;
        self.exchange.check_optimizer_vectors(state.len())?;
        self.exchange.check_base()?;
        for vector in &*state {
            self.exchange.check_vector("optimizer vector", vector)?;
        }
        let due = self.exchange.stepped_locally(params, examples)?;
        if state.is_empty() {
            self.hint_at_kept_optimizer();
        }
        self.steps += 1;
        self.exchange.synchronise(params, state, due)?;
        self.exchange.count(true, examples.into());
        Ok(())
    }

    /// Takes part in a round with a gradient, for recipes with `payload=gradients`. `vector` holds the gradient of
    /// `examples` examples, and receives the mean of all workers' gradients, weighted by examples: the same bits at all
    /// workers. The library changes no parameters. The caller then takes a step with the mean, as all workers do.
    ///
    /// `params` and the optimizer vectors `optimizer` are the state from which the gradient was computed. A newcomer
    /// gets them from the worker that it joins, so each call copies them once. [`Mean::Adopted`]: the run has gone on
    /// without this worker, which was thought lost. Its gradient was dropped, and `params` and `optimizer` now hold the
    /// other workers' state after their last step. The caller takes no step, and computes the next gradient from this
    /// state.
    ///
    /// With 0 examples, `vector` is not read. If all have 0 examples, the mean is 0. The step number of an optimizer
    /// such as Adam is [`rounds`](Self::rounds), also at a newcomer. Allocates nothing.
    ///
    /// # Errors
    /// If the recipe has another payload, a vector has another length than the layout, `vector` has an element that is
    /// not finite, or there is another number of optimizer vectors than
    /// [`Builder::optimizer_vectors`](crate::Builder::optimizer_vectors) has set: then nothing has changed. If a wait
    /// reaches the deadline, or the run cannot go on: then the session has ended.
    pub fn mean(
        &mut self,
        vector: &mut [f32],
        examples: u32,
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
    ) -> Result<Mean, Error> {
        self.exchange.check_payload("mean", true)?;
        self.exchange.check_length("gradient", vector.len())?;
        self.exchange.check_state(params, optimizer)?;
        let given = self.exchange.mean(vector, examples, params, optimizer)?;
        self.steps += u64::from(given);
        Ok(if given { Mean::Given } else { Mean::Adopted })
    }

    /// As [`mean`](Self::mean), with a gradient that is given range by range: a range travels while the next is
    /// computed. `params` and `optimizer` are the state from which the gradient of `examples` examples is computed; they
    /// are copied, and stay unchanged until [`MeanParts::finish`]. The mean is that of [`mean`](Self::mean), bit for bit.
    ///
    /// A backward pass gives its last layer first. In trees and rings, chunks of it are added up by the peers that have
    /// it too, before the first layer is computed. Workers need not give the same ranges, in the same order, or ranges at
    /// all; but workers that do so overlap more.
    ///
    /// ```
    /// use gradwire::{Cluster, Error, Layout, Mean, Mem, Recipe, Session};
    ///
    /// // A chain of two linear layers, y = b * a * x: the gradient of b is there before that of a.
    /// fn train(x: f32, transport: Mem) -> Result<[f32; 2], Error> {
    ///     let layout = Layout::new().tensor("a", &[1]).tensor("b", &[1]);
    ///     let cluster = Cluster { workers: 2, servers: 0 };
    ///     let recipe = Recipe::preset("gradients").expect("a preset");
    ///     let (mut params, mut gradient) = ([0.5, 0.5], [0.0; 2]);
    ///     let mut session = Session::builder(layout, recipe, cluster).join(transport, &mut params)?;
    ///     while session.rounds() < 200 {
    ///         let [a, b] = params;
    ///         let mut parts = session.begin_mean(1, &params, &[])?;
    ///         let error = b * a * x - 3.0 * x; // of the output, which should be 3 x
    ///         parts.give("b", &[error * a * x])?;
    ///         parts.give("a", &[error * b * x])?;
    ///         if parts.finish(&mut gradient, &mut params, &mut [])? == Mean::Given {
    ///             params.iter_mut().zip(gradient).for_each(|(p, g)| *p -= 0.1 * g);
    ///         }
    ///     }
    ///     session.finish(&mut params)?;
    ///     Ok(params)
    /// }
    ///
    /// let workers = Mem::cluster(2).into_iter().zip([1.0, -0.5]);
    /// let threads: Vec<_> = workers.map(|(transport, x)| std::thread::spawn(move || train(x, transport))).collect();
    /// for thread in threads {
    ///     let [a, b] = thread.join().unwrap()?;
    ///     assert!((a * b - 3.0).abs() < 1e-3);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the recipe has another payload, a vector has another length than the layout, or there is another number of
    /// optimizer vectors than [`Builder::optimizer_vectors`](crate::Builder::optimizer_vectors) has set: then nothing has
    /// changed. If the run cannot go on: then the session has ended.
    pub fn begin_mean(&mut self, examples: u32, params: &[f32], optimizer: &[&[f32]]) -> Result<MeanParts<'_>, Error> {
        self.exchange.check_payload("begin_mean", true)?;
        self.exchange.check_state(params, optimizer)?;
        self.exchange.begin_mean(examples, params, optimizer)?;
        Ok(MeanParts::new(&mut self.exchange, &mut self.steps))
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
        give: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static,
        take: impl FnOnce(&mut dyn Executor, Segment, &mut Pool) -> Result<(), ExecutorError> + Send + 'static,
    ) -> Result<(), Error> {
        let recipe = self.exchange.recipe();
        let coded = matches!(recipe.codec(), Codec::Threshold(_));
        let every_step = recipe.period() == Period::every(1) && recipe.fetch().is_none_or(|steps| steps == 1);
        if recipe.payload() != Payload::Updates || !every_step || !coded {
            return Err(Error::Through { got: recipe.to_string() });
        }
        self.exchange.check_optimizer_vectors(0)?;
        self.exchange.drive().check()?;
        self.steps += 1;
        self.exchange.step_through(examples, DeviceCopy(Box::new(give)), DeviceCopy(Box::new(take)))
    }

    /// Sets the learning rate to `scale` times the one at the start, from the next step on. Residuals hold updates,
    /// which include the learning rate: a recipe with a fixed threshold scales the threshold with it. A recipe with
    /// `scale=rate` ([`VelocityScale::Rate`](crate::recipe::VelocityScale::Rate)) scales its outer momentum. After a
    /// resumed run, set the rate again before the first step.
    pub fn set_learning_rate(&mut self, scale: f32) {
        self.exchange.set_learning_rate(scale);
    }

    // Observation

    /// True if this session resumed from a checkpoint that is older than the run: an earlier process of this rank had
    /// rejoined after it. The parameters then come from the other workers, and the checkpoint's residual was dropped,
    /// since the earlier process may have sent it.
    pub fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Steps taken, including the steps before the checkpoint that the session resumed from.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The synchronisations of each worker that are in the parameters with which this session began: 0 in a new run,
    /// unless other workers went ahead. A worker that joins late can skip as many batches. In a mesh without rounds, it
    /// is the mean over the workers, rounded down. Unlike [`status`](Self::status), it does not depend on the time of
    /// the call.
    pub fn joined_at(&self) -> u64 {
        self.joined_at
    }

    /// For recipes with rounds: the rounds of the run so far, also from before this worker joined. The same at all
    /// workers after each round.
    pub fn rounds(&self) -> u64 {
        self.exchange.clock()
    }

    /// Reports the state of the training: the mean training loss, and the accuracy from 0 to 1 on examples that are not
    /// trained on. NaN where a value is not known. Monitors show them
    /// ([`Builder::publish_to`](crate::Builder::publish_to)). With `adapt=loss`, the loss decides over the length of
    /// the next periods: then call this before each [`step`](Self::step), or as often as a loss is known.
    pub fn report_progress(&mut self, loss: f32, accuracy: f32) {
        self.exchange.report_progress(loss, accuracy);
    }

    /// A snapshot of this node's status: clocks, staleness, traffic, the peer that it waits for, and where its time has
    /// gone. Allocates.
    ///
    /// ```
    /// # use gradwire::{Cluster, Layout, Mem, Recipe, Session};
    /// # let cluster = Cluster { workers: 1, servers: 0 };
    /// # let (mut params, update) = (vec![0.0], [0.1]);
    /// # let builder = Session::builder(Layout::flat(1), Recipe::sync(), cluster);
    /// # let mut session = builder.join(Mem::cluster(1).remove(0), &mut params)?;
    /// session.step(&mut params, &update, 32)?;
    /// let status = session.finish(&mut params)?; // or `session.status()?`, during the run
    /// let times = status.times;
    /// println!("{} steps: {} ms computed, {} ms waited", times.steps, times.compute / 1_000_000, times.wait / 1_000_000);
    /// println!("sent {} bytes, {:.0} % of dense", status.bytes_out(), 100.0 * status.sent_share());
    /// # assert_eq!(times.steps, 1);
    /// # Ok::<(), gradwire::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the session has ended, or its engine does not answer by the deadline.
    pub fn status(&mut self) -> Result<Status, Error> {
        let status = self.exchange.drive().status()?;
        Ok(self.of_run(status))
    }

    /// A status with the steps of the application. The engine counts synchronisations.
    pub(crate) fn of_run(&self, mut status: Status) -> Status {
        status.times.steps = self.steps;
        status
    }

    /// The events since the last call: peers that joined or were lost, views, refused contributions, stalls. At most
    /// the newest 256 are held.
    pub fn events(&mut self) -> Vec<Event> {
        self.exchange.drive().events()
    }

    /// For [caller-driven](crate::Builder::caller_driven) sessions: carries on the communication without waiting, for
    /// instance between two layers of a model. Has no effect on other sessions.
    ///
    /// # Errors
    /// If the run cannot go on.
    pub fn pump(&mut self) -> Result<(), Error> {
        self.exchange.drive().pump()
    }

    /// Tells the peers that this worker makes no step for `span` from now on, for instance during a long validation. It
    /// is not given up meanwhile, and that time does not count towards the deadline of any node that waits for it. The
    /// next step ends the silence. A [caller-driven](crate::Builder::caller_driven) session needs this before it makes
    /// no call for more than two fifths of `dead_after`. A session with a thread of its own needs it only before a
    /// pause that is longer than the peers' deadlines.
    ///
    /// # Errors
    /// If the run cannot go on.
    pub fn expect_silence(&mut self, span: Duration) -> Result<(), Error> {
        let SilenceAnnounced = self.exchange.drive().call("announce a silence", WaitKind::Step, ExpectSilence(span))?;
        // The messages to the peers are only queued so far. Before the caller goes silent, they have to leave.
        self.exchange.drive().flush()
    }

    /// The token that cancels the waits of this session, from any thread: the token that the
    /// [builder](crate::Builder::canceller) has been given, or one of the session's own.
    pub fn canceller(&mut self) -> Canceller {
        self.exchange.drive().canceller().clone()
    }

    // Leaving

    /// Leaves the run, which goes on without this worker. Contributes the rest of a period that has begun, and the
    /// part of a lossy codec's residual that the recipe's [`End`](crate::recipe::End) says. `params` are then this
    /// worker's last ones. Returns the last status; [`Status::rest`] is the residual.
    ///
    /// # Errors
    /// If `params` have another length than the layout, have become infinite or NaN, a wait reaches the deadline, or
    /// the run cannot go on.
    pub fn leave(mut self, params: &mut [f32]) -> Result<Status, Error> {
        self.exchange.contribute_rest(params)?;
        let status = self.exchange.depart(params, "leave", false, false)?.status;
        Ok(self.of_run(status))
    }

    /// Makes the last contributions, as [`leave`](Self::leave) does, and waits until all workers have left. Then all of
    /// them have the same `params`, bit for bit. Returns the last status.
    ///
    /// # Errors
    /// If `params` have another length than the layout, the final ones are infinite or NaN, a wait reaches the
    /// deadline, or the run cannot go on. With `payload=gradients`: if there are optimizer vectors, or other workers do
    /// another round; see [`finish_with`](Self::finish_with).
    pub fn finish(mut self, params: &mut [f32]) -> Result<Status, Error> {
        if self.exchange.recipe().payload() == Payload::Gradients {
            self.exchange.check_state::<&[f32]>(params, &[])?;
            let mut apply = |_: &mut [f32], _: &mut [&mut [f32]], _: &[f32], round| Err(Error::FinishedEarly { round });
            let status = self.exchange.depart_with_means(params, &mut [], &mut apply)?.status;
            return Ok(self.of_run(status));
        }
        self.exchange.contribute_rest(params)?;
        let status = self.exchange.depart(params, "finish", true, false)?.status;
        Ok(self.of_run(status))
    }

    /// As [`finish`](Self::finish), for recipes with `payload=gradients`. Other workers may have more steps to take:
    /// `apply` takes a step with the mean of each of these rounds, as after [`mean`](Self::mean). Its arguments are
    /// `params`, `optimizer`, the mean, and the number of the round. So all workers end with the same parameters.
    ///
    /// # Errors
    /// As for [`mean`](Self::mean).
    pub fn finish_with(
        mut self,
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
        mut apply: impl FnMut(&mut [f32], &mut [&mut [f32]], &[f32], u64),
    ) -> Result<Status, Error> {
        self.exchange.check_payload("finish_with", true)?;
        self.exchange.check_state(params, optimizer)?;
        let mut apply = |params: &mut [f32], optimizer: &mut [&mut [f32]], mean: &[f32], round| {
            apply(params, optimizer, mean, round);
            Ok(())
        };
        let status = self.exchange.depart_with_means(params, optimizer, &mut apply)?.status;
        Ok(self.of_run(status))
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
        if self.exchange.recipe().is_collective() {
            return Err(CheckpointError::Rounds.into());
        }
        for vector in state {
            self.exchange.check_length("suspend", vector.len())?;
        }
        self.exchange.contribute_rest(params)?;
        let Ended { saved, run, status, .. } = *self.exchange.depart(params, "suspend", true, true)?;
        let checkpoint = self.snapshot(run, self.suspensions + 1, params, state, saved);
        self.write(directory, &checkpoint)?;
        Ok(self.of_run(status))
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
        if !self.exchange.recipe().is_collective() {
            return Err(CheckpointError::NoRounds.into());
        }
        for vector in [params].iter().chain(state) {
            self.exchange.check_length("checkpoint", vector.len())?;
        }
        if !self.exchange.is_at_rest() {
            return Ok(false);
        }
        let Saved { buffers, run } = self.exchange.drive().call("save the machine's buffers", WaitKind::Step, Save)?;
        let checkpoint = self.snapshot(run, self.exchange.clock(), params, state, buffers);
        self.write(directory, &checkpoint)?;
        Ok(true)
    }

    fn write(&mut self, directory: &Path, checkpoint: &Checkpoint) -> Result<(), Error> {
        let store = match &self.store {
            Some((of, run, store)) if of == directory && *run == checkpoint.run => store,
            _ => {
                let store = Store::new(directory, checkpoint.run, checkpoint.rank, self.notices.clone());
                store.remove_parts();
                store.go_on_from(self.begun_at);
                &self.store.insert((directory.to_path_buf(), checkpoint.run, store)).2
            }
        };
        store.write(checkpoint)?;
        Ok(())
    }

    fn snapshot(&self, run: RunId, clock: u64, params: &[f32], state: &[&[f32]], saved: Vec<Vec<u32>>) -> Checkpoint {
        let NodeIdentity { digest, rank } = self.identity;
        Checkpoint {
            run,
            written: now_millis(),
            digest,
            rank: rank.0,
            clock,
            steps: self.steps,
            contributions: self.exchange.contributions(),
            vectors: [params].iter().chain(state).map(|vector| vector.to_vec()).collect(),
            saved,
        }
    }
}

/// Milliseconds since 1970, by the clock of this machine.
pub(crate) fn now_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
