//! The type [`Rest`].

use core::fmt;

/// The residual of a worker at its end: the part of its updates that no message had carried, and how it ended. See
/// [`End`](crate::recipe::End).
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Rest {
    /// Euclidean norm of the residual when the worker ended, in units of the update.
    pub norm: f64,
    /// The same as a multiple of the norm of an update, measured at some of the updates. 0: no update was measured.
    pub updates: f64,
    /// Messages with parts of the residual that the worker sent after its last update.
    pub messages: u32,
    /// Euclidean norm of the part that was not sent.
    pub kept: f64,
}

impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { norm, updates, messages, kept } = self;
        write!(f, "the residual held {updates:.2} updates (norm {norm:.2e}): ")?;
        match messages {
            0 => write!(f, "not sent"),
            1 => write!(f, "sent in a last message, norm {kept:.2e} left"),
            _ => write!(f, "sent in {messages} messages, norm {kept:.2e} left"),
        }
    }
}
