//! Tests of the harness: typical bugs are planted in the machines, one at a time, and random schedules must find each.
//!
//! The bugs are in `core/src/planted.rs`. They are compiled with `RUSTFLAGS="--cfg planted"` only; use a target
//! directory of its own for that build:
//!
//! ```sh
//! RUSTFLAGS="--cfg planted" cargo test --target-dir target/planted --test planted -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(planted)]

mod harness;

use std::panic::catch_unwind;

use gradwire_core::planted::Bug;
use harness::{Scenario, report, run, shrink};

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        // The simulator itself refuses some actions of a broken machine, with a panic.
        let fails = |scenario: &Scenario| catch_unwind(|| run(scenario).is_err()).unwrap_or(true);
        let found = (0..60_000).find_map(|seed| {
            let mut scenario = Scenario::new(seed, u64::MAX);
            scenario.plan.bug = Some(bug);
            fails(&scenario).then_some(scenario)
        });
        let scenario = found.unwrap_or_else(|| panic!("{bug:?} was not found in 60000 schedules"));
        let seed = scenario.seed;
        let Ok((smallest, failure)) = catch_unwind(|| shrink(scenario)) else {
            println!("{bug:?}: found by schedule {seed}: the simulator refuses what the machine does");
            continue;
        };
        let text = report(&smallest, &failure);
        let first = text.lines().next().unwrap_or_default();
        println!("{bug:?}: found by schedule {seed}, shrunk to {} faults: {first}", smallest.plan.faults.len());
    }
}
