//! The merge axis: what a server does with a contribution. One file per rule, behind the trait [`Merging`].
//!
//! A server keeps one [`Merging`] per shard and one vector in which a group of contributions is gathered. The rule
//! counts and weighs; the server runs the kernel that the [`Verdict`] names.

mod mean;
mod softsync;
mod sum;

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::recipe::{Merge, Recipe};

/// A merge rule with the state of one shard.
pub(crate) trait Merging: Debug + Send {
    /// Decides on a contribution. `weight`: the number of examples behind it. `staleness`: applications since the
    /// parameters from which it was computed.
    fn admit(&mut self, weight: u32, staleness: u64) -> Verdict;

    /// True if the group is complete and can be applied before a round ends.
    fn is_full(&self) -> bool {
        false
    }

    /// Ends the group: returns the factor with which the gathered vector is applied, or `None` if the group is empty.
    fn take(&mut self) -> Option<f32>;
}

/// What the server does with a contribution.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Drop it: its staleness is above the limit.
    Drop,
    /// Ignore it: its weight is 0.
    Skip,
    /// Apply it to the parameters at once, times `scale`.
    Apply { scale: f32 },
    /// Add it to the gathered vector, times `scale`. `first`: it overwrites that vector, which holds an earlier group.
    Add { scale: f32, first: bool },
    /// Average it into the gathered vector, whose weight so far is `held`.
    Blend { held: u32 },
}

/// The merge rule of a recipe, with an empty group.
pub(crate) fn merging(recipe: &Recipe) -> Box<dyn Merging> {
    match recipe.merge {
        Merge::Mean => Box::new(mean::Mean::default()),
        // In rounds, updates are added up in rank order first, so that the result does not depend on arrival.
        Merge::Sum { lambda } if recipe.is_synchronous() => Box::new(sum::RoundSum::new(lambda)),
        Merge::Sum { lambda } => Box::new(sum::Sum::new(lambda, recipe.staleness)),
        Merge::Softsync { updates } => Box::new(softsync::Softsync::new(updates, recipe.staleness)),
    }
}
