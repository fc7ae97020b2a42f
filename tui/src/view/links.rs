//! The pane of links: a matrix of bytes sent, or response times, from each node to each peer.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::block;
use crate::app::App;
use crate::model::{Model, Node, SILENT_AFTER, seconds};
use crate::theme::bytes;

/// Seconds without a message after which a link is marked. Links are quiet more often than nodes are silent.
const LINK_SILENT_AFTER: f64 = 2.0 * SILENT_AFTER;
/// Width of a column, and of the ranks in front.
const CELL: usize = 9;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let ranks = app.listed(model);
    let peers: Vec<u32> = model.nodes.keys().copied().collect();
    let columns = (usize::from(area.width).saturating_sub(CELL) / CELL).max(1);
    let rows = usize::from(area.height.saturating_sub(3));
    // The selected line is the first one shown, and the first column as well: large matrices scroll along the diagonal.
    let first_column = app.line.min(peers.len().saturating_sub(columns));
    let first_row = app.line.min(ranks.len().saturating_sub(rows));
    let shown = &peers[first_column..peers.len().min(first_column + columns)];
    let titles: String = shown.iter().map(|peer| format!("{:>CELL$}", format!("to {peer}"))).collect();
    let mut lines = vec![Line::styled(format!("{:>6} {titles}", "from"), app.theme.title())];
    let links = model.nodes.values().flat_map(|node| &node.report.status.links);
    let most = links.map(|link| link.bytes_out).max().unwrap_or(0);
    for rank in &ranks[first_row..] {
        let Some(node) = model.nodes.get(rank) else { continue };
        let cells = shown.iter().map(|peer| {
            let (text, style) = cell(app, model, node, *peer, most);
            Span::styled(format!("{text:>CELL$}"), style)
        });
        lines.push(Line::from_iter(std::iter::once(Span::raw(format!("{rank:>6} "))).chain(cells)));
    }
    let title = match app.expanded {
        true => format!(" response time, row to column; e: bytes; ! silent for {LINK_SILENT_AFTER:.0} s "),
        false => format!(" bytes sent, row to column; e: response time; ! silent for {LINK_SILENT_AFTER:.0} s "),
    };
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, title)), area);
}

/// The cell for the link from a node to a peer. `most`: the bytes sent on the busiest link.
fn cell(app: &App, model: &Model, node: &Node, peer: u32, most: u64) -> (String, Style) {
    let link = node.report.status.links.iter().find(|link| link.peer.0 == peer && link.bytes_out > 0);
    let Some(link) = link else { return ((if app.theme.ascii { "." } else { "·" }).into(), app.theme.dim()) };
    // The first messages are the hello. A link without later ones may have nothing to carry.
    let in_use = link.messages_in > 2;
    let silence = link.last_heard.map_or(f64::MAX, |at| seconds(model.now) - seconds(at));
    let is_silent = in_use && silence > LINK_SILENT_AFTER;
    let style = if is_silent {
        app.theme.warn()
    } else if link.bytes_out > most / 2 {
        app.theme.accent()
    } else {
        app.theme.good()
    };
    let sign = if is_silent { "!" } else { "" };
    let text = match app.expanded {
        true => format!("{:.1} ms", link.response_ns as f64 / 1e6),
        false => bytes(link.bytes_out as f64),
    };
    (format!("{sign}{text}"), style)
}
