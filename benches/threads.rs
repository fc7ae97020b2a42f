//! Steps of workers on threads of one process: `cargo bench --bench threads`. Compares sessions over `Mem` with a plain
//! loop, in which each thread copies its vector to a place that all can read, waits at a barrier, computes the mean, and
//! waits again. The plain loop checks nothing, and ends when a thread does.
//!
//! Each row is the median over repetitions in turn of the median step of worker 0, and its ratio to the plain loop's.
//! Options after `--`: `--workers 2,4`, `--floats 50826`, `--test` (a few steps).

#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::sync::{Barrier, RwLock};
use std::thread;
use std::time::Instant;

use gradwire::{Cluster, Layout, Mem, Recipe, Session};
use gradwire_core::kernel::mean::mean;

/// The ways to average, in order of the rows.
#[derive(Copy, Clone)]
enum Way {
    Plain,
    Session { recipe: &'static str, caller_driven: bool, owned: bool },
}

const RING: &str = "averaging period=1 topology=ring";
const TREE: &str = "averaging period=1 topology=tree";

const WAYS: [(&str, Way); 6] = [
    ("barrier and mean", Way::Plain),
    ("ring", Way::Session { recipe: RING, caller_driven: false, owned: false }),
    ("ring, owned", Way::Session { recipe: RING, caller_driven: false, owned: true }),
    ("ring, caller-driven", Way::Session { recipe: RING, caller_driven: true, owned: false }),
    ("ring, caller-driven, owned", Way::Session { recipe: RING, caller_driven: true, owned: true }),
    ("tree", Way::Session { recipe: TREE, caller_driven: false, owned: false }),
];

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let value = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let tiny = args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench");
    let floats: usize = value("--floats").map_or(50_826, |floats| floats.parse().unwrap());
    let workers = value("--workers").unwrap_or_else(|| "2,4".into());
    // About a second for each repetition of a way.
    let steps = if tiny { 3 } else { (300_000_000 / floats.max(1)).clamp(12, 5000) };
    let repetitions = if tiny { 1 } else { 5 };
    println!("{:>2}  {:>11}  {:<28}{:>10}  to plain", "n", "floats", "", "us a step");
    for workers in workers.split(',').map(|workers| workers.parse().unwrap()) {
        let mut times = WAYS.map(|_| Vec::new());
        for _ in 0..repetitions {
            for ((_, way), times) in WAYS.iter().zip(&mut times) {
                times.push(measure(*way, workers, floats, steps));
            }
        }
        let medians = times.map(median);
        for ((name, _), time) in WAYS.iter().zip(medians) {
            println!("{workers:>2}  {floats:>11}  {name:<28}{time:>10.1}  {:>8.2}", time / medians[0]);
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The median step of worker 0 in microseconds.
fn measure(way: Way, workers: usize, floats: usize, steps: usize) -> f64 {
    let barrier = Barrier::new(workers);
    let places: Vec<_> = (0..workers).map(|_| RwLock::new(vec![0.0f32; floats])).collect();
    thread::scope(|scope| {
        let threads = Mem::cluster(workers as u32).into_iter().enumerate().map(|(rank, end)| {
            let (barrier, places) = (&barrier, &places[..]);
            scope.spawn(move || match way {
                Way::Plain => plain(rank, barrier, places, steps),
                Way::Session { recipe, caller_driven, owned } => {
                    let recipe: Recipe = recipe.parse().unwrap();
                    let cluster = Cluster { workers: workers as u32, servers: 0 };
                    let builder = Session::builder(Layout::flat(floats), recipe, cluster);
                    let builder = if caller_driven { builder.caller_driven() } else { builder };
                    if owned {
                        let mut session = builder.join_owned(end, &vec![rank as f32; floats]).unwrap();
                        let time = timed(steps, || {
                            // An application writes its parameters here.
                            let _ = session.next_mut().unwrap();
                            session.sync(1).unwrap();
                        });
                        session.finish().unwrap();
                        return time;
                    }
                    let mut params = vec![rank as f32; floats];
                    let mut session = builder.join(end, &mut params).unwrap();
                    let time = timed(steps, || session.sync(&mut params, 1).unwrap());
                    session.finish(&mut params).unwrap();
                    time
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).next().unwrap()
    })
}

/// The loop that a program without gradwire would have.
fn plain(rank: usize, barrier: &Barrier, places: &[RwLock<Vec<f32>>], steps: usize) -> f64 {
    let mut params = vec![rank as f32; places[0].read().unwrap().len()];
    barrier.wait();
    timed(steps, || {
        places[rank].write().unwrap().copy_from_slice(&params);
        barrier.wait();
        let all: Vec<_> = places.iter().map(|place| place.read().unwrap()).collect();
        mean(&mut params, &all.iter().map(|place| (&place[..], 1)).collect::<Vec<_>>());
        drop(all);
        barrier.wait();
    })
}

/// The median time of a step in microseconds. The first sixth warms the caches up.
fn timed(steps: usize, mut step: impl FnMut()) -> f64 {
    let times = (0..steps + steps / 5 + 1).map(|_| {
        let begun = Instant::now();
        step();
        begun.elapsed().as_secs_f64() * 1e6
    });
    median(times.skip(steps / 5 + 1).collect())
}
