//! What a program meets that embeds gradwire for the first time: transports that are chosen at run time, errors that
//! name all faults, hints, and the status at the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gradwire::monitor::{Frames, subscribe};
use gradwire::recipe::Hint;
use gradwire::telemetry::Frame;
use gradwire::{Cluster, Error, Event, Layout, Mem, PeerLink, Recipe, Session, Transport};

const TWO: Cluster = Cluster { workers: 2, servers: 0 };

/// Threads, or sockets of one host, as a program chooses when it runs.
fn transports(kind: &str) -> Result<Vec<Box<dyn Transport>>, Error> {
    Ok(match kind {
        "mem" => Mem::cluster(2).into_iter().map(|end| Box::new(end) as Box<dyn Transport>).collect(),
        _ => {
            let first = gradwire_tcp::Builder::new(0, 2, "127.0.0.1:0").open().map_err(open)?;
            let meet = first.carrier().listens_at().to_string();
            let second = gradwire_tcp::Builder::new(1, 2, &meet).open().map_err(open)?;
            vec![Box::new(first), Box::new(second)]
        }
    })
}

/// `?` does this with the feature `tcp`.
fn open(error: gradwire_tcp::TcpError) -> Error {
    Error::Open(Box::new(error))
}

#[test]
fn a_transport_is_chosen_at_run_time() {
    for kind in ["mem", "tcp"] {
        let threads: Vec<_> = transports(kind)
            .unwrap()
            .into_iter()
            .map(|transport| {
                std::thread::spawn(move || {
                    let mut params = vec![1.0; 3];
                    let builder = Session::builder(Layout::flat(3), Recipe::sync(), TWO);
                    let mut session = builder.join(transport, &mut params)?;
                    session.step(&mut params, &[0.5; 3], 1)?;
                    session.finish(&mut params)?;
                    Ok::<_, Error>(params)
                })
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap(), [0.5; 3], "{kind}");
        }
    }
}

#[test]
fn one_error_names_all_faults_of_a_setup() {
    let recipe: Recipe = "ssp codec=topk density=2".parse().unwrap();
    let builder = Session::builder(Layout::flat(4), recipe, Cluster { workers: 3, servers: 0 });
    let error = builder.join(Mem::cluster(2).remove(0), &mut [0.0; 3]).unwrap_err();
    let text = error.to_string();
    for part in
        ["density: expected", "servers: expected at least 1", "transport: expected 3 nodes", "params: expected 4"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(matches!(error, Error::Several(errors) if errors.len() == 4));
}

/// An optimizer state that the session does not have is not reset, and the session says so once.
#[test]
fn a_reset_without_the_optimizer_is_hinted_at() {
    let run = |state: bool| {
        let (hints, seen) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept) = (Arc::clone(&hints), Arc::clone(&seen));
        let builder = Session::builder(Layout::flat(1), Recipe::averaging(1), Cluster { workers: 1, servers: 0 });
        let builder = builder.on_event(move |event| {
            if event == Event::Hint(Hint::OptimizerKept) {
                *counted.lock().unwrap() += 1;
            }
            kept.lock().unwrap().push(event);
        });
        let (mut params, mut momentum) = ([0.0], [1.0]);
        let mut session = builder.join(Mem::cluster(1).remove(0), &mut params).unwrap();
        for _ in 0..3 {
            if state {
                session.sync_with(&mut params, &mut [&mut momentum], 1).unwrap();
            } else {
                session.step(&mut params, &[0.0], 1).unwrap();
            }
        }
        let events = session.events();
        session.finish(&mut params).unwrap();
        let known = events.contains(&Event::Hint(Hint::OptimizerKept));
        (*hints.lock().unwrap(), known, momentum[0])
    };
    assert_eq!(run(false), (1, true, 1.0));
    assert_eq!(run(true), (0, false, 0.0));
}

