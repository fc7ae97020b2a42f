//! Makes the report: figures, summaries, winners, and the Pareto set.

use super::comparison::Comparison;
use super::conduct::Conducted;
use super::criteria::{self, Marks};
use super::model::Model;
use super::report::{Conditions, Criterion, Difference, Kind, Measure, Report, Row, Run, Summary, Winner};
use super::statistics::{differences, interval, is_shown, median, summary};
use super::{verdict, words};

/// The report of rows that have been run.
pub(super) fn report(comparison: &Comparison, model: &impl Model, conducted: Vec<Conducted>) -> Report {
    let marks = marks(comparison, &conducted);
    let rows: Vec<Row> = conducted.into_iter().map(|it| row(comparison, it, marks)).collect();
    let winners = Criterion::ALL.into_iter().filter_map(|criterion| winner(&rows, criterion)).collect();
    let report = Report {
        conditions: conditions(comparison, model),
        target: marks.target,
        target_time: marks.time,
        winners,
        pareto: pareto(&rows),
        rows,
        verdict: Vec::new(),
    };
    Report { verdict: verdict::sentences(&report), ..report }
}

/// The target, and the time in which one worker reaches it.
fn marks(comparison: &Comparison, conducted: &[Conducted]) -> Marks {
    let one = &conducted[0].records;
    let after = comparison.target_share() * comparison.examples as f64;
    let losses: Vec<f64> = one.iter().map(|record| criteria::loss_after(record, after)).collect();
    let marks = Marks {
        target: comparison.target.unwrap_or_else(|| median(&losses)),
        time: None,
        examples: comparison.examples,
        samples: comparison.samples,
    };
    let times = one.iter().map(|record| criteria::figures(record, marks).seconds_to_target.unwrap_or(f64::INFINITY));
    let time = Some(median(&times.collect::<Vec<_>>())).filter(|time| time.is_finite());
    Marks { time, ..marks }
}

fn row(comparison: &Comparison, conducted: Conducted, marks: Marks) -> Row {
    let Conducted { entry, recipe, tuned, records } = conducted;
    let runs: Vec<Run> = comparison
        .seed_list()
        .into_iter()
        .zip(records)
        .map(|(seed, record)| {
            let figures = criteria::figures(&record, marks);
            Run { seed, failed: record.failed, curve: record.curve, figures }
        })
        .collect();
    let summaries = Measure::all().map(|measure| (measure, summary(&values(&runs, measure)))).collect();
    Row {
        name: entry.name,
        kind: entry.kind,
        recipe,
        workers: entry.workers,
        batch: entry.batch,
        tuned,
        runs,
        summaries,
    }
}

/// A figure by seed. One that does not exist is the worst.
fn values(runs: &[Run], measure: Measure) -> Vec<f64> {
    let worst = if measure.is_more_better() { 0.0 } else { f64::INFINITY };
    runs.iter().map(|run| measure.of(&run.figures).unwrap_or(worst)).collect()
}

/// The rules, with their positions.
fn rules(rows: &[Row]) -> impl Iterator<Item = (usize, &Row)> {
    rows.iter().enumerate().filter(|(_, row)| row.kind == Kind::Rule)
}

/// True if the median is a figure of at least half of the runs.
pub(super) fn exists(measure: Measure, summary: Summary) -> bool {
    summary.median.is_finite() && (!measure.is_more_better() || summary.median > 0.0)
}

/// The rule with the best median of a criterion.
fn winner(rows: &[Row], criterion: Criterion) -> Option<Winner> {
    let measures: &[Measure] = match criterion {
        Criterion::Speed => &[Measure::Speed],
        Criterion::Attainable => &[Measure::TestLoss, Measure::Attained],
        Criterion::WallClock => &[Measure::SecondsToTarget, Measure::AtTime(2)],
        Criterion::Examples => &[Measure::ExamplesToTarget, Measure::AtExamples(2)],
    };
    let best = |measure: Measure| {
        let better = |a: f64, b: f64| if measure.is_more_better() { a > b } else { a < b };
        let all = rules(rows).map(|(at, row)| (at, row.summary(measure))).filter(|(_, it)| exists(measure, *it));
        all.reduce(|best, it| if better(it.1.median, best.1.median) { it } else { best })
    };
    let (measure, row) = measures.iter().find_map(|measure| Some((*measure, best(*measure)?.0)))?;
    let others = rules(rows).filter(|(at, _)| *at != row);
    let differences = others.map(|(at, other)| difference(at, &other.runs, &rows[row].runs, measure)).collect();
    Some(Winner { criterion, measure, row, differences })
}

/// The difference of a row's runs to those of another, by seed.
pub(super) fn difference(row: usize, runs: &[Run], of: &[Run], measure: Measure) -> Difference {
    let pairs = differences(&values(runs, measure), &values(of, measure));
    let (low, high) = interval(&pairs);
    Difference { row, median: median(&pairs), low, high, shown: is_shown(&pairs, (low, high)) }
}

/// Time, loss and bytes at the end of the budget: medians over seeds.
fn cost(row: &Row) -> [f64; 3] {
    let of = |figure: fn(&super::report::Sample) -> f64| {
        let ends = row.runs.iter().map(|run| match (&run.failed, run.curve.last()) {
            (None, Some(last)) => figure(last),
            _ => f64::INFINITY,
        });
        median(&ends.collect::<Vec<_>>())
    };
    [of(|last| last.seconds), of(|last| last.loss), of(|last| last.bytes as f64)]
}

