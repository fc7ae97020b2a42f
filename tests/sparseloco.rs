//! The preset `sparseloco` against an f64 model of Sarfi et al. 2025, through sessions on threads: local steps, a residual
//! that decays, the largest elements of each chunk, two means per chunk, and the mean of all messages.
//!
//! The model is written from the paper (algorithm 1), independently of the codec and the kernels.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use gradwire::recipe::{Codec, TopK, Values};
use gradwire::{Cluster, Layout, Mem, Recipe, Session, Status};

/// Two whole chunks, and one that is shorter.
const LEN: usize = 10_000;
const CHUNK: usize = 4096;
const WORKERS: u32 = 2;
const PERIOD: u32 = 3;
const ROUNDS: usize = 8;

/// The update of a local step: a gradient of least squares with a different noisy target per worker and step.
fn update(rank: u32, step: usize, i: usize, x: f64) -> f64 {
    let noise = (i as u64 * 31 + u64::from(rank) * 17 + step as u64 * 7 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let target = ((i * 37 % 101) as f64 - 50.0) / 25.0;
    // Updates differ in size between elements, so that only some elements are sent in most rounds.
    let curvature = 0.02 + 0.3 * (i % 7) as f64 / 6.0;
    curvature * (x - target) + 0.05 * (noise as f64 / (1u64 << 24) as f64 - 0.5)
}

/// The parameters after each round, and the total that decay has taken from worker 0's residual in all rounds.
fn model(top: TopK, decay: f64) -> (Vec<Vec<f64>>, f64) {
    let (mut params, mut rounds, mut forgotten) = (vec![0.0; LEN], Vec::new(), 0.0);
    let mut residuals = vec![vec![0.0f64; LEN]; WORKERS as usize];
    for round in 0..ROUNDS {
        let mut sum = vec![0.0; LEN];
        for (rank, residual) in (0..).zip(&mut residuals) {
            let mut local = params.clone();
            for step in 0..PERIOD as usize {
                let step = round * PERIOD as usize + step;
                local.iter_mut().enumerate().for_each(|(i, x)| *x -= update(rank, step, i, *x));
            }
            for i in 0..LEN {
                forgotten += if rank == 0 { (1.0 - decay) * residual[i].abs() } else { 0.0 };
                residual[i] = decay * residual[i] + params[i] - local[i];
            }
            for (i, sent) in message(top, residual) {
                residual[i] -= sent;
                sum[i] += sent;
            }
        }
        params.iter_mut().zip(&sum).for_each(|(x, sum)| *x -= sum / f64::from(WORKERS));
        rounds.push(params.clone());
    }
    (rounds, forgotten)
}

/// The elements of a message: index and value.
fn message(top: TopK, residual: &[f64]) -> Vec<(usize, f64)> {
    let mut message = Vec::new();
    for (first, chunk) in residual.chunks(CHUNK).enumerate().map(|(i, chunk)| (i * CHUNK, chunk)) {
        let mut order: Vec<usize> = (0..chunk.len()).collect();
        order.sort_by(|a, b| chunk[*b].abs().total_cmp(&chunk[*a].abs()));
        order.truncate((f64::from(top.density) * chunk.len() as f64) as usize);
        let mean = |positive: bool| {
            let of: Vec<f64> = order.iter().map(|i| chunk[*i]).filter(|x| (*x > 0.0) == positive).collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        let means = [mean(false), mean(true)];
        let value = |x: f64| if top.values == Values::TwoMeans { means[usize::from(x > 0.0)] } else { x };
        message.extend(order.iter().map(|i| (first + i, value(chunk[*i]))));
    }
    message
}

/// The same by the library: also the status of worker 0 at the end.
fn trained(recipe: Recipe) -> (Vec<Vec<f32>>, Status) {
    let run = move |rank: u32, transport: Mem| {
        let cluster = Cluster { workers: WORKERS, servers: 0 };
        let mut params = vec![0.0f32; LEN];
        let mut session = Session::builder(Layout::flat(LEN), recipe, cluster).join(transport, &mut params).unwrap();
        let mut rounds = Vec::new();
        for step in 0..ROUNDS * PERIOD as usize {
            let updates: Vec<f32> =
                params.iter().enumerate().map(|(i, x)| update(rank, step, i, f64::from(*x)) as f32).collect();
            session.step(&mut params, &updates, 1).unwrap();
            if (step + 1).is_multiple_of(PERIOD as usize) {
                rounds.push(params.clone());
            }
        }
        let status = session.status().unwrap();
        session.finish(&mut params).unwrap();
        (rounds, status)
    };
    let threads: Vec<_> =
        (0..).zip(Mem::cluster(WORKERS)).map(|(rank, end)| thread::spawn(move || run(rank, end))).collect();
    let mut all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(all[0].0 == all[1].0, "the workers have different parameters");
    all.swap_remove(0)
}

#[test]
fn the_preset_is_the_algorithm_of_the_paper() {
    let preset: Recipe = "sparseloco".parse().unwrap();
    for text in ["values=two-means", "values=f32", "values=f32 decay=1 density=0.1"] {
        let recipe: Recipe = format!("sparseloco period={PERIOD} {text}").parse().unwrap();
        let Codec::TopK(top) = recipe.codec() else { panic!("{recipe}") };
        assert!(text != "values=two-means" || recipe == preset.with_period(PERIOD), "{recipe}");
        let (expected, forgotten) = model(top, f64::from(recipe.decay()));
        let (got, status) = trained(recipe);
        for (round, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let off = got.iter().zip(expected).map(|(got, x)| (f64::from(*got) - x).abs()).fold(0.0, f64::max);
            assert!(off < 1e-4, "{text}: off by {off} after round {round}");
        }
        let moved = expected.last().unwrap().iter().filter(|x| **x != 0.0).count();
        assert!(moved > LEN / 20 && moved < LEN, "{text}: {moved} elements have moved");
        let near = (status.forgotten - forgotten).abs() <= 1e-4 * forgotten;
        assert!(near && (forgotten > 0.0) == (recipe.decay() < 1.0), "{text}: {}, {forgotten}", status.forgotten);
        // Of 4,096, 4,096 and 1,808 elements.
        let share = |len: usize| (f64::from(top.density) * len as f64) as usize;
        let entries = (2 * share(CHUNK) + share(LEN - 2 * CHUNK)) * ROUNDS;
        assert_eq!(status.counters.entries, entries as u64, "{text}");
    }
}
