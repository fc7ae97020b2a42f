//! How often workers synchronise: every H local steps, where H may follow a schedule.
//!
//! A schedule covers warm-up (small H first) and post-local SGD (Lin et al. 2018: H = 1, later more).

use core::fmt;
use core::str::FromStr;

use super::{ConfigError, check_range};

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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

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
