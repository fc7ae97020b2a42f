//! [`Standing`]: how a node stands, from its reports, its silence, and what its peers say.

use gradwire_core::telemetry::Stage;

use crate::model::{Model, Node, SILENT_AFTER};

/// How a node stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It does not take part yet.
    Joining,
    /// It takes part.
    Active,
    /// It has made its last step, and waits for the end of its part.
    Leaving,
    /// It has not reported for [`SILENT_AFTER`].
    Silent,
    /// It is silent, and a peer has declared it lost.
    GivenUp,
    /// It has left, and the run goes on.
    Left,
    /// It has seen the end of the run.
    Finished,
    /// It has failed.
    Failed,
}

impl Standing {
    pub(crate) fn of(model: &Model, rank: u32, node: &Node) -> Self {
        match node.report.stage {
            Stage::Left => Self::Left,
            Stage::Finished => Self::Finished,
            Stage::Failed => Self::Failed,
            _ if model.silence(node) >= SILENT_AFTER.max(model.patience(node)) => match model.lost_by(rank) {
                Some(_) => Self::GivenUp,
                None => Self::Silent,
            },
            Stage::Joining => Self::Joining,
            Stage::Active => Self::Active,
            Stage::Leaving => Self::Leaving,
        }
    }

    /// Its last report describes the present.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Leaving)
    }

    /// A word for tables and for the JSON field `state`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "ok",
            Self::Leaving => "leaving",
            Self::Silent => "SILENT",
            Self::GivenUp => "GIVEN UP",
            Self::Left => "left",
            Self::Finished => "finished",
            Self::Failed => "FAILED",
        }
    }
}
