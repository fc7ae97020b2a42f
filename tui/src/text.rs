//! Output without an interactive terminal: screens as text, JSON objects, and the measurement of drawing times.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use gradwire_core::telemetry::Frame;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::app::{App, Pane};
use crate::cli::Options;
use crate::health::Health;
use crate::model::Model;
use crate::runs::Runs;
use crate::{Failure, demo, json, view};

/// Prints screens or JSON objects to stdout, one or (without `--once`) one per interval. Returns the exit code.
///
/// If stdout is not a terminal and JSON is not requested, one screen is printed.
///
/// With several runs, each has a screen or an object, and the exit code is that of the worst.
pub(crate) fn print(app: &mut App, runs: &mut Runs, options: &Options) -> Result<u8, Failure> {
    let once = options.once || !options.json;
    let failed = |error: io::Error| error.to_string();
    let started = Instant::now();
    if let Some(playback) = &mut app.playback {
        // One screen of a recording shows its end.
        (playback.position, playback.playing) = (if once { playback.length } else { playback.start }, !once);
    }
    loop {
        let wait = Duration::from_millis(20).min(options.interval);
        update(app, runs, wait).map_err(failed)?;
        let ended = app.playback.is_some_and(|playback| playback.position >= playback.length);
        if once && started.elapsed() < options.wait && app.playback.is_none() {
            continue;
        }
        let (mut output, mut code) = (String::new(), 0);
        let several = runs.entries().len() > 1;
        for entry in runs.entries() {
            code = code.max(Health::of(&entry.feed.model).code());
            app.disconnected.clone_from(&entry.disconnected);
            match options.json {
                true if several => output += &json::with_source(&entry.label, &entry.feed.model),
                true => output += &json::object(&entry.feed.model),
                false => {
                    let (width, height) = size();
                    if several {
                        output += &format!("== {}\n", entry.label);
                    }
                    output += screen(app, &entry.feed.model, width.clamp(40, 200), height.clamp(12, 60))?.trim_end();
                }
            }
            output.push('\n');
        }
        let mut out = io::stdout().lock();
        out.write_all(output.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
        if once || ended {
            return Ok(code);
        }
        drop(out);
        // Frames are taken while waiting: the channel is bounded, and --record must not miss any.
        let until = Instant::now() + options.interval;
        while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            update(app, runs, rest.min(Duration::from_millis(50))).map_err(failed)?;
            if app.playback.is_some() {
                // The update of a playback does not wait.
                thread::sleep(rest.min(Duration::from_millis(20)));
            }
        }
    }
}

/// Takes the frames of all runs that have come, and waits for the first of them for at most `wait`.
fn update(app: &mut App, runs: &mut Runs, wait: Duration) -> io::Result<()> {
    let each = wait / u32::try_from(runs.entries().len()).unwrap_or(1).max(1);
    runs.entries().iter_mut().try_for_each(|entry| entry.update(app, each))
}

/// Columns and lines of a printed screen: `COLUMNS` and `LINES` where both are set, else those of the terminal.
fn size() -> (u16, u16) {
    let set = |name: &str| std::env::var(name).ok()?.parse().ok();
    match (set("COLUMNS"), set("LINES")) {
        (Some(width), Some(height)) => (width, height),
        _ => ratatui::crossterm::terminal::size().unwrap_or((100, 30)),
    }
}

/// The screen as lines of text, without styles.
fn screen(app: &App, model: &Model, width: u16, height: u16) -> Result<String, Failure> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(|error| error.to_string())?;
    terminal.draw(|frame| view::draw(frame, app, model)).map_err(|error| error.to_string())?;
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..height {
        let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(text)
}

/// Prints the memory that an hour of history takes, and the time to draw each pane, with synthetic nodes.
pub(crate) fn measure(app: &mut App, nodes: u32) -> Result<u8, Failure> {
    const SCREENS: u32 = 50;
    let mut model = Model::default();
    // An hour at ten ticks per second. The model keeps few samples of the older part, so a tenth of a second matters
    // only in the last minutes.
    for tick in (0..36_000u64).filter(|tick| tick % 20 == 0 || *tick >= 35_000) {
        for rank in 0..nodes {
            model.take(Frame::Report(demo::synthetic_report(rank, nodes, tick)));
        }
    }
    let resident = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = resident.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let mut out = io::stdout().lock();
    let failed = |error: io::Error| error.to_string();
    writeln!(out, "{nodes} nodes, an hour of history: {} MiB resident", pages * 4 / 1024).map_err(failed)?;
    for (width, height) in [(80, 24), (200, 50)] {
        for pane in Pane::ALL {
            app.pane = pane;
            let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(|error| error.to_string())?;
            let started = Instant::now();
            for _ in 0..SCREENS {
                terminal.draw(|frame| view::draw(frame, app, &model)).map_err(|error| error.to_string())?;
            }
            let each = started.elapsed().as_secs_f64() * 1e3 / f64::from(SCREENS);
            writeln!(out, "{width}x{height} {:<12} {each:>8.3} ms per screen", pane.name()).map_err(failed)?;
        }
    }
    Ok(0)
}
