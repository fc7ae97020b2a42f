//! The facts of the overview, a line each: recipe, speed, waits, the slowest worker, traffic, topology, staleness. The
//! most important comes first, since a low screen shows the first lines.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::topology;
use super::widgets::{block, fitted, labelled, rule};
use crate::app::App;
use crate::model::Model;
use crate::theme::{bytes, count};

/// The number of facts, in a line each.
const LINES: u16 = 7;
/// Most lines of a recipe.
const RECIPE_MAX: usize = 4;
/// Least columns of whole sentences. A narrower screen has figures with their units.
const SENTENCES: u16 = 78;

/// How much of a frame the facts have.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Border {
    Frame,
    /// A line with the title.
    Rule,
    None,
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect, border: Border) {
    let title = title(model, area.width);
    let block = match border {
        Border::Frame => Some(block(app.theme, title)),
        Border::Rule => Some(rule(app.theme, title)),
        Border::None => None,
    };
    let width = block.as_ref().map_or(area, |block| block.inner(area)).width;
    let facts = if area.width < SENTENCES { figures(app, model) } else { sentences(app, model) };
    let mut lines = match border {
        Border::Frame => recipe(app, model, width),
        _ => Vec::new(),
    };
    let rest = usize::from(!lines.is_empty());
    lines.extend(facts.into_iter().skip(rest).map(|line| fitted(app.theme, line, width)));
    let facts = Paragraph::new(lines);
    frame.render_widget(if let Some(block) = block { facts.block(block) } else { facts }, area);
}

/// The lines that the facts take in a screen of this width, with their frame or title.
pub(super) fn height(app: &App, model: &Model, width: u16, border: Border) -> u16 {
    match border {
        Border::None => LINES,
        Border::Rule => LINES + 1,
        Border::Frame => LINES + 1 + recipe(app, model, width.saturating_sub(2)).len() as u16,
    }
}

/// The recipe in as many lines as it needs, up to [`RECIPE_MAX`].
fn recipe<'a>(app: &App, model: &Model, width: u16) -> Vec<Line<'a>> {
    let columns = if width < SENTENCES - 2 { 8 } else { 10 };
    let mut lines = labelled("recipe", columns, &model.recipe, app.theme.accent(), width);
    lines.truncate(RECIPE_MAX);
    lines
}

/// The size of the cluster.
fn title(model: &Model, width: u16) -> String {
    let (workers, servers) = (model.run.workers, model.run.servers);
    let number = |n: u32, name: &str| format!("{n} {name}{}", if n == 1 { "" } else { "s" });
    // A node that has not installed the latest view yet reports an older number.
    let view = model.nodes.values().map(|node| node.report.status.view).max().unwrap_or(0);
    let parameters = count(model.run.parameters as f64);
    let (workers, servers) = (number(workers, "worker"), number(servers, "server"));
    match width < SENTENCES {
        true => format!(" {workers}, {servers} "),
        false => format!(" cluster: {workers}, {servers}, {parameters} parameters, view {view} "),
    }
}

/// The mean staleness of all updates.
fn staleness(model: &Model) -> f64 {
    let all = model.nodes.values().map(|node| &node.report.status.staleness);
    let (sum, count) = all.fold((0.0, 0.0), |(sum, n), one| (sum + one.sum() as f64, n + one.count() as f64));
    if count > 0.0 { sum / count } else { 0.0 }
}

/// A line with a label in front.
fn line<'a>(label: &str, columns: usize, text: impl Into<Span<'a>>) -> Line<'a> {
    Line::from(vec![Span::raw(format!("{label:<columns$}")), text.into()])
}

fn sentences<'a>(app: &App, model: &Model) -> Vec<Line<'a>> {
    let (out, into) = (model.total(|node| node.now.bytes_out), model.total(|node| node.now.bytes_in));
    let sent = model.sum_of_all(|node| node.report.status.bytes_out() as f64);
    let dense = model.sum_of_all(|node| node.report.status.counters.dense_bytes as f64);
    let (step, wait) = (model.worker_mean(|node| node.now.step), model.worker_mean(|node| node.now.wait));
    let slowest = match model.longest_computing() {
        Some((rank, longest, median)) => {
            format!("peer {rank} computes {longest:.1} ms per step; the median is {median:.1} ms")
        }
        None => "-".to_string(),
    };
    let servers = model
        .busiest_server()
        .map_or_else(String::new, |(rank, busy)| format!("; busiest server: peer {rank}, {:.0} % busy", 100.0 * busy));
    let label = |label: &str, text: String| line(label, 10, text);
    let (waits, style) = topology::waits_text(app, model, false);
    vec![
        line("recipe", 10, Span::styled(model.recipe.clone(), app.theme.accent())),
        label(
            "speed",
            format!(
                "{} examples/s, {step:.1} ms per step, {} {:.0} % waiting",
                count(model.total(|node| node.now.examples)),
                app.theme.bar(wait, 10),
                100.0 * wait
            ),
        ),
        line("waits", 10, Span::styled(waits, style)),
        label("slowest", slowest),
        label(
            "network",
            format!(
                "{}/s out, {}/s in, {} sent, {:.1} % of the f32 size",
                bytes(out),
                bytes(into),
                bytes(sent),
                if dense > 0.0 { 100.0 * sent / dense } else { 0.0 }
            ),
        ),
        label("topology", topology::text(app, model, false)),
        label("staleness", format!("{:.2} on average{servers}", staleness(model))),
    ]
}

/// The same in about 40 columns.
fn figures<'a>(app: &App, model: &Model) -> Vec<Line<'a>> {
    let (out, into) = (model.total(|node| node.now.bytes_out), model.total(|node| node.now.bytes_in));
    let (step, wait) = (model.worker_mean(|node| node.now.step), model.worker_mean(|node| node.now.wait));
    let slowest = model.longest_computing().map_or_else(
        || "-".to_string(),
        |(rank, longest, median)| format!("{rank}: {longest:.1} ms, median {median:.1}"),
    );
    let label = |label: &str, text: String| line(label, 8, text);
    let (waits, style) = topology::waits_text(app, model, true);
    let examples = count(model.total(|node| node.now.examples));
    vec![
        line("recipe", 8, Span::styled(model.recipe.clone(), app.theme.accent())),
        label("speed", format!("{examples} ex/s, {step:.1} ms a step")),
        line("waits", 8, Span::styled(format!("{:.0} %, {waits}", 100.0 * wait), style)),
        label("slowest", slowest),
        label("network", format!("{}/s out, {}/s in", bytes(out), bytes(into))),
        label("nodes", topology::text(app, model, true)),
        label("stale", format!("{:.2} on average", staleness(model))),
    ]
}
