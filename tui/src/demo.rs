//! The demo: a simulated cluster with faults, shown at the speed of real time.
//!
//! The simulator runs the machines of core in virtual time. After each event the demo sends the new notes, and the
//! reports that are due by then. [`synthetic_report`] is for `--measure` and needs no simulation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gradwire_core::Instant as Moment;
use gradwire_core::status::{Counters, Histogram, LinkStatus, Presence, Role};
use gradwire_core::telemetry::{Frame, Meter, Note, Present, Progress, Report, Run, Stage, Times};
use gradwire_core::{Clock, Cluster, Incarnation, Layout, Patience, PeerId, Recipe, Status};
use gradwire_sim::{App, Entry, Fault, Halt, Life, Network, Plan, World};

use crate::source::Update;

/// Parameters of the model.
const LEN: usize = 4000;
/// Nanoseconds between two reports of a node.
const REPORT_INTERVAL: u64 = 100_000_000;
/// Examples per step.
const BATCH: u32 = 16;
/// Periods of 30 s for which faults are planned: an hour.
const FAULT_PERIODS: u32 = 120;

/// A worker that minimises |x|^2 / 2 with noisy gradients. A step takes 9 to 15 ms.
struct SimulatedWorker {
    rank: u32,
    /// State of the random numbers.
    state: u64,
    /// The virtual time of the event at hand, in nanoseconds.
    now: Arc<AtomicU64>,
    /// Its steps, as the nodes of real runs measure them.
    meter: Arc<Mutex<Meter>>,
}

impl SimulatedWorker {
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }
}

impl App for SimulatedWorker {
    fn duration(&mut self, _: u64) -> Duration {
        // Rank 3 has a machine of half the speed, so that the demo has a straggler.
        let slowdown = if self.rank == 3 { 2 } else { 1 };
        let (mut meter, now) = (lock(&self.meter), self.now.load(Ordering::Relaxed));
        // The world asks when the worker has joined, and at the end of each step.
        if meter.stage() == Stage::Joining {
            meter.joins(now)
        } else {
            meter.step_ends(now, BATCH.into())
        }
        drop(meter);
        Duration::from_micros((9_000 + self.random() % 6_000) * slowdown)
    }

    fn update(&mut self, _: u64, params: &[f32], update: &mut [f32]) -> u32 {
        lock(&self.meter).step_begins(self.now.load(Ordering::Relaxed));
        for (update, x) in update.iter_mut().zip(params) {
            let noise = (self.random() % 2001) as f32 / 1000.0 - 1.0;
            *update = 0.002 * (x + noise);
        }
        BATCH
    }
}

fn lock(meter: &Mutex<Meter>) -> MutexGuard<'_, Meter> {
    // A meter is whole after each of its calls.
    meter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the demo until the receiver of `updates` is gone.
pub(crate) fn run(nodes: u32, updates: &SyncSender<Update>) {
    let workers = nodes.max(2);
    // A threshold and a bound, so that every pane has something to show.
    let recipe: Recipe = "ssp bound=4 codec=threshold tau=0.001953125 control=density density=0.02"
        .parse()
        .unwrap_or_else(|_| Recipe::ssp(4));
    let cluster = Cluster { workers, servers: 1 };
    let now = Arc::new(AtomicU64::new(0));
    let meters: Vec<_> = (0..=workers).map(|_| Arc::new(Mutex::new(Meter::new(0)))).collect();
    lock(&meters[workers as usize]).serves(0);
    let plan = Plan {
        network: Network { jitter: Duration::from_micros(300), ..Network::calm() },
        patience: Patience::new(Duration::from_secs(3)),
        steps: u64::MAX / 2,
        initial: vec![1.0; LEN],
        faults: faults(workers),
        ..Plan::new(7, Layout::flat(LEN), recipe, cluster)
    };
    let app = |rank: PeerId| -> Box<dyn App> {
        let (now, meter) = (Arc::clone(&now), Arc::clone(&meters[rank.index()]));
        Box::new(SimulatedWorker { rank: rank.0, state: u64::from(rank.0) + 1, now, meter })
    };
    let Ok(mut world) = World::new(plan, app) else { return };
    let run = Run { recipe: recipe.to_string(), workers, servers: 1, parameters: LEN as u64, name: None };
    let incarnations = vec![1; meters.len()];
    let (started, notes_sent, next_report) = (Instant::now(), 0, 0);
    let mut reporter = Reporter {
        updates,
        now: Arc::clone(&now),
        meters: meters.clone(),
        incarnations,
        cluster,
        started,
        notes_sent,
        next_report,
    };
    if reporter.send(Frame::Run(run)).is_ok() {
        let _ = world.run(u64::MAX, |world, _| reporter.on_event(world));
    }
}

/// The faults of the demo. In each period of 30 s one worker crashes and restarts, one pauses, and one connection to
/// the server breaks. The workers take turns.
fn faults(workers: u32) -> Vec<(Moment, Fault)> {
    let moment = |seconds: f64| Moment::from_nanos((seconds * 1e9) as u64);
    (0..FAULT_PERIODS)
        .flat_map(|k| {
            let (start, node) = (30.0 * f64::from(k), |n: u32| PeerId((n + k) % workers));
            [
                (moment(start + 6.0), Fault::Crash { node: node(1), restart: Some(Duration::from_secs(5)) }),
                (moment(start + 16.0), Fault::Pause { node: node(2), lasts: Duration::from_secs(4) }),
                (moment(start + 24.0), Fault::Cut { a: node(0), b: PeerId(workers) }),
            ]
        })
        .collect()
}

