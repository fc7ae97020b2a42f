//! The type [`Status`].

use alloc::vec::Vec;

use super::{Counters, Histogram, LinkStatus, Role, Waiting, WorkerStatus};
use crate::id::{Clock, PeerId};

/// A snapshot of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Its rank.
    pub me: PeerId,
    /// What it is.
    pub role: Role,
    /// Steps done (a server: applications, of the shard that has the most).
    pub clock: Clock,
    /// Whom it waits for, if it does.
    pub waiting: Option<Waiting>,
    /// What happened so far.
    pub counters: Counters,
    /// Staleness of the updates applied here.
    pub staleness: Histogram,
    /// The workers, as far as this node knows them.
    pub workers: Vec<WorkerStatus>,
    /// Connections to other nodes.
    pub links: Vec<LinkStatus>,
    /// Norm of the residual, where there is one: what was contributed and has not been sent.
    pub residual_norm: f64,
    /// Share of parameters in the last encoded update, where there was one.
    pub density: f64,
    /// The largest threshold of the last encoded update, where there was one.
    pub tau: f64,
    /// What clipping has taken from the residual in all, and nobody gets.
    pub clipped: f64,
    /// Operations under way.
    pub operations: usize,
    /// Updates of everyone that are in this node's replica, where there are replicas that count them (meshes).
    pub updates: u64,
    /// Number of the view, where there are views.
    pub view: u64,
    /// Its members.
    pub members: u32,
}

impl Status {
    /// Headers and bodies sent, to all peers.
    pub fn bytes_out(&self) -> u64 {
        self.links.iter().map(|link| link.bytes_out).sum()
    }

    /// Headers and bodies received, from all peers.
    pub fn bytes_in(&self) -> u64 {
        self.links.iter().map(|link| link.bytes_in).sum()
    }
}
