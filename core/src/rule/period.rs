//! How often workers synchronise: every H local steps, where H may follow a schedule.
//!
//! A schedule covers warm-up (small H first) and post-local SGD (Lin et al. 2018: H = 1, later more).

use core::fmt;
use core::str::FromStr;

use crate::recipe::{ConfigError, check_range};

/// The averaging period H, by stages. Written `10`, or `1,10@500`: one, and ten from local step 500 on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// (first local step, H); unused stages repeat the last.
    stages: [(u64, u32); STAGES],
}

const STAGES: usize = 4;

/// A text is no period.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PeriodParseError;

impl Period {
    /// Every `steps` local steps.
    pub const fn every(steps: u32) -> Self {
        Self { stages: [(0, steps); STAGES] }
    }

    /// H at local step `step`, counted from 0.
    pub fn at(&self, step: u64) -> u32 {
        self.stages.iter().rev().find(|(from, _)| *from <= step).map_or(self.stages[0].1, |stage| stage.1)
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let smallest = self.stages.iter().map(|stage| stage.1).min().unwrap_or(0);
        check_range("period", "at least 1", smallest as f32, smallest >= 1)
    }
}

impl From<u32> for Period {
    fn from(steps: u32) -> Self {
        Self::every(steps)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stages[0].1)?;
        for pair in self.stages.windows(2).take_while(|pair| pair[0] != pair[1]) {
            write!(f, ",{}@{}", pair[1].1, pair[1].0)?;
        }
        Ok(())
    }
}

impl FromStr for Period {
    type Err = PeriodParseError;

    fn from_str(text: &str) -> Result<Self, PeriodParseError> {
        let mut stages = [(0, 0); STAGES];
        let mut count = 0;
        for word in text.split(',') {
            let (steps, from) = match word.split_once('@') {
                Some((steps, from)) if count > 0 => (steps, from.parse().map_err(|_| PeriodParseError)?),
                None if count == 0 => (word, 0),
                _ => return Err(PeriodParseError),
            };
            if count == STAGES || (count > 0 && from <= stages[count - 1].0) {
                return Err(PeriodParseError);
            }
            stages[count] = (from, steps.parse().map_err(|_| PeriodParseError)?);
            count += 1;
        }
        let last = stages[count - 1];
        stages[count..].fill(last);
        Ok(Self { stages })
    }
}

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
    use alloc::string::ToString;
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

    #[test]
    fn text_forms() {
        for text in ["1", "10", "1,10@500", "1,2@3,4@5,6@7"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["", "x", "1@0", "1,2", "1,2@0", "1,2@5,3@5", "1,2@3,4@5,6@7,8@9", "-1"] {
            assert_eq!(text.parse::<Period>(), Err(PeriodParseError), "{text}");
        }
    }
}
