//! [`Model`]: the state of a cluster, built from frames.
//!
//! Frames are the only input, so live runs, recordings and simulations look the same; a live source or a playback also
//! tells the time that has passed since the last frame ([`Model::pass`]). Frames come from other machines and are not
//! trusted: texts are cleaned, numbers are clamped, and all storage is bounded (nodes by [`NODES_MAX`], samples per node
//! by [`SAMPLES_MAX`](crate::sample::SAMPLES_MAX), notes by [`NOTES_MAX`]).
//!
//! A node is *live* if its last report describes the present ([`Standing`]). Sums, means and chains of waits cover
//! live nodes.

use std::collections::{BTreeMap, VecDeque};

use gradwire_core::status::Presence;
use gradwire_core::telemetry::{Frame, NODES_MAX, Note, NoteKind, Present, Report, Run, Stage, printable};
use gradwire_core::{Instant, PeerId, RunId};

use crate::arrivals::{Arrivals, has_links};
use crate::rates;
use crate::recent::Recent;
use crate::recipe;
use crate::sample::Gauge;
pub(crate) use crate::sample::{History, Sample, sane};
use crate::standing::Standing;

/// Notes kept. The oldest are dropped.
pub(crate) const NOTES_MAX: usize = 2000;
/// Marks of former logs that are kept among the notes.
const MARKS_MAX: usize = 100;
/// A node without a report for this many seconds is silent, and suspected to have failed.
pub(crate) const SILENT_AFTER: f64 = 1.5;
/// A source without a frame for this many seconds is lost. It sends ten a second, also when there is nothing to tell, so the
/// loss is shown within 2 s also on a busy machine.
pub(crate) const SOURCE_SILENT_AFTER: f64 = 1.2;
/// A worker is a straggler if its steps take so many times the median to compute.
pub(crate) const STRAGGLES: f64 = 1.5;

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
    /// The report from which the next rates of links are measured.
    link_base: Report,
    gauge: Gauge,
    /// Where its time has gone in the last seconds.
    pub(crate) recent: Recent,
    /// The links over which bodies arrive.
    pub(crate) arrivals: Arrivals,
    /// When its process last reported a loss that is a number.
    pub(crate) told_loss: Option<Instant>,
    /// Seconds between its last two reports.
    gap: f64,
}

/// The state of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) run: Run,
    /// The recipe of the run by its short name.
    pub(crate) recipe: String,
    /// The nodes by rank.
    pub(crate) nodes: BTreeMap<u32, Node>,
    /// Notes in the order in which they came, with a mark where another log began.
    pub(crate) notes: VecDeque<Note>,
    /// The cluster as a whole: rates are sums over the live nodes, all else is the mean over the nodes that report it.
    pub(crate) history: History,
    /// The present: the latest time in any frame, and the time that has passed since that frame came.
    pub(crate) now: Instant,
    /// The latest time in any frame, and of any report.
    heard: Instant,
    reported: Instant,
    /// The start of the board. 0: not known.
    start: u64,
    /// The former reports of a board are being read.
    reads_past: bool,
    /// The run whose picture was given up for this one, until this one's name is known.
    former: Option<RunId>,
    /// By rank: when a peer last said that it has given this node up, and which.
    lost: BTreeMap<u32, (Instant, u32)>,
    /// While the source has no connection: the reason.
    pub(crate) disconnected: Option<String>,
}

