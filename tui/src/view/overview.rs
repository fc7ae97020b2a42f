//! The pane of the overview: facts, topology and waits, the time of each node, and charts of the whole cluster.
//!
//! | lines | layout |
//! |---|---|
//! | below 9 | the first facts, without a frame |
//! | 9 to 27 | facts, bars and a row of low charts; titles instead of frames |
//! | 28 and more | the same with frames; where it fits, a second row: step times, traffic and the last events |

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};

use super::axis::Scale;
use super::facts::{self, Border};
use super::widgets::{chart, chart_on, points};
use super::{events, parts, topology};
use crate::app::App;
use crate::model::Model;
use crate::theme::{bytes, count};

/// Least lines of a pane with anything but facts, and of a pane with frames.
const LOW: u16 = 9;
const HIGH: u16 = 28;
/// Least lines of a chart, with its title.
const CHART_MIN: u16 = 4;
/// Columns of a chart with its title.
const CHART_WIDTH: u16 = 26;
/// Least lines of two rows of charts.
const TWO_ROWS: u16 = 22;
/// Least columns of a screen on which the topology is drawn beside the facts.
const WIDE: u16 = 120;
/// Columns of the facts beside the topology, at least.
const FACTS_WIDTH: u16 = 80;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let border = match area.height {
        ..LOW => Border::None,
        LOW..HIGH => Border::Rule,
        _ => Border::Frame,
    };
    // Beside the topology, the facts keep the columns of their sentences.
    let facts_width = if area.width < WIDE { area.width } else { (area.width / 2).max(FACTS_WIDTH) };
    let facts = match border {
        // With expanded charts the rest gets no height.
        _ if app.expanded => 0,
        Border::None => area.height,
        _ => facts::height(app, model, facts_width, border),
    };
    let left = area.height.saturating_sub(facts);
    let framed = border == Border::Frame;
    // Charts get the lines that the bars leave, and no line if that is too little.
    let bars = match left {
        _ if app.expanded || model.nodes.is_empty() || left < 2 => 0,
        left => {
            let all = parts::height(model, framed);
            let most = if left >= CHART_MIN + 4 { left - CHART_MIN } else { left };
            all.min(if framed { most.min((left / 2).max(8)) } else { most })
        }
    };
    let rows = [Constraint::Length(facts), Constraint::Length(bars), Constraint::Fill(1)];
    let [facts, bars, charts] = Layout::vertical(rows).areas(area);
    let (facts, topology) = match area.width {
        WIDE.. if facts.height > LOW - 2 => {
            let columns = [Constraint::Length(facts_width), Constraint::Fill(1)];
            let [left, right] = Layout::horizontal(columns).spacing(u16::from(!framed)).areas(facts);
            (left, right)
        }
        _ => (facts, Rect::default()),
    };
    if !facts.is_empty() {
        facts::draw(frame, app, model, facts, border);
    }
    if !topology.is_empty() {
        topology::draw(frame, app, model, topology, framed);
    }
    if !bars.is_empty() {
        parts::draw(frame, app, model, bars, framed);
    }
    if charts.height >= TWO_ROWS {
        let [first, second] = Layout::vertical([Constraint::Fill(1); 2]).areas(charts);
        draw_charts(frame, app, model, first);
        draw_more(frame, app, model, second);
    } else if charts.height >= CHART_MIN {
        draw_charts(frame, app, model, charts);
    }
}

/// Loss, accuracy where it is told, and examples per second.
fn draw_charts(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let loss = points(&model.history, |sample| sample.loss);
    let accuracy = points(&model.history, |sample| sample.accuracy);
    let latest = |points: &[(f64, f64)]| points.last().map_or_else(|| "-".to_string(), |(_, y)| format!("{y:.4}"));
    // As many as have room, from the first on.
    let most = if accuracy.is_empty() { 2 } else { 3 };
    let columns =
        Layout::horizontal(vec![Constraint::Fill(1); usize::from(area.width / CHART_WIDTH).clamp(1, most)]).split(area);
    let mut columns = columns.iter().copied();
    let mut next = || columns.next().unwrap_or_default();
    let scale = Scale::of(&loss);
    let title = format!(" loss {}{} ", latest(&loss), if scale == Scale::Log { ", logarithmic" } else { "" });
    chart_on(frame, app, next(), title, &[("loss", loss)], scale);
    if !accuracy.is_empty() {
        let title = format!(" accuracy {} ", latest(&accuracy));
        chart_on(frame, app, next(), title, &[("accuracy", accuracy)], Scale::Fit);
    }
    let examples = points(&model.history, |sample| sample.examples);
    let title = format!(" examples/s {} ", count(model.total(|node| node.now.examples)));
    chart(frame, app, next(), title, &[("examples/s", examples)]);
}

/// Step times, traffic, and the last events.
fn draw_more(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let columns = Layout::horizontal([Constraint::Fill(1); 3]).split(area);
    let history = |of: fn(&crate::model::Sample) -> f64| points(&model.history, of);
    let (step, compute) = (history(|s| s.step), history(|s| s.compute));
    let title = format!(" ms per step {:.1}, of these computing ", model.worker_mean(|node| node.now.step));
    chart(frame, app, columns[0], title, &[("step", step), ("computing", compute)]);
    let (out, into) = (history(|s| s.bytes_out), history(|s| s.bytes_in));
    let title = format!(" bytes/s {} out ", bytes(model.total(|node| node.now.bytes_out)));
    chart(frame, app, columns[1], title, &[("out", out), ("in", into)]);
    events::draw_last(frame, app, model, columns[2]);
}
