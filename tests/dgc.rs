//! The preset `dgc` against an f64 model of Lin et al. 2018: local clipping by norm, momentum correction, top-k of the
//! residual, momentum factor masking, the ramp of the density, and the mean of all messages.
//!
//! The model is written from the paper (sections 3.1 to 3.3 and algorithm 4), independently of the codecs and kernels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use gradwire_core::{Cluster, Duration, Layout, PeerId, Recipe};
use gradwire_sim::{App, Halt, Network, Plan, Random, World};

const WORKERS: u32 = 4;

/// A learning problem of one worker: the gradient of its loss at step `step`.
trait Problem: Send + Sync {
    fn len(&self) -> usize;
    fn gradient(&self, rank: u32, step: u64, params: &[f64]) -> Vec<f64>;
    fn loss(&self, params: &[f64]) -> f64;
}

/// Least squares with a different noisy target per worker and step.
struct Regression;

impl Problem for Regression {
    fn len(&self) -> usize {
        400
    }

    fn gradient(&self, rank: u32, step: u64, params: &[f64]) -> Vec<f64> {
        let mut random = Random::new(step * 97 + u64::from(rank), 11);
        let noisy = |(i, x): (usize, &f64)| curvature(i) * (x - target(i)) + 0.2 * (random.unit() - 0.5);
        params.iter().enumerate().map(noisy).collect()
    }

    fn loss(&self, params: &[f64]) -> f64 {
        let of = |(i, x): (usize, &f64)| 0.5 * curvature(i) * (x - target(i)).powi(2);
        params.iter().enumerate().map(of).sum()
    }
}

fn target(i: usize) -> f64 {
    ((i * 37 % 101) as f64 - 50.0) / 25.0
}

/// From 0.2 to 1, so that directions with a small curvature are learned later.
fn curvature(i: usize) -> f64 {
    0.2 + 0.8 * (i % 7) as f64 / 6.0
}

/// A linear recurrent unit that learns to remember: h = a h + b x over a sequence, and the output is c h. The weights
/// are shared by all steps of the sequence, and every unit is one of many that learn different decays.
struct Memory;

impl Memory {
    const UNITS: usize = 60;
    const STEPS: usize = 6;

    fn forward(a: f64, b: f64, inputs: &[f64]) -> Vec<f64> {
        inputs
            .iter()
            .scan(0.0, |h, x| {
                *h = a * *h + b * x;
                Some(*h)
            })
            .collect()
    }

    /// Loss and gradient of one unit, for one sequence.
    fn unit(unit: usize, [a, b, c]: [f64; 3], inputs: &[f64]) -> (f64, [f64; 3]) {
        let teacher = Self::forward(0.3 + 0.5 * unit as f64 / Self::UNITS as f64, 1.0, inputs);
        let states = Self::forward(a, b, inputs);
        let (mut loss, mut gradient, mut back) = (0.0, [0.0; 3], 0.0);
        for t in (0..inputs.len()).rev() {
            let error = c * states[t] - teacher[t];
            loss += 0.5 * error * error;
            gradient[2] += error * states[t];
            back = back * a + error * c;
            gradient[0] += back * if t > 0 { states[t - 1] } else { 0.0 };
            gradient[1] += back * inputs[t];
        }
        (loss, gradient)
    }

    fn inputs(seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, 12);
        (0..Self::STEPS).map(|_| 2.0 * random.unit() - 1.0).collect()
    }
}

impl Problem for Memory {
    fn len(&self) -> usize {
        3 * Self::UNITS
    }

    fn gradient(&self, rank: u32, step: u64, params: &[f64]) -> Vec<f64> {
        let inputs = Self::inputs(step * 53 + u64::from(rank) + 1);
        let units = params.as_chunks::<3>().0.iter().enumerate();
        units.flat_map(|(unit, weights)| Self::unit(unit, *weights, &inputs).1).collect()
    }

    fn loss(&self, params: &[f64]) -> f64 {
        let of = |inputs: Vec<f64>| -> f64 {
            params.as_chunks::<3>().0.iter().enumerate().map(|(unit, w)| Self::unit(unit, *w, &inputs).0).sum()
        };
        (0..20).map(|seed| of(Self::inputs(1_000_000 + seed))).sum::<f64>() / 20.0
    }
}

/// The hyperparameters of the paper's procedure.
struct Settings {
    rate: f64,
    momentum: f64,
    density: f64,
    ramp: u64,
    clip_norm: f64,
}

/// Algorithm 4 of the paper for all workers. Returns the parameters after each step.
fn model(problem: &dyn Problem, settings: &Settings, initial: &[f64], steps: u64) -> Vec<Vec<f64>> {
    let (n, len) = (WORKERS as usize, problem.len());
    let mut params = initial.to_vec();
    let (mut u, mut v) = (vec![vec![0.0; len]; n], vec![vec![0.0; len]; n]);
    let mut history = Vec::new();
    for step in 0..steps {
        // Sparsity 75 %, 93.75 %, 98.44 %, 99.6 %, 99.9 %: five stages of the ramp.
        let stage = (step * 5).checked_div(settings.ramp).unwrap_or(5);
        let density = if step < settings.ramp { 0.25f64.powi(stage as i32 + 1) } else { 0.0 }.max(settings.density);
        let count = ((density * len as f64) as usize).clamp(1, len);
        let mut sum = vec![0.0; len];
        for worker in 0..n {
            let mut g = problem.gradient(worker as u32, step, &params);
            g.iter_mut().for_each(|g| *g *= settings.rate);
            let (norm, limit) = (g.iter().map(|g| g * g).sum::<f64>().sqrt(), settings.clip_norm / (n as f64).sqrt());
            if settings.clip_norm > 0.0 && norm > limit {
                g.iter_mut().for_each(|g| *g *= limit / norm);
            }
            let (u, v) = (&mut u[worker], &mut v[worker]);
            for i in 0..len {
                u[i] = settings.momentum * u[i] + g[i];
                v[i] += u[i];
            }
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|a, b| v[*b].abs().total_cmp(&v[*a].abs()));
            for i in order.into_iter().take(count) {
                sum[i] += std::mem::take(&mut v[i]);
                u[i] = 0.0;
            }
        }
        params.iter_mut().zip(&sum).for_each(|(x, sum)| *x -= sum / n as f64);
        history.push(params.clone());
    }
    history
}

