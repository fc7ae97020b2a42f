//! `Session::begin_mean`: gradients that are given range by range have the means of whole gradients, bit for bit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::Range;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use gradwire::{Cluster, Error, Layout, Mean, MeanParts, Mem, PeerId, Recipe, Session, Status, Transport};

/// Floats of the layout.
const LEN: usize = 37;
const ROUNDS: u64 = 4;

fn recipe(text: &str) -> Recipe {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn builder(text: &str, workers: u32) -> gradwire::Builder {
    let layout = Layout::new().tensor("first", &[3, 4]).tensor("empty", &[0]).tensor("second", &[5]);
    let cluster = Cluster { workers, servers: 0 };
    Session::builder(layout.tensor("third", &[20]), recipe(text), cluster).deadline(Duration::from_secs(60))
}

/// The gradient of a worker in a round, and its examples. Worker 1 has none in every third round.
fn gradient(rank: u32, round: u64) -> (Vec<f32>, u32) {
    let value = |i: usize| ((i as u64 * 11 + round * 17 + u64::from(rank) * 5) % 37) as f32 / 7.0 - 2.3;
    let examples = if rank == 1 && round % 3 == 2 { 0 } else { 1 + (rank * 3 + round as u32) % 5 };
    ((0..LEN).map(value).collect(), examples)
}

/// How a worker gives its gradients.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Way {
    /// With one call of `mean`.
    Whole,
    /// The tensors by their names, the last one first.
    Tensors,
    /// Ranges of an eighth of the vector at most, which depend on rank and round, in an order that does too.
    Ranges,
}

fn give(parts: &mut MeanParts<'_>, way: Way, rank: u32, round: u64, vector: &[f32]) -> Result<(), Error> {
    if way == Way::Tensors {
        parts.give("third", &vector[17..])?;
        parts.give("empty", &[])?;
        parts.give("second", &vector[12..17])?;
        return parts.give("first", &vector[..12]);
    }
    let step = 1 + (rank as usize + round as usize) % 5;
    let mut ranges: Vec<Range<usize>> = (0..LEN).step_by(step).map(|start| start..(start + step).min(LEN)).collect();
    let by = (rank as usize * 3 + round as usize) % ranges.len();
    ranges.rotate_left(by);
    if rank % 2 == 1 {
        ranges.reverse();
    }
    for range in ranges {
        parts.give_range(range.clone(), &vector[range])?;
        parts.pump()?;
    }
    Ok(())
}

