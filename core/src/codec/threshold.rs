//! Threshold: quanta with residual. The arithmetic is in [`kernel::threshold`](crate::kernel::threshold), the
//! index coding in [`entries`]; here is the body, and who chooses the threshold.
//!
//! A body is one section per tensor, or one for all, each a header of four words and a list of entries:
//!
//! | word | |
//! |---|---|
//! | 0 | entries |
//! | 1 | tau, as a float |
//! | 2 | form of the list |
//! | 3 | words of the list |
//!
//! tau of a run lies between a unit and 2^16 units, and a ledger counts in units: whatever quantum a message has,
//! `count << log2(tau / unit)` is what it adds, exactly and in any order. So every peer may choose its own quantum
//! for every message, and replicas stay equal bit for bit.

mod control;

pub use control::{Choice, RUN, Sample, choose, quantum};

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::entries::{self, Block, Form, Reader};
use super::{BodyError, Encoded, bytes};
use crate::buffer::{Pool, Segment};
use crate::kernel::threshold::{QUANTA_MAX, Quantum, Taken, is_power_of_two, put_back, take};
use crate::kernel::tier::Tier;
use crate::recipe::{Control, Threshold};

/// Words of a section's header.
pub const HEADER_WORDS: usize = 4;

/// A part of the vector with a threshold of its own, and what its controller remembers.
#[derive(Copy, Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Section {
    /// Its first element.
    pub first: u32,
    /// Its elements.
    pub len: u32,
    /// The threshold: of the last message, or the one to start with.
    pub threshold: f32,
    /// Bits per entry of the last message that had any; 0 before.
    pub bits: f32,
}

impl Pool {
    /// Reads a range as sections.
    pub fn sections(&self, segment: Segment) -> &[Section] {
        <[Section]>::ref_from_bytes(self.bytes(segment)).expect("sections are whole")
    }

    /// Writes a range as sections.
    pub fn sections_mut(&mut self, segment: Segment) -> &mut [Section] {
        <[Section]>::mut_from_bytes(self.bytes_mut(segment)).expect("sections are whole")
    }
}

/// How one message is encoded.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Aim {
    /// The smallest quantum.
    pub unit: f32,
    /// Who chooses the threshold.
    pub control: Control,
    /// The quantum to start with, or to keep.
    pub tau: f32,
    /// Everything that is at least a unit, as far as counts go (128 times the tau of the recipe): a dense message, or
    /// a leaver's last.
    pub dense: bool,
}

impl Aim {
    /// The recipe's choice, with the threshold scaled by `scale` (the learning rate's).
    pub fn of(threshold: &Threshold, scale: f32) -> Self {
        let (unit, max) = (threshold.unit(), threshold.tau_max());
        let tau = (threshold.tau * scale).clamp(unit, max);
        Self { unit, control: threshold.control, tau, dense: false }
    }

    fn tau_max(&self) -> f32 {
        self.unit * (1u32 << Threshold::SPAN) as f32
    }
}

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
                    let (refused, first_refused) = (taken.refused, taken.first_refused);
                    quantum = higher;
                    taken = take(tier, None, residual, quantum, scratch);
                    (taken.refused, taken.first_refused) = (refused, first_refused);
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
    pub fn add(&mut self, section: &Section, quantum: Quantum, taken: &Taken) {
        self.entries += taken.entries;
        self.squares += taken.squares;
        self.refuse(taken.refused, taken.first_refused.map(|index| index + section.first));
        self.threshold = self.threshold.max(quantum.threshold);
    }
}

/// A section's header, checked.
struct Header {
    tau: f32,
    /// log2 of tau in units.
    shift: u32,
    words: usize,
}

/// A body's sections: each header with its list.
fn sections<'a>(
    body: &'a [u32],
    sections: &'a [Section],
    unit: f32,
) -> impl Iterator<Item = Result<(&'a Section, Header, Reader<'a>), BodyError>> {
    let mut rest = body;
    sections.iter().map(move |section| {
        let short = BodyError::Short { expected: bytes(HEADER_WORDS), got: bytes(rest.len()) };
        let (&[nnz, tau, number, words], list) = rest.split_first_chunk().ok_or(short)?;
        let (tau, words) = (f32::from_bits(tau), words as usize);
        let shift = shift(tau, unit).ok_or(BodyError::Tau { unit, got: tau })?;
        let form = Form::from_number(number).ok_or(BodyError::UnknownForm { got: number })?;
        if words > list.len() {
            return Err(BodyError::Short { expected: bytes(words), got: bytes(list.len()) });
        }
        rest = &list[words..];
        let reader = Reader::new(form, nnz, section.len as usize, &list[..words])?;
        Ok((section, Header { tau, shift, words }, reader))
    })
}

/// log2 of tau in units, if it is one of a run's quanta.
fn shift(tau: f32, unit: f32) -> Option<u32> {
    let shift = (tau.to_bits() >> 23).checked_sub(unit.to_bits() >> 23)?;
    (is_power_of_two(tau) && shift <= Threshold::SPAN).then_some(shift)
}

