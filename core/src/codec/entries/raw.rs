//! The raw form: one word per entry, with the sign in the top bit and the index below (Strom 2015, section 2).

use super::{Reader, split};
use crate::codec::BodyError;
use crate::kernel::threshold::{Entry, MORE};

/// Copies the entries: a list of single quanta from the kernel has this format already.
pub(super) fn write(entries: &[u32], body: &mut [u32]) {
    body[..entries.len()].copy_from_slice(entries);
}

impl Reader<'_> {
    /// Reads `count` entries into the block. `at` counts words.
    pub(super) fn read_raw(&mut self, count: usize) -> Result<(), BodyError> {
        let mut floor = self.next;
        for word in &self.words[self.at..self.at + count] {
            let (index, count) = split(*word);
            // This form has only single quanta, so the bit of a second word must be 0.
            if word & MORE != 0 {
                return Err(BodyError::Index { limit: self.len as u32, got: word & !(1 << 31) });
            }
            if index < floor {
                return Err(BodyError::Order { expected: floor, got: index });
            }
            floor = index + 1;
            self.block.push(Entry { index, count });
        }
        self.at += count;
        Ok(())
    }
}
