//! The training loop of a worker, over any transport.
//!
//! [`train`] joins or resumes a run, takes steps until all epochs are done or the worker has to stop, and leaves. It
//! reports to a [`Watch`] on the way.

use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use gradwire::checkpoint::Notice;
use gradwire::recipe::{OptimizerState, Payload};
use gradwire::{Error, Event, Mean, Session, Status, Transport};

use super::bad::Bad;
use super::data::shuffle;
use super::options::Options;
use super::task::Task;

/// The result of a worker.
pub struct Done {
    pub params: Vec<f32>,
    /// The parameters after the last step, before the end of the run was negotiated with the other nodes.
    pub before_end: Vec<f32>,
    /// The last status.
    pub status: Status,
    /// Steps taken by this process.
    pub steps: u64,
    /// Examples behind these steps.
    pub examples: u64,
    /// The worker had to stop before all epochs were done.
    pub drained: bool,
    /// The worker had to stop, and has written a checkpoint to go on from.
    pub saved: bool,
}

/// The checkpoints of a worker.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub directory: PathBuf,
    /// Steps between checkpoints, in trees and rings. Other recipes write one only when the run is suspended.
    pub every: u64,
    /// Begin from the newest checkpoint, if there is one.
    pub resume: bool,
}

impl Checkpoints {
    /// Prints the notices about checkpoints of a rank.
    pub fn told_by(&self, rank: usize) -> impl Fn(&Notice) + Send + Sync + 'static {
        move |notice| drop(writeln!(std::io::stderr(), "node {rank}: {notice}"))
    }
}

/// Receives the events of a session.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// Observes a training, and can end it.
pub trait Watch {
    /// True if the worker has to stop before its next step.
    fn should_stop(&self) -> bool {
        false
    }
    /// The receiver of the session's events.
    fn on_event(&self) -> Option<OnEvent> {
        None
    }
    /// Called after each step, with the mean training loss of the pass over the data so far.
    fn step(&mut self, steps: u64, loss: f64, session: &mut Session) -> Result<(), Error>;
    /// Called after each pass over the data, with the mean training loss. Returns the accuracy, if it is known.
    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], session: &mut Session) -> Result<Option<f64>, Error>;
}

/// Takes part as the worker at the transport's rank, until all epochs are done or [`Watch::should_stop`] returns true.
pub fn train<T: Transport + 'static>(
    options: &Options,
    task: &mut dyn Task,
    transport: T,
    mut params: Vec<f32>,
    checkpoints: Option<&Checkpoints>,
    watch: &mut dyn Watch,
) -> Result<Done, Error> {
    let rank = transport.place().0.index();
    let mut failing = None;
    let mut momentum = vec![0.0; params.len()];
    let mut session = enter(options, task, transport, checkpoints, watch, &mut params, &mut momentum)?;
    let begun = batches_before(options, &session);
    let all = task.examples();
    let mut trainer = Trainer::new(options, task, rank, params.len());
    let (mut steps, mut examples, mut number) = (0, 0, 0);
    let (mut rate, mut accuracy) = (options.rate, f64::NAN);
    // A checkpoint is to be written at the next synchronisation.
    let mut due = false;
    let mut stopping: Option<Stopping> = None;
    // Every worker takes the same number of batches per epoch, with different examples.
    let share = all / options.cluster.workers as usize;
    'training: for epoch in 0..options.epochs {
        let mut order: Vec<usize> = (0..all).collect();
        shuffle(&mut order, options.seed ^ (u64::from(epoch) << 32));
        let mine = &order[rank * share..][..share];
        let (mut loss, mut batches) = (0.0, 0);
        for batch in mine.chunks(options.batch) {
            number += 1;
            // Batches before the checkpoint, or before the clock at which this worker has joined.
            if number <= begun {
                continue;
            }
            if watch.should_stop() {
                let Some(checkpoints) = checkpoints.filter(|_| options.recipe.is_collective()) else { break 'training };
                let first = stopping.is_none();
                let stopping = stopping.get_or_insert_with(Stopping::new);
                if first {
                    let saved = write_checkpoint(&mut session, checkpoints, rank, &params, &momentum, &mut failing)?;
                    stopping.rounds += u32::from(saved);
                }
                if stopping.is_over() {
                    break 'training;
                }
            }
            loss += trainer.compute(batch, rate, &params, &mut momentum);
            trainer.synchronise(&mut session, &mut params, &mut momentum, rate, batch.len() as u32)?;
            (steps, examples, batches) = (steps + 1, examples + batch.len() as u64, batches + 1);
            watch.step(steps, loss / f64::from(batches), &mut session)?;
            session.report_progress((loss / f64::from(batches)) as f32, accuracy as f32);
            let Some(checkpoints) = checkpoints.filter(|_| options.recipe.is_collective()) else { continue };
            due |= number.is_multiple_of(checkpoints.every) || stopping.is_some();
            if due {
                due = !write_checkpoint(&mut session, checkpoints, rank, &params, &momentum, &mut failing)?;
                if let Some(stopping) = stopping.as_mut().filter(|_| !due) {
                    stopping.rounds += 1;
                }
            }
        }
        rate *= options.decay;
        session.set_learning_rate(rate / options.rate);
        if batches > 0 {
            accuracy = watch.epoch(epoch + 1, loss / f64::from(batches), &params, &mut session)?.unwrap_or(accuracy);
            // Here as well: no step follows the last epoch.
            session.report_progress((loss / f64::from(batches)) as f32, accuracy as f32);
        }
    }
    let drained = number > begun && watch.should_stop();
    let before_end = params.clone();
    // A worker of a server or a mesh saves itself as it leaves.
    let rounds_saved = stopping.is_some_and(|stopping| stopping.rounds > 0);
    let saved = drained && checkpoints.is_some() && (rounds_saved || !options.recipe.is_collective());
    let status = match checkpoints.filter(|_| !options.recipe.is_collective()) {
        Some(checkpoints) if drained => session.suspend(&checkpoints.directory, &mut params, &[&momentum])?,
        _ if drained => session.leave(&mut params)?,
        _ if options.recipe.payload() == Payload::Gradients => {
            session.finish_with(&mut params, &mut [&mut momentum], |params, state, mean, _| {
                descend(options, rate, mean, params, state[0]);
            })?
        }
        _ => session.finish(&mut params)?,
    };
    Ok(Done { params, before_end, status, steps, examples, drained, saved })
}

