//! The decision when a worker synchronises: counts local steps, their time and their examples by the recipe's
//! [`Period`].

use crate::kernel::norm::square_root;
use crate::machine::{Advice, Input};
use crate::recipe::{Adapt, Normalize, Period, Recipe, Span, Weigh};
use crate::rider::Rider;
use crate::time::{Instant, StepTime};
use crate::wire::WEIGHT_MAX;

/// Counts local steps and examples since the last synchronisation. Hosts of a machine use it through
/// [`Local`](crate::Local).
#[derive(Copy, Clone, Debug)]
pub(crate) struct LocalSteps {
    period: Period,
    /// Local steps taken since the start.
    step: u64,
    /// Local steps since the last synchronisation.
    since: u32,
    /// Local steps of the last period; `u32::MAX`: the run has ended it.
    ended: u32,
    /// Examples since the last synchronisation.
    examples: u64,
    /// When the last synchronisation ended, by the clock of the host.
    begun: Instant,
    adapt: Adapt,
    /// The mean time of a step in the last whole period, with [`Adapt::Speed`].
    mean: Option<StepTime>,
    /// The facts about the other workers.
    advice: Advice,
    losses: Losses,
    normalize: Normalize,
    weigh: Weigh,
    /// The learning rates, if the outer optimizer follows them.
    rates: Option<Rates>,
    /// Steps of the last period.
    lasted: u32,
}

/// The learning rates of steps, relative to that at the start.
#[derive(Copy, Clone, Debug)]
struct Rates {
    now: f32,
    /// The sum over the steps since the last synchronisation.
    sum: f64,
    /// The mean of the last period.
    mean: Option<Rider>,
}

impl Rates {
    /// A period of so many steps has ended.
    fn end(&mut self, steps: u32) {
        // An update is proportional to the rate of its step, so their sum is to the mean rate.
        self.mean = Rider::new(core::mem::take(&mut self.sum) / f64::from(steps.max(1)));
    }
}

/// The losses that the application reports, with [`Adapt::Loss`].
#[derive(Copy, Clone, Debug)]
struct Losses {
    /// The sum of the losses since the last synchronisation, and their number.
    sum: f64,
    count: u32,
    /// The learning rate, relative to that at the start.
    rate: f64,
    /// The mean of the last period that had any, divided by the rate.
    mean: Option<Rider>,
}

impl Losses {
    /// A period has ended.
    fn end(&mut self) {
        if self.count > 0 {
            self.mean = Rider::new(self.sum / f64::from(self.count) / self.rate);
        }
        (self.sum, self.count) = (0.0, 0);
    }
}

/// AdaComm: `ceil(sqrt(last / first) start)`, from 1 to `most`. Both are losses, each divided by its learning rate.
fn by_loss(start: u64, [first, last]: [Rider; 2], most: u64) -> u64 {
    let square = |x: u64| x as f64 * x as f64;
    let target = f64::from(last.get()) / f64::from(first.get()) * square(start);
    if target >= square(most) {
        return most;
    }
    // The root may be wrong by its last digit, which matters where it is a whole number.
    let mut length = (square_root(target) as u64).max(1);
    while square(length) < target {
        length += 1;
    }
    while length > 1 && square(length - 1) >= target {
        length -= 1;
    }
    length
}

/// DyLU: `max(1, floor(speed / reference * most))` for speeds that are inverse to these times, and at most `most`.
fn dynamic(most: u64, reference: StepTime, own: StepTime) -> u64 {
    let share = u128::from(most) * u128::from(reference.micros()) / u128::from(own.micros());
    (share as u64).clamp(1, most.max(1))
}

/// The time of a step at the 90th percentile of the speeds (nearest rank): not the fastest of many, because one wrong
/// measurement would shorten the periods of all other workers. Sorts `times`.
pub(crate) fn reference(times: &mut [StepTime]) -> Option<StepTime> {
    times.sort_unstable();
    let rank = (9 * times.len()).div_ceil(10);
    times.get(times.len() - rank).copied()
}

impl LocalSteps {
    /// A counter at the start of a run.
    pub(crate) const fn new(recipe: &Recipe) -> Self {
        Self::after(recipe, 0)
    }

