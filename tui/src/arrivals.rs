//! [`Arrivals`]: for how long bodies arrived over the links to a node in the last seconds, and [`Wire`]: which links of a
//! run are busy.

use std::collections::BTreeSet;

use gradwire_core::Incarnation;
use gradwire_core::telemetry::Report;

use crate::model::{Model, sane};

/// Least nanoseconds of a window. A window is at most twice as long.
const WINDOW: u64 = 2_000_000_000;
/// Nanoseconds between two measurements.
const INTERVAL: u64 = 500_000_000;
/// A link on which bodies arrive for less of the time is idle.
const IDLE: f64 = 0.02;
/// A link that is busy for this share of the time can be what a run waits for.
const BUSY: f64 = 0.1;
/// Links that are busy for this share of the time of the busiest one are as thin as that.
const AS_THIN: f64 = 0.5;
/// If this share of the links is as thin as the busiest one, the network is thin.
const MOST: f64 = 0.75;

/// A link on which bodies arrive.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) from: u32,
    /// Share of the time in which a body was arriving, 0 to 1.
    pub(crate) share: f64,
    /// Bytes per second while a body was arriving.
    pub(crate) rate: f64,
}

/// The links to a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    /// The counts that the present window and the next one begin with.
    bases: [Option<Counts>; 2],
    measured: u64,
    /// The links that are not idle.
    pub(crate) busy: Vec<Arrival>,
    /// Links over which anything came.
    carrying: usize,
}

/// What a report says of its links: peer, nanoseconds in which a body was arriving, and bytes.
#[derive(Clone, Debug)]
struct Counts {
    incarnation: Incarnation,
    elapsed: u64,
    links: Vec<(u32, u64, u64)>,
}

impl Counts {
    fn of(report: &Report) -> Self {
        let links = report.status.links.iter().map(|link| (link.peer.0, link.arriving_ns, link.bytes_in));
        Self { incarnation: report.incarnation, elapsed: report.times.elapsed, links: links.collect() }
    }
}

impl Arrivals {
    /// Adds what a report says.
    pub(crate) fn push(&mut self, report: &Report) {
        if !has_links(report) {
            return;
        }
        let elapsed = report.times.elapsed;
        let restarted = |base: &Counts| base.incarnation != report.incarnation || base.elapsed > elapsed;
        if self.bases.iter().flatten().any(restarted) {
            *self = Self::default();
        }
        match &self.bases {
            [None, _] => self.bases[0] = Some(Counts::of(report)),
            [Some(first), None] if elapsed - first.elapsed >= WINDOW => self.bases[1] = Some(Counts::of(report)),
            [_, Some(second)] if elapsed - second.elapsed >= WINDOW => {
                self.bases = [self.bases[1].take(), Some(Counts::of(report))];
            }
            _ => {}
        }
        if elapsed.saturating_sub(self.measured) >= INTERVAL {
            self.measured = elapsed;
            self.measure(report);
        }
    }

    fn measure(&mut self, report: &Report) {
        let Some(base) = &self.bases[0] else { return };
        let span = report.times.elapsed.saturating_sub(base.elapsed);
        if span < INTERVAL {
            return;
        }
        (self.busy, self.carrying) = (Vec::new(), 0);
        for link in &report.status.links {
            let from = link.peer.0;
            let before = base.links.binary_search_by_key(&from, |(peer, ..)| *peer).map(|at| base.links[at]);
            let (_, arriving, bytes) = before.unwrap_or((from, 0, 0));
            let bytes = link.bytes_in.saturating_sub(bytes) as f64;
            let arriving = link.arriving_ns.saturating_sub(arriving) as f64;
            let share = sane(arriving / span as f64).clamp(0.0, 1.0);
            self.carrying += usize::from(bytes > 0.0);
            if share >= IDLE {
                self.busy.push(Arrival { from, share, rate: sane(bytes * 1e9 / arriving) });
            }
        }
    }
}

/// Which links are busy for longest.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// The link between two nodes.
    Between(u32, u32),
    /// Several links of one node.
    Of(u32),
    /// Most links that carry anything.
    All,
    /// Some links, of which this one is the busiest.
    Some(u32, u32),
}

/// The links that are busy for longest.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Wire {
    pub(crate) place: Place,
    /// Bytes per second of such a link while a body arrives: the median.
    pub(crate) rate: f64,
}

impl Wire {
    /// `None`: no link is busy.
    pub(crate) fn of(model: &Model) -> Option<Self> {
        let all: Vec<(u32, Arrival)> = links(model).collect();
        let busiest = all.iter().max_by(|a, b| a.1.share.total_cmp(&b.1.share)).filter(|it| it.1.share >= BUSY)?;
        let mut thin: Vec<&(u32, Arrival)> = all.iter().filter(|it| it.1.share >= AS_THIN * busiest.1.share).collect();
        let pair = |it: &(u32, Arrival)| (it.0.min(it.1.from), it.0.max(it.1.from));
        let pairs: BTreeSet<(u32, u32)> = thin.iter().map(|it| pair(it)).collect();
        let carrying: usize = model.live().map(|(_, node)| node.arrivals.carrying).sum();
        let (a, b) = pair(busiest);
        let common = |rank: u32| pairs.iter().all(|(a, b)| rank == *a || rank == *b);
        let place = match () {
            () if pairs.len() == 1 => Place::Between(a, b),
            () if thin.len() as f64 >= MOST * carrying as f64 => Place::All,
            () if common(a) => Place::Of(a),
            () if common(b) => Place::Of(b),
            () => Place::Some(a, b),
        };
        thin.sort_by(|a, b| a.1.rate.total_cmp(&b.1.rate));
        Some(Self { place, rate: thin[thin.len() / 2].1.rate })
    }
}

/// Whether a report says something of single links. A former report of a board has a link to the node itself in their
/// place.
pub(crate) fn has_links(report: &Report) -> bool {
    report.status.links.iter().all(|link| link.peer != report.status.me)
}

/// The links on which bodies arrive at live nodes, with the node that they lead to.
pub(crate) fn links(model: &Model) -> impl Iterator<Item = (u32, Arrival)> {
    model.live().flat_map(|(rank, node)| node.arrivals.busy.iter().map(move |arrival| (rank, *arrival)))
}
