//! The one shape of every machine.
//!
//! A machine decides; its driver does. The driver feeds [`Input`]s with the time, and carries out [`Output`]s until
//! it gets [`Output::Wait`]. Nothing else passes between them, so that a run is a list of inputs: the same list
//! gives the same outputs, in a process, in a simulator, in a test.

mod assembly;
mod collective;
mod commit;
mod contract;
mod encoding;
mod failure;
mod host;
mod hub;
mod io;
mod mesh;
mod node;
mod server;
mod views;
mod worker;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

pub use contract::{Contract, ContractNote};
pub use failure::Failure;
pub use io::{Event, Input, Misuse, OURS, Output, PeerRefusal, ProtocolError, Rejection, Signal, THEIRS};
pub use node::Node;

use crate::buffer::BufferId;
use crate::id::{Clock, Cluster, Incarnation, PeerId};
use crate::layout::Layout;
use crate::recipe::{Payload, Recipe};
use crate::rider::Rider;
use crate::run_id::RunId;
use crate::saved::SavedBuffer;
use crate::status::{Status, Waiting};
use crate::tape::Tape;
use crate::time::{Instant, Patience, StepTime};

/// Everything that a node is given at its start. Plain data: [`Setup::new`] fills it, and its fields can be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The node's rank. Workers are `0..workers`, servers follow.
    pub me: PeerId,
    /// The number of workers and servers.
    pub cluster: Cluster,
    /// The rule of the run.
    pub recipe: Recipe,
    /// Floats of the vector that is exchanged: the floats of the layout, and of the averaged optimizer vectors.
    pub len: usize,
    /// Vectors of the application's state: with `payload=gradients` its parameters and its optimizer vectors, else 0.
    pub carried: u32,
    /// Floats of each tensor, in order, for thresholds per tensor.
    pub tensors: Arc<[usize]>,
    /// Columns of each tensor: its last dimension, or 1 if it has only one. For codecs per column.
    pub columns: Arc<[usize]>,
    /// Tells this process from an earlier one of the same rank. Drawn at random; 1 unless set.
    pub incarnation: Incarnation,
    /// The timeouts; [`Patience::none`] unless set.
    pub patience: Patience,
    /// Fewest workers that go on without the rest, where workers agree on views; workers that have left of their own
    /// count. 0, unless set: at least half of the members of the view before that have not left.
    pub quorum: u32,
    /// The moments of which this node has checkpoints, newest first, if it is to go on from one of them. The nodes then
    /// agree on a moment, and [`Signal::Resume`] names it. `Some` of an empty list: the node has no checkpoint, and may
    /// get the parameters of its peers. `resumed` is `None` then.
    pub resume: Option<Vec<Resumed>>,
    /// The checkpoint that the run goes on from, if all nodes are known to go on from the same. The driver then puts the saved parameters into
    /// [`Machine::view`] before the first input, and restores [`Machine::saved`] before the first step.
    pub resumed: Option<Resumed>,
    /// All nodes have been there to agree on a moment. The coordinator of views then waits for all of them, as in a new
    /// run, although some have the parameters of a run.
    pub gathered: bool,
    /// The facts on which all nodes must agree.
    pub contract: Contract,
    /// The run, if this node knows it already. Peers that know another run are refused.
    pub run: Option<RunId>,
    /// Whether the node records its decisions, or follows the decisions of an earlier run; [`Tape::Off`] unless set.
    pub tape: Tape,
    /// The ranks of the nodes that the driver connects this one with; all of them unless set, at least
    /// [`Recipe::neighbours`]. The machine has no memory for other nodes.
    pub neighbours: Range<u32>,
    /// The driver connects this node with the peers that [`Machine::wanted`] lists, and need not connect it with others.
    /// `false`, unless set: the driver connects it with all neighbours.
    pub on_demand: bool,
    /// In rings: bytes of the chunks under way that this node sends first, at least one chunk. It sends the next ones as
    /// results come back. 256 KiB, unless set: more leaves the caches of a processor, and keeps a slow link no busier. In
    /// trees, four times as much, and four chunks. Where the delay of the links sets the pace, the node lets up to 256 times
    /// as much be under way. All nodes need the same value.
    pub under_way: u32,
    /// Bytes up to which a buffer that is needed now and then keeps its memory. A longer one gives it back when it is not
    /// used. 1 MiB, unless set.
    pub keep_below: u32,
    /// The bug to run with, in tests that check whether the tests find it.
    #[cfg(planted)]
    pub bug: Option<crate::planted::Bug>,
}

/// Bytes of a buffer that is worth giving back: less memory comes and goes unnoticed.
const KEEP_BELOW: u32 = 1 << 20;

/// Bytes of the chains under way at a node of a ring: a chunk of the default length.
const UNDER_WAY: u32 = 256 << 10;

