//! The input of a simulation: a [`Plan`], with its faults and the checkpoints that it goes on from.

use gradwire_core::{Cluster, Duration, Instant, Layout, Patience, PeerId, Recipe, Resumed, Tape};

use crate::lines::Lines;
use crate::network::Network;

/// A fault above the reliable stream. Loss, duplication and reordering below it belong to the [`Network`].
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "`a`, `b`, `from`, `to` and `node` are ranks; `lasts` is the length of the fault")]
pub enum Fault {
    /// The connection of two nodes breaks, and is re-established after [`Network::reconnect`].
    Cut { a: PeerId, b: PeerId },
    /// No packet gets through between two nodes. The connection stays open, and the stream retransmits afterwards.
    Partition { a: PeerId, b: PeerId, lasts: Duration },
    /// No packet gets from one node to another. If it lasts, the receiver closes the connection after at most two fifths
    /// of the patience, and there is no connection until packets get through in both directions.
    Silence { from: PeerId, to: PeerId, lasts: Duration },
    /// The process of a node is stopped, as by SIGSTOP.
    Pause { node: PeerId, lasts: Duration },
    /// The process of a node is killed.
    Crash {
        node: PeerId,
        /// After how long the node is started again; `None`: never.
        restart: Option<Duration>,
    },
}

/// How long the operations of all nodes take. Times are drawn from exponential distributions with these means.
///
/// A kernel runs at its start or at its end, at random. A node runs one kernel at a time, and its machine gives no
/// output meanwhile, as with an executor on a device. If a connection breaks while a body is received, random bytes
/// stay in a part of the body's buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Mean time of a kernel. Zero: kernels end at once. Three in ten kernels end at once in any case.
    pub kernel: Duration,
    /// Mean time from the beginning of a receive operation to its end. Zero: it ends at once.
    pub body: Duration,
    /// Mean time from the news that a connection broke to the end of each operation on it. Zero: they end at once.
    pub abort: Duration,
}

impl Effort {
    /// All operations end at once.
    pub const fn none() -> Self {
        Self { kernel: Duration::ZERO, body: Duration::ZERO, abort: Duration::ZERO }
    }
}

/// A run to simulate. Plain data: [`Plan::new`] fills it, and its fields can be changed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of all random numbers of the run.
    pub seed: u64,
    /// The tensors of the vector.
    pub layout: Layout,
    /// The rule of the run.
    pub recipe: Recipe,
    /// The number of workers and servers.
    pub cluster: Cluster,
    /// The behaviour of the links.
    pub network: Network,
    /// The nodes and pairs of nodes whose links are different.
    pub lines: Lines,
    /// The time that operations take.
    pub effort: Effort,
    /// The timeouts of the machines.
    pub patience: Patience,
    /// Fewest workers that go on without the other workers, in trees and rings.
    pub quorum: u32,
    /// By rank: the checkpoint that each node goes on from. Empty: the run is new.
    pub resumed: Vec<Saved>,
    /// At the end of their steps, workers suspend the run instead of finishing it; see
    /// [`World::saved`](crate::World::saved).
    pub suspend: bool,
    /// By rank: whether each node records its decisions, or follows the decisions of an earlier run. Empty: neither.
    pub tapes: Vec<Tape>,
    /// In trees, rings and meshes with rounds: the ranges in which workers give each contribution, in random order and
    /// at random times. 1: contributions are given as a whole.
    pub ranges: u32,
    /// Nodes are connected when one of them wants the other, which matters in trees and rings: a node is connected with
    /// the host of the coordinator and with its neighbours. `false`: with all nodes.
    pub on_demand: bool,
    /// In trees and rings: bytes of the chunks under way, see [`Setup::under_way`](gradwire_core::Setup::under_way).
    pub under_way: u32,
    /// Bytes up to which a buffer that is not used keeps its memory, see
    /// [`Setup::keep_below`](gradwire_core::Setup::keep_below).
    pub keep_below: u32,
    /// Steps of each worker.
    pub steps: u64,
    /// The initial parameters.
    pub initial: Vec<f32>,
    /// Faults and their times, in order of time.
    pub faults: Vec<(Instant, Fault)>,
    /// The bug that the machines run with.
    #[cfg(planted)]
    pub bug: Option<gradwire_core::planted::Bug>,
}

/// A node's checkpoint: everything that the node needs to go on from a suspended run.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// The moment, and the contributions that the node made before it.
    pub resumed: Resumed,
    /// The parameters at that moment.
    pub params: Vec<f32>,
    /// The words of the buffers that [`Machine::saved`](gradwire_core::Machine::saved) names.
    pub buffers: Vec<Vec<u32>>,
}

impl Plan {
    /// A run of one step per worker, from parameters of zero, on a calm network without faults and timeouts. Operations
    /// take no time.
    pub fn new(seed: u64, layout: Layout, recipe: Recipe, cluster: Cluster) -> Self {
        Self {
            seed,
            recipe,
            cluster,
            network: Network::calm(),
            lines: Lines::default(),
            effort: Effort::none(),
            patience: Patience::none(),
            quorum: 1,
            resumed: Vec::new(),
            suspend: false,
            tapes: Vec::new(),
            ranges: 1,
            on_demand: true,
            under_way: 256 << 10,
            keep_below: 1 << 20,
            steps: 1,
            initial: vec![0.0; layout.len()],
            layout,
            faults: Vec::new(),
            #[cfg(planted)]
            bug: None,
        }
    }
}
