//! The cost of monitoring: the duration of a step without a board, with a board, and with connected monitors.
//!
//! `cargo bench --bench monitor`. With `-- --test` it takes only a few steps.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::monitor::{Board, Frames, MONITORS_MAX, subscribe};
use gradwire::telemetry::Run;
use gradwire::{Cluster, Layout, Mem, Recipe, Session};

/// Floats of the vector: the parameters of the example's model.
const LEN: usize = 50_826;

/// Runs two workers that compute for `compute` before each step. Returns the mean duration of a step in seconds.
fn steps(count: u32, compute: Duration, board: Option<&Board>) -> f64 {
    let recipe = Recipe::sync();
    let threads = Mem::cluster(2).into_iter().map(|transport| {
        let board = board.cloned();
        thread::spawn(move || {
            let mut builder = Session::builder(Layout::flat(LEN), recipe, Cluster { workers: 2, servers: 0 });
            if let Some(board) = board {
                builder = builder.publish_to(board, "bench");
            }
            let mut params = vec![0.0; LEN];
            let mut session = builder.join(transport, &mut params).unwrap();
            let update = vec![1e-6; LEN];
            let begun = Instant::now();
            for _ in 0..count {
                thread::sleep(compute);
                session.step(&mut params, &update, 16).unwrap();
            }
            let seconds = begun.elapsed().as_secs_f64() / f64::from(count);
            session.finish(&mut params).unwrap();
            seconds
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum::<f64>() / 2.0
}

fn main() {
    let test = std::env::args().any(|arg| arg == "--test");
    let (count, rounds) = if test { (20, 1) } else { (2000, 5) };
    let board = Board::new(Run { workers: 2, ..Run::default() });
    let address = board.serve("127.0.0.1:0", None, false).unwrap().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let median = |of: &mut dyn FnMut() -> f64| {
        let mut all: Vec<f64> = (0..rounds).map(|_| of()).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    for (name, compute, count) in [
        ("no computation", Duration::ZERO, count),
        ("10 ms of computation per step", Duration::from_millis(10), count / 10),
    ] {
        println!("{name}, two workers, {LEN} floats");
        let alone = median(&mut || steps(count, compute, None));
        println!("  no board            {:>9.1} us a step", alone * 1e6);
        let published = median(&mut || steps(count, compute, Some(&board)));
        println!(
            "  a board             {:>9.1} us a step, {:+.2} %",
            published * 1e6,
            100.0 * (published / alone - 1.0)
        );
        stop.store(false, Ordering::Relaxed);
        // The maximum number of monitors: one reads all frames, the rest never read and are disconnected after a while.
        let reading = {
            let (address, stop) = (address.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let (mut stream, mut frames) = (subscribe(&address, 10, None).unwrap(), Frames::default());
                while !stop.load(Ordering::Relaxed) && frames.next(&mut stream).is_ok() {}
            })
        };
        let idle: Vec<_> = (1..MONITORS_MAX).filter_map(|_| subscribe(&address, 10, None).ok()).collect();
        let watched = median(&mut || steps(count, compute, Some(&board)));
        println!(
            "  {MONITORS_MAX} monitors, 1 reads {:>9.1} us a step, {:+.2} %",
            watched * 1e6,
            100.0 * (watched / alone - 1.0)
        );
        stop.store(true, Ordering::Relaxed);
        drop(idle);
        // The reading monitor ends at the next frame, so some steps have to produce one.
        let _ = steps(20, Duration::from_millis(10), Some(&board));
        reading.join().unwrap();
    }
}
