//! The commit step: from the merged vector to the new parameters.
//!
//! Servers and collectives both end here: a server whenever its merge rule says so, a collective once per round and
//! chunk. The outer optimizer of the recipe is a kernel of this step. Its vectors are declared by [`Commit::new`] and
//! listed by [`Commit::state`]; checkpoints save them, and donors send them.

use alloc::vec::Vec;

use crate::buffer::{BufferId, Segment};
use crate::id::Clock;
use crate::kernel::Kernel;
use crate::kernel::outer::Step;
use crate::recipe::{Normalize, Outer, Payload, Recipe, VelocityScale};
use crate::rider::Rider;
use crate::vectors::{Keep, Vectors};

/// The commit step of a node.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    payload: Payload,
    outer: Option<Step>,
    normalize: Normalize,
    /// The outer optimizer's velocity is per unit of the workers' learning rate.
    follows_rate: bool,
    /// Commits from one milestone of the outer optimizer to the next.
    pushes: u64,
    state: Vec<[BufferId; 2]>,
}

/// Which of its two places each vector of the state has before and after a commit.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) old: usize,
    pub(crate) new: usize,
}

/// Factors on a merged contribution.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Factors {
    /// The factor on the vector.
    scale: f32,
    /// The learning rate of the updates, relative to that at the start.
    inner: f32,
}

impl Places {
    /// The state is changed where it is.
    pub(crate) const IN_PLACE: Self = Self { old: 0, new: 0 };
}

impl Commit {
    /// The commit step of a recipe on a vector of `len` floats. Declares the vectors of the step. `has_rounds`: a commit
    /// can be broken off, so that each vector needs a second place.
    pub(crate) fn new(recipe: &Recipe, workers: u32, len: usize, has_rounds: bool, vectors: &mut Vectors) -> Self {
        let outer = recipe.outer.step(workers);
        let state = (0..outer.map_or(0, |step| step.vectors())).map(|_| {
            let place = vectors.floats("state of the outer optimizer", len, Keep::No);
            let other = has_rounds.then(|| vectors.floats("state after the round", len, Keep::No));
            [place, other.unwrap_or(place)]
        });
        let pushes = match recipe.outer {
            Outer::DelayedNesterov { pushes, .. } => pushes.of(workers).into(),
            _ => 1,
        };
        let (payload, normalize, follows_rate) = (recipe.payload, recipe.normalize, recipe.outer.follows_rate());
        Self { payload, outer, normalize, follows_rate, pushes, state: state.collect() }
    }

    /// The factors on merged contributions. `scale` is the merge rule's factor on updates. `rider`: the mean of the numbers
    /// that have travelled with them. It is the mean number of steps if contributions are divided by their workers' steps,
    /// or the learning rate.
    pub(crate) fn factors(&self, scale: f32, rider: Option<Rider>) -> Factors {
        match rider.map(Rider::get) {
            Some(steps) if self.normalize == Normalize::Steps => Factors { scale: scale * steps, inner: 1.0 },
            Some(inner) if self.follows_rate => Factors { scale, inner: inner.max(VelocityScale::RATE_MIN) },
            _ => Factors { scale, inner: 1.0 },
        }
    }

    /// The kernel that makes the new parameters `into` of the `old` ones and the `merged` contributions. `into` may be
    /// `old`. `start`: the byte at which these parameters begin in the whole
    /// vector, and their state in the vectors of the state.
    pub(crate) fn kernel(
        &self,
        start: u64,
        old: Segment,
        merged: Segment,
        Factors { scale, inner }: Factors,
        into: Segment,
        places: Places,
    ) -> Kernel {
        match (self.payload, self.outer) {
            // The mean of parameters is the new parameters.
            (Payload::Parameters, _) => Kernel::Copy { from: merged, into },
            (Payload::Updates, None) => Kernel::Apply { from: old, update: merged, scale, into },
            (Payload::Updates, Some(step)) => {
                let part = |buffer| Segment { buffer, start, len: old.len };
                let step = match step {
                    // Without momentum or a change of the rate, both factors cancel.
                    Step::Momentum { mu, rate, look } if inner != 1.0 && mu != 0.0 => {
                        Step::Rated { mu, rate, look, inner }
                    }
                    step => step,
                };
                let of = |index: usize| self.state.get(index).map(|at| (part(at[places.old]), part(at[places.new])));
                Kernel::Outer { step, from: old, update: merged, scale, state: [of(0), of(1)], into }
            }
            // The application gets the mean itself.
            (Payload::Gradients, _) if scale == 1.0 => Kernel::Copy { from: merged, into },
            (Payload::Gradients, _) => Kernel::Accumulate { update: merged, scale, first: true, into },
        }
    }

    /// The [kernel](Self::kernel) of a server that changes its state in place. `version`: that of the new parameters,
    /// which counts the commits.
    pub(crate) fn kernel_at(
        &self,
        version: Clock,
        start: u64,
        old: Segment,
        merged: Segment,
        factors: Factors,
        into: Segment,
    ) -> Kernel {
        let mut kernel = self.kernel(start, old, merged, factors, into, Places::IN_PLACE);
        if let Kernel::Outer { step: Step::Delayed { milestone, .. }, .. } = &mut kernel {
            *milestone = version.0.is_multiple_of(self.pushes);
        }
        kernel
    }

    /// The kernel for a chunk without contributions: the parameters stay as they are, and a mean of gradients is 0.
    pub(crate) fn unchanged(&self, old: Segment, into: Segment) -> Kernel {
        match self.payload {
            // x - x is +0 for every finite x.
            Payload::Gradients => Kernel::Apply { from: old, update: old, scale: 1.0, into },
            Payload::Parameters | Payload::Updates => Kernel::Copy { from: old, into },
        }
    }

    /// Are the merged contributions the new parameters, so that they may be received right where the parameters go?
    pub(crate) fn is_identity(&self) -> bool {
        matches!(self.payload, Payload::Parameters | Payload::Gradients) && self.state.is_empty()
    }

    /// The vectors of the parameters' length that the step reads and writes besides the parameters. A newcomer needs
    /// them, in this order. Each has two places, like the parameters of a collective: a round that is broken off must
    /// leave the first as it was.
    pub(crate) fn state(&self) -> &[[BufferId; 2]] {
        &self.state
    }
}
