//! One object per tick, for scripts: its keys stay as they are, and more may come.

use crate::health::Health;
use crate::model::{Model, seconds};

/// Text as JSON has it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out + "\""
}

/// A number as JSON has it: none for what is none.
fn number(x: f64) -> String {
    if x.is_finite() { format!("{x}") } else { "null".to_string() }
}

pub(crate) fn object(model: &Model) -> String {
    let health = Health::of(model);
    let nodes: Vec<String> = model
        .nodes
        .iter()
        .map(|(rank, node)| {
            let (status, now) = (&node.report.status, &node.now);
            let waits = status.waiting.map_or_else(|| "null".to_string(), |waiting| {
                let since = seconds(model.now) - seconds(waiting.since);
                format!("{{\"on\":{},\"at\":{},\"seconds\":{}}}", waiting.on, waiting.at.0, number(since))
            });
            format!(
                "{{\"rank\":{rank},\"host\":{},\"role\":{},\"clock\":{},\"staleness_mean\":{},\"staleness_max\":{},\
                 \"examples_per_second\":{},\"bytes_out_per_second\":{},\"bytes_in_per_second\":{},\"density\":{},\"tau\":{},\
                 \"residual_norm\":{},\"step_ms\":{},\"wait_share\":{},\"loss\":{},\"accuracy\":{},\"queue\":{},\"view\":{},\
                 \"seen_seconds\":{},\"left\":{},\"waits\":{waits}}}",
                quoted(&node.host),
                quoted(&format!("{:?}", status.role).to_lowercase()),
                status.clock.0,
                number(status.staleness.mean()),
                status.staleness.max(),
                number(now.examples),
                number(now.bytes_out),
                number(now.bytes_in),
                number(now.density),
                number(now.tau),
                number(now.residual),
                number(now.step),
                number(now.wait),
                number(f64::from(node.report.progress.loss)),
                number(f64::from(node.report.progress.accuracy)),
                status.operations,
                status.view,
                number(model.silence(node)),
                model.has_left(*rank),
            )
        })
        .collect();
    format!(
        "{{\"version\":1,\"at\":{},\"health\":{},\"reason\":{},\"recipe\":{},\"workers\":{},\"servers\":{},\"parameters\":{},\
         \"examples_per_second\":{},\"bytes_out_per_second\":{},\"nodes\":[{}]}}",
        number(seconds(model.now)),
        quoted(health.word()),
        quoted(health.reason()),
        quoted(&model.run.recipe),
        model.run.workers,
        model.run.servers,
        model.run.parameters,
        number(model.total(|node| node.now.examples)),
        number(model.total(|node| node.now.bytes_out)),
        nodes.join(",")
    )
}
