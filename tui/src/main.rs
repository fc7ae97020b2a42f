//! `dtop`: a terminal monitor for gradwire clusters.
//!
//! It shows the progress of each node, the waits between nodes, traffic, compression and the training loss. The data
//! comes from a live run, a recording or a simulation, always as the frames of [`gradwire_core::telemetry`].
//!
//! | module | content |
//! |---|---|
//! | `cli` | command line and configuration file |
//! | `source` | the threads and files that frames come from |
//! | `feed` | frames into the model, playback of a recording, `--record` |
//! | `model`, `sample` | state of the cluster, built from frames; measurements between two reports |
//! | `standing` | how a node stands: live, silent, given up, left |
//! | `health` | the verdict on the cluster: words and exit code |
//! | `app` | state of the user interface, and its reaction to keys and mouse |
//! | `view` | drawing, one file per pane |
//! | `json`, `text` | output without a terminal |
//! | `demo` | the simulated cluster, and synthetic reports for measurements |

mod app;
mod cli;
mod demo;
mod feed;
mod health;
mod json;
mod model;
mod sample;
mod source;
mod standing;
mod text;
mod theme;
mod view;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind};
use ratatui::crossterm::execute;

use app::App;
use cli::{Action, Options};
use feed::{Feed, Recorder, Source};
use health::Health;

/// An error message for the user, without the program's name.
type Failure = String;

/// Exit code for wrong usage or input. The other codes belong to [`Health::code`].
const EXIT_USAGE: u8 = 4;

fn main() -> ExitCode {
    let options = match cli::parse() {
        Ok(options) => options,
        // clap reports --help as an error too, but one that goes to stdout.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match options.and_then(run) {
        Ok(code) => ExitCode::from(code),
        // `dtop --json | head` ends by closing the pipe.
        Err(text) if text.contains("Broken pipe") => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(io::stderr(), "dtop: {text}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(options: Options) -> Result<u8, Failure> {
    let mut app = App::new(options.theme);
    app.filter.clone_from(&options.filter);
    (app.sort, app.reverse) = (options.sort, options.reverse);
    let source = match &options.action {
        Action::Completions(shell) => {
            cli::print_completions(*shell);
            return Ok(0);
        }
        Action::Measure { nodes } => return text::measure(&mut app, *nodes),
        Action::Watch { address } => Source::Live(source::connect(address.clone(), 10, options.key)),
        Action::Replay { path } => Source::Recording(
            source::read_recording(path).map_err(|error| format!("--replay {}: {error}", path.display()))?,
        ),
        Action::Demo { nodes } => {
            let nodes = *nodes;
            Source::Live(source::spawn(move |updates| demo::run(nodes, updates)))
        }
    };
    let recorder = options
        .record
        .as_deref()
        .map(|path| Recorder::create(path).map_err(|error| format!("--record {}: {error}", path.display())));
    let mut feed = Feed::new(source, recorder.transpose()?);
    app.playback = feed.playback();
    if options.once || options.json || !io::stdout().is_terminal() {
        return text::print(&mut app, &mut feed, &options);
    }
    // Installs a panic hook that restores the terminal, so that a panic message is readable.
    let mut terminal = ratatui::try_init().map_err(|error| format!("cannot set up the terminal: {error}"))?;
    let mouse = options.mouse && execute!(io::stdout(), EnableMouseCapture).is_ok();
    let result = watch(&mut terminal, &mut app, &mut feed, options.interval);
    if mouse {
        let _ = execute!(io::stdout(), DisableMouseCapture);
    }
    ratatui::restore();
    // After the restore, so that an error is printed to a usable terminal.
    result.map_err(|error| error.to_string())?;
    Ok(Health::of(&feed.model).code())
}

/// Runs the interactive screen until the user quits.
fn watch(terminal: &mut DefaultTerminal, app: &mut App, feed: &mut Feed, interval: Duration) -> io::Result<()> {
    let mut drawn: Option<Instant> = None;
    while !app.quit {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= interval) {
            feed.update(app, Duration::ZERO)?;
            terminal.draw(|frame| view::draw(frame, app, &feed.model))?;
            drawn = Some(Instant::now());
        }
        let rest = drawn.map_or(Duration::ZERO, |drawn| interval.saturating_sub(drawn.elapsed()));
        if !event::poll(rest)? {
            continue;
        }
        // An input redraws the screen at once, without waiting for the interval.
        match event::read()? {
            // Windows and some terminals report the release of a key as well.
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                app.on_key(key, &feed.model);
                drawn = None;
            }
            Event::Mouse(mouse) => {
                let width = terminal.size()?.width;
                app.on_mouse(mouse, &feed.model, (view::tab_row(app, &feed.model), width));
                drawn = None;
            }
            Event::Resize(..) => drawn = None,
            _ => {}
        }
    }
    Ok(())
}
