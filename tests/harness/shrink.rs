//! Reduces a scenario that fails to the fewest faults with which it still fails, without the time that operations take if
//! that is possible, and prints the result.

use gradwire_core::Status;
use gradwire_sim::Halt;

use super::{Failure, Scenario, run};

/// Removes faults, one at a time, as long as the run still fails.
///
/// # Panics
/// If the scenario does not fail.
pub fn shrink(scenario: Scenario) -> (Scenario, Failure) {
    let mut smallest = scenario;
    let mut failure = run(&smallest).expect_err("expected a scenario that fails");
    // After a removal, faults that were needed before may have become removable: try all of them again.
    let mut removed = true;
    while std::mem::take(&mut removed) {
        for bit in (0..64).filter(|bit| smallest.mask & (1 << bit) != 0).collect::<Vec<_>>() {
            let candidate = Scenario::new(smallest.seed, smallest.mask & !(1 << bit));
            let candidate = keep_bug(candidate, &smallest);
            // The seed has nothing at this bit.
            let same = candidate.plan.faults.len() == smallest.plan.faults.len();
            let same = same && candidate.plan.ranges == smallest.plan.ranges;
            if same && candidate.plan.effort == smallest.plan.effort {
                smallest.mask = candidate.mask;
                continue;
            }
            if let Err(error) = run(&candidate) {
                (smallest, failure, removed) = (candidate, error, true);
            }
        }
    }
    (smallest, failure)
}

/// The candidate with the planted bug of the other scenario. The seed does not determine the bug.
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
    let (reason, statuses) = match failure {
        Failure::Violation(violation) => return violation.clone(),
        Failure::Halt(Halt::Stuck(statuses)) => ("deadlock: no event is left, and these nodes wait", statuses),
        Failure::Halt(Halt::Budget(statuses)) => ("the budget of events is used up; the nodes", statuses),
    };
    let mut text = String::from(reason);
    for status in statuses {
        let Status { me, role, clock, waiting, operations, .. } = status;
        let workers: Vec<_> =
            status.workers.iter().map(|w| format!("{}:{:?}@{}", w.rank, w.state, w.clock.0)).collect();
        text += &format!("\n  {me} {role:?} at {clock}, {operations} operations, {waiting:?}, workers {workers:?}");
    }
    text
}

/// The text for a scenario that fails: the failure, the scenario, and the command that runs it again.
pub fn report(scenario: &Scenario, failure: &Failure) -> String {
    format!(
        "{}\n{:?}, {:?}, {} steps in {} ranges, recipe {}\nnetwork {:?}\neffort {:?}\nfaults {:#?}\n\
         rerun: GRADWIRE_SCENARIO={}:{:x} cargo test --test schedules rerun -- --nocapture",
        describe(failure),
        scenario.kind,
        scenario.plan.cluster,
        scenario.plan.steps,
        scenario.plan.ranges,
        scenario.plan.recipe,
        scenario.plan.network,
        scenario.plan.effort,
        scenario.plan.faults,
        scenario.seed,
        scenario.mask,
    )
}