/// The means of some rounds, as each worker has got them.
fn means<T: Transport + 'static>(
    text: &str,
    transports: Vec<T>,
    caller_driven: bool,
    way: fn(u32, u64) -> Way,
) -> Vec<Vec<Vec<f32>>> {
    let workers = transports.len() as u32;
    let run = |(rank, transport): (u32, T)| {
        let mut builder = builder(text, workers).optimizer_vectors(1);
        if caller_driven {
            builder = builder.caller_driven();
        }
        thread::spawn(move || {
            let (mut params, mut state) = (vec![0.25; LEN], vec![0.5; LEN]);
            let mut session = builder.join_with(transport, &mut params, &mut [&mut state]).unwrap();
            let mut means = Vec::new();
            for round in 0..ROUNDS {
                let (mut vector, examples) = gradient(rank, round);
                let way = way(rank, round);
                let given = if way == Way::Whole {
                    session.mean(&mut vector, examples, &mut params, &mut [&mut state])
                } else {
                    let mut parts = session.begin_mean(examples, &params, &[&state]).unwrap();
                    give(&mut parts, way, rank, round, &vector).unwrap();
                    vector.fill(f32::NAN);
                    parts.finish(&mut vector, &mut params, &mut [&mut state])
                };
                assert_eq!(given.unwrap(), Mean::Given);
                assert_eq!((session.rounds(), session.steps()), (round + 1, round + 1));
                means.push(vector);
            }
            session.finish_with(&mut params, &mut [&mut state], |_, _, _, _| {}).unwrap();
            assert_eq!((params, state), (vec![0.25; LEN], vec![0.5; LEN]), "the library changes no state");
            means
        })
    };
    let threads: Vec<_> = (0..).zip(transports).map(run).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

fn whole(_: u32, _: u64) -> Way {
    Way::Whole
}

fn tensors(_: u32, _: u64) -> Way {
    Way::Tensors
}

/// Each worker in another way in each round.
fn mixed(rank: u32, round: u64) -> Way {
    [Way::Ranges, Way::Whole, Way::Tensors][(rank as usize + round as usize) % 3]
}

const TEXTS: [&str; 11] = [
    "gradients",
    "gradients chunk=5",
    "gradients fan_in=1 chunk=7",
    "gradients topology=ring chunk=4",
    "gradients codec=int8 chunk=6",
    "gradients codec=bf16 fan_in=1 chunk=9 decay=0.5",
    "gradients topology=ring codec=sign chunk=3",
    "gradients topology=ring codec=f16",
    "gradients topology=mesh codec=topk density=0.3",
    "gradients topology=mesh codec=int8",
    "gradients topology=mesh codec=threshold tau=0.0625",
];

#[test]
fn means_of_ranges_are_those_of_whole_gradients() {
    for (text, workers) in TEXTS.into_iter().flat_map(|text| [1, 2, 3, 5].map(|workers| (text, workers))) {
        let expected = means(text, Mem::cluster(workers), false, whole);
        for (way, name) in [(tensors as fn(u32, u64) -> Way, "tensors"), (mixed, "mixed")] {
            for caller_driven in [false, true] {
                let got = means(text, Mem::cluster(workers), caller_driven, way);
                assert!(got == expected, "{text}, {workers} workers, {name}, caller-driven {caller_driven}");
            }
        }
    }
}

#[test]
fn also_over_tcp_and_shared_memory() {
    for text in ["gradients chunk=5", "gradients topology=ring codec=int8 chunk=6", TEXTS[8]] {
        let expected = means(text, Mem::cluster(3), false, whole);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let open = |rank| gradwire_tcp::Builder::new(rank, 3, &format!("127.0.0.1:{port}")).open().unwrap();
        assert!(means(text, (0..3).map(open).collect(), false, mixed) == expected, "{text}, tcp");
        #[cfg(target_os = "linux")]
        {
            let directory = std::env::temp_dir().join(format!("gradwire-ranges-{}", std::process::id()));
            // Shared memory takes no directory to which other users have access.
            let mut private = std::fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut private, 0o700).create(&directory).unwrap();
            let open = |rank| gradwire_shm::Builder::new(rank, 3).directory(&directory).open().unwrap();
            let got = means(text, (0..3).map(open).collect(), false, mixed);
            std::fs::remove_dir_all(&directory).unwrap();
            assert!(got == expected, "{text}, shm");
        }
    }
}

/// Has a worker sent a part of its gradient? The parts of a round count for its clock.
fn has_part(status: &Status) -> bool {
    status.workers.iter().any(|worker| worker.rank == PeerId(1) && worker.clock > status.clock)
}

/// A range travels before the rest of the gradient is there: a worker gives the rest only when its peer has the range.
#[test]
fn a_range_arrives_before_the_rest_is_given() {
    for text in ["gradients chunk=5", "gradients topology=ring chunk=4", "gradients codec=int8 chunk=6"] {
        let (arrived, wait) = mpsc::channel();
        let mut ends = Mem::cluster(2).into_iter();
        let (first, second) = (ends.next().unwrap(), ends.next().unwrap());
        let giver = thread::spawn(move || {
            let mut params = vec![0.0; LEN];
            let mut session = builder(text, 2).join(second, &mut params).unwrap();
            let (mut vector, examples) = gradient(1, 0);
            let mut parts = session.begin_mean(examples, &params, &[]).unwrap();
            parts.give("third", &vector[17..]).unwrap();
            wait.recv_timeout(Duration::from_secs(60)).expect("the peer has a part of the first range");
            parts.give("second", &vector[12..17]).unwrap();
            parts.give("first", &vector[..12]).unwrap();
            assert_eq!(parts.finish(&mut vector, &mut params, &mut []).unwrap(), Mean::Given);
            session.finish(&mut params).unwrap();
            vector
        });
        let mut params = vec![0.0; LEN];
        let mut session = builder(text, 2).join(first, &mut params).unwrap();
        // This worker gives nothing yet. Its node takes the messages of the other one all the same.
        let since = Instant::now();
        while !has_part(&session.status().unwrap()) {
            assert!(since.elapsed() < Duration::from_secs(50), "{text}: no part of the first range has come");
            thread::yield_now();
        }
        arrived.send(()).unwrap();
        let (mut vector, examples) = gradient(0, 0);
        assert_eq!(session.mean(&mut vector, examples, &mut params, &mut []).unwrap(), Mean::Given);
        session.finish(&mut params).unwrap();
        assert_eq!(giver.join().unwrap(), vector, "{text}");
    }
}

