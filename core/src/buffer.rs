//! Buffers of a machine: [`BufferId`] and [`Segment`] name memory, [`Pool`] and [`Storage`] hold it.
//!
//! A machine names segments of buffers and never accesses them. Its driver keeps the buffers in a [`Pool`], lends them
//! to transports without a copy ([`Lent`]), and runs kernels on them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// The number of a buffer of a machine: an index into [`Machine::buffers`](crate::Machine::buffers).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// A range of bytes of one buffer. Start and length are multiples of 4 where the bytes are floats, integers or words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The buffer that contains the range.
    pub buffer: BufferId,
    /// Offset of the first byte in the buffer.
    pub start: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Segment {
    /// The range of `len` floats of `buffer` that starts at float `first`.
    ///
    /// # Panics
    /// If its length in bytes does not fit 32 bits. [`Recipe::check_cluster`](crate::Recipe::check_cluster) refuses
    /// vectors for which that could happen.
    pub const fn floats(buffer: BufferId, first: usize, len: usize) -> Self {
        assert!(len <= u32::MAX as usize / 4);
        Self { buffer, start: first as u64 * 4, len: (len * 4) as u32 }
    }

    /// The first `len` bytes of the same range.
    ///
    /// # Panics
    /// If the range is shorter than `len`.
    pub const fn first(self, len: u32) -> Self {
        assert!(len <= self.len);
        Self { len, ..self }
    }

    /// The range as indices of 32-bit words in its buffer.
    pub(crate) const fn words(self) -> core::ops::Range<usize> {
        let start = self.start as usize / 4;
        start..start + self.len as usize / 4
    }

    fn range(self) -> core::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// The memory of one buffer, readable as bytes, words or floats. A buffer is lent by cloning an `Arc` of its storage.
///
/// It starts at a cache line of 64 bytes, so that 64-byte vector loads never straddle two lines.
#[derive(Debug, Default)]
pub struct Storage(Place);

/// Where the words of a storage lie.
#[derive(Debug)]
enum Place {
    /// In an allocation. `start`: index of the word at which the first cache line starts. The words before it are padding.
    Heap { words: Vec<u32>, start: usize },
    /// In memory of the driver. `bytes`: the length in use. `allocate` makes the memory of copies.
    Driver { memory: Box<dyn Memory>, bytes: usize, allocate: Allocate },
}

/// Memory that a driver provides for large buffers, for instance in huge pages.
pub trait Memory: AsRef<[u8]> + AsMut<[u8]> + core::fmt::Debug + Send + Sync {}

impl<M: AsRef<[u8]> + AsMut<[u8]> + core::fmt::Debug + Send + Sync> Memory for M {}

/// Makes a storage of zeros with a length in bytes, as [`Storage::zeroed`] does.
pub type Allocate = fn(usize) -> Storage;

const LINE: usize = 64;

impl Default for Place {
    fn default() -> Self {
        Self::Heap { words: Vec::new(), start: 0 }
    }
}

impl Storage {
    /// Allocates zeroed memory for `len` bytes, rounded up to whole words.
    pub fn zeroed(len: usize) -> Self {
        // `vec![0u32]` gets zeroed pages from the system without touching them. A vector of a type with an alignment of
        // 64 would be written at once, which takes time and memory for buffers that may never be used.
        let mut words = vec![0; len.div_ceil(4) + LINE / 4 - 1];
        let start = words.as_ptr().align_offset(LINE).min(LINE / 4 - 1);
        // Truncating keeps the allocation, so the alignment stays.
        words.truncate(start + len.div_ceil(4));
        Self(Place::Heap { words, start })
    }

    /// A storage in memory of the driver: its first `len` bytes, rounded up to whole words. The driver has set them to
    /// zero. `allocate` makes the storage of a copy.
    ///
    /// # Panics
    /// If the memory is too short, or does not start at a cache line.
    pub fn in_memory(memory: Box<dyn Memory>, len: usize, allocate: Allocate) -> Self {
        let (bytes, whole) = (len.next_multiple_of(4), (*memory).as_ref());
        assert!(whole.len() >= bytes, "memory: expected at least {bytes} bytes, got {}", whole.len());
        assert!(whole.as_ptr().align_offset(LINE) == 0, "memory: expected the start of a cache line");
        Self(Place::Driver { memory, bytes, allocate })
    }

    /// The whole buffer as 32-bit words.
    pub fn words(&self) -> &[u32] {
        match &self.0 {
            Place::Heap { words, start } => &words[*start..],
            Place::Driver { memory, bytes, .. } => bytemuck::cast_slice(&(**memory).as_ref()[..*bytes]),
        }
    }

    /// The whole buffer as 32-bit words, for writing.
    pub fn words_mut(&mut self) -> &mut [u32] {
        match &mut self.0 {
            Place::Heap { words, start } => &mut words[*start..],
            Place::Driver { memory, bytes, .. } => bytemuck::cast_slice_mut(&mut (**memory).as_mut()[..*bytes]),
        }
    }

    /// The whole buffer as bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.words())
    }

    /// The whole buffer as bytes, for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.words_mut())
    }

    /// The whole buffer as floats.
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.words())
    }

    /// The whole buffer as floats, for writing.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.words_mut())
    }
}

