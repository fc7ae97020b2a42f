//! A segment of shared memory with a ring of bytes each way.
//!
//! | bytes | | written by |
//! |---|---|---|
//! | 0..8 | bytes ever written by the dialling side | it |
//! | 128..136 | bytes ever read of these | the other |
//! | 256..260 | 1: the reader sleeps | both |
//! | 384..388 | 1: the writer waits for room | both |
//! | 512..1024 | the same for the other direction | |
//! | 4096.. | the ring of the dialling side | it |
//! | after it | the ring of the other | the other |
//!
//! Each position is on a cache line of its own (two, as processors fetch them in pairs). A side keeps its own position
//! to itself and only publishes it; it never believes what it finds there. The other side's position is read once per
//! call, and must be within one ring's length.
#![allow(unsafe_code, reason = "shared memory is raw memory; each block says why it is sound")]

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::MmapRaw;
use rustix::fs::{self, FallocateFlags, MemfdFlags, SealFlags};

const RINGS: usize = 4096;
const DIRECTION: usize = 512;
const READ: usize = 128;
const READER_SLEEPS: usize = 256;
const WRITER_WAITS: usize = 384;
/// Positions are published after so many bytes, so that the other side can begin.
const PIECE: usize = 64 * 1024;
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A mapped segment. Its size cannot change: it is sealed.
#[derive(Debug)]
pub struct Segment {
    map: MmapRaw,
    ring_len: usize,
}

impl Segment {
    /// A new one, its memory reserved.
    ///
    /// # Errors
    /// When the system gives no such memory, or does not seal it.
    pub fn create(ring_len: usize) -> io::Result<(Self, OwnedFd)> {
        assert!(ring_len.is_power_of_two());
        let file = fs::memfd_create("gradwire", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let len = (RINGS + 2 * ring_len) as u64;
        fs::ftruncate(&file, len)?;
        // Without this, a host that is out of memory would kill us at the first touch.
        fs::fallocate(&file, FallocateFlags::empty(), 0, len)?;
        fs::fcntl_add_seals(&file, SEALS)?;
        Ok((Self::map(&file)?, file))
    }

    /// One that another process has made.
    ///
    /// # Errors
    /// When it could shrink under our hands, or has no size that a segment can have.
    pub fn map(file: &OwnedFd) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let seals =
            fs::fcntl_get_seals(file).map_err(|_| invalid("segment: expected memory that can be sealed".into()))?;
        if !seals.contains(SEALS) {
            return Err(invalid(format!("segment: expected one sealed against shrinking and growing, got {seals:?}")));
        }
        // After the seals: from here on it stays as it is.
        let len = usize::try_from(fs::fstat(file)?.st_size).unwrap_or(0);
        let ring_len = len.saturating_sub(RINGS) / 2;
        if !ring_len.is_power_of_two() || RINGS + 2 * ring_len != len || !(4096..=1 << 30).contains(&ring_len) {
            return Err(invalid(format!(
                "segment: expected 4096 bytes and two rings of a power of two, got {len} bytes"
            )));
        }
        Ok(Self { map: memmap2::MmapOptions::new().len(len).map_raw(file)?, ring_len })
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        assert!(offset + size_of::<T>() <= self.map.len() && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: within the mapping, as just checked.
        unsafe { self.map.as_mut_ptr().add(offset).cast() }
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in bounds and aligned (`at`), lives as long as the mapping, and every process accesses it as an
        // atomic; one that does not can only spoil the value, which is checked wherever it is read.
        unsafe { AtomicU64::from_ptr(self.at(offset)) }
    }

    fn flag(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as for `position`.
        unsafe { AtomicU32::from_ptr(self.at(offset)) }
    }

    fn copy_in(&self, start: usize, from: &[u8]) {
        let into: *mut u8 = self.at(start);
        assert!(start + from.len() <= self.map.len());
        // SAFETY: within the mapping, as just checked, and not within `from`, which is a Rust slice of this process.
        // The other side reads these bytes only after the position that covers them has been published.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), into, from.len()) }
    }

    fn copy_out(&self, start: usize, into: &mut [u8]) {
        let from: *const u8 = self.at(start);
        assert!(start + into.len() <= self.map.len());
        // SAFETY: as for `copy_in`. A process that writes to these bytes against the rules changes what is copied; it
        // is looked at only afterwards, as any bytes from outside are.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) }
    }
}

/// One side's end of a segment.
#[derive(Debug)]
pub struct End {
    segment: Arc<Segment>,
    /// Offsets of the two directions, outgoing first.
    control: [usize; 2],
    rings: [usize; 2],
    /// Own positions: bytes ever written and read.
    written: u64,
    read: u64,
}

impl End {
    /// The dialling side's end, or the other's. A segment is fresh when its ends are made.
    pub fn new(segment: Arc<Segment>, dials: bool) -> Self {
        let (first, second) = ([0, RINGS], [DIRECTION, RINGS + segment.ring_len]);
        let (out, back) = if dials { (first, second) } else { (second, first) };
        Self { segment, control: [out[0], back[0]], rings: [out[1], back[1]], written: 0, read: 0 }
    }

