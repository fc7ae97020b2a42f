//! Adasum and RDA through real sessions over threads: at servers and on trees, tensor by tensor.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};

/// Elements of the three tensors.
const LENS: [usize; 3] = [7, 1, 12];
const LEN: usize = 20;
const STEPS: u64 = 4;

fn layout() -> Layout {
    Layout::new().tensor("a", &[7]).tensor("b", &[1]).tensor("c", &[3, 4])
}

/// The update of a rank at a step. Tensors are of unequal size and direction.
fn update_of(rank: u32, step: u64) -> [f32; LEN] {
    std::array::from_fn(|i| {
        let x = ((u64::from(rank) * 31 + step * 17 + i as u64 * 7) % 23) as f32 / 23.0 - 0.4;
        if i < 7 { x * 4.0 } else { x }
    })
}

/// Trains on threads. All workers end with the same bits, which this returns.
fn train(
    recipe: &str,
    layout: &Layout,
    workers: u32,
    of: impl Fn(u32, u64) -> [f32; LEN] + Clone + Send + 'static,
) -> Vec<f32> {
    let recipe: Recipe = recipe.parse().unwrap();
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let mut ends = Mem::cluster(cluster.nodes());
    let builder = Session::builder(layout.clone(), recipe, cluster).deadline(Duration::from_secs(60));
    let serving = ends.split_off(workers as usize).into_iter();
    let mut serving: Vec<_> = serving.map(|end| builder.clone().serve(end, &[0.0; LEN]).unwrap()).collect();
    let threads = ends.into_iter().zip(0..).map(|(end, rank)| {
        let (builder, of) = (builder.clone(), of.clone());
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder.join(end, &mut params).unwrap();
            for step in 0..STEPS {
                // Examples have no effect.
                session.step(&mut params, &of(rank, step), 1 + (rank + step as u32) % 3).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    let threads: Vec<_> = threads.collect();
    let params: Vec<Vec<f32>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for server in &mut serving {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(60)).unwrap(), RunState::Ended);
    }
    let bits = |params: &[f32]| params.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(params.iter().all(|of| bits(of) == bits(&params[0])), "{recipe} with {workers} workers");
    params.into_iter().next().unwrap()
}

/// The end of a run by the formula, in f64: pairs of neighbours, then pairs of pairs, for each of these tensors.
fn expected(workers: u32, lens: &[usize]) -> Vec<f64> {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut params = vec![0.0; LEN];
    for step in 0..STEPS {
        let mut start = 0;
        for len in lens {
            let range = start..start + len;
            start += len;
            let row = |rank| update_of(rank, step)[range.clone()].iter().map(|x| f64::from(*x)).collect();
            let mut rows: Vec<Vec<f64>> = (0..workers).map(row).collect();
            while rows.len() > 1 {
                let pair = |pair: &[Vec<f64>]| {
                    let [a, b] = pair else { return pair[0].clone() };
                    let [one, other] = [a, b].map(|x| 1.0 - product(a, b) / (2.0 * product(x, x)));
                    a.iter().zip(b).map(|(x, y)| one * x + other * y).collect()
                };
                rows = rows.chunks(2).map(pair).collect();
            }
            params[range].iter_mut().zip(&rows[0]).for_each(|(param, x)| *param -= x);
        }
    }
    params
}

fn is_near(got: &[f32], expected: &[f64]) -> bool {
    got.iter().zip(expected).all(|(got, expected)| (f64::from(*got) - expected).abs() < 1e-5)
}

/// Each tensor has factors of its own, at a server and on a tree, and the pairs of both are the same. With one tensor, the
/// factors are those of the whole vector.
#[test]
fn trees_and_servers_merge_pairs_by_rank_for_each_tensor() {
    for workers in [2, 3, 4, 5, 8] {
        for recipe in ["hardsync merge=adasum", "sync merge=adasum"] {
            let got = train(recipe, &layout(), workers, update_of);
            let (by_tensor, whole) = (expected(workers, &LENS), expected(workers, &[LEN]));
            assert!(is_near(&got, &by_tensor), "{recipe}, {workers}: {got:?}, expected {by_tensor:?}");
            assert!(!is_near(&got, &whole), "{recipe}, {workers}");
            let got = train(recipe, &Layout::flat(LEN), workers, update_of);
            assert!(is_near(&got, &whole), "{recipe}, {workers}, one tensor: {got:?}, expected {whole:?}");
        }
    }
}

/// Equal contributions give one of them, bit for bit, and orthogonal ones are added up. A worker alone is not changed.
#[test]
fn equal_contributions_are_averaged_and_orthogonal_ones_added_up() {
    let orthogonal = |rank: u32, _| std::array::from_fn(|i| if i as u32 % 8 == rank { 0.25 } else { 0.0 });
    for recipe in ["hardsync merge=adasum", "sync merge=adasum"] {
        let one = train("sync", &layout(), 1, |_, step| update_of(3, step));
        for workers in [1, 2, 4, 8] {
            assert_eq!(train(recipe, &layout(), workers, |_, step| update_of(3, step)), one, "{recipe}, {workers}");
        }
        // The tensor of one element is that of rank 7 alone.
        assert_eq!(train(recipe, &layout(), 8, orthogonal), [-0.25 * STEPS as f32; LEN], "{recipe}");
    }
}

/// RDA: the length of each tensor is the weighted mean of its lengths, so scaling one tensor does not change the others.
#[test]
fn the_mean_direction_is_that_of_a_tensor() {
    let scaled = |rank: u32, step| {
        let mut update = update_of(rank, step);
        update[..7].iter_mut().for_each(|x| *x *= 1024.0 * (rank + 1) as f32);
        update
    };
    let run = |layout: &Layout, of: fn(u32, u64) -> [f32; LEN]| train("hardsync merge=rda", layout, 4, of);
    assert_eq!(run(&layout(), scaled)[7..], run(&layout(), update_of)[7..]);
    assert_ne!(run(&Layout::flat(LEN), scaled)[7..], run(&Layout::flat(LEN), update_of)[7..]);
}
