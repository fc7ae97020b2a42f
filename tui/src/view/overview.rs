//! The pane of the overview: recipe, speed, traffic, where the time goes, loss and accuracy of the whole cluster.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::{Scale, block, chart, chart_on, points};
use super::{parts, topology};
use crate::app::App;
use crate::model::Model;
use crate::theme::{bytes, count};

/// Least lines of a chart.
const CHART_MIN: u16 = 6;
/// Lines of the facts, with their frame.
const FACTS_MAX: u16 = 10;
/// Least columns of a screen on which the waits are drawn beside the facts.
const WIDE: u16 = 120;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    // With expanded charts the rest gets no height. A low screen shows the facts that matter most.
    let facts = match area.height {
        _ if app.expanded => 0,
        ..8 => area.height,
        8..22 => 6,
        _ => FACTS_MAX,
    };
    let left = area.height.saturating_sub(facts);
    // The bars take up to half of the rest, and nothing if a chart would not fit.
    let bars = match left {
        _ if app.expanded || model.nodes.is_empty() || left < CHART_MIN + 3 => 0,
        left => parts::height(model).min((left / 2).max(left.min(16) - CHART_MIN)).min(left - CHART_MIN),
    };
    let rows = [Constraint::Length(facts), Constraint::Length(bars), Constraint::Fill(1)];
    let [facts, bars, charts] = Layout::vertical(rows).areas(area);
    let (facts, topology) = match area.width {
        WIDE.. if facts.height > 6 => {
            let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(facts);
            (left, right)
        }
        _ => (facts, Rect::default()),
    };
    draw_facts(frame, app, model, facts);
    if !topology.is_empty() {
        topology::draw(frame, app, model, topology);
    }
    if !bars.is_empty() {
        parts::draw(frame, app, model, bars);
    }
    if !charts.is_empty() {
        draw_charts(frame, app, model, charts);
    }
}

/// The facts, with a frame where there is room for it. A narrow screen has the beginning of each line.
fn draw_facts(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let facts = Paragraph::new(lines(app, model));
    let framed = area.height >= 6;
    frame.render_widget(if framed { facts.block(block(app.theme, " cluster ".into())) } else { facts }, area);
}

/// Loss, accuracy where it is told, and examples per second.
fn draw_charts(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let loss = points(&model.history, |sample| sample.loss);
    let accuracy = points(&model.history, |sample| sample.accuracy);
    let latest = |points: &[(f64, f64)]| points.last().map_or_else(|| "-".to_string(), |(_, y)| format!("{y:.4}"));
    let count_of_charts = if accuracy.is_empty() { 2 } else { 3 };
    let columns = Layout::horizontal(vec![Constraint::Fill(1); count_of_charts]).split(area);
    let mut columns = columns.iter().copied();
    let mut next = || columns.next().unwrap_or_default();
    let scale = Scale::of(&loss);
    let title = format!(" loss {}{} ", latest(&loss), if scale == Scale::Log { ", logarithmic" } else { "" });
    chart_on(frame, app, next(), title, &[("loss", loss)], scale);
    if !accuracy.is_empty() {
        chart(frame, app, next(), format!(" accuracy {} ", latest(&accuracy)), &[("accuracy", accuracy)]);
    }
    let examples = points(&model.history, |sample| sample.examples);
    let title = format!(" examples/s {} ", count(model.total(|node| node.now.examples)));
    chart(frame, app, next(), title, &[("examples/s", examples)]);
}

fn lines<'a>(app: &App, model: &Model) -> Vec<Line<'a>> {
    let (out, into) = (model.total(|node| node.now.bytes_out), model.total(|node| node.now.bytes_in));
    let sent = model.sum_of_all(|node| node.report.status.bytes_out() as f64);
    let dense = model.sum_of_all(|node| node.report.status.counters.dense_bytes as f64);
    // A node that has not installed the latest view yet reports an older number.
    let view = model.nodes.values().map(|node| node.report.status.view).max().unwrap_or(0);
    let (step, wait) = (model.worker_mean(|node| node.now.step), model.worker_mean(|node| node.now.wait));
    let staleness = {
        let all = model.nodes.values().map(|node| &node.report.status.staleness);
        let (sum, count) = all.fold((0.0, 0.0), |(sum, n), one| (sum + one.sum() as f64, n + one.count() as f64));
        if count > 0.0 { sum / count } else { 0.0 }
    };
    let slowest = match model.longest_computing() {
        Some((rank, longest, median)) => {
            format!("peer {rank} computes {longest:.1} ms per step; the median is {median:.1} ms")
        }
        None => "-".to_string(),
    };
    let servers = model
        .busiest_server()
        .map_or_else(String::new, |(rank, busy)| format!("; busiest server: peer {rank}, {:.0} % busy", 100.0 * busy));
    vec![
        Line::from(vec![Span::raw("recipe    "), Span::styled(model.run.recipe.clone(), app.theme.accent())]),
        Line::raw(format!(
            "speed     {} examples/s, {step:.1} ms per step, {} {:.0} % waiting",
            count(model.total(|node| node.now.examples)),
            app.theme.bar(wait, 10),
            100.0 * wait
        )),
        topology::waits_line(app, model),
        Line::raw(format!(
            "network   {}/s out, {}/s in, {} sent, {:.1} % of the f32 size",
            bytes(out),
            bytes(into),
            bytes(sent),
            if dense > 0.0 { 100.0 * sent / dense } else { 0.0 }
        )),
        topology::line(app, model),
        Line::raw(format!("slowest   {slowest}")),
        Line::raw(format!("staleness {staleness:.2} on average{servers}")),
        Line::raw(format!(
            "cluster   {} workers, {} servers, {} parameters, view {view}",
            model.run.workers,
            model.run.servers,
            count(model.run.parameters as f64)
        )),
    ]
}
