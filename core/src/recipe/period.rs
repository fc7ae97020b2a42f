//! The period axis: local steps between synchronisations, fixed or by a schedule.

use core::fmt;
use core::str::FromStr;

use super::{ConfigError, check_range};

/// The number H of local steps between synchronisations, in at most four stages.
///
/// The text form is `10` for a fixed H, or `1,10@500` for H = 1 up to local step 499 and H = 10 from step 500 on. A
/// schedule expresses warm-up (small H first) and post-local SGD (Lin, Stich et al. 2018, "Don't use large
/// mini-batches, use local SGD": H = 1 first, a larger H later). A stage starts with the first whole period after its
/// step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// (first local step, H) in rising order; unused entries repeat the last stage.
    stages: [(u64, u32); STAGES],
}

const STAGES: usize = 4;

/// The text is not a period. See [`Period`] for the text form.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PeriodParseError;

impl Period {
    /// A synchronisation every `steps` local steps; at least 1.
    pub const fn every(steps: u32) -> Self {
        Self { stages: [(0, steps); STAGES] }
    }

    /// H for a period that starts at local step `step`, counted from 0.
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
        // Unused stages repeat the last one: they end the text.
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
            // Rising steps make the text canonical and `at` a simple search.
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

impl fmt::Display for PeriodParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "period: expected steps, or up to {STAGES} stages as in 1,10@500 with rising start steps")
    }
}

impl core::error::Error for PeriodParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_forms_survive_and_malformed_ones_are_refused() {
        for text in ["1", "10", "1,10@500", "1,2@3,4@5,6@7"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in ["", "x", "1@0", "1,2", "1,2@0", "1,2@5,3@5", "1,2@3,4@5,6@7,8@9", "-1"] {
            assert_eq!(text.parse::<Period>(), Err(PeriodParseError), "{text}");
        }
    }
}
