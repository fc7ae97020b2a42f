//! `--calibrate`: a recipe on threads of this machine in real time, and in the simulator with the step times that the
//! threads had. The difference is the error of the simulator.
//!
//! A step of a thread computes a gradient, and then sleeps until its time of `--speeds` is over. Messages travel through
//! memory ([`Mem`]); the simulated links have no limit of bandwidth and a latency of [`LATENCY`].

use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::compare::{Model as _, Seat};
use gradwire::sim::{Learner, Links, Outcome, Simulation, Speed, Step, Worker};
use gradwire::{Cluster, Error, Mem, PeerId, Recipe, RunState, Session};
use gradwire_examples::options::exit;
use gradwire_examples::units::{three, time};

use super::input::Input;
use super::model::TaskLearner;

/// The time of a message between two threads, about.
const LATENCY: Duration = Duration::from_micros(20);
/// A wait of a node is an error after this time.
const DEADLINE: Duration = Duration::from_secs(60);

/// What is compared: a recipe on a cluster, with its settings.
pub(crate) struct Calibration {
    pub(crate) recipe: Recipe,
    pub(crate) cluster: Cluster,
    pub(crate) batch: u32,
    /// The time of a run.
    pub(crate) lasts: Duration,
    pub(crate) rate: f32,
    /// The least time of a step, by rank; they repeat.
    pub(crate) speeds: Vec<Duration>,
}

/// Figures of a run.
struct Figures {
    /// Examples of all workers per second.
    speed: f64,
    /// Share of the time in which workers compute, the mean over workers.
    busy: f64,
}

/// The times of the steps of all workers, by rank.
type Times = Vec<Vec<Duration>>;

impl Calibration {
    fn seat(&self, rank: usize) -> Seat {
        Seat::new(PeerId(rank as u32), self.cluster.workers, self.batch, 1, self.rate, self.recipe)
    }

    /// Runs on threads. Returns the times of the steps too.
    fn real(&self, input: &Input) -> Result<(Figures, Times), Error> {
        let layout = input.model.layout();
        let initial = input.model.initial(1);
        let mut servers = Vec::new();
        let mut workers = Vec::new();
        for (rank, transport) in Mem::cluster(self.cluster.nodes()).into_iter().enumerate() {
            let builder = Session::builder(layout.clone(), self.recipe, self.cluster).deadline(DEADLINE);
            let mut params = initial.clone();
            if rank >= self.cluster.workers as usize {
                servers.push(thread::spawn(move || {
                    let mut server = builder.serve(transport, &params)?;
                    while server.wait(&mut params, Duration::from_millis(100))? == RunState::Running {}
                    Ok::<(), Error>(())
                }));
                continue;
            }
            let learner = input.model.learner(&self.seat(rank));
            let limits = (self.lasts, self.speeds[rank % self.speeds.len()], self.batch);
            workers.push(thread::spawn(move || {
                let mut session = builder.join(transport, &mut params)?;
                let taken = train(&mut session, learner, &mut params, limits)?;
                session.finish(&mut params)?;
                Ok::<_, Error>(taken)
            }));
        }
        let mut ended = Vec::new();
        for worker in workers {
            ended.push(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        for server in servers {
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        let steps = ended.iter().map(|it| it.steps).sum();
        let busy = ended.iter().map(|it| it.busy.as_secs_f64()).sum();
        Ok((self.figures(steps, busy), ended.into_iter().map(|it| it.times).collect()))
    }

    /// `busy`: the seconds in which workers compute, of all workers together.
    fn figures(&self, steps: u64, busy: f64) -> Figures {
        let seconds = self.lasts.as_secs_f64();
        let speed = (steps * u64::from(self.batch)) as f64 / seconds;
        Figures { speed, busy: busy / seconds / f64::from(self.cluster.workers) }
    }

    /// Runs in virtual time, with the times of these steps.
    fn simulated(&self, input: &Input, times: &Times) -> Result<Figures, gradwire::sim::Error> {
        let times: Vec<_> = times.iter().map(|times| Arc::new(Mutex::new(times.clone().into_iter()))).collect();
        let learner = |worker: &Worker| Replay {
            learner: input.model.learner(&self.seat(worker.rank.index())),
            times: Arc::clone(&times[worker.rank.index()]),
        };
        let run = Simulation::new(input.model.layout(), self.recipe, self.cluster)
            .seed(1)
            .initial(input.model.initial(1))
            .links(Links::new(LATENCY))
            .until(self.lasts);
        // For steps beyond those of the real run.
        let run = (0..self.cluster.workers).fold(run, |run, rank| {
            let least = self.speeds[rank as usize % self.speeds.len()];
            run.speed_of(PeerId(rank), Speed::constant(least))
        });
        let outcome: Outcome = run.run(learner)?;
        let steps = outcome.workers.iter().map(|worker| worker.steps).sum();
        Ok(self.figures(steps, outcome.workers.iter().map(|worker| worker.busy.as_secs_f64()).sum()))
    }
}

/// The steps of a worker on a thread.
struct Taken {
    /// Steps that ended in time.
    steps: u64,
    /// The time of all steps, as far as the run lasts.
    busy: Duration,
    /// The times of all steps, without the waits in `Session::step`.
    times: Vec<Duration>,
}

/// Takes steps as long as the run lasts.
fn train(
    session: &mut Session,
    mut learner: TaskLearner,
    params: &mut [f32],
    (lasts, least, batch): (Duration, Duration, u32),
) -> Result<Taken, Error> {
    let mut update = vec![0.0; params.len()];
    let mut taken = Taken { steps: 0, busy: Duration::ZERO, times: Vec::new() };
    let joined = Instant::now();
    loop {
        let before = joined.elapsed();
        if before >= lasts {
            return Ok(taken);
        }
        learner.step(params, &mut update);
        thread::sleep(least.saturating_sub(joined.elapsed() - before));
        let after = joined.elapsed();
        taken.steps += u64::from(after <= lasts);
        taken.busy += after.min(lasts) - before;
        taken.times.push(after - before);
        session.step(params, &update, batch)?;
    }
}

/// A learner with the step times of a real run.
struct Replay {
    learner: TaskLearner,
    times: Arc<Mutex<std::vec::IntoIter<Duration>>>,
}

impl Learner for Replay {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        self.learner.step(params, update)
    }

    fn step_time(&mut self) -> Option<Duration> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).next()
    }
}

