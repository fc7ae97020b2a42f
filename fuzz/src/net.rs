//! Targets for bytes from sockets, shared memory and files: streams of frames, greetings, encryption, checkpoints,
//! telemetry, and the control page of a ring.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use gradwire::checkpoint::Checkpoint;
use gradwire::monitor::Board;
use gradwire::telemetry::{Frame, Note, NoteKind, Run};
use gradwire::{Cluster, Layout, Mem, Recipe, RunId, Session};
use gradwire_core::Instant;
use gradwire_core::wire::{HEADER_LEN, Header, Message, Part};
use gradwire_core::{Clock, Incarnation, OpId, PeerId, Pool, Sequence};
use gradwire_shm::parts::{End, Segment};
use gradwire_stream::parts::{CONTROL_LEN, Control, PREAMBLE_LEN, Preamble, Reader, Step, parse_book};
use gradwire_tcp::Key;
use gradwire_tcp::parts::Sealed;

use super::Target;

pub(crate) const TARGETS: &[Target] = &[
    ("stream", stream, stream_seeds),
    ("preamble", preamble, preamble_seeds),
    ("addresses", |data| drop(parse_book(data)), addresses_seeds),
    ("handshake", handshake, handshake_seeds),
    ("records", records, records_seeds),
    ("checkpoint", checkpoint, checkpoint_seeds),
    ("telemetry", telemetry, telemetry_seeds),
    ("ring", ring, ring_seeds),
];

// Frames

/// A message as the stream carries it: header, body, checksum of the body.
fn frame(message: Message, body: &[u8]) -> Vec<u8> {
    let header = Header::new(1, PeerId(2), Incarnation(4), body.len() as u32, message);
    let mut bytes = header.emit().to_vec();
    bytes.extend(body);
    if !body.is_empty() {
        bytes.extend(crc32fast::hash(body).to_le_bytes());
    }
    bytes
}

/// The steps of a reader, as text, for bytes that arrive in pieces. `piece` gives the length of each piece minus 1; 0
/// stands for a moment without bytes first.
fn read(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Vec<String> {
    let (mut reader, mut pool, mut at, mut log) = (Reader::new(true), Pool::new([0]), 0, Vec::new());
    for op in 0..100_000 {
        let mut blocked = false;
        let step = reader.step(
            &mut |into| {
                if at == bytes.len() {
                    return Ok(0);
                }
                // The socket is empty for a moment.
                blocked = !blocked && piece() == 0;
                if blocked {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let n = into.len().min(bytes.len() - at).min(1 + piece());
                into[..n].copy_from_slice(&bytes[at..at + n]);
                at += n;
                Ok(n)
            },
            &mut pool,
        );
        match step {
            Ok(Step::Blocked) => {}
            Ok(Step::Held) => {
                assert!(reader.receive(OpId(op), None));
            }
            Ok(Step::Body(_)) => log.push("body".to_string()),
            Ok(Step::Ended) => {
                log.push("end".to_string());
                return log;
            }
            Ok(step) => log.push(format!("{step:?}")),
            Err(error) => {
                log.push(error.to_string());
                return log;
            }
        }
    }
    panic!("the reader does not end");
}

/// The result does not depend on how the bytes are cut into pieces. The checksum of the first header is corrected, so
/// that the bytes behind it are reached.
fn stream(data: &[u8]) {
    let mut bytes = data.to_vec();
    if bytes.len() >= HEADER_LEN {
        let sum = crc32fast::hash(&bytes[..HEADER_LEN - 4]).to_le_bytes();
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&sum);
    }
    let whole = read(&bytes, || usize::MAX - 1);
    let mut state = 7usize;
    let pieces = read(&bytes, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 9
    });
    assert_eq!(whole, pieces);
}

fn stream_seeds() -> Vec<Vec<u8>> {
    let (view, round) = (Sequence(5), Clock(6));
    let part = Part { view, round, chunk: 0, weight: 3, finishing: false, rider: None };
    let small = frame(Message::Up(part), &[7; 12]);
    let large = frame(Message::Parameters { view, round, vector: 0, riders: None }, &[9; 9000]);
    let book = [&Control::Book { length: 4 }.emit()[..], &0u32.to_le_bytes()].concat();
    vec![
        [frame(Message::Release, &[]), small.clone(), Control::Alive.emit().to_vec(), large].concat(),
        [small.clone(), book, Control::Busy { millis: 9 }.emit().to_vec()].concat(),
        small[..70].to_vec(),
        b"GET / HTTP/1.1\r\nHost: a.very.long.name.so.that.it.is.longer.than.a.header.of.ours\r\n\r\n".to_vec(),
        Vec::new(),
    ]
}

// Greetings

