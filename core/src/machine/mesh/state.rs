//! The states of a mesh peer, as its application sees it.
//!
//! ```text
//! the beginning  Joining -> Basing <-> Held -> Ready
//! a step         Ready -> Blocked -> Encoding -> Viewing -> Ready
//! the end        Ready -> Blocked -> Encoding -> Leaving -> Closing -> Left
//! ```
//! A step without examples goes from Ready to Viewing. A node can also leave while it is Joining, Held or Blocked.

use crate::machine::Misuse;

/// The state of the application's node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There are no parameters yet.
    Joining,
    /// The base or the snapshot is here, the view is being made.
    Basing,
    /// There are parameters; the first ranks go ahead.
    Held,
    /// The application computes.
    Ready,
    /// A message is to be made, and no slot is free for it.
    Blocked(Cause),
    /// The message in this slot is being encoded.
    Encoding { slot: usize, cause: Cause },
    /// The view is being made.
    Viewing,
    /// The last message is made. The neighbours have to get it, and to learn that it is the last.
    Leaving {
        /// The application waits for the final parameters.
        stays: bool,
        /// The neighbours that are connected have been told.
        announced: bool,
    },
    /// All messages that the application waits for are in; the view is being made.
    Closing,
    /// The application has left.
    Left,
}

/// Why a message is made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The application has contributed.
    Step,
    /// The application leaves, and the message takes a part of the residual.
    Leave { stays: bool },
}

impl State {
    /// The replica holds parameters that can be changed and handed on.
    pub(super) fn has_parameters(self) -> bool {
        !matches!(self, Self::Joining | Self::Basing)
    }

    /// The state after the application has said that it makes no more contributions.
    pub(super) fn leave(self, stays: bool) -> Result<Self, Misuse> {
        match self {
            Self::Ready | Self::Joining | Self::Held | Self::Blocked(_) => {
                Ok(Self::Leaving { stays, announced: false })
            }
            _ => Err(Misuse::NotReady),
        }
    }
}
