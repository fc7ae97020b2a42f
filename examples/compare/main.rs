//! The program `compare`: which synchronisation rule is best for a task, a cluster and a network? Every rule trains with
//! real arithmetic in virtual time, tuned with equal effort; see [`gradwire::compare`], of which this is the command.
//!
//! `cargo run --release -p gradwire-examples --example compare` gives a first answer within two minutes; see `--help`.

mod calibrate;
mod faults;
mod file;
mod html;
mod input;
mod json;
mod model;
mod repeat;
mod reproduce;
mod rules;
mod spark;
mod table;
mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use gradwire::compare::{Error, Report};
use gradwire_examples::options::exit;
use gradwire_examples::stop::Stop;
use gradwire_examples::{cli, paths};

use file::File;
use input::Input;
use watch::Watch;

fn main() -> ExitCode {
    gradwire_examples::end(run(std::env::args_os().collect()))
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let command = command(&args);
    let matches = cli::matches(input::command(), args)?;
    if let Some(name) = matches.get_one::<String>("reproduce") {
        return reproduce::run(name, &matches);
    }
    let input = Input::from_matches(&matches)?;
    if let Some(path) = &input.out {
        // A file that cannot be written is said before the runs, not after them.
        paths::try_file(path).map_err(|error| unwritten(path, &error))?;
    }
    if let Some(calibration) = &input.calibration {
        return calibrate::run(&command, &input, calibration);
    }
    if input.repetitions > 1 {
        return repeat::run(&command, &input);
    }
    let report = compare(&input, 0)?;
    let text = if input.json { json::text(&command, &report) } else { table::text(&command, &input, &report) };
    // With a closed pipe (`| head`), there is nothing left to do.
    let _ = std::io::stdout().write_all(text.as_bytes());
    let Some(path) = &input.out else { return Ok(()) };
    html::write(path, &report, &command).map_err(|error| unwritten(path, &error))
}

/// The error of a page that cannot be written.
fn unwritten(path: &Path, error: &std::io::Error) -> (u8, String) {
    (exit::DATA, format!("--out {}: {error}", path.display()))
}

/// Runs a repetition of the comparison. Runs that have ended are kept in the file of results.
fn compare(input: &Input, repetition: u64) -> Result<Report, (u8, String)> {
    let stop = Stop::asked_by_signals().map_err(|error| (exit::RUN, format!("signals: {error}")))?;
    let mut file = input.results.as_deref().map(File::open).transpose()?;
    let known = file.as_mut().map(File::take_known).unwrap_or_default();
    let (mut watch, mut failed) = (Watch::new(input.quiet), None);
    let report = input.comparison.clone().repetition(repetition).run_watched(&input.model, &known, |progress| {
        watch.see(&progress);
        if let (Some(file), Some(line), None) = (&mut file, progress.line, &failed) {
            failed = file.append(line).err();
        }
        if stop.is_asked() || failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    watch.end();
    if let Some(error) = failed {
        return Err(error);
    }
    report.map_err(|error| match error {
        Error::Stopped { ended, runs } => {
            let on = match &input.results {
                Some(path) => format!("the same command goes on from {}", path.display()),
                None => "nothing is kept; with --results FILE, the same command goes on".into(),
            };
            (stop.code(), format!("stopped after {ended} of {runs} runs: {on}"))
        }
        Error::Rule { .. } => (exit::CONFIG, error.to_string()),
        Error::NoValidation { .. } | Error::InitialLoss { .. } => (exit::DATA, error.to_string()),
        error => (exit::USAGE, error.to_string()),
    })
}

/// The command line, for the first line of the output.
fn command(args: &[OsString]) -> String {
    let quoted = |arg: &OsString| {
        let arg = arg.to_string_lossy();
        let is_plain = arg.chars().all(|c| c.is_alphanumeric() || "-_=.,/@:+".contains(c));
        if is_plain && !arg.is_empty() { arg.into_owned() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    let words: Vec<String> = ["compare".to_string()].into_iter().chain(args.iter().skip(1).map(quoted)).collect();
    words.join(" ")
}
