//! Starts processes of one run on this machine: `launch -n 4 -- node --recipe ssp`.
//!
//! Each gets its place in the environment; what it says is passed on with its rank in front; all are stopped together.
//! `node` is built in; any other program is started as it is.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};
use gradwire_examples::children::{Children, Said};
use gradwire_examples::node;
use gradwire_examples::options::{self, exit, value};

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    // Started by itself, as the program that is built in.
    if std::env::var_os(BUILT_IN).is_some() {
        return gradwire_examples::end(node::main(args.collect()));
    }
    gradwire_examples::end(run(args.by_ref().collect()))
}

/// Says that this is a child, and which.
const BUILT_IN: &str = "GRADWIRE_BUILT_IN";

fn command() -> Command {
    Command::new("launch")
        .about("Starts processes of one run on this machine, and stops them together.")
        .after_help(
            "Examples:\n  launch -n 4 -- node --recipe ssp --epochs 5\n  launch -n 4 --restart 3 -- node --transport shm \
             --recipe mesh\n  launch -n 2 -- ./my-trainer\n\nEach process finds GRADWIRE_RANK, GRADWIRE_PROCESSES, \
             GRADWIRE_LOCAL_RANK and GRADWIRE_MEET in its environment.\n\
             Exit code: that of the first process that failed; 130 after Ctrl-C.",
        )
        .arg(value("processes", "How many").short('n').default_value("4").value_parser(value_parser!(u32).range(1..=1024)))
        .arg(value("restart", "How often a process that fails is started again").default_value("0").value_parser(value_parser!(u32)))
        .arg(
            Arg::new("command")
                .required(true)
                .num_args(1..)
                .last(true)
                .value_name("PROGRAM")
                .help("What to start, and its arguments")
                .value_parser(value_parser!(OsString)),
        )
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = options::matches(command(), args)?;
    let count = matches.get_one::<u32>("processes").copied().unwrap_or(4);
    let restarts = matches.get_one::<u32>("restart").copied().unwrap_or(0);
    let mut command = matches.get_many::<OsString>("command").into_iter().flatten().cloned();
    let name = command.next().unwrap_or_default();
    let failed = |error: std::io::Error| (exit::RUN, format!("launch: {}: {error}", name.display()));
    let stop = node::stop_on_signals().map_err(failed)?;
    let program = match name == "node" {
        true => std::env::current_exe().map_err(failed)?.into_os_string(),
        false => name.clone(),
    };
    let built_in = (name == "node").then_some((BUILT_IN, "node"));
    let children = Children::start(program, command.collect(), count, restarts, built_in).map_err(failed)?;
    let codes = children.wait(&stop, |said| {
        let _ = match said {
            Said::Out(rank, line) => writeln!(std::io::stdout(), "[{rank}] {line}"),
            Said::Err(rank, line) => writeln!(std::io::stderr(), "[{rank}] {line}"),
        };
    });
    if stop.load(std::sync::atomic::Ordering::Relaxed) {
        return Err((130, "launch: stopped".to_string()));
    }
    match codes.iter().enumerate().find(|(_, code)| **code != 0) {
        None => Ok(()),
        Some((rank, code)) => {
            let how =
                if *code < 0 { format!("was killed by signal {}", -code) } else { format!("ended with code {code}") };
            Err((u8::try_from(*code).unwrap_or(exit::RUN), format!("launch: process {rank} {how}")))
        }
    }
}
