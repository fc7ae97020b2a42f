//! Merge rules that need all contributions of a round, through real sessions over threads: their results when they have
//! nothing to leave out, that ranks and shards do not matter, and that one bad worker does not.
//!
//! The doc comment of each test names an invariant by its number (`I-n`) and explains it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Session};

const LEN: usize = 11;
const STEPS: u64 = 6;

/// Rules at servers, each with numbers that leave something out of 5 contributions.
const RULES: [&str; 6] = [
    "merge=trimmed-mean trim=1",
    "merge=trimmed-mean trim=2",
    "merge=median",
    "merge=krum faulty=1 best=2",
    "merge=norm-clip",
    "merge=centred-clip radius=0.5 iterations=2",
];

fn hardsync(words: &str) -> Recipe {
    format!("hardsync {words}").parse().unwrap()
}

/// The examples and the update of the worker with this number at a step.
fn update_of(number: u32, step: u64, update: &mut [f32]) -> u32 {
    for (i, update) in (0..).zip(update) {
        *update = ((u64::from(number) * 31 + step * 17 + i * 7) % 23) as f32 / 23.0 - 0.4;
    }
    1 + (number + step as u32) % 3
}

/// Trains on threads. `of` gives examples and update of a rank at a step, or `None`: the rank ends before that step.
/// Returns the parameters of all workers. They are equal for the workers that take all steps.
fn train(
    recipe: Recipe,
    workers: u32,
    servers: u32,
    of: impl Fn(u32, u64, &mut [f32]) -> Option<u32> + Clone + Send + 'static,
) -> Vec<Vec<f32>> {
    let cluster = Cluster { workers, servers };
    let mut ends = Mem::cluster(cluster.nodes());
    let builder = Session::builder(Layout::flat(LEN), recipe, cluster).deadline(Duration::from_secs(30));
    let serving = ends.split_off(workers as usize).into_iter();
    let mut serving: Vec<_> = serving.map(|end| builder.clone().serve(end, &[0.0; LEN]).unwrap()).collect();
    let threads = ends.into_iter().zip(0..).map(|(end, rank)| {
        let (builder, of) = (builder.clone(), of.clone());
        thread::spawn(move || {
            let (mut params, mut update) = (vec![0.0; LEN], vec![0.0; LEN]);
            let mut session = builder.join(end, &mut params).unwrap();
            for step in 0..STEPS {
                let Some(examples) = of(rank, step, &mut update) else { break };
                session.step(&mut params, &update, examples).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    let threads: Vec<_> = threads.collect();
    let params = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for server in &mut serving {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(30)).unwrap(), RunState::Ended);
    }
    params
}

fn bits(params: &[f32]) -> Vec<u32> {
    params.iter().map(|x| x.to_bits()).collect()
}

/// The bits with which a run of workers that never end early ends.
fn ends(recipe: Recipe, workers: u32, servers: u32, number_of: fn(u32) -> u32) -> Vec<u32> {
    let params =
        train(recipe, workers, servers, move |rank, step, update| Some(update_of(number_of(rank), step, update)));
    assert!(params.iter().all(|of| bits(of) == bits(&params[0])), "{recipe}");
    bits(&params[0])
}

/// A trimmed mean that trims nothing is the mean, bit for bit and with its weights. With a single worker, no
/// contribution can be left out.
#[test]
fn without_anything_to_leave_out_a_rule_is_the_mean() {
    let mean = hardsync("shards=2");
    assert_eq!(ends(hardsync("shards=2 merge=trimmed-mean trim=0"), 4, 1, |rank| rank), ends(mean, 4, 1, |rank| rank));
    let unlimited = hardsync("shards=1 merge=centred-clip radius=inf iterations=3");
    assert_eq!(ends(unlimited, 4, 1, |rank| rank), ends(mean, 4, 1, |rank| rank));
    let all = ends(hardsync("merge=krum faulty=0 best=4"), 4, 1, |rank| rank);
    for (a, b) in all.into_iter().zip(ends(mean, 4, 1, |rank| rank)) {
        let [a, b] = [a, b].map(f32::from_bits);
        assert!((a - b).abs() < 1e-6, "krum takes all: {a} {b}");
    }
    for rule in ["merge=median", "merge=norm-clip", "merge=rda", "merge=adasum"] {
        assert_eq!(ends(hardsync(rule), 1, 1, |rank| rank), ends(hardsync(""), 1, 1, |rank| rank), "{rule}");
    }
    // Otherwise the tests below could not fail.
    for rule in RULES.into_iter().chain(["merge=rda", "merge=adasum"]) {
        assert_ne!(ends(hardsync(rule), 5, 1, |rank| rank), ends(hardsync(""), 5, 1, |rank| rank), "{rule}");
    }
}

/// Which rank makes a contribution does not matter, bit for bit.
#[test]
fn ranks_do_not_matter() {
    for rule in RULES {
        let recipe = hardsync(rule);
        assert_eq!(ends(recipe, 5, 1, |rank| (rank * 2 + 3) % 5), ends(recipe, 5, 1, |rank| rank), "{rule}");
    }
}

/// Rules that work element by element do not see shards and servers.
#[test]
fn shards_do_not_matter() {
    for rule in &RULES[..3] {
        let sharded = hardsync(&format!("{rule} shards=3"));
        assert_eq!(ends(sharded, 5, 2, |rank| rank), ends(hardsync(rule), 5, 1, |rank| rank), "{rule}");
    }
}

/// One worker that contributes 1e30, or the others' updates turned round and scaled, moves nothing out of the
/// range of the other workers.
#[test]
fn one_bad_worker_of_five_stays_within_the_range_of_the_others() {
    for bad in [1e30f32, -1e30, f32::MAX] {
        for rule in &RULES[..4] {
            let params = train(hardsync(rule), 5, 1, move |rank, step, update| {
                let examples = update_of(rank, step, update);
                update.iter_mut().filter(|_| rank == 2).for_each(|x| *x = bad);
                Some(examples)
            });
            let mut range = vec![(0.0, 0.0); LEN];
            for step in 0..STEPS {
                let mut all = vec![vec![0.0; LEN]; 5];
                all.iter_mut().zip(0..).for_each(|(update, rank)| _ = update_of(rank, step, update));
                for (i, (least, most)) in range.iter_mut().enumerate() {
                    let honest = || [0, 1, 3, 4].map(|rank: usize| all[rank][i]).into_iter();
                    *least -= honest().fold(f32::MIN, f32::max);
                    *most -= honest().fold(f32::MAX, f32::min);
                }
            }
            for (x, (least, most)) in params[0].iter().zip(&range) {
                assert!((least - 1e-5..=most + 1e-5).contains(x), "{rule}: {x} is not from {least} to {most}");
            }
        }
    }
}

/// A contribution of 1e30 has the median norm, or the way to it the radius, after clipping: the parameters move by no more
/// than that, and stay finite.
#[test]
fn a_clipped_contribution_moves_by_the_median_norm() {
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let of = |rank, step, update: &mut [f32]| {
        let examples = update_of(rank, step, update);
        update.iter_mut().filter(|_| rank == 2).for_each(|x| *x = 1e30);
        Some(examples)
    };
    // A centre goes no further than the radius in each of its iterations, and is committed in every step.
    let params = train(hardsync("merge=centred-clip radius=0.125 iterations=1"), 5, 1, of);
    assert!(norm(&params[0]) <= 0.125 * (1..=STEPS).sum::<u64>() as f64, "{}", norm(&params[0]));
    let params = train(hardsync("merge=norm-clip"), 5, 1, of);
    let mut most = 0.0;
    for step in 0..STEPS {
        let mut norms = [0, 1, 2, 3, 4].map(|rank| {
            let mut update = vec![0.0; LEN];
            of(rank, step, &mut update);
            norm(&update)
        });
        norms.sort_unstable_by(f64::total_cmp);
        most += norms[2];
    }
    assert!(norm(&params[0]) <= most, "{} is more than {most}", norm(&params[0]));
}

/// One worker moves by its signs. Of seven, two that vote against the others change no element in which more than two of
/// the others agree beyond a tie; it does not matter how long their updates are, nor how many shards there are.
#[test]
fn two_bad_voters_of_seven_do_not_change_a_clear_majority() {
    const LENGTH: f32 = 0.125;
    let sign = |x: f32| if x < 0.0 { -1.0f32 } else { 1.0 };
    let alone =
        train(hardsync("merge=vote length=0.125"), 1, 1, |rank, step, update| Some(update_of(rank, step, update)));
    let mut expected = [0.0f32; LEN];
    for step in 0..STEPS {
        let mut update = [0.0; LEN];
        update_of(0, step, &mut update);
        expected.iter_mut().zip(update).for_each(|(x, update)| *x -= LENGTH * sign(update));
    }
    assert_eq!(alone[0], expected);
    // The sign on which all honest workers agree, but for one of them now and then: a margin of 3 or 5.
    let honest = |step: u64, i: usize| if (step * 17 + i as u64 * 7) % 23 < 10 { -1.0f32 } else { 1.0 };
    let of = move |rank: u32, step: u64, bad: f32, update: &mut [f32]| {
        for (i, x) in update.iter_mut().enumerate() {
            let dissents = u64::from(rank) == 2 + (i as u64 + step) % 7;
            let size = 0.125 + rank as f32 / 64.0;
            *x = honest(step, i)
                * if rank < 2 {
                    bad
                } else if dissents {
                    -size
                } else {
                    size
                };
        }
    };
    for (bad, words) in [(-1.0f32, ""), (-1e30, "shards=3"), (-1e-30, "codec=sign decay=0")] {
        let params = train(hardsync(&format!("merge=vote length=0.125 {words}")), 7, 1, move |rank, step, update| {
            of(rank, step, bad, update);
            Some(1 + rank)
        });
        let expected: Vec<f32> = (0..LEN).map(|i| (0..STEPS).map(|step| -LENGTH * honest(step, i)).sum()).collect();
        assert!(params.iter().all(|got| *got == expected), "{words}, {bad}: {params:?} {expected:?}");
    }
}

/// The numbers refer to the contributions that come. Of two workers, nothing is cut.
#[test]
fn with_fewer_contributions_less_is_cut() {
    let of = |rank: u32, step: u64, update: &mut [f32]| {
        (rank < 2 || step == 0).then(|| {
            update_of(rank, step, update);
            1
        })
    };
    // From the second step on, two workers are left. They are cut to a median of two, which is their mean.
    for rule in ["merge=trimmed-mean trim=2", "merge=median"] {
        let params = train(hardsync(rule), 5, 1, of);
        let mut expected = vec![0.0f64; LEN];
        for step in 0..STEPS {
            let mut all = vec![vec![0.0; LEN]; if step == 0 { 5 } else { 2 }];
            all.iter_mut().zip(0..).for_each(|(update, rank)| _ = of(rank, step, update));
            for (i, expected) in expected.iter_mut().enumerate() {
                let mut column: Vec<f64> = all.iter().map(|update| f64::from(update[i])).collect();
                column.sort_unstable_by(f64::total_cmp);
                *expected -= (column[(column.len() - 1) / 2] + column[column.len() / 2]) / 2.0;
            }
        }
        assert_eq!(bits(&params[0]), bits(&params[1]));
        for (got, expected) in params[0].iter().zip(&expected) {
            assert!((f64::from(*got) - expected).abs() < 1e-5, "{rule}: {got} instead of {expected}");
        }
    }
}

/// The medians of parameters and of updates differ by rounding only, because all workers start from
/// the same parameters.
#[test]
fn the_median_of_parameters_is_that_of_updates() {
    for rule in ["merge=trimmed-mean trim=1", "merge=median"] {
        let updates = ends(hardsync(&format!("{rule} period=3")), 4, 1, |rank| rank);
        let parameters = ends(hardsync(&format!("{rule} period=3 payload=parameters")), 4, 1, |rank| rank);
        for (a, b) in updates.into_iter().zip(parameters) {
            let [a, b] = [a, b].map(f32::from_bits);
            assert!((a - b).abs() < 1e-5, "{rule}: {a} {b}");
        }
    }
}
