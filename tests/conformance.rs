//! One test suite for all transports: order and integrity of messages, large bodies, flow control, lost peers,
//! reconnection and wake-up.
//!
//! The tests are generic functions over [`Transport`]. The macro at the end of the file instantiates them for each
//! transport. Tests wait for events of the transport, never for a fixed time.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gradwire_core::wire::{Ack, Header, Kind, Message, Push};
use gradwire_core::{
    Clock, Incarnation, Input, OpId, PeerId, Pool, ProtocolError, Segment, Sequence, ShardId, Transport,
};

/// The limit of each wait, far above its usual length.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a body that is larger than all buffers between two nodes together.
const LARGE: usize = 8 << 20;

/// A transport with its buffers. Asserts that each operation ends exactly once, and that connections open and close in
/// turn.
struct Node<T> {
    transport: T,
    pool: Pool,
    me: PeerId,
    /// Number of the last operation; the first one is 1.
    next: u64,
    /// Operations that have not ended.
    open: BTreeSet<OpId>,
    connected: BTreeSet<PeerId>,
    log: Vec<Input>,
}

/// The buffer from which all bodies are sent.
const OUT: gradwire_core::BufferId = gradwire_core::BufferId(0);
/// The first of the buffers that receive bodies, one per sender.
const IN: u32 = 1;

/// Bytes that differ by position and by `salt`.
fn body(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(salt * 7919) >> 11) as u8).collect()
}

/// The number that the sender gave to a message.
fn number(header: &Header) -> u64 {
    match header.message() {
        Message::Push(push) => push.sequence.0,
        Message::QuantaAck(ack) => ack.last.0,
        message => panic!("expected a push or an acknowledgement, got {message:?}"),
    }
}

impl<T: Transport> Node<T> {
    fn new(transport: T) -> Self {
        let (me, nodes) = transport.place();
        let pool = Pool::new((0..=nodes).map(|_| LARGE));
        let (open, connected) = (BTreeSet::new(), BTreeSet::new());
        Self { transport, pool, me, next: 0, open, connected, log: Vec::new() }
    }

    /// Begins an operation, and returns its new number.
    fn op(&mut self) -> OpId {
        self.next += 1;
        self.open.insert(OpId(self.next));
        OpId(self.next)
    }

    /// Sends the first `len` bytes of the outgoing buffer as message `number`.
    fn send(&mut self, to: u32, number: u64, len: usize) -> OpId {
        let op = self.op();
        let (origin, incarnation, sequence) = (self.me, Incarnation(1), Sequence(number));
        let message = if len > 0 {
            let (shard, clock) = (ShardId(0), Clock(0));
            Message::Push(Push {
                shard,
                worker: origin,
                incarnation,
                sequence,
                base: clock,
                weight: 1,
                repeats: false,
                fetches: true,
                step_time: None,
                rider: None,
            })
        } else {
            Message::QuantaAck(Ack { origin, incarnation, last: sequence })
        };
        let header = Header::new(0, origin, incarnation, len as u32, message);
        let body = (len > 0).then_some(Segment { buffer: OUT, start: 0, len: len as u32 });
        self.transport.transmit(op, PeerId(to), header, body, &self.pool);
        op
    }

    /// The segment that receives bodies of rank `from`.
    fn place(from: u32, len: u32) -> Segment {
        Segment { buffer: gradwire_core::BufferId(IN + from), start: 0, len }
    }

    /// Reads the body of the last header of rank `from`.
    fn receive(&mut self, from: u32, len: u32) -> OpId {
        let op = self.op();
        self.transport.receive(op, PeerId(from), Some(Self::place(from, len)), &mut self.pool);
        op
    }

    /// The next input, or `None` if no input comes within `wait`.
    #[track_caller]
    fn poll(&mut self, wait: Duration) -> Option<Input> {
        let input = self.transport.poll(&mut self.pool, Some(wait)).unwrap_or_else(|error| panic!("{error}"))?;
        match input {
            Input::Connected { peer } => assert!(self.connected.insert(peer), "connected twice: {peer}"),
            Input::Disconnected { peer } => assert!(self.connected.remove(&peer), "disconnected twice: {peer}"),
            Input::Completed { op, .. } | Input::Aborted { op } => assert!(self.open.remove(&op), "ended twice: {op}"),
            _ => {}
        }
        self.log.push(input);
        Some(input)
    }
}

/// Polls all nodes in turn until `done` returns true. `done` receives the nodes, the index of one node, and its input.
#[track_caller]
fn drive<T: Transport>(nodes: &mut [Node<T>], mut done: impl FnMut(&mut [Node<T>], usize, Option<Input>) -> bool) {
    let begun = Instant::now();
    loop {
        for index in 0..nodes.len() {
            let input = nodes[index].poll(Duration::from_micros(200));
            if done(nodes, index, input) {
                return;
            }
        }
        let logs: Vec<_> = nodes.iter().map(|node| &node.log[node.log.len().saturating_sub(5)..]).collect();
        assert!(begun.elapsed() < PATIENCE, "timeout; the last inputs of each node: {logs:?}");
    }
}

