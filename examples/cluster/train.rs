//! The cluster: workers and servers as threads over the in-process transport.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::recipe::Payload;
use gradwire::status::Histogram;
use gradwire::{Error, Layout, Mem, Session, Status};

use crate::data::{Data, shuffle};
use crate::model::Model;
use crate::options::Options;

/// What the threads say of themselves while they run.
pub(crate) struct Progress {
    /// Steps of each worker.
    pub(crate) steps: Vec<AtomicU64>,
    /// The last status of each node.
    pub(crate) statuses: Mutex<Vec<Option<Status>>>,
    /// Epochs that worker 0 has ended: number, mean training loss, parameters.
    pub(crate) epochs: Mutex<VecDeque<(u32, f64, Vec<f32>)>>,
}

/// How it ended.
pub(crate) struct Outcome {
    pub(crate) params: Vec<f32>,
    /// Of each worker's parameters.
    pub(crate) digests: Vec<u64>,
    pub(crate) statuses: Vec<Status>,
    pub(crate) steps: u64,
    pub(crate) examples: u64,
    pub(crate) seconds: f64,
}

impl Outcome {
    /// Does every worker end with the same parameters, bit for bit?
    pub(crate) fn replicas_equal(&self) -> bool {
        self.digests.iter().all(|digest| *digest == self.digests[0])
    }
}

impl Progress {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            steps: (0..options.cluster.workers).map(|_| AtomicU64::new(0)).collect(),
            statuses: Mutex::new((0..options.cluster.nodes()).map(|_| None).collect()),
            epochs: Mutex::new(VecDeque::new()),
        }
    }

    fn note(&self, status: Status) {
        let rank = status.me.index();
        self.statuses.lock().unwrap_or_else(|error| error.into_inner())[rank] = Some(status);
    }
}

/// Staleness of all updates that were applied, at whichever nodes.
pub(crate) fn staleness<'a>(statuses: impl Iterator<Item = &'a Status>) -> Histogram {
    let mut all = Histogram::default();
    statuses.for_each(|status| all.merge(&status.staleness));
    all
}

/// Trains until all epochs are done, calling `look` a few times a second.
pub(crate) fn run(
    options: &Options,
    train: &Arc<Data>,
    progress: &Arc<Progress>,
    mut look: impl FnMut(),
) -> Result<Outcome, Error> {
    let model = Model::new(train.pixels, &options.hidden, options.batch);
    let (layout, initial) = (model.layout(), model.initial(options.seed));
    let begun = Instant::now();
    let mut workers = Vec::new();
    let mut servers = Vec::new();
    for (rank, transport) in Mem::cluster(options.cluster.nodes()).into_iter().enumerate() {
        let (options, layout, initial) = (options.clone(), layout.clone(), initial.clone());
        let progress = Arc::clone(progress);
        if rank < options.cluster.workers as usize {
            let train = Arc::clone(train);
            workers.push(thread::spawn(move || worker(rank, &options, layout, initial, &train, transport, &progress)));
        } else {
            servers.push(thread::spawn(move || server(&options, layout, &initial, transport, &progress)));
        }
    }
    while workers.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        look();
    }
    look();
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
            // Of several, the one that says most: a deadline or a differing contract, before peers that went.
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
        None => Ok(Outcome { params, digests, statuses, steps, examples, seconds: begun.elapsed().as_secs_f64() }),
    }
}

/// FNV-1a over the bits: equal parameters have equal digests.
fn digest(params: &[f32]) -> u64 {
    let bytes = params.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

struct Done {
    params: Vec<f32>,
    status: Status,
    steps: u64,
    examples: u64,
}

fn worker(
    rank: usize,
    options: &Options,
    layout: Layout,
    mut params: Vec<f32>,
    train: &Data,
    transport: Mem,
    progress: &Progress,
) -> Result<Done, Error> {
    let mut model = Model::new(train.pixels, &options.hidden, options.batch);
    let mut session = Session::builder(layout, options.recipe, options.cluster)
        .deadline(Duration::from_secs(options.deadline))
        .optimizer_vectors(options.optimizer_vectors())
        .join(transport, &mut params)?;
    let slower = options.slow.filter(|(slow, _)| *slow as usize == rank).map_or(1.0, |(_, factor)| factor);
    let in_place = options.recipe.what() == Payload::Parameters;
    let mut update = vec![0.0; params.len()];
    let mut momentum = vec![0.0; params.len()];
    let mut gradient = vec![0.0; params.len()];
    let (mut steps, mut examples) = (0, 0);
    let mut rate = options.rate;
    for epoch in 0..options.epochs {
        let mut order: Vec<usize> = (0..train.len()).collect();
        shuffle(&mut order, options.seed ^ (u64::from(epoch) << 32));
        // Everyone takes the same number of batches of each epoch, of different examples.
        let share = train.len() / options.cluster.workers as usize;
        let mine = &order[rank * share..][..share];
        let (mut loss, mut batches) = (0.0, 0);
        for batch in mine.chunks(options.batch) {
            let begun = Instant::now();
            loss += f64::from(model.gradient(&params, train, batch, &mut gradient));
            for ((update, momentum), gradient) in update.iter_mut().zip(&mut momentum).zip(&gradient) {
                *momentum = options.momentum * *momentum + gradient;
                *update = rate * *momentum;
            }
            let least = options.pace.map_or(Duration::ZERO, |pace| Duration::from_secs(1) / pace);
            let took = begun.elapsed();
            thread::sleep(took.max(least).mul_f64(slower).saturating_sub(took));
            let weight = batch.len() as u32;
            if in_place {
                params.iter_mut().zip(&update).for_each(|(p, u)| *p -= u);
                session.sync_with(&mut params, &mut [&mut momentum], weight)?;
            } else {
                session.step(&mut params, &update, weight)?;
            }
            (steps, examples, batches) = (steps + 1, examples + batch.len() as u64, batches + 1);
            progress.steps[rank].store(steps, Ordering::Relaxed);
        }
        progress.note(session.status()?);
        rate *= options.decay;
        session.set_learning_rate(rate / options.rate);
        if rank == 0 {
            let ended = (epoch + 1, loss / f64::from(batches.max(1)), params.clone());
            progress.epochs.lock().unwrap_or_else(|error| error.into_inner()).push_back(ended);
        }
    }
    let status = session.finish(&mut params)?;
    Ok(Done { params, status, steps, examples })
}

fn server(
    options: &Options,
    layout: Layout,
    initial: &[f32],
    transport: Mem,
    progress: &Progress,
) -> Result<Status, Error> {
    let mut params = initial.to_vec();
    let mut server = Session::builder(layout, options.recipe, options.cluster)
        .optimizer_vectors(options.optimizer_vectors())
        .serve(transport, initial)?;
    while server.wait(&mut params, Duration::from_millis(100))?.is_none() {
        progress.note(server.status()?);
    }
    server.status()
}
