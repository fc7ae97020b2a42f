//! Asynchronous servers: pushes and fetches, corrections of late updates, elastic averaging, delayed momentum.

use std::thread;
use std::time::Duration;

use gradwire::recipe::{Mu, Outer, Pushes, VelocityScale};
use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, RunState, Session};
use gradwire_sim::{App, World};

use crate::threads::{on_threads, on_threads_with};
use crate::{Constant, LEN, Steps, plan, simulate};

/// A fetch at every push is no fetch of its own. And one worker that pushes every update has the parameters that it
/// could fetch: it may fetch as rarely as it likes. Both bit for bit.
#[test]
fn fetching_at_every_push_is_asynchronous_sgd() {
    let run = |recipe: &str, workers| simulate(plan(recipe.parse().unwrap(), workers, 24), Steps::Jittered, None);
    for recipe in ["async", "async period=3", "softsync", "async pull=f16"] {
        let period = recipe.parse::<Recipe>().unwrap().period().at(0);
        let apart = format!("{recipe} fetch={period}");
        assert_eq!(run(recipe, 5).0.params(PeerId(5)), run(&apart, 5).0.params(PeerId(5)), "{recipe}");
    }
    let (_, every) = run("async lambda=1", 1);
    for fetch in [2, 5, 100] {
        assert_eq!(run(&format!("async lambda=1 fetch={fetch}"), 1).1, every, "fetch={fetch}");
    }
    // Two workers see less of each other then.
    assert_ne!(run("async lambda=1 fetch=5", 2).1, run("async lambda=1", 2).1);
}

/// A worker receives parameters when it fetches them, and not when it pushes. Sessions over threads.
#[test]
fn a_push_alone_brings_no_parameters() {
    const LONG: usize = 1000;
    let received = |recipe: &str| {
        let recipe: Recipe = recipe.parse().unwrap();
        let cluster = Cluster { workers: 1, servers: 1 };
        let builder = Session::builder(Layout::flat(LONG), recipe, cluster);
        let mut ends = Mem::cluster(2);
        let server = builder.clone().serve(ends.pop().unwrap(), &[0.0; LONG]).unwrap();
        let mut params = vec![0.0; LONG];
        let mut session = builder.join(ends.pop().unwrap(), &mut params).unwrap();
        for step in 1..=12u8 {
            session.step(&mut params, &[0.5; LONG], 1).unwrap();
            assert_eq!(params[7], -0.5 * f32::from(step), "{recipe}");
        }
        let links = session.status().unwrap().links;
        session.finish(&mut params).unwrap();
        assert_eq!(params, [-6.0; LONG], "{recipe}");
        drop(server);
        let all = |of: fn(&gradwire_core::status::LinkStatus) -> u64| links.iter().map(of).sum::<u64>();
        (all(|link| link.bytes_in) / 4000, all(|link| link.bytes_out) / 4000)
    };
    // Vectors: one to begin with.
    assert_eq!(received("async lambda=1"), (13, 12));
    assert_eq!(received("async lambda=1 fetch=6"), (3, 12));
    assert_eq!(received("async lambda=1 period=3 fetch=12"), (2, 4));
}

/// A step of Adagrad at a server does not depend on the scale of the updates, and an element whose updates are
/// 0 stays where it is.
#[test]
fn downpour_does_not_depend_on_the_scale_of_updates() {
    let ends = |scale: f32| {
        let app = move |me: PeerId| -> Box<dyn App> { Box::new(Constant { me, scale }) };
        let recipe: Recipe = "downpour floor=1e-30".parse().unwrap();
        let mut world = World::new(plan(recipe, 3, 20), app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(0)).to_vec()
    };
    let (one, large) = (ends(1.0), ends(4096.0));
    assert_eq!((one[0], large[0]), (0.0, 0.0));
    assert!(one[1..].iter().all(|x| *x < -0.1), "{one:?}");
    assert!(one.iter().zip(&large).all(|(one, large)| (one - large).abs() < 1e-6), "{one:?} {large:?}");
}