/// Dropped in the middle, the guard ends the session. The others are told, and do the round without it: no part of its
/// gradient is in their mean.
#[test]
fn a_guard_that_is_dropped_ends_the_session_and_leaves_nothing_in_the_mean() {
    for (text, forgets) in TEXTS
        .into_iter()
        .flat_map(|text| [false, true].map(|forgets| (text, forgets)))
        .filter(|(text, _)| *text != TEXTS[0])
    {
        // The dropped guard has to be enough: its session is there until the others are done.
        let (others, done) = mpsc::channel::<()>();
        let mut done = Some(done);
        let run = |(rank, transport): (u32, Mem)| {
            let (others, done) = (others.clone(), done.take_if(|_| rank == 2));
            thread::spawn(move || {
                let others = Some(others).filter(|_| rank != 2);
                let mut params = vec![0.0; LEN];
                let mut session = builder(text, 3).join(transport, &mut params).unwrap();
                let (mut vector, _) = gradient(rank, 0);
                let mut parts = session.begin_mean(1 + rank, &params, &[]).unwrap();
                parts.give("third", &vector[17..]).unwrap();
                if rank == 2 {
                    if forgets {
                        std::mem::forget(parts);
                    } else {
                        drop(parts);
                    }
                    let error = session.mean(&mut vector, 1, &mut params, &mut []).unwrap_err();
                    assert!(matches!(error, Error::Ended), "{error}");
                    let error = session.begin_mean(1, &params, &[]).unwrap_err();
                    assert!(matches!(error, Error::Ended), "{error}");
                    let _ = done.filter(|_| !forgets).map(|done| done.recv());
                    assert!(matches!(session.finish(&mut params), Err(Error::Ended)));
                    return Vec::new();
                }
                parts.give("second", &vector[12..17]).unwrap();
                parts.give("first", &vector[..12]).unwrap();
                assert_eq!(parts.finish(&mut vector, &mut params, &mut []).unwrap(), Mean::Given);
                session.finish(&mut params).unwrap();
                drop(others);
                vector
            })
        };
        let threads: Vec<_> = (0..).zip(Mem::cluster(3)).map(run).collect();
        drop(others);
        let means: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(means[0], means[1], "{text}");
        if text.contains("codec") {
            continue;
        }
        for (i, got) in means[0].iter().enumerate() {
            let [a, b] = [0, 1].map(|rank| f64::from(gradient(rank, 0).0[i]));
            let expected = (a + 2.0 * b) / 3.0;
            assert!((f64::from(*got) - expected).abs() < 2e-6, "{text}: element {i} is {got}, expected {expected}");
        }
    }
}

/// A `?` after a refused range ends the session as well, and its peers are told why.
#[test]
fn peers_are_told_which_element_was_refused() {
    let mut ends = Mem::cluster(2).into_iter();
    let (first, second) = (ends.next().unwrap(), ends.next().unwrap());
    let bad = thread::spawn(move || {
        let mut params = vec![0.0; LEN];
        let mut session = builder("gradients chunk=5", 2).join(second, &mut params).unwrap();
        let mut give = || {
            let mut parts = session.begin_mean(1, &params, &[])?;
            parts.give("third", &[f32::INFINITY; 20])
        };
        give().unwrap_err().to_string()
    });
    let mut params = vec![0.0; LEN];
    let mut session = builder("gradients chunk=5", 2).join(first, &mut params).unwrap();
    // Alone, it goes on.
    let (mut vector, examples) = gradient(0, 0);
    let expected = vector.clone();
    assert_eq!(session.mean(&mut vector, examples, &mut params, &mut []).unwrap(), Mean::Given);
    assert_eq!(vector, expected);
    let told = session.events().into_iter().any(|event| event.to_string().contains("element 17"));
    assert!(told, "the event names the element in the flat vector");
    let _ = session.finish(&mut params).unwrap();
    let error = bad.join().unwrap();
    assert_eq!(error, "gradient: expected finite floats, got inf at index 0 of \"third\"");
}

