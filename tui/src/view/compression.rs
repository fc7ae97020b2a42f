//! The pane of compression: density, bytes saved, the cost of coding, and the link speed below which it pays off.

use gradwire_core::telemetry::NoteKind;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use super::widgets::{chart, labelled, outline, points};
use crate::app::App;
use crate::model::{Model, Node, Sample};
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let block = outline(app.theme, " compression ".into(), area);
    let lines = lines(app, model, block.inner(area).width);
    let height = if app.expanded { 0 } else { lines.len() as u16 + 2 };
    let [facts, charts] = Layout::vertical([Constraint::Length(height), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines).block(block), facts);
    // A chart of a measurement that no node reports would be empty.
    let all = [
        (" density ", "density", points_above_0(model, |s| s.density)),
        (" threshold ", "threshold", points_above_0(model, |s| s.tau)),
        (" residual norm ", "residual", points_above_0(model, |s| s.residual)),
        (" bytes sent / f32 bytes ", "ratio", points_above_0(model, |s| s.ratio)),
        (" bytes/s out ", "out", points(&model.history, |s| s.bytes_out)),
    ];
    let told: Vec<_> = all.into_iter().filter(|(.., points)| !points.is_empty()).take(4).collect();
    if charts.height < 4 {
        return;
    }
    let rows = told.chunks(2).collect::<Vec<_>>();
    let areas = Layout::vertical(vec![Constraint::Fill(1); rows.len()]).split(charts);
    for (row, area) in rows.iter().zip(areas.iter()) {
        let columns = Layout::horizontal(vec![Constraint::Fill(1); row.len()]).split(*area);
        for ((title, name, points), column) in row.iter().zip(columns.iter()) {
            chart(frame, app, *column, (*title).into(), &[(name, points.clone())]);
        }
    }
}

/// A measurement of which 0 means that no node reports it.
fn points_above_0(model: &Model, value: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let mut points = points(&model.history, value);
    points.retain(|(_, y)| *y > 0.0);
    points
}

/// The entropy in bits per entry of a sparse vector of this density, with independent positions and a sign per entry.
fn entropy(density: f64) -> f64 {
    let p = density;
    if !(p > 0.0 && p < 1.0) {
        return 1.0;
    }
    (-p * p.log2() - (1.0 - p) * (1.0 - p).log2()) / p + 1.0
}

/// The facts in lines of `width` columns, with the verdict first.
fn lines<'a>(app: &App, model: &Model, width: u16) -> Vec<Line<'a>> {
    let text = |label: &str, text: String| labelled(label, 10, &text, Style::new(), width);
    // Nodes without a codec report a density of 0. After the end, the figures are the last ones of the run.
    let coded = |node: &&Node| node.now.density > 0.0;
    let live: Vec<_> = model.live().map(|(_, node)| node).filter(coded).collect();
    let coded: Vec<_> = if live.is_empty() { model.nodes.values().filter(coded).collect() } else { live };
    let sent = model.sum_of_all(|node| node.report.status.bytes_out() as f64);
    let dense = model.sum_of_all(|node| node.report.status.counters.dense_bytes as f64);
    let saved = (dense - sent).max(0.0);
    if coded.is_empty() {
        let codecs = "codec=threshold, topk, int8, sign, bf16 or f16 in the recipe";
        let lines =
            [("codec", "none: updates are sent as f32".to_string()), ("codecs", codecs.into()), ("sent", bytes(sent))];
        return lines.into_iter().flat_map(|(label, line)| text(label, line)).collect();
    }
    let n = coded.len() as f64;
    let density = coded.iter().map(|node| node.now.density).sum::<f64>() / n;
    let parameters = model.run.parameters as f64;
    let messages = coded.iter().map(|node| node.report.times.steps as f64).sum::<f64>().max(1.0);
    // Both for a whole vector, and of the same window: bits per entry times entries, and the bytes that were sent.
    let bound = entropy(density) * density * parameters / 8.0;
    let size = coded.iter().map(|node| node.now.ratio).sum::<f64>() / n * parameters * 4.0;
    let coding =
        coded.iter().map(|node| (node.report.times.encode + node.report.times.decode) as f64 / 1e6).sum::<f64>();
    let coding = coding / messages;
    let step = coded.iter().map(|node| node.now.step).sum::<f64>() / n;
    // The link speed at which the saved bytes take as long as the coding.
    let break_even = if coding > 0.0 { saved / messages * 8.0 / (coding / 1e3) } else { 0.0 };
    let verdict = if break_even > 0.0 {
        format!("pays off below {}bit/s: coding takes {coding:.3} of {step:.1} ms per step", count(break_even))
    } else {
        "coding time not reported yet".to_string()
    };
    let factor = if sent > 0.0 { dense / sent } else { 1.0 };
    let updates = coded.iter().map(|node| node.report.status.residual_updates).sum::<f64>() / n;
    let ended: Vec<_> = coded.iter().filter_map(|node| node.report.status.rest).collect();
    let residual = match ended.iter().map(|rest| rest.kept).sum::<f64>() {
        _ if ended.is_empty() => format!("{updates:.2} updates per worker, not sent yet"),
        kept => format!("{updates:.2} updates per worker; at the end {kept:.2e} was not sent"),
    };
    let forgotten = coded.iter().map(|node| node.report.status.forgotten).sum::<f64>();
    let residual = if forgotten > 0.0 { format!("{residual}; decay took {forgotten:.2e}") } else { residual };
    let hint = model.notes.iter().rev().find(|note| note.kind == NoteKind::Hint);
    let mut lines = labelled("verdict", 10, &verdict, app.theme.accent(), width);
    let (elements, all) = (count(density * parameters), count(parameters));
    let (compressed, plain) = (bytes(sent), bytes(dense));
    for (label, line) in [
        ("density", format!("{density:.2e}: {elements} of {all} elements")),
        ("sent", format!("{compressed} instead of {plain} as f32: a factor of {factor:.0}")),
        ("bound", format!("{} per vector by the entropy of random positions; sent {}", bytes(bound), bytes(size))),
        ("residual", residual),
    ] {
        lines.extend(text(label, line));
    }
    let hint = hint.map(|hint| format!("{} (rank {})", hint.to_string().trim_start_matches("hint: "), hint.rank));
    lines.extend(hint.into_iter().flat_map(|hint| labelled("hint", 10, &hint, app.theme.warn(), width)));
    lines
}
