//! The factor of `merge=sum`: a number, or a number divided by the number of workers.

use core::fmt;
use core::str::FromStr;

use super::{ConfigError, check_range};

/// The factor on every update that is added to the parameters: λ in the article's update rule. The text form is a
/// number (`0.5`), or a number over n (`1/n`), which is divided by the number of workers of the cluster.
///
/// With `1/n`, a step of all workers moves the parameters by the mean of their updates, as it does with a synchronous
/// mean. So the learning rate means the same in both. n is the number of workers that the cluster is set up with; it
/// does not change when workers leave or are lost.
///
/// ```
/// use gradwire_core::recipe::Lambda;
///
/// assert_eq!("1/n".parse::<Lambda>()?.of(4), 0.25);
/// assert_eq!(Lambda::from(0.5).of(4), 0.5);
/// # Ok::<(), gradwire_core::recipe::LambdaParseError>(())
/// ```
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Lambda {
    factor: f32,
    /// The factor is divided by the number of workers.
    per_worker: bool,
}

/// The text is not a [`Lambda`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LambdaParseError;

impl Lambda {
    /// `factor`, for any number of workers.
    pub const fn fixed(factor: f32) -> Self {
        Self { factor, per_worker: false }
    }

    /// `factor` divided by the number of workers.
    pub const fn per_worker(factor: f32) -> Self {
        Self { factor, per_worker: true }
    }

    /// The factor in a cluster of so many workers, at least 1.
    pub const fn of(self, workers: u32) -> f32 {
        if self.per_worker { self.factor / workers as f32 } else { self.factor }
    }

    pub(super) fn check(self) -> Result<(), ConfigError> {
        check_range("lambda", "finite and above 0", self.factor, self.factor.is_finite() && self.factor > 0.0)
    }
}

impl From<f32> for Lambda {
    fn from(factor: f32) -> Self {
        Self::fixed(factor)
    }
}

impl fmt::Display for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.factor, if self.per_worker { "/n" } else { "" })
    }
}

impl FromStr for Lambda {
    type Err = LambdaParseError;

    fn from_str(text: &str) -> Result<Self, LambdaParseError> {
        let (number, per_worker) = text.strip_suffix("/n").map_or((text, false), |number| (number, true));
        number.parse().map(|factor| Self { factor, per_worker }).map_err(|_| LambdaParseError)
    }
}

impl fmt::Display for LambdaParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lambda: expected a number, or a number over n as in 1/n")
    }
}

impl core::error::Error for LambdaParseError {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_forms_survive_and_malformed_ones_are_refused() {
        for text in ["1", "0.25", "1/n", "0.5/n"] {
            assert_eq!(text.parse::<Lambda>().unwrap().to_string(), text);
        }
        for text in ["", "/n", "n", "1/4", "1/n/n", "x"] {
            assert_eq!(text.parse::<Lambda>(), Err(LambdaParseError), "{text}");
        }
    }
}
