//! [`Recent`]: where the time of a node has gone in the last seconds.

use std::collections::VecDeque;

use gradwire_core::telemetry::Times;

/// Least seconds between two entries.
const INTERVAL: f64 = 0.25;
/// Entries kept: 10 s of a live run.
const ENTRIES_MAX: usize = 41;
/// Seconds over which shares and step times are measured. Shorter spans jump, longer ones hide a change.
const WINDOW: f64 = 4.0;

/// Shares of a span of time, from 0 to 1. They add up to at most 1.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Parts {
    /// The application computes.
    pub(crate) compute: f64,
    /// The application waits, and the node encodes, decodes or applies.
    pub(crate) coding: f64,
    /// The application waits, and a transmission is under way.
    pub(crate) sending: f64,
    /// The application waits for messages of peers.
    pub(crate) waiting: f64,
}

/// The times of a node in its last reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    /// Seconds since the start of the run, and the times up to then.
    entries: VecDeque<(f64, Times)>,
}

impl Recent {
    /// Adds the times of a report `at` seconds after the start of the run.
    pub(crate) fn push(&mut self, at: f64, times: Times) {
        if let Some((last, before)) = self.entries.back() {
            if times.elapsed < before.elapsed || times.steps < before.steps || at < *last {
                self.entries.clear();
            } else if at - last < INTERVAL {
                return;
            }
        }
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back((at, times));
    }

    /// The shares of the last [`WINDOW`]; all 0 until there are two entries.
    pub(crate) fn parts(&self) -> Parts {
        self.window().map_or_else(Parts::default, |(from, to)| Parts::between(from, to))
    }

    /// Milliseconds per step and, of these, computing, over the whole steps of the last [`WINDOW`]. `None` without a
    /// whole step.
    pub(crate) fn step(&self) -> Option<(f64, f64)> {
        let (from, to) = self.window()?;
        let steps = to.steps.saturating_sub(from.steps) as f64;
        let each = |a: u64, b: u64| b.saturating_sub(a) as f64 / 1e6 / steps;
        let step = (each(from.stepped, to.stepped), each(from.stepped_compute, to.stepped_compute));
        (steps > 0.0 && step.0 > 0.0).then_some(step)
    }

    /// The spans between the entries: from and to in seconds since the start of the run, with their shares.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (f64, f64, Parts)> {
        let later = self.entries.iter().skip(1);
        self.entries.iter().zip(later).map(|((from, a), (to, b))| (*from, *to, Parts::between(a, b)))
    }

    /// The first and the last entry of the window. Reports of a log's past are far apart: two of them are enough.
    fn window(&self) -> Option<(&Times, &Times)> {
        let (end, to) = self.entries.back()?;
        let mut earlier = self.entries.iter().take(self.entries.len() - 1);
        let mut inside = earlier.clone().skip_while(|(at, _)| end - at > WINDOW);
        let (_, from) = inside.next().or_else(|| earlier.next_back())?;
        Some((from, to))
    }
}

impl Parts {
    /// The shares between two reports. Numbers of reports are not trusted: the sum is at most 1.
    pub(crate) fn between(a: &Times, b: &Times) -> Self {
        let kernels = |t: &Times| t.encode.saturating_add(t.decode).saturating_add(t.apply);
        let span = b.elapsed.saturating_sub(a.elapsed).max(1) as f64;
        let share = |from: u64, to: u64, most: f64| (to.saturating_sub(from) as f64 / span).clamp(0.0, most);
        let compute = share(a.compute, b.compute, 1.0);
        // A server has no application: time without kernels and transmissions is waiting.
        let wait = match share(a.wait, b.wait, 1.0 - compute) {
            wait if compute + wait > 0.0 => wait,
            _ => 1.0,
        };
        // Kernels and transmissions that overlap computing cost no time.
        let coding = share(kernels(a), kernels(b), wait);
        let sending = share(a.wire, b.wire, wait - coding);
        Self { compute, coding, sending, waiting: wait - coding - sending }
    }

    /// The share in which the application waits: for kernels, transmissions or peers.
    pub(crate) fn waits(&self) -> f64 {
        self.coding + self.sending + self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(seconds: f64, steps: u64) -> Times {
        let of = |share: f64| (seconds * share * 1e9) as u64;
        let (elapsed, stepped) = (of(1.0), of(1.0));
        let (compute, stepped_compute) = (of(0.5), of(0.5));
        let (wait, encode, wire) = (of(0.5), of(0.1), of(0.2));
        Times { elapsed, steps, stepped, stepped_compute, compute, encode, wait, wire, ..Times::default() }
    }

    #[test]
    fn the_shares_of_a_window_are_those_of_the_times() {
        let mut recent = Recent::default();
        assert_eq!((recent.parts(), recent.step()), (Parts::default(), None));
        (0..100u64).for_each(|k| recent.push(k as f64 / 4.0, times(k as f64 / 4.0, 10 * k)));
        let parts = recent.parts();
        for (share, expected) in [(parts.compute, 0.5), (parts.coding, 0.1), (parts.sending, 0.2), (parts.waiting, 0.2)]
        {
            assert!((share - expected).abs() < 1e-6, "{parts:?}");
        }
        let (step, compute) = recent.step().unwrap();
        assert!((step - 25.0).abs() < 1e-6 && (compute - 12.5).abs() < 1e-6, "{step} {compute}");
        assert_eq!(recent.spans().count(), ENTRIES_MAX - 1);
        // A server neither computes nor waits in an application.
        let server = |seconds: f64| Times { compute: 0, wait: 0, ..times(seconds, 0) };
        let parts = Parts::between(&server(1.0), &server(2.0));
        assert!((parts.coding - 0.1).abs() < 1e-6 && (parts.waiting - 0.7).abs() < 1e-6, "{parts:?}");
        // A restarted process begins anew.
        recent.push(26.0, times(0.0, 0));
        assert_eq!((recent.parts(), recent.spans().count()), (Parts::default(), 0));
    }
}
