//! The tables: their rows, their columns, and their output as Markdown or JSON.

use std::fmt::Write as _;
use std::io::Write as _;

use gradwire_examples::bad::Bad;
use gradwire_examples::outcome::number;
use gradwire_examples::task::Name;

use crate::measure::{Measure, Ran, Run};
use crate::rows::{self, ENDS, Row, Setup, WORKERS};

/// A table of this program.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The rows for a task and a number of workers.
    pub(crate) rows: fn(Name, u32) -> Vec<Row>,
    /// Measures and prints the rows, as JSON objects or as Markdown.
    pub(crate) print: fn(&mut Measure, &[Row], bool),
}

impl Table {
    pub(crate) const ALL: &[Self] = &[
        Self { name: "codecs", rows: rows::codecs, print: codecs },
        Self { name: "ends", rows: rows::ends, print: ends },
        Self { name: "presets", rows: rows::presets, print: presets },
        Self { name: "bad", rows: rows::bad, print: bad },
    ];
}

fn codecs(measure: &mut Measure, rows: &[Row], json: bool) {
    if !json {
        say(
            "| task | where | codec | loss before the end | to dense, median (least to most) | loss after | accuracy | bytes to dense |",
        );
        say("|---|---|---|---|---|---|---|---|");
    }
    let mut dense: Vec<Ran> = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        let ran = measure.runs(&row.columns[0]);
        if i == 0 || rows[i - 1].group != row.group || rows[i - 1].task != row.task {
            dense = ran.clone();
        }
        // Pairs of runs with the same seed, and so with the same data.
        let ratios = ran
            .iter()
            .zip(&dense)
            .filter_map(|(own, dense)| Some(own.as_ref().ok()?.before.0 / dense.as_ref().ok()?.before.0));
        let ratios: Vec<f64> = ratios.collect();
        if json {
            emit("codecs", row, &row.columns[0], &ran, &format!(",\"to_dense\":{}", number(median(&ratios), 4)));
            continue;
        }
        let cells = match failure(&ran) {
            Some(text) => format!("{text} | | | |"),
            None => format!(
                "{:.4} | {:.3} ({:.3} to {:.3}) | {:.4} | {:.1} % | {:.1} %",
                median_of(&ran, |run| run.before.0),
                median(&ratios),
                least(&ratios),
                most(&ratios),
                median_of(&ran, |run| run.after.0),
                100.0 * median_of(&ran, |run| run.after.1),
                100.0 * median_of(&ran, |run| run.share),
            ),
        };
        say(&format!("| {} | {} | {} | {cells} |", row.task.text(), row.group, row.name));
    }
}

fn ends(measure: &mut Measure, rows: &[Row], json: bool) {
    if !json {
        let columns = ENDS.map(|end| format!("end={end}")).join(" | ");
        say(&format!("| task | recipe | codec | residual, updates | loss before the end | {columns} |"));
        say("|---|---|---|---|---|---|---|---|");
    }
    for row in rows {
        let (mut cells, mut all) = (String::new(), Vec::new());
        for setup in &row.columns {
            let ran = measure.runs(setup);
            let ratios: Vec<f64> = ran.iter().flatten().map(|run| run.after.0 / run.before.0).collect();
            if json {
                emit("ends", row, setup, &ran, &format!(",\"after_to_before\":{}", number(median(&ratios), 4)));
            }
            let _ = match failure(&ran) {
                Some(text) => write!(cells, " | {text}"),
                None => write!(
                    cells,
                    " | {:.4} ({:.3}, worst {:.3})",
                    median_of(&ran, |run| run.after.0),
                    median(&ratios),
                    most(&ratios)
                ),
            };
            all.extend(ran);
        }
        if !json {
            let (residual, before) = (median_of(&all, |run| run.residual_updates), median_of(&all, |run| run.before.0));
            say(&format!(
                "| {} | {} | {} | {residual:.1} | {before:.4}{cells} |",
                row.task.text(),
                row.group,
                row.name
            ));
        }
    }
}

fn presets(measure: &mut Measure, rows: &[Row], json: bool) {
    if !json {
        let columns = WORKERS.map(|workers| format!("{workers} workers")).join(" | ");
        say(&format!("| task | preset | {columns} |\n|---|---|---|---|---|"));
    }
    for row in rows {
        let mut cells = String::new();
        for setup in &row.columns {
            let ran = measure.runs(setup);
            let verdict = verdict(&ran, setup.task);
            if json {
                emit("presets", row, setup, &ran, &format!(",\"verdict\":\"{verdict}\""));
            }
            let _ = match failure(&ran) {
                Some(text) => write!(cells, " | {text}"),
                None => write!(
                    cells,
                    " | {:.3}, {:.1} %{verdict}",
                    median_of(&ran, |run| run.after.0),
                    100.0 * median_of(&ran, |run| run.after.1)
                ),
            };
        }
        if !json {
            say(&format!("| {} | {}{cells} |", row.task.text(), row.name));
        }
    }
}

