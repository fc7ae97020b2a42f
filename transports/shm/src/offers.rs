//! Long bodies that do not pass through a ring: the writer *offers* them by address, and the reader reads them from the
//! writer's memory ([`attach`](crate::attach)). Each direction of a connection has a page of its own for that, in the
//! segment's control page.
//!
//! | bytes | content | written by |
//! |---|---|---|
//! | 0..24 | address and words of the writer's beacon | writer |
//! | 24..28 | 1: the beacon is there | writer |
//! | 128..132 | 1: the reader can read the writer's memory. 2: it cannot | reader |
//! | 256..264 | number of offers made | writer |
//! | 384..392 | bytes of offers that have been read | reader |
//! | 512..516 | 1: the offers are withdrawn | writer |
//! | 640..1024 | offers, 24 bytes each: position in the ring, address, length | writer |
//!
//! The bytes of an offer stand at its position in the ring: the reader reads the bytes of the ring before that position,
//! then those of the offer, then those behind. The writer publishes an offer before the bytes behind it. So a reader that
//! sees these also sees the offer.
//!
//! The writer leaves the memory as it is until the reader has read it. If it cannot wait, it withdraws all offers before
//! it writes to the memory, and the connection ends. The reader looks at the flag after it has copied the bytes. So it
//! never takes bytes for whole that were overwritten while it slept.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::attach::{Beacon, Memory};
use crate::ring::Segment;

/// Shortest body that is offered. The reader's system call costs more than a second copy of a shorter one.
pub(crate) const OFFER_MIN: usize = 128 * 1024;
/// Bytes of the control page for one direction.
pub(crate) const OFFERS_LEN: usize = 1024;
/// Offers of one direction that have not been read. It bounds what the reader leaves with the writer.
const OFFERS_MAX: u64 = 16;
/// Offsets within the bytes of a direction.
const BEACON: usize = 0;
const HAS_BEACON: usize = 24;
const READABLE: usize = 128;
const MADE: usize = 256;
const TAKEN: usize = 384;
const WITHDRAWN: usize = 512;
const SLOTS: usize = 640;
const SLOT_LEN: usize = 24;
/// Values of the word at [`READABLE`].
const CAN_READ: u32 = 1;
const CANNOT_READ: u32 = 2;

const _: () = assert!(SLOTS + OFFERS_MAX as usize * SLOT_LEN <= OFFERS_LEN);

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The writer's side of a direction: the offers that it has made.
#[derive(Debug)]
pub(crate) struct Offers {
    segment: Arc<Segment>,
    /// Offset in the segment.
    base: usize,
    /// `None`: this side offers no memory.
    beacon: Option<Beacon>,
    /// Number of offers, and their bytes, since the segment was created.
    made: u64,
    bytes: u64,
    /// The offers that have not been read completely: position in the ring, and `bytes` before and behind it.
    open: VecDeque<(u64, u64, u64)>,
    /// Bytes of offers that the reader has read, as far as this side has looked.
    taken: u64,
}

impl Offers {
    pub(crate) fn new(segment: Arc<Segment>, base: usize) -> Self {
        Self { segment, base, beacon: None, made: 0, bytes: 0, open: VecDeque::new(), taken: 0 }
    }

    /// Lets the reader find out whether it can read this process.
    pub(crate) fn show_beacon(&mut self) {
        let beacon = Beacon::new();
        let words = [beacon.address(), beacon.words()[0], beacon.words()[1]];
        for (index, word) in words.into_iter().enumerate() {
            self.segment.position(self.base + BEACON + 8 * index).store(word, Ordering::Relaxed);
        }
        self.segment.flag(self.base + HAS_BEACON).store(1, Ordering::Release);
        self.beacon = Some(beacon);
    }

    /// Whether the reader takes offers.
    pub(crate) fn are_welcome(&self) -> bool {
        self.beacon.is_some() && self.segment.flag(self.base + READABLE).load(Ordering::Acquire) == CAN_READ
    }

