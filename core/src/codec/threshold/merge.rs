//! The sum of two threshold bodies as one body. A mesh peer merges messages that a slow neighbour has not received yet.

use super::decode::sections;
use super::{HEADER_WORDS, MergeError, Section};
use crate::codec::entries;
use crate::kernel::threshold::{Entry, QUANTA_MAX};

/// Writes the sum of two bodies, in the smaller quantum of each section. Returns its length in words. `scratch` needs
/// two words per element of the longest section, `into` needs [`words_max`](super::words_max).
///
/// # Errors
/// If the sum does not fit one body, or a body is malformed. The content of `into` is unspecified then.
pub fn merge(
    (one, other): (&[u32], &[u32]),
    parts: &[Section],
    unit: f32,
    scratch: &mut [u32],
    into: &mut [u32],
) -> Result<usize, MergeError> {
    let mut at = 0;
    for (one, other) in sections(one, parts, unit).zip(sections(other, parts, unit)) {
        let ((section, one, ones), (_, other, others)) = (one?, other?);
        // In the smaller quantum, all counts of both bodies are whole.
        let shift = one.shift.min(other.shift);
        let (up, other_up) = (one.shift - shift, other.shift - shift);
        let (mut ones, mut others) = (ones.entries(), others.entries());
        let (mut a, mut b) = (ones.next().transpose()?, others.next().transpose()?);
        let (mut words, mut nnz) = (0, 0);
        loop {
            let index = match (a, b) {
                (None, None) => break,
                (Some(a), None) => a.index,
                (None, Some(b)) => b.index,
                (Some(a), Some(b)) => a.index.min(b.index),
            };
            // In 64 bits: a count of 15 bits shifted by up to 16 still fits, and so does the sum of two.
            let mut count = 0;
            if let Some(entry) = a.filter(|entry| entry.index == index) {
                count += i64::from(entry.count) << up;
                a = ones.next().transpose()?;
            }
            if let Some(entry) = b.filter(|entry| entry.index == index) {
                count += i64::from(entry.count) << other_up;
                b = others.next().transpose()?;
            }
            if count.unsigned_abs() > u64::from(QUANTA_MAX) {
                return Err(MergeError::TooMany);
            }
            // Opposite counts cancel, and an entry is never 0.
            if count != 0 {
                let entry = Entry { index, count: count as i32 };
                words += entry.write(&mut scratch[words..]);
                nnz += 1;
            }
        }
        let list = &mut into[at + HEADER_WORDS..];
        let (form, list_words) = entries::write(&scratch[..words], nnz, section.len as usize, list);
        let tau = if one.shift < other.shift { one.tau } else { other.tau };
        let header = [nnz, tau.to_bits(), form as u32, list_words as u32];
        into[at..at + HEADER_WORDS].copy_from_slice(&header);
        at += HEADER_WORDS + list_words;
    }
    Ok(at)
}
