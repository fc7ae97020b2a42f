//! What B-FASGD (Odena 2016) saves, and what it costs: digits in virtual time, 16 workers with a batch of 4 and a rate of
//! 0.1, 400 steps of each.
//!
//! `cargo run --release -p gradwire-examples --example thinning` prints the table of BENCHMARKS.md, a row after the other.
//! Arguments are recipes to measure in place of its rows.

use std::time::Duration;

use gradwire::sim::{Error, Learner, Links, Outcome, Simulation, Speed, Step, Sweep, Validation, Worker};
use gradwire::{Cluster, Recipe};
use gradwire_examples::data::shuffle;
use gradwire_examples::task::{Name, Task};

const WORKERS: u32 = 16;
const BATCH: usize = 4;
const RATE: f32 = 0.1;
const STEPS: u64 = 400;
const SEEDS: u64 = 5;

/// Recipes, and the steps of each worker. The last two rows send as many bytes as the rows with both costs, by taking fewer
/// steps.
const ROWS: &[(&str, u64)] = &[
    ("fasgd length=0.001", STEPS),
    ("fasgd length=0.001 fetch_cost=1e-4", STEPS),
    ("fasgd length=0.001 fetch_cost=1e-3", STEPS),
    ("fasgd length=0.001 fetch_cost=1e-2", STEPS),
    ("fasgd length=0.001 push_cost=1e-4", STEPS),
    ("fasgd length=0.001 push_cost=1e-3", STEPS),
    ("fasgd length=0.001 push_cost=1e-2", STEPS),
    ("fasgd length=0.001 push_cost=1e-4 fetch_cost=1e-4", STEPS),
    ("fasgd length=0.001 push_cost=1e-3 fetch_cost=1e-3", STEPS),
    ("fasgd length=0.001 push_cost=1e-2 fetch_cost=1e-2", STEPS),
    ("fasgd length=0.001", 136),
    ("fasgd length=0.001", 32),
];

struct Digits {
    task: Box<dyn Task>,
    /// The worker's examples, and the place of the next batch.
    mine: Vec<usize>,
    next: usize,
    gradient: Vec<f32>,
}

impl Learner for Digits {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        if self.next + BATCH > self.mine.len() {
            self.next = 0;
        }
        let batch = &self.mine[self.next..self.next + BATCH];
        self.next += BATCH;
        let loss = self.task.gradient(params, batch, &mut self.gradient);
        update.iter_mut().zip(&self.gradient).for_each(|(update, gradient)| *update = RATE * gradient);
        Step::of(BATCH as u32).loss(loss)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let (accuracy, loss) = self.task.evaluate(params);
        Some(Validation::of(loss).accuracy(accuracy))
    }
}

/// The digits, cut as the seed says.
fn open(seed: u64) -> Box<dyn Task> {
    Name::Digits.open(Name::Digits.hidden(), seed, None).expect("digits in the program")
}

/// Runs a recipe with all seeds.
fn runs(recipe: Recipe, steps: u64) -> Result<Vec<Outcome>, Error> {
    let cluster = Cluster { workers: WORKERS, servers: 1 };
    let run = |seed| {
        let task = open(seed);
        Simulation::new(task.layout(), recipe, cluster)
            .seed(seed)
            .initial(task.initial(seed))
            .speed(Speed::constant(Duration::from_millis(10)).jitter(0.3))
            .links(Links::new(Duration::from_millis(1)))
            .record_every(Duration::from_secs(3600))
            .steps(steps)
    };
    Sweep::new((1..=SEEDS).map(run)).run(|worker: &Worker| {
        let task = open(worker.seed);
        let mut order: Vec<usize> = (0..task.examples()).collect();
        shuffle(&mut order, worker.seed);
        let share = order.len() / WORKERS as usize;
        let mine = order[worker.rank.index() * share..][..share].to_vec();
        let gradient = vec![0.0; task.layout().len()];
        Digits { task, mine, next: 0, gradient }
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let given: Vec<(&str, u64)> = args.iter().map(|text| (text.as_str(), STEPS)).collect();
    println!("| recipe | steps | pushes sent | fetches | MB | loss (least to most) | accuracy | mean staleness |");
    println!("|---|---|---|---|---|---|---|---|");
    for (row, steps) in if given.is_empty() { ROWS } else { &given } {
        let all = runs(row.parse()?, *steps)?;
        let median = |of: &dyn Fn(&Outcome) -> f64| {
            let mut values: Vec<f64> = all.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            [values[values.len() / 2], values[0], values[values.len() - 1]]
        };
        let contributions = (u64::from(WORKERS) * steps) as f64;
        let validation = |of: &Outcome| {
            of.validation().map_or((f64::NAN, f64::NAN), |it| (it.loss, it.accuracy.unwrap_or(f64::NAN)))
        };
        let [loss, least, most] = median(&|of| validation(of).0);
        println!(
            "| `{row}` | {steps} | {:.0} % | {:.0} % | {:.1} | {loss:.3} ({least:.3} to {most:.3}) | {:.1} % | {:.1} |",
            100.0 * (1.0 - median(&|of| of.counters.skipped_pushes as f64)[0] / contributions),
            100.0 * (1.0 - median(&|of| of.counters.skipped_fetches as f64)[0] / contributions),
            median(&|of| of.bytes as f64)[0] / 1e6,
            100.0 * median(&|of| validation(of).1)[0],
            median(&|of| of.staleness.mean())[0],
        );
    }
    Ok(())
}