    /// Whether no further offer can be made before the reader has read one.
    pub(crate) fn are_full(&self) -> bool {
        self.open.len() as u64 == OFFERS_MAX
    }

    /// Offers `bytes`, which stand at `position` in the ring.
    pub(crate) fn make(&mut self, position: u64, bytes: &[u8]) {
        assert!(!self.are_full() && !bytes.is_empty());
        let slot = self.base + SLOTS + (self.made % OFFERS_MAX) as usize * SLOT_LEN;
        for (index, word) in [position, bytes.as_ptr().addr() as u64, bytes.len() as u64].into_iter().enumerate() {
            self.segment.position(slot + 8 * index).store(word, Ordering::Relaxed);
        }
        let before = self.bytes;
        (self.made, self.bytes) = (self.made + 1, before + bytes.len() as u64);
        self.open.push_back((position, before, self.bytes));
        // Release: the slot, and the bytes that are offered, must be visible before the number.
        self.segment.position(self.base + MADE).store(self.made, Ordering::Release);
    }

    /// Bytes that have been offered.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the reader has read bytes of offers since the last look.
    pub(crate) fn have_moved(&self) -> bool {
        !self.open.is_empty() && self.load_taken() != self.taken
    }

    pub(crate) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    fn load_taken(&self) -> u64 {
        // Acquire: the reader must have read the bytes before they are overwritten.
        self.segment.position(self.base + TAKEN).load(Ordering::Acquire)
    }

    /// Looks at what the reader has read. Returns the first offer that it has not read completely: position in the ring,
    /// and bytes of the offers before it.
    ///
    /// # Errors
    /// `InvalidData` when the reader claims bytes that were not offered.
    pub(crate) fn first_open(&mut self) -> io::Result<Option<(u64, u64)>> {
        if self.open.is_empty() {
            return Ok(None);
        }
        let taken = self.load_taken();
        if !(self.taken..=self.bytes).contains(&taken) {
            let text = format!("offers: expected {} to {} bytes to be read, got {taken}", self.taken, self.bytes);
            return Err(invalid(text));
        }
        self.taken = taken;
        while self.open.front().is_some_and(|(_, _, end)| *end <= taken) {
            self.open.pop_front();
        }
        Ok(self.open.front().map(|(position, before, _)| (*position, *before)))
    }
}

impl Drop for Offers {
    /// Withdraws what is open. The owner keeps the memory as it is until this is done.
    fn drop(&mut self) {
        self.segment.flag(self.base + WITHDRAWN).store(1, Ordering::Relaxed);
        // The flag must be visible before the memory is written to: see `Taker::take`.
        fence(Ordering::SeqCst);
    }
}

/// The reader's side of a direction.
#[derive(Debug)]
pub(crate) struct Taker {
    segment: Arc<Segment>,
    /// Offset in the segment.
    base: usize,
    /// The process of the writer, until its memory has been probed. `None`: this side does not read memory.
    process: Option<i32>,
    /// The writer's memory, if this process can read it.
    memory: Option<Memory>,
    /// Why it cannot.
    obstacle: Option<String>,
    /// Number of offers that have been read completely, or are being read.
    seen: u64,
    offer: Option<Offer>,
    /// Bytes of offers that have been read.
    taken: u64,
}

/// An offer, or the rest of it.
#[derive(Debug)]
struct Offer {
    position: u64,
    address: u64,
    len: u64,
}

impl Taker {
    pub(crate) fn new(segment: Arc<Segment>, base: usize) -> Self {
        let (process, memory, obstacle, offer) = (None, None, None, None);
        Self { segment, base, process, memory, obstacle, seen: 0, offer, taken: 0 }
    }

    /// Probes the memory of this process at the next call of [`probe`](Self::probe).
    pub(crate) fn read_from(&mut self, process: i32) {
        self.process = Some(process);
    }

