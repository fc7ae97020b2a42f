//! Top-k: the elements of largest magnitude (Lin et al. 2018), of the whole vector or of each chunk of it (SparseLoCo,
//! Sarfi et al. 2025). The other elements stay in the residual. For the gpu crate, benches and fuzzing; no stable API.
//!
//! A body is a header of three words (number of entries; form of the list, and in the bits from 8 on the kind of values;
//! words of the list), the list of indices and signs as [`entries`] writes it, and the values (`topk/values.rs`). Among
//! equal magnitudes the lowest indices are sent.
//!
//! Chunks change which elements are sent, and not how: the list is one for all chunks. With 64 of 4,096 elements, its Rice
//! form takes 8.0 bits per entry, sign included, where a fixed width would take 13.
//!
//! A body names the form of its values, because messages that must leave nothing behind have floats with any recipe:
//! the messages of a warm-up, and the last ones of `end=send`.

mod select;
mod values;

use super::entries::{self, Reader};
use super::{BodyError, Encoded, Form, bytes, squares};
use crate::recipe::Values;
use values::Cursor;

/// Length of a body's header in words.
pub const HEADER_WORDS: usize = 3;

/// Elements per chunk with `scope=chunk`: as in SparseLoCo, with its chunks of 64 x 64.
pub const CHUNK: usize = 4096;

/// Which elements a message carries, and how.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Elements to send of each chunk, from 1 to `chunk`. A last chunk that is shorter sends its share of them, at least 1.
    pub count: u32,
    /// Elements per chunk, at least 1: all elements of the vector if it is not cut.
    pub chunk: u32,
    /// How values are written. Readers take it from the body.
    pub values: Values,
}

impl Pick {
    /// The `count` largest of all `len` elements, as floats.
    pub const fn whole(len: usize, count: usize) -> Self {
        Self { count: count as u32, chunk: len as u32, values: Values::F32 }
    }

    /// The same with everything that can be sent, and exactly.
    pub(crate) const fn dense(self) -> Self {
        Self { count: self.chunk, chunk: self.chunk, values: Values::F32 }
    }

    /// Elements to send of a chunk with `len` elements.
    fn share(&self, len: usize) -> usize {
        let share = u64::from(self.count) * len as u64 / u64::from(self.chunk);
        (share as usize).clamp(1, len)
    }

    /// The most elements that a message over `len` elements carries.
    fn most(&self, len: usize) -> usize {
        let (chunk, rest) = (self.chunk as usize, len % self.chunk as usize);
        len / chunk * self.count as usize + if rest > 0 { self.share(rest) } else { 0 }
    }
}

/// The largest length in words of a body over `len` elements.
pub fn words_max(len: usize, pick: Pick) -> usize {
    let values = pick.values.words(pick.most(len), len.div_ceil(pick.chunk as usize));
    HEADER_WORDS + entries::words_max(len) + values
}

/// Number of elements for a density, at least 1.
pub fn count(len: usize, density: f32) -> usize {
    ((f64::from(density) * len as f64) as usize).clamp(1, len)
}

/// Writes the largest elements of `residual + update` to `body`, without elements that are 0 or that the values cannot
/// express, and keeps everything else in the residual. `scratch` needs two words per element, `body` [`words_max`].
///
/// # Panics
/// If `update`, `scratch` or `body` is too short, or `count` or `chunk` is out of its range.
pub fn encode(
    pick: Pick,
    update: Option<&[f32]>,
    residual: &mut [f32],
    scratch: &mut [u32],
    body: &mut [u32],
) -> Encoded {
    let mut dense = super::Dense::default();
    dense.add(update, residual, 0);
    let (len, chunk) = (residual.len(), pick.chunk as usize);
    let (mut found, mut kth, mut least) = (0, 0, u32::MAX);
    for (i, x) in residual.chunks(chunk).enumerate() {
        let share = pick.share(x.len());
        let floor = if i == 0 { select::floor(x, share) } else { select::guess(kth) };
        let (selected, smallest) = select::select(x, i * chunk, share, floor, &mut scratch[found..]);
        (kth, least) = (smallest, least.min(smallest));
        found += values::keep(pick.values, residual, &mut scratch[found..found + selected]);
    }
    let list = &scratch[..found];
    let (form, words) = entries::write(list, found as u32, len, &mut body[HEADER_WORDS..]);
    body[..HEADER_WORDS].copy_from_slice(&[found as u32, form as u32 | pick.values.number() << 8, words as u32]);
    let values = pick.values.words(found, len.div_ceil(chunk));
    values::write(pick.values, chunk, residual, list, &mut body[HEADER_WORDS + words..][..values]);
    let bytes = (HEADER_WORDS + words + values) as u32 * 4;
    let mut encoded = Encoded { bytes, entries: found as u32, squares: squares(residual), ..Encoded::default() };
    encoded.threshold = if len > 0 { f32::from_bits(least) } else { 0.0 };
    encoded.add_non_finite(dense.non_finite, dense.first_non_finite);
    encoded
}

/// Calls `visit` with index and value of each entry of a body over `len` elements in chunks of `chunk`.
///
/// # Errors
/// If the body is malformed. Entries may have been visited before the error is found.
pub fn read(body: &[u32], len: usize, chunk: usize, mut visit: impl FnMut(usize, f32)) -> Result<(), BodyError> {
    let short = BodyError::Short { expected: bytes(HEADER_WORDS), got: bytes(body.len()) };
    let (&[nnz, number, words], rest) = body.split_first_chunk::<HEADER_WORDS>().ok_or(short)?;
    let form = Form::from_number(number & 0xff).ok_or(BodyError::UnknownForm { got: number & 0xff })?;
    let values = Values::from_number(number >> 8).ok_or(BodyError::UnknownValues { got: number >> 8 })?;
    let expected = u64::from(words) + values.words(nnz as usize, len.div_ceil(chunk)) as u64;
    if expected != rest.len() as u64 {
        let expected = bytes(expected as usize);
        return Err(BodyError::Trailing { expected, got: bytes(rest.len()) });
    }
    let (list, rest) = rest.split_at(words as usize);
    let mut cursor = Cursor::new(values, rest, len, chunk);
    let mut reader = Reader::new(form, nnz, len, list)?;
    while let Some(block) = reader.next_block()? {
        for entry in block.entries() {
            if entry.count.abs() != 1 {
                return Err(BodyError::Count { limit: 1, index: entry.index });
            }
            let value = cursor.next(entry.index, entry.count < 0)?;
            visit(entry.index as usize, value.copysign(entry.count as f32));
        }
    }
    cursor.finish()
}

/// Decodes a body into `into`.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(body: &[u32], chunk: usize, into: &mut [f32]) -> Result<(), BodyError> {
    into.fill(0.0);
    read(body, into.len(), chunk, |index, value| into[index] = value)
}
