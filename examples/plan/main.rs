//! The program `plan`: is distributing worth it for a model, a number of machines and a network, and with which recipe?
//! Closed forms answer at once; see [`gradwire::plan`], of which this is the command.
//!
//! `cargo run --release --example plan -- --params 14600000 --step 120ms --link 1gbit --workers 2,4,8,16`; see `--help`.

mod answer;
mod input;
mod json;
mod links;
mod measure;
mod simulate;
mod table;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use answer::Answer;
use gradwire_examples::cli;
use gradwire_examples::options::exit;
use input::Input;

fn main() -> ExitCode {
    gradwire_examples::end(run(std::env::args_os().collect()))
}

fn run(args: Vec<OsString>) -> Result<(), (u8, String)> {
    let matches = cli::matches(input::command(), args)?;
    let text = |flag: &str| matches.get_one::<String>(flag);
    // Progress. With a closed stderr, there is no one to tell.
    let tell = |line: &str| _ = writeln!(std::io::stderr(), "plan: {line}");
    if let Some(at) = text("answer") {
        return links::answer(at, tell).map_err(|error| (exit::RUN, format!("--answer {at}: {error}")));
    }
    if text("to").is_some() && !matches.get_flag("measure") {
        return Err((exit::USAGE, "--to: expected --measure beside it, got none".into()));
    }
    if matches.get_flag("measure") {
        let params = input::params(&matches)?;
        let link = text("to").map(|to| {
            let measured = links::measure(to, 4 * params as u64, tell);
            measured.map_err(|error| {
                (exit::RUN, format!("--to {to}: {error}; expected a machine on which plan --answer runs"))
            })
        });
        let text = measure::write(&measure::costs(params), link.transpose()?);
        let _ = std::io::stdout().write_all(text.as_bytes());
        return Ok(());
    }
    let input = Input::from_matches(&matches)?;
    let answer = Answer::of(&input)?;
    let text = if input.json { json::text(&input, &answer) } else { table::text(&input, &answer) };
    // With a closed pipe (`| head`), there is nothing left to do.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
