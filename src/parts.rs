//! [`MeanParts`]: a gradient that is given range by range, and travels while the rest is computed.

use std::fmt;
use std::ops::Range;

use crate::error::Error;
use crate::exchange::Exchange;
use crate::session::Mean;

/// A round of [`Session::mean`](crate::Session::mean) that has begun, and whose gradient is given range by range:
/// [`Session::begin_mean`](crate::Session::begin_mean) makes it.
///
/// Every element is given once, in any order; other workers may give other ranges, or their gradients as a whole. The
/// mean is the same, bit for bit. [`finish`](Self::finish) waits for it.
///
/// Trees and rings cut the vector into chunks (`chunk=`, in floats). A chunk is on its way as soon as the ranges that
/// cover it have been given, with every codec. A mesh encodes and sends the whole vector, so it begins with the last
/// range.
///
/// *Dropped before `finish`, it ends the session*, because peers may have a part of the gradient already. They are told
/// at once that this worker has failed, and do the round again without it: no part of this gradient is in any mean. The
/// error of a call leaves it as it was: the caller can give the right range, or drop it with `?`. An error of `finish`
/// drops it.
#[derive(Debug)]
#[must_use = "dropped without `finish`, it ends the session"]
pub struct MeanParts<'a> {
    exchange: &'a mut Exchange,
    /// Of the session.
    steps: &'a mut u64,
    finished: bool,
}

impl<'a> MeanParts<'a> {
    /// For a session whose `exchange` has begun.
    pub(crate) fn new(exchange: &'a mut Exchange, steps: &'a mut u64) -> Self {
        Self { exchange, steps, finished: false }
    }

    /// Gives the gradient of a tensor of the layout. Copies it twice. Allocates nothing, and waits for no peer. Without
    /// examples, the values are not read.
    ///
    /// # Errors
    /// If the layout has no tensor of this name, the tensor has another length, or one of its elements is not finite or
    /// was given before: then nothing has changed. If the run cannot go on: then the session has ended.
    pub fn give(&mut self, tensor: &str, values: &[f32]) -> Result<(), Error> {
        let range = self.exchange.range_of(tensor)?;
        self.exchange.give(range, Some(tensor), values)
    }

    /// As [`give`](Self::give), for a range of the flat vector: a bucket of several tensors, or a part of one.
    ///
    /// # Errors
    /// As for [`give`](Self::give). Also if the range does not lie in the vector.
    pub fn give_range(&mut self, range: Range<usize>, values: &[f32]) -> Result<(), Error> {
        self.exchange.give(range, None, values)
    }

    /// As [`Session::pump`](crate::Session::pump): for caller-driven sessions, between two ranges that take long to
    /// compute. `give` pumps once.
    ///
    /// # Errors
    /// If the run cannot go on.
    pub fn pump(&mut self) -> Result<(), Error> {
        self.exchange.drive().pump()
    }

    /// Waits for the mean, as [`Session::mean`](crate::Session::mean) does: `gradient` receives it. With
    /// [`Mean::Adopted`], `gradient` is unchanged, and `params` and `optimizer` hold the state of another worker.
    /// Without examples, ranges may be missing.
    ///
    /// # Errors
    /// If a range is missing, a vector has another length than the layout, there is another number of optimizer vectors,
    /// a wait reaches the deadline, or the run cannot go on. The session has ended.
    pub fn finish(
        mut self,
        gradient: &mut [f32],
        params: &mut [f32],
        optimizer: &mut [&mut [f32]],
    ) -> Result<Mean, Error> {
        let given = self.exchange.finish_mean(gradient, params, optimizer)?;
        self.finished = true;
        *self.steps += u64::from(given);
        Ok(if given { Mean::Given } else { Mean::Adopted })
    }
}

impl Drop for MeanParts<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.exchange.abandon();
        }
    }
}

/// Why a range of a gradient was refused, or is missing.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are the name of the tensor, the value that was expected and the one that came"
)]
pub enum PartError {
    /// The layout has no tensor of this name. `similar`: the tensor with the most similar name, if one is similar.
    UnknownTensor { got: String, similar: Option<String> },
    /// A tensor or range has another length, in floats. `of`: its name, or its elements.
    Length { of: String, expected: usize, got: usize },
    /// The range does not lie in the vector of `len` floats, or ends before it begins.
    Outside { got: Range<usize>, len: usize },
    /// An element was given before. `index` counts within the tensor.
    Twice { tensor: String, index: usize },
    /// An element was not given. `index` counts within the tensor.
    Missing { tensor: String, index: usize },
}

impl fmt::Display for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownTensor { got, similar } => {
                write!(f, "gradient: expected a tensor of the layout, got {got:?}")?;
                similar.as_ref().map_or(Ok(()), |name| write!(f, " (did you mean {name:?}?)"))
            }
            Self::Length { of, expected, got } => write!(f, "gradient: expected {expected} floats for {of}, got {got}"),
            Self::Outside { got, len } => write!(f, "gradient: expected a range within 0..{len}, got {got:?}"),
            Self::Twice { tensor, index } => {
                write!(f, "gradient: expected each element once, got element {index} of {tensor:?} twice")
            }
            Self::Missing { tensor, index } => {
                write!(f, "gradient: expected all elements before finish, element {index} of {tensor:?} is missing")
            }
        }
    }
}

// A program that returns this error from `main` prints it by `Debug`.
impl fmt::Debug for PartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for PartError {}

impl From<PartError> for Error {
    fn from(error: PartError) -> Self {
        Self::Part(error)
    }
}
