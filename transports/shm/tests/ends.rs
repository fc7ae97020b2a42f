//! The beginning and the end of a node: its socket, and the bytes that are left in a ring when a process has ended.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gradwire_core::wire::{Header, Message};
use gradwire_core::{BufferId, Clock, Incarnation, Input, OpId, PeerId, Pool, Segment, Sequence, Transport};
use gradwire_shm::{Builder, Shm, ShmError};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
const LEN: u32 = 400;
const BODY: Segment = Segment { buffer: BufferId(0), start: 0, len: LEN };

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-ends-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn open(rank: u32, directory: &Path) -> Result<Shm, ShmError> {
    Builder::new(rank, 2).directory(directory).open()
}

/// The next input of a node, while the other one is polled as well, if there is one.
#[track_caller]
fn next(node: &mut Shm, pool: &mut Pool, mut other: Option<&mut Shm>) -> Input {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no input");
        if let Some(input) = node.poll(pool, Some(Duration::from_millis(2))).unwrap() {
            return input;
        }
        if let Some(other) = &mut other {
            let _ = other.poll(&mut Pool::new([0]), Some(Duration::from_millis(2))).unwrap();
        }
    }
}

/// A rank belongs to a process for as long as that runs. The socket that a killed process has left is replaced.
#[test]
fn a_socket_belongs_to_the_process_that_runs() {
    let directory = scratch("socket");
    let first = open(0, &directory).unwrap();
    let path = directory.join("0");
    assert!(matches!(open(0, &directory), Err(ShmError::Taken { path: taken }) if taken == path));
    drop(first);
    assert!(!path.exists());
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    drop(open(0, &directory).unwrap());
    std::fs::remove_dir_all(directory).unwrap();
}

/// A process sends a message and ends. Its body, which was held, can still be read; a message for it can no longer be
/// sent.
#[test]
fn a_held_body_outlives_its_sender() {
    for transmits in [false, true] {
        let directory = scratch(&format!("held-{transmits}"));
        let (mut first, mut second) = (open(0, &directory).unwrap(), open(1, &directory).unwrap());
        let (mut pool, mut theirs) = (Pool::new([LEN as usize]), Pool::new([LEN as usize]));
        let connected = next(&mut first, &mut pool, Some(&mut second));
        assert_eq!(connected, Input::Connected { peer: PeerId(1) });
        assert_eq!(next(&mut second, &mut theirs, Some(&mut first)), Input::Connected { peer: PeerId(0) });
        theirs.bytes_mut(BODY).fill(7);
        let message = Message::Parameters { view: Sequence(1), round: Clock(1), vector: 0, riders: None };
        let header = Header::new(0, PeerId(1), Incarnation(1), LEN, message);
        second.transmit(OpId(1), PeerId(0), header, Some(BODY), &theirs);
        drop(second);
        assert_eq!(next(&mut first, &mut pool, None), Input::Header { peer: PeerId(1), header });
        // The end is noticed, and not reported yet.
        for _ in 0..20 {
            assert_eq!(first.poll(&mut pool, Some(Duration::from_millis(2))).unwrap(), None);
        }
        if transmits {
            let header = Header::new(0, PeerId(0), Incarnation(2), 0, Message::Release);
            first.transmit(OpId(2), PeerId(1), header, None, &pool);
            let inputs = [next(&mut first, &mut pool, None), next(&mut first, &mut pool, None)];
            assert_eq!(inputs, [Input::Disconnected { peer: PeerId(1) }, Input::Aborted { op: OpId(2) }]);
        } else {
            first.receive(OpId(3), PeerId(1), Some(BODY), &mut pool);
            assert!(matches!(next(&mut first, &mut pool, None), Input::Completed { op: OpId(3), .. }));
            assert!(pool.bytes(BODY).iter().all(|byte| *byte == 7));
            assert_eq!(next(&mut first, &mut pool, None), Input::Disconnected { peer: PeerId(1) });
        }
        drop(first);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// A process that sleeps is woken for bytes to read and for room to write, and does not wait for a timer: the timers of
/// these nodes are minutes apart.
#[test]
fn a_sleeping_process_is_woken() {
    const LARGE: u32 = 64 * 1024;
    let directory = scratch("sleeps");
    let open = |rank| {
        let builder = Builder::new(rank, 2).directory(&directory).ring_len(4096).spin(Duration::ZERO);
        builder.dead_after(Duration::from_secs(6000)).open().unwrap()
    };
    let (mut first, mut second) = (open(0), open(1));
    let body = Segment { len: LARGE, ..BODY };
    let (mut pool, mut theirs) = (Pool::new([LARGE as usize]), Pool::new([LARGE as usize]));
    let connected = next(&mut first, &mut pool, Some(&mut second));
    assert_eq!(connected, Input::Connected { peer: PeerId(1) });
    assert_eq!(next(&mut second, &mut theirs, Some(&mut first)), Input::Connected { peer: PeerId(0) });
    let sleep = Some(PATIENCE);
    let begun = Instant::now();
    let sender = std::thread::spawn(move || {
        let message = Message::Parameters { view: Sequence(1), round: Clock(1), vector: 0, riders: None };
        let header = Header::new(0, PeerId(1), Incarnation(1), LARGE, message);
        second.transmit(OpId(1), PeerId(0), header, Some(body), &theirs);
        while !matches!(second.poll(&mut theirs, sleep).unwrap(), Some(Input::Completed { op: OpId(1), .. })) {}
        second
    });
    assert!(matches!(first.poll(&mut pool, sleep), Ok(Some(Input::Header { .. }))));
    // The sender has filled the ring, and sleeps.
    std::thread::sleep(Duration::from_millis(100));
    first.receive(OpId(3), PeerId(1), Some(body), &mut pool);
    assert!(matches!(first.poll(&mut pool, sleep), Ok(Some(Input::Completed { op: OpId(3), .. }))));
    drop(sender.join().unwrap());
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    drop(first);
    std::fs::remove_dir_all(directory).unwrap();
}
