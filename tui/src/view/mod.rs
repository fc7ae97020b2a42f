//! Drawing: the screen from a model and the state of the user interface. One file per pane.
//!
//! ```text
//! header      health, number of nodes, time, playback position
//! alarm       the reason of a bad health, only if there is one; wrapped
//! diagnosis   the speed of the cluster, the costs, and the remedy; wrapped
//! tabs        the panes
//! body        the selected pane, the details of a node, or the help
//! footer      keys, or the filter that is being edited
//! ```
//!
//! Drawing is a pure function of its arguments, so tests compare screens as text.

mod axis;
mod compression;
mod events;
mod facts;
mod help;
mod links;
mod node;
mod nodes;
mod overview;
mod parts;
mod runs;
mod staleness;
mod topology;
mod widgets;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::app::{App, Pane};
use crate::diagnosis::{Diagnosis, Grade};
use crate::health::Health;
use crate::keys::Command;
use crate::model::{Model, seconds};
use crate::targets::Target;
use crate::wrap::wrapped;
use widgets::fitted;

/// Draws the whole screen. A frozen app shows its own model.
pub(crate) fn draw(frame: &mut Frame<'_>, app: &App, model: &Model) {
    let model = app.frozen.as_deref().unwrap_or(model);
    app.targets.clear();
    let mut alarm = alarm(app, model, frame.area());
    alarm.extend(diagnosis(app, model, frame.area(), alarm.len()));
    let rows = [
        Constraint::Length(1),
        Constraint::Length(alarm.len() as u16),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ];
    let [header_area, alarm_area, tabs_area, body, footer_area] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(header(app, model, header_area), header_area);
    frame.render_widget(Paragraph::new(alarm), alarm_area);
    frame.render_widget(tabs(app, tabs_area), tabs_area);
    if app.help {
        help::draw(frame, app, body);
    } else if let Some(selected) = app.choosing {
        runs::draw(frame, app, selected, body);
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
    frame.render_widget(footer(app, footer_area.width), footer_area);
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

fn header<'a>(app: &App, model: &Model, area: Rect) -> Line<'a> {
    let health = Health::of(model);
    let style = match health {
        Health::Ok | Health::Ended(_) => app.theme.good(),
        Health::Unknown => app.theme.dim(),
        Health::Degraded(_) => app.theme.warn(),
        Health::Stalled(_) | Health::Lost(_) => app.theme.bad(),
    };
    let (live, all) = (model.live().count(), model.run.workers + model.run.servers);
    // The position of a playback and its bar come before the name of the program.
    let is_brief = area.width < 64 && app.playback.is_some();
    let word = Span::styled(format!(" {} ", health.word()), style);
    let mut spans = match is_brief {
        true => vec![word, Span::raw(format!(" {live}/{all}"))],
        false => {
            let rest = format!("  {live} of {all} nodes  {:.1} s", seconds(model.now));
            vec![Span::styled("dtop ", app.theme.title()), word, Span::raw(rest)]
        }
    };
    if app.frozen.is_some() {
        spans.push(Span::styled("  PAUSED", app.theme.warn()));
    }
    if app.runs.len() > 1 {
        let label = app.runs.get(app.run).map_or("", |run| &run.label);
        spans.push(Span::raw(format!("  run {} of {}: {label}", app.run + 1, app.runs.len())));
    }
    if let Some(playback) = app.playback {
        let state = if playback.playing { "playing" } else { "paused" };
        let (speed, position, length) = (playback.speed, playback.position, playback.length);
        let (front, back) = (format!("  {state} {speed}x "), format!(" {position:.0}/{length:.0} s"));
        let taken = spans.iter().map(Span::width).sum::<usize>() + front.len() + back.len();
        // The bar takes the rest of the line: a longer one seeks more exactly.
        let least = if is_brief { 4 } else { 8 };
        let width = usize::from(area.width).saturating_sub(taken).clamp(least, 60);
        let x = area.x.saturating_add((taken - back.len()) as u16);
        app.targets.note(Rect::new(x, area.y, width as u16, 1).intersection(area), Target::Playback);
        let bar = app.theme.bar(playback.share(), width);
        spans.push(Span::raw(format!("{front}{bar}{back}")));
    }
    Line::from(spans)
}

/// The lines of the alarm: no line without a reason, and a third of the screen at most.
fn alarm<'a>(app: &App, model: &Model, screen: Rect) -> Vec<Line<'a>> {
    let health = Health::of(model);
    let (reason, style) = match (&health, &app.disconnected) {
        (Health::Unknown, Some(reason)) => (format!("no connection, trying again: {reason}"), app.theme.bad()),
        (Health::Ended(summary), _) => (summary.clone(), app.theme.good()),
        (Health::Stalled(reason) | Health::Lost(reason), _) => (reason.clone(), app.theme.bad()),
        _ => (health.reason().to_string(), app.theme.warn()),
    };
    if reason.is_empty() {
        return Vec::new();
    }
    let lines = wrapped(&reason, usize::from(screen.width.saturating_sub(2)));
    let lines = lines.into_iter().take(usize::from(screen.height / 3));
    lines.map(|line| Line::styled(format!(" {line} "), style)).collect()
}

/// The lines of the diagnosis, below an alarm of `above` lines. On a low screen, other panes than the overview need the
/// lines: they show its beginning.
fn diagnosis<'a>(app: &App, model: &Model, screen: Rect, above: usize) -> Vec<Line<'a>> {
    let Diagnosis { grade, text } = Diagnosis::of(model);
    let style = match grade {
        Grade::Good => app.theme.good(),
        Grade::Slow | Grade::Bad => app.theme.warn(),
    };
    let lines = wrapped(&text, usize::from(screen.width.saturating_sub(2)));
    let most = match (screen.height, app.pane) {
        // The help has few lines of its own there.
        (..16, _) if app.help => 0,
        (..16, Pane::Overview) => 5usize.saturating_sub(above),
        (..16, _) => 3usize.saturating_sub(above),
        (24.., Pane::Overview) => 4,
        _ => 3,
    };
    let most = most.min(usize::from(screen.height / 4 + 1));
    let width = screen.width.saturating_sub(2);
    let mut shown = lines;
    if shown.len() > most && most > 0 {
        let rest = shown.split_off(most - 1).join(" ");
        shown.push(fitted(app.theme, Line::raw(rest), width).to_string());
    }
    shown.truncate(most);
    shown.into_iter().map(|line| Line::styled(format!(" {line}"), style)).collect()
}

fn tabs<'a>(app: &App, area: Rect) -> Line<'a> {
    let mut x = area.x;
    let spans = Pane::ALL.into_iter().enumerate().map(|(i, pane)| {
        let text = pane.tab(i, area.width, pane == app.pane);
        let width = Span::raw(text.as_str()).width() as u16;
        app.targets.note(Rect::new(x, area.y, width, 1).intersection(area), Target::Pane(pane));
        x = x.saturating_add(width);
        if pane == app.pane { Span::styled(text, app.theme.selected()) } else { Span::raw(text) }
    });
    Line::from_iter(spans)
}

fn footer<'a>(app: &App, width: u16) -> Line<'a> {
    if app.editing_filter {
        return Line::from(vec![
            Span::styled(format!("/{}", app.filter), app.theme.accent()),
            Span::raw("_  Enter applies the filter, Esc clears it"),
        ]);
    }
    let filter = if app.filter.is_empty() { String::new() } else { format!("  filter: {}", app.filter) };
    let state = app.state.map_or_else(String::new, |state| format!("  state: {}", state.name()));
    let shown = [
        (Command::Quit, "quit"),
        (Command::Help, "help"),
        (Command::NextPane, "pane"),
        (Command::Filter, "filter"),
        (Command::Sort, "sort"),
        (Command::Pause, "pause"),
    ];
    let recording = [(Command::Earlier, "back"), (Command::Later, "forward"), (Command::Faster, "faster")];
    let recording = if app.playback.is_some() { &recording[..] } else { &[] };
    let keys = shown.iter().chain(recording).map(|(command, name)| format!("{} {name}", app.keys.first(*command)));
    // The filters first: a narrow screen cuts the keys.
    let mut spans = Vec::new();
    let filters = format!("{filter}{state}");
    if !filters.is_empty() {
        spans.push(Span::styled(format!("{}  ", filters.trim_start()), app.theme.accent()));
    }
    // No key is cut in half: the help has all of them.
    let mut rest = usize::from(width).saturating_sub(spans.iter().map(Span::width).sum());
    for key in keys {
        let key = Span::styled(key + "  ", app.theme.dim());
        let Some(left) = rest.checked_sub(key.width() - 2) else { break };
        rest = left.saturating_sub(2);
        spans.push(key);
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests;