/// A preamble with a corrected checksum, and a control frame, are canonical if they are accepted.
fn preamble(data: &[u8]) {
    let mut bytes = [0; PREAMBLE_LEN];
    let len = data.len().min(PREAMBLE_LEN - 4);
    bytes[..len].copy_from_slice(&data[..len]);
    let sum = crc32fast::hash(&bytes[..PREAMBLE_LEN - 4]);
    bytes[PREAMBLE_LEN - 4..].copy_from_slice(&sum.to_le_bytes());
    if let Ok(preamble) = Preamble::parse(&bytes) {
        assert_eq!(preamble.emit(), bytes);
    }
    if let Some(control) = data.first_chunk::<CONTROL_LEN>() {
        drop(Control::parse(control).map(|parsed| assert_eq!(parsed.emit(), *control)));
    }
}

fn preamble_seeds() -> Vec<Vec<u8>> {
    let address = "127.0.0.1:29510".to_string();
    let preamble = Preamble { to: 0, instance: 3, address, ..Preamble::question("cluster", 4, 2) };
    vec![preamble.emit().to_vec(), Control::Alive.emit().to_vec(), b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()]
}

fn addresses_seeds() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for (rank, address) in [(1u32, "127.0.0.1:1"), (9, "[::1]:65535")] {
        bytes.extend(rank.to_le_bytes());
        bytes.push(address.len() as u8);
        bytes.extend(address.as_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    vec![bytes, vec![0, 0, 0, 0], vec![1]]
}

// Encryption

/// A fixed key.
fn key() -> Key {
    Key::parse(&"a5".repeat(32)).unwrap()
}

/// The bytes of one direction of a connection, in memory.
#[derive(Default)]
struct Pipe(VecDeque<u8>);

impl Pipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = into.len().min(self.0.len());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into.iter_mut().zip(self.0.drain(..n)).for_each(|(into, byte)| *into = byte);
        Ok(n)
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.extend(from);
        Ok(from.len())
    }
}

/// The accepting side of a handshake does not accept arbitrary bytes, and does not panic. A valid first message needs
/// at least 50 bytes.
fn handshake(data: &[u8]) {
    let mut here = Sealed::new(&key(), false).unwrap();
    let (mut coming, mut going) = (Pipe(data.iter().copied().collect()), Pipe::default());
    for _ in 0..4 {
        match here.establish(&mut |into| coming.read(into), &mut |from| going.write(from)) {
            Ok(done) => assert!(!done || data.len() >= 50),
            Err(_) => return,
        }
    }
}

fn handshake_seeds() -> Vec<Vec<u8>> {
    let mut there = Sealed::new(&key(), true).unwrap();
    let mut going = Pipe::default();
    let _ = there.establish(&mut |_| Err(io::ErrorKind::WouldBlock.into()), &mut |from| going.write(from));
    vec![going.0.into(), vec![0, 48], vec![0xff; 80], Vec::new()]
}

/// Two sides after a handshake.
fn established() -> (Sealed, Sealed) {
    let (mut here, mut there) = (Sealed::new(&key(), true).unwrap(), Sealed::new(&key(), false).unwrap());
    let (mut east, mut west) = (Pipe::default(), Pipe::default());
    for _ in 0..3 {
        let _ = here.establish(&mut |into| west.read(into), &mut |from| east.write(from)).unwrap();
        let _ = there.establish(&mut |into| east.read(into), &mut |from| west.write(from)).unwrap();
    }
    (here, there)
}

/// Data that one side encrypts is decrypted unchanged by the other. Replayed records and data that were not encrypted
/// by the other side are refused.
fn records(data: &[u8]) {
    let (mut here, mut there) = established();
    let mut wire = Pipe::default();
    assert_eq!(
        here.write(&[IoSlice::new(data)], &mut |from| wire.write(from)).unwrap_or(0),
        data.len().min(4 * 65_519)
    );
    let honest: Vec<u8> = wire.0.iter().copied().collect();
    let mut out = vec![0; data.len() + 64];
    let mut got = 0;
    while let Ok(n) = there.read(&mut out[got..], &mut |into| wire.read(into)) {
        got += n;
    }
    assert_eq!(out[..got], data[..got]);
    // First a replay of valid records, then the plain data.
    for bytes in [&honest[..], data] {
        let mut wire = Pipe(bytes.iter().copied().collect());
        assert!(there.read(&mut out, &mut |into| wire.read(into)).is_err());
    }
}

fn records_seeds() -> Vec<Vec<u8>> {
    vec![b"hello".to_vec(), vec![3; 70_000], vec![0; 18]]
}

// Checkpoints

