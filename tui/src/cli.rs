//! The command line and the configuration file, parsed into [`Options`].
//!
//! The configuration file has the options' names as keys. Its values are put before the arguments of the command line,
//! where a later option overrides an earlier one.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use gradwire::monitor::MonitorKey;
use gradwire::tcp::Key;
use toml::de::{DeTable, DeValue};

use crate::Failure;
use crate::app::Column;
use crate::theme::{Palette, Theme};

/// The mode of a call, from its address or flags.
pub(crate) enum Action {
    /// Follow a run through the monitor address of a node.
    Watch { address: String },
    /// Play a recording back.
    Replay { path: PathBuf },
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
    pub(crate) record: Option<PathBuf>,
    pub(crate) key: Option<MonitorKey>,
}

const EXAMPLE: &str = "\
Example: start a run with a monitor address, then watch it from another terminal or machine:
  cluster --pace 50 --monitor 127.0.0.1:7700
  dtop 127.0.0.1:7700

Exit codes, for alarms with --once --json:
  0  healthy, or the run has ended
  1  degraded: a node is lost or silent, or has failed
  2  stalled: a node has waited for 2 s or longer
  3  no data received
  4  wrong usage or input
  5  lost: the source is gone or silent, and the run had not ended

Words and signs repeat the meaning of each colour. Use --theme none or set NO_COLOR for a screen without colours.";

fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let value = |name: &'static str, unit: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_name(unit)
    };
    let path = || value_parser!(PathBuf);
    let columns = "Sort nodes by rank, clock, stale, ex, out, in, wait or seen; a leading - reverses the order";
    let config = "TOML file with options as keys [default: dtop/config.toml in $XDG_CONFIG_HOME or ~/.config]";
    Command::new("dtop")
        .about("Shows why a gradwire cluster is fast or slow: a live run, a recording or a simulation.")
        .after_help(EXAMPLE)
        .arg(Arg::new("address").value_name("HOST:PORT").help("Monitor address of a node (its option --monitor)"))
        .arg(
            flag("demo", "Show a simulated cluster with faults; needs no run")
                .conflicts_with_all(["address", "replay"]),
        )
        .arg(
            value("nodes", "COUNT", "Workers of the demo, 2 to 1024")
                .default_value("6")
                .value_parser(value_parser!(u32).range(2..=1024)),
        )
        .arg(value("replay", "FILE", "Play back a recording").value_parser(path()).conflicts_with("address"))
        .arg(value("record", "FILE", "Write all received data to a file, for --replay").value_parser(path()))
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
        .arg(value(
            "filter",
            "TEXT",
            "Show nodes with this rank, or with this text in host or role; a leading ! inverts",
        ))
        .arg(value("sort", "COLUMN", columns).default_value("rank").allow_hyphen_values(true))
        .arg(
            value("theme", "THEME", "Colours: full (24 bits), 16 (the terminal's own) or none")
                .default_value("full")
                .value_parser(["full", "16", "none"])
                .hide_possible_values(true),
        )
        .arg(flag("ascii", "Draw with ASCII characters only"))
        .arg(flag("no-mouse", "Do not capture the mouse, so that the terminal can select text"))
        .arg(value("config", "FILE", config).value_parser(path()))
        .arg(
            value("completions", "SHELL", "Print a completion script: bash, elvish, fish, powershell or zsh")
                .value_parser(value_parser!(Shell))
                .hide_possible_values(true),
        )
        .arg(flag("measure", "Measure the drawing of synthetic nodes and exit").hide(true))
        .arg(
            value("key-file", "FILE", "Monitor key, if the run has one; the file must have mode 0600")
                .value_parser(path()),
        )
}

/// Parses command line and configuration file.
///
/// The outer error is clap's, which also stands for `--help`; the inner error is a value that is not valid.
pub(crate) fn parse() -> Result<Result<Options, Failure>, clap::Error> {
    let matches = command().args_override_self(true).try_get_matches()?;
    Ok(options(&with_config(matches)?))
}

/// Prints a completion script to stdout.
pub(crate) fn print_completions(shell: Shell) {
    clap_complete::generate(shell, &mut command(), "dtop", &mut io::stdout());
}

/// Parses the command line again with the values of the configuration file before it.
fn with_config(matches: ArgMatches) -> Result<ArgMatches, clap::Error> {
    let named = matches.get_one::<PathBuf>("config").cloned();
    let default = || {
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
        Some(base.join("dtop/config.toml")).filter(|path| path.exists())
    };
    let Some(path) = named.or_else(default) else { return Ok(matches) };
    let failed = |reason: String| {
        let text = format!("--config {}: {reason}\n", path.display());
        clap::Error::raw(clap::error::ErrorKind::ValueValidation, text)
    };
    let text = std::fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    let table = DeTable::parse(&text).map_err(|error| failed(error.message().to_string()))?.into_inner();
    let mut all: Vec<OsString> = std::env::args_os().take(1).collect();
    for (key, value) in table {
        let key = key.into_inner();
        match value.into_inner() {
            // `false` is the default of every flag.
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

fn options(matches: &ArgMatches) -> Result<Options, Failure> {
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
    Ok(Options {
        action: action(matches)?,
        once: flag("once"),
        json: flag("json"),
        mouse: !flag("no-mouse"),
        wait: Duration::from_secs_f64(wait),
        interval: Duration::from_secs_f64(interval),
        filter: text("filter"),
        sort,
        reverse,
        theme: theme(matches),
        record: path("record"),
        key: path("key-file").map(|path| key(&path)).transpose()?,
    })
}

fn action(matches: &ArgMatches) -> Result<Action, Failure> {
    let nodes = matches.get_one::<u32>("nodes").copied().unwrap_or(6);
    if let Some(shell) = matches.get_one::<Shell>("completions") {
        Ok(Action::Completions(*shell))
    } else if matches.get_flag("measure") {
        Ok(Action::Measure { nodes })
    } else if let Some(address) = matches.get_one::<String>("address").cloned() {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
        if !port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(format!("expected HOST:PORT with a port from 1 to 65535, got {address:?}"));
        }
        Ok(Action::Watch { address })
    } else if let Some(path) = matches.get_one::<PathBuf>("replay").cloned() {
        Ok(Action::Replay { path })
    } else if matches.get_flag("demo") {
        Ok(Action::Demo { nodes })
    } else {
        Err("expected HOST:PORT, --replay FILE or --demo; see --help".into())
    }
}

/// The column, and true for a descending order.
fn sort(text: &str) -> Result<(Column, bool), Failure> {
    let name = text.trim_start_matches('-');
    let column = Column::from_name(name)
        .ok_or_else(|| format!("--sort: expected rank, clock, stale, ex, out, in, wait or seen, got {name:?}"))?;
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
        _ => Palette::Full,
    };
    Theme { palette, ascii: matches.get_flag("ascii") || dumb }
}

fn key(path: &Path) -> Result<MonitorKey, Failure> {
    let key = Key::from_file(path).map_err(|error| format!("--key-file {}: {error}", path.display()))?;
    Ok(key.to_bytes())
}
