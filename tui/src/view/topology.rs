//! The connections of a recipe's topology, and the waits of nodes for each other: in a line, and drawn.

use std::collections::BTreeMap;

use gradwire_core::recipe::Topology;
use gradwire_core::{Cluster, Recipe};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::{block, fitted, rule};
use crate::app::App;
use crate::model::{Model, seconds};
use crate::standing::Standing;
use crate::theme::bytes;

/// Ranks that a line lists one by one.
const LISTED_MAX: usize = 8;

/// The topology in a line, for example "ring 0 > 1 > 2 > 0". `brief`: servers without the word.
pub(super) fn text(app: &App, model: &Model, brief: bool) -> String {
    let (workers, servers) = (model.run.workers, model.run.servers);
    let cluster = Cluster { workers, servers };
    let recipe = model.run.recipe.parse::<Recipe>();
    let topology = recipe.map(|recipe| recipe.fitted(cluster, model.run.parameters as usize).topology());
    let range = |from: u32, count: u32| match count {
        0 => "none".to_string(),
        1 => from.to_string(),
        n => format!("{from} to {}", from.saturating_add(n - 1)),
    };
    match topology {
        Ok(Topology::Servers { shards }) => {
            let link = if app.theme.ascii { "<->" } else { "⇄" };
            if brief {
                return format!("{} {link} {}", range(0, workers), range(workers, servers));
            }
            format!(
                "workers {} {link} servers {}, {shards} shard{}",
                range(0, workers),
                range(workers, servers),
                if shards == 1 { "" } else { "s" }
            )
        }
        Ok(Topology::Ring) => ring(app, workers),
        Ok(Topology::Tree { fan_in }) => format!("tree {}", tree(workers, fan_in)),
        Ok(Topology::Mesh { relay: 0 }) if brief => format!("mesh of {}", range(0, workers)),
        Ok(Topology::Mesh { relay: 0 }) => format!("mesh of {}, each sends to all others", range(0, workers)),
        Ok(Topology::Mesh { relay }) => format!("mesh, relayed along a tree: {}", tree(workers, relay)),
        _ => format!("{workers} workers, {servers} servers"),
    }
}

fn ring(app: &App, workers: u32) -> String {
    let arrow = if app.theme.ascii { " > " } else { " → " };
    let mut ranks: Vec<String> = (0..workers.min(LISTED_MAX as u32)).map(|rank| rank.to_string()).collect();
    if workers as usize > LISTED_MAX {
        ranks.extend(["...".to_string(), (workers - 1).to_string()]);
    }
    ranks.push("0".into());
    format!("ring {}", ranks.join(arrow))
}

/// The nodes with their children, from the root on.
fn tree(workers: u32, fan_in: u32) -> String {
    let children = |rank: u32| {
        let first = rank.saturating_mul(fan_in).saturating_add(1);
        (first..first.saturating_add(fan_in)).take_while(|child| *child < workers).map(|child| child.to_string())
    };
    let parents = (0..workers.min(LISTED_MAX as u32)).filter(|rank| children(*rank).next().is_some());
    let families: Vec<String> =
        parents.map(|rank| format!("{rank}({})", children(rank).collect::<Vec<_>>().join(" "))).collect();
    let more = if workers as usize > LISTED_MAX { " ..." } else { "" };
    format!("{}{more}", families.join(" "))
}

/// The live nodes that wait, by the node that they wait for: rank and seconds.
fn waits(model: &Model) -> BTreeMap<u32, Vec<(u32, f64)>> {
    let mut waits: BTreeMap<u32, Vec<(u32, f64)>> = BTreeMap::new();
    for (rank, node) in model.live() {
        if let Some(waiting) = node.report.status.waiting {
            let since = (seconds(model.now) - seconds(waiting.since)).max(0.0);
            waits.entry(waiting.on.0).or_default().push((rank, since));
        }
    }
    waits
}

/// Ranks as "0, 2, 3 and 5 more".
fn list(ranks: impl ExactSizeIterator<Item = u32>) -> String {
    let count = ranks.len();
    let text = ranks.take(LISTED_MAX).map(|rank| rank.to_string()).collect::<Vec<_>>().join(", ");
    if count > LISTED_MAX { format!("{text} and {} more", count - LISTED_MAX) } else { text }
}

/// The waits in a line, with its style. The nodes for which most others wait come first. `brief`: without verbs.
pub(super) fn waits_text(app: &App, model: &Model, brief: bool) -> (String, Style) {
    let waits = waits(model);
    let mut groups: Vec<_> = waits.iter().collect();
    groups.sort_by_key(|(on, waiters)| (std::cmp::Reverse(waiters.len()), **on));
    let words = groups.iter().take(3).map(|(on, waiters)| {
        let verb = match (brief, waiters.len()) {
            (true, _) => "",
            (false, 1) => "waits ",
            (false, _) => "wait ",
        };
        format!("{} {verb}for {on}", list(waiters.iter().map(|(rank, _)| *rank)))
    });
    let text = words.collect::<Vec<_>>().join("; ");
    match (text.is_empty(), brief) {
        (true, true) => ("no node".to_string(), app.theme.dim()),
        (true, false) => ("none at present".to_string(), app.theme.dim()),
        _ => (text, app.theme.warn()),
    }
}

