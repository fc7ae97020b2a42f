//! [`Outcome`]: the result of a simulated run.

use std::fmt;

use gradwire_core::status::{Counters, Histogram};
use gradwire_core::{Duration, PeerId};

use super::Validation;
use super::step_times::StepTimes;
use crate::node::Life;

/// The result of a simulated run. Equal settings give equal results.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Why the run ended.
    pub end: End,
    /// The virtual time at the end.
    pub time: Duration,
    /// The progress of the run. The last point is the end. Empty if the run was not begun.
    pub curve: Vec<Point>,
    /// By rank.
    pub workers: Vec<WorkerOutcome>,
    /// The parameters of the run at the end: if the workers have ended in good order, the parameters that all have. Else
    /// the parameters of the validated worker after its last synchronisation; see [`Point::validation`].
    pub params: Vec<f32>,
    /// A hash of [`params`](Self::params) (FNV-1a), as the examples print it.
    pub digest: u64,
    /// The judgement of [`Learner::test`](super::Learner::test) on the parameters of the point with the smallest
    /// validation loss; of equal ones, the first. `None`: learners do not validate, or do not test.
    pub test: Option<Validation>,
    /// The times of the steps of all workers.
    pub step_times: StepTimes,
    /// Bytes of all messages of all nodes, headers and bodies.
    pub bytes: u64,
    /// Staleness of all applied updates, except at nodes that are down.
    pub staleness: Histogram,
    /// Counts of all nodes together, except of nodes that are down.
    pub counters: Counters,
    /// Events of the simulator.
    pub events: u64,
    /// A hash over all outputs of all machines, with their times.
    pub trace: u64,
}

/// A moment of a run.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// The virtual time.
    pub time: Duration,
    /// Steps of all workers together.
    pub steps: u64,
    /// Examples that all workers have contributed.
    pub examples: u64,
    /// Examples that all workers had contributed when the validated parameters were synchronised: at most these are in
    /// them.
    pub seen: u64,
    /// Bytes of all messages sent.
    pub bytes: u64,
    /// Contributions with examples of the validated worker.
    pub rounds: u64,
    /// Mean training loss over the examples since the point before. `None`: no learner has told a loss since.
    pub loss: Option<f64>,
    /// The validation of the run's parameters. `None` if learners do not validate.
    ///
    /// The run's parameters are those of one worker after its last synchronisation: of worker 0, or of the lowest rank
    /// that is up if worker 0 is not. Local steps since then are not in them.
    pub validation: Option<Validation>,
}

/// The part of one worker in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerOutcome {
    /// The state of its process at the end.
    pub life: Life,
    /// Steps it has taken.
    pub steps: u64,
    /// Examples it has contributed.
    pub examples: u64,
    /// Contributions with examples that it has made.
    pub contributions: u64,
    /// The time in which it has computed steps. Steps that a crash has cut off are not counted.
    pub busy: Duration,
    /// The rest of the time of the run: it waited, was paused, was down, or had ended.
    pub waited: Duration,
}

/// Why a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// All workers have taken their steps, and ended in good order, except workers that are down or were cut off.
    Steps,
    /// Its virtual time was over.
    Time,
    /// All examples were contributed.
    Examples,
    /// A validation has reached its target.
    Target,
    /// The watch has ended it.
    Stopped,
    /// The update or the parameters of a worker are not finite; or the validated loss, which has no step.
    Diverged {
        /// The worker.
        worker: PeerId,
        /// The step of the worker, from 0.
        step: Option<u64>,
    },
    /// No event was left, and nodes waited: for what is never going to happen.
    Stuck {
        /// The nodes, each with the peer that it waited for if it knew one.
        waits: Vec<(PeerId, Option<PeerId>)>,
    },
    /// The run had more events than its limit.
    Events {
        /// The limit.
        limit: u64,
    },
    /// No worker has ended in good order: all are down, or were cut off.
    Lost,
}

