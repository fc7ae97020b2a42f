//! A simulated cluster with faults: the machines that ship, in virtual time that goes as fast as the real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant as Time};

use gradwire_core::status::{Counters, Histogram, LinkStatus, Presence, Role};
use gradwire_core::telemetry::{Frame, Note, Progress, Report, Run, Times};
use gradwire_core::{Clock, Cluster, Instant, Layout, Patience, PeerId, Recipe, Status};
use gradwire_sim::{App, Entry, Fault, Halt, Life, Network, Plan, World};

use crate::source::Said;

const LEN: usize = 4000;
/// How often nodes say how they are.
const PERIOD: u64 = 100_000_000;

/// A worker that goes down a bowl, in steps of a dozen milliseconds.
struct Toy {
    rank: u32,
    state: u64,
    spent: Arc<AtomicU64>,
}

impl Toy {
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state >> 33
    }
}

impl App for Toy {
    fn duration(&mut self, _: u64) -> Duration {
        // One of them is on a slower machine.
        let slower = if self.rank == 3 { 2 } else { 1 };
        let took = Duration::from_micros((9_000 + self.random() % 6_000) * slower);
        self.spent.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        took
    }

    fn update(&mut self, _: u64, params: &[f32], update: &mut [f32]) -> u32 {
        for (update, x) in update.iter_mut().zip(params) {
            let noise = (self.random() % 2001) as f32 / 1000.0 - 1.0;
            *update = 0.002 * (x + noise);
        }
        16
    }
}

/// Runs until nobody listens.
pub(crate) fn run(nodes: u32, tell: &SyncSender<Said>) {
    let workers = nodes.max(2);
    let recipe: Recipe = "ssp bound=4 codec=threshold tau=0.001953125 control=density density=0.02"
        .parse()
        .unwrap_or_else(|_| Recipe::ssp(4));
    let cluster = Cluster { workers, servers: 1 };
    let second = |s: f64| Instant::from_nanos((s * 1e9) as u64);
    let mut faults = Vec::new();
    for k in 0..120 {
        let (at, node) = (30.0 * f64::from(k), |n: u32| PeerId((n + k) % workers));
        faults.push((second(at + 6.0), Fault::Crash { node: node(1), restart: Some(Duration::from_secs(5)) }));
        faults.push((second(at + 16.0), Fault::Pause { node: node(2), lasts: Duration::from_secs(4) }));
        faults.push((second(at + 24.0), Fault::Cut { a: node(0), b: PeerId(workers) }));
    }
    let spent: Vec<_> = (0..workers).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let plan = Plan {
        network: Network { jitter: Duration::from_micros(300), ..Network::calm() },
        patience: Patience::new(Duration::from_secs(3)),
        steps: u64::MAX / 2,
        initial: vec![1.0; LEN],
        faults,
        ..Plan::new(7, Layout::flat(LEN), recipe, cluster)
    };
    let app = |rank: PeerId| -> Box<dyn App> {
        let spent = spent.get(rank.index()).cloned().unwrap_or_default();
        Box::new(Toy { rank: rank.0, state: u64::from(rank.0) + 1, spent })
    };
    let Ok(mut world) = World::new(plan, app) else { return };
    let run = Run { recipe: recipe.to_string(), workers, servers: 1, parameters: LEN as u64 };
    if tell.send(Said::Frame(Box::new(Frame::Run(run)))).is_err() {
        return;
    }
    let begun = Time::now();
    let (mut told, mut next) = (0, 0);
    let _ = world.run(u64::MAX, |world: &World, _| -> Result<(), Halt> {
        let now = world.now();
        for log in &world.log()[told..] {
            let note = match &log.entry {
                Entry::Signal(signal) => Note::of_signal(log.at, log.node, signal),
                Entry::Event(event) => Some(Note::of_event(log.at, log.node, event)),
            };
            if let Some(note) = note {
                say(tell, Frame::Note(note))?;
            }
        }
        told = world.log().len();
        // Until something happens next, everyone stays as it is.
        let until = world.next_at().map_or(now, |at| at.max(now));
        while next <= until.as_nanos() {
            let at = Instant::from_nanos(next.max(now.as_nanos()));
            next = at.as_nanos() + PERIOD;
            // Not ahead of the real time.
            thread::sleep(Duration::from_nanos(at.as_nanos()).saturating_sub(begun.elapsed()));
            for rank in 0..cluster.nodes() {
                if let Some(report) = report(world, PeerId(rank), &spent, at) {
                    say(tell, Frame::Report(report))?;
                }
            }
        }
        Ok(())
    });
}

/// A report of a node that there is not, for measuring.
pub(crate) fn made_up(rank: u32, nodes: u32, tick: u64) -> Report {
    let link = |peer: u32| LinkStatus {
        peer: PeerId(peer % nodes),
        bytes_out: tick * 1000,
        bytes_in: tick * 1000,
        messages_out: tick,
        messages_in: tick,
        last_heard: None,
        response_ns: 2_000_000,
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
        density: 0.01,
        tau: 0.001,
        clipped: 0.0,
        operations: 2,
        updates: tick,
        view: 0,
        members: 0,
    };
    let times = Times { steps: tick, compute: tick * 8_000_000, wait: tick * 2_000_000, ..Times::default() };
    let progress = Progress { loss: 1.0 / (1.0 + tick as f32), accuracy: 0.9, examples: tick * 16 };
    let at = Instant::from_nanos(tick * PERIOD);
    Report { at, host: format!("host-{}", rank / 8), status, times, progress }
}

fn say(tell: &SyncSender<Said>, frame: Frame) -> Result<(), Halt> {
    tell.send(Said::Frame(Box::new(frame))).map_err(|_| Halt::Budget(Vec::new()))
}

/// A node as it would say itself; who is down says nothing.
fn report(world: &World, rank: PeerId, spent: &[Arc<AtomicU64>], now: Instant) -> Option<Report> {
    if world.life(rank) != Life::Up || world.is_paused(rank) {
        return None;
    }
    let mut status = world.status(rank)?;
    status.workers.retain(|worker| worker.state != Presence::Awaited);
    let steps = world.steps(rank);
    let compute = spent.get(rank.index()).map_or(0, |spent| spent.load(Ordering::Relaxed));
    let wait = now.as_nanos().saturating_sub(compute);
    let params = world.params(rank);
    let loss = params.iter().map(|x| x * x).sum::<f32>() / params.len().max(1) as f32;
    let times = Times { steps, compute, wait: if compute > 0 { wait } else { 0 }, ..Times::default() };
    let trains = spent.get(rank.index()).is_some();
    let progress = match trains {
        true => Progress { loss, accuracy: (1.0 - loss).clamp(0.0, 1.0), examples: 16 * steps },
        false => Progress::default(),
    };
    Some(Report { at: now, host: format!("sim-{}", rank.0 / 4), status, times, progress })
}
