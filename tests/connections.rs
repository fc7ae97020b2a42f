//! Which nodes the transports of sessions connect: the ones that a machine wants, and over TCP all with rank 0.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use gradwire::{Cluster, Error, Layout, PeerId, Recipe, RunId, RunState, Session, Transport};
use gradwire_core::wire::Header;
use gradwire_core::{Input, OpId, Pool, ProtocolError, Segment, TransportError};
use gradwire_mem::Mem;
use gradwire_tcp::{Builder, Tcp};

const LEN: usize = 8;
const DEAD_AFTER: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// The peers of each node that are connected now, and all that have been.
#[derive(Clone, Debug, Default)]
struct Seen {
    now: BTreeSet<u32>,
    ever: BTreeSet<u32>,
}

/// A transport that notes the connections which it reports.
struct Counted<T> {
    inner: T,
    seen: Arc<Mutex<Seen>>,
}

impl<T: Transport> Transport for Counted<T> {
    fn place(&self) -> (PeerId, u32) {
        self.inner.place()
    }

    fn patience(&self) -> Option<Duration> {
        self.inner.patience()
    }

    fn run(&self) -> Option<RunId> {
        self.inner.run()
    }

    fn set_run(&mut self, run: RunId) {
        self.inner.set_run(run);
    }

    fn propose_run(&mut self, run: RunId) {
        self.inner.propose_run(run);
    }

    fn connects_on_demand(&self) -> bool {
        self.inner.connects_on_demand()
    }

    fn want(&mut self, peers: &[PeerId]) {
        self.inner.want(peers);
    }

    fn transmit(&mut self, op: OpId, peer: PeerId, header: Header, body: Option<Segment>, pool: &Pool) {
        self.inner.transmit(op, peer, header, body, pool);
    }

    fn receive(&mut self, op: OpId, peer: PeerId, into: Option<Segment>, pool: &mut Pool) {
        self.inner.receive(op, peer, into, pool);
    }

    fn close(&mut self, peer: PeerId, reason: ProtocolError) {
        self.inner.close(peer, reason);
    }

    fn busy(&mut self, span: Duration) {
        self.inner.busy(span);
    }

    fn unsent(&self) -> u64 {
        self.inner.unsent()
    }

    fn poll(&mut self, pool: &mut Pool, wait: Option<Duration>) -> Result<Option<Input>, TransportError> {
        let input = self.inner.poll(pool, wait)?;
        match input {
            Some(Input::Connected { peer }) => {
                let mut seen = self.seen.lock().unwrap();
                seen.now.insert(peer.0);
                seen.ever.insert(peer.0);
            }
            Some(Input::Disconnected { peer }) => drop(self.seen.lock().unwrap().now.remove(&peer.0)),
            _ => {}
        }
        Ok(input)
    }

    fn waker(&self) -> Waker {
        self.inner.waker()
    }
}

fn tcp(nodes: u32, servers: u32) -> Vec<Tcp> {
    let open = |rank, meet: &str| {
        let builder = Builder::new(rank, nodes, meet).servers(servers).dead_after(DEAD_AFTER).spin(Duration::ZERO);
        builder.listen("127.0.0.1:0").open().unwrap()
    };
    let zero = open(0, "127.0.0.1:0");
    let meet = zero.carrier().listens_at().to_string();
    [zero].into_iter().chain((1..nodes).map(|rank| open(rank, &meet))).collect()
}

/// Trains with sessions on threads: 8 steps of 1/4. `at` is called by each worker after each step, and ends it with false.
/// Returns what each node has seen, by rank, and the first parameter of each worker that ended with the run.
fn train<T: Transport + 'static>(
    text: &str,
    workers: u32,
    open: impl Fn(u32, u32) -> Vec<T>,
    at: impl Fn(u32, u64) -> bool + Copy + Send + 'static,
) -> (Vec<Seen>, Vec<Option<f32>>) {
    let recipe: Recipe = text.parse().unwrap();
    let cluster = Cluster { workers, servers: u32::from(recipe.needs_servers()) };
    let seen: Vec<_> = (0..cluster.nodes()).map(|_| Arc::new(Mutex::new(Seen::default()))).collect();
    let mut threads = Vec::new();
    for (rank, inner) in (0..).zip(open(cluster.nodes(), cluster.servers)) {
        let transport = Counted { inner, seen: Arc::clone(&seen[rank as usize]) };
        let builder = Session::builder(Layout::flat(LEN), recipe, cluster).deadline(PATIENCE).min_workers(1);
        threads.push(thread::spawn(move || -> Result<Option<f32>, Error> {
            let mut params = vec![0.0; LEN];
            if rank >= workers {
                let mut server = builder.serve(transport, &params)?;
                while server.wait(&mut params, PATIENCE)? == RunState::Running {}
                return Ok(None);
            }
            let mut session = builder.join(transport, &mut params)?;
            for step in 0..8 {
                session.step(&mut params, &[0.25; LEN], 1)?;
                if !at(rank, step) {
                    return Ok(None);
                }
            }
            session.finish(&mut params)?;
            Ok(Some(params[0]))
        }));
    }
    let ends: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
    (seen.into_iter().map(|seen| seen.lock().unwrap().clone()).collect(), ends)
}

