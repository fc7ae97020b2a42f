//! Figure 3 of Zhang et al. 2016 in virtual time: 30 workers with a batch of 4 and momentum 0.9 at a rate of 0.05. With
//! n-softsync (here `updates=30/n`), a constant rate fails from some n on, and a rate that is divided by the staleness does
//! not.
//!
//! `cargo test -p gradwire-examples --test staleness -- --ignored --nocapture` prints the table of BENCHMARKS.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gradwire_core::{Cluster, PeerId, Recipe};
use gradwire_examples::data::shuffle;
use gradwire_examples::task::{Name, Task};
use gradwire_sim::{App, Network, Plan, Random, World};

const WORKERS: u32 = 30;
const BATCH: usize = 4;
const RATE: f32 = 0.05;
const MOMENTUM: f32 = 0.9;

/// Where the momentum is.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Place {
    /// In the optimizer of each worker.
    Workers,
    /// At the server, as in the paper.
    Server,
}

struct Learner {
    task: Box<dyn Task>,
    me: PeerId,
    seed: u64,
    random: Random,
    momentum: f32,
    velocity: Vec<f32>,
    gradient: Vec<f32>,
}

impl App for Learner {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_nanos((1e6 * (0.7 + 0.6 * self.random.unit())) as u64)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let all = self.task.examples();
        let share = all / WORKERS as usize;
        let batches = share.div_ceil(BATCH) as u64;
        let mut order: Vec<usize> = (0..all).collect();
        shuffle(&mut order, self.seed ^ (step / batches) << 32);
        let mine = &order[self.me.index() * share..][..share];
        let batch = mine.chunks(BATCH).nth((step % batches) as usize).unwrap();
        self.task.gradient(params, batch, &mut self.gradient);
        for ((update, velocity), gradient) in update.iter_mut().zip(&mut self.velocity).zip(&self.gradient) {
            *velocity = self.momentum * *velocity + gradient;
            *update = RATE * *velocity;
        }
        batch.len() as u32
    }
}

/// The accuracy on the test data after so many steps of each worker; 0 if the parameters have diverged.
fn accuracy(n: u32, staleness: &str, place: Place, hidden: &[usize], steps: u64, seed: u64) -> f64 {
    let mut text = format!("softsync updates={} staleness={staleness}", WORKERS / n);
    let mut momentum = MOMENTUM;
    if place == Place::Server {
        text += &format!(" outer=momentum mu={MOMENTUM}");
        momentum = 0.0;
    }
    let recipe: Recipe = text.parse().unwrap();
    let mut task = Name::Digits.open(hidden, seed, None).unwrap();
    let (layout, initial) = (task.layout(), task.initial(seed));
    let len = initial.len();
    let plan = Plan {
        network: Network::calm(),
        steps,
        initial,
        ..Plan::new(seed, layout, recipe, Cluster { workers: WORKERS, servers: 1 })
    };
    let learner = |me: PeerId| -> Box<dyn App> {
        Box::new(Learner {
            task: task.copy(),
            me,
            seed,
            random: Random::new(seed, 10 + u64::from(me.0)),
            momentum,
            velocity: vec![0.0; len],
            gradient: vec![0.0; len],
        })
    };
    let mut world = World::new(plan, learner).unwrap();
    world.run(u64::MAX, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap_or_else(|halt| panic!("{halt:?}"));
    let params = world.params(PeerId(0)).to_vec();
    if params.iter().all(|x| x.is_finite()) { task.evaluate(&params).0 } else { 0.0 }
}

/// Both halves of the figure, with a smaller model and fewer epochs.
#[test]
fn division_by_staleness_saves_what_a_constant_rate_loses() {
    for place in [Place::Workers, Place::Server] {
        let ends = |n, staleness| accuracy(n, staleness, place, &[48], 180, 1);
        assert!(ends(1, "const") > 0.85, "{place:?}");
        for n in [15, 30] {
            let [constant, inverse] = ["const", "inverse"].map(|staleness| ends(n, staleness));
            assert!(constant < 0.2 && inverse > 0.85, "{place:?}, n = {n}: {constant} and {inverse}");
        }
    }
}

#[test]
#[ignore = "prints a table, and takes minutes"]
fn table() {
    println!("| momentum | staleness | n = 1 | n = 15 | n = 30 |\n|---|---|---|---|---|");
    for place in [Place::Workers, Place::Server] {
        for staleness in ["const", "inverse", "inverse-plus-one"] {
            let cells = [1, 15, 30].map(|n| {
                let ends = (1..=5).map(|seed| accuracy(n, staleness, place, Name::Digits.hidden(), 240, seed));
                let mut ends: Vec<f64> = ends.collect();
                ends.sort_by(f64::total_cmp);
                let [least, median, most] = [0, 2, 4].map(|at| 100.0 * ends[at]);
                format!("{median:.1} % ({least:.1} to {most:.1})")
            });
            println!("| {place:?} | {staleness} | {} |", cells.join(" | "));
        }
    }
}
