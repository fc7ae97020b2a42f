//! The pane of events: the notes of all nodes, the latest first.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::widgets::{block, note_lines};
use crate::app::App;
use crate::keys::Command;
use crate::model::{Model, seconds};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let height = usize::from(area.height.saturating_sub(2)).max(1);
    let (events, line) = (app.events(model), app.line(model));
    let skip = app.targets.scroll(line, height, events.len());
    note_lines(app, area, 1, skip, events.len());
    let lines = events.iter().enumerate().skip(skip).take(height).map(|(i, note)| {
        let sign = if note.kind.is_trouble() { "!" } else { " " };
        let text = format!("{:>7.1} s {sign} {:>3} {note}", seconds(note.at), note.rank.0);
        let style = match (i == line, note.kind.is_trouble()) {
            (true, _) => app.theme.selected(),
            (_, true) => app.theme.warn(),
            _ => Style::new(),
        };
        Line::styled(text, style)
    });
    let lines: Vec<_> = lines.collect();
    let title = format!(" {} events; {} opens the node ", events.len(), app.keys.first(Command::Open));
    let body =
        if lines.is_empty() { Paragraph::new("no events").style(app.theme.dim()) } else { Paragraph::new(lines) };
    frame.render_widget(body.block(block(app.theme, title)), area);
}