/// Sends the frames of a simulated run, in step with real time.
struct Reporter<'a> {
    updates: &'a SyncSender<Update>,
    /// The virtual time of the next event, for the workers.
    now: Arc<AtomicU64>,
    /// The steps of each node, and the number of its process.
    meters: Vec<Arc<Mutex<Meter>>>,
    incarnations: Vec<u64>,
    cluster: Cluster,
    /// Real time at virtual time 0.
    started: Instant,
    /// Entries of the world's log that have been sent as notes.
    notes_sent: usize,
    /// Virtual time of the next reports, in nanoseconds.
    next_report: u64,
}

impl Reporter<'_> {
    /// Sends new notes, and all reports that are due before the next event. Fails if the receiver is gone.
    fn on_event(&mut self, world: &World) -> Result<(), Halt> {
        for log in &world.log()[self.notes_sent..] {
            let note = match &log.entry {
                Entry::Signal(signal) => Note::of_signal(log.at, log.node, signal),
                Entry::Event(event) => Some(Note::of_event(log.at, log.node, event)),
                Entry::Order(_) => None,
            };
            if let Some(note) = note {
                self.send(Frame::Note(note))?;
            }
        }
        self.notes_sent = world.log().len();
        // Nothing changes before the next event, so the current state holds for all reports until then.
        let now = world.now();
        let until = world.next_at().map_or(now, |at| at.max(now));
        self.now.store(until.as_nanos(), Ordering::Relaxed);
        while self.next_report <= until.as_nanos() {
            let at = Moment::from_nanos(self.next_report.max(now.as_nanos()));
            self.next_report = at.as_nanos() + REPORT_INTERVAL;
            // Virtual time must not run ahead of real time.
            thread::sleep(Duration::from_nanos(at.as_nanos()).saturating_sub(self.started.elapsed()));
            self.send(Frame::Present(Present { at, start: 1 }))?;
            for rank in 0..self.cluster.nodes() {
                if let Some(report) = self.report(world, PeerId(rank), at) {
                    self.send(Frame::Report(report))?;
                }
            }
        }
        Ok(())
    }

    fn send(&self, frame: Frame) -> Result<(), Halt> {
        // `World::run` ends with any error. This one stands for a receiver that is gone.
        self.updates.send(Update::Frame(Box::new(frame))).map_err(|_| Halt::Budget(Vec::new()))
    }

    /// The report of a node; `None` while it is down or paused.
    fn report(&mut self, world: &World, rank: PeerId, now: Moment) -> Option<Report> {
        let mut meter = lock(&self.meters[rank.index()]);
        if world.life(rank) != Life::Up {
            // A process that is started again counts from 0.
            if meter.stage() != Stage::Joining {
                *meter = Meter::new(now.as_nanos());
                self.incarnations[rank.index()] += 1;
            }
            return None;
        }
        if world.is_paused(rank) {
            return None;
        }
        let mut status = world.status(rank)?;
        // Workers that have not connected yet would look like failures.
        status.workers.retain(|worker| worker.state != Presence::Awaited);
        let params = world.params(rank);
        let loss = params.iter().map(|x| x * x).sum::<f32>() / params.len().max(1) as f32;
        let progress = match rank.0 < self.cluster.workers {
            true => Progress { loss, accuracy: (1.0 - loss).clamp(0.0, 1.0), examples: meter.examples() },
            false => Progress::default(),
        };
        Some(Report {
            at: now,
            host: format!("sim-{}", rank.0 / 4),
            run: None,
            incarnation: Incarnation(self.incarnations[rank.index()]),
            stage: meter.stage(),
            status,
            times: meter.times(now.as_nanos()),
            progress,
        })
    }
}

/// A plausible report of a node in a mesh of `nodes`, `tick` tenths of a second after the start.
pub(crate) fn synthetic_report(rank: u32, nodes: u32, tick: u64) -> Report {
    let link = |peer: u32| LinkStatus {
        peer: PeerId(peer % nodes),
        bytes_out: tick * 1000,
        bytes_in: tick * 1000,
        messages_out: tick,
        messages_in: tick,
        last_heard: None,
        response_ns: 2_000_000,
        arriving_ns: 0,
    };
    let mut staleness = Histogram::default();
    (0..8).for_each(|k| staleness.record(k));
    let status = Status {
        me: PeerId(rank),
        role: Role::Mesh,
        clock: Clock(tick + u64::from(rank % 7)),
        waiting: None,
        counters: Counters { dense_bytes: tick * 100_000, entries: tick * 50, ..Counters::default() },
        staleness,
        workers: Vec::new(),
        links: (1..9).map(|k| link(rank + k)).collect(),
        residual_norm: 0.5,
        residual_updates: 0.25,
        rest: None,
        density: 0.01,
        tau: 0.001,
        clipped: 0.0,
        forgotten: 0.0,
        times: Times::default(),
        operations: 2,
        updates: tick,
        view: 0,
        members: 0,
    };
    let times = Times {
        elapsed: tick * 100_000_000,
        steps: tick,
        stepped: tick * 100_000_000,
        stepped_compute: tick * 80_000_000,
        compute: tick * 80_000_000,
        wait: tick * 20_000_000,
        ..Times::default()
    };
    let progress = Progress { loss: 1.0 / (1.0 + tick as f32), accuracy: 0.9, examples: tick * 16 };
    let at = Moment::from_nanos(tick * REPORT_INTERVAL);
    Report {
        at,
        host: format!("host-{}", rank / 8),
        run: None,
        incarnation: Incarnation(1),
        stage: Stage::Active,
        status,
        times,
        progress,
    }
}
