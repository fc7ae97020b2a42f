//! What every transport must do, stamped on each: delivery, order, large bodies, back-pressure, a slow reader, a broken
//! connection, the death of a peer. Verdicts come from events, never from a pause.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gradwire_core::wire::{Ack, Header, Message, Push};
use gradwire_core::{
    Clock, Incarnation, Input, OpId, PeerId, Pool, ProtocolError, Segment, Sequence, ShardId, Transport,
};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const LARGE: usize = 8 << 20;

/// A node that keeps books: every operation must end exactly once.
struct Node<T> {
    transport: T,
    pool: Pool,
    me: PeerId,
    next: u64,
    open: BTreeSet<OpId>,
    connected: BTreeSet<PeerId>,
    log: Vec<Input>,
}

const OUT: gradwire_core::BufferId = gradwire_core::BufferId(0);
const IN: u32 = 1;

fn body(len: usize, salt: u64) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9).wrapping_add(salt * 7919) >> 11) as u8).collect()
}

/// The number that a message was sent with.
fn number(header: &Header) -> u64 {
    match header.message() {
        Message::Push(push) => push.sequence.0,
        Message::QuantaAck(ack) => ack.last.0,
        message => panic!("{message:?} was never sent"),
    }
}

impl<T: Transport> Node<T> {
    fn new(transport: T) -> Self {
        let (me, nodes) = transport.place();
        let pool = Pool::new((0..=nodes).map(|_| LARGE));
        let (open, connected) = (BTreeSet::new(), BTreeSet::new());
        Self { transport, pool, me, next: 0, open, connected, log: Vec::new() }
    }

    fn op(&mut self) -> OpId {
        self.next += 1;
        self.open.insert(OpId(self.next));
        OpId(self.next)
    }

    /// Sends the first `len` bytes of the outgoing buffer.
    fn send(&mut self, to: u32, number: u64, len: usize) -> OpId {
        let op = self.op();
        let (origin, incarnation, sequence) = (self.me, Incarnation(1), Sequence(number));
        let message = if len > 0 {
            let (shard, clock) = (ShardId(0), Clock(0));
            Message::Push(Push { shard, worker: origin, incarnation, sequence, clock, base: clock, weight: 1 })
        } else {
            Message::QuantaAck(Ack { origin, incarnation, last: sequence })
        };
        let header = Header::new(0, origin, incarnation, len as u32, message);
        let body = (len > 0).then_some(Segment { buffer: OUT, start: 0, len: len as u32 });
        self.transport.transmit(op, PeerId(to), header, body, &self.pool);
        op
    }

    fn place(from: u32, len: u32) -> Segment {
        Segment { buffer: gradwire_core::BufferId(IN + from), start: 0, len }
    }

    fn receive(&mut self, from: u32, len: u32) -> OpId {
        let op = self.op();
        self.transport.receive(op, PeerId(from), Some(Self::place(from, len)), &mut self.pool);
        op
    }

    /// The next thing that happens, if it does soon.
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

/// Lets all nodes go on until `done`, which sees each thing that happens.
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
        assert!(begun.elapsed() < PATIENCE, "nothing more happens; the last inputs: {logs:?}");
    }
}

fn cluster<T: Transport>(transports: Vec<T>) -> Vec<Node<T>> {
    let mut nodes: Vec<_> = transports.into_iter().map(Node::new).collect();
    let others = nodes.len() - 1;
    drive(&mut nodes, |nodes, _, _| nodes.iter().all(|node| node.connected.len() == others));
    nodes
}

fn settle<T: Transport>(nodes: &mut [Node<T>]) {
    drive(nodes, |nodes, _, _| nodes.iter().all(|node| node.open.is_empty()));
}

/// Messages of all sizes, both ways at once, come in order and unharmed.
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
                    // Every fifth is dropped.
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

/// Bodies larger than any buffer on the way, both ways at once.
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

