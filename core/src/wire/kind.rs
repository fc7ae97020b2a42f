//! The kind of a message, and the lengths that its body can have.

use super::WireError;

/// Longest text of a contract that a hello may carry, in bytes.
pub const CONTRACT_LEN_MAX: u32 = 64 * 1024;

/// The kind of a message, as the number in the header. The fields of each kind are documented at
/// [`Message`](super::Message).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "documented at the message of the same name")]
pub enum Kind {
    Hello = 1,
    Refuse = 2,
    Push = 3,
    Params = 4,
    Up = 5,
    Down = 6,
    Quanta = 7,
    Ack = 8,
    Mark = 9,
    Seed = 10,
    Ledger = 11,
    Fetch = 12,
    Leave = 13,
    Awaits = 14,
    Delta = 15,
    Report = 16,
    Member = 17,
    View = 18,
    State = 19,
    Release = 20,
    Again = 21,
    Moments = 22,
    Failed = 23,
    Silence = 24,
}

impl Kind {
    pub(super) const ALL: [Self; 24] = [
        Self::Hello,
        Self::Refuse,
        Self::Push,
        Self::Params,
        Self::Up,
        Self::Down,
        Self::Quanta,
        Self::Ack,
        Self::Mark,
        Self::Seed,
        Self::Ledger,
        Self::Fetch,
        Self::Leave,
        Self::Awaits,
        Self::Delta,
        Self::Report,
        Self::Member,
        Self::View,
        Self::State,
        Self::Release,
        Self::Again,
        Self::Moments,
        Self::Failed,
        Self::Silence,
    ];

    pub(super) fn parse(number: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number).ok_or(WireError::Kind { got: number })
    }

    /// Checks the length of a body, in bytes, as far as the kind alone decides it.
    pub(super) fn check_length(self, length: u32) -> Result<(), WireError> {
        let limit = match self {
            Self::Hello => CONTRACT_LEN_MAX,
            Self::Push
            | Self::Params
            | Self::Delta
            | Self::Up
            | Self::Down
            | Self::Quanta
            | Self::Seed
            | Self::Ledger
            | Self::State => u32::MAX,
            _ => 0,
        };
        if length > limit {
            return Err(WireError::Length { kind: self, expected: limit, got: length });
        }
        if limit == u32::MAX && !length.is_multiple_of(4) {
            return Err(WireError::Words { kind: self, got: length });
        }
        Ok(())
    }
}
