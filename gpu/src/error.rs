//! [`GpuError`]: the reasons why a device cannot be used.

use std::fmt;

/// The reason why a device cannot be used, or can no longer be used.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GpuError {
    /// The system has no adapter, or no adapter with the requested name.
    NoAdapter {
        /// Description of the requested adapter.
        wanted: String,
        /// Names of the adapters that the system has.
        found: Vec<String>,
    },
    /// The adapter could not be opened.
    NoDevice {
        /// Name of the adapter.
        adapter: String,
        /// The error that wgpu reported.
        reason: String,
    },
    /// The adapter rounds differently from a CPU, so results could not be equal bit for bit.
    Arithmetic {
        /// Name of the adapter, with backend and driver.
        adapter: String,
        /// The expression that was evaluated.
        what: &'static str,
        /// Bits of the result on a CPU.
        expected: u32,
        /// Bits of the result on the adapter.
        got: u32,
    },
    /// A size exceeds a limit.
    Limit {
        /// Name of the limit.
        limit: &'static str,
        /// The limit, in bytes.
        expected: u64,
        /// The required size, in bytes.
        got: u64,
    },
    /// The session has another executor than a [`Gpu`](crate::Gpu).
    Other,
    /// The device is lost. The contents of its memory are lost as well.
    Lost {
        /// The first error that wgpu reported.
        reason: String,
    },
}

impl fmt::Display for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAdapter { wanted, found } if found.is_empty() => {
                write!(f, "gpu: expected {wanted}, found no adapter: install a Vulkan, Metal or DX12 driver")
            }
            Self::NoAdapter { wanted, found } => write!(f, "gpu: expected {wanted}, found {}", found.join(", ")),
            Self::NoDevice { adapter, reason } => write!(f, "gpu: cannot open {adapter}: {reason}"),
            Self::Arithmetic { adapter, what, expected, got } => write!(
                f,
                "gpu: {adapter} rounds differently from a CPU: {what}: expected {expected:#010x}, got {got:#010x}; use \
                 another adapter or the CPU"
            ),
            Self::Limit { limit, expected, got } => {
                write!(f, "gpu: expected at most {expected} bytes ({limit}), got {got}")
            }
            Self::Other => write!(f, "gpu: expected a session whose executor is a Gpu, got another executor"),
            Self::Lost { reason } => write!(f, "gpu: the device is lost: {reason}"),
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for GpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for GpuError {}
