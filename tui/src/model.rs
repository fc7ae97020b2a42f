//! [`Model`]: the state of a cluster, built from frames.
//!
//! Frames are the only input, so live runs, recordings and simulations look the same. Frames come from other machines
//! and are not trusted: texts are cleaned, numbers are clamped, and all storage is bounded (nodes by [`NODES_MAX`],
//! samples per node by [`SAMPLES_MAX`], notes by [`NOTES_MAX`]).

use std::collections::{BTreeMap, VecDeque};

use gradwire_core::telemetry::{Frame, NODES_MAX, Note, NoteKind, Report, Run, printable};
use gradwire_core::{Instant, PeerId, RunId};

use crate::rates;

/// Samples kept of a node. When a history is full, every other sample is dropped and the interval doubles, so it
/// always reaches back to the start of the run.
pub(crate) const SAMPLES_MAX: usize = 512;
/// Notes kept. The oldest are dropped.
pub(crate) const NOTES_MAX: usize = 2000;
/// A node without a report for this many seconds is silent, and suspected to have failed.
pub(crate) const SILENT_AFTER: f64 = 1.5;
/// Initial seconds between two samples of a history.
const SAMPLE_INTERVAL: f64 = 0.25;
/// Least seconds over which a rate is measured. Nodes report every 0.1 s, which alone would make rates jump.
const RATE_SPAN: f64 = 0.4;

/// Measurements of a node, or of all nodes, at one time.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Seconds since the start of the run.
    pub(crate) at: f64,
    /// Examples per second.
    pub(crate) examples: f64,
    /// Bytes sent per second.
    pub(crate) bytes_out: f64,
    /// Bytes received per second.
    pub(crate) bytes_in: f64,
    /// Share of the elements in the last encoded update.
    pub(crate) density: f64,
    /// Threshold of the last encoded update.
    pub(crate) tau: f64,
    /// Norm of the residual.
    pub(crate) residual: f64,
    /// Milliseconds per step.
    pub(crate) step: f64,
    /// Share of the time that the application waits, 0 to 1.
    pub(crate) wait: f64,
    /// Training loss, as the application has reported it.
    pub(crate) loss: f64,
    /// Accuracy, 0 to 1, as the application has reported it.
    pub(crate) accuracy: f64,
    /// Bytes sent, divided by the bytes of the same messages as plain f32.
    pub(crate) ratio: f64,
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
    fn is_due(&self, at: f64) -> bool {
        let last = self.samples.back().map_or(f64::NEG_INFINITY, |sample| sample.at);
        // The time of reports can run back when a node restarts.
        at - last >= self.interval || at < last
    }

    /// Adds a sample if it is due.
    fn push(&mut self, sample: Sample) {
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

/// A node of the cluster, as its reports describe it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The node's last report.
    pub(crate) report: Report,
    /// Display name of the node's machine, cleaned of control characters.
    pub(crate) host: String,
    /// The node's latest measurements.
    pub(crate) now: Sample,
    pub(crate) history: History,
    /// Bytes sent per second, by peer.
    pub(crate) link_rates: BTreeMap<u32, f64>,
    /// The report from which the next rates are measured.
    base: Report,
}

/// The state of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) run: Run,
    /// The nodes by rank.
    pub(crate) nodes: BTreeMap<u32, Node>,
    /// Notes in the order in which they came.
    pub(crate) notes: VecDeque<Note>,
    /// The cluster as a whole: rates are sums over the nodes, all else is the mean over the nodes that report it.
    pub(crate) history: History,
    /// The latest time in any frame.
    pub(crate) now: Instant,
}

