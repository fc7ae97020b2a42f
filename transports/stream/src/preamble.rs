//! The preamble: the first 256 bytes that each side of a connection sends. It identifies the sender, and carries the
//! [`Refusal`] if the accepting side rejects the connection. Integers are little-endian.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `GRWP` |
//! | 4 | version | version of the protocol, 2 |
//! | 5 | code | 0: accepted; else the kind of refusal, see [`Refusal`] |
//! | 6..8 | length | length of the address in bytes, 0 to 64 |
//! | 8..16 | cluster | digest of the cluster's name |
//! | 16..20 | nodes | number of nodes, workers and servers together |
//! | 20..24 | rank | rank of the sender |
//! | 24..28 | to | rank that the sender expects at the other end |
//! | 28 | run known | 0: the sender has no run; 1: it is proposed, see [`KnownRun`]; 2: it is known |
//! | 29 | out of turn | 1: the sender dials a node that dials it if both want each other, see [`Streams`]; else 0 |
//! | 30..32 | | 0 |
//! | 32..40 | instance | random number of the sender's process |
//! | 40..48 | expected | first value of the refusal, else 0 |
//! | 48..56 | got | second value of the refusal, else 0 |
//! | 56..120 | address | where the sender listens, printable ASCII padded with zeros |
//! | 120..184 | run | name of the sender's run, padded with zeros |
//! | 184..248 | name | the beginning of the cluster's name, for messages, padded with zeros |
//! | 248..252 | | 0 |
//! | 252..256 | checksum | CRC-32 of bytes 0..252 |
//!
//! [`Streams`]: crate::Streams

use gradwire_core::RunId;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::notice::Refusal;

/// Length of a preamble in bytes.
pub const PREAMBLE_LEN: usize = 256;
pub(crate) const VERSION: u8 = 2;
const MAGIC: [u8; 4] = *b"GRWP";
const ADDRESS_LEN: usize = 64;
const NAME_LEN: usize = 64;

/// A decoded preamble. An address longer than 64 bytes cannot be sent, see [`emit`](Self::emit).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the module's table")]
pub struct Preamble {
    pub cluster: u64,
    pub cluster_name: String,
    pub nodes: u32,
    pub rank: u32,
    pub to: u32,
    pub instance: u64,
    pub address: String,
    pub run: Option<KnownRun>,
    pub out_of_turn: bool,
    pub refusal: Option<Refusal>,
}

/// A run, as far as a node knows it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KnownRun {
    /// The name of the run, which can still be a proposal.
    pub run: RunId,
    /// The node is of this run for good. If not, rank 0 has drawn the name for a run that has not begun, and a known
    /// run replaces it.
    pub known: bool,
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
    run_known: u8,
    out_of_turn: u8,
    zero: [u8; 2],
    instance: U64,
    expected: U64,
    got: U64,
    address: [u8; ADDRESS_LEN],
    run: [u8; RunId::LEN_MAX],
    name: [u8; NAME_LEN],
    zeros: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<Raw>() == PREAMBLE_LEN);

