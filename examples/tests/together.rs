//! Processes that are killed or stopped, and started again with the same command line, go on together.
//!
//! `GRADWIRE_KILLS=200 cargo test -p gradwire-examples --test together kills` kills all processes 200 times.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use process::{PATIENCE, Process, port, scratch};

fn node(rank: u32, count: u32, meet: u16, args: &str) -> Process {
    Process::start("node", &format!("--rank {rank} --processes {count} --meet 127.0.0.1:{meet} --json {args}"))
}

fn nodes(count: u32, args: &str) -> Vec<Process> {
    let meet = port();
    (0..count).map(|rank| node(rank, count, meet, args)).collect()
}

fn undisturbed(args: &str) -> String {
    Process::start("cluster", &format!("--json {args}")).end().succeeded().field("digest")
}

/// The moments of which a rank has checkpoints, newest first. The directory has one run.
fn moments(directory: &Path, rank: u32) -> Vec<u64> {
    let run = std::fs::read_dir(directory).into_iter().flatten().flatten().next().map(|entry| entry.path());
    let own = run.map_or_else(PathBuf::new, |run| run.join(format!("rank-{rank}")));
    let files = std::fs::read_dir(own).into_iter().flatten().flatten().map(|entry| entry.path());
    let checkpoints = files.filter(|path| path.extension().is_some_and(|extension| extension == "gwck"));
    let mut clocks: Vec<u64> =
        checkpoints.map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap()).collect();
    clocks.sort_unstable_by(|a, b| b.cmp(a));
    clocks
}