impl Clone for Storage {
    /// Copies the content into new memory of the same kind. The padding is not copied, because a new allocation may need
    /// another one.
    fn clone(&self) -> Self {
        let allocate = match self.0 {
            Place::Heap { .. } => Self::zeroed,
            Place::Driver { allocate, .. } => allocate,
        };
        let mut clone = allocate(self.words().len() * 4);
        clone.words_mut().copy_from_slice(self.words());
        clone
    }
}

/// A range of a buffer, lent without a copy. The loan ends when the value is dropped.
#[derive(Clone, Debug)]
pub struct Lent {
    storage: Arc<Storage>,
    segment: Segment,
}

impl Lent {
    /// The lent bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.segment.range()]
    }
}

/// The buffers of one machine, owned by its driver.
///
/// Loans are read-only and shared. A machine does not ask for a write to a buffer that it has lent, so a write normally
/// finds the only reference and copies nothing. If a loan is still out (for instance in a thread whose connection was
/// cut while it copied), the write goes to a fresh copy of the buffer, and the borrower keeps the old content.
///
/// ```
/// use gradwire_core::{BufferId, Pool, Segment};
///
/// let mut pool = Pool::new([4 * 8, 4 * 2]); // two buffers, of 8 and of 2 floats
/// let tail = Segment::floats(BufferId(0), 6, 2);
/// pool.floats_mut(tail).copy_from_slice(&[1.0, 2.0]);
///
/// let lent = pool.lend(tail); // shares the memory
/// pool.floats_mut(tail)[0] = 5.0; // copies the buffer first, because it is lent
/// assert_eq!(lent.bytes(), [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat());
/// assert_eq!(pool.floats(tail), [5.0, 2.0]);
/// ```
///
/// A buffer that is declared with length 0 is *brief*: it has memory only while the machine needs it. It
/// [grows](Self::make_room) before a write beyond its end, and a machine [gives its memory
/// back](crate::kernel::Kernel::Release).
#[derive(Debug)]
pub struct Pool {
    buffers: Vec<Arc<Storage>>,
    /// By buffer: it is brief.
    brief: Vec<bool>,
    allocate: Allocate,
    /// An empty placeholder for a buffer that [`take`](Self::take) has taken out.
    vacant: Arc<Storage>,
}

impl Default for Pool {
    fn default() -> Self {
        Self::new([])
    }
}

/// Bytes up to which a brief buffer grows in powers of two, so that bodies of varying length seldom make it grow. A longer
/// one gets the length that is needed.
const STEPPED: usize = 1 << 20;

