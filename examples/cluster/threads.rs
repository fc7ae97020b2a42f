//! Runs the cluster as threads of this process, connected by [`Mem`].

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::status::Histogram;
use gradwire::{Error, Layout, Mem, RunState, Session, Status};
use gradwire_examples::data::Data;
use gradwire_examples::model::Model;
use gradwire_examples::options::Options;
use gradwire_examples::worker::{self, Done, Watch, digest};

use crate::report::Outcome;

/// The progress of all nodes. Their threads write it, and the main thread prints it.
pub(crate) struct Progress {
    /// Steps of each worker so far.
    pub(crate) steps: Vec<AtomicU64>,
    /// The last status of each node, by rank.
    pub(crate) statuses: Mutex<Vec<Option<Status>>>,
    /// Epochs that worker 0 has ended and the main thread has not printed: number, mean training loss, parameters.
    pub(crate) epochs: Mutex<VecDeque<(u32, f64, Vec<f32>)>>,
    /// The accuracy of the last epoch that the main thread has evaluated.
    pub(crate) accuracy: Mutex<Option<f64>>,
}

/// The result of all threads.
pub(crate) struct Ended {
    params: Vec<f32>,
    digests: Vec<u64>,
    statuses: Vec<Status>,
    steps: u64,
    examples: u64,
    seconds: f64,
}

impl Ended {
    /// The final parameters of a worker.
    pub(crate) fn params(&self) -> &[f32] {
        &self.params
    }

    /// Sums the results up, and evaluates the final parameters.
    pub(crate) fn evaluated(&self, evaluator: &mut Model, test: &Data) -> Outcome {
        let (sent, dense) = traffic(self.statuses.iter());
        let (staleness, worker) = (staleness(self.statuses.iter()), &self.statuses[0]);
        let (accuracy, loss) = evaluator.evaluate(&self.params, test);
        Outcome {
            accuracy,
            loss,
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
            merged: self.statuses.iter().map(|status| status.counters.merged).sum(),
        }
    }
}

impl Progress {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            steps: (0..options.cluster.workers).map(|_| AtomicU64::new(0)).collect(),
            statuses: Mutex::new((0..options.cluster.nodes()).map(|_| None).collect()),
            epochs: Mutex::new(VecDeque::new()),
            accuracy: Mutex::new(None),
        }
    }

    fn note(&self, status: Status) {
        let rank = status.me.index();
        self.statuses.lock().unwrap_or_else(|error| error.into_inner())[rank] = Some(status);
    }
}

/// Writes the progress of one worker. The second field is its rank.
struct Mine<'a>(&'a Progress, usize);

impl Watch for Mine<'_> {
    fn step(&mut self, steps: u64, _: &mut Session) -> Result<(), Error> {
        self.0.steps[self.1].store(steps, Ordering::Relaxed);
        Ok(())
    }

    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], session: &mut Session) -> Result<Option<f64>, Error> {
        self.0.note(session.status()?);
        if self.1 == 0 {
            let ended = (epoch, loss, params.to_vec());
            self.0.epochs.lock().unwrap_or_else(|error| error.into_inner()).push_back(ended);
        }
        Ok(*self.0.accuracy.lock().unwrap_or_else(|error| error.into_inner()))
    }
}

/// The staleness of all applied updates, over all nodes.
pub(crate) fn staleness<'a>(statuses: impl Iterator<Item = &'a Status>) -> Histogram {
    let mut all = Histogram::default();
    statuses.for_each(|status| all.merge(&status.staleness));
    all
}

/// The bytes that all nodes have sent, and the bytes of the same messages as dense floats.
pub(crate) fn traffic<'a>(statuses: impl Iterator<Item = &'a Status>) -> (u64, u64) {
    statuses.fold((0, 0), |(sent, dense), status| (sent + status.bytes_out(), dense + status.counters.dense_bytes))
}

/// Runs all nodes to the end of the training. Calls `update` every 20 ms on this thread.
///
/// # Errors
/// The error of a worker or server; see below for the choice among several.
pub(crate) fn run(
    options: &Options,
    train: &Arc<Data>,
    progress: &Arc<Progress>,
    initial: &[f32],
    mut update: impl FnMut(),
) -> Result<Ended, Error> {
    let model = Model::new(train.pixels, &options.hidden, options.batch);
    let layout = model.layout();
    let begun = Instant::now();
    let mut workers = Vec::new();
    let mut servers = Vec::new();
    for (rank, transport) in Mem::cluster(options.cluster.nodes()).into_iter().enumerate() {
        let (options, progress, initial) = (options.clone(), Arc::clone(progress), initial.to_vec());
        if rank < options.cluster.workers as usize {
            let train = Arc::clone(train);
            workers.push(thread::spawn(move || -> Result<Done, Error> {
                worker::train(&options, &train, transport, initial, None, &mut Mine(&progress, rank))
            }));
        } else {
            let layout = layout.clone();
            servers.push(thread::spawn(move || server(&options, layout, &initial, transport, &progress)));
        }
    }
    while workers.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        update();
    }
    update();
    let (mut params, mut steps, mut examples) = (Vec::new(), 0, 0);
    let (mut statuses, mut digests) = (Vec::new(), Vec::new());
    let mut failure = None;
    for thread in workers {
        match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(done) => {
                (steps, examples) = (steps + done.steps, examples + done.examples);
                statuses.push(done.status);
                digests.push(digest(&done.params));
                params = done.params;
            }
            // A lost peer is often the consequence of another worker's error, so any other error takes precedence.
            Err(error) if failure.is_none() || matches!(failure, Some(Error::Cut { .. })) => failure = Some(error),
            Err(_) => {}
        }
    }
    for thread in servers {
        match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(status) => statuses.push(status),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(Ended { params, digests, statuses, steps, examples, seconds: begun.elapsed().as_secs_f64() }),
    }
}

/// Runs a server to the end of the run, and returns its last status.
fn server(
    options: &Options,
    layout: Layout,
    initial: &[f32],
    transport: Mem,
    progress: &Progress,
) -> Result<Status, Error> {
    let mut params = initial.to_vec();
    let builder =
        Session::builder(layout, options.recipe, options.cluster).optimizer_vectors(options.optimizer_vectors());
    let mut server = options.with_monitoring(options.executor.on(builder)).serve(transport, initial)?;
    while server.wait(&mut params, Duration::from_millis(100))? == RunState::Running {
        progress.note(server.status()?);
    }
    server.status()
}
