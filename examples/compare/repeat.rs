//! `--repeat`: the same comparison with other seeds, and which of its winners stay.

use std::fmt::Write as _;
use std::io::Write as _;

use gradwire::compare::{Report, Stability};

use super::input::Input;
use super::{compare, json, table};

/// Compares so many times. Equal commands have equal answers.
pub(crate) fn run(command: &str, input: &Input) -> Result<(), (u8, String)> {
    let reports: Vec<Report> = (0..input.repetitions).map(|at| compare(input, at)).collect::<Result<_, _>>()?;
    let stabilities = Stability::of(&reports);
    let text = match input.json {
        true => json::repeated(command, &reports, &stabilities),
        false => table::head_text(command, &reports[0]) + &text(&reports[0], &stabilities),
    };
    // With a closed pipe (`| head`), there is nothing left to do.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// A block per criterion: how many repetitions agree, and how often each rule wins.
fn text(report: &Report, stabilities: &[Stability]) -> String {
    let mut out = String::new();
    for it in stabilities {
        let stable = if it.is_stable() { "stable" } else { "NOT STABLE" };
        let (agree, all) = (it.agreeing(), it.answers.len());
        // Writing to a string does not fail.
        let _ = writeln!(out, "\n{}: {agree} of {all} repetitions agree, {stable}", it.criterion.name());
        for (at, row) in report.rows.iter().enumerate().filter(|(at, _)| it.wins(*at) > 0) {
            let others: Vec<_> = it.answers.iter().filter(|answer| answer.winner == Some(at)).collect();
            let against = others.iter().filter(|answer| !answer.agrees).count();
            let note = match against {
                _ if it.row == Some(at) => "the winner of most".into(),
                0 => "no difference shown to the winner of most".into(),
                n => format!("{n} times with a difference to the winner of most"),
            };
            let name: String = row.name.chars().take(24).collect();
            let _ = writeln!(out, "  {name:<24} wins {:>3}  {note}", it.wins(at));
        }
        let none = it.answers.iter().filter(|answer| answer.winner.is_none()).count();
        if none > 0 {
            let _ = writeln!(out, "  {:<24}      {none:>3}", "no winner");
        }
    }
    out + "\nA repetition agrees if its winner is that of most repetitions, or if it shows no\n\
           difference between the two. Stable: at least 9 of 10 agree.\n"
}
