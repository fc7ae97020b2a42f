//! `dtop`: who is ahead, who waits for whom, what travels, what it costs, and whether it learns.

mod app;
mod demo;
mod health;
mod json;
mod model;
mod source;
mod theme;
mod view;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use gradwire::monitor::MonitorKey;
use gradwire::tcp::Key;
use gradwire_core::telemetry::{Frame, MAGIC};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::{DefaultTerminal, Terminal};
use toml::de::{DeTable, DeValue};

use app::{App, Column, Tape};
use health::Health;
use model::{Model, seconds};
use source::Said;
use theme::{Palette, Theme};

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let value = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).value_name("VALUE");
    Command::new("dtop")
        .about("See why a gradwire cluster is fast or slow: live, recorded, or simulated.")
        .after_help(
            "Start a run with a monitor address, then watch it from another terminal, or another machine:\n  \
             cluster --pace 50 --monitor 127.0.0.1:7700\n  dtop 127.0.0.1:7700\n\n\
             Alarms: dtop ADDRESS --once --json; exit code 0 all is well, 1 somebody is gone or silent, 2 somebody waits for long, 3 \
             nothing heard, 4 wrong usage or input.\n\nWith NO_COLOR set, or --theme none, signs and words say what colours would.",
        )
        .arg(Arg::new("address").value_name("HOST:PORT").help("Where a node tells monitors how the run is"))
        .arg(flag("demo", "A simulated cluster with faults: no run needed").conflicts_with_all(["address", "replay"]))
        .arg(value("nodes", "Workers of the demo").default_value("6").value_parser(value_parser!(u32).range(2..=1024)))
        .arg(value("replay", "Show a recording").value_parser(value_parser!(PathBuf)).conflicts_with("address"))
        .arg(value("record", "Write what is told to a file, for --replay").value_parser(value_parser!(PathBuf)))
        .arg(flag("once", "One picture as text, an exit code by health"))
        .arg(flag("json", "One object per tick instead of pictures; with --once, one"))
        .arg(value("wait", "Seconds to gather before --once").default_value("1.5").value_parser(value_parser!(f64)))
        .arg(value("interval", "Seconds between pictures or objects").default_value("0.2").value_parser(value_parser!(f64)))
        .arg(value("filter", "Nodes to list: a rank, a host or a role; ! in front inverts"))
        .arg(value("sort", "rank, clock, stale, ex, out, in, wait or seen; - in front turns it round").default_value("rank").allow_hyphen_values(true))
        .arg(value("theme", "full, 16 or none").default_value("full").value_parser(["full", "16", "none"]))
        .arg(flag("ascii", "Nothing but ASCII"))
        .arg(flag("no-mouse", "Leave the mouse to the terminal"))
        .arg(value("config", "TOML file whose keys are these flags [default: dtop/config.toml in $XDG_CONFIG_HOME or ~/.config]").value_parser(value_parser!(PathBuf)))
        .arg(value("completions", "Print completions for bash, elvish, fish, powershell or zsh").value_parser(value_parser!(Shell)))
        .arg(flag("measure", "Times pictures of as many made-up nodes, and ends").hide(true))
        .arg(value("key-file", "The monitors' key, if there is one").value_parser(value_parser!(PathBuf)))
}

type Failure = String;

fn main() -> ExitCode {
    let matches = match command().args_override_self(true).try_get_matches().and_then(with_config) {
        Ok(matches) => matches,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 4 } else { 0 });
        }
    };
    match run(&matches) {
        Ok(code) => ExitCode::from(code),
        // A closed pipe is how `dtop --json | head` ends.
        Err(text) if text.contains("Broken pipe") => ExitCode::SUCCESS,
        Err(text) => {
            let _ = writeln!(io::stderr(), "dtop: {text}");
            ExitCode::from(4)
        }
    }
}

