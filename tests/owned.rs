//! Sessions that own their vectors: the same parameters as with vectors of the caller, bit for bit, and refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use gradwire::{Cluster, Error, Layout, Mem, OwnedSession, Recipe, Session, Transport};

const LEN: usize = 1000;
const STEPS: u32 = 7;

/// How a worker takes its steps.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Style {
    /// `Session::step`, or `OwnedSession::update_mut` and `step`.
    Update,
    /// `Session::sync`, or `OwnedSession::params_mut` and `sync`.
    InPlace,
    /// As `InPlace`, with `OwnedSession::next_mut`.
    Next,
}

/// The update of an element, with and without an effect of the parameters on it.
fn update(param: f32, rank: u32, step: u32, i: usize, depends: bool) -> f32 {
    let mixed = (rank * 31 + step * 7 + i as u32 * 13).wrapping_mul(0x9e37_79b9) >> 20;
    let noise = (mixed as f32 - 2048.0) / 65536.0;
    if depends { 0.125 * (param - rank as f32 - 1.0 / 3.0) + noise } else { noise }
}

/// The parameters of the caller after each step and at the end.
fn copying(mut session: Session, params: &mut [f32], rank: u32, style: Style, depends: bool) -> Vec<Vec<f32>> {
    let mut seen = Vec::new();
    for step in 0..STEPS {
        let updates: Vec<_> = params.iter().enumerate().map(|(i, p)| update(*p, rank, step, i, depends)).collect();
        if style == Style::Update {
            session.step(params, &updates, 1 + rank).unwrap();
        } else {
            params.iter_mut().zip(&updates).for_each(|(param, update)| *param -= update);
            session.sync(params, 1 + rank).unwrap();
        }
        seen.push(params.to_vec());
    }
    session.finish(params).unwrap();
    seen.push(params.to_vec());
    seen
}

/// The same with vectors of the session.
fn owned(mut session: OwnedSession, rank: u32, style: Style, depends: bool) -> Vec<Vec<f32>> {
    let mut seen = Vec::new();
    for step in 0..STEPS {
        match style {
            Style::Update => {
                let (params, into) = session.update_mut().unwrap();
                for (i, (into, param)) in into.iter_mut().zip(params).enumerate() {
                    *into = update(*param, rank, step, i, depends);
                }
                session.step(1 + rank).unwrap();
            }
            Style::InPlace => {
                let params = session.params_mut().unwrap();
                params.iter_mut().enumerate().for_each(|(i, p)| *p -= update(*p, rank, step, i, depends));
                session.sync(1 + rank).unwrap();
            }
            Style::Next => {
                let before = session.params().to_vec();
                let (_, next) = session.next_mut().unwrap();
                for (i, (next, param)) in next.iter_mut().zip(&before).enumerate() {
                    *next = param - update(*param, rank, step, i, depends);
                }
                session.sync(1 + rank).unwrap();
            }
        }
        seen.push(session.params().to_vec());
    }
    session.finish().unwrap();
    seen.push(session.params().to_vec());
    seen
}

