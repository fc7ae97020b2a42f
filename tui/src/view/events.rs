//! The pane of events: the notes of all nodes, the latest first.

use gradwire_core::telemetry::Note;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::widgets::{block, fitted, note_lines, outline};
use crate::app::App;
use crate::keys::Command;
use crate::model::{Model, seconds};

/// The line of an event: time, a mark at trouble, the rank that reports it, and its words.
fn text(note: &Note) -> String {
    let sign = if note.kind.is_trouble() { "!" } else { " " };
    format!("{:>7.1} s {sign} {:>3} {note}", seconds(note.at), note.rank.0)
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let (events, line) = (app.events(model), app.line(model));
    let title = format!(" {} events; {} opens the node ", events.len(), app.keys.first(Command::Open));
    let block = outline(app.theme, title, area);
    let inner = block.inner(area);
    let height = usize::from(inner.height).max(1);
    let skip = app.targets.scroll(line, height, events.len());
    note_lines(app, inner, skip, events.len());
    let lines = events.iter().enumerate().skip(skip).take(height).map(|(i, note)| {
        let style = match (i == line, note.kind.is_trouble()) {
            (true, _) => app.theme.selected(),
            (_, true) => app.theme.warn(),
            _ => Style::new(),
        };
        fitted(app.theme, Line::styled(text(note), style), inner.width)
    });
    let lines: Vec<_> = lines.collect();
    let body =
        if lines.is_empty() { Paragraph::new("no events").style(app.theme.dim()) } else { Paragraph::new(lines) };
    frame.render_widget(body.block(block), area);
}

/// The last events, for the overview: as many as fit, without a cursor.
pub(super) fn draw_last(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let width = area.width.saturating_sub(2);
    let lines = model.notes.iter().rev().take(usize::from(area.height.saturating_sub(2))).map(|note| {
        let style = if note.kind.is_trouble() { app.theme.warn() } else { Style::new() };
        fitted(app.theme, Line::styled(text(note), style), width)
    });
    let lines: Vec<_> = lines.collect();
    let body =
        if lines.is_empty() { Paragraph::new("no events").style(app.theme.dim()) } else { Paragraph::new(lines) };
    frame.render_widget(body.block(block(app.theme, " last events ".into())), area);
}
