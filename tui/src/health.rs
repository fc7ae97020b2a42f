//! [`Health`]: the verdict on a cluster, as a word, a reason and an exit code.

use gradwire_core::PeerId;
use gradwire_core::status::Waiting;

use crate::model::{Model, Node, SILENT_AFTER, SOURCE_SILENT_AFTER, seconds};
use crate::standing::Standing;
use crate::theme::{bytes, count};

/// A wait of this many seconds is a stall, unless the awaited worker is making its step. Recipes with rounds or bounds
/// cause shorter waits all the time.
const STALL_AFTER: f64 = 2.0;
/// A worker is making its step for at most so many times the duration of its last ones.
const LONG_STEP: f64 = 3.0;
/// Seconds that the first step of a worker may take: there is no other one to compare it with.
const FIRST_STEP: f64 = 10.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// No report has been received.
    Unknown,
    Ok,
    /// All nodes have left, or one of them has seen the end of the run. The text sums the run up.
    Ended(String),
    /// A node is lost, silent or has failed. The text says which.
    Degraded(String),
    /// A node has waited for [`STALL_AFTER`] or longer. The text names the node at the end of the chain of waits.
    Stalled(String),
    /// The source is silent or gone, and the run had not ended. The text says why.
    Lost(String),
}

impl Health {
    /// The health of a cluster at present. A stall takes precedence over a silent node, because its text names the
    /// silent node as well.
    pub(crate) fn of(model: &Model) -> Self {
        if model.nodes.is_empty() {
            return Self::Unknown;
        }
        if model.has_ended() {
            return Self::Ended(summary(model));
        }
        if let Some(reason) = lost(model) {
            return Self::Lost(reason);
        }
        if let Some((rank, waiting)) = longest_wait(model) {
            return Self::Stalled(chain_of_waits(model, rank, waiting));
        }
        let troubled = model.nodes.iter().find_map(|(rank, node)| trouble(model, *rank, node));
        // A peer that has never reported, or not to this board.
        let unheard = || model.given_up().find(|(rank, _)| !model.nodes.contains_key(rank));
        match (troubled, unheard()) {
            (Some(reason), _) => Self::Degraded(reason),
            (None, Some((rank, by))) => Self::Degraded(format!("peer {rank} was declared lost by peer {by}")),
            (None, None) => Self::Ok,
        }
    }

    /// One or two words for the header and the JSON field `health`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "no data",
            Self::Ok => "ok",
            Self::Ended(_) => "ended",
            Self::Degraded(_) => "DEGRADED",
            Self::Stalled(_) => "STALLED",
            Self::Lost(_) => "LOST",
        }
    }

    /// The reason of a state that is not good, or the summary of a run that has ended; empty otherwise.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Degraded(reason) | Self::Stalled(reason) | Self::Lost(reason) | Self::Ended(reason) => reason,
            Self::Unknown | Self::Ok => "",
        }
    }

    /// The exit code: 0 ok or ended, 1 degraded, 2 stalled, 3 no data, 5 lost. 4 is that of wrong usage.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Ok | Self::Ended(_) => 0,
            Self::Degraded(_) => 1,
            Self::Stalled(_) => 2,
            Self::Unknown => 3,
            Self::Lost(_) => 5,
        }
    }
}

/// Why the source is lost, if it is.
fn lost(model: &Model) -> Option<String> {
    let silence = model.source_silence();
    match &model.disconnected {
        Some(reason) => Some(format!("the source is gone: {reason}")),
        None if silence >= SOURCE_SILENT_AFTER => Some(format!("the source has sent nothing for {silence:.1} s")),
        None => None,
    }
}

/// What is wrong with a node.
fn trouble(model: &Model, rank: u32, node: &Node) -> Option<String> {
    let silence = model.silence(node);
    match Standing::of(model, rank, node) {
        Standing::Silent => Some(format!("no report from peer {rank} for {silence:.1} s")),
        Standing::GivenUp => {
            let by = model.lost_by(rank).unwrap_or(rank);
            Some(format!("peer {rank} was declared lost by peer {by}, no report for {silence:.1} s"))
        }
        Standing::Failed => Some(format!("peer {rank} has failed, or its application has ended without leaving")),
        Standing::Joining | Standing::Active | Standing::Leaving | Standing::Left | Standing::Finished => None,
    }
}

