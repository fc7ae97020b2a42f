//! The command line and the configuration file, parsed into [`Options`].
//!
//! The configuration file has the options' names as keys, see [`config`]. Its values are put before the arguments of the
//! command line, where a later option overrides an earlier one.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use gradwire::monitor::MonitorKey;
use gradwire::tcp::Key;

use crate::app::Column;
use crate::keys::KeyMap;
use crate::theme::{Palette, Theme, palette_of};
use crate::{Failure, config, wrap};

/// The mode of a call, from its address or flags.
pub(crate) enum Action {
    /// Follow the runs of this host that have announced themselves.
    Find,
    /// Follow runs through the monitor address of a node.
    Watch { addresses: Vec<String> },
    /// Play a recording back, at this many seconds per second.
    Replay { path: PathBuf, speed: f64 },
    /// Write a recording to these files.
    Export { path: PathBuf, to: Vec<PathBuf> },
    /// Simulate a cluster.
    Demo { nodes: u32 },
    /// Measure drawing with synthetic nodes.
    Measure { nodes: u32 },
    /// Print a completion script.
    Completions(Shell),
}

/// The checked options of a call.
pub(crate) struct Options {
    pub(crate) action: Action,
    pub(crate) once: bool,
    pub(crate) json: bool,
    pub(crate) mouse: bool,
    /// Time to collect data before `--once` prints.
    pub(crate) wait: Duration,
    /// Time between two screens or JSON objects.
    pub(crate) interval: Duration,
    pub(crate) filter: String,
    pub(crate) sort: Column,
    pub(crate) reverse: bool,
    pub(crate) theme: Theme,
    pub(crate) keys: KeyMap,
    pub(crate) record: Option<PathBuf>,
    /// Files of the same name are overwritten.
    pub(crate) overwrite: bool,
    pub(crate) key: Option<MonitorKey>,
}

const EXAMPLE: &str = "\
Examples:
  cluster --pace 50 --monitor 127.0.0.1:7700    a run with a monitor address
  dtop                                          finds the runs of this host
  dtop 127.0.0.1:7700                           from another terminal or machine
  dtop --demo                                   needs no run

dtop --help tells more: exit codes, keys and the configuration file.";

const MORE: &str = "\
Examples:
  cluster --pace 50 --monitor 127.0.0.1:7700    a run with a monitor address
  dtop                                          finds the runs of this host
  dtop 10.0.0.7:7700 10.0.0.8:7700              several runs; r lists them
  dtop 10.0.0.7:7700 --record run.log           records while it shows
  dtop --replay run.log --speed 20              plays the recording back
  dtop --replay run.log --export run.html       plots; run.csv for a table

Exit codes of --once and --json, for alarms:
  0  healthy, or the run has ended
  1  degraded: a node is lost or silent, or has failed
  2  stalled: a node has waited for 2 s or longer
  3  no data received
  4  wrong usage or input
  5  lost: the source is gone or silent, and the run had not ended
The interactive screen ends with 0, and with 128 + N after signal N.
COLUMNS and LINES set the size of the screens that --once prints.

