//! The details of one node: state, counters, the time of a step by activity, and charts.

use gradwire_core::status::Counters;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::{block, chart, labelled, points, rule};
use crate::app::App;
use crate::model::{Model, Node, seconds};
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, rank: u32, area: Rect) {
    let Some(node) = model.nodes.get(&rank) else {
        frame.render_widget(Paragraph::new(format!("no report from peer {rank}; Esc goes back")), area);
        return;
    };
    let name = format!("{:?}", node.report.status.role).to_lowercase();
    let title = format!(" peer {rank}, {name} at {} ", node.host);
    if area.width < NARROW {
        return draw_narrow(frame, app, model, (rank, node, title), area);
    }
    let half = (area.width / 2).saturating_sub(2);
    let facts = facts_of(app, model, rank, node, half);
    let (times, total) = step_times(app, node);
    let height = if app.expanded { 0 } else { facts.len().max(times.len()) as u16 + 2 };
    let [top, charts] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(top);
    frame.render_widget(Paragraph::new(facts).block(block(app.theme, title)), left);
    let title = format!(" time per step: {total:.3} ms ");
    frame.render_widget(Paragraph::new(times).block(block(app.theme, title)), right);
    draw_charts(frame, app, node, charts);
}

/// Least columns of facts and times side by side.
const NARROW: u16 = 70;

/// Facts, times and charts below each other, as far as the lines go.
fn draw_narrow(frame: &mut Frame<'_>, app: &App, model: &Model, (rank, node, title): (u32, &Node, String), area: Rect) {
    let mut lines = facts_of(app, model, rank, node, area.width);
    let (times, total) = step_times(app, node);
    lines.push(Line::styled(format!("time per step: {total:.3} ms"), app.theme.title()));
    lines.extend(times);
    let height = if app.expanded { 0 } else { lines.len() as u16 + 1 };
    let [top, charts] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines).block(rule(app.theme, title)), top);
    draw_charts(frame, app, node, charts);
}

fn draw_charts(frame: &mut Frame<'_>, app: &App, node: &Node, area: Rect) {
    if area.height < 4 {
        return;
    }
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    let examples = points(&node.history, |sample| sample.examples);
    chart(frame, app, left, " examples/s ".into(), &[("examples/s", examples)]);
    let step = points(&node.history, |sample| sample.step);
    let waiting = points(&node.history, |sample| sample.step * sample.wait);
    let title = if area.width < NARROW { " ms, waiting " } else { " ms per step, of these waiting " };
    chart(frame, app, right, title.into(), &[("step", step), ("waiting", waiting)]);
}

/// The facts in lines of `width` columns. The wait comes before the counters: it is why a user looks at a node.
fn facts_of<'a>(app: &App, model: &Model, rank: u32, node: &Node, width: u16) -> Vec<Line<'a>> {
    let (status, now, counters) = (&node.report.status, &node.now, &node.report.status.counters);
    let (word, style) = state(app, model, rank, node);
    let waits = match status.waiting {
        Some(waiting) => {
            let since = seconds(model.now) - seconds(waiting.since);
            // A node that is behind another one learns from that one for which peer the whole chain waits.
            let source = match waiting.reported_by.0 == rank {
                true => String::new(),
                false => format!(", according to peer {}", waiting.reported_by),
            };
            format!("{since:.1} s for peer {} (at clock {}){source}", waiting.on, waiting.at.0)
        }
        None => "no".into(),
    };
    let texts = [
        ("waiting", waits),
        ("clock", format!("{}, {} steps", status.clock.0, node.report.times.steps)),
        ("speed", format!("{} examples/s", count(now.examples))),
        ("network", format!("{}/s out, {}/s in", bytes(now.bytes_out), bytes(now.bytes_in))),
        ("applied", format!("{}, duplicate {}, {}", counters.applied, counters.duplicates, late(counters))),
        (
            "dropped",
            format!(
                "{}, rejected {}, lost {}{}",
                counters.dropped,
                counters.rejected,
                counters.lost,
                skipped(counters)
            ),
        ),
    ];
    let mut lines = vec![Line::from(vec![Span::raw("state   "), Span::styled(word, style)])];
    lines.extend(texts.iter().flat_map(|(label, text)| labelled(label, 8, text, Style::new(), width)));
    lines
}

/// The contributions that came after the end of their round.
fn late(counters: &Counters) -> String {
    match counters.deferred {
        0 => format!("late {}", counters.late),
        deferred => format!("late {}, {deferred} in a later round", counters.late),
    }
}

/// With B-FASGD: messages that a worker has not sent or fetched, and updates that a server has applied again.
fn skipped(counters: &Counters) -> String {
    match (counters.skipped_pushes, counters.skipped_fetches, counters.repeated) {
        (0, 0, 0) => String::new(),
        (0, 0, repeated) => format!(", again {repeated}"),
        (pushes, fetches, _) => format!(", skipped {pushes} pushes, {fetches} fetches"),
    }
}

/// A line per activity of a step, and the milliseconds of a step.
fn step_times<'a>(app: &App, node: &Node) -> (Vec<Line<'a>>, f64) {
    let parts = node.breakdown();
    let total: f64 = parts.iter().map(|(_, ms)| ms).sum();
    let mut lines: Vec<Line<'_>> = parts
        .iter()
        .map(|(name, ms)| {
            let share = if total > 0.0 { ms / total } else { 0.0 };
            Line::raw(format!("{name:<16} {ms:>8.3} ms {} {:>3.0} %", app.theme.bar(share, 8), 100.0 * share))
        })
        .collect();
    // Not a part of the total: transmissions overlap the other activities.
    let wire = node.report.times.wire as f64 / 1e6 / node.report.times.steps.max(1) as f64;
    lines.push(Line::styled(format!("transmitting     {wire:>8.3} ms overlaps"), app.theme.dim()));
    (lines, total)
}