/// Puts what a file says before what the command line says.
fn with_config(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let named = matches.get_one::<PathBuf>("config").cloned();
    let home = || {
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
        Some(base.join("dtop/config.toml")).filter(|path| path.exists())
    };
    let Some(path) = named.or_else(home) else { return Ok(matches) };
    let failed = |what: String| {
        let text = format!("--config {}: {what}\n", path.display());
        clap::Error::raw(clap::error::ErrorKind::ValueValidation, text)
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    let table = DeTable::parse(&text).map_err(|error| failed(error.message().to_string()))?.into_inner();
    let mut all: Vec<std::ffi::OsString> = std::env::args_os().take(1).collect();
    for (key, value) in table {
        let key = key.into_inner();
        match value.into_inner() {
            DeValue::Boolean(false) => {}
            DeValue::Boolean(true) => all.push(format!("--{key}").into()),
            DeValue::String(text) => all.push(format!("--{key}={text}").into()),
            DeValue::Integer(number) => all.push(format!("--{key}={number}").into()),
            DeValue::Float(number) => all.push(format!("--{key}={}", number.as_str()).into()),
            other => {
                let got = other.type_str();
                return Err(failed(format!("{key}: expected text, a number, true or false, got {got}")));
            }
        }
    }
    all.extend(std::env::args_os().skip(1));
    command().args_override_self(true).try_get_matches_from(all)
}

fn run(matches: &ArgMatches) -> Result<u8, Failure> {
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        clap_complete::generate(*shell, &mut command(), "dtop", &mut io::stdout());
        return Ok(0);
    }
    let theme = theme(matches);
    let mut app = App::new(theme);
    app.filter = matches.get_one::<String>("filter").cloned().unwrap_or_default();
    let sort = matches.get_one::<String>("sort").cloned().unwrap_or_default();
    app.reverse = sort.starts_with('-');
    let name = sort.trim_start_matches('-');
    app.sort = Column::from_name(name)
        .ok_or_else(|| format!("--sort: expected rank, clock, stale, ex, out, in, wait or seen, got {name:?}"))?;
    let interval = matches.get_one::<f64>("interval").copied().unwrap_or(0.2);
    if !(0.05..=60.0).contains(&interval) {
        return Err(format!("--interval: expected 0.05 to 60 seconds, got {interval}"));
    }
    let interval = Duration::from_secs_f64(interval);
    let key = matches.get_one::<PathBuf>("key-file").map(|path| key(path)).transpose()?;
    if matches.get_flag("measure") {
        let nodes = matches.get_one::<u32>("nodes").copied().unwrap_or(6);
        return measure(&mut app, nodes);
    }
    let source = match (matches.get_one::<String>("address"), matches.get_one::<PathBuf>("replay")) {
        (Some(address), _) => Feed::Live(source::live(address.clone(), 10, key)),
        (_, Some(path)) => {
            Feed::Tape(source::recorded(path).map_err(|error| format!("--replay {}: {error}", path.display()))?)
        }
        _ if matches.get_flag("demo") => {
            let nodes = matches.get_one::<u32>("nodes").copied().unwrap_or(6);
            Feed::Live(source::own(move |tell| demo::run(nodes, tell)))
        }
        _ => return Err("expected HOST:PORT, --replay FILE or --demo; --help says more".into()),
    };
    let record = matches.get_one::<PathBuf>("record");
    let record = record.map(|path| Recorder::new(path)).transpose().map_err(|error| format!("--record: {error}"))?;
    let mut feeding = Feeding { source, record, model: Model::default(), last: Instant::now(), played: 0 };
    if let Feed::Tape(frames) = &feeding.source {
        app.tape = Some(Tape { at: 0.0, length: length(frames), speed: 1, playing: true });
    }
    let (once, json) = (matches.get_flag("once"), matches.get_flag("json"));
    if once || json || !io::stdout().is_terminal() {
        let wait = matches.get_one::<f64>("wait").copied().unwrap_or(1.5).clamp(0.0, 3600.0);
        return plain(&mut app, &mut feeding, (once || !json, json), interval, Duration::from_secs_f64(wait));
    }
    // The terminal is put back whatever happens, panics included.
    let mut terminal = ratatui::try_init().map_err(|error| format!("the terminal: {error}"))?;
    let mouse = !matches.get_flag("no-mouse") && execute!(io::stdout(), EnableMouseCapture).is_ok();
    let result = watch(&mut terminal, &mut app, &mut feeding, interval);
    if mouse {
        let _ = execute!(io::stdout(), DisableMouseCapture);
    }
    ratatui::restore();
    result.map_err(|error| error.to_string())?;
    Ok(Health::of(&feeding.model).code())
}

