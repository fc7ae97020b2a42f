//! The outgoing side of a connection: frames in a queue, written several at a time.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{Lent, OpId};

use crate::control::Control;

/// At most so much is written at once, so that checksums are taken while bodies are in the cache.
const PIECE: usize = 256 * 1024;
/// The checksum of a body up to this length is known at once, and goes with it.
const SMALL: usize = 64 * 1024;
/// Frames in one write.
const FRAMES: usize = 16;

#[derive(Debug)]
pub(crate) struct Writer {
    queue: VecDeque<Frame>,
    /// What of the first frame has been written.
    done: usize,
    checked: bool,
}

#[derive(Debug)]
struct Frame {
    head: [u8; HEADER_LEN],
    body: Body,
    trailer: Trailer,
    op: Option<OpId>,
}

#[derive(Debug)]
enum Trailer {
    None,
    /// Of the body's bytes that have been written.
    Growing(crc32fast::Hasher),
    Known([u8; 4]),
}

impl Trailer {
    fn bytes(&self) -> &[u8] {
        if let Self::Known(bytes) = self { bytes } else { &[] }
    }
}

#[derive(Debug)]
enum Body {
    None,
    Lent(Lent),
    Own(Vec<u8>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::None => &[],
            Self::Lent(lent) => lent.bytes(),
            Self::Own(bytes) => bytes,
        }
    }
}

impl Writer {
    pub(crate) fn new(checked: bool) -> Self {
        Self { queue: VecDeque::new(), done: 0, checked }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn message(&mut self, op: OpId, header: &Header, body: Option<Lent>) {
        let body = body.map_or(Body::None, Body::Lent);
        self.push(header.emit(), body, Some(op), self.checked);
    }

    pub(crate) fn control(&mut self, control: Control) {
        self.push(control.emit(), Body::None, None, false);
    }

    pub(crate) fn book(&mut self, bytes: Vec<u8>) {
        self.push(Control::Book { length: bytes.len() as u32 }.emit(), Body::Own(bytes), None, false);
    }

    fn push(&mut self, head: [u8; HEADER_LEN], body: Body, op: Option<OpId>, checked: bool) {
        let trailer = match body.bytes() {
            [] => Trailer::None,
            _ if !checked => Trailer::None,
            bytes if bytes.len() <= SMALL => Trailer::Known(crc32fast::hash(bytes).to_le_bytes()),
            _ => Trailer::Growing(crc32fast::Hasher::new()),
        };
        self.queue.push_back(Frame { head, body, trailer, op });
    }

    /// Operations that will not be carried out any more.
    pub(crate) fn abort(&mut self) -> impl Iterator<Item = OpId> + '_ {
        self.done = 0;
        self.queue.drain(..).filter_map(|frame| frame.op)
    }

    /// Writes what there is room for; `ended` gets the operations that are complete.
    pub(crate) fn write(
        &mut self,
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
        ended: &mut VecDeque<OpId>,
    ) -> io::Result<bool> {
        while !self.queue.is_empty() {
            match self.write_once(write) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n, ended),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn write_once(&self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 3 * FRAMES];
        let (mut count, mut bytes, mut skip) = (0, 0, self.done);
        'frames: for frame in self.queue.iter().take(FRAMES) {
            for part in [&frame.head[..], frame.body.bytes(), frame.trailer.bytes()] {
                let start = skip.min(part.len());
                skip -= start;
                let part = &part[start..];
                let part = &part[..part.len().min(PIECE - bytes)];
                if !part.is_empty() {
                    slices[count] = IoSlice::new(part);
                    (count, bytes) = (count + 1, bytes + part.len());
                }
                if bytes == PIECE {
                    break 'frames;
                }
            }
            // What comes after is written when it is known.
            if matches!(frame.trailer, Trailer::Growing(_)) {
                break;
            }
        }
        write(&slices[..count])
    }

    fn advance(&mut self, mut n: usize, ended: &mut VecDeque<OpId>) {
        while let Some(frame) = self.queue.front_mut() {
            let body = frame.body.bytes().len();
            let whole = HEADER_LEN + body + if let Trailer::None = frame.trailer { 0 } else { 4 };
            let step = n.min(whole - self.done);
            if let Trailer::Growing(checksum) = &mut frame.trailer {
                let from = self.done.clamp(HEADER_LEN, HEADER_LEN + body) - HEADER_LEN;
                let to = (self.done + step).clamp(HEADER_LEN, HEADER_LEN + body) - HEADER_LEN;
                checksum.update(&frame.body.bytes()[from..to]);
                if to == body {
                    frame.trailer = Trailer::Known(checksum.clone().finalize().to_le_bytes());
                }
            }
            (self.done, n) = (self.done + step, n - step);
            if self.done < whole {
                return;
            }
            ended.extend(frame.op);
            self.queue.pop_front();
            self.done = 0;
        }
    }
}