/// Runs both, and prints a row for each.
pub(crate) fn run(command: &str, input: &Input, it: &Calibration) -> Result<(), (u8, String)> {
    let failed = |error: &dyn std::fmt::Display| (exit::RUN, format!("--calibrate {}: {error}", it.recipe));
    let (real, times) = it.real(input).map_err(|error| failed(&error))?;
    let simulated = it.simulated(input, &times).map_err(|error| failed(&error))?;
    let text = if input.json { json(it, &real, &simulated) } else { table(command, it, &real, &simulated) };
    // With a closed pipe (`| head`), there is nothing left to do.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// The error of the simulator, as a share of the real figure.
fn error(real: f64, simulated: f64) -> f64 {
    simulated / real - 1.0
}

fn table(command: &str, it: &Calibration, real: &Figures, simulated: &Figures) -> String {
    let row = |name: &str, it: &Figures| {
        let busy = format!("{:.1}%", 100.0 * it.busy);
        format!("{name:<24}{:>12}{busy:>12}\n", three(it.speed))
    };
    let percent = |real: f64, simulated: f64| format!("{:+.1}%", 100.0 * error(real, simulated));
    format!(
        "{command}\n{}: {} workers with {} examples a step, for {}.\n\n{:<24}{:>12}{:>12}\n{}{}{:<24}{:>12}{:>12}\n",
        it.recipe,
        it.cluster.workers,
        it.batch,
        time(it.lasts.as_secs_f64()),
        "calibration",
        "ex/s",
        "busy",
        row("threads", real),
        row("simulator", simulated),
        "error of the simulator",
        percent(real.speed, simulated.speed),
        percent(real.busy, simulated.busy),
    )
}

fn json(it: &Calibration, real: &Figures, simulated: &Figures) -> String {
    let row = |it: &Figures| format!("{{\"examples per second\":{:e},\"busy\":{:e}}}", it.speed, it.busy);
    format!(
        "{{\"type\":\"calibration\",\"recipe\":\"{}\",\"workers\":{},\"batch\":{},\"seconds\":{:e},\"threads\":{},\
         \"simulator\":{},\"error\":{:e}}}\n",
        it.recipe,
        it.cluster.workers,
        it.batch,
        it.lasts.as_secs_f64(),
        row(real),
        row(simulated),
        error(real.speed, simulated.speed),
    )
}
