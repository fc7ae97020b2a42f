//! A node among peers that a test plays over real sockets: connections that are replaced, fall silent, are refused or
//! are not read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gradwire_core::wire::{Header, Kind, Message};
use gradwire_core::{BufferId, Incarnation, Input, OpId, PeerId, Pool, ProtocolError, RunId, Segment, Transport};
use gradwire_stream::parts::{Control, KnownRun, PREAMBLE_LEN, Preamble};
use gradwire_stream::{GREETING_MAX, STRANGERS_MAX};
use gradwire_tcp::{Builder, Notice, Refusal, StreamError, Tcp};

/// The limit of each wait, far above its usual length.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node, polled by the test.
struct Node {
    tcp: Tcp,
    notices: Receiver<Notice>,
    pool: Pool,
}

impl Node {
    fn open(rank: u32, nodes: u32, meet: &str, dead_after: Duration) -> Self {
        let (sender, notices) = channel();
        let builder = Builder::new(rank, nodes, meet).dead_after(dead_after).listen("127.0.0.1:0");
        let tcp = builder.notices(move |notice| drop(sender.send(notice))).open().unwrap();
        Self { tcp, notices, pool: Pool::new([LARGE]) }
    }

    fn poll(&mut self) -> Result<Option<Input>, StreamError> {
        self.tcp.poll(&mut self.pool, Some(Duration::from_millis(5)))
    }

    /// The next input.
    #[track_caller]
    fn next(&mut self) -> Input {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no input");
            if let Some(input) = self.poll().unwrap() {
                return input;
            }
        }
    }

    /// Checks that no input comes for this time.
    #[track_caller]
    fn rests(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            assert_eq!(self.poll().unwrap(), None);
        }
    }

    /// Why the last connection that was closed was closed.
    #[track_caller]
    fn lost(&self) -> String {
        let reasons = self.notices.try_iter().filter_map(|notice| match notice {
            Notice::Disconnected { reason, .. } => Some(reason),
            _ => None,
        });
        reasons.last().expect("a connection was closed")
    }

    /// Waits until this node has dialled a listener of the test, and takes its preamble.
    #[track_caller]
    fn dials(&mut self, listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(true).unwrap();
        let begun = Instant::now();
        let mut stream = loop {
            assert!(begun.elapsed() < PATIENCE, "the node has not dialled");
            assert_eq!(self.poll().unwrap(), None);
            if let Ok((stream, _)) = listener.accept() {
                break stream;
            }
        };
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (mut bytes, mut got) = ([0; PREAMBLE_LEN], 0);
        while got < PREAMBLE_LEN {
            assert!(begun.elapsed() < PATIENCE, "the node has not greeted");
            assert_eq!(self.poll().unwrap(), None);
            got += stream.read(&mut bytes[got..]).unwrap_or(0);
        }
        Preamble::parse(&bytes).unwrap();
        stream
    }
}

/// Bytes of a body that no socket takes as a whole.
const LARGE: usize = 32 << 20;

fn preamble(from: u32, to: u32, nodes: u32) -> Preamble {
    let address = "127.0.0.1:9".to_string();
    Preamble { to, instance: 77, address, ..Preamble::question("gradwire", nodes, from) }
}

/// Connects to a node, and greets it as this rank.
fn greet(at: SocketAddr, from: u32, nodes: u32) -> TcpStream {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(&preamble(from, 0, nodes).emit()).unwrap();
    stream
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    (listener, at)
}

fn header(from: u32) -> Header {
    Header::new(0, PeerId(from), Incarnation(1), 0, Message::Release)
}

const fn connected(peer: u32) -> Input {
    Input::Connected { peer: PeerId(peer) }
}

const fn disconnected(peer: u32) -> Input {
    Input::Disconnected { peer: PeerId(peer) }
}