Keys: press ? in dtop. The configuration file can change them:
  theme = \"light\"
  sort = \"wait\"
  [keys]
  quit = [\"q\", \"ctrl-q\"]
  pause = \"space\"

Words and signs repeat the meaning of each colour. Use --theme none or set NO_COLOR for a screen without colours.";

/// The command line, also for checks of single options.
pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let value = |name: &'static str, unit: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_name(unit)
    };
    let path = || value_parser!(PathBuf);
    let columns = "Sort nodes by rank, state, clock, stale, ex, out, in, wait or seen, the worst first; a leading - \
                   reverses the order";
    let config =
        "TOML file with options as keys, and [keys] [default: dtop/config.toml in $XDG_CONFIG_HOME or ~/.config]";
    Command::new("dtop")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Shows why a gradwire cluster is fast or slow: live runs, a recording or a simulation.")
        .after_help(EXAMPLE)
        .after_long_help(MORE)
        .next_help_heading("Source")
        .arg(
            Arg::new("address")
                .value_name("HOST:PORT")
                .num_args(0..)
                .help("Monitor addresses of runs (their option --monitor) [default: the runs of this host]"),
        )
        .arg(
            value("key-file", "FILE", "Monitor key, if the run has one; the file must have mode 0600")
                .value_parser(path()),
        )
        .arg(
            flag("demo", "Show a simulated cluster with faults; needs no run")
                .conflicts_with_all(["address", "replay"]),
        )
        .arg(
            value("nodes", "COUNT", "Workers of the demo, 2 to 1024")
                .default_value("6")
                .value_parser(value_parser!(u32).range(2..=1024)),
        )
        .next_help_heading("Recordings")
        .arg(
            value("record", "FILE", "Write all received data to a new file, for --replay")
                .value_parser(path())
                .conflicts_with("replay"),
        )
        .arg(value("replay", "FILE", "Play back a recording").value_parser(path()).conflicts_with("address"))
        .arg(
            value("speed", "FACTOR", "Seconds of the recording per second, 0.01 to 1000000")
                .default_value("1")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value("export", "FILE", "Write the recording of --replay as .csv or as an .html page with plots, and exit")
                .value_parser(path())
                .action(ArgAction::Append)
                .requires("replay"),
        )
        .arg(flag("overwrite", "Let --record and --export overwrite a file"))
        .next_help_heading("Output")
        .arg(flag("once", "Print the screen as text and exit; the exit code is the cluster's health"))
        .arg(flag("json", "Print a JSON object per interval instead of a screen; with --once, only one"))
        .arg(
            value("wait", "SECONDS", "Time to collect data before --once prints")
                .default_value("1.5")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            value("interval", "SECONDS", "Time between two screens or JSON objects, 0.05 to 60")
                .default_value("0.2")
                .value_parser(value_parser!(f64)),
        )
        .next_help_heading("Display")
        .arg(value(
            "filter",
            "TEXT",
            "Show nodes with this rank or state, or with this text in host or role; a leading ! inverts",
        ))
        .arg(value("sort", "COLUMN", columns).default_value("rank").allow_hyphen_values(true))
        .arg(
            value(
                "theme",
                "THEME",
                "Colours: dark or light (24 bits), 16 or 16-light (the terminal's own) or none; auto: by COLORTERM and \
                 COLORFGBG",
            )
            .default_value("auto")
            // full: the former name of dark.
            .value_parser(["auto", "dark", "light", "16", "16-light", "none", "full"])
            .hide_possible_values(true),
        )
        .arg(flag("ascii", "Draw with ASCII characters only"))
        .arg(flag("no-mouse", "Do not capture the mouse, so that the terminal can select text"))
        .next_help_heading("Program")
        .arg(value("config", "FILE", config).value_parser(path()))
        .arg(
            value("completions", "SHELL", "Print a completion script: bash, elvish, fish, powershell or zsh")
                .value_parser(value_parser!(Shell))
                .hide_possible_values(true),
        )
        .arg(flag("measure", "Measure the drawing of synthetic nodes and exit").hide(true))
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(
            Arg::new("help")
                .short('h')
                .long("help")
                .action(ArgAction::Help)
                .help("Print a short help (-h) or all (--help)"),
        )
        .arg(Arg::new("version").short('V').long("version").action(ArgAction::Version).help("Print the version"))
}

