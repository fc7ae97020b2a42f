//! Means over the workers that have sent an element.

use std::thread;

use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, Session};

use crate::{LEN, Steps, bits, plan, simulate};

/// Where all workers send all elements, it is the mean, bit for bit.
#[test]
fn the_mean_of_senders_of_all_elements_is_the_mean() {
    for base in [
        "hardsync codec=topk density=1",
        "hardsync shards=2 period=3 codec=topk density=1 outer=momentum",
        "backup-workers count=n codec=topk density=1",
        "sparse density=1",
        "sparse density=1 scope=chunk period=2 outer=momentum",
        "sparse density=0.1 warmup=1000",
        "gradients topology=mesh codec=topk density=1",
    ] {
        let [(one, _), (other, _)] = ["mean", "mean-of-senders"].map(|merge| {
            let recipe: Recipe = format!("{base} merge={merge}").parse().unwrap();
            simulate(plan(recipe, 5, 24), Steps::Jittered, None)
        });
        assert_eq!(bits(one.params(PeerId(0))), bits(other.params(PeerId(0))), "{base}");
        assert!(one.params(PeerId(0)).iter().any(|x| *x != 0.0), "{base}");
    }
}

/// The parameters of each of four workers after a step in which worker `rank` contributes `update(rank, i)` to element i,
/// with `1 + rank` examples.
fn after_a_step(recipe: &str, update: fn(u32, usize) -> f32) -> Vec<Vec<f32>> {
    let recipe: Recipe = recipe.parse().unwrap();
    let cluster = Cluster { workers: 4, servers: u32::from(recipe.needs_servers()) };
    let builder = move || Session::builder(Layout::flat(LEN), recipe, cluster);
    let mut ends = Mem::cluster(cluster.nodes());
    let server = (cluster.servers > 0).then(|| builder().serve(ends.pop().unwrap(), &[0.0; LEN]).unwrap());
    let workers: Vec<_> = (0..4)
        .zip(ends)
        .map(|(rank, end)| {
            thread::spawn(move || {
                let mut params = vec![0.0; LEN];
                let mut session = builder().join(end, &mut params).unwrap();
                let update: Vec<f32> = (0..LEN).map(|i| update(rank, i)).collect();
                session.step(&mut params, &update, 1 + rank).unwrap();
                session.finish(&mut params).unwrap();
                params
            })
        })
        .collect();
    let params = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    drop(server);
    params
}

/// An element with one sender moves by its value, whatever the weights; with several, by their weighted mean; without any,
/// not at all.
#[test]
fn an_element_moves_by_the_mean_of_its_senders() {
    let disjoint = |rank: u32, i: usize| if i % 4 == rank as usize { 0.25 + i as f32 } else { 0.0 };
    // Element 0: workers 1 and 3; element 1: nobody; the others: worker 2.
    let few = |rank: u32, i: usize| match (i, rank) {
        (0, 1) => 1.0,
        (0, 3) => -2.0,
        (2.., 2) => 0.5,
        _ => 0.0,
    };
    for base in [
        "hardsync codec=topk density=1",
        "hardsync shards=2 codec=topk density=1 pull=topk pull_density=1",
        "hardsync codec=threshold tau=0.25",
        "backup-workers count=n codec=topk density=1",
        "sparse density=1",
        "sync topology=mesh codec=threshold tau=0.25",
    ] {
        let near = |params: &[Vec<f32>], expected: [f32; LEN]| {
            for params in params {
                let all = params.iter().zip(expected);
                assert!(all.clone().all(|(x, y)| (x - y).abs() <= 1e-6 * y.abs()), "{base}: {params:?} {expected:?}");
            }
        };
        let senders = format!("{base} merge=mean-of-senders");
        near(&after_a_step(&senders, disjoint), std::array::from_fn(|i| -0.25 - i as f32));
        let mean = std::array::from_fn(|i| -(0.25 + i as f32) * (1 + i % 4) as f32 / 10.0);
        near(&after_a_step(base, disjoint), mean);
        let expected = std::array::from_fn(|i| [1.0, 0.0, -0.5][i.min(2)]);
        near(&after_a_step(&senders, few), expected);
    }
}
