//! [`Speed`]: the virtual time of a worker's steps.

use gradwire_core::{Duration, Instant, PeerId};

use super::error::{Error, check_range};
use crate::random::Random;

/// The virtual time of a worker's steps: a mean, random variation, and phases in which the worker is slow.
///
/// ```
/// use std::time::Duration;
/// use gradwire_sim::simulation::Speed;
///
/// // 40 ms, from 36 to 44 ms; one step in a hundred takes 20 times as long; half as fast in the first minute.
/// let minute = Duration::ZERO..Duration::from_secs(60);
/// let speed = Speed::constant(Duration::from_millis(40)).jitter(0.1).tail(0.01, 20.0).slow(minute, 2.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Speed {
    /// Nanoseconds of a step, without variation.
    nanos: f64,
    spread: Spread,
    /// Probability and factor of rare slow steps.
    tail: Option<(f64, f64)>,
    slow: Vec<Slow>,
}

/// The distribution of the time of a step, relative to its mean.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Spread {
    None,
    /// Uniform, from 1 - share to 1 + share.
    Uniform(f64),
    Exponential,
    /// With this exponent.
    Pareto(f64),
}

/// A time in which steps take longer.
#[derive(Copy, Clone, Debug, PartialEq)]
struct Slow {
    from: Duration,
    until: Duration,
    factor: f64,
}

impl Speed {
    /// All steps take this time, above 0.
    pub fn constant(step: Duration) -> Self {
        Self { nanos: step.as_nanos() as f64, spread: Spread::None, tail: None, slow: Vec::new() }
    }

    /// So many steps per second, above 0.
    pub fn per_second(steps: f64) -> Self {
        Self { nanos: 1e9 / steps, spread: Spread::None, tail: None, slow: Vec::new() }
    }

    /// Uniformly distributed times, from `1 - share` to `1 + share` times the mean. `share`: from 0 to below 1.
    /// Replaces another distribution.
    #[must_use]
    pub fn jitter(self, share: f64) -> Self {
        Self { spread: Spread::Uniform(share), ..self }
    }

    /// Exponentially distributed times with the same mean. Replaces another distribution.
    #[must_use]
    pub fn exponential(self) -> Self {
        Self { spread: Spread::Exponential, ..self }
    }

    /// Times with a heavy tail: a Pareto distribution with the same mean. The probability of a time above t falls with
    /// t to the power of `-exponent`, above 1. Replaces another distribution.
    #[must_use]
    pub fn pareto(self, exponent: f64) -> Self {
        Self { spread: Spread::Pareto(exponent), ..self }
    }

    /// Some steps, with this probability from 0 to 1, take `factor` times as long. This raises the mean.
    #[must_use]
    pub fn tail(self, probability: f64, factor: f64) -> Self {
        Self { tail: Some((probability, factor)), ..self }
    }

    /// The worker computes `factor` times as slowly between two moments. A step that is under way at either moment is
    /// slow for a part of its time. The factors of phases that overlap multiply.
    #[must_use]
    pub fn slow(mut self, when: std::ops::Range<Duration>, factor: f64) -> Self {
        self.slow.push(Slow { from: when.start, until: when.end, factor });
        self
    }

    /// The mean time of a step, without slow phases.
    pub fn mean(&self) -> Duration {
        let (probability, factor) = self.tail.unwrap_or((0.0, 1.0));
        Duration::from_nanos((self.nanos * (1.0 + probability * (factor - 1.0))) as u64)
    }

    pub(super) fn check(&self, worker: Option<PeerId>) -> Result<(), Error> {
        let range = |field, expected, got: f64, within| check_range(field, worker, expected, got, within);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        range("time of a step in seconds", "above 0", self.nanos / 1e9, positive(self.nanos))?;
        match self.spread {
            Spread::Uniform(share) => range("jitter", "from 0 to below 1", share, (0.0..1.0).contains(&share))?,
            Spread::Pareto(exponent) => {
                range("exponent of the tail", "above 1", exponent, exponent > 1.0 && exponent.is_finite())?;
            }
            Spread::None | Spread::Exponential => {}
        }
        if let Some((probability, factor)) = self.tail {
            range("probability of slow steps", "from 0 to 1", probability, (0.0..=1.0).contains(&probability))?;
            range("factor of slow steps", "above 0", factor, positive(factor))?;
        }
        for Slow { from, until, factor } in &self.slow {
            range("factor of a slow phase", "above 0", *factor, positive(*factor))?;
            if from >= until {
                return Err(Error::EmptyPhase { worker, from: *from, until: *until });
            }
        }
        Ok(())
    }

    /// The time of a step that begins now.
    pub(super) fn draw(&self, random: &mut Random, now: Instant) -> Duration {
        let mut nanos = match self.spread {
            Spread::None => self.nanos,
            Spread::Uniform(share) => self.nanos * (1.0 - share + 2.0 * share * random.unit()),
            Spread::Exponential => random.exponential(self.nanos),
            // The mean of the distribution from 1 on is exponent / (exponent - 1).
            Spread::Pareto(exponent) => {
                self.nanos * (exponent - 1.0) / exponent * (1.0 - random.unit()).powf(-1.0 / exponent)
            }
        };
        if let Some((probability, factor)) = self.tail
            && random.chance(probability)
        {
            nanos *= factor;
        }
        Duration::from_nanos(self.stretched(now.as_nanos() as f64, nanos) as u64)
    }