fn theme(matches: &ArgMatches) -> Theme {
    let none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let palette = match matches.get_one::<String>("theme").map(String::as_str) {
        Some("none") => Palette::None,
        _ if none || dumb => Palette::None,
        Some("16") => Palette::Sixteen,
        _ => Palette::Full,
    };
    Theme { palette, ascii: matches.get_flag("ascii") || dumb }
}

fn key(path: &Path) -> Result<MonitorKey, Failure> {
    let key = Key::from_file(path).map_err(|error| format!("--key-file {}: {error}", path.display()))?;
    Ok(key.to_bytes())
}

enum Feed {
    Live(Receiver<Said>),
    Tape(Vec<Frame>),
}

/// A model that is fed, and what has been told to be kept.
struct Feeding {
    source: Feed,
    record: Option<Recorder>,
    model: Model,
    /// When the tape was last looked at.
    last: Instant,
    /// Frames of the tape that are in the model.
    played: usize,
}

struct Recorder {
    file: io::BufWriter<File>,
    log: Vec<u8>,
}

impl Recorder {
    fn new(path: &Path) -> io::Result<Self> {
        let mut file = io::BufWriter::new(File::create(path)?);
        file.write_all(&MAGIC)?;
        Ok(Self { file, log: Vec::new() })
    }

    fn take(&mut self, frame: &Frame) -> io::Result<()> {
        self.log.clear();
        frame.emit(&mut self.log);
        self.file.write_all(&self.log)
    }
}

/// When a frame was told, in seconds.
fn moment(frame: &Frame) -> Option<f64> {
    match frame {
        Frame::Run(_) => None,
        Frame::Report(report) => Some(seconds(report.at)),
        Frame::Note(note) => Some(seconds(note.at)),
    }
}

fn length(frames: &[Frame]) -> f64 {
    frames.iter().filter_map(moment).fold(0.0, f64::max)
}

impl Feeding {
    /// Takes what has come, or what a tape has come to, waiting at most so long for the first of it.
    fn feed(&mut self, app: &mut App, wait: Duration) -> io::Result<()> {
        match &self.source {
            Feed::Live(told) => {
                let mut next = told.recv_timeout(wait);
                loop {
                    match next {
                        Ok(Said::Frame(frame)) => {
                            app.lost = None;
                            if let Some(record) = &mut self.record {
                                record.take(&frame)?;
                            }
                            self.model.take(*frame);
                        }
                        Ok(Said::Lost(reason)) => app.lost = Some(reason),
                        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                    }
                    next = told.recv_timeout(Duration::ZERO);
                }
                if let Some(record) = &mut self.record {
                    record.file.flush()?;
                }
            }
            Feed::Tape(frames) => {
                let Some(tape) = &mut app.tape else { return Ok(()) };
                let passed = self.last.elapsed().as_secs_f64();
                self.last = Instant::now();
                if tape.playing {
                    tape.at = (tape.at + passed * f64::from(tape.speed)).min(tape.length);
                }
                let to = tape.at;
                // What has been wound back is begun again.
                if self.played > 0 && seconds(self.model.now) > to + 1e-9 {
                    (self.model, self.played) = (Model::default(), 0);
                }
                while let Some(frame) = frames.get(self.played).filter(|frame| moment(frame).is_none_or(|at| at <= to))
                {
                    self.model.take(frame.clone());
                    self.played += 1;
                }
            }
        }
        Ok(())
    }
}

