//! Runs on several machines, which are network namespaces: names and addresses of all kinds, and networks that split.
//! Needs root; without it each test says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod machines;
#[allow(dead_code, reason = "the tests of this file use a part of it")]
mod process;

use machines::{Family, Machines};
use process::Process;

/// The helper itself: traffic crosses the router until a direction is cut, and again after it is mended.
#[test]
fn machines_reach_each_other_until_they_are_cut_off() {
    let Some(machines) = Machines::new("machines_reach_each_other_until_they_are_cut_off", 2, Family::Dual) else {
        return;
    };
    machines.limit(0, "100mbit");
    for address in [machines.v4(0), format!("[{}]", machines.v6(0))] {
        let args = |rank| {
            format!(
                "--rank {rank} --processes 2 --meet {address}:29510 --insecure-open --json --recipe sync --pace 100 \
                 --epochs 2 --dead-after 2 --min-workers 2"
            )
        };
        let mut both: Vec<Process> = (0..2).map(|rank| machines.start(rank, "node", &args(rank as u32))).collect();
        both.iter_mut().for_each(Process::begins);
        machines.cut(1, 0);
        // Whoever is not heard is disconnected by the other side, which hears nothing of it.
        both[0].until("peer 1 is disconnected");
        machines.heal();
        both[0].until("peer 1 is connected");
        drop(both);
    }
}
