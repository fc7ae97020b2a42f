//! The report as text: tables, small charts, and the verdict. Lines have at most 80 columns.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::IsTerminal;

use gradwire::compare::{Measure, Report, Row, Summary, Value, Winner};
use gradwire_examples::units::{bytes, many, three, time};

use super::input::Input;
use super::spark::Axes;

const WIDTH: usize = 80;
/// Columns of names.
const NAME: usize = 24;
/// Columns of a chart.
const CHART: usize = 12;

pub(crate) fn text(command: &str, input: &Input, report: &Report) -> String {
    let style = Style::of(std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR"));
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, command, input, report, style);
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

/// The command and the conditions.
pub(crate) fn head_text(command: &str, report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = wrapped(&mut out, command, "  ").and_then(|()| head(&mut out, report));
    out
}

/// Bold headings, on a terminal.
#[derive(Copy, Clone)]
struct Style {
    on: bool,
}

impl Style {
    /// `no_color`: the variable NO_COLOR of the environment.
    fn of(is_terminal: bool, no_color: Option<OsString>) -> Self {
        Self { on: is_terminal && no_color.is_none_or(|value| value.is_empty()) }
    }

    fn bold(self, text: &str) -> String {
        if self.on { format!("\x1b[1m{text}\x1b[0m") } else { text.into() }
    }
}

fn write(out: &mut String, command: &str, input: &Input, report: &Report, style: Style) -> std::fmt::Result {
    wrapped(out, command, "  ")?;
    head(out, report)?;
    figures(out, report, style)?;
    steps_and_test(out, report, style)?;
    curves(out, report, style)?;
    for winner in &report.winners {
        criterion(out, report, winner, style)?;
    }
    writeln!(out, "\n{}", style.bold("Verdict"))?;
    for sentence in &report.verdict {
        wrapped(out, sentence, "  ")?;
    }
    if let Some(path) = &input.out {
        writeln!(out, "\nThe page with plots is {}.", path.display())?;
    }
    Ok(())
}

/// Breaks a text between words. Lines after the first are indented.
fn wrapped(out: &mut String, text: &str, indent: &str) -> std::fmt::Result {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(out, "{line}")?;
            line = format!("{indent}{word}");
        } else {
            line += if line.is_empty() { "" } else { " " };
            line += word;
        }
    }
    writeln!(out, "{line}")
}

fn head(out: &mut String, report: &Report) -> std::fmt::Result {
    let it = &report.conditions;
    let steps: Vec<String> = it.steps.iter().take(4).map(|step| time(*step)).collect();
    let more = if it.steps.len() > 4 { ", ..." } else { "" };
    let text = format!(
        "{}, {} parameters; {} workers, {} examples a step; steps of {}{more}; links of {}.",
        it.model,
        many(it.parameters as f64),
        it.workers,
        it.batch,
        steps.join(", "),
        it.links,
    );
    wrapped(out, &text, "")?;
    it.faults.iter().try_for_each(|fault| wrapped(out, &format!("Fault: {fault}."), ""))?;
    let rates: Vec<String> = it.rates.iter().copied().map(rate).collect();
    let tuning = match it.tuning_seeds.len() {
        0 => format!("not tuned: rate {}", rates.join(", ")),
        1 => format!("tuned over rates {} with {} examples", rates.join(", "), it.tuning_examples),
        n => format!("tuned over rates {} with {} examples and {n} seeds", rates.join(", "), it.tuning_examples),
    };
    let seeds = if it.seeds.len() == 1 { "1 seed".into() } else { format!("{} seeds", it.seeds.len()) };
    wrapped(out, &format!("E = {} examples; each row {tuning}; {seeds}.", it.examples), "")?;
    let target = match report.target_time {
        Some(seconds) => format!("one worker is there at T = {}", time(seconds)),
        None => "one worker does not get there".into(),
    };
    let text = match report.target.is_finite() {
        true => format!("Target: validation loss {}; {target}. All times are virtual.", loss(report.target)),
        false => "No target, since one worker failed. All times are virtual.".into(),
    };
    wrapped(out, &text, "")
}