/// Pictures or objects to a pipe.
fn plain(
    app: &mut App,
    feeding: &mut Feeding,
    (once, json): (bool, bool),
    interval: Duration,
    wait: Duration,
) -> Result<u8, Failure> {
    let failed = |error: io::Error| error.to_string();
    let begun = Instant::now();
    if let Some(tape) = &mut app.tape {
        // Of a recording, how it ended.
        (tape.at, tape.playing) = (if once { tape.length } else { 0.0 }, !once);
    }
    loop {
        feeding.feed(app, Duration::from_millis(20).min(interval)).map_err(failed)?;
        let ended = app.tape.is_some_and(|tape| tape.at >= tape.length);
        if once && begun.elapsed() < wait && app.tape.is_none() {
            continue;
        }
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", json::object(&feeding.model)).map_err(failed)?;
        } else {
            let (width, height) = ratatui::crossterm::terminal::size().unwrap_or((100, 30));
            let (width, height) = (width.clamp(40, 200), height.clamp(12, 60));
            write!(out, "{}", picture(app, &feeding.model, width, height)?).map_err(failed)?;
        }
        out.flush().map_err(failed)?;
        if once || ended {
            return Ok(Health::of(&feeding.model).code());
        }
        drop(out);
        let until = Instant::now() + interval;
        while let Some(rest) = until.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero()) {
            feeding.feed(app, rest.min(Duration::from_millis(50))).map_err(failed)?;
            if app.tape.is_some() {
                std::thread::sleep(rest.min(Duration::from_millis(20)));
            }
        }
    }
}

/// What the screen would show, as text.
fn picture(app: &App, model: &Model, width: u16, height: u16) -> Result<String, Failure> {
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

/// How long a picture takes, of each pane, and what an hour of their past takes in memory.
fn measure(app: &mut App, nodes: u32) -> Result<u8, Failure> {
    let mut model = Model::default();
    for tick in 0..36_000u64 {
        // An hour, ten times a second; all but the last minutes are told less often, as only so many samples are kept.
        if tick % 20 != 0 && tick < 35_000 {
            continue;
        }
        for rank in 0..nodes {
            model.take(Frame::Report(demo::made_up(rank, nodes, tick)));
        }
    }
    let resident = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = resident.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let mut out = io::stdout().lock();
    let failed = |error: io::Error| error.to_string();
    writeln!(out, "{nodes} nodes, an hour of history: {} MiB resident", pages * 4 / 1024).map_err(failed)?;
    for (width, height) in [(80, 24), (200, 50)] {
        for pane in app::Pane::ALL {
            app.pane = pane;
            let mut terminal = Terminal::new(TestBackend::new(width, height)).map_err(|error| error.to_string())?;
            let begun = Instant::now();
            for _ in 0..50 {
                terminal.draw(|frame| view::draw(frame, app, &model)).map_err(|error| error.to_string())?;
            }
            let each = begun.elapsed().as_secs_f64() * 1e3 / 50.0;
            writeln!(out, "{width}x{height} {:<12} {each:>8.3} ms a picture", pane.name()).map_err(failed)?;
        }
    }
    Ok(0)
}

/// The screen, until it is left.
fn watch(terminal: &mut DefaultTerminal, app: &mut App, feeding: &mut Feeding, interval: Duration) -> io::Result<()> {
    let mut drawn: Option<Instant> = None;
    while !app.quit {
        let due = drawn.is_none_or(|drawn| drawn.elapsed() >= interval);
        if due {
            feeding.feed(app, Duration::ZERO)?;
            terminal.draw(|frame| view::draw(frame, app, &feeding.model))?;
            drawn = Some(Instant::now());
        }
        let rest = drawn.map_or(Duration::ZERO, |drawn| interval.saturating_sub(drawn.elapsed()));
        if event::poll(rest)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    app.key(key, &feeding.model);
                    drawn = None;
                }
                Event::Mouse(mouse) => {
                    let width = terminal.size()?.width;
                    app.mouse(mouse, &feeding.model, (view::tab_row(app, &feeding.model), width));
                    drawn = None;
                }
                Event::Resize(..) => drawn = None,
                _ => {}
            }
        }
    }
    Ok(())
}
