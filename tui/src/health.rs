//! [`Health`]: the verdict on a cluster, as a word, a reason and an exit code.

use gradwire_core::PeerId;
use gradwire_core::status::Waiting;
use gradwire_core::telemetry::NoteKind;

use crate::model::{Model, Node, SILENT_AFTER, seconds};

/// A wait of this many seconds is a stall. Recipes with rounds or bounds cause shorter waits all the time.
const STALL_AFTER: f64 = 2.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// No report has been received.
    Unknown,
    Ok,
    /// All nodes have left.
    Ended,
    /// A node is lost or silent. The text says which.
    Degraded(String),
    /// A node has waited for [`STALL_AFTER`] or longer. The text names the node at the end of the chain of waits.
    Stalled(String),
}

impl Health {
    /// The health of a cluster at the time of its latest report. A stall takes precedence over a silent node, because
    /// its text names the silent node as well.
    pub(crate) fn of(model: &Model) -> Self {
        if model.nodes.is_empty() {
            return Self::Unknown;
        }
        if model.nodes.keys().all(|rank| model.has_left(*rank)) {
            return Self::Ended;
        }
        if let Some((rank, waiting)) = longest_wait(model) {
            return Self::Stalled(chain_of_waits(model, rank, waiting));
        }
        let silent = |(rank, node): &(&u32, &Node)| model.silence(node) >= SILENT_AFTER && !model.has_left(**rank);
        if let Some((rank, node)) = model.nodes.iter().find(silent) {
            return Self::Degraded(format!("no report from peer {rank} for {:.1} s", model.silence(node)));
        }
        // A peer that has reported after it was lost has come back.
        let lost = model.notes.iter().rev().find(|note| {
            note.kind == NoteKind::PeerLost && model.nodes.get(&note.peer.0).is_none_or(|node| node.report.at < note.at)
        });
        match lost {
            Some(note) => Self::Degraded(format!("peer {} was declared lost by peer {}", note.peer, note.rank)),
            None => Self::Ok,
        }
    }

    /// One or two words for the header and the JSON field `health`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "no data",
            Self::Ok => "ok",
            Self::Ended => "ended",
            Self::Degraded(_) => "DEGRADED",
            Self::Stalled(_) => "STALLED",
        }
    }

    /// The reason of a state that is not good; empty otherwise.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Degraded(reason) | Self::Stalled(reason) => reason,
            Self::Unknown | Self::Ok | Self::Ended => "",
        }
    }

    /// The exit code: 0 ok or ended, 1 degraded, 2 stalled, 3 no data.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Ok | Self::Ended => 0,
            Self::Degraded(_) => 1,
            Self::Stalled(_) => 2,
            Self::Unknown => 3,
        }
    }
}

/// The node that has waited longest, if that is a stall.
fn longest_wait(model: &Model) -> Option<(u32, Waiting)> {
    let waits = model.nodes.iter().filter(|(rank, _)| !model.has_left(**rank));
    let waits = waits.filter_map(|(rank, node)| Some((*rank, node.report.status.waiting?)));
    let longest = waits.max_by(|(_, a), (_, b)| waited(model, a).total_cmp(&waited(model, b)));
    longest.filter(|(_, waiting)| waited(model, waiting) >= STALL_AFTER)
}

/// Seconds since a wait began.
fn waited(model: &Model, waiting: &Waiting) -> f64 {
    seconds(model.now) - seconds(waiting.since)
}

/// Describes the wait of `rank`, and follows it from node to node: the cause is at the end of the chain.
fn chain_of_waits(model: &Model, rank: u32, waiting: Waiting) -> String {
    let silence = |peer: PeerId| model.nodes.get(&peer.0).map_or(0.0, |node| model.silence(node));
    let mut last = waiting;
    let mut text = format!("peer {rank} has waited {:.1} s for peer {}", waited(model, &waiting), last.on);
    let mut visited = vec![rank, last.on.0];
    // The last report of a silent node is outdated: the chain ends there.
    while silence(last.on) < SILENT_AFTER {
        let Some(next) = model.nodes.get(&last.on.0).and_then(|node| node.report.status.waiting) else { break };
        // Waits form a circle when reports of different times meet.
        if visited.contains(&next.on.0) {
            break;
        }
        text.push_str(&format!(", which waits for peer {}", next.on));
        visited.push(next.on.0);
        last = next;
    }
    let silent = match silence(last.on) {
        silence if silence >= SILENT_AFTER => format!(", no report for {silence:.1} s"),
        _ => String::new(),
    };
    format!("{text} (at clock {}{silent})", last.at.0)
}
