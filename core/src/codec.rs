//! How vectors are written: a codec per file, and index coding in [`entries`].
//!
//! An encoder adds an update to a residual, writes what it can say of the sum, and keeps the rest in the residual
//! (error feedback: Seide et al. 2014, Stich et al. 2018): what is written plus what is kept is what came in. A
//! decoder checks all of a body; one that it accepts is the one that the encoder would have written for what it
//! says. Bodies are 32-bit words, little-endian.

// Hidden modules: for the gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
pub mod bf16;
#[doc(hidden)]
pub mod entries;
#[doc(hidden)]
pub mod f16;
#[doc(hidden)]
pub mod float32;
mod half;
#[doc(hidden)]
pub mod int8;
#[doc(hidden)]
pub mod sign;
pub mod threshold;
#[doc(hidden)]
pub mod topk;

use core::fmt;

pub use entries::form::Form;

use crate::kernel::scan;
use crate::recipe::Threshold;

/// What an encoder did.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Bytes of the body.
    pub bytes: u32,
    /// Elements that it says something about.
    pub entries: u32,
    /// Sum of squares of the residual.
    pub squares: f64,
    /// The largest threshold with which elements were chosen; 0 for dense codecs.
    pub threshold: f32,
    /// Elements whose sum was not finite: they keep the residual they had, and what came in for them is dropped.
    pub non_finite: u32,
    /// The first of them.
    pub first_non_finite: Option<u32>,
}

impl Encoded {
    fn add_non_finite(&mut self, count: u32, first: Option<u32>) {
        self.non_finite += count;
        self.first_non_finite = self.first_non_finite.or(first);
    }
}

/// What a dense encoder did.
#[doc(hidden)]
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Dense {
    /// Sum of squares of the residual.
    pub squares: f64,
    /// See [`Encoded::refused`].
    pub non_finite: u32,
    /// The first of them.
    pub first_non_finite: Option<u32>,
}

impl Dense {
    /// `residual += update`, but where that is not finite. `first` is the index of the first element.
    #[inline(always)]
    fn add(&mut self, update: Option<&[f32]>, residual: &mut [f32], first: usize) {
        const BLOCK: usize = 64;
        let Some(update) = update else { return };
        for (block, (residual, update)) in residual.chunks_mut(BLOCK).zip(update.chunks(BLOCK)).enumerate() {
            let finite = |(r, u): (&f32, &f32)| (r + u).is_finite();
            if residual.iter().zip(update).fold(0, |bad, pair| bad | u32::from(!finite(pair))) == 0 {
                residual.iter_mut().zip(update).for_each(|(residual, update)| *residual += update);
                continue;
            }
            for (i, (residual, update)) in residual.iter_mut().zip(update).enumerate() {
                if finite((residual, update)) {
                    *residual += update;
                } else {
                    self.non_finite += 1;
                    self.first_non_finite.get_or_insert((first + block * BLOCK + i) as u32);
                }
            }
        }
    }

    pub(crate) fn encoded(self, words: usize, len: usize) -> Encoded {
        let Self { squares, non_finite, first_non_finite } = self;
        let (bytes, entries) = (words as u32 * 4, len as u32);
        Encoded { bytes, entries, squares, threshold: 0.0, non_finite, first_non_finite }
    }
}

