//! The merge axis: how a server treats a contribution. One file per rule, behind the trait [`Merging`].
//!
//! A server keeps one [`Merging`] per shard. The rule decides, counts and weighs. Vectors that it needs (a sum that is
//! gathered, a velocity, a copy per worker) it asks for when it is made, and it names the kernel that works on them;
//! the server runs the kernel.
//!
//! A rule either merges a contribution when it comes, into one vector, or holds all contributions of a round and merges
//! them when the round ends ([`round`]).

mod mean;
mod round;
mod senders;
mod softsync;
mod sum;

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::buffer::Segment;
use crate::id::PeerId;
use crate::kernel::Kernel;
use crate::recipe::{Merge, Recipe};
use crate::vectors::{Keep, Vectors};

/// A merge rule with the state of one shard.
pub(crate) trait Merging: Debug + Send {
    /// Decides on a contribution. `update`: its floats. `weight`: the number of examples behind it. `staleness`:
    /// applications since the parameters from which it was computed.
    fn admit(&mut self, worker: PeerId, update: Segment, weight: u64, staleness: u64) -> Verdict;

    /// True if the group is complete and can be applied before a round ends.
    fn is_full(&self) -> bool {
        false
    }

    /// A kernel that makes a part of the merged vector, if it is not there yet. The server runs the kernels of the parts from
    /// 0 on, until there is none, and then ends the group.
    fn merge(&self, _part: usize) -> Option<Kernel> {
        None
    }

    /// Ends the group: returns the merged contributions, or `None` if the group is empty.
    fn take(&mut self) -> Option<Merged>;
}

/// The server's treatment of a contribution.
#[derive(Copy, Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "it is looked at once, and must not allocate")]
pub(crate) enum Verdict {
    /// Drop it: its staleness is above the limit, or its worker has contributed to this round already.
    Drop,
    /// Ignore it: its weight is 0.
    Skip,
    /// Commit it to the parameters at once, times `scale`.
    Apply { scale: f32 },
    /// Run this kernel, which merges it into a vector of the rule.
    Gather { kernel: Kernel },
}

/// A group of contributions, as one vector of the rule.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Merged {
    pub(crate) vector: Segment,
    /// The factor with which the vector is committed.
    pub(crate) scale: f32,
}

/// The merge rule of a recipe for a shard, with an empty group. `tensors`: the floats of each tensor, or part of one, in
/// the shard. Declares the vectors of the rule.
pub(crate) fn merging(recipe: &Recipe, workers: u32, tensors: &[u32], vectors: &mut Vectors) -> Box<dyn Merging> {
    if let Some(formula) = recipe.merge.formula() {
        return Box::new(round::Round::new(formula, workers, tensors, vectors));
    }
    let len = tensors.iter().map(|len| *len as usize).sum();
    let mut gathered = || Segment::floats(vectors.floats("gathered", len, Keep::No), 0, len);
    match recipe.merge {
        // In rounds, updates are added up in rank order first, so that the result does not depend on arrival.
        Merge::Sum { lambda } if recipe.has_rounds() => Box::new(sum::RoundSum::new(lambda.of(workers), gathered())),
        Merge::Sum { lambda } => Box::new(sum::Sum::new(lambda.of(workers), recipe.staleness)),
        // Workers contribute the distance that the center has to move by.
        Merge::Elastic { .. } if recipe.is_synchronous() => Box::new(sum::RoundSum::new(1.0, gathered())),
        Merge::Elastic { .. } => Box::new(sum::Sum::new(1.0, recipe.staleness)),
        Merge::Softsync { updates: 1 } => Box::new(sum::Sum::new(1.0, recipe.staleness)),
        Merge::Softsync { updates } => Box::new(softsync::Softsync::new(updates, recipe.staleness, gathered())),
        Merge::MeanOfSenders => {
            let gathered = gathered();
            let counts = Segment::floats(vectors.floats("examples of each element", len, Keep::No), 0, len);
            Box::new(senders::Senders::new(gathered, counts))
        }
        // The mean, or a rule that was made above.
        _ => Box::new(mean::Mean::new(gathered())),
    }
}

/// The factor on a worker's own update until the servers have merged it: the share that it will have in the parameters
/// at first. The later effect of an outer optimizer comes with their answers.
pub(crate) fn own_scale(recipe: &Recipe, workers: u32) -> f32 {
    let merged = match recipe.merge {
        Merge::Sum { lambda } => lambda.of(workers),
        Merge::Softsync { updates } => 1.0 / updates as f32,
        _ => 1.0,
    };
    merged * recipe.outer.first_gain(workers)
}
