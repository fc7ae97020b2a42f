//! Sessions and servers over the in-process transport: results, leaving and failing workers, and the errors of wrong
//! calls.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::recipe::{End, OptimizerState, Pace, Staleness, Topology};
use gradwire::{Cluster, Error, Event, Layout, Mem, Recipe, RunState, Session, Status};

const LEN: usize = 12;

fn layout() -> Layout {
    Layout::new().tensor("dense.weight", &[2, 5]).tensor("dense.bias", &[2])
}

fn cluster(recipe: &Recipe, workers: u32) -> Cluster {
    Cluster { workers, servers: u32::from(recipe.needs_servers()) }
}

/// Runs `train` on each worker, with the servers that the recipe needs. Returns the results of `train` in order of
/// rank.
fn run<R: Send + 'static>(
    recipe: Recipe,
    workers: u32,
    train: impl Fn(u32, Session, Vec<f32>) -> R + Send + Sync + Copy + 'static,
) -> Vec<R> {
    let cluster = cluster(&recipe, workers);
    let mut threads = Vec::new();
    let mut servers = Vec::new();
    for (rank, transport) in (0..).zip(Mem::cluster(cluster.nodes())) {
        let builder = Session::builder(layout(), recipe, cluster).deadline(Duration::from_secs(20));
        if rank < workers {
            threads.push(thread::spawn(move || {
                let mut params = vec![0.5; LEN];
                let session = builder.join(transport, &mut params).unwrap();
                train(rank, session, params)
            }));
        } else {
            servers.push(builder.serve(transport, &[0.0; LEN]).unwrap());
        }
    }
    let results = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    for mut server in servers {
        assert_eq!(server.wait(&mut [0.0; LEN], Duration::from_secs(20)).unwrap(), RunState::Ended);
    }
    results
}

/// One recipe of each family.
fn recipes() -> [Recipe; 6] {
    [
        Recipe::averaging(3),
        Recipe::sync(),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::softsync(2),
        Recipe::ssp(2).with_lambda(1.0),
        Recipe::mesh(1.0 / 64.0).with_lambda(1.0),
    ]
}

fn steps(rank: u32, session: &mut Session, params: &mut [f32], count: u32) {
    for step in 0..count {
        let update: Vec<f32> = (0..LEN).map(|i| ((rank + step) as f32 + i as f32) / 1024.0).collect();
        session.step(params, &update, 8).unwrap();
    }
}

#[test]
fn all_workers_end_with_the_same_parameters_under_every_recipe() {
    for recipe in recipes() {
        let results = run(recipe, 4, |rank, mut session, mut params| {
            // Unequal numbers of steps: a worker that finishes early must not stop the rest.
            steps(rank, &mut session, &mut params, 7 + rank);
            let status = session.finish(&mut params).unwrap();
            (params, status)
        });
        for (params, _) in &results {
            assert_eq!(params, &results[0].0, "{recipe}");
            assert!(params.iter().any(|x| *x != results[0].0[0]) && params[0] < 0.5, "{recipe}: {params:?}");
        }
    }
}

/// With one worker, every rule is the plain optimizer, bit for bit.
#[test]
fn one_worker_is_the_plain_optimizer() {
    let staleness = Recipe::softsync(1).with_staleness(Staleness::constant());
    for recipe in [
        Recipe::sync(),
        Recipe::averaging(3),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::ssp(1).with_lambda(1.0),
        staleness,
    ] {
        let start = if recipe.needs_servers() { 0.0 } else { 0.5 };
        let results = run(recipe, 1, |rank, mut session, mut params| {
            steps(rank, &mut session, &mut params, 10);
            session.finish(&mut params).unwrap();
            params
        });
        let mut plain = vec![start; LEN];
        for step in 0..10 {
            for (i, p) in plain.iter_mut().enumerate() {
                *p -= (step as f32 + i as f32) / 1024.0;
            }
        }
        assert_eq!(results[0], plain, "{recipe}");
    }
}