impl Setup {
    /// The setup of node `me` in a new run. `extras` is the number of optimizer vectors that are averaged with the
    /// parameters, or with `payload=gradients` carried beside them. The recipe is [fitted](Recipe::fitted) to the cluster.
    pub fn new(me: PeerId, cluster: Cluster, recipe: Recipe, layout: &Layout, extras: u32) -> Self {
        let contract = Contract::new(layout, &recipe, cluster, extras);
        let recipe = recipe.fitted(cluster, layout.len());
        let carries = recipe.payload() == Payload::Gradients;
        let averaged = if carries { 0 } else { extras };
        Self {
            me,
            cluster,
            recipe,
            // Drivers refuse lengths that do not fit, see `Recipe::check_cluster`.
            len: layout.len().saturating_mul(1 + averaged as usize),
            carried: if carries { extras.saturating_add(1) } else { 0 },
            tensors: layout.lens(),
            columns: layout.columns(),
            incarnation: Incarnation(1),
            patience: Patience::none(),
            quorum: 0,
            resumed: None,
            gathered: false,
            resume: None,
            contract,
            run: None,
            tape: Tape::Off,
            neighbours: 0..cluster.nodes(),
            on_demand: false,
            under_way: UNDER_WAY,
            keep_below: KEEP_BELOW,
            #[cfg(planted)]
            bug: None,
        }
    }
}

impl Setup {
    /// The node that hosts the coordinator of views: rank 0, unless there is a node for it.
    pub(crate) fn host(&self) -> PeerId {
        if self.cluster.servers > 0 { PeerId(self.cluster.workers) } else { PeerId(0) }
    }

    /// Does this node name the partners that it wants, and what does it want all the time? Not in meshes and at
    /// servers, where each node has the same peers throughout.
    pub(crate) fn has_partners(&self) -> bool {
        self.on_demand && self.recipe.has_chunks()
    }

    /// The ranks of the peers that this node wants all the time, among which may be the node itself.
    pub(crate) fn always_wanted(&self) -> Range<u32> {
        if !self.on_demand || self.me == self.host() && self.has_partners() {
            self.neighbours.clone()
        } else if self.has_partners() {
            self.host().0..self.host().0 + 1
        } else {
            self.recipe.neighbours(self.cluster, self.me)
        }
    }
}

/// The moment of a checkpoint.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The moment, the same on every node: rounds that are done where all share rounds, else how often the run has been
    /// suspended.
    pub at: Clock,
    /// Contributions that this node has made before.
    pub made: u64,
}

/// A machine's knowledge of the other workers, as far as the length of a period can depend on it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// The time of a step of the reference, as the servers have told it last, where periods follow the workers' speeds.
    pub reference: Option<StepTime>,
    /// The means of the numbers that have travelled with the contributions ([`Rider`]), in the first round with a
    /// number and in the last one. The same at all members after the same round.
    pub riders: Option<[Rider; 2]>,
}

/// With `payload=gradients`: the run has gone on without this node, so the state of its application was replaced by that
/// of another.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It was not.
    None,
    /// It was. The application has not been told: its next step ends at once.
    Untold,
    /// It was, and the last [`Signal::Ready`] says so: it brings a state instead of a mean.
    Told,
}

/// A state machine without IO, clock, threads or floats.
pub trait Machine: fmt::Debug + Send {
    /// Takes one input. Several may be given before outputs are drained.
    ///
    /// # Errors
    /// When the caller has a bug; the machine is unchanged then.
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse>;

    /// The next thing to do, until [`Output::Wait`].
    fn poll_output(&mut self) -> Output;

    /// Lengths in bytes of the buffers that the driver must provide, numbered from 0. The first holds the
    /// contract's text, the rest zeros. A buffer of length 0 grows when it is written: see
    /// [`Pool::make_room`](crate::Pool::make_room).
    fn buffers(&self) -> Vec<usize>;

    /// Where the next contribution goes.
    fn contribution(&self) -> BufferId;

    /// After [`Signal::Joined`] and [`Signal::Ready`], the machine does not read the last contribution any more. A driver can
    /// then use its buffer for the next one. `false`: a transmission or a kernel may still read it.
    fn is_contribution_free(&self) -> bool {
        false
    }

    /// Where the parameters are when an event says so; before joining, where the node that provides them puts the
    /// initial ones.
    fn view(&self) -> BufferId;

    /// With `payload=gradients`: two buffers of vector `index` of the application's state, which are its parameters and the
    /// vectors of its optimizer. The driver puts the application's state into the first buffers with each step. The second
    /// ones hold the state of a donor, when [`Machine::adoption`] or [`Signal::Joined`] says so. Before joining, the node
    /// that provides the state finds its own there. `None`: there is no such vector.
    fn carried(&self, _index: usize) -> Option<[BufferId; 2]> {
        None
    }

    /// Whether the application's state has been replaced since its last step.
    fn adoption(&self) -> Adoption {
        Adoption::None
    }

    /// The buffers that a node that has left with `keep` goes on from, besides the parameters.
    fn saved(&self) -> Vec<SavedBuffer> {
        Vec::new()
    }

    /// The wait of this node for another node, if it waits.
    fn waiting(&self) -> Option<Waiting>;

    /// Until when the peer that this node waits for is silent, as it has announced. Until then the wait is no one's
    /// fault.
    fn awaited_silence(&self) -> Option<Instant>;

    /// This node's knowledge of the other workers, as far as the length of the next period can depend on it. See
    /// [`Local::follow`](crate::Local::follow).
    fn advice(&self) -> Advice;

    /// A snapshot of numbers. Allocates.
    fn status(&self) -> Status;

    /// How often the result of [`Self::wanted`] has changed.
    fn wanted_changes(&self) -> u64;

    /// The peers that this node wants to be connected with now, by rank; all neighbours, unless
    /// [`on_demand`](Setup::on_demand) is set. The driver connects two nodes when either wants the other, and keeps the
    /// connection as long as one of them does. Allocates: drivers ask when [`Self::wanted_changes`] has changed.
    fn wanted(&self) -> Vec<PeerId>;
}

#[cfg(test)]
mod tests;
