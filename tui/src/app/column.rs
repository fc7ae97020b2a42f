//! [`Column`]: the columns by which nodes can be sorted.

use crate::model::{Model, Node};
use crate::state::State;

/// The columns by which nodes can be sorted. Each begins with the worst node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Rank,
    State,
    Clock,
    Staleness,
    Examples,
    Out,
    In,
    Wait,
    Seen,
}

impl Column {
    pub(crate) const ALL: [Self; 9] = [
        Self::Rank,
        Self::State,
        Self::Clock,
        Self::Staleness,
        Self::Examples,
        Self::Out,
        Self::In,
        Self::Wait,
        Self::Seen,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rank => "rank",
            Self::State => "state",
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

    /// Whether the worst value is the least one: a node that is slow or behind.
    pub(crate) fn begins_with_least(self) -> bool {
        matches!(self, Self::Rank | Self::State | Self::Clock | Self::Examples)
    }

    /// The column after this one.
    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|column| *column == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// The sort key of a node.
    pub(super) fn key(self, model: &Model, rank: u32, node: &Node) -> f64 {
        let status = &node.report.status;
        match self {
            Self::Rank => f64::from(rank),
            Self::State => f64::from(State::of(model, rank, node) as u8),
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
