//! [`StepTimes`]: the times of steps as a histogram of bounded size.

use std::collections::BTreeMap;

use gradwire_core::Duration;

/// Bins of a factor of 2. The middle of a bin differs from any time in it by 0.6 % at most.
const BINS: f64 = 64.0;

/// How long steps took, with the waits between them, of all workers of a run together.
///
/// The time of a step is that from the end of the step before to its end, of the same worker. The first step of each
/// worker has none. Local steps of a period count like those that synchronise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepTimes {
    /// By bin, the number of steps.
    bins: BTreeMap<u16, u64>,
    count: u64,
}

impl StepTimes {
    pub(super) fn add(&mut self, time: Duration) {
        *self.bins.entry(bin(time)).or_default() += 1;
        self.count += 1;
    }

    /// Number of steps.
    pub const fn len(&self) -> u64 {
        self.count
    }

    /// True if there are no steps.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The smallest time that at least this share of the steps do not exceed, within 0.6 %. `share`: from 0 to 1; 0.5 is
    /// the median. `None`: there are no steps.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (share.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut below = 0;
        let (bin, _) = self.bins.iter().find(|(_, steps)| {
            below += **steps;
            below >= rank
        })?;
        Some(middle(*bin))
    }
}

/// Bin 0 has the time 0.
fn bin(time: Duration) -> u16 {
    let nanoseconds = time.as_nanos() as f64;
    // 2^64 ns have the bin 4097.
    if nanoseconds < 1.0 { 0 } else { 1 + (BINS * nanoseconds.log2()).min(4096.0) as u16 }
}

fn middle(bin: u16) -> Duration {
    let Some(bin) = bin.checked_sub(1) else { return Duration::ZERO };
    Duration::from_nanos(((f64::from(bin) + 0.5) / BINS).exp2() as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bin() {
        let mut times = StepTimes::default();
        assert_eq!((times.quantile(0.5), times.is_empty()), (None, true));
        (1..=1000).for_each(|ms| times.add(Duration::from_millis(ms)));
        for (share, expected) in [(0.0, 1), (0.5, 500), (0.9, 900), (1.0, 1000)] {
            let got = times.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!((got / f64::from(expected) - 1.0).abs() < 0.006, "{share}: expected {expected}, got {got}");
        }
        assert_eq!(times.len(), 1000);
    }

    #[test]
    fn the_shortest_and_the_longest_times_have_bins() {
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let mut times = StepTimes::default();
            times.add(time);
            let got = times.quantile(0.5).unwrap();
            assert!(if time.is_zero() { got.is_zero() } else { got >= Duration::from_nanos(1) }, "{time:?}: {got:?}");
        }
    }
}
