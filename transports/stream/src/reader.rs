//! The incoming side of a connection: takes frames out of a stream of bytes. It does no IO itself; the caller passes a
//! function that reads, so the same code serves every carrier and the fuzzer.
//!
//! ```text
//!              message with a body           receive()                 all bytes read, checksum matches
//!  Header ───────────────────────────> Held ───────────> Body ───────────────────────────────────────────> Header
//!     └── address book ──> Book ──> Header
//! ```
//!
//! Nothing is read past the header of a message until [`Reader::receive`] names the destination of its body, except for
//! up to [`READ_AHEAD`] bytes that come with the header. This is the flow control between nodes: a body that has no
//! destination yet fills the buffers of the connection, and then the sender has to wait.

use std::io;

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{OpId, Pool, Segment};

use crate::control::{self, Control};
use crate::notice::malformed;

/// Bytes that are read together with a header: enough for many headers, and for small bodies, per system call. More
/// would mean more bytes copied at the beginning of large bodies.
const READ_AHEAD: usize = 4096;
/// Bytes of a body that are read at once, so that the checksum is computed while they are in the cache.
const READ_MAX: usize = 256 * 1024;
/// Bytes read at once of a body without a destination. They are dropped.
const DISCARD_LEN: usize = 16 * 1024;
/// Length of the CRC-32 after a body.
const CHECKSUM_LEN: usize = 4;

/// The outcome of [`Reader::step`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The header of a message. If it has a body, the reader is now [`Held`](Self::Held).
    Header(Header),
    /// The body for this operation has been read completely, and its checksum matches.
    Body(OpId),
    /// A control frame. If it is [`Control::Book`], the address book follows.
    Control(Control),
    /// An address book: ranks and addresses.
    Book(Vec<(u32, String)>),
    /// No more bytes are available now.
    Blocked,
    /// A body waits for [`Reader::receive`]. Nothing is read until then.
    Held,
    /// The peer has closed the connection, and no frame is incomplete.
    Ended,
}

/// The incoming side of a connection: takes frames out of a stream of bytes.
#[derive(Debug)]
pub struct Reader {
    /// Bytes `start..end` have been read and not been consumed. Allocated when the first bytes are read: a connection
    /// that has not completed its greeting costs no buffer.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    phase: Phase,
    /// Each body is followed by its checksum.
    checked: bool,
    /// Bytes read since the connection was opened. The connection is alive while this grows.
    pub(crate) total: u64,
}

#[derive(Debug)]
enum Phase {
    /// The next bytes are a header or a control frame.
    Header,
    /// A body of `length` bytes waits for its destination.
    Held { length: u32 },
    /// A body is being read, `done` of `length` bytes so far. With `into: None` its bytes are dropped.
    Body { op: OpId, into: Option<Segment>, length: u32, done: u32, checksum: crc32fast::Hasher },
    /// An address book of `length` bytes is being read.
    Book { length: u32, bytes: Vec<u8> },
}

impl Reader {
    /// A reader for a new connection. `checked`: each body is followed by its checksum.
    pub fn new(checked: bool) -> Self {
        Self { ahead: Vec::new(), start: 0, end: 0, phase: Phase::Header, checked, total: 0 }
    }

    /// Names the destination of the body that is held. `None`: the body is read and dropped. Returns false, and changes
    /// nothing, if no body is held or `into` has another length.
    pub fn receive(&mut self, op: OpId, into: Option<Segment>) -> bool {
        let Phase::Held { length } = self.phase else { return false };
        if into.is_some_and(|into| into.len != length) {
            return false;
        }
        self.phase = Phase::Body { op, into, length, done: 0, checksum: crc32fast::Hasher::new() };
        true
    }

    /// The operation that is reading its body. It must be aborted if the connection breaks.
    pub(crate) fn open(&self) -> Option<OpId> {
        if let Phase::Body { op, .. } = self.phase { Some(op) } else { None }
    }

    /// How many bytes of the held body are still in the carrier. 0 if no body is held.
    pub(crate) fn held(&self) -> usize {
        let Phase::Held { length } = self.phase else { return 0 };
        (length as usize).saturating_sub(self.end - self.start)
    }