/// Nodes that are all connected to each other.
fn cluster<T: Transport>(transports: Vec<T>) -> Vec<Node<T>> {
    let mut nodes: Vec<_> = transports.into_iter().map(Node::new).collect();
    let peers = nodes.len() - 1;
    drive(&mut nodes, |nodes, _, _| nodes.iter().all(|node| node.connected.len() == peers));
    nodes
}

/// Polls until all operations have ended.
fn settle<T: Transport>(nodes: &mut [Node<T>]) {
    drive(nodes, |nodes, _, _| nodes.iter().all(|node| node.open.is_empty()));
}

/// Messages of all sizes, in both directions at once, arrive in order and with their bodies intact.
fn delivers_in_order<T: Transport>(transports: Vec<T>) {
    const COUNT: u64 = 300;
    let len = |number: u64| [0, 4, 100, 4096, 70_000, 0, 300_000][number as usize % 7];
    let mut nodes = cluster(transports);
    for node in &mut nodes {
        let bytes = body(LARGE, node.me.0.into());
        node.pool.bytes_mut(Segment { buffer: OUT, start: 0, len: LARGE as u32 }).copy_from_slice(&bytes);
    }
    for number in 0..COUNT {
        for from in 0..nodes.len() {
            for to in (0..nodes.len()).filter(|to| *to != from) {
                nodes[from].send(to as u32, number, len(number));
            }
        }
    }
    let count = nodes.len();
    let mut next = vec![vec![0; count]; count];
    let mut reading = vec![vec![None; count]; count];
    drive(&mut nodes, |nodes, me, input| {
        match input {
            Some(Input::Header { peer, header }) => {
                let from = peer.index();
                assert_eq!(number(&header), next[me][from], "order");
                assert_eq!(header.length() as usize, len(number(&header)));
                next[me][from] += 1;
                if header.length() > 0 {
                    // Every fifth body is dropped, which must not disturb the messages behind it.
                    let op = if number(&header) % 5 == 4 {
                        let op = nodes[me].op();
                        let node = &mut nodes[me];
                        node.transport.receive(op, peer, None, &mut node.pool);
                        op
                    } else {
                        nodes[me].receive(peer.0, header.length())
                    };
                    reading[me][from] = Some((op, header));
                }
            }
            Some(Input::Completed { op, .. }) => {
                for (from, slot) in reading[me].iter_mut().enumerate() {
                    let Some((_, header)) = slot.take_if(|(reading, _)| *reading == op) else { continue };
                    if number(&header) % 5 != 4 {
                        let place = Node::<T>::place(from as u32, header.length());
                        assert!(nodes[me].pool.bytes(place) == body(place.len as usize, from as u64), "body");
                    }
                }
            }
            _ => {}
        }
        (0..count).all(|me| (0..count).all(|from| me == from || next[me][from] == COUNT))
            && nodes.iter().all(|node| node.open.is_empty())
    });
}

/// Bodies that are larger than all buffers on the way arrive intact, in both directions at once.
fn carries_large_bodies<T: Transport>(transports: Vec<T>) {
    let mut nodes = cluster(transports);
    let count = nodes.len() as u32;
    for node in &mut nodes {
        let bytes = body(LARGE, node.me.0.into());
        node.pool.bytes_mut(Segment { buffer: OUT, start: 0, len: LARGE as u32 }).copy_from_slice(&bytes);
    }
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            nodes[from as usize].send(to, 1, LARGE);
        }
    }
    let mut headers = 0;
    drive(&mut nodes, |nodes, me, input| {
        if let Some(Input::Header { peer, header }) = input {
            nodes[me].receive(peer.0, header.length());
            headers += 1;
        }
        headers == count * (count - 1) && nodes.iter().all(|node| node.open.is_empty())
    });
    for node in &nodes {
        for from in (0..count).filter(|from| *from != node.me.0) {
            assert!(node.pool.bytes(Node::<T>::place(from, LARGE as u32)) == body(LARGE, from.into()));
        }
    }
}

