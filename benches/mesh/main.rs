//! Processor time of a step of a mesh, to an axpy in place over the same vector: `cargo bench --bench mesh`.
//!
//! Two processes over shared memory give each other 0.36 % of 14.6 million parameters per step (the update of Strom
//! 2015). A step is `Session::step` on the thread that drives the session, so the processor time of that thread is all
//! that a step costs. Rounds of steps and of axpys alternate.
//!
//! Options after `--`: `--elements N`, `--density 0.0036`.

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::process::{Command, Stdio};

use gradwire::{Cluster, Layout, Recipe, Session};
use gradwire_core::kernel::apply;
use gradwire_core::kernel::tier::Tier;

/// A power of two, as all thresholds are.
const TAU: f32 = 1.0 / 64.0;
/// Steps between two measurements.
const STEPS: u32 = 10;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Ok(rank) = std::env::var("GRADWIRE_BENCH_RANK") {
        return child(rank.parse().unwrap(), &args);
    }
    let value = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let tiny = args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench");
    let elements = value("--elements").unwrap_or_else(|| if tiny { "16384".into() } else { "14600000".into() });
    let density = value("--density").unwrap_or_else(|| "0.0036".into());
    let cluster = format!("bench-{}", std::process::id());
    let start = |rank: u32| {
        Command::new(std::env::current_exe().unwrap())
            .args([&cluster, &elements, &density, &if tiny { "1" } else { "7" }.to_string()])
            .env("GRADWIRE_BENCH_RANK", rank.to_string())
            .stdout(if rank == 0 { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .unwrap()
    };
    let mut children = [start(0), start(1)];
    assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
}

/// The process of one rank.
fn child(rank: u32, args: &[String]) {
    let [_, cluster, elements, density, rounds] = args else { panic!("{args:?}") };
    let (len, density): (usize, f64) = (elements.parse().unwrap(), density.parse().unwrap());
    let recipe: Recipe = format!("mesh codec=threshold tau={TAU} lambda=1").parse().unwrap();
    let transport = gradwire_shm::Builder::new(rank, 2).cluster(cluster).open().unwrap();
    let mut params = vec![1.0f32; len];
    let cluster = Cluster { workers: 2, servers: 0 };
    let builder = Session::builder(Layout::flat(len), recipe, cluster).caller_driven();
    let mut session = builder.join(transport, &mut params).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(rank);
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // These elements emit a quantum at every step, because the update changes its sign. The others never do.
    let update: Vec<f32> = (0..len).map(|_| if random() < density { 1.4 * TAU } else { 0.02 * TAU }).collect();
    let updates = [update.iter().map(|x| -x).collect(), update];
    let mut own = vec![0.0f32; len];
    let (mut steps, mut axpys) = (Vec::new(), Vec::new());
    for _ in 0..=rounds.parse::<u32>().unwrap() {
        let begun = processor_time();
        for step in 0..STEPS {
            session.step(&mut params, &updates[step as usize % 2], 1).unwrap();
        }
        let between = processor_time();
        (0..STEPS).for_each(|_| apply::in_place(Tier::Portable, &mut own, &updates[0], 1e-3));
        steps.push((between - begun) / f64::from(STEPS));
        axpys.push((processor_time() - between) / f64::from(STEPS));
    }
    let entries = session.status().unwrap().counters.entries as f64 / f64::from(STEPS) / steps.len() as f64;
    session.finish(&mut params).unwrap();
    if rank == 0 {
        // The first round warms caches and connections up.
        let mut ratios: Vec<f64> = steps.iter().zip(&axpys).skip(1).map(|(step, axpy)| step / axpy).collect();
        let median = |values: &mut [f64]| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let ratio = median(&mut ratios);
        println!(
            "{len} parameters, density {density}: {:.2} ms of processor time per step, {:.2} of an axpy, {entries:.0} entries",
            median(&mut steps[1..]) * 1e3,
            ratio
        );
    }
}

/// Seconds of processor time of this process so far. Without Linux's accounting: seconds that have passed.
fn processor_time() -> f64 {
    let nanos = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => tasks.filter_map(nanos).sum::<f64>() * 1e-9,
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64(),
    }
}
