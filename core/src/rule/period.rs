//! The decision when a worker synchronises: counts local steps by the recipe's [`Period`].

use crate::recipe::Period;
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
}

impl LocalSteps {
    /// A counter at the start of a run.
    pub(crate) const fn new(period: Period) -> Self {
        Self::after(period, 0)
    }

    /// A counter after `step` local steps, the last of which ended with a synchronisation.
    pub(crate) const fn after(period: Period, step: u64) -> Self {
        Self { period, step, since: 0, examples: 0 }
    }

    /// True directly after a synchronisation.
    pub(crate) const fn is_at_rest(&self) -> bool {
        self.since == 0
    }

    /// Counts one local step over `examples` examples. If it is the last step of its period, a synchronisation is due
    /// and the result is the number of examples of the whole period.
    pub(crate) fn take(&mut self, examples: u32) -> Option<u64> {
        // The length is that of the stage in which the period started: a schedule does not cut a period short.
        let length = self.period.at(self.step - u64::from(self.since));
        self.step += 1;
        self.since += 1;
        // The sum is the weight of the contribution in a mean.
        self.examples = (self.examples + u64::from(examples)).min(WEIGHT_MAX);
        if self.since < length {
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

    #[test]
    fn a_schedule_changes_between_periods() {
        let period: Period = "1,3@2,2@7".parse().unwrap();
        let mut steps = LocalSteps::new(period);
        let synced: Vec<u64> = (0..12).filter(|_| steps.take(1).is_some()).collect();
        assert_eq!(synced, [0, 1, 4, 7, 9, 11]);
    }

    #[test]
    fn examples_add_up_over_a_period() {
        let mut steps = LocalSteps::new(Period::every(3));
        assert_eq!([10, 20, 30, 5].map(|m| steps.take(m)), [None, None, Some(60), None]);
        assert_eq!(steps.rest(), Some(5));
        assert_eq!(steps.rest(), None);
    }
}
