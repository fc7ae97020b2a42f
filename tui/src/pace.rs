//! [`Pace`]: the share that the cluster reaches of the speed of equal workers that never wait, and the costs of the rest.
//!
//! A worker that computes for the median time and never waits makes a step per median. Of the time of a worker's step,
//! what exceeds the median is a cost: its own longer computing, coding, or waiting. Where a straggler is awaited, the
//! waits of its peers beyond its own ones are its cost, up to the time that it computes beyond the median.
//!
//! A worker's own transmissions say too little about the network, because buffers of the system take a message before it
//! is sent. So the time in which bodies of the worker arrive at its peers counts as sending too ([`Sending`]).

use std::collections::BTreeMap;

use gradwire_core::Recipe;
use gradwire_core::recipe::Pace as Rule;
use gradwire_core::status::Role;

use crate::arrivals;
use crate::model::{Model, Node, STRAGGLES};
use crate::recent::Parts;
use crate::standing::Standing;

/// The speed that is reached, and the costs, as shares of the speed of equal workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pace {
    /// Workers that take part, with those that are lost.
    pub(crate) workers: usize,
    /// Workers of these that make no steps: not there yet, lost or failed.
    pub(crate) absent: usize,
    /// Share reached, 0 to 1.
    pub(crate) reached: f64,
    /// The stragglers: ranks, and how many times the median they compute, the longest first.
    pub(crate) slow: Vec<(u32, f64)>,
    /// Cost of the stragglers.
    pub(crate) by_slow: f64,
    /// Cost of encoding, decoding and applying.
    pub(crate) coding: f64,
    /// Cost of transmissions.
    pub(crate) sending: f64,
    /// Cost of other waits: for messages that are on their way or not yet sent.
    pub(crate) waiting: f64,
    /// A worker whose transmissions take far longer than the median: rank, its share of the time, and the median.
    pub(crate) thin: Option<(u32, f64, f64)>,
}

/// A worker that makes steps: rank, milliseconds per step and of these computing, and shares of time.
struct Working {
    rank: u32,
    step: f64,
    compute: f64,
    parts: Parts,
    /// Share of the time in which it waits and its messages are on the wire.
    sending: f64,
}

impl Pace {
    /// The pace of the last seconds. `None` before a first step.
    pub(crate) fn of(model: &Model) -> Option<Self> {
        let wire = Sending::of(model);
        let mut working: Vec<Working> =
            model.live().filter_map(|(rank, node)| working(model, rank, node, &wire)).collect();
        let gone = model.nodes.keys().filter(|rank| model.is_worker(**rank) && model.has_left(**rank)).count();
        // The number of workers is as told by the log. It may be missing.
        let workers = (model.run.workers as usize).saturating_sub(gone).max(working.len());
        let median = median(working.iter().map(|it| it.compute))?;
        let share = |cost: f64| cost / workers as f64;
        let mut pace = Self { workers, absent: workers - working.len(), ..Self::default() };
        pace.slow = working
            .iter()
            .filter(|it| it.compute >= STRAGGLES * median)
            .map(|it| (it.rank, it.compute / median))
            .collect();
        pace.thin = thin(&working);
        if model.run.recipe.parse::<Recipe>().is_ok_and(|recipe| recipe.pace() == Rule::Synchronous) {
            // A round is as long as its longest transmission: the other workers wait for that.
            let longest = working.iter().map(|it| it.sending).fold(0.0, f64::max);
            working.iter_mut().for_each(|it| it.sending = longest.clamp(it.sending, it.network()));
        }
        pace.slow.sort_by(|a, b| b.1.total_cmp(&a.1));
        // The waits of a straggler are not for itself, so its peers would have them without it as well.
        let longest = working.iter().max_by(|a, b| a.compute.total_cmp(&b.compute));
        let awaited = longest.filter(|_| !pace.slow.is_empty());
        for it in &working {
            pace.reached += share((median / it.step).min(1.0));
            pace.coding += share(it.parts.coding);
            let (mut sending, mut waiting) = (it.sending, it.network() - it.sending);
            if it.compute >= STRAGGLES * median {
                pace.by_slow += share((it.compute - median) / it.step);
            } else if let Some(slow) = awaited {
                let excess = ((slow.compute - it.compute) / it.step).max(0.0);
                let caused = (it.parts.waits() - slow.parts.waits()).clamp(0.0, excess).min(sending + waiting);
                pace.by_slow += share(caused);
                let rest = (sending + waiting - caused) / (sending + waiting).max(f64::MIN_POSITIVE);
                (sending, waiting) = (sending * rest, waiting * rest);
            }
            pace.sending += share(sending);
            pace.waiting += share(waiting);
        }
        Some(pace)
    }
}

impl Working {
    /// Share of the time in which it waits, and does not encode, decode or apply.
    fn network(&self) -> f64 {
        self.parts.sending + self.parts.waiting
    }
}

/// For how much of the time bodies of each node arrive at the peer that takes longest to receive them.
struct Sending(BTreeMap<u32, f64>);

impl Sending {
    fn of(model: &Model) -> Self {
        let mut longest: BTreeMap<u32, f64> = BTreeMap::new();
        for (_, arrival) in arrivals::links(model) {
            let share = longest.entry(arrival.from).or_default();
            *share = share.max(arrival.share);
        }
        Self(longest)
    }

    /// Share of the time in which a worker waits and messages from it or to it are on the wire.
    fn of_node(&self, rank: u32, node: &Node, parts: &Parts) -> f64 {
        let out = self.0.get(&rank).copied().unwrap_or(0.0);
        let into = node.arrivals.busy.iter().map(|arrival| arrival.share).fold(0.0, f64::max);
        let both = match node.report.status.role {
            // A worker of servers gets its answer when its update has arrived.
            Role::Worker => out + into,
            _ => out.max(into),
        };
        both.clamp(parts.sending, parts.sending + parts.waiting)
    }
}

fn working(model: &Model, rank: u32, node: &Node, wire: &Sending) -> Option<Working> {
    let counts = model.is_worker(rank) && Standing::of(model, rank, node) == Standing::Active;
    let (step, compute) = node.step().filter(|(_, compute)| counts && *compute > 0.0)?;
    let parts = node.recent.parts();
    let sending = wire.of_node(rank, node, &parts);
    Some(Working { rank, step: step.max(compute), compute, parts, sending })
}

/// The worker that sends longest, if it sends for a quarter of the time, and for three times the median.
fn thin(working: &[Working]) -> Option<(u32, f64, f64)> {
    let median = median(working.iter().map(|it| it.sending))?;
    let longest = working.iter().max_by(|a, b| a.sending.total_cmp(&b.sending))?;
    let share = longest.sending;
    (working.len() > 1 && share >= 0.25 && share >= 3.0 * median).then_some((longest.rank, share, median))
}

/// The lower median: of two workers, the slower one can be the straggler.
fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied()
}
