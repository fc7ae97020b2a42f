//! The outgoing side of a connection: a queue of frames, several of which go out in one write call. It does no IO
//! itself; the caller passes a function that writes.
//!
//! A frame is a header (of a message, or a control frame), an optional body, and, on carriers that do not protect their
//! bytes, the CRC-32 of the body. Bodies of messages are lent by the pool until they have been written: they are not
//! copied here.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{Lent, OpId};

use crate::control::Control;

/// Bytes passed to one write call. Large bodies go out in pieces of this size, so that their checksum is computed while
/// the bytes are in the cache.
const WRITE_MAX: usize = 256 * 1024;
/// Longest body that gets its checksum when it is queued. Its frame can then share a write call with later frames.
const CHECKSUM_AT_ONCE_MAX: usize = 64 * 1024;
/// Frames passed to one write call.
const FRAMES_MAX: usize = 16;
/// Length of the CRC-32 after a body.
const CHECKSUM_LEN: usize = 4;

#[derive(Debug)]
pub(crate) struct Writer {
    queue: VecDeque<Frame>,
    /// Bytes of the first frame that have been written: header, body and checksum together.
    done: usize,
    /// Each body is followed by its checksum.
    checked: bool,
}

#[derive(Debug)]
struct Frame {
    header: [u8; HEADER_LEN],
    body: Body,
    checksum: Checksum,
    /// The operation that ends when the frame has been written. Control frames have no operation.
    op: Option<OpId>,
}

#[derive(Debug)]
enum Checksum {
    None,
    /// Covers the bytes of the body that have been written so far.
    Partial(crc32fast::Hasher),
    Complete([u8; CHECKSUM_LEN]),
}

impl Checksum {
    fn bytes(&self) -> &[u8] {
        if let Self::Complete(bytes) = self { bytes } else { &[] }
    }
}

#[derive(Debug)]
enum Body {
    None,
    Lent(Lent),
    Owned(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Lent(lent) => lent.bytes(),
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Writer {
    /// An empty queue. `checked`: each body is followed by its checksum.
    pub(crate) fn new(checked: bool) -> Self {
        Self { queue: VecDeque::new(), done: 0, checked }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of frames in the queue.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that have not been written: headers and bodies of the queue.
    pub(crate) fn unsent(&self) -> u64 {
        let all: usize = self.queue.iter().map(|frame| HEADER_LEN + frame.body.bytes().len()).sum();
        all.saturating_sub(self.done) as u64
    }

    /// Queues a message. `op` completes when all of it has been written.
    pub(crate) fn message(&mut self, op: OpId, header: &Header, body: Option<Lent>) {
        let body = body.map_or(Body::None, Body::Lent);
        self.push(header.emit(), body, Some(op), self.checked);
    }

    /// Queues a control frame.
    pub(crate) fn control(&mut self, control: Control) {
        self.push(control.emit(), Body::None, None, false);
    }

    /// Queues an encoded address book. It brings its own checksum.
    pub(crate) fn book(&mut self, bytes: Vec<u8>) {
        self.push(Control::Book { length: bytes.len() as u32 }.emit(), Body::Owned(bytes), None, false);
    }

    fn push(&mut self, header: [u8; HEADER_LEN], body: Body, op: Option<OpId>, checked: bool) {
        let checksum = match body.bytes() {
            [] => Checksum::None,
            _ if !checked => Checksum::None,
            bytes if bytes.len() <= CHECKSUM_AT_ONCE_MAX => Checksum::Complete(crc32fast::hash(bytes).to_le_bytes()),
            _ => Checksum::Partial(crc32fast::Hasher::new()),
        };
        self.queue.push_back(Frame { header, body, checksum, op });
    }

    /// The operations that must be aborted, because the connection is broken.
    pub(crate) fn abort(self) -> impl Iterator<Item = OpId> {
        self.queue.into_iter().filter_map(|frame| frame.op)
    }

    /// Writes until the queue is empty (returns true) or the connection takes no more bytes (false). Appends to
    /// `completed` the operations with frames that have been written.
    pub(crate) fn write(
        &mut self,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
        completed: &mut VecDeque<OpId>,
    ) -> io::Result<bool> {
        while !self.queue.is_empty() {
            match self.write_once(write) {
                // The slices are not empty, so a connection that takes 0 bytes would be asked for ever.
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n, completed),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Passes the next bytes of the queue to `write`, without consuming them.
    fn write_once(&self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 3 * FRAMES_MAX];
        let (mut count, mut bytes, mut skip) = (0, 0, self.done);
        'frames: for frame in self.queue.iter().take(FRAMES_MAX) {
            for part in [&frame.header[..], frame.body.bytes(), frame.checksum.bytes()] {
                let start = skip.min(part.len());
                skip -= start;
                let part = &part[start..];
                let part = &part[..part.len().min(WRITE_MAX - bytes)];
                if !part.is_empty() {
                    slices[count] = IoSlice::new(part);
                    (count, bytes) = (count + 1, bytes + part.len());
                }
                if bytes == WRITE_MAX {
                    break 'frames;
                }
            }
            // The checksum comes next in the stream and is not known before the body has been written: later frames
            // must wait for it.
            if matches!(frame.checksum, Checksum::Partial(_)) {
                break;
            }
        }
        write(&slices[..count])
    }

    /// Consumes `n` bytes that have been written.
    fn advance(&mut self, mut n: usize, completed: &mut VecDeque<OpId>) {
        while let Some(frame) = self.queue.front_mut() {
            let body = frame.body.bytes().len();
            let whole = HEADER_LEN + body + if let Checksum::None = frame.checksum { 0 } else { CHECKSUM_LEN };
            let step = n.min(whole - self.done);
            if let Checksum::Partial(checksum) = &mut frame.checksum {
                // Exactly the bytes of the body that this write has sent: a partial write must not count bytes twice.
                let from = self.done.clamp(HEADER_LEN, HEADER_LEN + body) - HEADER_LEN;
                let to = (self.done + step).clamp(HEADER_LEN, HEADER_LEN + body) - HEADER_LEN;
                checksum.update(&frame.body.bytes()[from..to]);
                if to == body {
                    frame.checksum = Checksum::Complete(checksum.clone().finalize().to_le_bytes());
                }
            }
            (self.done, n) = (self.done + step, n - step);
            if self.done < whole {
                return;
            }
            completed.extend(frame.op);
            self.queue.pop_front();
            self.done = 0;
        }
    }
}