/// A delay of strength 0, or of one worker, corrects nothing, bit for bit. More workers are late.
#[test]
fn without_delays_a_correction_of_delays_is_asynchronous_sgd() {
    let run = |recipe: &str, workers| {
        let (world, _) = simulate(plan(recipe.parse().unwrap(), workers, 24), Steps::Jittered, None);
        world.params(PeerId(workers)).to_vec()
    };
    for preset in ["dc-asgd", "dc-asgd-a"] {
        assert_eq!(run(&format!("{preset} strength=0"), 5), run("async", 5), "{preset}");
        assert_eq!(run(preset, 1), run("async", 1), "{preset}");
        assert_ne!(run(preset, 5), run("async", 5), "{preset}");
        assert_eq!(on_threads(preset.parse().unwrap(), 1, 24), on_threads(Recipe::asynchronous(), 1, 24), "{preset}");
    }
}

/// A step of FASGD does not depend on the scale of the updates, and an element whose updates are 0 stays.
#[test]
fn fasgd_does_not_depend_on_the_scale_of_updates() {
    let ends = |scale: f32| {
        let app = move |me: PeerId| -> Box<dyn App> { Box::new(Constant { me, scale }) };
        let recipe: Recipe = "fasgd least=1e-30".parse().unwrap();
        let mut world = World::new(plan(recipe, 3, 20), app).unwrap();
        world.run(1_000_000, |_, _| Ok::<(), gradwire_sim::Halt>(())).unwrap();
        world.params(PeerId(0)).to_vec()
    };
    let (one, large) = (ends(1.0), ends(4096.0));
    assert_eq!((one[0], &one), (0.0, &large));
    assert!(one[1..].iter().all(|x| *x < -0.05), "{one:?}");
}

/// Costs so small that all shares are 1 change nothing, bit for bit, and larger ones do.
#[test]
fn b_fasgd_without_a_cost_is_fasgd() {
    let run = |recipe: &str, workers| {
        let (world, _) = simulate(plan(recipe.parse().unwrap(), workers, 24), Steps::Jittered, None);
        world.params(PeerId(workers)).to_vec()
    };
    for base in ["fasgd", "fasgd shards=2 codec=bf16 pull=f16 period=3", "softsync compensate=magnitude"] {
        let plain = run(base, 5);
        assert_eq!(run(&format!("{base} push_cost=1e-30 fetch_cost=1e-30"), 5), plain, "{base}");
        assert_ne!(run(&format!("{base} push_cost=1"), 5), plain, "{base}");
        assert_ne!(run(&format!("{base} fetch_cost=1"), 5), plain, "{base}");
    }
    let (none, tiny) =
        ["b-fasgd push_cost=0 fetch_cost=0", "fasgd push_cost=1e-30"].map(|text| text.parse().unwrap()).into();
    assert_eq!(on_threads(none, 1, 24), on_threads(tiny, 1, 24));
}

/// Odena 2016: in place of an update that is not sent, the server applies the worker's last one again.
#[test]
fn an_update_that_is_not_sent_is_the_last_one_again() {
    const RECIPE: &str = "async lambda=1 shards=2 compensate=magnitude";
    let run = |text: &str, varies: bool| {
        let recipe = format!("{RECIPE} {text}").parse().unwrap();
        on_threads_with(recipe, 1, 9, move |_, _, step, update| {
            update.fill(if varies { 0.25 + f32::from(step as u8) } else { 0.25 });
        })
    };
    for codec in ["", "codec=f16"] {
        // The first update is sent, since the server has told no magnitude before it.
        assert_eq!(run(&format!("{codec} push_cost=1e30"), true), run(codec, false));
        assert_ne!(run(codec, true), run(codec, false));
    }
}

