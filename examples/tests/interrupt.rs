//! Ctrl-C and SIGTERM: each program prints a summary of what was done, says where the checkpoint is, and ends with
//! 128 + the number of the signal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use binary::binary;
use process::{Ended, Process, scratch};

const SIGNALS: [(&str, i32); 2] = [("-INT", 130), ("-TERM", 143)];

/// Starts a program as a shell does at a terminal: in a process group of its own.
fn start(program: &str, args: &str) -> Process {
    let mut command = Command::new(binary(program));
    command.args(args.split_whitespace()).process_group(0);
    Process::spawn(command)
}

/// Sends a signal to the process group, as Ctrl-C does to that in the foreground.
fn interrupt(process: &Process, signal: &str) {
    let group = format!("-{}", process.id());
    assert!(Command::new("kill").args([signal, "--", &group]).status().unwrap().success());
}

#[track_caller]
fn expect(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{:#?}", ended.said);
    let said = ended.said.join("\n");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// A process alone, and the processes of `launch`: rank 0 prints the model's figures, and each process its steps.
#[test]
fn processes_print_a_summary_after_a_signal() {
    for (program, args) in [("node", ""), ("launch", "-n 4 -- node")] {
        for (signal, code) in SIGNALS {
            let mut run = start(program, &format!("{args} --recipe averaging --pace 100 --epochs 1000"));
            run.until("epoch   1");
            interrupt(&run, signal);
            let ended = run.ends_within(Duration::from_secs(8));
            expect(&ended, code, &["accuracy  ", "test loss  ", "ended early by a signal", "time  ", "sent  "]);
            let count = if program == "node" { 1 } else { 4 };
            let name = if code == 130 { "signal 2 (SIGINT)" } else { "signal 15 (SIGTERM)" };
            let lines: Vec<_> =
                ended.said.iter().filter(|line| line.contains(&format!("ended early by {name} after "))).collect();
            assert_eq!(lines.len(), count, "{:#?}", ended.said);
            for line in lines {
                for part in [" steps, train loss ", " sent; no checkpoint was kept"] {
                    assert!(line.contains(part), "{part}: {line}");
                }
            }
            assert!(ended.said.iter().any(|line| line.contains("test accuracy ")), "{:#?}", ended.said);
        }
    }
}

/// The summary names the checkpoint, from which the run goes on.
#[test]
fn a_summary_names_the_checkpoint() {
    for recipe in ["sync", "mesh"] {
        let directory = scratch(&format!("interrupt-{recipe}"));
        let at = directory.display();
        let args = format!("-n 2 -- node --recipe {recipe} --run r --checkpoint {at} --resume");
        let mut run = start("launch", &format!("{args} --pace 100 --epochs 1000"));
        (0..2).for_each(|_| run.begins());
        interrupt(&run, "-INT");
        let ended = run.ends_within(Duration::from_secs(8));
        expect(&ended, 130, &[&format!("the checkpoint is in {at}: go on with --resume")]);
        // The same command line goes on from there.
        let mut again = start("launch", &format!("{args} --pace 100 --epochs 1000"));
        again.until("first step done");
        interrupt(&again, "-INT");
        expect(&again.ends_within(Duration::from_secs(8)), 130, &[]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// `cluster` as threads and as processes: the whole table, and the exit code.
#[test]
fn clusters_print_a_summary_after_a_signal() {
    for transport in ["mem", "tcp", "shm"] {
        let args = format!("--workers 2 --transport {transport} --recipe averaging --pace 100 --epochs 1000");
        let mut run = start("cluster", &args);
        // The first epoch: a line of the table, or of rank 0.
        run.until(if transport == "mem" { "    1  " } else { "epoch   1" });
        interrupt(&run, "-INT");
        let ended = run.ends_within(Duration::from_secs(8));
        expect(&ended, 130, &["accuracy  ", "steps  ", "sent  ", "ended early by signal 2 (SIGINT); no checkpoint"]);
    }
}

/// A process that cannot leave, since its peer is stopped, has a summary as well.
#[test]
fn a_process_that_cannot_leave_prints_a_summary() {
    let meet = process::port();
    let node = |rank: u32| {
        let args =
            format!("--rank {rank} --processes 2 --meet 127.0.0.1:{meet} --recipe sync --pace 100 --epochs 1000");
        start("node", &format!("{args} --dead-after 60"))
    };
    let mut all = [node(0), node(1)];
    all.iter_mut().for_each(Process::begins);
    all[1].signal("-STOP");
    std::thread::sleep(Duration::from_millis(300));
    let [first, stopped] = all;
    interrupt(&first, "-INT");
    let ended = first.ends_within(Duration::from_secs(5));
    expect(&ended, 130, &["node 0: ended early by signal 2 (SIGINT) after ", "train loss", "no checkpoint was kept"]);
    drop(stopped);
}

/// A process in a long step does not notice the signal: the grace ends it, with a summary.
#[test]
fn a_process_in_a_long_step_prints_a_summary() {
    let mut node = start("node", "--recipe sync --pace 20 --slow-rank 0:100 --epochs 9");
    node.begins();
    interrupt(&node, "-INT");
    let ended = node.ends_within(Duration::from_secs(4));
    expect(&ended, 130, &["--grace is over", "node 0: ended early by signal 2 (SIGINT) after 1 step, train loss"]);
}
