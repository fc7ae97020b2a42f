//! The values of selected elements: their magnitudes as floats, in half precision, in 8 bits with a scale per chunk, or as
//! the mean of all positive and of all negative ones of a chunk (Seide et al. 2014 for the two means; SparseLoCo, Sarfi
//! et al. 2025). The residual keeps the error of the values.
//!
//! | values | words after the list |
//! |---|---|
//! | f32 | a magnitude per entry, a float above 0 |
//! | f16 | a magnitude per entry from 2^-24 to 65504, two per word; zeros up to a whole word |
//! | int8 | bytes: a biased exponent per chunk, then a magnitude from 1 to 255 per entry; zeros up to a whole word |
//! | two means | per chunk two floats: the mean of the positive entries, and the mean magnitude of the negative ones |
//!
//! A chunk without entries of a kind has 0 for their scale or mean. The scale of int8 is the power of two at which the
//! largest magnitude of the chunk takes 8 bits, so that the error in the residual is exact.

use crate::codec::{BodyError, f16};
use crate::kernel::threshold::NEGATIVE;
use crate::recipe::Values;

/// The largest biased exponent of a scale: 7 below that of the largest float.
const EXPONENT_MAX: u32 = 254 - 7;

impl Values {
    /// The number in the header of a body.
    pub(super) const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::Int8 => 1,
            Self::TwoMeans => 2,
            Self::F16 => 3,
        }
    }

    pub(super) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::F32),
            1 => Some(Self::Int8),
            2 => Some(Self::TwoMeans),
            3 => Some(Self::F16),
            _ => None,
        }
    }

    /// Words for the values of so many entries in so many chunks.
    pub(super) const fn words(self, entries: usize, chunks: usize) -> usize {
        match self {
            Self::F32 => entries,
            Self::F16 => entries.div_ceil(2),
            // Saturating: a peer may state any number of entries.
            Self::Int8 => chunks.saturating_add(entries).div_ceil(4),
            Self::TwoMeans => 2 * chunks,
        }
    }
}

/// The biased exponent of the scale for a chunk's largest magnitude. 0: the magnitude is too small to have one.
fn exponent(magnitude_bits: u32) -> u32 {
    (magnitude_bits >> 23).saturating_sub(7)
}

/// The scale with this biased exponent: a power of two, or 0.
fn scale(exponent: u32) -> f32 {
    f32::from_bits(exponent << 23)
}

/// A magnitude in units of the scale with this biased exponent, from 0 to 255, rounded to nearest, ties to even.
fn quantum(magnitude: f32, exponent: u32) -> u8 {
    // 1.5 * 2^23: adding and subtracting it rounds to an integer.
    const WHOLE: f32 = 12_582_912.0;
    // 254 - e is the biased exponent of the reciprocal, so the division is an exact multiplication.
    let whole = (magnitude * scale(254 - exponent) + WHOLE) - WHOLE;
    whole.min(255.0) as u8
}

/// The largest magnitude of a chunk's entries.
fn largest(residual: &[f32], entries: &[u32]) -> u32 {
    entries.iter().fold(0, |largest, word| (at(residual, *word).to_bits() & !NEGATIVE).max(largest))
}

fn at(residual: &[f32], word: u32) -> f32 {
    residual[(word & !NEGATIVE) as usize]
}

/// Keeps the entries of a chunk that these values can express: with int8 and f16, the entries that do not round to 0.
/// Returns their number.
pub(super) fn keep(values: Values, residual: &[f32], entries: &mut [u32]) -> usize {
    match values {
        Values::F32 | Values::TwoMeans => entries.len(),
        Values::F16 => retain(residual, entries, |magnitude| f16::narrow(magnitude) > 0),
        Values::Int8 => {
            let exponent = exponent(largest(residual, entries));
            retain(residual, entries, |magnitude| exponent > 0 && quantum(magnitude, exponent) > 0)
        }
    }
}

/// Moves the entries whose magnitude passes to the front, and returns their number.
fn retain(residual: &[f32], entries: &mut [u32], passes: impl Fn(f32) -> bool) -> usize {
    let mut kept = 0;
    for i in 0..entries.len() {
        entries[kept] = entries[i];
        kept += usize::from(passes(at(residual, entries[i]).abs()));
    }
    kept
}

/// Writes the values of all entries to `body`, which has [`Values::words`] for them, and keeps the rest in the residual.
pub(super) fn write(values: Values, chunk: usize, residual: &mut [f32], mut entries: &[u32], body: &mut [u32]) {
    let chunks = residual.len().div_ceil(chunk);
    let mut done = 0;
    if matches!(values, Values::F16 | Values::Int8) {
        // The last word may have room for more than there is.
        body.iter_mut().next_back().into_iter().for_each(|last| *last = 0);
    }
    for at in 0..chunks {
        let end = entries.partition_point(|word| ((word & !NEGATIVE) as usize) < (at + 1) * chunk);
        let (own, rest) = entries.split_at(if at + 1 == chunks { entries.len() } else { end });
        match values {
            Values::F32 => floats(residual, own, &mut body[done..done + own.len()]),
            Values::F16 => {
                let into: &mut [u16] = bytemuck::cast_slice_mut(body);
                halves(residual, own, &mut into[done..done + own.len()]);
            }
            Values::Int8 => {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(body);
                let exponent = exponent(largest(residual, own));
                bytes[at] = exponent as u8;
                bytes_of(residual, own, exponent, &mut bytes[chunks + done..][..own.len()]);
            }
            Values::TwoMeans => body[2 * at..2 * at + 2].copy_from_slice(&two_means(residual, own)),
        }
        done += own.len();
        entries = rest;
    }
}