fn check_end(body: &[u32], parts: &[Section], unit: f32) -> Result<(), BodyError> {
    let mut used = 0;
    for section in sections(body, parts, unit) {
        used += HEADER_WORDS + section?.1.words;
    }
    if used == body.len() { Ok(()) } else { Err(BodyError::Trailing { expected: bytes(used), got: bytes(body.len()) }) }
}

/// Adds a body's quanta to a ledger that counts units. All or nothing: what was added before an error is found is
/// taken back.
///
/// # Errors
/// When the body is none, or a count of the ledger would overflow.
pub fn add(body: &[u32], parts: &[Section], unit: f32, ledger: &mut [i32]) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    let mut added = 0;
    let done = walk(body, parts, unit, |section, shift, block| {
        let ledger = &mut ledger[section.first as usize..(section.first + section.len) as usize];
        // Looked at before any is changed: the misses of a block overlap.
        let mut seen = 0;
        for entry in block.entries() {
            seen |= ledger[entry.index as usize];
        }
        core::hint::black_box(seen);
        for entry in block.entries() {
            let units = &mut ledger[entry.index as usize];
            let sum = units.checked_add(entry.count << shift);
            *units = sum.ok_or(BodyError::Ledger { index: section.first + entry.index })?;
            added += 1;
        }
        Ok(())
    });
    let Err(error) = done else { return Ok(()) };
    let mut left: u64 = added;
    // The same blocks in the same order, up to the one where it failed.
    let _ = walk(body, parts, unit, |section, shift, block| {
        for entry in block.entries() {
            left = left.checked_sub(1).ok_or(error)?;
            ledger[(section.first + entry.index) as usize] -= entry.count << shift;
        }
        Ok(())
    });
    Err(error)
}

/// Appends a body's quanta to `list`, as pairs of an element and how many units it gets, in order. All or nothing.
///
/// # Errors
/// When the body is none.
pub fn list(body: &[u32], parts: &[Section], unit: f32, list: &mut Vec<(u32, i32)>) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    let before = list.len();
    let done = walk(body, parts, unit, |section, shift, block| {
        list.extend(block.entries().map(|entry| (section.first + entry.index, entry.count << shift)));
        Ok(())
    });
    if done.is_err() {
        list.truncate(before);
    }
    done
}

/// Writes a body as floats: `count * tau` where there are quanta, else 0.
///
/// # Errors
/// When the body is none; `into` is of no use then.
pub fn expand(body: &[u32], parts: &[Section], unit: f32, into: &mut [f32]) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    into.fill(0.0);
    walk(body, parts, unit, |section, shift, block| {
        let into = &mut into[section.first as usize..(section.first + section.len) as usize];
        let tau = unit * (1u32 << shift) as f32;
        block.entries().for_each(|entry| into[entry.index as usize] = entry.count as f32 * tau);
        Ok(())
    })
}

/// Zeroes `velocity` where a body has an entry (momentum factor masking, Lin et al. 2018, section 3.2).
///
/// # Errors
/// When the body is none.
pub fn mask(body: &[u32], parts: &[Section], unit: f32, velocity: &mut [f32]) -> Result<(), BodyError> {
    walk(body, parts, unit, |section, _, block| {
        block.entries().for_each(|entry| velocity[(section.first + entry.index) as usize] = 0.0);
        Ok(())
    })
}

fn walk(
    body: &[u32],
    parts: &[Section],
    unit: f32,
    mut visit: impl FnMut(&Section, u32, &Block) -> Result<(), BodyError>,
) -> Result<(), BodyError> {
    Tier::best().run(|| {
        for section in sections(body, parts, unit) {
            let (section, header, mut reader) = section?;
            while let Some(block) = reader.next_block()? {
                visit(section, header.shift, block)?;
            }
        }
        Ok(())
    })
}

/// Why two bodies have not become one.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Unmerged {
    /// An element would have more quanta than an entry can carry.
    TooMany,
    /// One of them is none.
    Body(BodyError),
}

impl From<BodyError> for Unmerged {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

/// Writes the sum of two bodies, in the finer quantum of each section, and returns its words. `scratch` and `into`
/// as for [`encode`].
///
/// # Errors
/// When it cannot be written as one body; `into` is of no use then.
pub fn merge(
    (one, other): (&[u32], &[u32]),
    parts: &[Section],
    unit: f32,
    scratch: &mut [u32],
    into: &mut [u32],
) -> Result<usize, Unmerged> {
    let mut at = 0;
    for (one, other) in sections(one, parts, unit).zip(sections(other, parts, unit)) {
        let ((section, one, ones), (_, other, others)) = (one?, other?);
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
                return Err(Unmerged::TooMany);
            }
            if count != 0 {
                let entry = crate::kernel::threshold::Entry { index, count: count as i32 };
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

#[cfg(test)]
mod tests;