/// Sixteen sums, added up in order: the same on every machine.
#[inline(always)]
fn lanes(x: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = x.as_chunks::<16>();
    for chunk in chunks {
        for lane in 0..16 {
            lanes[lane] += of(chunk[lane]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += of(*x);
    }
    lanes.into_iter().map(f64::from).sum()
}

#[inline(always)]
fn squares(x: &[f32]) -> f64 {
    x.chunks(4096).map(|x| lanes(x, |x| x * x)).sum()
}

#[inline(always)]
fn magnitudes(x: &[f32]) -> f64 {
    lanes(x, f32::abs)
}

/// Bytes of so many words, for errors: no more than fit 32 bits.
fn bytes(words: usize) -> u32 {
    u32::try_from(words.saturating_mul(4)).unwrap_or(u32::MAX)
}

fn check_words(body: &[u32], expected: usize) -> Result<(), BodyError> {
    if body.len() == expected {
        return Ok(());
    }
    Err(BodyError::Length { expected: bytes(expected), got: bytes(body.len()) })
}

fn check_finite(x: &[f32]) -> Result<(), BodyError> {
    match scan::first_non_finite(x) {
        None => Ok(()),
        Some(index) => Err(BodyError::Value { index: index as u32, got: x[index] }),
    }
}

/// Bytes that are no body of their codec.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields say what was expected and what came")]
pub enum BodyError {
    /// More entries than there can be.
    Entries { limit: u32, got: u32 },
    /// Indices do not rise.
    Order { expected: u32, got: u32 },
    /// No such parameter.
    Index { limit: u32, got: u32 },
    /// More quanta of one parameter than can be.
    Count { limit: u32, index: u32 },
    /// A unary number longer than the vector allows.
    Run { limit: u32, got: u32 },
    /// Not the Rice parameter that belongs to these gaps.
    Parameter { expected: u32, got: u32 },
    /// Counts are given where none is above 1.
    Single { first: u32 },
    /// The body ends within an entry.
    Truncated { bits: u64 },
    /// Bits after the last entry.
    Padding { got: u32 },
    /// Bytes after the last entry.
    Trailing { expected: u32, got: u32 },
    /// Another form is smaller.
    Form { expected: Form, got: Form },
    /// No such form.
    UnknownForm { got: u32 },
    /// The body ends before its list does.
    Short { expected: u32, got: u32 },
    /// Not as long as a vector of this length makes it.
    Length { expected: u32, got: u32 },
    /// Not a quantum of this run.
    Tau { unit: f32, got: f32 },
    /// Not a block's scale.
    Scale { block: u32, got: f32 },
    /// Not a value that is sent.
    Value { index: u32, got: f32 },
    /// The ledger's count of this parameter would overflow.
    Ledger { index: u32 },
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "body: expected ")?;
        match self {
            Self::Entries { limit, got } => write!(f, "at most {limit} entries, got {got}"),
            Self::Order { expected, got } => write!(f, "an index of at least {expected}, got {got}"),
            Self::Index { limit, got } => write!(f, "an index below {limit}, got {got}"),
            Self::Count { limit, index } => write!(f, "a count of at most {limit} at index {index}, got more"),
            Self::Run { limit, got } => write!(f, "at most {limit} zeros in a unary number, got {got}"),
            Self::Parameter { expected, got } => write!(f, "a Rice parameter of {expected}, got {got}"),
            Self::Single { first } => write!(f, "several quanta in the block from index {first}, got one each"),
            Self::Truncated { bits } => write!(f, "more than {bits} bits, got no more"),
            Self::Padding { got } => write!(f, "zeros after the last entry, got {got:#x}"),
            Self::Trailing { expected, got } => write!(f, "{expected} bytes of entries, got {got}"),
            Self::Form { expected, got } => write!(f, "the form {expected:?}, which is the smallest, got {got:?}"),
            Self::UnknownForm { got } => write!(f, "a form from 0 to 3, got {got}"),
            Self::Short { expected, got } => write!(f, "at least {expected} more bytes, got {got}"),
            Self::Length { expected, got } => write!(f, "{expected} bytes, got {got}"),
            Self::Tau { unit, got } => {
                let max = unit * (1u32 << Threshold::SPAN) as f32;
                write!(f, "a tau that is a power of two from {unit:e} to {max:e}, got {got:e}")
            }
            Self::Scale { block, got } => write!(f, "the scale that fits block {block}, got {got:e}"),
            Self::Value { index, got } => write!(f, "a finite value at index {index}, got {got}"),
            Self::Ledger { index } => write!(f, "a count within 32 bits at index {index}, got more"),
        }
    }
}

#[cfg(test)]
mod tests;
