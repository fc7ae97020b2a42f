//! The verdict of a report in sentences, each with what it holds for.

use super::judge::{difference, exists};
use super::report::{Conditions, Criterion, Kind, Measure, Report, Row, Summary, Winner};
use super::statistics::PAIRS_MIN;
use super::words::{bytes, list, seconds, thousands, three};

/// The sentences: first the conditions, then a winner per criterion, the choice between them, and what is doubtful.
pub(super) fn sentences(report: &Report) -> Vec<String> {
    let mut sentences = vec![conditions(report)];
    for winner in &report.winners {
        sentences.push(criterion(report, winner));
        if winner.criterion == Criterion::WallClock {
            sentences.extend(is_worth_it(report));
        }
    }
    sentences.extend(no_target(report));
    sentences.extend(cheapest(report));
    sentences.extend(choice(report));
    sentences.extend(doubts(report));
    sentences
        .push("Encoding, decoding and merging take no virtual time; sparse and compressed rules gain by that.".into());
    sentences.push("Other workers, speeds, links, tasks or budgets can rank the rules differently.".into());
    sentences
}

fn conditions(report: &Report) -> String {
    let Conditions { model, parameters, workers, servers, batch, links, faults, examples, seeds, .. } =
        &report.conditions;
    let beside = match servers {
        0 => String::new(),
        1 => " (and a server for the rules that need one)".into(),
        n => format!(" (and {n} servers for the rules that need them)"),
    };
    let faults = if faults.is_empty() { "no faults".into() } else { faults.join("; ") };
    format!(
        "This holds for {model} with {} parameters; {workers} workers{beside} with {batch} examples a step; steps of {}; \
         links of {links}; {faults}; {} examples; {} {}.",
        thousands(*parameters as i64),
        steps(&report.conditions),
        thousands(*examples as i64),
        seeds.len(),
        if seeds.len() == 1 { "seed" } else { "seeds" },
    )
}

/// The times of steps: each once, in the order of ranks.
fn steps(conditions: &Conditions) -> String {
    let mut steps: Vec<f64> = Vec::new();
    for step in &conditions.steps {
        if !steps.contains(step) {
            steps.push(*step);
        }
    }
    let names: Vec<String> = steps.iter().take(8).map(|step| seconds(*step)).collect();
    let more = if steps.len() > 8 { " and others" } else { "" };
    format!("{}{more}", list(&names))
}

/// A figure with its range over seeds.
fn figure(measure: Measure, Summary { median, least, most }: Summary) -> String {
    let write = |x: f64| match measure {
        Measure::SecondsToTarget | Measure::StepP50 | Measure::StepP90 => seconds(x),
        Measure::BytesToTarget => bytes(x),
        _ => three(x),
    };
    format!("{} ({} to {})", write(median), write(least), write(most))
}

fn criterion(report: &Report, winner: &Winner) -> String {
    let row = &report.rows[winner.row];
    let name = &row.name;
    let got = figure(winner.measure, row.summary(winner.measure));
    let claim = match winner.measure {
        Measure::Speed => format!("Speed: {name} handles the most examples a second, {got}"),
        Measure::TestLoss => format!("Attainable: {name} has the lowest loss on the test part, {got}"),
        Measure::Attained => format!("Attainable: {name} has the lowest loss, {got}"),
        Measure::SecondsToTarget => {
            format!("Wall-clock: {name} reaches loss {} first, after {got}", three(report.target))
        }
        Measure::ExamplesToTarget => {
            format!("Examples: {name} needs the fewest for loss {}, {got}", three(report.target))
        }
        measure => {
            let title = if winner.criterion == Criterion::WallClock { "Wall-clock" } else { "Examples" };
            let target = match report.target.is_finite() {
                true => format!("no rule reaches loss {}", three(report.target)),
                false => "there is no target".into(),
            };
            format!("{title}: {target}; {name} has the lowest {}, {got}", measure.name())
        }
    };
    let tied: Vec<String> = winner.tied().map(|at| report.rows[at].name.clone()).collect();
    if winner.differences.is_empty() {
        format!("{claim}.")
    } else if tied.is_empty() {
        format!("{claim}; the difference to every other rule is shown.")
    } else {
        format!("{claim}; no difference shown to {}.", list(&tied))
    }
}

