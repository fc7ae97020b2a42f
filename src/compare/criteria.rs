//! The figures of a run, from its curve. Between two validations, loss, time, examples and bytes are interpolated.

use super::report::{Attained, Figures, Sample, Value};
use super::results::Record;

/// The loss improves if it falls by this share of the best one before, ...
const IMPROVES: f64 = 0.01;
/// ... and no longer improves if it has not for this share of the samples.
const PATIENCE: usize = 4;

/// What figures are relative to.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Marks {
    /// The loss that counts as reached.
    pub(super) target: f64,
    /// T, in virtual seconds.
    pub(super) time: Option<f64>,
    /// E.
    pub(super) examples: u64,
    /// Validations of a run.
    pub(super) samples: u64,
}

/// The figures of a run. A run that failed has none but speed and share of compute.
pub(super) fn figures(record: &Record, marks: Marks) -> Figures {
    let curve = match &record.failed {
        None => &record.curve[..],
        Some(_) => &[],
    };
    let test = record.test.filter(|_| record.failed.is_none());
    let budget = marks.examples as f64;
    let seconds = |sample: &Sample| sample.seconds;
    let examples = |sample: &Sample| sample.examples as f64;
    Figures {
        speed: speed(&record.curve, budget),
        compute: record.compute,
        step_p50: record.steps.map(|steps| steps[0]),
        step_p90: record.steps.map(|steps| steps[1]),
        test_loss: test.map(|test| test.0),
        test_accuracy: test.and_then(|test| test.1),
        attained: attained(curve, marks.samples as usize / PATIENCE),
        at_time: [0.25, 0.5, 1.0, 2.0].map(|share| marks.time.and_then(|time| value(curve, seconds, share * time))),
        at_examples: [0.25, 0.5, 1.0].map(|share| value(curve, examples, share * budget)),
        seconds_to_target: reached(curve, marks.target, seconds),
        examples_to_target: reached(curve, marks.target, examples),
        bytes_to_target: reached(curve, marks.target, |sample| sample.bytes as f64),
    }
}

/// Examples per second from the first validation after an eighth of the budget on.
fn speed(curve: &[Sample], budget: f64) -> Option<f64> {
    let first = curve.iter().find(|sample| sample.examples as f64 >= budget / 8.0)?;
    let last = curve.last()?;
    let seconds = last.seconds - first.seconds;
    (seconds > 0.0).then(|| (last.examples - first.examples) as f64 / seconds)
}

/// The smallest loss until it has not improved for so many validations.
fn attained(curve: &[Sample], patience: usize) -> Option<Attained> {
    let mut best = curve.first()?.loss;
    // The loss from which it has to improve, and when it last did.
    let (mut level, mut improved) = (best, 0);
    for (at, sample) in curve.iter().enumerate() {
        best = best.min(sample.loss);
        if sample.loss < level - IMPROVES * level.abs() {
            (level, improved) = (sample.loss, at);
        }
        if at - improved >= patience {
            return Some(Attained { loss: best, capped: false });
        }
    }
    Some(Attained { loss: best, capped: true })
}

/// The loss where `of` a sample has a value; after the end, that of the end.
fn value(curve: &[Sample], of: impl Fn(&Sample) -> f64, at: f64) -> Option<Value> {
    let after = curve.iter().position(|sample| of(sample) >= at);
    let Some(after) = after else { return curve.last().map(|last| Value { loss: last.loss, ended: true }) };
    let Some(before) = after.checked_sub(1).map(|before| &curve[before]) else {
        return Some(Value { loss: curve[after].loss, ended: false });
    };
    let share = (at - of(before)) / (of(&curve[after]) - of(before));
    Some(Value { loss: before.loss + share * (curve[after].loss - before.loss), ended: false })
}

/// What `of` a sample is where the loss first has the target. An infinite target is not reached.
fn reached(curve: &[Sample], target: f64, of: impl Fn(&Sample) -> f64) -> Option<f64> {
    let after = curve.iter().position(|sample| target.is_finite() && sample.loss <= target)?;
    let Some(before) = after.checked_sub(1).map(|before| &curve[before]) else { return Some(of(&curve[after])) };
    let share = (before.loss - target) / (before.loss - curve[after].loss);
    Some(of(before) + share * (of(&curve[after]) - of(before)))
}

/// The loss after so many examples.
pub(super) fn loss_after(record: &Record, examples: f64) -> f64 {
    let curve = if record.failed.is_none() { &record.curve[..] } else { &[] };
    value(curve, |sample| sample.examples as f64, examples).map_or(f64::INFINITY, |value| value.loss)
}

