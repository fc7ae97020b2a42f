//! Workers as threads learn handwritten digits together, by a recipe of your choice.
//!
//! `cargo run --release --example cluster -- --help` tells what can be chosen.

mod data;
mod model;
mod options;
mod report;
mod train;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use data::Data;
use model::Model;
use options::{Options, exit};
use report::Report;
use train::Progress;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // `--help` is no error.
        Err((0, text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err((code, text)) => {
            let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
            ExitCode::from(code)
        }
    }
}

fn run() -> Result<(), (u8, String)> {
    let options = Options::read()?;
    let data = match &options.data {
        Some(dir) => Data::load(dir),
        None => Data::digits(),
    };
    let (train, test) = data.map_err(|error| (exit::DATA, format!("data: {error}")))?.split(options.seed);
    let share = train.len() / options.cluster.workers as usize;
    if share == 0 {
        return Err((exit::CONFIG, format!("workers: expected at most {} (one image each)", train.len())));
    }
    let (train, progress) = (Arc::new(train), Arc::new(Progress::new(&options)));
    let mut judge = Model::new(test.pixels, &options.hidden, 256);
    let mut report = Report::new(&options, &judge, &train, &test);
    let outcome = train::run(&options, &train, &progress, || report.look(&progress, &mut judge, &test));
    let outcome = outcome.map_err(|error| {
        let code = if matches!(error, gradwire::Error::Config(_)) { exit::CONFIG } else { exit::RUN };
        (code, format!("cluster: {error}"))
    })?;
    let verdict = judge.evaluate(&outcome.params, &test);
    report.end(&outcome, verdict);
    if matches!(options.recipe.between(), gradwire::recipe::Topology::Mesh { .. }) && !outcome.replicas_equal() {
        return Err((exit::RUN, format!("cluster: replicas differ at the end: {:016x?}", outcome.digests)));
    }
    Ok(())
}