/// A time in seconds since the start of the run.
pub(crate) fn seconds(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// The moment of a report, if its loss is a number.
fn told_loss(report: &Report) -> Option<Instant> {
    report.progress.loss.is_finite().then_some(report.at)
}

/// Seconds from one moment to a later one; 0 if it is not later.
fn between(from: Instant, to: Instant) -> f64 {
    to.as_nanos().saturating_sub(from.as_nanos()) as f64 / 1e9
}

impl Model {
    /// Updates the model with a frame.
    pub(crate) fn take(&mut self, frame: Frame) {
        self.disconnected = None;
        match frame {
            Frame::Present(present) => self.present(present),
            Frame::Run(run) => {
                // The first frame of a connection but for the board's present. All that the board knows follows, notes
                // included.
                if run.name.is_some_and(|name| self.is_another(name)) {
                    self.begin_anew();
                }
                self.run = Run { recipe: printable(&run.recipe, 1000), ..run };
                self.recipe = recipe::short(&self.run);
                self.notes.retain(|note| note.kind == NoteKind::AnotherLog);
                self.reads_past = true;
            }
            Frame::Report(report) => self.report(report),
            Frame::Note(note) => {
                self.hear(note.at);
                if note.kind == NoteKind::PeerLost {
                    self.set_lost(note.peer.0, note.at, note.rank.0);
                }
                self.push_note(note);
            }
        }
    }

    /// So many seconds have passed since the last frame came.
    pub(crate) fn pass(&mut self, elapsed: f64) {
        self.now = Instant::from_nanos(self.heard.as_nanos().saturating_add((elapsed.max(0.0) * 1e9) as u64));
    }

    /// Seconds since the last frame of the source.
    pub(crate) fn source_silence(&self) -> f64 {
        between(self.heard, self.now)
    }

    fn hear(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
        self.now = self.now.max(at);
    }

    fn present(&mut self, Present { at, start }: Present) {
        if self.start != 0 && self.start != start {
            self.begin_anew();
        }
        (self.start, self.reads_past) = (start, false);
        // The time that has passed by this program's clock is replaced by the board's.
        self.heard = self.heard.max(at);
        self.now = self.heard;
    }

    /// Another run or another board has begun in the place of the one that is shown: facts of the former one are gone.
    fn begin_anew(&mut self) {
        let former = self.name();
        let mut notes = std::mem::take(&mut self.notes);
        notes.retain(|note| note.kind == NoteKind::AnotherLog);
        let excess = notes.len().saturating_sub(MARKS_MAX - 1);
        notes.drain(..excess);
        let (at, rank) = (Instant::ORIGIN, PeerId(0));
        notes.push_back(Note { at, rank, kind: NoteKind::AnotherLog, peer: rank, number: 0 });
        let (run, recipe) = (std::mem::take(&mut self.run), std::mem::take(&mut self.recipe));
        *self = Self { notes, former, recipe, start: self.start, run: Run { name: None, ..run }, ..Self::default() };
    }

    fn push_note(&mut self, note: Note) {
        if self.notes.len() == NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }

    fn set_lost(&mut self, rank: u32, at: Instant, by: u32) {
        if (self.lost.len() < NODES_MAX || self.lost.contains_key(&rank))
            && self.lost.get(&rank).is_none_or(|(before, _)| at > *before)
        {
            self.lost.insert(rank, (at, by));
        }
    }

    /// The name of the run, if it is known.
    fn name(&self) -> Option<RunId> {
        // The description may have been made before the name was known.
        self.run.name.or_else(|| self.nodes.values().find_map(|node| node.report.run))
    }

    /// Whether this is the name of another run than the one that is shown.
    fn is_another(&self, name: RunId) -> bool {
        self.name().is_some_and(|ours| ours != name)
    }

    fn report(&mut self, report: Report) {
        if let Some(name) = report.run {
            if self.is_another(name) {
                self.begin_anew();
                self.run.name = Some(name);
            }
            if let Some(former) = self.former.take() {
                let mark = self.notes.iter_mut().rev().find(|note| note.kind == NoteKind::AnotherLog);
                mark.into_iter().for_each(|mark| mark.number = u64::from(former == name));
            }
        }
        let rank = report.status.me.0;
        // The time of a board never runs back: a new connection brings its past once more.
        if self.nodes.get(&rank).is_some_and(|node| report.at < node.report.at) {
            return;
        }
        // The sample is for the previous time: when a later report comes, all nodes have reported for that time.
        let known = self.nodes.values().any(|node| node.history.iter().next().is_some());
        if known && report.at > self.reported && self.history.is_due(seconds(self.reported)) {
            let sample = self.cluster_sample();
            self.history.push(sample);
        }
        self.reported = self.reported.max(report.at);
        self.hear(report.at);
        for worker in report.status.workers.iter().filter(|worker| worker.state == Presence::Lost) {
            self.set_lost(worker.rank.0, report.at, rank);
        }
        // A hostile source could otherwise invent ranks until the memory is full.
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&rank) {
            return;
        }
        match self.nodes.get_mut(&rank) {
            Some(node) => node.update(report),
            None => {
                let (host, gauge) = (printable(&report.host, 64), Gauge::new(&report));
                let now = Sample { at: seconds(report.at), ..Sample::default() };
                let (link_rates, link_base) = (BTreeMap::new(), report.clone());
                let history = History::default();
                let (recent, arrivals) = (Recent::default(), Arrivals::default());
                let (told_loss, gap) = (told_loss(&report), 0.0);
                let mut node =
                    Node { report, host, now, history, link_rates, link_base, gauge, recent, arrivals, told_loss, gap };
                node.arrivals.push(&node.report);
                node.recent.push(seconds(node.report.at), node.report.times);
                self.nodes.insert(rank, node);
            }
        }
    }

    /// The measurements of the cluster as a whole.
    fn cluster_sample(&self) -> Sample {
        // A node that does not measure something reports 0, or NaN if 0 is a measurement.
        let mean = |of: fn(&Sample) -> f64| self.mean(of, |x| x > 0.0).unwrap_or(0.0);
        let told = |of: fn(&Sample) -> f64| self.mean(of, |x| !x.is_nan()).unwrap_or(f64::NAN);
        Sample {
            at: seconds(self.reported),
            examples: self.total(|node| node.now.examples),
            bytes_out: self.total(|node| node.now.bytes_out),
            bytes_in: self.total(|node| node.now.bytes_in),
            density: mean(|s| s.density),
            tau: mean(|s| s.tau),
            residual: mean(|s| s.residual),
            step: mean(|s| s.step),
            compute: mean(|s| s.compute),
            wait: self.worker_mean(|node| node.now.wait),
            busy: mean(|s| s.busy),
            loss: told(|s| s.loss),
            accuracy: told(|s| s.accuracy),
            ratio: mean(|s| s.ratio),
        }
    }

    fn mean(&self, of: fn(&Sample) -> f64, counts: fn(f64) -> bool) -> Option<f64> {
        let known = self.live().map(|(_, node)| of(&node.now)).filter(|x| counts(*x));
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
        (count > 0.0).then(|| sum / count)
    }

    /// Seconds since a node's last report.
    pub(crate) fn silence(&self, node: &Node) -> f64 {
        between(node.report.at, self.now)
    }

    /// For how many seconds a node may be silent because of the source: former reports are few.
    pub(crate) fn patience(&self, node: &Node) -> f64 {
        if self.reads_past { 2.5 * node.gap } else { 0.0 }
    }

    /// The peer that has given a node up, if the node has not reported since then.
    pub(crate) fn lost_by(&self, rank: u32) -> Option<u32> {
        let (at, by) = self.lost.get(&rank)?;
        self.nodes.get(&rank).is_none_or(|node| node.report.at < *at).then_some(*by)
    }

    /// The nodes that peers have given up, with the peer, and that have not reported since then.
    pub(crate) fn given_up(&self) -> impl Iterator<Item = (u32, u32)> {
        self.lost.keys().filter_map(|rank| Some((*rank, self.lost_by(*rank)?)))
    }

    /// True if a node has left or finished, and has not joined again.
    pub(crate) fn has_left(&self, rank: u32) -> bool {
        self.nodes.get(&rank).is_some_and(|node| matches!(node.report.stage, Stage::Left | Stage::Finished))
    }

    /// True if the run has ended well: a node has seen the end, and no worker goes on.
    pub(crate) fn has_ended(&self) -> bool {
        let stage = |stage: Stage| self.nodes.values().any(|node| node.report.stage == stage);
        let goes_on = |(rank, node): (u32, &Node)| {
            self.is_worker(rank) && matches!(node.report.stage, Stage::Joining | Stage::Active)
        };
        let all_left = || self.nodes.keys().all(|rank| self.has_left(*rank));
        !self.nodes.is_empty() && (stage(Stage::Finished) && !self.live().any(goes_on) || all_left())
    }

    /// The description of the run may be missing. Rank 0 is always a worker.
    pub(crate) fn is_worker(&self, rank: u32) -> bool {
        rank < self.run.workers.max(1)
    }

    /// The nodes whose last report describes the present, by rank.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Node)> {
        let live = |(rank, node): &(u32, &Node)| Standing::of(self, *rank, node).is_live();
        self.nodes.iter().map(|(rank, node)| (*rank, node)).filter(live)
    }

    /// A sum over the live nodes, for rates.
    pub(crate) fn total(&self, of: impl Fn(&Node) -> f64) -> f64 {
        // `Iterator::sum` of no floats is -0.0, which would be displayed as "-0".
        self.live().map(|(_, node)| of(node)).fold(0.0, |sum, x| sum + x)
    }

    /// A sum over all nodes, for counts since the start.
    pub(crate) fn sum_of_all(&self, of: impl Fn(&Node) -> f64) -> f64 {
        self.nodes.values().map(of).fold(0.0, |sum, x| sum + x)
    }

    /// The mean over the live workers; 0 without any.
    pub(crate) fn worker_mean(&self, of: impl Fn(&Node) -> f64) -> f64 {
        let workers = self.live().filter(|(rank, _)| self.is_worker(*rank));
        let (sum, count) = workers.fold((0.0, 0.0), |(sum, count), (_, node)| (sum + of(node), count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// The live worker with the least clock: rank and clock.
    pub(crate) fn slowest(&self) -> Option<(u32, u64)> {
        let workers = self.live().filter(|(rank, _)| self.is_worker(*rank));
        workers.map(|(rank, node)| (rank, node.report.status.clock.0)).min_by_key(|(_, clock)| *clock)
    }

    /// The live worker that computes longest, in milliseconds per step, and the median of all.
    pub(crate) fn longest_computing(&self) -> Option<(u32, f64, f64)> {
        let computes = |(rank, node): (u32, &Node)| (node.now.compute > 0.0).then_some((node.now.compute, rank));
        let workers = self.live().filter(|(rank, _)| self.is_worker(*rank));
        let mut times: Vec<(f64, u32)> = workers.filter_map(computes).collect();
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Of an even number the lower one: of two workers, the slower one can be the straggler.
        let (median, _) = *times.get(times.len().saturating_sub(1) / 2)?;
        let (longest, rank) = *times.last()?;
        Some((rank, longest, median))
    }

    /// The worker that holds other workers up by its computing: rank, and how many times the median it computes.
    pub(crate) fn straggler(&self) -> Option<(u32, f64)> {
        let (rank, longest, median) = self.longest_computing()?;
        (longest >= STRAGGLES * median).then(|| (rank, longest / median))
    }

    /// The live server that is busiest: rank, and the share of the time in which it works.
    pub(crate) fn busiest_server(&self) -> Option<(u32, f64)> {
        let servers = self.live().filter(|(rank, _)| !self.is_worker(*rank));
        servers.map(|(rank, node)| (rank, node.now.busy)).max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Node {
    fn update(&mut self, report: Report) {
        self.gap = between(self.report.at, report.at);
        let same = report.incarnation == self.report.incarnation;
        self.told_loss = told_loss(&report).or_else(|| self.told_loss.filter(|_| same));
        // The last messages say nothing about the run.
        if matches!(report.stage, Stage::Joining | Stage::Active) {
            self.recent.push(seconds(report.at), report.times);
            self.arrivals.push(&report);
        }
        if let Some(sample) = self.gauge.take(&report, seconds(report.at), &self.now) {
            self.now = sample;
            self.history.push(sample);
            let span = between(self.link_base.at, report.at);
            if !has_links(&self.link_base) {
                self.link_base = report.clone();
            } else if span > 0.0 {
                self.link_rates = rates::of_links(&self.link_base, &report, span);
                self.link_base = report.clone();
            }
        }
        self.report = report;
    }

    /// The steps between which its rates were measured: numbers of steps done at the beginning and at the end.
    pub(crate) fn rate_steps(&self) -> (u64, u64) {
        self.gauge.rate_steps
    }

    /// Whether its process has told a loss.
    pub(crate) fn tells_loss(&self) -> bool {
        self.told_loss.is_some() || self.report.progress.loss.is_infinite()
    }

    /// Seconds since the end of its last step, at its last report.
    pub(crate) fn since_step(&self) -> f64 {
        self.report.times.elapsed.saturating_sub(self.report.times.stepped) as f64 / 1e9
    }

    /// Milliseconds per step and, of these, computing, over the last seconds. `None` before the first step.
    pub(crate) fn step(&self) -> Option<(f64, f64)> {
        let last = || (self.now.step > 0.0).then_some((self.now.step, self.now.compute));
        self.recent.step().or_else(last)
    }

    /// Mean milliseconds per step since the start of the node, by activity. The last entry is the rest of the time that
    /// the application waits.
    pub(crate) fn breakdown(&self) -> [(&'static str, f64); 5] {
        let times = self.report.times;
        let steps = times.steps.max(1) as f64;
        let each = |nanos: u64| sane(nanos as f64 / 1e6 / steps);
        let kernels = each(times.encode) + each(times.decode) + each(times.apply);
        [
            ("compute", each(times.stepped_compute)),
            ("encode", each(times.encode)),
            ("decode", each(times.decode)),
            ("apply", each(times.apply)),
            ("network, peers", (each(times.wait) - kernels).max(0.0)),
        ]
    }
}

#[cfg(test)]
pub(crate) mod tests;
