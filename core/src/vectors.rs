//! The buffers of a machine, declared once each: name, length, and whether the buffer outlives a suspension.
//!
//! A role, a rule or an encoding asks for a vector and keeps the [`BufferId`] that it gets. The list of lengths that
//! the driver allocates, and the list of buffers that a checkpoint saves, follow from these declarations.

use alloc::vec::Vec;

use crate::buffer::BufferId;
use crate::saved::SavedBuffer;

/// Bytes of one float.
const FLOAT: usize = size_of::<f32>();

/// The declared buffers, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors(Vec<Vector>);

#[derive(Copy, Clone, Debug)]
struct Vector {
    /// For debugging a machine.
    #[allow(dead_code, reason = "read by Debug only")]
    name: &'static str,
    bytes: usize,
    keep: Keep,
}

/// The treatment of a buffer when the run is suspended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Its content is not needed.
    No,
    /// Its floats are saved.
    Floats,
    /// Its [`Section`](crate::codec::threshold::Section)s are saved.
    Sections,
}

impl Vectors {
    /// Declares a buffer of `len` floats that starts as zeros. A length of 0 declares a vector that this recipe does
    /// not use.
    pub(crate) fn floats(&mut self, name: &'static str, len: usize, keep: Keep) -> BufferId {
        self.bytes(name, len * FLOAT, keep)
    }

    /// Declares a buffer of any content, in bytes.
    pub(crate) fn bytes(&mut self, name: &'static str, bytes: usize, keep: Keep) -> BufferId {
        let id = BufferId(self.0.len() as u32);
        self.0.push(Vector { name, bytes, keep });
        id
    }

    /// Declares a buffer that has memory only while it is used: see [`Pool`](crate::Pool). It is written before it is read.
    pub(crate) fn brief(&mut self, name: &'static str) -> BufferId {
        self.bytes(name, 0, Keep::No)
    }

    /// Lengths in bytes, by id.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        self.0.iter().map(|vector| vector.bytes).collect()
    }

    /// The buffers that a checkpoint saves, in the order of their ids. Empty ones are left out.
    pub(crate) fn saved(&self) -> Vec<SavedBuffer> {
        let ids = (0..).map(BufferId);
        let saved = |(id, vector): (BufferId, &Vector)| match vector.keep {
            _ if vector.bytes == 0 => None,
            Keep::No => None,
            Keep::Floats => Some(SavedBuffer::Floats(id)),
            Keep::Sections => Some(SavedBuffer::Sections(id)),
        };
        ids.zip(&self.0).filter_map(saved).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_order_of_declaration_and_only_kept_vectors_are_saved() {
        let mut vectors = Vectors::default();
        let view = vectors.floats("view", 3, Keep::No);
        let residual = vectors.floats("residual", 3, Keep::Floats);
        let sections = vectors.bytes("sections", 16, Keep::Sections);
        let velocity = vectors.floats("velocity", 0, Keep::Floats);
        assert_eq!([view, residual, sections, velocity].map(|id| id.0), [0, 1, 2, 3]);
        assert_eq!(vectors.lengths(), [12, 12, 16, 0]);
        assert_eq!(vectors.saved(), [SavedBuffer::Floats(residual), SavedBuffer::Sections(sections)]);
    }
}
