//! Waits of several nodes for one: announced silences move all deadlines, and a worker that fails is known at once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::{Cluster, Error, Event, Failure, Layout, Mem, PeerId, Recipe, RunState, Session, Transport};
use gradwire_tcp::Tcp;

const LEN: usize = 12;
const WORKERS: u32 = 3;
/// Far above the time that anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Recipes in which each step waits for all workers, and recipes in which only the end does.
const SYNCHRONOUS: [&str; 6] =
    ["sync", "sync topology=ring", "averaging period=1", "sparse", "hardsync", "ssp bound=0 lambda=1"];
const ASYNCHRONOUS: [&str; 2] = ["async lambda=1", "mesh tau=0.0625 lambda=1"];

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap()
}

fn cluster_of(recipe: &Recipe) -> Cluster {
    Cluster { workers: WORKERS, servers: u32::from(recipe.needs_servers()) }
}

fn tcp(nodes: u32) -> Vec<Tcp> {
    tcp_of(nodes, Duration::from_secs(5))
}

fn tcp_of(nodes: u32, dead_after: Duration) -> Vec<Tcp> {
    let build = |rank, meet: &str| {
        let builder = gradwire_tcp::Builder::new(rank, nodes, meet).listen("127.0.0.1:0").cluster("liveness");
        builder.dead_after(dead_after).open().unwrap()
    };
    let first = build(0, "127.0.0.1:1");
    let meet = first.carrier().listens_at().to_string();
    std::iter::once(first).chain((1..nodes).map(|rank| build(rank, &meet))).collect()
}

/// The end of a worker: its result, and the events of its session.
struct End {
    result: Result<(), Error>,
    events: Vec<Event>,
    /// When the worker ended.
    at: Instant,
}

/// Runs all nodes. `train` is the part of each worker.
fn run<T: Transport + 'static>(
    recipe: &Recipe,
    transports: Vec<T>,
    deadline: Duration,
    caller_driven: Option<u32>,
    train: impl Fn(u32, Session, Vec<f32>) -> Result<(), Error> + Copy + Send + 'static,
) -> Vec<End> {
    let cluster = cluster_of(recipe);
    let mut threads = Vec::new();
    for (rank, transport) in (0..).zip(transports) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let builder = Session::builder(Layout::flat(LEN), *recipe, cluster)
            .step_deadline(deadline)
            .leave_deadline(deadline)
            .on_event(move |event| seen.lock().unwrap().push(event));
        let builder = if caller_driven == Some(rank) { builder.caller_driven() } else { builder };
        if rank >= WORKERS {
            let mut server = builder.serve(transport, &[0.0; LEN]).unwrap();
            thread::spawn(move || while let Ok(RunState::Running) = server.wait(&mut [0.0; LEN], LONG) {});
            continue;
        }
        threads.push(thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let session = builder.join(transport, &mut params).unwrap();
            let result = train(rank, session, params);
            let events = std::mem::take(&mut *events.lock().unwrap());
            End { result, events, at: Instant::now() }
        }));
    }
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Takes three steps and finishes. `before` is called before the third.
fn three_steps(mut session: Session, mut params: Vec<f32>, before: impl FnOnce(&mut Session)) -> Result<(), Error> {
    for _ in 0..2 {
        session.step(&mut params, &[0.25; LEN], 1)?;
    }
    before(&mut session);
    session.step(&mut params, &[0.25; LEN], 1)?;
    session.finish(&mut params).map(drop)
}

/// One worker is silent for much longer than the deadline. If it has announced that, no worker fails: its peers wait
/// for it directly, through a server, through the root of a tree or through the coordinator.
fn silence_moves_deadlines<T: Transport + 'static>(open: impl Fn(u32) -> Vec<T> + Sync) {
    // The coordinator's node and a leaf; with a thread for the communication, and without.
    let cases = [(0, None), (2, Some(2)), (2, None)];
    of_all_recipes(|text| {
        let recipe = recipe(text);
        let (open, recipe) = (&open, &recipe);
        thread::scope(|scope| {
            for (silent, driven) in cases {
                scope.spawn(move || {
                    let transports = open(cluster_of(recipe).nodes());
                    let ends = run(recipe, transports, Duration::from_secs(2), driven, move |rank, session, params| {
                        three_steps(session, params, |session| {
                            if rank == silent {
                                session.expect_silence(Duration::from_secs(30)).unwrap();
                                thread::sleep(Duration::from_secs(4));
                            }
                        })
                    });
                    for (rank, end) in ends.into_iter().enumerate() {
                        assert!(end.result.is_ok(), "{text}, {silent} is silent: worker {rank}: {:?}", end.result);
                    }
                });
            }
        });
    });
}

