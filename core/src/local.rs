//! [`Local`]: a worker's local steps between synchronisations, the contribution at their end, and the step from the
//! machine's view to the worker's parameters.
//!
//! Sessions and the simulator use the same code here, so that the simulator tests the code of sessions.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::kernel::tier::Tier;
use crate::kernel::{apply, checked, norm, scan};
use crate::machine::{Advice, Input};
use crate::recipe::{Payload, Period, Recipe};
use crate::rule::period::LocalSteps;
use crate::time::Instant;

/// The local steps of a worker.
///
/// Protocol of use: [`start`](Self::start) once, then [`step`](Self::step) or [`stepped`](Self::stepped) per local
/// step. If that returns a number of examples, a synchronisation is due: the host gives the contribution to its
/// machine, waits, and calls [`take`](Self::take) with the machine's view.
///
/// With [`Recipe::fetch`], a synchronisation contributes, takes parameters, or both: [`contributes`](Self::contributes) and
/// [`fetches`](Self::fetches) say which. A worker that contributes only goes on with its own parameters.
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
    /// If parameters are taken within a period, the base moves with them: base minus parameters is the part that has
    /// not been contributed yet.
    base: Vec<f32>,
    /// The last synchronisation contributes.
    contributes: bool,
    /// The last synchronisation takes parameters.
    fetches: bool,
    /// The lengths of periods that a tape gives, and how many of them have ended.
    lengths: Arc<[u32]>,
    ended: usize,
    /// The share of the distance to the center that a worker goes, with [`Merge::Elastic`](crate::recipe::Merge::Elastic).
    elastic: Option<f32>,
    /// Examples of a period whose elastic difference waits for the center.
    owed: Option<u64>,
    /// The first element of the last contribution that is not finite.
    non_finite: Option<usize>,
}

impl Local {
    /// The local steps at the start of a run of so many workers.
    pub fn new(recipe: Recipe, workers: u32) -> Self {
        let steps = LocalSteps::new(&recipe);
        let (lengths, ended) = (Arc::default(), 0);
        let elastic = recipe.merge.elastic(workers);
        let (base, contributes, fetches, owed, non_finite) = (Vec::new(), true, true, None, None);
        Self { recipe, steps, base, contributes, fetches, lengths, ended, elastic, owed, non_finite }
    }

    /// Continues a resumed run after `steps` local steps, the last of which ended with a synchronisation.
    pub fn resume(&mut self, steps: u64) {
        self.steps = LocalSteps::after(&self.recipe, steps);
    }

    /// The facts about the last period that the machine needs: the host gives it these inputs before each
    /// [`Input::Step`](crate::Input::Step).
    pub fn notes(&self) -> [Option<Input>; 2] {
        self.steps.notes()
    }

    /// Takes the machine's knowledge ([`Machine::advice`](crate::Machine::advice)), after it has joined and after each
    /// synchronisation.
    pub fn follow(&mut self, advice: Advice) {
        self.steps.follow(advice);
    }

    /// The application has computed this training loss. The mean of a period's losses decides over the length of the
    /// next one with [`Adapt::Loss`](crate::recipe::Adapt::Loss), and has no effect else.
    pub fn report_loss(&mut self, loss: f32) {
        self.steps.report_loss(loss);
    }

    /// The application's learning rate is `scale` times the one at the start, from the next step on: finite, 0 or more.
    pub fn set_learning_rate(&mut self, scale: f32) {
        self.steps.set_rate(scale);
    }

    /// The next periods have these numbers of local steps, from the [`Order::Steps`](crate::Order::Steps) of a tape.
    /// After the last of them, the recipe decides again.
    pub fn follow_lengths(&mut self, lengths: Arc<[u32]>) {
        (self.lengths, self.ended) = (lengths, 0);
    }

    /// The number of local steps of the period that has just ended, for a tape; `u32::MAX` for a period that the end of the
    /// run has cut short. `None`: it does not depend on the time, or the synchronisation does not contribute.
    pub fn timed_length(&self) -> Option<u32> {
        (self.recipe.is_timed() && self.contributes).then(|| self.steps.ended())
    }

    /// Counts a local step.
    fn count(&mut self, examples: u32, now: Instant) -> Option<u64> {
        let weight = self.steps.take_given(examples, now, self.lengths.get(self.ended).copied());
        self.ended += usize::from(weight.is_some());
        weight
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
        if self.contributes_update() {
            self.non_finite = checked::copy_finite(&mut contribution[..update.len()], update);
            return self.step_elsewhere(examples, now);
        }
        let apart = self.fetches_apart();
        let alone = self.steps.is_at_rest() && (self.recipe.period.is_measured() || apart) && self.elastic.is_none();
        apply::in_place(Tier::best(), params, update, 1.0);
        self.end_step(params, Some(update).filter(|_| alone), examples, contribution, now)
    }