#[test]
fn a_peer_that_never_came_is_reported_without_clocks() {
    // A port at which nobody listens: connections are refused.
    let meet = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let transport = gradwire_tcp::Builder::new(1, 2, &meet).open().unwrap();
    let builder = Session::builder(Layout::flat(1), Recipe::sync(), TWO).deadline(Duration::from_millis(400));
    let error = builder.join(transport, &mut [0.0]).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains("to join: peer 0 has not connected") && !text.contains("clock"), "{text}");
    let Error::Deadline(overdue) = error else { panic!("{text}") };
    assert_eq!(overdue.on.unwrap().link, PeerLink::Never);
}

#[test]
fn the_status_has_times_and_is_of_the_whole_run() {
    let recipe: Recipe = "averaging period=4 optimizer=keep".parse().unwrap();
    let threads: Vec<_> = Mem::cluster(2)
        .into_iter()
        .enumerate()
        .map(|(rank, transport)| {
            std::thread::spawn(move || {
                let mut params = vec![0.0; 1000];
                let mut session =
                    Session::builder(Layout::flat(1000), recipe, TWO).join(transport, &mut params).unwrap();
                for _ in 0..8 {
                    // Worker 1 computes for longer, and worker 0 waits for it.
                    std::thread::sleep(Duration::from_millis(if rank == 0 { 1 } else { 20 }));
                    session.step(&mut params, &[0.1; 1000], 1).unwrap();
                }
                assert_eq!(session.status().unwrap().times.steps, 8);
                session.finish(&mut params).unwrap()
            })
        })
        .collect();
    let [first, second] = [0, 1].map({
        let mut statuses: Vec<_> = threads.into_iter().map(|thread| Some(thread.join().unwrap())).collect();
        move |rank: usize| statuses[rank].take().unwrap()
    });
    assert_eq!((first.times.steps, second.times.steps), (8, 8));
    // Sleeps are at least as long as they are asked for.
    assert!(first.times.wait > 100_000_000 && second.times.compute > 150_000_000, "{:?}", (first.times, second.times));
    assert!(first.times.apply > 0 && second.times.wait < second.times.compute);
    assert!((0.9..1.1).contains(&first.sent_share()), "{}", first.sent_share());
}

/// One setting per process: rank 0 has the reports of both.
#[test]
fn a_run_of_several_nodes_is_published_by_one_setting() {
    // Two ports in a row that are free now.
    let port = (0..50)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
        .find(|port| *port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok())
        .unwrap();
    let address = format!("127.0.0.1:{port}");
    let done = Arc::new(Mutex::new(false));
    let threads: Vec<_> = Mem::cluster(2)
        .into_iter()
        .map(|transport| {
            let (address, done) = (address.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut params = [0.0];
                let builder = Session::builder(Layout::flat(1), Recipe::mesh(0.5), TWO).monitor(&address, None);
                let mut session = builder.join(transport, &mut params).unwrap();
                while !*done.lock().unwrap() {
                    std::thread::sleep(Duration::from_millis(5));
                    session.step(&mut params, &[0.5], 1).unwrap();
                }
                session.leave(&mut params).unwrap();
            })
        })
        .collect();
    let begun = Instant::now();
    let mut ranks = Vec::new();
    while ranks.len() < 2 && begun.elapsed() < Duration::from_secs(15) {
        let Ok(mut stream) = subscribe(&address, 10, None) else { continue };
        let mut frames = Frames::default();
        while let Ok(frame) = frames.next(&mut stream) {
            if let Frame::Report(report) = frame
                && !ranks.contains(&report.status.me.0)
            {
                ranks.push(report.status.me.0);
            }
            if ranks.len() == 2 {
                break;
            }
        }
    }
    *done.lock().unwrap() = true;
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    ranks.sort_unstable();
    assert_eq!(ranks, [0, 1]);

    let builder = Session::builder(Layout::flat(1), Recipe::sync(), Cluster { workers: 1, servers: 0 });
    let error = builder.monitor("127.0.0.1", None).join(Mem::cluster(1).remove(0), &mut [0.0]).unwrap_err();
    assert!(error.to_string().starts_with("monitor 127.0.0.1: expected HOST:PORT"), "{error}");
}