    /// A counter after `step` local steps, the last of which ended with a synchronisation.
    pub(crate) const fn after(recipe: &Recipe, step: u64) -> Self {
        let Recipe { period, adapt, normalize, weigh, outer, .. } = *recipe;
        let rates = if outer.follows_rate() { Some(Rates { now: 1.0, sum: 0.0, mean: None }) } else { None };
        let advice = Advice { reference: None, riders: None };
        let losses = Losses { sum: 0.0, count: 0, rate: 1.0, mean: None };
        let (begun, mean) = (Instant::ORIGIN, None);
        let (since, ended, examples, lasted) = (0, 0, 0, 0);
        Self {
            period,
            step,
            since,
            ended,
            examples,
            begun,
            adapt,
            mean,
            advice,
            losses,
            normalize,
            weigh,
            rates,
            lasted,
        }
    }

    /// Local steps taken since the start of the run.
    pub(crate) const fn taken(&self) -> u64 {
        self.step
    }

    /// True directly after a synchronisation.
    pub(crate) const fn is_at_rest(&self) -> bool {
        self.since == 0
    }

    /// A period begins now: the synchronisation before it has ended.
    pub(crate) const fn begin(&mut self, now: Instant) {
        self.begun = now;
    }

    /// The facts that the machine needs with the contribution.
    pub(crate) fn notes(&self) -> [Option<Input>; 2] {
        let step_time = self.mean.map(|mean| Input::StepTime { mean });
        let rider = match (self.normalize, self.weigh, self.adapt) {
            (Normalize::Steps, ..) | (_, Weigh::Batch, _) => Some(Rider::new(self.lasted.into())),
            // Workers whose period follows the loss take equally many steps.
            (Normalize::None, Weigh::Examples, Adapt::Loss { .. }) => Some(self.losses.mean),
            _ => self.rates.map(|rates| rates.mean),
        };
        [step_time, rider.map(|rider| Input::Rider { rider })]
    }

    /// The factor on the last period's contribution: 1 / its steps where workers send their progress per step.
    pub(crate) fn share(&self) -> Option<f32> {
        (self.normalize == Normalize::Steps && self.lasted > 1).then(|| 1.0 / self.lasted as f32)
    }

    /// Takes the machine's knowledge of the other workers.
    pub(crate) fn follow(&mut self, advice: Advice) {
        self.advice = advice;
    }

    /// The application has computed a training loss. NaN: it does not know one.
    pub(crate) fn report_loss(&mut self, loss: f32) {
        if loss.is_nan() {
            return;
        }
        self.losses.sum += f64::from(loss);
        self.losses.count = self.losses.count.saturating_add(1);
    }

    /// The learning rate is `scale` times that at the start.
    pub(crate) fn set_rate(&mut self, scale: f32) {
        self.losses.rate = scale.into();
        self.rates.iter_mut().for_each(|rates| rates.now = scale);
    }

    /// The length of this worker's period, if that of the recipe is `most`.
    fn length(&self, most: u64) -> u64 {
        match (self.adapt, self.advice.reference, self.mean) {
            (Adapt::None, ..) => most,
            (Adapt::Speed, Some(reference), Some(mean)) => dynamic(most, reference, mean),
            // One step is enough to measure the speed.
            (Adapt::Speed, ..) => 1,
            (Adapt::Loss { most: limit }, ..) => {
                self.advice.riders.map_or(most, |riders| by_loss(most, riders, limit.into()))
            }
        }
    }

    /// Counts one local step over `examples` examples, which has ended now. If it is the last step of its period, a
    /// synchronisation is due and the result is the number of examples of the whole period.
    /// `given`: the steps of this period, in place of the recipe's number.
    pub(crate) fn take_given(&mut self, examples: u32, now: Instant, given: Option<u32>) -> Option<u64> {
        // The length is that of the stage in which the period started: a schedule does not cut a period short.
        let span = self.period.span(self.step - u64::from(self.since));
        self.step += 1;
        self.since = self.since.saturating_add(1);
        self.rates.iter_mut().for_each(|rates| rates.sum += f64::from(rates.now));
        // The sum is the weight of the contribution in a mean.
        self.examples = (self.examples + u64::from(examples)).min(WEIGHT_MAX);
        let is_over = match span {
            _ if given.is_some() => given.is_some_and(|given| self.since >= given),
            Span::Steps(steps) => u64::from(self.since) >= self.length(steps.into()),
            // A worker without examples must not keep the other workers from their mean.
            Span::Examples(least) => self.examples >= self.length(least) || examples == 0,
            // One more step would end at elapsed + elapsed / since, later than the period.
            Span::Time(time) => {
                let (elapsed, since) = (now.since(self.begun).as_nanos(), u128::from(self.since));
                elapsed * (since + 1) > time.as_nanos() * since
            }
        };
        if !is_over {
            return None;
        }
        if self.adapt == Adapt::Speed {
            self.mean = Some(StepTime::new(now.since(self.begun) / self.since));
        }
        self.lasted = core::mem::take(&mut self.since);
        self.ended = self.lasted;
        self.losses.end();
        self.rates.iter_mut().for_each(|rates| rates.end(self.lasted));
        Some(core::mem::take(&mut self.examples))
    }