/// Between the end of a connection and the news of the next one, the machine's calls belong to the connection that has
/// ended. They must not reach the next one.
#[test]
fn calls_for_a_former_connection_do_not_reach_the_next_one() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(20));
    let at = node.tcp.carrier().listens_at();
    let _former = greet(at, 1, 2);
    assert_eq!(node.next(), connected(1));
    // The same process may replace its connection at any time.
    let mut next = greet(at, 1, 2);
    assert_eq!(node.next(), disconnected(1));
    let (peer, pool) = (PeerId(1), Pool::new([0]));
    node.tcp.transmit(OpId(1), peer, header(0), None, &pool);
    node.tcp.receive(OpId(2), peer, None, &mut node.pool);
    node.tcp.close(peer, ProtocolError::NoHello { kind: Kind::Release });
    assert_eq!(node.next(), connected(1));
    assert_eq!(node.next(), Input::Aborted { op: OpId(1) });
    assert_eq!(node.next(), Input::Aborted { op: OpId(2) });
    // The next connection is open, and is not affected by these calls.
    next.write_all(&header(1).emit()).unwrap();
    assert_eq!(node.next(), Input::Header { peer, header: header(1) });
    node.tcp.transmit(OpId(3), peer, Header::new(7, PeerId(0), Incarnation(2), 0, Message::Release), None, &pool);
    assert!(matches!(node.next(), Input::Completed { op: OpId(3), .. }));
    let mut bytes = [0; PREAMBLE_LEN + 64];
    next.read_exact(&mut bytes).unwrap();
    let first = Header::parse(bytes.last_chunk().unwrap()).unwrap();
    assert_eq!(first, Header::new(7, PeerId(0), Incarnation(2), 0, Message::Release));
}

/// An announced silence is for the connection over which it was announced: the next one has the usual limit, two fifths
/// of `dead_after`.
#[test]
fn an_announced_silence_ends_with_its_connection() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(1));
    let at = node.tcp.carrier().listens_at();
    let mut former = greet(at, 1, 2);
    assert_eq!(node.next(), connected(1));
    former.write_all(&Control::Busy { millis: 600_000 }.emit()).unwrap();
    node.rests(Duration::from_secs(1));
    let _next = greet(at, 1, 2);
    assert_eq!([node.next(), node.next(), node.next()], [disconnected(1), connected(1), disconnected(1)]);
    assert_eq!(node.lost(), "silent for 0.4 s");
}

/// The rank of a peer is its own until it has been silent for a fifth of `dead_after`; then another process can have it.
#[test]
fn a_rank_is_free_after_a_fifth_of_dead_after() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(15));
    let at = node.tcp.carrier().listens_at();
    let mut former = greet(at, 1, 2);
    assert_eq!(node.next(), connected(1));
    former.write_all(&header(1).emit()).unwrap();
    assert_eq!(node.next(), Input::Header { peer: PeerId(1), header: header(1) });
    let heard = Instant::now();
    let mut tries = Vec::new();
    loop {
        assert!(heard.elapsed() < PATIENCE);
        let mut other = TcpStream::connect(at).unwrap();
        other.write_all(&Preamble { instance: 78, ..preamble(1, 0, 2) }.emit()).unwrap();
        // It gets its answer, or its place.
        other.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let (mut answer, mut got) = ([0; PREAMBLE_LEN], 0);
        let mut input = None;
        while got < PREAMBLE_LEN && input.is_none() {
            assert!(heard.elapsed() < PATIENCE);
            input = node.poll().unwrap();
            got += other.read(&mut answer[got..]).unwrap_or(0);
        }
        if let Some(input) = input {
            assert_eq!([input, node.next()], [disconnected(1), connected(1)]);
            break;
        }
        let refused = Preamble::parse(&answer).unwrap().refusal;
        assert_eq!(refused, Some(Refusal::Taken { rank: 1 }));
        tries.push(heard.elapsed());
        node.rests(Duration::from_millis(50));
    }
    let waited = heard.elapsed();
    assert!(tries.len() > 3 && waited > Duration::from_millis(2900), "{waited:?} {tries:?}");
    // It was not disconnected for its silence, which takes twice as long.
    assert_eq!(node.lost(), "replaced by a new connection of the same rank");
}

/// A node that does not poll does not read: the time is no silence of its peers, whether they are connected or greeting.
#[test]
fn a_pause_of_a_node_is_no_silence_of_its_peers() {
    let mut node = Node::open(0, 3, "127.0.0.1:0", Duration::from_secs(10));
    let at = node.tcp.carrier().listens_at();
    let mut slow = TcpStream::connect(at).unwrap();
    let words = preamble(2, 0, 3).emit();
    slow.write_all(&words[..100]).unwrap();
    let _quiet = greet(at, 1, 3);
    assert_eq!(node.next(), connected(1));
    std::thread::sleep(GREETING_MAX + Duration::from_millis(300));
    slow.write_all(&words[100..]).unwrap();
    assert_eq!(node.next(), connected(2));
    node.rests(Duration::from_millis(300));
}

