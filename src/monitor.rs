//! What monitors are told: nodes leave it on a board, and a listener hands it to whoever subscribes.
//!
//! A monitor can say one thing: how often it wants to be told. It is told what has changed since the last time, from copies; one that
//! does not read is cut off after [`PATIENCE`], and there are at most [`MONITORS_MAX`]. So whatever monitors do, a node's steps and
//! memory stay as they are. Nodes of other processes say how they are at a listener of its own ([`Board::gather`], [`Board::publish`]).

mod metrics;
mod tensorboard;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant as Time};

use gradwire_core::Instant;
use gradwire_core::telemetry::{BODY_MAX, Frame, MAGIC, NODES_MAX, Note, Report, Run};

/// Monitors at a time.
pub const MONITORS_MAX: usize = 8;
/// How long a monitor may take to subscribe, or to read what it is sent.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// Times a second that a monitor can be told.
pub const RATE_MAX: u8 = 10;
/// Notes that are kept for monitors that come later.
const NOTES_MAX: usize = 1024;
/// Bytes of the one message that a monitor sends: how often, and the proof that it has the key.
pub const SUBSCRIPTION: usize = 33;

/// A key that monitors must have: not the cluster's.
pub type MonitorKey = [u8; 32];

/// Where nodes leave how they are. Clones are of one board.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    origin: Time,
    state: Mutex<State>,
    monitors: AtomicUsize,
}

#[derive(Default)]
struct State {
    run: Option<Run>,
    /// The last report of each rank, and its number.
    reports: BTreeMap<u32, (u64, Report)>,
    notes: VecDeque<(u64, Note)>,
    /// Number of the last thing that was left here.
    number: u64,
}

impl Default for Board {
    fn default() -> Self {
        // 0 is what is asked with first, and everything is told then.
        let state = Mutex::new(State { number: 1, ..State::default() });
        Self(Arc::new(Inner { origin: Time::now(), state, monitors: AtomicUsize::new(0) }))
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Board({} nodes)", self.lock().reports.len())
    }
}

impl Board {
    /// A board with what is run on it.
    pub fn new(run: Run) -> Self {
        let board = Self::default();
        board.lock().run = Some(run);
        board
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The board's time.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.0.origin.elapsed().as_nanos() as u64)
    }

    /// Leaves how a node is, in place of how it was. Times in the report are those of `now` there; they become the board's.
    pub fn report(&self, mut report: Report) {
        let (now, then) = (self.now(), report.at);
        let here = |at: Instant| {
            let ago = then.as_nanos().saturating_sub(at.as_nanos());
            Instant::from_nanos(now.as_nanos().saturating_sub(ago))
        };
        report.at = now;
        if let Some(waiting) = &mut report.status.waiting {
            waiting.since = here(waiting.since);
        }
        for link in &mut report.status.links {
            link.last_heard = link.last_heard.map(here);
        }
        let mut state = self.lock();
        let rank = report.status.me.0;
        if state.reports.len() >= NODES_MAX && !state.reports.contains_key(&rank) {
            return;
        }
        state.number += 1;
        let number = state.number;
        state.reports.insert(rank, (number, report));
    }

    /// Leaves what happened to a node.
    pub fn note(&self, note: Note) {
        let mut state = self.lock();
        if state.notes.len() == NOTES_MAX {
            state.notes.pop_front();
        }
        state.number += 1;
        let number = state.number;
        state.notes.push_back((number, Note { at: self.now(), ..note }));
    }

    /// Appends what has been left since number `since` to a log; the number to ask with next time.
    pub fn since(&self, since: u64, log: &mut Vec<u8>) -> u64 {
        let state = self.lock();
        if let (0, Some(run)) = (since, &state.run) {
            Frame::Run(run.clone()).emit(log);
        }
        let reports: Vec<Report> =
            state.reports.values().filter(|(number, _)| *number > since).map(|(_, report)| report.clone()).collect();
        let notes: Vec<Note> =
            state.notes.iter().filter(|(number, _)| *number > since).map(|(_, note)| *note).collect();
        let number = state.number;
        // Nodes need not wait while this is written out.
        drop(state);
        reports.into_iter().for_each(|report| Frame::Report(report).emit(log));
        notes.into_iter().for_each(|note| Frame::Note(note).emit(log));
        number
    }

