//! A recording as CSV (RFC 4180): a line per report, in the order of the recording.
//!
//! Rates are measured as on the screen, between two reports that are 0.4 s apart or longer. Counters are from the report.
//! A value that is not finite, or that the application has not reported, has an empty field.

use std::fmt::Write as _;

use gradwire_core::telemetry::Frame;

use crate::model::{Model, seconds};

/// The titles, in the order of the fields.
const TITLES: &str = "seconds,rank,host,role,clock,steps,examples,loss,accuracy,bytes_out,bytes_in,examples_per_second,\
bytes_out_per_second,bytes_in_per_second,step_ms,wait_share,density,threshold,residual_norm,staleness_mean,waits_for\r\n";

pub(super) fn text(frames: &[Frame]) -> String {
    let (mut model, mut text) = (Model::default(), TITLES.to_string());
    for frame in frames {
        model.take(frame.clone());
        let Frame::Report(report) = frame else { continue };
        // A report beyond the most nodes of a model is in no screen either.
        let Some(node) = model.nodes.get(&report.status.me.0) else { continue };
        let (status, now) = (&report.status, &node.now);
        let fields = [
            number(seconds(report.at)),
            status.me.to_string(),
            quoted(&node.host),
            format!("{:?}", status.role).to_lowercase(),
            status.clock.0.to_string(),
            report.times.steps.to_string(),
            report.progress.examples.to_string(),
            number(f64::from(report.progress.loss)),
            number(f64::from(report.progress.accuracy)),
            status.bytes_out().to_string(),
            status.bytes_in().to_string(),
            number(now.examples),
            number(now.bytes_out),
            number(now.bytes_in),
            number(now.step),
            number(now.wait),
            number(status.density),
            number(status.tau),
            number(status.residual_norm),
            number(status.staleness.mean()),
            status.waiting.map_or_else(String::new, |waiting| waiting.on.to_string()),
        ];
        let _ = write!(text, "{}\r\n", fields.join(","));
    }
    text
}

/// A number; empty if it is not finite.
fn number(x: f64) -> String {
    if x.is_finite() { x.to_string() } else { String::new() }
}

/// A text in quotes. A spreadsheet takes a text that begins with one of these signs for a formula.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}
