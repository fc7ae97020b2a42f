//! Codecs: the encodings of vectors in message bodies. One file per codec, as pure functions on slices.
//!
//! An encoder adds an update to a residual, writes an approximation of the sum to the body, and keeps the error in the
//! residual for the next message (error feedback; Seide et al. 2014, Stich et al. 2018). The decoded body plus the new
//! residual equals the old residual plus the update, exactly or up to one rounding per element. An element whose sum is
//! not finite is left out: its residual stays as it was, and the encoder reports it in [`Encoded::non_finite`]. With a
//! decay, the old residual is multiplied by it before all that, for every codec alike: see
//! [`Kernel::Encode`](crate::kernel::Kernel::Encode).
//!
//! A decoder ("expand") checks the whole body. Encodings are canonical: a body that a decoder accepts is the body that
//! the encoder writes for the decoded vector. Bodies are sequences of 32-bit words, little-endian.
//!
//! | codec | body | bits per element | source |
//! |---|---|---|---|
//! | f32 | the floats | 32 | |
//! | bf16 | upper halves of the floats, two per word | 16 | |
//! | f16 | IEEE half precision, two per word | 16 | |
//! | int8 | an exponent per block of 64 elements, then a byte per element | 8.125 | |
//! | sign | a scale per block of 1,024 elements, then a bit per element | 1.03 | Seide et al. 2014 |
//! | sign per column | two means per column, then a bit per element | 1, and 64 per column | Seide et al. 2014 |
//! | [`threshold`] | per section: a header, then a list of (index, count) | by density | Strom 2015 |
//! | top-k | a header, a list of (index, sign), then a magnitude per entry, or means per chunk | by density | Lin et al. 2018, Sarfi et al. 2025 |
//!
//! Lists of entries are written in the smallest of four forms; see [`Form`].

// Hidden modules: for the gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
pub mod bf16;
#[doc(hidden)]
pub mod columns;
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

use crate::kernel::{Coding, scan};
use crate::recipe::Threshold;

/// The outcome of encoding one message.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Length of the body in bytes.
    pub bytes: u32,
    /// Elements that the body carries: all of them with a dense codec.
    pub entries: u32,
    /// Sum of squares of the residual after encoding.
    pub squares: f64,
    /// Sum of the magnitudes that decay has removed from the residual before encoding.
    pub forgotten: f64,
    /// The largest threshold of a section; the smallest sent magnitude with top-k; 0 with a dense codec.
    pub threshold: f32,
    /// Elements left out because update plus residual was not finite. Their residual is unchanged, their update
    /// dropped.
    pub non_finite: u32,
    /// Index of the first element that was left out.
    pub first_non_finite: Option<u32>,
}

impl Encoded {
    /// Counts elements that were left out. `first` of an earlier call is kept: sections are encoded in order.
    fn add_non_finite(&mut self, count: u32, first: Option<u32>) {
        self.non_finite += count;
        self.first_non_finite = self.first_non_finite.or(first);
    }
}

/// The outcome of a dense encoder: the fields of [`Encoded`] that do not follow from the length of the vector. For the
/// gpu crate, benches and fuzzing; no stable API.
#[doc(hidden)]
#[derive(Copy, Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of Encoded")]
pub struct Dense {
    pub squares: f64,
    pub non_finite: u32,
    pub first_non_finite: Option<u32>,
}

