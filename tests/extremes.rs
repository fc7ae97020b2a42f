//! Settings at the ends of their ranges: impossible ones are refused with the number that came; possible ones are not
//! cut or wrapped, and cause no panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;
use std::time::{Duration, Instant};

use gradwire::tcp::{self, Tcp};
use gradwire::{Builder, Canceller, Cluster, ConfigError, Error, Layout, Mem, Recipe, RunState, Session, Transport};

const ALONE: Cluster = Cluster { workers: 1, servers: 0 };

fn join_alone(builder: Builder, params: &mut [f32]) -> Result<Session, Error> {
    builder.join(Mem::cluster(1).remove(0), params)
}

#[test]
fn a_tensor_that_does_not_fit_into_memory_is_refused_by_name() {
    const HUGE: usize = 1 << 40;
    let layout = Layout::new().tensor("bias", &[2]).tensor("weight", &[HUGE, HUGE]).tensor("scale", &[1]);
    let mut params = vec![0.0; layout.len()];
    let error = join_alone(Session::builder(layout, Recipe::sync(), ALONE), &mut params).unwrap_err();
    assert!(matches!(&error, Error::Layout(error) if error.tensor == "weight"), "{error:?}");
    let text = error.to_string();
    for expected in
        ["layout: tensor \"weight\"", "expected at most", "got shape [1099511627776, 1099511627776] after 2"]
    {
        assert!(text.contains(expected), "{text}");
    }
    let layout = Layout::new().tensor("weight", &[HUGE, HUGE]);
    let cluster = Cluster { workers: 1, servers: 1 };
    let server = Session::builder(layout, Recipe::asynchronous(), cluster).serve(Mem::cluster(2).remove(1), &[]);
    assert!(matches!(server.unwrap_err(), Error::Layout(_)));
}

#[test]
fn vectors_that_the_machines_cannot_count_are_refused() {
    let refused = |text: &str, servers, len| match text
        .parse::<Recipe>()
        .unwrap()
        .check_cluster(Cluster { workers: 4, servers }, len)
    {
        Err(error @ ConfigError::TooLong { len: got, limit, .. }) if got > limit => Some(error.to_string()),
        Err(error) => panic!("{text}: {error}"),
        Ok(()) => None,
    };
    // With several shards, each shard would fit, but the worker's vector does not.
    for (text, servers) in [("sync", 0), ("downpour", 2), ("hardsync shards=4", 1), ("sparse", 0)] {
        assert_eq!(refused(text, servers, (1 << 30) - 1), None, "{text}");
        assert!(refused(text, servers, 1 << 30).unwrap().contains("got 1073741824"), "{text}");
        assert!(refused(text, servers, usize::MAX).is_some(), "{text}");
    }
    // A message of a dense top-k is longer than the vector.
    for (text, servers) in [("sparse density=1", 0), ("async codec=topk density=0.001 end=send", 1)] {
        assert!(refused(text, servers, (1 << 30) - 1).unwrap().contains("in a shard"), "{text}");
        assert_eq!(refused(text, servers, 1 << 29), None, "{text}");
    }
    // The product of the length and the number of optimizer vectors leaves 64 bits.
    let layout = Layout::flat(usize::MAX / 16);
    let builder = Session::builder(layout, "dl4j".parse().unwrap(), ALONE).optimizer_vectors(u32::MAX);
    let error = join_alone(builder, &mut []).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("layout: expected at most 1073741823 floats in the vector, got 18446744073709551615"),
        "{error}"
    );
}

fn patient(layout: Layout, recipe: Recipe, cluster: Cluster) -> Builder {
    let forever = Duration::MAX;
    Session::builder(layout, recipe, cluster)
        .deadline(forever)
        .join_deadline(forever)
        .step_deadline(forever)
        .leave_deadline(forever)
        .dead_after(forever)
}

/// Two workers and a server train for some steps, with all waits as long as a duration can say.
fn train_patiently<T: Transport + 'static>(transports: Vec<T>) {
    let cluster = Cluster { workers: 2, servers: 1 };
    let mut threads = Vec::new();
    for (rank, transport) in transports.into_iter().enumerate() {
        let builder = patient(Layout::flat(3), "hardsync".parse().unwrap(), cluster);
        let builder = if rank == 1 { builder.caller_driven() } else { builder };
        threads.push(thread::spawn(move || {
            let mut params = [1.0; 3];
            if rank == 2 {
                let mut server = builder.serve(transport, &params).unwrap();
                assert_eq!(server.wait(&mut params, Duration::MAX).unwrap(), RunState::Ended);
                return params;
            }
            let mut session = builder.join(transport, &mut params).unwrap();
            for _ in 0..3 {
                session.expect_silence(Duration::MAX).unwrap();
                session.step(&mut params, &[0.25; 3], 1).unwrap();
            }
            // The grace is as long as can be, so nothing is cancelled.
            session.canceller().cancel_after(Duration::MAX);
            session.finish(&mut params).unwrap();
            params
        }));
    }
    // No wait of a node ends by itself, so this one has to.
    let begin = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(begin.elapsed() < Duration::from_secs(60), "the run does not end");
        thread::sleep(Duration::from_millis(5));
    }
    for thread in threads {
        assert_eq!(thread.join().unwrap(), [0.25; 3]);
    }
}

#[test]
fn waits_can_be_as_long_as_a_duration_can_say() {
    train_patiently(Mem::cluster(3));
    let open = |rank, meet: &str| -> Tcp {
        tcp::Builder::new(rank, 3, meet).servers(1).dead_after(Duration::MAX).spin(Duration::ZERO).open().unwrap()
    };
    let zero = open(0, "127.0.0.1:0");
    let meet = zero.carrier().listens_at().to_string();
    train_patiently(vec![zero, open(1, &meet), open(2, &meet)]);
    // A later cancel still comes at once.
    let canceller = Canceller::new();
    canceller.cancel_after(Duration::MAX);
    canceller.cancel();
    let builder = patient(Layout::flat(1), Recipe::sync(), Cluster { workers: 2, servers: 0 }).canceller(&canceller);
    let (first, _second) = {
        let mut all = Mem::cluster(2);
        (all.remove(0), all.remove(0))
    };
    assert!(matches!(builder.join(first, &mut [0.0]), Err(Error::Cancelled(_))));
}
