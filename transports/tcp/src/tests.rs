//! The cipher between two ends in memory, keys and their files, and the checks of the builder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::noise::Sealed;

fn key(digit: &str) -> Key {
    Key::parse(&digit.repeat(64)).unwrap()
}

/// One direction of a connection. `most`: the most bytes that one call reads or writes.
#[derive(Default)]
struct Pipe(VecDeque<u8>);

impl Pipe {
    fn read(&mut self, into: &mut [u8], most: usize) -> io::Result<usize> {
        let n = into.len().min(self.0.len()).min(most);
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        into.iter_mut().zip(self.0.drain(..n)).for_each(|(into, byte)| *into = byte);
        Ok(n)
    }

    fn write(&mut self, from: &[u8], most: usize) -> io::Result<usize> {
        let n = from.len().min(most);
        self.0.extend(&from[..n]);
        Ok(n)
    }
}

/// Both ends of an encrypted connection that moves at most `most` bytes in a call.
fn ends(ours: &Key, theirs: &Key, most: usize) -> io::Result<(Sealed, Sealed)> {
    let (mut here, mut there) = (Sealed::new(ours, true)?, Sealed::new(theirs, false)?);
    let (mut east, mut west) = (Pipe::default(), Pipe::default());
    for _ in 0..500 {
        let done = here.establish(&mut |into| west.read(into, most), &mut |from| east.write(from, most))?;
        let also = there.establish(&mut |into| east.read(into, most), &mut |from| west.write(from, most))?;
        if done && also {
            return Ok((here, there));
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[test]
fn sealed_bytes_are_read_back_for_every_size_of_reads_and_writes() {
    for most in [1, 7, 4096, usize::MAX] {
        let (mut here, mut there) = ends(&key("a"), &key("a"), most).unwrap();
        let plain: Vec<u8> = (0..300_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let (mut wire, mut sent, mut got) = (Pipe::default(), 0, Vec::<u8>::new());
        while got.len() < plain.len() {
            if sent < plain.len() {
                let (one, two) = plain[sent..].split_at((plain.len() - sent).min(100));
                sent += here
                    .write(&[IoSlice::new(one), IoSlice::new(two)], &mut |from| wire.write(from, most))
                    .unwrap_or(0);
            } else {
                here.flush(&mut |from| wire.write(from, most)).unwrap();
            }
            let mut into = vec![0; 10_000];
            match there.read(&mut into, &mut |into| wire.read(into, most)) {
                Ok(n) => got.extend(&into[..n]),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "after {} bytes: {error}", got.len()),
            }
        }
        assert!(got == plain, "pieces of {most}");
    }
}

/// The number of calls that read, and what they read, for one batch of records.
#[test]
fn records_that_have_come_together_are_read_by_one_call() {
    let (mut here, mut there) = ends(&key("a"), &key("a"), usize::MAX).unwrap();
    let (plain, mut wire) = (vec![5; 4 * 65_519], Pipe::default());
    for _ in 0..3 {
        let n = here.write(&[IoSlice::new(&plain)], &mut |from| wire.write(from, usize::MAX)).unwrap();
        let (mut into, mut got, mut calls) = (vec![0; plain.len()], 0, 0);
        while got < n {
            got += there
                .read(&mut into[got..], &mut |into| {
                    calls += 1;
                    wire.read(into, usize::MAX)
                })
                .unwrap();
        }
        assert_eq!((n, calls), (plain.len(), 1));
        assert!(into == plain);
    }
}

#[test]
fn a_handshake_with_a_different_key_is_denied() {
    let error = ends(&key("a"), &key("b"), usize::MAX).err().unwrap();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (io::ErrorKind::PermissionDenied, "the peer has a different key, or no key")
    );
}

#[test]
fn a_record_with_any_single_bit_flipped_ends_the_connection() {
    let sealed = || {
        let (mut here, there) = ends(&key("a"), &key("a"), usize::MAX).unwrap();
        let mut wire = Pipe::default();
        here.write(&[IoSlice::new(b"parameters")], &mut |from| wire.write(from, usize::MAX)).unwrap();
        (there, wire)
    };
    let bits = sealed().1.0.len() * 8;
    for bit in 0..bits {
        let (mut there, mut wire) = sealed();
        wire.0[bit / 8] ^= 1 << (bit % 8);
        let mut into = [0; 64];
        let result = there.read(&mut into, &mut |into| wire.read(into, usize::MAX));
        assert!(result.is_err(), "bit {bit}: {result:?}");
        // The connection stays broken.
        assert!(there.read(&mut into, &mut |into| wire.read(into, usize::MAX)).is_err(), "bit {bit}");
    }
}

/// An endless series of empty records would keep one call of `read` busy, and hold up all other connections.
#[test]
fn an_empty_record_ends_the_connection() {
    let (_, mut there) = ends(&key("a"), &key("a"), usize::MAX).unwrap();
    let mut wire = Pipe::default();
    wire.write(&[0, 16], 2).unwrap();
    wire.write(&[7; 16], 16).unwrap();
    let error = there.read(&mut [0; 64], &mut |into| wire.read(into, usize::MAX)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("more than 16"), "{error}");
}

#[test]
fn a_key_is_read_only_from_a_file_that_other_users_cannot_read() {
    let directory = std::env::temp_dir().join(format!("gradwire-key-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("key");
    Key::generate().unwrap().write(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let read = Key::from_file(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim().len(), 64);
    assert_eq!(format!("{read:?}"), "Key(..)");
    assert!(Key::generate().unwrap().write(&path).unwrap_err().to_string().contains("File exists"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Key::from_file(&path).unwrap_err().to_string();
    let expected = "expected a file that only its owner can read (mode 0600), got mode 0640; run chmod 600, or give the \
                    key in the variable GRADWIRE_KEY";
    assert!(error.contains(expected), "{error}");
    for text in ["", "abc", &"g".repeat(64), &"a".repeat(65)] {
        assert!(matches!(Key::parse(text), Err(KeyError::Format { .. })), "{text}");
    }
}

#[test]
fn a_node_without_a_key_refuses_to_listen_beyond_loopback() {
    let open = |rank, nodes, meet: &str| Builder::new(rank, nodes, meet).open().err().map(|error| error.to_string());
    assert_eq!(open(0, 2, "127.0.0.1:0"), None);
    let refused = open(0, 2, "0.0.0.0:0").unwrap();
    assert!(
        refused.starts_with("listening on 0.0.0.0:0 without a key lets anyone who can reach it take part"),
        "{refused}"
    );
    // If the meeting point is on another host, the node must listen for connections from other hosts.
    assert!(open(1, 2, "192.0.2.1:4000").unwrap().contains("without a key"));
    assert!(Builder::new(0, 2, "0.0.0.0:0").insecure_open(true).open().is_ok());
    assert!(Builder::new(0, 2, "0.0.0.0:0").key(key("a")).open().is_ok());
    assert_eq!(open(2, 2, "127.0.0.1:0").unwrap(), "rank: expected less than 2 (workers and servers), got 2");
    assert!(open(0, 2, "nonsense").unwrap().starts_with("meet: expected HOST:PORT, got \"nonsense\""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(open(0, 2, &address).unwrap().contains("in use"));
}

/// A node that dials a port of its own machine at which no program listens can be given that port to dial from, and so
/// reach itself. It neither greets itself, nor keeps the port from the program that is to listen there.
#[test]
fn a_connection_to_itself_is_none() {
    use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, socket};
    use std::net::TcpListener;

    let itself = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&itself, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let at = SocketAddr::try_from(getsockname(&itself).unwrap()).unwrap();
    connect(&itself, &at).unwrap();
    let stream = std::net::TcpStream::from(itself);
    stream.set_nonblocking(true).unwrap();

    let (meet, name) = (at.to_string(), Name::literal(&at.to_string()).unwrap());
    let (own, reached, bound, key, open, dead_after) = (meet.clone(), at, at, None, false, Duration::from_secs(2));
    let sockets = Sockets::new(Setup { meet, name: name.clone(), own, reached, bound, key, open, dead_after });
    let mut dialled = sockets.socket(mio::net::TcpStream::from_std(stream), at.to_string(), at, Some(name)).unwrap();
    let error = gradwire_stream::Stream::establish(&mut dialled).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    drop(dialled);
    TcpListener::bind(at).unwrap();
}
