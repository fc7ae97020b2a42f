use proptest::prelude::*;

use super::*;
use alloc::string::ToString;

fn any_header() -> impl Strategy<Value = Header> {
    (0..Kind::ALL.len(), any::<[u32; 5]>(), any::<[u64; 4]>()).prop_map(|(kind, words, longs)| {
        let kind = Kind::ALL[kind];
        let length = if kind == Kind::Hello { words[4] % (CONTRACT_LEN_MAX + 1) } else { words[4] & !3 };
        Header {
            kind,
            digest: words[0],
            origin: PeerId(words[1]),
            shard: ShardId(words[2]),
            weight: words[3],
            incarnation: Incarnation(longs[0]),
            sequence: Sequence(longs[1]),
            clock: Clock(longs[2]),
            base: Clock(longs[3]),
            length: if kind.check_length(length).is_ok() { length } else { 0 },
        }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(header in any_header()) {
        prop_assert_eq!(Header::parse(&header.emit()), Ok(header));
    }

    #[test]
    fn a_flipped_bit_is_noticed(header in any_header(), bit in 0usize..HEADER_LEN * 8) {
        let mut bytes = header.emit();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::parse(&bytes).is_err());
    }

    #[test]
    fn bytes_are_no_header_or_are_written_the_same_again(mut bytes in prop::array::uniform32(any::<u8>())
        .prop_map(|half| { let mut all = [0u8; HEADER_LEN]; all[..32].copy_from_slice(&half); all[32..].copy_from_slice(&half); all }),
        fix in any::<bool>())
    {
        bytes[..4].copy_from_slice(b"GRWR");
        bytes[4] = VERSION;
        bytes[5] %= 16;
        bytes[6..8].fill(0);
        if fix {
            let sum = checksum(&bytes);
            bytes[60..].copy_from_slice(&sum.to_le_bytes());
        }
        if let Ok(header) = Header::parse(&bytes) {
            prop_assert_eq!(header.emit(), bytes);
        }
    }
}

fn sealed(change: impl FnOnce(&mut [u8; HEADER_LEN])) -> [u8; HEADER_LEN] {
    let header = Header {
        kind: Kind::Push,
        digest: 1,
        origin: PeerId(2),
        shard: ShardId(0),
        weight: 32,
        incarnation: Incarnation(7),
        sequence: Sequence(1),
        clock: Clock(0),
        base: Clock(0),
        length: 8,
    };
    let mut bytes = header.emit();
    change(&mut bytes);
    let sum = checksum(&bytes);
    bytes[60..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn errors_say_expected_and_got() {
    let error = |change: fn(&mut [u8; HEADER_LEN])| Header::parse(&sealed(change)).unwrap_err().to_string();
    assert_eq!(error(|b| b[0] = 0x16), "frame: expected magic \"GRWR\", got \"\\x16RWR\"");
    assert_eq!(error(|b| b[4] = 1), "frame: expected version 2, got 1");
    assert_eq!(error(|b| b[6] = 1), "frame: expected no flags, got 0x0001");
    assert_eq!(error(|b| b[5] = 99), "frame: expected kind 1 to 21, got 99");
    assert_eq!(error(|b| b[56] = 9), "frame: expected whole 32-bit words after Push, got 9 bytes");
    assert_eq!(error(|b| b[5] = Kind::Ack as u8), "frame: expected at most 0 bytes after Ack, got 8");
    let long = sealed(|b| {
        b[5] = Kind::Hello as u8;
        b[58] = 1;
    });
    let long = Header::parse(&long).unwrap_err().to_string();
    assert_eq!(long, "frame: expected at most 65536 bytes after Hello, got 65544");
    let mut bytes = sealed(|_| {});
    bytes[63] ^= 0xff;
    assert!(Header::parse(&bytes).unwrap_err().to_string().starts_with("frame: expected checksum "));
}
