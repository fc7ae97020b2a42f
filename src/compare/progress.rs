//! [`Progress`]: how far a comparison is, and [`Meter`], which estimates the time that is left.

use std::time::{Duration, Instant};

/// The progress of a comparison.
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// Number of all runs, of the tuning and of the comparison.
    pub runs: usize,
    /// Number of runs that have ended, with those that were known before.
    pub ended: usize,
    /// Number of runs that were known before.
    pub known: usize,
    /// The name of the row of this run.
    pub row: &'a str,
    /// The run tunes settings.
    pub is_tuning: bool,
    /// An estimate of the real time until all runs have ended. `None`: there is nothing to estimate it from.
    pub left: Option<Duration>,
    /// The line of the results of a run that has just ended, with its end. It counts as known when it is read again.
    pub line: Option<&'a str>,
}

/// Counts examples, which cost about the same real time in every run.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) runs: usize,
    pub(super) ended: usize,
    pub(super) known: usize,
    /// Examples of all runs that are not known.
    total: u64,
    /// Examples of the runs that have ended.
    done: u64,
    started: Instant,
}

impl Meter {
    pub(super) fn new(runs: usize, total: u64) -> Self {
        Self { runs, ended: 0, known: 0, total, done: 0, started: Instant::now() }
    }

    /// A run of so many examples was known before.
    pub(super) fn is_known(&mut self, examples: u64) {
        self.known += 1;
        self.ended += 1;
        self.total = self.total.saturating_sub(examples);
    }

    /// A run of so many examples has ended.
    pub(super) fn has_ended(&mut self, examples: u64) {
        self.ended += 1;
        self.done += examples;
    }

    /// The time that is left, with so many examples of the runs that are under way.
    pub(super) fn left(&self, under_way: u64) -> Option<Duration> {
        left(self.started.elapsed(), self.done + under_way, self.total)
    }
}

fn left(elapsed: Duration, done: u64, total: u64) -> Option<Duration> {
    let rest = total.saturating_sub(done) as f64;
    (done > 0).then(|| elapsed.mul_f64(rest / done as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_examples_so_far() {
        let minute = Duration::from_secs(60);
        assert_eq!(left(minute, 0, 100), None);
        assert_eq!(left(minute, 25, 100), Some(3 * minute));
        assert_eq!(left(minute, 200, 100), Some(Duration::ZERO));
    }
}
