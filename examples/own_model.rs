//! Compares three rules on a model of your own, in virtual time: four workers, of which one takes four times as long,
//! over links of 10 Mbit/s. The model tells two spirals apart. `cargo run --release --example own_model`.

use std::time::Duration;

use gradwire::sim::{Learner, Links, MBIT, Outcome, Random, Simulation, Speed, Step, Sweep, Validation, Worker};
use gradwire::{Cluster, Layout, PeerId, Recipe};

struct Spirals(Random); // 64 hidden units with two weights, a bias, and a weight in the output each

/// Draws a point, adds its gradient times `rate` to `update`, and returns its loss.
fn learn(random: &mut Random, params: &[f32], rate: f32, update: &mut [f32]) -> f32 {
    let (turn, side) = (6.0 * random.unit() as f32, if random.chance(0.5) { 1.0 } else { -1.0 });
    let point = [turn.cos() * turn * side / 3.0, turn.sin() * turn * side / 3.0, 1.0];
    let active = |unit: &[f32]| unit.iter().zip(point).map(|(w, x)| w * x).sum::<f32>().tanh();
    let margin = side * params.chunks(4).map(|unit| active(unit) * unit[3]).sum::<f32>();
    let scale = -rate * side / (1.0 + margin.exp());
    for (unit, update) in params.chunks(4).zip(update.chunks_mut(4)) {
        let a = active(unit);
        (0..3).for_each(|i| update[i] += scale * unit[3] * (1.0 - a * a) * point[i]);
        update[3] += scale * a;
    }
    (-margin).exp().ln_1p()
}

impl Learner for Spirals {
    fn step(&mut self, params: &[f32], update: &mut [f32]) -> Step {
        update.fill(0.0);
        Step::of(16).loss((0..16).map(|_| learn(&mut self.0, params, 0.02, update)).sum::<f32>() / 16.0)
    }

    fn validate(&mut self, params: &[f32]) -> Option<Validation> {
        let (mut test, mut unused) = (Random::new(0, 0), vec![0.0; params.len()]);
        let loss = |_| f64::from(learn(&mut test, params, 0.0, &mut unused));
        Some(Validation::of((0..500).map(loss).sum::<f64>() / 500.0))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("rule                  loss 0.1  at the end  computes     sent");
    for text in ["sync", "averaging period=20", "async"] {
        let recipe: Recipe = text.parse()?;
        let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
        let run = Simulation::new(Layout::flat(256), recipe, cluster)
            .initial((0..256).map(|i| (i * i) as f32).map(f32::sin).collect())
            .speed(Speed::constant(Duration::from_millis(20)).jitter(0.1))
            .speed_of(PeerId(3), Speed::constant(Duration::from_millis(80)))
            .links(Links::new(Duration::from_millis(1)).bandwidth(10 * MBIT))
            .record_every(Duration::from_secs(1))
            .until(Duration::from_secs(90));
        let mut all = Sweep::new((1..=3).map(|seed| run.clone().seed(seed))).run(|it: &Worker| Spirals(it.random()))?;
        let loss = |of: &Outcome| of.validation().map_or(f64::NAN, |it| it.loss);
        all.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
        let (it, end, sent) = (&all[1], loss(&all[1]), all[1].bytes as f64 / 1e6); // the median of three seeds
        let reached = it.first_with_loss(0.1).map_or(f64::NAN, |point| point.time.as_secs_f64());
        let busy: f64 = (0..4).map(|rank| 25.0 * it.busy(PeerId(rank))).sum();
        println!("{text:<22} {reached:>5.0} s {end:>11.3} {busy:>7.0} % {sent:>6.1} MB");
    }
    Ok(())
}
