//! What is shown and what keys do: no terminal, no clock.

use std::cmp::Ordering;

use gradwire_core::telemetry::Note;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use crate::model::{Model, NodeView};
use crate::theme::Theme;

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

    /// What it is called among others, with little room or with enough.
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

/// What nodes are sorted by.
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

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name().trim_end_matches("/s") == name.trim_end_matches("/s"))
    }

    fn of(self, model: &Model, rank: u32, node: &NodeView) -> f64 {
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

/// Position in a recording.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Tape {
    /// Seconds.
    pub(crate) at: f64,
    pub(crate) length: f64,
    pub(crate) speed: u32,
    pub(crate) playing: bool,
}

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) theme: Theme,
    pub(crate) pane: Pane,
    pub(crate) sort: Column,
    pub(crate) reverse: bool,
    pub(crate) filter: String,
    /// The filter is being typed.
    pub(crate) typing: bool,
    pub(crate) help: bool,
    /// Curves get all of the room.
    pub(crate) expanded: bool,
    /// The node that is looked at.
    pub(crate) node: Option<u32>,
    /// The line that is chosen, in lists.
    pub(crate) line: usize,
    /// What is shown while it is frozen.
    pub(crate) frozen: Option<Box<Model>>,
    pub(crate) tape: Option<Tape>,
    /// Why there is nothing new.
    pub(crate) lost: Option<String>,
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
            typing: false,
            help: false,
            expanded: false,
            node: None,
            line: 0,
            frozen: None,
            tape: None,
            lost: None,
            quit: false,
        }
    }

    /// Nodes as the table lists them.
    pub(crate) fn listed(&self, model: &Model) -> Vec<u32> {
        let (wanted, inverted) = match self.filter.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (self.filter.as_str(), false),
        };
        let matches = |rank: u32, node: &NodeView| {
            let role = format!("{:?}", node.report.status.role).to_lowercase();
            let found = rank.to_string() == wanted || node.host.contains(wanted) || role.contains(wanted);
            wanted.is_empty() || found != inverted
        };
        let mut ranks: Vec<u32> =
            model.nodes.iter().filter(|(rank, node)| matches(**rank, node)).map(|(rank, _)| *rank).collect();
        let key = |rank: &u32| model.nodes.get(rank).map_or(0.0, |node| self.sort.of(model, *rank, node));
        ranks.sort_by(|a, b| {
            let order = key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal);
            if self.reverse { order.reverse() } else { order }
        });
        ranks
    }

    /// Events as the log lists them, the latest first.
    pub(crate) fn events<'a>(&self, model: &'a Model) -> Vec<&'a Note> {
        let (wanted, inverted) = match self.filter.strip_prefix('!') {
            Some(rest) => (rest, true),
            None => (self.filter.as_str(), false),
        };
        let found = |note: &&Note| {
            let found = note.rank.0.to_string() == wanted || note.to_string().contains(wanted);
            wanted.is_empty() || found != inverted
        };
        model.notes.iter().rev().filter(found).collect()
    }

    /// Lines that can be chosen.
    fn lines(&self, model: &Model) -> usize {
        match self.pane {
            Pane::Events => self.events(model).len(),
            _ => self.listed(model).len(),
        }
    }

    /// What a mouse does: the wheel moves lines, a click chooses a pane or a line.
    pub(crate) fn mouse(&mut self, mouse: MouseEvent, model: &Model, tabs: (u16, u16)) {
        let last = self.lines(model).saturating_sub(1);
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
            MouseEventKind::Down(MouseButton::Left) if mouse.row > row + 2 && self.node.is_none() => {
                self.line = usize::from(mouse.row - row - 3).min(last);
            }
            _ => {}
        }
    }

    /// What a key does.
    pub(crate) fn key(&mut self, key: KeyEvent, model: &Model) {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            self.quit = true;
        } else if self.typing {
            self.type_filter(key.code);
        } else if self.help {
            self.help = false;
        } else {
            self.act(key.code, model);
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
        self.line = 0;
    }

    fn act(&mut self, code: KeyCode, model: &Model) {
        let last = self.lines(model).saturating_sub(1);
        let turn = |pane: Pane, by: usize| {
            let at = Pane::ALL.iter().position(|other| *other == pane).unwrap_or(0);
            Pane::ALL[(at + by) % Pane::ALL.len()]
        };
        match code {
            KeyCode::Char('q') => self.quit = true,
            KeyCode::Char('?') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => {
                let at = Column::ALL.iter().position(|column| *column == self.sort).unwrap_or(0);
                self.sort = Column::ALL[(at + 1) % Column::ALL.len()];
            }
            KeyCode::Char('S') => self.reverse = !self.reverse,
            KeyCode::Char('f') => self.freeze(model),
            KeyCode::Char('e') => self.expanded = !self.expanded,
            KeyCode::Char(' ') => match &mut self.tape {
                Some(tape) => tape.playing = !tape.playing,
                None => self.freeze(model),
            },
            KeyCode::Char('[') => self.wind(-5.0),
            KeyCode::Char(']') => self.wind(5.0),
            KeyCode::Char('x') => {
                if let Some(tape) = &mut self.tape {
                    tape.speed = match tape.speed {
                        1 => 5,
                        5 => 20,
                        _ => 1,
                    };
                }
            }
            KeyCode::Char(c @ '1'..='6') => self.show(Pane::ALL[c as usize - '1' as usize]),
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => self.show(turn(self.pane, 1)),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => self.show(turn(self.pane, Pane::ALL.len() - 1)),
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

    fn freeze(&mut self, model: &Model) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => Some(Box::new(model.clone())),
        };
    }

    fn wind(&mut self, by: f64) {
        if let Some(tape) = &mut self.tape {
            tape.at = (tape.at + by).clamp(0.0, tape.length);
        }
    }

    /// A node from the table; from an event, its node, and its moment if there is a tape.
    fn open(&mut self, model: &Model) {
        if self.pane == Pane::Events {
            let Some(note) = self.events(model).get(self.line).copied() else { return };
            if let Some(tape) = &mut self.tape {
                (tape.at, tape.playing) = (crate::model::seconds(note.at).min(tape.length), false);
            }
            (self.pane, self.node) = (Pane::Nodes, Some(note.rank.0));
        } else if let Some(rank) = self.listed(model).get(self.line) {
            (self.pane, self.node) = (Pane::Nodes, Some(*rank));
        }
    }
}

#[cfg(test)]
mod tests;
