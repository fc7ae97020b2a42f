//! The harness finds the mistakes that this kind of system makes: each is planted in turn, and must be found.
//!
//! Compiled with `RUSTFLAGS="--cfg planted"` only, in a target directory of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(planted)]

mod harness;

use gradwire_core::planted::Bug;
use harness::{Scenario, report, run, shrink};

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..60_000).find_map(|seed| {
            let mut scenario = Scenario::new(seed, u64::MAX);
            scenario.plan.bug = Some(bug);
            run(&scenario).is_err().then_some(scenario)
        });
        let scenario = found.unwrap_or_else(|| panic!("{bug:?} was not found in 60000 schedules"));
        let seed = scenario.seed;
        let (smallest, failure) = shrink(scenario);
        let text = report(&smallest, &failure);
        let what = text.lines().next().unwrap_or_default();
        println!("{bug:?}: found by schedule {seed}, shrunk to {} faults: {what}", smallest.plan.faults.len());
    }
}