/// A body stays at its sender until the receiver has a place for it. Messages of other peers pass meanwhile.
fn holds_bodies_back<T: Transport>(transports: Vec<T>) {
    let mut nodes = cluster(transports);
    for number in 0..3 {
        nodes[0].send(1, number, LARGE);
    }
    nodes[2].send(1, 7, 64);
    let (mut held, mut other_arrived) = (None, false);
    drive(&mut nodes, |nodes, me, input| {
        if let (1, Some(Input::Header { peer, header })) = (me, input) {
            match peer.0 {
                0 => assert!(held.replace(header).is_none(), "a second header before the first body was received"),
                _ => {
                    nodes[1].receive(peer.0, header.length());
                    other_arrived = true;
                }
            }
        }
        other_arrived && held.is_some() && nodes[2].open.is_empty()
    });
    // At most a part of one large body fits into buffers, so the rest must still be open.
    assert!(nodes[0].open.len() >= 2, "{:?}", nodes[0].open);
    let first = held.take().expect("the header has arrived");
    nodes[1].receive(0, first.length());
    drive(&mut nodes, |nodes, me, input| {
        if let (1, Some(Input::Header { peer, header })) = (me, input) {
            nodes[1].receive(peer.0, header.length());
        }
        nodes.iter().all(|node| node.open.is_empty())
    });
}

/// The end of a peer is reported once, and its open operations are aborted.
fn reports_a_lost_peer<T: Transport>(transports: Vec<T>) {
    let mut nodes = cluster(transports);
    let aborted: Vec<OpId> = (0..4).map(|number| nodes[0].send(2, number, LARGE)).collect();
    nodes[1].send(0, 0, 64);
    drop(nodes.pop());
    drive(&mut nodes, |nodes, me, input| {
        if let Some(Input::Header { peer, header }) = input {
            nodes[me].receive(peer.0, header.length());
        }
        nodes.iter().all(|node| !node.connected.contains(&PeerId(2)) && node.open.is_empty())
    });
    // The first message may have been sent completely.
    let ends = |op: OpId| nodes[0].log.iter().any(|input| matches!(input, Input::Aborted { op: of } if *of == op));
    assert!(aborted.iter().skip(1).all(|op| ends(*op)));
    // Later transmissions to the peer end too.
    nodes[0].send(2, 9, 64);
    nodes[1].send(0, 1, 64);
    drive(&mut nodes, |nodes, me, input| {
        if let Some(Input::Header { peer, header }) = input {
            nodes[me].receive(peer.0, header.length());
        }
        nodes.iter().all(|node| node.open.is_empty())
    });
}

/// A closed connection is opened again, and then carries whole messages, not the rest of an old one.
fn reconnects<T: Transport>(transports: Vec<T>) {
    let mut nodes = cluster(transports);
    for closer in [0, 1] {
        nodes[0].send(1, 0, LARGE);
        let reason = ProtocolError::Unexpected { kind: Kind::Ack };
        drive(&mut nodes, |_, me, input| me == 1 && matches!(input, Some(Input::Header { .. })));
        nodes[closer].transport.close(PeerId(1 - closer as u32), reason);
        let mut broken = [false; 2];
        drive(&mut nodes, |nodes, me, input| {
            if matches!(input, Some(Input::Disconnected { .. })) {
                broken[me] = true;
            }
            broken == [true; 2] && nodes.iter().all(|node| node.connected.len() == 2)
        });
        settle(&mut nodes);
        let op = nodes[0].send(1, 5, 64);
        drive(&mut nodes, |nodes, me, input| {
            if let Some(Input::Header { peer, header }) = input {
                assert_eq!((me, number(&header)), (1, 5));
                nodes[me].receive(peer.0, header.length());
            }
            !nodes[0].open.contains(&op) && nodes[1].open.is_empty() && nodes[1].log.len() > 2
        });
        settle(&mut nodes);
    }
}

