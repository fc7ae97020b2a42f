//! SIGTERM ends a process soon, in every state and role; a wait ends at its deadline, and the error names the peer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::time::Duration;

use process::{Ended, Process, port, scratch};

/// A process has to be gone two seconds after SIGTERM. One more second is for a machine with other work.
const SOON: Duration = Duration::from_secs(3);
/// SIGTERM has ended the process, whether it could leave or not.
const CUT: Option<i32> = Some(128 + 15);

fn node(rank: u32, count: u32, meet: u16, args: &str) -> Process {
    Process::start("node", &format!("--rank {rank} --processes {count} --meet 127.0.0.1:{meet} --json {args}"))
}

fn nodes(count: u32, args: &str) -> Vec<Process> {
    let meet = port();
    (0..count).map(|rank| node(rank, count, meet, args)).collect()
}

/// Starts nodes, and waits until all workers have done a step.
fn running(count: u32, workers: usize, args: &str) -> Vec<Process> {
    let mut all = nodes(count, args);
    all[..workers].iter_mut().for_each(Process::begins);
    all
}

#[track_caller]
fn terminate(node: Process) -> Ended {
    node.signal("-TERM");
    node.ends_within(SOON)
}

#[test]
fn sigterm_ends_a_wait_to_join() {
    let name = format!("--cluster stopping-{}", std::process::id());
    let checkpoints = scratch("stopping");
    let resume = format!("--recipe sync --resume --checkpoint {}", checkpoints.display());
    let cases = [
        (0, "--recipe sync"),
        (1, "--recipe sync"),
        (0, "--recipe mesh"),
        (1, "--recipe mesh"),
        (0, "--recipe async"),
        (1, "--recipe async"),
        // A server, and a coordinator of its own.
        (2, "--recipe async --apart"),
        (2, "--recipe sync --servers 1 --apart"),
        (0, "--recipe sync --transport shm"),
        (1, "--recipe sync --transport shm"),
        (0, resume.as_str()),
        (1, resume.as_str()),
    ];
    for (rank, args) in cases {
        let mut alone = node(rank, 3, port(), &format!("{args} {name}-{rank}"));
        alone.until("process ");
        // The signal must find the process in its wait, or on the way to it.
        std::thread::sleep(Duration::from_millis(200));
        let ended = terminate(alone);
        assert_eq!(ended.code, CUT, "rank {rank} of {args}: {:#?}", ended.said);
    }
}

/// Peers that are stopped hold everybody up: the first step, or later ones.
#[test]
fn sigterm_ends_a_step_that_waits_for_a_peer() {
    for recipe in ["sync", "sync --topology ring", "averaging", "hardsync", "ssp --bound 1", "mesh --pace 1000"] {
        let mut all = running(3, 3, &format!("--recipe {recipe} --epochs 1000 --dead-after 60"));
        all[0].signal("-STOP");
        std::thread::sleep(Duration::from_millis(300));
        for node in all.drain(1..) {
            let ended = terminate(node);
            assert_eq!(ended.code, CUT, "{recipe}: {:#?}", ended.said);
        }
    }
}

#[test]
fn sigterm_ends_a_wait_for_the_quorum() {
    let mut all = running(3, 3, "--recipe sync --epochs 1000 --min-workers 3 --dead-after 1");
    all[1].signal("-KILL");
    all[2].until("peer 1 was unreachable for too long");
    drop(all.remove(1));
    for node in all {
        let ended = terminate(node);
        assert_eq!(ended.code, CUT, "{:#?}", ended.said);
    }
}

#[test]
fn sigterm_ends_servers_and_coordinators_of_a_run() {
    for args in ["--recipe async", "--recipe hardsync", "--recipe sync --servers 1"] {
        let mut all = running(3, 2, &format!("{args} --apart --epochs 1000 --pace 50"));
        let ended = terminate(all.remove(2));
        assert_eq!(ended.code, CUT, "{args}: {:#?}", ended.said);
        // The workers wait for a server that does not come back.
        for node in all {
            let ended = terminate(node);
            assert!([Some(0), CUT].contains(&ended.code), "{args}: {:#?}", ended.said);
        }
    }
}

/// A worker that has finished waits for a slow one; a process computes, and is in no wait at all.
#[test]
fn sigterm_ends_a_wait_for_the_end_and_a_long_step() {
    for recipe in ["async", "mesh"] {
        let args = format!("--recipe {recipe} --pace 500 --epochs 1 --slow-rank 1:1000");
        let mut all = nodes(2, &args);
        all[0].begins();
        std::thread::sleep(Duration::from_secs(2));
        for node in all {
            let ended = terminate(node);
            assert_eq!(ended.code, CUT, "{recipe}: {:#?}", ended.said);
        }
    }
}

