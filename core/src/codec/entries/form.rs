//! The type [`Form`].

/// The form in which a list of entries is written: the smallest of four, and the first one among equals.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Form {
    /// Golomb-Rice: the gap to the previous entry as a unary quotient and a few low bits.
    Rice = 0,
    /// One word per entry: sign and index.
    Raw = 1,
    /// Two bits per element of the vector: 0, +1 or -1.
    Dense2 = 2,
    /// Sixteen bits per element of the vector: a count.
    Dense16 = 3,
}

impl Form {
    /// The form with this number in a body.
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
