//! [`Pace`]: what share of the speed of equal workers that never wait is reached, and what costs the rest.
//!
//! A worker that computes for the median time and never waits makes a step per median. Of the time of a worker's step,
//! what exceeds the median is a cost: its own longer computing, coding, or waiting. Where a straggler is awaited, the
//! waits of its peers beyond its own ones are its cost, up to the time that it computes beyond the median.

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
}

impl Pace {
    /// The pace of the last seconds. `None` before a first step.
    pub(crate) fn of(model: &Model) -> Option<Self> {
        let working: Vec<Working> = model.live().filter_map(|(rank, node)| working(model, rank, node)).collect();
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
        pace.slow.sort_by(|a, b| b.1.total_cmp(&a.1));
        // The waits of a straggler are not for itself, so its peers would have them without it as well.
        let longest = working.iter().max_by(|a, b| a.compute.total_cmp(&b.compute));
        let awaited = longest.filter(|_| !pace.slow.is_empty());
        for it in &working {
            pace.reached += share((median / it.step).min(1.0));
            pace.coding += share(it.parts.coding);
            let (mut sending, mut waiting) = (it.parts.sending, it.parts.waiting);
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
        pace.thin = thin(&working);
        Some(pace)
    }
}

fn working(model: &Model, rank: u32, node: &Node) -> Option<Working> {
    let counts = model.is_worker(rank) && Standing::of(model, rank, node) == Standing::Active;
    let (step, compute) = node.step().filter(|(_, compute)| counts && *compute > 0.0)?;
    Some(Working { rank, step: step.max(compute), compute, parts: node.recent.parts() })
}

/// The worker that sends longest, if it sends for a quarter of the time, and for three times the median.
fn thin(working: &[Working]) -> Option<(u32, f64, f64)> {
    let median = median(working.iter().map(|it| it.parts.sending))?;
    let longest = working.iter().max_by(|a, b| a.parts.sending.total_cmp(&b.parts.sending))?;
    let share = longest.parts.sending;
    (working.len() > 1 && share >= 0.25 && share >= 3.0 * median).then_some((longest.rank, share, median))
}

/// The lower median: of two workers, the slower one can be the straggler.
fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied()
}
