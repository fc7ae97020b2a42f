//! Sign per column: one bit per element, and for each column of a tensor the mean of its positive and of its negative
//! elements (1-bit SGD, Seide et al. 2014, section 3.1). For the gpu crate, benches and fuzzing; no stable API.
//!
//! ```text
//! for each column:  plus  = mean of x where x >= 0;   minus = mean of -x where x < 0;   x = residual + update
//! x is decoded as plus or -minus;   residual = x - decoded
//! ```
//! The two means are the best values for given bits, and the residual sums to 0 for each column and sign, up to rounding. A
//! *column* is the elements of a tensor with the same last index: the weights of an output unit, where a layer computes
//! `x W`. A tensor with fewer than two dimensions, or with fewer than [`ROWS_MIN`] elements per column, is one column,
//! because means would take more bits than signs.
//!
//! A body is the means, for each column of a block of [`WIDTH`] the positive one and then, for the same columns, the negative
//! one, then the signs of all elements, a set bit for minus. A column without elements of a sign has mean 0 for it.
//!
//! Sums are in f64, in which the mean of equal floats is that float. So bodies are canonical.

use super::threshold::Section;
use super::{BodyError, Dense, squares};
use crate::kernel::tier::Tier;

/// Fewest elements per column of a tensor whose columns are coded apart.
pub const ROWS_MIN: usize = 32;

/// Columns that are summed in one pass over the rows: their sums stay in the cache.
pub const WIDTH: usize = 128;

/// Columns of a tensor of `len` elements whose last dimension is `last`.
pub fn columns(len: usize, last: usize) -> usize {
    if last > 0 && len / last >= ROWS_MIN { last } else { 1 }
}

/// A piece of a tensor in the vector, as a shard has it. Encoders and decoders keep it where other codecs keep the
/// [`Section`] of a range.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index of the first element in the vector.
    pub first: u32,
    /// Number of elements.
    pub len: u32,
    /// Columns of the tensor, at least 1.
    pub columns: u32,
    /// The column of the first element.
    pub phase: u32,
}

impl Piece {
    /// The section in whose place this is kept. Its floats are never computed with.
    pub const fn section(self) -> Section {
        let Self { first, len, columns, phase } = self;
        Section { first, len, threshold: f32::from_bits(columns), bits: f32::from_bits(phase) }
    }

    const fn of(section: &Section) -> Self {
        let Section { first, len, threshold, bits } = *section;
        Self { first, len, columns: threshold.to_bits(), phase: bits.to_bits() }
    }

    const fn is_one_column(&self) -> bool {
        self.columns == 1
    }

    /// Blocks of columns: the first one of each, and their number. A piece of one column is summed in as many lanes as a
    /// block has columns.
    fn blocks(self) -> impl Iterator<Item = (usize, usize)> {
        let columns = if self.is_one_column() { WIDTH } else { self.columns as usize };
        (0..columns).step_by(WIDTH).map(move |first| (first, WIDTH.min(columns - first)))
    }

    /// Calls `visit` for each row with the elements in a block of columns: the place of the first in the block, and their
    /// range in the piece.
    #[inline(always)]
    fn rows(&self, (first, width): (usize, usize), mut visit: impl FnMut(usize, core::ops::Range<usize>)) {
        let columns = if self.is_one_column() { WIDTH } else { self.columns as usize };
        // Positions count from the start of the row in which the piece begins.
        let (phase, end) = (self.phase as usize, (self.phase + self.len) as usize);
        let mut row = 0;
        while row < end {
            let (from, to) = ((row + first).max(phase), (row + first + width).min(end));
            if from < to {
                visit(from - row - first, from - phase..to - phase);
            }
            row += columns;
        }
    }
}

/// Words of the means of these pieces.
pub fn means(pieces: impl IntoIterator<Item = Piece>) -> usize {
    pieces.into_iter().map(|piece| 2 * piece.columns as usize).sum()
}

