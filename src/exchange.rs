//! [`Exchange`]: the synchronisations of one worker. Fills contributions, passes them to the engine, and takes the
//! parameters that come back.

mod owned;
mod parts;

use std::sync::Arc;

use gradwire_core::recipe::{OptimizerState, Payload};
use gradwire_core::{Advice, Layout, Local, Recipe, Storage};
pub(crate) use owned::View;
use parts::Parts;

use crate::check;
use crate::checkpoint::Checkpoint;
use crate::drive::Drive;
use crate::error::Error;
use crate::mailbox::{
    Departure, DeviceCopy, Ended, Joined, Leave, NextRound, Step, StepThrough, Stepped, SteppedThrough,
};
use crate::waits::WaitKind;

const HAS_SPARE: &str = "a session that has joined and not failed has a spare buffer between calls";

#[derive(Debug)]
pub(crate) struct Exchange {
    layout: Layout,
    recipe: Recipe,
    /// Counts local steps, and computes contributions.
    local: Local,
    drive: Drive,
    /// Averaged optimizer vectors, which follow the parameters in a contribution.
    optimizer_vectors: u32,
    /// The buffer for the next contribution. The engine has it during a call, and keeps it if the call fails.
    spare: Option<Arc<Storage>>,
    /// A contribution that is given range by range.
    parts: Parts,
    /// With `payload=gradients`: the buffers for the application's state. The engine has them during a call.
    state: Vec<Arc<Storage>>,
    /// The learning rate relative to the start of the run, if it has changed since the last contribution.
    rate: Option<f32>,
    /// The machine's clock: rounds done in trees and rings, else synchronisations of this worker.
    clock: u64,
    /// Contributions that this worker has made, also before a checkpoint.
    contributions: u64,
}

/// How a worker has begun.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// The parameters to start from.
    pub(crate) view: Arc<Storage>,
    /// With `payload=gradients`: the application's state, parameters first.
    pub(crate) adopted: Vec<Arc<Storage>>,
    /// The checkpoint that it goes on from.
    pub(crate) restored: Option<Box<Checkpoint>>,
    /// The moment that the run goes on from.
    pub(crate) moment: u64,
    /// The checkpoint is older than the run.
    pub(crate) outdated: bool,
}

impl Exchange {
    pub(crate) fn new(layout: Layout, recipe: Recipe, workers: u32, optimizer_vectors: u32, drive: Drive) -> Self {
        let mut local = Local::new(recipe, workers);
        local.follow_lengths(drive.lengths());
        Self {
            layout,
            recipe,
            local,
            drive,
            optimizer_vectors,
            spare: None,
            parts: Parts::default(),
            state: Vec::new(),
            rate: None,
            clock: 0,
            contributions: 0,
        }
    }

    /// Waits until the machine has joined. Returns how the worker has begun.
    pub(crate) fn join(&mut self) -> Result<Beginning, Error> {
        let Joined { clock, view, spare, state, adopted, restored, moment, mut outdated, advice } =
            self.drive.wait_for("join", WaitKind::Join)?;
        if let Some(checkpoint) = &restored {
            // The other members have gone on before this one has joined: its optimizer state does not belong to their
            // round.
            outdated |= self.recipe.is_collective() && clock != checkpoint.clock;
            // The schedule of the averaging period goes by local steps.
            self.local.resume(checkpoint.steps);
            self.contributions = checkpoint.contributions;
        }
        self.clock = clock;
        (self.spare, self.state) = (Some(spare), state);
        self.local.follow(advice);
        self.drive.steps().mark(|meter, now| meter.joins(now));
        Ok(Beginning { view, adopted, restored, moment, outdated })
    }

    /// Begins the first period. `params` receives the parameters to start from.
    pub(crate) fn start(&mut self, params: &mut [f32], view: &Storage) {
        self.local.start(params, view.floats(), self.drive.now());
    }

    /// The call for a step has ended: with a step of so many examples, or with another worker's state.
    pub(crate) fn count(&self, given: bool, examples: u64) {
        self.drive.steps().mark(|meter, now| match given {
            true => meter.step_ends(now, examples),
            false => meter.step_is_void(now),
        });
    }

    /// Takes one local step with an update. Some: a synchronisation is due, and [`synchronise`](Self::synchronise)
    /// must follow.
    ///
    /// # Errors
    /// If an element of `update` is not finite. Then nothing has changed.
    pub(crate) fn step_locally(
        &mut self,
        params: &mut [f32],
        update: &[f32],
        examples: u32,
    ) -> Result<Option<u64>, Error> {
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        let now = self.drive.now();
        let result = self.local.step_checked(params, update, examples, contribution(&mut self.spare), now);
        result.map_err(|index| {
            self.count(false, 0);
            self.refusal("update", index, update[index])
        })
    }

