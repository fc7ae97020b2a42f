//! The merge axis: what becomes of a contribution. One file per rule, behind the trait [`Merging`].

mod mean;
mod softsync;
mod sum;

use alloc::boxed::Box;
use core::fmt::Debug;

use crate::recipe::{Merge, Recipe};

/// How contributions become applications, for one shard.
pub(crate) trait Merging: Debug + Send {
    /// A contribution has come, with `weight` examples behind it, `staleness` applications after the parameters
    /// that it was made from.
    fn admit(&mut self, weight: u32, staleness: u64) -> Verdict;

    /// Have enough been gathered to apply them without waiting for a round to end?
    fn is_full(&self) -> bool {
        false
    }

    /// Applies what has been gathered: the factor on it, or `None` when there is nothing. Begins anew.
    fn take(&mut self) -> Option<f32>;
}

/// What becomes of a contribution.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is too stale.
    Drop,
    /// There is nothing in it.
    Skip,
    /// It is applied at once, times `scale`.
    Apply { scale: f32 },
    /// It is added to what has been gathered, times `scale`; it is the `first` of its group.
    Add { scale: f32, first: bool },
    /// It is averaged into what has been gathered, which weighs `held`.
    Blend { held: u32 },
}

/// The merge rule of a recipe.
pub(crate) fn merging(recipe: &Recipe) -> Box<dyn Merging> {
    match recipe.merge {
        Merge::Mean => Box::new(mean::Mean::default()),
        Merge::Sum { lambda } if recipe.is_synchronous() => Box::new(sum::RoundSum::new(lambda)),
        Merge::Sum { lambda } => Box::new(sum::Sum::new(lambda, recipe.staleness)),
        Merge::Softsync { updates } => Box::new(softsync::Softsync::new(updates, recipe.staleness)),
    }
}