/// Length of a body in words, for `len` elements with so many words of means.
pub const fn words(len: usize, means: usize) -> usize {
    means + len.div_ceil(32)
}

/// Sums, and numbers of elements, of a block of columns: of each sign.
struct Sums {
    sums: [[f64; WIDTH]; 2],
    counts: [[u32; WIDTH]; 2],
}

impl Sums {
    #[inline(always)]
    fn of(piece: &Piece, block: (usize, usize), x: &[f32]) -> Self {
        let mut all = Self { sums: [[0.0; WIDTH]; 2], counts: [[0; WIDTH]; 2] };
        let [plus, minus] = &mut all.sums;
        let [pluses, minuses] = &mut all.counts;
        piece.rows(block, |at, range| {
            // Slices of one length, so that the loop has no checks of bounds, which would keep it from vector instructions.
            let (x, lanes) = (&x[range.clone()], at..at + range.len());
            let (plus, minus) = (&mut plus[lanes.clone()], &mut minus[lanes.clone()]);
            let (pluses, minuses) = (&mut pluses[lanes.clone()], &mut minuses[lanes]);
            let sums = plus.iter_mut().zip(minus).zip(pluses.iter_mut().zip(minuses));
            for (x, ((plus, minus), (pluses, minuses))) in x.iter().zip(sums) {
                let negative = *x < 0.0;
                *plus += if negative { 0.0 } else { f64::from(*x) };
                *minus -= if negative { f64::from(*x) } else { 0.0 };
                *pluses += u32::from(!negative);
                *minuses += u32::from(negative);
            }
        });
        if piece.is_one_column() {
            all.fold();
        }
        all
    }

    /// Adds the lanes of a piece of one column up, in order.
    fn fold(&mut self) {
        for (sums, counts) in self.sums.iter_mut().zip(&mut self.counts) {
            (sums[0], counts[0]) = (sums.iter().sum(), counts.iter().sum());
        }
    }

    fn mean(&self, side: usize, column: usize) -> f32 {
        let count = self.counts[side][column];
        // A sum of -0.0 has a sign that no body has.
        if count > 0 { (self.sums[side][column] / f64::from(count)) as f32 + 0.0 } else { 0.0 }
    }
}

/// Writes means and signs of `residual + update` to `body`, and keeps the difference to the decoded vector in the residual.
///
/// # Panics
/// If the sections are not [`Piece`]s that cover the vector, or `body` is shorter than [`words`].
pub fn encode(
    tier: Tier,
    update: Option<&[f32]>,
    residual: &mut [f32],
    sections: &[Section],
    body: &mut [u32],
) -> Dense {
    let total = means(sections.iter().map(Piece::of));
    let (mut means, signs) = body[..words(residual.len(), total)].split_at_mut(total);
    let mut dense = Dense::default();
    tier.run(|| dense.add(update, residual, 0));
    tier.run(|| {
        for (x, signs) in residual.chunks(32).zip(signs) {
            *signs = x.iter().enumerate().fold(0, |word, (bit, x)| word | u32::from(*x < 0.0) << bit);
        }
    });
    for piece in sections.iter().map(Piece::of) {
        let x = &mut residual[piece.first as usize..][..piece.len as usize];
        for block in piece.blocks() {
            let sums = tier.run(|| Sums::of(&piece, block, x));
            let width = if piece.is_one_column() { 1 } else { block.1 };
            let (own, rest) = core::mem::take(&mut means).split_at_mut(2 * width);
            means = rest;
            for side in 0..2 {
                (0..width).for_each(|column| own[side * width + column] = sums.mean(side, column).to_bits());
            }
            let [plus, minus] = values(own, width);
            tier.run(|| {
                piece.rows(block, |at, range| {
                    let lanes = at..at + range.len();
                    for ((x, plus), minus) in x[range].iter_mut().zip(&plus[lanes.clone()]).zip(&minus[lanes]) {
                        *x -= if *x < 0.0 { -minus } else { *plus };
                    }
                });
            });
        }
    }
    dense.squares = tier.run(|| squares(residual));
    dense
}