/// The name of a row, cut to its column.
fn name(row: &Row) -> String {
    let cut: String = row.name.chars().take(NAME - 1).collect();
    format!("{cut:<NAME$}")
}

/// A figure in words.
fn figure(measure: Measure, x: f64) -> String {
    use Measure::{BytesToTarget, ExamplesToTarget, SecondsToTarget, Speed, StepP50, StepP90};
    match measure {
        StepP50 | StepP90 if !x.is_finite() => "-".into(),
        StepP50 | StepP90 => time(x),
        SecondsToTarget | BytesToTarget | ExamplesToTarget if !x.is_finite() => "never".into(),
        SecondsToTarget => time(x),
        BytesToTarget => bytes(x),
        Speed if x == 0.0 => "-".into(),
        Speed | ExamplesToTarget => many(x),
        _ => loss(x),
    }
}

/// A learning rate in at most 7 columns.
fn rate(x: f32) -> String {
    if (1e-4..1e4).contains(&x) { x.to_string() } else { format!("{x:.1e}") }
}

/// A loss with three digits.
fn loss(x: f64) -> String {
    match x {
        x if !x.is_finite() => "-".into(),
        x if x != 0.0 && x.abs() < 0.00095 => format!("{x:.1e}"),
        x if x.abs() < 0.0995 => format!("{x:.4}"),
        x if x.abs() < 0.9995 => format!("{x:.3}"),
        x => three(x),
    }
}

fn figures(out: &mut String, report: &Report, style: Style) -> std::fmt::Result {
    let head = format!(
        "\n{:<NAME$}{:>7}{:>8}{:>5}{:>10}{:>26}",
        "medians", "rate", "ex/s", "busy", "best loss", "to the target"
    );
    writeln!(out, "{}", style.bold(&head))?;
    for row in &report.rows {
        let busy: Vec<f64> = row.runs.iter().filter_map(|run| run.figures.compute).collect();
        let busy = 100.0 * busy.iter().sum::<f64>() / busy.len().max(1) as f64;
        let cell = |measure| figure(measure, row.summary(measure).median);
        let mark = if row.capped() > 0 { "+" } else { " " };
        write!(out, "{}{:>7}{:>8}{busy:>4.0}%", name(row), rate(row.tuned.rate), cell(Measure::Speed))?;
        write!(out, "{:>9}{mark}", cell(Measure::Attained))?;
        write!(out, "{:>9}{:>8}", cell(Measure::SecondsToTarget), cell(Measure::ExamplesToTarget))?;
        writeln!(out, "{:>9}", cell(Measure::BytesToTarget))?;
        note(out, row)?;
    }
    Ok(())
}

/// The times of steps, and what the test part says.
fn steps_and_test(out: &mut String, report: &Report, style: Style) -> std::fmt::Result {
    let head =
        format!("\n{:<NAME$}{:>11}{:>11}{:>12}{:>15}", "medians", "step p50", "p90", "test loss", "test accuracy");
    writeln!(out, "{}", style.bold(&head))?;
    for row in &report.rows {
        let cell = |measure| figure(measure, row.summary(measure).median);
        let mut accuracies: Vec<f64> = row.runs.iter().filter_map(|run| run.figures.test_accuracy).collect();
        accuracies.sort_unstable_by(f64::total_cmp);
        // Runs without an accuracy have failed.
        let middle = accuracies.len().checked_sub(row.runs.len().div_ceil(2)).and_then(|at| accuracies.get(at));
        let accuracy = middle.map_or_else(|| "-".into(), |accuracy| format!("{:.1}%", 100.0 * accuracy));
        let (p50, p90) = (cell(Measure::StepP50), cell(Measure::StepP90));
        writeln!(out, "{}{p50:>11}{p90:>11}{:>12}{accuracy:>15}", name(row), cell(Measure::TestLoss))?;
    }
    Ok(())
}

