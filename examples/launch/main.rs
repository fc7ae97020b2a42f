//! The program `launch`: starts the processes of a run on this machine, for instance `launch -n 4 -- node --recipe
//! ssp`.
//!
//! Each process finds its rank and the address of rank 0 in its environment. `launch` prints the output of all
//! processes with their ranks in front, restarts processes that fail, and stops all of them together. The program
//! `node` is built in; any other program is started as it is.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};
use gradwire_examples::children::{self, Children, End, Line, Plan};
use gradwire_examples::options::{exit, value};
use gradwire_examples::{cli, node};

fn main() -> ExitCode {
    if children::run_if_guardian() {
        return ExitCode::SUCCESS;
    }
    let mut args = std::env::args_os();
    // `launch` has started itself as the built-in program.
    if std::env::var_os(BUILT_IN).is_some() {
        // Its messages call it by its name.
        return gradwire_examples::end(node::main(["node".into()].into_iter().chain(args.skip(1)).collect()));
    }
    gradwire_examples::end(run(args.by_ref().collect()))
}

/// The environment variable of children that run the built-in program.
const BUILT_IN: &str = "GRADWIRE_BUILT_IN";

fn command() -> Command {
    Command::new("launch")
        .about("Starts the processes of a run on this machine, and stops them together.")
        .after_help(
            "Each process finds GRADWIRE_RANK, GRADWIRE_PROCESSES, GRADWIRE_LOCAL_RANK and GRADWIRE_MEET in its \
             environment.\n\nExamples:\n  \
             launch -n 4 -- node --recipe ssp --epochs 5\n  \
             launch -n 4 --restart 3 -- node --transport shm --recipe mesh\n  \
             launch -n 4 -- node --monitor 127.0.0.1:0    prints the address for dtop\n  \
             launch -n 2 -- ./my-trainer\n\n\
             When a process fails, the others are stopped. They go on if a signal from outside has killed it, since a \
             run survives that, or with --keep-going. SIGHUP, SIGINT, SIGQUIT and SIGTERM are passed on to all \
             processes; after 10 s, or at the second signal, what is still running is killed.\n\n\
             Exit code: that of the process that failed first, or 128 + N if signal N ended it. 128 + N also if signal \
             N stopped launch.",
        )
        .arg(
            value("processes", "N", "Number of processes, 1 to 1024")
                .short('n')
                .default_value("4")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32).range(1..=1024)),
        )
        .arg(
            value("restart", "N", "How often a process that fails is restarted")
                .default_value("0")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32)),
        )
        .arg(
            Arg::new("keep-going")
                .long("keep-going")
                .action(ArgAction::SetTrue)
                .help("Let the other processes go on when one has failed"),
        )
        .arg(
            Arg::new("command")
                .required(true)
                .num_args(1..)
                .trailing_var_arg(true)
                .value_name("PROGRAM")
                .help("The program and its arguments; node is built in")
                .value_parser(value_parser!(OsString)),
        )
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = cli::matches(command(), args)?;
    let count = matches.get_one::<u32>("processes").copied().unwrap_or(4);
    let restarts = matches.get_one::<u32>("restart").copied().unwrap_or(0);
    let mut command = matches.get_many::<OsString>("command").into_iter().flatten().cloned();
    let name = command.next().unwrap_or_default();
    let failed = |error: std::io::Error| (exit::RUN, format!("launch: cannot start {name:?}: {error}"));
    let program = match name == "node" {
        true => std::env::current_exe().map_err(failed)?.into_os_string(),
        false => name.clone(),
    };
    let args: Vec<OsString> = command.collect();
    let plan = Plan {
        program,
        args: if name == "node" { children::with_ports(args) } else { args },
        count,
        restarts,
        keep_going: matches.get_flag("keep-going"),
        env: (name == "node").then_some((BUILT_IN, "node")),
    };
    match Children::start(plan).map_err(failed)?.wait(print) {
        End::Success => Ok(()),
        End::Failed(failure) => Err((failure.exit.code(), format!("launch: {failure}"))),
        End::Stopped(signal) => {
            Err((children::Exit::Signal(signal).code(), format!("launch: stopped by {}", children::name(signal))))
        }
    }
}

/// Prints a line with its rank in front. It may not be text. A closed stdout or stderr must not end the run.
fn print(Line { rank, stderr, bytes }: Line) {
    let line = [format!("[{rank}] ").as_bytes(), &bytes, b"\n"].concat();
    let _ = if stderr { std::io::stderr().write_all(&line) } else { std::io::stdout().write_all(&line) };
}