    /// Finds out whether the writer's memory can be read, once. The writer shows its beacon before it writes the first
    /// byte, and this is called when that has come.
    pub(crate) fn probe(&mut self) {
        let Some(process) = self.process.take() else { return };
        if self.segment.flag(self.base + HAS_BEACON).load(Ordering::Acquire) == 0 {
            return;
        }
        let word = |index: usize| self.segment.position(self.base + BEACON + 8 * index).load(Ordering::Relaxed);
        match Memory::probe(process, word(0), [word(1), word(2)]) {
            Ok(memory) => self.memory = Some(memory),
            Err(error) => self.obstacle = Some(error.to_string()),
        }
        let value = if self.memory.is_some() { CAN_READ } else { CANNOT_READ };
        self.segment.flag(self.base + READABLE).store(value, Ordering::Release);
    }

    /// Why this process cannot read the writer's memory, if it has tried to.
    pub(crate) fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// Whether there is an offer that has not been read completely.
    pub(crate) fn has_offer(&self) -> bool {
        self.offer.is_some() || self.segment.position(self.base + MADE).load(Ordering::Acquire) != self.seen
    }

    /// The position in the ring of the next offer, which is at or behind `read` and at most `ring_len` bytes from it.
    ///
    /// # Errors
    /// `InvalidData` when the writer's values are impossible.
    pub(crate) fn next(&mut self, read: u64, ring_len: u64) -> io::Result<Option<u64>> {
        if self.offer.is_none() {
            // Acquire: the slot and the bytes must be visible.
            let made = self.segment.position(self.base + MADE).load(Ordering::Acquire);
            if made == self.seen {
                return Ok(None);
            }
            if self.memory.is_none() {
                return Err(invalid(
                    "offer: expected none, because this process does not read the peer's memory".into(),
                ));
            }
            if made.wrapping_sub(self.seen) > OFFERS_MAX {
                let (seen, text) = (self.seen, "offers: expected at most");
                return Err(invalid(format!(
                    "{text} {OFFERS_MAX} that have not been read, got numbers {seen} and {made}"
                )));
            }
            let slot = self.base + SLOTS + (self.seen % OFFERS_MAX) as usize * SLOT_LEN;
            let word = |index: usize| self.segment.position(slot + 8 * index).load(Ordering::Relaxed);
            // Each word is read once: another value could come after the check.
            let (position, address, len) = (word(0), word(1), word(2));
            if position.wrapping_sub(read) > ring_len || len == 0 || address.checked_add(len).is_none() {
                return Err(invalid(format!(
                    "offer: expected 1 byte or more within {ring_len} bytes of position {read}, got {len} bytes of address \
                     {address:#x} at {position}"
                )));
            }
            self.seen += 1;
            self.offer = Some(Offer { position, address, len });
        }
        Ok(self.offer.as_ref().map(|offer| offer.position))
    }

