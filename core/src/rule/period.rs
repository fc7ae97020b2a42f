//! The decision when a worker synchronises: counts local steps, their time and their examples by the recipe's
//! [`Period`].

use crate::recipe::{Period, Span};
use crate::time::Instant;
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
    /// Examples since the last synchronisation.
    examples: u64,
    /// When the last synchronisation ended, by the clock of the host.
    begun: Instant,
}

impl LocalSteps {
    /// A counter at the start of a run.
    pub(crate) const fn new(period: Period) -> Self {
        Self::after(period, 0)
    }

    /// A counter after `step` local steps, the last of which ended with a synchronisation.
    pub(crate) const fn after(period: Period, step: u64) -> Self {
        Self { period, step, since: 0, examples: 0, begun: Instant::ORIGIN }
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

    /// Counts one local step over `examples` examples, which has ended now. If it is the last step of its period, a
    /// synchronisation is due and the result is the number of examples of the whole period.
    pub(crate) fn take(&mut self, examples: u32, now: Instant) -> Option<u64> {
        // The length is that of the stage in which the period started: a schedule does not cut a period short.
        let span = self.period.span(self.step - u64::from(self.since));
        self.step += 1;
        self.since = self.since.saturating_add(1);
        // The sum is the weight of the contribution in a mean.
        self.examples = (self.examples + u64::from(examples)).min(WEIGHT_MAX);
        let is_over = match span {
            Span::Steps(steps) => self.since >= steps,
            // A worker without examples must not keep the others from their mean.
            Span::Examples(least) => self.examples >= least || examples == 0,
            // One more step would end at elapsed + elapsed / since, later than the period.
            Span::Time(time) => {
                let (elapsed, since) = (now.since(self.begun).as_nanos(), u128::from(self.since));
                elapsed * (since + 1) > time.as_nanos() * since
            }
        };
        if !is_over {
            return None;
        }
        self.since = 0;
        Some(core::mem::take(&mut self.examples))
    }

    /// Ends a period early, at the end of a run: returns its examples, or `None` directly after a synchronisation.
    pub(crate) fn rest(&mut self) -> Option<u64> {
        (core::mem::take(&mut self.since) > 0).then(|| core::mem::take(&mut self.examples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::time::Duration;

    const T0: Instant = Instant::ORIGIN;

    #[test]
    fn a_schedule_changes_between_periods() {
        let period: Period = "1,3@2,2@7".parse().unwrap();
        let mut steps = LocalSteps::new(period);
        let synced: Vec<u64> = (0..12).filter(|_| steps.take(1, T0).is_some()).collect();
        assert_eq!(synced, [0, 1, 4, 7, 9, 11]);
    }

    #[test]
    fn examples_add_up_over_a_period() {
        let mut steps = LocalSteps::new(Period::every(3));
        assert_eq!([10, 20, 30, 5].map(|m| steps.take(m, T0)), [None, None, Some(60), None]);
        assert_eq!(steps.rest(), Some(5));
        assert_eq!(steps.rest(), None);
    }

    #[test]
    fn a_period_in_examples_ends_when_they_are_reached() {
        let mut steps = LocalSteps::new("60ex".parse().unwrap());
        assert_eq!(
            [10, 20, 30, 59, 1, 99].map(|m| steps.take(m, T0)),
            [None, None, Some(60), None, Some(60), Some(99)]
        );
        assert!(steps.is_at_rest());
        // A worker whose data are used up goes on to take part in rounds.
        assert_eq!([10, 0, 0].map(|m| steps.take(m, T0)), [None, Some(10), Some(0)]);
    }

    /// The numbers of local steps of the first periods of a worker whose steps take `step` milliseconds. Between two
    /// periods, it waits for 777 ms.
    fn lengths(period: &str, step: u64, count: usize) -> Vec<u32> {
        let mut steps = LocalSteps::new(period.parse().unwrap());
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

    /// I-140: no worker computes for longer than the period, and the rest of it is less than one of its steps.
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

    /// I-139: with equal steps, a period in seconds is the period of so many steps.
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
        let mut steps = LocalSteps::new("1s".parse().unwrap());
        assert!((0..1000).all(|_| steps.take(1, T0).is_none()));
        assert_eq!(steps.take(1, Instant::from_nanos(u64::MAX)), Some(1001));
    }
}