/// A refusal that can pass has `dead_after` to pass. A connection in between is a new beginning.
#[test]
fn a_connection_gives_refusals_their_time_again() {
    let (listener, at) = listen();
    let dead_after = Duration::from_secs(2);
    let mut node = Node::open(1, 2, &at, dead_after);
    let refuse = |mut stream: TcpStream| {
        let refused = Preamble { refusal: Some(Refusal::Taken { rank: 1 }), ..preamble(0, 1, 2) };
        stream.write_all(&refused.emit()).unwrap();
    };
    refuse(node.dials(&listener));
    let mut open = node.dials(&listener);
    open.write_all(&preamble(0, 1, 2).emit()).unwrap();
    assert_eq!(node.next(), connected(0));
    drop(open);
    assert_eq!(node.next(), disconnected(0));
    node.rests(dead_after + Duration::from_millis(200));
    let begun = Instant::now();
    refuse(node.dials(&listener));
    // The node goes on at first, and ends if it hears nothing else for as long.
    drop(node.dials(&listener));
    let error = loop {
        assert!(begun.elapsed() < PATIENCE);
        if let Ok((stream, _)) = listener.accept() {
            refuse(stream);
        }
        match node.poll() {
            Ok(input) => assert_eq!(input, None),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StreamError::Refused { reason: Refusal::Taken { rank: 1 }, .. }), "{error}");
    assert!(begun.elapsed() > dead_after, "{:?}", begun.elapsed());
}

/// A bitwise CRC-32.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// An address book with one entry, as rank 0 sends it.
fn book(rank: u32, address: &str) -> Vec<u8> {
    let mut bytes = [&rank.to_le_bytes()[..], &[address.len() as u8], address.as_bytes()].concat();
    bytes.extend(crc32(&bytes).to_le_bytes());
    [&Control::Book { length: bytes.len() as u32 }.emit()[..], &bytes].concat()
}

/// A peer that was restarted listens elsewhere. Rank 0 tells, and the node dials there.
#[test]
fn a_new_address_replaces_the_former_one() {
    let ((zero, meet), (former, before), (moved, after)) = (listen(), listen(), listen());
    let mut node = Node::open(2, 3, &meet, Duration::from_secs(20));
    let mut zero = node.dials(&zero);
    zero.write_all(&preamble(0, 2, 3).emit()).unwrap();
    assert_eq!(node.next(), connected(0));
    zero.write_all(&book(1, &before)).unwrap();
    let dialled = node.dials(&former);
    zero.write_all(&book(1, &after)).unwrap();
    node.rests(Duration::from_millis(50));
    drop((dialled, former));
    let mut one = node.dials(&moved);
    one.write_all(&preamble(1, 2, 3).emit()).unwrap();
    assert_eq!(node.next(), connected(1));
}

/// A run that a node was given stays when another one is proposed; a run that was only proposed gives way.
#[test]
fn a_given_run_is_not_replaced_by_a_proposal() {
    let [given, ours, theirs] = ["given", "ours", "theirs"].map(|name| name.parse::<RunId>().unwrap());
    let proposed = KnownRun { run: theirs, known: false };
    let known = KnownRun { run: theirs, known: true };
    for (set, answer, expected) in [(Some(given), proposed, given), (None, proposed, theirs), (None, known, theirs)] {
        let (listener, at) = listen();
        let mut node = Node::open(1, 2, &at, Duration::from_secs(20));
        assert_eq!(node.tcp.run(), None);
        set.into_iter().for_each(|run| node.tcp.set_run(run));
        node.tcp.propose_run(ours);
        assert_eq!(node.tcp.run(), Some(set.unwrap_or(ours)));
        let mut zero = node.dials(&listener);
        zero.write_all(&Preamble { run: Some(answer), ..preamble(0, 1, 2) }.emit()).unwrap();
        assert_eq!(node.next(), connected(0));
        assert_eq!(node.tcp.run(), Some(expected), "{set:?} {answer:?}");
    }
}

