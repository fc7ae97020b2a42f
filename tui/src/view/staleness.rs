//! The pane of staleness: the clocks of the workers side by side, and the histogram of the staleness of updates.

use gradwire_core::status::Histogram;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::{LOW, chart, note_lines, outline, points};
use crate::app::App;
use crate::model::Model;
use crate::standing::Standing;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let (clocks_area, histogram_area) = match (area.width < NARROW, area.height < 2 * LINES_MIN) {
        (false, _) => {
            let [left, right] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
            (left, right)
        }
        (true, false) => {
            let [above, below] = Layout::vertical([Constraint::Fill(1); 2]).areas(area);
            (above, below)
        }
        // The clocks show which worker is behind. The overview has the mean staleness.
        (true, true) => (area, Rect::default()),
    };
    // Below clocks that leave much of the screen free: how much the workers wait.
    let lanes = (app.listed(model).len() as u16 + 2).max(LOW);
    if clocks_area.height >= lanes.saturating_add(CHART_MIN) {
        let [above, below] = Layout::vertical([Constraint::Length(lanes), Constraint::Fill(1)]).areas(clocks_area);
        clocks(frame, app, model, above);
        let waits = points(&model.history, |sample| 100.0 * sample.wait);
        chart(frame, app, below, " % of the time that workers wait ".into(), &[("waiting", waits)]);
    } else {
        clocks(frame, app, model, clocks_area);
    }
    if !histogram_area.is_empty() {
        histogram(frame, app, model, histogram_area);
    }
}

/// Least columns of clocks and histogram side by side.
const NARROW: u16 = 60;
/// Least lines of the chart below the clocks.
const CHART_MIN: u16 = 12;
/// Least lines of a histogram.
const LINES_MIN: u16 = 8;

/// The number of a setting in the recipe's text.
fn setting(recipe: &str, key: &str) -> Option<f64> {
    recipe.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// A lane per worker. A dot shows how far it is ahead of the slowest worker, a mark where the bound stops it.
fn clocks(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let bound = setting(&model.run.recipe, "bound").map(|bound| bound as u64);
    let clocks: Vec<(u32, u64)> = model
        .nodes
        .iter()
        .filter(|(rank, _)| **rank < model.run.workers.max(1))
        .map(|(rank, node)| (*rank, node.report.status.clock.0))
        .collect();
    let is_live = |rank: u32| model.nodes.get(&rank).is_some_and(|node| Standing::of(model, rank, node).is_live());
    let slowest = model.slowest().map_or(0, |(_, clock)| clock);
    let fastest = clocks.iter().filter(|(rank, _)| is_live(*rank)).map(|(_, clock)| *clock).max().unwrap_or(0);
    // A lane is as long as the bound or the lead of the fastest worker, whichever is larger.
    let span = fastest.saturating_sub(slowest).max(bound.map_or(1, |bound| bound + 1)).max(1);
    let title = match (bound, area.width < 32) {
        (Some(bound), false) => {
            let mark = if app.theme.ascii { '|' } else { '┃' };
            format!(" clocks from {slowest}; {mark} bound of {bound} ")
        }
        _ => format!(" clocks from {slowest} "),
    };
    let block = outline(app.theme, title, area);
    let inner = block.inner(area);
    // Rank, clock and state take the rest.
    let width = usize::from(inner.width.saturating_sub(24)).max(4);
    let position = |ahead: u64| (ahead.min(span) as f64 / span as f64 * (width - 1) as f64).round() as usize;
    let (dot, mark, line) = if app.theme.ascii { ('o', '|', '.') } else { ('●', '┃', '·') };
    let height = usize::from(inner.height);
    let (listed, selected) = (app.listed(model), app.line(model));
    let skip = app.targets.scroll(selected, height, listed.len());
    note_lines(app, inner, skip, listed.len());
    let rows = listed.iter().enumerate().skip(skip).take(height).filter_map(|(i, rank)| {
        let clock = model.nodes.get(rank)?.report.status.clock.0;
        let mut lane: Vec<char> = vec![line; width];
        if let Some(bound) = bound {
            lane[position(bound)] = mark;
        }
        lane[position(clock.saturating_sub(slowest))] = dot;
        let waits = model.nodes.get(rank).and_then(|node| node.report.status.waiting);
        let (text, style) = match waits {
            _ if model.has_left(*rank) => ("left".to_string(), app.theme.dim()),
            _ if !is_live(*rank) => ("SUSPECT".to_string(), app.theme.bad()),
            Some(waiting) => (format!("waits {}", waiting.on), app.theme.warn()),
            None => (String::new(), app.theme.good()),
        };
        let lane: String = lane.into_iter().collect();
        let front = format!("{rank:>4} {clock:>8} ");
        let front = if i == selected { Span::styled(front, app.theme.selected()) } else { Span::raw(front) };
        Some(Line::from(vec![front, Span::styled(lane, style), Span::styled(format!(" {text}"), style)]))
    });
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()).block(block), area);
}

fn histogram(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let mut all = [0u64; Histogram::BUCKETS];
    let (mut sum, mut count) = (0u64, 0u64);
    for node in model.nodes.values() {
        let staleness = &node.report.status.staleness;
        for (all, bucket) in all.iter_mut().zip(staleness.buckets()) {
            *all = all.saturating_add(*bucket);
        }
        (sum, count) = (sum.saturating_add(staleness.sum()), count.saturating_add(staleness.count()));
    }
    let mean = if count > 0 { sum as f64 / count as f64 } else { 0.0 };
    let last = all.iter().rposition(|n| *n > 0).unwrap_or(0);
    // N workers at equal speed, with c updates per application: each update is (N - 1) / c applications old.
    let (workers, updates) = (f64::from(model.run.workers), setting(&model.run.recipe, "updates").unwrap_or(1.0));
    let expected = (workers - 1.0).max(0.0) / updates.max(1.0);
    let width = usize::from(area.width.saturating_sub(19)).max(2);
    let mut lines = vec![
        Line::raw(format!("{mean:.2} mean of {count} updates")),
        Line::raw(format!("{expected:.2} at equal speed, (N-1)/c")),
    ];
    let rows = usize::from(area.height).saturating_sub(4).max(1);
    if count == 0 {
        lines.push(Line::styled("no staleness recorded yet", app.theme.dim()));
        lines.push(Line::styled("(synchronous: always none)", app.theme.dim()));
    } else {
        // With more values than lines, neighbours share a line.
        let each = (last + 1).div_ceil(rows);
        let groups: Vec<u64> =
            all[..=last].chunks(each).map(|group| group.iter().fold(0, |sum: u64, n| sum.saturating_add(*n))).collect();
        let most = groups.iter().copied().max().unwrap_or(0).max(1);
        lines.extend(groups.iter().enumerate().map(|(i, n)| {
            let (from, to) = (i * each, (i * each + each - 1).min(all.len() - 1));
            // The last bucket also counts all larger values.
            let sign = if to + 1 == all.len() { "+" } else { " " };
            let values = if from == to { format!("{from}{sign}") } else { format!("{from}-{to}{sign}") };
            Line::raw(format!("{values:>6} {n:>8} {}", app.theme.bar(*n as f64 / most as f64, width)))
        }));
    }
    frame.render_widget(Paragraph::new(lines).block(outline(app.theme, " staleness of updates ".into(), area)), area);
}
