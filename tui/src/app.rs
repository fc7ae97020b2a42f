//! [`App`]: the state of the user interface, and its reaction to keys and mouse.
//!
//! It has no terminal and no clock, so tests press keys and look at the state. The panes in `view` draw a model and an
//! app.

use std::cmp::Ordering;
use std::rc::Rc;

use gradwire_core::telemetry::Note;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;

use crate::health::Health;
use crate::keys::{Command, KeyMap};
use crate::model::{Model, Node, seconds};
use crate::state::State;
use crate::targets::{Target, Targets};
use crate::theme::Theme;
use crate::timeline::Timeline;

mod column;
mod cursor;

pub(crate) use column::Column;
use cursor::Cursor;

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

    /// The text of the pane's tab. Narrow screens have the name of the pane that is shown, and the keys of other panes.
    pub(crate) fn tab(self, index: usize, width: u16, shown: bool) -> String {
        match width < 70 && !shown {
            true => format!(" {} ", index + 1),
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

/// The playback of a recording.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Playback {
    /// Time of the run at which the recording begins, in seconds.
    pub(crate) start: f64,
    /// Time of the run that is shown, in seconds.
    pub(crate) position: f64,
    /// Time of the run at which the recording ends, in seconds.
    pub(crate) length: f64,
    /// Seconds of the recording per second.
    pub(crate) speed: f64,
    pub(crate) playing: bool,
}

impl Playback {
    /// Share of the recording before the position, 0 to 1.
    pub(crate) fn share(&self) -> f64 {
        (self.position - self.start) / (self.length - self.start).max(1e-9)
    }
}

/// The speeds of a playback, as far as keys change them.
pub(crate) const SPEEDS: std::ops::RangeInclusive<f64> = 0.125..=65_536.0;

/// The numbers that the pane of links shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkUnit {
    /// Bytes sent per second.
    Rate,
    /// Milliseconds from a message to its answer.
    Response,
    /// Bytes sent since the start of the sender.
    Bytes,
}

