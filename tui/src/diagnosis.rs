//! [`Diagnosis`]: a standing line in words. It tells the speed of the cluster, the costs of the rest, and the remedy.
//!
//! [`Health`] names the fault. The diagnosis adds the remedy for a source, a node or a loss, and the costs of a run without
//! a fault. It is a pure function of the model.

use gradwire_core::recipe::Codec;
use gradwire_core::telemetry::{Note, NoteKind};
use gradwire_core::{PeerId, Recipe};

use crate::arrivals::{Place, Wire};
use crate::health::{Health, stalled};
use crate::model::{Model, Node, seconds};
use crate::pace::Pace;
use crate::remedy::Remedy;
use crate::standing::Standing;
use crate::theme::bytes;
use crate::trend::{Kind, Trend};

/// A cost below this share is not mentioned.
const MENTIONED: f64 = 0.02;
/// A cost from this share on gets advice.
const ADVISED: f64 = 0.1;
/// A server that is busy for this share of the time is the bottleneck.
const BUSY: f64 = 0.7;
/// Seconds for which a rejected contribution is mentioned.
const REJECTED_FOR: f64 = 10.0;

/// Seconds before the loss of a source in which a node that cannot go on without a peer explains the loss.
const CUT_WITHIN: f64 = 5.0;

/// How much attention a diagnosis needs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    /// There is nothing to do.
    Good,
    /// The run could be faster.
    Slow,
    /// The result is at risk.
    Bad,
}

/// What to know about a run at present, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnosis {
    pub(crate) grade: Grade,
    pub(crate) text: String,
}

impl Diagnosis {
    pub(crate) fn of(model: &Model) -> Self {
        let bad = |text: String| Self { grade: Grade::Bad, text };
        let good = |text: &str| Self { grade: Grade::Good, text: text.to_string() };
        if model.nodes.is_empty() {
            return good("no node has reported yet");
        }
        let loss = loss(model);
        match (Health::of(model), loss) {
            (Health::Lost(_), _) => bad(source(model)),
            (Health::Ended(_), None) => good("the run has ended well"),
            (Health::Stalled(_), _) => bad(stall(model)),
            (_, Some(loss)) => bad(loss),
            (Health::Degraded(_), None) => bad(repair(model)),
            (Health::Ok | Health::Unknown, None) => speed(model),
        }
    }
}

/// The source is lost.
fn source(model: &Model) -> String {
    let host = model.nodes.get(&0).map_or_else(String::new, |node| format!(" at {}", node.host));
    let what = "the process that serves this monitor, rank 0 or the one that was given --monitor,";
    if let Some(loss) = loss(model) {
        return format!("before that, {loss}");
    }
    if let Some(peer) = cut_by(model) {
        let name = name(model, peer);
        return format!("before that, {name} was lost, and nodes could not go on without it: start all nodes again");
    }
    format!("look at {what}{host} and at the network to it; dtop connects again by itself")
}

/// The peer without which a node could not go on, shortly before the last frame came.
fn cut_by(model: &Model) -> Option<u32> {
    let end = seconds(model.now) - model.source_silence();
    let cut = |note: &&Note| note.kind == NoteKind::Cut && end - seconds(note.at) < CUT_WITHIN;
    model.notes.iter().find(cut).map(|note| note.peer.0)
}

/// The name of a node, with its host.
fn name(model: &Model, rank: u32) -> String {
    let role = if model.is_worker(rank) { "" } else { " (server)" };
    let host = model.nodes.get(&rank).map_or_else(String::new, |node| format!(" at {}", node.host));
    format!("peer {rank}{role}{host}")
}

/// Whether the reports of a node describe the present.
fn is_live(model: &Model, rank: u32) -> bool {
    model.nodes.get(&rank).is_some_and(|node| Standing::of(model, rank, node).is_live())
}

/// The live nodes that wait for a node, at most three by name. `None`: no node does.
fn waiters(model: &Model, on: u32) -> Option<String> {
    let waits = |rank: &u32, node: &Node| {
        *rank != on && node.report.status.waiting.is_some_and(|waiting| waiting.on == PeerId(on))
    };
    let ranks: Vec<u32> = model.live().filter(|(rank, node)| waits(rank, node)).map(|(rank, _)| rank).collect();
    let shown: Vec<String> = ranks.iter().take(3).map(u32::to_string).collect();
    Some(match ranks.as_slice() {
        [] => return None,
        [one] => format!("peer {one} waits"),
        [_, _] => format!("peers {} wait", shown.join(" and ")),
        [_, _, _] => format!("peers {}, {} and {} wait", shown[0], shown[1], shown[2]),
        all => format!("peers {} and {} more wait", shown.join(", "), all.len() - 3),
    })
}

