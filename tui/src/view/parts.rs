//! Where the time of each node goes: the parts of a step as a stacked bar, and a timeline of the last seconds.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::block;
use crate::app::App;
use crate::model::{Model, Node, seconds};
use crate::recent::Parts;
use crate::standing::Standing;
use crate::theme::Theme;

/// Columns of a line before its bar: rank and milliseconds per step.
const FRONT: usize = 15;
/// Least columns of a bar beside which there is a timeline.
const BAR_MIN: usize = 20;
/// Seconds of the timeline.
const SECONDS: f64 = 10.0;

/// The signs of computing, coding, sending and waiting, with their names.
fn legend(theme: Theme) -> [(&'static str, &'static str, Style); 4] {
    let signs = if theme.ascii { ["#", "c", "s", "."] } else { ["█", "▓", "▒", "░"] };
    [
        (signs[0], "computing", theme.good()),
        (signs[1], "coding", theme.second()),
        (signs[2], "sending", theme.accent()),
        (signs[3], "waiting", theme.dim()),
    ]
}

fn shares(parts: &Parts) -> [f64; 4] {
    [parts.compute, parts.coding, parts.sending, parts.waiting]
}

/// The lines that the pane takes with all nodes, borders included.
pub(super) fn height(model: &Model) -> u16 {
    (model.nodes.len() as u16).saturating_add(2)
}

/// Draws a line per node. If not all nodes fit, it shows nodes that are not live, then the nodes that compute longest.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let lines = usize::from(area.height.saturating_sub(2));
    let width = usize::from(area.width.saturating_sub(2));
    let shown = shown(model, lines);
    let hidden = model.nodes.len() - shown.len();
    let rest = width.saturating_sub(FRONT);
    // A timeline needs as much room as a bar.
    let timeline = if rest >= 2 * BAR_MIN + 8 { rest / 2 } else { 0 };
    let bar = rest.saturating_sub(timeline + if timeline > 0 { 2 } else { 0 });
    let straggler = model.straggler().map(|(rank, _)| rank);
    let rows = shown.iter().filter_map(|rank| {
        let node = model.nodes.get(rank)?;
        let mut spans = front(app, model, *rank, node, straggler == Some(*rank));
        if Standing::of(model, *rank, node).is_live() {
            spans.extend(stacked(app.theme, &node.recent.parts(), bar));
        } else {
            spans.push(Span::raw(" ".repeat(bar)));
        }
        if timeline > 0 {
            spans.push(Span::raw("  "));
            spans.extend(past(app.theme, model, node, timeline));
        }
        Some(Line::from(spans))
    });
    let rows: Vec<Line<'_>> = rows.collect();
    let mut title = vec![Span::styled(" ms per step: ", app.theme.title())];
    for (sign, name, style) in legend(app.theme) {
        title.extend([Span::styled(sign, style), Span::raw(format!(" {name} "))]);
    }
    if hidden > 0 {
        title.push(Span::raw(format!("+{hidden} nodes ")));
    }
    let right = if timeline > 0 { format!(" last {SECONDS:.0} s ") } else { String::new() };
    let block = block(app.theme, String::new()).title(Line::from(title)).title(Line::from(right).right_aligned());
    frame.render_widget(Paragraph::new(rows).block(block), area);
}

/// The ranks that are shown in so many lines, in their order.
fn shown(model: &Model, lines: usize) -> Vec<u32> {
    if model.nodes.len() <= lines {
        return model.nodes.keys().copied().collect();
    }
    let badness = |rank: u32, node: &Node| match Standing::of(model, rank, node) {
        Standing::Silent | Standing::GivenUp | Standing::Failed => f64::MAX,
        Standing::Left | Standing::Finished => -1.0,
        _ if model.is_worker(rank) => node.step().map_or(0.0, |(_, compute)| compute),
        _ => node.now.busy,
    };
    let mut all: Vec<(f64, u32)> = model.nodes.iter().map(|(rank, node)| (badness(*rank, node), *rank)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut ranks: Vec<u32> = all.into_iter().take(lines).map(|(_, rank)| rank).collect();
    ranks.sort_unstable();
    ranks
}

/// Rank, and milliseconds per step or the state, with a mark at a straggler.
fn front<'a>(app: &App, model: &Model, rank: u32, node: &Node, straggles: bool) -> Vec<Span<'a>> {
    let (word, style) = state(app, model, rank, node);
    let live = Standing::of(model, rank, node).is_live();
    let (text, style) = match node.step() {
        _ if !live => (word, style),
        _ if !model.is_worker(rank) => ("server".to_string(), Style::new()),
        Some((step, _)) => (format!("{step:.1}"), Style::new()),
        None => ("-".to_string(), Style::new()),
    };
    let mark = if straggles { "!" } else { " " };
    vec![
        Span::raw(format!("{rank:>4} ")),
        Span::styled(format!("{text:>8}"), style),
        Span::styled(mark, app.theme.warn()),
        Span::raw(" "),
    ]
}

/// A bar of the four parts.
fn stacked<'a>(theme: Theme, parts: &Parts, width: usize) -> Vec<Span<'a>> {
    let (mut sum, mut used) = (0.0, 0);
    let pieces = legend(theme).into_iter().zip(shares(parts)).map(|((sign, _, style), share)| {
        sum += share;
        // Rounded sums, so that the bar has the width of the whole.
        let end = ((sum * width as f64).round() as usize).clamp(used, width);
        let piece = Span::styled(sign.repeat(end - used), style);
        used = end;
        piece
    });
    let mut spans: Vec<Span<'a>> = pieces.collect();
    spans.push(Span::raw(" ".repeat(width - used)));
    spans
}

/// The part that took most of each piece of the last [`SECONDS`], up to the present. Blank where there is no report.
fn past<'a>(theme: Theme, model: &Model, node: &Node, width: usize) -> Vec<Span<'a>> {
    let legend = legend(theme);
    let end = seconds(model.now);
    let mut cells: Vec<Option<usize>> = vec![None; width];
    let column = |at: f64| ((1.0 - (end - at) / SECONDS) * width as f64).round().clamp(0.0, width as f64) as usize;
    for (from, to, parts) in node.recent.spans() {
        let most = shares(&parts).iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let sign = most.filter(|(_, share)| *share > 0.0).map(|(at, _)| at);
        cells[column(from)..column(to).max(column(from))].fill(sign);
    }
    // One span for each run of equal cells.
    let equal = cells.chunk_by(|a, b| a == b).map(|run| match run.first().copied().flatten() {
        Some(at) => Span::styled(legend[at].0.repeat(run.len()), legend[at].2),
        None => Span::raw(" ".repeat(run.len())),
    });
    equal.collect()
}
