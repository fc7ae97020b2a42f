//! Merges of a whole round: formulas that need the contributions of all workers at once.
//!
//! A merge rule holds the contributions as [`Rows`]. When the round ends, [`run`] merges them in blocks that stay in the
//! cache. Except for [`Formula::Adasum`], the result depends on the contributions alone and
//! not on their order, bit for bit: elements are sorted, and
//! whole vectors are added up in an order that follows from their contents ([`order`]).
//!
//! A contribution of 1e30 is a number like any other. Squares and sums are in f64, where they do not overflow.

pub mod adasum;
pub mod centre;
pub mod clip;
pub mod krum;
pub mod order;
pub mod radial;
pub mod trim;
pub mod vote;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::buffer::{BufferId, Segment};

/// Elements that are worked on at once.
pub(super) const BLOCK: usize = 256;

/// The contributions of a round: vectors of equal length, one behind the other in a buffer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    /// The first vector, or a part of it.
    pub first: Segment,
    /// Bytes from the beginning of a vector to that of the next.
    pub stride: u64,
    /// Number of vectors.
    pub count: u32,
    /// Memory that the kernels write: at least [`Formula::work_bytes`]. It holds the weights of the rows from the time that they
    /// are held on, so nothing else may use it.
    pub work: BufferId,
}

impl Rows {
    /// The vector with this number.
    pub const fn row(&self, index: u32) -> Segment {
        Segment { start: self.first.start + index as u64 * self.stride, ..self.first }
    }

    /// A part of each vector: `len` bytes from byte `start` on.
    pub const fn part(self, start: u64, len: u32) -> Self {
        Self { first: Segment { start: self.first.start + start, len, ..self.first }, ..self }
    }

    /// The vectors in the order of their numbers.
    pub(super) fn iter(self) -> impl Iterator<Item = Segment> {
        (0..self.count).map(move |index| self.row(index))
    }
}

/// How the contributions of a round become one vector.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Formula {
    /// The mean of each element without its `trim` smallest and `trim` largest values (Yin et al. 2018). At least one
    /// value stays: of n contributions at most (n - 1) / 2 are cut at each end.
    Trimmed {
        /// Values to cut at each end. `u32::MAX` leaves the median, which is the mean of the two middle values where
        /// their number is even.
        trim: u32,
    },
    /// The mean, weighted by examples, of contributions that are scaled down to the median of their norms.
    NormClip,
    /// The content of [`Kernel::Round::into`](super::Kernel::Round::into), moved `iterations` times by the mean,
    /// weighted by examples, of the ways to the contributions, each clipped to `radius` (Karimireddy et al. 2021).
    CentredClip {
        /// The longest way that a contribution moves the result, before the weights. Above 0.
        radius: f32,
        /// Number of moves.
        iterations: u32,
    },
    /// The mean, weighted by examples, of the `best` contributions with the nearest neighbours (Blanchard et al. 2017).
    Krum {
        /// Contributions that may be arbitrary. At most (n - 3) / 2 of n count as such.
        faulty: u32,
        /// Contributions to take, at least 1.
        best: u32,
    },
    /// Pairs, then pairs of pairs, in the order of the rows: added up where they are orthogonal, averaged where they are
    /// parallel (Maleki et al. 2021). Weights have no effect.
    Adasum,
    /// The mean norm in the direction of the mean of the directions, both weighted by examples.
    Radial,
    /// ±`length` by the majority of the signs of each element (Bernstein et al. 2018). The sign of 0 is plus. A tie gives the
    /// opposite sign of the content of [`Kernel::Round::into`](super::Kernel::Round::into), the result of the last round.
    /// Weights have no effect.
    Vote {
        /// The magnitude of every element of the result, above 0.
        length: f32,
    },
}

impl Formula {
    /// Does each tensor have factors of its own? A kernel then gets the [part](Rows::part) of a tensor.
    pub const fn is_per_tensor(&self) -> bool {
        matches!(self, Self::Adasum | Self::Radial)
    }

