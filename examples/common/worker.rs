//! One worker's training loop, over whatever transport.

use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use gradwire::recipe::{Payload, Topology};
use gradwire::{Error, Event, Session, Status, Transport};

use super::data::{Data, shuffle};
use super::model::Model;
use super::options::Options;

/// What a worker has done.
pub struct Done {
    pub params: Vec<f32>,
    pub status: Status,
    pub steps: u64,
    pub examples: u64,
    /// It was asked to stop before its time.
    pub drained: bool,
}

/// Where a worker keeps what it needs to go on after a pause.
#[derive(Clone, Debug)]
pub struct Keep {
    pub directory: PathBuf,
    /// Steps between checkpoints, in recipes with rounds; others are suspended when they are asked to stop.
    pub every: u64,
    pub resume: bool,
}

/// What the loop tells and asks while it runs.
pub trait Watch {
    /// Has this worker been asked to stop?
    fn stops(&self) -> bool {
        false
    }
    /// Who is told what happens.
    fn teller(&self) -> Option<fn(u32, Event)> {
        None
    }
    /// A step is done.
    fn step(&mut self, steps: u64, session: &mut Session) -> Result<(), Error>;
    /// A pass over the data is done; returns the accuracy, if it is known.
    fn epoch(&mut self, epoch: u32, loss: f64, params: &[f32], session: &mut Session) -> Result<Option<f64>, Error>;
}

/// Takes part as the worker of this rank, until all epochs are done or it is asked to stop.
pub fn train<T: Transport + 'static>(
    options: &Options,
    train: &Data,
    transport: T,
    mut params: Vec<f32>,
    keep: Option<&Keep>,
    watch: &mut dyn Watch,
) -> Result<Done, Error> {
    let rank = transport.place().0.index();
    let mut model = Model::new(train.pixels, &options.hidden, options.batch);
    let builder = Session::builder(model.layout(), options.recipe, options.cluster)
        .deadline(Duration::from_secs(options.deadline))
        .min_workers(options.min_workers)
        .optimizer_vectors(options.optimizer_vectors());
    let builder = options.watched(options.executor.on(builder));
    let builder = match watch.teller() {
        Some(tell) => builder.watch(move |event| tell(rank as u32, event)),
        None => builder,
    };
    let mut momentum = vec![0.0; params.len()];
    let (mut session, resumed) = match keep.filter(|keep| keep.resume) {
        Some(keep) => {
            let mut extra = vec![0.0; params.len()];
            let session = builder.resume(&keep.directory, transport, &mut params, &mut [&mut extra])?;
            momentum.copy_from_slice(&extra);
            (session, true)
        }
        None => (builder.join(transport, &mut params)?, false),
    };
    // Who comes to a run that has gone on takes part from where the others are.
    let mut begun = session.steps();
    if !resumed || session.is_outdated() {
        let clock = progress(options, &session.status()?);
        begun += clock * u64::from(options.recipe.how_often().at(0));
    }
    let slower = options.slow.filter(|(slow, _)| *slow as usize == rank).map_or(1.0, |(_, factor)| factor);
    let in_place = options.recipe.what() == Payload::Parameters;
    let (mut update, mut gradient) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    let (mut steps, mut examples, mut number) = (0, 0, 0);
    let (mut rate, mut accuracy) = (options.rate, f64::NAN);
    // A checkpoint is to be written when the period ends.
    let mut due = false;
    // Everyone takes the same number of batches of each epoch, of different examples.
    let share = train.len() / options.cluster.workers as usize;
    'training: for epoch in 0..options.epochs {
        let mut order: Vec<usize> = (0..train.len()).collect();
        shuffle(&mut order, options.seed ^ (u64::from(epoch) << 32));
        let mine = &order[rank * share..][..share];
        let (mut loss, mut batches) = (0.0, 0);
        for batch in mine.chunks(options.batch) {
            number += 1;
            if number <= begun {
                continue;
            }
            if watch.stops() {
                break 'training;
            }
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
            watch.step(steps, &mut session)?;
            session.progress((loss / f64::from(batches)) as f32, accuracy as f32);
            let Some(keep) = keep.filter(|_| options.recipe.is_collective()) else { continue };
            due |= number.is_multiple_of(keep.every);
            if due {
                match session.checkpoint(&keep.directory, &params, &[&momentum]) {
                    Ok(written) => due = !written,
                    // A full disk is no reason to stop; the last one that was written is still there.
                    Err(Error::Checkpoint(error)) => {
                        let _ = writeln!(std::io::stderr(), "node {rank}: {error}; training goes on");
                        due = false;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        rate *= options.decay;
        session.set_learning_rate(rate / options.rate);
        if batches > 0 {
            accuracy = watch.epoch(epoch + 1, loss / f64::from(batches), &params, &mut session)?.unwrap_or(accuracy);
        }
    }
    let drained = number > begun && watch.stops();
    let status = match keep.filter(|_| !options.recipe.is_collective()) {
        Some(keep) if drained => session.suspend(&keep.directory, &mut params, &[&momentum])?,
        _ if drained => session.leave(&mut params)?,
        _ => session.finish(&mut params)?,
    };
    Ok(Done { params, status, steps, examples, drained })
}

/// Where the run is that this worker has come to, in synchronisations of each worker. Peers of a mesh count their own
/// messages only: there it is what the replica says.
fn progress(options: &Options, status: &Status) -> u64 {
    match options.recipe.between() {
        Topology::Mesh { .. } => status.updates / u64::from(options.cluster.workers),
        _ => status.clock.0,
    }
}

/// FNV-1a over the bits: equal parameters have equal digests.
pub fn digest(params: &[f32]) -> u64 {
    let bytes = params.iter().flat_map(|x| x.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
