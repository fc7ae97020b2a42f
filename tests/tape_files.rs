//! Tapes as files: sessions over threads write them and follow them, and damaged ones are refused with their line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use gradwire::recipe::Topology;
use gradwire::{Builder, Cluster, Error, Layout, Mem, Recipe, RunState, Session, TapeError};

const LEN: usize = 24;
const WORKERS: u32 = 3;
const STEPS: u32 = 12;

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-tape-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    path
}

/// A pause that depends on the seed, so that runs differ in their order.
fn pause(seed: u64, rank: u32, step: u32) {
    let mixed = (seed * 977 + u64::from(rank) * 31 + u64::from(step) * 7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    thread::sleep(Duration::from_micros(mixed));
}

/// The final parameters of all nodes, or the first error.
fn run(recipe: &str, seed: u64, rate: f32, setting: impl Fn(Builder) -> Builder) -> Result<Vec<Vec<f32>>, Error> {
    let recipe: Recipe = recipe.parse().unwrap();
    let servers = match recipe.topology() {
        Topology::Servers { shards } => shards.min(2),
        _ => 0,
    };
    let cluster = Cluster { workers: WORKERS, servers };
    let mut threads = Vec::new();
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let builder = Session::builder(Layout::flat(LEN), recipe, cluster).deadline(Duration::from_secs(60));
        let builder = setting(builder.note("seed", 1));
        threads.push(thread::spawn(move || -> Result<Vec<f32>, Error> {
            let mut params = vec![0.5; LEN];
            if rank >= WORKERS {
                let mut server = builder.serve(transport, &params)?;
                while server.wait(&mut params, Duration::from_secs(60))? == RunState::Running {}
                return Ok(params);
            }
            let mut session = builder.join(transport, &mut params)?;
            for step in 0..STEPS {
                pause(seed, rank, step);
                let of = |(i, x): (usize, &f32)| rate * (x - ((i as u32 * 7 + rank * 5 + step) % 11) as f32);
                let update: Vec<f32> = params.iter().enumerate().map(of).collect();
                session.step(&mut params, &update, 8)?;
            }
            session.finish(&mut params)?;
            Ok(params)
        }));
    }
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn record(recipe: &str, seed: u64, directory: &Path) -> Vec<Vec<f32>> {
    run(recipe, seed, 0.1, |builder| builder.record_tape(directory)).unwrap()
}

fn follow(recipe: &str, seed: u64, directory: &Path) -> Result<Vec<Vec<f32>>, Error> {
    run(recipe, seed, 0.1, |builder| builder.follow_tape(directory))
}

#[test]
fn sessions_run_again_from_their_files() {
    for recipe in
        ["async", "softsync updates=2 shards=2", "ssp bound=2", "async overlap=true", "mesh", "async period=2ms"]
    {
        let directory = scratch(&recipe.replace([' ', '='], "-"));
        let first = record(recipe, 1, &directory);
        for seed in 2..5 {
            assert_eq!(follow(recipe, seed, &directory).unwrap(), first, "{recipe}");
        }
        let text = fs::read_to_string(directory.join("rank-0.tape")).unwrap();
        assert!(text.starts_with("gradwire tape 1\ncontract "), "{text}");
        let end = text.lines().last().unwrap();
        assert!(end.starts_with("end ") && end.len() == 20, "{end:?}");
        fs::remove_dir_all(directory).unwrap();
    }
}

/// A recipe with rounds has nothing to record. Its tapes still say how the run ended.
#[test]
fn the_tape_of_a_run_with_rounds_compares_its_end() {
    let directory = scratch("sync");
    record("sync", 1, &directory);
    assert_eq!(fs::read_to_string(directory.join("rank-1.tape")).unwrap().lines().count(), 4);
    follow("sync", 2, &directory).unwrap();
    let error = run("sync", 1, 0.2, |builder| builder.follow_tape(&directory)).unwrap_err();
    assert!(matches!(error, Error::Tape(TapeError::Differs { .. })), "{error}");
    fs::remove_dir_all(directory).unwrap();
}

/// The tape of a process that was killed ends in the middle of a line. The run follows the recorded part, and goes on.
#[test]
fn a_tape_without_an_end_is_followed_as_far_as_it_goes() {
    let directory = scratch("cut");
    record("async", 1, &directory);
    for file in fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let head: usize = text.lines().take(3).map(|line| line.len() + 1).sum();
        fs::write(&path, &text[..head + (text.len() - head) / 2]).unwrap();
    }
    follow("async", 2, &directory).unwrap();
    fs::remove_dir_all(directory).unwrap();
}

/// The error of a node that follows a damaged tape of rank 0.
fn refusal(change: impl Fn(&mut Vec<String>)) -> String {
    let directory = scratch("damaged");
    let recipe: Recipe = "mesh".parse().unwrap();
    let builder = || Session::builder(Layout::flat(4), recipe, Cluster { workers: 1, servers: 0 });
    let mut params = vec![0.0; 4];
    let mut session = builder().record_tape(&directory).join(Mem::cluster(1).remove(0), &mut params).unwrap();
    session.step(&mut params, &[1.0; 4], 1).unwrap();
    session.finish(&mut params).unwrap();
    let path = directory.join("rank-0.tape");
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_string).collect();
    change(&mut lines);
    fs::write(&path, lines.iter().flat_map(|line| [line, "\n"]).collect::<String>()).unwrap();
    let followed = builder().follow_tape(&directory).join(Mem::cluster(1).remove(0), &mut params);
    let error = followed.map(|_| ()).expect_err("the tape is damaged").to_string();
    fs::remove_dir_all(directory).unwrap();
    error
}

#[test]
fn damaged_tapes_are_refused_with_their_line() {
    type Change = fn(&mut Vec<String>);
    let cases: [(Change, &str); 8] = [
        (|lines| lines.clear(), "line 1: expected a tape: its format, contract and rank, got \"\""),
        (|lines| lines[0] = "gradwire tape 2".into(), "line 1: expected gradwire tape 1, got \"gradwire tape 2\""),
        (|lines| lines[1] = "contract x".into(), "line 2: expected contract DIGEST, got \"contract x\""),
        (|lines| lines[1] = "contract 7".into(), "it belongs to another run"),
        (|lines| lines[2] = "rank 4".into(), "expected rank 0, got rank 4"),
        (
            |lines| lines.insert(4, "stop".into()),
            "line 5: expected take, admit or answer with SHARD RANK, row SHARD, apply or give",
        ),
        (|lines| lines.insert(3, "break".into()), "line 4: in the recorded run, a worker was lost"),
        (|lines| lines.insert(3, "go".repeat(99)), "line 4: expected a line of at most 63 characters, got \"gogo"),
    ];
    for (change, expected) in cases {
        let error = refusal(change);
        assert!(error.contains(expected), "{error}");
    }
    assert!(refusal(|lines| lines.push("go".into())).contains("expected nothing after the end"));
}

#[test]
fn a_directory_without_the_tape_is_named() {
    let directory = scratch("none");
    let error = follow("async", 1, &directory).unwrap_err().to_string();
    assert!(error.contains("rank-") && error.contains(".tape: "), "{error}");
}

/// A tape does not tell which workers were in time for a round.
#[test]
fn rounds_of_the_first_have_no_tape() {
    let path = scratch("first");
    let error = run("backup-workers", 1, 0.1, |builder| builder.record_tape(&path)).unwrap_err();
    assert!(matches!(error, Error::Tape(TapeError::Timed)) && error.to_string().contains("pace=first"), "{error}");
}
