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
        Criterion::Attainable => &[Measure::Attained],
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
