//! The one shape of every machine.
//!
//! A machine decides; its driver does. The driver feeds [`Input`]s with the time, and carries out [`Output`]s until
//! it gets [`Output::Wait`]. Nothing else passes between them, so that a run is a list of inputs: the same list
//! gives the same outputs, in a process, in a simulator, in a test.

mod collective;
mod contract;
mod encoding;
mod hub;
mod io;
mod mesh;
mod node;
mod saved;
mod server;
mod worker;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use contract::Contract;
pub(crate) use hub::{Hub, Notice};
pub use io::{Event, Input, Misuse, OURS, Output, ProtocolError, Rejection, Signal, THEIRS};
pub use node::Node;
pub use saved::{RestoreError, SavedBuffer};

use crate::buffer::BufferId;
use crate::id::{Clock, Cluster, Incarnation, PeerId};
use crate::recipe::Recipe;
use crate::status::{Status, Waiting};
use crate::time::{Instant, Patience};

/// What a node is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Its rank.
    pub me: PeerId,
    /// Who takes part.
    pub cluster: Cluster,
    /// What is done.
    pub recipe: Recipe,
    /// Floats exchanged: the layout's, and those of averaged optimizer vectors.
    pub len: usize,
    /// Floats of each tensor, in order: where thresholds are per tensor.
    pub tensors: Arc<[usize]>,
    /// Drawn at random at each start.
    pub incarnation: Incarnation,
    /// The timeouts.
    pub patience: Patience,
    /// Fewest workers that go on without the others, where there are views; at least 1.
    pub quorum: u32,
    /// What the run goes on from: [`Machine::view`] then holds the parameters of that moment before the first input, and
    /// [`Machine::saved`] what was saved before the first step, on every node.
    pub resumed: Option<Resumed>,
    /// What peers must agree on.
    pub contract: Contract,
    /// The bug to run with, in tests of the tests.
    #[cfg(planted)]
    pub bug: Option<crate::planted::Bug>,
}

/// From where a run goes on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The moment, the same on every node: rounds that are done where all share rounds, else how often the run has been
    /// suspended.
    pub at: Clock,
    /// Contributions that this node has made before.
    pub made: u64,
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
    /// contract's text, the rest zeros.
    fn buffers(&self) -> Vec<usize>;

    /// Where the next contribution goes.
    fn contribution(&self) -> BufferId;

    /// Where the parameters are when an event says so; before joining, where the node that provides them puts the
    /// initial ones.
    fn view(&self) -> BufferId;

    /// What a node that has left with `keep` goes on from, besides the parameters.
    fn saved(&self) -> Vec<SavedBuffer> {
        Vec::new()
    }

    /// Whom this node waits for, if it does.
    fn waiting(&self) -> Option<Waiting>;

    /// A snapshot of numbers. Allocates.
    fn status(&self) -> Status;
}

#[cfg(test)]
mod tests;