/// The part of a run up to its budget. Its last sample is interpolated, except in a run that ended before.
pub(super) fn within(record: Record, budget: u64) -> Record {
    let Some(end) = record.curve.iter().position(|sample| sample.examples >= budget) else { return record };
    let mut curve = record.curve;
    let after = curve[end];
    curve.truncate(end);
    let last = match curve.last() {
        Some(before) if after.examples > budget => {
            let share = (budget - before.examples) as f64 / (after.examples - before.examples) as f64;
            let between = |a: f64, b: f64| a + share * (b - a);
            Sample {
                seconds: between(before.seconds, after.seconds),
                examples: budget,
                bytes: between(before.bytes as f64, after.bytes as f64) as u64,
                loss: between(before.loss, after.loss),
                accuracy: before.accuracy.zip(after.accuracy).map(|(a, b)| between(a, b)),
            }
        }
        _ => after,
    };
    curve.push(last);
    Record { curve, ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten examples a second, 100 bytes an example, and a validation each second.
    fn record(losses: &[f64]) -> Record {
        let sample = |(at, loss): (usize, &f64)| Sample {
            seconds: at as f64,
            examples: 10 * at as u64,
            bytes: 1000 * at as u64,
            loss: *loss,
            accuracy: None,
        };
        Record {
            failed: None,
            compute: Some(0.5),
            steps: Some([0.1, 0.3]),
            test: Some((0.7, None)),
            curve: losses.iter().enumerate().map(sample).collect(),
        }
    }

    const MARKS: Marks = Marks { target: 1.5, time: Some(2.0), examples: 40, samples: 8 };

    #[test]
    fn figures_of_a_falling_loss() {
        let figures = figures(&record(&[4.0, 3.0, 2.0, 1.0, 0.5]), MARKS);
        let at = |loss, ended| Some(Value { loss, ended });
        assert_eq!((figures.speed, figures.compute), (Some(10.0), Some(0.5)));
        assert_eq!((figures.step_p50, figures.step_p90), (Some(0.1), Some(0.3)));
        assert_eq!((figures.test_loss, figures.test_accuracy), (Some(0.7), None));
        assert_eq!(figures.attained, Some(Attained { loss: 0.5, capped: true }));
        assert_eq!(figures.at_time, [at(3.5, false), at(3.0, false), at(2.0, false), at(0.5, false)]);
        assert_eq!(figures.at_examples, [at(3.0, false), at(2.0, false), at(0.5, false)]);
        // Half of the way from 2 to 1.
        assert_eq!(figures.seconds_to_target, Some(2.5));
        assert_eq!(figures.examples_to_target, Some(25.0));
        assert_eq!(figures.bytes_to_target, Some(2500.0));
    }

    #[test]
    fn a_run_that_is_over_keeps_its_last_loss() {
        let figures = figures(&record(&[4.0, 3.0, 2.0, 1.0, 0.5]), Marks { time: Some(3.0), ..MARKS });
        assert_eq!(
            figures.at_time[2..],
            [Some(Value { loss: 1.0, ended: false }), Some(Value { loss: 0.5, ended: true })]
        );
    }

    #[test]
    fn a_target_that_is_not_reached_has_no_time() {
        let never = figures(&record(&[4.0, 3.0, 2.0]), MARKS);
        assert_eq!((never.seconds_to_target, never.examples_to_target, never.bytes_to_target), (None, None, None));
        let at_once = figures(&record(&[1.0, 3.0]), MARKS);
        assert_eq!(at_once.seconds_to_target, Some(0.0));
        let no_target = figures(&record(&[1.0, 3.0]), Marks { target: f64::INFINITY, ..MARKS });
        assert_eq!(no_target.seconds_to_target, None);
        let no_time = figures(&record(&[4.0, 3.0, 2.0]), Marks { time: None, ..MARKS });
        assert_eq!(no_time.at_time, [None; 4]);
    }

    /// Eight samples: two validations without an improvement by 1 % are the end.
    #[test]
    fn the_attainable_loss_is_the_best_until_it_no_longer_improves() {
        let of = |losses: &[f64]| figures(&record(losses), MARKS).attained;
        assert_eq!(of(&[4.0, 3.0, 2.99, 2.98, 1.0]), Some(Attained { loss: 2.98, capped: false }));
        assert_eq!(of(&[4.0, 3.0, 3.5, 2.9, 3.0]), Some(Attained { loss: 2.9, capped: true }));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_run_is_cut_where_its_budget_ends() {
        let cut = within(record(&[4.0, 3.0, 2.0, 1.0]), 15);
        assert_eq!(cut.curve.len(), 3);
        let Sample { seconds, examples, bytes, loss, accuracy } = cut.curve[2];
        assert_eq!((seconds, examples, bytes, loss, accuracy), (1.5, 15, 1500, 2.5, None));
        let whole = record(&[4.0, 3.0, 2.0, 1.0]);
        assert_eq!(within(whole.clone(), 30), whole);
        assert_eq!(within(whole.clone(), 31), whole);
        assert_eq!(within(whole.clone(), 20).curve, whole.curve[..3]);
    }

    #[test]
    fn a_run_that_failed_has_no_loss() {
        let failed = Record { failed: Some("stuck".into()), ..record(&[4.0, 3.0, 2.0, 1.0]) };
        let figures = figures(&failed, MARKS);
        assert_eq!((figures.speed, figures.attained, figures.seconds_to_target), (Some(10.0), None, None));
        assert_eq!((figures.at_time, figures.at_examples, figures.test_loss), ([None; 4], [None; 3], None));
        assert_eq!(loss_after(&failed, 10.0), f64::INFINITY);
        assert_eq!(loss_after(&record(&[4.0, 3.0]), 5.0), 3.5);
    }
}