impl Preamble {
    /// Decodes a preamble.
    ///
    /// # Errors
    /// The text for a notice: the first field that is invalid, with the value that was expected and the one that came.
    pub fn parse(bytes: &[u8; PREAMBLE_LEN]) -> Result<Self, String> {
        let Ok(raw) = Raw::ref_from_bytes(bytes) else { unreachable!("Raw is unaligned and as long as a preamble") };
        Self::check_magic(&raw.magic)?;
        let checksum = crc32fast::hash(&bytes[..PREAMBLE_LEN - 4]);
        if raw.checksum != checksum {
            return Err(format!("preamble: expected checksum {checksum:08x}, got {:08x}", raw.checksum));
        }
        // Another version may lay out the remaining fields differently, so this check comes before any of them.
        if raw.version != VERSION {
            return Err(Refusal::Version { expected: VERSION.into(), got: raw.version.into() }.to_string());
        }
        let (expected, got) = (raw.expected.get(), raw.got.get());
        let refusal = match raw.code {
            0 if (expected, got) == (0, 0) => None,
            code => {
                // A refusal with one value has 0 as the second. Comparing with its encoding rejects any other value.
                let refusal = Refusal::from_code(code, expected, got);
                let canonical = refusal.filter(|refusal| refusal.code() == (code, expected, got));
                Some(canonical.ok_or_else(|| format!("preamble: expected a valid refusal, got code {code}"))?)
            }
        };
        let length = usize::from(raw.length.get());
        let (address, padding) = raw
            .address
            .split_at_checked(length)
            .ok_or_else(|| format!("preamble: expected an address of at most {ADDRESS_LEN} bytes, got {length}"))?;
        let clean = padding.iter().all(|byte| *byte == 0) && raw.zero == [0; 2] && raw.zeros == 0;
        let printable = address.iter().all(|byte| byte.is_ascii_graphic());
        if !clean || !printable {
            return Err("preamble: expected an address of printable ASCII, padded with zeros".to_string());
        }
        let run = match (raw.run_known, RunId::from_bytes(&raw.run)) {
            (0, _) if raw.run == [0; RunId::LEN_MAX] => None,
            (known @ (1 | 2), Some(run)) => Some(KnownRun { run, known: known == 2 }),
            (known, _) => return Err(format!("preamble: expected the name of a run, got another text ({known})")),
        };
        if raw.out_of_turn > 1 {
            return Err(format!("preamble: expected 0 or 1 for a call out of turn, got {}", raw.out_of_turn));
        }
        let length = raw.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        let (name, padding) = raw.name.split_at(length);
        // It is printed. A control character would reach the terminal.
        let name = std::str::from_utf8(name).ok().filter(|name| !name.chars().any(char::is_control));
        let Some(name) = name.filter(|_| padding.iter().all(|byte| *byte == 0)) else {
            return Err("preamble: expected the name of a cluster, padded with zeros".to_string());
        };
        Ok(Self {
            cluster: raw.cluster.get(),
            cluster_name: name.to_string(),
            nodes: raw.nodes.get(),
            rank: raw.rank.get(),
            to: raw.to.get(),
            instance: raw.instance.get(),
            address: String::from_utf8_lossy(address).into_owned(),
            run,
            out_of_turn: raw.out_of_turn == 1,
            refusal,
        })
    }

    /// Checks the first bytes of a preamble, of which fewer than four may have come yet.
    ///
    /// # Errors
    /// The text for a notice, if they do not begin a preamble.
    pub(crate) fn check_magic(bytes: &[u8]) -> Result<(), String> {
        let n = bytes.len().min(MAGIC.len());
        if bytes[..n] == MAGIC[..n] {
            return Ok(());
        }
        Err(format!("expected a gradwire preamble (\"GRWP\"), got \"{}\"", bytes[..n].escape_ascii()))
    }

    /// The answer to a node if its preamble was not read. It contains only the refusal.
    pub(crate) fn bare(refusal: Refusal) -> Self {
        let refusal = Some(refusal);
        Self { cluster: 0, nodes: 0, to: 0, instance: 0, refusal, ..Self::question("", 0, 0) }
    }

    /// The preamble of a process that wants to know which node listens where it wanted to listen as this rank.
    pub fn question(cluster: &str, nodes: u32, rank: u32) -> Self {
        let (address, cluster_name, cluster) = (String::new(), cluster.to_string(), cluster_digest(cluster));
        let (run, out_of_turn, refusal) = (None, false, None);
        Self { cluster, cluster_name, nodes, rank, to: rank, instance: 1, address, run, out_of_turn, refusal }
    }