    /// As [`step`](Self::step), for an update whose elements have not been checked.
    ///
    /// # Errors
    /// With the index of the first NaN or infinity in `update`. Then nothing has changed but the content of
    /// `contribution`, which is unspecified.
    pub fn step_checked(
        &mut self,
        params: &mut [f32],
        update: &[f32],
        examples: u32,
        contribution: &mut [f32],
        now: Instant,
    ) -> Result<Option<u64>, usize> {
        if !self.contributes_update() {
            return scan::first_non_finite(update)
                .map_or_else(|| Ok(self.step(params, update, examples, contribution, now)), Err);
        }
        // The copy is the check: one pass in place of two.
        if let Some(index) = checked::copy_finite(&mut contribution[..update.len()], update) {
            return Err(index);
        }
        self.non_finite = None;
        Ok(self.step_elsewhere(examples, now))
    }

    fn fetches_apart(&self) -> bool {
        self.recipe.fetches_apart() || self.elastic.is_some()
    }

    /// The contribution of each step is its update or gradient.
    fn contributes_update(&self) -> bool {
        let every_step = self.recipe.period == Period::every(1) && !self.fetches_apart();
        self.recipe.payload != Payload::Parameters && every_step
    }

    /// Takes one local step that the caller's optimizer has already applied to `params`. Otherwise as
    /// [`step`](Self::step). Requires [`can_tell_update`](Self::can_tell_update).
    pub fn stepped(
        &mut self,
        params: &mut [f32],
        examples: u32,
        contribution: &mut [f32],
        now: Instant,
    ) -> Option<u64> {
        self.end_step(params, None, examples, contribution, now)
    }

    /// As [`stepped`](Self::stepped), for parameters whose elements have not been checked.
    ///
    /// # Errors
    /// With the index of the first NaN or infinity in `params`. Then nothing has changed but the content of
    /// `contribution`, which is unspecified.
    pub fn stepped_checked(
        &mut self,
        params: &mut [f32],
        examples: u32,
        contribution: &mut [f32],
        now: Instant,
    ) -> Result<Option<u64>, usize> {
        // An elastic step moves the parameters, so the check comes first.
        if self.elastic.is_some() {
            return scan::first_non_finite(params)
                .map_or_else(|| Ok(self.stepped(params, examples, contribution, now)), Err);
        }
        let before = (self.steps, self.ended, self.contributes, self.fetches, self.non_finite);
        let weight = self.stepped(params, examples, contribution, now);
        // The difference to a float that is not finite is not finite: if all differences are, then all parameters are.
        if weight.is_some() && self.contributes && self.non_finite.is_none() {
            return Ok(weight);
        }
        // Finite parameters can have a difference that overflows: `non_finite` has it.
        let Some(index) = scan::first_non_finite(params) else { return Ok(weight) };
        (self.steps, self.ended, self.contributes, self.fetches, self.non_finite) = before;
        Err(index)
    }

    /// Ends a local step, whose update is in `params`. `alone`: the update, if it is the contribution of this step, should
    /// one be due.
    fn end_step(
        &mut self,
        params: &mut [f32],
        alone: Option<&[f32]>,
        examples: u32,
        contribution: &mut [f32],
        now: Instant,
    ) -> Option<u64> {
        // Between synchronisations only the counter changes: parameters and base hold all that a contribution needs.
        let weight = self.count(examples, now);
        let fetches = match self.recipe.fetch {
            Some(steps) if self.recipe.fetches_apart() => self.steps.taken().is_multiple_of(u64::from(steps)),
            _ => weight.is_some(),
        };
        if weight.is_none() && !fetches {
            return None;
        }
        if let Some(weight) = weight.filter(|_| self.elastic.is_some()) {
            return Some(self.stretch(params, contribution, weight));
        }
        (self.contributes, self.fetches) = (weight.is_some(), fetches);
        match alone.filter(|_| self.recipe.payload == Payload::Updates) {
            _ if !self.contributes => {}
            // As with a period of 1: the update itself, without the rounding of a difference of parameters.
            Some(update) => self.non_finite = checked::copy_finite(&mut contribution[..update.len()], update),
            None => self.contribute(params, contribution),
        }
        Some(weight.unwrap_or(0))
    }