/// The rules that no other rule beats in one of the three, without being beaten in another.
fn pareto(rows: &[Row]) -> Vec<usize> {
    let costs: Vec<(usize, [f64; 3])> = rules(rows).map(|(at, row)| (at, cost(row))).collect();
    let beats = |a: &[f64; 3], b: &[f64; 3]| a != b && a.iter().zip(b).all(|(a, b)| a <= b);
    let is_finite = |cost: &[f64; 3]| cost.iter().all(|x| x.is_finite());
    let best = costs.iter().filter(|(_, it)| is_finite(it) && !costs.iter().any(|(_, other)| beats(other, it)));
    best.map(|(at, _)| *at).collect()
}

fn conditions(comparison: &Comparison, model: &impl Model) -> Conditions {
    let is_used = comparison.entries().iter().any(|entry| entry.recipe.needs_servers());
    Conditions {
        model: model.name(),
        parameters: model.layout().len(),
        workers: comparison.workers,
        servers: if is_used { comparison.servers } else { 0 },
        batch: comparison.batch,
        steps: (0..comparison.workers).map(|rank| comparison.speed_of(rank).mean().as_secs_f64()).collect(),
        links: comparison.links.to_string(),
        faults: comparison.faults.iter().map(|(at, fault)| words::fault(*at, *fault)).collect(),
        examples: comparison.examples,
        tuning_examples: comparison.tuning_budget(),
        rates: comparison.rate_points(),
        tuning_seeds: comparison.tuning_seed_list(),
        seeds: comparison.seed_list(),
    }
}

#[cfg(test)]
mod tests {
    use gradwire_core::Recipe;

    use super::super::report::{Sample, Tuned};
    use super::super::results::Record;
    use super::*;

    const MARKS: Marks = Marks { target: 0.5, time: None, examples: 100, samples: 8 };

    /// A rule whose runs have these seconds and losses at the end. The target is half of the way if the loss is 0.
    fn rule(name: &str, ends: &[(f64, f64)], bytes: u64) -> Row {
        let sample = |seconds, examples, bytes, loss| Sample { seconds, examples, bytes, loss, accuracy: None };
        let run = |(seed, (seconds, loss)): (usize, &(f64, f64))| {
            let curve = vec![sample(0.0, 0, 0, 1.0), sample(*seconds, 100, bytes, *loss)];
            let record = Record { failed: None, compute: Some(1.0), steps: None, test: None, curve: curve.clone() };
            Run { seed: seed as u64, failed: None, curve, figures: criteria::figures(&record, MARKS) }
        };
        let runs: Vec<Run> = ends.iter().enumerate().map(run).collect();
        Row {
            name: name.into(),
            kind: Kind::Rule,
            recipe: Recipe::sync(),
            workers: 4,
            batch: 1,
            tuned: Tuned { rate: 0.1, number: None, trials: Vec::new(), at_edge: false },
            summaries: Measure::all().map(|measure| (measure, summary(&values(&runs, measure)))).collect(),
            runs,
        }
    }

    #[test]
    fn the_winner_has_the_best_median_and_paired_differences() {
        let ends = |seconds: [f64; 5]| seconds.map(|seconds| (seconds, 0.0));
        let slow = rule("slow", &ends([12.0, 14.0, 16.0, 18.0, 30.0]), 8);
        let fast = rule("fast", &ends([10.0, 12.0, 14.0, 16.0, 20.0]), 8);
        let mixed = rule("mixed", &ends([30.0, 30.0, 30.0, 30.0, 18.0]), 8);
        let never = rule("never", &[(1.0, 0.9); 5], 8);
        let winner = winner(&[slow, fast, mixed, never], Criterion::WallClock).unwrap();
        assert_eq!((winner.row, winner.measure), (1, Measure::SecondsToTarget));
        // Seconds to the target are half of those at the end.
        let expected = [
            Difference { row: 0, median: 1.0, low: 1.0, high: 5.0, shown: true },
            Difference { row: 2, median: 8.0, low: -1.0, high: 10.0, shown: false },
            Difference { row: 3, median: f64::INFINITY, low: f64::INFINITY, high: f64::INFINITY, shown: true },
        ];
        assert_eq!(winner.differences, expected);
        assert!(winner.tied().eq([2]));
    }

    #[test]
    fn without_the_target_the_loss_decides() {
        let rows = [rule("a", &[(1.0, 0.9)], 8), rule("b", &[(2.0, 0.8)], 8)];
        let examples = winner(&rows, Criterion::Examples).unwrap();
        assert_eq!((examples.row, examples.measure), (1, Measure::AtExamples(2)));
        assert_eq!(winner(&rows, Criterion::WallClock), None, "there is no T");
        assert_eq!(winner(&rows, Criterion::Attainable).unwrap().row, 1);
    }

    /// "beaten" is worse than "fast" in all three. Equal rules do not beat each other.
    #[test]
    fn the_pareto_set_has_the_rules_that_no_other_one_beats() {
        let rows = [
            rule("fast", &[(1.0, 0.5)], 8),
            rule("beaten", &[(2.0, 0.6)], 9),
            rule("learned", &[(2.0, 0.4)], 9),
            rule("thrifty", &[(3.0, 0.6)], 7),
            rule("equal", &[(1.0, 0.5)], 8),
            rule("diverged", &[(0.5, f64::INFINITY)], 1),
        ];
        assert_eq!(pareto(&rows), [0, 2, 3, 4]);
    }
}
