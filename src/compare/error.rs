//! [`Error`]: why rules cannot be compared.

use std::fmt;

use gradwire_core::recipe::RecipeParseError;
use gradwire_sim::simulation;

/// Why rules cannot be compared. Runs that fail or diverge are no errors: they are rows of the report.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// There are no rules.
    NoRules,
    /// Two rows have this name.
    SameName {
        /// The name.
        name: String,
    },
    /// A number is out of its range.
    OutOfRange {
        /// The number.
        field: &'static str,
        /// The accepted range.
        expected: String,
        /// The given number.
        got: String,
    },
    /// A number of a rule that is to be tuned is not a setting of its recipe, or not in its range.
    Number {
        /// The name of the rule.
        name: String,
        /// What is wrong with it.
        error: RecipeParseError,
    },
    /// A rule cannot be run on the cluster.
    Rule {
        /// The name of the rule.
        name: String,
        /// What is wrong with it.
        error: simulation::Error,
    },
    /// A learner does not validate, so there is nothing to compare by.
    NoValidation {
        /// The name of the model.
        model: String,
    },
    /// The validation loss of initial parameters is not finite.
    InitialLoss {
        /// The seed of the parameters.
        seed: u64,
        /// The loss.
        got: f64,
    },
    /// The watch has stopped the comparison.
    Stopped {
        /// Runs that have ended.
        ended: usize,
        /// All runs.
        runs: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRules => write!(f, "rules: expected at least 1, got 0"),
            Self::SameName { name } => write!(f, "rules: two rows have the name {name:?}"),
            Self::OutOfRange { field, expected, got } => write!(f, "{field}: expected {expected}, got {got}"),
            Self::Number { name, error } => write!(f, "{name}: {error}"),
            Self::Rule { name, error } => write!(f, "{name}: {error}"),
            Self::NoValidation { model } => {
                write!(f, "{model}: its learner does not validate, so there is no figure to compare by")
            }
            Self::InitialLoss { seed, got } => {
                write!(f, "initial parameters of seed {seed}: expected a finite validation loss, got {got}")
            }
            Self::Stopped { ended, runs } => write!(f, "stopped after {ended} of {runs} runs"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
