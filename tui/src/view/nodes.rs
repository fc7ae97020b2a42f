//! The pane of nodes: a table with a line per node.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::widgets::block;
use crate::app::{App, Column};
use crate::model::{Model, Node};
use crate::standing::Standing;
use crate::theme::bytes;

/// Titles and widths. A narrow screen shows as many columns as fit, from the left.
const COLUMNS: [(&str, u16); 16] = [
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

/// The state of a node in a word or two, with its style.
pub(super) fn state(app: &App, model: &Model, rank: u32, node: &Node) -> (String, Style) {
    let theme = app.theme;
    let standing = Standing::of(model, rank, node);
    match (standing, node.report.status.waiting) {
        (Standing::Silent, _) => ("SUSPECT".into(), theme.bad()),
        (Standing::GivenUp | Standing::Failed, _) => (standing.word().into(), theme.bad()),
        (Standing::Left | Standing::Finished, _) => (standing.word().into(), theme.dim()),
        (_, Some(waiting)) => (format!("waits {}", waiting.on), theme.warn()),
        (Standing::Joining | Standing::Active | Standing::Leaving, None) => (standing.word().into(), theme.good()),
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let listed = app.listed(model);
    let slowest = model.slowest().map_or(0, |(_, clock)| clock);
    let columns = fitting_columns(area.width.saturating_sub(2));
    // Rows are made for the visible lines only: a cluster can have a thousand nodes.
    let lines = usize::from(area.height.saturating_sub(3)).max(1);
    let selected = app.line.min(listed.len().saturating_sub(1));
    // Scroll so that the selected line is the last one visible at most.
    let first = selected.saturating_sub(lines - 1);
    let rows: Vec<_> = listed
        .iter()
        .skip(first)
        .take(lines)
        .filter_map(|rank| Some(row(app, model, *rank, model.nodes.get(rank)?, slowest, columns.len())))
        .collect();
    let widths: Vec<_> = columns.iter().map(|(_, width)| Constraint::Length(*width)).collect();
    let title = format!(" {} nodes, by {} ", listed.len(), app.sort.name());
    let table = Table::new(rows, widths)
        .header(header(app, columns))
        .block(block(app.theme, title))
        .row_highlight_style(app.theme.selected());
    let mut state = TableState::default().with_selected(Some(selected - first));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The columns that fit into this width, with a space between them.
fn fitting_columns(width: u16) -> &'static [(&'static str, u16)] {
    let mut rest = width;
    let fitting = COLUMNS.iter().take_while(|(_, width)| {
        let fits = rest >= *width;
        rest = rest.saturating_sub(width + 1);
        fits
    });
    &COLUMNS[..fitting.count()]
}

/// The titles, with a sign at the column by which the nodes are sorted.
fn header<'a>(app: &App, columns: &[(&'static str, u16)]) -> Row<'a> {
    let cells = columns.iter().map(|(name, _)| {
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
    Row::new(cells).style(app.theme.title())
}

/// The line of a node: its first `columns` cells. `slowest` is the least clock of the workers.
fn row<'a>(app: &App, model: &Model, rank: u32, node: &Node, slowest: u64, columns: usize) -> Row<'a> {
    let (status, now) = (&node.report.status, &node.now);
    let (word, style) = state(app, model, rank, node);
    // The clock of a server counts applications, so it cannot be compared with workers.
    let is_worker = rank < model.run.workers.max(1);
    let lead = if is_worker { format!("+{}", status.clock.0.saturating_sub(slowest)) } else { "-".into() };
    // The last figures of a node that is not live say nothing about the present.
    let live = Standing::of(model, rank, node).is_live();
    let shown = |text: String| if live { text } else { "-".to_string() };
    let texts: [String; COLUMNS.len()] = [
        rank.to_string(),
        word,
        status.clock.0.to_string(),
        lead,
        shown(format!("{:.0}%", 100.0 * if is_worker { now.wait } else { now.busy })),
        shown(format!("{:.0}", now.examples)),
        shown(bytes(now.bytes_out)),
        shown(bytes(now.bytes_in)),
        format!("{:.1}", status.staleness.mean()),
        format!("{:.1}s", model.silence(node)),
        node.host.clone(),
        format!("{:?}", status.role).to_lowercase(),
        format!("{:.1e}", now.density),
        format!("{:.0e}", now.tau),
        format!("{:.2e}", now.residual),
        status.operations.to_string(),
    ];
    let cells = texts.into_iter().take(columns).zip(COLUMNS).map(|(text, (name, _))| match name {
        "state" => Cell::from(text).style(style),
        _ => Cell::from(text),
    });
    Row::new(cells)
}
