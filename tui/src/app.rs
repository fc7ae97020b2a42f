//! [`App`]: the state of the user interface, and its reaction to keys and mouse.
//!
//! It has no terminal and no clock, so tests press keys and look at the state. The panes in `view` draw a model and an
//! app.

use std::cmp::Ordering;

use gradwire_core::telemetry::Note;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use crate::model::{Model, Node, seconds};
use crate::theme::Theme;

/// The tabs of the screen.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pane {
    Overview,
    Nodes,
    Staleness,
    Compression,
    Links,
    Events,
}

impl Pane {
    pub(crate) const ALL: [Self; 6] =
        [Self::Overview, Self::Nodes, Self::Staleness, Self::Compression, Self::Links, Self::Events];

    /// The text of the pane's tab. Narrow screens get the first letters of the name.
    pub(crate) fn tab(self, index: usize, width: u16) -> String {
        match width < 70 {
            true => format!("{}{} ", index + 1, &self.name()[..4]),
            false => format!(" {} {} ", index + 1, self.name()),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Nodes => "Nodes",
            Self::Staleness => "Staleness",
            Self::Compression => "Compression",
            Self::Links => "Links",
            Self::Events => "Events",
        }
    }
}

/// The columns by which nodes can be sorted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Rank,
    Clock,
    Staleness,
    Examples,
    Out,
    In,
    Wait,
    Seen,
}

impl Column {
    pub(crate) const ALL: [Self; 8] =
        [Self::Rank, Self::Clock, Self::Staleness, Self::Examples, Self::Out, Self::In, Self::Wait, Self::Seen];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rank => "rank",
            Self::Clock => "clock",
            Self::Staleness => "stale",
            Self::Examples => "ex/s",
            Self::Out => "out/s",
            Self::In => "in/s",
            Self::Wait => "wait",
            Self::Seen => "seen",
        }
    }

    /// The column with this name. The suffix "/s" is optional, as it is awkward on a command line.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name().trim_end_matches("/s") == name.trim_end_matches("/s"))
    }

    /// The sort key of a node.
    fn key(self, model: &Model, rank: u32, node: &Node) -> f64 {
        let status = &node.report.status;
        match self {
            Self::Rank => f64::from(rank),
            Self::Clock => status.clock.0 as f64,
            Self::Staleness => status.staleness.mean(),
            Self::Examples => node.now.examples,
            Self::Out => node.now.bytes_out,
            Self::In => node.now.bytes_in,
            Self::Wait => node.now.wait,
            Self::Seen => model.silence(node),
        }
    }
}

/// The playback of a recording.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Playback {
    /// Seconds since the start of the recording.
    pub(crate) position: f64,
    /// Length of the recording in seconds.
    pub(crate) length: f64,
    /// Seconds of the recording per second: 1, 5 or 20.
    pub(crate) speed: u32,
    pub(crate) playing: bool,
}

/// The state of the user interface.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) theme: Theme,
    pub(crate) pane: Pane,
    pub(crate) sort: Column,
    /// Sort in descending order.
    pub(crate) reverse: bool,
    /// Text that nodes and events must match; a leading `!` inverts.
    pub(crate) filter: String,
    /// Keys go to the filter.
    pub(crate) editing_filter: bool,
    pub(crate) help: bool,
    /// Charts get the whole pane. In the pane of links: response times instead of bytes.
    pub(crate) expanded: bool,
    /// The node of the details that the pane of nodes shows.
    pub(crate) node: Option<u32>,
    /// The selected line of a list, or the first line to show.
    pub(crate) line: usize,
    /// While the screen is frozen: the model that it shows.
    pub(crate) frozen: Option<Box<Model>>,
    /// `None` for live sources.
    pub(crate) playback: Option<Playback>,
    /// While the source has no connection: the reason.
    pub(crate) disconnected: Option<String>,
    pub(crate) quit: bool,
}

impl App {
    pub(crate) fn new(theme: Theme) -> Self {
        Self {
            theme,
            pane: Pane::Overview,
            sort: Column::Rank,
            reverse: false,
            filter: String::new(),
            editing_filter: false,
            help: false,
            expanded: false,
            node: None,
            line: 0,
            frozen: None,
            playback: None,
            disconnected: None,
            quit: false,
        }
    }

