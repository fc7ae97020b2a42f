//! A stretch of a segment as a binding sees it.

use gradwire_core::Segment;

use crate::commands::Part;
use crate::memory::ALIGNMENT;
use crate::wgpu;

/// Bindings begin at multiples of 256 bytes; where the stretch begins in one is `at`, in words.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) part: Part<'a>,
    pub(crate) at: u32,
}

impl<'a> Window<'a> {
    /// `count` words of a segment, from word `first` on.
    pub(crate) fn new(buffer: &'a wgpu::Buffer, segment: Segment, first: usize, count: usize) -> Self {
        let start = segment.start + 4 * first as u64;
        let aligned = start / ALIGNMENT * ALIGNMENT;
        // An empty binding is none.
        let len = (start - aligned + 4 * count as u64).max(4);
        Self { part: Part { buffer, start: aligned, len }, at: ((start - aligned) / 4) as u32 }
    }
}
