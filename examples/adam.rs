//! Exact synchronous Adam, with gradients clipped by their global norm: three workers with unequal shares of the data
//! train as one worker with all of it.
//!
//! Each worker gives the gradient of its examples to [`Session::mean`] and gets the mean of all examples' gradients. Both
//! the norm and Adam's moments are functions of that mean, so they are exact. A sum of updates could not do that: the mean
//! of three workers' Adam updates is not the Adam update of the mean gradient.

use std::ops::Range;

use gradwire::{Cluster, Error, Layout, Mean, Mem, Recipe, Session, Transport};

/// Inputs of the model.
const INPUTS: usize = 6;
/// Examples of the whole data.
const EXAMPLES: usize = 50;

const RATE: f32 = 0.05;
const BETAS: [f32; 2] = [0.9, 0.999];
const EPSILON: f32 = 1e-8;
/// The largest norm of a mean gradient. The first gradients of this task are longer.
const NORM_MAX: f32 = 2.0;

#[allow(dead_code, reason = "the tests use the functions alone")]
fn main() -> Result<(), Error> {
    let one = run(Mem::cluster(1), Recipe::preset("gradients").expect("a preset"), 100)?;
    let three = run(Mem::cluster(3), Recipe::preset("gradients").expect("a preset"), 100)?;
    println!("one worker:    {:.4?}", one[0]);
    println!("three workers: {:.4?}", three[0]);
    assert!(three.iter().all(|params| params == &three[0]), "all workers have the same bits");
    Ok(())
}

/// Trains with a worker per transport. Returns the parameters of each.
pub(crate) fn run<T: Transport + 'static>(
    transports: Vec<T>,
    recipe: Recipe,
    steps: u64,
) -> Result<Vec<Vec<f32>>, Error> {
    let workers = transports.len();
    let cluster = Cluster { workers: workers as u32, servers: 0 };
    let train = move |(rank, transport)| {
        let share = rank * EXAMPLES / workers..(rank + 1) * EXAMPLES / workers;
        std::thread::spawn(move || train(transport, recipe, cluster, share, steps))
    };
    let threads: Vec<_> = transports.into_iter().enumerate().map(train).collect();
    threads.into_iter().map(|thread| thread.join().expect("the worker thread does not panic")).collect()
}

/// The worker with this share of the examples. A worker that joins later gets the parameters and Adam's moments from
/// the other workers, and ends after the same round.
pub(crate) fn train<T: Transport + 'static>(
    transport: T,
    recipe: Recipe,
    cluster: Cluster,
    share: Range<usize>,
    steps: u64,
) -> Result<Vec<f32>, Error> {
    let layout = Layout::new().tensor("weights", &[INPUTS]).tensor("offset", &[1]);
    let (mut params, mut gradient) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
    let (mut first, mut second) = (params.clone(), params.clone());
    // The two moments of Adam are part of the state that newcomers get.
    let builder = Session::builder(layout, recipe, cluster).optimizer_vectors(2);
    let mut session = builder.join_with(transport, &mut params, &mut [&mut first, &mut second])?;
    while session.rounds() < steps {
        compute(&params, share.clone(), &mut gradient);
        let examples = share.len() as u32;
        // `Adopted`: the state was replaced, so this gradient does not belong to it.
        if session.mean(&mut gradient, examples, &mut params, &mut [&mut first, &mut second])? == Mean::Given {
            clip(&mut gradient);
            adam(&mut params, &mut first, &mut second, &gradient, session.rounds());
        }
    }
    session.finish_with(&mut params, &mut [&mut first, &mut second], |params, moments, mean, round| {
        // A worker that was left out for a while may be behind: it still has its steps to take.
        let [first, second] = moments else { return };
        let mut mean = mean.to_vec();
        clip(&mut mean);
        adam(params, first, second, &mean, round);
    })?;
    Ok(params)
}

/// The mean gradient of the squared error over these examples.
fn compute(params: &[f32], share: Range<usize>, gradient: &mut [f32]) {
    let count = share.len();
    let mut sums = [0.0f64; INPUTS + 1];
    for index in share {
        let (x, y) = example(index);
        let inputs = x.iter().chain(&[1.0]);
        let error = inputs.clone().zip(params).map(|(x, p)| f64::from(x * p)).sum::<f64>() - f64::from(y);
        sums.iter_mut().zip(inputs).for_each(|(sum, x)| *sum += 2.0 * error * f64::from(*x));
    }
    gradient.iter_mut().zip(sums).for_each(|(g, sum)| *g = (sum / count.max(1) as f64) as f32);
}

/// An example: inputs between -1 and 1, and the output of the model that is to be found.
fn example(index: usize) -> ([f32; INPUTS], f32) {
    let x = std::array::from_fn(|i| ((index * (2 * i + 3) + i) % 17) as f32 / 8.0 - 1.0);
    let y = x.iter().zip(1..).map(|(x, weight)| x * weight as f32).sum::<f32>() - 0.5;
    (x, y)
}

/// Clips by the global norm: that of the whole mean gradient, which no worker knows before the mean is there.
fn clip(gradient: &mut [f32]) {
    let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt() as f32;
    if norm > NORM_MAX {
        gradient.iter_mut().for_each(|g| *g *= NORM_MAX / norm);
    }
}

/// Kingma and Ba 2015, algorithm 1. `step` counts from 1.
fn adam(params: &mut [f32], first: &mut [f32], second: &mut [f32], gradient: &[f32], step: u64) {
    let [b1, b2] = BETAS;
    let unbias = BETAS.map(|beta| 1.0 - beta.powi(step as i32));
    for (((p, m), v), g) in params.iter_mut().zip(first).zip(second).zip(gradient) {
        *m = b1 * *m + (1.0 - b1) * g;
        *v = b2 * *v + (1.0 - b2) * g * g;
        *p -= RATE * (*m / unbias[0]) / ((*v / unbias[1]).sqrt() + EPSILON);
    }
}
