//! Nothing that a worker has contributed is absent from the parameters that `finish` returns, and no sum of weights or
//! quanta saturates or wraps on the way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};

/// Runs `train` on each worker, with the servers that the recipe needs. Returns the results in order of rank.
fn run<R: Send + 'static>(
    recipe: Recipe,
    workers: u32,
    len: usize,
    train: impl Fn(u32, Session, Vec<f32>) -> R + Send + Sync + Copy + 'static,
) -> Vec<R> {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let (mut threads, mut servers) = (Vec::new(), Vec::new());
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let builder = Session::builder(Layout::flat(len), recipe, cluster).deadline(Duration::from_secs(30));
        if rank < workers {
            threads.push(thread::spawn(move || {
                let mut params = vec![0.0; len];
                let session = builder.join(transport, &mut params).unwrap();
                train(rank, session, params)
            }));
        } else {
            servers.push(builder.serve(transport, &vec![0.0; len]).unwrap());
        }
    }
    let results = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for mut server in servers {
        assert_eq!(server.wait(&mut vec![0.0; len], Duration::from_secs(30)).unwrap(), RunState::Ended);
    }
    results
}

/// The quantum is so small that the counts of a replica leave 32 bits at a distance of 8.
#[test]
fn parameters_of_a_mesh_move_any_distance_in_small_quanta() {
    const TAU: f32 = 1.0 / (1 << 20) as f32;
    // A message carries at most 2^15 - 1 quanta per element.
    const UPDATE: f32 = ((1 << 15) - 1) as f32 * TAU;
    let recipe = Recipe::mesh(TAU).with_lambda(1.0);
    let ends = run(recipe, 2, 3, |_, mut session, mut params| {
        for _ in 0..400 {
            session.step(&mut params, &[UPDATE, -UPDATE, 0.0], 1).unwrap();
        }
        let status = session.finish(&mut params).unwrap();
        (params, status.rest.unwrap().norm, status.counters.rejected)
    });
    for (params, rest, rejected) in ends {
        let moved = -800.0 * UPDATE;
        assert!(moved < -24.0);
        assert_eq!((params, rest, rejected), (vec![moved, -moved, 0.0], 0.0, 0));
    }
}
