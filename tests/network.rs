//! Sessions over sockets, where time passes and peers go missing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gradwire::{Cluster, Error, Event, Layout, PeerId, Recipe, Session};
use gradwire_tcp::{Builder, Tcp};

const LEN: usize = 8;
const DEAD_AFTER: Duration = Duration::from_millis(1000);

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn tcp(rank: u32, nodes: u32, port: u16) -> Tcp {
    Builder::new(rank, nodes, &format!("127.0.0.1:{port}")).dead_after(DEAD_AFTER).open().unwrap()
}

type Told = Sender<(u32, Event)>;

fn builder(rank: u32, workers: u32, min: u32, told: Told) -> gradwire::Builder {
    let cluster = Cluster { workers, servers: 0 };
    Session::builder(Layout::flat(LEN), Recipe::sync(), cluster)
        .deadline(Duration::from_secs(8))
        .min_workers(min)
        .on_event(move |event| {
            let _ = told.send((rank, event));
        })
}

/// Steps until the parameters have come to `until`, then to the end; what went wrong, if anything did.
fn worker(rank: u32, workers: u32, min: u32, port: u16, told: Told, until: f32) -> JoinHandle<Result<Vec<f32>, Error>> {
    thread::spawn(move || {
        let mut params = vec![0.0; LEN];
        let mut session = builder(rank, workers, min, told).join(tcp(rank, workers, port), &mut params)?;
        while params[0] > until {
            session.step(&mut params, &[0.25; LEN], 1)?;
            thread::sleep(Duration::from_millis(2));
        }
        session.finish(&mut params)?;
        Ok(params)
    })
}

/// Below the fewest workers, the rest waits in so many words, and goes on when someone is back.
#[test]
fn below_the_minimum_the_rest_waits_until_someone_is_back() {
    let (port, (told, heard)) = (port(), channel());
    let others: Vec<_> = [0, 1].map(|rank| worker(rank, 3, 3, port, told.clone(), -100.0)).into();
    let mut params = vec![0.0; LEN];
    let mut session = builder(2, 3, 3, told.clone()).join(tcp(2, 3, port), &mut params).unwrap();
    for _ in 0..5 {
        session.step(&mut params, &[0.25; LEN], 1).unwrap();
    }
    drop(session);
    let mut views = Vec::new();
    let mut take = |until: &dyn Fn(u32, Event) -> bool| loop {
        let (rank, event) = heard.recv_timeout(Duration::from_secs(30)).expect("it happens");
        if let (0, Event::View { members, .. }) = (rank, event) {
            views.push(members);
        }
        if until(rank, event) {
            return views.clone();
        }
    };
    take(&|rank, event| rank == 0 && event == Event::PeerLost { peer: PeerId(2) });
    // The other one is told whom everyone waits for.
    let views = take(&|rank, event| rank == 1 && matches!(event, Event::Stalled { on: PeerId(2) | PeerId(0), .. }));
    assert_eq!(views, [3]);
    let back = worker(2, 3, 3, port, told, -100.0);
    for thread in others.into_iter().chain([back]) {
        assert!(thread.join().unwrap().unwrap()[0] <= -100.0);
    }
}

/// A caller-driven session is given up while its caller does not call for long, unless it has announced the silence.
#[test]
fn an_announced_silence_is_tolerated() {
    for announced in [true, false] {
        let (port, (told, heard)) = (port(), channel());
        let other = worker(0, 2, 1, port, told.clone(), -5.0);
        let mut params = vec![0.0; LEN];
        let mut session = builder(1, 2, 1, told).caller_driven().join(tcp(1, 2, port), &mut params).unwrap();
        session.step(&mut params, &[0.25; LEN], 1).unwrap();
        if announced {
            session.expect_silence(Duration::from_secs(20)).unwrap();
        }
        // A long validation.
        thread::sleep(3 * DEAD_AFTER);
        let end = (|| {
            while params[0] > -5.0 {
                session.step(&mut params, &[0.25; LEN], 1)?;
            }
            session.finish(&mut params).map(drop)
        })();
        other.join().unwrap().unwrap();
        let lost = heard.try_iter().any(|(rank, event)| rank == 0 && event == Event::PeerLost { peer: PeerId(1) });
        assert_eq!((lost, end.is_ok()), (!announced, announced), "{end:?}");
    }
}