/// A time in seconds since the start of the run.
pub(crate) fn seconds(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// A number that can be displayed: NaN and infinities become 0, other numbers are clamped.
pub(crate) fn sane(x: f64) -> f64 {
    if x.is_finite() { x.clamp(-1e15, 1e15) } else { 0.0 }
}

impl Model {
    /// Updates the model with a frame.
    pub(crate) fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Run(run) => {
                // The first frame of a connection. All that the board knows follows, notes included.
                if run.name.is_some_and(|name| self.is_another(name)) {
                    *self = Self::default();
                }
                self.run = Run { recipe: printable(&run.recipe, 1000), ..run };
                self.notes.clear();
            }
            Frame::Report(report) => self.report(report),
            Frame::Note(note) => {
                self.now = self.now.max(note.at);
                if self.notes.len() == NOTES_MAX {
                    self.notes.pop_front();
                }
                self.notes.push_back(note);
            }
        }
    }

    /// Whether this is the name of another run than the one that is shown.
    fn is_another(&self, name: RunId) -> bool {
        // The description may have been made before the name was known.
        let ours = self.run.name.or_else(|| self.nodes.values().find_map(|node| node.report.run));
        ours.is_some_and(|ours| ours != name)
    }

    /// Another board has begun at this time, in the place of one that has ended, such as that of a process that was
    /// restarted. Facts that only the former board knew are gone.
    fn rewind(&mut self, now: Instant) {
        self.now = now;
        self.nodes.retain(|_, node| node.report.at <= now);
        self.notes.retain(|note| note.at <= now);
    }

    fn report(&mut self, report: Report) {
        if report.run.is_some_and(|name| self.is_another(name)) {
            *self = Self { run: Run { name: report.run, ..std::mem::take(&mut self.run) }, ..Self::default() };
        }
        // The time of a board never runs back.
        if self.nodes.get(&report.status.me.0).is_some_and(|node| report.at < node.report.at) {
            self.rewind(report.at);
        }
        // The sample is for the previous time: when a later report comes, all nodes have reported for that time.
        let known = self.nodes.values().any(|node| node.history.iter().next().is_some());
        if known && report.at > self.now && self.history.is_due(seconds(self.now)) {
            let sample = self.cluster_sample();
            self.history.push(sample);
        }
        self.now = self.now.max(report.at);
        // A hostile source could otherwise invent ranks until the memory is full.
        let rank = report.status.me.0;
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&rank) {
            return;
        }
        match self.nodes.get_mut(&rank) {
            Some(node) => node.update(report),
            None => {
                let (host, base) = (printable(&report.host, 64), report.clone());
                let now = Sample { at: seconds(report.at), ..Sample::default() };
                self.nodes.insert(
                    rank,
                    Node { report, host, now, history: History::default(), link_rates: BTreeMap::new(), base },
                );
            }
        }
    }

    /// The measurements of the cluster as a whole.
    fn cluster_sample(&self) -> Sample {
        let mean = |of: fn(&Sample) -> f64| {
            // A node that does not measure something reports 0.
            let known = self.nodes.values().map(|node| of(&node.now)).filter(|x| *x > 0.0);
            let (sum, count) = known.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
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

    /// Seconds since a node's last report.
    pub(crate) fn silence(&self, node: &Node) -> f64 {
        seconds(self.now) - seconds(node.report.at)
    }

    /// True if a node has left or finished, and has not joined again.
    pub(crate) fn has_left(&self, rank: u32) -> bool {
        let ends = |note: &&Note| {
            note.rank == PeerId(rank) && matches!(note.kind, NoteKind::Left | NoteKind::Finished | NoteKind::Joined)
        };
        // The last of these notes decides: a node can leave and join again.
        self.notes.iter().rev().find(ends).is_some_and(|note| note.kind != NoteKind::Joined)
    }

    /// A sum over all nodes.
    pub(crate) fn total(&self, of: impl Fn(&Node) -> f64) -> f64 {
        // `Iterator::sum` of no floats is -0.0, which would be displayed as "-0".
        self.nodes.values().map(of).fold(0.0, |sum, x| sum + x)
    }

    /// The worker with the least clock among the ones that have not left: rank and clock.
    pub(crate) fn slowest(&self) -> Option<(u32, u64)> {
        let clock = |node: &Node| node.report.status.clock.0;
        // The description of the run may be missing. Rank 0 is always a worker.
        let workers = self.nodes.iter().filter(|(rank, _)| **rank < self.run.workers.max(1) && !self.has_left(**rank));
        workers.map(|(rank, node)| (*rank, clock(node))).min_by_key(|(_, clock)| *clock)
    }
}

impl Node {
    fn update(&mut self, report: Report) {
        // A restarted node counts from 0 again, and its time may run back: no rate can be measured across a restart.
        let restarted = report.incarnation != self.base.incarnation
            || report.at < self.base.at
            || report.times.steps < self.base.times.steps
            || report.status.bytes_out() < self.base.status.bytes_out();
        if restarted {
            self.base = report.clone();
        }
        let span = seconds(report.at) - seconds(self.base.at);
        if span >= RATE_SPAN {
            self.now = sample(&self.base, &report, span);
            self.history.push(self.now);
            self.link_rates = rates::of_links(&self.base, &report, span);
            self.base = report.clone();
        }
        self.report = report;
    }

    /// Mean milliseconds per step since the start of the node, by activity. The last entry is the rest of the time that
    /// the application waits.
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
            ("network, peers", (each(times.wait) - kernels).max(0.0)),
        ]
    }
}

