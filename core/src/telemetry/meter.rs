//! [`Meter`]: where the time of a node's application goes, step by step.

use super::{Stage, Times};

/// Measures the steps of an application: their number, their examples, and the time spent computing and waiting.
///
/// Times are nanoseconds since any origin; they should not run back. Sessions use a meter with the clock of the
/// process, simulations with virtual time.
///
/// ```
/// use gradwire_core::telemetry::{Meter, Stage};
///
/// let mut meter = Meter::new(0);
/// meter.joins(100);
/// meter.step_begins(160); // 60 ns of computing
/// meter.step_ends(200, 32); // 40 ns of waiting
/// let times = meter.times(250); // 50 ns into the next step
/// assert_eq!((times.steps, times.compute, times.wait, times.stepped), (1, 110, 40, 200));
/// assert_eq!((times.stepped_compute, meter.examples(), meter.stage()), (60, 32, Stage::Active));
/// ```
#[derive(Clone, Debug)]
pub struct Meter {
    stage: Stage,
    activity: Activity,
    /// The start of the node, and of the present activity.
    begun: u64,
    turned: u64,
    /// Activities that have ended.
    compute: u64,
    wait: u64,
    steps: u64,
    examples: u64,
    /// The end of the last step, and `compute` then.
    stepped: u64,
    stepped_compute: u64,
}

/// What the application does.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Activity {
    Computes,
    Waits,
    /// It has not begun, or has ended.
    Nothing,
}

impl Meter {
    /// A meter of a node that starts now, and has not joined yet.
    pub fn new(now: u64) -> Self {
        Self {
            stage: Stage::Joining,
            activity: Activity::Nothing,
            begun: now,
            turned: now,
            compute: 0,
            wait: 0,
            steps: 0,
            examples: 0,
            stepped: now,
            stepped_compute: 0,
        }
    }

    /// The node takes part from now on. A worker computes its first step.
    pub fn joins(&mut self, now: u64) {
        self.turn(now, Activity::Computes);
        (self.stage, self.stepped) = (Stage::Active, now);
    }

    /// The node takes part from now on as a server, which has no steps.
    pub fn serves(&mut self, now: u64) {
        self.turn(now, Activity::Nothing);
        self.stage = Stage::Active;
    }

    /// The application has computed, and calls for a step.
    pub fn step_begins(&mut self, now: u64) {
        self.turn(now, Activity::Waits);
    }

    /// The step of so many examples is done, and the application computes the next one.
    pub fn step_ends(&mut self, now: u64, examples: u64) {
        self.turn(now, Activity::Computes);
        self.steps += 1;
        self.examples += examples;
        (self.stepped, self.stepped_compute) = (now, self.compute);
    }

    /// The call for a step has ended without a step: the application computes the same step again.
    pub fn step_is_void(&mut self, now: u64) {
        self.turn(now, Activity::Computes);
    }

    /// The application waits for the end of its part.
    pub fn leaves(&mut self, now: u64) {
        self.turn(now, Activity::Waits);
        self.stage = Stage::Leaving;
    }

    /// The node's part has ended, with this stage.
    pub fn ends(&mut self, now: u64, stage: Stage) {
        self.turn(now, Activity::Nothing);
        self.stage = stage;
    }

    fn turn(&mut self, now: u64, to: Activity) {
        let span = now.saturating_sub(self.turned);
        match self.activity {
            Activity::Computes => self.compute += span,
            Activity::Waits => self.wait += span,
            Activity::Nothing => {}
        }
        (self.turned, self.activity) = (now, to);
    }

    /// How far the node is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Examples behind the steps so far.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// The times up to now, with the activity under way. The times of kernels and of transmissions are 0.
    pub fn times(&self, now: u64) -> Times {
        let mut meter = self.clone();
        meter.turn(now, self.activity);
        Times {
            elapsed: now.saturating_sub(self.begun),
            steps: self.steps,
            stepped: self.stepped.saturating_sub(self.begun),
            stepped_compute: self.stepped_compute,
            compute: meter.compute,
            wait: meter.wait,
            ..Times::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wait counts while it lasts, and the time of joining is neither computing nor waiting.
    #[test]
    fn activities_under_way_count() {
        let mut meter = Meter::new(10);
        assert_eq!((meter.times(500).compute, meter.times(500).wait, meter.stage()), (0, 0, Stage::Joining));
        meter.joins(1000);
        meter.step_begins(1100);
        let times = meter.times(1400);
        assert_eq!((times.steps, times.compute, times.wait, times.elapsed), (0, 100, 300, 1390));
        meter.step_is_void(1500);
        meter.step_begins(1600);
        meter.step_ends(1700, 8);
        let times = meter.times(1750);
        assert_eq!((times.steps, times.stepped, times.stepped_compute, times.compute), (1, 1690, 200, 250));
        meter.leaves(1800);
        meter.ends(2000, Stage::Finished);
        let times = meter.times(9000);
        assert_eq!((times.compute, times.wait, meter.examples(), meter.stage()), (300, 700, 8, Stage::Finished));
    }
}
