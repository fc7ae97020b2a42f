//! Nothing that a worker has contributed is absent from the parameters that `finish` returns, and no sum of weights or
//! quanta saturates or wraps on the way.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::recipe::{Merge, OptimizerState, Payload};
use gradwire::{Cluster, Error, Layout, Mem, Recipe, RunState, Session};
use proptest::prelude::*;

/// Runs `train` on each worker, with the servers that the recipe needs. Returns the results in order of rank.
fn run<R: Send + 'static>(
    recipe: Recipe,
    workers: u32,
    len: usize,
    train: impl Fn(u32, Session, Vec<f32>) -> R + Send + Sync + Clone + 'static,
) -> Vec<R> {
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let (mut threads, mut servers) = (Vec::new(), Vec::new());
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let averages = recipe.optimizer() == OptimizerState::Average;
        let builder = Session::builder(Layout::flat(len), recipe, cluster)
            .optimizer_vectors(averages.into())
            .deadline(Duration::from_secs(30));
        if rank < workers {
            let train = train.clone();
            threads.push(thread::spawn(move || {
                let mut params = vec![0.0; len];
                let session = builder.join(transport, &mut params).unwrap();
                train(rank, session, params)
            }));
        } else {
            servers.push(builder.serve(transport, &vec![0.0; len]).unwrap());
        }
    }
    let results = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for mut server in servers {
        assert_eq!(server.wait(&mut vec![0.0; len], Duration::from_secs(30)).unwrap(), RunState::Ended);
    }
    results
}

/// The quantum is so small that the counts of a replica leave 32 bits at a distance of 8.
#[test]
fn parameters_of_a_mesh_move_any_distance_in_small_quanta() {
    const TAU: f32 = 1.0 / (1 << 20) as f32;
    // A message carries at most 2^15 - 1 quanta per element.
    const UPDATE: f32 = ((1 << 15) - 1) as f32 * TAU;
    let recipe = Recipe::mesh(TAU).with_lambda(1.0);
    let ends = run(recipe, 2, 3, |_, mut session, mut params| {
        for _ in 0..400 {
            session.step(&mut params, &[UPDATE, -UPDATE, 0.0], 1).unwrap();
        }
        let status = session.finish(&mut params).unwrap();
        (params, status.rest.unwrap().norm, status.counters.rejected)
    });
    for (params, rest, rejected) in ends {
        let moved = -800.0 * UPDATE;
        assert!(moved < -24.0);
        assert_eq!((params, rest, rejected), (vec![moved, -moved, 0.0], 0.0, 0));
    }
}

/// Every recipe with local steps between synchronisations, and some without. Sums have lambda 1, so that they are sums,
/// and lossy codecs are set to send everything that they can.
const RECIPES: [&str; 20] = [
    "averaging period=H",
    "averaging period=H topology=ring chunk=2",
    "averaging period=H optimizer=reset",
    "averaging period=H topology=servers",
    "dl4j period=H",
    "dl4j period=H topology=ring chunk=3",
    "sync period=H fan_in=1",
    "sync period=H topology=ring",
    "local-sparse density=1 period=H",
    "local-bf16 period=H",
    "sync codec=int8 period=H",
    "hardsync period=H",
    "hardsync period=H shards=2",
    "async lambda=1 period=H",
    "async shards=2 lambda=1 period=H",
    "ssp lambda=1 bound=0 period=H",
    "ssp lambda=1 bound=2 period=H",
    "softsync updates=1 staleness=const period=H",
    "mesh lambda=1 density=1 end=send period=H",
    "strom lambda=1 tau=0.0009765625 end=send period=H",
];

const LEN: usize = 5;

/// The update and the examples of a step: small multiples of 2^-10.
fn step_of(rank: u32, step: u64, huge: bool) -> ([f32; LEN], u32) {
    let mixed = (step * 0x9e37_79b9 + u64::from(rank) * 0x85eb_ca6b + 1).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let update = std::array::from_fn(|i| ((mixed >> (8 * i)) % 17) as f32 / 1024.0 - 4.0 / 1024.0);
    let examples = if huge { u32::MAX - (mixed >> 50) as u32 % 3 } else { 1 + (mixed >> 50) as u32 % 9 };
    (update, examples)
}

