//! The program `learning`: the cost of recipes in validation loss. It trains every row of a table with several seeds,
//! on threads of this process, and prints the table as Markdown or a JSON object per row.
//!
//! `cargo run --release --example learning -- --table codecs --seeds 5`; see `--help`.

mod measure;
mod rows;
mod tables;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use gradwire_examples::cli;
use gradwire_examples::options::value;
use gradwire_examples::task::Name;
use measure::Measure;
use tables::Table;

fn main() -> ExitCode {
    gradwire_examples::end(run(std::env::args_os().collect()))
}

fn command() -> Command {
    let number = |name, unit, default, help| value(name, unit, help).default_value(default);
    Command::new("learning")
        .about("Measures what recipes cost in validation loss, as tables over tasks and seeds.")
        .arg(
            value("table", "NAME", "codecs, ends, presets or bad [default: all]")
                .value_parser(["codecs", "ends", "presets", "bad"])
                .hide_possible_values(true),
        )
        .arg(number("seeds", "N", "5", "Runs of each row").value_parser(value_parser!(u64).range(1..)))
        .arg(
            value("task", "NAME", "digits, sequence or mixture [default: all]")
                .value_parser(Name::ALL.map(Name::text))
                .hide_possible_values(true),
        )
        .arg(value("filter", "TEXT", "Only rows whose recipe contains this text"))
        .arg(
            number("workers", "N", "4", "Number of workers (codecs, ends)").value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            value("epochs", "N", "Passes over the data [default: 20 for digits, 8 for sequence and mixture]")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            value("rate", "RATE", "Learning rate of one worker with plain SGD [default: the task's own]")
                .value_parser(value_parser!(f32)),
        )
        .arg(
            number("limit", "SECONDS", "60", "Time of a run after which it counts as failed")
                .value_parser(value_parser!(u64)),
        )
        .arg(Arg::new("json").long("json").help("Print a JSON object per row").action(ArgAction::SetTrue))
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = cli::matches(command(), args)?;
    let mut measure = Measure::new(
        matches.get_one::<u64>("seeds").copied().unwrap_or(5),
        matches.get_one::<u32>("epochs").copied(),
        matches.get_one::<f32>("rate").copied(),
        matches.get_one::<u64>("limit").copied().unwrap_or(60),
    );
    let workers = matches.get_one::<u32>("workers").copied().unwrap_or(4);
    let filter = text(&matches, "filter");
    for table in Table::ALL.iter().filter(|table| text(&matches, "table").is_none_or(|name| name == table.name)) {
        let mut rows = Vec::new();
        for task in Name::ALL.into_iter().filter(|task| text(&matches, "task").is_none_or(|name| name == task.text())) {
            rows.extend((table.rows)(task, workers));
        }
        rows.retain(|row| filter.is_none_or(|text| row.words().contains(text)));
        (table.print)(&mut measure, &rows, matches.get_flag("json"));
    }
    Ok(())
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}
