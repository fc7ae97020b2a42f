//! The incoming side of a connection, without IO of its own: it is given something to read from.

use std::io;

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{OpId, Pool, Segment};

use crate::control::{self, Control};
use crate::notice::malformed;

/// What is read ahead of what is asked for: headers and small bodies come with one read.
const AHEAD: usize = 4096;
/// At most so much of a body is read at once, so that its checksum is taken while it is in the cache.
const PIECE: usize = 256 * 1024;
/// A body that nobody wants is read into this much.
const SINK: usize = 16 * 1024;

/// What came of reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A message; its body, if it has one, waits for [`Reader::receive`].
    Header(Header),
    /// A body is in its place, and right.
    Body(OpId),
    /// Something between transports.
    Control(Control),
    /// Addresses.
    Book(Vec<(u32, String)>),
    /// Nothing more can be read now.
    Blocked,
    /// The body of the last header has no place yet.
    Held,
    /// The other side has ended, between two frames.
    Ended,
}

/// Takes frames out of a stream of bytes.
#[derive(Debug)]
pub struct Reader {
    ahead: Box<[u8; AHEAD]>,
    /// What of `ahead` has come and has not been taken.
    from: usize,
    to: usize,
    phase: Phase,
    /// Bodies are followed by their checksum.
    checked: bool,
    /// Bytes read in all.
    pub(crate) total: u64,
}

#[derive(Debug)]
enum Phase {
    Header,
    Held { length: u32 },
    Body { op: OpId, into: Option<Segment>, length: u32, done: u32, checksum: crc32fast::Hasher },
    Book { length: u32, bytes: Vec<u8> },
}

impl Reader {
    /// For a stream whose bodies have checksums, or not.
    pub fn new(checked: bool) -> Self {
        Self { ahead: Box::new([0; AHEAD]), from: 0, to: 0, phase: Phase::Header, checked, total: 0 }
    }

    /// Says where the body of the last header goes; `None`: nowhere. False when no body of that length waits.
    pub fn receive(&mut self, op: OpId, into: Option<Segment>) -> bool {
        let Phase::Held { length } = self.phase else { return false };
        if into.is_some_and(|into| into.len != length) {
            return false;
        }
        self.phase = Phase::Body { op, into, length, done: 0, checksum: crc32fast::Hasher::new() };
        true
    }

    /// The operation that a body is being read for.
    pub(crate) fn open(&self) -> Option<OpId> {
        if let Phase::Body { op, .. } = self.phase { Some(op) } else { None }
    }

    /// Bytes of the body that waits for its place which have not been read ahead.
    pub(crate) fn held(&self) -> usize {
        let Phase::Held { length } = self.phase else { return 0 };
        (length as usize).saturating_sub(self.to - self.from)
    }

