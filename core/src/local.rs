//! The worker's side of a recipe: local steps between synchronisations, what is contributed at their end, and how
//! the machine's view becomes the worker's parameters. Shared by all hosts of a machine, so that what is simulated
//! is what runs.

use alloc::vec::Vec;

use crate::kernel::apply;
use crate::kernel::tier::Tier;
use crate::recipe::{Payload, Period, Recipe};
use crate::rule::period::LocalSteps;

/// A worker's local steps. Vectors are of the layout's length; the machine's vectors are longer where optimizer
/// vectors travel along, and their tails are the host's business.
#[derive(Clone, Debug)]
pub struct Local {
    recipe: Recipe,
    steps: LocalSteps,
    /// Parameters at the last synchronisation, where updates of several steps travel as one.
    base: Vec<f32>,
}

impl Local {
    /// At the start of a run.
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, steps: LocalSteps::new(recipe.period), base: Vec::new() }
    }

    /// Goes on after so many local steps, the last of which ended with a synchronisation.
    pub fn resume(&mut self, steps: u64) {
        self.steps = LocalSteps::after(self.recipe.period, steps);
    }

    /// Has no step been taken since the last synchronisation?
    pub fn is_at_rest(&self) -> bool {
        self.steps.is_at_rest()
    }

    /// Takes the parameters that everyone starts from.
    pub fn start(&mut self, params: &mut [f32], view: &[f32]) {
        params.copy_from_slice(&view[..params.len()]);
        if self.recipe.payload == Payload::Updates {
            self.base = params.to_vec();
        }
    }

    /// One local step: `update` is what is subtracted. When it is time to synchronise, fills `contribution` and
    /// returns the examples behind it; [`take`](Self::take) must follow.
    pub fn step(&mut self, params: &mut [f32], update: &[f32], examples: u32, contribution: &mut [f32]) -> Option<u32> {
        if self.recipe.payload == Payload::Updates && self.recipe.period == Period::every(1) {
            // The update itself travels: what it starts from need not be kept.
            self.base = Vec::new();
            contribution[..update.len()].copy_from_slice(update);
            return self.steps.take(examples);
        }
        apply::in_place(Tier::best(), params, update, 1.0);
        self.stepped(params, examples, contribution)
    }

    /// One local step that the caller's optimizer has already taken on `params`. Not to be mixed with
    /// [`step`](Self::step); see [`can_tell_update`](Self::can_tell_update).
    pub fn stepped(&mut self, params: &[f32], examples: u32, contribution: &mut [f32]) -> Option<u32> {
        let weight = self.steps.take(examples)?;
        self.contribute(params, contribution);
        Some(weight)
    }

    /// One step of a caller whose vectors are elsewhere, where updates are synchronised at every step: nothing is kept of
    /// them here.
    pub fn step_elsewhere(&mut self, examples: u32) -> Option<u32> {
        self.base = Vec::new();
        self.steps.take(examples)
    }

    /// Can what changed be told from the parameters alone? Not after a [`step`](Self::step) whose update travelled
    /// as it was.
    pub fn can_tell_update(&self) -> bool {
        self.recipe.payload == Payload::Parameters || !self.base.is_empty()
    }

    /// What remains of a period that has begun, at the end of a run.
    pub fn rest(&mut self, params: &[f32], contribution: &mut [f32]) -> Option<u32> {
        let weight = self.steps.rest()?;
        self.contribute(params, contribution);
        Some(weight)
    }

    fn contribute(&self, params: &[f32], contribution: &mut [f32]) {
        let contribution = &mut contribution[..params.len()];
        match self.recipe.payload {
            Payload::Parameters => contribution.copy_from_slice(params),
            Payload::Updates => apply::apply(contribution, &self.base, params, 1.0),
        }
    }

    /// Takes what a synchronisation brought: the machine's view after a step.
    pub fn take(&mut self, params: &mut [f32], view: &[f32], changed: bool) {
        let view = &view[..params.len()];
        if changed {
            params.copy_from_slice(view);
        } else if !self.base.is_empty() {
            params.copy_from_slice(&self.base);
        }
        if !self.base.is_empty() {
            self.base.copy_from_slice(params);
        }
    }
}