/// The parameters that all workers must end with, from the definition of the recipe, in f64.
fn expected(recipe: &Recipe, period: usize, steps: &[u64], huge: bool) -> Vec<f64> {
    // By worker, the sums of its periods: examples and updates. The last one may be shorter.
    let periods: Vec<Vec<(f64, [f64; LEN])>> = (0..)
        .zip(steps)
        .map(|(rank, steps)| {
            let all: Vec<u64> = (0..*steps).collect();
            let sum = |steps: &[u64]| {
                steps.iter().fold((0.0, [0.0; LEN]), |(weight, sum), step| {
                    let (update, examples) = step_of(rank, *step, huge);
                    let sum = std::array::from_fn(|i| sum[i] + f64::from(update[i]));
                    (weight + f64::from(examples), sum)
                })
            };
            all.chunks(period).map(sum).collect()
        })
        .collect();
    let mut params = vec![0.0; LEN];
    for round in 0..periods.iter().map(Vec::len).max().unwrap_or(0) {
        let here: Vec<_> = periods.iter().filter_map(|of| of.get(round)).collect();
        let total: f64 = match recipe.merge() {
            Merge::Mean => here.iter().map(|(weight, _)| weight).sum(),
            _ => 1.0,
        };
        for (weight, sum) in here {
            let share = if recipe.merge() == Merge::Mean { weight / total } else { 1.0 };
            params.iter_mut().zip(sum).for_each(|(x, sum)| *x -= share * sum);
        }
    }
    params
}

/// `leaves`: the last of several workers does not wait for the other workers at the end.
fn check_that_nothing_is_absent(text: &str, period: usize, steps: &[u64], huge: bool, leaves: bool) {
    let recipe: Recipe = text.replace('H', &period.to_string()).parse().unwrap();
    let leaver = steps.len() as u32 - 1;
    let leaves = leaves && leaver > 0;
    let counts = steps.to_vec();
    let ends = run(recipe, steps.len() as u32, LEN, move |rank, mut session, mut params| {
        let mut velocity = [1.0; LEN];
        for step in 0..counts[rank as usize] {
            let (update, examples) = step_of(rank, step, huge);
            if recipe.payload() == Payload::Parameters {
                params.iter_mut().zip(update).for_each(|(x, update)| *x -= update);
                session.sync_with(&mut params, &mut [&mut velocity], examples).unwrap();
            } else {
                session.step(&mut params, &update, examples).unwrap();
            }
        }
        let end = if leaves && rank == leaver { Session::leave } else { Session::finish };
        let status = end(session, &mut params).unwrap();
        // The mean of equal vectors is that vector, also where a period has ended early.
        let kept = [[1.0; LEN], [0.0; LEN]][usize::from(recipe.optimizer() == OptimizerState::Reset)];
        let is_kept = velocity == kept || velocity == [1.0; LEN];
        (params, status.rest.map_or(0.0, |rest| rest.kept), is_kept)
    });
    let expected = expected(&recipe, period, steps, huge);
    // The missing amounts are in the residuals, each of which counts at most once. If the weights change from round to
    // round, a residual enters the mean with another share than the contribution that left it.
    let residuals: f64 = ends.iter().map(|(_, kept, _)| kept).sum();
    let lossy = residuals > 0.0;
    let shares = if lossy { 0.01 * expected.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 0.0 };
    for (params, _, is_kept) in ends.iter().take(ends.len() - usize::from(leaves)) {
        assert_eq!(params, &ends[0].0, "{text}, H={period}, steps {steps:?}: workers end with different parameters");
        assert!(is_kept, "{text}, H={period}, steps {steps:?}: the mean of equal optimizer vectors differs");
        let missing = params.iter().zip(&expected).map(|(got, expected)| (f64::from(*got) - expected).powi(2));
        let missing = missing.sum::<f64>().sqrt();
        assert!(
            missing <= 1e-5 + 1.001 * residuals + shares,
            "{text}, H={period}, steps {steps:?}: expected {expected:?}, got {params:?}, and {residuals} in residuals"
        );
    }
}

#[test]
fn nothing_contributed_is_absent_after_finish() {
    for text in RECIPES {
        // Fewer steps than a period, an incomplete period at the end, no step at all, one worker alone.
        for (period, steps) in [(10, &[27, 27][..]), (100, &[45, 45, 45]), (4, &[9, 0, 3]), (5, &[12]), (1, &[3, 7])] {
            for huge in [false, true] {
                check_that_nothing_is_absent(text, period, steps, huge, huge);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_contributed_is_absent_for_any_steps(
        text in prop::sample::select(&RECIPES[..]), period in 1usize..12,
        steps in prop::collection::vec(0u64..30, 1..5), huge in any::<bool>(), leaves in any::<bool>())
    {
        check_that_nothing_is_absent(text, period, &steps, huge, leaves);
    }
}

/// Finite updates that add up to an infinity are not handed back as if nothing had happened.
#[test]
fn final_parameters_that_are_not_finite_are_an_error() {
    for text in ["async lambda=1", "sync", "hardsync"] {
        let recipe: Recipe = text.parse().unwrap();
        let errors = run(recipe, 1, LEN, |_, mut session, mut params| {
            for _ in 0..2 {
                session.step(&mut params, &[0.0, 0.0, f32::MAX, 0.0, 0.0], 1).unwrap();
            }
            (session.finish(&mut params).unwrap_err(), params)
        });
        let (error, params) = &errors[0];
        assert!(matches!(error, Error::NonFinite { what: "final parameters", index: 2, .. }), "{text}: {error}");
        assert_eq!(params[2], f32::NEG_INFINITY, "{text}");
    }
}