    /// Checks the version of a preamble of which only the beginning is here. Preambles of other versions can be
    /// shorter, so the rest may never come.
    ///
    /// # Errors
    /// The text for a notice.
    pub(crate) fn check_version(bytes: &[u8]) -> Result<(), String> {
        match bytes.strip_prefix(&MAGIC) {
            Some([got, ..]) if *got != VERSION => {
                Err(Refusal::Version { expected: VERSION.into(), got: (*got).into() }.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Encodes the preamble. An address longer than 64 bytes is replaced by an empty one.
    pub fn emit(&self) -> [u8; PREAMBLE_LEN] {
        let (code, expected, got) = self.refusal.map_or((0, 0, 0), Refusal::code);
        let mut address = [0; ADDRESS_LEN];
        let text = if self.address.len() <= ADDRESS_LEN { self.address.as_bytes() } else { &[] };
        address[..text.len()].copy_from_slice(text);
        let mut name = [0; NAME_LEN];
        let end =
            (0..=NAME_LEN.min(self.cluster_name.len())).rev().find(|end| self.cluster_name.is_char_boundary(*end));
        let begin = &self.cluster_name.as_bytes()[..end.unwrap_or(0)];
        name[..begin.len()].copy_from_slice(begin);
        let raw = Raw {
            magic: MAGIC,
            version: VERSION,
            code,
            length: (text.len() as u16).into(),
            cluster: self.cluster.into(),
            nodes: self.nodes.into(),
            rank: self.rank.into(),
            to: self.to.into(),
            run_known: self.run.map_or(0, |run| 1 + u8::from(run.known)),
            out_of_turn: self.out_of_turn.into(),
            zero: [0; 2],
            instance: self.instance.into(),
            expected: expected.into(),
            got: got.into(),
            address,
            run: self.run.map_or([0; RunId::LEN_MAX], |run| run.run.to_bytes()),
            name,
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

/// 64-bit FNV-1a of a cluster's name. It detects nodes configured for another cluster. It is no protection against
/// attackers, which is the task of the key.
pub(crate) fn cluster_digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(refusal: Option<Refusal>) -> Preamble {
        let address = "127.0.0.1:4000".to_string();
        let run = Some(KnownRun { run: "run-1".parse().unwrap(), known: true });
        let cluster_name = "cluster".to_string();
        let out_of_turn = refusal.is_none();
        Preamble { cluster: 7, cluster_name, nodes: 5, rank: 3, to: 0, instance: 9, address, run, out_of_turn, refusal }
    }

    #[test]
    fn parse_returns_the_preamble_that_was_emitted() {
        for refusal in
            [None, Some(Refusal::Nodes { expected: 4, got: 5 }), Some(Refusal::Taken { rank: 3 }), Some(Refusal::Run)]
        {
            let preamble = preamble(refusal);
            assert_eq!(Preamble::parse(&preamble.emit()), Ok(preamble));
        }
        for run in [None, preamble(None).run.map(|run| KnownRun { known: false, ..run })] {
            let preamble = Preamble { run, ..preamble(None) };
            assert_eq!(Preamble::parse(&preamble.emit()), Ok(preamble));
        }
    }

    /// A preamble of another version may be shorter, and is refused before it is complete.
    #[test]
    fn another_version_is_refused_by_its_first_bytes() {
        let mut bytes = preamble(None).emit();
        assert_eq!(Preamble::check_version(&bytes[..64]), Ok(()));
        assert_eq!(Preamble::check_version(&bytes[..4]), Ok(()));
        bytes[4] = 1;
        let error = Preamble::check_version(&bytes[..5]).unwrap_err();
        assert!(error.starts_with("expected protocol version 2, got 1"), "{error}");
    }

    #[test]
    fn a_preamble_with_any_single_bit_flipped_is_rejected() {
        let good = preamble(None).emit();
        for bit in 0..PREAMBLE_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Preamble::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_error_quotes_the_first_bytes_of_another_protocol() {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..16].copy_from_slice(b"GET / HTTP/1.1\r\n");
        assert_eq!(Preamble::parse(&bytes), Err("expected a gradwire preamble (\"GRWP\"), got \"GET \"".to_string()));
    }
}