/// Runs all nodes of a cluster, and returns what each worker has seen.
fn run<T: Transport + 'static>(
    nodes: Vec<T>,
    recipe: Recipe,
    style: Style,
    owns: bool,
    depends: bool,
) -> Vec<Vec<Vec<f32>>> {
    let servers = u32::from(recipe.needs_servers());
    let cluster = Cluster { workers: nodes.len() as u32 - servers, servers };
    let (mut threads, mut serving) = (Vec::new(), Vec::new());
    for (rank, node) in (0..).zip(nodes) {
        let builder = Session::builder(Layout::flat(LEN), recipe, cluster);
        if rank >= cluster.workers {
            serving.push(builder.serve(node, &[0.5; LEN]).unwrap());
            continue;
        }
        // Both kinds of drivers.
        let builder = if rank == 1 { builder.caller_driven() } else { builder };
        threads.push(thread::spawn(move || {
            if owns {
                return owned(builder.join_owned(node, &[0.5; LEN]).unwrap(), rank, style, depends);
            }
            let mut params = vec![0.5; LEN];
            let session = builder.join(node, &mut params).unwrap();
            copying(session, &mut params, rank, style, depends)
        }));
    }
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The rules with a result that does not depend on the time: for each, whether updates are given too, workers, and whether
/// updates depend on the parameters.
const RULES: [(&str, bool, u32, bool); 16] = [
    ("sync topology=tree chunk=100", true, 3, true),
    ("sync topology=ring chunk=100", true, 3, true),
    ("sync topology=ring", true, 1, true),
    ("sync topology=ring codec=int8", true, 3, true),
    ("sync period=3", false, 2, true),
    ("sync period=3ex normalize=steps topology=ring", false, 2, true),
    ("averaging period=1 topology=tree chunk=100", true, 3, true),
    ("averaging period=1 topology=ring chunk=100", true, 2, true),
    ("averaging period=3 topology=ring", false, 3, true),
    ("diloco period=2", false, 2, true),
    ("sync topology=mesh codec=bf16", true, 2, true),
    ("hardsync", true, 2, true),
    ("hardsync period=2", false, 2, true),
    ("hardsync outer=momentum shards=1 codec=int8", true, 2, true),
    ("async", true, 1, true),
    ("mesh", true, 1, true),
];

#[test]
fn owned_vectors_give_the_same_parameters() {
    for (text, gives_updates, workers, depends) in RULES {
        let recipe: Recipe = text.parse().unwrap();
        let nodes = || Mem::cluster(workers + u32::from(recipe.needs_servers()));
        for style in [Style::Update, Style::InPlace, Style::Next] {
            if style == Style::Update && !gives_updates {
                continue;
            }
            let (expected, got) =
                (run(nodes(), recipe, style, false, depends), run(nodes(), recipe, style, true, depends));
            let bits =
                |seen: &[Vec<Vec<f32>>]| -> Vec<u32> { seen.iter().flatten().flatten().map(|x| x.to_bits()).collect() };
            assert!(bits(&expected) == bits(&got), "{text} {style:?}: expected {expected:?}, got {got:?}");
            assert!(expected[0][0] != expected[0][STEPS as usize], "{text}: the parameters change");
        }
    }
}

#[cfg(all(feature = "tcp", feature = "shm"))]
#[test]
fn the_same_over_tcp_and_shared_memory() {
    for text in ["sync topology=ring chunk=100", "averaging period=1 topology=tree chunk=100", "hardsync"] {
        let recipe: Recipe = text.parse().unwrap();
        let count = 2 + u32::from(recipe.needs_servers());
        let expected = run(Mem::cluster(count), recipe, Style::InPlace, false, true);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let meet = format!("127.0.0.1:{port}");
        let tcp = (0..count).map(|rank| gradwire::tcp::Builder::new(rank, count, &meet).open().unwrap()).collect();
        assert_eq!(run(tcp, recipe, Style::InPlace, true, true), expected, "{text} over tcp");
        let name = format!("owned-{port}");
        let shm = |rank| gradwire::shm::Builder::new(rank, count).cluster(&name).open().unwrap();
        let shm = (0..count).map(shm).collect();
        assert_eq!(run(shm, recipe, Style::Next, true, true), expected, "{text} over shared memory");
    }
}

fn alone(text: &str) -> Result<OwnedSession, Error> {
    let cluster = Cluster { workers: 1, servers: 0 };
    let recipe: Recipe = text.parse().unwrap();
    Session::builder(Layout::flat(2), recipe, cluster).join_owned(Mem::cluster(1).remove(0), &[1.0, 2.0])
}

#[test]
fn a_vector_that_was_not_handed_out_is_not_contributed() {
    let mut session = alone("sync").unwrap();
    let error = session.step(1).unwrap_err();
    assert!(matches!(error, Error::Unwritten { call: "step", expected: "update_mut" }), "{error}");
    session.params_mut().unwrap()[0] = 3.0;
    let error = session.step(1).unwrap_err();
    assert!(error.to_string().starts_with("step(): expected a vector that update_mut() has handed out"), "{error}");
    session.sync(1).unwrap();
    assert_eq!(session.params(), [3.0, 2.0]);
    assert!(matches!(session.sync(1), Err(Error::Unwritten { call: "sync", .. })));
    session.update_mut().unwrap().1.fill(0.5);
    assert!(matches!(session.sync(1), Err(Error::Unwritten { call: "sync", .. })));
    session.step(1).unwrap();
    assert_eq!((session.params(), session.steps()), (&[2.5, 1.5][..], 2));
    session.finish().unwrap();
    assert_eq!(session.params(), [2.5, 1.5]);
    assert!(matches!(session.params_mut(), Err(Error::Ended)));
    assert!(matches!(session.step(1), Err(Error::Ended)));
    assert!(matches!(session.finish(), Err(Error::Ended)));
}

#[test]
fn a_refused_vector_leaves_no_trace() {
    let mut session = alone("averaging period=2").unwrap();
    assert!(matches!(session.update_mut(), Err(Error::LocalSteps { .. })));
    session.params_mut().unwrap()[1] = f32::NAN;
    let error = session.sync(1).unwrap_err();
    assert!(matches!(error, Error::NonFinite { what: "params", index: 1, .. }), "{error}");
    session.params_mut().unwrap()[1] = 5.0;
    session.sync(1).unwrap();
    // Within the period, the parameters are the application's.
    assert_eq!((session.params(), session.steps()), (&[1.0, 5.0][..], 1));
    session.params_mut().unwrap()[0] = 7.0;
    session.finish().unwrap();
    assert_eq!(session.params(), [7.0, 5.0]);
}

#[test]
fn recipes_without_owned_vectors_are_refused() {
    for text in
        ["gradients", "averaging optimizer=average", "hardsync merge=elastic alpha=0.5", "async period=2 fetch=4"]
    {
        let recipe: Recipe = text.parse().unwrap();
        let cluster = Cluster { workers: 1, servers: u32::from(recipe.needs_servers()) };
        let builder = Session::builder(Layout::flat(2), recipe, cluster).optimizer_vectors(1);
        let error = builder.join_owned(Mem::cluster(cluster.nodes()).remove(0), &[1.0, 2.0]).unwrap_err();
        assert!(matches!(error, Error::Owned { .. }), "{text}: {error}");
    }
}
