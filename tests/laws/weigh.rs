//! The weights of contributions in a mean.

use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};

use crate::{LEN, bits};

/// Examples of a local step, by rank. A period of 48 examples is 12, 6, 3 and 8 steps.
const BATCHES: [u32; 4] = [4, 8, 16, 6];

/// Trains on threads. A step of a worker has `batches[rank]` examples, and moves all elements by `rank + 1`.
fn train(text: &str, batches: [u32; 4], steps: impl Fn(u32) -> u32) -> Vec<f32> {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
    let mut ends = Mem::cluster(cluster.nodes());
    let servers: Vec<_> = ends.split_off(4);
    let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
    let mut servers: Vec<_> = servers.into_iter().map(|end| builder.clone().serve(end, &[0.0; LEN]).unwrap()).collect();
    let threads: Vec<_> = ends
        .into_iter()
        .zip(0u32..)
        .map(|(end, rank)| {
            let (builder, batch) = (builder.clone(), batches[rank as usize]);
            let steps = steps(batch);
            thread::spawn(move || {
                let mut params = vec![0.0; LEN];
                let mut session = builder.join(end, &mut params).unwrap();
                for _ in 0..steps {
                    session.step(&mut params, &[(rank + 1) as f32; LEN], batch).unwrap();
                }
                session.finish(&mut params).unwrap();
                params
            })
        })
        .collect();
    let mut params: Vec<Vec<f32>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for server in &mut servers {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(20)).unwrap(), RunState::Ended);
    }
    assert!(params.iter().all(|of| bits(of) == bits(&params[0])), "{text}");
    params.swap_remove(0)
}

/// Recipes of rounds, at servers and without.
const ROUNDS: [&str; 6] = [
    "sync",
    "sync topology=ring chunk=4",
    "ring-int8 topology=mesh codec=f16",
    "hardsync shards=2",
    "backup-workers count=n",
    "averaging",
];

/// Decoupled DiLoCo: a contribution of m examples in H steps weighs m (m / H), wherever the mean is taken.
#[test]
fn of_as_many_examples_fewer_and_larger_steps_count_more() {
    for base in ROUNDS {
        let mean = |weight_of: fn(f64, f64) -> f64| {
            let parts = || {
                BATCHES.iter().zip(1..).map(|(batch, update)| {
                    let steps = 48.0 / f64::from(*batch);
                    (weight_of(48.0, steps), f64::from(update) * steps)
                })
            };
            parts().map(|(weight, sum)| weight * sum).sum::<f64>() / parts().map(|(weight, _)| weight).sum::<f64>()
        };
        for (weigh, expected) in
            [("examples", mean(|examples, _| examples)), ("batch", mean(|examples, steps| examples * examples / steps))]
        {
            let got = train(&format!("{base} period=48ex weigh={weigh}"), BATCHES, |batch| 48 / batch);
            // A codec of half precision has 11 bits.
            let tolerance = if base.contains("f16") { 1e-3 } else { 1e-6 } * expected;
            let near = |x: &f32| (f64::from(-*x) - expected).abs() < tolerance;
            assert!(got.iter().all(near), "{base} weigh={weigh}: {got:?}, expected {expected}");
        }
    }
}

/// With batches of one size, the weights have the ratio of the examples: bit for bit if the size is a power of two.
#[test]
fn equal_batches_weigh_by_examples() {
    for base in ROUNDS {
        let run = |weigh: &str| bits(&train(&format!("{base} period=3 weigh={weigh}"), [8; 4], |_| 7));
        assert_eq!(run("batch"), run("examples"), "{base}");
    }
}
