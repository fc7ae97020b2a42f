//! What a machine needs to write vectors by a codec: a residual, sections, room to work in, and what changes from
//! message to message.

use alloc::vec::Vec;
use core::ops::Range;

use super::Setup;
use crate::buffer::{BufferId, Segment};
use crate::codec::threshold::{Aim, Section};
use crate::codec::topk;
use crate::kernel::{Coding, Kernel, Place};
use crate::recipe::{Codec, Control, Correction};

/// Buffers of an [`Encoding`].
pub(super) const BUFFERS: u32 = 4;

/// One direction of one node.
#[derive(Clone, Debug)]
pub(super) struct Encoding {
    codec: Codec,
    correction: Correction,
    /// The first of its buffers: residual, sections, scratch, velocity.
    first: u32,
    /// Ranges of the vector that are written apart: its shards.
    parts: Vec<Part>,
    /// Factor on a fixed threshold: the learning rate's.
    rate: f32,
    len: usize,
}

#[derive(Clone, Debug)]
struct Part {
    range: Range<usize>,
    /// Its sections among all.
    sections: Range<usize>,
    /// Elements of each.
    lens: Vec<u32>,
}

impl Encoding {
    /// `parts` are ranges of the vector in order; `first` is the first of [`BUFFERS`] buffers.
    pub(super) fn new(
        setup: &Setup,
        codec: Codec,
        correction: Correction,
        parts: impl IntoIterator<Item = Range<usize>>,
        first: u32,
    ) -> Self {
        let per_tensor = matches!(codec, Codec::Threshold(threshold) if threshold.per_tensor);
        let mut sections = 0;
        let parts = parts.into_iter().map(|range| {
            let lens = if per_tensor { cut(&setup.tensors, &range) } else { alloc::vec![range.len() as u32] };
            let before = sections;
            sections += lens.len();
            Part { range, sections: before..sections, lens }
        });
        Self { codec, correction, first, parts: parts.collect(), rate: 1.0, len: setup.len }
    }

    /// Kernels to run before all others.
    pub(super) fn kernels(&self) -> impl Iterator<Item = Kernel> + '_ {
        self.parts.iter().flat_map(move |part| {
            let mut first = 0;
            part.lens.iter().zip(part.sections.clone()).map(move |(len, index)| {
                let at = Segment { buffer: BufferId(self.first + 1), start: index as u64 * u64::from(SECTION), len: SECTION };
                let threshold = if let Codec::Threshold(threshold) = self.codec { threshold.tau } else { 0.0 };
                let section = Section { first, len: *len, threshold, bits: 0.0 };
                first += len;
                Kernel::Section { at, section }
            })
        })
    }

    /// Lengths of its buffers in bytes.
    pub(super) fn buffers(&self) -> [usize; BUFFERS as usize] {
        if self.codec == Codec::F32 {
            return [0; BUFFERS as usize];
        }
        let sections = self.parts.last().map_or(0, |part| part.sections.end);
        let longest = self.parts.iter().flat_map(|part| &part.lens).max().copied().unwrap_or(0) as usize;
        let scratch = if self.codec.is_sparse() { 8 * longest } else { 0 };
        let velocity = if self.momentum() > 0.0 { 4 * self.len } else { 0 };
        [4 * self.len, SECTION as usize * sections, scratch, velocity]
    }

    pub(super) fn set_rate(&mut self, rate: f32) {
        self.rate = rate;
    }

    pub(super) fn momentum(&self) -> f32 {
        self.correction.momentum
    }

    /// DL4J's clipping of the residual, in thresholds; 0 for none.
    pub(super) fn clip(&self) -> f32 {
        if let Codec::Threshold(threshold) = self.codec { threshold.clip } else { 0.0 }
    }

    /// How the `message`-th message of a part is written, counted from 1.
    pub(super) fn coding(&self, part: usize, message: u64) -> Coding {
        let density = |density| self.correction.density(message, density);
        let dense = message <= u64::from(self.correction.warmup);
        match self.codec {
            Codec::F32 => Coding::F32,
            Codec::Bf16 => Coding::Bf16,
            Codec::F16 => Coding::F16,
            Codec::Int8 => Coding::Int8,
            Codec::Sign => Coding::Sign,
            Codec::TopK(top) => {
                let density = if dense { 1.0 } else { density(top.density) };
                Coding::TopK { count: topk::count(self.parts[part].range.len(), density) as u32 }
            }
            Codec::Threshold(threshold) => {
                let mut aim = Aim { dense, ..Aim::of(&threshold, self.rate) };
                if let Control::Density { density: target } = &mut aim.control {
                    *target = density(*target);
                }
                Coding::Threshold(aim)
            }
        }
    }

    /// How a leaver's last message is written: everything that can be.
    pub(super) fn last_coding(&self, part: usize) -> Coding {
        match self.coding(part, u64::MAX) {
            Coding::Threshold(aim) => Coding::Threshold(Aim { dense: true, ..aim }),
            Coding::TopK { .. } => Coding::TopK { count: self.parts[part].range.len() as u32 },
            coding => coding,
        }
    }

    /// The most bytes that a body of a part can take, in any message.
    pub(super) fn len_max(&self, part: usize) -> usize {
        let part_ = &self.parts[part];
        self.last_coding(part).len_max(part_.range.len(), part_.lens.len())
    }

    pub(super) fn sections(&self, part: usize) -> Segment {
        let sections = &self.parts[part].sections;
        let start = sections.start as u64 * u64::from(SECTION);
        Segment { buffer: BufferId(self.first + 1), start, len: sections.len() as u32 * SECTION }
    }

    pub(super) fn residual(&self, part: usize) -> Segment {
        Segment::floats(BufferId(self.first), self.parts[part].range.start, self.parts[part].range.len())
    }

    pub(super) fn velocity(&self, part: usize) -> Segment {
        Segment { buffer: BufferId(self.first + 3), ..self.residual(part) }
    }

    /// Where a part is written to a body.
    pub(super) fn place(&self, part: usize, body: Segment) -> Place {
        Place { sections: self.sections(part), scratch: BufferId(self.first + 2), body }
    }
}

const SECTION: u32 = size_of::<Section>() as u32;

/// Lengths of the tensors' pieces in a range; what comes after the last tensor is one more piece.
fn cut(tensors: &[usize], range: &Range<usize>) -> Vec<u32> {
    let mut ends: Vec<usize> = tensors
        .iter()
        .scan(0, |end, len| {
            *end += len;
            Some(*end)
        })
        .filter(|end| range.start < *end && *end < range.end)
        .collect();
    ends.push(range.end);
    ends.dedup();
    let mut start = range.start;
    ends.into_iter().map(|end| (end - core::mem::replace(&mut start, end)) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_cut_where_ranges_end() {
        assert_eq!(cut(&[3, 4, 5], &(0..12)), [3, 4, 5]);
        assert_eq!(cut(&[3, 4, 5], &(2..8)), [1, 4, 1]);
        assert_eq!(cut(&[3, 0, 5], &(0..20)), [3, 5, 12]);
        assert_eq!(cut(&[12], &(4..6)), [2]);
    }
}
