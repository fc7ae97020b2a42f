//! The type [`Form`].

/// How a list is written.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Form {
    /// Golomb-Rice.
    Rice = 0,
    /// One word per entry.
    Raw = 1,
    /// Two bits per element.
    Dense2 = 2,
    /// Sixteen bits per element.
    Dense16 = 3,
}

impl Form {
    /// The form of that number.
    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Rice),
            1 => Some(Self::Raw),
            2 => Some(Self::Dense2),
            3 => Some(Self::Dense16),
            _ => None,
        }
    }
}