/// What to do about a node that all wait for.
fn stall(model: &Model) -> String {
    let chain = stalled(model).unwrap_or_default();
    let Some(last) = chain.last().copied() else { return repair(model) };
    let those = waiters(model, last);
    let name = name(model, last);
    if is_live(model, last) {
        let those = those.unwrap_or_else(|| "1 node waits".to_string());
        return format!(
            "{those} for {name}, which reports but does not go on: look at its process, and restart it if it hangs"
        );
    }
    let those = those.map_or_else(String::new, |those| format!(", {those} for it"));
    let then = match (model.is_worker(last), model.lost_by(last)) {
        (false, _) => "; no worker can go on without it",
        (true, None) => ", or wait until its peers give it up",
        (true, Some(_)) => "",
    };
    format!("{name} is dead, stopped or cut off{those}: restart it with the same arguments{then}")
}

/// The remedy for nodes that are lost while the others go on.
fn repair(model: &Model) -> String {
    let unheard = model.given_up().map(|(rank, _)| rank).filter(|rank| !model.nodes.contains_key(rank));
    let gone = |rank: &u32| !is_live(model, *rank) && !model.has_left(*rank);
    let mut lost: Vec<u32> = model.nodes.keys().copied().filter(gone).chain(unheard).collect();
    // Servers first: all workers need them.
    lost.sort_by_key(|rank| (model.is_worker(*rank), *rank));
    let Some(first) = lost.first().copied() else { return speed(model).text };
    let more = if lost.len() > 1 { format!(", and {} more,", lost.len() - 1) } else { String::new() };
    let (is, it) = if lost.len() > 1 { ("are", "them") } else { ("is", "it") };
    let then = match (model.is_worker(first), Pace::of(model)) {
        (false, _) => "no worker can go on without it".to_string(),
        (true, Some(pace)) if pace.workers > 0 => {
            format!("without {it} the run has {} of {} workers", pace.workers - pace.absent, pace.workers)
        }
        (true, _) => "the others go on without it".to_string(),
    };
    let those = waiters(model, first).map_or_else(String::new, |those| format!(", {those} for it"));
    format!(
        "{}{more} {is} dead, stopped or cut off{those}: restart {it} with the same arguments; {then}",
        name(model, first)
    )
}

/// A loss that is wrong, or contributions that are no numbers.
fn loss(model: &Model) -> Option<String> {
    let lower = "lower the learning rate";
    if let Some(trend) = Trend::of(model) {
        return Some(diverges(model, &trend, lower));
    }
    let recent = |at| seconds(model.now) - seconds(at) < REJECTED_FOR;
    let rejects = |note: &&Note| note.kind == NoteKind::Rejected && note.number > 0 && recent(note.at);
    let note = model.notes.iter().rev().find(rejects)?;
    Some(format!(
        "{} sends updates that are not finite, and they are rejected: {lower}, or look at its data",
        name(model, note.peer.0)
    ))
}

/// The sentence for a loss that diverges: since when, at which worker, and what to do.
fn diverges(model: &Model, trend: &Trend, lower: &str) -> String {
    let ago = seconds(model.now) - trend.since;
    let since = format!("since {:.1} s, {ago:.1} s ago", trend.since);
    let first = trend.ranks.first().map(|rank| name(model, *rank));
    let others = trend.tell.saturating_sub(trend.ranks.len());
    // A minority has another cause than the rate, which all share.
    let alone = first.as_ref().filter(|_| others > 0 && trend.ranks.len() <= others);
    let more = if trend.ranks.len() > 1 { format!(" and {} more", trend.ranks.len() - 1) } else { String::new() };
    let first_at = |words: &str| match (&first, trend.tell) {
        (Some(first), 2..) if trend.one_is_first => format!("{words}{first}"),
        _ => String::new(),
    };
    match (trend.kind, alone) {
        (Kind::NotFinite, Some(alone)) => format!(
            "the loss of {alone}{more} is not finite any more ({since}), the losses of {others} others are: look at its \
             data, {lower}, and begin again or resume a checkpoint"
        ),
        (Kind::NotFinite, None) => format!(
            "the loss is not finite any more ({since}{}): {lower}, and begin again or resume a checkpoint",
            first_at(", first of ")
        ),
        (Kind::Grown(best, last), Some(alone)) => format!(
            "the loss has grown from {} to {} ({since}), that of {alone}{more} and not of {others} others: look at its \
             data, or {lower}",
            figure(best),
            figure(last)
        ),
        (Kind::Grown(best, last), None) => format!(
            "the loss has grown from {} to {} ({since}{}): {lower}",
            figure(best),
            figure(last),
            first_at(", first of ")
        ),
    }
}

/// A loss with three digits.
fn figure(x: f64) -> String {
    if (0.01..1000.0).contains(&x) { format!("{x:.3}") } else { format!("{x:.1e}") }
}

