//! Panes: what is shown, from a model and an app's state.

mod compression;
mod events;
mod help;
mod links;
mod node;
mod nodes;
mod overview;
mod staleness;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::symbols::border;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph};

use crate::app::{App, Pane};
use crate::health::Health;
use crate::model::{Model, Sample, seconds};
use crate::theme::Theme;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model) {
    let model = app.frozen.as_deref().unwrap_or(model);
    let area = frame.area();
    let banner = banner(app, model);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(banner),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [head, alarm, tabs, body, foot] = Layout::vertical(rows).areas(area);
    frame.render_widget(header(app, model), head);
    frame.render_widget(alarms(app, model), alarm);
    frame.render_widget(names(app, tabs.width), tabs);
    if app.help {
        help::draw(frame, app, body);
    } else {
        match (app.pane, app.node) {
            (Pane::Nodes, Some(rank)) => node::draw(frame, app, model, rank, body),
            (Pane::Overview, _) => overview::draw(frame, app, model, body),
            (Pane::Nodes, None) => nodes::draw(frame, app, model, body),
            (Pane::Staleness, _) => staleness::draw(frame, app, model, body),
            (Pane::Compression, _) => compression::draw(frame, app, model, body),
            (Pane::Links, _) => links::draw(frame, app, model, body),
            (Pane::Events, _) => events::draw(frame, app, model, body),
        }
    }
    frame.render_widget(footer(app), foot);
    if app.theme.ascii {
        plain(frame);
    }
}

/// Signs that widgets bring along, as ASCII has them.
fn plain(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        let sign = match cell.symbol() {
            sign if sign.is_ascii() => continue,
            "•" => "*",
            "│" | "┃" => "|",
            "─" => "-",
            "└" | "┘" | "┌" | "┐" => "+",
            _ => "?",
        };
        cell.set_symbol(sign);
    }
}

/// Lines of the banner.
fn banner(app: &App, model: &Model) -> u16 {
    u16::from(!Health::of(model).reason().is_empty() || app.lost.is_some())
}

/// The line that panes are chosen on.
pub(crate) fn tab_row(app: &App, model: &Model) -> u16 {
    1 + banner(app, app.frozen.as_deref().unwrap_or(model))
}

fn header<'a>(app: &App, model: &Model) -> Line<'a> {
    let health = Health::of(model);
    let style = match health {
        Health::Ok | Health::Ended => app.theme.good(),
        Health::Unknown => app.theme.dim(),
        Health::Degraded(_) => app.theme.warn(),
        Health::Stalled(_) => app.theme.bad(),
    };
    let mut spans = vec![
        Span::styled("dtop ", app.theme.title()),
        Span::styled(format!(" {} ", health.word()), style),
        Span::raw(format!(
            "  {} of {} nodes  {:.1} s",
            model.nodes.iter().filter(|(rank, _)| !model.has_left(**rank)).count(),
            model.run.workers + model.run.servers,
            seconds(model.now)
        )),
    ];
    if app.frozen.is_some() {
        spans.push(Span::styled("  FROZEN", app.theme.warn()));
    }
    if let Some(tape) = app.tape {
        let way = if tape.playing { "playing" } else { "paused" };
        let bar = app.theme.bar(tape.at / tape.length.max(1e-9), 12);
        spans.push(Span::raw(format!("  {way} {}x {bar} {:.0}/{:.0} s", tape.speed, tape.at, tape.length)));
    }
    Line::from(spans)
}

fn alarms<'a>(app: &App, model: &Model) -> Paragraph<'a> {
    let health = Health::of(model);
    let reason = match &app.lost {
        Some(lost) => format!(" no news: {lost} "),
        None => format!(" {} ", health.reason()),
    };
    let style =
        if matches!(health, Health::Stalled(_)) || app.lost.is_some() { app.theme.bad() } else { app.theme.warn() };
    Paragraph::new(Span::styled(reason, style))
}

fn names<'a>(app: &App, width: u16) -> Line<'a> {
    let spans = Pane::ALL.into_iter().enumerate().map(|(i, pane)| {
        let text = pane.tab(i, width);
        if pane == app.pane { Span::styled(text, app.theme.selected()) } else { Span::raw(text) }
    });
    Line::from_iter(spans)
}

fn footer<'a>(app: &App) -> Line<'a> {
    if app.typing {
        return Line::from(vec![
            Span::styled(format!("/{}", app.filter), app.theme.accent()),
            Span::raw("_  Enter keeps, Esc drops"),
        ]);
    }
    let filter = if app.filter.is_empty() { String::new() } else { format!("  filter: {}", app.filter) };
    let tape = if app.tape.is_some() { "  space play  [ ] wind  x speed" } else { "  f freeze" };
    Line::styled(format!("q quit  ? help  Tab pane  / filter  s sort{tape}{filter}"), app.theme.dim())
}

/// A frame around a part, with its name.
pub(crate) fn block<'a>(theme: Theme, title: String) -> Block<'a> {
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

/// Curves over time, each with a name and a style of its own.
pub(crate) fn curves(frame: &mut Frame<'_>, app: &App, area: Rect, title: String, sets: &[(&str, Vec<(f64, f64)>)]) {
    let theme = app.theme;
    let points = || sets.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut first, mut last, mut low, mut high) = (f64::MAX, f64::MIN, 0.0f64, f64::MIN);
    for (x, y) in points() {
        (first, last, low, high) = (first.min(x), last.max(x), low.min(y), high.max(y));
    }
    if points().next().is_none() || area.height < 4 || area.width < 20 {
        frame.render_widget(Paragraph::new("nothing yet").style(theme.dim()).block(block(theme, title)), area);
        return;
    }
    let (high, last) = (if high > low { high } else { low + 1.0 }, if last > first { last } else { first + 1.0 });
    let styles = [theme.accent(), theme.second(), theme.good()];
    let datasets = sets.iter().zip(styles.into_iter().cycle()).map(|((name, points), style)| {
        let set = Dataset::default().marker(theme.marker()).graph_type(GraphType::Line).style(style).data(points);
        if sets.len() > 1 { set.name(name.to_string()) } else { set }
    });
    let label = |y: f64| if y != 0.0 && y.abs() < 0.01 { format!("{y:.0e}") } else { format!("{y:.2}") };
    let chart = Chart::new(datasets.collect())
        .block(block(theme, title))
        .x_axis(Axis::default().bounds([first, last]).labels([format!("{first:.0} s"), format!("{last:.0} s")]))
        .y_axis(Axis::default().bounds([low, high]).labels([label(low), label(high)]));
    frame.render_widget(chart, area);
}

/// What all nodes together have told over time.
pub(crate) fn over_time(model: &Model, of: impl Fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    model.history.iter().map(|sample| (sample.at, of(sample))).collect()
}

#[cfg(test)]
mod tests;
