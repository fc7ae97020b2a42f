//! The memory that sessions use, as the system counts it. A test binary of its own, with one test: the count is that of
//! the process.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Barrier};
use std::thread;

use gradwire::{Builder, Cluster, Layout, Mem, Session};

const LEN: usize = 8 << 20;

/// Resident bytes of this process, as vectors of the parameters' length.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = pages.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / (4 * LEN) as f64
}

/// What each of two workers takes between its two pauses, in vectors.
fn used(recipe: &str, worker: fn(Builder, Mem, &dyn Fn())) -> f64 {
    let builder = Session::builder(Layout::flat(LEN), recipe.parse().unwrap(), Cluster { workers: 2, servers: 0 });
    let barrier = Arc::new(Barrier::new(3));
    // The memory is counted between the two waits.
    let pause = |barrier: &Barrier| {
        barrier.wait();
        barrier.wait();
    };
    let threads = Mem::cluster(2).into_iter().map(|end| {
        let (barrier, builder) = (Arc::clone(&barrier), builder.clone());
        thread::spawn(move || worker(builder, end, &|| pause(&barrier)))
    });
    let threads: Vec<_> = threads.collect();
    let count = || {
        barrier.wait();
        let count = resident();
        barrier.wait();
        count
    };
    let before = count();
    let each = (count() - before) / 2.0;
    println!("{recipe}: {each:.2} vectors");
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    each
}

/// A session of a mesh, without the two vectors of the application.
fn mesh(builder: Builder, end: Mem, pause: &dyn Fn()) {
    let (mut params, mut update) = (vec![1.0; LEN], vec![1.0; LEN]);
    pause();
    let mut session = builder.join(end, &mut params).unwrap();
    for step in 0..16usize {
        update.iter_mut().enumerate().for_each(|(i, update)| {
            *update = ((i * 7919 + step * 104_729) % 1009) as f32 / 1009.0 / 1024.0;
        });
        session.step(&mut params, &update, 1).unwrap();
    }
    pause();
    session.finish(&mut params).unwrap();
}

/// A session of a ring or tree with the vector of the application.
fn rounds(builder: Builder, end: Mem, pause: &dyn Fn()) {
    pause();
    let mut params = vec![1.0; LEN];
    let mut session = builder.join(end, &mut params).unwrap();
    for _ in 0..5 {
        params.iter_mut().for_each(|param| *param += 1.0);
        session.sync(&mut params, 1).unwrap();
    }
    pause();
    session.finish(&mut params).unwrap();
}

/// A session of a ring or tree that owns its vectors. The application has none.
fn owned_rounds(builder: Builder, end: Mem, pause: &dyn Fn()) {
    pause();
    let mut session = builder.join_owned(end, &vec![1.0; LEN]).unwrap();
    for _ in 0..5 {
        session.params_mut().unwrap().iter_mut().for_each(|param| *param += 1.0);
        session.sync(1).unwrap();
    }
    pause();
    session.finish().unwrap();
}

#[test]
fn sessions_use_the_vectors_that_their_rule_needs() {
    // View, contribution, base, ledger and residual. The buffers of messages and the encoder's scratch memory come and go.
    for recipe in ["mesh density=0.01 warmup=2", "mesh density=0.004"] {
        let each = used(recipe, mesh);
        assert!((4.9..5.5).contains(&each), "{recipe}: {each} vectors");
    }
    // The parameters before and after a round, and the contribution; and the chunks under way, up to a vector.
    for recipe in ["averaging period=1 topology=ring chunk=16384", "averaging period=1 topology=tree chunk=16384"] {
        let each = used(recipe, owned_rounds);
        assert!((2.9..3.9).contains(&each), "{recipe}, owned: {each} vectors");
        let each = used(recipe, rounds);
        assert!((3.9..4.9).contains(&each), "{recipe}: {each} vectors");
    }
}
