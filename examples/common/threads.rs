//! Runs the cluster as threads of this process, connected by [`Mem`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::recipe::Hint;
use gradwire::status::{Counters, Histogram};
use gradwire::{Error, Event, Layout, Mem, RunState, Session, Status};

use super::options::Options;
use super::outcome::{Ending, Outcome};
use super::stop::Stop;
use super::task::Task;
use super::worker::{self, Done, OnEvent, Watch, digest};

/// The progress of all nodes. Their threads write it, and the main thread prints it.
pub struct Progress {
    /// Steps of each worker so far.
    pub steps: Vec<AtomicU64>,
    /// The last status of each node, by rank.
    pub statuses: Mutex<Vec<Option<Status>>>,
    /// Epochs that worker 0 has ended and the main thread has not printed: number, mean training loss, parameters.
    pub epochs: Mutex<VecDeque<(u32, f64, Vec<f32>)>>,
    /// The accuracy of the last epoch that the main thread has evaluated.
    pub accuracy: Mutex<Option<f64>>,
    /// Ends the training early.
    pub stop: Option<Arc<Stop>>,
}

/// The result of all threads.
pub struct Ended {
    /// The final parameters of worker 0, and its parameters after its last step.
    params: Vec<f32>,
    before_end: Vec<f32>,
    digests: Vec<u64>,
    statuses: Vec<Status>,
    steps: u64,
    examples: u64,
    seconds: f64,
}

impl Ended {
    /// The final parameters of worker 0.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    fn counted(&self, counter: impl Fn(&Counters) -> u64) -> u64 {
        self.statuses.iter().map(|status| counter(&status.counters)).sum()
    }

    /// Sums the results up, and evaluates the parameters of worker 0 before and after the end.
    pub fn evaluated(&self, options: &Options, evaluator: &mut dyn Task) -> Outcome {
        let (sent, dense) = traffic(self.statuses.iter());
        let (staleness, worker) = (staleness(self.statuses.iter()), &self.statuses[0]);
        let after = evaluator.evaluate(&self.params);
        let before = if self.before_end == self.params { after } else { evaluator.evaluate(&self.before_end) };
        let kept = self.statuses.iter().filter_map(|status| status.rest).fold(0.0, |sum, rest| sum + rest.kept);
        Outcome {
            accuracy: after.0,
            loss: after.1,
            ending: Ending { before, residual_updates: worker.residual_updates, rest: worker.rest, kept },
            hints: options.hints.clone(),
            digests: self.digests.clone(),
            steps: self.steps,
            examples: self.examples,
            seconds: self.seconds,
            sent,
            dense,
            staleness_mean: staleness.mean(),
            staleness_max: staleness.max(),
            density: worker.density,
            tau: worker.tau,
            residual_norm: worker.residual_norm,
            clipped: worker.clipped,
            forgotten: worker.forgotten,
            merged: self.counted(|counters| counters.merged),
            applied: self.counted(|counters| counters.applied),
            late: self.counted(|counters| counters.late),
            deferred: self.counted(|counters| counters.deferred),
            times: self.statuses[..self.digests.len()].iter().map(|status| status.times).collect(),
            curve: "[]".to_string(),
            skipped: [
                self.counted(|counters| counters.skipped_pushes),
                self.counted(|counters| counters.skipped_fetches),
            ],
        }
    }
}

impl Progress {
    pub fn new(options: &Options) -> Self {
        Self {
            steps: (0..options.cluster.workers).map(|_| AtomicU64::new(0)).collect(),
            statuses: Mutex::new((0..options.cluster.nodes()).map(|_| None).collect()),
            epochs: Mutex::new(VecDeque::new()),
            accuracy: Mutex::new(None),
            stop: None,
        }
    }

    fn note(&self, status: Status) {
        let rank = status.me.index();
        self.statuses.lock().unwrap_or_else(|error| error.into_inner())[rank] = Some(status);
    }
}

/// Writes the progress of one worker.
struct Mine<'a> {
    progress: &'a Progress,
    rank: usize,
    options: &'a Options,
}