    /// Whether a body is held. Silence of the peer means nothing then, because this node does not read.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// Reads until something is complete, or no bytes are available. Bodies go directly into `pool`.
    ///
    /// # Errors
    /// When `read` fails, the peer closes the connection inside a frame, or a frame is invalid. The connection must be
    /// closed, and the operation of the body that was being read aborted.
    pub fn step(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>, pool: &mut Pool) -> io::Result<Step> {
        loop {
            match &mut self.phase {
                Phase::Held { .. } => return Ok(Step::Held),
                Phase::Header => {
                    if let Some(bytes) = self.take_header() {
                        return self.on_header(&bytes);
                    }
                    match self.fill(read)? {
                        Fill::Progress => {}
                        Fill::Blocked => return Ok(Step::Blocked),
                        Fill::Ended if self.start == self.end => return Ok(Step::Ended),
                        Fill::Ended => return Err(truncated()),
                    }
                }
                Phase::Book { length, bytes } => {
                    // Grows with the bytes that come: the announced length alone must not make this node allocate.
                    let piece = (*length as usize - bytes.len()).min(self.end - self.start);
                    bytes.extend(&self.ahead[self.start..self.start + piece]);
                    self.start += piece;
                    if bytes.len() == *length as usize {
                        let book = control::parse_book(bytes).map_err(io::Error::other)?;
                        self.phase = Phase::Header;
                        return Ok(Step::Book(book));
                    }
                    match self.fill(read)? {
                        Fill::Progress => {}
                        Fill::Blocked => return Ok(Step::Blocked),
                        Fill::Ended => return Err(truncated()),
                    }
                }
                Phase::Body { op, length, done, .. } => {
                    let op = *op;
                    if done < length {
                        match self.read_body(read, pool)? {
                            Fill::Progress => continue,
                            Fill::Blocked => return Ok(Step::Blocked),
                            Fill::Ended => return Err(truncated()),
                        }
                    }
                    if self.checked && self.end - self.start < CHECKSUM_LEN {
                        match self.fill(read)? {
                            Fill::Progress => continue,
                            Fill::Blocked => return Ok(Step::Blocked),
                            Fill::Ended => return Err(truncated()),
                        }
                    }
                    let Phase::Body { checksum, .. } = std::mem::replace(&mut self.phase, Phase::Header) else {
                        unreachable!("a body is being read")
                    };
                    if self.checked {
                        let (expected, mut got) = (checksum.finalize(), [0; CHECKSUM_LEN]);
                        got.copy_from_slice(&self.ahead[self.start..self.start + CHECKSUM_LEN]);
                        self.start += CHECKSUM_LEN;
                        let got = u32::from_le_bytes(got);
                        if expected != got {
                            let text = format!("body: expected checksum {expected:08x}, got {got:08x}");
                            // Back to `Body`, so that `open` names the operation when the connection is closed. Each
                            // operation must end exactly once, and this one has not been completed.
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

    /// Consumes the next header from the bytes read ahead. `None` if it is not complete.
    fn take_header(&mut self) -> Option<[u8; HEADER_LEN]> {
        let bytes = *self.ahead[self.start..self.end].first_chunk::<HEADER_LEN>()?;
        self.start += HEADER_LEN;
        Some(bytes)
    }

    /// Reads once into `ahead`.
    fn fill(&mut self, read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Fill> {
        self.ahead.resize(READ_AHEAD, 0);
        // Callers leave less than a header here. So moving it is cheap, and there is always room to read into: an empty
        // buffer would make `read` return 0, which means the end of the connection.
        self.ahead.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let (fill, n) = Fill::from_read(read(&mut self.ahead[self.end..]))?;
        self.end += n;
        self.total += n as u64;
        Ok(fill)
    }

    /// Continues a body: first with the bytes read ahead, then reading directly into the destination.
    fn read_body(
        &mut self,
        read: &mut impl FnMut(&mut [u8]) -> io::Result<usize>,
        pool: &mut Pool,
    ) -> io::Result<Fill> {
        let Phase::Body { into, length, done, checksum, .. } = &mut self.phase else { return Ok(Fill::Ended) };
        let mut discarded = [0; DISCARD_LEN];
        let rest = (*length - *done) as usize;
        let destination = match into {
            Some(into) => {
                let len = rest.min(READ_MAX) as u32;
                pool.bytes_mut(Segment { start: into.start + u64::from(*done), len, ..*into })
            }
            None => &mut discarded[..rest.min(DISCARD_LEN)],
        };
        let available = (self.end - self.start).min(destination.len());
        let n = if available > 0 {
            destination[..available].copy_from_slice(&self.ahead[self.start..self.start + available]);
            self.start += available;
            available
        } else {
            // Never reads beyond the body: the bytes behind it belong into `ahead`.
            let (fill, n) = Fill::from_read(read(destination))?;
            if n == 0 {
                return Ok(fill);
            }
            self.total += n as u64;
            n
        };
        if self.checked {
            checksum.update(&destination[..n]);
        }
        *done += n as u32;
        Ok(Fill::Progress)
    }
}

/// The outcome of one read call.
enum Fill {
    /// Bytes were read, or the call was interrupted: try again.
    Progress,
    Blocked,
    Ended,
}

impl Fill {
    /// Classifies the result of a read into a buffer that is not empty, with the number of bytes read.
    fn from_read(result: io::Result<usize>) -> io::Result<(Self, usize)> {
        match result {
            Ok(0) => Ok((Self::Ended, 0)),
            Ok(n) => Ok((Self::Progress, n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((Self::Blocked, 0)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok((Self::Progress, 0)),
            Err(error) => Err(error),
        }
    }
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended inside a frame")
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use gradwire_core::wire::{Message, Push};
    use gradwire_core::{BufferId, Clock, Incarnation, PeerId, Sequence, ShardId};

    use super::*;
    use crate::writer::Writer;

    /// A body of several pieces, and one more word.
    const LEN: usize = 6 * READ_MAX + 4;
    const OP: OpId = OpId(7);

    fn segment(buffer: u32) -> Segment {
        Segment { buffer: BufferId(buffer), start: 0, len: LEN as u32 }
    }

    /// Reads a message, of which at most `at_once` bytes come with each read, into buffer 1, or drops its body.
    fn read(bytes: &[u8], at_once: usize, pool: &mut Pool, keeps: bool) -> io::Result<Step> {
        let (mut reader, mut rest) = (Reader::new(true), bytes);
        let mut more = |into: &mut [u8]| {
            let n = into.len().min(rest.len()).min(at_once);
            into[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            Ok(n)
        };
        let step = reader.step(&mut more, pool)?;
        assert!(matches!(step, Step::Header(_)) && reader.receive(OP, keeps.then(|| segment(1))), "{step:?}");
        let step = reader.step(&mut more, pool);
        // An operation with a damaged body has yet to be aborted.
        assert_eq!(reader.open().is_some(), step.is_err());
        step
    }

    /// Wherever a large body is damaged, it is not taken for whole, not even if the machine drops it.
    #[test]
    fn a_large_body_that_is_damaged_anywhere_is_refused() {
        let mut pool = Pool::new([LEN, LEN]);
        let bytes: Vec<u8> = (0..LEN).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect();
        pool.bytes_mut(segment(0)).copy_from_slice(&bytes);
        let (worker, incarnation, sequence) = (PeerId(1), Incarnation(1), Sequence(1));
        let (shard, base) = (ShardId(0), Clock(0));
        let message = Message::Push(Push {
            shard,
            worker,
            incarnation,
            sequence,
            base,
            weight: 1,
            repeats: false,
            fetches: true,
            step_time: None,
            rider: None,
        });
        let header = Header::new(0, worker, incarnation, LEN as u32, message);
        let (mut writer, mut sent) = (Writer::new(true), Vec::new());
        writer.message(OP, &header, Some(pool.lend(segment(0))));
        let mut take = |slices: &[IoSlice<'_>]| {
            // Writes end anywhere, also inside a piece.
            let n = slices[0].len().min(100_001);
            sent.extend_from_slice(&slices[0][..n]);
            Ok(n)
        };
        assert!(writer.write(&mut take).unwrap());
        assert_eq!(sent.len(), HEADER_LEN + LEN + CHECKSUM_LEN);
        for at_once in [usize::MAX, 70_001] {
            assert_eq!(read(&sent, at_once, &mut pool, true).unwrap(), Step::Body(OP));
            assert!(pool.bytes(segment(1)) == bytes);
            let pieces = (0..LEN).step_by(READ_MAX);
            let places = pieces.flat_map(|start| [start, start + READ_MAX / 3]).filter(|at| *at < LEN);
            for at in places.chain(LEN - 1..LEN + CHECKSUM_LEN) {
                let mut bad = sent.clone();
                bad[HEADER_LEN + at] ^= 0x10;
                for keeps in [true, false] {
                    let kind = read(&bad, at_once, &mut pool, keeps).map_err(|error| error.kind());
                    assert_eq!(kind, Err(io::ErrorKind::InvalidData), "byte {at}");
                }
            }
        }
    }
}
