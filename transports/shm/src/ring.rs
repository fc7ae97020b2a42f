//! [`Segment`], a piece of memory shared by two processes, and [`End`], one process's view of the two rings of bytes in
//! it. Each ring has one writer and one reader.
//!
//! | bytes | content | written by |
//! |---|---|---|
//! | 0..8 | write position of the first ring | the dialling side |
//! | 128..136 | read position of the first ring | the accepting side |
//! | 256..260 | flag: the reader of the first ring sleeps | both |
//! | 384..388 | flag: the writer of the first ring waits for room | both |
//! | 512..1024 | the same for the second ring | the same, with the sides exchanged |
//! | 1024..2048 | long bodies of the dialling side that are not in the ring, see [`offers`](crate::offers) | both |
//! | 2048..3072 | the same of the accepting side | both |
//! | 4096.. | first ring, written by the dialling side | the dialling side |
//! | behind it | second ring, written by the accepting side | the accepting side |
//!
//! A *position* counts the bytes written or read since the segment was created. It does not wrap at the length of the
//! ring, so that an empty ring (equal positions) and a full ring (positions one length apart) differ. Each position has
//! 128 bytes for itself, because processors fetch cache lines of 64 bytes in pairs.
//!
//! A process trusts only its own copies of its own positions; it publishes them in the segment and never reads them
//! back. The position of the other process is read once per call, and is rejected if the two positions are further
//! apart than one length of the ring.
#![allow(unsafe_code, reason = "shared memory is raw memory; each block says why it is sound")]

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::MmapRaw;
use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};

use crate::offers::{OFFER_MIN, OFFERS_LEN, Offers, Taker};

/// Offset of the first ring: the page before it holds positions and flags.
const RINGS: usize = 4096;
/// Offset of the second ring's positions and flags.
const SECOND: usize = 512;
/// Offset of the offers of the dialling side, and of the accepting side.
const OFFERS: [usize; 2] = [1024, 1024 + OFFERS_LEN];
/// Offsets within the positions and flags of a ring.
const WRITE_POSITION: usize = 0;
const READ_POSITION: usize = 128;
const READER_SLEEPS: usize = 256;
const WRITER_WAITS: usize = 384;
/// Indices into [`End::control`] and [`End::rings`].
const OUT: usize = 0;
const IN: usize = 1;
/// Bytes after which a position is published within a call, so that the other process can start on them.
const PIECE: usize = 64 * 1024;
/// Without these, the other process could truncate the memory, and reading it would raise `SIGBUS`.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A mapped segment. Its size cannot change, because it is sealed.
#[derive(Debug)]
pub struct Segment {
    map: MmapRaw,
    ring_len: usize,
}

impl Segment {
    /// Creates and maps a segment, with its memory reserved. Returns it with the file to pass to the other process.
    ///
    /// # Errors
    /// When the system does not provide the memory, or cannot seal it.
    ///
    /// # Panics
    /// If `ring_len` is not a power of two.
    pub fn create(ring_len: usize) -> io::Result<(Self, OwnedFd)> {
        assert!(ring_len.is_power_of_two());
        let file = fs::memfd_create("gradwire", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let len = (RINGS + 2 * ring_len) as u64;
        fs::ftruncate(&file, len)?;
        // Without this, a host that runs out of memory would kill the process when it first writes to a page.
        fs::fallocate(&file, FallocateFlags::empty(), 0, len)?;
        fs::fcntl_add_seals(&file, SEALS)?;
        Ok((Self::map(&file)?, file))
    }

    /// Maps a segment that another process has created.
    ///
    /// # Errors
    /// `InvalidData` when the file is not sealed, or has an invalid size; the error of the system when mapping fails.
    pub fn map(file: &OwnedFd) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let seals = fs::fcntl_get_seals(file)
            .map_err(|_| invalid("segment: expected memory that can be sealed, got another file".into()))?;
        if !seals.contains(SEALS) {
            return Err(invalid(format!(
                "segment: expected memory sealed against shrinking and growing, got {seals:?}"
            )));
        }
        // Only after the seals have been checked: before, the size could still change.
        let len = usize::try_from(fs::fstat(file)?.st_size).unwrap_or(0);
        let ring_len = len.saturating_sub(RINGS) / 2;
        if !ring_len.is_power_of_two() || RINGS + 2 * ring_len != len || !(4096..=1 << 30).contains(&ring_len) {
            return Err(invalid(format!(
                "segment: expected 4096 bytes and two rings of a power of two from 4 KiB to 1 GiB, got {len} bytes"
            )));
        }
        Ok(Self { map: memmap2::MmapOptions::new().len(len).map_raw(file)?, ring_len })
    }

