//! Prints what random schedules do, for comparing two revisions: `tests/compare-traces BASE` runs this test in both.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use harness::{Scenario, run};

/// Writes one line per seed to the file that `GRADWIRE_TRACES` names: the seed, the rule, and a hash over every output
/// of every machine with its time. `GRADWIRE_SCHEDULES` sets the number of seeds.
#[test]
fn traces() {
    let Ok(path) = std::env::var("GRADWIRE_TRACES") else { return };
    let count = std::env::var("GRADWIRE_SCHEDULES").map_or(6_000, |count| count.parse().unwrap());
    let mut lines = String::new();
    for seed in 0..count {
        let scenario = Scenario::new(seed, u64::MAX);
        let seen = run(&scenario).unwrap();
        lines += &format!("{seed} {:?} {:016x} {}\n", scenario.kind, seen.trace, seen.events);
    }
    std::fs::write(path, lines).unwrap();
}
