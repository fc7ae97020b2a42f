//! Workers learn handwritten digits together, by a recipe of your choice: as threads, or as processes over TCP or
//! shared memory.
//!
//! `cargo run --release --example cluster -- --help` tells what can be chosen.

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
    // Started by itself, as one of the processes.
    if std::env::var_os(processes::CHILD).is_some() {
        return gradwire_examples::end(node::main(args));
    }
    gradwire_examples::end(run(args))
}

fn command() -> Command {
    let command = Command::new("cluster")
        .about("Workers learn handwritten digits together, by a recipe of your choice.")
        .after_help(format!(
            "{}\n\nExamples:\n  cluster --recipe ssp --bound 2 --slow-rank 3:4\n  cluster --recipe mesh --density 0.003 \
             --warmup 20\n  cluster --transport tcp --recipe sync --topology ring\n  cluster --pace 50 \
             --monitor 127.0.0.1:7700, and in another terminal: dtop 127.0.0.1:7700\n  cluster --recipe async --codec int8 \
             --pull threshold --pull-density 0.05 --json",
            options::recipes()
        ))
        .arg(
            value("workers", "Nodes that train")
                .default_value("4")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(u32).range(1..=1024)),
        )
        .arg(
            value("transport", "mem: threads of this process; tcp, shm: a process each")
                .default_value("mem")
                .value_parser(["mem", "tcp", "shm"]),
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
    let mut judge = Model::new(test.pixels, &options.hidden, 256);
    let transport = matches.get_one::<String>("transport").map_or("mem", String::as_str);
    if transport == "mem" {
        options.monitored(&matches, None, judge.layout().len())?;
    }
    let mut report = Report::new(&options, &judge, &train, &test);
    let outcome = if transport == "mem" {
        let model = Model::new(train.pixels, &options.hidden, options.batch);
        let initial = options.initial(&model)?;
        let (train, progress) = (Arc::new(train), Arc::new(Progress::new(&options)));
        let outcome = threads::run(&options, &train, &progress, &initial, || report.look(&progress, &mut judge, &test));
        let outcome = outcome.map_err(|error| {
            let code = if matches!(error, gradwire::Error::Config(_)) { exit::CONFIG } else { exit::RUN };
            (code, format!("cluster: {error}"))
        })?;
        options.keep(&model, outcome.params())?;
        outcome.judged(&mut judge, &test)
    } else {
        processes::run(&options, args)?
    };
    report.end(&outcome);
    let replicas = !options.recipe.needs_servers();
    if replicas && !outcome.replicas_equal() {
        return Err((exit::RUN, format!("cluster: replicas differ at the end: {:016x?}", outcome.digests)));
    }
    Ok(())
}
