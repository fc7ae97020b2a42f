//! The outgoing side of a connection: a queue of frames, several of which go out in one write call. It does no IO
//! itself; the caller passes a function that writes.
//!
//! A frame is a header (of a message, or a control frame), an optional body, and, on carriers that do not protect their
//! bytes, the CRC-32 of the body. Bodies of messages are lent by the pool until they have been written: they are not
//! copied here.
//!
//! A carrier may let the peer read long bodies from memory. Their loans, and those of the frames behind them, last until
//! the peer has done so ([`Writer::release`]).
//!
//! A piece of a body is hashed just before it is written. So the checksum is known by the time of the last piece, goes
//! out in the same write call, and later frames follow in that call too.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use gradwire_core::wire::{HEADER_LEN, Header};
use gradwire_core::{Lent, OpId};

use crate::control::Control;

/// Bytes of bodies that are hashed for one write call. Large bodies go out in pieces of this size, so that the bytes are
/// in the cache when they are written, shortly after they have been hashed. Headers and checksums do not count: a body of
/// this length goes out in one call. Bodies without a checksum go out whole.
const PIECE_MAX: usize = 256 * 1024;
/// Frames passed to one write call.
const FRAMES_MAX: usize = 16;
/// Length of the CRC-32 after a body.
const CHECKSUM_LEN: usize = 4;

#[derive(Debug)]
pub(crate) struct Writer {
    queue: VecDeque<Frame>,
    /// Bytes of the first frame that have been written: header, body and checksum together.
    done: usize,
    /// Bytes written since the connection was opened.
    total: u64,
    /// Frames that have been written, with the value of `total` at their end, until they are released.
    written: VecDeque<(u64, Body, Option<OpId>)>,
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
    /// Covers the first `covered` bytes of the body: those that have been passed to a write call so far.
    Partial {
        hasher: crc32fast::Hasher,
        covered: usize,
    },
    Complete([u8; CHECKSUM_LEN]),
}

impl Checksum {
    /// Covers `body` up to byte `end`.
    fn extend(&mut self, body: &[u8], end: usize) {
        let Self::Partial { hasher, covered } = self else { return };
        // After a partial write, bytes are passed to a write call again. They must not count twice.
        if end > *covered {
            hasher.update(&body[*covered..end]);
            *covered = end;
        }
        if *covered == body.len() {
            *self = Self::Complete(hasher.clone().finalize().to_le_bytes());
        }
    }

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
        Self { queue: VecDeque::new(), done: 0, total: 0, written: VecDeque::new(), checked }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of frames in the queue.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Bytes that the carrier or the peer has yet to take: headers and bodies of the queue, and bodies that have not been
    /// released.
    pub(crate) fn unsent(&self) -> u64 {
        let all: usize = self.queue.iter().map(|frame| HEADER_LEN + frame.body.bytes().len()).sum();
        let written: usize = self.written.iter().map(|(_, body, _)| body.bytes().len()).sum();
        (all.saturating_sub(self.done) + written) as u64
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
        let checksum = if checked && !body.bytes().is_empty() {
            Checksum::Partial { hasher: crc32fast::Hasher::new(), covered: 0 }
        } else {
            Checksum::None
        };
        self.queue.push_back(Frame { header, body, checksum, op });
    }

    /// The operations that must be aborted, because the connection is broken.
    pub(crate) fn abort(self) -> impl Iterator<Item = OpId> {
        let written = self.written.into_iter().filter_map(|(_, _, op)| op);
        written.chain(self.queue.into_iter().filter_map(|frame| frame.op))
    }

