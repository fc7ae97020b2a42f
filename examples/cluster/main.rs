//! The program `cluster`: several workers learn a task together, by any recipe. Workers are threads, or
//! processes that are connected by TCP or shared memory.
//!
//! See `cargo run --release --example cluster -- --help`. `common/threads.rs` and `processes.rs` run the workers,
//! `report.rs` prints progress and results.

mod processes;
mod report;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Command, value_parser};
use gradwire_examples::options::{self, Options, exit, value};
use gradwire_examples::stop::Stop;
use gradwire_examples::threads::{self, Progress};
use gradwire_examples::{children, cli, node, recipes};
use report::Report;

fn main() -> ExitCode {
    if children::run_if_guardian() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    // `cluster` has started itself as one of the processes.
    if std::env::var_os(processes::CHILD).is_some() {
        return gradwire_examples::end(node::main(args));
    }
    gradwire_examples::end(run(args))
}

fn command() -> Command {
    let command = Command::new("cluster")
        .about("Workers learn a task together, as threads or as processes of this machine.")
        .after_help(format!(
            "{}\n\nExamples:\n  \
             cluster --recipe ssp --bound 2 --slow-rank 3:4\n  \
             cluster --recipe mesh --density 0.003 --warmup 20\n  \
             cluster --transport tcp --recipe sync --topology ring\n  \
             cluster --task sequence --recipe local-sparse --workers 2\n  \
             cluster --recipe async --codec int8 --pull threshold --pull-density 0.05 --json\n  \
             cluster --pace 50 --monitor 127.0.0.1:7700      and in another terminal: dtop 127.0.0.1:7700",
            recipes::help()
        ))
        .next_help_heading("Cluster")
        .arg(
            value("workers", "N", "Number of workers, 1 to 1024")
                .default_value("4")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32).range(1..=1024)),
        )
        .arg(
            value("transport", "NAME", "mem: workers are threads; tcp or shm: a process per worker")
                .default_value("mem")
                .value_parser(["mem", "tcp", "shm"])
                .hide_possible_values(true),
        );
    options::training(command)
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = cli::matches(command(), args.clone())?;
    let workers = matches.get_one::<u32>("workers").copied().unwrap_or(4);
    let mut options = Options::from_matches(&matches, workers)?;
    let mut task = options.open()?;
    let transport = matches.get_one::<String>("transport").map_or("mem", String::as_str);
    if transport == "mem" {
        options.start_monitoring(&matches, None, task.layout().len())?;
    }
    // Before the header of the table: the file of --init may not be usable.
    let initial = options.initial(&*task)?;
    let mut report = Report::new(&options, &*task);
    options.hint(&*task, options.json);
    let outcome = if transport == "mem" {
        let stop = Stop::asked_by_signals().map_err(|error| (exit::RUN, format!("signals: {error}")))?;
        let stop = Arc::new(stop);
        let progress = Progress { stop: Some(Arc::clone(&stop)), ..Progress::new(&options) };
        let (mut evaluator, progress) = (task.copy(), Arc::new(progress));
        let update = || report.update(&progress, &mut *evaluator);
        let outcome = threads::run(&options, &*task, &progress, &initial, update);
        let outcome = outcome.map_err(|error| {
            let code = if matches!(error, gradwire::Error::Config(_) | gradwire::Error::Several(_)) {
                exit::CONFIG
            } else {
                exit::RUN
            };
            (code, format!("cluster: {error}"))
        })?;
        options.write_export(&*task, outcome.params())?;
        let mut outcome = outcome.evaluated(&options, &mut *task);
        outcome.curve = report.curve();
        (outcome, stop.is_asked().then(|| stop.signal()))
    } else {
        processes::run(&options, args)?
    };
    let (outcome, signal) = outcome;
    report.end(&outcome);
    if let Some(signal) = signal {
        let text = format!("cluster: ended early by {}; no checkpoint was kept", children::name(signal));
        return Err((children::Exit::Signal(signal).code(), text));
    }
    options.end_monitoring();
    // With servers, the parameters of a worker may lack the last updates of the other workers.
    let replicas = !options.recipe.needs_servers();
    if replicas && !outcome.replicas_equal() {
        return Err((
            exit::RUN,
            format!(
                "cluster: expected equal parameters on all workers at the end, got the digests {:016x?}",
                outcome.digests
            ),
        ));
    }
    Ok(())
}