fn floats(residual: &mut [f32], entries: &[u32], body: &mut [u32]) {
    for (value, word) in body.iter_mut().zip(entries) {
        // Sent exactly, so nothing of the element stays in the residual.
        let element = &mut residual[(word & !NEGATIVE) as usize];
        *value = core::mem::take(element).to_bits() & !NEGATIVE;
    }
}

fn halves(residual: &mut [f32], entries: &[u32], halves: &mut [u16]) {
    for (half, word) in halves.iter_mut().zip(entries) {
        let element = &mut residual[(word & !NEGATIVE) as usize];
        *half = f16::narrow(element.abs());
        *element -= f16::widen(*half).copysign(*element);
    }
}

fn bytes_of(residual: &mut [f32], entries: &[u32], exponent: u32, bytes: &mut [u8]) {
    for (byte, word) in bytes.iter_mut().zip(entries) {
        let element = &mut residual[(word & !NEGATIVE) as usize];
        *byte = quantum(element.abs(), exponent);
        *element -= (f32::from(*byte) * scale(exponent)).copysign(*element);
    }
}

/// The bits of the mean of the positive entries, and of the mean magnitude of the negative ones.
fn two_means(residual: &mut [f32], entries: &[u32]) -> [u32; 2] {
    // In f64, in which the mean of equal floats is that float: bodies are canonical.
    let (mut sums, mut counts) = ([0.0f64; 2], [0u32; 2]);
    for word in entries {
        let side = (word >> 31) as usize;
        sums[side] += f64::from(at(residual, *word).abs());
        counts[side] += 1;
    }
    let mean = |side: usize| if counts[side] > 0 { (sums[side] / f64::from(counts[side])) as f32 } else { 0.0 };
    let means = [mean(0), -mean(1)];
    for word in entries {
        residual[(word & !NEGATIVE) as usize] -= means[(word >> 31) as usize];
    }
    means.map(|mean| mean.to_bits() & !NEGATIVE)
}

/// Reads the values of entries in their order, and checks them chunk by chunk.
pub(super) struct Cursor<'a> {
    values: Values,
    words: &'a [u32],
    /// Elements per chunk, and the number of chunks.
    chunk: usize,
    chunks: usize,
    /// The chunk of the last entry.
    at: usize,
    /// Entries so far.
    done: usize,
    /// Of the entries of this chunk: int8, the largest magnitude; two means, 1 if there is a positive or negative one.
    seen: [u8; 2],
}

impl<'a> Cursor<'a> {
    /// `words`: [`Values::words`] of them.
    pub(super) fn new(values: Values, words: &'a [u32], len: usize, chunk: usize) -> Self {
        Self { values, words, chunk, chunks: len.div_ceil(chunk), at: 0, done: 0, seen: [0; 2] }
    }

    fn bytes(&self) -> &'a [u8] {
        bytemuck::cast_slice(self.words)
    }

    fn halves(&self) -> &'a [u16] {
        bytemuck::cast_slice(self.words)
    }

    /// The magnitude of the next entry. `negative`: its sign.
    pub(super) fn next(&mut self, index: u32, negative: bool) -> Result<f32, BodyError> {
        let chunk = index as usize / self.chunk;
        while self.at < chunk {
            self.close()?;
        }
        let side = usize::from(negative);
        let value = match self.values {
            Values::F32 => f32::from_bits(self.words[self.done]),
            // A half with a sign or an infinity is refused below, like such a float.
            Values::F16 => f16::widen(self.halves()[self.done]),
            Values::Int8 => {
                let byte = self.bytes()[self.chunks + self.done];
                self.seen[0] = self.seen[0].max(byte);
                f32::from(byte) * scale(u32::from(self.bytes()[self.at]).min(EXPONENT_MAX))
            }
            Values::TwoMeans => {
                self.seen[side] = 1;
                f32::from_bits(self.words[2 * self.at + side])
            }
        };
        self.done += 1;
        // The magnitude bits of a finite float above 0.
        if !(1..0x7f80_0000).contains(&value.to_bits()) {
            return Err(BodyError::Value { index, got: value });
        }
        Ok(value)
    }

    /// No entries follow: checks the other chunks, and the unused bytes.
    pub(super) fn finish(mut self) -> Result<(), BodyError> {
        while self.at < self.chunks {
            self.close()?;
        }
        let unused = match self.values {
            Values::F32 | Values::TwoMeans => &[],
            Values::F16 => &self.bytes()[2 * self.done..],
            Values::Int8 => &self.bytes()[self.chunks + self.done..],
        };
        let padding = unused.iter().find(|byte| **byte != 0);
        padding.map_or(Ok(()), |got| Err(BodyError::Padding { got: u32::from(*got) }))
    }

    /// Checks the scale or the means of a chunk against its entries, and goes on to the next one.
    fn close(&mut self) -> Result<(), BodyError> {
        let [largest, _] = self.seen;
        let wrong = match self.values {
            Values::F32 | Values::F16 => None,
            Values::Int8 => {
                let exponent = u32::from(self.bytes()[self.at]);
                // The encoder takes the smallest scale at which the largest magnitude fits 8 bits.
                let fits = if exponent == 0 { largest == 0 } else { exponent <= EXPONENT_MAX && largest >= 128 };
                (!fits).then(|| scale(exponent))
            }
            Values::TwoMeans => {
                let means = &self.words[2 * self.at..2 * self.at + 2];
                let unused = means.iter().zip(self.seen).find(|(mean, seen)| *seen == 0 && **mean != 0);
                unused.map(|(mean, _)| f32::from_bits(*mean))
            }
        };
        if let Some(got) = wrong {
            return Err(BodyError::Scale { block: self.at as u32, got });
        }
        (self.at, self.seen) = (self.at + 1, [0; 2]);
        Ok(())
    }
}