#[test]
fn wrong_ranges_are_named_and_can_be_given_again() {
    let mut params = vec![0.0; LEN];
    let open = |text: &str, params: &mut [f32]| builder(text, 1).join(Mem::cluster(1).pop().unwrap(), params).unwrap();
    let mut session = open("gradients", &mut params);
    let error = |result: Result<(), Error>| result.unwrap_err().to_string();
    assert_eq!(
        session.begin_mean(1, &[0.0; 2], &[]).unwrap_err().to_string(),
        format!("params: expected {LEN} floats, got 2")
    );
    assert_eq!(
        session.begin_mean(1, &params, &[&params]).unwrap_err().to_string(),
        "optimizer vectors: expected 0, got 1"
    );
    let mut parts = session.begin_mean(1, &params, &[]).unwrap();
    for (result, expected) in [
        (
            parts.give("thrid", &[0.0; 20]),
            "gradient: expected a tensor of the layout, got \"thrid\" (did you mean \"third\"?)",
        ),
        (parts.give("conv", &[0.0; 20]), "gradient: expected a tensor of the layout, got \"conv\""),
        (parts.give("third", &[0.0; 19]), "gradient: expected 20 floats for \"third\", got 19"),
        (parts.give_range(3..7, &[0.0; 3]), "gradient: expected 4 floats for elements 3..7, got 3"),
        (parts.give_range(30..38, &[0.0; 8]), "gradient: expected a range within 0..37, got 30..38"),
        #[allow(clippy::reversed_empty_ranges, reason = "it is refused")]
        (parts.give_range(5..3, &[]), "gradient: expected a range within 0..37, got 5..3"),
        (
            parts.give("second", &[0.0, 1.0, 2.0, f32::NAN, 4.0]),
            "gradient: expected finite floats, got NaN at index 3 of \"second\"",
        ),
    ] {
        assert_eq!(error(result), expected);
    }
    parts.give("third", &[3.0; 20]).unwrap();
    assert_eq!(
        error(parts.give("third", &[4.0; 20])),
        "gradient: expected each element once, got element 0 of \"third\" twice"
    );
    assert_eq!(
        error(parts.give_range(15..19, &[4.0; 4])),
        "gradient: expected each element once, got element 0 of \"third\" twice"
    );
    parts.give("second", &[2.0; 5]).unwrap();
    parts.give("first", &[1.0; 12]).unwrap();
    let mut mean = vec![0.0; LEN];
    assert_eq!(parts.finish(&mut mean, &mut params, &mut []).unwrap(), Mean::Given);
    assert_eq!(mean, [vec![1.0; 12], vec![2.0; 5], vec![3.0; 20]].concat());
    // Without examples, nothing is read, and nothing need be given.
    let mut parts = session.begin_mean(0, &params, &[]).unwrap();
    parts.give("third", &[f32::NAN; 20]).unwrap();
    assert_eq!(parts.finish(&mut mean, &mut params, &mut []).unwrap(), Mean::Given);
    assert_eq!(mean, [0.0; LEN]);
    let mut parts = session.begin_mean(1, &params, &[]).unwrap();
    parts.give("first", &[1.0; 12]).unwrap();
    let missing = parts.finish(&mut mean, &mut params, &mut []).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "gradient: expected all elements before finish, element 0 of \"second\" is missing"
    );
    assert!(matches!(session.mean(&mut mean, 1, &mut params, &mut []), Err(Error::Ended)));
    let mut session = open("sync", &mut params);
    let error = session.begin_mean(1, &params, &[]).unwrap_err().to_string();
    assert!(error.starts_with("begin_mean: expected a recipe with payload=gradients, got payload=updates"), "{error}");
}
