//! The connections of a recipe's topology as a line; the waits of nodes for each other as a line, and drawn as a tree.

use std::collections::BTreeMap;

use gradwire_core::recipe::Topology;
use gradwire_core::{Cluster, Recipe};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::block;
use crate::app::App;
use crate::model::{Model, seconds};
use crate::standing::Standing;

/// Ranks that a line lists one by one.
const LISTED_MAX: usize = 8;

/// The topology in a line, for example "ring 0 > 1 > 2 > 0".
pub(super) fn line<'a>(app: &App, model: &Model) -> Line<'a> {
    let (workers, servers) = (model.run.workers, model.run.servers);
    let cluster = Cluster { workers, servers };
    let recipe = model.run.recipe.parse::<Recipe>();
    let topology = recipe.map(|recipe| recipe.fitted(cluster, model.run.parameters as usize).topology());
    let range = |from: u32, count: u32| match count {
        0 => "none".to_string(),
        1 => from.to_string(),
        n => format!("{from} to {}", from.saturating_add(n - 1)),
    };
    let text = match topology {
        Ok(Topology::Servers { shards }) => {
            let link = if app.theme.ascii { "<->" } else { "⇄" };
            format!(
                "workers {} {link} servers {}, {shards} shard{}",
                range(0, workers),
                range(workers, servers),
                if shards == 1 { "" } else { "s" }
            )
        }
        Ok(Topology::Ring) => ring(app, workers),
        Ok(Topology::Tree { fan_in }) => format!("tree {}", tree(workers, fan_in)),
        Ok(Topology::Mesh { relay: 0 }) => format!("mesh of {}, each sends to all others", range(0, workers)),
        Ok(Topology::Mesh { relay }) => format!("mesh, relayed along a tree: {}", tree(workers, relay)),
        _ => format!("{workers} workers, {servers} servers"),
    };
    Line::raw(format!("topology  {text}"))
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

/// The waits in a line. Nodes that most others wait for come first.
pub(super) fn waits_line<'a>(app: &App, model: &Model) -> Line<'a> {
    let waits = waits(model);
    let mut groups: Vec<_> = waits.iter().collect();
    groups.sort_by_key(|(on, those)| (std::cmp::Reverse(those.len()), **on));
    let words = groups.iter().take(3).map(|(on, those)| {
        let verb = if those.len() == 1 { "waits" } else { "wait" };
        format!("{} {verb} for {on}", list(those.iter().map(|(rank, _)| *rank)))
    });
    let text = words.collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        return Line::styled("waits     none at present", app.theme.dim());
    }
    Line::from(vec![Span::raw("waits     "), Span::styled(text, app.theme.warn())])
}

/// The tree of waits: below each node those that wait for it. The causes come first.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let waits = waits(model);
    let lines_max = usize::from(area.height.saturating_sub(2));
    let waiting = |rank: u32| waits.values().flatten().any(|(waiter, _)| *waiter == rank);
    let mut drawing = Drawing { app, model, waits: &waits, lines: Vec::new(), drawn: Vec::new(), lines_max };
    // A circle of waits, of reports of different times, has no cause: it begins at any of its nodes.
    let causes: Vec<u32> = waits.keys().copied().filter(|rank| !waiting(*rank)).collect();
    let others: Vec<u32> = waits.keys().copied().collect();
    causes.into_iter().chain(others).for_each(|rank| drawing.node(rank, None, String::new(), ""));
    let lines = match drawing.lines {
        lines if lines.is_empty() => vec![Line::styled("no node waits at present", app.theme.dim())],
        lines => lines,
    };
    frame.render_widget(Paragraph::new(lines).block(block(app.theme, " who waits for whom ".into())), area);
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
    /// Draws a node and, below it, those that wait for it. `front`: the lines of the nodes above. `branch`: its own sign.
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
        let those = waits.get(&rank).map_or(&[][..], Vec::as_slice);
        // Those that hold up others themselves have a line each; the rest share one.
        let (heads, rest): (Vec<_>, Vec<_>) = those.iter().partition(|(waiter, _)| waits.contains_key(waiter));
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

    /// What a node does: it waits, computes, or is not live.
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
