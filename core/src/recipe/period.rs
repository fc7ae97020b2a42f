//! The period axis: how long a worker computes between synchronisations, fixed or by a schedule.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::{ConfigError, check_range};

/// The length of a worker's period between synchronisations, in at most four stages.
///
/// The text form is `10` for a fixed number H of local steps, or `1,10@500` for H = 1 up to local step 499 and H = 10
/// from step 500 on. A schedule expresses warm-up (small H first) and post-local SGD (Lin, Stich et al. 2018, "Don't use
/// large mini-batches, use local SGD": H = 1 first, a larger H later). A stage starts with the first whole period after
/// its step.
///
/// `20s` is a time, and `4096ex` a number of examples; see [`Span`]. Workers of unequal speed then take unequal numbers
/// of steps, and the mean weighs each contribution by its examples. Either can be the last stage of a schedule, as in
/// `1,20s@500`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Period {
    /// (first local step, length) in rising order; unused entries repeat the last stage.
    stages: [(u64, Span); STAGES],
}

/// The length of one period.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// So many local steps, at least 1.
    Steps(u32),
    /// So much time since the end of the last synchronisation, by the worker's own clock. A worker contributes before
    /// the step that would end later, if all of its steps take as long as the mean step of this period; and after one
    /// step at the earliest. So no worker waits for longer than one of its own steps, unless a step of another worker
    /// is longer than the period. Text form: `20s`, `0.5s` or `500ms`.
    Time(Duration),
    /// Until the worker's own steps have so many examples, at least 1, or a step has none. For workers with batches of
    /// unequal size. Text form: `4096ex`.
    Examples(u64),
}

const STAGES: usize = 4;
const NANOS: u64 = 1_000_000_000;

/// The text is not a period. See [`Period`] for the text form.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PeriodParseError;

impl Period {
    /// A synchronisation every `steps` local steps; at least 1.
    pub const fn every(steps: u32) -> Self {
        Self::of(Span::Steps(steps))
    }

    /// All periods have this length.
    pub const fn of(span: Span) -> Self {
        Self { stages: [(0, span); STAGES] }
    }

    /// The length of a period that starts at local step `step`, counted from 0.
    pub fn span(&self, step: u64) -> Span {
        self.stages.iter().rev().find(|(from, _)| *from <= step).map_or(self.stages[0].1, |stage| stage.1)
    }

    /// The number of local steps of a period that starts at local step `step`. If its length is not in steps: 1, the
    /// least.
    pub fn at(&self, step: u64) -> u32 {
        match self.span(step) {
            Span::Steps(steps) => steps,
            Span::Time(_) | Span::Examples(_) => 1,
        }
    }

    /// The number of local steps of all periods. `None`: it changes, or a period is not a number of steps.
    pub(crate) fn fixed(&self) -> Option<u32> {
        match self.stages[0].1 {
            Span::Steps(steps) if *self == Self::every(steps) => Some(steps),
            _ => None,
        }
    }

    /// Whether the last stage is not a number of steps.
    pub(crate) const fn is_measured(&self) -> bool {
        !matches!(self.stages[STAGES - 1].1, Span::Steps(_))
    }

    /// Whether it is the same at all steps.
    pub(crate) fn is_fixed(&self) -> bool {
        self.stages[0] == self.stages[STAGES - 1]
    }

    /// Whether a stage is a time.
    pub(crate) fn has_time(&self) -> bool {
        self.stages.iter().any(|(_, span)| matches!(span, Span::Time(_)))
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.stages.iter().try_for_each(|(_, span)| match *span {
            Span::Steps(steps) => check_range("period", "at least 1", steps as f32, steps >= 1),
            Span::Time(time) => check_range(
                "period",
                "more than 0 s (period=1 synchronises at every step)",
                time.as_secs_f32(),
                !time.is_zero(),
            ),
            Span::Examples(examples) => check_range(
                "period",
                "at least 1 example (period=1 synchronises at every step)",
                examples as f32,
                examples >= 1,
            ),
        })
    }
}

impl From<u32> for Period {
    fn from(steps: u32) -> Self {
        Self::every(steps)
    }
}

