//! A [`Link`] is one connection, from dialling or accepting to its end: the carrier's stream, the reader and the writer
//! on it, and the times that keep-alive needs.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use gradwire_core::{OpId, Pool, Segment};

use crate::carrier::Stream;
use crate::preamble::{PREAMBLE_LEN, Preamble};
use crate::reader::{Reader, Step};
use crate::streams::GREETING_MAX;
use crate::writer::Writer;

#[derive(Debug)]
pub(crate) struct Link<S> {
    pub(crate) stream: S,
    pub(crate) state: State,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    /// The rank that this node dialled. `None` for an accepted connection.
    pub(crate) dialled: Option<u32>,
    /// When the connection was dialled or accepted: the greeting must be complete `GREETING_MAX` later. For an open
    /// connection: when it was opened.
    pub(crate) started_at: Instant,
    /// A message has come, so that the peer's machine takes part, and not only its transport.
    pub(crate) spoke: bool,
    /// When bytes were last read, or reading was resumed after a pause of this node.
    pub(crate) heard_at: Instant,
    /// When a frame was last queued.
    pub(crate) queued_at: Instant,
    /// The link is in the list of links that may have work.
    pub(crate) runnable: bool,
}

#[derive(Debug)]
pub(crate) enum State {
    /// The carrier's handshake is under way.
    Establishing,
    /// The peer's preamble is being read. `received` holds the bytes so far.
    Greeting { received: Vec<u8> },
    /// Both preambles match. `peer` is the rank of the other node, as an index.
    Open { peer: usize },
}

impl<S: Stream> Link<S> {
    pub(crate) fn new(stream: S, dialled: Option<u32>, now: Instant) -> Self {
        let checked = !stream.protects();
        Self {
            stream,
            state: State::Establishing,
            reader: Reader::new(checked),
            writer: Writer::new(checked),
            dialled,
            started_at: now,
            spoke: false,
            heard_at: now,
            queued_at: now,
            runnable: true,
        }
    }

    /// Continues the carrier's handshake. Returns true when it is done and preambles can be exchanged.
    pub(crate) fn establish(&mut self) -> io::Result<bool> {
        let done = self.stream.establish()?;
        if done {
            self.state = State::Greeting { received: Vec::new() };
        }
        Ok(done)
    }

    /// How long carrier handshake and greeting may take together.
    pub(crate) fn patience(&self) -> Duration {
        self.stream.patience().map_or(GREETING_MAX, |patience| patience.min(GREETING_MAX))
    }

    /// Sends this node's preamble. It is the first thing sent, so a connection without room for it is broken.
    pub(crate) fn greet(&mut self, preamble: &Preamble) -> io::Result<()> {
        let bytes = preamble.emit();
        if self.stream.write(&[IoSlice::new(&bytes)])? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.stream.flush()?;
        Ok(())
    }

    /// Reads the peer's preamble. Returns `None` until it is complete.
    pub(crate) fn read_preamble(&mut self) -> io::Result<Option<Preamble>> {
        let State::Greeting { received } = &mut self.state else { return Ok(None) };
        let mut bytes = [0; PREAMBLE_LEN];
        while received.len() < PREAMBLE_LEN {
            // Never more than the preamble: the frames behind it belong to the reader.
            match self.stream.read(&mut bytes[..PREAMBLE_LEN - received.len()]) {
                Ok(0) => {
                    let text = "the connection ended before the greeting was complete";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(n) => {
                    received.extend(&bytes[..n]);
                    if S::is_keyed(received) {
                        let text = "the peer has a key, and this node has none";
                        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
                    }
                    // At once: another protocol may wait for an answer before it sends as many bytes as a preamble has.
                    Preamble::check_magic(received).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
                    Preamble::check_version(received)
                        .map_err(|text| io::Error::new(io::ErrorKind::Unsupported, text))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        bytes.copy_from_slice(received);
        let preamble = Preamble::parse(&bytes).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
        Ok(Some(preamble))
    }

    /// Names the destination of the held body, see [`Reader::receive`].
    pub(crate) fn receive(&mut self, op: OpId, into: Option<Segment>) -> bool {
        self.reader.receive(op, into)
    }

    /// Whether this link can use bytes to read, and room to write.
    pub(crate) fn wants(&self) -> (bool, bool) {
        (!self.reader.is_held(), !self.writer.is_empty())
    }

    /// Writes queued frames. Returns true when the queue is empty, the carrier has sent all bytes, and the peer has read
    /// those that it reads from memory.
    pub(crate) fn write(&mut self, completed: &mut VecDeque<OpId>) -> io::Result<bool> {
        let stream = &mut self.stream;
        let result = self.writer.write(&mut |slices| stream.write(slices));
        // Also on an error: these frames were written before it.
        let unread = stream.unread()?;
        let all = self.writer.release(unread, completed);
        let all = result? && all;
        // Bytes buffered by the carrier must go out even if the queue has been empty for long.
        Ok(self.stream.flush()? && all)
    }

    /// Reads up to the next complete frame, see [`Reader::step`].
    pub(crate) fn step(&mut self, pool: &mut Pool, now: Instant) -> io::Result<Step> {
        let before = self.reader.total;
        let stream = &mut self.stream;
        let step = self.reader.step(&mut |into| stream.read(into), pool);
        if self.reader.total != before {
            self.heard_at = now;
        }
        step
    }
}
