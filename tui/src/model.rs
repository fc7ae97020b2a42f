//! What is known of a cluster, made from frames alone: live, replayed and simulated runs look the same.
//!
//! Everything is bounded: nodes by what a log may tell of, samples per node by [`SAMPLES`], notes by [`NOTES`].

use std::collections::{BTreeMap, VecDeque};

use gradwire_core::telemetry::{Frame, NODES_MAX, Note, Report, Run, printable};
use gradwire_core::{Instant, PeerId};

/// Samples kept of a node. When they are all taken, every other is dropped and the next ones come half as often: so they
/// reach back to the beginning, however long that is.
pub(crate) const SAMPLES: usize = 512;
/// Notes kept.
pub(crate) const NOTES: usize = 2000;
/// Silence after which a node is suspect.
pub(crate) const SILENCE: f64 = 1.5;

/// Numbers of a node at a moment.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(crate) at: f64,
    pub(crate) examples: f64,
    pub(crate) bytes_out: f64,
    pub(crate) bytes_in: f64,
    pub(crate) density: f64,
    pub(crate) tau: f64,
    pub(crate) residual: f64,
    /// Milliseconds of a step.
    pub(crate) step: f64,
    /// Share of the time that the application waits.
    pub(crate) wait: f64,
    pub(crate) loss: f64,
    pub(crate) accuracy: f64,
    /// Bytes sent, of what plain floats would take.
    pub(crate) ratio: f64,
}

/// Samples from the beginning on.
#[derive(Clone, Debug)]
pub(crate) struct Past {
    samples: VecDeque<Sample>,
    /// Seconds between two.
    every: f64,
}

impl Default for Past {
    fn default() -> Self {
        Self { samples: VecDeque::new(), every: 0.25 }
    }
}

impl Past {
    fn is_due(&self, at: f64) -> bool {
        let last = self.samples.back().map_or(f64::NEG_INFINITY, |sample| sample.at);
        at - last >= self.every || at < last
    }

    fn push(&mut self, sample: Sample) {
        if !self.is_due(sample.at) {
            return;
        }
        if self.samples.len() == SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.every *= 2.0;
        }
        self.samples.push_back(sample);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct NodeView {
    pub(crate) report: Report,
    pub(crate) host: String,
    pub(crate) now: Sample,
    pub(crate) history: Past,
    /// The report that rates are counted from.
    from: Report,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) run: Run,
    pub(crate) nodes: BTreeMap<u32, NodeView>,
    pub(crate) notes: VecDeque<Note>,
    /// All nodes together: rates added up, the rest on average over those that tell it.
    pub(crate) history: Past,
    /// The latest moment that was told of.
    pub(crate) now: Instant,
    /// Frames taken.
    pub(crate) frames: u64,
}