    /// The time of `work` nanoseconds of a fast worker, with the slow phases after `start`.
    fn stretched(&self, start: f64, mut work: f64) -> f64 {
        let mut at = start;
        loop {
            let (mut factor, mut edge) = (1.0, f64::INFINITY);
            for slow in &self.slow {
                let (from, until) = (slow.from.as_nanos() as f64, slow.until.as_nanos() as f64);
                if (from..until).contains(&at) {
                    factor *= slow.factor;
                }
                edge = [from, until].into_iter().filter(|moment| *moment > at).fold(edge, f64::min);
            }
            let end = at + work * factor;
            if end <= edge {
                // Without phases: exactly the work.
                return if at == start { work * factor } else { end - start };
            }
            work -= (edge - at) / factor;
            at = edge;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(secs: u64) -> Instant {
        Instant::from_nanos(secs * 1_000_000_000)
    }

    #[test]
    fn distributions_have_the_mean_of_the_speed() {
        let constant = Speed::constant(Duration::from_millis(580));
        assert_eq!(constant.draw(&mut Random::new(1, 1), at(3)), Duration::from_millis(580));
        assert_eq!(Speed::per_second(4.0).draw(&mut Random::new(1, 1), at(3)), Duration::from_millis(250));
        let cases = [
            (constant.clone().jitter(0.5), 0.58, 0.29, 0.87),
            (constant.clone().exponential(), 0.58, 0.0, 20.0),
            (constant.clone().pareto(3.0), 0.58, 0.58 * 2.0 / 3.0, 1e3),
            (constant.tail(0.1, 11.0), 1.16, 0.58, 6.38),
        ];
        for (speed, mean, least, most) in cases {
            let mut random = Random::new(1, 1);
            let draws: Vec<f64> = (0..100_000).map(|_| speed.draw(&mut random, at(0)).as_secs_f64()).collect();
            let got = draws.iter().sum::<f64>() / draws.len() as f64;
            assert_eq!((speed.mean().as_secs_f64() * 1e3).round(), mean * 1e3);
            assert!((got / mean - 1.0).abs() < 0.02, "{speed:?}: {got}");
            assert!(draws.iter().all(|draw| (least - 1e-6..=most).contains(draw)), "{speed:?}");
        }
    }

    /// A step that begins before a slow phase, within it, or is longer than it.
    #[test]
    fn a_step_is_slow_for_the_part_of_it_in_a_slow_phase() {
        let speed = Speed::constant(secs(4)).slow(secs(10)..secs(16), 3.0);
        let takes = |start| speed.draw(&mut Random::new(1, 1), at(start)).as_secs_f64();
        for (start, expected) in [(0, 4.0), (6, 4.0), (7, 6.0), (10, 8.0), (13, 6.0), (16, 4.0)] {
            assert!((takes(start) - expected).abs() < 1e-6, "{start}: {}", takes(start));
        }
        let speed = speed.slow(secs(12)..secs(100), 2.0);
        // 2 s at a third, 4 s at a sixth, the rest at half the speed.
        let expected = 2.0 + 4.0 + 2.0 * (4.0 - 2.0 / 3.0 - 4.0 / 6.0);
        let got = speed.draw(&mut Random::new(1, 1), at(10)).as_secs_f64();
        assert!((got - expected).abs() < 1e-6, "{got}, expected {expected}");
    }

    #[test]
    fn bad_numbers_are_named() {
        let good = || Speed::constant(secs(1));
        let cases = [
            (Speed::constant(Duration::ZERO), "time of a step in seconds of worker 3: expected above 0, got 0"),
            (Speed::per_second(f64::NAN), "time of a step in seconds of worker 3: expected above 0, got NaN"),
            (Speed::per_second(0.0), "time of a step in seconds of worker 3: expected above 0, got inf"),
            (good().jitter(1.0), "jitter of worker 3: expected from 0 to below 1, got 1"),
            (good().pareto(1.0), "exponent of the tail of worker 3: expected above 1, got 1"),
            (good().tail(1.5, 2.0), "probability of slow steps of worker 3: expected from 0 to 1, got 1.5"),
            (good().tail(0.5, -1.0), "factor of slow steps of worker 3: expected above 0, got -1"),
            (good().slow(secs(1)..secs(2), 0.0), "factor of a slow phase of worker 3: expected above 0, got 0"),
            (good().slow(secs(2)..secs(2), 2.0), "slow phase of worker 3: it ends at 2s, and begins at 2s"),
        ];
        for (speed, expected) in cases {
            assert_eq!(speed.check(Some(PeerId(3))).unwrap_err().to_string(), expected);
        }
        assert_eq!(good().exponential().slow(secs(1)..secs(2), 0.5).check(None), Ok(()));
        let error = Speed::per_second(-1.0).check(None).unwrap_err().to_string();
        assert_eq!(error, "time of a step in seconds: expected above 0, got -1");
    }
}