    /// As [`step_locally`](Self::step_locally), with an update that is in `params` already.
    ///
    /// # Errors
    /// If an element of `params` is not finite. Then nothing has changed.
    pub(crate) fn stepped_locally(&mut self, params: &mut [f32], examples: u32) -> Result<Option<u64>, Error> {
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        let now = self.drive.now();
        let result = self.local.stepped_checked(params, examples, contribution(&mut self.spare), now);
        result.map_err(|index| {
            self.count(false, 0);
            self.refusal("params", index, params[index])
        })
    }

    /// One step with vectors in the executor's memory.
    pub(crate) fn step_through(&mut self, examples: u32, give: DeviceCopy, take: DeviceCopy) -> Result<(), Error> {
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        let Some(weight) = self.local.step_elsewhere(examples, self.drive.now()) else {
            self.count(true, examples.into());
            return Ok(());
        };
        self.contributions += u64::from(weight > 0);
        let notes = self.local.notes();
        let request = StepThrough { notes, weight, rate: self.rate.take(), give, take };
        let SteppedThrough { clock } = self.drive.call("take a step", WaitKind::Step, request)?;
        self.clock = clock;
        self.count(true, examples.into());
        Ok(())
    }

    /// From the next contribution on: it is the first that was computed with this learning rate.
    pub(crate) fn set_learning_rate(&mut self, scale: f32) {
        self.rate = Some(scale);
        self.local.set_learning_rate(scale);
    }

    /// To the monitors, and for a period that follows the loss.
    pub(crate) fn report_progress(&mut self, loss: f32, accuracy: f32) {
        self.local.report_loss(loss);
        self.drive.report_progress(loss, accuracy);
    }

    /// Contributes the rest of a period that has begun.
    pub(crate) fn contribute_rest(&mut self, params: &mut [f32]) -> Result<(), Error> {
        self.check_length("params", params.len())?;
        self.drive.steps().mark(|meter, now| meter.leaves(now));
        // Averaged optimizer vectors are in the spare buffer since the last step.
        let weight = self.local.rest(params, contribution(&mut self.spare));
        self.synchronise(params, &mut [], weight)
    }

    /// Leaves the run: at once, or with `stay` when all workers leave. `params` then receive the final parameters. The
    /// deadline counts from the last round that is done.
    pub(crate) fn depart(
        &mut self,
        params: &mut [f32],
        purpose: &'static str,
        stay: bool,
        keep: bool,
    ) -> Result<Box<Ended>, Error> {
        let leave = Leave { stay, keep, rate: self.rate.take(), state: Vec::new() };
        let mut departure = self.drive.call(purpose, WaitKind::Leave, leave)?;
        loop {
            match departure {
                Departure::Left(ended) => {
                    self.drive.farewell();
                    if stay {
                        params.copy_from_slice(&ended.view.floats()[..params.len()]);
                    }
                    // Finite contributions can add up to an infinity.
                    check::finite("final parameters", &self.layout, params)?;
                    return Ok(ended);
                }
                // At once: if the next round fails, `params` keep the result of this round.
                Departure::Round { view, changed, .. } => {
                    self.local.take(params, view.floats(), changed, self.drive.now());
                }
            }
            departure = self.drive.call(purpose, WaitKind::Leave, NextRound { state: Vec::new() })?;
        }
    }

    /// Takes part in a round with the gradient in `vector`, which receives the mean. Returns `false` if the run has
    /// gone on without this worker: then `params` and `optimizer` are another worker's. With 0 examples, `vector` is not
    /// read.
    ///
    /// # Errors
    /// If an element of `vector` is not finite: then nothing has changed. If the round fails: then the session has ended.
    pub(crate) fn mean(
        &mut self,
        vector: &mut [f32],
        examples: u32,
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
    ) -> Result<bool, Error> {
        let into = &mut contribution(&mut self.spare)[..vector.len()];
        if examples > 0 {
            let result = check::copy_finite("gradient", &self.layout, into, vector);
            result.inspect_err(|error| self.drive.note_refusal(error, &self.layout))?;
        } else {
            into.fill(0.0);
        }
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        let (weight, filled) = (u64::from(examples), self.spare.take().expect(HAS_SPARE));
        self.contributions += u64::from(weight > 0);
        let state = self.filled_state(params, optimizer.iter().map(|vector| &**vector));
        let request = Step { weight, fetches: true, filled, state, rate: None, notes: [None; 2], length: None };
        let stepped = self.drive.call("take the mean", WaitKind::Step, request)?;
        let given = self.take_mean(stepped, vector, params, optimizer);
        self.count(given, weight);
        Ok(given)
    }

