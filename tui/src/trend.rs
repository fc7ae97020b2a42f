//! [`Trend`]: whether the loss of a run grows, or is no number any more.

use crate::model::{History, Model, Node, seconds};

/// Losses that are compared: the latest ones with as many of the best ones before them.
const COMPARED_MAX: usize = 8;
/// A loss has grown if it is so many times the best one, and no value of the two groups overlaps.
const GROWN: f64 = 1.5;
/// So many times the best loss, and above all others, is no noise even of a single value.
const LEAPT: f64 = 10.0;

/// Seconds for which a loss may be unknown after it was a number, while the accuracy is known.
const UNKNOWN_FOR: f64 = 5.0;

/// Two nodes whose losses break within so many seconds break at the same time: nodes report at different times.
const SAME_TIME: f64 = 0.5;

/// A fault of the loss.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trend {
    pub(crate) kind: Kind,
    /// Seconds of the run: from then on.
    pub(crate) since: f64,
    /// The nodes of which this is true, the one that was first in front. Empty: only of the mean of all.
    pub(crate) ranks: Vec<u32>,
    /// Of several nodes, the first one was before all others.
    pub(crate) one_is_first: bool,
    /// Nodes that tell a loss.
    pub(crate) tell: usize,
}

#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Infinite, or NaN after a number.
    NotFinite,
    /// From the least loss to the latest one.
    Grown(f64, f64),
}

impl Trend {
    pub(crate) fn of(model: &Model) -> Option<Self> {
        let tell = model.nodes.values().filter(|node| node.tells_loss()).count();
        let mut broken: Vec<(f64, u32)> =
            model.nodes.iter().filter_map(|(rank, node)| Some((broken(node)?, *rank))).collect();
        broken.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((since, _)) = broken.first() {
            return Some(Self::at(Kind::NotFinite, *since, &broken, tell));
        }
        let (kind, since) = grown(losses(&model.history))?;
        let each = model.nodes.iter().filter_map(|(rank, node)| Some((grown(losses(&node.history))?.1, *rank)));
        let mut each: Vec<(f64, u32)> = each.collect();
        each.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Self::at(kind, since, &each, tell))
    }

    /// Of these nodes, the first ones in front.
    fn at(kind: Kind, since: f64, nodes: &[(f64, u32)], tell: usize) -> Self {
        let ranks = nodes.iter().map(|(_, rank)| *rank).collect();
        let one_is_first = nodes.get(1).is_none_or(|second| second.0 - nodes[0].0 > SAME_TIME);
        Self { kind, since, ranks, one_is_first, tell }
    }
}

/// The times and values of a history's losses.
fn losses(history: &History) -> impl Iterator<Item = (f64, f64)> {
    history.iter().map(|sample| (sample.at, sample.loss))
}

/// Since when the loss of a node is not finite.
fn broken(node: &Node) -> Option<f64> {
    let (at, progress) = (seconds(node.report.at), &node.report.progress);
    // NaN also stands for a loss that is not known, for instance in a report of the accuracy only.
    let lasts = |told| progress.accuracy.is_nan() || at - seconds(told) >= UNKNOWN_FOR;
    let is_broken = progress.loss.is_infinite() || progress.loss.is_nan() && node.told_loss.is_some_and(lasts);
    is_broken.then(|| node.told_loss.map_or(at, seconds))
}

/// Whether losses have grown, and since when. A loss is reported less often than nodes report: repetitions of a value count
/// once.
fn grown(losses: impl Iterator<Item = (f64, f64)>) -> Option<(Kind, f64)> {
    let mut told: Vec<(f64, f64)> = losses.filter(|(_, loss)| loss.is_finite()).collect();
    told.dedup_by_key(|(_, loss)| *loss);
    let losses: Vec<f64> = told.iter().map(|(_, loss)| *loss).collect();
    let (since, _) = told.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let last = *losses.last()?;
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    // A loss that may be negative has no ratio.
    if best <= 0.0 {
        return None;
    }
    let most = losses.iter().copied().fold(0.0, f64::max);
    if last > LEAPT * best && last >= most {
        return Some((Kind::Grown(best, last), since));
    }
    let compared = (losses.len() / 4).min(COMPARED_MAX);
    if compared < 2 {
        return None;
    }
    let (before, latest) = losses.split_at(losses.len() - compared);
    let mean = |all: &[f64]| all.iter().sum::<f64>() / all.len() as f64;
    let lowest = before.windows(compared).min_by(|a, b| mean(a).total_cmp(&mean(b)))?;
    let most = lowest.iter().copied().fold(0.0, f64::max);
    let apart = latest.iter().all(|loss| *loss > most);
    (apart && mean(latest) > GROWN * mean(lowest)).then_some((Kind::Grown(best, last), since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_grows_if_the_latest_values_are_apart_from_the_best() {
        let of = |loss: fn(f64) -> f64| grown((0..100).map(|k| (f64::from(k), loss(f64::from(k)))));
        let few = |all: &[f64]| grown(all.iter().enumerate().map(|(k, loss)| (k as f64, *loss)));
        assert_eq!(of(|k| 2.0 / (1.0 + k)), None);
        // Noise around a level, and a single high value at the end.
        assert_eq!(of(|k| 1.0 + 0.9 * (k * 7.0).sin()), None);
        assert_eq!(of(|k| if k == 99.0 { 3.0 } else { 1.0 / (1.0 + k) + 0.5 }), None);
        // It falls and rises; it leaps.
        assert!(
            matches!(of(|k| 0.5 + (k - 50.0).abs() / 50.0), Some((Kind::Grown(best, last), since)) if best < 0.7 && last > 1.3 && since == 50.0)
        );
        assert!(matches!(few(&[2.0, 1.5, 400.0]), Some((Kind::Grown(1.5, 400.0), 1.0))));
        assert_eq!(few(&[-1.0, -0.5, 3.0]), None);
        assert_eq!(few(&[]), None);
    }
}
