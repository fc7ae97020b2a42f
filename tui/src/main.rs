//! `dtop`: a terminal monitor for gradwire clusters.
//!
//! It shows the progress of each node, the waits between nodes, traffic, compression and the training loss. The data
//! comes from a live run, a recording or a simulation, always as the frames of [`gradwire_core::telemetry`].
//!
//! | module | content |
//! |---|---|
//! | `cli` | command line |
//! | `source` | the threads and files that frames come from |
//! | `feed` | frames into the model, playback of a recording, `--record` |
//! | `model`, `sample` | state of the cluster, built from frames; measurements between two reports |
//! | `standing` | how a node stands: live, silent, given up, left |
//! | `health` | the verdict on the cluster: words and exit code |
//! | `diagnosis`, `trend` | the cause of a slow or broken run, and the remedy, in words; whether the loss grows |
//! | `pace` | the share of the possible speed that is reached, and the costs of the rest |
//! | `arrivals`, `remedy` | which links are busy; what would be less to send |
//! | `recent`, `timeline` | where the time of a node has gone in the last seconds, and during a page of a recording |
//! | `recipe` | the short name of a recipe |
//! | `app` | state of the user interface, and its reaction to keys and mouse |
//! | `keys`, `config` | keys and their commands, the configuration file |
//! | `runs` | the runs of a call, and the search for runs of this host |
//! | `targets` | where clickable things lie on the screen |
//! | `terminal` | the terminal in raw mode, and signals |
//! | `view` | drawing, one file per pane |
//! | `export` | a recording as CSV or HTML |
//! | `refusal` | why there is no connection, in words |
//! | `rates`, `state` | rates of links, states of nodes |
//! | `wrap` | text for a number of columns |
//! | `json`, `text` | output without a terminal |
//! | `demo` | the simulated cluster, and synthetic reports for measurements |

mod app;
mod arrivals;
mod cli;
mod config;
mod demo;
mod diagnosis;
mod export;
mod feed;
mod health;
mod json;
mod keys;
mod model;
mod pace;
mod rates;
mod recent;
mod recipe;
mod refusal;
mod remedy;
mod runs;
mod sample;
mod source;
mod standing;
mod state;
mod targets;
mod terminal;
mod text;
mod theme;
mod timeline;
mod trend;
mod view;
mod wrap;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyEventKind};

use app::App;
use cli::{Action, Options};
use feed::{Feed, Recorder, Source};
use runs::Runs;
use terminal::{Screen, Signals};

/// An error message for the user, without the program's name.
type Failure = String;

/// Exit code for wrong usage or input. The other codes belong to [`health::Health::code`].
const EXIT_USAGE: u8 = 4;
/// The longest wait for a key: a signal ends the program that much later.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let options = match cli::parse() {
        Ok(options) => options,
        // clap reports --help as an error too, but one that goes to stdout.
        Err(error) => return ExitCode::from(cli::print_error(&error, EXIT_USAGE)),
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

