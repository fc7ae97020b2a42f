//! B-FASGD (Odena 2016): the last contribution of each worker, which is applied again in place of one that is not sent, and
//! the magnitudes by which workers decide what they send.
//!
//! ```text
//! with a body:    received -> scanned or expanded -> copied to the worker's place -> queue
//! without:        the worker's place -> copied to the inbox -> queue
//! ```
//! The copy is made before the correction, so that the correction meets the contribution as the worker has sent it. A
//! server tells a worker the magnitude only while it has the worker's last contribution: without the magnitude, the worker
//! sends its next contribution with a body. So neither a restarted server nor a restarted worker needs a message for it.

use super::{Job, Port, Server};
use crate::id::PeerId;
use crate::kernel::{Kernel, KernelResult};
use crate::rider::Rider;

impl Server {
    /// Keeps a contribution that has come with a body, if the worker may have it repeated.
    pub(super) fn keep_last(&mut self, hub: &mut Port<'_>, index: usize, inbox: usize) {
        let worker = self.inboxes.get(inbox).worker;
        let shard = &mut self.shards[index];
        let Some(into) = shard.last.get(worker.index()).copied() else { return };
        shard.seat(worker).has_last = true;
        hub.compute(Kernel::Copy { from: self.inboxes.floats(inbox, into.words().len()), into }, Job::Prepare);
    }

    /// Puts the last contribution of a worker into the inbox of one that repeats it.
    pub(super) fn repeat(&mut self, hub: &mut Port<'_>, index: usize, inbox: usize) {
        let worker = self.inboxes.get(inbox).worker;
        let shard = &self.shards[index];
        let (from, into) = (shard.last[worker.index()], self.inboxes.floats(inbox, shard.len));
        hub.counters.repeated += 1;
        hub.compute(Kernel::Copy { from, into }, Job::Prepare);
    }

    /// Measures the moving means of a shard's magnitudes, where workers decide by them. The next answer waits for it.
    pub(super) fn measure(&self, hub: &mut Port<'_>, index: usize) {
        let state = self.shards[index].compensation.and_then(|(_, state)| state);
        if let Some(x) = state.filter(|_| hub.setup.recipe.compensate().costs().is_some()) {
            hub.compute(Kernel::Total { x }, Job::Measure { shard: index });
        }
    }

    pub(super) fn on_measured(&mut self, index: usize, result: KernelResult) {
        let KernelResult::Total { sum } = result else { return };
        let shard = &mut self.shards[index];
        shard.magnitude = Rider::new(sum / shard.len as f64);
    }

    /// The magnitude that a worker is told.
    pub(super) fn magnitude(&self, index: usize, worker: PeerId) -> Option<Rider> {
        let shard = &self.shards[index];
        shard.magnitude.filter(|_| shard.last.is_empty() || shard.seat_of(worker).has_last)
    }
}
