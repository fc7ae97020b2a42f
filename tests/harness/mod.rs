//! Random runs of real machines in the simulator, and what must hold in each of them.
//!
//! Everything about a run follows from one seed: recipe, cluster, network, faults. Workers contribute integers
//! (multiples of 2^-10), so that what was contributed, what was applied and what is left can be compared exactly.
//! Element `j` of the vector belongs to worker `j` alone, which adds [`UNIT`] to it at every step: any replica shows
//! how many updates of each worker are in it.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test binary uses a part")]

mod check;
mod reference;
mod scenario;
mod shrink;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use check::{Failure, Seen, run};
use gradwire_core::{Duration, PeerId};
use gradwire_sim::{App, Random};
pub use scenario::{Kind, Scenario};
pub use shrink::{report, shrink};

/// What a worker adds to its own element at each step.
pub const UNIT: f32 = 8.0 / 1024.0;

/// What the workers saw and did, across the whole run.
#[derive(Debug, Default)]
pub struct Truth {
    /// Sum of all contributions, by element, as integers of 2^-10; by worker.
    pub contributed: Vec<Vec<i64>>,
    /// Contributions of each step: (examples, update), by worker.
    pub steps: BTreeMap<u64, BTreeMap<u32, (u32, Vec<i64>)>>,
    /// Parameters after each step, by worker.
    pub after: BTreeMap<u64, BTreeMap<u32, Vec<f32>>>,
    /// The first thing that a worker saw and should not have.
    pub complaint: Option<String>,
}

#[derive(Clone)]
pub struct Trainer {
    pub me: PeerId,
    pub workers: u32,
    /// Of the contributions; the pace has its own, or delays would change what is contributed.
    pub random: Random,
    pub pace: Duration,
    pub spread: f64,
    /// Own element when this worker last looked; a worker must always see its own updates.
    pub own: Option<f32>,
    pub sees_own: bool,
    /// With nobody crashing, a worker at step c must see every other's first `c - lag` updates.
    pub lag: Option<u64>,
    pub truth: Arc<Mutex<Truth>>,
}

impl Trainer {
    fn complain(&self, truth: &mut Truth, what: String) {
        truth.complaint.get_or_insert(what);
    }
}

impl App for Trainer {
    fn duration(&mut self, _step: u64) -> Duration {
        let mut random = Random::new(self.random.clone().next(), 4);
        let factor = 1.0 - self.spread + random.exponential(self.spread);
        Duration::from_nanos((self.pace.as_nanos() as f64 * factor) as u64 + 1)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let mine = self.me.index();
        let truth = Arc::clone(&self.truth);
        let mut truth = truth.lock().unwrap();
        let seen = params[mine];
        if let Some(expected) = self.own.filter(|expected| self.sees_own && *expected != seen) {
            let message = format!("worker {mine} at step {step} sees {seen} of its own updates, not {expected}");
            self.complain(&mut truth, message);
        }
        if let Some(lag) = self.lag {
            for (other, own) in params.iter().enumerate().take(self.workers as usize) {
                let count = (-own / UNIT).round();
                if count < step.saturating_sub(lag) as f32 {
                    let message = format!("worker {mine} at step {step} sees {count} updates of worker {other}");
                    self.complain(&mut truth, message);
                }
            }
        }
        for (i, x) in update.iter_mut().enumerate() {
            let units = match i {
                _ if i == mine => 8,
                _ if i < self.workers as usize => 0,
                _ => self.random.below(17) as i64 - 8,
            };
            *x = units as f32 / 1024.0;
        }
        let units: Vec<i64> = update.iter().map(|x| (x * 1024.0) as i64).collect();
        for (sum, x) in truth.contributed[mine].iter_mut().zip(&units) {
            *sum += x;
        }
        let examples = 1 + self.random.below(4) as u32;
        truth.steps.entry(step).or_default().insert(self.me.0, (examples, units));
        self.own = Some(seen - UNIT);
        examples
    }

    fn done(&mut self, step: u64, params: &[f32]) {
        self.truth.lock().unwrap().after.entry(step).or_default().insert(self.me.0, params.to_vec());
    }
}
