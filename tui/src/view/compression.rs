//! What is sent instead of plain floats, and whether that pays.

use super::*;
use crate::theme::{bytes, count};

pub(super) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model, area: Rect) {
    let [facts, charts] =
        Layout::vertical([Constraint::Length(if app.expanded { 0 } else { 8 }), Constraint::Fill(1)]).areas(area);
    frame.render_widget(Paragraph::new(lines(app, model)).block(block(app.theme, " compression ".into())), facts);
    let [top, bottom] = Layout::vertical([Constraint::Fill(1); 2]).areas(charts);
    let [a, b] = Layout::horizontal([Constraint::Fill(1); 2]).areas(top);
    let [c, d] = Layout::horizontal([Constraint::Fill(1); 2]).areas(bottom);
    let over = |of: fn(&Sample) -> f64| over_time(model, of);
    curves(frame, app, a, " density ".into(), &[("density", over(|s| s.density))]);
    curves(frame, app, b, " threshold ".into(), &[("threshold", over(|s| s.tau))]);
    curves(frame, app, c, " norm of the residual ".into(), &[("residual", over(|s| s.residual))]);
    curves(frame, app, d, " sent, of plain floats ".into(), &[("share", over(|s| s.ratio))]);
}

/// Bits per entry of the best code for entries of this density, their signs among them.
fn entropy(density: f64) -> f64 {
    let p = density;
    if !(p > 0.0 && p < 1.0) {
        return 1.0;
    }
    (-p * p.log2() - (1.0 - p) * (1.0 - p).log2()) / p + 1.0
}

fn lines<'a>(app: &App, model: &Model) -> Vec<Line<'a>> {
    let coded: Vec<_> = model.nodes.values().filter(|node| node.now.density > 0.0).collect();
    let sent = model.total(|node| node.report.status.bytes_out() as f64);
    let dense = model.total(|node| node.report.status.counters.dense_bytes as f64);
    let saved = (dense - sent).max(0.0);
    if coded.is_empty() {
        let text =
            "updates travel as plain floats: no codec in this recipe (codec=threshold, topk, int8, sign, bf16, f16)";
        return vec![Line::raw(text), Line::raw(format!("sent {} ", bytes(sent)))];
    }
    let n = coded.len() as f64;
    let density = coded.iter().map(|node| node.now.density).sum::<f64>() / n;
    let parameters = model.run.parameters as f64;
    let entries = coded.iter().map(|node| node.report.status.counters.entries as f64).sum::<f64>();
    let messages = coded.iter().map(|node| node.report.times.steps as f64).sum::<f64>().max(1.0);
    let bound = entropy(density) * entries / messages / 8.0;
    let codec =
        coded.iter().map(|node| (node.report.times.encode + node.report.times.decode) as f64 / 1e6).sum::<f64>();
    let each = codec / messages;
    let step = coded.iter().map(|node| node.now.step).sum::<f64>() / n;
    // The network's speed below which the bytes saved take longer than coding them.
    let even = if each > 0.0 { saved / messages * 8.0 / (each / 1e3) } else { 0.0 };
    let verdict = if even > 0.0 {
        format!("pays on links slower than {}bit/s: coding takes {each:.3} ms of a step of {step:.1} ms", count(even))
    } else {
        "what coding costs has not been told".to_string()
    };
    vec![
        Line::raw(format!(
            "density   {density:.2e}: {} of {} elements",
            count(density * parameters),
            count(parameters)
        )),
        Line::raw(format!(
            "sent      {} instead of {}: {:.0} times less",
            bytes(sent),
            bytes(dense),
            if sent > 0.0 { dense / sent } else { 1.0 }
        )),
        Line::raw(format!("bound     {} a message would be the least for this density, spread evenly", bytes(bound))),
        Line::from(vec![Span::raw("verdict   "), Span::styled(verdict, app.theme.accent())]),
        Line::raw(format!(
            "residual  {:.3e} in all is held back",
            coded.iter().map(|node| node.now.residual).sum::<f64>()
        )),
    ]
}
