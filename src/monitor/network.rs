//! Boards over TCP: monitors read from a board, and boards of other processes write to it.
//!
//! Both protocols begin alike. The listener sends `MAGIC` and a random nonce of 32 bytes. The client proves that it has
//! the key with the keyed BLAKE3 hash of the nonce, or sends zeros if it has no key. A monitor sends a byte before
//! that: the updates per second. Then frames go one way: to a monitor, or from another process's board.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use gradwire_core::telemetry::{BODY_MAX, Frame, MAGIC, NODES_MAX};

use super::board::Board;

/// Monitors that a board serves at a time.
pub const MONITORS_MAX: usize = 8;
/// How long a client may take to send its part of the greeting, or to read an update.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The highest rate of updates that a monitor can ask for, per second.
pub const RATE_MAX: u8 = 10;
/// Bytes of the only message that a monitor sends: the rate, and the proof that it has the key.
pub const SUBSCRIPTION: usize = 33;

/// Time between two attempts to reach a board that gathers.
const RETRY: Duration = Duration::from_millis(500);
/// Time between two messages to a board that gathers: that of a node's reports.
const FORWARD: Duration = Duration::from_millis(100);

/// A key that monitors need. It should differ from the key of the cluster: monitors must not be able to join the run.
pub type MonitorKey = [u8; 32];

impl Board {
    /// Accepts monitors at `address`, on threads of its own, until the process ends. Returns the address, with the port
    /// that the system chose if `address` has port 0. An address beyond loopback needs a key, unless `open` is true:
    /// then every host that reaches the address can watch.
    ///
    /// # Errors
    /// If the board cannot listen at the address or start a thread, and for an address beyond loopback without a key.
    pub fn serve(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        let board = self.clone();
        let handle = move |stream| board.serve_one(stream, key);
        accept(listener, ["monitor", "monitored"], self.monitors(), MONITORS_MAX, handle)?;
        Ok(at)
    }

    /// Sends updates to one monitor until the connection ends.
    fn serve_one(&self, mut stream: TcpStream, key: Option<MonitorKey>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        // A monitor that does not read fails the write below, instead of holding a thread and a copy of the log for
        // ever.
        stream.set_write_timeout(Some(PATIENCE))?;
        let nonce = greet(&mut stream)?;
        let mut subscription = [0; SUBSCRIPTION];
        stream.read_exact(&mut subscription)?;
        let (rate, got) = (subscription[0], &subscription[1..]);
        if !is_proven(key, &nonce, got) || !(1..=RATE_MAX).contains(&rate) {
            return Ok(());
        }
        // Reading is the pause between two updates, and ends it when the monitor closes the connection or sends
        // anything.
        stream.set_read_timeout(Some(Duration::from_secs(1) / u32::from(rate)))?;
        let mut log = Vec::new();
        let mut since = 0;
        loop {
            log.clear();
            since = self.since(since, &mut log);
            stream.write_all(&log)?;
            match stream.read(&mut [0]) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                _ => return Ok(()),
            }
        }
    }

    /// Accepts boards of other processes that [`publish`](Self::publish) to `address`, on threads of its own, and adds
    /// their reports and notes to this board. Returns the address. Key and `open` are as for [`serve`](Self::serve).
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn gather(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        let board = self.clone();
        let handle = move |stream| board.gather_one(stream, key);
        accept(listener, ["gather", "gathered"], Arc::default(), NODES_MAX, handle)?;
        Ok(at)
    }

    /// Reads the frames of another board until the connection ends.
    fn gather_one(&self, mut stream: TcpStream, key: Option<MonitorKey>) -> io::Result<()> {
        let nonce = greet(&mut stream)?;
        let mut got = [0; 32];
        stream.read_exact(&mut got)?;
        if !is_proven(key, &nonce, &got) {
            return Ok(());
        }
        // A process may be silent for as long as it likes: its steps can take minutes.
        stream.set_read_timeout(None)?;
        let mut frames = Frames::default();
        loop {
            match frames.next(&mut stream)? {
                Frame::Report(report) => self.report(report),
                Frame::Note(note) => self.note(note),
                // The board that gathers describes the run itself.
                Frame::Run(_) => {}
            }
        }
    }

    /// Forwards the reports and notes of this board to one that [`gather`](Self::gather)s at `address`, on a thread of
    /// its own, until the process ends. Connects again after 0.5 s whenever the connection fails.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn publish(&self, address: String, key: Option<MonitorKey>) -> io::Result<()> {
        let board = self.clone();
        thread::Builder::new().name("publish".into()).spawn(move || {
            loop {
                // Training goes on without monitors, so an error only means to try again.
                let _ = board.publish_once(&address, key);
                thread::sleep(RETRY);
            }
        })?;
        Ok(())
    }

    fn publish_once(&self, address: &str, key: Option<MonitorKey>) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let nonce = read_greeting(&mut stream)?;
        stream.write_all(&key.map_or([0; 32], |key| proof(&key, &nonce)))?;
        // From 1, not 0: the gathering board has a description of the run already.
        let (mut log, mut since) = (Vec::new(), 1);
        loop {
            log.clear();
            since = self.since(since, &mut log);
            stream.write_all(&log)?;
            thread::sleep(FORWARD);
        }
    }
}

