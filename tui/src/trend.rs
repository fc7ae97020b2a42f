//! [`Trend`]: whether the loss of a run grows, or is no number any more.

use crate::model::{Model, seconds};

/// Losses that are compared: the latest ones with as many of the best ones before them.
const COMPARED_MAX: usize = 8;
/// A loss has grown if it is so many times the best one, and no value of the two groups overlaps.
const GROWN: f64 = 1.5;
/// So many times the best loss, and above all others, is no noise even of a single value.
const LEAPT: f64 = 10.0;

/// Seconds for which a loss may be unknown after it was a number, while the accuracy is known.
const UNKNOWN_FOR: f64 = 5.0;

/// What the loss does, if it does not do what it should.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Trend {
    /// A node reports a loss that is infinite, or NaN after a number: its rank.
    NotFinite(u32),
    /// From the least loss to the latest one.
    Grown(f64, f64),
}

impl Trend {
    pub(crate) fn of(model: &Model) -> Option<Self> {
        let broken = model.nodes.iter().find(|(_, node)| {
            let (at, progress) = (seconds(node.report.at), &node.report.progress);
            // NaN also stands for a loss that is not known, for instance in a report of the accuracy only.
            let lasts = |told| progress.accuracy.is_nan() || at - seconds(told) >= UNKNOWN_FOR;
            progress.loss.is_infinite() || progress.loss.is_nan() && node.told_loss.is_some_and(lasts)
        });
        match broken {
            Some((rank, _)) => Some(Self::NotFinite(*rank)),
            None => grown(model.history.iter().map(|sample| sample.loss)),
        }
    }
}

/// A loss is reported less often than nodes report: repetitions of a value count once.
fn grown(losses: impl Iterator<Item = f64>) -> Option<Trend> {
    let mut losses: Vec<f64> = losses.filter(|loss| loss.is_finite()).collect();
    losses.dedup();
    let last = *losses.last()?;
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    // A loss that may be negative has no ratio.
    if best <= 0.0 {
        return None;
    }
    let most = losses.iter().copied().fold(0.0, f64::max);
    if last > LEAPT * best && last >= most {
        return Some(Trend::Grown(best, last));
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
    (apart && mean(latest) > GROWN * mean(lowest)).then_some(Trend::Grown(best, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_grows_if_the_latest_values_are_apart_from_the_best() {
        let of = |loss: fn(f64) -> f64| grown((0..100).map(|k| loss(f64::from(k))));
        assert_eq!(of(|k| 2.0 / (1.0 + k)), None);
        // Noise around a level, and a single high value at the end.
        assert_eq!(of(|k| 1.0 + 0.9 * (k * 7.0).sin()), None);
        assert_eq!(of(|k| if k == 99.0 { 3.0 } else { 1.0 / (1.0 + k) + 0.5 }), None);
        // It falls and rises; it leaps.
        assert!(
            matches!(of(|k| 0.5 + (k - 50.0).abs() / 50.0), Some(Trend::Grown(best, last)) if best < 0.7 && last > 1.3)
        );
        assert!(matches!(grown([2.0, 1.5, 400.0].into_iter()), Some(Trend::Grown(1.5, 400.0))));
        assert_eq!(grown([-1.0, -0.5, 3.0].into_iter()), None);
        assert_eq!(grown(std::iter::empty()), None);
    }
}
