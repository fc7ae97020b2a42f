//! [`ConfigError`].

use core::fmt;

/// Why a recipe, or a recipe with this cluster and layout, cannot run.
#[derive(Copy, Clone, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of its range.
    OutOfRange {
        /// Key of the text form.
        field: &'static str,
        /// The accepted range.
        expected: &'static str,
        /// The given number.
        got: f64,
    },
    /// The number must be a power of two.
    NotPowerOfTwo {
        /// Key of the text form.
        field: &'static str,
        /// The given number.
        got: f32,
        /// The nearest power of two below it.
        nearest: f32,
    },
    /// One choice requires another that the recipe does not make.
    Contradiction {
        /// The choice that the recipe makes, as in the text form.
        choice: &'static str,
        /// The choice that it requires, as in the text form.
        required: &'static str,
        /// Why it requires that.
        reason: &'static str,
    },
    /// Softsync needs more updates per application than there are workers.
    TooFewWorkers {
        /// Updates per application.
        updates: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A merge rule leaves contributions out, and the cluster has too few workers for that.
    NeedsWorkers {
        /// Key of the text form.
        field: &'static str,
        /// The given number.
        got: u32,
        /// Workers that it needs.
        least: u64,
        /// Workers in the cluster.
        workers: u32,
        /// Why it needs them.
        reason: &'static str,
    },
    /// A merge rule leaves contributions out, and a round of `pace=first` waits for too few of them.
    NeedsContributions {
        /// Key of the text form.
        field: &'static str,
        /// The given number.
        got: u32,
        /// Contributions that it needs.
        least: u64,
        /// Contributions that a round waits for.
        count: u32,
        /// Why it needs them.
        reason: &'static str,
    },
    /// Elastic averaging with rounds would overshoot: the center moves by `alpha` times the sum of all distances.
    Alpha {
        /// The factor for this number of workers.
        got: f32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A round waits for more contributions than there are workers.
    TooFewContributions {
        /// Contributions that a round waits for.
        count: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// A round waits for all workers but more than there are.
    TooManySpares {
        /// Workers that a round does not wait for.
        spare: u32,
        /// Workers in the cluster.
        workers: u32,
    },
    /// The cluster has the wrong number of server nodes.
    Servers {
        /// The number of server nodes that the topology needs, in words.
        expected: &'static str,
        /// Server nodes in the cluster.
        got: u32,
    },
    /// There are more shards than parameters.
    TooManyShards {
        /// Shards of the recipe.
        shards: u32,
        /// Floats in the vector.
        len: usize,
    },
    /// The vector, or a shard of it, is longer than the machines can count.
    TooLong {
        /// The part that is too long: the vector (with its optimizer vectors), or a shard.
        what: &'static str,
        /// Its length in floats.
        len: usize,
        /// The largest length in floats.
        limit: usize,
    },
    /// The layout has no parameters.
    EmptyLayout,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            // As short as it was written: most numbers are floats of 32 bits.
            Self::OutOfRange { field, expected, got } if f64::from(got as f32) == got => {
                write!(f, "{field}: expected {expected}, got {}", got as f32)
            }
            Self::OutOfRange { field, expected, got } => write!(f, "{field}: expected {expected}, got {got}"),
            Self::NotPowerOfTwo { field, got, nearest } => {
                write!(f, "{field}: expected a power of two, got {got} (the nearest below is {nearest})")
            }
            Self::Contradiction { choice, required, reason } => write!(f, "{choice} requires {required}: {reason}"),
            Self::TooFewWorkers { updates, workers } => {
                write!(f, "updates: expected at most the number of workers ({workers}), got {updates}")
            }
            Self::NeedsWorkers { field, got, least, workers, reason } => {
                write!(f, "{field}: {got} requires at least {least} workers, got {workers}: {reason}")
            }
            Self::NeedsContributions { field, got, least, count, reason } => {
                write!(f, "{field}: {got} requires a count of at least {least}, got {count}: {reason}")
            }
            Self::Alpha { got, workers } => {
                let most = 1.0 / workers as f32;
                write!(f, "alpha: expected at most 1/n with rounds ({most} with {workers} workers), got {got}")
            }
            Self::TooFewContributions { count, workers } => {
                write!(
                    f,
                    "count: expected at most the number of workers ({workers}), got {count}: a worker contributes once \
                     to a round, so none would end"
                )
            }
            Self::TooManySpares { spare, workers } => {
                write!(
                    f,
                    "count: expected n-{} at most with {workers} workers, got n-{spare}",
                    workers.saturating_sub(1)
                )
            }
            Self::Servers { expected, got } => write!(
                f,
                "servers: expected {expected}, got {got} (servers are nodes of their own, with the ranks after those of \
                 the workers; the transport connects all)"
            ),
            Self::TooManyShards { shards, len } => {
                write!(f, "shards: expected at most the number of parameters ({len}), got {shards}")
            }
            Self::TooLong { what, len, limit } => {
                write!(f, "layout: expected at most {limit} floats in {what}, got {len}")
            }
            Self::EmptyLayout => write!(f, "layout: expected at least 1 parameter, got 0"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl core::error::Error for ConfigError {}
