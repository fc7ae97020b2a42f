//! Lists of entries: pairs (index, count) with rising indices, written in the smallest of four forms. For benches and
//! fuzzing; no stable API.
//!
//! | form | content | smallest for |
//! |---|---|---|
//! | Rice (`rice.rs`) | gap and sign of each entry, in blocks | almost all lists |
//! | raw (`raw.rs`) | 32 bits per entry: sign and index | a few entries far apart |
//! | dense, 2 bits (`dense.rs`) | 2 bits per element: 0, +1, -1 | nearly every element with one quantum |
//! | dense, 16 bits (`dense.rs`) | 16 bits per element: a count | nearly every element with several quanta |
//!
//! The writer computes the size of each form and takes the smallest. The reader computes the same sizes from the
//! entries that it reads and refuses a list in another form. So each list has exactly one encoding, and every other
//! sequence of words is an error.
//!
//! Entries are read and written in blocks of 128. No list is unpacked as a whole.

mod dense;
pub(super) mod form;
mod raw;
mod rice;

use crate::codec::{BodyError, Form, bytes};
use crate::kernel::threshold::{Entry, MORE, QUANTA_MAX};
use crate::kernel::tier::Tier;

/// Entries per block.
pub const BLOCK: usize = 128;

/// The largest length in words of a list over `len` elements: that of the 16-bit dense form.
pub const fn words_max(len: usize) -> usize {
    len.div_ceil(2)
}

/// A block of entries, decoded.
#[derive(Clone, Debug)]
pub struct Block {
    index: [u32; BLOCK],
    count: [i32; BLOCK],
    len: usize,
}

impl Block {
    const fn new() -> Self {
        Self { index: [0; BLOCK], count: [0; BLOCK], len: 0 }
    }

    /// The entries, with rising indices.
    #[inline]
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let index = self.index[..self.len].iter();
        index.zip(&self.count[..self.len]).map(|(index, count)| Entry { index: *index, count: *count })
    }

    fn push(&mut self, entry: Entry) {
        (self.index[self.len], self.count[self.len]) = (entry.index, entry.count);
        self.len += 1;
    }
}

/// The properties of a list from which its form follows.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// Size of the Rice form in bits.
    rice_bits: u64,
    /// Some entry has more than one quantum.
    several: bool,
}

impl Sizes {
    /// The smallest form and its length in words, for `nnz` entries over `len` elements.
    fn smallest(&self, nnz: u32, len: usize) -> (Form, usize) {
        let rice = (Form::Rice, self.rice_bits.div_ceil(32) as usize);
        // The Rice writer also stores the word after its last full one, so it needs room for that.
        let mut best = if self.rice_bits / 32 < words_max(len) as u64 { rice } else { (Form::Dense16, words_max(len)) };
        for (form, words) in [(Form::Raw, nnz as usize), (Form::Dense2, len.div_ceil(16))] {
            if !self.several && words < best.1 {
                best = (form, words);
            }
        }
        best
    }
}

/// Writes a list of `nnz` entries over `len` elements. `entries` has the format of
/// [`take`](crate::kernel::threshold::take). Returns the form and the length in words, at most [`words_max`].
///
/// # Panics
/// If `body` is shorter than [`words_max`].
pub fn write(entries: &[u32], nnz: u32, len: usize, body: &mut [u32]) -> (Form, usize) {
    let limit = words_max(len);
    let several = entries.len() > nnz as usize;
    // The Rice form is almost always the smallest, so it is written while its size is counted. The writer stops when it
    // exceeds the limit.
    let rice_bits = Tier::best().run(|| rice::write(entries, several, &mut body[..limit]));
    let sizes = Sizes { rice_bits: rice_bits.unwrap_or(u64::MAX >> 8), several };
    let (form, words) = sizes.smallest(nnz, len);
    match form {
        Form::Rice => {}
        Form::Raw => raw::write(entries, body),
        Form::Dense2 => dense::write::<2>(entries, &mut body[..words]),
        Form::Dense16 => dense::write::<16>(entries, &mut body[..words]),
    }
    (form, words)
}

/// Reads a list block by block, and checks each block. After the last block it checks that the list is canonical.
#[derive(Debug)]
pub struct Reader<'a> {
    form: Form,
    words: &'a [u32],
    /// Elements of the vector.
    len: usize,
    /// Entries of the list.
    nnz: u32,
    /// Entries read so far.
    read: u32,
    /// The lowest index that the next entry can have.
    next: u32,
    /// Position of the next block in `words`: in bits (Rice), words (raw) or elements (dense).
    at: usize,
    /// Sizes of the entries read so far.
    sizes: Sizes,
    block: Block,
}

