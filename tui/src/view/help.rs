//! The help: the keys of the key map, and the panes to look at when training is slow. It wraps and scrolls.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::outline;
use crate::app::App;
use crate::keys::{BINDINGS, Command};
use crate::wrap::wrapped;

/// The places to look at, and the reason for each.
const HINTS: [(&str, &str); 5] = [
    ("2 Nodes", "sorted by state (s): the worst first, and for which peer the others wait"),
    ("3 Staleness", "the worker that is behind"),
    ("Enter on a node", "time per step: computing, coding, or network and peers"),
    ("4 Compression", "link speeds at which coding pays off"),
    ("5 Links", "the busiest and the slowest links"),
];

/// The lines for a width, as key and text. A title has no text.
fn lines(app: &App, width: usize) -> Vec<(String, String)> {
    let column = if width < 60 { 17 } else { 22 };
    let mut all = Vec::new();
    let mut add = |key: String, text: &str| {
        let mut rows = wrapped(text, width.saturating_sub(column).max(10)).into_iter();
        all.push((format!("{key:<column$}"), rows.next().unwrap_or_default()));
        all.extend(rows.map(|row| (" ".repeat(column), row)));
    };
    for (group, bindings) in BINDINGS {
        add(format!("{group}:"), "");
        for binding in bindings.iter().filter(|binding| !app.keys.names(binding.command).is_empty()) {
            add(format!(" {}", app.keys.names(binding.command)), binding.help);
        }
    }
    add(
        "Mouse:".into(),
        "tabs, lines, column titles, and the bar and the timeline of a recording, which can be dragged",
    );
    add(String::new(), "");
    add("Why is it slow?".into(), "");
    HINTS.iter().for_each(|(key, text)| add(format!(" {key}"), text));
    all
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let inner = outline(app.theme, String::new(), area).inner(area);
    let lines = lines(app, usize::from(inner.width));
    let height = usize::from(inner.height);
    let last = lines.len().saturating_sub(height);
    let first = app.help_line.min(last);
    let shown = lines.iter().skip(first).take(height).map(|(key, text)| {
        let style = if text.is_empty() { app.theme.title() } else { app.theme.accent() };
        Line::from(vec![Span::styled(key.clone(), style), Span::raw(text.clone())])
    });
    let keys = [Command::Down, Command::Up, Command::Back].map(|command| app.keys.first(command));
    let title = match last {
        0 => format!(" help; {} closes it ", keys[2]),
        _ => format!(" help {}%; {} {} scroll, {} closes ", 100 * first / last, keys[0], keys[1], keys[2]),
    };
    frame.render_widget(Paragraph::new(shown.collect::<Vec<_>>()).block(outline(app.theme, title, area)), area);
}