#[test]
fn sync_in_place_equals_step_with_the_same_updates() {
    for recipe in [
        Recipe::averaging(2),
        Recipe::sync(),
        Recipe::sync().with_period(2),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::ssp(2).with_lambda(1.0),
    ] {
        let by = |in_place: bool| {
            move |rank: u32, mut session: Session, mut params: Vec<f32>| {
                for step in 0..6 {
                    let update: Vec<f32> = (0..LEN).map(|i| (rank + step) as f32 / 64.0 + i as f32 / 256.0).collect();
                    if in_place {
                        params.iter_mut().zip(&update).for_each(|(p, u)| *p -= u);
                        session.sync(&mut params, 4).unwrap();
                    } else {
                        session.step(&mut params, &update, 4).unwrap();
                    }
                }
                session.finish(&mut params).unwrap();
                params
            }
        };
        let (sync, step) = (run(recipe, 2, by(true)), run(recipe, 2, by(false)));
        for (a, b) in sync[0].iter().zip(&step[0]) {
            assert!((a - b).abs() < 1e-5, "{recipe}: {a} {b}");
        }
    }
}

/// A session measures its periods in seconds by its own clock.
#[test]
fn a_period_in_seconds_ends_when_its_time_is_over() {
    let recipe: Recipe = "sync period=3s".parse().unwrap();
    let clocks = run(recipe, 2, |_, mut session: Session, mut params: Vec<f32>| {
        let mut take = |session: &mut Session| {
            session.step(&mut params, &[1.0 / 64.0; LEN], 4).unwrap();
            session.status().unwrap().clock.0
        };
        let before = (0..20).map(|_| take(&mut session)).max();
        thread::sleep(Duration::from_millis(3100));
        let after = take(&mut session);
        let next = take(&mut session);
        session.finish(&mut params).unwrap();
        (before, after, next, params)
    });
    for (before, after, next, params) in clocks {
        assert_eq!((before, after, next), (Some(0), 1, 1));
        assert_eq!(params, [0.5 - 22.0 / 64.0; LEN]);
    }
}

/// Momentum is averaged, set to zero or left as it is, by the recipe's policy.
#[test]
fn optimizer_state_follows_its_policy() {
    for (policy, expected) in [
        (OptimizerState::Keep, [[1.0; 2], [3.0; 2]]),
        (OptimizerState::Reset, [[0.0; 2], [0.0; 2]]),
        (OptimizerState::Average, [[2.5; 2], [2.5; 2]]),
    ] {
        let recipe = Recipe::averaging(1).with_optimizer(policy);
        let cluster = cluster(&recipe, 2);
        let threads = Mem::cluster(2).into_iter().zip(0u32..).map(|(transport, rank)| {
            thread::spawn(move || {
                let (mut params, mut momentum) = (vec![0.0; 2], vec![1.0 + 2.0 * rank as f32; 2]);
                let builder = Session::builder(Layout::flat(2), recipe, cluster);
                let mut session = builder
                    .optimizer_vectors(u32::from(policy == OptimizerState::Average))
                    .join(transport, &mut params)
                    .unwrap();
                // Weighted by examples: 1 for rank 0 and 3 for rank 1.
                session.sync_with(&mut params, &mut [&mut momentum], 1 + 2 * rank).unwrap();
                session.finish(&mut params).unwrap();
                momentum
            })
        });
        let threads: Vec<_> = threads.collect();
        for (thread, expected) in threads.into_iter().zip(expected) {
            assert_eq!(thread.join().unwrap(), expected, "{policy:?}");
        }
    }
}