impl Pool {
    /// Allocates zeroed buffers with these lengths in bytes.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        Self::allocated(lengths, Storage::zeroed)
    }

    /// As [`new`](Self::new), in storages that `allocate` makes.
    pub fn allocated(lengths: impl IntoIterator<Item = usize>, allocate: Allocate) -> Self {
        let mut brief = Vec::new();
        let buffers = lengths.into_iter().inspect(|len| brief.push(*len == 0)).map(|len| Arc::new(allocate(len)));
        Self { buffers: buffers.collect(), brief, allocate, vacant: Arc::default() }
    }

    /// Lets a brief buffer grow to `bytes`, if it is shorter. Its content stays, and zeros follow. Drivers call this before
    /// they write a body to a buffer, and executors before they run a kernel.
    pub fn make_room(&mut self, buffer: BufferId, bytes: usize) {
        let index = buffer.0 as usize;
        if !self.brief[index] || self.len(buffer) >= bytes {
            return;
        }
        let len = if bytes < STEPPED { bytes.next_power_of_two().max(4 * LINE) } else { bytes };
        let mut grown = (self.allocate)(len);
        let old = self.buffers[index].bytes();
        grown.bytes_mut()[..old.len()].copy_from_slice(old);
        self.buffers[index] = Arc::new(grown);
    }

    /// As [`make_room`](Self::make_room), for a range that is about to be written.
    pub fn make_room_for(&mut self, segment: Segment) {
        self.make_room(segment.buffer, segment.range().end);
    }

    /// Gives back the memory of a brief buffer. Its length is 0 then.
    pub(crate) fn release(&mut self, buffer: BufferId) {
        let index = buffer.0 as usize;
        if self.brief[index] {
            self.buffers[index] = Arc::clone(&self.vacant);
        }
    }

    /// Bytes of all buffers as they are now.
    pub fn bytes_held(&self) -> usize {
        self.buffers.iter().map(|storage| storage.words().len() * 4).sum()
    }

    /// Length of a buffer in bytes, rounded up to whole words.
    pub fn len(&self, buffer: BufferId) -> usize {
        self.buffers[buffer.0 as usize].words().len() * 4
    }

    /// Lends a range, without a copy.
    pub fn lend(&self, segment: Segment) -> Lent {
        Lent { storage: self.share(segment.buffer), segment }
    }

    /// Lends a whole buffer, without a copy.
    pub fn share(&self, buffer: BufferId) -> Arc<Storage> {
        Arc::clone(&self.buffers[buffer.0 as usize])
    }

    /// Replaces the storage of a buffer and returns the previous one. Large vectors change threads in this way, without
    /// a copy.
    pub fn replace(&mut self, buffer: BufferId, storage: Arc<Storage>) -> Arc<Storage> {
        core::mem::replace(&mut self.buffers[buffer.0 as usize], storage)
    }

    /// The bytes of a range.
    pub fn bytes(&self, segment: Segment) -> &[u8] {
        &self.buffers[segment.buffer.0 as usize].bytes()[segment.range()]
    }

    /// The bytes of a range, for writing. Copies the whole buffer first if it is lent.
    pub fn bytes_mut(&mut self, segment: Segment) -> &mut [u8] {
        &mut Arc::make_mut(&mut self.buffers[segment.buffer.0 as usize]).bytes_mut()[segment.range()]
    }

    /// The floats of a range.
    pub fn floats(&self, segment: Segment) -> &[f32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// The 32-bit words of a range.
    pub fn words(&self, segment: Segment) -> &[u32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// The 32-bit integers of a range.
    pub fn integers(&self, segment: Segment) -> &[i32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// The floats of a range, for writing. Copies the whole buffer first if it is lent.
    pub fn floats_mut(&mut self, segment: Segment) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut(segment))
    }

    /// Takes a buffer out of the pool. The caller puts it back with [`replace`](Self::replace).
    pub(crate) fn take(&mut self, buffer: BufferId) -> Arc<Storage> {
        let vacant = Arc::clone(&self.vacant);
        self.replace(buffer, vacant)
    }

    /// Runs `write` on the bytes of `into`, with read access to all other buffers. During the call, the buffer of
    /// `into` is empty in the pool.
    pub(crate) fn write<R>(&mut self, into: Segment, write: impl FnOnce(&Self, &mut [u8]) -> R) -> R {
        // Taken out, so that `write` can borrow the pool and the buffer at once.
        let mut storage = self.take(into.buffer);
        let result = write(self, &mut Arc::make_mut(&mut storage).bytes_mut()[into.range()]);
        self.buffers[into.buffer.0 as usize] = storage;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of a driver that marks its copies: a cache line of 8 words or more.
    #[derive(Debug)]
    #[repr(align(64))]
    struct Lines([u8; 128]);

    impl AsRef<[u8]> for Lines {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl AsMut<[u8]> for Lines {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    fn lines(len: usize) -> Storage {
        Storage::in_memory(Box::new(Lines([0; 128])), len, lines)
    }

    /// A write to a lent buffer goes to a copy, which lies in memory of the same kind.
    #[test]
    fn copies_of_a_buffer_lie_in_memory_of_the_driver() {
        let mut pool = Pool::allocated([40, 7], lines);
        assert_eq!([0, 1].map(|buffer| pool.len(BufferId(buffer))), [40, 8]);
        let whole = Segment::floats(BufferId(0), 0, 10);
        pool.floats_mut(whole)[9] = 1.0;
        let lent = pool.lend(whole);
        pool.floats_mut(whole)[9] = 2.0;
        assert_eq!(lent.bytes()[36..], 1f32.to_le_bytes());
        assert_eq!(pool.floats(whole)[9], 2.0);
        let copy = pool.share(BufferId(0));
        assert!(matches!(copy.0, Place::Driver { bytes: 40, .. }), "{copy:?}");
    }

    /// A brief buffer grows with what is written to it, keeps its content then, and gives back its memory. Other buffers have
    /// one length.
    #[test]
    fn a_brief_buffer_has_the_memory_that_is_written() {
        let mut pool = Pool::new([0, 8]);
        assert_eq!(pool.bytes_held(), 8);
        let part = |len| Segment::floats(BufferId(0), 0, len);
        pool.make_room_for(part(3));
        pool.floats_mut(part(3)).copy_from_slice(&[1.0, 2.0, 3.0]);
        let lent = pool.lend(part(3));
        pool.make_room_for(part(1000));
        assert_eq!(pool.floats(part(4)), [1.0, 2.0, 3.0, 0.0]);
        assert_eq!(lent.bytes().len(), 12);
        pool.make_room(BufferId(0), STEPPED + 4);
        assert_eq!(pool.bytes_held(), STEPPED + 12);
        [0, 1].into_iter().for_each(|buffer| pool.release(BufferId(buffer)));
        pool.make_room(BufferId(1), 100);
        assert_eq!([0, 1].map(|buffer| pool.len(BufferId(buffer))), [0, 8]);
    }

    #[test]
    #[should_panic(expected = "expected at least 132 bytes, got 128")]
    fn memory_that_is_too_short_is_refused() {
        lines(129);
    }
}

// Bodies are sent as they lie in memory, and the wire format is little-endian.
#[cfg(target_endian = "big")]
compile_error!("gradwire requires a little-endian target: vectors are sent as they lie in memory");
