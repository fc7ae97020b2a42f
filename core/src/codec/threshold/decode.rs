//! Reading threshold bodies.

use alloc::vec::Vec;

use super::{HEADER_WORDS, Section};
use crate::codec::entries::{Block, Reader};
use crate::codec::{BodyError, Form, bytes};
use crate::kernel::threshold::is_power_of_two;
use crate::kernel::tier::Tier;
use crate::recipe::Threshold;

/// A section's header, checked.
pub(super) struct Header {
    pub(super) tau: f32,
    /// log2 of tau in units.
    pub(super) shift: u32,
    words: usize,
}

/// A body's sections: each header with its list.
pub(super) fn sections<'a>(
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