#[test]
fn a_session_runs_on_the_callers_thread() {
    let recipe = Recipe::sync();
    let cluster = cluster(&recipe, 2);
    let threads = Mem::cluster(2).into_iter().map(|transport| {
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let builder = Session::builder(layout(), recipe, cluster).caller_driven();
            let mut session = builder.join(transport, &mut params).unwrap();
            for _ in 0..5 {
                session.pump().unwrap();
                session.step(&mut params, &[0.25; LEN], 1).unwrap();
            }
            session.finish(&mut params).unwrap();
            params
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        assert_eq!(thread.join().unwrap(), [-1.25; LEN]);
    }
}

#[test]
fn two_runs_in_one_process_do_not_mix() {
    let one = thread::spawn(|| run(Recipe::ssp(1).with_lambda(1.0), 3, train_and_finish));
    let other = run(Recipe::mesh(1.0 / 64.0).with_lambda(1.0), 3, train_and_finish);
    let one = one.join().unwrap();
    assert!(one.iter().all(|params| params == &one[0]) && other.iter().all(|params| params == &other[0]));
    assert_ne!(one[0], other[0]);
}

fn train_and_finish(rank: u32, mut session: Session, mut params: Vec<f32>) -> Vec<f32> {
    steps(rank, &mut session, &mut params, 20);
    session.finish(&mut params).unwrap();
    params
}

#[test]
fn the_rest_goes_on_when_a_worker_leaves() {
    let server_sync = Recipe::sync().with_topology(Topology::Servers { shards: 2 });
    for recipe in recipes().into_iter().chain([server_sync]) {
        run(recipe, 3, move |rank, mut session, mut params| {
            steps(rank, &mut session, &mut params, if rank == 2 { 2 } else { 8 });
            if rank == 2 {
                session.leave(&mut params).unwrap_or_else(|error| panic!("{recipe}: {error}"));
            } else {
                session.finish(&mut params).unwrap_or_else(|error| panic!("{recipe}: {error}"));
            }
        });
    }
}

/// Threads cannot reconnect, so a dropped session counts as lost at once.
#[test]
fn the_rest_goes_on_when_a_worker_vanishes() {
    for recipe in [
        Recipe::sync(),
        Recipe::asynchronous().with_lambda(1.0),
        Recipe::ssp(1).with_lambda(1.0),
        Recipe::mesh(1.0 / 64.0).with_lambda(1.0),
    ] {
        run(recipe, 3, move |rank, mut session, mut params| {
            steps(rank, &mut session, &mut params, 3);
            if rank == 2 {
                return;
            }
            steps(rank, &mut session, &mut params, 5);
            // A mesh does not wait for its peers, so the loss can come after these steps. Servers report it to no
            // worker.
            let begun = Instant::now();
            let is_lost = |event: &Event| matches!(event, Event::PeerLost { peer } if peer.0 == 2);
            while !recipe.needs_servers() && !session.events().iter().any(is_lost) {
                assert!(begun.elapsed() < Duration::from_secs(20), "{recipe}: no PeerLost event");
                thread::sleep(Duration::from_millis(1));
            }
            session.finish(&mut params).unwrap();
        });
    }
}

/// The errors of `spoil` on each worker, after checks that the refused call changed nothing.
fn error_of(
    recipe: Recipe,
    spoil: impl Fn(&mut Session, &mut Vec<f32>) -> Error + Send + Sync + Copy + 'static,
) -> Vec<Error> {
    run(recipe, 1, move |_, mut session, mut params| {
        let before = params.clone();
        let error = spoil(&mut session, &mut params);
        assert_eq!(params, before, "a refused call changed the parameters");
        // The session still works.
        session.step(&mut params, &[1.0; LEN], 1).unwrap();
        assert_ne!(params, before);
        session.finish(&mut params).unwrap();
        error
    })
}

#[test]
fn a_refused_vector_is_named_and_changes_nothing() {
    for recipe in [
        Recipe::averaging(3),
        Recipe::sync(),
        Recipe::softsync(1),
        Recipe::ssp(2).with_lambda(1.0),
        Recipe::mesh(0.5).with_lambda(1.0),
    ] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let errors = error_of(recipe, move |session, params| {
                let mut update = vec![0.0; LEN];
                update[11] = bad;
                session.step(params, &update, 1).unwrap_err()
            });
            let expected = format!("update: expected finite floats, got {bad} at index 1 of \"dense.bias\"");
            assert_eq!(errors[0].to_string(), expected);
        }
        let errors = error_of(recipe, |session, params| session.step(params, &[0.0; 11], 1).unwrap_err());
        assert_eq!(errors[0].to_string(), "update: expected 12 floats, got 11");
    }
}

/// Finite updates can add up to an infinity, which must not reach the peers.
#[test]
fn a_diverged_worker_contributes_nothing() {
    for recipe in
        [Recipe::averaging(2), Recipe::sync().with_period(2), Recipe::asynchronous().with_lambda(1.0).with_period(2)]
    {
        let errors = run(recipe, 1, |_, mut session, mut params| {
            let huge = [-f32::MAX; LEN];
            session.step(&mut params, &huge, 1).unwrap();
            session.step(&mut params, &huge, 1).unwrap_err().to_string()
        });
        assert!(errors[0].starts_with("contribution: expected finite floats, got "), "{recipe}: {}", errors[0]);
    }
}

