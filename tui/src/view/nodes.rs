//! The pane of nodes: a table with a line per node, with the details of the selected one where there is room.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::node;
use super::widgets::{LOW, note_lines, outline};
use crate::app::{App, Column};
use crate::model::{Model, Node};
use crate::standing::Standing;
use crate::targets::Target;
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
    // Below a table that leaves much of the screen free: the details of the selected node.
    let table = (listed.len() as u16 + 3).max(LOW);
    let (area, below) = match (app.selected(model), area.height.saturating_sub(table)) {
        (Some(rank), DETAILS_MIN..) => {
            let [above, below] = Layout::vertical([Constraint::Length(table), Constraint::Fill(1)]).areas(area);
            (above, Some((rank, below)))
        }
        _ => (area, None),
    };
    draw_table(frame, app, model, area);
    if let Some((rank, below)) = below {
        node::draw(frame, app, model, rank, below);
    }
}

/// Least lines of the details below the table.
const DETAILS_MIN: u16 = 18;

fn draw_table(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let listed = app.listed(model);
    let slowest = model.slowest().map_or(0, |(_, clock)| clock);
    let inner = outline(app.theme, String::new(), area).inner(area);
    // The rank stays in view when the other columns are scrolled.
    let columns = fitting_columns(inner.width, app.column);
    // Rows are made for the visible lines only: a cluster can have a thousand nodes.
    let lines = usize::from(inner.height.saturating_sub(1)).max(1);
    let selected = app.line(model);
    let first = app.targets.scroll(selected, lines, listed.len());
    let below_titles = Rect { y: inner.y + 1, height: lines as u16, ..inner };
    note_lines(app, below_titles.intersection(area), first, listed.len());
    note_titles(app, inner, &columns);
    let rows: Vec<_> = listed
        .iter()
        .skip(first)
        .take(lines)
        .filter_map(|rank| Some(row(app, model, *rank, model.nodes.get(rank)?, slowest, &columns)))
        .collect();
    let widths: Vec<_> = columns.iter().map(|at| Constraint::Length(COLUMNS[*at].1)).collect();
    let order = if app.reverse { ", reversed" } else { "" };
    let state = app.state.map_or_else(String::new, |state| format!(" {}", state.name()));
    // Where the table goes on beyond the screen.
    let more = match (columns.get(1) > Some(&1), columns.last() < Some(&(COLUMNS.len() - 1))) {
        (false, false) => "",
        (true, true) => "; < more >",
        (true, false) => "; < more",
        (false, true) => "; more >",
    };
    let title = format!(" {}{state} nodes, by {}{order}{more} ", listed.len(), app.sort.name());
    let table = Table::new(rows, widths)
        .header(header(app, &columns))
        .block(outline(app.theme, title, area))
        .row_highlight_style(app.theme.selected());
    let mut state = TableState::default().with_selected(Some(selected - first));
    frame.render_stateful_widget(table, area, &mut state);
}

/// The columns that fit into this width, with a space between them: the rank, and the columns after the first `scrolled`
/// ones behind it.
fn fitting_columns(width: u16, scrolled: usize) -> Vec<usize> {
    let fitting = |scrolled: usize| {
        let mut rest = width;
        let columns = std::iter::once(0).chain(1 + scrolled..COLUMNS.len());
        let fitting = columns.take_while(|at| {
            let fits = rest >= COLUMNS[*at].1;
            rest = rest.saturating_sub(COLUMNS[*at].1 + 1);
            fits
        });
        fitting.collect::<Vec<_>>()
    };
    // No further than to where the last column is in view.
    let most = (0..COLUMNS.len() - 1).find(|scrolled| fitting(*scrolled).last() == Some(&(COLUMNS.len() - 1)));
    fitting(scrolled.min(most.unwrap_or(COLUMNS.len() - 2)))
}

/// The column for sorting that this column of the table shows.
fn sorting(at: usize) -> Option<Column> {
    Column::ALL.into_iter().find(|column| column.name() == COLUMNS[at].0)
}

/// Notes the titles of the columns that a click sorts by.
fn note_titles(app: &App, table: Rect, columns: &[usize]) {
    let mut x = table.x;
    for at in columns {
        let title = Rect::new(x, table.y, COLUMNS[*at].1, 1).intersection(table);
        if let Some(column) = sorting(*at) {
            app.targets.note(title, Target::Sort(column));
        }
        x += COLUMNS[*at].1 + 1;
    }
}

/// The titles, with a sign at the column by which the nodes are sorted.
fn header<'a>(app: &App, columns: &[usize]) -> Row<'a> {
    let cells = columns.iter().map(|at| {
        let sorted = sorting(*at) == Some(app.sort);
        let rises = app.sort.begins_with_least() != app.reverse;
        let sign = match (sorted, rises, app.theme.ascii) {
            (false, ..) => "",
            (_, true, false) => "▲",
            (_, false, false) => "▼",
            (_, true, true) => "^",
            (_, false, true) => "v",
        };
        Cell::from(format!("{}{sign}", COLUMNS[*at].0))
    });
    Row::new(cells).style(app.theme.title())
}

/// The line of a node: the cells of these columns. `slowest` is the least clock of the workers.
fn row<'a>(app: &App, model: &Model, rank: u32, node: &Node, slowest: u64, columns: &[usize]) -> Row<'a> {
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
        // A node without a codec has no such measurement.
        if now.density > 0.0 { format!("{:.1e}", now.density) } else { "-".to_string() },
        if now.tau > 0.0 { format!("{:.0e}", now.tau) } else { "-".to_string() },
        if now.residual > 0.0 { format!("{:.2e}", now.residual) } else { "-".to_string() },
        status.operations.to_string(),
    ];
    let mut texts = texts;
    let cells = columns.iter().map(|at| {
        let cell = Cell::from(std::mem::take(&mut texts[*at]));
        if COLUMNS[*at].0 == "state" { cell.style(style) } else { cell }
    });
    Row::new(cells)
}
