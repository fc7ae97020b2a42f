//! Who sends how much to whom, and how soon it answers, as a matrix; and who has not been heard of.

use super::*;
use crate::theme::bytes;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let ranks = app.listed(model);
    let peers: Vec<u32> = model.nodes.keys().copied().collect();
    let columns = usize::from(area.width.saturating_sub(9) / 9).max(1);
    let first = app.line.min(peers.len().saturating_sub(columns));
    let shown = &peers[first..peers.len().min(first + columns)];
    let mut lines = vec![Line::styled(
        format!(
            "{:>6} {}",
            "from",
            shown.iter().map(|peer| format!("{:>9}", format!("to {peer}"))).collect::<String>()
        ),
        app.theme.title(),
    )];
    let most =
        model.nodes.values().flat_map(|node| &node.report.status.links).map(|link| link.bytes_out).max().unwrap_or(0);
    for rank in ranks.iter().skip(app.line.min(ranks.len().saturating_sub(usize::from(area.height.saturating_sub(3)))))
    {
        let Some(node) = model.nodes.get(rank) else { continue };
        let mut spans = vec![Span::raw(format!("{rank:>6} "))];
        for peer in shown {
            let link = node.report.status.links.iter().find(|link| link.peer.0 == *peer);
            let (text, style) = match link {
                Some(link) if link.bytes_out > 0 => {
                    let spoken = link.messages_in > 2;
                    let heard = link.last_heard.map_or(f64::MAX, |at| seconds(model.now) - seconds(at));
                    let silent = spoken && heard > crate::model::SILENCE * 2.0;
                    let style = if silent {
                        app.theme.warn()
                    } else if link.bytes_out > most / 2 {
                        app.theme.accent()
                    } else {
                        app.theme.good()
                    };
                    let sign = if silent { "!" } else { "" };
                    let text = match app.expanded {
                        true => format!("{:.1} ms", link.response_ns as f64 / 1e6),
                        false => bytes(link.bytes_out as f64),
                    };
                    (format!("{sign}{text}"), style)
                }
                _ => ((if app.theme.ascii { "." } else { "·" }).to_string(), app.theme.dim()),
            };
            spans.push(Span::styled(format!("{text:>9}"), style));
        }
        lines.push(Line::from(spans));
    }
    let silence = crate::model::SILENCE * 2.0;
    let title = match app.expanded {
        true => format!(" until row is answered by column; e: bytes; ! silent for {silence:.0} s "),
        false => format!(" bytes sent, row to column; e: answers; ! silent for {silence:.0} s "),
    };
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, title)), area);
}