/// A line of the list of runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunLine {
    /// Address of the run, or name of the recording.
    pub(crate) label: String,
    pub(crate) health: Health,
    /// Whether the source has a connection.
    pub(crate) connected: bool,
    /// Nodes that have not left, and nodes of the run.
    pub(crate) nodes: (usize, u32),
    pub(crate) recipe: String,
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
    pub(crate) keys: KeyMap,
    /// Only nodes in this state are listed.
    pub(crate) state: Option<State>,
    pub(crate) help: bool,
    /// The first line of the help that is shown.
    pub(crate) help_line: usize,
    /// Charts get the whole pane.
    pub(crate) expanded: bool,
    pub(crate) unit: LinkUnit,
    /// The node of the details that the pane of nodes shows.
    pub(crate) node: Option<u32>,
    /// The pane from which the details were opened, for the way back.
    origin: Option<Pane>,
    pub(crate) cursor: Cursor,
    /// Columns by which matrices and tables are scrolled to the right.
    pub(crate) column: usize,
    /// All runs. A single one has no list.
    pub(crate) runs: Vec<RunLine>,
    /// The run that is shown.
    pub(crate) run: usize,
    /// The selected line of the list of runs, while that is open.
    pub(crate) choosing: Option<usize>,
    pub(crate) targets: Targets,
    /// While the screen is frozen: the model that it shows.
    pub(crate) frozen: Option<Rc<Model>>,
    /// `None` for live sources.
    pub(crate) playback: Option<Playback>,
    /// The page of the recording that contains the position of the playback.
    pub(crate) timeline: Option<Rc<Timeline>>,
    /// While the source has no connection: the reason.
    pub(crate) disconnected: Option<String>,
    pub(crate) quit: bool,
    /// The process has to stop until the shell continues it.
    pub(crate) suspend: bool,
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
            keys: KeyMap::default(),
            state: None,
            help: false,
            help_line: 0,
            expanded: false,
            unit: LinkUnit::Rate,
            node: None,
            origin: None,
            cursor: Cursor::default(),
            column: 0,
            runs: Vec::new(),
            run: 0,
            choosing: None,
            targets: Targets::default(),
            frozen: None,
            playback: None,
            timeline: None,
            disconnected: None,
            quit: false,
            suspend: false,
        }
    }

    /// The ranks of the nodes that match the filters, in the order of the lists. The pane of staleness lists workers only.
    pub(crate) fn listed(&self, model: &Model) -> Vec<u32> {
        let matches = |rank: u32, node: &Node| {
            self.matches(|text| {
                let role = format!("{:?}", node.report.status.role).to_lowercase();
                let state = State::of(model, rank, node).name();
                rank.to_string() == text || node.host.contains(text) || role.contains(text) || state == text
            }) && self.state.is_none_or(|state| State::of(model, rank, node) == state)
                && (self.pane != Pane::Staleness || rank < model.run.workers.max(1))
        };
        let mut ranks: Vec<u32> =
            model.nodes.iter().filter(|(rank, node)| matches(**rank, node)).map(|(rank, _)| *rank).collect();
        let key = |rank: &u32| model.nodes.get(rank).map_or(0.0, |node| self.sort.key(model, *rank, node));
        // A stable sort: nodes with equal keys stay in the order of their ranks.
        ranks.sort_by(|a, b| {
            let order = key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal);
            if self.reverse == self.sort.begins_with_least() { order.reverse() } else { order }
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

    /// Handles the mouse: the wheel moves the selection, a click acts on the target that was drawn there.
    pub(crate) fn on_mouse(&mut self, mouse: MouseEvent, model: &Model) {
        let frozen = self.frozen.clone();
        let model = frozen.as_deref().unwrap_or(model);
        match mouse.kind {
            MouseEventKind::ScrollDown => self.move_by(3, model),
            MouseEventKind::ScrollUp => self.move_by(-3, model),
            MouseEventKind::Down(MouseButton::Left) => match self.targets.at(mouse.column, mouse.row) {
                Some((_, Target::Pane(pane))) => self.show(pane),
                // A click on the selected line opens it, as a second click would.
                Some((_, Target::Line(line))) if line == self.line(model) => self.open(model),
                Some((_, Target::Line(line))) => self.select(line, model),
                Some((_, Target::Sort(column))) if column == self.sort => self.reverse = !self.reverse,
                Some((_, Target::Sort(column))) => (self.sort, self.reverse) = (column, false),
                Some((area, Target::Playback)) => self.seek_to(mouse.column - area.x, area.width),
                Some((area, Target::Timeline)) => self.seek_on_page(mouse.column - area.x, area.width),
                Some((_, Target::Run(run))) => self.choose(run),
                None => {}
            },
            // Both can be dragged beyond their ends.
            MouseEventKind::Drag(MouseButton::Left) => {
                let in_rows = |area: &Rect| (area.top()..area.bottom()).contains(&mouse.row);
                let dragged = |target: Target| self.targets.area(target).filter(in_rows);
                if let Some(area) = dragged(Target::Playback) {
                    self.seek_to(mouse.column.saturating_sub(area.x), area.width);
                } else if let Some(area) = dragged(Target::Timeline) {
                    self.seek_on_page(mouse.column.saturating_sub(area.x), area.width);
                }
            }
            _ => {}
        }
    }

    /// Handles a key.
    pub(crate) fn on_key(&mut self, key: KeyEvent, model: &Model) {
        // First, so that it works in every mode: raw mode turns the terminal's own Ctrl-C off.
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            self.quit = true;
        } else if self.editing_filter && !matches!(self.keys.command(key), Some(Command::Suspend)) {
            self.edit_filter(key.code);
        } else if let Some(command) = self.keys.command(key) {
            self.on_command(command, model);
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
    }

    fn on_command(&mut self, command: Command, model: &Model) {
        let frozen = self.frozen.clone();
        let model = frozen.as_deref().unwrap_or(model);
        let neighbour = |pane: Pane, by: usize| {
            let at = Pane::ALL.iter().position(|other| *other == pane).unwrap_or(0);
            Pane::ALL[(at + by) % Pane::ALL.len()]
        };
        let page = self.targets.page() as isize;
        match command {
            Command::Quit => self.quit = true,
            Command::Suspend => self.suspend = true,
            Command::Help => (self.help, self.help_line) = (!self.help, 0),
            Command::Up => self.move_by(-1, model),
            Command::Down => self.move_by(1, model),
            Command::PageUp => self.move_by(-page, model),
            Command::PageDown => self.move_by(page, model),
            Command::First => self.move_by(-(1 << 30), model),
            Command::Last => self.move_by(1 << 30, model),
            Command::Back => self.back(),
            // The other commands change the screen under the help.
            _ if self.help => {
                self.help = false;
                self.on_command(command, model);
            }
            Command::Open => self.open(model),
            Command::Show(pane) => self.show(pane),
            Command::NextPane => self.show(neighbour(self.pane, 1)),
            Command::PreviousPane => self.show(neighbour(self.pane, Pane::ALL.len() - 1)),
            Command::Left | Command::Right if self.pane == Pane::Overview && self.playback.is_some() => {
                self.seek_by_cell(if command == Command::Left { -1.0 } else { 1.0 });
            }
            // The panes know how far they can be scrolled.
            Command::Left => self.column = self.column.saturating_sub(1),
            Command::Right => self.column += 1,
            Command::Filter => self.editing_filter = true,
            Command::State => {
                let at = self.state.and_then(|state| State::ALL.iter().position(|other| *other == state));
                self.state = State::ALL.get(at.map_or(0, |at| at + 1)).copied();
            }
            Command::Sort => (self.sort, self.reverse) = (self.sort.next(), false),
            Command::Reverse => self.reverse = !self.reverse,
            Command::Expand => self.expanded = !self.expanded,
            Command::Unit => {
                self.unit = match self.unit {
                    LinkUnit::Rate => LinkUnit::Response,
                    LinkUnit::Response => LinkUnit::Bytes,
                    LinkUnit::Bytes => LinkUnit::Rate,
                };
            }
            Command::Pause => match &mut self.playback {
                Some(playback) => playback.playing = !playback.playing,
                None => self.freeze(model),
            },
            Command::Earlier => self.seek(-5.0),
            Command::Later => self.seek(5.0),
            Command::Faster => self.change_speed(2.0),
            Command::Slower => self.change_speed(0.5),
            Command::Runs => self.choosing = if self.choosing.is_none() { Some(self.run) } else { None },
            Command::NextRun if self.runs.len() > 1 => self.choose((self.run + 1) % self.runs.len()),
            Command::NextRun => {}
        }
    }

    /// Moves the selection of the list by so many lines, or scrolls the help.
    fn move_by(&mut self, by: isize, model: &Model) {
        let moved = |line: usize| line.saturating_add_signed(by);
        if self.help {
            // The view knows the number of lines.
            self.help_line = moved(self.help_line);
        } else if let Some(run) = self.choosing {
            self.choosing = Some(moved(run).min(self.runs.len().saturating_sub(1)));
        } else {
            self.select(moved(self.line(model)), model);
        }
    }

    /// One step back: closes what is open, or else clears the filters.
    fn back(&mut self) {
        if self.help {
            self.help = false;
        } else if self.choosing.is_some() {
            self.choosing = None;
        } else if self.node.take().is_some() {
            self.pane = self.origin.take().unwrap_or(self.pane);
        } else {
            (self.filter, self.state) = (String::new(), None);
        }
    }

    fn show(&mut self, pane: Pane) {
        (self.pane, self.node, self.origin, self.column) = (pane, None, None, 0);
        (self.help, self.choosing) = (false, None);
        self.targets.rewind();
    }

    /// Shows another run.
    fn choose(&mut self, run: usize) {
        (self.run, self.choosing, self.frozen) = (run, None, None);
        (self.cursor, self.node, self.column) = (Cursor::default(), None, 0);
        self.targets.rewind();
    }

    /// Freezes the screen, or continues.
    fn freeze(&mut self, model: &Model) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            // A copy: the live model goes on, so nothing is missed while the screen is frozen.
            None => Some(Rc::new(model.clone())),
        };
    }

    /// Moves the playback position by this many seconds.
    fn seek(&mut self, by: f64) {
        if let Some(playback) = &mut self.playback {
            playback.position = (playback.position + by).clamp(playback.start, playback.length.max(playback.start));
        }
    }

    /// Moves the playback position to a cell of a bar of `width` cells.
    fn seek_to(&mut self, cell: u16, width: u16) {
        if let Some(playback) = &mut self.playback {
            let share = f64::from(cell) / f64::from(width.saturating_sub(1).max(1));
            playback.position = playback.start + share.min(1.0) * (playback.length - playback.start);
        }
    }

    /// Moves the playback position to a cell of the page, which has a width of so many cells.
    fn seek_on_page(&mut self, cell: u16, width: u16) {
        if let (Some(playback), Some(page)) = (&mut self.playback, &self.timeline) {
            let end = playback.length.max(playback.start);
            playback.position = page.time(cell.min(width.saturating_sub(1)), width).clamp(playback.start, end);
        }
    }

    /// Moves the playback position by so many cells of the page; by seconds where no page is drawn.
    fn seek_by_cell(&mut self, cells: f64) {
        let page = self.timeline.as_ref().zip(self.targets.area(Target::Timeline));
        let cell = page.map_or(1.0, |(page, area)| (page.to - page.from) / f64::from(area.width.max(1)));
        self.seek(cells * cell);
    }

    fn change_speed(&mut self, by: f64) {
        if let Some(playback) = &mut self.playback {
            playback.speed = (playback.speed * by).clamp(*SPEEDS.start(), *SPEEDS.end());
        }
    }

    /// Opens the details of the selected node. For an event: of its node, with the playback paused at that time.
    fn open(&mut self, model: &Model) {
        if let Some(run) = self.choosing {
            return self.choose(run);
        }
        if self.node.is_some() {
            return;
        }
        let rank = if self.pane == Pane::Events {
            let Some(note) = self.events(model).get(self.line(model)).copied() else { return };
            if let Some(playback) = &mut self.playback {
                (playback.position, playback.playing) =
                    (seconds(note.at).min(playback.length).max(playback.start), false);
            }
            note.rank.0
        } else {
            let Some(rank) = self.selected(model) else { return };
            rank
        };
        self.select_rank(rank);
        (self.origin, self.pane, self.node) = (Some(self.pane), Pane::Nodes, Some(rank));
    }
}

#[cfg(test)]
mod tests;