    /// Local steps of the last period; `u32::MAX`: the run has ended it.
    pub(crate) const fn ended(&self) -> u32 {
        self.ended
    }

    #[cfg(test)]
    fn take(&mut self, examples: u32, now: Instant) -> Option<u64> {
        self.take_given(examples, now, None)
    }

    /// Ends a period early, at the end of a run: returns its examples, or `None` directly after a synchronisation.
    pub(crate) fn rest(&mut self) -> Option<u64> {
        self.losses.end();
        if self.since == 0 {
            return None;
        }
        self.lasted = core::mem::take(&mut self.since);
        self.rates.iter_mut().for_each(|rates| rates.end(self.lasted));
        // It has not ended by itself.
        self.ended = u32::MAX;
        Some(core::mem::take(&mut self.examples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const T0: Instant = Instant::ORIGIN;

    fn counter(period: Period, adapt: Adapt) -> LocalSteps {
        LocalSteps::new(&Recipe::sync().with_period(period).with_adapt(adapt))
    }

    #[test]
    fn a_schedule_changes_between_periods() {
        let period: Period = "1,3@2,2@7".parse().unwrap();
        let mut steps = counter(period, Adapt::None);
        let synced: Vec<u64> = (0..12).filter(|_| steps.take(1, T0).is_some()).collect();
        assert_eq!(synced, [0, 1, 4, 7, 9, 11]);
    }

    #[test]
    fn examples_add_up_over_a_period() {
        let mut steps = counter(Period::every(3), Adapt::None);
        assert_eq!([10, 20, 30, 5].map(|m| steps.take(m, T0)), [None, None, Some(60), None]);
        assert_eq!(steps.rest(), Some(5));
        assert_eq!(steps.rest(), None);
    }

    #[test]
    fn a_period_in_examples_ends_when_they_are_reached() {
        let mut steps = counter("60ex".parse().unwrap(), Adapt::None);
        assert_eq!(
            [10, 20, 30, 59, 1, 99].map(|m| steps.take(m, T0)),
            [None, None, Some(60), None, Some(60), Some(99)]
        );
        assert!(steps.is_at_rest());
        // A worker that has used up its data goes on to take part in rounds.
        assert_eq!([10, 0, 0].map(|m| steps.take(m, T0)), [None, Some(10), Some(0)]);
    }

    /// The numbers of local steps of the first periods of a worker whose steps take `step` milliseconds. Between two
    /// periods, it waits for 777 ms.
    fn lengths(period: &str, step: u64, count: usize) -> Vec<u32> {
        let mut steps = counter(period.parse().unwrap(), Adapt::None);
        let mut now = T0.after(Duration::from_secs(7));
        steps.begin(now);
        let mut lengths = Vec::new();
        let mut length = 0;
        while lengths.len() < count {
            now = now.after(Duration::from_millis(step));
            length += 1;
            if steps.take(1, now) == Some(u64::from(length)) {
                lengths.push(core::mem::take(&mut length));
                now = now.after(Duration::from_millis(777));
                steps.begin(now);
            }
        }
        lengths
    }

    /// No worker computes for longer than the period, and the rest of it is less than one of its steps.
    #[test]
    fn a_period_in_seconds_ends_before_the_step_that_would_cross_it() {
        assert_eq!(lengths("20s", 580, 3), [34; 3]);
        assert_eq!(lengths("20s", 750, 3), [26; 3]);
        assert_eq!(lengths("20s", 1510, 3), [13; 3]);
        assert_eq!(lengths("20s", 3330, 3), [6; 3]);
        for step in 1..2000 {
            let [length] = lengths("2s", step, 1)[..] else { unreachable!("one period") };
            let busy = u64::from(length) * step;
            assert!(busy <= 2000 && busy + step > 2000, "{length} steps of {step} ms");
        }
    }

    /// With equal steps, a period in seconds is the period of so many steps.
    #[test]
    fn a_multiple_of_the_step_is_a_number_of_steps() {
        for steps in 1..40 {
            assert_eq!(lengths(&alloc::format!("{}ms", steps * 250), 250, 4), [steps; 4]);
        }
    }

    #[test]
    fn a_step_longer_than_the_period_is_a_period() {
        assert_eq!(lengths("20s", 60_000, 3), [1; 3]);
    }

    #[test]
    fn a_last_stage_in_seconds_follows_one_in_steps() {
        assert_eq!(lengths("2,5s@4", 1000, 4), [2, 2, 5, 5]);
    }

    /// A clock that stands still or jumps ends no run.
    #[test]
    fn a_clock_that_stands_still_only_postpones_a_synchronisation() {
        let mut steps = counter("1s".parse().unwrap(), Adapt::None);
        assert!((0..1000).all(|_| steps.take(1, T0).is_none()));
        assert_eq!(steps.take(1, Instant::from_nanos(u64::MAX)), Some(1001));
    }

    fn micros(micros: u32) -> StepTime {
        StepTime::new(Duration::from_micros(micros.into()))
    }

    fn times(millis: &[u64]) -> Vec<StepTime> {
        millis.iter().map(|millis| StepTime::new(Duration::from_millis(*millis))).collect()
    }

    /// The speeds of the test bed of Liu et al. 2024.
    #[test]
    fn the_published_speeds_give_the_published_steps() {
        let speeds = times(&[580, 750, 1510, 3330]);
        let fastest = reference(&mut speeds.clone()).unwrap();
        assert_eq!(fastest, speeds[0]);
        assert_eq!(speeds.iter().map(|own| dynamic(20, fastest, *own)).collect::<Vec<_>>(), [20, 15, 7, 3]);
    }

    #[test]
    fn one_wrong_measurement_of_ten_shortens_no_period() {
        let mut speeds = times(&[500, 500, 500, 1, 500, 500, 500, 500, 500, 500]);
        assert_eq!(reference(&mut speeds), Some(StepTime::new(Duration::from_millis(500))));
        assert_eq!(reference(&mut []), None);
    }

    #[test]
    fn a_period_is_one_step_until_the_speeds_are_known() {
        let mut steps = counter("6".parse().unwrap(), Adapt::Speed);
        let mut now = T0;
        let mut take = |steps: &mut LocalSteps, millis| {
            now = now.after(Duration::from_millis(millis));
            let due = steps.take(1, now);
            if due.is_some() {
                steps.begin(now);
            }
            due
        };
        assert_eq!(steps.notes(), [None; 2]);
        assert_eq!(take(&mut steps, 10), Some(1));
        assert_eq!(steps.notes(), [Some(Input::StepTime { mean: micros(10_000) }), None]);
        assert_eq!(take(&mut steps, 10), Some(1), "the reference is not known");
        // Half as fast as the reference: half of the steps.
        steps.follow(Advice { reference: Some(micros(5_000)), riders: None });
        assert_eq!([10, 10, 40].map(|millis| take(&mut steps, millis)), [None, None, Some(3)]);
        // A mean of 20 ms: a quarter.
        assert_eq!(take(&mut steps, 5), Some(1));
        // As fast as the reference, and never more than the whole period.
        assert_eq!([4; 6].map(|millis| take(&mut steps, millis)), [None, None, None, None, None, Some(6)]);
        assert_eq!([5; 6].map(|millis| take(&mut steps, millis)), [None, None, None, None, None, Some(6)]);
    }

    #[test]
    fn a_loss_gives_the_root_of_its_share_of_the_period() {
        let of = |start, first, last, most| by_loss(start, [first, last].map(|loss| Rider::new(loss).unwrap()), most);
        // The loss has not changed since the start: the same period, of any length.
        for start in [1, 2, 3, 7, 10, 999, 1 << 20, (1 << 32) - 1] {
            assert_eq!(of(start, 2.3, 2.3, start), start);
        }
        assert_eq!([2.3, 1.0, 0.25, 0.2501, 0.0, 4.0].map(|loss| of(10, 1.0, loss, 16)), [16, 10, 5, 6, 1, 16]);
        assert_eq!(of(1, 1.0, 1.0001, 16), 2);
        assert_eq!([of(10, 1e-30, 1e30, 16), of(10, 1e30, 1e-30, 16)], [16, 1]);
    }

    #[test]
    fn the_loss_of_a_period_is_the_mean_of_its_reports_over_the_rate() {
        let mut steps = counter("2".parse().unwrap(), Adapt::Loss { most: 8 });
        let mut period = |losses: [f32; 2], rate: f32| {
            steps.set_rate(rate);
            for loss in losses {
                if loss != 0.0 {
                    steps.report_loss(loss);
                }
                steps.take(1, T0);
            }
            match steps.notes() {
                [None, Some(Input::Rider { rider })] => rider.map(Rider::get),
                notes => panic!("{notes:?}"),
            }
        };
        assert_eq!(period([0.0, 0.0], 1.0), None);
        assert_eq!(period([1.0, 2.0], 1.0), Some(1.5));
        // The last one that is known.
        assert_eq!(period([0.0, 0.0], 1.0), Some(1.5));
        assert_eq!(period([0.0, 2.0], 0.5), Some(4.0));
        assert_eq!(period([f32::NAN, 2.0], 0.5), Some(4.0));
        assert_eq!(period([f32::INFINITY, 2.0], 0.5), None);
        let mut length = |last| {
            let riders = [2.0, last].map(|loss| Rider::new(loss).unwrap());
            steps.follow(Advice { reference: None, riders: Some(riders) });
            (0..99).take_while(|_| steps.take(1, T0).is_none()).count() + 1
        };
        assert_eq!([8.0, 2.0, 0.4, 64.0].map(&mut length), [4, 2, 1, 8]);
    }

    #[test]
    fn the_rate_of_a_period_is_the_mean_of_its_steps() {
        let recipe: Recipe = "slowmo period=2".parse().unwrap();
        let mut steps = LocalSteps::new(&recipe);
        let told = |steps: &LocalSteps| match steps.notes() {
            [None, Some(Input::Rider { rider })] => rider.map(Rider::get),
            notes => panic!("{notes:?}"),
        };
        let mut period = |rates: [f32; 2]| {
            for rate in rates {
                steps.set_rate(rate);
                steps.take(1, T0);
            }
            told(&steps)
        };
        assert_eq!(period([1.0, 1.0]), Some(1.0));
        assert_eq!(period([0.1, 0.1]), Some(0.1));
        assert_eq!(period([0.0, 0.5]), Some(0.25));
        assert_eq!(period([f32::NAN, 0.5]), None);
        assert!(period([0.0, 0.0]).is_some_and(|rate| rate > 0.0));
        steps.set_rate(3.0);
        steps.take(1, T0);
        assert_eq!((steps.rest(), told(&steps)), (Some(1), Some(3.0)));
        // The rate of a recipe that does not follow it stays at home.
        assert_eq!(counter(Period::every(1), Adapt::None).notes(), [None; 2]);
    }

    #[test]
    fn normalised_workers_send_what_they_have_done_per_step() {
        let recipe: Recipe = "sync period=7ex normalize=steps".parse().unwrap();
        let mut steps = LocalSteps::new(&recipe);
        let told = |steps: &LocalSteps| match steps.notes() {
            [None, Some(Input::Rider { rider: Some(rider) })] => rider.get(),
            notes => panic!("{notes:?}"),
        };
        assert_eq!([2, 2, 2, 2].map(|m| steps.take(m, T0)), [None, None, None, Some(8)]);
        assert_eq!((told(&steps), steps.share()), (4.0, Some(0.25)));
        assert_eq!(steps.take(9, T0), Some(9));
        assert_eq!((told(&steps), steps.share()), (1.0, None));
        assert_eq!([1, 1].map(|m| steps.take(m, T0)), [None; 2]);
        assert_eq!(steps.rest(), Some(2));
        assert_eq!((told(&steps), steps.share()), (2.0, Some(0.5)));
    }

    proptest! {
        /// No period is longer than that of the recipe, a faster worker's is not shorter, and equal speeds give
        /// the whole period.
        #[test]
        fn periods_follow_speeds(
            most in 1u64..1 << 40, reference in 1u32..=StepTime::MAX, own in 1u32..=StepTime::MAX, more in 0u32..1000,
        ) {
            let of = |own| dynamic(most, micros(reference), micros(own));
            prop_assert!(of(own) >= 1 && of(own) <= most);
            prop_assert!(of(own.saturating_add(more).min(StepTime::MAX)) <= of(own));
            prop_assert_eq!(of(reference), most);
        }
    }
}
