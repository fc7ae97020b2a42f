//! Runs have an identity: processes and checkpoints of different runs do not mix, and settings that all processes must
//! share are compared and named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::path::Path;
use std::time::{Duration, Instant};

use process::{Process, port, scratch};

fn node(rank: u32, count: u32, meet: u16, args: &str) -> Process {
    Process::start("node", &format!("--rank {rank} --processes {count} --meet 127.0.0.1:{meet} --json {args}"))
}

fn nodes(count: u32, args: &str) -> Vec<Process> {
    let meet = port();
    (0..count).map(|rank| node(rank, count, meet, args)).collect()
}

/// The digest of an undisturbed run of two workers.
fn undisturbed(args: &str) -> String {
    Process::start("cluster", &format!("--json --workers 2 {args}")).end().succeeded().field("digest")
}

/// A process of another run that comes to the address of this one is refused at once. Both sides name both runs, and
/// the run that was disturbed ends as if nothing had happened.
#[test]
fn two_runs_at_one_address_do_not_mix() {
    for servers in ["sync", "async --servers 1"] {
        let meet = port();
        let args = format!("--recipe {servers} --epochs 2");
        let mut first = node(0, 2, meet, &format!("{args} --run morning --pace 100"));
        first.until("process 0 of 2");
        let begun = Instant::now();
        // The place of rank 1 is still free: the stranger would take it.
        let stranger = node(1, 2, meet, &format!("{args} --run evening")).end();
        let said = stranger.said.join("\n");
        assert_eq!(stranger.code, Some(3), "{said}");
        assert!(said.contains("this node is of run evening, the peer is of run morning"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "a refusal is no timeout");
        first.until("this node is of run morning, the peer is of run evening");
        let mut second = node(1, 2, meet, &format!("{args} --run morning --pace 100"));
        second.begins();
        let stranger = node(1, 2, meet, &format!("{args} --run evening --seed 2")).end();
        assert_eq!(stranger.code, Some(3), "{:#?}", stranger.said);
        // The last object of rank 0 is that of its server, which has no digest.
        let worker = |ended: process::Ended| process::Ended {
            said: ended.said.into_iter().filter(|line| !line.contains("\"digest\":\"0000000000000000\"")).collect(),
            ..ended
        };
        let digests = [first, second].map(|node| worker(node.end().succeeded()).field("digest"));
        assert_eq!(digests[0], digests[1]);
        if servers == "sync" {
            assert_eq!(digests[0], undisturbed("--recipe sync --epochs 2"));
        }
    }
}

/// Processes of different jobs do not meet, although neither has been given a run.
#[test]
fn the_job_of_a_launcher_names_the_run() {
    let meet = port();
    let start = |rank: u32, job: &str, step: &str| {
        let args = format!("--rank {rank} --processes 2 --meet 127.0.0.1:{meet} --json --recipe sync --epochs 1");
        Process::start_with("node", &args, &[("SLURM_JOB_ID", job), ("SLURM_STEP_ID", step)])
    };
    let first = start(0, "7", "0");
    let stranger = start(1, "7", "1").end();
    let said = stranger.said.join("\n");
    assert_eq!(stranger.code, Some(3), "{said}");
    assert!(said.contains("this node is of run slurm-7.1, the peer is of run slurm-7.0"), "{said}");
    let second = start(1, "7", "0");
    [first, second].into_iter().for_each(|node| drop(node.end().succeeded()));
}

/// A process that was not given the run of its peers adopts it, whichever rank was given it and however late that one
/// comes: also its checkpoints are of that run.
#[test]
fn a_process_without_a_run_adopts_that_of_its_peers() {
    for named in 0..3 {
        let directory = scratch(&format!("adopt-{named}"));
        let args = format!("--recipe sync --epochs 1 --checkpoint {} --every 20", directory.display());
        let meet = port();
        let start = |rank| {
            let run = if rank == named { "--run given" } else { "" };
            node(rank, 3, meet, &format!("{args} {run}"))
        };
        let mut all: Vec<_> = (0..3).filter(|rank| *rank != named).map(start).collect();
        // Rank 0 has proposed a name to the other ranks by then.
        if named > 0 {
            all[0].until("is connected");
        }
        all.push(start(named));
        all.drain(..).for_each(|node| drop(node.end().succeeded()));
        let runs: Vec<_> = std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(runs, ["given"]);
        assert!((0..3).all(|rank| !checkpoints(&directory, "given", rank).is_empty()));
    }
}

fn checkpoints(directory: &Path, run: &str, rank: u32) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join(run).join(format!("rank-{rank}"))).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// A short run beside a longer one of another name, in one directory: each keeps its own checkpoints, and goes on with
/// them. Without a name, the one that was written last goes on, and the other is named.
#[test]
fn two_runs_in_one_directory_do_not_mix() {
    let directory = scratch("directory");
    let run = |args: &str| {
        let args = format!("--recipe sync --checkpoint {} --every 10 {args}", directory.display());
        nodes(2, &args).into_iter().map(|node| node.end().succeeded()).collect::<Vec<_>>()
    };
    run("--run long --epochs 4");
    let before = checkpoints(&directory, "long", 0);
    run("--run short --epochs 1");
    assert_eq!(checkpoints(&directory, "long", 0), before);
    assert_eq!(checkpoints(&directory, "short", 0).len(), 3);
    assert!(checkpoints(&directory, "short", 0) < before);
    // 8 epochs of either seed are the same in one go and in two parts.
    let digest = |ends: Vec<process::Ended>| ends[0].field("digest");
    let expected = undisturbed("--recipe sync --epochs 6");
    let long = run("--run long --epochs 6 --resume");
    assert!(long[0].said.iter().any(|line| line.contains("run long goes on from this node's checkpoint")));
    assert_eq!(digest(long), expected);
    run("--run short --epochs 2");
    let last = run("--epochs 6 --resume");
    let told = last[0].said.iter().find(|line| line.contains("resuming run short, which was written last"));
    assert!(told.is_some_and(|line| line.ends_with("other runs there: long")), "{:#?}", last[0].said);
    assert_eq!(digest(last), expected);
}