    /// Takes the mean at the end of a round, or the state of another worker. Returns `false` in that case.
    fn take_mean(
        &mut self,
        stepped: Stepped,
        vector: &mut [f32],
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
    ) -> bool {
        let Stepped { clock, view, changed, spare, state, adopted, .. } = stepped;
        (self.clock, self.spare, self.state) = (clock, spare.or_else(|| self.spare.take()), state);
        match &adopted {
            Some(adopted) => take_state(adopted, params, optimizer),
            None if changed => vector.copy_from_slice(view.floats()),
            // The mean of no examples.
            None => vector.fill(0.0),
        }
        adopted.is_none()
    }

    /// Waits until all workers have left, and lets `apply` take the means of the rounds until then.
    pub(crate) fn depart_with_means(
        &mut self,
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
        apply: &mut ApplyMean<'_>,
    ) -> Result<Box<Ended>, Error> {
        let (purpose, kind) = ("finish", WaitKind::Leave);
        self.drive.steps().mark(|meter, now| meter.leaves(now));
        let leave = Leave {
            stay: true,
            keep: false,
            rate: None,
            state: self.filled_state(params, optimizer.iter().map(|vector| &**vector)),
        };
        let mut departure = self.drive.call(purpose, kind, leave)?;
        loop {
            match departure {
                Departure::Left(ended) => {
                    self.drive.farewell();
                    if let Some(adopted) = &ended.adopted {
                        take_state(adopted, params, optimizer);
                    }
                    return Ok(ended);
                }
                Departure::Round { clock, view, changed, state, adopted } => {
                    (self.clock, self.state) = (clock, state);
                    let zeros = if changed { Vec::new() } else { vec![0.0; params.len()] };
                    let mean = if changed { view.floats() } else { &zeros };
                    let applied = match adopted {
                        Some(adopted) => {
                            take_state(&adopted, params, optimizer);
                            Ok(())
                        }
                        None => apply(params, optimizer, mean, clock),
                    };
                    applied.map_err(|error| self.drive.end_with(error))?;
                }
            }
            let state = self.filled_state(params, optimizer.iter().map(|vector| &**vector));
            departure = self.drive.call(purpose, kind, NextRound { state })?;
        }
    }

