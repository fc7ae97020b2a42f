//! [`Given`]: the part of the application's contribution that is there.

use core::ops::Range;

use crate::buffer::Segment;
use crate::machine::Misuse;
use crate::ranges::Ranges;

/// The elements of the contribution that the application has written.
///
/// They belong to the contribution and not to the round: a round that begins anew in another view begins with the same
/// elements. The application may still write the others, so the buffer is not lent before all of it is there.
#[derive(Debug)]
pub(super) struct Given {
    ranges: Ranges,
    /// All of it is there, or it has no examples and is not read.
    whole: bool,
    /// Floats of the contribution.
    len: usize,
}

impl Given {
    pub(super) fn new(len: usize) -> Self {
        Self { ranges: Ranges::new(), whole: true, len }
    }

    /// A contribution begins. `whole`: all of it is there, or none of it is needed.
    pub(super) fn begin(&mut self, whole: bool) {
        self.ranges.clear();
        self.whole = whole || self.len == 0;
    }

    /// The application has written this range of the contribution.
    pub(super) fn add(&mut self, range: &Range<usize>) -> Result<(), Misuse> {
        let misuse = Misuse::Range { first: range.start, len: range.len() };
        if range.end > self.len || (self.whole && !range.is_empty()) {
            return Err(misuse);
        }
        self.ranges.add(range.clone()).map_err(|_| misuse)?;
        self.whole |= self.ranges.first_missing(self.len).is_none();
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Is this part of the contribution there?
    pub(super) fn has(&self, part: Segment) -> bool {
        self.whole || self.ranges.contains(&part.words())
    }
}
