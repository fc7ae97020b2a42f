//! How sparse quanta are written: sorted entries of (index, count) as the smallest of four forms.
//!
//! | form | bits | where it wins |
//! |---|---|---|
//! | Rice | gap and sign of each entry, [`rice`](self) | almost everywhere |
//! | raw | 32 per entry: sign and index | a handful of entries far apart |
//! | dense, 2 bits | per element: 0, +1, -1 | nearly every element has one quantum |
//! | dense, 16 bits | per element: a count | nearly every element has many |
//!
//! A list is counted before it is written, and a reader checks that what it reads is what a writer would have
//! written: one list has one form, and every other sequence of words is an error.
//!
//! Entries go in blocks of 128, read and written a block at a time: no list is ever unpacked as a whole.

mod dense;
pub(super) mod form;
mod raw;
mod rice;

use crate::codec::{BodyError, Form, bytes};
use crate::kernel::threshold::{Entry, MORE, QUANTA_MAX};
use crate::kernel::tier::Tier;

/// Entries that are coded together.
pub const BLOCK: usize = 128;

/// The most words that a list over `len` elements can take, in the smallest form.
pub const fn words_max(len: usize) -> usize {
    len.div_ceil(2)
}

/// A block of entries, unpacked.
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

    /// Its entries, in order.
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

/// What there is to write or was read, counted: from this follows the form.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Sizes {
    rice_bits: u64,
    several: bool,
}

impl Sizes {
    /// The smallest form, and its words; the first of equals.
    fn smallest(&self, nnz: u32, len: usize) -> (Form, usize) {
        let rice = (Form::Rice, self.rice_bits.div_ceil(32) as usize);
        // Rice needs room for the word after its last full one.
        let mut best = if self.rice_bits / 32 < words_max(len) as u64 { rice } else { (Form::Dense16, words_max(len)) };
        for (form, words) in [(Form::Raw, nnz as usize), (Form::Dense2, len.div_ceil(16))] {
            if !self.several && words < best.1 {
                best = (form, words);
            }
        }
        best
    }
}

/// Writes `nnz` entries, as [`take`](crate::kernel::threshold::take) lists them, over `len` elements from index 0.
/// Returns the form and the words written: at most [`words_max`].
///
/// # Panics
/// When `body` is shorter than [`words_max`].
pub fn write(entries: &[u32], nnz: u32, len: usize, body: &mut [u32]) -> (Form, usize) {
    let limit = words_max(len);
    let several = entries.len() > nnz as usize;
    // Rice is written while it is counted, and given up as soon as it cannot be the smallest.
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

/// Reads a list a block at a time, checking each.
#[derive(Debug)]
pub struct Reader<'a> {
    form: Form,
    words: &'a [u32],
    len: usize,
    nnz: u32,
    /// Entries read.
    read: u32,
    /// Index after the last entry.
    next: u32,
    /// Where in `words` the next block begins, in bits, words or elements.
    at: usize,
    sizes: Sizes,
    block: Block,
}

impl<'a> Reader<'a> {
    /// A list of `nnz` entries over `len` elements.
    ///
    /// # Errors
    /// When there cannot be as many entries.
    pub fn new(form: Form, nnz: u32, len: usize, words: &'a [u32]) -> Result<Self, BodyError> {
        let possible = match form {
            // The shortest entry: a sign and the end of a unary number.
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

    /// The next block, or none at the end of the list.
    ///
    /// # Errors
    /// When the words are not what a writer writes. Blocks that came before were.
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
        if self.form != Form::Rice {
            let (bits, several) = rice::cost(floor, &self.block);
            self.sizes.rice_bits += bits;
            self.sizes.several |= several;
        }
        self.next = last + 1;
        self.read += count as u32;
        Ok(Some(&self.block))
    }

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
        let (expected, _) = self.sizes.smallest(self.nnz, self.len);
        if expected != self.form {
            return Err(BodyError::Form { expected, got: self.form });
        }
        Ok(())
    }
}

/// The entries of a list, one by one, until the first error.
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

/// See [`Reader::entries`].
#[derive(Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    at: usize,
}

impl<'a> Reader<'a> {
    /// One by one: slower than blocks, and what merging two lists needs.
    pub fn entries(self) -> Entries<'a> {
        Entries { reader: self, at: 0 }
    }
}

/// Sign and index of an entry's first word.
const fn split(word: u32) -> (u32, i32) {
    (word & (MORE - 1), if word >> 31 == 0 { 1 } else { -1 })
}

/// The most that a count can be.
const COUNT_MAX: i32 = QUANTA_MAX as i32;

#[cfg(test)]
mod tests;
