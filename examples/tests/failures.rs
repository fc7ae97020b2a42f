//! The lines of the guide's table "When nodes fail" that concern `launch`, and the lines that no other test shows.
//!
//! | other lines | tests |
//! |---|---|
//! | killed and restarted workers, coordinators, servers; stopped workers; keys, ranks, recipes | `live.rs` |
//! | runs, hyper-parameters | `run.rs` |
//! | checkpoints | `together.rs` |
//! | `SIGTERM`, `SIGINT` | `stopping.rs`, `together.rs`, `interrupt.rs` |
//! | networks that split | `network.rs`, `tests/splits.rs` of the library |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use process::{Ended, Process, port, scratch, signal};

fn node(rank: u32, count: u32, meet: u16, args: &str) -> Process {
    Process::start("node", &format!("--rank {rank} --processes {count} --meet 127.0.0.1:{meet} --json {args}"))
}

/// The digests that the processes of a run have printed.
fn digests(ended: &Ended) -> Vec<String> {
    let digest = |line: &String| Some(line.split_once("\"digest\":\"")?.1.get(..16)?.to_string());
    ended.said.iter().filter_map(digest).collect()
}

/// The process of a rank that this launch has started.
#[track_caller]
fn child(launch: &Process, rank: u32) -> u32 {
    let wanted = format!("GRADWIRE_RANK={rank}\0");
    let is_child = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        parent == Some(launch.id()) && String::from_utf8_lossy(&environment).contains(&wanted)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id| is_child(*id)).expect("a process of this rank")
}

/// A worker that is killed under `launch` is restarted, and the result is that of a run without a failure.
#[test]
fn launch_restarts_a_killed_worker() {
    let expected = Process::start("cluster", "--json --recipe sync --epochs 4 --workers 3").end().succeeded();
    let mut launch = Process::start("launch", "-n 3 --restart 1 -- node --json --recipe sync --epochs 4 --pace 50");
    (0..3).for_each(|_| launch.begins());
    signal(child(&launch, 1), "-KILL");
    launch.until("[1] ended: killed by signal 9 (SIGKILL); restarting");
    let ended = launch.end().succeeded();
    assert_eq!(digests(&ended), vec![expected.field("digest"); 3]);
}

/// Without a restart, the run goes on without the worker, and launch reports the failure.
#[test]
fn a_run_under_launch_survives_a_killed_worker() {
    let mut launch = Process::start("launch", "-n 3 -- node --json --recipe sync --epochs 4 --pace 50 --dead-after 1");
    (0..3).for_each(|_| launch.begins());
    signal(child(&launch, 1), "-KILL");
    launch.until("[1] ended: killed by signal 9 (SIGKILL); the other processes go on");
    launch.until("2 workers go on together");
    let ended = launch.end();
    let digests = digests(&ended);
    assert_eq!((ended.code, digests.len()), (Some(137), 2), "{:#?}", ended.said);
    assert_eq!(digests[0], digests[1]);
    assert!(ended.said.last().unwrap().contains("process 1 failed first (killed by signal 9"), "{:#?}", ended.said);
}

/// SIGTERM to launch saves the run of its processes. The same command line goes on from there.
#[test]
fn launch_passes_sigterm_on_and_the_run_is_saved() {
    let expected = Process::start("cluster", "--json --recipe sync --epochs 4 --workers 3").end().succeeded();
    let directory = scratch("launch-saves");
    let args =
        format!("-n 3 -- node --json --recipe sync --epochs 4 --run r --resume --checkpoint {}", directory.display());
    let mut launch = Process::start("launch", &format!("{args} --pace 50"));
    (0..3).for_each(|_| launch.begins());
    launch.signal("-TERM");
    let ended = launch.end();
    assert_eq!(ended.code, Some(143), "{:#?}", ended.said);
    assert_eq!(ended.said.iter().filter(|line| line.contains("\"drained\":true")).count(), 3, "{:#?}", ended.said);
    let ended = Process::start("launch", &args).end().succeeded();
    assert_eq!(digests(&ended), vec![expected.field("digest"); 3]);
}

/// With fewer workers than `--min-workers`, the rest waits, and names the worker that is missing.
#[test]
fn too_few_workers_wait_for_the_missing_one() {
    let meet = port();
    let args = "--recipe sync --epochs 3 --pace 50 --min-workers 3 --dead-after 1";
    let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, args)).collect();
    all.iter_mut().for_each(Process::begins);
    all[1].signal("-KILL");
    all[2].until("waiting for peer 1");
    all[0].until("waiting for peer 1");
    // It is back, and the run ends with all.
    let again = node(1, 3, meet, args);
    drop(std::mem::replace(&mut all[1], again));
    let digests: Vec<_> = all.into_iter().map(|node| node.end().succeeded().field("digest")).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// A worker that comes back after the end of the run ends with an error. Another worker is slow to leave, so that one
/// is left to tell it.
#[test]
fn a_worker_that_comes_back_too_late_ends_with_an_error() {
    let meet = port();
    let args = "--recipe sync --epochs 2 --pace 50 --dead-after 1 --deadline 5";
    let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, args)).collect();
    all.iter_mut().for_each(Process::begins);
    all[1].signal("-STOP");
    all[2].until("2 workers go on together");
    let late = all.remove(1);
    all.into_iter().for_each(|node| drop(node.end().succeeded()));
    late.signal("-CONT");
    let ended = late.end();
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
}

/// Without its killed coordinator, a mesh trains to its last step, and waits with the end until the coordinator is
/// back.
#[test]
fn a_mesh_goes_on_without_its_coordinator() {
    let meet = port();
    let args = "--recipe mesh --epochs 5 --pace 50 --dead-after 1";
    let mut all: Vec<_> = (0..3).map(|rank| node(rank, 3, meet, args)).collect();
    all.iter_mut().for_each(Process::begins);
    all[0].signal("-KILL");
    for other in &mut all[1..] {
        other.until("peer 0 was unreachable for too long; the run goes on without it");
        // Told after the last step.
        other.until("the residual held");
        other.until("waiting for peer 0");
    }
    let again = node(0, 3, meet, args);
    drop(std::mem::replace(&mut all[0], again));
    let ended: Vec<_> = all.into_iter().map(|node| node.end().succeeded()).collect();
    let fields = |name: &str| ended.iter().map(|ended| ended.field(name)).collect::<Vec<_>>();
    let (digests, steps) = (fields("digest"), fields("steps"));
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    assert_eq!((&steps[1], &steps[2]), (&"150".to_string(), &"150".to_string()));
}
