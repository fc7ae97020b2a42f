//! Command lines: parsing, help texts that fit the terminal, and errors of one line.

use std::ffi::OsString;

use clap::{ArgMatches, Command};

use super::options::exit;

/// The width of help texts where there is no terminal, and the limits of a terminal's.
const WIDTH: usize = 80;
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=100;

/// Parses a command line. The texts of `-h`, `--help` and `--version` are returned as errors with code 0.
///
/// # Errors
/// An exit code and a message of one line.
pub fn matches(command: Command, args: Vec<OsString>) -> Result<ArgMatches, (u8, String)> {
    let name = command.get_name().to_string();
    // `-h` lists the flags; `--help` explains as well.
    let long = command.get_after_help().cloned();
    let command = match long {
        Some(long) => command.after_help(format!("{name} --help says more.")).after_long_help(long),
        None => command,
    };
    command.version(env!("CARGO_PKG_VERSION")).try_get_matches_from(args).map_err(|error| match error.use_stderr() {
        true => (exit::USAGE, one_line(&error.to_string(), &name)),
        false => (0, wrapped(&error.to_string(), width())),
    })
}

/// An error of clap in one line, as all other errors of the programs are.
fn one_line(text: &str, name: &str) -> String {
    // The standard library describes a value that is no number in the words of its own parser.
    const WORDS: [(&str, &str); 7] = [
        (": invalid digit found in string", ": expected a whole number, 0 or more"),
        (": number too large to fit in target type", ": expected a smaller number"),
        (": cannot parse integer from empty string", ": expected a whole number, got nothing"),
        (": cannot parse float from empty string", ": expected a number, got nothing"),
        (": invalid float literal", ": expected a number"),
        (": 0 is not in 1..=4294967295", ": expected at least 1"),
        (": 0 is not in 1..18446744073709551615", ": expected at least 1"),
    ];
    let text = WORDS.iter().fold(text.to_string(), |text, (from, to)| text.replace(from, to));
    let said = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let mut line = String::new();
    for part in said.map(str::trim).filter(|part| !part.is_empty()) {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        match part.strip_prefix("tip: ") {
            Some(tip) => line += &format!(" ({tip})"),
            None if line.is_empty() => line += part,
            None => line += &format!(" {part}"),
        }
    }
    format!("{line}; see {name} --help")
}

/// The number of columns: of `COLUMNS`, or of the terminal.
fn width() -> usize {
    let variable = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    };
    variable.or_else(terminal).map_or(WIDTH, |width| width.clamp(*WIDTHS.start(), *WIDTHS.end()))
}

/// A text with lines of at most `width` columns. Lines of prose are filled; in lists and columns, a long line goes on
/// below its last column. Words longer than the width stand alone.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let mut line = line.to_string();
        // Prose was broken at some width; it is broken anew.
        if is_prose(&line) {
            while let Some(next) = lines.next_if(|next| is_prose(next)) {
                line += " ";
                line += next;
            }
        }
        wrap_line(&mut out, &line, width);
    }
    out
}

/// A line that belongs to a paragraph: it is not indented, not a heading, and has no columns.
fn is_prose(line: &str) -> bool {
    !line.is_empty()
        && !line.starts_with(' ')
        && !line.ends_with(':')
        && !line.trim().contains("  ")
        && !line.starts_with("Usage:")
}

fn wrap_line(out: &mut String, line: &str, width: usize) {
    let indent = line.len() - line.trim_start().len();
    // A column begins after two spaces.
    let column = line[indent..].rfind("  ").map_or(indent, |at| indent + at + 2);
    let hanging = if column * 2 < width { column } else { indent + 4 };
    let mut length = 0;
    // The part up to the column keeps its spaces.
    let (head, rest) = line.split_at(if column * 2 < width { column } else { indent });
    out.push_str(head);
    length += head.chars().count();
    let mut fresh = true;
    for word in rest.split(' ') {
        let chars = word.chars().count();
        if !fresh && length + 1 + chars > width {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', hanging));
            length = hanging;
            fresh = true;
        }
        if !fresh {
            out.push(' ');
            length += 1;
        }
        out.push_str(word);
        length += chars;
        fresh = false;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_below_their_column() {
        let text = "  --rate <RATE>  Learning rate of the first epoch\nA paragraph that\nwas broken elsewhere.\n\nList:\n  a  b\n";
        assert_eq!(
            wrapped(text, 40),
            "  --rate <RATE>  Learning rate of the\n                 first epoch\nA paragraph that was broken elsewhere.\n\n\
             List:\n  a  b\n"
        );
    }

    #[test]
    fn errors_are_of_one_line() {
        let clap = "error: unexpected argument '--x' found\n\n  tip: a similar argument exists: '--y'\n\nUsage: node --y\n\n\
                    For more information, try '--help'.";
        let line = "unexpected argument '--x' found (a similar argument exists: '--y'); see node --help";
        assert_eq!(one_line(clap, "node"), line);
        assert_eq!(one_line("error: required:\n  <A>\n", "p"), "required: <A>; see p --help");
    }
}