    /// Whether the present offer stands at position `read` in the ring.
    pub(crate) fn is_at(&self, read: u64) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.position == read)
    }

    /// Reads the next bytes of the present offer. Returns their number, and whether these are the last ones.
    ///
    /// # Errors
    /// When they cannot be read, or the writer has withdrawn them. `into` holds arbitrary bytes then.
    pub(crate) fn take(&mut self, into: &mut [u8]) -> io::Result<(usize, bool)> {
        let (Some(offer), Some(memory)) = (&mut self.offer, &self.memory) else { return Ok((0, false)) };
        let n = usize::try_from(offer.len).map_or(into.len(), |len| len.min(into.len()));
        if n == 0 {
            return Ok((0, false));
        }
        let result = memory.read(offer.address, &mut into[..n]);
        // The bytes must have been read before the flag is. The system call that has copied them does not promise it.
        fence(Ordering::SeqCst);
        if self.segment.flag(self.base + WITHDRAWN).load(Ordering::Relaxed) != 0 {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer has ended the connection inside a body",
            ));
        }
        result?;
        (offer.address, offer.len, self.taken) =
            (offer.address + n as u64, offer.len - n as u64, self.taken + n as u64);
        let last = offer.len == 0;
        if last {
            self.offer = None;
        }
        // Release: after this, the writer may overwrite the bytes.
        self.segment.position(self.base + TAKEN).store(self.taken, Ordering::Release);
        Ok((n, last))
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::ring::End;

    const RING_LEN: usize = 4096;
    const LEN: usize = 2 * OFFER_MIN + 12;

    /// Both ends of a segment, which may read each other's memory, and the segment.
    fn ends() -> (End, End, Arc<Segment>) {
        let (segment, _) = Segment::create(RING_LEN).unwrap();
        let segment = Arc::new(segment);
        let (mut here, mut there) = (End::new(Arc::clone(&segment), true), End::new(Arc::clone(&segment), false));
        let process = std::process::id() as i32;
        here.share_memory(process);
        there.share_memory(process);
        // The first bytes make the reader probe.
        here.write(&[IoSlice::new(b"hi")]).unwrap();
        assert_eq!(there.read(&mut [0; 8]).unwrap(), (2, false));
        (here, there, segment)
    }

    fn body() -> Vec<u8> {
        (0..LEN).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()
    }

    /// Overwrites a word of the first offer of the dialling side: 0 is its position, 1 its address, 2 its length.
    fn forge(segment: &Segment, word: usize, value: u64) {
        segment.position(1024 + SLOTS + 8 * word).store(value, Ordering::Relaxed);
    }

    #[test]
    fn a_long_body_is_read_between_the_bytes_before_and_behind_it() {
        let (mut here, mut there, _) = ends();
        let body = body();
        let slices = [IoSlice::new(b"before"), IoSlice::new(&body), IoSlice::new(b"behind")];
        assert_eq!(here.write(&slices).unwrap(), (LEN + 12, false));
        // What stands behind the body counts too: the body comes first.
        assert_eq!(here.unread().unwrap(), LEN as u64 + 6);
        let mut all: Vec<u8> = Vec::new();
        for want in [4, 100, 1, 70_000, LEN, 3, 100] {
            let mut into = vec![0; want];
            let (n, _) = there.read(&mut into).unwrap();
            all.extend(&into[..n]);
            let left = if all.len() < LEN + 6 { LEN as u64 + 6 } else { 0 };
            assert_eq!(here.unread().unwrap(), left, "after {} bytes", all.len());
        }
        assert!(all == [b"before", &body[..], b"behind"].concat(), "{}", all.len());
        assert_eq!(there.read(&mut [0; 4]).unwrap(), (0, false));
    }

    /// The number of open offers is bounded. A further body waits until one has been read, and then asks for attention.
    #[test]
    fn a_writer_with_too_many_offers_waits_for_the_reader() {
        let (mut here, mut there, _) = ends();
        let body = body();
        for _ in 0..OFFERS_MAX {
            assert_eq!(here.write(&[IoSlice::new(&body)]).unwrap().0, LEN);
        }
        assert_eq!(here.write(&[IoSlice::new(&body), IoSlice::new(b"behind")]).unwrap().0, 0);
        // There is room in the ring, which is of no use.
        assert!(!here.arm(false, true));
        let mut into = vec![0; LEN];
        assert_eq!(there.read(&mut into[..9]).unwrap(), (9, false));
        assert_eq!(there.read(&mut into[9..]).unwrap(), (LEN - 9, true));
        assert!(here.has_work(false, true));
        assert_eq!(here.write(&[IoSlice::new(&body)]).unwrap().0, LEN);
    }

    /// Its loan ends only then, although it has nothing more to write.
    #[test]
    fn a_writer_that_sleeps_is_woken_when_its_body_has_been_read() {
        let (mut here, mut there, _) = ends();
        let body = body();
        here.write(&[IoSlice::new(&body)]).unwrap();
        assert!(!here.arm(false, false));
        let mut into = vec![0; LEN];
        assert_eq!(there.read(&mut into[..LEN - 1]).unwrap(), (LEN - 1, false));
        assert_eq!(there.read(&mut into[LEN - 1..]).unwrap(), (1, true));
        assert!(here.arm(false, false));
        assert_eq!(here.unread().unwrap(), 0);
        assert!(!here.has_work(false, false));
    }

    #[test]
    fn an_end_that_shares_no_memory_writes_all_bytes_into_the_ring() {
        for side in [0, 1] {
            let (segment, _) = Segment::create(RING_LEN).unwrap();
            let segment = Arc::new(segment);
            let mut ends = [true, false].map(|dials| End::new(Arc::clone(&segment), dials));
            ends[side].share_memory(std::process::id() as i32);
            let [here, there] = &mut ends;
            for _ in 0..2 {
                assert_eq!(here.write(&[IoSlice::new(&[1; OFFER_MIN])]).unwrap().0, RING_LEN);
                assert_eq!(here.unread().unwrap(), 0);
                assert_eq!(there.read(&mut [0; RING_LEN]).unwrap().0, RING_LEN);
                assert_eq!(there.obstacle(), None);
            }
        }
    }

    /// A peer of another process namespace has the number 0, and the system may forbid to read a process.
    #[test]
    fn a_reader_without_the_right_says_why_and_gets_all_bytes_through_the_ring() {
        let (segment, _) = Segment::create(RING_LEN).unwrap();
        let segment = Arc::new(segment);
        let (mut here, mut there) = (End::new(Arc::clone(&segment), true), End::new(segment, false));
        here.share_memory(std::process::id() as i32);
        there.share_memory(0);
        here.write(&[IoSlice::new(b"hi")]).unwrap();
        there.read(&mut [0; 8]).unwrap();
        let obstacle = there.obstacle().unwrap();
        assert!(obstacle.starts_with("memory of process 0: expected 8 bytes at "), "{obstacle}");
        assert_eq!(here.write(&[IoSlice::new(&body())]).unwrap().0, RING_LEN);
    }

    /// Whatever a peer writes into an offer, a call fails or stays within its buffer.
    #[test]
    fn impossible_offers_are_rejected() {
        let body = body();
        let lies = [(0, u64::MAX), (0, 3 + RING_LEN as u64), (1, 16), (1, u64::MAX), (2, 0), (2, u64::MAX)];
        for (word, value) in lies {
            let (mut here, mut there, segment) = ends();
            here.write(&[IoSlice::new(&body)]).unwrap();
            forge(&segment, word, value);
            assert!(there.has_work(true, false));
            let mut guarded = vec![7; LEN + 1];
            assert!(there.read(&mut guarded[..LEN]).is_err(), "{word}: {value}");
            assert_eq!(guarded[LEN], 7);
        }
        // More offers than there are places, and offers to a side that does not read memory.
        let (mut here, mut there, segment) = ends();
        here.write(&[IoSlice::new(&body)]).unwrap();
        segment.position(1024 + MADE).store(OFFERS_MAX + 1, Ordering::Release);
        assert!(there.read(&mut [0; 8]).is_err());
        let mut deaf = End::new(Arc::clone(&segment), false);
        assert!(deaf.read(&mut [0; 8]).is_err());
    }

    #[test]
    fn a_reader_that_claims_bytes_which_were_not_offered_is_rejected() {
        let (mut here, _there, segment) = ends();
        let body = body();
        here.write(&[IoSlice::new(&body)]).unwrap();
        segment.position(1024 + TAKEN).store(LEN as u64 + 1, Ordering::Release);
        assert!(here.has_work(false, false));
        assert!(here.unread().unwrap_err().to_string().starts_with("offers: expected 0 to "));
        assert!(here.write(&[IoSlice::new(b"more")]).is_err());
    }

    /// The writer has ended the connection, and uses the memory again, while the reader was stopped inside a body.
    #[test]
    fn a_withdrawn_body_is_not_taken_for_whole() {
        for half in [0, LEN / 2] {
            let (mut here, mut there, _) = ends();
            let mut body = body();
            here.write(&[IoSlice::new(&body)]).unwrap();
            let mut into = vec![0; LEN];
            assert_eq!(there.read(&mut into[..half]).unwrap().0, half);
            drop(here);
            body.fill(0);
            let error = there.read(&mut into[half..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
        }
    }
}
