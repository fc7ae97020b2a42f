//! The commit step: from "what was merged" to the new parameters.
//!
//! Servers and collectives both end here: a server whenever its merge rule says so, a collective once per round and
//! chunk. An optimizer at this level (BMUF, DiLoCo, a server's Adam) belongs here. Its kernel takes the place of
//! [`Commit::kernel`]'s. Its vectors are declared by [`Commit::new`] and listed by [`Commit::state`]; checkpoints save
//! them, and donors send them.

use alloc::vec::Vec;

use crate::buffer::{BufferId, Segment};
use crate::kernel::Kernel;
use crate::recipe::{Payload, Recipe};
use crate::vectors::Vectors;

/// The commit step of a node.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    payload: Payload,
    state: Vec<[BufferId; 2]>,
}

impl Commit {
    /// The commit step of a recipe. Declares the vectors of the step; the recipes of today need none.
    pub(crate) fn new(recipe: &Recipe, _vectors: &mut Vectors) -> Self {
        Self { payload: recipe.payload, state: Vec::new() }
    }

    /// A step with `count` vectors of `len` floats, for tests of the roles that carry them.
    #[cfg(test)]
    pub(crate) fn with_state(recipe: &Recipe, len: usize, count: usize, vectors: &mut Vectors) -> Self {
        use crate::vectors::Keep;
        let mut place = || vectors.floats("state", len, Keep::No);
        let state = (0..count).map(|_| [place(), place()]).collect();
        Self { payload: recipe.payload, state }
    }

    /// The kernel that makes the new parameters `into` of the `old` ones and the `merged` contributions. `scale` is the
    /// merge rule's factor on updates. `into` may be `old`.
    pub(crate) fn kernel(&self, old: Segment, merged: Segment, scale: f32, into: Segment) -> Kernel {
        match self.payload {
            // The mean of parameters is the new parameters.
            Payload::Parameters => Kernel::Copy { from: merged, into },
            Payload::Updates => Kernel::Apply { from: old, update: merged, scale, into },
        }
    }

    /// The kernel for a chunk without contributions: the parameters stay as they are.
    pub(crate) fn unchanged(&self, old: Segment, into: Segment) -> Kernel {
        Kernel::Copy { from: old, into }
    }

    /// Are the merged contributions the new parameters, so that they may be received right where the parameters go?
    pub(crate) fn is_identity(&self) -> bool {
        self.payload == Payload::Parameters && self.state.is_empty()
    }

    /// The vectors of the parameters' length that the step reads and writes besides the parameters. A newcomer needs
    /// them, in this order. Each has two places, like the parameters of a collective: a round that is broken off must
    /// leave the first as it was.
    pub(crate) fn state(&self) -> &[[BufferId; 2]] {
        &self.state
    }
}