    /// The first element of the last contribution that is not finite: a NaN or an infinity of the vectors that were passed
    /// in, or the overflow of a sum of finite updates. The host must not give such a contribution to a machine.
    pub const fn non_finite(&self) -> Option<usize> {
        self.non_finite
    }

    /// Whether the synchronisation that is due contributes. If not, its weight is 0, and it only takes parameters.
    pub const fn contributes(&self) -> bool {
        self.contributes
    }

    /// Whether the synchronisation that is due takes parameters: the host gives its machine an
    /// [`Input::Step`](crate::Input::Step), else an [`Input::Push`](crate::Input::Push).
    pub const fn fetches(&self) -> bool {
        self.fetches
    }

    /// Takes one local step of a caller with vectors in other memory, for instance on a device. Only counts steps
    /// and examples. Requires a contribution of the update at each step: `payload=updates` or `gradients` with period 1.
    pub fn step_elsewhere(&mut self, examples: u32, now: Instant) -> Option<u64> {
        // The base vector is not needed: free its memory.
        self.base = Vec::new();
        self.count(examples, now)
    }

    /// True if the contribution can be computed from the parameters alone, as [`stepped`](Self::stepped) does. False
    /// after a [`step`](Self::step) whose update was the contribution, because that step drops the base vector.
    pub fn can_tell_update(&self) -> bool {
        self.recipe.payload == Payload::Parameters || !self.base.is_empty()
    }

    /// Ends an incomplete period at the end of a run: fills `contribution` and returns the number of examples behind
    /// it. `None`: no local step was taken since the last synchronisation.
    pub fn rest(&mut self, params: &mut [f32], contribution: &mut [f32]) -> Option<u64> {
        let weight = self.steps.rest()?;
        if self.elastic.is_some() {
            return Some(self.stretch(params, contribution, weight));
        }
        (self.contributes, self.fetches) = (true, true);
        self.contribute(params, contribution);
        Some(weight)
    }

    /// Begins an elastic synchronisation. In rounds, the base is the center that all workers have, and the contribution
    /// follows from it. Without them, the center has to be fetched first, and [`second`](Self::second) makes the
    /// contribution.
    fn stretch(&mut self, params: &mut [f32], contribution: &mut [f32], weight: u64) -> u64 {
        // A period without examples moves center and worker too, and servers ignore contributions of weight 0.
        let weight = weight.max(1);
        (self.contributes, self.fetches) = (self.recipe.is_synchronous(), true);
        if !self.contributes {
            self.owed = Some(weight);
            return 0;
        }
        self.pull(params, contribution);
        weight
    }

    /// Zhang et al. 2015: the worker goes a share of its distance towards the center, which is the base; the contribution,
    /// which the center subtracts, is the same in the other direction.
    fn pull(&mut self, params: &mut [f32], contribution: &mut [f32]) {
        let alpha = self.elastic.unwrap_or_default();
        let contribution = &mut contribution[..params.len()];
        for ((param, center), moves) in params.iter_mut().zip(&self.base).zip(&mut *contribution) {
            *moves = alpha * (center - *param);
            *param += *moves;
        }
        self.non_finite = scan::first_non_finite(contribution);
    }

    /// The second part of an elastic synchronisation, after [`take`](Self::take) of the first: fills `contribution` and
    /// returns its weight. The host gives it to its machine, and calls `take` again. `None`: there is no second part.
    pub fn second(&mut self, params: &mut [f32], contribution: &mut [f32]) -> Option<u64> {
        let weight = self.owed.take()?;
        (self.contributes, self.fetches) = (true, false);
        self.pull(params, contribution);
        Some(weight)
    }

    // Vectors that the host owns

    /// Whether the caller's vector can become the contribution, without a copy: the calls `..._in_place` make it. Not
    /// with `payload=gradients`, with `merge=elastic`, or where pushes and fetches have periods of their own.
    pub fn works_in_place(&self) -> bool {
        self.recipe.payload != Payload::Gradients && !self.fetches_apart()
    }

    /// Whether each local step ends with a synchronisation.
    pub fn synchronises_every_step(&self) -> bool {
        self.recipe.period == Period::every(1)
    }

    /// The next period begins now, in place of [`start`](Self::start) and [`take`](Self::take): the caller reads the
    /// machine's view itself.
    pub fn begin_in_place(&mut self, now: Instant) {
        self.base = Vec::new();
        self.steps.begin(now);
    }