impl From<Span> for Period {
    fn from(span: Span) -> Self {
        Self::of(span)
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

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Time(time) if time.subsec_nanos() == 0 => write!(f, "{}s", time.as_secs()),
            Self::Time(time) => {
                let (mut fraction, mut digits) = (time.subsec_nanos(), 9);
                while fraction % 10 == 0 {
                    (fraction, digits) = (fraction / 10, digits - 1);
                }
                write!(f, "{}.{fraction:0digits$}s", time.as_secs())
            }
            Self::Examples(examples) => write!(f, "{examples}ex"),
        }
    }
}

impl FromStr for Period {
    type Err = PeriodParseError;

    fn from_str(text: &str) -> Result<Self, PeriodParseError> {
        let mut stages = [(0, Span::Steps(0)); STAGES];
        let mut count = 0;
        for word in text.split(',') {
            let (span, from) = match word.split_once('@') {
                Some((span, from)) if count > 0 => (span, from.parse().map_err(|_| PeriodParseError)?),
                None if count == 0 => (word, 0),
                _ => return Err(PeriodParseError),
            };
            // Rising steps make the text canonical and `span` a simple search. Workers count their own steps: after a
            // stage that is not in steps, workers of unequal speed would enter the next one in different rounds.
            if count == STAGES
                || (count > 0 && (from <= stages[count - 1].0 || !matches!(stages[count - 1].1, Span::Steps(_))))
            {
                return Err(PeriodParseError);
            }
            stages[count] = (from, span.parse()?);
            count += 1;
        }
        let last = stages[count - 1];
        stages[count..].fill(last);
        Ok(Self { stages })
    }
}

impl FromStr for Span {
    type Err = PeriodParseError;

    fn from_str(text: &str) -> Result<Self, PeriodParseError> {
        let parsed = if let Some(examples) = text.strip_suffix("ex") {
            whole(examples).map(Self::Examples)
        } else if let Some(millis) = text.strip_suffix("ms") {
            decimal(millis, NANOS / 1000).map(Self::Time)
        } else if let Some(seconds) = text.strip_suffix('s') {
            decimal(seconds, NANOS).map(Self::Time)
        } else {
            text.parse().ok().map(Self::Steps)
        };
        parsed.ok_or(PeriodParseError)
    }
}

/// A number of digits alone: without a sign.
fn whole(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A decimal number of units of so many nanoseconds, exactly. `None` also for fractions of a nanosecond.
fn decimal(text: &str, unit: u64) -> Option<Duration> {
    let (units, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = whole(fraction)?.checked_mul(unit)?;
    if parts % scale != 0 {
        return None;
    }
    Some(Duration::from_nanos(whole(units)?.checked_mul(unit)?.checked_add(parts / scale)?))
}

impl fmt::Display for PeriodParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "period: expected steps, a time as in 20s, examples as in 4096ex, or up to {STAGES} stages as in 1,10@500 \
             with rising start steps, of which only the last may be other than steps"
        )
    }
}

impl core::error::Error for PeriodParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_forms_survive_and_malformed_ones_are_refused() {
        for text in [
            "1",
            "10",
            "1,10@500",
            "1,2@3,4@5,6@7",
            "20s",
            "0.5s",
            "0.000000001s",
            "1,20s@500",
            "4096ex",
            "1,64ex@2",
            "0s",
            "0ex",
        ] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "x",
            "1@0",
            "1,2",
            "1,2@0",
            "1,2@5,3@5",
            "1,2@3,4@5,6@7,8@9",
            "-1",
            "s",
            "ex",
            "-1s",
            "+1s",
            "1.s5",
            ".5s",
            "1e3s",
            "20 s",
            "20S",
            "20sec",
            "4096 ex",
            "1.5ex",
            "1.5",
            "0.0000000001s",
            "99999999999999s",
            "20s,1@5",
            "4ex,20s@9",
            "NaNs",
            "1m",
        ] {
            assert_eq!(text.parse::<Period>(), Err(PeriodParseError), "{text}");
        }
    }

    #[test]
    fn milliseconds_are_written_as_seconds() {
        assert_eq!("250ms".parse::<Period>().unwrap().to_string(), "0.25s");
        assert_eq!("1500.5ms".parse(), Ok(Period::of(Span::Time(Duration::from_micros(1_500_500)))));
    }
}