fn bad(measure: &mut Measure, rows: &[Row], json: bool) {
    if !json {
        say("| task | merge | all well | flipped | 1,000 times | random |\n|---|---|---|---|---|---|");
    }
    for row in rows {
        let mut cells = String::new();
        for setup in &row.columns {
            let ran = measure.runs(setup);
            if json {
                let how = setup.bad.map_or("none", Bad::text);
                emit("bad", row, setup, &ran, &format!(",\"bad\":\"{how}\""));
            }
            let accuracies: Vec<f64> = ran.iter().flatten().map(|run| 100.0 * run.after.1).collect();
            let _ = match failure(&ran) {
                Some(text) => write!(cells, " | {text}"),
                None => write!(cells, " | {:.1} % (worst {:.1})", median(&accuracies), least(&accuracies)),
            };
        }
        if !json {
            say(&format!("| {} | {}{cells} |", row.task.text(), row.name));
        }
    }
}

/// Whether the worst run has diverged, or has not learned.
fn verdict(ran: &[Ran], task: Name) -> &'static str {
    // The loss of a guess among all classes.
    let guess = match task {
        Name::Digits => 10f64.ln(),
        Name::Sequence => 8f64.ln(),
        Name::Mixture => 4f64.ln(),
    };
    // A NaN is larger than any number in this order.
    let losses = ran.iter().flatten().map(|run| if run.after.0.is_nan() { f64::INFINITY } else { run.after.0 });
    match losses.fold(0.0, f64::max) {
        worst if worst > 1.2 * guess => ", DIVERGED",
        worst if worst > 0.5 * guess => ", learns little",
        _ => "",
    }
}

/// The first failure among runs, without the characters that end a cell.
fn failure(ran: &[Ran]) -> Option<String> {
    ran.iter().find_map(|run| Some(format!("failed: {}", run.as_ref().err()?.replace(['|', '\n', '"', '\\'], " "))))
}

/// Prints a JSON object. `more`: further fields, each after a comma.
fn emit(table: &str, row: &Row, setup: &Setup, ran: &[Ran], more: &str) {
    let list = |of: fn(&Run) -> f64| {
        let items: Vec<String> =
            ran.iter().map(|run| run.as_ref().map_or_else(|_| "null".into(), |run| number(of(run), 5))).collect();
        format!("[{}]", items.join(","))
    };
    let mut hints: Vec<String> = ran.iter().flatten().flat_map(|run| run.hints.clone()).collect();
    hints.sort_unstable();
    hints.dedup();
    say(&format!(
        "{{\"table\":\"{table}\",\"task\":\"{}\",\"group\":\"{}\",\"name\":\"{}\",\"recipe\":\"{}\",\"workers\":{},\
         \"failed\":{},\"loss_before_end\":{},\"loss\":{},\"accuracy_before_end\":{},\"accuracy\":{},\
         \"residual_updates\":{},\"bytes_to_dense\":{},\"hints\":{:?}{more}}}",
        row.task.text(),
        row.group,
        row.name,
        setup.recipe,
        setup.workers,
        failure(ran).map_or_else(|| "null".to_string(), |text| format!("\"{text}\"")),
        list(|run| run.before.0),
        list(|run| run.after.0),
        list(|run| run.before.1),
        list(|run| run.after.1),
        list(|run| run.residual_updates),
        list(|run| run.share),
        hints,
    ));
}

/// Prints a line at once: a table takes minutes.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// The median of a number of the runs that succeeded.
fn median_of(ran: &[Ran], of: impl Fn(&Run) -> f64) -> f64 {
    median(&ran.iter().flatten().map(of).collect::<Vec<_>>())
}

/// The median, NaN without numbers. The mean of the two in the middle of an even number.
fn median(x: &[f64]) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    match x.len() {
        0 => f64::NAN,
        n => f64::midpoint(x[(n - 1) / 2], x[n / 2]),
    }
}

fn least(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_worst_run_decides() {
        let run =
            |loss| Ok(Run { before: (0.1, 0.9), after: (loss, 0.9), residual_updates: 0.0, share: 1.0, hints: vec![] });
        assert_eq!(verdict(&[run(0.1), run(f64::NAN)], Name::Digits), ", DIVERGED");
        assert_eq!(verdict(&[run(0.1), run(1.5)], Name::Digits), ", learns little");
        assert_eq!(verdict(&[run(0.1), Err(String::new())], Name::Digits), "");
    }
}
