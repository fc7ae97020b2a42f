//! Raw: one word per entry, the sign in the top bit, the index below (Strom 2015, section 2).

use super::{Reader, split};
use crate::codec::BodyError;
use crate::kernel::threshold::{Entry, MORE};

pub(super) fn write(entries: &[u32], body: &mut [u32]) {
    body[..entries.len()].copy_from_slice(entries);
}

impl Reader<'_> {
    pub(super) fn read_raw(&mut self, count: usize) -> Result<(), BodyError> {
        let mut floor = self.next;
        for word in &self.words[self.at..self.at + count] {
            let (index, count) = split(*word);
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