/// The most peers of a node other than rank 0 and a server, which all nodes are connected with.
fn constant<T: Transport + 'static>(open: impl Fn(u32, u32) -> Vec<T> + Copy) {
    for (text, most) in [
        ("sync topology=tree fan_in=1", 2),
        ("sync topology=tree fan_in=2", 3),
        ("sync topology=ring", 2),
        ("async lambda=1", 1),
    ] {
        let (seen, ends) = train(text, 8, open, |_, _| true);
        for (rank, Seen { ever, .. }) in seen.iter().enumerate().take(8).skip(1) {
            let peers = ever.iter().filter(|peer| **peer != 0).count();
            assert!(peers <= most, "{text}: node {rank} was connected with {ever:?}");
        }
        let first = ends[0].unwrap();
        assert!(ends[..8].iter().all(|end| *end == Some(first)), "{text}: {ends:?}");
    }
}

#[test]
fn a_node_has_few_connections_over_tcp() {
    constant(tcp);
}

#[test]
fn a_node_has_few_connections_in_memory() {
    constant(|nodes, _| Mem::cluster(nodes));
}

#[test]
fn a_node_has_few_connections_in_shared_memory() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    constant(|nodes, _| {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("gradwire-few-{}-{run}", std::process::id()));
        let open = |rank| {
            let builder = gradwire_shm::Builder::new(rank, nodes).directory(&directory);
            builder.ring_len(4096).dead_after(DEAD_AFTER).spin(Duration::ZERO).open().unwrap()
        };
        (0..nodes).map(open).collect()
    });
}

/// The workers of a chain or a ring on both sides of one that vanishes are connected with each other in its place.
fn closes_the_gap<T: Transport + 'static>(open: impl Fn(u32, u32) -> Vec<T> + Copy) {
    for text in ["sync topology=tree fan_in=1", "sync topology=ring"] {
        let (seen, ends) = train(text, 6, open, |rank, step| rank != 3 || step < 2);
        assert!(!seen[5].ever.contains(&2) && !seen[5].ever.contains(&3), "{text}: {:?}", seen[5].ever);
        assert!(seen[2].ever.contains(&4) && seen[4].ever.contains(&2), "{text}: {:?}", seen);
        let rest: Vec<_> = ends.iter().enumerate().filter(|(rank, _)| *rank != 3).map(|(_, end)| *end).collect();
        assert!(rest.iter().all(|end| end.is_some() && *end == rest[0]), "{text}: {ends:?}");
    }
}

#[test]
fn the_neighbours_of_a_worker_that_vanishes_are_connected_over_tcp() {
    closes_the_gap(tcp);
}

#[test]
fn the_neighbours_of_a_worker_that_vanishes_are_connected_in_memory() {
    closes_the_gap(|nodes, _| Mem::cluster(nodes));
}

/// Polls all nodes until the condition holds.
#[track_caller]
fn until(nodes: &mut [Counted<Tcp>], holds: impl Fn(&[BTreeSet<u32>]) -> bool) {
    let (begun, mut pool) = (Instant::now(), Pool::new([0]));
    loop {
        let now: Vec<_> = nodes.iter().map(|node| node.seen.lock().unwrap().now.clone()).collect();
        if holds(&now) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{now:?}");
        for node in &mut *nodes {
            node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap();
        }
    }
}

/// A node that wants a peer later dials it, also if the peer would dial if it wanted the connection. The connection is
/// closed when neither wants it, and each wish alone keeps it.
#[test]
fn a_peer_that_is_wanted_later_is_dialled_and_let_go() {
    let mut nodes: Vec<_> = tcp(4, 0).into_iter().map(|inner| Counted { inner, seen: Arc::default() }).collect();
    let zero = [PeerId(0)];
    nodes[0].want(&[PeerId(1), PeerId(2), PeerId(3)]);
    nodes[1..].iter_mut().for_each(|node| node.want(&zero));
    let all = |of: [&[u32]; 4]| of.map(|ranks| ranks.iter().copied().collect::<BTreeSet<u32>>());
    let apart = all([&[1, 2, 3], &[0], &[0], &[0]]);
    until(&mut nodes, |now| now == apart);
    // Of two nodes that want each other the higher rank dials. Here only one of them does.
    for (wants, peer) in [(3, 1), (1, 3)] {
        nodes[wants].want(&[PeerId(0), PeerId(peer as u32)]);
        let pair = all([&[1, 2, 3], &[0, 3], &[0], &[0, 1]]);
        until(&mut nodes, |now| now == pair);
        // The wish of the other node keeps the connection.
        nodes[peer].want(&[PeerId(0), PeerId(wants as u32)]);
        nodes[wants].want(&zero);
        let (begun, mut pool) = (Instant::now(), Pool::new([0]));
        while begun.elapsed() < DEAD_AFTER {
            for node in &mut nodes {
                assert_eq!(node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap(), None);
            }
        }
        nodes[peer].want(&zero);
        until(&mut nodes, |now| now == apart);
    }
}

/// Two nodes that dial each other at the same moment end with one connection.
#[test]
fn two_nodes_that_want_each_other_have_one_connection() {
    for _ in 0..5 {
        let mut nodes: Vec<_> = tcp(5, 0).into_iter().map(|inner| Counted { inner, seen: Arc::default() }).collect();
        until(&mut nodes, |now| now.iter().all(|peers| peers.len() == 4));
        let (begun, mut pool) = (Instant::now(), Pool::new([0]));
        while begun.elapsed() < Duration::from_millis(400) {
            for node in &mut nodes {
                assert_eq!(node.poll(&mut pool, Some(Duration::from_millis(1))).unwrap(), None);
            }
        }
    }
}
