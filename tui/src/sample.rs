//! [`Sample`]: measurements between two reports of a node, and [`History`]: the samples since the start of the run.

use std::collections::VecDeque;

use gradwire_core::telemetry::{Report, Stage};

/// Samples kept of a node. When a history is full, every other sample is dropped and the interval doubles, so it
/// always reaches back to the start of the run.
pub(crate) const SAMPLES_MAX: usize = 512;
/// Initial seconds between two samples of a history.
const SAMPLE_INTERVAL: f64 = 0.25;
/// Least seconds over which a rate is measured. Nodes report every 0.1 s, which alone would make rates jump.
const RATE_SPAN: f64 = 0.4;

/// Measurements of a node, or of all nodes, at one time.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// Seconds since the start of the run.
    pub(crate) at: f64,
    /// Examples per second, over whole steps.
    pub(crate) examples: f64,
    /// Bytes sent per second.
    pub(crate) bytes_out: f64,
    /// Bytes received per second.
    pub(crate) bytes_in: f64,
    /// Share of the elements in encoded updates.
    pub(crate) density: f64,
    /// Threshold of the last encoded update.
    pub(crate) tau: f64,
    /// Norm of the residual.
    pub(crate) residual: f64,
    /// Milliseconds per step, over whole steps.
    pub(crate) step: f64,
    /// Milliseconds of a step in which the application computes.
    pub(crate) compute: f64,
    /// Share of the time that the application waits, 0 to 1. A wait under way counts.
    pub(crate) wait: f64,
    /// Share of the time in which the node encodes, decodes and applies, 0 to 1: how busy a server is.
    pub(crate) busy: f64,
    /// Training loss, as the application has reported it. NaN if it has not.
    pub(crate) loss: f64,
    /// Accuracy, 0 to 1, as the application has reported it. NaN if it has not.
    pub(crate) accuracy: f64,
    /// Bytes sent, divided by the bytes of the same messages as plain f32.
    pub(crate) ratio: f64,
}

impl Default for Sample {
    fn default() -> Self {
        let [at, examples, bytes_out, bytes_in, density, tau, residual, step, compute, wait, busy, ratio] = [0.0; 12];
        let (loss, accuracy) = (f64::NAN, f64::NAN);
        Self {
            at,
            examples,
            bytes_out,
            bytes_in,
            density,
            tau,
            residual,
            step,
            compute,
            wait,
            busy,
            loss,
            accuracy,
            ratio,
        }
    }
}

/// Samples from the start of the run on, of one node or of the whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    /// Least seconds between two samples.
    interval: f64,
}

impl Default for History {
    fn default() -> Self {
        Self { samples: VecDeque::new(), interval: SAMPLE_INTERVAL }
    }
}

impl History {
    pub(crate) fn is_due(&self, at: f64) -> bool {
        let last = self.samples.back().map_or(f64::NEG_INFINITY, |sample| sample.at);
        // The time of reports can run back, in reports of a node that is broken or hostile.
        at - last >= self.interval || at < last
    }

