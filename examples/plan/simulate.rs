//! `--simulate`: rounds of the best recipes in virtual time, with the machines of real runs, beside their closed forms.
//!
//! The model is cut to a length that fits into memory, and the links with it: a message takes as long. The pieces of a
//! chunked vector are cut as well, so that there are as many of them. Codecs take no time in the simulator: their part of
//! the closed form is added.

use std::time::Duration;

use gradwire::plan::{Case, Hosts};
use gradwire::sim::{Learner, Links, Random, Simulation, Speed, Step, Sweep, Worker};
use gradwire::{Layout, Recipe};

use super::answer::{Group, Row, placed};
use super::input::Input;

/// Only rows whose gain is at least this share of the best one are simulated, and at most [`ROWS_MAX`].
const GAIN_MIN: f64 = 1.0 / 1.2;
const ROWS_MAX: usize = 4;
/// Rounds of a run. Its first half is not counted: thresholds and periods find their values in it.
const ROUNDS_MIN: f64 = 8.0;
const ROUNDS_MAX: f64 = 500.0;
/// Elements of all updates of a run, unless it needs more for its fewest rounds: one takes some nanoseconds.
const ELEMENTS: f64 = 3e8;
/// Shortest model, if the given one is not shorter, and floats of a chunk: headers must stay a small part of a message.
const LEN: usize = 50_000;
const CHUNK: usize = 2048;
/// The standard deviation of uniform times over their mean, at most.
const UNIFORM_MAX: f64 = 0.57;

/// A recipe in the simulator.
pub(crate) struct Simulated {
    /// Index of the recipe.
    pub(crate) recipe: usize,
    /// Seconds of a mean step, of all workers. `Err`: the reason why there is none.
    pub(crate) step: Result<f64, String>,
    /// The closed form.
    pub(crate) forecast: f64,
}

/// Simulates the best rows of a group.
pub(crate) fn simulate(input: &Input, case: &Case, group: &Group) -> Vec<Simulated> {
    let best = group.rows.first().map_or(0.0, |row| row.gain);
    let rows = group.rows.iter().take_while(|row| row.gain >= GAIN_MIN * best).take(ROWS_MAX);
    let one = |row: &Row| {
        let (name, recipe) = &input.recipes[row.recipe];
        let step = seconds(case, placed(name, *recipe, case), row);
        Simulated { recipe: row.recipe, step, forecast: row.forecast.step }
    };
    rows.map(one).collect()
}

fn seconds(case: &Case, recipe: Recipe, row: &Row) -> Result<f64, String> {
    let cluster = case.cluster(&recipe);
    if cluster.servers > 0 && case.hosts == Hosts::Workers {
        return Err("the simulator has no servers beside workers; --server-hosts own".to_string());
    }
    let (recipe, len) = cut(recipe, case.params);
    let scale = len as f64 / case.params as f64;
    let bits = |rate: f64| ((rate * scale * 8.0) as u64).max(1);
    let mut links = Links::new(Duration::from_secs_f64(case.link.latency));
    for node in 0..cluster.nodes() {
        links = links.bandwidth_of(gradwire::PeerId(node), bits(case.link.up), bits(case.link.down));
    }
    let speed = |step: f64| {
        let speed = Speed::constant(Duration::from_secs_f64(step));
        match case.spread {
            0.0 => speed,
            spread if spread < UNIFORM_MAX => speed.jitter(spread * 3f64.sqrt()),
            _ => speed.exponential(),
        }
    };
    let period = f64::from(recipe.period().at(0));
    let round = period * f64::from(cluster.workers) * len as f64;
    let rounds = (ELEMENTS / round).clamp(ROUNDS_MIN, ROUNDS_MAX);
    // Every step has one example. By examples and not by time, so that a slow start shortens nothing.
    let half = (rounds / 2.0 * period * f64::from(cluster.workers)) as u64;
    let mut run = Simulation::new(Layout::flat(len), recipe, cluster).links(links);
    run = run.record_every_examples(half).examples(2 * half);
    for (rank, step) in (0..).zip(&case.steps) {
        run = run.speed_of(gradwire::PeerId(rank), speed(*step));
    }
    let outcomes = Sweep::new([run]).run(|worker: &Worker| Fixed::new(worker.random()));
    let outcome = outcomes.map_err(|error| error.to_string())?.remove(0);
    if !outcome.end.is_good() {
        return Err(outcome.end.to_string());
    }
    let [_, middle, .., end] = &*outcome.curve else { return Err("it has no second half".to_string()) };
    let steps = (end.steps - middle.steps) as f64 / f64::from(cluster.workers);
    Ok((end.time - middle.time).as_secs_f64() / steps + row.forecast.parts.code)
}

/// The recipe and the length of a model that takes little memory.
fn cut(recipe: Recipe, params: usize) -> (Recipe, usize) {
    let chunk = recipe.chunk() as usize;
    if recipe.needs_servers() || chunk == 0 || params <= chunk {
        return (recipe, params.min(LEN));
    }
    let chunks = params.div_ceil(chunk);
    let len = params.min(LEN.max(chunks * CHUNK));
    let shorter = (chunk as f64 * len as f64 / params as f64).round() as u32;
    (recipe.with_chunk(shorter.max(1)), len)
}

/// Contributes the same update in every step: only its length and its largest elements matter.
struct Fixed {
    random: Random,
    is_filled: bool,
}

impl Fixed {
    const fn new(random: Random) -> Self {
        Self { random, is_filled: false }
    }
}

impl Learner for Fixed {
    fn step(&mut self, _params: &[f32], update: &mut [f32]) -> Step {
        if !core::mem::replace(&mut self.is_filled, true) {
            // A few elements are much larger than the rest, as those of gradients are.
            update.fill_with(|| (self.random.unit() as f32 - 0.5) * 0.01 * (self.random.unit() as f32).powi(8));
        }
        Step::of(1)
    }
}