    fn position(&self, direction: usize, what: usize) -> &AtomicU64 {
        self.segment.position(self.control[direction] + what)
    }

    fn flag(&self, direction: usize, what: usize) -> &AtomicU32 {
        self.segment.flag(self.control[direction] + what)
    }

    /// Bytes that can be read.
    ///
    /// # Errors
    /// When the other side says what cannot be.
    pub fn readable(&self) -> io::Result<usize> {
        self.distance(self.position(1, 0).load(Ordering::Acquire), self.read)
    }

    /// Bytes that can be written.
    ///
    /// # Errors
    /// When the other side says what cannot be.
    pub fn writable(&self) -> io::Result<usize> {
        let used = self.distance(self.written, self.position(0, READ).load(Ordering::Acquire))?;
        Ok(self.segment.ring_len - used)
    }

    fn distance(&self, ahead: u64, behind: u64) -> io::Result<usize> {
        let distance = ahead.wrapping_sub(behind);
        if distance > self.segment.ring_len as u64 {
            let text =
                format!("ring: expected positions at most {} apart, got {ahead} and {behind}", self.segment.ring_len);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(distance as usize)
    }

    /// Reads what is there. The second value: the other side waits for room, and is to be woken.
    ///
    /// # Errors
    /// When the other side says what cannot be.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<(usize, bool)> {
        let n = self.readable()?.min(into.len());
        for piece in into[..n].chunks_mut(PIECE) {
            let (start, mask) = (self.read as usize & (self.segment.ring_len - 1), self.segment.ring_len);
            let first = piece.len().min(mask - start);
            let (head, tail) = piece.split_at_mut(first);
            self.segment.copy_out(self.rings[1] + start, head);
            self.segment.copy_out(self.rings[1], tail);
            self.read += piece.len() as u64;
            self.position(1, READ).store(self.read, Ordering::Release);
        }
        Ok((n, n > 0 && self.wake(1, WRITER_WAITS)))
    }

    /// Writes what there is room for. The second value: the other side sleeps, and is to be woken.
    ///
    /// # Errors
    /// When the other side says what cannot be.
    pub fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<(usize, bool)> {
        let mut room = self.writable()?;
        let mut total = 0;
        for slice in from {
            let part = &slice[..slice.len().min(room)];
            for piece in part.chunks(PIECE) {
                let start = self.written as usize & (self.segment.ring_len - 1);
                let first = piece.len().min(self.segment.ring_len - start);
                self.segment.copy_in(self.rings[0] + start, &piece[..first]);
                self.segment.copy_in(self.rings[0], &piece[first..]);
                self.written += piece.len() as u64;
                if piece.len() == PIECE {
                    self.position(0, 0).store(self.written, Ordering::Release);
                }
            }
            (room, total) = (room - part.len(), total + part.len());
        }
        self.position(0, 0).store(self.written, Ordering::Release);
        Ok((total, total > 0 && self.wake(0, READER_SLEEPS)))
    }

    /// Is the other side to be woken? Its flag and our position must not pass each other unseen: each side writes its
    /// own, and only then reads the other's.
    fn wake(&self, direction: usize, what: usize) -> bool {
        fence(Ordering::SeqCst);
        let flag = self.flag(direction, what);
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
    }

    /// Says that this side is about to sleep until it is woken; true: there is work, and it should not.
    pub fn arm(&self, reads: bool, writes: bool) -> bool {
        if reads {
            self.flag(1, READER_SLEEPS).store(1, Ordering::Relaxed);
        }
        if writes {
            self.flag(0, WRITER_WAITS).store(1, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.has_work(reads, writes)
    }

    /// Is there something to read, or room to write? A position that cannot be counts: whoever looks will see.
    pub fn has_work(&self, reads: bool, writes: bool) -> bool {
        (reads && self.readable().map_or(true, |n| n > 0)) || (writes && self.writable().map_or(true, |n| n > 0))
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
    fn bytes_come_out_as_they_went_in_across_the_end_of_the_ring() {
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
    fn a_sleeper_is_woken_once() {
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

    /// Whatever a hostile process writes into the control page, calls end with an error or with bytes of the ring.
    #[test]
    fn positions_that_cannot_be_are_refused() {
        for bad in [1 << 13, 1 << 62, 1 << 63, 4097] {
            let (mut here, there, segment) = ends(4096);
            segment.position(DIRECTION).store(bad, Ordering::Release);
            assert!(here.read(&mut [0; 64]).is_err() && here.arm(true, false), "{bad}");
            segment.position(READ).store(bad, Ordering::Release);
            assert!(here.write(&[IoSlice::new(&[0; 64])]).is_err(), "{bad}");
            drop(there);
        }
    }

    #[test]
    fn files_that_are_no_segments_are_refused() {
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

    /// A sealed segment keeps its size: nobody can take the memory away from under a reader.
    #[test]
    fn a_segment_cannot_be_truncated() {
        let (segment, file) = Segment::create(4096).unwrap();
        assert!(fs::ftruncate(&file, 0).is_err());
        let mut end = End::new(Arc::new(segment), true);
        assert_eq!(end.read(&mut [0; 8]).unwrap(), (0, false));
    }
}
