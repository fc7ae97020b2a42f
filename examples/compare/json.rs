//! The report as JSON lines: the conditions, each row, each run, each winner, and the verdict.

use std::fmt::Write as _;

use gradwire::compare::{Kind, Measure, Report, Row, Run, Stability, Summary, Winner};

pub(crate) fn text(command: &str, report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, command, report);
    out
}

/// The lines of all repetitions, then a line per criterion with what they agree on.
pub(crate) fn repeated(command: &str, reports: &[Report], stabilities: &[Stability]) -> String {
    let mut out: String = reports.iter().map(|report| text(command, report)).collect();
    for it in stabilities {
        let name = |at: Option<usize>| at.map_or_else(|| "null".into(), |at| quoted(&reports[0].rows[at].name));
        let answers =
            array(&it.answers, |answer| format!("{{\"winner\":{},\"agrees\":{}}}", name(answer.winner), answer.agrees));
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{{\"type\":\"stability\",\"criterion\":{},\"row\":{},\"agreeing\":{},\"repetitions\":{},\
             \"stable\":{},\"answers\":{answers}}}",
            quoted(it.criterion.name()),
            name(it.row),
            it.agreeing(),
            it.answers.len(),
            it.is_stable(),
        );
    }
    out
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A number. `null`: it does not exist, or is infinite.
fn number(x: impl Into<Option<f64>>) -> String {
    x.into().filter(|x| x.is_finite()).map_or_else(|| "null".into(), |x| format!("{x:e}"))
}

fn array<T>(items: impl IntoIterator<Item = T>, write: impl Fn(T) -> String) -> String {
    format!("[{}]", items.into_iter().map(write).collect::<Vec<_>>().join(","))
}

fn write(out: &mut String, command: &str, report: &Report) -> std::fmt::Result {
    let it = &report.conditions;
    writeln!(
        out,
        "{{\"type\":\"conditions\",\"command\":{},\"model\":{},\"parameters\":{},\"workers\":{},\"servers\":{},\
         \"batch\":{},\"steps\":{},\"links\":{},\"faults\":{},\"examples\":{},\"tuning_examples\":{},\"rates\":{},\
         \"tuning_seeds\":{},\"seeds\":{},\"target\":{},\"target_time\":{}}}",
        quoted(command),
        quoted(&it.model),
        it.parameters,
        it.workers,
        it.servers,
        it.batch,
        array(&it.steps, |step| number(*step)),
        quoted(&it.links),
        array(&it.faults, |fault| quoted(fault)),
        it.examples,
        it.tuning_examples,
        array(&it.rates, |rate| rate.to_string()),
        array(&it.tuning_seeds, u64::to_string),
        array(&it.seeds, u64::to_string),
        number(report.target),
        number(report.target_time),
    )?;
    report.rows.iter().try_for_each(|it| row(out, it))?;
    report.winners.iter().try_for_each(|it| winner(out, report, it))?;
    let name = |at: &usize| quoted(&report.rows[*at].name);
    writeln!(out, "{{\"type\":\"pareto\",\"rows\":{}}}", array(&report.pareto, name))?;
    writeln!(out, "{{\"type\":\"verdict\",\"sentences\":{}}}", array(&report.verdict, |it| quoted(it)))
}

fn row(out: &mut String, row: &Row) -> std::fmt::Result {
    let kind = match row.kind {
        Kind::OneWorker => "one worker",
        Kind::LargeBatch => "large batch",
        Kind::Rule => "rule",
    };
    let tuned = row.tuned.number.as_ref();
    let figures = array(&row.summaries, |(measure, Summary { median, least, most })| {
        let name = quoted(measure.name());
        format!("{name}:{{\"median\":{},\"least\":{},\"most\":{}}}", number(*median), number(*least), number(*most))
    });
    writeln!(
        out,
        "{{\"type\":\"row\",\"name\":{},\"kind\":\"{kind}\",\"recipe\":{},\"workers\":{},\"batch\":{},\"rate\":{},\
         \"tuned\":{},\"at_edge\":{},\"failures\":{},\"capped\":{},\"trials\":{},\"figures\":{{{}}}}}",
        quoted(&row.name),
        quoted(&row.recipe.to_string()),
        row.workers,
        row.batch,
        row.tuned.rate,
        tuned.map_or_else(|| "null".into(), |(key, value)| quoted(&format!("{key}={value}"))),
        row.tuned.at_edge,
        row.failures(),
        row.capped(),
        array(&row.tuned.trials, |trial| {
            let value = trial.number.as_deref().map_or_else(|| "null".into(), quoted);
            format!("{{\"rate\":{},\"number\":{value},\"loss\":{}}}", trial.rate, number(trial.loss))
        }),
        figures.trim_start_matches('[').trim_end_matches(']'),
    )?;
    row.runs.iter().try_for_each(|it| run(out, row, it))
}

fn run(out: &mut String, row: &Row, run: &Run) -> std::fmt::Result {
    let figures =
        array(Measure::all(), |measure| format!("{}:{}", quoted(measure.name()), number(measure.of(&run.figures))));
    let curve = array(&run.curve, |it| {
        format!("[{},{},{},{},{}]", number(it.seconds), it.examples, it.bytes, number(it.loss), number(it.accuracy))
    });
    writeln!(
        out,
        "{{\"type\":\"run\",\"row\":{},\"seed\":{},\"failed\":{},\"busy\":{},\"test_accuracy\":{},\"figures\":{{{}}},\
         \"curve\":{{\"columns\":[\"seconds\",\"examples\",\"bytes\",\"loss\",\"accuracy\"],\"points\":{curve}}}}}",
        quoted(&row.name),
        run.seed,
        run.failed.as_deref().map_or_else(|| "null".into(), quoted),
        number(run.figures.compute),
        number(run.figures.test_accuracy),
        figures.trim_start_matches('[').trim_end_matches(']'),
    )
}

fn winner(out: &mut String, report: &Report, winner: &Winner) -> std::fmt::Result {
    let differences = array(&winner.differences, |it| {
        format!(
            "{{\"row\":{},\"median\":{},\"low\":{},\"high\":{},\"shown\":{}}}",
            quoted(&report.rows[it.row].name),
            number(it.median),
            number(it.low),
            number(it.high),
            it.shown
        )
    });
    writeln!(
        out,
        "{{\"type\":\"winner\",\"criterion\":{},\"figure\":{},\"row\":{},\"differences\":{differences}}}",
        quoted(winner.criterion.name()),
        quoted(winner.measure.name()),
        quoted(&report.rows[winner.row].name),
    )
}
