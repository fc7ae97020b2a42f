//! Parts that several panes use: frames with a title, and charts over time.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::Span;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph};

use crate::app::App;
use crate::model::{History, Sample};
use crate::targets::Target;
use crate::theme::Theme;

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
    history.iter().map(|sample| (sample.at, value(sample))).filter(|(_, y)| !y.is_nan()).collect()
}

/// Draws a chart of named curves over time. Several curves get a legend.
pub(super) fn chart(frame: &mut Frame<'_>, app: &App, area: Rect, title: String, curves: &[(&str, Vec<(f64, f64)>)]) {
    let theme = app.theme;
    let all = || curves.iter().flat_map(|(_, points)| points.iter().copied());
    // The y axis begins at 0, or below it.
    let (mut first, mut last, mut low, mut high) = (f64::MAX, f64::MIN, 0.0f64, f64::MIN);
    for (x, y) in all() {
        (first, last, low, high) = (first.min(x), last.max(x), low.min(y), high.max(y));
    }
    if all().next().is_none() || area.height < 4 || area.width < 20 {
        frame.render_widget(Paragraph::new("no data yet").style(theme.dim()).block(block(theme, title)), area);
        return;
    }
    // An axis needs a length above 0, also for a single point.
    let (high, last) = (if high > low { high } else { low + 1.0 }, if last > first { last } else { first + 1.0 });
    let styles = [theme.accent(), theme.second(), theme.good()];
    let datasets = curves.iter().zip(styles.into_iter().cycle()).map(|((name, points), style)| {
        let set = Dataset::default().marker(theme.marker()).graph_type(GraphType::Line).style(style).data(points);
        if curves.len() > 1 { set.name(name.to_string()) } else { set }
    });
    let label = |y: f64| if y != 0.0 && y.abs() < 0.01 { format!("{y:.0e}") } else { format!("{y:.2}") };
    let chart = Chart::new(datasets.collect())
        .block(block(theme, title))
        .x_axis(Axis::default().bounds([first, last]).labels([format!("{first:.0} s"), format!("{last:.0} s")]))
        .y_axis(Axis::default().bounds([low, high]).labels([label(low), label(high)]));
    frame.render_widget(chart, area);
}
