//! Counts local steps until the next synchronisation, by the recipe's [`Period`].

use crate::recipe::Period;

/// Counts local steps between synchronisations, for hosts of a machine.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LocalSteps {
    period: Period,
    /// Local steps taken since the start.
    step: u64,
    /// Local steps since the last synchronisation.
    since: u32,
    /// Examples since the last synchronisation.
    examples: u32,
}

impl LocalSteps {
    /// At the start of a run.
    pub(crate) const fn new(period: Period) -> Self {
        Self::after(period, 0)
    }

    /// After so many steps and a synchronisation.
    pub(crate) const fn after(period: Period, step: u64) -> Self {
        Self { period, step, since: 0, examples: 0 }
    }

    pub(crate) const fn is_at_rest(&self) -> bool {
        self.since == 0
    }

    /// Takes one local step over `examples` examples. When it is the last of its period, returns the examples
    /// of the whole period: it is time to synchronise.
    pub(crate) fn take(&mut self, examples: u32) -> Option<u32> {
        let length = self.period.at(self.step - u64::from(self.since));
        self.step += 1;
        self.since += 1;
        self.examples = self.examples.saturating_add(examples);
        if self.since < length {
            return None;
        }
        self.since = 0;
        Some(core::mem::take(&mut self.examples))
    }

    /// The examples of a period that has begun and not ended, when the run ends.
    pub(crate) fn rest(&mut self) -> Option<u32> {
        (core::mem::take(&mut self.since) > 0).then(|| core::mem::take(&mut self.examples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_schedule_changes_at_the_end_of_a_period() {
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
