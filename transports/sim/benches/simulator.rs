//! The speed of the simulator: events of whole clusters on one core, with small vectors, in virtual time.
//!
//! `cargo bench -p gradwire-sim` prints a row per cluster: events per second at the start (connections, hellos, the first
//! parameters) and in the steps, and the largest memory of the process. `-- async 1000 10` runs one cluster alone: recipe,
//! workers, steps. `cargo test` runs a small one of each, so that the bench keeps working.
//!
//! An event is an input of a machine: a header, the end of an operation, a timeout, a step. Seconds are those that the
//! thread has run, where the system says them, so that a machine in use gives the same figures.

use std::time::Instant as WallInstant;

use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::{App, Halt, Plan, World};

/// The parameters.
const LEN: usize = 16;
/// More events than any run has.
const BUDGET: u64 = 1 << 40;

/// A program whose steps take about 1 ms.
struct Worker {
    rank: u32,
}

impl App for Worker {
    fn duration(&mut self, step: u64) -> Duration {
        // Unequal steps, so that events do not all fall on the same moment.
        Duration::from_micros(1000 + (u64::from(self.rank) * 37 + step * 101) % 100)
    }

    fn update(&mut self, _step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(1.0);
        32
    }
}

/// The recipes by name.
fn recipe(name: &str) -> Option<Recipe> {
    match name {
        "tree" => Some(Recipe::sync()),
        "servers" => "merge=mean pace=synchronous topology=servers".parse().ok(),
        "async" => Some(Recipe::asynchronous()),
        _ => None,
    }
}

fn row(name: &str, workers: u32, steps: u64) {
    let Some(recipe) = recipe(name) else { panic!("recipe {name}: expected tree, servers or async") };
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    reset_peak();
    let plan = Plan { steps, ..Plan::new(1, Layout::flat(LEN), recipe, cluster) };
    let mut world = World::new(plan, |me| Box::new(Worker { rank: me.0 })).expect("recipe and cluster fit together");
    let clock = Stopwatch::start();
    // Events and seconds until every worker computes.
    let (mut start, mut events, mut computing) = ((0u64, 0.0), 0u64, vec![false; workers as usize]);
    let mut waits = workers;
    let ended = world.run(BUDGET, |world, node| {
        events += 1;
        if waits > 0 && node.index() < computing.len() && !computing[node.index()] && world.is_computing(node) {
            computing[node.index()] = true;
            waits -= 1;
            start = (events, clock.seconds());
        }
        Ok::<(), Halt>(())
    });
    assert!(ended.is_ok(), "{name} with {workers} workers has not ended");
    let seconds = clock.seconds();
    assert!((0..workers).all(|rank| world.steps(PeerId(rank)) == steps), "{name}: a worker has not made all steps");
    let rate = |events: u64, seconds: f64| events as f64 / seconds / 1e6;
    println!(
        "{name:<8} {workers:>7} {steps:>6} {:>10} {:>9.2} {:>10} {:>9.2} {seconds:>8.2} {:>7}",
        start.0,
        rate(start.0, start.1),
        events - start.0,
        rate(events - start.0, seconds - start.1),
        peak() >> 10,
    );
}

/// The time that this thread has run.
struct Stopwatch {
    ran: Option<u64>,
    wall: WallInstant,
}

impl Stopwatch {
    fn start() -> Self {
        Self { ran: Self::nanos(), wall: WallInstant::now() }
    }

    /// The nanoseconds that this thread has run; `None` on other systems than Linux.
    fn nanos() -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
    }

    fn seconds(&self) -> f64 {
        let ran = self.ran.zip(Self::nanos()).map(|(before, now)| (now - before) as f64 / 1e9);
        ran.unwrap_or_else(|| self.wall.elapsed().as_secs_f64())
    }
}

/// The largest memory of this process since [`reset_peak`], in KiB; 0 where the system does not say.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn reset_peak() {
    // Fails on other systems than Linux, which do not say the peak either.
    _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    println!(
        "{:<8} {:>7} {:>6} {:>10} {:>9} {:>10} {:>9} {:>8} {:>7}",
        "recipe", "workers", "steps", "start", "M/s", "in steps", "M/s", "seconds", "MiB"
    );
    if let [name, workers, steps] = &args[..] {
        let number = |text: &str| text.parse::<u32>().unwrap_or_else(|_| panic!("{text}: expected a number"));
        return row(name, number(workers), number(steps).into());
    }
    let is_bench = std::env::args().any(|arg| arg == "--bench");
    let sizes: &[(u32, u64)] = if is_bench { &[(100, 400), (300, 100), (1000, 30)] } else { &[(5, 3)] };
    for name in ["tree", "servers", "async"] {
        for (workers, steps) in sizes {
            row(name, *workers, *steps);
        }
    }
    if is_bench {
        row("tree", 10_000, 10);
        row("async", 10_000, 10);
    }
}