/// Subscribes to the board that serves at `address`, with `rate` updates a second (1 to [`RATE_MAX`]; other values are
/// clamped). Read the returned stream with [`Frames`].
///
/// # Errors
/// If the connection fails, or the other side is no board. A wrong key is not an error here: the board closes the
/// connection, and the first read fails.
pub fn subscribe(address: &str, rate: u8, key: Option<MonitorKey>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let nonce = read_greeting(&mut stream)?;
    let mut subscription = [0; SUBSCRIPTION];
    subscription[0] = rate.clamp(1, RATE_MAX);
    if let Some(key) = key {
        subscription[1..].copy_from_slice(&proof(&key, &nonce));
    }
    stream.write_all(&subscription)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

/// Reads frames from a stream of bytes. Buffers at most one frame and 16 KiB.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// The next frame. Blocks until it is complete.
    ///
    /// # Errors
    /// If the stream ends or fails, or its bytes are no frame.
    pub fn next(&mut self, from: &mut impl Read) -> io::Result<Frame> {
        loop {
            match Frame::parse(&self.bytes) {
                Ok(Some((frame, used))) => {
                    self.bytes.drain(..used);
                    return Ok(frame);
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
                Ok(None) => {}
            }
            let mut more = [0; 16 * 1024];
            let read = from.read(&mut more)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // `parse` refuses a longer frame by its length, so an incomplete one is within the limit.
            debug_assert!(self.bytes.len() <= BODY_MAX + 4);
            self.bytes.extend(&more[..read]);
        }
    }
}

/// Listens at an address. Beyond loopback, that has to be allowed.
pub(super) fn listen(address: impl ToSocketAddrs, allowed: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let at = listener.local_addr()?;
    if !allowed && !at.ip().is_loopback() {
        let text = format!(
            "monitor: listening at {at} without a key lets anyone watch: expected a key, a loopback address, or \
             `open` set to true"
        );
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok((listener, at))
}

/// Accepts connections on a thread, and handles each on another one. `names` are those threads' names. `open` counts
/// the connections; beyond `max`, further ones are closed at once.
fn accept(
    listener: TcpListener,
    names: [&'static str; 2],
    open: Arc<AtomicUsize>,
    max: usize,
    handle: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name(names[0].into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // Counted before the thread starts: afterwards, a burst of connections could pass the check together.
            if open.fetch_add(1, Ordering::AcqRel) >= max {
                open.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (handle, handled) = (handle.clone(), Arc::clone(&open));
            let spawned = thread::Builder::new().name(names[1].into()).spawn(move || {
                // The connection has ended, or the client broke the protocol. Either way the client sees it close.
                let _ = handle(stream);
                handled.fetch_sub(1, Ordering::AcqRel);
            });
            if spawned.is_err() {
                open.fetch_sub(1, Ordering::AcqRel);
            }
        }
    })?;
    Ok(())
}

/// Sends the listener's greeting. The answer has to come within [`PATIENCE`].
fn greet(stream: &mut TcpStream) -> io::Result<[u8; 32]> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let nonce = nonce();
    stream.write_all(&MAGIC)?;
    stream.write_all(&nonce)?;
    Ok(nonce)
}

/// Reads the listener's greeting. Returns the nonce.
fn read_greeting(stream: &mut TcpStream) -> io::Result<[u8; 32]> {
    let (mut magic, mut nonce) = ([0; 8], [0; 32]);
    stream.read_exact(&mut magic)?;
    if magic != MAGIC {
        let text = "expected the greeting of a gradwire monitor, version 1; is this the address of a board?";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    stream.read_exact(&mut nonce)?;
    Ok(nonce)
}

/// A fresh nonce: a recorded proof must be of no use for a second connection.
fn nonce() -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library has no random numbers but the keys of its hash maps.
    let random = |_| RandomState::new().build_hasher().finish().to_le_bytes();
    let bytes: Vec<u8> = (0..4).flat_map(random).collect();
    *blake3::hash(&bytes).as_bytes()
}

/// The proof that its sender has the key.
fn proof(key: &MonitorKey, nonce: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(key, nonce).as_bytes()
}

/// Compares a proof with the expected one, in constant time. Without a key, every client is accepted.
fn is_proven(key: Option<MonitorKey>, nonce: &[u8; 32], got: &[u8]) -> bool {
    key.is_none_or(|key| blake3::Hash::from_bytes(proof(&key, nonce)) == *got)
}
