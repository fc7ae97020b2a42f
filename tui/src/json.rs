//! JSON output: one object with the state of the cluster.
//!
//! Scripts depend on the keys: a key keeps its name and meaning, and new keys may be added. `version` changes if that
//! cannot be kept.

use gradwire_core::telemetry::NoteKind;

use crate::diagnosis::Diagnosis;
use crate::health::Health;
use crate::model::{Model, Node, seconds};
use crate::standing::Standing;

/// The text as a JSON string, quoted and escaped.
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

/// A JSON number; `null` for NaN and infinities, which JSON does not have.
fn number(x: f64) -> String {
    if x.is_finite() { format!("{x}") } else { "null".to_string() }
}

/// A JSON object of these members. Their values are JSON already.
fn object_of(members: &[(&str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// The cluster as one JSON object, on one line.
pub(crate) fn object(model: &Model) -> String {
    let health = Health::of(model);
    let nodes: Vec<String> = model.nodes.iter().map(|(rank, entry)| node(model, *rank, entry)).collect();
    let straggler = model.straggler().map_or_else(
        || "null".to_string(),
        |(rank, times)| object_of(&[("rank", rank.to_string()), ("times_median", number(times))]),
    );
    let (loss, accuracy) = model.history.iter().last().map_or((f64::NAN, f64::NAN), |last| (last.loss, last.accuracy));
    object_of(&[
        ("version", "1".into()),
        ("at", number(seconds(model.now))),
        ("health", quoted(health.word())),
        ("reason", quoted(health.reason())),
        ("diagnosis", quoted(&Diagnosis::of(model).text)),
        ("run", name(model)),
        ("straggler", straggler),
        ("live", model.live().count().to_string()),
        ("recipe", quoted(&model.run.recipe)),
        ("workers", model.run.workers.to_string()),
        ("servers", model.run.servers.to_string()),
        ("parameters", model.run.parameters.to_string()),
        ("examples_per_second", number(model.total(|node| node.now.examples))),
        ("bytes_out_per_second", number(model.total(|node| node.now.bytes_out))),
        ("wait_share", number(model.worker_mean(|node| node.now.wait))),
        ("loss", number(loss)),
        ("accuracy", number(accuracy)),
        ("samples", model.history.iter().count().to_string()),
        ("restarts", restarts(model).to_string()),
        ("nodes", format!("[{}]", nodes.join(","))),
    ])
}

/// The cluster as one JSON object, with its address in the field `source`.
pub(crate) fn with_source(source: &str, model: &Model) -> String {
    let object = object(model);
    format!("{},\"source\":{}}}", object.strip_suffix('}').unwrap_or(&object), quoted(source))
}

/// The name of the run.
fn name(model: &Model) -> String {
    let name = model.nodes.values().find_map(|node| node.report.run);
    name.map_or_else(|| "null".to_string(), |name| quoted(name.as_str()))
}

/// How often another log has begun.
fn restarts(model: &Model) -> usize {
    model.notes.iter().filter(|note| note.kind == NoteKind::AnotherLog).count()
}

fn node(model: &Model, rank: u32, node: &Node) -> String {
    let (status, now) = (&node.report.status, &node.now);
    let waits = status.waiting.map_or_else(
        || "null".to_string(),
        |waiting| {
            object_of(&[
                ("on", waiting.on.to_string()),
                ("at", waiting.at.0.to_string()),
                ("seconds", number(seconds(model.now) - seconds(waiting.since))),
            ])
        },
    );
    object_of(&[
        ("rank", rank.to_string()),
        ("host", quoted(&node.host)),
        ("role", quoted(&format!("{:?}", status.role).to_lowercase())),
        ("state", quoted(Standing::of(model, rank, node).word())),
        ("clock", status.clock.0.to_string()),
        ("steps", node.report.times.steps.to_string()),
        ("examples", node.report.progress.examples.to_string()),
        ("staleness_mean", number(status.staleness.mean())),
        ("staleness_max", status.staleness.max().to_string()),
        ("examples_per_second", number(now.examples)),
        ("bytes_out_per_second", number(now.bytes_out)),
        ("bytes_in_per_second", number(now.bytes_in)),
        ("density", number(now.density)),
        ("tau", number(now.tau)),
        ("residual_norm", number(now.residual)),
        ("residual_updates", number(status.residual_updates)),
        ("residual_kept", status.rest.map_or_else(|| "null".to_string(), |rest| number(rest.kept))),
        ("forgotten", number(status.forgotten)),
        ("step_ms", number(now.step)),
        ("compute_ms", number(now.compute)),
        ("rate_steps", format!("[{},{}]", node.rate_steps().0, node.rate_steps().1)),
        ("wait_share", number(now.wait)),
        ("busy_share", number(now.busy)),
        ("loss", number(f64::from(node.report.progress.loss))),
        ("accuracy", number(f64::from(node.report.progress.accuracy))),
        ("queue", status.operations.to_string()),
        ("view", status.view.to_string()),
        ("seen_seconds", number(model.silence(node))),
        ("left", model.has_left(rank).to_string()),
        ("waits", waits),
    ])
}