/// Waits until a rank has a checkpoint of this moment or a later one. Returns the newest.
fn reaches(directory: &Path, rank: u32, moment: u64) -> u64 {
    let begun = Instant::now();
    loop {
        if let Some(newest) = moments(directory, rank).first().filter(|newest| **newest >= moment) {
            return *newest;
        }
        assert!(begun.elapsed() < PATIENCE, "rank {rank}: {:?}", moments(directory, rank));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// All processes are killed again and again, as by power failures, while they write a checkpoint after every step. They
/// are started again with the command line of the first start, and end with the parameters of a run without
/// interruption, bit for bit.
#[test]
fn kills_of_all_processes_change_nothing() {
    let kills: u64 = std::env::var("GRADWIRE_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut random = 0x9e37_79b9u64;
    // A run of 3 x 2,400 steps has room for many kills; more of them need more runs.
    for part in 0..kills.div_ceil(50) {
        let directory = scratch(&format!("kills-{part}"));
        let (recipe, epochs) = [("sync --momentum 0.5", 80), ("ring-bf16", 80)][part as usize % 2];
        let args = format!("--recipe {recipe} --epochs {epochs} --batch 16");
        let expected = undisturbed(&format!("--workers 3 {args}"));
        let line = format!("{args} --every 1 --checkpoint {} --resume", directory.display());
        let mut last = 0;
        for kill in 0..(kills - 50 * part).min(50) {
            let all = nodes(3, &format!("{line} --pace 300"));
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            last = reaches(&directory, (random >> 40) as u32 % 3, last + 1 + (random >> 33) % 20);
            // One after the other, so that some have written more checkpoints than the rest.
            let first = (random >> 50) as usize % 3;
            (0..3).for_each(|i| all[(first + i) % 3].signal("-KILL"));
            all.into_iter()
                .for_each(|node| assert_eq!(node.end().code, None, "kill {kill}: ended before it was killed"));
        }
        for node in nodes(3, &line) {
            assert_eq!(node.end().succeeded().field("digest"), expected, "{recipe}");
        }
        // Nothing half-written is left.
        for rank in 0..3 {
            let run = std::fs::read_dir(&directory).unwrap().flatten().next().unwrap().path();
            let names = std::fs::read_dir(run.join(format!("rank-{rank}"))).unwrap().flatten();
            let names: Vec<_> = names.map(|entry| entry.file_name().into_string().unwrap()).collect();
            assert!(names.len() == 3 && names.iter().all(|name| name.ends_with(".gwck")), "{names:?}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// A worker that is killed and started again with the same command line joins the run that is under way, even if its
/// files say something else.
#[test]
fn a_restarted_worker_joins_whatever_its_files_say() {
    for rank in [0, 2] {
        let directory = scratch(&format!("rejoins-{rank}"));
        let line = format!(
            "--recipe sync --epochs 60 --pace 200 --every 10 --dead-after 1 --checkpoint {} --resume",
            directory.display()
        );
        let meet = port();
        let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, &line)).collect();
        reaches(&directory, rank, 20);
        let killed = all.remove(rank as usize);
        killed.signal("-KILL");
        assert_eq!(killed.end().code, None);
        let other = (rank + 1) % 3;
        // Without rank 0 the other ranks wait.
        if rank > 0 {
            let seen = moments(&directory, other)[0];
            reaches(&directory, other, seen + 20);
        }
        let mut again = node(rank, 3, meet, &line);
        again.begins();
        all.push(again);
        let ends: Vec<_> = all.into_iter().map(|node| node.end().succeeded().field("digest")).collect();
        assert!(ends.iter().all(|digest| *digest == ends[0]), "{ends:?}");
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// SIGTERM to a synchronous run saves it. It goes on from there, and ends as without the interruption, bit for bit.
#[test]
fn sigterm_saves_a_synchronous_run() {
    for recipe in ["sync --momentum 0.5", "averaging --topology ring --period 3"] {
        let directory = scratch(&format!("term-{}", recipe.len()));
        let args = format!("--recipe {recipe} --epochs 8");
        let line = format!("{args} --every 100000 --checkpoint {} --resume", directory.display());
        let mut all = nodes(3, &format!("{line} --pace 200"));
        all.iter_mut().for_each(Process::begins);
        let begun = Instant::now();
        // At once, as launchers do: workers that are some rounds apart have no moment in common.
        let ids = all.iter().map(|node| node.id().to_string());
        assert!(Command::new("kill").arg("-TERM").args(ids).status().unwrap().success());
        for node in all {
            assert_eq!(node.end().terminated().field("drained"), "true", "{recipe}");
        }
        // With much room for a loaded machine; a deadline would be 60 s.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let has: Vec<_> = (0..3).map(|rank| moments(&directory, rank)).collect();
        assert!(has[0].iter().any(|moment| has.iter().all(|of| of.contains(moment))), "{recipe}: {has:?}");
        let expected = undisturbed(&format!("--workers 3 {args}"));
        for node in nodes(3, &line) {
            assert_eq!(node.end().succeeded().field("digest"), expected, "{recipe}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// A limit on the size of files is an error of checkpoints, told once, and does not end the training.
#[test]
fn a_limit_on_files_does_not_end_the_training() {
    let directory = scratch("limit");
    let node = binary::binary("node");
    let script = format!(
        "ulimit -f 16; exec {} --recipe sync --epochs 1 --every 5 --json --checkpoint {}",
        node.display(),
        directory.display()
    );
    let out = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{:?}: {said}", out.status);
    assert_eq!(said.matches("training goes on").count(), 1, "{said}");
    assert!(said.contains("File too large"), "{said}");
    std::fs::remove_dir_all(directory).unwrap();
}

/// The node that has a damaged file reports it, with the file that it takes instead.
#[test]
fn a_damaged_checkpoint_is_told() {
    let directory = scratch("damage");
    let line = format!("--recipe sync --epochs 1 --every 10 --checkpoint {} --resume", directory.display());
    nodes(2, &line).into_iter().for_each(|node| drop(node.end().succeeded()));
    let newest = moments(&directory, 1)[0];
    let run = std::fs::read_dir(&directory).unwrap().flatten().next().unwrap().path();
    let path = run.join("rank-1").join(format!("{newest:012}.gwck"));
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ends: Vec<_> = nodes(2, &line).into_iter().map(|node| node.end().succeeded()).collect();
    let told = ends[1].said.iter().filter(|line| line.contains("the checksum does not match")).collect::<Vec<_>>();
    let expected = format!("the one of moment {} is intact", newest - 10);
    assert!(told.len() == 1 && told[0].ends_with(&expected), "{:#?}", ends[1].said);
    assert_eq!(ends[0].field("digest"), ends[1].field("digest"));
}
