//! What can go wrong on a device.

use std::fmt;

/// Why a device cannot be used, or not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuError {
    /// There is no adapter, or none of the name that was asked for.
    NoAdapter {
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// An adapter gave no device.
    NoDevice {
        /// Whose.
        adapter: String,
        /// Why.
        reason: String,
    },
    /// The adapter does not count as a promise of equal bits needs.
    Arithmetic {
        /// Which.
        adapter: String,
        /// What was computed.
        what: &'static str,
        /// The bits that were expected.
        expected: u32,
        /// Those that came.
        got: u32,
    },
    /// A buffer is longer than the device allows.
    Limit {
        /// Which limit.
        limit: &'static str,
        /// How many bytes it allows.
        expected: u64,
        /// How many are needed.
        got: u64,
    },
    /// The session's arithmetic runs elsewhere.
    Other,
    /// The device is lost, with everything on it.
    Lost {
        /// What it said.
        reason: String,
    },
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdapter { wanted, found } if found.is_empty() => {
                write!(f, "gpu: expected {wanted}, found no adapter at all (is a driver installed?)")
            }
            Self::NoAdapter { wanted, found } => write!(f, "gpu: expected {wanted}, found {}", found.join(", ")),
            Self::NoDevice { adapter, reason } => write!(f, "gpu: {adapter} gave no device: {reason}"),
            Self::Arithmetic { adapter, what, expected, got } => write!(
                f,
                "gpu: {adapter} cannot give the same results as a CPU: {what}: expected {expected:#010x}, got {got:#010x}"
            ),
            Self::Limit { limit, expected, got } => {
                write!(f, "gpu: expected at most {expected} bytes ({limit}), got {got}")
            }
            Self::Other => write!(f, "gpu: expected a session whose executor is a Gpu, got one that runs elsewhere"),
            Self::Lost { reason } => write!(f, "gpu: the device is lost: {reason}"),
        }
    }
}

impl std::error::Error for GpuError {}
