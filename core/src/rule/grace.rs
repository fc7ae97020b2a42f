//! How long a round that has enough contributions waits for more: the adaptive grace of `pace=first`.
//!
//! ```text
//! x_j    from the moment at which worker j gets parameters to its contribution
//! d_j <- d_j + (|x_j - m_j| - d_j) / 4;   m_j <- m_j + (x_j - m_j) / 4;   at first m_j = x_j, d_j = x_j / 2
//! t_K    when the round has K contributions;  s_j when worker j got the parameters of the round
//! wait until  max( t_K, min( t_K + cap, s_j + m_j + 2 d_j ) )   for each j that is missing with  s_j + m_j <= t_K + cap
//! ```
//! The estimates are those of timeouts in RFC 6298 (Jacobson 1988), with one gain for both. A worker of which nothing is
//! known is waited for until the cap. A worker that would not make it before the cap is not waited for, and neither is
//! one that should have been here already, or one that still computes with older parameters: it is late anyway.
//!
//! Decoupled DiLoCo (2026) waits for `clamp(γ (τ ξ_step - ξ_quorum - ξ_sync), 0, cap)`: for the time that is left until
//! the workers need the result, since they go on computing while it is made. Here a worker waits for its round, so
//! nothing is left, and that formula is 0. The question is another one: how long the others need. It has the same limits:
//! from 0 to the cap, and the cap as long as nothing is known.

use crate::recipe::Grace;
use crate::time::{Duration, Instant};

/// The share of a new measurement in an estimate is one over this.
const GAIN: u32 = 4;

/// The times that a worker takes from parameters to its contribution.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Work {
    /// When the worker got the parameters that it computes with.
    begun: Option<Instant>,
    /// Mean and mean deviation: m and d above.
    estimate: Option<[Duration; 2]>,
}

impl Work {
    /// The worker gets parameters. If it has some already, it goes on with these.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    /// The worker's contribution is here.
    pub(crate) fn end(&mut self, now: Instant) {
        let Some(begun) = self.begun.take() else { return };
        let time = now.since(begun);
        self.estimate = Some(match self.estimate {
            None => [time, time / 2],
            Some([mean, deviation]) => [moved(mean, time), moved(deviation, time.abs_diff(mean))],
        });
    }

    /// The worker has a new process. The machine is most likely the same.
    pub(crate) fn forget_begin(&mut self) {
        self.begun = None;
    }

    /// The moment up to which a round that has enough contributions `since` waits for this worker.
    fn until(&self, since: Instant, cap: Duration) -> Instant {
        let last = since.after(cap);
        match (self.begun, self.estimate) {
            (Some(begun), Some([mean, _])) if begun.after(mean) > last => since,
            (Some(begun), Some([mean, deviation])) => {
                begun.after(mean).after(deviation).after(deviation).clamp(since, last)
            }
            _ => last,
        }
    }
}

/// An estimate after one more measurement.
fn moved(estimate: Duration, measured: Duration) -> Duration {
    // No step of a run takes the centuries at which this overflows.
    (estimate / GAIN * (GAIN - 1)).saturating_add(measured / GAIN)
}

impl Grace {
    /// The moment at which a round closes that has enough contributions since `since`. `missing`: the members that
    /// compute a contribution to this round.
    pub(crate) fn until<'a>(self, since: Instant, missing: impl Iterator<Item = &'a Work>) -> Instant {
        match self {
            Self::Fixed(grace) => since.after(grace),
            Self::Adaptive { cap } => missing.map(|work| work.until(since, cap)).max().unwrap_or(since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const CAP: Duration = ms(100);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// A worker that has taken these times, one after the other, and begins again at `begun`.
    fn work(times: &[u64], begun: u64) -> Work {
        let mut work = Work::default();
        for time in times {
            work.begin(at(1000));
            work.end(at(1000 + time));
        }
        work.begin(at(begun));
        work
    }

    fn until(since: u64, missing: &[Work]) -> Instant {
        Grace::Adaptive { cap: CAP }.until(at(since), missing.iter())
    }

    #[test]
    fn a_round_waits_for_the_worker_that_makes_it() {
        assert_eq!(until(350, &[work(&[400], 0)]), at(450), "400 and twice 200, up to the cap");
        // The deviation is three quarters of the one before, eight times.
        let longer = until(390, &[work(&[400; 9], 0)]).since(at(400));
        assert!(longer > ms(40) && longer < ms(41), "{longer:?}");
        assert_eq!(until(390, &[work(&[400; 9], 0), work(&[480; 9], 0)]), at(490), "the cap");
        // Neither one that takes too long, nor one that should have been here already, is waited for.
        assert_eq!(until(390, &[work(&[500; 9], 0)]), at(390));
        assert_eq!(until(490, &[work(&[400; 9], 0)]), at(490));
        assert_eq!(until(390, &[]), at(390));
        // Nothing is known yet of one, or it has no parameters.
        assert_eq!(until(390, &[work(&[], 0)]), at(490));
        assert_eq!(until(390, &[Work::default()]), at(490));
    }

    #[test]
    fn a_step_counts_from_the_first_parameters() {
        let mut work = work(&[400], 0);
        work.begin(at(300));
        assert_eq!(work.until(at(390), CAP), at(490));
        work.forget_begin();
        work.begin(at(300));
        assert_eq!(work.until(at(390), CAP), at(390), "it is expected at 700");
    }

    proptest! {
        /// The grace is from 0 to the cap.
        #[test]
        fn a_grace_never_exceeds_the_cap(
            workers in prop::collection::vec((prop::collection::vec(0u64..5_000, 0..6), 0u64..5_000), 0..5),
            since in 0u64..5_000,
        ) {
            let works: Vec<Work> = workers.iter().map(|(times, begun)| work(times, *begun)).collect();
            let until = until(since, &works);
            prop_assert!(until >= at(since) && until <= at(since).after(CAP));
            for fixed in [0, 7] {
                let grace = Grace::Fixed(ms(fixed));
                prop_assert_eq!(grace.until(at(since), works.iter()), at(since + fixed));
            }
        }
    }
}
