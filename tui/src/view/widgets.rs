//! Parts that several panes use: frames with a title, and charts over time.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Borders, Chart, Dataset, GraphType, Paragraph};

use super::axis::Scale;
use crate::app::App;
use crate::model::{History, Sample};
use crate::targets::Target;
use crate::theme::Theme;
use crate::wrap::wrapped;

/// Least lines of a part of the screen with a frame, and of a chart with a time axis.
pub(super) const LOW: u16 = 8;

const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// A frame with a title.
pub(super) fn block<'a>(theme: Theme, title: String) -> Block<'a> {
    let block = Block::bordered().title(Span::styled(title, theme.title()));
    if theme.ascii { block.border_set(ASCII) } else { block }
}

/// A title in a line, for low screens.
pub(super) fn rule<'a>(theme: Theme, title: String) -> Block<'a> {
    block(theme, title).borders(Borders::TOP)
}

/// The line in so many columns. If it is longer, it ends after a word, and dots say so.
pub(super) fn fitted(theme: Theme, line: Line<'_>, width: u16) -> Line<'_> {
    if line.width() <= usize::from(width) {
        return line;
    }
    let dots = if theme.ascii { " ..." } else { " …" };
    let mut rest = usize::from(width).saturating_sub(Span::raw(dots).width());
    let mut spans = Vec::new();
    for span in line.spans {
        if span.width() <= rest {
            rest -= span.width();
            spans.push(span);
            continue;
        }
        let mut end = 0;
        for (at, _) in span.content.match_indices(' ') {
            if Span::raw(&span.content[..at]).width() > rest {
                break;
            }
            end = at;
        }
        spans.push(Span::styled(span.content[..end].trim_end_matches([',', ';']).to_string(), span.style));
        break;
    }
    spans.push(Span::raw(dots));
    Line::from(spans)
}

/// A frame with a title, or only the title where a frame would take the lines of the content.
pub(super) fn outline<'a>(theme: Theme, title: String, area: Rect) -> Block<'a> {
    if area.height < LOW { rule(theme, title) } else { block(theme, title) }
}

/// Notes the visible lines of a list, for clicks. `first`: the item of the first line. `count`: the number of items.
pub(super) fn note_lines(app: &App, lines: Rect, first: usize, count: usize) {
    for (row, line) in (0..lines.height).zip(first..count) {
        app.targets.note(Rect::new(lines.x, lines.y + row, lines.width, 1), Target::Line(line));
    }
}

/// A text below a label of so many columns, in lines of at most `width` columns.
pub(super) fn labelled<'a>(label: &str, columns: usize, text: &str, style: Style, width: u16) -> Vec<Line<'a>> {
    let rows = wrapped(text, usize::from(width).saturating_sub(columns).max(10)).into_iter().enumerate();
    let front = |i: usize| Span::raw(format!("{:<columns$}", if i == 0 { label } else { "" }));
    rows.map(|(i, row)| Line::from(vec![front(i), Span::styled(row, style)])).collect()
}

/// A value of each sample of a history, as points over time. Samples without it (NaN) are left out.
pub(super) fn points(history: &History, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    history.iter().map(|sample| (sample.at, value(sample))).filter(|(_, y)| y.is_finite()).collect()
}

/// Draws a chart of named curves over time. Several curves get a legend.
pub(super) fn chart(frame: &mut Frame<'_>, app: &App, area: Rect, title: String, curves: &[(&str, Vec<(f64, f64)>)]) {
    chart_on(frame, app, area, title, curves, Scale::FromZero);
}

/// As [`chart`], on a scale.
pub(super) fn chart_on(
    frame: &mut Frame<'_>,
    app: &App,
    area: Rect,
    title: String,
    curves: &[(&str, Vec<(f64, f64)>)],
    scale: Scale,
) {
    let theme = app.theme;
    let place = |(x, y): &(f64, f64)| (*x, scale.position(*y));
    let curves: Vec<(&str, Vec<(f64, f64)>)> =
        curves.iter().map(|(name, points)| (*name, points.iter().map(place).collect())).collect();
    let all = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut first, mut last, mut low, mut high) = (f64::MAX, f64::MIN, f64::MAX, f64::MIN);
    for (x, y) in all() {
        (first, last, low, high) = (first.min(x), last.max(x), low.min(y), high.max(y));
    }
    let is_low = area.height < LOW;
    let block = outline(theme, title, area);
    let height = block.inner(area).height;
    if all().next().is_none() || height < 2 || area.width < 20 {
        frame.render_widget(Paragraph::new("no data yet").style(theme.dim()).block(block), area);
        return;
    }
    // An axis needs a length above 0, also for a single point.
    let last = if last > first { last } else { first + 1.0 };
    let [low, high] = match scale {
        Scale::Log => [low, high].map(|position| 10f64.powf(position)),
        _ => [low, high],
    };
    // The time axis takes two lines.
    let y_axis = scale.axis(low, high, usize::from(height.saturating_sub(if is_low { 0 } else { 2 })));
    let styles = [theme.accent(), theme.second(), theme.good()];
    let datasets = curves.iter().zip(styles.into_iter().cycle()).map(|((name, points), style)| {
        let set = Dataset::default().marker(theme.marker()).graph_type(GraphType::Line).style(style).data(points);
        if curves.len() > 1 { set.name(name.to_string()) } else { set }
    });
    let x_axis = Axis::default().bounds([first, last]);
    let x_axis = if is_low { x_axis } else { x_axis.labels([format!("{first:.0} s"), format!("{last:.0} s")]) };
    let chart = Chart::new(datasets.collect())
        .block(block)
        .x_axis(x_axis)
        .y_axis(Axis::default().bounds(y_axis.bounds).labels(y_axis.labels));
    frame.render_widget(chart, area);
}
