//! The figures and the page of the program `compare`: published laws at a small size, and the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
// For their tests. With `test = true`, Cargo would build the tests of the program in place of the program.
#[path = "../compare/html/mod.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod html;
#[path = "../compare/reproduce/mod.rs"]
#[allow(dead_code, reason = "only the tests are run here")]
mod reproduce;

use std::process::{Command, Output};

use binary::binary;

fn compare(args: &str) -> Output {
    Command::new(binary("compare")).args(args.split_whitespace()).current_dir(std::env::temp_dir()).output().unwrap()
}

/// Every figure has a table whose rows have a cell per column, the same in every run.
#[test]
fn all_figures_are_printed() {
    let output = compare("--reproduce all --quick");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut columns = 0;
    for line in text.lines() {
        let cells = line.matches(" |").count();
        if line.starts_with("|---") {
            assert_eq!(line.matches("---|").count(), columns, "{line}");
        } else if line.starts_with('|') {
            assert!(columns == 0 || cells == columns, "{line}");
            columns = cells;
        } else {
            columns = 0;
        }
    }
    assert_eq!(text.matches("\n|---").count(), 11, "a table per figure, two for averaging:\n{text}");
    let again = |args| String::from_utf8(compare(args).stdout).unwrap();
    assert!(text.contains(again("--reproduce faults --quick").trim_end()));
}

#[test]
fn a_figure_is_a_json_object_per_row() {
    let output = compare("--reproduce staleness --quick --json");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    for line in text.lines() {
        assert!(line.starts_with("{\"figure\":\"staleness\",") && line.ends_with('}'), "{line}");
        assert!(line.contains("\"mean staleness\":") && line.contains("\"published\":\""), "{line}");
    }
}

#[test]
fn wrong_flags_are_refused() {
    for (args, message) in [
        ("--reproduce rudra", "invalid value 'rudra'"),
        ("--reproduce staleness --task digits", "cannot be used with '--task"),
        ("--reproduce zhang --seeds 0", "--seeds: expected at least 1, got 0"),
        ("--quick", "--reproduce"),
    ] {
        let output = compare(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {error}");
        assert!(error.contains(message), "{args}: {error}");
    }
}

#[test]
fn a_page_that_cannot_be_written_is_named() {
    let output = compare("--out /nowhere/report.html");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("/nowhere/report.html"), "{error}");
}