/// With a long grace, the process goes on to wait; a second signal ends it at once.
#[test]
fn a_second_signal_ends_a_process_at_once() {
    let mut all = running(2, 2, "--recipe sync --epochs 1000 --dead-after 60 --grace 60");
    all[0].signal("-STOP");
    std::thread::sleep(Duration::from_millis(300));
    let node = all.remove(1);
    node.signal("-TERM");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(terminate(node).code, CUT);
}

/// Each kind of wait has a deadline of its own, and the error names the peer.
#[test]
fn waits_end_at_their_deadlines() {
    let last = |ended: &Ended| ended.said.last().cloned().unwrap_or_default();
    for rank in [0, 1] {
        let ended = node(rank, 2, port(), "--recipe sync --join-deadline 0.5").ends_within(SOON);
        assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
        assert!(last(&ended).contains(&format!("to join: peer {} has not connected", 1 - rank)), "{:#?}", ended.said);
    }
    let ended = node(2, 3, port(), "--recipe async --apart --join-deadline 0.5").ends_within(SOON);
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
    assert!(last(&ended).contains("to meet a worker: peer 0 has not connected"), "{:#?}", ended.said);
    let mut all = running(2, 2, "--recipe sync --epochs 1000 --dead-after 60 --step-deadline 0.5");
    all[0].signal("-STOP");
    let ended = all.remove(1).ends_within(SOON);
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
    assert!(last(&ended).contains("to take a step: waiting for peer 0"), "{:#?}", ended.said);
    let mut all = nodes(2, "--recipe async --pace 500 --epochs 1 --slow-rank 0:1000 --leave-deadline 0.5");
    all[1].begins();
    let ended = all.remove(1).end();
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
    assert!(last(&ended).contains("to finish: waiting for peer 0"), "{:#?}", ended.said);
}

/// A server that has lost all its workers has not seen the end of the run.
#[test]
fn a_server_that_lost_all_workers_fails() {
    // It waits for workers to come back.
    for args in ["--recipe async", "--recipe hardsync", "--recipe sync --servers 1"] {
        let args = format!("{args} --apart --epochs 1000 --pace 50 --dead-after 0.5 --join-deadline 5");
        let mut all = running(2, 1, &args);
        all[0].signal("-KILL");
        let ended = all.remove(1).end();
        assert_eq!(ended.code, Some(4), "{args}: {:#?}", ended.said);
        let text = "to meet a worker: the connection to peer 0 (at clock";
        assert!(ended.said.last().unwrap().contains(text), "{:#?}", ended.said);
    }
}

/// The host of the coordinator stays until the other workers, which leave at the same time, have left.
#[test]
fn workers_that_stop_together_leave_together() {
    for (args, workers) in [("--recipe sync", 3), ("--recipe mesh", 3), ("--recipe sync --servers 1 --apart", 2)] {
        let all = running(3, workers, &format!("{args} --epochs 1000 --pace 50 --grace 20"));
        all.iter().for_each(|node| node.signal("-TERM"));
        for node in all {
            let ended = node.ends_within(SOON);
            assert_eq!(ended.code, CUT, "{args}: {:#?}", ended.said);
            assert!(!ended.said.iter().any(|line| line.contains("unreachable for too long")), "{:#?}", ended.said);
        }
    }
}

/// A worker 0 that cannot go on takes the servers of its process with it, and they say so. No worker waits for them.
#[test]
fn servers_of_a_failed_process_say_so() {
    let meet = port();
    let args = "--recipe hardsync --epochs 1000 --dead-after 60";
    let mut first = node(0, 3, meet, &format!("{args} --step-deadline 0.5"));
    let mut others: Vec<_> = (1..3).map(|rank| node(rank, 3, meet, args)).collect();
    first.begins();
    others.iter_mut().for_each(Process::begins);
    others[1].signal("-STOP");
    let ended = first.ends_within(SOON);
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
    let ended = others.remove(0).ends_within(SOON);
    assert_eq!(ended.code, Some(4), "{:#?}", ended.said);
    let said = ended.said.join("\n");
    assert!(said.contains("peer 0 has failed: it waited for peer 2 until its deadline"), "{said}");
    assert!(said.contains("peer 3 has failed: it could not go on without peer 0"), "{said}");
}