#[test]
fn a_wrong_setup_is_refused_with_both_values() {
    let cluster = Cluster { workers: 2, servers: 0 };
    let join = |recipe: Recipe, cluster, params: usize, vectors| {
        let transport = Mem::cluster(2).remove(0);
        let builder = Session::builder(layout(), recipe, cluster).optimizer_vectors(vectors);
        builder.join(transport, &mut vec![0.0; params]).unwrap_err().to_string()
    };
    assert_eq!(join(Recipe::sync(), cluster, 11, 0), "params: expected 12 floats, got 11");
    assert_eq!(
        join(Recipe::ssp(1).with_lambda(1.0), cluster, 12, 0),
        "servers: expected at least 1 server node, got 0 (servers are nodes of their own, with the ranks after those of the \
         workers; the transport connects all)"
    );
    assert_eq!(
        join(Recipe::softsync(3), Cluster { workers: 2, servers: 1 }, 12, 0),
        "updates: expected at most the number of workers (2), got 3; transport: expected 3 nodes (workers and servers), got 2"
    );
    let five = Cluster { workers: 5, servers: 0 };
    assert_eq!(join(Recipe::sync(), five, 12, 0), "transport: expected 5 nodes (workers and servers), got 2");
    let average = Recipe::averaging(2).with_optimizer(OptimizerState::Average);
    assert_eq!(join(average, cluster, 12, 0), "optimizer vectors: expected 1, got 0");
    let one = Cluster { workers: 1, servers: 1 };
    let served = Session::builder(layout(), Recipe::asynchronous().with_lambda(1.0), one)
        .serve(Mem::cluster(2).remove(0), &[0.0; LEN]);
    assert_eq!(served.unwrap_err().to_string(), "rank 0: expected a worker, got a server");
    let sync = Recipe::ssp(0).with_lambda(1.0).with_pace(Pace::Synchronous);
    assert!(
        join(sync.with_staleness(Staleness::inverse()), Cluster { workers: 2, servers: 1 }, 12, 0)
            .contains("requires staleness=const")
    );
}

#[test]
fn nodes_with_different_recipes_refuse_each_other() {
    let cluster = Cluster { workers: 2, servers: 0 };
    let recipes = [Recipe::averaging(5), Recipe::averaging(7)];
    let threads = Mem::cluster(2).into_iter().zip(recipes).map(|(transport, recipe)| {
        thread::spawn(move || {
            let mut params = vec![0.5; LEN];
            let builder = Session::builder(layout(), recipe, cluster).deadline(Duration::from_secs(20));
            let joined = builder.join(transport, &mut params);
            // Rank 0 joins with its own parameters, and meets the other contract at its first synchronisation.
            let mut session = match joined {
                Ok(session) => session,
                Err(error) => return error,
            };
            (0..8)
                .find_map(|_| session.step(&mut params, &[0.0; LEN], 1).err())
                .expect("two recipes cannot train together")
        })
    });
    let mut errors = threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap().to_string());
    let refused = |peer, expected, got| {
        let contract = "another contract (recipe, layout, cluster or a note)";
        format!("peer {peer} runs {contract}: expected \"period = {expected}\", got \"period = {got}\"")
    };
    assert_eq!(errors.next().unwrap(), refused(1, 5, 7));
    assert_eq!(errors.next().unwrap(), refused(0, 7, 5));
}

#[test]
fn a_deadline_error_names_the_peer_that_is_waited_for() {
    let recipe = Recipe::ssp(1).with_lambda(1.0);
    let cluster = Cluster { workers: 2, servers: 1 };
    let mut ends = Mem::cluster(3);
    let _server = Session::builder(layout(), recipe, cluster).serve(ends.remove(2), &[0.0; LEN]).unwrap();
    let (sender, receiver) = mpsc::channel::<()>();
    let slow = {
        let transport = ends.remove(1);
        thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let session = Session::builder(layout(), recipe, cluster).join(transport, &mut params).unwrap();
            // Joins, but never takes a step.
            let _ = receiver.recv();
            drop(session);
        })
    };
    let mut params = vec![0.0; LEN];
    let deadline = Duration::from_millis(2500);
    let builder = Session::builder(layout(), recipe, cluster).deadline(deadline);
    let mut session = builder.join(ends.remove(0), &mut params).unwrap();
    let begun = Instant::now();
    let error = (0..5).find_map(|_| session.step(&mut params, &[0.0; LEN], 1).err()).expect("the bound holds it back");
    assert!(begun.elapsed() < deadline + Duration::from_secs(2));
    let Error::Deadline(overdue) = &error else { panic!("{error}") };
    let on = overdue.on.as_ref().expect("a peer is waited for");
    // Worker 0 waits for the server, which has named the worker behind its own wait.
    assert_eq!((on.peer.0, on.reported_by.map(|by| by.0), on.at), (1, Some(2), 0), "{error}");
    assert!(error.to_string().contains("waiting for peer 1 (at clock 0) since "), "{error}");
    assert!(matches!(session.step(&mut params, &[0.0; LEN], 1), Err(Error::Ended)));
    drop(sender);
    slow.join().unwrap();
}

