//! What a simulation runs: [`Plan`], with its faults, and the checkpoints that it goes on from.

use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe, Resumed};

use crate::network::Network;

/// What goes wrong above the stream, and when.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection of two nodes breaks, and comes back.
    Cut {
        /// One.
        a: PeerId,
        /// The other.
        b: PeerId,
    },
    /// No transmission gets through between two nodes for a while; the stream repeats them.
    Partition {
        /// One.
        a: PeerId,
        /// The other.
        b: PeerId,
        /// How long.
        lasts: Duration,
    },
    /// A node stands still.
    Pause {
        /// Which.
        node: PeerId,
        /// How long.
        lasts: Duration,
    },
    /// A node dies, and starts anew after a while if `restart` says so.
    Crash {
        /// Which.
        node: PeerId,
        /// How long it is down.
        restart: Option<Duration>,
    },
}

/// A run to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it.
    pub seed: u64,
    /// What is exchanged.
    pub layout: Layout,
    /// By which rule.
    pub recipe: Recipe,
    /// Between whom.
    pub cluster: Cluster,
    /// How links behave.
    pub network: Network,
    /// Timeouts of the machines.
    pub patience: Patience,
    /// Fewest workers that go on without the others, in trees and rings.
    pub quorum: u32,
    /// By rank: the checkpoint that each node goes on from. Empty: the run is new.
    pub resumed: Vec<Saved>,
    /// At the end of their steps, workers suspend the run instead of finishing it; see [`World::saved`].
    pub suspend: bool,
    /// Steps of each worker.
    pub steps: u64,
    /// The parameters to start from.
    pub initial: Vec<f32>,
    /// What goes wrong, in order of time.
    pub faults: Vec<(Instant, Fault)>,
    /// The bug that the machines run with.
    #[cfg(planted)]
    pub bug: Option<gradwire_core::planted::Bug>,
}

/// A node's checkpoint: everything it needs to go on from a suspended run.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The moment, and the contributions that the node made before it.
    pub resumed: Resumed,
    /// The parameters.
    pub params: Vec<f32>,
    /// The words of the buffers that [`Machine::saved`] names.
    pub buffers: Vec<Vec<u32>>,
}

impl Plan {
    /// A run of one step per worker from parameters of zero, without faults, timeouts or delays.
    pub fn new(seed: u64, layout: Layout, recipe: Recipe, cluster: Cluster) -> Self {
        Self {
            seed,
            recipe,
            cluster,
            network: Network::calm(),
            patience: Patience::none(),
            quorum: 1,
            resumed: Vec::new(),
            suspend: false,
            steps: 1,
            initial: vec![0.0; layout.len()],
            layout,
            faults: Vec::new(),
            #[cfg(planted)]
            bug: None,
        }
    }
}
