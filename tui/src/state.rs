//! [`State`]: the state of a node, for filters and for sorting with the worst first.

use crate::model::{Model, Node};
use crate::standing::Standing;

/// The state of a node, the worst first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Without a report for some time, given up, or failed.
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
        match Standing::of(model, rank, node) {
            Standing::Left | Standing::Finished => Self::Left,
            Standing::Silent | Standing::GivenUp | Standing::Failed => Self::Silent,
            _ if node.report.status.waiting.is_some() => Self::Waiting,
            Standing::Joining | Standing::Active | Standing::Leaving => Self::Ok,
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
