//! Merge rules that need all contributions of a round at once: their numbers, their formulas and their checks.

use core::fmt;

use super::{ConfigError, Merge, RecipeParseError};
use crate::kernel::round::Formula;

impl Merge {
    /// The formula of a rule that needs all contributions of a round at once. A trimmed mean that trims nothing is the
    /// mean.
    pub(crate) const fn formula(self) -> Option<Formula> {
        Some(match self {
            Self::Mean | Self::Sum { .. } | Self::Softsync { .. } | Self::TrimmedMean { trim: 0 } => return None,
            Self::TrimmedMean { trim } => Formula::Trimmed { trim },
            Self::Median => Formula::Trimmed { trim: u32::MAX },
            Self::NormClip => Formula::NormClip,
        })
    }

    /// Is there one contribution per worker and round, whose merged vector is one of their kind?
    pub(crate) const fn is_round(self) -> bool {
        !matches!(self, Self::Sum { .. } | Self::Softsync { .. })
    }

    /// Must all contributions of a round be at one node?
    pub(super) const fn needs_all(self) -> bool {
        self.is_round() && !matches!(self, Self::Mean)
    }

    /// Does the rule measure whole contributions, and not only one element after the other?
    pub(super) const fn needs_whole(self) -> bool {
        matches!(self, Self::NormClip)
    }

    /// Does the rule leave out what is unlike the rest, element by element?
    pub(super) const fn needs_dense(self) -> bool {
        matches!(self, Self::TrimmedMean { trim: 1.. } | Self::Median)
    }

    /// Does the rule measure lengths, which say something of updates only?
    pub(super) const fn needs_updates(self) -> bool {
        matches!(self, Self::NormClip)
    }

    /// The choice in the text form.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Mean => "merge=mean",
            Self::Sum { .. } => "merge=sum",
            Self::Softsync { .. } => "merge=softsync",
            Self::TrimmedMean { .. } => "merge=trimmed-mean",
            Self::Median => "merge=median",
            Self::NormClip => "merge=norm-clip",
        }
    }

    /// Writes the choice and its numbers.
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())?;
        match self {
            Self::Mean | Self::Median | Self::NormClip => Ok(()),
            Self::Sum { lambda } => write!(f, " lambda={lambda}"),
            Self::Softsync { updates } => write!(f, " updates={updates}"),
            Self::TrimmedMean { trim } => write!(f, " trim={trim}"),
        }
    }

    /// Changes one number. `Ok(false)`: this rule has no such key.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool, RecipeParseError> {
        match (key, self) {
            ("trim", Self::TrimmedMean { trim }) => *trim = super::text::number("trim", super::text::WHOLE, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that enough workers are left when the rule has left some out.
    pub(super) fn check_workers(self, workers: u32) -> Result<(), ConfigError> {
        let (field, got, least, reason) = match self {
            Self::TrimmedMean { trim } => {
                ("trim", trim, u64::from(trim) * 2 + 1, "it cuts so many values at each end, and one must be left")
            }
            _ => return Ok(()),
        };
        if u64::from(workers) < least {
            return Err(ConfigError::NeedsWorkers { field, got, least, workers, reason });
        }
        Ok(())
    }
}