/// The measurements between two reports that are `span` seconds apart.
fn sample(from: &Report, to: &Report, span: f64) -> Sample {
    // Counters can fall, in reports of a node that is broken or hostile.
    let rate = |a: u64, b: u64| sane(b.saturating_sub(a) as f64 / span);
    let (a, b) = (&from.status, &to.status);
    let steps = to.times.steps.saturating_sub(from.times.steps);
    let compute = to.times.compute.saturating_sub(from.times.compute) as f64;
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
        step: if steps > 0 { sane((compute + wait) / 1e6 / steps as f64) } else { 0.0 },
        wait: if compute + wait > 0.0 { sane(wait / (compute + wait)) } else { 0.0 },
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
    use gradwire_core::{Clock, Incarnation, Status};

    /// A worker's report `at` seconds after the start: a step takes 6 ms to compute and 4 ms of waiting.
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
            residual_updates: 0.25,
            rest: None,
            density: 0.01,
            tau: 0.001,
            clipped: 0.0,
            forgotten: 0.0,
            times: Times::default(),
            operations: 1,
            updates: 0,
            view: 0,
            members: 0,
        };
        let times = Times { steps, compute: steps * 6_000_000, wait: steps * 4_000_000, ..Times::default() };
        let progress = Progress { loss: 1.0, accuracy: 0.5, examples: steps * 16 };
        Report {
            at: Instant::from_nanos((at * 1e9) as u64),
            host: "a\u{1b}[2Jb".into(),
            run: None,
            incarnation: Incarnation(1),
            status,
            times,
            progress,
        }
    }

    #[test]
    fn rates_are_differences_between_reports() {
        let mut model = Model::default();
        for k in 0..30 {
            model.take(Frame::Report(report(0, 0.1 * f64::from(k), 10 * k as u64)));
        }
        let node = &model.nodes[&0];
        assert!((node.now.examples - 1600.0).abs() < 1.0, "{:?}", node.now);
        assert!((node.now.step - 10.0).abs() < 0.1 && (node.now.wait - 0.4).abs() < 0.01, "{:?}", node.now);
        assert!((node.now.ratio - 0.1).abs() < 1e-9 && node.host == "a[2Jb");
    }

    /// A run of two nodes is followed by another one. Its board begins at time 0 again.
    #[test]
    fn a_restarted_run_does_not_look_silent() {
        let silent = |model: &Model| model.nodes.values().filter(|node| model.silence(node) >= SILENT_AFTER).count();
        let of_run = |name: Option<&str>| Run { name: name.map(|name| name.parse().unwrap()), ..Run::default() };
        // With and without a name; in another run, and in the same one, in which the first process was restarted.
        for names in [[None, None], [Some("one"), Some("two")], [Some("one"), Some("one")]] {
            let [one, two] = names.map(of_run);
            let mut model = Model::default();
            let by = |run: &Run, rank, at, steps| Frame::Report(Report { run: run.name, ..report(rank, at, steps) });
            model.take(Frame::Run(one.clone()));
            for rank in 0..3 {
                model.take(by(&one, rank, 100.0, 1000));
            }
            let lost = Note { at: model.now, rank: PeerId(0), kind: NoteKind::PeerLost, peer: PeerId(2), number: 0 };
            model.take(Frame::Note(lost));
            model.take(Frame::Run(two.clone()));
            for rank in 0..2 {
                model.take(by(&two, rank, 0.1, 1));
            }
            assert_eq!((silent(&model), model.nodes.len(), model.notes.len()), (0, 2, 0), "{names:?}");
            // A node of the new run that falls silent is seen at once, and not when the run is as old as the former.
            model.take(by(&two, 0, 3.0, 30));
            assert_eq!(silent(&model), 1, "{names:?}");
        }
        // The name can be known later than the description.
        let mut model = Model::default();
        let by = |name: &str, rank, at| Report { run: Some(name.parse().unwrap()), ..report(rank, at, 9) };
        model.take(Frame::Run(of_run(None)));
        model.take(Frame::Report(by("one", 0, 5.0)));
        model.take(Frame::Report(by("one", 1, 5.0)));
        model.take(Frame::Run(of_run(None)));
        model.take(Frame::Report(by("two", 0, 7.0)));
        assert_eq!(model.nodes.len(), 1);
    }

    /// A connection that breaks and is made again brings the same notes once more.
    #[test]
    fn notes_are_not_doubled_by_a_new_connection() {
        let mut model = Model::default();
        let note =
            Note { at: Instant::from_nanos(0), rank: PeerId(0), kind: NoteKind::Joined, peer: PeerId(0), number: 0 };
        for _ in 0..2 {
            model.take(Frame::Run(Run::default()));
            model.take(Frame::Report(report(0, 1.0, 1)));
            model.take(Frame::Note(note));
        }
        assert_eq!((model.notes.len(), model.nodes.len()), (1, 1));
    }

    /// A process that comes back counts from 0 again: no rate is measured across that.
    #[test]
    fn a_new_incarnation_is_another_process() {
        let mut model = Model::default();
        model.take(Frame::Report(report(0, 1.0, 10)));
        // It has taken more steps since than the former process had.
        let again = Report { incarnation: Incarnation(2), ..report(0, 2.0, 5000) };
        model.take(Frame::Report(again));
        assert_eq!(model.nodes[&0].now.examples, 0.0);
    }

    /// Histories and nodes stay within their bounds, also when times and counters run back.
    #[test]
    fn histories_and_nodes_are_bounded() {
        let mut model = Model::default();
        for k in 0..100_000u64 {
            let at = if k % 997 == 0 { 1.0 } else { k as f64 };
            model.take(Frame::Report(report(0, at, if k % 1009 == 0 { 0 } else { k })));
        }
        let node = &model.nodes[&0];
        let samples = node.history.iter().count();
        assert!(samples <= SAMPLES_MAX && samples > SAMPLES_MAX / 4);
        assert!(model.history.iter().count() <= SAMPLES_MAX);
        for rank in 0..3000 {
            model.take(Frame::Report(report(rank, 1.0, 1)));
        }
        assert_eq!(model.nodes.len(), NODES_MAX);
    }
}