impl<'a> Reader<'a> {
    /// A reader of a list with `nnz` entries over `len` elements.
    ///
    /// # Errors
    /// [`BodyError::Entries`] if `words` or the vector is too short for so many entries.
    pub fn new(form: Form, nnz: u32, len: usize, words: &'a [u32]) -> Result<Self, BodyError> {
        let possible = match form {
            // The shortest entry has two bits: a sign and the end of a unary number.
            Form::Rice => words.len() * 16,
            Form::Raw => words.len(),
            Form::Dense2 | Form::Dense16 => len,
        };
        if nnz as usize > possible.min(len) {
            return Err(BodyError::Entries { limit: possible.min(len) as u32, got: nnz });
        }
        let (read, next, at) = (0, 0, 0);
        Ok(Self { form, words, len, nnz, read, next, at, sizes: Sizes::default(), block: Block::new() })
    }

    /// Reads the next block. `Ok(None)`: the list has ended, and is canonical.
    ///
    /// # Errors
    /// If the list is malformed or not canonical. Blocks before the error have been returned.
    #[inline(always)]
    pub fn next_block(&mut self) -> Result<Option<&Block>, BodyError> {
        let count = (self.nnz - self.read).min(BLOCK as u32) as usize;
        if count == 0 {
            return self.finish().map(|()| None);
        }
        let floor = self.next;
        self.block.len = 0;
        match self.form {
            Form::Rice => self.read_rice(count)?,
            Form::Raw => self.read_raw(count)?,
            Form::Dense2 => self.read_dense::<2>(count)?,
            Form::Dense16 => self.read_dense::<16>(count)?,
        }
        let last = self.block.index[count - 1];
        if last as usize >= self.len {
            return Err(BodyError::Index { limit: self.len as u32, got: last });
        }
        // For the comparison of sizes at the end; the Rice reader has counted its own bits.
        if self.form != Form::Rice {
            let (bits, several) = rice::cost(floor, &self.block);
            self.sizes.rice_bits += bits;
            self.sizes.several |= several;
        }
        self.next = last + 1;
        self.read += count as u32;
        Ok(Some(&self.block))
    }

    /// Checks the end of the list: no trailing words, padding of zeros, and the smallest form.
    fn finish(&mut self) -> Result<(), BodyError> {
        let used = match self.form {
            Form::Rice => {
                let rest = self.words.get(self.at / 32).map_or(0, |word| word >> (self.at % 32));
                if !self.at.is_multiple_of(32) && rest != 0 {
                    return Err(BodyError::Padding { got: rest });
                }
                self.at.div_ceil(32)
            }
            Form::Raw => self.at,
            Form::Dense2 => self.finish_dense::<2>()?,
            Form::Dense16 => self.finish_dense::<16>()?,
        };
        if used != self.words.len() {
            return Err(BodyError::Trailing { expected: bytes(used), got: bytes(self.words.len()) });
        }
        // A list in another form than the smallest would be a second encoding of the same entries.
        let (expected, _) = self.sizes.smallest(self.nnz, self.len);
        if expected != self.form {
            return Err(BodyError::Form { expected, got: self.form });
        }
        Ok(())
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.reader.block.len {
            self.at = 0;
            match self.reader.next_block() {
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.reader.block.len = 0;
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let block = &self.reader.block;
        self.at += 1;
        Some(Ok(Entry { index: block.index[self.at - 1], count: block.count[self.at - 1] }))
    }
}

/// The entries of a list one at a time: see [`Reader::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    /// Entries of the current block that have been returned.
    at: usize,
}

impl<'a> Reader<'a> {
    /// Iterates over single entries, for merging two lists. Slower than [`next_block`](Self::next_block). After an
    /// error, the items are unspecified.
    pub fn entries(self) -> Entries<'a> {
        Entries { reader: self, at: 0 }
    }
}

/// Index, and sign as ±1, from the first word of an entry.
const fn split(word: u32) -> (u32, i32) {
    (word & (MORE - 1), if word >> 31 == 0 { 1 } else { -1 })
}

/// The largest magnitude of a count.
const COUNT_MAX: i32 = QUANTA_MAX as i32;

#[cfg(test)]
mod tests;
