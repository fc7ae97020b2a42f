//! The momentum of updates over their learning rate (SlowMo, Wang et al. 2020), through sessions over threads.

use gradwire::Recipe;

use crate::threads::{on_threads, on_threads_with};
use crate::update_of;

/// Recipes with momentum, without their `scale`.
const RECIPES: [&str; 8] = [
    "slowmo period=3",
    "slowmo period=2 topology=ring chunk=4",
    "slowmo period=2 topology=mesh codec=bf16",
    "slowmo period=3 topology=servers shards=1",
    "slowmo period=2 topology=servers shards=1 merge=median",
    "diloco period=2",
    "hardsync pace=first count=n outer=momentum mu=0.75",
    "async lambda=1 outer=momentum mu=0.5 look=true",
];

fn recipe(text: &str, scale: &str) -> Recipe {
    format!("{text} scale={scale}").parse().unwrap()
}

/// The rate of a warm-up from 0, with a decay after it.
fn rate(step: u64) -> f32 {
    [0.0, 0.25, 0.5, 1.0, 1.0, 1.0, 0.125][(step / 2).min(6) as usize]
}

/// With the rate of the start, both scales are one rule, bit for bit. With another rate, the scales differ.
#[test]
fn a_constant_rate_changes_no_bit() {
    for text in RECIPES {
        let bits = |scale: &str, rates: fn(u64) -> f32| {
            // A worker alone has one order of messages.
            let workers = if text.starts_with("async") { 1 } else { 3 };
            let params = on_threads_with(recipe(text, scale), workers, 14, move |session, _, step, update| {
                session.set_learning_rate(rates(step));
                update.iter_mut().for_each(|x| *x *= rates(step));
            });
            assert!(params.iter().all(|of| *of == params[0]), "{text}: workers end with different parameters");
            params[0].iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(bits("rate", |_| 1.0), bits("update", |_| 1.0), "{text}");
        assert_ne!(bits("rate", rate), bits("update", rate), "{text}");
    }
    assert_eq!(on_threads(recipe("slowmo", "rate"), 3, 24), on_threads("slowmo".parse().unwrap(), 3, 24));
}

/// Workers with rates of their own: the velocity of a round is over the mean of their rates, weighted by examples, at every
/// node. The model is the formula of the paper.
#[test]
fn the_velocity_is_over_the_mean_rate_of_a_round() {
    let (workers, steps, period) = (3u32, 12u64, 2);
    let rate = |rank: u32, step: u64| [1.0f32, 0.25, 2.0, 0.5][((step + u64::from(rank)) % 4) as usize];
    for text in ["slowmo", "slowmo topology=ring chunk=4", "slowmo topology=servers shards=1", "slowmo look=true"] {
        let recipe: Recipe = format!("{text} period={period} rate=0.75").parse().unwrap();
        let got = on_threads_with(recipe, workers, steps, move |session, rank, step, update| {
            session.set_learning_rate(rate(rank, step));
            update.iter_mut().for_each(|x| *x *= rate(rank, step));
        });
        let look = text.contains("look");
        let mut w = vec![0.0f64; got[0].len()];
        let mut u = w.clone();
        for round in 0..steps / period {
            let (mut d, mut a, mut total) = (vec![0.0; w.len()], 0.0, 0.0);
            for rank in 0..workers {
                let (mut local, mut rates, mut examples) = (w.clone(), 0.0, 0.0);
                for step in round * period..(round + 1) * period {
                    let params: Vec<f32> = local.iter().map(|x| *x as f32).collect();
                    let mut update = vec![0.0; w.len()];
                    examples += f64::from(update_of(rank, step, &params, &mut update));
                    rates += f64::from(rate(rank, step)) / period as f64;
                    local.iter_mut().zip(update).for_each(|(x, of)| *x -= f64::from(of * rate(rank, step)));
                }
                (0..w.len()).for_each(|i| d[i] += examples * (w[i] - local[i]));
                (a, total) = (a + examples * rates, total + examples);
            }
            let a = a / total;
            for i in 0..w.len() {
                let step = 0.75 * d[i] / total / a;
                u[i] = 0.5 * u[i] + step;
                w[i] -= a * if look { step + 0.5 * u[i] } else { u[i] };
            }
        }
        for of in &got {
            assert_eq!(*of, got[0], "{text}");
            let near = of.iter().zip(&w).all(|(got, expected)| (f64::from(*got) - expected).abs() < 1e-5);
            assert!(near, "{text}: got {of:?}, expected {w:?}");
        }
    }
}

/// A warm-up that begins at 0 divides nothing by 0: neither if updates are 0 then, nor if they are not, for instance because
/// of a weight decay apart from the rate.
#[test]
fn a_rate_of_0_leaves_all_numbers_finite() {
    for text in RECIPES {
        for least in [0.0, 1e-3] {
            let params = on_threads_with(recipe(text, "rate"), 2, 12, move |session, _, step, update| {
                session.set_learning_rate(rate(step / 2));
                update.iter_mut().for_each(|x| *x *= rate(step / 2).max(least));
            });
            assert!(params.iter().flatten().all(|x| x.is_finite()), "{text}: {params:?}");
            assert!(least > 0.0 || params.iter().flatten().all(|x| x.abs() < 10.0), "{text}: {params:?}");
        }
    }
}
