//! The details of one node: state, counters, the time of a step by activity, and charts.

use gradwire_core::status::Counters;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::{block, chart, points};
use crate::app::App;
use crate::model::{Model, Node, seconds};
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, rank: u32, area: Rect) {
    let Some(node) = model.nodes.get(&rank) else {
        frame.render_widget(Paragraph::new(format!("no report from peer {rank}; Esc goes back")), area);
        return;
    };
    let [top, charts] =
        Layout::vertical([Constraint::Length(if app.expanded { 0 } else { 9 }), Constraint::Fill(1)]).areas(area);
    let [facts, times] = Layout::horizontal([Constraint::Fill(1); 2]).areas(top);
    let title = format!(" peer {rank}, {} at {} ", format!("{:?}", node.report.status.role).to_lowercase(), node.host);
    let lines = facts_of(app, model, rank, node);
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, title)), facts);
    let (lines, total) = step_times(app, node);
    let title = format!(" time per step: {total:.3} ms ");
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, title)), times);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let examples = points(&node.history, |sample| sample.examples);
    chart(frame, app, left, " examples/s ".into(), &[("examples/s", examples)]);
    let step = points(&node.history, |sample| sample.step);
    let waiting = points(&node.history, |sample| sample.step * sample.wait);
    chart(frame, app, right, " ms per step, of these waiting ".into(), &[("step", step), ("waiting", waiting)]);
}

fn facts_of<'a>(app: &App, model: &Model, rank: u32, node: &Node) -> Vec<Line<'a>> {
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
    vec![
        Line::from(vec![Span::raw("state   "), Span::styled(word, style)]),
        Line::raw(format!("clock   {}, {} steps", status.clock.0, node.report.times.steps)),
        Line::raw(format!("waiting {waits}")),
        Line::raw(format!("speed   {} examples/s", count(now.examples))),
        Line::raw(format!("network {}/s out, {}/s in", bytes(now.bytes_out), bytes(now.bytes_in))),
        Line::raw(format!("applied {}, duplicate {}, {}", counters.applied, counters.duplicates, late(counters))),
        Line::raw(format!(
            "dropped {}, rejected {}, lost {}{}",
            counters.dropped,
            counters.rejected,
            counters.lost,
            skipped(counters)
        )),
    ]
}

/// The contributions that came after the end of their round.
fn late(counters: &Counters) -> String {
    match counters.deferred {
        0 => format!("late {}", counters.late),
        deferred => format!("late {}, {deferred} in a later round", counters.late),
    }
}

/// With B-FASGD: what a worker has not sent or fetched, and what a server has applied again.
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