/// What an unbroken run spends its time on.
fn speed(model: &Model) -> Diagnosis {
    let Some(pace) = Pace::of(model) else {
        return Diagnosis { grade: Grade::Good, text: begins(model) };
    };
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let mut text = match pace.workers {
        1 => format!("{} of what 1 worker alone could do", percent(pace.reached)),
        n => format!("{} of what {n} equal workers could do", percent(pace.reached)),
    };
    let network = pace.sending + pace.waiting;
    let absent = pace.absent as f64 / pace.workers as f64;
    let costs = [pace.by_slow, network, pace.coding, absent];
    let most = costs.iter().copied().fold(0.0, f64::max);
    if most < MENTIONED {
        return Diagnosis { grade: Grade::Good, text };
    }
    let advised = most >= ADVISED;
    let (clause, advice) = if most == pace.by_slow {
        slow(model, &pace, &percent)
    } else if most == network {
        waits(model, &pace, &percent)
    } else if most == pace.coding {
        let clause = format!("{} of a step is encoding, decoding and applying", percent(pace.coding));
        (clause, "a cheaper codec or a longer period would help".to_string())
    } else {
        let clause = format!("{} of {} workers make no steps", pace.absent, pace.workers);
        (clause, "see Nodes for their state".to_string())
    };
    text.push_str(&format!("; {clause}"));
    if advised {
        text.push_str(&format!("; {advice}"));
    }
    Diagnosis { grade: if advised { Grade::Slow } else { Grade::Good }, text }
}

/// The clause and the advice for stragglers.
fn slow(model: &Model, pace: &Pace, percent: &impl Fn(f64) -> String) -> (String, String) {
    let (rank, times) = pace.slow.first().copied().unwrap_or_default();
    let cost = percent(pace.by_slow);
    let clause = match pace.slow.len() {
        1 => format!("peer {rank} computes {times:.1} times the median and costs {cost}"),
        n => format!("peer {rank} and {} more compute up to {times:.1} times the median and cost {cost}", n - 1),
    };
    let host = model.nodes.get(&rank).map_or("", |node| &node.host);
    (clause, format!("look for other work at {host}, or give it a smaller batch"))
}

/// The clause and the advice for waits.
fn waits(model: &Model, pace: &Pace, percent: &impl Fn(f64) -> String) -> (String, String) {
    if let Some((rank, share, median)) = pace.thin {
        let clause =
            format!("peer {rank} is sending for {} of the time, the median is {}", percent(share), percent(median));
        let host = model.nodes.get(&rank).map_or("", |node| &node.host);
        return (clause, format!("look at the network of {host}"));
    }
    if let Some((rank, busy)) = model.busiest_server().filter(|(_, busy)| *busy >= BUSY) {
        let clause = format!("peer {rank}, a server, is busy {} of the time", percent(busy));
        return (clause, "more servers or shards would help".into());
    }
    if pace.sending >= 0.5 * pace.waiting {
        return sending(model, pace, percent);
    }
    let clause = format!("{} of a step is waiting for the network", percent(pace.sending + pace.waiting));
    let coded = model.run.recipe.parse::<Recipe>().is_ok_and(|recipe| recipe.codec() != Codec::F32);
    let codec = if coded { "a sparser codec" } else { "a codec" };
    (clause, format!("{codec} or a longer period would help"))
}

/// The clause and the advice for a thin network: how much, which links, and what would be less.
fn sending(model: &Model, pace: &Pace, percent: &impl Fn(f64) -> String) -> (String, String) {
    let wire = Wire::of(model);
    let host = |rank: u32| model.nodes.get(&rank).map_or_else(|| format!("peer {rank}"), |node| node.host.clone());
    let place = wire.map(|wire| wire.place);
    let (on, look) = match place {
        None => (String::new(), None),
        Some(Place::Between(a, b)) => {
            (format!(" over the link between peers {a} and {b}"), Some(format!("{} and {}", host(a), host(b))))
        }
        Some(Place::Of(rank)) => (format!(" over the links of peer {rank}"), Some(host(rank))),
        Some(Place::All) => (" over all links".to_string(), None),
        Some(Place::Some(a, b)) => (format!(" over some links, first between peers {a} and {b}"), None),
    };
    let rate = wire.map_or_else(String::new, |wire| format!(" ({}/s)", bytes(wire.rate)));
    let share = percent(pace.sending);
    let clause = match pace.waiting {
        waiting if waiting < 0.5 * pace.sending => format!("{share} of a step is sending{on}{rate}"),
        waiting => format!("{share} of a step is sending{on}{rate}, {} other waits", percent(waiting)),
    };
    let less = Remedy::of(model, pace.sending)
        .map(|remedy| format!("{} would make it {}", remedy.change, percent(remedy.share)));
    let look = look.map(|hosts| format!("look at the network of {hosts}"));
    let advice = match (less, look) {
        (Some(less), Some(look)) => format!("{look}; or {less}"),
        (Some(advice), None) | (None, Some(advice)) => advice,
        (None, None) => "a sparser codec or a longer period would help".to_string(),
    };
    (clause, advice)
}

/// Before the first step.
fn begins(model: &Model) -> String {
    let workers = model.run.workers.max(1);
    let missing = (0..workers.min(2000)).filter(|rank| !model.nodes.contains_key(rank)).collect::<Vec<_>>();
    match missing.first() {
        Some(first) => format!("{} of {workers} workers have not reported, peer {first} first", missing.len()),
        None => "no step has ended yet".to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