/// A connection is closed at some moment of a large body, and the sender writes to the buffer at once. The body arrives as
/// it was, or not at all.
fn never_mixes_two_bodies<T: Transport>(transports: Vec<T>) {
    const TURNS: u64 = 16;
    let mut nodes = cluster(transports);
    // Without the third node, which would have to be polled.
    nodes.truncate(2);
    let [sender, receiver] = &mut nodes[..] else { unreachable!("two nodes") };
    let (whole, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Segment { buffer: OUT, start: 0, len: LARGE as u32 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reading = None;
            while !done.load(Ordering::Relaxed) {
                match receiver.poll(Duration::from_millis(1)) {
                    Some(Input::Header { header, .. }) => {
                        reading = Some((receiver.receive(0, header.length()), number(&header)));
                    }
                    Some(Input::Completed { op, .. }) => {
                        let Some((_, number)) = reading.take_if(|(reading, _)| *reading == op) else { continue };
                        assert!(receiver.pool.bytes(Node::<T>::place(0, all.len)) == body(LARGE, number), "{number}");
                        whole.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
        });
        for turn in 0..TURNS {
            let begun = Instant::now();
            while !sender.connected.contains(&PeerId(1)) {
                sender.poll(Duration::from_millis(1));
                assert!(begun.elapsed() < PATIENCE, "no connection");
            }
            sender.pool.bytes_mut(all).copy_from_slice(&body(LARGE, turn));
            let op = sender.send(1, turn, LARGE);
            let before = Duration::from_micros(turn * turn * 100);
            let sent = Instant::now();
            while sender.open.contains(&op) && (sent.elapsed() < before || turn == 0) {
                sender.poll(Duration::from_micros(50));
            }
            sender.transport.close(PeerId(1), ProtocolError::Unexpected { kind: Kind::Ack });
            while sender.open.contains(&op) || sender.connected.contains(&PeerId(1)) {
                sender.poll(Duration::from_millis(1));
                assert!(begun.elapsed() < PATIENCE, "the operation does not end");
            }
            sender.pool.bytes_mut(all).fill(0);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(whole.into_inner() > 0, "the first body has the time to arrive");
}

/// A waker ends a poll without a timeout, from another thread.
fn wakes_up<T: Transport + 'static>(mut transports: Vec<T>) {
    let mut transport = transports.remove(0);
    let waker = transport.waker();
    let thread = std::thread::spawn(move || {
        let mut pool = Pool::new([64]);
        // Connections of peers end a poll too, but return an input.
        while transport.poll(&mut pool, None).unwrap_or_else(|error| panic!("{error}")).is_some() {}
    });
    let begun = Instant::now();
    while !thread.is_finished() {
        waker.wake_by_ref();
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    thread.join().expect("the poll does not fail");
}

/// Instantiates the tests for a transport, each with a cluster of three nodes. The second argument makes the cluster
/// from the number of nodes and the name of the test.
macro_rules! conformance {
    // All tests: for a transport whose nodes reconnect.
    ($name:ident, $cluster:expr) => {
        conformance!(
            $name,
            $cluster,
            [
                delivers_in_order,
                carries_large_bodies,
                holds_bodies_back,
                reports_a_lost_peer,
                reconnects,
                never_mixes_two_bodies,
                wakes_up
            ]
        );
    };
    ($name:ident, $cluster:expr, [$($test:ident),*]) => {
        mod $name {
            $(#[test]
            fn $test() {
                super::$test($cluster(3, concat!(stringify!($name), "-", stringify!($test))));
            })*
        }
    };
}

fn mem(nodes: u32, _: &str) -> Vec<gradwire_mem::Mem> {
    gradwire_mem::Mem::cluster(nodes)
}

/// Connects nodes over loopback. Rank 0 listens on a free port, at which the rest meets.
fn tcp(nodes: u32, name: &str, key: Option<gradwire_tcp::Key>) -> Vec<gradwire_tcp::Tcp> {
    use gradwire_tcp::Builder;
    let build = |rank, meet: &str| {
        let builder = Builder::new(rank, nodes, meet).listen("127.0.0.1:0").cluster(name);
        match &key {
            Some(key) => builder.key(key.clone()),
            None => builder,
        }
        .open()
        .unwrap_or_else(|error| panic!("{error}"))
    };
    let first = build(0, "127.0.0.1:1");
    let meet = first.carrier().listens_at().to_string();
    std::iter::once(first).chain((1..nodes).map(|rank| build(rank, &meet))).collect()
}

/// TCP without encryption.
fn open(nodes: u32, name: &str) -> Vec<gradwire_tcp::Tcp> {
    tcp(nodes, name, None)
}

/// TCP with encryption.
fn sealed(nodes: u32, name: &str) -> Vec<gradwire_tcp::Tcp> {
    tcp(nodes, name, Some(gradwire_tcp::Key::generate().expect("random bytes")))
}

/// Shared memory, with rings that are much smaller than a large body.
fn shm(nodes: u32, name: &str, attach: bool) -> Vec<gradwire_shm::Shm> {
    let directory = std::env::temp_dir().join(format!("gradwire-test-{}-{name}", std::process::id()));
    let build = |rank| {
        let builder = gradwire_shm::Builder::new(rank, nodes).directory(&directory).ring_len(1 << 16);
        builder.attach(attach).open().unwrap_or_else(|error| panic!("{error}"))
    };
    (0..nodes).map(build).collect()
}

/// Shared memory with long bodies that are read from the memory of their sender.
fn attached(nodes: u32, name: &str) -> Vec<gradwire_shm::Shm> {
    shm(nodes, name, true)
}

/// Shared memory with all bytes in the rings.
fn rings(nodes: u32, name: &str) -> Vec<gradwire_shm::Shm> {
    shm(nodes, name, false)
}

// Without `reconnects` and `never_mixes_two_bodies`: threads of one process do not reconnect.
conformance!(
    mem,
    super::mem,
    [delivers_in_order, carries_large_bodies, holds_bodies_back, reports_a_lost_peer, wakes_up]
);
conformance!(tcp_open, super::open);
conformance!(tcp_sealed, super::sealed);
conformance!(shm_attached, super::attached);
conformance!(shm_rings, super::rings);
