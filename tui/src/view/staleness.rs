//! Who is ahead, who holds whom up, and how old updates are.

use super::*;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let [lanes_area, ages] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
    lanes(frame, app, model, lanes_area);
    histogram(frame, app, model, ages);
}

/// A number in the recipe's text.
fn setting(recipe: &str, key: &str) -> Option<f64> {
    recipe.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

fn lanes(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let bound = setting(&model.run.recipe, "bound").map(|bound| bound as u64);
    let clocks: Vec<(u32, u64)> = model
        .nodes
        .iter()
        .filter(|(rank, _)| **rank < model.run.workers.max(1))
        .map(|(rank, node)| (*rank, node.report.status.clock.0))
        .collect();
    let slowest = model.slowest().map_or(0, |(_, clock)| clock);
    let first = clocks.iter().map(|(_, clock)| *clock).max().unwrap_or(0);
    // The window of bounded staleness, or what there is.
    let span = first.saturating_sub(slowest).max(bound.map_or(1, |bound| bound + 1)).max(1);
    let width = usize::from(area.width.saturating_sub(24)).max(4);
    let place = |ahead: u64| (ahead as f64 / span as f64 * (width - 1) as f64).round() as usize;
    let (dot, mark, line) = if app.theme.ascii { ('o', '|', '.') } else { ('●', '┃', '·') };
    let skip = app.line.min(clocks.len().saturating_sub(usize::from(area.height.saturating_sub(2))));
    let rows = clocks.iter().skip(skip).map(|(rank, clock)| {
        let mut lane: Vec<char> = vec![line; width];
        if let Some(bound) = bound {
            lane[place(bound.min(span)).min(width - 1)] = mark;
        }
        let ahead = clock.saturating_sub(slowest);
        lane[place(ahead.min(span)).min(width - 1)] = dot;
        let waits = model.nodes.get(rank).and_then(|node| node.report.status.waiting);
        let (text, style) = match waits {
            _ if model.has_left(*rank) => ("left".to_string(), app.theme.dim()),
            Some(waiting) => (format!("for {}", waiting.on), app.theme.warn()),
            None => (String::new(), app.theme.good()),
        };
        let lane: String = lane.into_iter().collect();
        Line::from(vec![
            Span::raw(format!("{rank:>4} {clock:>8} ")),
            Span::styled(lane, style),
            Span::styled(format!(" {text}"), style),
        ])
    });
    let title = match bound {
        Some(bound) => format!(" clocks from {slowest} on; {mark} is where the bound of {bound} lets them go "),
        None => format!(" clocks from {slowest} on "),
    };
    frame.render_widget(Paragraph::new(rows.collect::<Vec<_>>()).block(block(app.theme, title)), area);
}

fn histogram(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let mut all = [0u64; gradwire_core::status::Histogram::BUCKETS];
    let (mut sum, mut count) = (0u64, 0u64);
    for node in model.nodes.values() {
        let staleness = &node.report.status.staleness;
        for (all, one) in all.iter_mut().zip(staleness.buckets()) {
            *all = all.saturating_add(*one);
        }
        (sum, count) = (sum.saturating_add(staleness.sum()), count.saturating_add(staleness.count()));
    }
    let mean = if count > 0 { sum as f64 / count as f64 } else { 0.0 };
    let most = all.iter().copied().max().unwrap_or(0).max(1);
    let last = all.iter().rposition(|n| *n > 0).unwrap_or(0);
    let (workers, updates) = (f64::from(model.run.workers), setting(&model.run.recipe, "updates").unwrap_or(1.0));
    let width = usize::from(area.width.saturating_sub(20)).max(2);
    let mut lines = vec![
        Line::raw(format!("{mean:.2} mean of {count}")),
        Line::raw(format!("{:.2} if paced evenly, (N-1)/c", (workers - 1.0).max(0.0) / updates.max(1.0))),
        Line::raw(""),
    ];
    if count == 0 {
        lines.push(Line::styled("no update has been applied with an age: synchronous, or not begun", app.theme.dim()));
    } else {
        lines.extend(all.iter().take(last + 1).enumerate().map(|(age, n)| {
            let sign = if age + 1 == all.len() { "+" } else { " " };
            Line::raw(format!("{age:>3}{sign} {:>8} {}", n, app.theme.bar(*n as f64 / most as f64, width)))
        }));
    }
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, " staleness of updates ".into())), area);
}