/// A moment in seconds.
pub(crate) fn seconds(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// A number that can be shown and drawn: what is none is 0, what is absurd is cut.
pub(crate) fn sane(x: f64) -> f64 {
    if x.is_finite() { x.clamp(-1e15, 1e15) } else { 0.0 }
}

impl Model {
    /// Takes what was told.
    pub(crate) fn take(&mut self, frame: Frame) {
        self.frames += 1;
        match frame {
            Frame::Run(run) => self.run = Run { recipe: printable(&run.recipe, 1000), ..run },
            Frame::Report(report) => self.report(report),
            Frame::Note(note) => {
                self.now = self.now.max(note.at);
                if self.notes.len() == NOTES {
                    self.notes.pop_front();
                }
                self.notes.push_back(note);
            }
        }
    }

    fn report(&mut self, report: Report) {
        // All have said how they are by then.
        let known = self.nodes.values().any(|node| node.history.iter().next().is_some());
        if known && report.at > self.now && self.history.is_due(seconds(self.now)) {
            let together = self.together();
            self.history.push(together);
        }
        self.now = self.now.max(report.at);
        let rank = report.status.me.0;
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&rank) {
            return;
        }
        match self.nodes.get_mut(&rank) {
            Some(node) => node.update(report),
            None => {
                let (host, from) = (printable(&report.host, 64), report.clone());
                let now = Sample { at: seconds(report.at), ..Sample::default() };
                self.nodes.insert(rank, NodeView { report, host, now, history: Past::default(), from });
            }
        }
    }

    /// All nodes as they are now, as one.
    fn together(&self) -> Sample {
        let mean = |of: fn(&Sample) -> f64| {
            let told = self.nodes.values().map(|node| of(&node.now)).filter(|x| *x > 0.0);
            let (sum, count) = told.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
            if count > 0.0 { sum / count } else { 0.0 }
        };
        Sample {
            at: seconds(self.now),
            examples: self.total(|node| node.now.examples),
            bytes_out: self.total(|node| node.now.bytes_out),
            bytes_in: self.total(|node| node.now.bytes_in),
            density: mean(|s| s.density),
            tau: mean(|s| s.tau),
            residual: mean(|s| s.residual),
            step: mean(|s| s.step),
            wait: mean(|s| s.wait),
            loss: mean(|s| s.loss),
            accuracy: mean(|s| s.accuracy),
            ratio: mean(|s| s.ratio),
        }
    }

    /// How long ago a node was heard of, in seconds.
    pub(crate) fn silence(&self, node: &NodeView) -> f64 {
        seconds(self.now) - seconds(node.report.at)
    }

    /// Has a node ended in good order?
    pub(crate) fn has_left(&self, rank: u32) -> bool {
        use gradwire_core::telemetry::NoteKind;
        let ends = |note: &&Note| {
            note.rank == PeerId(rank) && matches!(note.kind, NoteKind::Left | NoteKind::Finished | NoteKind::Joined)
        };
        self.notes.iter().rev().find(ends).is_some_and(|note| note.kind != NoteKind::Joined)
    }

    /// A sum over all nodes; of none, 0.0 (`sum` would say -0.0).
    pub(crate) fn total(&self, of: impl Fn(&NodeView) -> f64) -> f64 {
        self.nodes.values().map(of).fold(0.0, |sum, x| sum + x)
    }

    /// The least clock of those that have not ended, of workers.
    pub(crate) fn slowest(&self) -> Option<(u32, u64)> {
        let clock = |node: &NodeView| node.report.status.clock.0;
        let workers = self.nodes.iter().filter(|(rank, _)| **rank < self.run.workers.max(1) && !self.has_left(**rank));
        workers.map(|(rank, node)| (*rank, clock(node))).min_by_key(|(_, clock)| *clock)
    }
}

impl NodeView {
    fn update(&mut self, report: Report) {
        // A node that started anew counts from 0 again, and time may run back: rates begin anew then.
        let anew = report.at < self.from.at
            || report.times.steps < self.from.times.steps
            || report.status.bytes_out() < self.from.status.bytes_out();
        if anew {
            self.from = report.clone();
        }
        let span = seconds(report.at) - seconds(self.from.at);
        if span >= 0.4 {
            self.now = sample(&self.from, &report, span);
            self.history.push(self.now);
            self.from = report.clone();
        }
        self.report = report;
    }