    /// Adds a sample if it is due.
    pub(crate) fn push(&mut self, sample: Sample) {
        if !self.is_due(sample.at) {
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.interval *= 2.0;
        }
        self.samples.push_back(sample);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

/// A number that can be displayed: NaN and infinities become 0, other numbers are clamped.
pub(crate) fn sane(x: f64) -> f64 {
    if x.is_finite() { x.clamp(-1e15, 1e15) } else { 0.0 }
}

/// As [`sane`], but a number that is not finite is NaN, as one that was not reported: it has no place in a curve or a mean.
fn told(x: f32) -> f64 {
    if x.is_finite() { sane(f64::from(x)) } else { f64::NAN }
}

/// Measures a node: the reports from which its next rates are measured.
#[derive(Clone, Debug)]
pub(crate) struct Gauge {
    /// For bytes and shares of time.
    base: Report,
    /// For rates of steps: measured between the ends of two steps, so that no part of a step counts.
    stepped: Report,
    /// The rates of steps, as last measured: examples per second, milliseconds per step, and of these computing.
    rates: [f64; 3],
    /// The steps between which `rates` was measured: numbers of steps done at its beginning and at its end.
    measured: (u64, u64),
    /// The same, of the last sample.
    pub(crate) rate_steps: (u64, u64),
    /// Densities in the reports since `base`, and their number.
    densities: (f64, f64),
}

impl Gauge {
    pub(crate) fn new(report: &Report) -> Self {
        Self {
            base: report.clone(),
            stepped: report.clone(),
            rates: [0.0; 3],
            measured: (0, 0),
            rate_steps: (0, 0),
            densities: (0.0, 0.0),
        }
    }

    /// Takes the next report of the node. Returns a new sample if enough time has passed, given the last one.
    pub(crate) fn take(&mut self, report: &Report, at: f64, last: &Sample) -> Option<Sample> {
        let (base, times) = (&self.base, &report.times);
        // A restarted node counts from 0 again: no rate can be measured across a restart. Counters can also fall in
        // reports of a node that is broken or hostile.
        let restarted = report.incarnation != base.incarnation
            || times.elapsed < base.times.elapsed
            || times.steps < base.times.steps
            || report.at < base.at
            || report.status.bytes_out() < base.status.bytes_out();
        if restarted {
            *self = Self::new(report);
            return Some(Sample { at, ..Sample::default() });
        }
        self.densities = (self.densities.0 + sane(report.status.density), self.densities.1 + 1.0);
        self.measure_steps(report);
        let span = nanos(times.elapsed.saturating_sub(self.base.times.elapsed));
        if span < RATE_SPAN && !report.stage.is_over() {
            return None;
        }
        let sample = self.sample(report, at, span, last);
        self.rate_steps = self.measured;
        (self.base, self.densities) = (report.clone(), (0.0, 0.0));
        Some(sample)
    }

    fn measure_steps(&mut self, report: &Report) {
        let (from, to) = (&self.stepped.times, &report.times);
        let span = nanos(to.stepped.saturating_sub(from.stepped));
        let steps = to.steps.saturating_sub(from.steps) as f64;
        if steps < 1.0 || span < RATE_SPAN {
            return;
        }
        let examples = report.progress.examples.saturating_sub(self.stepped.progress.examples) as f64;
        let compute = nanos(to.stepped_compute.saturating_sub(from.stepped_compute));
        self.rates = [sane(examples / span), sane(1e3 * span / steps), sane(1e3 * compute / steps)];
        self.measured = (from.steps, to.steps);
        self.stepped = report.clone();
    }

    /// The measurements between two reports that are `span` seconds apart.
    fn sample(&self, to: &Report, at: f64, span: f64, last: &Sample) -> Sample {
        if to.stage.is_over() {
            // The last messages say nothing about the run.
            let [examples, bytes_out, bytes_in, wait, busy] = [0.0; 5];
            let (loss, accuracy) = (told(to.progress.loss), told(to.progress.accuracy));
            return Sample { at, examples, bytes_out, bytes_in, wait, busy, loss, accuracy, ..*last };
        }
        let from = &self.base;
        let grown = |a: u64, b: u64| b.saturating_sub(a) as f64;
        let (a, b) = (&from.status, &to.status);
        let compute = grown(from.times.compute, to.times.compute);
        let wait = grown(from.times.wait, to.times.wait);
        let kernels = |report: &Report| {
            let times = &report.times;
            times.encode.saturating_add(times.decode).saturating_add(times.apply)
        };
        let sent = grown(a.bytes_out(), b.bytes_out());
        let dense = grown(a.counters.dense_bytes, b.counters.dense_bytes);
        let [examples, step, computing] = self.rates;
        // Since the last step. A step that takes longer than two of the last ones slows the rate down while it lasts, once
        // it takes longer than the span over which rates are measured: a single late step is no slower rate.
        let since = 1e3 * nanos(to.times.elapsed.saturating_sub(to.times.stepped));
        let slowed = if step > 0.0 && since > (2.0 * step).max(1e3 * RATE_SPAN) { step / since } else { 1.0 };
        let (densities, reports) = self.densities;
        let measured = Sample {
            at,
            examples: examples * slowed,
            bytes_out: sane(sent / span),
            bytes_in: sane(grown(a.bytes_in(), b.bytes_in()) / span),
            density: if reports > 0.0 { sane(densities / reports) } else { 0.0 },
            tau: sane(b.tau),
            residual: sane(b.residual_norm),
            step,
            compute: computing,
            wait: if compute + wait > 0.0 { sane(wait / (compute + wait)) } else { 0.0 },
            busy: sane(nanos(kernels(to).saturating_sub(kernels(from))) / span).clamp(0.0, 1.0),
            loss: told(to.progress.loss),
            accuracy: told(to.progress.accuracy),
            ratio: if dense > 0.0 { sane(sent / dense) } else { last.ratio },
        };
        match to.stage {
            // Its last messages carry what was left, which says nothing about the run.
            Stage::Leaving => {
                let Sample { density, tau, ratio, .. } = *last;
                Sample { examples: 0.0, density, tau, ratio, ..measured }
            }
            _ => measured,
        }
    }
}

/// Nanoseconds in seconds.
fn nanos(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
