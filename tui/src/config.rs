//! The configuration file: options by their names, and `[keys]`. An error names the file, the line and the key.
//!
//! ```toml
//! theme = "light"
//! sort = "wait"
//!
//! [keys]
//! quit = ["q", "ctrl-q"]
//! sort = "o"
//! ```

use std::path::{Path, PathBuf};

use clap::{Command, parser::ValueSource};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::keys::{self, Key, KeyMap};

/// The options that a configuration file can have. Other options are about a single call.
const OPTIONS: [&str; 12] =
    ["ascii", "filter", "interval", "json", "key-file", "no-mouse", "nodes", "once", "sort", "speed", "theme", "wait"];

/// The contents of a configuration file.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The options as arguments, to be put before the arguments of the command line.
    pub(crate) args: Vec<String>,
    pub(crate) keys: KeyMap,
}

/// The file at `dtop/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`, if it exists.
pub(crate) fn default_path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME").filter(|base| !base.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(base.join("dtop/config.toml")).filter(|path| path.exists())
}

/// Reads a file. `command` checks single options, and `check` their values.
///
/// # Errors
/// A message that begins with file, line and key.
pub(crate) fn read(
    path: &Path,
    command: impl Fn() -> Command,
    check: impl Fn(&clap::ArgMatches) -> Result<(), String>,
) -> Result<Config, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("--config {name}: {error}"))?;
    parse(&text, command, check).map_err(|(at, reason)| format!("--config {name}:{}: {reason}", line_of(&text, at)))
}

/// The number of the line at a position in bytes.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The contents of a text; or the position of an error, and its reason.
fn parse(
    text: &str,
    command: impl Fn() -> Command,
    check: impl Fn(&clap::ArgMatches) -> Result<(), String>,
) -> Result<Config, (usize, String)> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().to_string())
    })?;
    let mut config = Config::default();
    for (key, value) in table.into_inner() {
        let (at, key) = (key.span().start, key.into_inner());
        if key == "keys" {
            bind(&mut config.keys, at, value)?;
            continue;
        }
        if !OPTIONS.contains(&&*key) {
            return Err((at, format!("{key}: expected one of {} or [keys]", OPTIONS.join(", "))));
        }
        let argument = match value.into_inner() {
            // `false` is the default of every flag.
            DeValue::Boolean(false) => continue,
            DeValue::Boolean(true) => format!("--{key}"),
            DeValue::String(text) => format!("--{key}={text}"),
            DeValue::Integer(number) => format!("--{key}={number}"),
            DeValue::Float(number) => format!("--{key}={}", number.as_str()),
            other => {
                let got = other.type_str();
                return Err((at, format!("{key}: expected text, a number, true or false, got {got}")));
            }
        };
        let matches = command().try_get_matches_from(["dtop", "--demo", &argument]).map_err(|error| {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or("").trim_start_matches("error: ").to_string();
            (at, format!("{key}: {first}"))
        })?;
        debug_assert!(matches.value_source(&key) == Some(ValueSource::CommandLine));
        check(&matches).map_err(|reason| (at, format!("{key}: {reason}")))?;
        config.args.push(argument);
    }
    Ok(config)
}

/// Binds the keys of the table `[keys]`, which begins at a position.
fn bind(map: &mut KeyMap, at: usize, value: Spanned<DeValue<'_>>) -> Result<(), (usize, String)> {
    let DeValue::Table(table) = value.into_inner() else {
        return Err((at, "keys: expected a table [keys] of commands and their keys".into()));
    };
    let mut last = at;
    for (name, value) in table {
        let (at, name) = (name.span().start, name.into_inner());
        let Some(binding) = keys::all().find(|binding| binding.name == &*name) else {
            let names: Vec<_> = keys::all().map(|binding| binding.name).collect();
            return Err((at, format!("keys.{name}: expected one of {}", names.join(", "))));
        };
        let values = match value.into_inner() {
            DeValue::Array(values) => values.into_iter().map(Spanned::into_inner).collect(),
            one => vec![one],
        };
        let mut keys = Vec::new();
        for value in values {
            let text = match &value {
                DeValue::String(text) => text.to_string(),
                other => return Err((at, format!("keys.{name}: expected text, got {}", other.type_str()))),
            };
            let wrong = || {
                let expected = "expected a character, or a name as in space, pgup, f5, ctrl-x or alt-x";
                (at, format!("keys.{name}: {expected}, got {text:?}"))
            };
            keys.push(Key::parse(&text).ok_or_else(wrong)?);
        }
        map.bind(binding.command, &keys);
        last = last.max(at);
        // Each line by itself would refuse two commands that exchange their keys.
    }
    map.check().map_err(|(key, [one, other])| {
        (last, format!("keys: expected one command per key, got {key:?} for {one} and for {other}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::keys::Command as Meaning;

    fn read(text: &str) -> Result<Config, String> {
        let parsed = parse(text, cli::command, cli::check);
        parsed.map_err(|(at, reason)| format!("{}: {reason}", line_of(text, at)))
    }

    #[test]
    fn options_and_keys_are_read() {
        let text = "theme = \"light\"\nascii = true\nonce = false\nspeed = 2.5\n[keys]\nquit = [\"Q\", \"ctrl-q\"]\nsort = \"f\"\nstate = \"s\"\n";
        let config = read(text).unwrap();
        let mut args = config.args.clone();
        args.sort();
        assert_eq!(args, ["--ascii", "--speed=2.5", "--theme=light"]);
        assert_eq!(config.keys.names(Meaning::Quit), "Q ctrl-q");
        // Two commands can exchange their keys.
        assert_eq!((config.keys.names(Meaning::Sort), config.keys.names(Meaning::State)), ("f".into(), "s".into()));
    }

    #[test]
    fn an_error_names_line_and_key() {
        for (text, start) in [
            ("ascii = true\ncolour = 1\n", "2: colour: expected one of ascii, "),
            ("\n\ntheme = \"pink\"\n", "3: theme: invalid value 'pink'"),
            ("interval = 0\n", "1: interval: --interval: expected 0.05 to 60"),
            ("ascii = true\nsort = \"size\"\n", "2: sort: --sort: expected rank"),
            ("ascii = [1]\n", "1: ascii: expected text"),
            ("ascii = true\nx\n", "2: "),
            ("[keys]\nquit = \"q\"\nfly = \"y\"\n", "3: keys.fly: expected one of overview"),
            ("[keys]\nquit = \"qq\"\n", "2: keys.quit: expected a character"),
            ("[keys]\nquit = 1\n", "2: keys.quit: expected text, got integer"),
            ("[keys]\nsort = \"f\"\n", "2: keys: expected one command per key, got \"f\" for state and for sort"),
            ("keys = 1\n", "1: keys: expected a table"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(start), "{text}: {error}");
        }
    }
}