    /// Copies the application's state to buffers for the engine.
    fn filled_state<'a>(&mut self, params: &'a [f32], optimizer: impl Iterator<Item = &'a [f32]>) -> Vec<Arc<Storage>> {
        let vectors = std::iter::once(params).chain(optimizer);
        for (buffer, vector) in self.state.iter_mut().zip(vectors) {
            Arc::make_mut(buffer).floats_mut().copy_from_slice(vector);
        }
        std::mem::take(&mut self.state)
    }

    /// Contributes the vector in the spare buffer, if the local period is over (`weight` is some), and takes the
    /// resulting parameters. `state`: the optimizer vectors of [`stepped_locally`](Self::stepped_locally), checked by
    /// [`check_vector`](Self::check_vector).
    pub(crate) fn synchronise(
        &mut self,
        params: &mut [f32],
        state: &mut [&mut [f32]],
        weight: Option<u64>,
    ) -> Result<(), Error> {
        let len = params.len();
        // Also within a period: if it is the last one, it ends with a call that does not get these vectors.
        let tail = &mut contribution(&mut self.spare)[len..];
        for (into, vector) in tail.chunks_mut(len).zip(&*state) {
            into.copy_from_slice(vector);
        }
        let Some(weight) = weight else { return Ok(()) };
        let (view, changed, advice) = self.contribute(weight)?;
        self.local.take(params, view.floats(), changed, self.drive.now());
        self.local.follow(advice);
        if let Some(weight) = self.local.second(params, contribution(&mut self.spare)) {
            return self.synchronise(params, state, Some(weight));
        }
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

    /// Contributes the vector in the spare buffer, and waits. Returns the machine's view, whether it has changed, and the
    /// machine's knowledge of the other workers.
    fn contribute(&mut self, weight: u64) -> Result<(Arc<Storage>, bool, Advice), Error> {
        // Finite updates can add up to an infinity. Servers would refuse it, and collectives spread it.
        if let Some(index) = self.local.non_finite().filter(|_| self.local.contributes()) {
            let got = contribution(&mut self.spare)[index];
            return Err(self.refusal("contribution", index, got));
        }
        // A step of weight 0 only asks for parameters, and is not numbered.
        self.contributions += u64::from(weight > 0);
        let filled = self.spare.take().expect(HAS_SPARE);
        let (fetches, rate, notes) = (self.local.fetches(), self.rate.take(), self.local.notes());
        let length = self.local.timed_length();
        let request = Step { weight, fetches, filled, state: Vec::new(), rate, notes, length };
        let Stepped { clock, view, changed, spare, advice, .. } =
            self.drive.call("take a step", WaitKind::Step, request)?;
        self.clock = clock;
        self.spare = spare;
        Ok((view, changed, advice))
    }

    pub(crate) fn drive(&mut self) -> &mut Drive {
        &mut self.drive
    }

    pub(crate) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    pub(crate) fn clock(&self) -> u64 {
        self.clock
    }

    pub(crate) fn contributions(&self) -> u64 {
        self.contributions
    }

    /// Whether no local step has been taken since the last synchronisation.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.local.is_at_rest()
    }

    // Checks, before a call changes anything

    pub(crate) fn check_vector(&mut self, what: &'static str, vector: &[f32]) -> Result<(), Error> {
        self.check_length(what, vector.len())?;
        let result = check::finite(what, &self.layout, vector);
        result.inspect_err(|error| self.drive.note_refusal(error, &self.layout))
    }

    /// The refusal of a vector whose element `index` is `got`, a NaN or an infinity.
    fn refusal(&mut self, what: &'static str, index: usize, got: f32) -> Error {
        let error = check::non_finite(what, &self.layout, index, got);
        self.drive.note_refusal(&error, &self.layout);
        error
    }

    /// Refuses a vector of another length, and every call after a failure.
    pub(crate) fn check_length(&self, what: &'static str, got: usize) -> Result<(), Error> {
        self.drive.check()?;
        // A contribution was begun, and its guard forgotten.
        if self.is_partial() {
            return Err(Error::Ended);
        }
        check::length(what, self.layout.len(), got)
    }

    /// A recipe that averages optimizer vectors needs all of them. For other recipes they are optional.
    pub(crate) fn check_optimizer_vectors(&self, got: usize) -> Result<(), Error> {
        let (expected, got) = (self.optimizer_vectors, got as u32);
        if self.recipe.optimizer() == OptimizerState::Average && expected != got {
            return Err(Error::OptimizerVectors { expected, got });
        }
        Ok(())
    }

    /// The state that a recipe with `payload=gradients` carries has to be whole.
    pub(crate) fn check_state<V: AsRef<[f32]>>(&self, params: &[f32], optimizer: &[V]) -> Result<(), Error> {
        check::carried_vectors(&self.recipe, self.optimizer_vectors, optimizer.len())?;
        self.check_length("params", params.len())?;
        optimizer.iter().try_for_each(|vector| self.check_length("optimizer vector", vector.as_ref().len()))
    }

    /// Refuses a call that belongs to recipes of another payload.
    pub(crate) fn check_payload(&self, call: &'static str, gradients: bool) -> Result<(), Error> {
        if (self.recipe.payload() == Payload::Gradients) == gradients {
            return Ok(());
        }
        let expected = if gradients { "payload=gradients" } else { "payload=updates or parameters" };
        Err(Error::Payload { call, expected, got: self.recipe.to_string() })
    }

    /// Refuses [`sync`](Self::sync) after [`step`](Self::step) has dropped the parameters of the last synchronisation.
    pub(crate) fn check_base(&self) -> Result<(), Error> {
        if self.local.can_tell_update() { Ok(()) } else { Err(Error::Mixed) }
    }
}

/// The spare buffer, for writing. Copies it only if a peer of the same process still reads it.
fn contribution(spare: &mut Option<Arc<Storage>>) -> &mut [f32] {
    Arc::make_mut(spare.as_mut().expect(HAS_SPARE)).floats_mut()
}

/// Takes the state of another worker.
fn take_state(adopted: &[Arc<Storage>], params: &mut [f32], optimizer: &mut [&mut [f32]]) {
    let vectors = std::iter::once(params).chain(optimizer.iter_mut().map(|vector| &mut **vector));
    for (from, into) in adopted.iter().zip(vectors) {
        into.copy_from_slice(&from.floats()[..into.len()]);
    }
}

/// Takes an application's step with the mean of a round: parameters, optimizer vectors, mean, number of the round.
pub(crate) type ApplyMean<'a> = dyn FnMut(&mut [f32], &mut [&mut [f32]], &[f32], u64) -> Result<(), Error> + 'a;
