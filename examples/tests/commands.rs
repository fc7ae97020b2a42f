//! The commands of the README and of the guide run as they are written there.
//!
//! Each line of a block of `sh` is run, or is in [`NOT_RUN`] with the reason. `cargo run … --example NAME --` stands for
//! the program, which the tests have built, so that they are not built again with another profile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Lines that are not run here, by a part of each, and why.
const NOT_RUN: [(&str, &str); 9] = [
    ("cargo test --workspace", "is what runs this test"),
    ("gradwire-tui", "is a program of another package, which its own tests run"),
    ("cargo install", "builds everything again, and writes to the user's directory"),
    ("node keygen cluster.key", "is run with the other lines for two machines by the test of networks"),
    ("node --key-file cluster.key", "is run by the test of networks, on two machines"),
    ("--rank 0 --processes 4", "is one process of several; the tests of live runs start all of them"),
    ("--rank 1 --processes 4", "is one process of several; the tests of live runs start all of them"),
    (
        "--monitor 127.0.0.1:7700",
        "lasts for as long as it is watched; the tests of monitors run it with ports of their own",
    ),
    ("--example compare", "takes a minute; the tests of compare run it with smaller budgets"),
];

/// The lines of all blocks of `sh` in a document, without comments.
fn commands(document: &str) -> Vec<String> {
    let blocks = document.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let lines = blocks.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(ToString::to_string).collect()
}

fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = std::fs::read_dir(root.join("src/guide")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = guide.chain([root.join("README.md")]).collect();
    paths.sort();
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
    paths.into_iter().map(read).collect()
}

/// The program and the arguments of a line.
fn program(line: &str) -> Command {
    let mut words: Vec<String> = shell_words(line);
    if words[..2] == ["cargo", "run"] {
        let example = words.iter().position(|word| word == "--example").map(|at| words[at + 1].clone());
        let name = example.unwrap_or_else(|| panic!("no example in {line:?}"));
        let args = words.iter().position(|word| word == "--").map_or(words.len(), |at| at + 1);
        words = [name].into_iter().chain(words.split_off(args)).collect();
    }
    let mut command = Command::new(binary::binary(&words[0]));
    command.args(&words[1..]);
    command
}

/// Words between spaces; double quotes keep spaces.
fn shell_words(line: &str) -> Vec<String> {
    let pieces = line.split('"').enumerate();
    let words = pieces.flat_map(|(i, piece)| match i % 2 {
        0 => piece.split_whitespace().map(ToString::to_string).collect::<Vec<_>>(),
        _ => vec![piece.to_string()],
    });
    words.collect()
}

#[test]
fn every_command_runs_as_written_or_says_why_not() {
    let directory = std::env::temp_dir().join(format!("gradwire-commands-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (mut ran, mut reasons, mut seen) = (0, vec![0; NOT_RUN.len()], Vec::new());
    for (name, text) in documents() {
        for line in commands(&text) {
            if let Some(at) = NOT_RUN.iter().position(|(part, _)| line.contains(part)) {
                reasons[at] += 1;
                continue;
            }
            if seen.contains(&line) {
                continue;
            }
            let begun = Instant::now();
            let mut child = program(&line)
                .current_dir(&directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{name}: {line}: {error}"));
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if begun.elapsed() > Duration::from_secs(60) {
                    let _ = child.kill();
                    panic!("{name}: {line}: still runs after a minute");
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            assert!(status.success(), "{name}: {line}: {status}");
            seen.push(line);
            ran += 1;
        }
    }
    let _ = std::fs::remove_dir_all(directory);
    assert!(ran >= 4, "{ran} commands: {seen:?}");
    for (count, (part, why)) in reasons.iter().zip(NOT_RUN) {
        assert!(*count > 0, "no document has {part:?} any more, which {why}");
    }
}
