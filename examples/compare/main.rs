//! The program `compare`: published figures, run again in virtual time.
//!
//! `cargo run --release --example compare -- --reproduce NAME`; see `--help`.

mod html;
mod reproduce;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};
use gradwire_examples::options::{exit, matches, value};
use reproduce::{FIGURES, Size};

fn main() -> ExitCode {
    gradwire_examples::end(run(std::env::args_os().collect()))
}

fn command() -> Command {
    let names = FIGURES.iter().map(|figure| figure.name).chain(["all"]);
    let list: String = FIGURES.iter().map(|figure| format!("  {:<11} {}\n", figure.name, figure.about)).collect();
    Command::new("compare")
        .about("Runs published figures again, in virtual time.")
        .arg(
            value("reproduce", "NAME", "Figure to run, or all; see the list below")
                .value_parser(names.collect::<Vec<_>>())
                .hide_possible_values(true)
                .required(true),
        )
        .arg(
            value("seeds", "N", "Seeds of runs that learn [default: 5; 1 with --quick]")
                .value_parser(value_parser!(u64).range(1..=1000)),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .help("Fewer rows and shorter runs: seconds, not minutes")
                .action(ArgAction::SetTrue),
        )
        .arg(Arg::new("json").long("json").help("Print a JSON object per row").action(ArgAction::SetTrue))
        .after_help(format!("Figures:\n{list}"))
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = matches(command(), args)?;
    let quick = matches.get_flag("quick");
    let seeds = matches.get_one::<u64>("seeds").copied().unwrap_or(if quick { 1 } else { 5 });
    let name = matches.get_one::<String>("reproduce").map_or("all", String::as_str);
    for figure in FIGURES.iter().filter(|figure| name == "all" || figure.name == name) {
        let text = reproduce::print(figure, Size { seeds, quick }, matches.get_flag("json"));
        let text = text.map_err(|error| (exit::RUN, format!("--reproduce {}: {error}", figure.name)))?;
        let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    }
    Ok(())
}
