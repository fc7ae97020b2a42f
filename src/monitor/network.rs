//! Boards over TCP: monitors read from a board, and boards of other processes write to it.
//!
//! Both protocols begin alike. The listener sends `MAGIC` and a random nonce of 32 bytes. The client proves that it has
//! the key with the keyed BLAKE3 hash of the nonce, or sends zeros if it has no key. A monitor sends a byte before
//! that: the updates per second. Then frames go one way: to a monitor, or from another process's board.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use gradwire_core::telemetry::{BODY_MAX, Frame, LogError, MAGIC};

use super::board::Board;
use super::ending::Source;
use super::readers::Reader;
use super::serving::{self, Service, Standing, listen};

/// Monitors that a listener of a board serves at a time.
pub const MONITORS_MAX: usize = 8;
/// How long a client may take to send its part of the greeting, and for how long it may read nothing.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The highest rate of updates that a monitor can ask for, per second.
pub const RATE_MAX: u8 = 10;
/// Bytes of the only message that a monitor sends: the rate, and the proof that it has the key.
pub const SUBSCRIPTION: usize = 33;

/// Time between two attempts to reach a board that gathers: at first, and at most.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_millis(500);
/// How long an attempt waits for an address that does not answer. The end of the process can wait for two attempts.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Time between two messages to a board that gathers, as long as between two reports of a node.
const FORWARD: Duration = Duration::from_millis(100);

/// A key that monitors need. It should differ from the key of the cluster: monitors must not be able to join the run.
pub type MonitorKey = [u8; 32];

impl Board {
    /// Accepts monitors at `address`, on a thread of its own, until the process ends. Returns the address, with the
    /// port that the system chose if `address` has port 0. An address beyond loopback needs a key, unless `open` is
    /// true: then every host that reaches the address can watch.
    ///
    /// # Errors
    /// If the board cannot listen at the address or start a thread, and for an address beyond loopback without a key.
    pub fn serve(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        serving::serve(listener, "monitor", Monitors { board: self.clone(), key })?;
        Ok(at)
    }

    /// Accepts boards of other processes that [`publish`](Self::publish) to `address`, on a thread of its own, and adds
    /// their reports and notes to this board. Returns the address. Key and `open` are as for [`serve`](Self::serve).
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn gather(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        serving::serve(listener, "gather", Gathering { board: self.clone(), key })?;
        self.ending().gathers();
        Ok(at)
    }

    /// Forwards the reports and notes of this board to one that [`gather`](Self::gather)s at `address`, on a thread of
    /// its own, until [`flush`](Self::flush) has sent the last ones. Connects again whenever the connection
    /// fails, after 10 ms at first and 0.5 s later.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn publish(&self, address: String, key: Option<MonitorKey>) -> io::Result<()> {
        // The end of the process waits for the last reports.
        let (board, output) = (self.clone(), self.output());
        thread::Builder::new().name("publish".into()).spawn(move || {
            let _output = output;
            let mut pause = RETRY_MIN;
            loop {
                // Training goes on without monitors, so an error only means to try again.
                let ends = match board.publish_once(&address, key) {
                    Ok(()) => return,
                    Err(_) => board.ending().wait(pause),
                };
                if ends {
                    // A short run can end before this process has tried again.
                    let _ = board.publish_once(&address, key);
                    return;
                }
                pause = RETRY.min(2 * pause);
            }
        })?;
        Ok(())
    }

    fn publish_once(&self, address: &str, key: Option<MonitorKey>) -> io::Result<()> {
        let mut stream = connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let nonce = read_greeting(&mut stream)?;
        stream.write_all(&key.map_or([0; 32], |key| proof(&key, &nonce)))?;
        // From 1, not 0: the gathering board has a description of the run already.
        let (mut log, mut since) = (Vec::new(), 1);
        let mut ends = false;
        let reader = self.readers().enter();
        loop {
            log.clear();
            since = self.since(since, &mut log);
            stream.write_all(&log)?;
            reader.has_sent(since);
            if ends {
                return Ok(());
            }
            if !reader.is_awaited(self.number()) {
                self.readers().sleep(FORWARD);
            }
            // Also during a farewell, in which many nodes may report.
            ends = self.ending().wait(FORWARD / 20);
        }
    }
}