/// The rest of a large body that is under way is counted, and not all of it.
#[test]
fn unsent_bytes_become_fewer_while_a_body_is_written() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(20));
    let mut peer = greet(node.tcp.carrier().listens_at(), 1, 2);
    assert_eq!(node.next(), connected(1));
    let all = (LARGE + 64) as u64;
    let message = Message::Parameters {
        view: gradwire_core::Sequence(1),
        round: gradwire_core::Clock(1),
        vector: 0,
        riders: None,
    };
    let header = Header::new(0, PeerId(0), Incarnation(1), LARGE as u32, message);
    let segment = Segment { buffer: BufferId(0), start: 0, len: LARGE as u32 };
    node.tcp.transmit(OpId(1), PeerId(1), header, Some(segment), &node.pool);
    let mut before = node.tcp.unsent();
    assert!(before > 0 && before < all, "{before} of {all} bytes");
    let mut bytes = vec![0; LARGE];
    let reader = std::thread::spawn(move || peer.read_exact(&mut bytes).map(|()| peer));
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "{before} bytes are left");
        let input = node.poll().unwrap();
        let unsent = node.tcp.unsent();
        assert!(unsent <= before, "{unsent} after {before}");
        before = unsent;
        if let Some(Input::Completed { op, .. }) = input {
            assert_eq!((op, unsent), (OpId(1), 0));
            break;
        }
    }
    drop(reader.join().unwrap());
}

/// A peer that never reads is disconnected when 65,536 messages wait for it, and each of them ends.
#[test]
fn a_peer_that_does_not_read_is_disconnected() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(600));
    let _peer = greet(node.tcp.carrier().listens_at(), 1, 2);
    assert_eq!(node.next(), connected(1));
    let mut count = 0;
    let reason = loop {
        // The buffers of the system take some, too.
        assert!(count < 2_000_000, "{count} messages wait");
        count += 1;
        node.tcp.transmit(OpId(count), PeerId(1), header(0), None, &node.pool);
        let mut notices = node.notices.try_iter();
        if let Some(Notice::Disconnected { reason, .. }) =
            notices.find(|notice| matches!(notice, Notice::Disconnected { .. }))
        {
            break reason;
        }
    };
    assert_eq!(reason, "the peer does not read: more than 65536 messages are queued for it");
    let (mut completed, mut aborted) = (0, 0);
    while completed + aborted < count {
        match node.next() {
            Input::Completed { .. } => completed += 1,
            Input::Aborted { .. } => aborted += 1,
            input => assert_eq!(input, disconnected(1)),
        }
    }
    assert_eq!(aborted, 65_537);
}

/// Whether the node has closed a connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 512]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Exactly so many strangers have a place, and each has so much time for its whole greeting, however it sends it.
#[test]
fn strangers_are_limited_in_number_and_time() {
    let mut node = Node::open(0, 2, "127.0.0.1:0", Duration::from_secs(60));
    let at = node.tcp.carrier().listens_at();
    let begun = Instant::now();
    let mut strangers: Vec<_> = (0..STRANGERS_MAX + 36).map(|_| TcpStream::connect(at).unwrap()).collect();
    let words = preamble(1, 0, 2).emit();
    let (mut crowded, mut said) = (0, 0);
    while !strangers.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} strangers are left after {:?}", strangers.len(), begun.elapsed());
        assert_eq!(node.poll().unwrap(), None);
        // The last one sends a greeting that takes longer than it may: 256 bytes, at most one in 100 ms.
        if said < 200 && begun.elapsed() > Duration::from_millis(100) * said as u32 {
            let _ = strangers.last_mut().unwrap().write(&words[said..=said]);
            said += 1;
        }
        strangers.retain_mut(|stream| !is_closed(stream));
        if begun.elapsed() < GREETING_MAX * 4 / 5 {
            crowded = STRANGERS_MAX + 36 - strangers.len();
            assert!(crowded <= 36, "{crowded} strangers were closed early");
        }
    }
    assert_eq!(crowded, 36);
    // More for a machine with other work.
    let usual = GREETING_MAX..GREETING_MAX * 9 / 5;
    assert!(usual.contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
