//! The memory that sessions of a ring use, as the system counts it. A test binary of its own, with one test: the
//! count is that of the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Barrier};
use std::thread;

use gradwire::{Cluster, Layout, Mem, Recipe, Session};

const LEN: usize = 8 << 20;

/// Resident bytes of this process, as vectors of the parameters' length.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / (4 * LEN) as f64
}

/// What a worker uses after five rounds, in vectors. `owned`: by a session that owns its vectors, and then there is no
/// other. Otherwise with the vector of the application.
fn used(text: &str, workers: u32, owned: bool) -> f64 {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers, servers: 0 };
    let barrier = Arc::new(Barrier::new(workers as usize + 1));
    let threads = Mem::cluster(workers).into_iter().map(|end| {
        let (barrier, builder) = (Arc::clone(&barrier), Session::builder(Layout::flat(LEN), recipe, cluster));
        thread::spawn(move || {
            barrier.wait();
            barrier.wait();
            let mut params = vec![1.0; LEN];
            if owned {
                let mut session = builder.join_owned(end, &params).unwrap();
                drop(params);
                for _ in 0..5 {
                    session.params_mut().unwrap().iter_mut().for_each(|param| *param += 1.0);
                    session.sync(1).unwrap();
                }
                barrier.wait();
                barrier.wait();
            } else {
                let mut session = builder.join(end, &mut params).unwrap();
                for _ in 0..5 {
                    params.iter_mut().for_each(|param| *param += 1.0);
                    session.sync(&mut params, 1).unwrap();
                }
                barrier.wait();
                barrier.wait();
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    barrier.wait();
    let before = resident();
    barrier.wait();
    barrier.wait();
    let each = (resident() - before) / f64::from(workers);
    println!("{text}, {workers} workers, owned {owned}: {each:.2} vectors");
    barrier.wait();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    each
}

/// The parameters before and after a round, and the contribution; and chunks under way. With a vector of the application,
/// one more.
#[test]
fn a_member_of_a_ring_uses_three_vectors() {
    for (owned, vectors) in [(true, 3.0), (false, 4.0)] {
        let used = used("averaging period=1 topology=ring chunk=16384", 2, owned);
        // Chunks under way, for the parts of the others and for means, are the rest. It grows with the window.
        assert!((vectors - 0.1..vectors + 0.9).contains(&used), "owned: {owned}, {used} vectors");
    }
}