/// A checkpoint that is accepted is canonical, also with a corrected checksum.
fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::parse(data) {
        assert_eq!(checkpoint.emit(), data);
    }
    // Random bytes rarely have the right checksum.
    if let Some(body) = data.len().checked_sub(32) {
        let sum = gradwire::checkpoint::checksum(&data[..body]);
        let bytes = [&data[..body], &sum[..]].concat();
        if let Ok(checkpoint) = Checkpoint::parse(&bytes) {
            assert_eq!(checkpoint.emit(), bytes);
        }
    }
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let (vectors, saved) = (vec![vec![1.0, f32::NAN, -0.0], vec![0.5; 3]], vec![vec![7, 8], Vec::new()]);
    let empty = Checkpoint {
        run: RunId::drawn(5),
        digest: 1,
        rank: 0,
        clock: 2,
        steps: 3,
        contributions: 1,
        written: 4,
        vectors: Vec::new(),
        saved: Vec::new(),
    };
    let whole = Checkpoint { vectors, ..empty.clone() };
    vec![Checkpoint { saved, ..whole.clone() }.emit(), whole.emit(), empty.emit(), Vec::new()]
}

// Telemetry

/// Parsing a log ends, and encoding a parsed frame gives as many bytes again.
fn telemetry(data: &[u8]) {
    let mut rest = data;
    while let Ok(Some((frame, used))) = Frame::parse(rest) {
        let mut again = Vec::new();
        frame.emit(&mut again);
        // Only the length is compared: the bits of a NaN may change.
        assert_eq!(again.len(), used);
        assert!(matches!(Frame::parse(&again), Ok(Some((_, length))) if length == used));
        rest = &rest[used..];
    }
}

fn telemetry_seeds() -> Vec<Vec<u8>> {
    let board =
        Board::new(Run { recipe: "payload=updates".into(), workers: 3, servers: 1, parameters: 99, name: None });
    let (at, rank, peer) = (Instant::from_nanos(7), PeerId(1), PeerId(2));
    board.note(Note { at, rank, kind: NoteKind::Stalled, peer, number: 9 });
    let cluster = Cluster { workers: 1, servers: 0 };
    let builder = Session::builder(Layout::flat(4), Recipe::sync(), cluster).publish_to(board.clone(), "host");
    let mut params = vec![0.0; 4];
    let mut session = builder.join(Mem::cluster(1).remove(0), &mut params).unwrap();
    session.step(&mut params, &[1.0; 4], 2).unwrap();
    session.finish(&mut params).unwrap();
    let mut log = Vec::new();
    board.since(0, &mut log);
    vec![log, Vec::new(), vec![1, 0, 0, 0, 3]]
}

// Shared memory

/// Reads and writes end, with an error or with bytes of the ring or of an offer, even if another process writes arbitrary
/// values into the control page. Input: 9 bytes per change: the place in units of 8 bytes, and the new value. An odd last
/// byte of the value stands for the places of the offers.
fn ring(data: &[u8]) {
    let (segment, file) = Segment::create(4096).unwrap();
    let (segment, file) = (Arc::new(segment), std::fs::File::from(file));
    let dials = data.first().is_some_and(|byte| byte & 1 == 1);
    let (mut end, mut other) = (End::new(Arc::clone(&segment), dials), End::new(segment, !dials));
    // This process can read itself, so offers are made and read.
    let process = std::process::id() as i32;
    end.share_memory(process);
    other.share_memory(process);
    let (long, mut into) = (vec![7; 128 * 1024], vec![0; 128 * 1024]);
    for end in [&mut end, &mut other] {
        end.write(&[IoSlice::new(&[7])]).unwrap();
    }
    for end in [&mut end, &mut other] {
        end.read(&mut into).unwrap();
    }
    for step in data.as_chunks::<9>().0 {
        let offset = u64::from(step[0]) * 8 + if step[8] & 1 == 1 { 1024 } else { 0 };
        let _ = other.write(&[IoSlice::new(&long), IoSlice::new(&step[1..])]);
        file.write_all_at(&step[1..], offset).unwrap();
        let _ = end.write(&[IoSlice::new(&step[1..]), IoSlice::new(&long), IoSlice::new(&[7; 200])]);
        let _ = end.read(&mut into[..300]);
        let _ = end.read(&mut into);
        let _ = end.unread();
        let _ = end.arm(true, step[0] & 1 == 0);
    }
}

fn ring_seeds() -> Vec<Vec<u8>> {
    let position = |line: u8, value: u64| [&[line][..], &value.to_le_bytes()].concat();
    vec![
        [position(0, 100), position(64, 100), position(16, 50), position(80, 1)].concat(),
        [position(0, u64::MAX), position(64, 4097), position(1, 1 << 63)].concat(),
        // The number of offers, the bytes that were read, and the first offer of the dialling side.
        [position(32, 1 << 56 | 3), position(48, 1 << 56), position(81, 1 << 56 | 4096), position(82, u64::MAX)]
            .concat(),
        [position(80, u64::MAX), position(160, 1 << 56), position(208, u64::MAX), position(209, 1 << 56)].concat(),
    ]
}