    /// A pointer to the `T` at an offset.
    ///
    /// # Panics
    /// If it is outside of the mapping, or not aligned.
    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.map.len() && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: within the mapping, as just checked.
        unsafe { self.map.as_mut_ptr().add(offset).cast() }
    }

    pub(crate) fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in bounds and aligned (`at`), and valid as long as the mapping. Every process accesses it as an
        // atomic. A hostile process that does not can only spoil the value, which is checked wherever it is read.
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    pub(crate) fn flag(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `position`.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    fn copy_in(&self, start: usize, from: &[u8]) {
        let into: *mut u8 = self.at(start);
        assert!(start + from.len() <= self.map.len());
        // SAFETY: within the mapping, as just checked. It does not overlap `from`, which is a slice of private memory.
        // The other side reads these bytes only after the position that covers them has been published.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }

    fn copy_out(&self, start: usize, into: &mut [u8]) {
        let from: *const u8 = self.at(start);
        assert!(start + into.len() <= self.map.len());
        // SAFETY: as for `copy_in`. A hostile process that writes to these bytes meanwhile changes the copy. The copy
        // is parsed only afterwards, and treated like any bytes from outside.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }
}

/// One process's end of a segment: it writes one ring and reads the other.
#[derive(Debug)]
pub struct End {
    /// Long bodies that this end writes, and those that it reads, if they are not in the rings.
    offers: Offers,
    taker: Taker,
    /// The last write has stopped at a body that could not be offered: room in the ring is of no use to it.
    waits_for_reader: bool,
    segment: Arc<Segment>,
    /// Offsets of the positions and flags, by direction ([`OUT`], [`IN`]).
    control: [usize; 2],
    /// Offsets of the rings, by direction.
    rings: [usize; 2],
    /// This end's write position in the outgoing ring.
    written: u64,
    /// This end's read position in the incoming ring.
    read: u64,
}

impl End {
    /// The end of the dialling side, or of the accepting side. The segment must be new: positions start at 0.
    pub fn new(segment: Arc<Segment>, dials: bool) -> Self {
        let (control, rings) = ([0, SECOND], [RINGS, RINGS + segment.ring_len]);
        let (out, back) = if dials { (0, 1) } else { (1, 0) };
        let (control, rings) = ([control[out], control[back]], [rings[out], rings[back]]);
        let offers = Offers::new(Arc::clone(&segment), OFFERS[out]);
        let taker = Taker::new(Arc::clone(&segment), OFFERS[back]);
        Self { offers, taker, waits_for_reader: false, segment, control, rings, written: 0, read: 0 }
    }

    /// Long bodies can be read from the memory of their writer, in both directions, if the system permits it. `process`:
    /// the number of the other process, as this one sees it. The dialling side calls this before it passes the segment,
    /// the accepting side before it writes.
    pub fn share_memory(&mut self, process: i32) {
        self.offers.show_beacon();
        self.taker.read_from(process);
    }

    /// Why long bodies of the other side come through the ring, if their memory cannot be read.
    pub fn obstacle(&self) -> Option<&str> {
        self.taker.obstacle()
    }

    /// The number of bytes, of those that were written last, from the first on that the other side has yet to read from
    /// this process's memory. This memory must stay as it is. 0: all bytes have been copied.
    ///
    /// # Errors
    /// `InvalidData` when the other side claims to have read other bytes.
    pub fn unread(&mut self) -> io::Result<u64> {
        let open = self.offers.first_open()?;
        Ok(open.map_or(0, |(position, before)| self.written - position + self.offers.bytes() - before))
    }

    fn position(&self, direction: usize, offset: usize) -> &AtomicU64 {
        self.segment.position(self.control[direction] + offset)
    }

    fn flag(&self, direction: usize, offset: usize) -> &AtomicU32 {
        self.segment.flag(self.control[direction] + offset)
    }

    /// The number of bytes in the ring that can be read, up to the next offer.
    ///
    /// # Errors
    /// `InvalidData` when the position or the offer of the other side is impossible.
    pub fn readable(&mut self) -> io::Result<usize> {
        // Before the offers: the bytes behind an offer are published after it.
        let n = self.in_ring()?;
        let offer = self.taker.next(self.read, self.segment.ring_len as u64)?;
        Ok(offer.map_or(n, |position| n.min((position - self.read) as usize)))
    }

    /// The number of bytes in the incoming ring.
    fn in_ring(&self) -> io::Result<usize> {
        // Acquire: the bytes that the position covers must be visible before they are copied.
        self.distance(self.position(IN, WRITE_POSITION).load(Ordering::Acquire), self.read)
    }

    /// The number of bytes that can be written.
    ///
    /// # Errors
    /// `InvalidData` when the position of the other side is impossible.
    pub fn writable(&self) -> io::Result<usize> {
        // Acquire: the other side must have finished reading before its bytes are overwritten.
        let used = self.distance(self.written, self.position(OUT, READ_POSITION).load(Ordering::Acquire))?;
        Ok(self.segment.ring_len - used)
    }

    /// How far the write position `ahead` is before the read position `behind`.
    fn distance(&self, ahead: u64, behind: u64) -> io::Result<usize> {
        let distance = ahead.wrapping_sub(behind);
        if distance > self.segment.ring_len as u64 {
            let text =
                format!("ring: expected positions at most {} apart, got {ahead} and {behind}", self.segment.ring_len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(distance as usize)
    }

    /// Reads available bytes. Returns their number, and whether the other side waits for room, or for the end of an offer,
    /// and must be woken.
    ///
    /// # Errors
    /// `InvalidData` when the position or an offer of the other side is impossible, the error of the system when an offer
    /// cannot be read, `ConnectionAborted` when it is withdrawn.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<(usize, bool)> {
        let n = self.readable()?.min(into.len());
        if n == 0 {
            let (n, last) = if self.taker.is_at(self.read) { self.taker.take(into)? } else { (0, false) };
            return Ok((n, last && self.take_flag(IN, WRITER_WAITS)));
        }
        self.taker.probe();
        for piece in into[..n].chunks_mut(PIECE) {
            let start = self.read as usize & (self.segment.ring_len - 1);
            // The part up to the end of the ring, and the part that continues at its beginning.
            let (head, tail) = piece.split_at_mut(piece.len().min(self.segment.ring_len - start));
            self.segment.copy_out(self.rings[IN] + start, head);
            self.segment.copy_out(self.rings[IN], tail);
            self.read += piece.len() as u64;
            // Release: after this, the other side may overwrite the bytes.
            self.position(IN, READ_POSITION).store(self.read, Ordering::Release);
        }
        Ok((n, self.take_flag(IN, WRITER_WAITS)))
    }

    /// Writes as many bytes as there is room for. Returns their number, and whether the other side sleeps and must be
    /// woken. Long slices can be offered instead, see [`unread`](Self::unread).
    ///
    /// # Errors
    /// `InvalidData` when the position of the other side is impossible.
    pub fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<(usize, bool)> {
        let mut room = self.writable()?;
        let mut total = 0;
        // Forgets the offers that have been read since.
        self.offers.first_open()?;
        self.waits_for_reader = false;
        for slice in from {
            if slice.len() >= OFFER_MIN && self.offers.are_welcome() {
                if self.offers.are_full() {
                    self.waits_for_reader = true;
                    break;
                }
                self.offers.make(self.written, slice);
                total += slice.len();
                continue;
            }
            let part = &slice[..slice.len().min(room)];
            for piece in part.chunks(PIECE) {
                let start = self.written as usize & (self.segment.ring_len - 1);
                let (head, tail) = piece.split_at(piece.len().min(self.segment.ring_len - start));
                self.segment.copy_in(self.rings[OUT] + start, head);
                self.segment.copy_in(self.rings[OUT], tail);
                self.written += piece.len() as u64;
                // Smaller pieces are published together: each store takes the cache line from the reader.
                if piece.len() == PIECE {
                    self.position(OUT, WRITE_POSITION).store(self.written, Ordering::Release);
                }
            }
            (room, total) = (room - part.len(), total + part.len());
            if part.len() < slice.len() {
                break;
            }
        }
        // Release: the bytes must be visible before the position that covers them.
        self.position(OUT, WRITE_POSITION).store(self.written, Ordering::Release);
        Ok((total, total > 0 && self.take_flag(OUT, READER_SLEEPS)))
    }

    /// Clears a flag of the other side. Returns true if it was set, so that the other side must be woken.
    ///
    /// No wake-up is lost: this side publishes its position and then reads the flag, the other side sets its flag and
    /// then reads the position ([`arm`](Self::arm)). With the fences between, at least one of the two sees the other's
    /// write.
    fn take_flag(&self, direction: usize, offset: usize) -> bool {
        fence(Ordering::SeqCst);
        let flag = self.flag(direction, offset);
        // The load avoids the cost of a swap when the other side is awake, which is the usual case.
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
    }

    /// Sets the flags that ask the other side for a wake-up: when there are bytes to read (`reads`), room to write
    /// (`writes`), or an offer has been read. Returns true if there is work already, so that this side must not sleep.
    pub fn arm(&self, reads: bool, writes: bool) -> bool {
        if reads {
            self.flag(IN, READER_SLEEPS).store(1, Ordering::Relaxed);
        }
        if writes || self.offers.are_open() {
            self.flag(OUT, WRITER_WAITS).store(1, Ordering::Relaxed);
        }
        // See `take_flag`.
        fence(Ordering::SeqCst);
        self.has_work(reads, writes)
    }

    /// Whether there are bytes to read (considered only with `reads`), room to write (only with `writes`), or an offer has
    /// been read. An impossible position counts as work: the call that follows reports it.
    pub fn has_work(&self, reads: bool, writes: bool) -> bool {
        (reads && (self.taker.has_offer() || self.in_ring().map_or(true, |n| n > 0)))
            || (writes && !self.waits_for_reader && self.writable().map_or(true, |n| n > 0))
            || self.offers.have_moved()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(ring_len: usize) -> (End, End, Arc<Segment>) {
        let (segment, _) = Segment::create(ring_len).unwrap();
        let segment = Arc::new(segment);
        (End::new(Arc::clone(&segment), true), End::new(Arc::clone(&segment), false), segment)
    }

    #[test]
    fn bytes_are_read_as_written_across_the_end_of_the_ring() {
        let (mut here, mut there, _) = ends(4096);
        let mut next = 0u8;
        let mut expected = 0u8;
        for round in 0..200usize {
            let bytes: Vec<u8> = (0..(round * 37) % 5000)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            let (n, _) = here
                .write(&[IoSlice::new(&bytes[..bytes.len() / 2]), IoSlice::new(&bytes[bytes.len() / 2..])])
                .unwrap();
            assert_eq!(n, bytes.len().min(4096));
            next = next.wrapping_sub((bytes.len() - n) as u8);
            let mut into = vec![0; 5000];
            let (got, _) = there.read(&mut into).unwrap();
            assert_eq!(got, n);
            for byte in &into[..got] {
                expected = expected.wrapping_add(1);
                assert_eq!(*byte, expected);
            }
        }
    }

    #[test]
    fn the_first_write_or_read_after_arming_asks_for_a_single_wake_up() {
        let (mut here, mut there, _) = ends(4096);
        assert!(!there.arm(true, false));
        assert_eq!(here.write(&[IoSlice::new(b"abc")]).unwrap(), (3, true));
        assert_eq!(here.write(&[IoSlice::new(b"abc")]).unwrap(), (3, false));
        assert!(there.arm(true, false));
        let full = vec![0; 4090];
        here.write(&[IoSlice::new(&full)]).unwrap();
        assert!(!here.arm(false, true));
        assert_eq!(there.read(&mut [0; 10]).unwrap(), (10, true));
    }

    /// For every value that a hostile process writes as its position, a call fails or stays within the ring.
    #[test]
    fn impossible_positions_are_rejected() {
        for bad in [1 << 13, 1 << 62, 1 << 63, 4097] {
            let (mut here, there, segment) = ends(4096);
            segment.position(SECOND).store(bad, Ordering::Release);
            assert!(here.read(&mut [0; 64]).is_err() && here.arm(true, false), "{bad}");
            segment.position(READ_POSITION).store(bad, Ordering::Release);
            assert!(here.write(&[IoSlice::new(&[0; 64])]).is_err(), "{bad}");
            drop(there);
        }
    }

    #[test]
    fn files_without_seals_or_of_an_invalid_size_are_rejected() {
        let unsealed = fs::memfd_create("t", MemfdFlags::ALLOW_SEALING).unwrap();
        fs::ftruncate(&unsealed, 4096 + 8192).unwrap();
        assert!(Segment::map(&unsealed).unwrap_err().to_string().contains("sealed against"));
        for len in [0, 1, 4096, 4096 + 8191, 4096 + 8193, 4096 + 3 * 4096] {
            let file = fs::memfd_create("t", MemfdFlags::ALLOW_SEALING).unwrap();
            fs::ftruncate(&file, len).unwrap();
            fs::fcntl_add_seals(&file, SEALS).unwrap();
            assert!(Segment::map(&file).unwrap_err().to_string().contains(&format!("got {len} bytes")), "{len}");
        }
        let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
        assert!(Segment::map(&pipe).is_err());
        let ordinary: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
        assert!(Segment::map(&ordinary).is_err());
    }

    /// Otherwise a reader could be killed by `SIGBUS`.
    #[test]
    fn a_sealed_segment_cannot_be_truncated() {
        let (segment, file) = Segment::create(4096).unwrap();
        assert!(fs::ftruncate(&file, 0).is_err());
        let mut end = End::new(Arc::new(segment), true);
        assert_eq!(end.read(&mut [0; 8]).unwrap(), (0, false));
    }
}