/// What else is to be said about a row.
fn note(out: &mut String, row: &Row) -> std::fmt::Result {
    if let Some((key, value)) = &row.tuned.number {
        writeln!(out, "  tuned: {key}={value}")?;
    }
    if row.failures() > 0 {
        let first = row.runs.iter().find_map(|run| run.failed.as_deref()).unwrap_or_default();
        out.push_str("  ");
        wrapped(out, &format!("{} of {} runs failed; {first}", row.failures(), row.runs.len()), "    ")?;
    }
    Ok(())
}

fn curves(out: &mut String, report: &Report, style: Style) -> std::fmt::Result {
    let axes = Axes::of(report, CHART);
    let chart = format!("until {}", time(axes.end));
    let columns = [["T/4", "T/2", "T", "2T"].as_slice(), &["E/4", "E/2", "E"]].concat();
    let columns: String = columns.iter().map(|column| format!("{column:>7}")).collect();
    writeln!(out, "{}", style.bold(&format!("\n{:<18}{columns} {chart:>CHART$}", "loss at")))?;
    for row in &report.rows {
        let short: String = row.name.chars().take(17).collect();
        write!(out, "{short:<18}")?;
        for measure in (0..4).map(Measure::AtTime).chain((0..3).map(Measure::AtExamples)) {
            write!(out, "{:>7}", at(row, measure))?;
        }
        writeln!(out, " {}", axes.chart(row))?;
    }
    Ok(())
}

/// A loss at a moment: the median, or that it is the loss at E if most runs had ended by then.
fn at(row: &Row, measure: Measure) -> String {
    let value = |run: &gradwire::compare::Run| -> Option<Value> {
        match measure {
            Measure::AtTime(at) => run.figures.at_time[at],
            Measure::AtExamples(at) => run.figures.at_examples[at],
            _ => None,
        }
    };
    let ended = row.runs.iter().filter(|run| value(run).is_some_and(|value| value.ended)).count();
    let median = row.summary(measure).median;
    if !median.is_finite() {
        return "-".into();
    }
    if 2 * ended > row.runs.len() { "=E".into() } else { loss(median) }
}

/// The rules in the order of the figure that decides a criterion, with their differences to the best one.
fn criterion(out: &mut String, report: &Report, winner: &Winner, style: Style) -> std::fmt::Result {
    let measure = winner.measure;
    let title = format!("{}: {}", winner.criterion.name(), measure.name());
    let head = format!("\n{title:<37}{:>8}{:>17}  difference", "median", "range");
    writeln!(out, "{}", style.bold(&head))?;
    let summary = |at: usize| report.rows[at].summary(measure);
    let mut rows: Vec<usize> = winner.differences.iter().map(|difference| difference.row).collect();
    let sign = if measure.is_more_better() { -1.0 } else { 1.0 };
    rows.sort_by(|a, b| (sign * summary(*a).median).total_cmp(&(sign * summary(*b).median)));
    for at in [winner.row].into_iter().chain(rows) {
        let Summary { median, least, most } = summary(at);
        let difference = winner.differences.iter().find(|difference| difference.row == at);
        let words = match difference {
            None => "best".into(),
            Some(difference) if !difference.shown => "none shown".into(),
            Some(difference) => interval(measure, difference.low, difference.high),
        };
        let range = format!("{} - {}", figure(measure, least), figure(measure, most));
        let name: String = report.rows[at].name.chars().take(32).collect();
        writeln!(out, "  {name:<33}{:>10}{range:>19}  {words}", figure(measure, median))?;
    }
    Ok(())
}

/// The bounds of a difference, in few columns.
fn interval(measure: Measure, low: f64, high: f64) -> String {
    let bound = |x: f64| match x {
        x if !x.is_finite() => "never".into(),
        x if x < 0.0 => format!("-{}", figure(measure, -x)),
        x => format!("+{}", figure(measure, x)),
    };
    let (low, high) = (bound(low), bound(high));
    if low == high { low } else { format!("{low}..{high}") }
}
