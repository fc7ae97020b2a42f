//! From a failing case to the smallest one that fails.

use gradwire_core::Status;
use gradwire_sim::Halt;

use super::{Failure, Scenario, run};

/// Takes away faults, one at a time, as long as the run still fails.
pub fn shrink(scenario: Scenario) -> (Scenario, Failure) {
    let mut smallest = scenario;
    let mut failure = run(&smallest).expect_err("only a failing case is shrunk");
    let mut again = true;
    while std::mem::take(&mut again) {
        for bit in (0..64).filter(|bit| smallest.mask & (1 << bit) != 0).collect::<Vec<_>>() {
            let candidate = Scenario::new(smallest.seed, smallest.mask & !(1 << bit));
            let candidate = keep_bug(candidate, &smallest);
            if candidate.plan.faults.len() == smallest.plan.faults.len() {
                smallest.mask = candidate.mask;
                continue;
            }
            if let Err(error) = run(&candidate) {
                (smallest, failure, again) = (candidate, error, true);
            }
        }
    }
    (smallest, failure)
}

fn keep_bug(candidate: Scenario, _of: &Scenario) -> Scenario {
    #[cfg(planted)]
    let candidate = {
        let mut candidate = candidate;
        candidate.plan.bug = _of.plan.bug;
        candidate
    };
    candidate
}

fn describe(failure: &Failure) -> String {
    let (what, statuses) = match failure {
        Failure::Broken(what) => return what.clone(),
        Failure::Halt(Halt::Stuck(statuses)) => ("stuck", statuses),
        Failure::Halt(Halt::Budget(statuses)) => ("no end in sight", statuses),
    };
    let mut text = String::from(what);
    for status in statuses {
        let Status { me, role, clock, waiting, operations, .. } = status;
        let workers: Vec<_> =
            status.workers.iter().map(|w| format!("{}:{:?}@{}", w.rank, w.state, w.clock.0)).collect();
        text += &format!("\n  {me} {role:?} at {clock}, {operations} operations, {waiting:?}, knows {workers:?}");
    }
    text
}

/// What is printed of a failing case: all that is needed to see it again.
pub fn report(scenario: &Scenario, failure: &Failure) -> String {
    format!(
        "{}\n{:?}, {:?}, {} steps, recipe {}\nnetwork {:?}\nfaults {:#?}\n\
         rerun: GRADWIRE_SCENARIO={}:{:x} cargo test --test schedules rerun -- --nocapture",
        describe(failure),
        scenario.kind,
        scenario.plan.cluster,
        scenario.plan.steps,
        scenario.plan.recipe,
        scenario.plan.network,
        scenario.plan.faults,
        scenario.seed,
        scenario.mask,
    )
}