struct Worker {
    rank: PeerId,
    rate: f64,
    problem: Arc<dyn Problem>,
    history: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl App for Worker {
    fn duration(&mut self, _step: u64) -> Duration {
        Duration::from_millis(1)
    }

    fn update(&mut self, step: u64, params: &[f32], update: &mut [f32]) -> u32 {
        let params: Vec<f64> = params.iter().map(|x| f64::from(*x)).collect();
        let gradient = self.problem.gradient(self.rank.0, step, &params);
        update.iter_mut().zip(gradient).for_each(|(update, g)| *update = (self.rate * g) as f32);
        8
    }

    fn done(&mut self, _step: u64, params: &[f32]) {
        if self.rank == PeerId(0) {
            self.history.lock().unwrap().push(params.to_vec());
        }
    }
}

/// The parameters of the machines after each step.
fn machines(problem: &Arc<dyn Problem>, recipe: Recipe, rate: f64, initial: &[f32], steps: u64) -> Vec<Vec<f32>> {
    let history = Arc::new(Mutex::new(Vec::new()));
    let cluster = Cluster { workers: WORKERS, servers: 0 };
    let plan = Plan { steps, network: Network::calm(), ..Plan::new(1, Layout::flat(problem.len()), recipe, cluster) };
    let plan = Plan { initial: initial.to_vec(), ..plan };
    let app = |rank| -> Box<dyn App> {
        Box::new(Worker { rank, rate, problem: Arc::clone(problem), history: Arc::clone(&history) })
    };
    let mut world = World::new(plan, app).unwrap();
    world.run(50_000_000, |_, _| Ok::<(), Halt>(())).unwrap_or_else(|halt| panic!("{halt:?}"));
    std::mem::take(&mut *history.lock().unwrap())
}

fn settings(recipe: &Recipe, rate: f64) -> Settings {
    let correction = recipe.correction();
    Settings {
        rate,
        momentum: f64::from(correction.momentum),
        density: f64::from(recipe.codec().density().unwrap()),
        ramp: u64::from(correction.ramp),
        clip_norm: f64::from(correction.clip_norm),
    }
}

/// Different everywhere, so that no two elements have the same gradient.
fn initial(len: usize) -> Vec<f32> {
    let mut random = Random::new(3, 13);
    (0..len).map(|_| 0.3 + 0.4 * random.unit() as f32).collect()
}

fn problems() -> [(&'static str, Arc<dyn Problem>, f64); 2] {
    [("regression", Arc::new(Regression), 0.02), ("memory", Arc::new(Memory), 0.004)]
}

/// As long as both select the same elements, floats differ from the model by roundings only. A selection that differs
/// would be a difference of the size of an update.
#[test]
fn each_step_is_that_of_the_paper() {
    for (name, problem, rate) in problems() {
        for text in ["dgc", "dgc ramp=20", "dgc ramp=10 clip_norm=0.1", "dgc momentum=0 ramp=0 density=0.05"] {
            let recipe: Recipe = text.parse().unwrap();
            let initial = initial(problem.len());
            let expected = model(
                &*problem,
                &settings(&recipe, rate),
                &initial.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(),
                30,
            );
            let got = machines(&problem, recipe, rate, &initial, 30);
            assert_eq!(got.len(), 30);
            for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
                for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
                    let error = (f64::from(*got) - expected).abs();
                    assert!(
                        error < 1e-5,
                        "{text} on {name}: element {i} after step {step} is {got}, expected {expected}"
                    );
                }
            }
        }
    }
}

/// Over a whole run, with the ramp of the preset: the machines learn as well as the paper's procedure, and both as well
/// as dense training with the same momentum.
#[test]
fn the_preset_learns_as_the_paper_does() {
    for (name, problem, rate) in problems() {
        // A tenth of the preset's density would be less than one element of these small problems.
        let recipe: Recipe = "dgc density=0.02 ramp=100".parse().unwrap();
        let initial = initial(problem.len());
        let start: Vec<f64> = initial.iter().map(|x| f64::from(*x)).collect();
        let steps = 8_000;
        let model = model(&*problem, &settings(&recipe, rate), &start, steps);
        let machines = machines(&problem, recipe, rate, &initial, steps);
        let loss = |params: &[f32]| problem.loss(&params.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
        let (first, paper) = (problem.loss(&start), problem.loss(model.last().unwrap()));
        let got = loss(machines.last().unwrap());
        println!("{name}: loss {first:.4} at the start, {paper:.5} by the model, {got:.5} by the machines");
        assert!(paper < 0.1 * first, "{name}: the model does not learn: {first} to {paper}");
        // Selections that differ by a rounding lead to different paths, so the ends are near each other only.
        assert!(got < 2.0 * paper && paper < 2.0 * got, "{name}: {got}, the model has {paper}");
    }
}
