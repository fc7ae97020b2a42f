//! The report of a comparison as one HTML file: plots, table and verdict, without scripts and without other files.
//!
//! Colours of the page follow `prefers-color-scheme`; those of the rules are the same in light and dark.

mod plots;

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use gradwire::compare::{Kind, Measure, Report, Row, Summary};

/// Writes the report. `command`: the command line that has made it.
///
/// # Errors
/// If the file cannot be written.
pub(crate) fn write(path: &Path, report: &Report, command: &str) -> io::Result<()> {
    std::fs::write(path, page(report, command))
}

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1e23; --soft: #5c6470; --line: #d5d9df; --wait: #c9ced6 }
@media (prefers-color-scheme: dark) {
  :root { --page: #16181c; --ink: #e6e8eb; --soft: #a1a8b3; --line: #383d46; --wait: #4a505b }
}
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 1.8rem 0 0.4rem }
code, pre { font: 13px/1.5 ui-monospace, monospace }
pre { overflow-x: auto; border: 1px solid var(--line); padding: 0.5rem }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg, .bars svg { max-width: 100%; height: auto }
svg text { font-family: system-ui, sans-serif }
.wait { fill: var(--wait) }
.legend { display: flex; flex-wrap: wrap; gap: 0.2rem 1.2rem; padding: 0; list-style: none }
.legend svg { vertical-align: middle; margin-right: 0.4rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: right; padding: 0.2rem 0.6rem; border-bottom: 1px solid var(--line); white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { vertical-align: bottom; white-space: normal }
small, .soft { color: var(--soft) }
";

fn page(report: &Report, command: &str) -> String {
    let conditions = &report.conditions;
    let title = format!("{} on {} workers", conditions.model, conditions.workers);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n<style>\n{STYLE}</style>\n\
         <h1>{}</h1>\n<pre>{}</pre>\n",
        escaped(&title),
        escaped(&title),
        escaped(command)
    );
    page += "<h2>Verdict</h2>\n<ul>\n";
    report.verdict.iter().for_each(|sentence| page += &format!("<li>{}</li>\n", escaped(sentence)));
    page += "</ul>\n<h2>Validation loss</h2>\n";
    page += &legend(report);
    page += "<div class=\"plots\">\n";
    plots::losses(report).iter().for_each(|plot| page += plot);
    page += "</div>\n<p class=\"soft\">Thick: the seed with the median loss at the end. Thin: the other seeds. Logarithmic axes \
             say so.</p>\n";
    page += "<h2>Where the time goes</h2>\n<div class=\"bars\">\n";
    page += &plots::shares(report);
    page += "</div>\n<p class=\"soft\">Share of the virtual time in which workers compute (colour) and wait (grey), the mean \
             of the workers, median over seeds.</p>\n";
    page += &table(report);
    page += &about(report);
    page
}

/// The rows in the colours of their lines.
fn legend(report: &Report) -> String {
    let mut text = "<ul class=\"legend\">\n".to_string();
    for (at, row) in report.rows.iter().enumerate() {
        let (colour, dash) = plots::colour(at);
        let dash = dash.map(|(dash, gap)| format!(" stroke-dasharray=\"{dash} {gap}\"")).unwrap_or_default();
        let _ = writeln!(
            text,
            "<li><svg width=\"28\" height=\"8\" aria-hidden=\"true\"><line x1=\"0\" y1=\"4\" x2=\"28\" y2=\"4\" \
             stroke=\"#{colour:06x}\" stroke-width=\"3\"{dash}/></svg>{}</li>",
            escaped(&row.name)
        );
    }
    text + "</ul>\n"
}

fn table(report: &Report) -> String {
    let mut text = "<h2>Figures</h2>\n<div class=\"wide\"><table>\n<tr><th>rule</th><th>learning rate</th>".to_string();
    Measure::all().for_each(|measure| text += &format!("<th>{}</th>", escaped(measure.name())));
    text += "<th>capped</th><th>failed</th></tr>\n";
    for (at, row) in report.rows.iter().enumerate() {
        let best = if report.pareto.contains(&at) { " *" } else { "" };
        let _ = write!(text, "<tr><td>{}{best}</td><td>{}</td>", escaped(&row.name), tuned(row));
        for measure in Measure::all() {
            text += &format!("<td>{}</td>", cell(row.summary(measure)));
        }
        let of = |count: usize| if count == 0 { String::new() } else { format!("{count} of {}", row.runs.len()) };
        let _ = writeln!(text, "<td>{}</td><td>{}</td></tr>", of(row.capped()), of(row.failures()));
    }
    text += "</table></div>\n<p class=\"soft\">Medians over seeds, and the least and the largest value. ∞: not reached within \
             the budget. Capped: runs whose loss still improved at the end. *: no other rule is better in time, loss and \
             bytes at once.</p>\n";
    text
}

fn tuned(row: &Row) -> String {
    let number = row.tuned.number.as_ref().map(|(key, value)| format!(", {key}={value}")).unwrap_or_default();
    let edge = if row.tuned.at_edge { " (at the edge)" } else { "" };
    escaped(&format!("{}{number}{edge}", row.tuned.rate))
}

fn cell(Summary { median, least, most }: Summary) -> String {
    let [median, least, most] = [median, least, most].map(digits);
    if least == most { median } else { format!("{median} <small>{least} to {most}</small>") }
}

/// Three digits that count, without exponents for numbers up to 1e15.
fn digits(x: f64) -> String {
    if !x.is_finite() {
        return "∞".into();
    }
    match x.abs() {
        0.0 => "0".into(),
        size if size >= 1e9 => format!("{:.2} G", x / 1e9),
        size if size >= 1e6 => format!("{:.2} M", x / 1e6),
        size if size >= 1e4 => format!("{:.1} k", x / 1e3),
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 10.0 => format!("{x:.1}"),
        size if size >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

/// The conditions under which the verdict holds.
fn about(report: &Report) -> String {
    let conditions = &report.conditions;
    let list = |numbers: &[f64]| numbers.iter().map(|x| digits(*x)).collect::<Vec<_>>().join(", ");
    let rates: Vec<String> = conditions.rates.iter().map(ToString::to_string).collect();
    let faults = if conditions.faults.is_empty() { "none".into() } else { conditions.faults.join("; ") };
    let references = report.rows.iter().filter(|row| row.kind != Kind::Rule).count();
    let target = report.target_time.map_or_else(
        || "one worker does not reach it".to_string(),
        |time| format!("one worker reaches it after T = {} s", digits(time)),
    );
    let rows = [
        ("Parameters", digits(conditions.parameters as f64)),
        ("Workers", format!("{}; {} for rules with servers", conditions.workers, conditions.servers)),
        ("Batch of one worker", format!("{} examples", conditions.batch)),
        ("Seconds of a step, by worker", list(&conditions.steps)),
        ("Links", conditions.links.clone()),
        ("Faults", faults),
        ("Examples of a run, E", digits(conditions.examples as f64)),
        ("Target", format!("validation loss {}; {target}", digits(report.target))),
        ("Learning rates that each row was tuned over", rates.join(", ")),
        ("Seeds", format!("{:?}; tuning {:?}", conditions.seeds, conditions.tuning_seeds)),
        ("Reference rows", format!("{references}, of one worker each")),
    ];
    let mut text = "<h2>Conditions</h2>\n<table>\n".to_string();
    rows.iter().for_each(|(name, value)| text += &format!("<tr><td>{name}</td><td>{}</td></tr>\n", escaped(value)));
    text + "</table>\n"
}

/// Text that is no markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests;
