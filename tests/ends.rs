//! With every recipe, all workers end with the same parameters, bit for bit: every combination of topology, pace, merge
//! rule, codec, pull codec and end that a recipe may have, on threads.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::Duration;

use gradwire::recipe::{Codec, Count, End, Grace, Late, Merge, Pace, Payload, Threshold, TopK, Topology, Values};
use gradwire::status::Rest;
use gradwire::{Cluster, Layout, Mem, Recipe, RunState, Server, Session, Status};

const WORKERS: u32 = 3;
/// Long enough for two blocks of `int8`.
const LEN: usize = 100;
/// Not a whole number of periods of `update`: the sum of whole periods would leave nothing to learn.
const STEPS: usize = 6;

fn codecs() -> [Codec; 10] {
    let (topk, threshold) = (TopK::all(0.1), Threshold::fixed(1.0 / 64.0));
    let means = TopK { per_chunk: true, values: Values::TwoMeans, ..topk };
    let halves = TopK { values: Values::F16, ..topk };
    let [topk, halves, means] = [topk, halves, means].map(Codec::TopK);
    let sparse = [topk, halves, means, Codec::Threshold(threshold)];
    let dense = [Codec::F32, Codec::Bf16, Codec::F16, Codec::Int8, Codec::Sign, Codec::SignColumns];
    let mut codecs = dense.into_iter().chain(sparse);
    core::array::from_fn(|_| codecs.next().unwrap())
}

/// All recipes over these choices that pass their check.
fn recipes() -> Vec<Recipe> {
    let topologies = [
        Topology::Servers { shards: 2 },
        Topology::Tree { fan_in: 2 },
        Topology::Ring,
        Topology::Mesh { relay: 0 },
        Topology::Mesh { relay: 1 },
    ];
    let paces = [
        Pace::Synchronous,
        Pace::Stale { bound: 0 },
        Pace::Stale { bound: 2 },
        Pace::Asynchronous { overlap: false },
        Pace::Asynchronous { overlap: true },
        Pace::First { count: Count::AllBut(1), grace: Grace::NONE, late: Late::Drop },
        Pace::First { count: Count::Fixed(1), grace: Grace::NONE, late: Late::Next },
    ];
    let lambda = Recipe::asynchronous().merge();
    let vote = Merge::Vote { length: 1.0 / 64.0 };
    let merges = [Merge::Mean, lambda, Merge::Softsync { updates: 2 }, Merge::Median, Merge::MeanOfSenders, vote];
    let ends = [End::Keep, End::Send, End::Spread { messages: 3 }];
    let mut recipes = Vec::new();
    for topology in topologies {
        for pace in paces {
            for merge in merges {
                for payload in [Payload::Updates, Payload::Parameters] {
                    for codec in codecs() {
                        for pull in codecs() {
                            for end in ends {
                                recipes.push(
                                    Recipe::sync()
                                        .with_topology(topology)
                                        .with_pace(pace)
                                        .with_merge(merge)
                                        .with_payload(payload)
                                        .with_codec(codec)
                                        .with_pull(pull)
                                        .with_end(end)
                                        .with_period(if payload == Payload::Parameters { 2 } else { 1 }),
                                );
                            }
                        }
                    }
                }
            }
        }
    }
    recipes.retain(|recipe| recipe.check(WORKERS).is_ok());
    recipes
}

/// Not a multiple of any scale of a codec, and different for each worker, step and element.
fn update(rank: u32, step: usize, i: usize) -> f32 {
    let phase = (rank as f32 * 1.7 + step as f32 * 0.9 + i as f32 * 0.37).sin();
    phase * phase * phase / 10.0
}

/// The parameters and the last status of each worker.
fn run(recipe: Recipe) -> Vec<(Vec<f32>, Status)> {
    let servers = u32::from(recipe.needs_servers());
    let cluster = Cluster { workers: WORKERS, servers };
    let builder = move || {
        Session::builder(Layout::new().tensor("a", &[33]).tensor("b", &[67]), recipe, cluster)
            .deadline(Duration::from_secs(30))
    };
    let mut transports = Mem::cluster(WORKERS + servers);
    let serving: Vec<Server> = transports
        .split_off(WORKERS as usize)
        .into_iter()
        .map(|transport| builder().serve(transport, &[0.5; LEN]).unwrap())
        .collect();
    let workers = transports.into_iter().zip(0..).map(|(transport, rank)| {
        thread::spawn(move || {
            let mut params = vec![0.5; LEN];
            let mut session = builder().join(transport, &mut params).unwrap();
            for step in 0..STEPS {
                let update: Vec<f32> = (0..LEN).map(|i| update(rank, step, i)).collect();
                if recipe.payload() == Payload::Parameters {
                    params.iter_mut().zip(&update).for_each(|(x, update)| *x -= update);
                    session.sync(&mut params, 1 + rank).unwrap();
                } else {
                    session.step(&mut params, &update, 1 + rank).unwrap();
                }
            }
            let status = session.finish(&mut params).unwrap();
            (params, status)
        })
    });
    let workers: Vec<_> = workers.collect();
    let ends: Vec<(Vec<f32>, Status)> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    for mut server in serving {
        let mut params = vec![0.0; LEN];
        assert_eq!(server.wait(&mut params, Duration::from_secs(30)).unwrap(), RunState::Ended);
        assert_eq!(params, ends[0].0, "{recipe}: the server has other parameters");
    }
    ends
}

#[test]
fn all_workers_end_with_the_same_parameters() {
    let recipes = recipes();
    println!("{} recipes", recipes.len());
    assert!(recipes.len() > 500, "{} recipes", recipes.len());
    for recipe in recipes {
        let ends = run(recipe);
        let bits = |(params, _): &(Vec<f32>, Status)| params.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        for (worker, end) in ends.iter().enumerate() {
            assert_eq!(bits(end), bits(&ends[0]), "workers 0 and {worker} of {recipe}");
            check_rest(&recipe, &end.1);
        }
        // Steps of one length, up and down, cancel in some orders of an even number of votes.
        let can_cancel = matches!(recipe.merge(), Merge::Vote { .. });
        assert!(can_cancel || ends[0].0.iter().any(|x| *x != 0.5), "{recipe}: nothing was learned");
    }
}

/// The status reports the fate of the residual, as the recipe demands it.
fn check_rest(recipe: &Recipe, status: &Status) {
    if recipe.codec() == Codec::F32 {
        return assert_eq!(status.rest, None, "{recipe}");
    }
    let Rest { norm, updates, messages, kept } = status.rest.unwrap_or_else(|| panic!("{recipe}: no rest"));
    assert!(norm.is_finite() && (norm == 0.0) == (updates == 0.0), "{recipe}: {status:?}");
    match recipe.end() {
        End::Keep => assert_eq!((messages, kept), (0, norm), "{recipe}"),
        End::Spread { messages: most } => assert!(messages <= most && kept <= 2.0 * norm, "{recipe}: {status:?}"),
        // Of a threshold's residual, less than the smallest quantum per element is left; of top-k's nothing; of a dense
        // codec's a small share.
        End::Send => {
            let quantum = 1.0 / 64.0 / 256.0 * (LEN as f64).sqrt();
            let (most, left) = match recipe.codec() {
                Codec::Threshold(_) => (1024, quantum),
                Codec::TopK(_) => (1, 0.0),
                Codec::Sign | Codec::SignColumns => (16, 0.25 * norm),
                _ => (1, norm / 16.0),
            };
            let holds = kept <= left && messages <= most;
            assert!(holds, "{recipe}: {norm}, {kept} is kept after {messages} messages");
        }
    }
}
