//! The program `cluster`: several workers learn handwritten digits together, by any recipe. Workers are threads, or
//! processes that are connected by TCP or shared memory.
//!
//! See `cargo run --release --example cluster -- --help`. `threads.rs` and `processes.rs` run the workers, `report.rs`
//! prints progress and results.

mod processes;
mod report;
mod threads;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Command, value_parser};
use gradwire_examples::data::Data;
use gradwire_examples::model::Model;
use gradwire_examples::node;
use gradwire_examples::options::{self, Options, exit, value};
use report::Report;
use threads::Progress;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // `cluster` has started itself as one of the processes.
    if std::env::var_os(processes::CHILD).is_some() {
        return gradwire_examples::end(node::main(args));
    }
    gradwire_examples::end(run(args))
}

fn command() -> Command {
    let command = Command::new("cluster")
        .about("Workers learn handwritten digits together, as threads or as processes of this machine.")
        .after_help(format!(
            "{}\n\nExamples:\n  \
             cluster --recipe ssp --bound 2 --slow-rank 3:4\n  \
             cluster --recipe mesh --density 0.003 --warmup 20\n  \
             cluster --transport tcp --recipe sync --topology ring\n  \
             cluster --recipe async --codec int8 --pull threshold --pull-density 0.05 --json\n  \
             cluster --pace 50 --monitor 127.0.0.1:7700      and in another terminal: dtop 127.0.0.1:7700",
            options::recipes()
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
    let matches = options::matches(command(), args.clone())?;
    let workers = matches.get_one::<u32>("workers").copied().unwrap_or(4);
    let mut options = Options::from_matches(&matches, workers)?;
    let data = match &options.data {
        Some(dir) => Data::load(dir),
        None => Data::digits(),
    };
    let (train, test) = data.map_err(|error| (exit::DATA, format!("data: {error}")))?.split(options.seed);
    let share = train.len() / options.cluster.workers as usize;
    if share == 0 {
        return Err((exit::CONFIG, format!("workers: expected at most {} (one image each)", train.len())));
    }
    let mut evaluator = Model::new(test.pixels, &options.hidden, 256);
    let transport = matches.get_one::<String>("transport").map_or("mem", String::as_str);
    if transport == "mem" {
        options.start_monitoring(&matches, None, evaluator.layout().len())?;
    }
    let mut report = Report::new(&options, &evaluator, &train, &test);
    let outcome = if transport == "mem" {
        let model = Model::new(train.pixels, &options.hidden, options.batch);
        let initial = options.initial(&model)?;
        let (train, progress) = (Arc::new(train), Arc::new(Progress::new(&options)));
        let outcome =
            threads::run(&options, &train, &progress, &initial, || report.update(&progress, &mut evaluator, &test));
        let outcome = outcome.map_err(|error| {
            let code = if matches!(error, gradwire::Error::Config(_)) { exit::CONFIG } else { exit::RUN };
            (code, format!("cluster: {error}"))
        })?;
        options.write_export(&model, outcome.params())?;
        outcome.evaluated(&mut evaluator, &test)
    } else {
        processes::run(&options, args)?
    };
    report.end(&outcome);
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