/// The last rounds of a worker that has to stop, in a tree or ring. All workers have to stop, mostly, and they are in the
/// same round or in the one after. So each saves two rounds, one of which all have in common.
struct Stopping {
    since: Instant,
    /// Rounds that have been saved since then.
    rounds: u32,
}

impl Stopping {
    /// Launchers kill processes that do not stop: no round begins after this time.
    const PATIENCE: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { since: Instant::now(), rounds: 0 }
    }

    fn is_over(&self) -> bool {
        self.rounds >= 2 || self.since.elapsed() > Self::PATIENCE
    }
}

/// Joins the run, or resumes it from a checkpoint. Fills `params`, and `momentum` from a checkpoint.
fn enter<T: Transport + 'static>(
    options: &Options,
    task: &dyn Task,
    transport: T,
    checkpoints: Option<&Checkpoints>,
    watch: &dyn Watch,
    params: &mut [f32],
    momentum: &mut [f32],
) -> Result<Session, Error> {
    let rank = transport.place().0.index();
    let builder = options.builder(task.layout());
    let builder = options.agree(builder, task, params, checkpoints.map(|it| it.every));
    let builder = match checkpoints {
        Some(checkpoints) => builder.on_checkpoint_notice(checkpoints.told_by(rank)),
        None => builder,
    };
    let builder = match watch.on_event() {
        Some(callback) => builder.on_event(callback),
        None => builder,
    };
    match checkpoints.filter(|checkpoints| checkpoints.resume) {
        Some(checkpoints) => builder.resume(&checkpoints.directory, transport, params, &mut [momentum]),
        None if options.recipe.payload() == Payload::Gradients => builder.join_with(transport, params, &mut [momentum]),
        None => builder.join(transport, params),
    }
}

/// The number of batches that this worker skips, because they lie before its checkpoint or before the current clock of
/// a run that it joins late.
fn batches_before(options: &Options, session: &Session) -> u64 {
    let steps = session.steps();
    if steps > 0 && !session.is_outdated() {
        return steps;
    }
    // This worker has the parameters of its peers.
    let done = session.joined_at() * u64::from(options.recipe.period().at(0));
    // The rounds of a collective are counted from the beginning of the run.
    if options.recipe.is_collective() { done } else { steps + done }
}