    /// As [`step_checked`](Self::step_checked), of a period of one step: the contribution takes the place of the
    /// update in `vector`. `view`: the parameters that the update is subtracted from. Requires
    /// [`works_in_place`](Self::works_in_place) and [`synchronises_every_step`](Self::synchronises_every_step).
    ///
    /// # Errors
    /// With the index of the first NaN or infinity in `vector`. Then nothing has changed.
    pub fn step_in_place(
        &mut self,
        vector: &mut [f32],
        view: &[f32],
        examples: u32,
        now: Instant,
    ) -> Result<Option<u64>, usize> {
        scan::first_non_finite(vector).map_or(Ok(()), Err)?;
        let weight = self.count(examples, now);
        (self.contributes, self.fetches, self.non_finite) = (true, true, None);
        if self.recipe.payload == Payload::Parameters {
            self.non_finite = checked::subtract_in_place_finite(vector, view);
            self.scale_in_place(vector);
        }
        Ok(weight)
    }

    /// As [`stepped_checked`](Self::stepped_checked): if a synchronisation is due, the contribution takes the place of
    /// the parameters in `vector`. `view`: the parameters after the last synchronisation. Requires
    /// [`works_in_place`](Self::works_in_place).
    ///
    /// # Errors
    /// With the index of the first NaN or infinity in `vector`. Then nothing has changed.
    pub fn stepped_in_place(
        &mut self,
        vector: &mut [f32],
        view: &[f32],
        examples: u32,
        now: Instant,
    ) -> Result<Option<u64>, usize> {
        scan::first_non_finite(vector).map_or(Ok(()), Err)?;
        let weight = self.count(examples, now);
        if weight.is_some() {
            self.contribute_in_place(vector, view);
        }
        Ok(weight)
    }

    /// As [`rest`](Self::rest): the contribution takes the place of the parameters in `vector`.
    pub fn rest_in_place(&mut self, vector: &mut [f32], view: &[f32]) -> Option<u64> {
        let weight = self.steps.rest()?;
        let bad = scan::first_non_finite(vector);
        self.contribute_in_place(vector, view);
        self.non_finite = bad.or(self.non_finite);
        Some(weight)
    }

    /// Makes the contribution of finite parameters.
    fn contribute_in_place(&mut self, vector: &mut [f32], view: &[f32]) {
        (self.contributes, self.fetches) = (true, true);
        self.non_finite = match self.recipe.payload {
            Payload::Parameters => None,
            Payload::Updates | Payload::Gradients => checked::subtract_in_place_finite(vector, view),
        };
        self.scale_in_place(vector);
    }

    fn scale_in_place(&self, vector: &mut [f32]) {
        if let Some(share) = self.steps.share() {
            norm::scale(vector, share);
        }
    }

    fn contribute(&mut self, params: &[f32], contribution: &mut [f32]) {
        let contribution = &mut contribution[..params.len()];
        self.non_finite = match self.recipe.payload {
            Payload::Parameters => checked::copy_finite(contribution, params),
            // Base minus parameters: the sum of the updates, which were subtracted one by one.
            Payload::Updates | Payload::Gradients => checked::subtract_finite(contribution, &self.base, params),
        };
        // A share is above 0 and below 1: the product with it is finite if the element is.
        if let Some(share) = self.steps.share() {
            norm::scale(contribution, share);
        }
    }