fn run(mut options: Options) -> Result<u8, Failure> {
    let mut app = App::new(options.theme);
    app.filter.clone_from(&options.filter);
    (app.sort, app.reverse) = (options.sort, options.reverse);
    app.keys = std::mem::take(&mut options.keys);
    let interactive = !options.once && !options.json && io::stdout().is_terminal();
    let mut runs = match &options.action {
        Action::Completions(shell) => {
            cli::print_completions(*shell);
            return Ok(0);
        }
        Action::Measure { nodes } => return text::measure(&mut app, *nodes),
        Action::Export { path, to } => {
            let frames = recording(path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            export::write(to, &frames, &name, options.overwrite)?;
            return Ok(0);
        }
        Action::Find => {
            let runs = Runs::of_host(options.key).map_err(|error| error.to_string())?;
            let found = runs.labels();
            match (found.as_slice(), &options.record) {
                ([], _) if !interactive => {
                    let text = "found no run of this host; expected a run with --monitor HOST:PORT, or HOST:PORT, \
                                --replay FILE or --demo";
                    return Err(text.into());
                }
                ([address], Some(_)) => Runs::of(address.clone(), feed_of(address.clone(), &options)?),
                (_, Some(_)) => return Err(format!("--record: expected one run, found {}", found.len())),
                _ => runs,
            }
        }
        Action::Watch { addresses } => match addresses.as_slice() {
            [address] => Runs::of(address.clone(), feed_of(address.clone(), &options)?),
            addresses => Runs::at(addresses, options.key),
        },
        Action::Replay { path, speed } => {
            let feed = Feed::new(Source::Recording(recording(path)?), None);
            app.playback = feed.playback().map(|playback| app::Playback { speed: *speed, ..playback });
            Runs::of(path.display().to_string(), feed)
        }
        Action::Demo { nodes } => {
            let nodes = *nodes;
            let source = Source::Live(source::spawn(move |updates| demo::run(nodes, updates)));
            Runs::of("demo".into(), Feed::new(source, recorder(&options)?))
        }
    };
    if !interactive {
        return text::print(&mut app, &mut runs, &options);
    }
    // Several runs, or no run: the list says more than the screen of one of them.
    if matches!(options.action, Action::Find) && runs.labels().len() != 1 {
        app.choosing = Some(0);
    }
    let signals = Signals::install().map_err(|error| format!("cannot install signal handlers: {error}"))?;
    let mut screen = Screen::enter(options.mouse).map_err(|error| format!("cannot set up the terminal: {error}"))?;
    let result = watch(&mut screen, &signals, &mut app, &mut runs, options.interval);
    // Before an error is printed: it needs a usable terminal.
    drop(screen);
    if let Some(code) = signals.end() {
        // Also after an error: a terminal that is gone sends SIGHUP.
        return Ok(code);
    }
    result.map_err(|error| error.to_string())?;
    Ok(0)
}

/// The frames of a recording.
fn recording(path: &std::path::Path) -> Result<Vec<gradwire_core::telemetry::Frame>, Failure> {
    source::read_recording(path).map_err(|error| format!("--replay {}: {error}", path.display()))
}

/// The file of `--record`.
fn recorder(options: &Options) -> Result<Option<Recorder>, Failure> {
    let create = |path: &std::path::Path| {
        Recorder::create(path, options.overwrite).map_err(|error| format!("--record {}: {error}", path.display()))
    };
    options.record.as_deref().map(create).transpose()
}

/// The feed of a single address, which can be recorded.
fn feed_of(address: String, options: &Options) -> Result<Feed, Failure> {
    // The file first: a run must not count a monitor that ends at once.
    let recorder = recorder(options)?;
    Ok(Feed::new(Source::Live(source::connect(address, 10, options.key)), recorder))
}

/// Runs the interactive screen until the user quits, or a signal ends it.
fn watch(screen: &mut Screen, signals: &Signals, app: &mut App, runs: &mut Runs, interval: Duration) -> io::Result<()> {
    signals.guard()?;
    let mut drawn: Option<Instant> = None;
    while !app.quit && signals.end().is_none() {
        if std::mem::take(&mut app.suspend) || signals.take_stop() {
            screen.suspend()?;
            signals.take_go_on();
            drawn = None;
        }
        if signals.take_go_on() {
            screen.resume()?;
            drawn = None;
        }
        if drawn.is_none_or(|drawn| drawn.elapsed() >= interval) {
            runs.update(app)?;
            screen.terminal.draw(|frame| view::draw(frame, app, runs.model(app)))?;
            drawn = Some(Instant::now());
        }
        let rest = drawn.map_or(Duration::ZERO, |drawn| interval.saturating_sub(drawn.elapsed()));
        if !event::poll(rest.min(SIGNAL_CHECK))? {
            continue;
        }
        // An input redraws the screen at once, without waiting for the interval.
        match event::read()? {
            // Windows and some terminals report the release of a key as well.
            Event::Key(key) if key.kind != KeyEventKind::Release => {
                app.on_key(key, runs.model(app));
                drawn = None;
            }
            Event::Mouse(mouse) => {
                app.on_mouse(mouse, runs.model(app));
                drawn = None;
            }
            Event::Resize(..) => drawn = None,
            _ => {}
        }
    }
    Ok(())
}
