//! The numbers of `pace=first`: how many contributions a round takes, how long it waits for more, and how a late one is
//! treated.

use alloc::string::ToString;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use super::check::out_of_range;
use super::text::time;
use super::{ConfigError, RecipeParseError, Span};

/// How many contributions make a round of [`Pace::First`](super::Pace::First). The text form is a number (`3`), or all
/// workers but a number (`n-1`; `n` for all).
///
/// n is the number of workers that the cluster is set up with; it does not change when workers leave or are lost. A
/// round never waits for more contributions than there are members: when fewer than this number take part, it waits for
/// all of them.
///
/// ```
/// use gradwire_core::recipe::Count;
///
/// assert_eq!("n-1".parse::<Count>()?.of(4), 3);
/// assert_eq!(Count::Fixed(3).of(100), 3);
/// # Ok::<(), gradwire_core::recipe::CountParseError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Count {
    /// This number: at least 1, and at most the number of workers.
    Fixed(u32),
    /// All workers but this number, which is below the number of workers. Chen et al. 2016 call these the backup
    /// workers.
    AllBut(u32),
}

/// How long a round of [`Pace::First`](super::Pace::First) waits for the other contributions, from the moment at which the
/// server has as many as it needs. The text form is a time (`200ms`), or `adaptive` with a `cap`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Grace {
    /// For this time. Zero: not at all.
    Fixed(Duration),
    /// For the workers that the server expects in time, until they are here or should have been. The server measures how
    /// long each worker takes from parameters to its contribution (moving mean and mean deviation, as RFC 6298 does). It
    /// waits for no worker that would come later than `cap`, and for a new one until `cap`. The rule that it resembles is
    /// that of Decoupled DiLoCo (2026), whose workers go on computing meanwhile.
    Adaptive {
        /// The longest grace. 0 is no grace.
        cap: Duration,
    },
}

impl Grace {
    /// No grace.
    pub const NONE: Self = Self::Fixed(Duration::ZERO);
    /// An adaptive grace of at most 2 s.
    pub(super) const ADAPTIVE: Self = Self::Adaptive { cap: Duration::from_secs(2) };

    /// Reads `adaptive`, or a time.
    pub(super) fn read(value: &str) -> Result<Self, RecipeParseError> {
        match (value, time("grace", value)) {
            ("adaptive", _) => Ok(Self::ADAPTIVE),
            (_, Ok(time)) => Ok(Self::Fixed(time)),
            (_, Err(_)) => {
                let (key, expected) = ("grace", "a time as in 200ms or 0s, or adaptive");
                Err(RecipeParseError::BadValue { key, expected, got: value.to_string() })
            }
        }
    }
}

impl From<Duration> for Grace {
    fn from(grace: Duration) -> Self {
        Self::Fixed(grace)
    }
}

impl fmt::Display for Grace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(grace) => write!(f, "{}", Span::Time(grace)),
            Self::Adaptive { cap } => write!(f, "adaptive cap={}", Span::Time(cap)),
        }
    }
}

/// The treatment of a contribution that comes after its round has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is dropped and counted: [`Counters::late`](crate::status::Counters::late) of the server. So nothing that is
    /// applied is stale.
    Drop,
    /// It joins the round that is open then, as the displacement that it is: the parameters move by the progress of its
    /// worker since the version that the worker started from. It does not count among the first, so a round waits for
    /// as many contributions from its own version as ever. A worker with two contributions to a round weighs as much as
    /// their examples; a rule that counts workers (as the median does) takes the mean of the two as its one contribution.
    /// [`Counters::deferred`](crate::status::Counters::deferred) counts it.
    Next,
}

/// The text is not a [`Count`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CountParseError;

impl Count {
    /// The number of contributions in a cluster of so many workers. 0 if there are too few of them.
    pub const fn of(self, workers: u32) -> u32 {
        match self {
            Self::Fixed(count) => count,
            Self::AllBut(spare) => workers.saturating_sub(spare),
        }
    }

    pub(super) fn check(self, workers: u32) -> Result<(), ConfigError> {
        match (self, self.of(workers)) {
            (_, count) if (1..=workers).contains(&count) => Ok(()),
            (Self::Fixed(0), _) => Err(out_of_range("count", "at least 1", 0.0)),
            (Self::Fixed(_), count) => Err(ConfigError::TooFewContributions { count, workers }),
            (Self::AllBut(spare), _) => Err(ConfigError::TooManySpares { spare, workers }),
        }
    }
}

impl From<u32> for Count {
    fn from(count: u32) -> Self {
        Self::Fixed(count)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(count) => write!(f, "{count}"),
            Self::AllBut(0) => write!(f, "n"),
            Self::AllBut(spare) => write!(f, "n-{spare}"),
        }
    }
}

impl FromStr for Count {
    type Err = CountParseError;

    fn from_str(text: &str) -> Result<Self, CountParseError> {
        let whole = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().map_err(|_| CountParseError),
            false => Err(CountParseError),
        };
        match text.strip_prefix('n') {
            Some("") => Ok(Self::AllBut(0)),
            Some(rest) => whole(rest.strip_prefix('-').ok_or(CountParseError)?).map(Self::AllBut),
            None => whole(text).map(Self::Fixed),
        }
    }
}

impl fmt::Display for CountParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count: expected a number, or n-1 for all workers but 1")
    }
}

impl core::error::Error for CountParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_the_text_form() {
        for (text, of_four) in [("1", 1), ("3", 3), ("n", 4), ("n-1", 3), ("n-7", 0)] {
            let count: Count = text.parse().unwrap();
            assert_eq!((count.of(4), count.to_string().as_str()), (of_four, text));
        }
        for text in ["", "-1", "+1", "n+1", "n-", "n-+1", "1.5", "n1", "N", "n--1", "99999999999"] {
            assert_eq!(text.parse::<Count>(), Err(CountParseError), "{text}");
        }
    }
}