/// Draws the tree of waits: below each node its waiters, with the causes first. While no node waits, the topology is
/// drawn instead.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect, framed: bool) {
    let waits = waits(model);
    let title = if waits.is_empty() { " who sends to whom " } else { " who waits for whom " };
    let block = if framed { block(app.theme, title.into()) } else { rule(app.theme, title.into()) };
    let lines_max = usize::from(block.inner(area).height);
    let waiting = |rank: u32| waits.values().flatten().any(|(waiter, _)| *waiter == rank);
    let mut drawing = Drawing { app, model, waits: &waits, lines: Vec::new(), drawn: Vec::new(), lines_max };
    // A circle of waits, of reports of different times, has no cause: it begins at any of its nodes.
    let causes: Vec<u32> = waits.keys().copied().filter(|rank| !waiting(*rank)).collect();
    let others: Vec<u32> = waits.keys().copied().collect();
    causes.into_iter().chain(others).for_each(|rank| drawing.node(rank, None, String::new(), ""));
    let lines = match drawing.lines {
        lines if lines.is_empty() => links(app, model, lines_max),
        lines => lines,
    };
    let width = block.inner(area).width;
    let lines: Vec<Line<'_>> = lines.into_iter().map(|line| fitted(app.theme, line, width)).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A line per node: the peers to which it sends, the busiest first, and the rates.
fn links<'a>(app: &App, model: &Model, lines_max: usize) -> Vec<Line<'a>> {
    let arrow = if app.theme.ascii { "->" } else { "→" };
    let lines = model.live().filter_map(|(rank, node)| {
        let mut rates: Vec<(u32, f64)> = node.link_rates.iter().map(|(to, rate)| (*to, *rate)).collect();
        rates.retain(|(_, rate)| *rate > 0.0);
        rates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let all: f64 = rates.iter().map(|(_, rate)| *rate).sum();
        let peers = list(rates.iter().map(|(to, _)| *to).collect::<Vec<_>>().into_iter());
        (!rates.is_empty()).then(|| Line::raw(format!("{rank:>4} {arrow} {peers}: {}/s", bytes(all))))
    });
    let mut lines: Vec<Line<'a>> = lines.collect();
    if lines.len() > lines_max && lines_max > 0 {
        let more = lines.len() - lines_max + 1;
        lines.truncate(lines_max - 1);
        lines.push(Line::styled(format!("     and {more} more nodes"), app.theme.dim()));
    }
    if lines.is_empty() {
        lines.push(Line::styled("no node waits or sends at present", app.theme.dim()));
    }
    lines
}

struct Drawing<'a> {
    app: &'a App,
    model: &'a Model,
    waits: &'a BTreeMap<u32, Vec<(u32, f64)>>,
    lines: Vec<Line<'static>>,
    drawn: Vec<u32>,
    lines_max: usize,
}

impl Drawing<'_> {
    /// Draws a node and, below it, its waiters. `front`: the lines of the nodes above. `branch`: the sign of this node.
    fn node(&mut self, rank: u32, since: Option<f64>, front: String, branch: &str) {
        if self.lines.len() >= self.lines_max || self.drawn.contains(&rank) {
            return;
        }
        self.drawn.push(rank);
        let (word, style) = self.word(rank, since);
        let text = format!("{front}{branch}{rank} ");
        self.lines.push(Line::from(vec![Span::raw(text), Span::styled(word, style)]));
        let signs = if self.app.theme.ascii { ["|-", "`-", "| ", "  "] } else { ["├ ", "└ ", "│ ", "  "] };
        let below = match branch {
            "" => front,
            branch if branch == signs[1] => front + signs[3],
            _ => front + signs[2],
        };
        let waits = self.waits;
        let waiters = waits.get(&rank).map_or(&[][..], Vec::as_slice);
        // Waiters that hold up other nodes have a line each; the rest share one.
        let (heads, rest): (Vec<_>, Vec<_>) = waiters.iter().partition(|(waiter, _)| waits.contains_key(waiter));
        for (i, (waiter, since)) in heads.iter().enumerate() {
            let last = i + 1 == heads.len() && rest.is_empty();
            self.node(*waiter, Some(*since), below.clone(), signs[usize::from(last)]);
        }
        if !rest.is_empty() && self.lines.len() < self.lines_max {
            let longest = rest.iter().map(|(_, since)| *since).fold(0.0, f64::max);
            let text = format!("{below}{}{} ", signs[1], list(rest.iter().map(|(waiter, _)| *waiter)));
            let verb = if rest.len() == 1 { "waits" } else { "wait, at most" };
            let word = Span::styled(format!("{verb} {longest:.1} s"), self.app.theme.warn());
            self.lines.push(Line::from(vec![Span::raw(text), word]));
        }
    }

    /// The present of a node in words: it waits, computes, or is not live.
    fn word(&self, rank: u32, since: Option<f64>) -> (String, Style) {
        let theme = self.app.theme;
        let Some(node) = self.model.nodes.get(&rank) else { return ("has not reported".into(), theme.bad()) };
        match (since, Standing::of(self.model, rank, node).is_live()) {
            (Some(since), true) => (format!("waits {since:.1} s"), theme.warn()),
            (None, true) if self.model.is_worker(rank) => {
                (format!("computes, for {:.1} s", node.since_step() + self.model.silence(node)), theme.good())
            }
            (None, true) => (format!("server, {:.0} % busy", 100.0 * node.now.busy), theme.good()),
            (_, false) => state(self.app, self.model, rank, node),
        }
    }
}
