//! [`Targets`]: the clickable areas of the last screen, so that a click finds the item that the user sees.
//!
//! Panes note their targets while they draw. A click looks them up, so no layout is computed twice.

use std::cell::{Cell, RefCell};

use ratatui::layout::{Position, Rect};

use crate::app::{Column, Pane};

/// Something that can be clicked.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// The tab of a pane.
    Pane(Pane),
    /// A line of the list of the pane.
    Line(usize),
    /// The title of a column by which nodes can be sorted.
    Sort(Column),
    /// The bar of the playback.
    Playback,
    /// The page of a recording that the overview shows.
    Timeline,
    /// A run in the list of runs.
    Run(usize),
}

/// The targets of a screen.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    all: RefCell<Vec<(Rect, Target)>>,
    /// Lines of the list that were visible.
    page: Cell<usize>,
    /// The first line of the list that was visible.
    first: Cell<usize>,
}

impl Targets {
    /// A new screen begins.
    pub(crate) fn clear(&self) {
        self.all.borrow_mut().clear();
    }

    /// Notes a target.
    pub(crate) fn note(&self, area: Rect, target: Target) {
        self.all.borrow_mut().push((area, target));
    }

    /// The target at a position of the screen, and its area. Later targets lie above earlier ones.
    pub(crate) fn at(&self, column: u16, row: u16) -> Option<(Rect, Target)> {
        self.all.borrow().iter().rev().find(|(area, _)| area.contains(Position::new(column, row))).copied()
    }

    /// The area of a target, if it was drawn.
    pub(crate) fn area(&self, target: Target) -> Option<Rect> {
        self.all.borrow().iter().find(|(_, other)| *other == target).map(|(area, _)| *area)
    }

    /// Visible lines of the list, at least 1.
    pub(crate) fn page(&self) -> usize {
        self.page.get().max(1)
    }

    /// The first line to show of a list of `count` lines, of which `page` are visible. The list scrolls no further than
    /// the selected line demands, so a click does not move the lines.
    pub(crate) fn scroll(&self, selected: usize, page: usize, count: usize) -> usize {
        let page = page.max(1);
        let most = count.saturating_sub(page);
        let first = self.first.get().clamp(selected.saturating_sub(page - 1), selected).min(most);
        self.page.set(page);
        self.first.set(first);
        first
    }

    /// The list begins at its first line again.
    pub(crate) fn rewind(&self) {
        self.first.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_scrolls_no_further_than_it_must() {
        let targets = Targets::default();
        for (selected, first) in [(0, 0), (9, 0), (10, 1), (20, 11), (15, 11), (11, 11), (10, 10), (99, 90), (95, 90)] {
            assert_eq!(targets.scroll(selected, 10, 100), first, "{selected}");
        }
        // The list has become shorter.
        assert_eq!(targets.scroll(3, 10, 5), 0);
    }
}
