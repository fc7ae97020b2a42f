//! A table of all nodes.

use ratatui::style::Style;
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::*;
use crate::app::Column;
use crate::model::{NodeView, SILENCE};
use crate::theme::bytes;

/// How a node is, in a word.
pub(super) fn state(app: &App, model: &Model, rank: u32, node: &NodeView) -> (String, Style) {
    let theme = app.theme;
    if model.has_left(rank) {
        return ("left".into(), theme.dim());
    }
    if model.silence(node) >= SILENCE {
        return ("SUSPECT".into(), theme.bad());
    }
    match node.report.status.waiting {
        Some(waiting) => (format!("waits {}", waiting.on), theme.warn()),
        None => ("ok".into(), theme.good()),
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let listed = app.listed(model);
    let slowest = model.slowest().map_or(0, |(_, clock)| clock);
    // What there is room for, from the left.
    let columns: [(&str, u16); 16] = [
        ("rank", 5),
        ("state", 9),
        ("clock", 7),
        ("lead", 5),
        ("wait", 5),
        ("ex/s", 7),
        ("out/s", 9),
        ("in/s", 9),
        ("stale", 6),
        ("seen", 6),
        ("host", 14),
        ("role", 10),
        ("density", 9),
        ("tau", 8),
        ("residual", 9),
        ("queue", 5),
    ];
    let mut room = area.width.saturating_sub(2);
    let shown: Vec<_> = columns
        .into_iter()
        .take_while(|(_, width)| {
            let fits = room >= *width;
            room = room.saturating_sub(width + 1);
            fits
        })
        .collect();
    let header = shown.iter().map(|(name, _)| {
        let sorted = *name == app.sort.name() || (*name == "rank" && app.sort == Column::Rank);
        let sign = match (sorted, app.reverse, app.theme.ascii) {
            (false, ..) => "",
            (_, false, false) => "▲",
            (_, true, false) => "▼",
            (_, false, true) => "^",
            (_, true, true) => "v",
        };
        Cell::from(format!("{name}{sign}"))
    });
    let header = Row::new(header).style(app.theme.title());
    // Only what there is room for is made.
    let lines = usize::from(area.height.saturating_sub(3)).max(1);
    let chosen = app.line.min(listed.len().saturating_sub(1));
    let first = chosen.saturating_sub(lines - 1);
    let rows = listed.iter().skip(first).take(lines).filter_map(|rank| {
        let node = model.nodes.get(rank)?;
        let (status, now) = (&node.report.status, &node.now);
        let (word, style) = state(app, model, *rank, node);
        let texts = [
            rank.to_string(),
            word,
            status.clock.0.to_string(),
            match *rank < model.run.workers.max(1) {
                true => format!("+{}", status.clock.0.saturating_sub(slowest)),
                false => "-".to_string(),
            },
            format!("{:.0}%", 100.0 * now.wait),
            format!("{:.0}", now.examples),
            bytes(now.bytes_out),
            bytes(now.bytes_in),
            format!("{:.1}", status.staleness.mean()),
            format!("{:.1}s", model.silence(node)),
            node.host.clone(),
            format!("{:?}", status.role).to_lowercase(),
            format!("{:.1e}", now.density),
            format!("{:.0e}", now.tau),
            format!("{:.2e}", now.residual),
            status.operations.to_string(),
        ];
        let cells = texts.into_iter().take(shown.len()).enumerate();
        Some(Row::new(cells.map(|(i, text)| if i == 1 { Cell::from(text).style(style) } else { Cell::from(text) })))
    });
    let widths: Vec<_> = shown.iter().map(|(_, width)| Constraint::Length(*width)).collect();
    let title = format!(" {} nodes, by {} ", listed.len(), app.sort.name());
    let table = Table::new(rows.collect::<Vec<_>>(), widths)
        .header(header)
        .block(block(app.theme, title))
        .row_highlight_style(app.theme.selected());
    let mut state = TableState::default().with_selected(Some(chosen - first));
    frame.render_stateful_widget(table, area, &mut state);
}