impl End {
    /// True if the run has neither failed nor diverged.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Steps | Self::Time | Self::Examples | Self::Target | Self::Stopped)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps => write!(f, "all steps are done"),
            Self::Time => write!(f, "the time is over"),
            Self::Examples => write!(f, "all examples are contributed"),
            Self::Target => write!(f, "the target is reached"),
            Self::Stopped => write!(f, "stopped"),
            Self::Diverged { worker, step: Some(step) } => {
                write!(f, "diverged: step {step} of worker {worker} is not finite")
            }
            Self::Diverged { worker, step: None } => {
                write!(f, "diverged: the validated loss of worker {worker} is not finite")
            }
            Self::Stuck { waits } => {
                write!(f, "stuck: no event is left")?;
                waits.iter().try_for_each(|(node, peer)| match peer {
                    Some(peer) => write!(f, "; node {node} waits for node {peer}"),
                    None => write!(f, "; node {node} waits"),
                })
            }
            Self::Events { limit } => write!(f, "not ended after {limit} events"),
            Self::Lost => write!(f, "no worker has ended in good order"),
        }
    }
}

impl Outcome {
    /// A run that was not begun.
    pub(super) fn not_begun(workers: u32) -> Self {
        let worker = WorkerOutcome {
            life: Life::Down,
            steps: 0,
            examples: 0,
            contributions: 0,
            busy: Duration::ZERO,
            waited: Duration::ZERO,
        };
        Self {
            end: End::Stopped,
            time: Duration::ZERO,
            curve: Vec::new(),
            workers: vec![worker; workers as usize],
            params: Vec::new(),
            digest: digest(&[]),
            test: None,
            step_times: StepTimes::default(),
            bytes: 0,
            staleness: Histogram::default(),
            counters: Counters::default(),
            events: 0,
            trace: 0,
        }
    }

    /// The share of the time in which a worker has computed, from 0 to 1.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn busy(&self, worker: PeerId) -> f64 {
        match self.time.as_secs_f64() {
            0.0 => 0.0,
            time => self.workers[worker.index()].busy.as_secs_f64() / time,
        }
    }

    /// The first point of the curve whose validation has at most this loss.
    pub fn first_with_loss(&self, loss: f64) -> Option<&Point> {
        self.curve.iter().find(|point| point.validation.is_some_and(|validation| validation.loss <= loss))
    }

    /// The first point of the curve whose validation has at least this accuracy.
    pub fn first_with_accuracy(&self, accuracy: f64) -> Option<&Point> {
        let reaches = |validation: Validation| validation.accuracy.is_some_and(|got| got >= accuracy);
        self.curve.iter().find(|point| point.validation.is_some_and(reaches))
    }

    /// The validation at the end.
    pub fn validation(&self) -> Option<Validation> {
        self.curve.last()?.validation
    }
}

/// FNV-1a over the bits of the parameters.
pub(super) fn digest(params: &[f32]) -> u64 {
    let bytes = params.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Adds the counts of a node.
pub(super) fn add(sum: &mut Counters, node: &Counters) {
    // Names all fields, so that a new one is not forgotten.
    let Counters {
        applied,
        duplicates,
        late,
        dropped,
        rejected,
        empty,
        deferred,
        repeated,
        skipped_pushes,
        skipped_fetches,
        applications,
        entries,
        non_finite,
        merged,
        dense_bytes,
        lost,
        reconnects,
        resent,
    } = *node;
    sum.applied += applied;
    sum.duplicates += duplicates;
    sum.late += late;
    sum.dropped += dropped;
    sum.rejected += rejected;
    sum.empty += empty;
    sum.deferred += deferred;
    sum.repeated += repeated;
    sum.skipped_pushes += skipped_pushes;
    sum.skipped_fetches += skipped_fetches;
    sum.applications += applications;
    sum.entries += entries;
    sum.non_finite += non_finite;
    sum.merged += merged;
    sum.dense_bytes += dense_bytes;
    sum.lost += lost;
    sum.reconnects += reconnects;
    sum.resent += resent;
}