/// Connects to an address of the name. An address that does not answer has [`CONNECT_MAX`].
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for address in address.to_socket_addrs()? {
        result = TcpStream::connect_timeout(&address, CONNECT_MAX);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// A client of [`Board::serve`], see [`Feed`](serving::Feed).
pub fn monitors(board: &Board, key: Option<MonitorKey>) -> serving::Feed {
    serving::feed(Monitors { board: board.clone(), key })
}

/// A client of [`Board::gather`], see [`Feed`](serving::Feed).
pub fn boards(board: &Board, key: Option<MonitorKey>) -> serving::Feed {
    serving::feed(Gathering { board: board.clone(), key })
}

/// The service that sends a board's reports and notes to monitors.
struct Monitors {
    board: Board,
    key: Option<MonitorKey>,
}

/// A monitor, or a board that publishes.
struct Client {
    nonce: [u8; 32],
    /// Time between two updates. Zero before the greeting is complete.
    every: Duration,
    /// The number of the last report or note that was sent.
    since: u64,
    /// Once the greeting is complete.
    reader: Option<Reader>,
}

impl Client {
    fn greet(output: &mut Vec<u8>) -> Self {
        let nonce = nonce();
        output.extend(MAGIC);
        output.extend(nonce);
        Self { nonce, every: Duration::ZERO, since: 0, reader: None }
    }
}

impl Service for Monitors {
    type Client = Client;
    const LOOK: Option<Duration> = Some(Duration::from_millis(25));

    fn limits(&self) -> (usize, u64) {
        (MONITORS_MAX, self.board.nodes() as u64)
    }

    fn open(&mut self, output: &mut Vec<u8>) -> Client {
        Client::greet(output)
    }

    fn receive(&mut self, client: &mut Client, input: &mut Vec<u8>, _: &mut Vec<u8>) -> io::Result<Standing> {
        if input.len() < SUBSCRIPTION && client.every.is_zero() {
            return Ok(Standing::Unproven);
        }
        // A monitor sends nothing after its subscription.
        let (rate, got) = (input[0], &input[1..]);
        let valid = client.every.is_zero() && got.len() == 32 && (1..=RATE_MAX).contains(&rate);
        if !valid || !is_proven(self.key, &client.nonce, got) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        client.every = Duration::from_secs(1) / u32::from(rate);
        client.reader = Some(self.board.readers().enter());
        input.clear();
        Ok(Standing::Proven)
    }

    fn send(&mut self, client: &mut Client, now: Instant, output: &mut Vec<u8>) -> io::Result<Option<Instant>> {
        client.since = self.board.since(client.since, output);
        Ok(Some(now + client.every))
    }

    fn is_urgent(&self, client: &Client) -> bool {
        client.reader.as_ref().is_some_and(|reader| reader.is_awaited(self.board.number()))
    }

    fn delivered(&self, client: &Client) {
        client.reader.iter().for_each(|reader| reader.has_sent(client.since));
    }
}

/// The service that adds the reports and notes of other boards to a board.
struct Gathering {
    board: Board,
    key: Option<MonitorKey>,
}

/// A board that publishes.
struct Publisher {
    /// The nonce. `None`: the board has completed its greeting.
    nonce: Option<[u8; 32]>,
    /// The time of that board in its current update.
    now: u64,
    /// From its greeting on: the end of this process waits for its last reports.
    source: Option<Source>,
}

impl Service for Gathering {
    type Client = Publisher;

    fn limits(&self) -> (usize, u64) {
        (self.board.nodes(), self.board.nodes() as u64)
    }

    fn open(&mut self, output: &mut Vec<u8>) -> Publisher {
        Publisher { nonce: Some(Client::greet(output).nonce), now: 0, source: None }
    }

    fn receive(&mut self, client: &mut Publisher, input: &mut Vec<u8>, _: &mut Vec<u8>) -> io::Result<Standing> {
        let mut used = 0;
        if let Some(nonce) = &client.nonce {
            let Some(got) = input.get(..32) else { return Ok(Standing::Unproven) };
            if !is_proven(self.key, nonce, got) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            (client.nonce, client.source, used) = (None, Some(self.board.source()), 32);
        }
        let mut standing = Standing::Proven;
        // A frame that is too long is refused by its length, so an incomplete one is within the limit.
        while let Some((frame, length)) = Frame::parse(&input[used..]).map_err(malformed)? {
            match frame {
                Frame::Present(present) => client.now = present.at.as_nanos(),
                // What has happened before this update, for instance before the connection broke, keeps its age.
                Frame::Report(report) => {
                    let age = client.now.saturating_sub(report.at.as_nanos());
                    self.board.take_report(report, age);
                }
                Frame::Note(note) => self.board.take_note(note, client.now.saturating_sub(note.at.as_nanos())),
                // The board that gathers describes the run itself.
                Frame::Run(_) => {}
            }
            (used, standing) = (used + length, Standing::Active);
        }
        input.drain(..used);
        Ok(standing)
    }

    /// A board may be silent for as long as it likes: the steps of its process can take minutes.
    fn send(&mut self, _: &mut Publisher, _: Instant, _: &mut Vec<u8>) -> io::Result<Option<Instant>> {
        Ok(None)
    }
}

fn malformed(error: LogError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
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
                Err(error) => return Err(malformed(error)),
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

/// Reads the listener's greeting. Returns the nonce.
///
/// # Errors
/// If the stream ends or fails, or its bytes are no greeting.
pub fn read_greeting(stream: &mut impl Read) -> io::Result<[u8; 32]> {
    let (mut magic, mut nonce) = ([0; 8], [0; 32]);
    stream.read_exact(&mut magic)?;
    if magic != MAGIC {
        let text = format!(
            "expected the greeting \"{}\" of a gradwire monitor, got \"{}\"; is this the address of a board, and of the \
             same release?",
            MAGIC.escape_ascii(),
            magic.escape_ascii()
        );
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
