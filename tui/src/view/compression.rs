//! The pane of compression: density, bytes saved, the cost of coding, and the link speed below which it pays off.

use gradwire_core::telemetry::NoteKind;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::widgets::{block, chart, points};
use crate::app::App;
use crate::model::{Model, Node, Sample};
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let [facts, charts] =
        Layout::vertical([Constraint::Length(if app.expanded { 0 } else { 8 }), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines(app, model)).block(block(app.theme, " compression ".into())), facts);
    let [top, bottom] = Layout::vertical([Constraint::Fill(1); 2]).areas(charts);
    let [a, b] = Layout::horizontal([Constraint::Fill(1); 2]).areas(top);
    let [c, d] = Layout::horizontal([Constraint::Fill(1); 2]).areas(bottom);
    let history = |value: fn(&Sample) -> f64| points(&model.history, value);
    chart(frame, app, a, " density ".into(), &[("density", history(|s| s.density))]);
    chart(frame, app, b, " threshold ".into(), &[("threshold", history(|s| s.tau))]);
    chart(frame, app, c, " residual norm ".into(), &[("residual", history(|s| s.residual))]);
    chart(frame, app, d, " bytes sent / f32 bytes ".into(), &[("ratio", history(|s| s.ratio))]);
}

/// The entropy in bits per entry of a sparse vector of this density, with independent positions and a sign per entry.
fn entropy(density: f64) -> f64 {
    let p = density;
    if !(p > 0.0 && p < 1.0) {
        return 1.0;
    }
    (-p * p.log2() - (1.0 - p) * (1.0 - p).log2()) / p + 1.0
}

fn lines<'a>(app: &App, model: &Model) -> Vec<Line<'a>> {
    // Nodes without a codec report a density of 0. After the end, the figures are the last ones of the run.
    let coded = |node: &&Node| node.now.density > 0.0;
    let live: Vec<_> = model.live().map(|(_, node)| node).filter(coded).collect();
    let coded: Vec<_> = if live.is_empty() { model.nodes.values().filter(coded).collect() } else { live };
    let sent = model.sum_of_all(|node| node.report.status.bytes_out() as f64);
    let dense = model.sum_of_all(|node| node.report.status.counters.dense_bytes as f64);
    let saved = (dense - sent).max(0.0);
    if coded.is_empty() {
        return vec![
            Line::raw("no codec: updates are sent as f32"),
            Line::raw("codecs: codec=threshold, topk, int8, sign, bf16 or f16 in the recipe"),
            Line::raw(format!("sent {} ", bytes(sent))),
        ];
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
        _ if ended.is_empty() => format!("residual  {updates:.2} updates per worker, not sent yet"),
        kept => format!("residual  {updates:.2} updates per worker; at the end {kept:.2e} was not sent"),
    };
    let forgotten = coded.iter().map(|node| node.report.status.forgotten).sum::<f64>();
    let residual = if forgotten > 0.0 { format!("{residual}; decay took {forgotten:.2e}") } else { residual };
    let hint = model.notes.iter().rev().find(|note| note.kind == NoteKind::Hint);
    let mut lines = vec![
        Line::raw(format!(
            "density   {density:.2e}: {} of {} elements",
            count(density * parameters),
            count(parameters)
        )),
        Line::raw(format!("sent      {} instead of {} as f32: a factor of {factor:.0}", bytes(sent), bytes(dense))),
        Line::raw(format!(
            "bound     {} per vector by the entropy of random positions; sent {}",
            bytes(bound),
            bytes(size)
        )),
        Line::from(vec![Span::raw("verdict   "), Span::styled(verdict, app.theme.accent())]),
        Line::raw(residual),
    ];
    lines.extend(hint.map(|hint| Line::styled(format!("{hint} (rank {})", hint.rank), app.theme.warn())));
    lines
}