    /// Does a body wait for its place? Then the other side need not be heard of.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// Reads on, to the next thing worth telling.
    ///
    /// # Errors
    /// When the stream is broken, or what comes is none of ours.
    pub fn step(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, pool: &mut Pool) -> io::Result<Step> {
        loop {
            match &mut self.phase {
                Phase::Held { .. } => return Ok(Step::Held),
                Phase::Header => {
                    if let Some(bytes) = self.take() {
                        return self.on_header(&bytes);
                    }
                    match self.fill(read)? {
                        Fill::Some => {}
                        Fill::Blocked => return Ok(Step::Blocked),
                        Fill::Ended if self.from == self.to => return Ok(Step::Ended),
                        Fill::Ended => return Err(cut_short()),
                    }
                }
                Phase::Book { length, bytes } => {
                    let piece = (*length as usize - bytes.len()).min(self.to - self.from);
                    bytes.extend(&self.ahead[self.from..self.from + piece]);
                    self.from += piece;
                    if bytes.len() == *length as usize {
                        let book = control::parse_book(bytes).map_err(io::Error::other)?;
                        self.phase = Phase::Header;
                        return Ok(Step::Book(book));
                    }
                    match self.fill(read)? {
                        Fill::Some => {}
                        Fill::Blocked => return Ok(Step::Blocked),
                        Fill::Ended => return Err(cut_short()),
                    }
                }
                Phase::Body { op, length, done, .. } => {
                    let op = *op;
                    if done < length {
                        match self.body(read, pool)? {
                            Fill::Some => continue,
                            Fill::Blocked => return Ok(Step::Blocked),
                            Fill::Ended => return Err(cut_short()),
                        }
                    }
                    if self.checked && self.to - self.from < 4 {
                        match self.fill(read)? {
                            Fill::Some => continue,
                            Fill::Blocked => return Ok(Step::Blocked),
                            Fill::Ended => return Err(cut_short()),
                        }
                    }
                    let Phase::Body { checksum, .. } = std::mem::replace(&mut self.phase, Phase::Header) else {
                        unreachable!("a body is being read")
                    };
                    if self.checked {
                        let (expected, mut got) = (checksum.finalize(), [0; 4]);
                        got.copy_from_slice(&self.ahead[self.from..self.from + 4]);
                        self.from += 4;
                        let got = u32::from_le_bytes(got);
                        if expected != got {
                            let text = format!("body: expected checksum {expected:08x}, got {got:08x}");
                            // The operation is still open, and is aborted with the connection.
                            self.phase =
                                Phase::Body { op, into: None, length: 0, done: 0, checksum: crc32fast::Hasher::new() };
                            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                        }
                    }
                    return Ok(Step::Body(op));
                }
            }
        }
    }

    fn on_header(&mut self, bytes: &[u8; HEADER_LEN]) -> io::Result<Step> {
        if bytes.starts_with(&control::MAGIC) {
            let control = Control::parse(bytes).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
            if let Control::Book { length } = control {
                self.phase = Phase::Book { length, bytes: Vec::new() };
            }
            return Ok(Step::Control(control));
        }
        let header = Header::parse(bytes).map_err(malformed)?;
        if header.length() > 0 {
            self.phase = Phase::Held { length: header.length() };
        }
        Ok(Step::Header(header))
    }

    /// The next bytes of a header's length, if they are here.
    fn take(&mut self) -> Option<[u8; HEADER_LEN]> {
        let bytes = *self.ahead[self.from..self.to].first_chunk::<HEADER_LEN>()?;
        self.from += HEADER_LEN;
        Some(bytes)
    }

    fn fill(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Fill> {
        self.ahead.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        let (fill, n) = Fill::of(read(&mut self.ahead[self.to..]))?;
        self.to += n;
        self.total += n as u64;
        Ok(fill)
    }

    /// Some of the body: what was read ahead, else straight into its place.
    fn body(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, pool: &mut Pool) -> io::Result<Fill> {
        let Phase::Body { into, length, done, checksum, .. } = &mut self.phase else { return Ok(Fill::Ended) };
        let mut sink = [0; SINK];
        let rest = (*length - *done) as usize;
        let place = match into {
            Some(into) => {
                let len = rest.min(PIECE) as u32;
                pool.bytes_mut(Segment { start: into.start + u64::from(*done), len, ..*into })
            }
            None => &mut sink[..rest.min(SINK)],
        };
        let here = (self.to - self.from).min(place.len());
        let n = if here > 0 {
            place[..here].copy_from_slice(&self.ahead[self.from..self.from + here]);
            self.from += here;
            here
        } else {
            let (fill, n) = Fill::of(read(place))?;
            if n == 0 {
                return Ok(fill);
            }
            self.total += n as u64;
            n
        };
        if self.checked {
            checksum.update(&place[..n]);
        }
        *done += n as u32;
        Ok(Fill::Some)
    }
}

enum Fill {
    Some,
    Blocked,
    Ended,
}

impl Fill {
    fn of(result: io::Result<usize>) -> io::Result<(Self, usize)> {
        match result {
            Ok(0) => Ok((Self::Ended, 0)),
            Ok(n) => Ok((Self::Some, n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Self::Blocked, 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((Self::Some, 0)),
            Err(error) => Err(error),
        }
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended in the middle of a frame")
}
