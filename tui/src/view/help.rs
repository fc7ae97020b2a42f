//! Keys, and what to look at first.

use super::*;

const KEYS: [(&str, &str); 13] = [
    ("1 to 6, Tab, h l", "panes"),
    ("j k, g G, PgUp PgDn", "lines"),
    ("Enter, Esc", "a node, and back"),
    ("/", "filter nodes and events: a rank, a host, a role, a word; ! inverts"),
    ("s, S", "sort by the next column, the other way round"),
    ("f", "freeze; again goes on"),
    ("e", "curves get all of the room; of links, how soon they answer"),
    ("space, [ ], x", "of a recording: play, wind 5 s, speed 1x 5x 20x"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("slow?", "Nodes by wait (s): who waits, and for whom"),
    ("", "Staleness: who is behind; Enter on it: what its step goes to"),
    ("", "Compression: does coding pay on this network"),
];

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let lines = KEYS
        .iter()
        .map(|(key, text)| Line::from(vec![Span::styled(format!("{key:<22}"), app.theme.accent()), Span::raw(*text)]));
    let lines: Vec<_> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, " help; any key goes back ".into())), area);
}
