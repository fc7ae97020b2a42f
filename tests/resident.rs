//! The memory that sessions of a mesh use, as the system counts it. A test binary of its own, with one test: the count is
//! that of the process.

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

/// View, contribution, base, ledger and residual. The buffers of messages and the encoder's scratch memory come and go.
#[test]
fn a_session_of_a_mesh_uses_five_vectors_and_a_part_of_one() {
    for text in ["mesh density=0.01 warmup=2", "mesh density=0.004"] {
        let recipe: Recipe = text.parse().unwrap();
        let cluster = Cluster { workers: 2, servers: 0 };
        let barrier = Arc::new(Barrier::new(3));
        let threads = Mem::cluster(2).into_iter().map(|end| {
            let (barrier, builder) = (Arc::clone(&barrier), Session::builder(Layout::flat(LEN), recipe, cluster));
            thread::spawn(move || {
                let (mut params, mut update) = (vec![1.0; LEN], vec![1.0; LEN]);
                barrier.wait();
                barrier.wait();
                let mut session = builder.join(end, &mut params).unwrap();
                for step in 0..16usize {
                    update.iter_mut().enumerate().for_each(|(i, update)| {
                        *update = ((i * 7919 + step * 104_729) % 1009) as f32 / 1009.0 / 1024.0;
                    });
                    session.step(&mut params, &update, 1).unwrap();
                }
                barrier.wait();
                barrier.wait();
                session.finish(&mut params).unwrap();
            })
        });
        let threads: Vec<_> = threads.collect();
        barrier.wait();
        let before = resident();
        barrier.wait();
        barrier.wait();
        let each = (resident() - before) / 2.0;
        println!("{text}: {each:.2} vectors");
        barrier.wait();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!((4.9..5.5).contains(&each), "{text}: {each} vectors");
    }
}
