//! Reads numbers and text from the body of a frame, with bounds on everything.

use alloc::string::{String, ToString};

use super::LogError;
use crate::run_id::RunId;

/// A cursor over the body of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    /// The bytes that are not read yet.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(super) fn byte(&mut self) -> Result<u8, LogError> {
        let (first, rest) = self.rest.split_first().ok_or(LogError::Body)?;
        self.rest = rest;
        Ok(*first)
    }

    /// An integer as LEB128 in its shortest form.
    pub(super) fn number(&mut self) -> Result<u64, LogError> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds only the top bit of 64. A last byte of 0 would be a longer form of the same number.
            if shift == 63 && bits > 1 || (byte == 0 && shift > 0) {
                return Err(LogError::Body);
            }
            n |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(LogError::Body)
    }

    /// An integer as LEB128 that fits 32 bits.
    pub(super) fn short(&mut self) -> Result<u32, LogError> {
        u32::try_from(self.number()?).map_err(|_| LogError::Body)
    }

    /// The length of a list or text. It is at most `limit`, and at most the number of bytes that are left, because each
    /// element takes at least one byte. So the caller may allocate that many elements.
    pub(super) fn count(&mut self, limit: usize) -> Result<usize, LogError> {
        let got = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if got > limit {
            return Err(LogError::Length { limit, got });
        }
        // A short body cannot ask for a large allocation.
        if got > self.rest.len() { Err(LogError::Body) } else { Ok(got) }
    }

    /// A byte that is an index into `all`.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> Result<T, LogError> {
        let got = self.byte()?;
        all.get(usize::from(got)).copied().ok_or(LogError::Kind { got })
    }

    pub(super) fn float(&mut self) -> Result<f32, LogError> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(LogError::Body)?;
        self.rest = rest;
        Ok(f32::from_le_bytes(*bytes))
    }

    pub(super) fn text(&mut self, limit: usize) -> Result<String, LogError> {
        let len = self.count(limit)?;
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        core::str::from_utf8(text).map(ToString::to_string).map_err(|_| LogError::Body)
    }

    /// The name of a run, or an empty text.
    pub(super) fn run(&mut self) -> Result<Option<RunId>, LogError> {
        let text = self.text(RunId::LEN_MAX)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| LogError::Body) }
    }

    /// Checks that the whole body has been read.
    pub(super) fn end(&self) -> Result<(), LogError> {
        if self.rest.is_empty() { Ok(()) } else { Err(LogError::Body) }
    }
}
