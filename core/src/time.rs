//! Time as the machines see it: nanoseconds from an origin that the driver picks.

pub use core::time::Duration;

/// A moment, in nanoseconds since the driver's origin. Machines never read a clock: time enters through
/// [`Machine::handle_input`](crate::Machine::handle_input) and is clamped so that it never runs backwards.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The driver's origin.
    pub const ORIGIN: Self = Self(0);

    /// The moment `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`, zero when `earlier` is not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This moment moved forward, saturating about 584 years after the origin.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The timeouts of a node, all derived from one base figure so that their order cannot contradict itself.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    dead_after: Duration,
}

impl Patience {
    /// A lost connection is forgiven for `dead_after`; then its peer counts as gone.
    pub const fn new(dead_after: Duration) -> Self {
        Self { dead_after }
    }

    /// For transports on which a lost connection cannot come back (threads of one process).
    pub const fn none() -> Self {
        Self::new(Duration::ZERO)
    }

    /// How long a peer may stay disconnected before it counts as gone.
    pub const fn dead_after(self) -> Duration {
        self.dead_after
    }

    /// How long a wait may last before it is reported with the name of whom it waits for: twice the base
    /// figure, and never under two seconds.
    pub fn stall_after(self) -> Duration {
        (self.dead_after * 2).max(Duration::from_secs(2))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}
