//! The pane of links: a matrix of rates, response times or bytes, from each node to each peer. It scrolls both ways.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::{LOW, chart, note_lines, outline, points};
use crate::app::{App, LinkUnit};
use crate::keys::Command;
use crate::model::{Model, Node, SILENT_AFTER, seconds};
use crate::theme::bytes;

/// Seconds without a message after which a link is marked. Links are quiet more often than nodes are silent.
const LINK_SILENT_AFTER: f64 = 2.0 * SILENT_AFTER;
/// Width of a column, and of the ranks in front.
const CELL: usize = 9;
const FRONT: usize = 7;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    // Below a matrix that leaves much of the screen free: the traffic of the cluster over time.
    let matrix = (app.listed(model).len() as u16 + 3).max(LOW);
    if area.height < matrix.saturating_add(CHART_MIN) {
        return draw_matrix(frame, app, model, area);
    }
    let [above, below] = Layout::vertical([Constraint::Length(matrix), Constraint::Fill(1)]).areas(area);
    draw_matrix(frame, app, model, above);
    let (out, into) = (points(&model.history, |s| s.bytes_out), points(&model.history, |s| s.bytes_in));
    chart(frame, app, below, " bytes/s of all nodes ".into(), &[("out", out), ("in", into)]);
}

/// Least lines of the chart below the matrix.
const CHART_MIN: u16 = 12;

fn draw_matrix(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let ranks = app.listed(model);
    let peers: Vec<u32> = model.nodes.keys().copied().collect();
    let inner = outline(app.theme, String::new(), area).inner(area);
    let columns = (usize::from(inner.width).saturating_sub(FRONT) / CELL).max(1);
    let rows = usize::from(inner.height.saturating_sub(1));
    let first_column = app.column.min(peers.len().saturating_sub(columns));
    let selected = app.line(model);
    let first_row = app.targets.scroll(selected, rows, ranks.len());
    let below_titles = Rect { y: inner.y + 1, height: rows as u16, ..inner };
    note_lines(app, below_titles, first_row, ranks.len());
    let shown = &peers[first_column..peers.len().min(first_column + columns)];
    let titles: String = shown.iter().map(|peer| format!("{:>CELL$}", format!("to {peer}"))).collect();
    let mut lines = vec![Line::styled(format!("{:>6} {titles}", "from"), app.theme.title())];
    let most =
        model.nodes.values().flat_map(|node| node.link_rates.values()).fold(0.0, |most: f64, rate| most.max(*rate));
    for (i, rank) in ranks.iter().enumerate().skip(first_row).take(rows) {
        let Some(node) = model.nodes.get(rank) else { continue };
        let cells = shown.iter().map(|peer| {
            let (text, style) = cell(app, model, node, *peer, most);
            Span::styled(format!("{text:>CELL$}"), style)
        });
        let front = format!("{rank:>6} ");
        let front = if i == selected { Span::styled(front, app.theme.selected()) } else { Span::raw(front) };
        lines.push(Line::from_iter(std::iter::once(front).chain(cells)));
    }
    let unit = match app.unit {
        LinkUnit::Rate => "bytes/s",
        LinkUnit::Response => "response time",
        LinkUnit::Bytes => "bytes in all",
    };
    // Where the matrix goes on beyond the screen.
    let more = match (first_column > 0, first_column + columns < peers.len()) {
        (false, false) => "",
        (true, true) => "; < more >",
        (true, false) => "; < more",
        (false, true) => "; more >",
    };
    let key = app.keys.first(Command::Unit);
    let title = match area.width < 70 {
        true => format!(" {unit}{more}; {key}: unit "),
        false => format!(" {unit}, row to column{more}; {key}: unit; ! silent for {LINK_SILENT_AFTER:.0} s "),
    };
    frame.render_widget(Paragraph::new(lines).block(outline(app.theme, title, area)), area);
}

/// The cell for the link from a node to a peer. `most`: bytes per second on the busiest link.
fn cell(app: &App, model: &Model, node: &Node, peer: u32, most: f64) -> (String, Style) {
    let link = node.report.status.links.iter().find(|link| link.peer.0 == peer && link.bytes_out > 0);
    let Some(link) = link else { return ((if app.theme.ascii { "." } else { "·" }).into(), app.theme.dim()) };
    let rate = node.link_rates.get(&peer).copied().unwrap_or(0.0);
    // The first messages are the hello. A link without later ones may have nothing to carry.
    let in_use = link.messages_in > 2;
    let silence = link.last_heard.map_or(f64::MAX, |at| seconds(model.now) - seconds(at));
    let is_silent = in_use && silence > LINK_SILENT_AFTER;
    let style = if is_silent {
        app.theme.warn()
    } else if most > 0.0 && rate > most / 2.0 {
        app.theme.accent()
    } else {
        app.theme.good()
    };
    let sign = if is_silent { "!" } else { "" };
    let text = match app.unit {
        LinkUnit::Response => format!("{:.1} ms", link.response_ns as f64 / 1e6),
        LinkUnit::Bytes => bytes(link.bytes_out as f64),
        // The title names the unit: a cell has no room for "/s".
        LinkUnit::Rate => bytes(rate),
    };
    (format!("{sign}{text}"), style)
}