fn no_target(report: &Report) -> Option<String> {
    report.target_time.is_none().then(|| match report.target.is_finite() {
        true => {
            format!("One worker does not reach loss {} with these examples, so there is no T.", three(report.target))
        }
        false => "The runs of one worker failed, so there is no target, and no T.".into(),
    })
}

/// The fastest rule to the target, against one worker.
fn is_worth_it(report: &Report) -> Option<String> {
    let winner = report.winners.iter().find(|winner| winner.measure == Measure::SecondsToTarget)?;
    let one = report.rows.iter().find(|row| row.kind == Kind::OneWorker)?;
    let (row, measure) = (&report.rows[winner.row], winner.measure);
    let (alone, together) = (one.summary(measure), row.summary(measure));
    if !exists(measure, alone) {
        return None;
    }
    let name = &row.name;
    let difference = difference(0, &one.runs, &row.runs, measure);
    Some(if !difference.shown {
        format!("Against one worker, no difference of the time to this loss is shown for {name}.")
    } else if together.median < alone.median {
        format!("{name} reaches it {} times as fast as one worker.", three(alone.median / together.median))
    } else {
        let slower = three(together.median / alone.median);
        format!("Do not distribute: one worker reaches it {slower} times as fast as the fastest rule, {name}.")
    })
}

/// The rule that sends the fewest bytes until the target.
fn cheapest(report: &Report) -> Option<String> {
    let measure = Measure::BytesToTarget;
    let rules = report.rows.iter().filter(|row| row.kind == Kind::Rule && exists(measure, row.summary(measure)));
    let row = rules.min_by(|a, b| a.summary(measure).median.total_cmp(&b.summary(measure).median))?;
    Some(format!("Bytes: {} sends the fewest until the target, {}.", row.name, figure(measure, row.summary(measure))))
}

/// The winners if they differ, and the Pareto set.
fn choice(report: &Report) -> Option<String> {
    let names: Vec<String> = report.pareto.iter().map(|at| report.rows[*at].name.clone()).collect();
    match names.len() {
        0 => None,
        1 => Some(format!("{} has the best time, loss and bytes at the end of the budget at once.", names[0])),
        _ => Some(format!(
            "No rule is best in all: at the end of the budget, {} are each not beaten in time, loss and bytes at once.",
            list(&names)
        )),
    }
}

/// What limits the answer.
fn doubts(report: &Report) -> Vec<String> {
    let named = |fits: &dyn Fn(&&Row) -> bool| -> Vec<String> {
        report.rows.iter().filter(fits).map(|row| row.name.clone()).collect()
    };
    let mut doubts = Vec::new();
    let seeds = report.conditions.seeds.len();
    if seeds < PAIRS_MIN {
        let are = if seeds == 1 { "seed is" } else { "seeds are" };
        doubts.push(format!("{seeds} {are} too few to show a difference; use at least {PAIRS_MIN}."));
    }
    if seeds >= PAIRS_MIN {
        doubts.push("Of equal rules, up to 6 % show a difference by chance.".into());
    }
    let failed: Vec<String> = report
        .rows
        .iter()
        .filter(|row| row.failures() > 0)
        .map(|row| format!("{} ({} of {})", row.name, row.failures(), row.runs.len()))
        .collect();
    if !failed.is_empty() {
        doubts.push(format!("Runs failed or diverged: {}.", list(&failed)));
    }
    let capped = named(&|row| row.capped() > 0);
    if !capped.is_empty() {
        let which = if capped.len() == report.rows.len() { "all rows".into() } else { list(&capped) };
        doubts.push(format!(
            "The budget ended while the loss still improved: {which}. More examples may give lower losses."
        ));
    }
    let edges = named(&|row| row.tuned.at_edge);
    if !edges.is_empty() {
        doubts.push(format!(
            "The best rate was the smallest or largest one tried: {}. A better one may lie beyond.",
            list(&edges)
        ));
    }
    doubts
}
