//! The dense forms: a count of `BITS` bits per element in two's complement, 0 for elements without an entry. Elements
//! fill a word from its lowest bits up.

use super::{COUNT_MAX, Reader};
use crate::codec::BodyError;
use crate::kernel::threshold::{self, Entry};

/// True for the one value of `BITS` bits that is not a valid count: -2 in two bits, -2^15 in sixteen.
const fn is_invalid<const BITS: u32>(count: i32) -> bool {
    count == -(1 << (BITS - 1))
}

pub(super) fn write<const BITS: u32>(entries: &[u32], body: &mut [u32]) {
    body.fill(0);
    let per_word = 32 / BITS;
    for entry in threshold::read(entries) {
        let field = (entry.count as u32) & ((1 << BITS) - 1);
        body[(entry.index / per_word) as usize] |= field << (entry.index % per_word * BITS);
    }
}

/// The count of an element, sign-extended from its `BITS` bits in `word`.
fn count<const BITS: u32>(word: u32, element: usize) -> i32 {
    // Shift the field to the top, then arithmetically down: that extends the sign.
    let up = 32 - BITS - (element as u32 % (32 / BITS)) * BITS;
    (word << up) as i32 >> (32 - BITS)
}

impl Reader<'_> {
    /// Reads elements into the block until it has `wanted` entries. `at` counts elements.
    pub(super) fn read_dense<const BITS: u32>(&mut self, wanted: usize) -> Result<(), BodyError> {
        while self.block.len < wanted {
            let element = self.at;
            let word = self.words.get(element / (32 / BITS as usize)).copied().filter(|_| element < self.len);
            let word = word.ok_or(BodyError::Entries { limit: self.read + self.block.len as u32, got: self.nnz })?;
            let count = count::<BITS>(word, element);
            if is_invalid::<BITS>(count) {
                return Err(BodyError::Count { limit: COUNT_MAX as u32, index: element as u32 });
            }
            if count != 0 {
                self.block.push(Entry { index: element as u32, count });
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Checks that the elements after the last entry are 0, padding included. Returns the length of the form in words.
    pub(super) fn finish_dense<const BITS: u32>(&self) -> Result<usize, BodyError> {
        let per_word = 32 / BITS as usize;
        let first = self.words.get(self.at / per_word).map_or(0, |word| {
            let used = (self.at % per_word) as u32 * BITS;
            word >> used << used
        });
        let rest = self.words.iter().skip(self.at / per_word + 1).copied();
        match core::iter::once(first).chain(rest).find(|word| *word != 0) {
            Some(got) => Err(BodyError::Padding { got }),
            None => Ok(self.len.div_ceil(per_word)),
        }
    }
}
