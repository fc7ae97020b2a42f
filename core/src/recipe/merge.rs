//! Merge rules that need all contributions of a round at once: their numbers, their formulas and their checks.

use core::fmt;

use super::text::{NUMBER, WHOLE, number};
use super::{ConfigError, Merge, RecipeParseError, check_range};
use crate::kernel::round::Formula;

impl Merge {
    /// The formula of a rule that needs all contributions of a round at once. A trimmed mean that trims nothing is the
    /// mean, and so is centred clipping without a limit.
    pub(crate) const fn formula(self) -> Option<Formula> {
        Some(match self {
            Self::Mean
            | Self::MeanOfSenders
            | Self::Sum { .. }
            | Self::Softsync { .. }
            | Self::Elastic { .. }
            | Self::TrimmedMean { trim: 0 } => return None,
            Self::TrimmedMean { trim } => Formula::Trimmed { trim },
            Self::Median => Formula::Trimmed { trim: u32::MAX },
            Self::NormClip => Formula::NormClip,
            Self::CentredClip { radius, .. } if radius == f32::INFINITY => return None,
            Self::CentredClip { radius, iterations } => Formula::CentredClip { radius, iterations },
            Self::Krum { faulty, best } => Formula::Krum { faulty, best },
            Self::Adasum => Formula::Adasum,
            Self::Rda => Formula::Radial,
            Self::Vote { length } => Formula::Vote { length },
        })
    }

    /// Is there one contribution per worker and round, whose merged vector is one of their kind?
    pub(crate) const fn is_round(self) -> bool {
        !matches!(self, Self::Sum { .. } | Self::Softsync { .. } | Self::Elastic { .. })
    }

    /// Do the weights of contributions have an effect?
    pub(super) const fn weighs(self) -> bool {
        match self {
            Self::Mean
            | Self::MeanOfSenders
            | Self::TrimmedMean { trim: 0 }
            | Self::NormClip
            | Self::CentredClip { .. } => true,
            Self::Krum { .. } | Self::Rda => true,
            Self::TrimmedMean { .. } | Self::Median | Self::Adasum | Self::Vote { .. } => false,
            Self::Sum { .. } | Self::Softsync { .. } | Self::Elastic { .. } => false,
        }
    }

    /// Must all contributions of a round be at one node?
    pub(super) const fn needs_all(self) -> bool {
        self.is_round() && !self.is_mean()
    }

    /// Is it a mean that can be taken contribution by contribution?
    pub(super) const fn is_mean(self) -> bool {
        matches!(self, Self::Mean | Self::MeanOfSenders)
    }

    /// Does the rule measure whole contributions, and not only one element after the other?
    pub(super) const fn needs_whole(self) -> bool {
        self.needs_all() && !matches!(self, Self::TrimmedMean { .. } | Self::Median | Self::Vote { .. })
    }

    /// Does the rule leave out values that are unlike the rest, element by element?
    pub(super) const fn needs_dense(self) -> bool {
        matches!(self, Self::TrimmedMean { trim: 1.. } | Self::Median)
    }

    /// Does the rule measure lengths, which say something of updates only?
    pub(super) const fn needs_updates(self) -> bool {
        self.needs_whole() && !matches!(self, Self::Krum { .. })
    }

    /// The choice in the text form.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Mean => "merge=mean",
            Self::MeanOfSenders => "merge=mean-of-senders",
            Self::Sum { .. } => "merge=sum",
            Self::Softsync { .. } => "merge=softsync",
            Self::Elastic { .. } => "merge=elastic",
            Self::TrimmedMean { .. } => "merge=trimmed-mean",
            Self::Median => "merge=median",
            Self::NormClip => "merge=norm-clip",
            Self::CentredClip { .. } => "merge=centred-clip",
            Self::Krum { .. } => "merge=krum",
            Self::Adasum => "merge=adasum",
            Self::Rda => "merge=rda",
            Self::Vote { .. } => "merge=vote",
        }
    }

    /// Writes the choice and its numbers.
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::Mean | Self::MeanOfSenders | Self::Median | Self::NormClip | Self::Adasum | Self::Rda => Ok(()),
            Self::Sum { lambda } => write!(f, " lambda={lambda}"),
            Self::Softsync { updates } => write!(f, " updates={updates}"),
            Self::Elastic { alpha } => write!(f, " alpha={alpha}"),
            Self::TrimmedMean { trim } => write!(f, " trim={trim}"),
            Self::CentredClip { radius, iterations } => write!(f, " radius={radius} iterations={iterations}"),
            Self::Krum { faulty, best } => write!(f, " faulty={faulty} best={best}"),
            Self::Vote { length } => write!(f, " length={length}"),
        }
    }

    /// Changes one number. `Ok(false)`: this rule has no such key.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, RecipeParseError> {
        match (key, self) {
            ("trim", Self::TrimmedMean { trim }) => *trim = number("trim", WHOLE, value)?,
            ("radius", Self::CentredClip { radius, .. }) => *radius = number("radius", NUMBER, value)?,
            ("iterations", Self::CentredClip { iterations, .. }) => *iterations = number("iterations", WHOLE, value)?,
            ("faulty", Self::Krum { faulty, .. }) => *faulty = number("faulty", WHOLE, value)?,
            ("length", Self::Vote { length }) => *length = number("length", NUMBER, value)?,
            ("best", Self::Krum { best, .. }) => *best = number("best", WHOLE, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn check(self) -> Result<(), ConfigError> {
        match self {
            Self::CentredClip { radius, iterations } => {
                check_range("radius", "above 0, or inf", radius, radius > 0.0)?;
                check_range("iterations", "at least 1", iterations as f32, iterations > 0)
            }
            Self::Vote { length } => {
                check_range("length", "a finite number above 0", length, length > 0.0 && length.is_finite())
            }
            Self::Krum { best, .. } => check_range("best", "at least 1", best as f32, best > 0),
            _ => Ok(()),
        }
    }

    /// Checks that enough workers are left when the rule has left some out.
    pub(super) fn check_workers(self, workers: u32) -> Result<(), ConfigError> {
        match self.shortage(workers) {
            Some((field, got, least, reason)) => Err(ConfigError::NeedsWorkers { field, got, least, workers, reason }),
            None => Ok(()),
        }
    }

    /// The same of the contributions that a round waits for.
    pub(super) fn check_count(self, count: u32) -> Result<(), ConfigError> {
        match self.shortage(count) {
            Some((field, got, least, reason)) => {
                Err(ConfigError::NeedsContributions { field, got, least, count, reason })
            }
            None => Ok(()),
        }
    }

    /// A number that asks for more than so many contributions: its key, the number, the contributions that it needs, and
    /// the reason.
    fn shortage(self, contributions: u32) -> Option<(&'static str, u32, u64, &'static str)> {
        let (field, got, least, reason) = match self {
            Self::TrimmedMean { trim } => {
                ("trim", trim, u64::from(trim) * 2 + 1, "it cuts so many values at each end, and one must be left")
            }
            Self::Krum { faulty, best } if u64::from(contributions) >= u64::from(faulty) * 2 + 3 => (
                "best",
                best,
                u64::from(best) + u64::from(faulty),
                "it takes so many, and the faulty ones are not among them",
            ),
            Self::Krum { faulty, .. } => (
                "faulty",
                faulty,
                u64::from(faulty) * 2 + 3,
                "most of the nearest neighbours must be of workers that are not",
            ),
            _ => return None,
        };
        (u64::from(contributions) < least).then_some((field, got, least, reason))
    }
}
