//! [`Node`]: the machine of a rank. The recipe's topology and the rank say which role it is.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::assembly::Assembly;
use super::host::Host;
use super::{Adoption, Advice, Input, Machine, Misuse, OURS, Output, Setup, collective, mesh, server, worker};
use crate::buffer::{Allocate, BufferId, Pool, Segment, Storage};
use crate::id::PeerId;
use crate::recipe::{ConfigError, Topology};
use crate::saved::SavedBuffer;
use crate::status::{Status, Waiting};
use crate::time::Instant;

/// The machine of a rank. Its kind follows from the recipe's topology.
#[derive(Debug)]
pub struct Node(pub(super) Box<dyn Machine>);

impl Node {
    /// The machine for a setup, with its buffers: the contract's text is in [`OURS`], and `initial` at the start of
    /// [`Machine::view`]. Copies both.
    ///
    /// # Errors
    /// When the recipe does not fit the cluster.
    ///
    /// # Panics
    /// When `initial` is longer than `setup.len`.
    pub fn open(setup: Setup, initial: &[f32]) -> Result<(Self, Pool), ConfigError> {
        Self::open_with(setup, initial, Storage::zeroed)
    }

    /// As [`open`](Self::open), with buffers that `allocate` makes.
    ///
    /// # Errors
    /// When the recipe does not fit the cluster.
    ///
    /// # Panics
    /// When `initial` is longer than `setup.len`.
    pub fn open_with(setup: Setup, initial: &[f32], allocate: Allocate) -> Result<(Self, Pool), ConfigError> {
        let contract = setup.contract.clone();
        let machine = Self::new(setup)?;
        let mut pool = Pool::allocated(machine.buffers(), allocate);
        let text = Segment { buffer: OURS, start: 0, len: contract.len() };
        pool.bytes_mut(text).copy_from_slice(contract.text().as_bytes());
        pool.floats_mut(Segment::floats(machine.view(), 0, initial.len())).copy_from_slice(initial);
        Ok((machine, pool))
    }

    /// The machine for a setup, for drivers with buffers of their own; see [`Machine::buffers`].
    ///
    /// # Errors
    /// When the recipe does not fit the cluster.
    pub fn new(setup: Setup) -> Result<Self, ConfigError> {
        setup.recipe.check_cluster(setup.cluster, setup.len)?;
        setup.recipe.check_budget(setup.tensors.len())?;
        Ok(Self(if setup.resume.is_some() { Box::new(Assembly::new(setup, machine)) } else { machine(setup) }))
    }
}

/// The machine of a setup with a recipe that fits its cluster.
fn machine(setup: Setup) -> Box<dyn Machine> {
    match setup.recipe.topology {
        _ if setup.recipe.is_collective() => Box::new(Host::new(setup, collective::Collective::new)),
        Topology::Servers { .. } if setup.cluster.is_worker(setup.me) => {
            Box::new(Host::new(setup, worker::Worker::new))
        }
        Topology::Servers { .. } => Box::new(Host::new(setup, server::Server::new)),
        Topology::Auto | Topology::Tree { .. } | Topology::Ring | Topology::Mesh { .. } => {
            Box::new(Host::new(setup, mesh::Mesh::new))
        }
    }
}

impl Machine for Node {
    fn handle_input(&mut self, now: Instant, input: Input) -> Result<(), Misuse> {
        self.0.handle_input(now, input)
    }

    fn poll_output(&mut self) -> Output {
        self.0.poll_output()
    }

    fn buffers(&self) -> Vec<usize> {
        self.0.buffers()
    }

    fn contribution(&self) -> BufferId {
        self.0.contribution()
    }

    fn is_contribution_free(&self) -> bool {
        self.0.is_contribution_free()
    }

    fn view(&self) -> BufferId {
        self.0.view()
    }

    fn carried(&self, index: usize) -> Option<[BufferId; 2]> {
        self.0.carried(index)
    }

    fn adoption(&self) -> Adoption {
        self.0.adoption()
    }

    fn saved(&self) -> Vec<SavedBuffer> {
        self.0.saved()
    }

    fn waiting(&self) -> Option<Waiting> {
        self.0.waiting()
    }

    fn awaited_silence(&self) -> Option<Instant> {
        self.0.awaited_silence()
    }

    fn advice(&self) -> Advice {
        self.0.advice()
    }

    fn status(&self) -> Status {
        self.0.status()
    }

    fn wanted_changes(&self) -> u64 {
        self.0.wanted_changes()
    }

    fn wanted(&self) -> Vec<PeerId> {
        self.0.wanted()
    }
}