impl Dense {
    /// `residual += update`, except for elements whose sum is not finite; these are counted. `first` is the index of
    /// the slice's first element in the vector.
    #[inline(always)]
    fn add(&mut self, update: Option<&[f32]>, residual: &mut [f32], first: usize) {
        const BLOCK: usize = 64;
        let Some(update) = update else { return };
        for (block, (residual, update)) in residual.chunks_mut(BLOCK).zip(update.chunks(BLOCK)).enumerate() {
            let finite = |(r, u): (&f32, &f32)| (r + u).is_finite();
            // A fold without a branch vectorises. Blocks with an element that is not finite are rare.
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
        Encoded { bytes, entries, squares, forgotten: 0.0, threshold: 0.0, non_finite, first_non_finite }
    }
}

/// Sum of `of(x)` in sixteen lanes that are added up in order. The fixed order makes the result the same with any
/// vector instructions.
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

/// Sum of squares. Each chunk of 4,096 elements is summed in f32 and the chunks in f64, as the threshold kernel does.
#[inline(always)]
fn squares(x: &[f32]) -> f64 {
    x.chunks(4096).map(|x| lanes(x, |x| x * x)).sum()
}

/// Sum of magnitudes.
#[inline(always)]
fn magnitudes(x: &[f32]) -> f64 {
    lanes(x, f32::abs)
}

/// The length in bytes of a number of words, for errors: saturates at 32 bits.
fn bytes(words: usize) -> u32 {
    u32::try_from(words.saturating_mul(4)).unwrap_or(u32::MAX)
}

/// `into += scale * x` for the vector x of a sparse body. The body is checked before anything is added.
///
/// # Errors
/// If the body is malformed; `into` is unchanged.
///
/// # Panics
/// If the codec is not sparse.
pub(crate) fn scatter(
    coding: Coding,
    body: &[u32],
    sections: &[threshold::Section],
    scale: f32,
    into: &mut [f32],
) -> Result<(), BodyError> {
    let len = into.len();
    visit(coding, body, sections, len, &mut |_, _| {})?;
    visit(coding, body, sections, len, &mut |index, value| into[index] += scale * value)
}

/// Calls `entry` with index and value of each entry of a sparse body over `len` elements.
///
/// # Errors
/// If the body is malformed. Entries may have been visited before the error is found.
///
/// # Panics
/// If the codec is not sparse.
pub(crate) fn visit(
    coding: Coding,
    body: &[u32],
    sections: &[threshold::Section],
    len: usize,
    entry: &mut dyn FnMut(usize, f32),
) -> Result<(), BodyError> {
    match coding {
        Coding::Threshold(aim) => threshold::read(body, sections, aim.unit, entry),
        Coding::TopK(pick) => topk::read(body, len, pick.chunk as usize, entry),
        _ => unreachable!("a sparse codec"),
    }
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

/// Why a body could not be decoded. Indices count elements of the vector, or of a section in a threshold body.
#[derive(Copy, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are the expected and the found value")]
pub enum BodyError {
    /// A list states more entries than its words or the vector can hold.
    Entries { limit: u32, got: u32 },
    /// The indices of a list do not rise.
    Order { expected: u32, got: u32 },
    /// An index is not below the length of the vector.
    Index { limit: u32, got: u32 },
    /// An entry has more quanta than the format allows.
    Count { limit: u32, index: u32 },
    /// A unary number of a Rice list is larger than any gap in the vector.
    Run { limit: u32, got: u32 },
    /// The Rice parameter of a block is not the one that follows from its gaps.
    Parameter { expected: u32, got: u32 },
    /// A Rice block states counts although all of them are 1.
    Single { first: u32 },
    /// The body ends within an entry.
    Truncated { bits: u64 },
    /// Bits after the last entry are not 0.
    Padding { got: u32 },
    /// There are bytes after the last entry.
    Trailing { expected: u32, got: u32 },
    /// A list is not in the smallest form.
    Form { expected: Form, got: Form },
    /// The number of a form is unknown.
    UnknownForm { got: u32 },
    /// The number of a kind of values is unknown.
    UnknownValues { got: u32 },
    /// The body ends before a header or list does.
    Short { expected: u32, got: u32 },
    /// A dense body does not have the length that follows from the vector's.
    Length { expected: u32, got: u32 },
    /// A quantum is not a power of two between the run's smallest and largest quantum.
    Tau { unit: f32, got: f32 },
    /// The scale or the mean of a block, or of a chunk, does not fit its elements.
    Scale { block: u32, got: f32 },
    /// An element is not finite, or is a value that the codec does not send.
    Value { index: u32, got: f32 },
    /// The ledger's count of this element would exceed 64 bits.
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
            Self::Single { first } => write!(f, "a count above 1 in the block from index {first}, got only 1"),
            Self::Truncated { bits } => write!(f, "more bits after bit {bits}, got the end of the body"),
            Self::Padding { got } => write!(f, "zeros after the last entry, got {got:#x}"),
            Self::Trailing { expected, got } => write!(f, "{expected} bytes of entries, got {got}"),
            Self::Form { expected, got } => write!(f, "the form {expected:?}, which is the smallest, got {got:?}"),
            Self::UnknownForm { got } => write!(f, "a form from 0 to 3, got {got}"),
            Self::UnknownValues { got } => write!(f, "a kind of values from 0 to 3, got {got}"),
            Self::Short { expected, got } => write!(f, "at least {expected} more bytes, got {got}"),
            Self::Length { expected, got } => write!(f, "{expected} bytes, got {got}"),
            Self::Tau { unit, got } => {
                let max = unit * (1u32 << Threshold::SPAN) as f32;
                write!(f, "a tau that is a power of two from {unit:e} to {max:e}, got {got:e}")
            }
            Self::Scale { block, got } => write!(f, "a scale that fits the elements of block {block}, got {got:e}"),
            Self::Value { index, got } => write!(f, "a finite value (above 0 in top-k) at index {index}, got {got}"),
            Self::Ledger { index } => write!(f, "a sum of quanta within 64 bits at index {index}, got more"),
        }
    }
}

#[cfg(test)]
mod tests;