/// Bodies travel as often as the shares say. Sessions over threads.
#[test]
fn b_fasgd_saves_bodies_both_ways() {
    const LONG: usize = 1000;
    let run = |costs: &str| {
        let recipe: Recipe = format!("fasgd least=1e-30 {costs}").parse().unwrap();
        let cluster = Cluster { workers: 1, servers: 1 };
        let builder = Session::builder(Layout::flat(LONG), recipe, cluster);
        let mut ends = Mem::cluster(2);
        let mut server = builder.clone().serve(ends.pop().unwrap(), &[0.0; LONG]).unwrap();
        let mut params = vec![0.0; LONG];
        let mut session = builder.join(ends.pop().unwrap(), &mut params).unwrap();
        let mut seen = Vec::new();
        for step in 0..40u32 {
            let before = params.clone();
            // The moving mean of the magnitudes stays at 1.
            let update = if step == 0 { [10.0; LONG] } else { [1.0; LONG] };
            session.step(&mut params, &update, 1).unwrap();
            seen.push(params != before);
        }
        let status = session.status().unwrap();
        let counters = status.counters;
        session.finish(&mut params).unwrap();
        let mut end = [0.0; LONG];
        assert_eq!(server.wait(&mut end, Duration::from_secs(20)).unwrap(), RunState::Ended);
        assert_eq!(params, end, "{costs}");
        let bytes = [status.bytes_out(), status.bytes_in()].map(|bytes| bytes / 4000);
        (bytes, [counters.skipped_pushes, counters.skipped_fetches], seen.iter().filter(|seen| **seen).count())
    };
    // Vectors: one to begin with.
    assert_eq!(run(""), ([40, 41], [0, 0], 40));
    assert_eq!(run("push_cost=1e30"), ([1, 41], [39, 0], 40));
    assert_eq!(run("fetch_cost=1e30"), ([40, 2], [0, 39], 1));
    // With a share of 1/4 each: of the 39 steps after the first one, 9 or 10.
    let ([out, into], [pushes, fetches], seen) = run("fetch_cost=3");
    assert_eq!((out, pushes, into + fetches, seen as u64), (40, 0, 41, into - 1));
    assert!((9..=10).contains(&(seen - 1)), "{seen}");
}

/// Elastic averaging over threads. Workers that do not move stay where the center is, and constant updates
/// move the sum of workers and center by themselves alone.
#[test]
fn workers_and_center_of_elastic_averaging_move_by_their_updates() {
    for recipe in ["easgd period=2", "aeasgd period=2 shards=2", "easgd period=1 alpha=1/n", "aeasgd period=3 alpha=1"]
    {
        for update in [0.0f32, 0.125] {
            let recipe: Recipe = recipe.parse().unwrap();
            let cluster = Cluster { workers: 3, servers: 1 };
            let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
            let mut ends = Mem::cluster(4);
            let mut server = builder.clone().serve(ends.pop().unwrap(), &[5.0; LEN]).unwrap();
            let threads = ends.into_iter().map(|end| {
                let builder = builder.clone();
                thread::spawn(move || {
                    let mut params = vec![0.0; LEN];
                    let mut session = builder.join(end, &mut params).unwrap();
                    // A multiple of all periods.
                    for _ in 0..12 {
                        session.step(&mut params, &[update; LEN], 1).unwrap();
                    }
                    let own = params.clone();
                    session.finish(&mut params).unwrap();
                    (own, params)
                })
            });
            let threads: Vec<_> = threads.collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            let mut center = vec![0.0; LEN];
            assert_eq!(server.wait(&mut center, Duration::from_secs(20)).unwrap(), RunState::Ended);
            for i in 0..LEN {
                let sum = center[i] + ended.iter().map(|(own, _)| own[i]).sum::<f32>();
                assert!((sum - (20.0 - 36.0 * update)).abs() < 1e-5, "{recipe}: {sum}");
            }
            assert!(ended.iter().all(|(_, params)| *params == center), "{recipe}");
            assert!(update != 0.0 || center == [5.0; LEN], "{recipe}");
        }
    }
}