    /// Writes until the queue is empty (returns true) or the connection takes no more bytes (false).
    pub(crate) fn write(&mut self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<bool> {
        while !self.queue.is_empty() {
            match self.write_once(write) {
                // The slices are not empty, so a connection that takes 0 bytes would be asked for ever.
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Ends the loans of the frames that have been written, except for those that reach into the last `unread` bytes, and
    /// appends their operations to `completed`. Returns true if all have ended.
    pub(crate) fn release(&mut self, unread: u64, completed: &mut VecDeque<OpId>) -> bool {
        while let Some((end, ..)) = self.written.front() {
            if *end > self.total.saturating_sub(unread) {
                return false;
            }
            completed.extend(self.written.pop_front().and_then(|(_, _, op)| op));
        }
        true
    }

    /// Passes the next bytes of the queue to `write`, without consuming them.
    fn write_once(&mut self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 3 * FRAMES_MAX];
        let most = if self.checked { PIECE_MAX } else { usize::MAX };
        let (mut count, mut room, mut skip) = (0, most, self.done);
        for frame in self.queue.iter_mut().take(FRAMES_MAX) {
            let body = frame.body.bytes();
            let from = skip.saturating_sub(HEADER_LEN).min(body.len());
            let to = body.len().min(from.saturating_add(room));
            frame.checksum.extend(body, to);
            room -= to - from;
            for part in [&frame.header[..], &body[..to], frame.checksum.bytes()] {
                let start = skip.min(part.len());
                skip -= start;
                if start < part.len() {
                    slices[count] = IoSlice::new(&part[start..]);
                    count += 1;
                }
            }
            if to < body.len() {
                break;
            }
        }
        write(&slices[..count])
    }

    /// Consumes `n` bytes that have been written.
    fn advance(&mut self, mut n: usize) {
        while let Some(frame) = self.queue.front_mut() {
            let body = frame.body.bytes().len();
            let whole = HEADER_LEN + body + if let Checksum::None = frame.checksum { 0 } else { CHECKSUM_LEN };
            let step = n.min(whole - self.done);
            (self.done, n, self.total) = (self.done + step, n - step, self.total + step as u64);
            if self.done < whole {
                return;
            }
            self.done = 0;
            if let Some(frame) = self.queue.pop_front() {
                self.written.push_back((self.total, frame.body, frame.op));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gradwire_core::wire::{Message, Push};
    use gradwire_core::{BufferId, Clock, Incarnation, PeerId, Pool, Segment, Sequence, ShardId};

    use super::*;

    /// A writer with one message per body length, and the bytes that it must write.
    fn queue(lengths: &[usize]) -> (Writer, Vec<u8>) {
        let (mut writer, mut expected) = (Writer::new(true), Vec::new());
        for (i, length) in lengths.iter().enumerate() {
            let (worker, incarnation, sequence) = (PeerId(1), Incarnation(1), Sequence(i as u64 + 1));
            let (shard, base) = (ShardId(0), Clock(0));
            let push = Push {
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
            };
            let header = Header::new(0, worker, incarnation, *length as u32, Message::Push(push));
            let mut pool = Pool::new([*length]);
            let all = Segment { buffer: BufferId(0), start: 0, len: *length as u32 };
            let bytes = (0..*length).map(|byte| (byte.wrapping_mul(0x9e37_79b9) >> 11) as u8 ^ i as u8);
            pool.bytes_mut(all).iter_mut().zip(bytes).for_each(|(into, byte)| *into = byte);
            writer.message(OpId(i as u64), &header, Some(pool.lend(all)));
            expected.extend(header.emit());
            expected.extend(pool.bytes(all));
            expected.extend(crc32fast::hash(pool.bytes(all)).to_le_bytes());
        }
        (writer, expected)
    }

    #[test]
    fn a_body_of_one_piece_goes_out_with_its_checksum_and_the_next_header_in_one_call() {
        let (mut writer, expected) = queue(&[PIECE_MAX, 400]);
        let (mut sent, mut calls, mut completed) = (Vec::new(), Vec::new(), VecDeque::new());
        let mut take = |slices: &[IoSlice<'_>]| {
            slices.iter().for_each(|slice| sent.extend_from_slice(slice));
            calls.push(slices.iter().map(|slice| slice.len()).sum());
            Ok(calls[calls.len() - 1])
        };
        assert!(writer.write(&mut take).unwrap() && writer.release(0, &mut completed));
        assert_eq!(calls, [HEADER_LEN + PIECE_MAX + CHECKSUM_LEN + HEADER_LEN, 400 + CHECKSUM_LEN]);
        assert!(sent == expected);
        assert_eq!(completed, [OpId(0), OpId(1)]);
    }

    /// The peer reads the second body from memory, so its loan and those behind it last.
    #[test]
    fn frames_are_released_in_order_once_the_peer_has_read_them() {
        let (mut writer, expected) = queue(&[100, 5_000, 200]);
        let mut completed = VecDeque::new();
        assert!(writer.write(&mut |slices| Ok(slices.iter().map(|slice| slice.len()).sum())).unwrap());
        assert!(writer.is_empty());
        let (third, second) = (HEADER_LEN + 200 + CHECKSUM_LEN, HEADER_LEN + 5_000 + CHECKSUM_LEN);
        assert_eq!(writer.unsent(), 5_300);
        assert!(!writer.release((third + second - HEADER_LEN) as u64, &mut completed));
        assert_eq!((&completed, writer.unsent()), (&VecDeque::from([OpId(0)]), 5_200));
        assert!(!writer.release(third as u64 + 1, &mut completed));
        assert_eq!(completed.len(), 1);
        assert!(!writer.release(third as u64, &mut completed));
        assert_eq!(completed.len(), 2);
        // The connection breaks: what was not released is aborted.
        assert_eq!(writer.abort().collect::<Vec<_>>(), [OpId(2)]);
        assert_eq!(expected.len(), HEADER_LEN + 100 + CHECKSUM_LEN + second + third);
    }

    #[test]
    fn partial_writes_change_no_byte() {
        let (lengths, mut random) = ([3, PIECE_MAX + 70_000, 40_000, 4, 2 * PIECE_MAX], 7u64);
        for most in [70, 5_000, 100_000, 2 * PIECE_MAX] {
            let (mut writer, expected) = queue(&lengths);
            let (mut sent, mut completed) = (Vec::new(), VecDeque::new());
            let mut take = |slices: &[IoSlice<'_>]| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut room = 1 + (random >> 33) as usize % most;
                let before = sent.len();
                for slice in slices {
                    let n = slice.len().min(room);
                    sent.extend_from_slice(&slice[..n]);
                    room -= n;
                }
                Ok(sent.len() - before)
            };
            assert!(writer.write(&mut take).unwrap() && writer.release(0, &mut completed));
            assert!(sent == expected, "at most {most} bytes per call");
            assert_eq!(completed.len(), lengths.len());
        }
    }
}