/// Settings that all processes must choose alike are part of the contract: where two processes differ, both end with
/// code 3, and name the setting.
#[test]
fn every_hyper_parameter_is_agreed_on() {
    let directory = scratch("agree");
    let params = directory.join("params.safetensors");
    let exported = format!("--recipe sync --epochs 1 --seed 3 --export {}", params.display());
    Process::start("cluster", &format!("--json --workers 1 {exported}")).end().succeeded();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let other = directory.join("data");
    copy_with_changes(&data, &other);
    let checkpoint = format!("--checkpoint {}", directory.join("ckpt").display());
    for (ours, theirs, named) in [
        ("", "--seed 2", "seed = "),
        ("", "--batch 8", "batch = "),
        ("", "--rate 0.05", "rate = "),
        ("", "--epochs 3", "epochs = "),
        ("", "--decay 0.5", "decay = "),
        ("", "--momentum 0.5", "momentum = "),
        ("", "--hidden 64,32", "hidden = "),
        ("", "--task sequence", "task = "),
        ("", "--min-workers 2", "min-workers = "),
        ("", "--topology ring", "topology = "),
        ("", &format!("--init {}", params.display()), "initial parameters = "),
        ("", &format!("--data {}", other.display()), "data = "),
        (&format!("{checkpoint} --every 5"), &format!("{checkpoint} --every 6"), "checkpoint every = "),
    ] {
        let meet = port();
        let args = ["--recipe sync", ours].join(" ");
        let theirs = ["--recipe sync", theirs].join(" ");
        let all = [node(0, 2, meet, &args), node(1, 2, meet, &theirs)];
        for node in all {
            let ended = node.end();
            let said = ended.said.join("\n");
            assert_eq!(ended.code, Some(3), "{theirs}: {said}");
            let line = said.lines().find(|line| line.contains("another contract")).unwrap_or_default();
            assert_eq!(line.matches(named).count(), 2, "{theirs}: {said}");
        }
    }
}

/// Almost the images of `data`.
fn copy_with_changes(data: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(data).unwrap().flatten() {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.contains("images") {
            bytes[16..].iter_mut().step_by(64).for_each(|pixel| *pixel ^= 1);
        }
        if name.contains("ubyte") {
            std::fs::write(to.join(name.replace("digits", "train")), bytes).unwrap();
        }
    }
}