    /// Where the time of a step goes, in milliseconds per step since the beginning: computing, encoding, decoding, applying, and
    /// the rest of what the application waits.
    pub(crate) fn breakdown(&self) -> [(&'static str, f64); 5] {
        let times = self.report.times;
        let steps = times.steps.max(1) as f64;
        let each = |nanos: u64| sane(nanos as f64 / 1e6 / steps);
        let kernels = each(times.encode) + each(times.decode) + each(times.apply);
        [
            ("compute", each(times.compute)),
            ("encode", each(times.encode)),
            ("decode", each(times.decode)),
            ("apply", each(times.apply)),
            ("network, others", (each(times.wait) - kernels).max(0.0)),
        ]
    }
}

fn sample(from: &Report, to: &Report, span: f64) -> Sample {
    let rate = |a: u64, b: u64| sane(b.saturating_sub(a) as f64 / span);
    let (a, b) = (&from.status, &to.status);
    let steps = to.times.steps.saturating_sub(from.times.steps);
    let busy = to.times.compute.saturating_sub(from.times.compute) as f64;
    let wait = to.times.wait.saturating_sub(from.times.wait) as f64;
    let sent = b.bytes_out().saturating_sub(a.bytes_out()) as f64;
    let dense = b.counters.dense_bytes.saturating_sub(a.counters.dense_bytes) as f64;
    Sample {
        at: seconds(to.at),
        examples: rate(from.progress.examples, to.progress.examples),
        bytes_out: rate(a.bytes_out(), b.bytes_out()),
        bytes_in: rate(a.bytes_in(), b.bytes_in()),
        density: sane(b.density),
        tau: sane(b.tau),
        residual: sane(b.residual_norm),
        step: if steps > 0 { sane((busy + wait) / 1e6 / steps as f64) } else { 0.0 },
        wait: if busy + wait > 0.0 { sane(wait / (busy + wait)) } else { 0.0 },
        loss: sane(f64::from(to.progress.loss)),
        accuracy: sane(f64::from(to.progress.accuracy)),
        ratio: if dense > 0.0 { sane(sent / dense) } else { 0.0 },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gradwire_core::status::{Counters, Histogram, LinkStatus, Role};
    use gradwire_core::telemetry::{Progress, Times};
    use gradwire_core::{Clock, Status};

    pub(crate) fn report(rank: u32, at: f64, steps: u64) -> Report {
        let link = LinkStatus {
            peer: PeerId(rank + 1),
            bytes_out: steps * 1000,
            bytes_in: steps * 500,
            messages_out: steps,
            messages_in: steps,
            last_heard: None,
            response_ns: 1_500_000,
        };
        let status = Status {
            me: PeerId(rank),
            role: Role::Worker,
            clock: Clock(steps),
            waiting: None,
            counters: Counters { dense_bytes: steps * 10_000, ..Counters::default() },
            staleness: Histogram::default(),
            workers: Vec::new(),
            links: vec![link],
            residual_norm: 0.5,
            density: 0.01,
            tau: 0.001,
            clipped: 0.0,
            operations: 1,
            updates: 0,
            view: 0,
            members: 0,
        };
        let times = Times { steps, compute: steps * 6_000_000, wait: steps * 4_000_000, ..Times::default() };
        let progress = Progress { loss: 1.0, accuracy: 0.5, examples: steps * 16 };
        Report { at: Instant::from_nanos((at * 1e9) as u64), host: "a\u{1b}[2Jb".into(), status, times, progress }
    }

    #[test]
    fn rates_follow_from_reports() {
        let mut model = Model::default();
        for k in 0..30 {
            model.take(Frame::Report(report(0, 0.1 * f64::from(k), 10 * k as u64)));
        }
        let node = &model.nodes[&0];
        assert!((node.now.examples - 1600.0).abs() < 1.0, "{:?}", node.now);
        assert!((node.now.step - 10.0).abs() < 0.1 && (node.now.wait - 0.4).abs() < 0.01, "{:?}", node.now);
        assert!((node.now.ratio - 0.1).abs() < 1e-9 && node.host == "a[2Jb");
    }

    /// However long it runs, and whatever it is told, the past of a node is so many samples.
    #[test]
    fn history_is_bounded() {
        let mut model = Model::default();
        for k in 0..100_000u64 {
            // Time that runs back and counters that fall, now and then.
            let at = if k % 997 == 0 { 1.0 } else { k as f64 };
            model.take(Frame::Report(report(0, at, if k % 1009 == 0 { 0 } else { k })));
        }
        let node = &model.nodes[&0];
        let past = node.history.iter().count();
        assert!(past <= SAMPLES && past > SAMPLES / 4 && model.history.iter().count() <= SAMPLES);
        for rank in 0..3000 {
            model.take(Frame::Report(report(rank, 1.0, 1)));
        }
        assert_eq!(model.nodes.len(), NODES_MAX);
    }
}
