//! The help: keys, and the panes to look at when training is slow.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::block;
use crate::app::App;

/// Keys with their effect, then the hints. Must fit into 80 by 20 characters.
const LINES: [(&str, &str); 17] = [
    ("1 to 6, Tab, h l", "select a pane"),
    ("j k, g G, PgUp PgDn", "select a line"),
    ("Enter, Esc", "details of a node, back"),
    ("/", "filter nodes and events: a rank, or a part of host,"),
    ("", "role or event; a leading ! inverts"),
    ("s, S", "sort by the next column, reverse the order"),
    ("f", "freeze the screen, continue"),
    ("e", "expand the charts; Links: bytes or response times"),
    ("space, [ ], x", "recordings: pause, seek 5 s, speed 1x 5x 20x"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("Why is it slow?", ""),
    ("2 Nodes", "sort by wait (s): nodes that wait, and for which peer"),
    ("3 Staleness", "the worker that is behind"),
    ("Enter on a node", "time per step: computing, coding, or network and peers"),
    ("4 Compression", "link speeds at which coding pays off"),
    ("5 Links", "the busiest and the slowest links"),
];

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let lines = LINES
        .iter()
        .map(|(key, text)| Line::from(vec![Span::styled(format!("{key:<22}"), app.theme.accent()), Span::raw(*text)]));
    let lines: Vec<_> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, " help; any key closes it ".into())), area);
}