    /// The ranks of the nodes that match the filter, in the order of the table.
    pub(crate) fn listed(&self, model: &Model) -> Vec<u32> {
        let matches = |rank: u32, node: &Node| {
            self.matches(|text| {
                let role = format!("{:?}", node.report.status.role).to_lowercase();
                rank.to_string() == text || node.host.contains(text) || role.contains(text)
            })
        };
        let mut ranks: Vec<u32> =
            model.nodes.iter().filter(|(rank, node)| matches(**rank, node)).map(|(rank, _)| *rank).collect();
        let key = |rank: &u32| model.nodes.get(rank).map_or(0.0, |node| self.sort.key(model, *rank, node));
        // A stable sort: nodes with equal keys stay in the order of their ranks.
        ranks.sort_by(|a, b| {
            let order = key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal);
            if self.reverse { order.reverse() } else { order }
        });
        ranks
    }

    /// The events that match the filter, the latest first.
    pub(crate) fn events<'a>(&self, model: &'a Model) -> Vec<&'a Note> {
        let matches =
            |note: &&Note| self.matches(|text| note.rank.0.to_string() == text || note.to_string().contains(text));
        model.notes.iter().rev().filter(matches).collect()
    }

    /// Applies the filter to something for which `contains` tests a text. An empty filter matches everything.
    fn matches(&self, contains: impl Fn(&str) -> bool) -> bool {
        match self.filter.strip_prefix('!') {
            Some(text) => text.is_empty() || !contains(text),
            None => self.filter.is_empty() || contains(&self.filter),
        }
    }

    /// Number of lines that can be selected in the current pane.
    fn line_count(&self, model: &Model) -> usize {
        match self.pane {
            Pane::Events => self.events(model).len(),
            _ => self.listed(model).len(),
        }
    }

    /// Handles the mouse: the wheel moves the selection, a click selects a tab or a line.
    ///
    /// `tabs`: the screen row of the tabs, and the width of the screen.
    pub(crate) fn on_mouse(&mut self, mouse: MouseEvent, model: &Model, tabs: (u16, u16)) {
        let last = self.line_count(model).saturating_sub(1);
        let (row, width) = tabs;
        match mouse.kind {
            MouseEventKind::ScrollDown => self.line = (self.line + 3).min(last),
            MouseEventKind::ScrollUp => self.line = self.line.saturating_sub(3),
            MouseEventKind::Down(MouseButton::Left) if mouse.row == row => {
                let mut end = 0;
                for (i, pane) in Pane::ALL.into_iter().enumerate() {
                    end += pane.tab(i, width).chars().count() as u16;
                    if mouse.column < end {
                        return self.show(pane);
                    }
                }
            }
            // Lists begin three rows below the tabs, after the border and the titles of the columns.
            MouseEventKind::Down(MouseButton::Left) if mouse.row > row + 2 && self.node.is_none() => {
                self.line = usize::from(mouse.row - row - 3).min(last);
            }
            _ => {}
        }
    }

    /// Handles a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, model: &Model) {
        // First, so that it works in every mode: raw mode turns the terminal's own Ctrl-C off.
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            self.quit = true;
        } else if self.editing_filter {
            self.edit_filter(key.code);
        } else if self.help {
            // Any key closes the help and does nothing else.
            self.help = false;
        } else {
            self.on_command(key.code, model);
        }
    }

    fn edit_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.editing_filter = false,
            KeyCode::Esc => (self.editing_filter, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            // A longer text would not fit into the footer.
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
        // The list has changed, so the selected line would be another node.
        self.line = 0;
    }

    fn on_command(&mut self, code: KeyCode, model: &Model) {
        let last = self.line_count(model).saturating_sub(1);
        let neighbour = |pane: Pane, by: usize| {
            let at = Pane::ALL.iter().position(|other| *other == pane).unwrap_or(0);
            Pane::ALL[(at + by) % Pane::ALL.len()]
        };
        match code {
            KeyCode::Char('q') => self.quit = true,
            KeyCode::Char('?') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.editing_filter = true,
            KeyCode::Char('s') => {
                let at = Column::ALL.iter().position(|column| *column == self.sort).unwrap_or(0);
                self.sort = Column::ALL[(at + 1) % Column::ALL.len()];
            }
            KeyCode::Char('S') => self.reverse = !self.reverse,
            KeyCode::Char('f') => self.freeze(model),
            KeyCode::Char('e') => self.expanded = !self.expanded,
            KeyCode::Char(' ') => match &mut self.playback {
                Some(playback) => playback.playing = !playback.playing,
                None => self.freeze(model),
            },
            KeyCode::Char('[') => self.seek(-5.0),
            KeyCode::Char(']') => self.seek(5.0),
            KeyCode::Char('x') => {
                if let Some(playback) = &mut self.playback {
                    playback.speed = match playback.speed {
                        1 => 5,
                        5 => 20,
                        _ => 1,
                    };
                }
            }
            KeyCode::Char(c @ '1'..='6') => self.show(Pane::ALL[c as usize - '1' as usize]),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show(neighbour(self.pane, 1)),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => {
                self.show(neighbour(self.pane, Pane::ALL.len() - 1))
            }
            KeyCode::Down | KeyCode::Char('j') => self.line = (self.line + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.line = self.line.saturating_sub(1),
            KeyCode::PageDown => self.line = (self.line + 10).min(last),
            KeyCode::PageUp => self.line = self.line.saturating_sub(10),
            KeyCode::Char('g') | KeyCode::Home => self.line = 0,
            KeyCode::Char('G') | KeyCode::End => self.line = last,
            KeyCode::Enter => self.open(model),
            KeyCode::Esc => (self.node, self.filter) = (None, String::new()),
            _ => {}
        }
    }

    fn show(&mut self, pane: Pane) {
        (self.pane, self.node, self.line) = (pane, None, 0);
    }

    /// Freezes the screen, or continues.
    fn freeze(&mut self, model: &Model) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            // A copy: the live model goes on, so nothing is missed while the screen is frozen.
            None => Some(Box::new(model.clone())),
        };
    }

    /// Moves the playback position by this many seconds.
    fn seek(&mut self, by: f64) {
        if let Some(playback) = &mut self.playback {
            playback.position = (playback.position + by).clamp(0.0, playback.length);
        }
    }

    /// Opens the details of the selected node. For an event: of its node, with the playback paused at that time.
    fn open(&mut self, model: &Model) {
        if self.pane == Pane::Events {
            let Some(note) = self.events(model).get(self.line).copied() else { return };
            if let Some(playback) = &mut self.playback {
                (playback.position, playback.playing) = (seconds(note.at).min(playback.length), false);
            }
            (self.pane, self.node) = (Pane::Nodes, Some(note.rank.0));
        } else if let Some(rank) = self.listed(model).get(self.line) {
            (self.pane, self.node) = (Pane::Nodes, Some(*rank));
        }
    }
}

#[cfg(test)]
mod tests;
