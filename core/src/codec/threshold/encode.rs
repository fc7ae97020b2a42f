//! The encoder of threshold bodies: chooses a quantum per section, runs the pass over the vector, writes header and
//! list.

use super::{Aim, HEADER_WORDS, Section, control};
use crate::codec::{Encoded, entries};
use crate::kernel::threshold::{PassResult, Quantum, put_back, take};
use crate::kernel::tier::Tier;

/// The largest length in words of a body with sections of these lengths.
pub fn words_max(sections: impl IntoIterator<Item = usize>) -> usize {
    sections.into_iter().map(|len| HEADER_WORDS + entries::words_max(len)).sum()
}

/// Encodes the elements of `residual + update` that have reached the threshold, and keeps the rest in the residual.
/// Updates the controller state in `sections`.
///
/// `scratch` needs two words per element of the longest section, `body` needs [`words_max`].
///
/// # Panics
/// If `update`, `scratch` or `body` is too short.
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
            // A list that exceeds the budget is put back as a whole, and fewer elements are taken.
            match write(&aim, section, total, quantum, list, taken.entries, &mut body[at..]) {
                Ok(words) => break words,
                Err(higher) => {
                    put_back(residual, quantum.tau, list);
                    // The second pass sees only the residual, so it would not find them again.
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

/// Writes the section of a body for the `list` that a pass has taken with `quantum`, and updates the controller state.
/// Returns the section's length in words. `total`: elements of all sections.
///
/// # Errors
/// If the section exceeds its share of the budget: the quantum for the next attempt.
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
    /// Adds the result of a pass over a section. For the gpu crate; no stable API.
    #[doc(hidden)]
    pub fn add(&mut self, section: &Section, quantum: Quantum, taken: &PassResult) {
        self.entries += taken.entries;
        self.squares += taken.squares;
        self.add_non_finite(taken.non_finite, taken.first_non_finite.map(|index| index + section.first));
        self.threshold = self.threshold.max(quantum.threshold);
    }
}