/// Calls a test for each recipe, all at once: most of the time they sleep.
fn of_all_recipes(test: impl Fn(&'static str) + Sync) {
    thread::scope(|scope| {
        let test = &test;
        for text in SYNCHRONOUS.into_iter().chain(ASYNCHRONOUS) {
            scope.spawn(move || test(text));
        }
    });
}

#[test]
fn an_announced_silence_moves_all_deadlines_in_memory() {
    silence_moves_deadlines(Mem::cluster);
}

#[test]
fn an_announced_silence_moves_all_deadlines_over_tcp() {
    silence_moves_deadlines(tcp);
}

/// Without the announcement, the wait ends at the deadline, and the error names the silent worker, even if other nodes
/// are between.
#[test]
fn a_silence_that_was_not_announced_is_blamed_on_its_worker() {
    of_all_recipes(|text| {
        let recipe = recipe(text);
        let transports = Mem::cluster(cluster_of(&recipe).nodes());
        let ends = run(&recipe, transports, Duration::from_secs(2), None, |rank, session, params| {
            three_steps(session, params, |_| {
                if rank == 2 {
                    thread::sleep(Duration::from_secs(4));
                }
            })
        });
        for (rank, end) in ends[..2].iter().enumerate() {
            // The one that reaches the deadline first tells the other that it has failed.
            match &end.result {
                Err(Error::Deadline(overdue)) => {
                    let on = overdue.on.as_ref().unwrap_or_else(|| panic!("{text}: {overdue}"));
                    assert_eq!(on.peer, PeerId(2), "{text}: worker {rank}: {overdue}");
                }
                Err(Error::PeerFailed { failure: Failure::Overdue { on }, .. }) => assert_eq!(*on, PeerId(2), "{text}"),
                other => panic!("{text}: worker {rank}: {other:?}"),
            }
        }
    });
}

/// A worker ends if its update has a NaN. Its peers name it and the reason at once. Peers that need it end; the other
/// peers go on.
fn a_nan_ends_all_waits<T: Transport + 'static>(open: impl Fn(u32) -> Vec<T>) {
    for text in SYNCHRONOUS.into_iter().chain(ASYNCHRONOUS) {
        let recipe = recipe(text);
        for failing in [0, 2] {
            let transports = open(cluster_of(&recipe).nodes());
            let ends = run(&recipe, transports, LONG, None, move |rank, mut session, mut params| {
                if rank != failing {
                    // The coordinator can hear of it first, and the run can end before all other workers do.
                    return three_steps(session, params, |_| thread::sleep(Duration::from_millis(300)));
                }
                session.step(&mut params, &[0.25; LEN], 1)?;
                // The other workers are in their waits.
                thread::sleep(Duration::from_millis(300));
                let mut update = [0.25; LEN];
                update[5] = f32::NAN;
                session.step(&mut params, &update, 1)
            });
            let failed = &ends[failing as usize];
            assert!(matches!(failed.result, Err(Error::NonFinite { index: 5, .. })), "{text}: {:?}", failed.result);
            let failure = Failure::NonFinite { index: 5 };
            let told = Event::PeerFailed { peer: PeerId(failing), failure };
            for (rank, end) in ends.iter().enumerate().filter(|(rank, _)| *rank as u32 != failing) {
                let case = format!("{text}, {failing} fails: worker {rank}");
                assert!(end.events.contains(&told), "{case}: {:?}", end.events);
                // Below a second, and more for a machine with other work.
                let took = end.at.saturating_duration_since(failed.at);
                assert!(took < Duration::from_secs(3), "{case}: {took:?}");
                match &end.result {
                    // With servers, no worker is needed; else rank 0 hosts the coordinator.
                    Ok(()) => assert!(failing != 0 || recipe.needs_servers(), "{case}"),
                    Err(error) => {
                        let named = matches!(error, Error::PeerFailed { peer, failure: of } if peer.0 == failing && *of == failure);
                        assert!(named && failing == 0 && !recipe.needs_servers(), "{case}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_nan_ends_all_waits_in_memory() {
    a_nan_ends_all_waits(Mem::cluster);
}

#[test]
fn a_nan_ends_all_waits_over_tcp() {
    a_nan_ends_all_waits(tcp);
}

/// A worker that panics, or drops its session, is lost at once over a transport that would wait for it.
#[test]
fn a_worker_that_ends_without_leaving_says_so() {
    // An update that was refused is no reason for the end if other updates came after it.
    for (refused, panics, failure) in
        [(false, false, Failure::Dropped), (true, false, Failure::Dropped), (false, true, Failure::Panicked)]
    {
        let recipe = recipe("sync");
        let ends = run(&recipe, tcp(WORKERS), LONG, None, move |rank, mut session, mut params| {
            if rank != 2 {
                return three_steps(session, params, |_| {});
            }
            if refused {
                assert!(session.step(&mut params, &[f32::NAN; LEN], 1).is_err());
            }
            session.step(&mut params, &[0.25; LEN], 1)?;
            if panics {
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                    let _session = session;
                    // Without the hook that prints the panic.
                    std::panic::resume_unwind(Box::new("a panic of the application"));
                }));
                assert!(caught.is_err());
            }
            Ok(())
        });
        for end in &ends[..2] {
            assert!(end.result.is_ok(), "{failure:?}: {:?}", end.result);
            let told = Event::PeerFailed { peer: PeerId(2), failure };
            assert!(end.events.contains(&told), "{failure:?}: {:?}", end.events);
        }
    }
}

/// Floats of vectors that are much longer than the buffers of a connection.
const LARGE: usize = 1 << 20;
/// Short, so that bodies are held for several times as long; and long enough for the kernels on long vectors, during
/// which a node sends no keep-alives.
const DEAD_AFTER: Duration = Duration::from_secs(2);

/// Worker 0 computes for more than twice as long as a peer may be silent. All bodies for it are held meanwhile, and all of
/// them arrive over the connections that they have been sent on.
fn held_bodies_break_no_connection<T: Transport + 'static>(open: impl Fn(u32) -> Vec<T>) {
    for text in ["sync", "sync topology=ring", "async lambda=1", "mesh tau=0.0625 lambda=1"] {
        let recipe = recipe(text);
        let cluster = cluster_of(&recipe);
        let mut runs = Vec::new();
        // At once: most of the time they sleep.
        for driven in [true, false] {
            let mut threads = Vec::new();
            for (rank, transport) in (0..).zip(open(cluster.nodes())) {
                let builder = Session::builder(Layout::flat(LARGE), recipe, cluster).deadline(LONG);
                threads.push(thread::spawn(move || {
                    let mut params = vec![0.0; LARGE];
                    if rank >= WORKERS {
                        let mut server = builder.serve(transport, &params).unwrap();
                        while server.wait(&mut params, LONG).unwrap() == RunState::Running {}
                        return server.status().unwrap();
                    }
                    let builder = if driven && rank == 0 { builder.caller_driven() } else { builder };
                    let mut session = builder.join(transport, &mut params).unwrap();
                    let update = vec![0.25; LARGE];
                    for step in 0..3 {
                        session.step(&mut params, &update, 1).unwrap();
                        if rank == 0 && step == 0 {
                            session.expect_silence(10 * DEAD_AFTER).unwrap();
                            thread::sleep(5 * DEAD_AFTER / 2);
                        }
                    }
                    session.finish(&mut params).unwrap()
                }));
            }
            runs.push((driven, threads));
        }
        for (driven, threads) in runs {
            for (rank, thread) in threads.into_iter().enumerate() {
                let counters = thread.join().unwrap().counters;
                let again = (counters.reconnects, counters.resent);
                assert_eq!(again, (0, 0), "{text}, caller-driven: {driven}: node {rank} has (reconnects, sent again)");
            }
        }
    }
}

#[test]
fn held_bodies_break_no_connection_over_tcp() {
    held_bodies_break_no_connection(|nodes| tcp_of(nodes, DEAD_AFTER));
}

#[test]
fn held_bodies_break_no_connection_over_shared_memory() {
    let count = std::sync::atomic::AtomicU32::new(0);
    held_bodies_break_no_connection(|nodes| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("gradwire-liveness-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let build = |rank| gradwire_shm::Builder::new(rank, nodes).directory(&directory).dead_after(DEAD_AFTER).open();
        (0..nodes).map(|rank| build(rank).unwrap()).collect()
    });
}

#[test]
fn held_bodies_break_no_connection_in_memory() {
    held_bodies_break_no_connection(Mem::cluster);
}
