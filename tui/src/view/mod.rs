//! Drawing: the screen from a model and the state of the user interface. One file per pane.
//!
//! ```text
//! header      health, number of nodes, time, playback position
//! alarm       the reason of a bad health, only if there is one
//! tabs        the panes
//! body        the selected pane, the details of a node, or the help
//! footer      keys, or the filter that is being edited
//! ```
//!
//! Drawing is a pure function of its arguments, so tests compare screens as text.

mod compression;
mod events;
mod help;
mod links;
mod node;
mod nodes;
mod overview;
mod staleness;
mod widgets;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::app::{App, Pane};
use crate::health::Health;
use crate::model::{Model, seconds};

/// Draws the whole screen. A frozen app shows its own model.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model) {
    let model = app.frozen.as_deref().unwrap_or(model);
    let rows = [
        Constraint::Length(1),
        Constraint::Length(alarm_height(app, model)),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [header_area, alarm_area, tabs_area, body, footer_area] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(header(app, model), header_area);
    frame.render_widget(alarm(app, model), alarm_area);
    frame.render_widget(tabs(app, tabs_area.width), tabs_area);
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
    frame.render_widget(footer(app), footer_area);
    // Last, over the whole buffer: ratatui's widgets have no ASCII mode of their own.
    if app.theme.ascii {
        replace_symbols(frame);
    }
}

/// Replaces the symbols that ratatui's widgets draw by ASCII characters. The panes' own symbols are ASCII already.
fn replace_symbols(frame: &mut Frame<'_>) {
    for cell in &mut frame.buffer_mut().content {
        let symbol = match cell.symbol() {
            symbol if symbol.is_ascii() => continue,
            "•" => "*",
            "│" | "┃" => "|",
            "─" => "-",
            "└" | "┘" | "┌" | "┐" => "+",
            _ => "?",
        };
        cell.set_symbol(symbol);
    }
}

/// Lines of the alarm: 0 or 1.
fn alarm_height(app: &App, model: &Model) -> u16 {
    let health = Health::of(model);
    u16::from(!health.reason().is_empty() || health == Health::Unknown && app.disconnected.is_some())
}

/// The screen row of the tabs, for the mouse.
pub(crate) fn tab_row(app: &App, model: &Model) -> u16 {
    1 + alarm_height(app, app.frozen.as_deref().unwrap_or(model))
}

fn header<'a>(app: &App, model: &Model) -> Line<'a> {
    let health = Health::of(model);
    let style = match health {
        Health::Ok | Health::Ended(_) => app.theme.good(),
        Health::Unknown => app.theme.dim(),
        Health::Degraded(_) => app.theme.warn(),
        Health::Stalled(_) | Health::Lost(_) => app.theme.bad(),
    };
    let mut spans = vec![
        Span::styled("dtop ", app.theme.title()),
        Span::styled(format!(" {} ", health.word()), style),
        Span::raw(format!(
            "  {} of {} nodes  {:.1} s",
            model.live().count(),
            model.run.workers + model.run.servers,
            seconds(model.now)
        )),
    ];
    if app.frozen.is_some() {
        spans.push(Span::styled("  FROZEN", app.theme.warn()));
    }
    if let Some(playback) = app.playback {
        let state = if playback.playing { "playing" } else { "paused" };
        let bar = app.theme.bar(playback.position / playback.length.max(1e-9), 12);
        let (speed, position, length) = (playback.speed, playback.position, playback.length);
        spans.push(Span::raw(format!("  {state} {speed}x {bar} {position:.0}/{length:.0} s")));
    }
    Line::from(spans)
}

fn alarm<'a>(app: &App, model: &Model) -> Paragraph<'a> {
    let health = Health::of(model);
    let (reason, style) = match (&health, &app.disconnected) {
        (Health::Unknown, Some(reason)) => (format!(" no connection, trying again: {reason} "), app.theme.bad()),
        (Health::Ended(summary), _) => (format!(" {summary} "), app.theme.good()),
        (Health::Stalled(reason) | Health::Lost(reason), _) => (format!(" {reason} "), app.theme.bad()),
        _ => (format!(" {} ", health.reason()), app.theme.warn()),
    };
    Paragraph::new(Span::styled(reason, style))
}

fn tabs<'a>(app: &App, width: u16) -> Line<'a> {
    let spans = Pane::ALL.into_iter().enumerate().map(|(i, pane)| {
        let text = pane.tab(i, width);
        if pane == app.pane { Span::styled(text, app.theme.selected()) } else { Span::raw(text) }
    });
    Line::from_iter(spans)
}

fn footer<'a>(app: &App) -> Line<'a> {
    if app.editing_filter {
        return Line::from(vec![
            Span::styled(format!("/{}", app.filter), app.theme.accent()),
            Span::raw("_  Enter applies the filter, Esc clears it"),
        ]);
    }
    let filter = if app.filter.is_empty() { String::new() } else { format!("  filter: {}", app.filter) };
    let source = if app.playback.is_some() { "  space pause  [ ] seek  x speed" } else { "  f freeze" };
    Line::styled(format!("q quit  ? help  Tab pane  / filter  s sort{source}{filter}"), app.theme.dim())
}

#[cfg(test)]
mod tests;
