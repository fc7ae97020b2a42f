//! One node: where its time goes, and its past.

use super::*;
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, rank: u32, area: Rect) {
    let Some(node) = model.nodes.get(&rank) else {
        frame.render_widget(Paragraph::new(format!("nothing is known of peer {rank}; Esc goes back")), area);
        return;
    };
    let (status, now) = (&node.report.status, &node.now);
    let [top, charts] =
        Layout::vertical([Constraint::Length(if app.expanded { 0 } else { 9 }), Constraint::Fill(1)]).areas(area);
    let [facts, times] = Layout::horizontal([Constraint::Fill(1); 2]).areas(top);
    let (word, style) = super::nodes::state(app, model, rank, node);
    let waits = match status.waiting {
        Some(waiting) => format!(
            "peer {} (at clock {}) since {:.1} s, says peer {}",
            waiting.on,
            waiting.at.0,
            seconds(model.now) - seconds(waiting.since),
            waiting.reported_by
        ),
        None => "nobody".into(),
    };
    let counters = &status.counters;
    let lines = vec![
        Line::from(vec![Span::raw("state   "), Span::styled(word, style)]),
        Line::raw(format!("clock   {}, {} steps", status.clock.0, node.report.times.steps)),
        Line::raw(format!("waits   for {waits}")),
        Line::raw(format!("speed   {} examples/s", count(now.examples))),
        Line::raw(format!("network {}/s out, {}/s in", bytes(now.bytes_out), bytes(now.bytes_in))),
        Line::raw(format!("applied {}, twice {}, late {}", counters.applied, counters.duplicates, counters.late)),
        Line::raw(format!("dropped {}, refused {}, lost {}", counters.dropped, counters.rejected, counters.lost)),
    ];
    let title = format!(" peer {rank}, {} at {} ", format!("{:?}", status.role).to_lowercase(), node.host);
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, title)), facts);
    let parts = node.breakdown();
    let all: f64 = parts.iter().map(|(_, ms)| ms).sum();
    let lines: Vec<Line<'_>> = parts
        .iter()
        .map(|(name, ms)| {
            let share = if all > 0.0 { ms / all } else { 0.0 };
            Line::raw(format!("{name:<16} {:>8.3} ms {} {:>3.0} %", ms, app.theme.bar(share, 8), 100.0 * share))
        })
        .collect();
    let wire = node.report.times.wire as f64 / 1e6 / node.report.times.steps.max(1) as f64;
    let mut lines = lines;
    lines.push(Line::styled(format!("sending          {wire:>8.3} ms, beside these"), app.theme.dim()));
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, format!(" a step: {all:.3} ms "))), times);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
    let history =
        |of: &dyn Fn(&crate::model::Sample) -> f64| node.history.iter().map(|s| (s.at, of(s))).collect::<Vec<_>>();
    curves(frame, app, left, " examples/s ".into(), &[("examples/s", history(&|s| s.examples))]);
    let steps = [("step", history(&|s| s.step)), ("waiting", history(&|s| s.step * s.wait))];
    curves(frame, app, right, " ms a step, of it waiting ".into(), &steps);
}
