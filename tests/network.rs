//! Sessions over TCP: timeouts, lost workers, and the minimum number of workers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gradwire::{Cluster, Error, Event, Layout, PeerId, Recipe, Session};
use gradwire_tcp::{Builder, Tcp};

const LEN: usize = 8;
/// Short, so that tests can wait until a peer is given up.
const DEAD_AFTER: Duration = Duration::from_millis(1000);

/// A port that no program gets by chance as long as this process lives.
fn port() -> u16 {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

    // A bound socket that does not listen lets a node listen there, as long as both allow it.
    let socket = std::mem::ManuallyDrop::new(socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
    sockopt::set_socket_reuseaddr(&*socket, true).unwrap();
    bind(&*socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    SocketAddr::try_from(getsockname(&*socket).unwrap()).unwrap().port()
}

fn tcp(rank: u32, nodes: u32, port: u16) -> Tcp {
    Builder::new(rank, nodes, &format!("127.0.0.1:{port}")).dead_after(DEAD_AFTER).open().unwrap()
}

/// Receives the events of all workers, with the rank of the worker.
type Events = Sender<(u32, Event)>;

fn builder(rank: u32, workers: u32, min: u32, events: Events) -> gradwire::Builder {
    let cluster = Cluster { workers, servers: 0 };
    Session::builder(Layout::flat(LEN), Recipe::sync(), cluster)
        .deadline(Duration::from_secs(8))
        .min_workers(min)
        .on_event(move |event| {
            let _ = events.send((rank, event));
        })
}

/// Starts a worker that takes steps until its parameters are at most `until`, and then finishes. Returns its final
/// parameters.
fn worker(
    rank: u32,
    workers: u32,
    min: u32,
    port: u16,
    events: Events,
    until: f32,
) -> JoinHandle<Result<Vec<f32>, Error>> {
    thread::spawn(move || {
        let mut params = vec![0.0; LEN];
        let mut session = builder(rank, workers, min, events).join(tcp(rank, workers, port), &mut params)?;
        while params[0] > until {
            session.step(&mut params, &[0.25; LEN], 1)?;
            thread::sleep(Duration::from_millis(2));
        }
        session.finish(&mut params)?;
        Ok(params)
    })
}

/// With fewer workers than `min_workers`, the rest waits and reports the wait. It goes on when a lost worker is back.
#[test]
fn a_run_below_min_workers_waits_for_a_lost_worker() {
    let (port, (events, received)) = (port(), channel());
    let rest: Vec<_> = [0, 1].map(|rank| worker(rank, 3, 3, port, events.clone(), -100.0)).into();
    let mut params = vec![0.0; LEN];
    let mut session = builder(2, 3, 3, events.clone()).join(tcp(2, 3, port), &mut params).unwrap();
    for _ in 0..5 {
        session.step(&mut params, &[0.25; LEN], 1).unwrap();
    }
    drop(session);
    let mut views = Vec::new();
    let mut take = |until: &dyn Fn(u32, Event) -> bool| loop {
        let (rank, event) = received.recv_timeout(Duration::from_secs(30)).expect("the event comes");
        if let (0, Event::View { members, .. }) = (rank, event) {
            views.push(members);
        }
        if until(rank, event) {
            return views.clone();
        }
    };
    take(&|rank, event| rank == 0 && event == Event::PeerLost { peer: PeerId(2) });
    // Rank 1 learns through the coordinator, rank 0, which worker is missing.
    let views = take(&|rank, event| rank == 1 && matches!(event, Event::Stalled { on: PeerId(2) | PeerId(0), .. }));
    assert_eq!(views, [3]);
    let back = worker(2, 3, 3, port, events, -100.0);
    for thread in rest.into_iter().chain([back]) {
        assert!(thread.join().unwrap().unwrap()[0] <= -100.0);
    }
}

/// A caller-driven session that makes no calls for longer than `dead_after` is given up, unless it has announced the
/// silence.
#[test]
fn an_announced_silence_does_not_count_as_a_loss() {
    for announces in [true, false] {
        let (port, (events, received)) = (port(), channel());
        let other = worker(0, 2, 1, port, events.clone(), -5.0);
        let mut params = vec![0.0; LEN];
        let mut session = builder(1, 2, 1, events).caller_driven().join(tcp(1, 2, port), &mut params).unwrap();
        session.step(&mut params, &[0.25; LEN], 1).unwrap();
        if announces {
            session.expect_silence(Duration::from_secs(20)).unwrap();
        }
        // Stands for a long validation.
        thread::sleep(3 * DEAD_AFTER);
        let end = (|| {
            while params[0] > -5.0 {
                session.step(&mut params, &[0.25; LEN], 1)?;
            }
            session.finish(&mut params).map(drop)
        })();
        other.join().unwrap().unwrap();
        let lost = received.try_iter().any(|(rank, event)| rank == 0 && event == Event::PeerLost { peer: PeerId(1) });
        assert_eq!((lost, end.is_ok()), (!announces, announces), "{end:?}");
    }
}
