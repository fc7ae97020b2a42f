//! Parts that several panes use: frames with a title, and charts over time.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::Span;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph};

use crate::app::App;
use crate::model::{History, Sample};
use crate::targets::Target;
use crate::theme::{Theme, count};

/// A frame with a title.
pub(super) fn block<'a>(theme: Theme, title: String) -> Block<'a> {
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
    let block = Block::bordered().title(Span::styled(title, theme.title()));
    if theme.ascii { block.border_set(ASCII) } else { block }
}

/// Notes the lines of a list that are visible, for clicks: `first` is the one below `top` lines of border and titles.
pub(super) fn note_lines(app: &App, area: Rect, top: u16, first: usize, count: usize) {
    let height = area.height.saturating_sub(top + 1);
    for (row, line) in (0..height).zip(first..count) {
        app.targets.note(Rect::new(area.x, area.y + top + row, area.width, 1), Target::Line(line));
    }
}

/// A value of each sample of a history, as points over time. Samples without it (NaN) are left out.
pub(super) fn points(history: &History, value: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    history.iter().map(|sample| (sample.at, value(sample))).filter(|(_, y)| y.is_finite()).collect()
}

/// The scale of a chart's y axis.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// It begins at 0, or below it.
    Linear,
    /// It begins at the least value. All values are above 0.
    Log,
}

impl Scale {
    /// Logarithmic if all values are above 0.
    pub(super) fn of(points: &[(f64, f64)]) -> Self {
        let positive = points.iter().all(|(_, y)| *y > 0.0) && !points.is_empty();
        if positive { Self::Log } else { Self::Linear }
    }

    fn to_axis(self, y: f64) -> f64 {
        if self == Self::Log { y.log10() } else { y }
    }

    /// The text for a position of the axis.
    fn label(self, position: f64) -> String {
        let y = if self == Self::Log { 10f64.powf(position) } else { position };
        match y.abs() {
            0.0 => "0.00".to_string(),
            0.01..10_000.0 => format!("{y:.2}"),
            10_000.0..1e15 => count(y),
            _ => format!("{y:.0e}"),
        }
    }
}

/// Draws a chart of named curves over time. Several curves get a legend.
pub(super) fn chart(frame: &mut Frame<'_>, app: &App, area: Rect, title: String, curves: &[(&str, Vec<(f64, f64)>)]) {
    chart_on(frame, app, area, title, curves, Scale::Linear);
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
    let place = |(x, y): &(f64, f64)| (*x, scale.to_axis(*y));
    let curves: Vec<(&str, Vec<(f64, f64)>)> =
        curves.iter().map(|(name, points)| (*name, points.iter().map(place).collect())).collect();
    let all = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut first, mut last, mut low, mut high) = (f64::MAX, f64::MIN, f64::MAX, f64::MIN);
    for (x, y) in all() {
        (first, last, low, high) = (first.min(x), last.max(x), low.min(y), high.max(y));
    }
    if all().next().is_none() || area.height < 4 || area.width < 20 {
        frame.render_widget(Paragraph::new("no data yet").style(theme.dim()).block(block(theme, title)), area);
        return;
    }
    // An axis needs a length above 0, also for a single point.
    let last = if last > first { last } else { first + 1.0 };
    let (low, high) = match scale {
        Scale::Linear if high > low.min(0.0) => (low.min(0.0), high),
        Scale::Linear => (low.min(0.0), low.min(0.0) + 1.0),
        // A tenth of a decade, around a curve that hardly moves.
        Scale::Log => {
            ((low + high) / 2.0 - ((high - low) / 2.0).max(0.05), (low + high) / 2.0 + ((high - low) / 2.0).max(0.05))
        }
    };
    let styles = [theme.accent(), theme.second(), theme.good()];
    let datasets = curves.iter().zip(styles.into_iter().cycle()).map(|((name, points), style)| {
        let set = Dataset::default().marker(theme.marker()).graph_type(GraphType::Line).style(style).data(points);
        if curves.len() > 1 { set.name(name.to_string()) } else { set }
    });
    let labels: &[f64] = if area.height >= 12 { &[0.0, 0.25, 0.5, 0.75, 1.0] } else { &[0.0, 1.0] };
    let labels = labels.iter().map(|share| scale.label(low + share * (high - low)));
    let chart = Chart::new(datasets.collect())
        .block(block(theme, title))
        .x_axis(Axis::default().bounds([first, last]).labels([format!("{first:.0} s"), format!("{last:.0} s")]))
        .y_axis(Axis::default().bounds([low, high]).labels(labels));
    frame.render_widget(chart, area);
}