#[test]
fn a_status_counts_what_happened() {
    let recipe = Recipe::mesh(1.0 / 64.0).with_lambda(1.0).with_end(End::Send);
    // All have joined before the first message, so that no snapshot for a newcomer contains messages.
    static JOINED: Barrier = Barrier::new(3);
    let statuses: Vec<Status> = run(recipe, 3, |rank, mut session, mut params| {
        JOINED.wait();
        steps(rank, &mut session, &mut params, 30);
        let live = session.status().unwrap();
        assert!(live.clock.0 == 30 && live.bytes_out() > 0);
        session.finish(&mut params).unwrap()
    });
    for status in statuses {
        // 31 messages of each worker: 30 steps and the rest of the residual.
        assert!(status.workers.iter().all(|worker| worker.clock.0 == 31), "{status:?}");
        assert_eq!(status.counters.applied, 62, "{status:?}");
        assert_eq!(status.staleness.count(), status.counters.applied);
        // The last message leaves less than the smallest quantum, 2^-14, in each element of the residual.
        assert!(status.counters.entries > 0 && status.residual_norm <= (LEN as f64).sqrt() / 16384.0);
        assert!(status.bytes_out() < status.counters.dense_bytes + 64 * 200);
        assert!(status.links.iter().all(|link| link.messages_in >= 10 && link.messages_out >= 10));
    }
}

/// `Server::wait` and `Server::status` can be called again after the end of the run.
#[test]
fn a_server_keeps_its_results_after_the_run() {
    let (recipe, cluster) = (Recipe::asynchronous().with_lambda(1.0), Cluster { workers: 1, servers: 1 });
    for caller_driven in [false, true] {
        let mut ends = Mem::cluster(2);
        let builder = Session::builder(layout(), recipe, cluster).deadline(Duration::from_secs(20));
        let server_builder = if caller_driven { builder.clone().caller_driven() } else { builder.clone() };
        let mut server = server_builder.serve(ends.remove(1), &[1.0; LEN]).unwrap();
        let mut params = [0.0; LEN];
        assert_eq!(server.wait(&mut params, Duration::from_millis(10)).unwrap(), RunState::Running);
        assert_eq!((server.status().unwrap().clock.0, params), (0, [0.0; LEN]));
        let worker = thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder.join(ends.remove(0), &mut params).unwrap();
            session.step(&mut params, &[0.25; LEN], 1).unwrap();
            session.finish(&mut params).unwrap();
        });
        for _ in 0..2 {
            assert_eq!(server.wait(&mut params, Duration::from_secs(20)).unwrap(), RunState::Ended);
            assert_eq!((server.status().unwrap().clock.0, params), (1, [0.75; LEN]));
        }
        worker.join().unwrap();
    }
}

/// A learning rate takes effect with the next contribution, also if other calls come between.
#[test]
fn a_learning_rate_waits_for_the_next_step() {
    let recipe: Recipe = "strom tau=0.5".parse().unwrap();
    let results = run(recipe, 2, |rank, mut session, mut params| {
        session.step(&mut params, &[0.25; LEN], 1).unwrap();
        let first = session.status().unwrap().tau;
        if rank == 0 {
            session.set_learning_rate(0.25);
            session.expect_silence(Duration::from_secs(1)).unwrap();
            assert_eq!(session.status().unwrap().tau, first);
            session.step(&mut params, &[0.0; LEN], 1).unwrap();
            assert_eq!(session.status().unwrap().tau, first / 4.0);
        }
        session.finish(&mut params).unwrap();
        params
    });
    assert_eq!(results[0], results[1]);
}
