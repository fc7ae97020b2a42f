//! Control frames: messages between the two transports of an open connection, which the machines never see. They have
//! the length of a message header, stand between messages, and are told apart by their magic. Integers are
//! little-endian.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `GRWC` |
//! | 4 | kind | 1: keep-alive; 2: busy for `value` milliseconds; 3: an address book of `value` bytes follows; 4: the sender wants the connection (1) or not (0) |
//! | 5..8 | | 0 |
//! | 8..12 | value | depends on the kind, else 0 |
//! | 12..60 | | 0 |
//! | 60..64 | checksum | CRC-32 of bytes 0..60 |
//!
//! An *address book* lists nodes by rank with the address where each listens. Each entry is the rank (4 bytes), the
//! length of the address (1 byte) and the address (printable ASCII). A CRC-32 of all entries follows the last.

use gradwire_core::wire::HEADER_LEN;

/// Length of a control frame in bytes. It equals the length of a message header, so that the reader takes both alike.
pub const CONTROL_LEN: usize = HEADER_LEN;
pub(crate) const MAGIC: [u8; 4] = *b"GRWC";
/// Longest address book in bytes. It bounds the memory that a peer can make this node allocate.
pub(crate) const BOOK_MAX: u32 = 128 * 1024;

/// A decoded control frame.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Keep-alive: the sender had no other frame to send.
    Alive,
    /// The sender computes and may be silent for a while.
    Busy {
        /// How long, in milliseconds.
        millis: u32,
    },
    /// An address book follows.
    Book {
        /// Its length in bytes, checksum included.
        length: u32,
    },
    /// Whether the sender's machine wants this connection. It does until the first such frame on the connection.
    Wanted {
        /// It does.
        wanted: bool,
    },
}

impl Control {
    /// Decodes a frame. The caller has checked the magic.
    ///
    /// # Errors
    /// The text for a notice: the expected and the actual value of the invalid field.
    pub fn parse(bytes: &[u8; CONTROL_LEN]) -> Result<Self, String> {
        let value = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let control = match bytes[4] {
            1 => Self::Alive,
            2 => Self::Busy { millis: value },
            3 if value <= BOOK_MAX => Self::Book { length: value },
            3 => return Err(format!("control: expected an address book of at most {BOOK_MAX} bytes, got {value}")),
            4 if value <= 1 => Self::Wanted { wanted: value == 1 },
            4 => return Err(format!("control: expected 0 or 1 for a wish, got {value}")),
            kind => return Err(format!("control: expected kind 1 to 4, got {kind}")),
        };
        // A frame has one encoding only, so comparing with it checks padding and checksum at once.
        if control.emit() != *bytes {
            return Err("control: expected zero padding and a matching checksum".to_string());
        }
        Ok(control)
    }

    /// Encodes the frame.
    pub fn emit(self) -> [u8; CONTROL_LEN] {
        let (kind, value) = match self {
            Self::Alive => (1, 0),
            Self::Busy { millis } => (2, millis),
            Self::Book { length } => (3, length),
            Self::Wanted { wanted } => (4, wanted.into()),
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

/// Encodes an address book. Entries that would exceed [`BOOK_MAX`] are left out.
pub(crate) fn emit_book<'a>(entries: impl Iterator<Item = (u32, &'a str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (rank, address) in entries {
        // Rank, length and checksum take 9 bytes.
        if bytes.len() + address.len() + 12 > BOOK_MAX as usize {
            break;
        }
        bytes.extend(rank.to_le_bytes());
        // Addresses come from preambles (at most 64 bytes) or are paths of sockets (about 110), so this fits.
        bytes.push(address.len() as u8);
        bytes.extend(address.as_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    bytes
}

/// Decodes an address book into pairs of rank and address. Whether ranks and addresses are valid is left to the caller.
///
/// # Errors
/// The text for a notice.
pub fn parse_book(bytes: &[u8]) -> Result<Vec<(u32, String)>, String> {
    const TRUNCATED: &str = "address book: expected a complete entry, got the end";
    let (mut rest, checksum) = bytes.split_last_chunk::<4>().ok_or("address book: expected a checksum")?;
    if crc32fast::hash(rest).to_le_bytes() != *checksum {
        return Err("address book: expected a matching checksum".to_string());
    }
    let mut entries = Vec::new();
    while let Some((rank, after)) = rest.split_first_chunk::<4>() {
        let (length, after) = after.split_first().ok_or(TRUNCATED)?;
        let (address, after) = after.split_at_checked(usize::from(*length)).ok_or(TRUNCATED)?;
        if address.is_empty() || !address.iter().all(u8::is_ascii_graphic) {
            return Err("address book: expected addresses of printable ASCII".to_string());
        }
        entries.push((u32::from_le_bytes(*rank), String::from_utf8_lossy(address).into_owned()));
        rest = after;
    }
    if rest.is_empty() { Ok(entries) } else { Err(TRUNCATED.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_returns_the_frame_that_was_emitted_and_rejects_every_flipped_bit() {
        let wishes = [true, false].map(|wanted| Control::Wanted { wanted });
        let others = [Control::Alive, Control::Busy { millis: 1 << 31 }, Control::Book { length: BOOK_MAX }];
        for control in others.into_iter().chain(wishes) {
            let good = control.emit();
            assert_eq!(Control::parse(&good), Ok(control));
            // The first 32 bits are the magic, which the caller checks.
            for bit in 32..CONTROL_LEN * 8 {
                let mut bad = good;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Control::parse(&bad).is_err(), "bit {bit}");
            }
        }
        assert!(Control::parse(&Control::Book { length: BOOK_MAX + 1 }.emit()).is_err());
    }

    #[test]
    fn an_address_book_is_read_back_and_every_truncation_is_rejected() {
        let book = [(1, "127.0.0.1:80"), (7, "[::1]:9")];
        let bytes = emit_book(book.into_iter());
        let read = parse_book(&bytes).unwrap();
        assert_eq!(read, book.map(|(rank, address)| (rank, address.to_string())));
        for end in 0..bytes.len() {
            assert!(parse_book(&bytes[..end]).is_err(), "{end}");
        }
    }
}
