//! B-FASGD (Odena 2016): a worker decides at each step whether it sends its update, and whether it takes parameters.
//!
//! ```text
//! step -> the shares by the servers' magnitudes -> meters -> due?    -> contribution, with or without a body
//!                                                                    -> it asks for parameters, or for a receipt
//! ```
//! An update that is not sent is dropped, as in the released code: the server applies the worker's last one again. Without
//! new parameters, the worker computes its next update from the ones that it took last.
//!
//! Everything is sent until all servers have told a magnitude, and again from the moment on at which a server restarts.

use super::{Job, Port, Worker};
use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::{Kernel, KernelResult};
use crate::machine::Setup;
use crate::rider::Rider;
use crate::rule::thin::Thinning;
use crate::vectors::{Keep, Vectors};

/// The decisions of a recipe with costs.
#[derive(Copy, Clone, Debug)]
pub(super) struct Thinner {
    rule: Thinning,
    /// The sums of the meters, which checkpoints save.
    sums: Segment,
    /// Examples of the step for which the meters turn.
    deciding: Option<u64>,
    /// The number that travelled with the last contribution with a body.
    last_rider: Option<Rider>,
}

impl Thinner {
    pub(super) fn new(setup: &Setup, vectors: &mut Vectors) -> Option<Self> {
        let rule = Thinning::new(&setup.recipe, setup.me.0, setup.cluster.workers)?;
        let sums = Segment::floats(vectors.floats("sums of the meters", 2, Keep::Floats), 0, 2);
        Some(Self { rule, sums, deciding: None, last_rider: None })
    }
}

impl Worker {
    /// Begins a step: decides first, if there is something to decide.
    pub(super) fn begin_step(&mut self, hub: &mut Port<'_>, weight: u64) {
        (self.fetching, self.repeating) = (true, false);
        let Some(thinner) = self.thinner.as_mut().filter(|_| weight > 0) else {
            return self.contribute(hub, weight, false);
        };
        thinner.deciding = Some(weight);
        let magnitudes = self.rows.iter().map(|row| (row.len, row.magnitude.map(Rider::get)));
        let (shares, phases, sums) = (thinner.rule.shares(magnitudes), thinner.rule.phases, thinner.sums);
        hub.compute(Kernel::Meter { sums, shares, phases }, Job::Decide);
    }

    pub(super) fn on_decided(&mut self, hub: &mut Port<'_>, result: KernelResult) {
        let KernelResult::Due { due: [sends, fetches] } = result else { return };
        let Some(weight) = self.thinner.as_mut().and_then(|thinner| thinner.deciding.take()) else { return };
        // A server may have restarted in the meantime.
        let known = self.rows.iter().all(|row| row.magnitude.is_some());
        (self.fetching, self.repeating) = (fetches, !sends && known);
        hub.counters.skipped_fetches += u64::from(!fetches);
        hub.counters.skipped_pushes += u64::from(self.repeating);
        self.contribute(hub, weight, false);
    }

    pub(super) fn is_deciding(&self) -> bool {
        self.thinner.is_some_and(|thinner| thinner.deciding.is_some())
    }

    /// The number that travels with the next contribution: of one that repeats the last one, the number of that one.
    pub(super) fn next_rider(&mut self) -> Option<Rider> {
        match &mut self.thinner {
            Some(thinner) if self.repeating => thinner.last_rider,
            Some(thinner) => {
                thinner.last_rider = self.rider;
                self.rider
            }
            None => self.rider,
        }
    }

    /// A server has restarted: it has none of this worker's contributions.
    pub(super) fn forget_magnitudes(&mut self, hub: &Port<'_>, server: PeerId) {
        for shard in 0..self.rows.len() {
            if self.server(hub, shard) == server {
                self.rows[shard].magnitude = None;
            }
        }
    }
}
