//! Published figures, run again in virtual time: `compare --reproduce NAME`. One file per figure.
//!
//! A figure is a function that runs simulations and returns tables: our numbers, beside the published ones where there
//! are any. Equal settings give equal tables, on every machine.

mod averaging;
mod backup;
mod bandwidth;
mod fasgd;
mod faults;
mod momentum;
mod staleness;
mod stragglers;
mod table;
mod thinning;
mod training;
mod zhang;

use std::io::Write as _;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Id};
use gradwire_examples::options::{self, exit};

pub(crate) use table::{Cell, Table};

/// Why a figure cannot be made.
pub(crate) type Error = Box<dyn std::error::Error>;

/// A figure, or a table, of a publication.
pub(crate) struct Figure {
    /// The value of `--reproduce`.
    pub(crate) name: &'static str,
    /// What is run again, for `--help`.
    pub(crate) about: &'static str,
    pub(crate) tables: fn(Size) -> Result<Vec<Table>, Error>,
}

/// How much is run.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Size {
    /// Seeds of runs that learn.
    pub(crate) seeds: u64,
    /// Fewer rows, fewer workers and shorter runs, for tests: seconds in place of minutes.
    pub(crate) quick: bool,
}

impl Size {
    /// One of two numbers.
    pub(crate) fn of<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// All figures, in the order of `--reproduce all`.
pub(crate) const FIGURES: [Figure; 10] = [
    Figure {
        name: "staleness",
        about: "softsync with 30 workers: how late updates are (Zhang et al. 2016)",
        tables: staleness::tables,
    },
    Figure {
        name: "zhang",
        about: "a constant rate, and one over the staleness (Zhang et al. 2016)",
        tables: zhang::tables,
    },
    Figure {
        name: "averaging",
        about: "speed and loss over the period; block momentum, AdaComm (FleetX)",
        tables: averaging::tables,
    },
    Figure {
        name: "bandwidth",
        about: "compression at 100, 10 and 1 Gbit/s (FleetX; Lin et al. 2018)",
        tables: bandwidth::tables,
    },
    Figure {
        name: "stragglers",
        about: "steps of 0.58, 0.75, 1.51 and 3.33 s (Liu et al. 2024)",
        tables: stragglers::tables,
    },
    Figure {
        name: "backup",
        about: "the time of a round over backup workers (Chen et al. 2016)",
        tables: backup::tables,
    },
    Figure {
        name: "momentum",
        about: "momentum of merged updates over the period (a draft study)",
        tables: momentum::tables,
    },
    Figure {
        name: "fasgd",
        about: "FASGD and a rate over the staleness, 4 to 128 workers (Odena 2016)",
        tables: fasgd::tables,
    },
    Figure {
        name: "thinning",
        about: "fewer pushes and fetches at an asynchronous server (Odena 2016)",
        tables: thinning::tables,
    },
    Figure {
        name: "faults",
        about: "a slow worker, heavy tails, and kills (no published numbers)",
        tables: faults::tables,
    },
];

/// Adds the flags. All others describe a comparison, except for `--seeds` and `--json`.
pub(crate) fn flags(command: Command) -> Command {
    let names = FIGURES.iter().map(|figure| figure.name).chain(["all"]);
    let list: Vec<String> = FIGURES.iter().map(|figure| format!("{}: {}", figure.name, figure.about)).collect();
    let other = |arg: &&Arg| !["seeds", "json", "help"].contains(&arg.get_id().as_str());
    let others: Vec<Id> = command.get_arguments().filter(other).map(|arg| arg.get_id().clone()).collect();
    command
        .arg(
            options::value("reproduce", "NAME", "")
                .help(format!("Run a published figure again, or all of them:\n{}", list.join("\n")))
                .value_parser(names.collect::<Vec<_>>())
                .hide_possible_values(true)
                .conflicts_with_all(others),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .help("Fewer rows and shorter runs of a figure: seconds, not minutes")
                .action(ArgAction::SetTrue)
                .requires("reproduce"),
        )
}

/// Prints the tables of `--reproduce`, one after the other.
///
/// # Errors
/// An exit code and a message that names the figure, if a simulation cannot be run.
pub(crate) fn run(name: &str, matches: &ArgMatches) -> Result<(), (u8, String)> {
    let (quick, json) = (matches.get_flag("quick"), matches.get_flag("json"));
    let given = matches.get_one::<u64>("seeds").copied().unwrap_or(1);
    let is_default = matches.value_source("seeds") != Some(ValueSource::CommandLine);
    let seeds = if quick && is_default { 1 } else { given };
    if seeds == 0 {
        return Err((exit::USAGE, "--seeds: expected at least 1, got 0".into()));
    }
    for figure in FIGURES.iter().filter(|figure| name == "all" || figure.name == name) {
        let text = print(figure, Size { seeds, quick }, json);
        let text = text.map_err(|error| (exit::RUN, format!("--reproduce {}: {error}", figure.name)))?;
        // With a closed pipe (`| head`), there is nothing left to do.
        if write!(std::io::stdout(), "{text}{}", if json { "" } else { "\n" }).is_err() {
            break;
        }
    }
    Ok(())
}

/// The tables of a figure as text, or as a JSON object per row.
///
/// # Errors
/// If a simulation cannot be run.
fn print(figure: &Figure, size: Size, json: bool) -> Result<String, Error> {
    let tables = (figure.tables)(size)?;
    let text = |table: &Table| if json { table.json(figure.name) } else { table.markdown() };
    Ok(tables.iter().map(text).collect::<Vec<_>>().join(if json { "" } else { "\n" }))
}