impl Watch for Mine<'_> {
    fn should_stop(&self) -> bool {
        self.progress.stop.as_ref().is_some_and(|stop| stop.is_asked())
    }

    fn on_event(&self) -> Option<OnEvent> {
        Some(hints_of(self.options))
    }

    fn step(&mut self, steps: u64, _: f64, _: &mut Session) -> Result<(), Error> {
        self.progress.steps[self.rank].store(steps, Ordering::Relaxed);
        Ok(())
    }

    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], session: &mut Session) -> Result<Option<f64>, Error> {
        self.progress.note(session.status()?);
        if self.rank == 0 {
            let ended = (epoch, loss, params.to_vec());
            self.progress.epochs.lock().unwrap_or_else(|error| error.into_inner()).push_back(ended);
        }
        Ok(*self.progress.accuracy.lock().unwrap_or_else(|error| error.into_inner()))
    }
}

/// Collects the hints among the events of a node, and prints them unless the output is JSON.
fn hints_of(options: &Options) -> OnEvent {
    let (hints, quiet) = (options.hints.clone(), options.json);
    Box::new(move |event| {
        // `worker` resets the momentum, if there is one.
        if let Event::Hint(hint) = event
            && hint != Hint::OptimizerKept
        {
            hints.report(&hint.to_string(), quiet);
        }
    })
}

/// The staleness of all applied updates, over all nodes.
pub fn staleness<'a>(statuses: impl Iterator<Item = &'a Status>) -> Histogram {
    let mut all = Histogram::default();
    statuses.for_each(|status| all.merge(&status.staleness));
    all
}

/// The bytes that all nodes have sent, and the bytes of the same messages as dense floats.
pub fn traffic<'a>(statuses: impl Iterator<Item = &'a Status>) -> (u64, u64) {
    statuses.fold((0, 0), |(sent, dense), status| (sent + status.bytes_out(), dense + status.counters.dense_bytes))
}

/// Runs all nodes to the end of the training. Calls `update` every 20 ms on this thread.
///
/// # Errors
/// The error of a worker or server; see below for the choice among several.
pub fn run(
    options: &Options,
    task: &dyn Task,
    progress: &Arc<Progress>,
    initial: &[f32],
    mut update: impl FnMut(),
) -> Result<Ended, Error> {
    let layout = task.layout();
    let begun = Instant::now();
    let mut workers = Vec::new();
    let mut servers = Vec::new();
    for (rank, transport) in Mem::cluster(options.cluster.nodes()).into_iter().enumerate() {
        let (options, progress, initial) = (options.clone(), Arc::clone(progress), initial.to_vec());
        if rank < options.cluster.workers as usize {
            let mut task = task.copy();
            workers.push(thread::spawn(move || -> Result<Done, Error> {
                let mut mine = Mine { progress: &progress, rank, options: &options };
                worker::train(&options, &mut *task, transport, initial, None, &mut mine)
            }));
        } else {
            let layout = layout.clone();
            let task = task.copy();
            servers.push(thread::spawn(move || server(&options, &*task, layout, &initial, transport, &progress)));
        }
    }
    while workers.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        update();
    }
    update();
    let (mut first, mut steps, mut examples) = (None, 0, 0);
    let (mut statuses, mut digests) = (Vec::new(), Vec::new());
    let mut failure = None;
    for thread in workers {
        match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(done) => {
                (steps, examples) = (steps + done.steps, examples + done.examples);
                statuses.push(done.status);
                digests.push(digest(&done.params));
                first.get_or_insert((done.params, done.before_end));
            }
            // These are often the consequence of another worker's error, so any other error takes precedence.
            Err(error)
                if matches!(
                    failure,
                    None | Some(Error::Cut { .. } | Error::PeerFailed { .. } | Error::Deadline(_))
                ) =>
            {
                failure = Some(error);
            }
            Err(_) => {}
        }
    }
    for thread in servers {
        match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(status) => statuses.push(status),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let (params, before_end) = first.unwrap_or_default();
    match failure {
        Some(error) => Err(error),
        None => {
            Ok(Ended { params, before_end, digests, statuses, steps, examples, seconds: begun.elapsed().as_secs_f64() })
        }
    }
}

/// Runs a server to the end of the run, and returns its last status.
fn server(
    options: &Options,
    task: &dyn Task,
    layout: Layout,
    initial: &[f32],
    transport: Mem,
    progress: &Progress,
) -> Result<Status, Error> {
    let mut params = initial.to_vec();
    let builder = options.agree(options.builder(layout), task, initial, None);
    let mut server = builder.on_event(hints_of(options)).serve(transport, initial)?;
    while server.wait(&mut params, Duration::from_millis(100))? == RunState::Running {
        progress.note(server.status()?);
    }
    server.status()
}
