//! How a cluster is, in words and as an exit code.

use gradwire_core::telemetry::NoteKind;

use crate::model::{Model, SILENCE, seconds};

/// Waits shorter than this are the recipe's own.
const STALL: f64 = 2.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nothing has been told yet.
    Unknown,
    Ok,
    /// Everyone has ended.
    Ended,
    /// Somebody is gone, or has not been heard of.
    Degraded(String),
    /// Somebody waits for long.
    Stalled(String),
}

impl Health {
    pub(crate) fn of(model: &Model) -> Self {
        if model.nodes.is_empty() {
            return Self::Unknown;
        }
        if model.nodes.keys().all(|rank| model.has_left(*rank)) {
            return Self::Ended;
        }
        let now = seconds(model.now);
        // Who has waited longest, and for whom.
        let waits = model.nodes.values().filter(|node| !model.has_left(node.report.status.me.0)).filter_map(|node| {
            let waiting = node.report.status.waiting?;
            Some((now - seconds(waiting.since), node.report.status.me.0, waiting))
        });
        let longest = waits.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(since, ..)| *since >= STALL);
        let silent = model.nodes.iter().find(|(rank, node)| model.silence(node) >= SILENCE && !model.has_left(**rank));
        if let Some((since, rank, waiting)) = longest {
            // Who is waited for may wait in turn: the last of the chain is whom it is about.
            let (mut on, mut at) = (waiting.on.0, waiting.at.0);
            let mut chain = format!("peer {rank} has waited {since:.1} s for peer {on}");
            let mut passed = vec![rank, on];
            let awake = |rank: &u32| model.nodes.get(rank).filter(|node| model.silence(node) < SILENCE);
            while let Some(next) = awake(&on).and_then(|node| node.report.status.waiting) {
                if passed.contains(&next.on.0) {
                    break;
                }
                (on, at) = (next.on.0, next.at.0);
                chain.push_str(&format!(", which waits for peer {on}"));
                passed.push(on);
            }
            let also = match model.nodes.get(&on).filter(|node| model.silence(node) >= SILENCE) {
                Some(node) => format!(", not heard of for {:.1} s", model.silence(node)),
                None => String::new(),
            };
            return Self::Stalled(format!("{chain} (at clock {at}{also})"));
        }
        if let Some((rank, node)) = silent {
            return Self::Degraded(format!("peer {rank} has not been heard of for {:.1} s", model.silence(node)));
        }
        let lost = model.notes.iter().rev().find(|note| {
            note.kind == NoteKind::PeerLost && model.nodes.get(&note.peer.0).is_none_or(|node| node.report.at < note.at)
        });
        match lost {
            Some(note) => Self::Degraded(format!("peer {} was given up by peer {}", note.peer, note.rank)),
            None => Self::Ok,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "nothing heard",
            Self::Ok => "ok",
            Self::Ended => "ended",
            Self::Degraded(_) => "DEGRADED",
            Self::Stalled(_) => "STALLED",
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Degraded(reason) | Self::Stalled(reason) => reason,
            Self::Unknown | Self::Ok | Self::Ended => "",
        }
    }

    /// 0 when all is well, 1 degraded, 2 stalled, 3 nothing heard.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Ok | Self::Ended => 0,
            Self::Degraded(_) => 1,
            Self::Stalled(_) => 2,
            Self::Unknown => 3,
        }
    }
}
