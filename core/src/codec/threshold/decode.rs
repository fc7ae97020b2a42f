//! The decoders of threshold bodies: into a ledger, a list or floats.
//!
//! Each decoder reads the headers of all sections first ([`check_end`]), then the lists block by block.

use alloc::vec::Vec;

use super::{HEADER_WORDS, Section};
use crate::codec::entries::{Block, Reader};
use crate::codec::{BodyError, Form, bytes};
use crate::kernel::ledger::Ledger;
use crate::kernel::threshold::is_power_of_two;
use crate::kernel::tier::Tier;
use crate::recipe::Threshold;

/// The checked header of a section.
pub(super) struct Header {
    pub(super) tau: f32,
    /// log2(tau / unit).
    pub(super) shift: u32,
    /// Length of the list in words.
    words: usize,
}

/// Iterates over the sections of a body: the section, its header, and a reader of its list. Ends with the last section;
/// an error does not end the iteration, so callers stop at it.
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

/// log2(tau / unit), or `None` if tau is not a quantum of the run.
fn shift(tau: f32, unit: f32) -> Option<u32> {
    let shift = (tau.to_bits() >> 23).checked_sub(unit.to_bits() >> 23)?;
    (is_power_of_two(tau) && shift <= Threshold::SPAN).then_some(shift)
}

/// Checks the headers, and that the body ends with the last section.
fn check_end(body: &[u32], parts: &[Section], unit: f32) -> Result<(), BodyError> {
    let mut used = 0;
    for section in sections(body, parts, unit) {
        used += HEADER_WORDS + section?.1.words;
    }
    if used == body.len() { Ok(()) } else { Err(BodyError::Trailing { expected: bytes(used), got: bytes(body.len()) }) }
}

/// Adds the quanta of a body to a ledger. All or nothing: if an error is found, the entries added before are subtracted
/// again.
///
/// # Errors
/// If the body is malformed, or a count of the ledger would exceed 64 bits.
pub fn add(body: &[u32], parts: &[Section], unit: f32, ledger: &mut Ledger<'_>) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    // Number of entries added, for the undo below.
    let mut added = 0;
    let done = walk(body, parts, unit, |section, shift, block| {
        // Reading all elements of a block first lets their cache misses overlap; the loop below depends on each load.
        let mut seen = 0;
        for entry in block.entries() {
            seen |= ledger.low()[(section.first + entry.index) as usize];
        }
        core::hint::black_box(seen);
        for entry in block.entries() {
            let index = section.first + entry.index;
            if !ledger.add(index as usize, entry.count << shift) {
                return Err(BodyError::Ledger { index });
            }
            added += 1;
        }
        Ok(())
    });
    let Err(error) = done else { return Ok(()) };
    let mut left: u64 = added;
    // Undo: walk the same entries in the same order, and stop after the number that was added.
    let _ = walk(body, parts, unit, |section, shift, block| {
        for entry in block.entries() {
            left = left.checked_sub(1).ok_or(error)?;
            // Does not fail: the count returns to a value that it has had.
            ledger.add((section.first + entry.index) as usize, -(entry.count << shift));
        }
        Ok(())
    });
    Err(error)
}

/// Appends the quanta of a body to `list`, as pairs of an element's index and its units, in rising order. All or
/// nothing. Allocates if `list` has no room.
///
/// # Errors
/// If the body is malformed; `list` is unchanged.
pub fn list(body: &[u32], parts: &[Section], unit: f32, list: &mut Vec<(u32, i32)>) -> Result<(), BodyError> {
    // Trailing bytes are found before anything is appended.
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

/// Decodes a body into floats: `count * tau` for elements with an entry, 0 for the rest.
///
/// # Errors
/// If the body is malformed; the content of `into` is unspecified then.
pub fn expand(body: &[u32], parts: &[Section], unit: f32, into: &mut [f32]) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    into.fill(0.0);
    walk(body, parts, unit, |section, shift, block| {
        let into = &mut into[section.first as usize..(section.first + section.len) as usize];
        // Exact: both factors are powers of two.
        let tau = unit * (1u32 << shift) as f32;
        block.entries().for_each(|entry| into[entry.index as usize] = entry.count as f32 * tau);
        Ok(())
    })
}

/// Calls `visit` with index and value of each entry.
///
/// # Errors
/// If the body is malformed. Entries may have been visited before the error is found.
pub fn read(body: &[u32], parts: &[Section], unit: f32, visit: &mut dyn FnMut(usize, f32)) -> Result<(), BodyError> {
    check_end(body, parts, unit)?;
    walk(body, parts, unit, |section, shift, block| {
        let tau = unit * (1u32 << shift) as f32;
        let first = section.first as usize;
        block.entries().for_each(|entry| visit(first + entry.index as usize, entry.count as f32 * tau));
        Ok(())
    })
}

/// Sets `velocity` to zero for elements with an entry (momentum factor masking, Lin et al. 2018, section 3.3).
///
/// # Errors
/// If the body is malformed. Elements of `velocity` may have been set before the error is found.
pub fn mask(body: &[u32], parts: &[Section], unit: f32, velocity: &mut [f32]) -> Result<(), BodyError> {
    walk(body, parts, unit, |section, _, block| {
        block.entries().for_each(|entry| velocity[(section.first + entry.index) as usize] = 0.0);
        Ok(())
    })
}

/// Calls `visit` with each block of each section, and the section's shift.
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