/// The means of a block for each of its columns, or of the one column for each lane.
fn values(means: &[u32], width: usize) -> [[f32; WIDTH]; 2] {
    let mut values = [[0.0; WIDTH]; 2];
    for (values, means) in values.iter_mut().zip(means.chunks(width)) {
        values.iter_mut().zip(means.iter().cycle().take(if width == 1 { WIDTH } else { width })).for_each(
            |(value, mean)| {
                *value = f32::from_bits(*mean);
            },
        );
    }
    values
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
///
/// # Panics
/// If the sections are not [`Piece`]s that cover `into`.
pub fn expand(tier: Tier, body: &[u32], sections: &[Section], into: &mut [f32]) -> Result<(), BodyError> {
    let total = means(sections.iter().map(Piece::of));
    super::check_words(body, words(into.len(), total))?;
    let (mut means, signs) = body.split_at(total);
    // Unused bits of the last word must be 0, because bodies are canonical.
    let used = into.len() % 32;
    if let Some(last) = signs.last().filter(|last| used > 0 && **last >> used != 0) {
        return Err(BodyError::Padding { got: last >> used });
    }
    // Signs first, as -1 and 1. Then each is replaced by its mean.
    tier.run(|| {
        for (into, signs) in into.chunks_mut(32).zip(signs) {
            for (bit, into) in into.iter_mut().enumerate() {
                *into = f32::from_bits(1f32.to_bits() | (signs >> bit & 1) << 31);
            }
        }
    });
    let mut before = 0;
    for piece in sections.iter().map(Piece::of) {
        let x = &mut into[piece.first as usize..][..piece.len as usize];
        for block in piece.blocks() {
            let width = if piece.is_one_column() { 1 } else { block.1 };
            let (own, rest) = means.split_at(2 * width);
            means = rest;
            let [plus, minus] = values(own, width);
            let mut seen = [[0u32; WIDTH]; 2];
            let [pluses, minuses] = &mut seen;
            tier.run(|| {
                piece.rows(block, |at, range| {
                    let lanes = at..at + range.len();
                    let means = plus[lanes.clone()].iter().zip(&minus[lanes.clone()]);
                    let seen = pluses[lanes.clone()].iter_mut().zip(&mut minuses[lanes]);
                    for ((x, (plus, minus)), (pluses, minuses)) in x[range].iter_mut().zip(means).zip(seen) {
                        // Without a branch, which the processor could not predict.
                        let sign = x.to_bits() >> 31;
                        let (all, minus) = (0u32.wrapping_sub(sign), -minus);
                        *x = f32::from_bits((plus.to_bits() & !all) | (minus.to_bits() & all));
                        *pluses |= sign ^ 1;
                        *minuses |= sign;
                    }
                });
            });
            if piece.is_one_column() {
                seen.iter_mut().for_each(|seen| seen[0] = seen.iter().fold(0, |any, seen| any | seen));
            }
            for column in 0..width {
                let [plus, minus] = [own[column], own[width + column]];
                // A mean of zeros is 0, one of negative elements is not.
                let fits = match (seen[0][column], seen[1][column]) {
                    (0, 0) => plus == 0 && minus == 0,
                    (0, _) => plus == 0 && is_mean(minus),
                    (_, 0) => (plus == 0 || is_mean(plus)) && minus == 0,
                    _ => (plus == 0 || is_mean(plus)) && is_mean(minus),
                };
                if !fits {
                    let got = f32::from_bits(if plus == 0 || is_mean(plus) { minus } else { plus });
                    return Err(BodyError::Scale { block: (before + column) as u32, got });
                }
            }
            before += width;
        }
    }
    Ok(())
}

/// The bits of a finite float above 0.
fn is_mean(bits: u32) -> bool {
    (1..0x7f80_0000).contains(&bits)
}
