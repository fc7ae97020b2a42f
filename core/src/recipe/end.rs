//! The end axis: the treatment of a residual when its worker ends.

use super::{ConfigError, check_range};

/// How a worker treats its residual when it finishes or leaves. The residual of a lossy codec holds the part of
/// the worker's updates that no message has carried yet.
///
/// The size of the residual, and of the part that was not sent, are in [`Status::rest`](crate::Status::rest) and in
/// [`Event::Rest`](crate::Event::Rest). The residual of a worker that is lost is lost with it in any case.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The residual is not sent. The run ends with the parameters that it was last trained and validated with.
    Keep,
    /// All of the residual is sent at once, in as many messages as it takes. With a sparse codec, this is one large
    /// step in a direction that is many steps old, which can undo a part of the training. Messages of a dense codec
    /// leave an error, which is not sent: less than 1/16 of the residual, or with `sign` the rest after 16 messages.
    Send,
    /// The worker sends further messages as the codec makes them, without new updates: the largest part of the residual
    /// in small steps. The rest after the last of them is not sent.
    Spread {
        /// The most messages: at least 1. Fewer are sent if the residual is empty before.
        messages: u32,
    },
}

impl End {
    pub(super) fn check(self) -> Result<(), ConfigError> {
        match self {
            Self::Spread { messages } => check_range("messages", "at least 1", messages as f32, messages >= 1),
            Self::Keep | Self::Send => Ok(()),
        }
    }
}
