//! The vectors that a session owns: the buffers of its machine, and the buffer that the next contribution goes to.
//!
//! What is declared is counted first, and then what is there while a run goes on: buffers that are needed now and then grow
//! and give back their memory.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradwire_core::{Cluster, Duration, Layout, Machine, Node, PeerId, Recipe, Setup};
use gradwire_sim::{App, Halt, Plan, World};

const LEN: usize = 1 << 20;
/// The texts of two contracts, in vectors, and a little more.
const TEXTS: f64 = 0.04;

/// Buffers of the machine of a rank, in vectors of the parameters' length.
fn declared(text: &str, cluster: Cluster, rank: u32) -> f64 {
    let recipe: Recipe = text.parse().unwrap();
    let setup = Setup::new(PeerId(rank), cluster, recipe, &Layout::flat(LEN), 0);
    let bytes: usize = Node::new(setup).unwrap().buffers().iter().sum();
    in_vectors(bytes)
}

fn in_vectors(bytes: usize) -> f64 {
    bytes as f64 / (4 * LEN) as f64
}

/// View, contribution, and the buffer for the next contribution. The texts of contracts are the rest.
#[test]
fn a_worker_of_servers_owns_three_vectors() {
    for text in ["hardsync shards=2", "async shards=2", "async shards=4", "softsync shards=2"] {
        let owned = 1.0 + declared(text, Cluster { workers: 4, servers: 2 }, 0);
        assert!((3.0..3.0 + TEXTS).contains(&owned), "{text}: {owned} vectors");
    }
}

/// A worker with the same update in every step, in which one element of 64 is not zero.
struct Worker;

impl App for Worker {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_millis(1)
    }

    fn update(&mut self, step: u64, _params: &[f32], update: &mut [f32]) -> u32 {
        update.fill(0.0);
        update.iter_mut().skip(step as usize % 64).step_by(64).for_each(|update| *update = 1.0 / 64.0);
        1
    }
}

/// The vectors in the buffers of each node's machine: the most in any moment, and the most in the second half of the steps
/// of worker 0.
fn in_use(text: &str, cluster: Cluster, steps: u64) -> Vec<[f64; 2]> {
    let recipe: Recipe = text.parse().unwrap();
    let plan = Plan { steps, ..Plan::new(1, Layout::flat(LEN), recipe, cluster) };
    let mut world = World::new(plan, |_| Box::new(Worker)).unwrap();
    let mut most = vec![[0; 2]; cluster.nodes() as usize];
    let run: Result<(), Halt> = world.run(1_000_000, |world, node| {
        let (held, [all, later]) = (world.bytes_held(node), &mut most[node.index()]);
        *all = held.max(*all);
        if world.steps(PeerId(0)) >= steps / 2 {
            *later = held.max(*later);
        }
        Ok(())
    });
    run.unwrap();
    most.into_iter().map(|bytes| bytes.map(in_vectors)).collect()
}

/// Parameters, the vector in which a round is gathered or a second version, and one contribution. More versions and
/// contributions have memory while workers are slow.
#[test]
fn a_server_has_three_vectors_in_use() {
    // softsync gathers, and has a second version as well.
    for (text, vectors) in [("hardsync", 3.0), ("async", 3.0), ("ssp bound=2", 3.0), ("softsync", 4.0)] {
        let held = in_use(text, Cluster { workers: 2, servers: 1 }, 40)[2];
        assert!(held.iter().all(|held| *held < vectors + TEXTS), "{text}: {held:?} vectors");
    }
    // Of half of the vector each, and the view of all of it.
    for text in ["hardsync shards=2", "async shards=2"] {
        let held = in_use(text, Cluster { workers: 2, servers: 2 }, 40);
        assert!(held[2..].iter().flatten().all(|held| *held < 2.0 + TEXTS), "{text}: {held:?} vectors");
    }
}

/// What is declared: view, base, residual and contribution. The ledger has a vector in use, and as much again for counts
/// above 32 bits, which is address space while there are none. `tests/resident.rs` counts what is in use.
#[test]
fn a_mesh_declares_four_vectors_and_six_with_its_ledger() {
    let declared = declared("mesh density=0.01", Cluster { workers: 4, servers: 0 }, 0);
    assert!((4.0..4.0 + TEXTS).contains(&declared), "{declared} vectors");
}