/// Writes a checkpoint. Returns false if it has to be tried again after the next step, within a local period.
fn write_checkpoint(
    session: &mut Session,
    checkpoints: &Checkpoints,
    rank: usize,
    params: &[f32],
    momentum: &[f32],
    failing: &mut Option<String>,
) -> Result<bool, Error> {
    match session.checkpoint(&checkpoints.directory, params, &[momentum]) {
        // A full disk does not stop the training: the checkpoint before is intact. Told once per cause, since the next
        // checkpoints will fail as well.
        Err(Error::Checkpoint(error)) => {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            if failing.replace(cause.clone()) != Some(cause) {
                let _ = writeln!(std::io::stderr(), "node {rank}: {error}; training goes on");
            }
            Ok(true)
        }
        Ok(true) => {
            if failing.take().is_some() {
                let _ = writeln!(std::io::stderr(), "node {rank}: checkpoints are written again");
            }
            Ok(true)
        }
        result => result,
    }
}

/// The computation of a worker's steps.
struct Trainer<'a> {
    options: &'a Options,
    task: &'a mut dyn Task,
    /// Factor on the duration of a step, for `--slow-rank`.
    slower: f64,
    /// The fault in the updates, for `--bad-rank`, and the state of its random numbers.
    bad: Option<Bad>,
    random: u64,
    update: Vec<f32>,
    gradient: Vec<f32>,
}

impl<'a> Trainer<'a> {
    fn new(options: &'a Options, task: &'a mut dyn Task, rank: usize, len: usize) -> Self {
        let slower = options.slow.filter(|(slow, _)| *slow as usize == rank).map_or(1.0, |(_, factor)| factor);
        let bad = options.bad.filter(|(bad, _)| *bad as usize == rank).map(|(_, bad)| bad);
        let random = options.seed | 1;
        Self { options, task, slower, bad, random, update: vec![0.0; len], gradient: vec![0.0; len] }
    }

    /// Computes the update of a batch, and returns its loss. Sleeps for the rest of the time that `--pace` and
    /// `--slow-rank` give to a step.
    fn compute(&mut self, batch: &[usize], rate: f32, params: &[f32], momentum: &mut [f32]) -> f64 {
        let options = self.options;
        let begun = Instant::now();
        let loss = f64::from(self.task.gradient(params, batch, &mut self.gradient));
        if options.recipe.payload() != Payload::Gradients {
            for ((update, momentum), gradient) in self.update.iter_mut().zip(momentum).zip(&self.gradient) {
                *momentum = options.momentum * *momentum + gradient;
                *update = rate * *momentum;
            }
        }
        if let Some(bad) = self.bad {
            bad.spoil(&mut self.update, &mut self.random);
            bad.spoil(&mut self.gradient, &mut self.random);
        }
        let least = options.pace.map_or(Duration::ZERO, |pace| Duration::from_secs(1) / pace);
        let took = begun.elapsed();
        thread::sleep(took.max(least).mul_f64(self.slower).saturating_sub(took));
        loss
    }

    /// Applies the update, and synchronises as the recipe demands.
    fn synchronise(
        &mut self,
        session: &mut Session,
        params: &mut [f32],
        momentum: &mut [f32],
        rate: f32,
        examples: u32,
    ) -> Result<(), Error> {
        if self.options.recipe.payload() == Payload::Gradients {
            let mean = session.mean(&mut self.gradient, examples, params, &mut [momentum])?;
            if mean == Mean::Given {
                descend(self.options, rate, &self.gradient, params, momentum);
            }
            return Ok(());
        }
        // Only `sync_with` takes the optimizer's state, to average or reset it.
        let resets = self.options.recipe.optimizer() == OptimizerState::Reset && self.options.momentum > 0.0;
        if self.options.recipe.payload() == Payload::Parameters || resets {
            params.iter_mut().zip(&self.update).for_each(|(p, u)| *p -= u);
            session.sync_with(params, &mut [momentum], examples)
        } else {
            session.step(params, &self.update, examples)
        }
    }
}

/// A step with a mean of gradients. All workers take the same step, so their parameters and momentum stay equal.
fn descend(options: &Options, rate: f32, mean: &[f32], params: &mut [f32], momentum: &mut [f32]) {
    for ((param, momentum), gradient) in params.iter_mut().zip(momentum).zip(mean) {
        *momentum = options.momentum * *momentum + gradient;
        *param -= rate * *momentum;
    }
}

/// A hash (FNV-1a) over the bits of the parameters, to compare workers and runs.
pub fn digest(params: &[f32]) -> u64 {
    let bytes = params.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
