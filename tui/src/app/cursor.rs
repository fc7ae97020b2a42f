//! [`Cursor`]: the selected line of a list. It stays at its node or event when the list is sorted anew or grows.

use gradwire_core::telemetry::Note;

use super::{App, Pane};
use crate::model::Model;

/// The selection in the lists.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Cursor {
    /// The selected node. `None`: the first of the list.
    rank: Option<u32>,
    /// The selected event. `None`: the latest.
    note: Option<Note>,
    /// The line at which the selection was last seen, for when it is in the list no longer.
    line: usize,
}

impl App {
    /// The selected line of the pane's list.
    pub(crate) fn line(&self, model: &Model) -> usize {
        let Cursor { rank, note, line } = self.cursor;
        let (found, count) = match self.pane {
            Pane::Events => {
                let events = self.events(model);
                (note.and_then(|note| events.iter().position(|other| **other == note)), events.len())
            }
            _ => {
                let ranks = self.listed(model);
                (rank.and_then(|rank| ranks.iter().position(|other| *other == rank)), ranks.len())
            }
        };
        let is_set = if self.pane == Pane::Events { note.is_some() } else { rank.is_some() };
        found.unwrap_or(if is_set { line } else { 0 }).min(count.saturating_sub(1))
    }

    /// Selects a line, or the last one if there are fewer.
    pub(super) fn select(&mut self, line: usize, model: &Model) {
        let line = line.min(self.line_count(model).saturating_sub(1));
        self.cursor.line = line;
        if self.pane == Pane::Events {
            // The first line stays the latest event: events come in above an older one.
            self.cursor.note = (line > 0).then(|| self.events(model).get(line).map(|note| **note)).flatten();
        } else {
            self.cursor.rank = self.listed(model).get(line).copied();
            if self.node.is_some() {
                self.node = self.cursor.rank;
            }
        }
    }

    /// The selected node.
    pub(crate) fn selected(&self, model: &Model) -> Option<u32> {
        self.listed(model).get(self.line(model)).copied()
    }

    /// Number of lines that can be selected in the current pane.
    fn line_count(&self, model: &Model) -> usize {
        match self.pane {
            Pane::Events => self.events(model).len(),
            _ => self.listed(model).len(),
        }
    }

    /// Selects a node. The list scrolls to it.
    pub(crate) fn select_rank(&mut self, rank: u32) {
        self.cursor.rank = Some(rank);
    }
}
