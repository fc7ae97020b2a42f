//! Writes a hash of each random schedule to a file. `tests/compare-traces BASE` runs this test in two revisions and
//! compares the files, to show that a change of structure has not changed behaviour.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Scenario, run};

/// Writes one line per seed to the file that `GRADWIRE_TRACES` names: the seed, the kind of scenario, a hash over all
/// outputs of all machines with their times, and the number of events. `GRADWIRE_SCHEDULES` sets the number of seeds
/// (default 6,000).
#[test]
fn traces() {
    let Ok(path) = std::env::var("GRADWIRE_TRACES") else { return };
    let count = std::env::var("GRADWIRE_SCHEDULES").map_or(6_000, |count| count.parse().unwrap());
    let mut lines = String::new();
    for seed in 0..count {
        let scenario = Scenario::new(seed, u64::MAX);
        let coverage = run(&scenario).unwrap();
        lines += &format!("{seed} {:?} {:016x} {}\n", scenario.kind, coverage.trace, coverage.events);
    }
    std::fs::write(path, lines).unwrap();
}
