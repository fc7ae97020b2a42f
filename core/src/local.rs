//! [`Local`]: a worker's local steps between synchronisations, the contribution at their end, and the step from the
//! machine's view to the worker's parameters.
//!
//! Sessions and the simulator use the same code here, so that the simulator tests the code of sessions.

use alloc::vec::Vec;

use crate::kernel::apply;
use crate::kernel::tier::Tier;
use crate::recipe::{Payload, Period, Recipe};
use crate::rule::period::LocalSteps;
use crate::time::Instant;

/// The local steps of a worker.
///
/// Protocol of use: [`start`](Self::start) once, then [`step`](Self::step) or [`stepped`](Self::stepped) per local
/// step. If that returns a number of examples, a synchronisation is due: the host gives the contribution to its
/// machine, waits, and calls [`take`](Self::take) with the machine's view.
///
/// A period in seconds goes by the moments `now` that the host passes in, by a clock of its own choice.
///
/// `params` and `update` have the length of the layout. The machine's vectors are longer if optimizer vectors travel
/// with the parameters; the host fills and reads these tails itself.
#[derive(Clone, Debug)]
pub struct Local {
    recipe: Recipe,
    steps: LocalSteps,
    /// Parameters at the last synchronisation, to compute the sum of updates since. Empty if it is not needed: with
    /// `payload=parameters`, and with one local step per synchronisation once the caller hands over the update itself.
    base: Vec<f32>,
}

impl Local {
    /// The local steps at the start of a run.
    pub fn new(recipe: Recipe) -> Self {
        Self { recipe, steps: LocalSteps::new(recipe.period), base: Vec::new() }
    }

    /// Continues a resumed run after `steps` local steps, the last of which ended with a synchronisation.
    pub fn resume(&mut self, steps: u64) {
        self.steps = LocalSteps::after(self.recipe.period, steps);
    }

    /// True if no local step has been taken since the last synchronisation.
    pub fn is_at_rest(&self) -> bool {
        self.steps.is_at_rest()
    }

    /// Copies the common initial parameters from the machine's view. With `payload=updates`, allocates and fills the
    /// base vector. The first period begins now.
    pub fn start(&mut self, params: &mut [f32], view: &[f32], now: Instant) {
        self.steps.begin(now);
        params.copy_from_slice(&view[..params.len()]);
        if self.recipe.payload == Payload::Updates {
            self.base = params.to_vec();
        }
    }

    /// Takes one local step, which ends now: subtracts `update`, computed over `examples` examples, from `params`. With
    /// `payload=gradients`, `update` is the gradient, and `params` are not changed. If a
    /// synchronisation is due, fills `contribution` and returns the number of examples behind it; [`take`](Self::take)
    /// must follow.
    pub fn step(
        &mut self,
        params: &mut [f32],
        update: &[f32],
        examples: u32,
        contribution: &mut [f32],
        now: Instant,
    ) -> Option<u64> {
        if self.recipe.payload != Payload::Parameters && self.recipe.period == Period::every(1) {
            // The update or gradient is the contribution, so the base vector is not needed: free its memory.
            self.base = Vec::new();
            contribution[..update.len()].copy_from_slice(update);
            return self.steps.take(examples, now);
        }
        let alone = self.steps.is_at_rest() && self.recipe.period.is_measured();
        apply::in_place(Tier::best(), params, update, 1.0);
        let weight = self.stepped(params, examples, contribution, now)?;
        if alone && self.recipe.payload == Payload::Updates {
            // As with a period of 1: the update itself, without the rounding of a difference of parameters.
            contribution[..update.len()].copy_from_slice(update);
        }
        Some(weight)
    }

    /// Takes one local step that the caller's optimizer has already applied to `params`. Otherwise as
    /// [`step`](Self::step). Requires [`can_tell_update`](Self::can_tell_update).
    pub fn stepped(&mut self, params: &[f32], examples: u32, contribution: &mut [f32], now: Instant) -> Option<u64> {
        // Between synchronisations only the counter changes: parameters and base hold all that a contribution needs.
        let weight = self.steps.take(examples, now)?;
        self.contribute(params, contribution);
        Some(weight)
    }

    /// Takes one local step of a caller with vectors in other memory, for instance on a device. Only counts steps
    /// and examples. Requires `payload=updates` with period 1.
    pub fn step_elsewhere(&mut self, examples: u32) -> Option<u64> {
        self.base = Vec::new();
        // Only a period in seconds depends on the time.
        self.steps.take(examples, Instant::ORIGIN)
    }

    /// True if the contribution can be computed from the parameters alone, as [`stepped`](Self::stepped) does. False
    /// after a [`step`](Self::step) whose update was the contribution, because that step drops the base vector.
    pub fn can_tell_update(&self) -> bool {
        self.recipe.payload == Payload::Parameters || !self.base.is_empty()
    }

    /// Ends an incomplete period at the end of a run: fills `contribution` and returns the number of examples behind
    /// it. `None`: no local step was taken since the last synchronisation.
    pub fn rest(&mut self, params: &[f32], contribution: &mut [f32]) -> Option<u64> {
        let weight = self.steps.rest()?;
        self.contribute(params, contribution);
        Some(weight)
    }

    fn contribute(&self, params: &[f32], contribution: &mut [f32]) {
        let contribution = &mut contribution[..params.len()];
        match self.recipe.payload {
            Payload::Parameters => contribution.copy_from_slice(params),
            // Base minus parameters: the sum of the updates, which were subtracted one by one.
            Payload::Updates | Payload::Gradients => apply::apply(contribution, &self.base, params, 1.0),
        }
    }

    /// Ends a synchronisation: copies the machine's view to `params`. `changed`: false if the view is the same as after
    /// the previous synchronisation. The next period begins now.
    pub fn take(&mut self, params: &mut [f32], view: &[f32], changed: bool, now: Instant) {
        self.steps.begin(now);
        let view = &view[..params.len()];
        if changed {
            params.copy_from_slice(view);
        } else if !self.base.is_empty() {
            // The round changed nothing (all weights were 0), so the local steps since the base do not count either.
            params.copy_from_slice(&self.base);
        }
        // The next contribution is relative to these parameters.
        if !self.base.is_empty() {
            self.base.copy_from_slice(params);
        }
    }
}
