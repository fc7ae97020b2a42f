//! [`Window`]: a range of a segment, as a shader sees it through an aligned binding.

use gradwire_core::Segment;

use crate::commands::Part;
use crate::memory::ALIGNMENT;
use crate::wgpu;

/// A binding that covers a range of words. Bindings start at multiples of [`ALIGNMENT`] and segments at any word, so
/// the range begins some words into the binding.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Window<'a> {
    /// The range that is bound, aligned.
    pub(crate) part: Part<'a>,
    /// First word of the range, counted from the start of the binding.
    pub(crate) at: u32,
}

impl<'a> Window<'a> {
    /// The window on `count` words of a segment from word `first` on.
    pub(crate) fn new(buffer: &'a wgpu::Buffer, segment: Segment, first: usize, count: usize) -> Self {
        let start = segment.start + 4 * first as u64;
        let aligned = start / ALIGNMENT * ALIGNMENT;
        // wgpu rejects empty bindings, so an empty range binds one word.
        let len = (start - aligned + 4 * count as u64).max(4);
        Self { part: Part { buffer, start: aligned, len }, at: ((start - aligned) / 4) as u32 }
    }
}
