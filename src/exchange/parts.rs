//! A mean whose contribution is given range by range.
//!
//! ```text
//! begin   -> the contribution's buffer goes to the machine, which gives the one before back
//! give    -> a range is copied into that buffer, which goes to the engine and comes back: the machine has the range
//! finish  -> waits for the end of the round
//! ```
//! No call but the last waits for a peer. A call waits until the engine has taken the range before.

use std::ops::Range;
use std::sync::Arc;

use gradwire_core::kernel::scan;
use gradwire_core::{Ranges, Storage};

use super::{Exchange, HAS_SPARE};
use crate::check;
use crate::error::Error;
use crate::mailbox::{Begin, GiveRange, RangeTaken};
use crate::parts::PartError;
use crate::waits::WaitKind;

/// How far a mean is whose contribution is given range by range.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// It has begun, and has not ended.
    open: bool,
    /// Examples behind it.
    weight: u64,
    given: Ranges,
}

impl Exchange {
    /// Is a contribution under way? The machine takes no other one before its end.
    pub(super) fn is_partial(&self) -> bool {
        self.parts.open
    }

    /// Begins a round with the state in `params` and `optimizer`. The gradient follows, range by range.
    pub(crate) fn begin_mean(&mut self, examples: u32, params: &[f32], optimizer: &[&[f32]]) -> Result<(), Error> {
        let weight = u64::from(examples);
        (self.parts.open, self.parts.weight) = (true, weight);
        self.parts.given.clear();
        self.contributions += u64::from(weight > 0);
        let state = self.filled_state(params, optimizer.iter().copied());
        let filled = self.spare.take().expect(HAS_SPARE);
        self.drive.begin(Begin { weight, filled, state })
    }

    /// The range of a tensor.
    pub(crate) fn range_of(&self, tensor: &str) -> Result<Range<usize>, Error> {
        self.layout.range(tensor).ok_or_else(|| {
            let similar = self.layout.most_similar(tensor).map(str::to_string);
            PartError::UnknownTensor { got: tensor.to_string(), similar }.into()
        })
    }

    /// Gives a range of the gradient. `name`: the tensor of that range, if it was asked for by its name.
    pub(crate) fn give(&mut self, range: Range<usize>, name: Option<&str>, values: &[f32]) -> Result<(), Error> {
        self.drive.check()?;
        let (first, len) = (range.start, self.layout.len());
        if range.end > len || range.start > range.end {
            return Err(PartError::Outside { got: range, len }.into());
        }
        let (expected, got) = (range.len(), values.len());
        if expected != got {
            let of = name.map_or_else(|| format!("elements {range:?}"), |name| format!("{name:?}"));
            return Err(PartError::Length { of, expected, got }.into());
        }
        if self.parts.weight > 0
            && let Some(index) = scan::first_non_finite(values)
        {
            let (tensor, within) = self.located(first + index);
            let error = Error::NonFinite { what: "gradient", tensor, index: within, got: values[index] };
            self.drive.note_refusal(&error, &self.layout);
            return Err(error);
        }
        if let Err(index) = self.parts.given.add(range.clone()) {
            let (tensor, index) = self.located(index);
            return Err(PartError::Twice { tensor, index }.into());
        }
        if self.parts.weight == 0 || range.is_empty() {
            return self.drive.pump();
        }
        let mut filled = self.free_buffer("give a range")?;
        Arc::make_mut(&mut filled).floats_mut()[range].copy_from_slice(values);
        self.drive.begin(GiveRange { filled, first, len: got })
    }

    /// Waits for the end of the round, as [`mean`](Self::mean) does.
    pub(crate) fn finish_mean(
        &mut self,
        vector: &mut [f32],
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
    ) -> Result<bool, Error> {
        self.drive.check()?;
        let missing = self.parts.given.first_missing(self.layout.len()).filter(|_| self.parts.weight > 0);
        if let Some(index) = missing {
            let (tensor, index) = self.located(index);
            return Err(PartError::Missing { tensor, index }.into());
        }
        check::length("gradient", self.layout.len(), vector.len())?;
        check::length("params", self.layout.len(), params.len())?;
        check::carried_vectors(&self.recipe, self.optimizer_vectors, optimizer.len())?;
        let lengths = optimizer.iter().map(|vector| vector.len());
        lengths.into_iter().try_for_each(|got| check::length("optimizer vector", self.layout.len(), got))?;
        let purpose = "take the mean";
        self.drive.steps().mark(|meter, now| meter.step_begins(now));
        self.spare = Some(self.free_buffer(purpose)?);
        let stepped = self.drive.wait_for(purpose, WaitKind::Step)?;
        self.parts.open = false;
        let given = self.take_mean(stepped, vector, params, optimizer);
        self.count(given, self.parts.weight);
        Ok(given)
    }

    /// Ends this node in the middle of a contribution. Its peers are told.
    pub(crate) fn abandon(&mut self) {
        self.drive.abandon();
    }

    /// The buffer in which ranges travel to the engine. Waits until the engine has taken the range before.
    fn free_buffer(&mut self, purpose: &'static str) -> Result<Arc<Storage>, Error> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        let RangeTaken { spare } = self.drive.wait_for(purpose, WaitKind::Step)?;
        Ok(spare)
    }

    /// The tensor of an element of the vector, and the element's index in it.
    fn located(&self, index: usize) -> (String, usize) {
        let (tensor, within) = self.layout.locate(index).unwrap_or(("", index));
        (tensor.to_string(), within)
    }
}
