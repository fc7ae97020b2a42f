//! Buffers: what machines name and drivers own.
//!
//! A machine never touches a parameter. It names a [`Segment`] of a buffer; the driver keeps the buffers in a
//! [`Pool`], lends them to transports (shared, without a copy) and runs kernels on them.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

/// A buffer of a machine, numbered as in [`Machine::buffers`](crate::Machine::buffers).
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// A range of bytes of one buffer. Start and length are multiples of four wherever floats are meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Segment {
    /// `len` floats of `buffer` from float `first` on.
    pub const fn floats(buffer: BufferId, first: usize, len: usize) -> Self {
        Self { buffer, start: first as u64 * 4, len: (len * 4) as u32 }
    }

    /// The first `len` bytes of the same range.
    pub const fn first(self, len: u32) -> Self {
        assert!(len <= self.len);
        Self { len, ..self }
    }

    /// Its words, in its buffer.
    pub(crate) const fn words(self) -> core::ops::Range<usize> {
        let start = self.start as usize / 4;
        start..start + self.len as usize / 4
    }

    fn range(self) -> core::ops::Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

/// One buffer's memory, seen as bytes, words, floats or integers. Cloning an `Arc` of it lends it.
///
/// It begins at a cache line, which vectors of 64 bytes then never straddle.
#[derive(Debug, Default)]
pub struct Storage {
    words: Vec<u32>,
    /// Where the first cache line begins.
    start: usize,
}

const LINE: usize = 64;

impl Storage {
    /// Zeroed memory for `len` bytes, rounded up to whole words.
    pub fn zeroed(len: usize) -> Self {
        // Not a type of that alignment: memory of it would not come zeroed, and be touched before it is needed.
        let words = vec![0; len.div_ceil(4) + LINE / 4 - 1];
        let start = words.as_ptr().align_offset(LINE).min(LINE / 4 - 1);
        let mut storage = Self { words, start };
        storage.words.truncate(start + len.div_ceil(4));
        storage
    }

    /// All of it as 32-bit words.
    pub fn words(&self) -> &[u32] {
        &self.words[self.start..]
    }

    /// All of it as 32-bit words.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words[self.start..]
    }

    /// All of it as bytes.
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.words())
    }

    /// All of it as bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.words_mut())
    }

    /// All of it as floats.
    pub fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(self.words())
    }

    /// All of it as floats.
    pub fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.words_mut())
    }
}

impl Clone for Storage {
    fn clone(&self) -> Self {
        let mut clone = Self::zeroed(self.words().len() * 4);
        clone.words_mut().copy_from_slice(self.words());
        clone
    }
}

/// A range of a buffer, lent without a copy. Whoever drops it ends the loan.
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

/// The buffers of one machine. Loans are shared; writing needs the only reference, which the machine's own
/// leases guarantee. Were a loan still out (a peer cut off in the middle of a copy), the write would get a
/// fresh copy of the buffer, and the reader would keep the old one.
#[derive(Debug, Default)]
pub struct Pool {
    buffers: Vec<Arc<Storage>>,
    /// Stands in for a buffer while a kernel writes to it.
    vacant: Arc<Storage>,
}

impl Pool {
    /// Zeroed buffers of these lengths in bytes.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let buffers = lengths.into_iter().map(|len| Arc::new(Storage::zeroed(len))).collect();
        Self { buffers, vacant: Arc::default() }
    }

    /// Bytes of a buffer.
    pub fn len(&self, buffer: BufferId) -> usize {
        self.buffers[buffer.0 as usize].words().len() * 4
    }

    /// Lends a range.
    pub fn lend(&self, segment: Segment) -> Lent {
        Lent { storage: self.share(segment.buffer), segment }
    }

    /// Lends a whole buffer.
    pub fn share(&self, buffer: BufferId) -> Arc<Storage> {
        Arc::clone(&self.buffers[buffer.0 as usize])
    }

    /// Puts `storage` in the place of a buffer and returns what was there: how large vectors change hands
    /// between threads without a copy.
    pub fn replace(&mut self, buffer: BufferId, storage: Arc<Storage>) -> Arc<Storage> {
        core::mem::replace(&mut self.buffers[buffer.0 as usize], storage)
    }

    /// Reads a range as bytes.
    pub fn bytes(&self, segment: Segment) -> &[u8] {
        &self.buffers[segment.buffer.0 as usize].bytes()[segment.range()]
    }

    /// Writes a range as bytes.
    pub fn bytes_mut(&mut self, segment: Segment) -> &mut [u8] {
        &mut Arc::make_mut(&mut self.buffers[segment.buffer.0 as usize]).bytes_mut()[segment.range()]
    }

    /// Reads a range as floats.
    pub fn floats(&self, segment: Segment) -> &[f32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// Reads a range as 32-bit words.
    pub fn words(&self, segment: Segment) -> &[u32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// Reads a range as integers.
    pub fn integers(&self, segment: Segment) -> &[i32] {
        bytemuck::cast_slice(self.bytes(segment))
    }

    /// Writes a range as floats.
    pub fn floats_mut(&mut self, segment: Segment) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.bytes_mut(segment))
    }

    /// Takes a buffer out, until it is put back with [`replace`](Self::replace).
    pub(crate) fn take(&mut self, buffer: BufferId) -> Arc<Storage> {
        let vacant = Arc::clone(&self.vacant);
        self.replace(buffer, vacant)
    }

    /// Runs `write` on `into` while the other buffers can be read.
    pub(crate) fn write<R>(&mut self, into: Segment, write: impl FnOnce(&Self, &mut [u8]) -> R) -> R {
        let mut storage = self.take(into.buffer);
        let result = write(self, &mut Arc::make_mut(&mut storage).bytes_mut()[into.range()]);
        self.buffers[into.buffer.0 as usize] = storage;
        result
    }
}

/// Floats and integers are written to the wire as they lie in memory.
#[cfg(target_endian = "big")]
compile_error!("gradwire's wire format is little-endian, and so must be the machine");
