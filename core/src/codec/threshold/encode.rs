//! Writing threshold bodies.

use super::{Aim, HEADER_WORDS, Section, control};
use crate::codec::{Encoded, entries};
use crate::kernel::threshold::{PassResult, Quantum, put_back, take};
use crate::kernel::tier::Tier;

/// The most words that a body of these sections can take.
pub fn words_max(sections: impl IntoIterator<Item = usize>) -> usize {
    sections.into_iter().map(|len| HEADER_WORDS + entries::words_max(len)).sum()
}

/// Writes what of `residual + update` has reached the threshold, and keeps the rest in the residual. `scratch`
/// needs two words per element of the longest section, `body` [`words_max`].
///
/// # Panics
/// When lengths do not fit together.
pub fn encode(
    tier: Tier,
    aim: Aim,
    update: Option<&[f32]>,
    residual: &mut [f32],
    sections: &mut [Section],
    scratch: &mut [u32],
    body: &mut [u32],
) -> Encoded {
    let mut encoded = Encoded::default();
    let mut at = 0;
    let total = residual.len();
    for section in sections {
        let range = section.first as usize..(section.first + section.len) as usize;
        let (update, residual) = (update.map(|update| &update[range.clone()]), &mut residual[range]);
        let mut quantum = control::before(&aim, section, total, update, residual, scratch);
        let mut taken = take(tier, update, residual, quantum, scratch);
        let words = loop {
            let list = &scratch[..taken.words];
            // A budget is kept: what is too long goes back, whole, and fewer elements are taken.
            match write(&aim, section, total, quantum, list, taken.entries, &mut body[at..]) {
                Ok(words) => break words,
                Err(higher) => {
                    put_back(residual, quantum.tau, list);
                    let (non_finite, first_non_finite) = (taken.non_finite, taken.first_non_finite);
                    quantum = higher;
                    taken = take(tier, None, residual, quantum, scratch);
                    (taken.non_finite, taken.first_non_finite) = (non_finite, first_non_finite);
                }
            }
        };
        at += words;
        encoded.add(section, quantum, &taken);
    }
    encoded.bytes = at as u32 * 4;
    encoded
}

/// Writes the section of a body: what a pass has taken with this quantum. Returns its words.
///
/// # Errors
/// When a budget does not hold it: with which quantum to try again.
pub fn write(
    aim: &Aim,
    section: &mut Section,
    total: usize,
    quantum: Quantum,
    list: &[u32],
    entries: u32,
    body: &mut [u32],
) -> Result<usize, Quantum> {
    let (form, words) = entries::write(list, entries, section.len as usize, &mut body[HEADER_WORDS..]);
    if let Some(higher) = control::after(aim, section, total, quantum, words, entries) {
        return Err(higher);
    }
    body[..HEADER_WORDS].copy_from_slice(&[entries, quantum.tau.to_bits(), form as u32, words as u32]);
    Ok(HEADER_WORDS + words)
}

impl Encoded {
    /// Counts what a pass over a section has done.
    pub fn add(&mut self, section: &Section, quantum: Quantum, taken: &PassResult) {
        self.entries += taken.entries;
        self.squares += taken.squares;
        self.add_non_finite(taken.non_finite, taken.first_non_finite.map(|index| index + section.first));
        self.threshold = self.threshold.max(quantum.threshold);
    }
}
