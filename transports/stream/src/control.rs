//! What transports tell each other on an open connection: frames as long as a header, between messages.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `GRWC` |
//! | 4 | kind | 1: alive; 2: busy for `value` milliseconds; 3: addresses, `value` bytes of them follow |
//! | 5..8 | | 0 |
//! | 8..12 | value | |
//! | 12..60 | | 0 |
//! | 60..64 | checksum | CRC-32 of the bytes before |

use gradwire_core::wire::HEADER_LEN;

/// Bytes of a control frame.
pub const CONTROL_LEN: usize = HEADER_LEN;
pub(crate) const MAGIC: [u8; 4] = *b"GRWC";
/// Longest list of addresses.
pub(crate) const BOOK_MAX: u32 = 128 * 1024;

/// A control frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named by their fields")]
pub enum Control {
    Alive,
    Busy { millis: u32 },
    Book { length: u32 },
}

impl Control {
    /// Reads a frame that begins with the magic.
    ///
    /// # Errors
    /// In words for the log.
    pub fn parse(bytes: &[u8; CONTROL_LEN]) -> Result<Self, String> {
        let value = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let control = match bytes[4] {
            1 => Self::Alive,
            2 => Self::Busy { millis: value },
            3 if value <= BOOK_MAX => Self::Book { length: value },
            3 => return Err(format!("control: expected at most {BOOK_MAX} bytes of addresses, got {value}")),
            kind => return Err(format!("control: expected kind 1 to 3, got {kind}")),
        };
        if control.emit() != *bytes {
            return Err("control: expected zeros and a matching checksum".to_string());
        }
        Ok(control)
    }

    /// Writes it.
    pub fn emit(self) -> [u8; CONTROL_LEN] {
        let (kind, value) = match self {
            Self::Alive => (1, 0),
            Self::Busy { millis } => (2, millis),
            Self::Book { length } => (3, length),
        };
        let mut bytes = [0; CONTROL_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = kind;
        bytes[8..12].copy_from_slice(&value.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CONTROL_LEN - 4]);
        bytes[CONTROL_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// Writes a list of addresses: rank, length, text, for each; and their checksum.
pub(crate) fn emit_book<'a>(entries: impl Iterator<Item = (u32, &'a str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (rank, address) in entries {
        if bytes.len() + address.len() + 12 > BOOK_MAX as usize {
            break;
        }
        bytes.extend(rank.to_le_bytes());
        bytes.push(address.len() as u8);
        bytes.extend(address.as_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Reads a list of addresses.
///
/// # Errors
/// In words for the log.
pub fn parse_book(bytes: &[u8]) -> Result<Vec<(u32, String)>, String> {
    let (mut rest, checksum) = bytes.split_last_chunk::<4>().ok_or("addresses: expected a checksum")?;
    if crc32fast::hash(rest).to_le_bytes() != *checksum {
        return Err("addresses: expected a matching checksum".to_string());
    }
    let mut entries = Vec::new();
    while let Some((rank, after)) = rest.split_first_chunk::<4>() {
        let (length, after) = after.split_first().ok_or("addresses: cut short")?;
        let (address, after) = after.split_at_checked(usize::from(*length)).ok_or("addresses: cut short")?;
        if address.is_empty() || !address.iter().all(u8::is_ascii_graphic) {
            return Err("addresses: expected plain text".to_string());
        }
        entries.push((u32::from_le_bytes(*rank), String::from_utf8_lossy(address).into_owned()));
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err("addresses: cut short".to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_flips_are_noticed() {
        for control in [Control::Alive, Control::Busy { millis: 1 << 31 }, Control::Book { length: BOOK_MAX }] {
            let good = control.emit();
            assert_eq!(Control::parse(&good), Ok(control));
            for bit in 32..CONTROL_LEN * 8 {
                let mut bad = good;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Control::parse(&bad).is_err(), "bit {bit}");
            }
        }
        assert!(Control::parse(&Control::Book { length: BOOK_MAX + 1 }.emit()).is_err());
    }

    #[test]
    fn addresses_come_back_and_every_truncation_fails() {
        let book = [(1, "127.0.0.1:80"), (7, "[::1]:9")];
        let bytes = emit_book(book.into_iter());
        let read = parse_book(&bytes).unwrap();
        assert_eq!(read, book.map(|(rank, address)| (rank, address.to_string())));
        for end in 0..bytes.len() {
            assert!(parse_book(&bytes[..end]).is_err(), "{end}");
        }
    }
}