/// Delayed Nesterov with a milestone at each update is Nesterov's momentum, bit for bit.
#[test]
fn a_milestone_at_each_update_is_nesterovs_momentum() {
    for recipe in ["async lambda=0.25", "softsync", "ssp shards=2"] {
        let mu = Mu::Fixed(0.5);
        let plain: Recipe = recipe.parse().unwrap();
        let bits = |outer| {
            let (world, _) = simulate(plan(plain.with_outer(outer), 5, 24), Steps::Jittered, None);
            world.params(PeerId(0)).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let momentum = bits(Outer::Momentum { mu, rate: 0.7, look: true, scale: VelocityScale::Update });
        assert_eq!(bits(Outer::DelayedNesterov { mu, rate: 0.7, pushes: Pushes::Fixed(1) }), momentum, "{recipe}");
        assert_ne!(bits(Outer::DelayedNesterov { mu, rate: 0.7, pushes: Pushes::Fixed(2) }), momentum, "{recipe}");
    }
}

/// Delayed Nesterov: n updates that n workers have computed from the same parameters move them as far as one step of
/// Nesterov's momentum on their mean.
#[test]
fn delayed_nesterov_of_all_workers_is_a_round_of_diloco() {
    let (_, each) =
        simulate(plan("async outer=delayed-nesterov mu=0.5".parse().unwrap(), 1, 24), Steps::Jittered, None);
    let (_, round) = simulate(plan("diloco period=1 mu=0.5".parse().unwrap(), 1, 24), Steps::Jittered, None);
    assert_eq!(each, round);
    // Constant updates: the gain is that of the momentum, n updates after n updates.
    let recipe: Recipe = "async outer=delayed-nesterov mu=0.5 rate=0.5".parse().unwrap();
    let params = on_threads_with(recipe, 4, 40, |_, _, _, update| update.fill(1.0));
    let (mut velocity, mut expected) = (0.0f32, 0.0f32);
    for _ in 0..40 {
        velocity = 0.5 * velocity + 0.5;
        expected -= 0.5 + 0.5 * velocity;
    }
    assert!(params.iter().flatten().all(|x| (x - expected).abs() < 1e-4), "{params:?} {expected}");
}

/// The warm start of Downpour (Dean et al. 2012, section 4.1): the other workers join with the parameters of the starter
/// after its head start, over as many servers and shards as there are.
#[test]
fn workers_join_with_the_parameters_after_the_head_start() {
    for text in ["async starters=1 head_start=7 shards=2", "async lambda=1 overlap=true starters=1 head_start=7"] {
        let recipe: Recipe = text.parse().unwrap();
        let cluster = Cluster { workers: 3, servers: 1 };
        let mut ends = Mem::cluster(cluster.nodes());
        let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
        let mut server = builder.clone().serve(ends.pop().unwrap(), &[0.0; LEN]).unwrap();
        let (told, joined) = std::sync::mpsc::channel();
        let others = ends.split_off(1).into_iter().map(|end| {
            let (builder, told) = (builder.clone(), told.clone());
            thread::spawn(move || {
                let mut params = vec![0.0; LEN];
                let mut session = builder.join(end, &mut params).unwrap();
                told.send(params.clone()).unwrap();
                session.step(&mut params, &[0.25; LEN], 1).unwrap();
                session.finish(&mut params).unwrap();
            })
        });
        let others: Vec<_> = others.collect();
        let mut params = vec![0.0; LEN];
        let mut session = builder.join(ends.pop().unwrap(), &mut params).unwrap();
        for step in 0..7u8 {
            assert!(joined.try_recv().is_err(), "{text}: a worker has joined after {step} steps");
            session.step(&mut params, &[0.5; LEN], 1).unwrap();
        }
        for params in [joined.recv().unwrap(), joined.recv().unwrap()] {
            // lambda is 1/n in one of the recipes.
            let expected = if text.contains("lambda") { -3.5 } else { -3.5 / 3.0 };
            assert!(params.iter().all(|x| (x - expected).abs() < 1e-6), "{text}: {params:?}");
        }
        session.finish(&mut params).unwrap();
        others.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(20)).unwrap(), RunState::Ended);
    }
}
