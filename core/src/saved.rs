//! The buffers besides the parameters that outlive a suspension: as words, to and from a pool.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::buffer::{BufferId, Pool, Segment};
use crate::codec::threshold::Section;
use crate::kernel::scan;

/// A buffer that outlives a suspension.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SavedBuffer {
    /// A residual, or a velocity.
    Floats(BufferId),
    /// [`Section`]s with the thresholds of a codec.
    Sections(BufferId),
}

/// Words that cannot have been kept from this buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum RestoreError {
    /// Of another length, in words.
    Length { expected: usize, got: usize },
    /// A float that is not finite, or a number that is no threshold.
    Number { index: usize },
    /// A section of other elements.
    Section { index: usize },
}

impl SavedBuffer {
    /// The present content as words. Allocates them.
    pub fn save(self, pool: &Pool) -> Vec<u32> {
        pool.share(self.buffer()).words().to_vec()
    }

    /// Puts back the kept words, after the kernels that a machine begins with.
    ///
    /// # Errors
    /// When it does not fit, or cannot have been kept: then nothing has changed.
    pub fn restore(self, pool: &mut Pool, words: &[u32]) -> Result<(), RestoreError> {
        let mut storage = pool.share(self.buffer());
        let (expected, got) = (storage.words().len(), words.len());
        if expected != got {
            return Err(RestoreError::Length { expected, got });
        }
        match self {
            Self::Floats(_) => {
                if let Some(index) = scan::first_non_finite(bytemuck::cast_slice(words)) {
                    return Err(RestoreError::Number { index });
                }
            }
            Self::Sections(_) => {
                let there = <[Section]>::ref_from_bytes(storage.words().as_bytes()).unwrap_or_default();
                let came = <[Section]>::ref_from_bytes(words.as_bytes()).unwrap_or_default();
                for (index, (there, came)) in there.iter().zip(came).enumerate() {
                    if (there.first, there.len) != (came.first, came.len) {
                        return Err(RestoreError::Section { index });
                    }
                    let plausible = |x: f32| x.is_finite() && x >= 0.0;
                    if !plausible(came.threshold) || !plausible(came.bits) {
                        return Err(RestoreError::Number { index });
                    }
                }
            }
        }
        Arc::make_mut(&mut storage).words_mut().copy_from_slice(words);
        pool.replace(self.buffer(), storage);
        Ok(())
    }

    /// All of its buffer.
    pub fn whole(self, pool: &Pool) -> Segment {
        Segment::floats(self.buffer(), 0, pool.len(self.buffer()) / 4)
    }

    fn buffer(self) -> BufferId {
        match self {
            Self::Floats(buffer) | Self::Sections(buffer) => buffer,
        }
    }
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, got } => write!(f, "expected {expected} words of what was kept, got {got}"),
            Self::Number { index } => write!(f, "expected numbers that can have been kept, got another at {index}"),
            Self::Section { index } => write!(f, "expected section {index} to be of the same elements, got others"),
        }
    }
}

impl core::error::Error for RestoreError {}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTIONS: SavedBuffer = SavedBuffer::Sections(BufferId(1));

    fn pool() -> Pool {
        let mut pool = Pool::new([12, 32]);
        let sections = [section(0, 4, 0.5), section(4, 2, 0.25)];
        let words: Vec<u32> =
            sections.iter().flat_map(|it| it.as_bytes().to_vec()).collect::<Vec<u8>>().chunks(4).map(word).collect();
        let mut storage = pool.share(BufferId(1));
        Arc::make_mut(&mut storage).words_mut().copy_from_slice(&words);
        pool.replace(BufferId(1), storage);
        pool
    }

    fn word(bytes: &[u8]) -> u32 {
        u32::from_le_bytes(bytes.try_into().unwrap())
    }

    fn section(first: u32, len: u32, threshold: f32) -> Section {
        Section { first, len, threshold, bits: 0.0 }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let mut there = pool();
        let (floats, kept) = (SavedBuffer::Floats(BufferId(0)), [1.0f32, -0.0, f32::MIN_POSITIVE].map(f32::to_bits));
        assert_eq!(floats.restore(&mut there, &kept), Ok(()));
        assert_eq!(floats.save(&there), kept);
        let mut sections = SECTIONS.save(&there);
        sections[2] = 2.0f32.to_bits();
        assert_eq!(SECTIONS.restore(&mut there, &sections), Ok(()));
        assert_eq!(SECTIONS.save(&there), sections);
    }

    #[test]
    fn what_cannot_have_been_kept_is_refused_and_changes_nothing() {
        let mut there = pool();
        let floats = SavedBuffer::Floats(BufferId(0));
        assert_eq!(floats.restore(&mut there, &[0; 4]), Err(RestoreError::Length { expected: 3, got: 4 }));
        let bad = [0, f32::NAN.to_bits(), 0];
        assert_eq!(floats.restore(&mut there, &bad), Err(RestoreError::Number { index: 1 }));
        let before = SECTIONS.save(&there);
        for (at, value, expected) in [
            (1, 5, RestoreError::Section { index: 0 }),
            (4, 3, RestoreError::Section { index: 1 }),
            (6, f32::INFINITY.to_bits(), RestoreError::Number { index: 1 }),
            (3, (-1.0f32).to_bits(), RestoreError::Number { index: 0 }),
        ] {
            let mut words = before.clone();
            words[at] = value;
            assert_eq!(SECTIONS.restore(&mut there, &words), Err(expected));
        }
        assert_eq!((floats.save(&there), SECTIONS.save(&there)), (alloc::vec![0; 3], before));
    }
}
