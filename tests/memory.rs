//! The vectors that a session owns: the buffers of its machine, and the buffer that the next contribution goes to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gradwire_core::{Cluster, Layout, Machine, Node, PeerId, Recipe, Setup};

const LEN: usize = 1 << 22;

/// Buffers of the machine of rank 0, in vectors of the parameters' length.
fn vectors(text: &str) -> f64 {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers: 4, servers: 2 };
    let setup = Setup::new(PeerId(0), cluster, recipe, &Layout::flat(LEN), 0);
    let bytes: usize = Node::new(setup).unwrap().buffers().iter().sum();
    bytes as f64 / (4 * LEN) as f64
}

/// View, contribution, and the buffer for the next contribution. The texts of contracts are the rest.
#[test]
fn a_worker_of_servers_owns_three_vectors() {
    for text in ["hardsync shards=2", "async shards=2", "async shards=4", "softsync shards=2"] {
        let owned = 1.0 + vectors(text);
        assert!((3.0..3.01).contains(&owned), "{text}: {owned} vectors");
    }
}
