//! Time as an input: [`Instant`] counts nanoseconds from an origin that the driver chooses. [`Patience`] is the
//! timeouts of a node.

pub use core::time::Duration;

/// A moment, in nanoseconds since the driver's origin.
///
/// Machines never read a clock. Time enters through [`Machine::handle_input`](crate::Machine::handle_input), where it
/// is clamped so that it never runs backwards.
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

    /// The time since `earlier`; zero if `earlier` is later than this moment.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `wait` after this one, saturating about 584 years after the origin.
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// The time of a step in microseconds, 1 to [`Self::MAX`], as workers and servers tell it to each other.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepTime(u32);

impl StepTime {
    /// The longest time, 35 minutes. Longer steps count as that.
    pub const MAX: u32 = u32::MAX >> 1;

    /// A time in microseconds, rounded down and limited to the range.
    pub fn new(time: Duration) -> Self {
        Self(time.as_micros().clamp(1, Self::MAX.into()) as u32)
    }

    /// `None` for 0: a time that is not known.
    pub(crate) const fn from_wire(micros: u32) -> Option<Self> {
        if micros == 0 { None } else { Some(Self(micros)) }
    }

    /// The time in microseconds, at least 1.
    pub const fn micros(self) -> u32 {
        self.0
    }
}

/// The timeouts of a node. All are derived from one duration, so that they cannot contradict each other. Default: 5 s.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Patience {
    dead_after: Duration,
    stall_at_most: Duration,
}

impl Patience {
    /// Timeouts derived from `dead_after`: a peer that stays disconnected for that long is given up as lost.
    pub const fn new(dead_after: Duration) -> Self {
        Self { dead_after, stall_at_most: Duration::MAX }
    }

    /// For transports without reconnection, such as threads of one process: a disconnected peer is lost at once.
    pub const fn none() -> Self {
        Self::new(Duration::ZERO)
    }

    /// With a limit for [`stall_after`](Self::stall_after): waits that end sooner have to be explained sooner.
    pub const fn with_stall_at_most(self, limit: Duration) -> Self {
        Self { stall_at_most: limit, ..self }
    }

    /// The longest time for which a peer may stay disconnected before it is given up as lost.
    pub const fn dead_after(self) -> Duration {
        self.dead_after
    }

    /// The duration of a wait after which the machine reports a stall and names the peer it waits for: twice
    /// `dead_after`, at least 2 s, and at most the [limit](Self::with_stall_at_most).
    pub fn stall_after(self) -> Duration {
        // Twice: a wait for a peer that is only about to be given up should not be reported as a stall.
        self.dead_after.saturating_mul(2).max(Duration::from_secs(2)).min(self.stall_at_most)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}
