//! [`State`]: the state of a node, for filters and for sorting with the worst first.

use crate::model::{Model, Node, SILENT_AFTER};

/// The state of a node, the worst first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Without a report for some time.
    Silent,
    /// Waiting for a peer.
    Waiting,
    Ok,
    /// Left or finished.
    Left,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [Self::Silent, Self::Waiting, Self::Ok, Self::Left];

    pub(crate) fn of(model: &Model, rank: u32, node: &Node) -> Self {
        match node.report.status.waiting {
            _ if model.has_left(rank) => Self::Left,
            _ if model.silence(node) >= SILENT_AFTER => Self::Silent,
            Some(_) => Self::Waiting,
            None => Self::Ok,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Waiting => "waiting",
            Self::Ok => "ok",
            Self::Left => "left",
        }
    }
}
