//! Where the time of each node goes: the parts of a step as a stacked bar, and a timeline. It shows the last seconds, or
//! the page of a recording: a click or a key moves the playback to another time of the page.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::nodes::state;
use super::widgets::{block, rule};
use crate::app::App;
use crate::model::{Model, Node, seconds};
use crate::recent::Parts;
use crate::standing::Standing;
use crate::targets::Target;
use crate::theme::Theme;
use crate::timeline::Timeline;

/// Columns of a line before its bar: rank and milliseconds per step.
const FRONT: usize = 15;
/// Least columns of a bar beside which there is a timeline.
const BAR_MIN: usize = 20;
/// Columns between a bar and a timeline.
const GAP: usize = 2;
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

/// The names of the parts for narrow screens.
const SHORT: [&str; 4] = ["comp", "code", "send", "wait"];

fn shares(parts: &Parts) -> [f64; 4] {
    [parts.compute, parts.coding, parts.sending, parts.waiting]
}

/// The lines that the pane takes with all nodes, with its frame or title.
pub(super) fn height(model: &Model, framed: bool) -> u16 {
    (model.nodes.len() as u16).saturating_add(if framed { 2 } else { 1 })
}

/// Draws a line per node. If not all nodes fit, it shows nodes that are not live, then the nodes that compute longest.
pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect, framed: bool) {
    let block = if framed { block(app.theme, String::new()) } else { rule(app.theme, String::new()) };
    let inner = block.inner(area);
    let width = usize::from(inner.width);
    let shown = shown(model, usize::from(inner.height));
    let hidden = model.nodes.len() - shown.len();
    let rest = width.saturating_sub(FRONT);
    let page = app.timeline.as_deref().zip(app.playback);
    // A timeline needs as much room as a bar. The page of a recording comes before the bars: it moves the time.
    let timeline = match page {
        Some(_) if rest < 2 * BAR_MIN + GAP => rest,
        Some(_) => rest * 3 / 5,
        None if rest >= 2 * BAR_MIN + 8 => rest / 2,
        None => 0,
    };
    let bar = (rest - timeline).saturating_sub(if timeline > 0 { GAP } else { 0 });
    let straggler = model.straggler().map(|(rank, _)| rank);
    let rows = shown.iter().filter_map(|rank| {
        let node = model.nodes.get(rank)?;
        let mut spans = front(app, model, *rank, node, straggler == Some(*rank));
        if Standing::of(model, *rank, node).is_live() {
            spans.extend(stacked(app.theme, &node.recent.parts(), bar));
        } else {
            spans.push(Span::raw(" ".repeat(bar)));
        }
        if timeline > 0 && bar > 0 {
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        spans.extend(match page {
            Some((page, playback)) => recorded(app.theme, page, playback.position, *rank, timeline),
            None => past(app.theme, model, node, timeline),
        });
        Some(Line::from(spans))
    });
    let rows: Vec<Line<'_>> = rows.collect();
    if page.is_some() {
        let x = inner.x + (width - timeline) as u16;
        app.targets
            .note(Rect::new(x, inner.y, timeline as u16, rows.len() as u16).intersection(inner), Target::Timeline);
    }
    let right = match page {
        Some((page, playback)) => format!(" {:.1} s of {:.0} to {:.0} s ", playback.position, page.from, page.to),
        None if timeline > 0 => format!(" last {SECONDS:.0} s "),
        None => String::new(),
    };
    let title = title(app.theme, hidden, width.saturating_sub(right.len()));
    frame.render_widget(Paragraph::new(rows).block(block.title(title).title(Line::from(right).right_aligned())), area);
}

/// The legend, in so many columns at most, and the number of nodes that are hidden.
fn title<'a>(theme: Theme, hidden: usize, width: usize) -> Line<'a> {
    let more = if hidden > 0 { format!("+{hidden} nodes ") } else { String::new() };
    let with_names = |front: &'static str, names: [&'static str; 4]| {
        let mut title = vec![Span::styled(front, theme.title())];
        for ((sign, _, style), name) in legend(theme).into_iter().zip(names) {
            title.extend([Span::styled(sign, style), Span::raw(format!(" {name} "))]);
        }
        title.push(Span::raw(more.clone()));
        Line::from(title)
    };
    let names = legend(theme).map(|(_, name, _)| name);
    let lines = [with_names(" ms per step: ", names), with_names(" ", names), with_names(" ", SHORT)];
    lines.into_iter().find(|line| line.width() <= width).unwrap_or_else(|| Line::raw(more.clone()))
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
    let end = seconds(model.now);
    let mut cells: Vec<Option<usize>> = vec![None; width];
    let column = |at: f64| ((1.0 - (end - at) / SECONDS) * width as f64).round().clamp(0.0, width as f64) as usize;
    for (from, to, parts) in node.recent.spans() {
        cells[column(from)..column(to).max(column(from))].fill(largest(&parts));
    }
    spans_of(theme, &cells)
}

/// The same for the page of a recording, with a mark at the position of the playback.
fn recorded<'a>(theme: Theme, page: &Timeline, position: f64, rank: u32, width: usize) -> Vec<Span<'a>> {
    let mut cells: Vec<Option<usize>> = vec![None; width];
    for (from, to, parts) in page.spans(rank) {
        let to = page.cell(to, width).max(page.cell(from, width) + 1).min(width);
        cells[page.cell(from, width).min(to)..to].fill(largest(&parts));
    }
    let mark = page.cell(position, width);
    let (before, after) = cells.split_at(mark.min(width));
    let sign = if theme.ascii { "|" } else { "┃" };
    let mut spans = spans_of(theme, before);
    spans.push(Span::styled(sign, theme.title()));
    spans.extend(spans_of(theme, after.get(1..).unwrap_or_default()));
    spans
}

/// The largest part, as its place in the legend. `None` without any.
fn largest(parts: &Parts) -> Option<usize> {
    let most = shares(parts).into_iter().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    most.filter(|(_, share)| *share > 0.0).map(|(at, _)| at)
}

/// One span for each run of equal cells.
fn spans_of<'a>(theme: Theme, cells: &[Option<usize>]) -> Vec<Span<'a>> {
    let legend = legend(theme);
    let equal = cells.chunk_by(|a, b| a == b).map(|run| match run.first().copied().flatten() {
        Some(at) => Span::styled(legend[at].0.repeat(run.len()), legend[at].2),
        None => Span::raw(" ".repeat(run.len())),
    });
    equal.collect()
}
