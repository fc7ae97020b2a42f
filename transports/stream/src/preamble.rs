//! The first bytes each way: who is there.
//!
//! | bytes | field | |
//! |---|---|---|
//! | 0..4 | magic | `GRWP` |
//! | 4 | version | 1 |
//! | 5 | code | 0: welcome; else why not, see [`Refusal`] |
//! | 6..8 | length | of the address |
//! | 8..16 | cluster | digest of its name |
//! | 16..20 | nodes | |
//! | 20..24 | rank | of the sender |
//! | 24..28 | to | rank that is meant to be there |
//! | 28..32 | | 0 |
//! | 32..40 | instance | drawn at random by the process |
//! | 40..48 | expected | of a refusal |
//! | 48..56 | got | |
//! | 56..120 | address | where the sender listens, padded with zeros |
//! | 120..124 | | 0 |
//! | 124..128 | checksum | CRC-32 of the bytes before |

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::notice::Refusal;

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 128;
pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"GRWP";
const ADDRESS_LEN: usize = 64;

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the module's table")]
pub struct Preamble {
    pub cluster: u64,
    pub nodes: u32,
    pub rank: u32,
    pub to: u32,
    pub instance: u64,
    pub address: String,
    pub refusal: Option<Refusal>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: u8,
    code: u8,
    length: U16,
    cluster: U64,
    nodes: U32,
    rank: U32,
    to: U32,
    zero: U32,
    instance: U64,
    expected: U64,
    got: U64,
    address: [u8; ADDRESS_LEN],
    zeros: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<Raw>() == PREAMBLE_LEN);

impl Preamble {
    /// Reads a preamble; says what is wrong with one that is none.
    ///
    /// # Errors
    /// In words for the log.
    pub fn parse(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, String> {
        let Ok(raw) = Raw::ref_from_bytes(bytes) else { unreachable!("Raw is unaligned and as long as a preamble") };
        if raw.magic != MAGIC {
            let got = raw.magic.escape_ascii();
            return Err(format!("expected a gradwire node, got \"{got}\""));
        }
        let checksum = crc32fast::hash(&bytes[..PREAMBLE_LEN - 4]);
        if raw.checksum != checksum {
            return Err(format!("expected checksum {checksum:08x}, got {:08x}", raw.checksum));
        }
        if raw.version != VERSION {
            return Err(Refusal::Version { expected: VERSION.into(), got: raw.version.into() }.to_string());
        }
        let (expected, got) = (raw.expected.get(), raw.got.get());
        let refusal = match raw.code {
            0 if (expected, got) == (0, 0) => None,
            code => {
                let refusal = Refusal::from_code(code, expected, got).filter(|it| it.code() == (code, expected, got));
                Some(refusal.ok_or_else(|| format!("expected a known code, got {code}"))?)
            }
        };
        let length = usize::from(raw.length.get());
        let (address, padding) =
            raw.address.split_at_checked(length).ok_or_else(|| format!("an address of {length} bytes"))?;
        let clean = padding.iter().all(|byte| *byte == 0) && raw.zero == 0 && raw.zeros == 0;
        let printable = address.iter().all(|byte| byte.is_ascii_graphic());
        if !clean || !printable {
            return Err("expected a plain address, and zeros".to_string());
        }
        Ok(Self {
            cluster: raw.cluster.get(),
            nodes: raw.nodes.get(),
            rank: raw.rank.get(),
            to: raw.to.get(),
            instance: raw.instance.get(),
            address: String::from_utf8_lossy(address).into_owned(),
            refusal,
        })
    }

    /// Writes it. An address longer than 64 bytes is left out.
    pub fn emit(&self) -> [u8; PREAMBLE_LEN] {
        let (code, expected, got) = self.refusal.map_or((0, 0, 0), Refusal::code);
        let mut address = [0; ADDRESS_LEN];
        let text = if self.address.len() <= ADDRESS_LEN { self.address.as_bytes() } else { &[] };
        address[..text.len()].copy_from_slice(text);
        let raw = Raw {
            magic: MAGIC,
            version: VERSION,
            code,
            length: (text.len() as u16).into(),
            cluster: self.cluster.into(),
            nodes: self.nodes.into(),
            rank: self.rank.into(),
            to: self.to.into(),
            zero: U32::ZERO,
            instance: self.instance.into(),
            expected: expected.into(),
            got: got.into(),
            address,
            zeros: U32::ZERO,
            checksum: U32::ZERO,
        };
        let mut bytes = [0; PREAMBLE_LEN];
        bytes.copy_from_slice(raw.as_bytes());
        let checksum = crc32fast::hash(&bytes[..PREAMBLE_LEN - 4]);
        bytes[PREAMBLE_LEN - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(refusal: Option<Refusal>) -> Preamble {
        let address = "127.0.0.1:4000".to_string();
        Preamble { cluster: 7, nodes: 5, rank: 3, to: 0, instance: 9, address, refusal }
    }

    #[test]
    fn a_preamble_comes_back_as_it_was() {
        for refusal in [None, Some(Refusal::Nodes { expected: 4, got: 5 }), Some(Refusal::Taken { rank: 3 })] {
            let preamble = preamble(refusal);
            assert_eq!(Preamble::parse(&preamble.emit()), Ok(preamble));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = preamble(None).emit();
        for bit in 0..PREAMBLE_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Preamble::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_no_preamble_is_named() {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..16].copy_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(Preamble::parse(&bytes), Err("expected a gradwire node, got \"GET \"".to_string()));
    }
}
