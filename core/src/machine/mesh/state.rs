//! The states of a mesh peer, as its application sees it. How far the node has come into its view is kept apart.
//!
//! ```text
//! the beginning  Joining -> Basing -> Ready
//! a step         Ready -> Blocked -> Encoding -> Due -> Viewing -> Ready
//! the end        Ready -> Blocked -> Encoding -> Leaving -> Closing -> Left
//! ```
//! A step without examples goes from Ready to Due. A node can also leave while it is Joining or Blocked.

use crate::machine::Misuse;

/// The state of the application's node.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There are no parameters yet, or the first ranks go ahead.
    Joining,
    /// The first view is being made.
    Basing,
    /// The application computes.
    Ready,
    /// A message is to be made, and no slot is free for it.
    Blocked(Cause),
    /// The message in this slot is being encoded.
    Encoding { slot: usize, cause: Cause },
    /// The view is to be made. If the node follows a tape, other messages may have to come first.
    Due,
    /// The view is being made.
    Viewing,
    /// The last message is made. The neighbours have to get it, and to learn that it is the last.
    Leaving {
        /// The application waits for the final parameters.
        stays: bool,
        /// The neighbours that are connected have been told.
        announced: bool,
    },
    /// The coordinator has released the node; the view is being made.
    Closing {
        /// The application waits for the final parameters.
        stays: bool,
    },
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
    /// The state after the application has said that it makes no more contributions.
    pub(super) fn leave(self, stays: bool) -> Result<Self, Misuse> {
        match self {
            Self::Ready | Self::Joining | Self::Blocked(_) => Ok(Self::Leaving { stays, announced: false }),
            _ => Err(Misuse::NotReady),
        }
    }
}
