//! The list of runs, from the command line or found on this host.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::{fitted, outline};
use crate::app::App;
use crate::health::Health;
use crate::keys::Command;
use crate::targets::Target;

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, selected: usize, area: Rect) {
    let inner = outline(app.theme, String::new(), area).inner(area);
    let height = usize::from(inner.height).max(1);
    let first = selected.saturating_sub(height - 1);
    let lines = app.runs.iter().enumerate().skip(first).take(height).map(|(i, run)| {
        let row = Rect { y: inner.y + (i - first) as u16, height: 1, ..inner };
        app.targets.note(row.intersection(area), Target::Run(i));
        let style = match run.health {
            _ if !run.connected => app.theme.warn(),
            Health::Ok | Health::Ended(_) => app.theme.good(),
            Health::Unknown => app.theme.dim(),
            Health::Degraded(_) => app.theme.warn(),
            Health::Stalled(_) | Health::Lost(_) => app.theme.bad(),
        };
        let front = format!("{}{:<24} ", if i == app.run { "*" } else { " " }, run.label);
        let front = if i == selected { Span::styled(front, app.theme.selected()) } else { Span::raw(front) };
        let (here, all) = run.nodes;
        let word = if run.connected { run.health.word() } else { "no connection" };
        let word = Span::styled(format!("{word:<13}"), style);
        let rest = Span::raw(format!(" {here} of {all} nodes  {}", run.recipe));
        fitted(app.theme, Line::from(vec![front, word, rest]), inner.width)
    });
    let lines: Vec<_> = lines.collect();
    let title = format!(
        " {} runs; {} shows one, {} goes back ",
        app.runs.len(),
        app.keys.first(Command::Open),
        app.keys.first(Command::Back)
    );
    let body = match lines.is_empty() {
        true => Paragraph::new("no run of this host has announced itself yet: start one with --monitor 127.0.0.1:0")
            .wrap(ratatui::widgets::Wrap { trim: true }),
        false => Paragraph::new(lines),
    };
    frame.render_widget(body.block(outline(app.theme, title, area)), area);
}
