//! What happened, the latest first.

use super::*;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let room = usize::from(area.height.saturating_sub(2)).max(1);
    let skip = app.line.saturating_sub(room - 1);
    let events = app.events(model);
    let lines = events.iter().enumerate().skip(skip).take(room).map(|(i, note)| {
        let sign = if note.kind.is_trouble() { "!" } else { " " };
        let text = format!("{:>7.1} s {sign} {:>3} {note}", seconds(note.at), note.rank.0);
        let style = match (i == app.line, note.kind.is_trouble()) {
            (true, _) => app.theme.selected(),
            (_, true) => app.theme.warn(),
            _ => ratatui::style::Style::new(),
        };
        Line::styled(text, style)
    });
    let lines: Vec<_> = lines.collect();
    let title = format!(" {} events; Enter goes to the node ", events.len());
    let body = if lines.is_empty() { Paragraph::new("none yet").style(app.theme.dim()) } else { Paragraph::new(lines) };
    frame.render_widget(body.block(block(app.theme, title)), area);
}