/// Parses command line and configuration file.
///
/// The outer error is clap's, which also stands for `--help`; the inner error is a value that is not valid.
pub(crate) fn parse() -> Result<Result<Options, Failure>, clap::Error> {
    let matches = command().args_override_self(true).try_get_matches()?;
    let path = matches.get_one::<PathBuf>("config").cloned().or_else(config::default_path);
    let Some(path) = path else { return Ok(options(&matches, KeyMap::default())) };
    let config = match config::read(&path, command, check) {
        Ok(config) => config,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut all: Vec<OsString> = std::env::args_os().take(1).collect();
    all.extend(config.args.into_iter().map(OsString::from));
    all.extend(std::env::args_os().skip(1));
    Ok(options(&command().args_override_self(true).try_get_matches_from(all)?, config.keys))
}

/// Checks the values of options.
///
/// # Errors
/// A message that names the option.
pub(crate) fn check(matches: &ArgMatches) -> Result<(), Failure> {
    options(matches, KeyMap::default()).map(drop)
}

/// Prints clap's error, or the help, for the width of the terminal. Returns the exit code.
pub(crate) fn print_error(error: &clap::Error, usage: u8) -> u8 {
    let text = error.render().to_string();
    let columns = |is_terminal: bool| {
        let size = ratatui::crossterm::terminal::size().map_or(100, |(columns, _)| usize::from(columns));
        if is_terminal { size.clamp(30, 120) } else { 100 }
    };
    if error.use_stderr() {
        let _ =
            io::Write::write_all(&mut io::stderr(), wrap::help(&text, columns(io::stderr().is_terminal())).as_bytes());
        return usage;
    }
    let _ = io::Write::write_all(&mut io::stdout(), wrap::help(&text, columns(io::stdout().is_terminal())).as_bytes());
    0
}

/// Prints a completion script to stdout.
pub(crate) fn print_completions(shell: Shell) {
    clap_complete::generate(shell, &mut command(), "dtop", &mut io::stdout());
}

fn options(matches: &ArgMatches, keys: KeyMap) -> Result<Options, Failure> {
    let flag = |name: &str| matches.get_flag(name);
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let (sort, reverse) = sort(&text("sort"))?;
    let interval = matches.get_one::<f64>("interval").copied().unwrap_or(0.2);
    // The test excludes NaN as well.
    if !(0.05..=60.0).contains(&interval) {
        return Err(format!("--interval: expected 0.05 to 60 seconds, got {interval}"));
    }
    let wait = matches.get_one::<f64>("wait").copied().unwrap_or(1.5);
    if !(0.0..=3600.0).contains(&wait) {
        return Err(format!("--wait: expected 0 to 3600 seconds, got {wait}"));
    }
    let action = action(matches)?;
    let record = path("record");
    if let (Some(_), Action::Watch { addresses }) = (&record, &action)
        && addresses.len() > 1
    {
        return Err(format!("--record: expected one address, got {}", addresses.len()));
    }
    Ok(Options {
        action,
        once: flag("once"),
        json: flag("json"),
        mouse: !flag("no-mouse"),
        wait: Duration::from_secs_f64(wait),
        interval: Duration::from_secs_f64(interval),
        filter: text("filter"),
        sort,
        reverse,
        theme: theme(matches),
        keys,
        record,
        overwrite: flag("overwrite"),
        key: path("key-file").map(|path| key(&path)).transpose()?,
    })
}

fn action(matches: &ArgMatches) -> Result<Action, Failure> {
    let nodes = matches.get_one::<u32>("nodes").copied().unwrap_or(6);
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        Ok(Action::Completions(*shell))
    } else if matches.get_flag("measure") {
        Ok(Action::Measure { nodes })
    } else if let Some(path) = matches.get_one::<PathBuf>("replay").cloned() {
        let speed = matches.get_one::<f64>("speed").copied().unwrap_or(1.0);
        // The test excludes NaN as well.
        if !(0.01..=1e6).contains(&speed) {
            return Err(format!("--speed: expected 0.01 to 1000000, got {speed}"));
        }
        match matches.get_many::<PathBuf>("export") {
            Some(to) => Ok(Action::Export { path, to: to.cloned().collect() }),
            None => Ok(Action::Replay { path, speed }),
        }
    } else if matches.get_flag("demo") {
        Ok(Action::Demo { nodes })
    } else {
        let mut addresses: Vec<String> = Vec::new();
        for address in matches.get_many::<String>("address").into_iter().flatten() {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
                return Err(format!("expected HOST:PORT with a port from 1 to 65535, got {address:?}"));
            }
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        Ok(if addresses.is_empty() { Action::Find } else { Action::Watch { addresses } })
    }
}

/// The column, and true for the reverse of its order.
fn sort(text: &str) -> Result<(Column, bool), Failure> {
    let name = text.trim_start_matches('-');
    let column = Column::from_name(name).ok_or_else(|| {
        format!("--sort: expected rank, state, clock, stale, ex, out, in, wait or seen, got {name:?}")
    })?;
    Ok((column, text.starts_with('-')))
}

fn theme(matches: &ArgMatches) -> Theme {
    // See no-color.org: any value that is not empty counts.
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let palette = match matches.get_one::<String>("theme").map(String::as_str) {
        Some("none") => Palette::None,
        _ if no_color || dumb => Palette::None,
        Some("16") => Palette::Sixteen,
        Some("16-light") => Palette::SixteenLight,
        Some("light") => Palette::Light,
        Some("dark" | "full") => Palette::Full,
        _ => {
            let variable = |name: &str| std::env::var(name).ok();
            let [colorterm, term, colorfgbg] = ["COLORTERM", "TERM", "COLORFGBG"].map(variable);
            palette_of(colorterm.as_deref(), term.as_deref(), colorfgbg.as_deref())
        }
    };
    Theme { palette, ascii: matches.get_flag("ascii") || dumb }
}

fn key(path: &Path) -> Result<MonitorKey, Failure> {
    let key = Key::from_file(path).map_err(|error| {
        let text = error.to_string();
        // The error names the path as well.
        let reason = text.strip_prefix(&format!("key {}: ", path.display())).unwrap_or(&text);
        format!("--key-file {}: {reason}", path.display())
    })?;
    Ok(key.to_bytes())
}