/// A body that nobody has asked for stays with its sender, and holds up nobody else.
fn holds_back<T: Transport>(transports: Vec<T>) {
    let mut nodes = cluster(transports);
    for number in 0..3 {
        nodes[0].send(1, number, LARGE);
    }
    nodes[2].send(1, 7, 64);
    let (mut held, mut other) = (None, false);
    drive(&mut nodes, |nodes, me, input| {
        if let (1, Some(Input::Header { peer, header })) = (me, input) {
            match peer.0 {
                0 => assert!(held.replace(header).is_none(), "a second header before the first body was asked for"),
                _ => {
                    nodes[1].receive(peer.0, header.length());
                    other = true;
                }
            }
        }
        other && held.is_some() && nodes[2].open.is_empty()
    });
    // The large ones cannot be on their way: no buffer holds them.
    assert!(nodes[0].open.len() >= 2, "{:?}", nodes[0].open);
    let first = held.take().expect("it is held");
    nodes[1].receive(0, first.length);
    drive(&mut nodes, |nodes, me, input| {
        if let (1, Some(Input::Header { peer, header })) = (me, input) {
            nodes[1].receive(peer.0, header.length());
        }
        nodes.iter().all(|node| node.open.is_empty())
    });
}

/// A peer that is gone is told of once, and what was under way with it is aborted.
fn tells_of_a_death<T: Transport>(transports: Vec<T>) {
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
    let ends = |op: OpId| nodes[0].log.iter().any(|input| matches!(input, Input::Aborted { op: of } if *of == op));
    assert!(aborted.iter().skip(1).all(|op| ends(*op)));
    // What is sent to it from now on ends as well.
    nodes[0].send(2, 9, 64);
    nodes[1].send(0, 1, 64);
    drive(&mut nodes, |nodes, me, input| {
        if let Some(Input::Header { peer, header }) = input {
            nodes[me].receive(peer.0, header.length());
        }
        nodes.iter().all(|node| node.open.is_empty())
    });
}

/// A connection that is broken off comes back, and then carries messages from their beginning.
fn comes_back<T: Transport>(transports: Vec<T>) {
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

/// A thread that waits for ever is woken by another.
fn is_woken<T: Transport + 'static>(mut transports: Vec<T>) {
    let mut transport = transports.remove(0);
    let waker = transport.waker();
    let thread = std::thread::spawn(move || {
        let mut pool = Pool::new([64]);
        // Peers that connect are no wake-up.
        while transport.poll(&mut pool, None).unwrap_or_else(|error| panic!("{error}")).is_some() {}
    });
    let begun = Instant::now();
    while !thread.is_finished() {
        waker.wake_by_ref();
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    thread.join().expect("it was woken");
}

macro_rules! conformance {
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

fn open(nodes: u32, name: &str) -> Vec<gradwire_tcp::Tcp> {
    tcp(nodes, name, None)
}

fn sealed(nodes: u32, name: &str) -> Vec<gradwire_tcp::Tcp> {
    tcp(nodes, name, Some(gradwire_tcp::Key::generate().expect("random bytes")))
}

fn shm(nodes: u32, name: &str) -> Vec<gradwire_shm::Shm> {
    let directory = std::env::temp_dir().join(format!("gradwire-test-{}-{name}", std::process::id()));
    let build = |rank| gradwire_shm::Builder::new(rank, nodes).directory(&directory).ring_len(1 << 16).open();
    (0..nodes).map(|rank| build(rank).unwrap_or_else(|error| panic!("{error}"))).collect()
}

// Threads of one process never come back, and lend their bodies: no buffer is on the way.
conformance!(mem, super::mem, [delivers_in_order, carries_large_bodies, holds_back, tells_of_a_death, is_woken]);
conformance!(
    tcp_open,
    super::open,
    [delivers_in_order, carries_large_bodies, holds_back, tells_of_a_death, comes_back, is_woken]
);
conformance!(
    tcp_sealed,
    super::sealed,
    [delivers_in_order, carries_large_bodies, holds_back, tells_of_a_death, comes_back, is_woken]
);
conformance!(
    shm,
    super::shm,
    [delivers_in_order, carries_large_bodies, holds_back, tells_of_a_death, comes_back, is_woken]
);