    /// Does the result depend on that of the round before?
    pub const fn has_state(&self) -> bool {
        matches!(self, Self::CentredClip { .. } | Self::Vote { .. })
    }

    /// Bytes of [`Rows::work`] for so many rows.
    pub const fn work_bytes(&self, rows: usize) -> usize {
        let rest = match self {
            Self::Trimmed { .. } => rows * BLOCK * 4,
            Self::NormClip | Self::CentredClip { .. } | Self::Radial | Self::Vote { .. } => 0,
            Self::Krum { .. } => (rows + 1) * rows * 8,
            Self::Adasum => rows * rows * 8,
        };
        rows * FACT + rest
    }
}

/// The facts about a row while a round is merged.
#[derive(Copy, Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fact {
    /// Examples behind the contribution.
    pub weight: u64,
    /// A number that belongs to the content, by which rows are ordered: the square of a norm or of a distance.
    pub square: f64,
    /// The factor of the row in the result.
    pub factor: f64,
    /// The number of the row.
    pub row: u64,
}

/// Bytes of a [`Fact`].
const FACT: usize = size_of::<Fact>();

/// The memory of a merge as the facts of the rows, and the rest.
fn split(work: &mut [u32], rows: usize) -> (&mut [Fact], &mut [u32]) {
    let (facts, rest) = work.split_at_mut(rows * FACT / 4);
    (<[Fact]>::mut_from_bytes(bytemuck::cast_slice_mut(facts)).expect("buffers start at a cache line"), rest)
}

/// Notes the weight of the contribution that is held as this row.
///
/// # Panics
/// If `work` has no room for the row.
pub fn hold(work: &mut [u32], row: usize, weight: u64) {
    let (facts, _) = split(work, row + 1);
    facts[row] = Fact { weight, square: 0.0, factor: 0.0, row: row as u64 };
}

/// Merges the `count` vectors that `row` returns into `into`. `work` holds their weights.
///
/// # Panics
/// If there is no vector, lengths differ, or `work` is too short.
pub fn run<'a>(formula: Formula, row: impl Fn(usize) -> &'a [f32], count: usize, work: &mut [u32], into: &mut [f32]) {
    assert!(count > 0 && (0..count).all(|index| row(index).len() == into.len()));
    let (facts, rest) = split(work, count);
    match formula {
        // A single contribution is the result, without the rounding of its product with its weight.
        _ if count == 1 && !formula.has_state() => into.copy_from_slice(row(0)),
        Formula::Trimmed { trim } => trim::trimmed(into, row, count, trim as usize, rest),
        Formula::NormClip => clip::to_median_norm(into, row, facts),
        Formula::CentredClip { radius, iterations } => centre::clipped(into, row, facts, radius.into(), iterations),
        Formula::Krum { faulty, best } => krum::nearest(into, row, facts, rest, [faulty as usize, best as usize]),
        Formula::Adasum => adasum::adasum(into, row, facts, rest),
        Formula::Radial => radial::radial(into, row, facts),
        Formula::Vote { length } => vote::majority(into, row, count, length),
    }
}

/// `into` = the sum of the rows times their factors, in f64, in the order of `facts`, rounded once.
fn combine<'a>(into: &mut [f32], row: impl Fn(usize) -> &'a [f32], facts: &[Fact]) {
    for start in (0..into.len()).step_by(BLOCK) {
        let into = &mut into[start..];
        let len = into.len().min(BLOCK);
        let mut sums = [0.0f64; BLOCK];
        for fact in facts {
            let x = &row(fact.row as usize)[start..start + len];
            super::tier::Tier::best().run(|| add(&mut sums, x, fact.factor));
        }
        into[..len].iter_mut().zip(sums).for_each(|(into, sum)| *into = sum as f32);
    }
}

#[inline(always)]
fn add(sums: &mut [f64; BLOCK], x: &[f32], factor: f64) {
    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x) * factor);
}

#[cfg(test)]
pub(super) mod tests;