    /// Tells whoever subscribes at `address`, on threads of its own, until the program ends. Beyond loopback it takes a key,
    /// unless `open` says that anyone may watch.
    ///
    /// # Errors
    /// When the address cannot be listened at, or anyone could watch.
    pub fn serve(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        let board = self.clone();
        thread::Builder::new().name("monitor".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if board.0.monitors.fetch_add(1, Ordering::AcqRel) >= MONITORS_MAX {
                    board.0.monitors.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let told = board.clone();
                let spawned = thread::Builder::new().name("monitored".into()).spawn(move || {
                    // It is gone, or did not keep to the rules: either way there is nobody to tell.
                    let _ = told.tell(stream, key);
                    told.0.monitors.fetch_sub(1, Ordering::AcqRel);
                });
                if spawned.is_err() {
                    board.0.monitors.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
        Ok(at)
    }

    /// Tells one monitor, until it goes.
    fn tell(&self, mut stream: TcpStream, key: Option<MonitorKey>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let nonce = nonce();
        stream.write_all(&MAGIC)?;
        stream.write_all(&nonce)?;
        let mut subscription = [0; SUBSCRIPTION];
        stream.read_exact(&mut subscription)?;
        let (rate, got) = (subscription[0], &subscription[1..]);
        let proven = key.is_none_or(|key| blake3::Hash::from_bytes(proof(&key, &nonce)) == *got);
        if !proven || !(1..=RATE_MAX).contains(&rate) {
            return Ok(());
        }
        let pause = Duration::from_secs(1) / u32::from(rate);
        // From here on it has nothing to say.
        stream.set_read_timeout(Some(pause))?;
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

    /// Takes what nodes of other processes [`publish`](Self::publish) at `address`, on threads of its own.
    ///
    /// # Errors
    /// As for [`serve`](Self::serve).
    pub fn gather(&self, address: impl ToSocketAddrs, key: Option<MonitorKey>, open: bool) -> io::Result<SocketAddr> {
        let (listener, at) = listen(address, key.is_some() || open)?;
        let (board, taking) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        thread::Builder::new().name("gather".into()).spawn(move || {
            for stream in listener.incoming().flatten() {
                if taking.fetch_add(1, Ordering::AcqRel) >= NODES_MAX {
                    taking.fetch_sub(1, Ordering::AcqRel);
                    continue;
                }
                let (board, taken) = (board.clone(), Arc::clone(&taking));
                let spawned = thread::Builder::new().name("gathered".into()).spawn(move || {
                    let _ = board.take(stream, key);
                    taken.fetch_sub(1, Ordering::AcqRel);
                });
                if spawned.is_err() {
                    taking.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
        Ok(at)
    }

    fn take(&self, mut stream: TcpStream, key: Option<MonitorKey>) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let nonce = nonce();
        stream.write_all(&MAGIC)?;
        stream.write_all(&nonce)?;
        let mut got = [0; 32];
        stream.read_exact(&mut got)?;
        if key.is_some_and(|key| blake3::Hash::from_bytes(proof(&key, &nonce)) != got) {
            return Ok(());
        }
        stream.set_read_timeout(None)?;
        let mut frames = Frames::default();
        loop {
            match frames.next(&mut stream)? {
                Frame::Report(report) => self.report(report),
                Frame::Note(note) => self.note(note),
                Frame::Run(_) => {}
            }
        }
    }

    /// Says how the nodes of this process are to a board that [`gather`](Self::gather)s at `address`, on a thread of its own,
    /// again and again if it is not there.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn publish(&self, address: String, key: Option<MonitorKey>) -> io::Result<()> {
        let board = self.clone();
        thread::Builder::new().name("publish".into()).spawn(move || {
            loop {
                // Nobody to tell is no trouble of this node's.
                let _ = board.publish_once(&address, key);
                thread::sleep(Duration::from_millis(500));
            }
        })?;
        Ok(())
    }

    fn publish_once(&self, address: &str, key: Option<MonitorKey>) -> io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let nonce = greeted(&mut stream)?;
        stream.write_all(&key.map_or([0; 32], |key| proof(&key, &nonce)))?;
        let (mut log, mut since) = (Vec::new(), 1);
        loop {
            log.clear();
            since = self.since(since, &mut log);
            stream.write_all(&log)?;
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Subscribes to what a board tells at `address`, so many times a second.
///
/// # Errors
/// When nobody is there, or it speaks another language.
pub fn subscribe(address: &str, rate: u8, key: Option<MonitorKey>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let nonce = greeted(&mut stream)?;
    let mut subscription = [0; SUBSCRIPTION];
    subscription[0] = rate.clamp(1, RATE_MAX);
    if let Some(key) = key {
        subscription[1..].copy_from_slice(&proof(&key, &nonce));
    }
    stream.write_all(&subscription)?;
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn greeted(stream: &mut TcpStream) -> io::Result<[u8; 32]> {
    let (mut magic, mut nonce) = ([0; 8], [0; 32]);
    stream.read_exact(&mut magic)?;
    if magic != MAGIC {
        let text = "expected a monitor's address of version 1, got something else";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    stream.read_exact(&mut nonce)?;
    Ok(nonce)
}

/// Frames out of a stream of bytes, one after the other, in memory for one.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// The next frame.
    ///
    /// # Errors
    /// When the stream ends, or what comes is no frame.
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
            debug_assert!(self.bytes.len() <= BODY_MAX + 4);
            self.bytes.extend(&more[..read]);
        }
    }
}

fn listen(address: impl ToSocketAddrs, allowed: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let at = listener.local_addr()?;
    if !allowed && !at.ip().is_loopback() {
        let text = format!("monitor: listening at {at} without a key lets anyone watch");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok((listener, at))
}

fn nonce() -> [u8; 32] {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = |_| RandomState::new().build_hasher().finish().to_le_bytes();
    let bytes: Vec<u8> = (0..4).flat_map(random).collect();
    *blake3::hash(&bytes).as_bytes()
}

/// That whoever sends this has the key.
fn proof(key: &MonitorKey, nonce: &[u8; 32]) -> [u8; 32] {
    *blake3::keyed_hash(key, nonce).as_bytes()
}
