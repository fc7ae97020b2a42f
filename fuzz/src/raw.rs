//! Headers with arbitrary fields, also with combinations that no [`Message`](gradwire_core::wire::Message) has.

use gradwire_core::wire::{HEADER_LEN, Header, VERSION};

/// The fields of a header, with the meaning that the kind gives to them.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Raw {
    pub(crate) kind: u8,
    pub(crate) digest: u32,
    pub(crate) origin: u32,
    pub(crate) shard: u32,
    pub(crate) weight: u32,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    pub(crate) clock: u64,
    pub(crate) base: u64,
    pub(crate) length: u32,
}

impl Raw {
    /// The bytes of the header, with the right magic, version and checksum.
    pub(crate) fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(b"GRWR");
        bytes[4..6].copy_from_slice(&[VERSION, self.kind]);
        let words = [self.digest, self.origin, self.shard, self.weight];
        for (into, word) in bytes[8..24].chunks_exact_mut(4).zip(words) {
            into.copy_from_slice(&word.to_le_bytes());
        }
        let longs = [self.incarnation, self.sequence, self.clock, self.base];
        for (into, long) in bytes[24..56].chunks_exact_mut(8).zip(longs) {
            into.copy_from_slice(&long.to_le_bytes());
        }
        bytes[56..60].copy_from_slice(&self.length.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..HEADER_LEN - 4]).to_le_bytes();
        bytes[HEADER_LEN - 4..].copy_from_slice(&sum);
        bytes
    }

    /// The header with some fields set to 0: bits 3 to 7 of `mask` stand for shard, weight, sequence, clock and base.
    pub(crate) fn trimmed(self, mask: u8) -> Self {
        let keep = |bit: u8| u64::from(mask >> bit & 1 == 0);
        Self {
            shard: self.shard * keep(3) as u32,
            weight: self.weight * keep(4) as u32,
            sequence: self.sequence * keep(5),
            clock: self.clock * keep(6),
            base: self.base * keep(7),
            ..self
        }
    }
}

/// Any combination of fields parses to a message that encodes to the same bytes, or is refused with the expected
/// values. Input: 10 bytes per header.
pub(crate) fn message(data: &[u8]) {
    for fields in data.as_chunks::<10>().0 {
        let [kind, origin, shard, weight, incarnation, sequence, clock, base, length, mask] = *fields;
        let wide = |byte: u8| if byte > 240 { u64::MAX >> (byte % 16) } else { u64::from(byte % 8) };
        let raw = Raw {
            kind: kind % 25,
            digest: 7,
            origin: wide(origin) as u32,
            shard: wide(shard) as u32,
            weight: wide(weight) as u32,
            incarnation: wide(incarnation),
            sequence: wide(sequence),
            clock: wide(clock),
            base: wide(base),
            length: u32::from(length % 8) * 2,
        };
        let bytes = raw.trimmed(mask).emit();
        match Header::parse(&bytes) {
            Ok(header) => assert_eq!(header.emit(), bytes, "{header:?}"),
            Err(error) => assert!(error.to_string().contains("expected"), "{error}"),
        }
    }
}

/// Each kind, with all combinations of fields.
pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    (1..=24).map(|kind| (0..32).flat_map(|mask| [kind, 1, 1, 1, 1, 2, 2, 1, kind % 4, mask << 3]).collect()).collect()
}