    /// Ends a synchronisation: copies the machine's view to `params`. `changed`: false if the view is the same as after
    /// the previous synchronisation, also since the worker has taken no parameters (B-FASGD). The next period begins now. Without [`fetches`](Self::fetches), the view is not read,
    /// and the next contribution is relative to the worker's own parameters.
    pub fn take(&mut self, params: &mut [f32], view: &[f32], changed: bool, now: Instant) {
        self.steps.begin(now);
        let view = &view[..params.len()];
        if self.elastic.is_some() {
            // The worker keeps its own parameters. The base is the center.
            if self.fetches {
                self.base.copy_from_slice(view);
            }
            return;
        }
        if !self.fetches {
            if !self.base.is_empty() {
                self.base.copy_from_slice(params);
            }
            return;
        }
        if !self.contributes {
            // Dean et al. 2012, algorithm 7.1: the sum since the last contribution still belongs to the next one.
            for ((base, param), view) in self.base.iter_mut().zip(params).zip(view) {
                *base = view + (*base - *param);
                *param = *view;
            }
            return;
        }
        if changed {
            params.copy_from_slice(view);
        } else if !self.base.is_empty() {
            // The round changed nothing (all weights were 0), or nothing was taken, so the local steps since the base do
            // not count either.
            params.copy_from_slice(&self.base);
        }
        // The next contribution is relative to these parameters.
        if !self.base.is_empty() {
            self.base.copy_from_slice(params);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ORIGIN;

    /// The exchange after each of `steps` local steps: the contribution if there is one, and whether parameters are
    /// taken. An update is 1, 2, 4, …, and the server's parameters are 1000, 2000, ….
    fn exchanges(text: &str, steps: u32) -> (Vec<Option<f32>>, Vec<bool>, Vec<f32>) {
        let mut local = Local::new(text.parse().unwrap(), 2);
        let (mut params, mut contribution) = ([0.0], [0.0]);
        local.start(&mut params, &[0.0], NOW);
        let (mut pushed, mut fetched, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for step in 0..steps {
            let update = [(1 << step) as f32];
            let due = local.step(&mut params, &update, 1, &mut contribution, NOW);
            pushed.push(due.filter(|_| local.contributes()).map(|_| contribution[0]));
            fetched.push(due.is_some() && local.fetches());
            if due.is_some() {
                local.take(&mut params, &[1000.0 * (step + 1) as f32], true, NOW);
            }
            seen.push(params[0]);
        }
        (pushed, fetched, seen)
    }

    /// Dean et al. 2012, algorithm 7.1.
    #[test]
    fn pushes_and_fetches_have_periods_of_their_own() {
        let (pushed, fetched, seen) = exchanges("async period=2 fetch=4", 6);
        assert_eq!(pushed, [None, Some(3.0), None, Some(12.0), None, Some(48.0)]);
        assert_eq!(fetched, [false, false, false, true, false, false]);
        // In between, a worker goes on with its own parameters.
        assert_eq!(seen, [-1.0, -3.0, -7.0, 4000.0, 3984.0, 3952.0]);
    }

    #[test]
    fn what_has_accrued_at_a_fetch_is_in_the_next_push() {
        let (pushed, fetched, seen) = exchanges("async period=3 fetch=2", 6);
        assert_eq!(pushed, [None, None, Some(7.0), None, None, Some(56.0)]);
        assert_eq!(fetched, [false, true, false, true, false, true]);
        assert_eq!(seen, [-1.0, 2000.0, 1996.0, 4000.0, 3984.0, 6000.0]);
    }

    #[test]
    fn a_fetch_at_each_push_is_none_of_its_own() {
        for (text, same) in [("async fetch=1", "async"), ("async period=3 fetch=3", "async period=3")] {
            assert_eq!(exchanges(text, 7), exchanges(same, 7), "{text}");
        }
    }

    /// The rest of a period at the end of a run.
    #[test]
    fn the_rest_is_what_has_not_been_pushed() {
        let mut local = Local::new("async period=4 fetch=2".parse().unwrap(), 2);
        let (mut params, mut contribution) = ([0.0], [0.0]);
        local.start(&mut params, &[0.0], NOW);
        for update in [1.0, 2.0, 4.0] {
            if local.step(&mut params, &[update], 1, &mut contribution, NOW).is_some() {
                local.take(&mut params, &[100.0], true, NOW);
            }
        }
        assert_eq!((local.rest(&mut params, &mut contribution), contribution[0]), (Some(3), 7.0));
        assert!(local.contributes() && local.fetches());
    }

    /// A worker and the center move by the same, so that their sum stays.
    #[test]
    fn a_worker_and_the_center_are_drawn_to_each_other() {
        for (alpha, moved) in [(0.0, 0.0), (0.25, 1.5), (1.0, 6.0)] {
            for (pace, rounds) in [("hardsync", true), ("async", false)] {
                let text = alloc::format!("{pace} merge=elastic alpha={alpha}");
                let mut local = Local::new(text.parse().unwrap(), 2);
                let (mut params, mut center, mut contribution) = ([0.0], [4.0], [0.0]);
                // In rounds, the center is that of the last round.
                local.start(&mut params, &center, NOW);
                assert_eq!(params, center);
                let mut weight = local.step(&mut params, &[6.0], 3, &mut contribution, NOW);
                assert_eq!((weight, local.contributes(), local.fetches()), (Some(3 * u64::from(rounds)), rounds, true));
                if !rounds {
                    local.take(&mut params, &center, true, NOW);
                    weight = local.second(&mut params, &mut contribution);
                    assert_eq!((weight, local.contributes(), local.fetches()), (Some(3), true, false));
                }
                assert_eq!(contribution[0], moved, "{text}");
                center[0] -= contribution[0];
                local.take(&mut params, &center, true, NOW);
                assert_eq!((params, center), ([-2.0 + moved], [4.0 - moved]), "{text}");
                assert_eq!(local.second(&mut params, &mut contribution), None);
            }
        }
    }

    /// Steps of checked and unchecked vectors give the same, and a refused one leaves no trace, wherever in a period it is.
    #[test]
    fn a_refused_vector_leaves_no_trace() {
        for text in [
            "sync",
            "async period=3",
            "async period=2 fetch=4",
            "averaging period=1",
            "averaging period=3",
            "hardsync period=3 normalize=steps",
            "hardsync merge=elastic alpha=0.5",
            "async merge=elastic alpha=0.5",
        ] {
            for applied in [false, true] {
                let recipe: Recipe = text.parse().unwrap();
                let start = || {
                    let mut local = Local::new(recipe, 2);
                    let mut params = [1.0; 3];
                    local.start(&mut params, &[2.0; 3], NOW);
                    (local, params, [0.0; 3])
                };
                let ((mut local, mut params, mut contribution), (mut oracle, mut same, mut expected)) =
                    (start(), start());
                for step in 0..8 {
                    // A step that drops the base takes the caller's own optimizer its contribution.
                    if applied && !local.can_tell_update() {
                        break;
                    }
                    let update = [0.0, 0.25, step as f32];
                    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                        let (mut vector, untouched) = (if applied { params } else { update }, params);
                        vector[1] = bad;
                        let result = if applied {
                            local.stepped_checked(&mut vector, 5, &mut contribution, NOW)
                        } else {
                            local.step_checked(&mut params, &vector, 5, &mut contribution, NOW)
                        };
                        assert_eq!(result, Err(1), "{text}");
                        assert_eq!(params, untouched, "{text}");
                        assert!(vector[1].to_bits() == bad.to_bits() && vector[2].is_finite(), "{text}");
                    }
                    let due = if applied {
                        params.iter_mut().zip(update).for_each(|(param, update)| *param -= update);
                        same = params;
                        let due = oracle.stepped(&mut same, 2, &mut expected, NOW);
                        assert_eq!(local.stepped_checked(&mut params, 2, &mut contribution, NOW), Ok(due), "{text}");
                        due
                    } else {
                        let due = oracle.step(&mut same, &update, 2, &mut expected, NOW);
                        assert_eq!(
                            local.step_checked(&mut params, &update, 2, &mut contribution, NOW),
                            Ok(due),
                            "{text}"
                        );
                        due
                    };
                    assert_eq!(params, same, "{text}");
                    assert_eq!(
                        (local.contributes(), local.fetches()),
                        (oracle.contributes(), oracle.fetches()),
                        "{text}"
                    );
                    if due.is_none() {
                        continue;
                    }
                    if local.contributes() {
                        assert_eq!((contribution, local.non_finite()), (expected, None), "{text}");
                    }
                    let view = [10.0 + step as f32; 3];
                    local.take(&mut params, &view, true, NOW);
                    oracle.take(&mut same, &view, true, NOW);
                    if let Some(weight) = oracle.second(&mut same, &mut expected) {
                        assert_eq!(local.second(&mut params, &mut contribution), Some(weight), "{text}");
                        assert_eq!((contribution, local.non_finite()), (expected, None), "{text}");
                        local.take(&mut params, &view, true, NOW);
                        oracle.take(&mut same, &view, true, NOW);
                    }
                    assert_eq!(params, same, "{text}");
                }
                assert_eq!(local.is_at_rest(), oracle.is_at_rest(), "{text}");
            }
        }
    }

    /// Finite parameters whose difference to the base overflows: the step is taken, and its contribution is named.
    #[test]
    fn a_difference_that_overflows_is_named() {
        let mut local = Local::new("async period=2".parse().unwrap(), 2);
        let (mut params, mut contribution) = ([0.0; 2], [0.0; 2]);
        local.start(&mut params, &[0.0, f32::MAX], NOW);
        params[1] = -f32::MAX;
        assert_eq!(local.stepped_checked(&mut params, 1, &mut contribution, NOW), Ok(None));
        assert_eq!(local.stepped_checked(&mut params, 1, &mut contribution, NOW), Ok(Some(2)));
        assert_eq!((local.non_finite(), contribution[1]), (Some(1), f32::INFINITY));
    }
}