/// What the workers of a run that has ended have done.
fn summary(model: &Model) -> String {
    let workers = || model.nodes.iter().filter(|(rank, _)| model.is_worker(**rank)).map(|(_, node)| &node.report);
    let examples = workers().fold(0.0, |sum, report| sum + report.progress.examples as f64);
    let steps = workers().map(|report| report.times.steps).max().unwrap_or(0);
    let seconds = workers().map(|report| report.times.stepped).max().unwrap_or(0) as f64 / 1e9;
    let rate = if seconds > 0.0 { examples / seconds } else { 0.0 };
    let mut text = format!(
        "{} workers, {steps} steps, {} examples in {seconds:.1} s ({}/s), {} sent",
        workers().count(),
        count(examples),
        count(rate),
        bytes(model.sum_of_all(|node| node.report.status.bytes_out() as f64)),
    );
    let mut told = |name: &str, of: fn(&Node) -> f32| {
        let known = model.nodes.values().map(of).filter(|x| x.is_finite()).map(f64::from);
        let (sum, count) = known.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
        if count > 0.0 {
            text.push_str(&format!(", {name} {:.4}", sum / count));
        }
    };
    told("loss", |node| node.report.progress.loss);
    told("accuracy", |node| node.report.progress.accuracy);
    text
}

/// The live node that has waited longest, if that is a stall.
fn longest_wait(model: &Model) -> Option<(u32, Waiting)> {
    let waits = model.live().filter_map(|(rank, node)| Some((rank, node.report.status.waiting?)));
    let stalls = waits.filter(|(rank, waiting)| {
        waited(model, waiting) >= STALL_AFTER && !makes_its_step(model, culprit(model, *rank, *waiting).on)
    });
    stalls.max_by(|(_, a), (_, b)| waited(model, a).total_cmp(&waited(model, b)))
}

/// The ranks of the chain of waits that is a stall, from the node that has waited longest to the one that all wait for.
pub(crate) fn stalled(model: &Model) -> Option<Vec<u32>> {
    let (rank, waiting) = longest_wait(model)?;
    Some(std::iter::once(rank).chain(chain(model, rank, waiting).iter().map(|wait| wait.on.0)).collect())
}

/// Whether a worker is computing, and not for longer than its steps take: it is slow, but it holds nothing up for good.
fn makes_its_step(model: &Model, rank: PeerId) -> bool {
    let Some(node) = model.nodes.get(&rank.0).filter(|_| model.is_worker(rank.0)) else { return false };
    if Standing::of(model, rank.0, node) != Standing::Active {
        return false;
    }
    if let Some(waiting) = &node.report.status.waiting {
        // It has just ended its step. The reports of those that have waited for it can be older.
        return waited(model, waiting) < STALL_AFTER;
    }
    let limit = match node.report.times.steps {
        0 => FIRST_STEP,
        _ => (LONG_STEP * node.now.step / 1e3).max(STALL_AFTER),
    };
    node.since_step() + model.silence(node) < limit
}

/// Seconds since a wait began.
fn waited(model: &Model, waiting: &Waiting) -> f64 {
    seconds(model.now) - seconds(waiting.since)
}

/// The waits from `rank` on, one after the other. The chain ends at a node that is not live: its last report does not
/// describe the present.
fn chain(model: &Model, rank: u32, waiting: Waiting) -> Vec<Waiting> {
    let mut chain = vec![waiting];
    let mut visited = vec![rank, waiting.on.0];
    while let Some(node) = chain.last().and_then(|last| model.nodes.get(&last.on.0)) {
        let live = Standing::of(model, node.report.status.me.0, node).is_live();
        let Some(next) = node.report.status.waiting.filter(|_| live) else { break };
        // Waits form a circle when reports of different times meet.
        if visited.contains(&next.on.0) {
            break;
        }
        visited.push(next.on.0);
        chain.push(next);
    }
    chain
}

/// The last wait of a chain.
fn culprit(model: &Model, rank: u32, waiting: Waiting) -> Waiting {
    chain(model, rank, waiting).last().copied().unwrap_or(waiting)
}

/// Describes the wait of `rank`, and follows it from node to node: the cause is at the end of the chain.
fn chain_of_waits(model: &Model, rank: u32, waiting: Waiting) -> String {
    let chain = chain(model, rank, waiting);
    let mut text = format!("peer {rank} has waited {:.1} s for peer {}", waited(model, &waiting), waiting.on);
    chain.iter().skip(1).for_each(|next| text.push_str(&format!(", which waits for peer {}", next.on)));
    let last = chain.last().copied().unwrap_or(waiting);
    let silence = model.nodes.get(&last.on.0).map_or(0.0, |node| model.silence(node));
    let silent = if silence >= SILENT_AFTER { format!(", no report for {silence:.1} s") } else { String::new() };
    format!("{text} (at clock {}{silent})", last.at.0)
}
