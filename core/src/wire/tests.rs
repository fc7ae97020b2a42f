use alloc::vec::Vec;

use proptest::prelude::*;

use super::header::checksum;
use super::*;
use crate::id::{Clock, Incarnation, PeerId, Sequence, ShardId};
use crate::machine::Failure;
use crate::rider::Rider;
use crate::time::StepTime;
use alloc::string::ToString;

prop_compose! {
    /// The integers that messages are made of, small enough to be counts.
    fn any_fields()(words in any::<[u32; 4]>(), longs in any::<[u64; 4]>(), flags in any::<[bool; 4]>())
        -> ([u32; 4], [u64; 4], [bool; 4])
    {
        (words, longs.map(|long| long >> 2), flags)
    }
}

/// Any message, with a length that it can have.
fn any_header() -> impl Strategy<Value = Header> {
    (0u8..32, any_fields(), 1u32..1000).prop_map(|(kind, (words, longs, [a, b, c, d]), length)| {
        let [rank, shard, weight, _] = words;
        let [one, two, three, four] = longs;
        let (origin, incarnation, shard_id) = (PeerId(rank), Incarnation(one), ShardId(shard));
        let (sequence, clock, base) = (Sequence(two), Clock(three), Clock(four));
        let step_time = StepTime::from_wire(weight >> 1);
        let answer = Occasion::Answer { reference: step_time };
        let occasion = [answer, Occasion::Final, Occasion::Welcome { lead: weight >> 2 }][weight as usize % 3];
        let reply = Reply { shard: shard_id, sequence, row: clock, version: base, occasion, magnitude: None };
        let magnitude = Rider::new(f64::from(weight) / 1000.0).filter(|_| d);
        let sequence_of_reply = if magnitude.is_some() { Sequence(two & u64::from(u32::MAX)) } else { sequence };
        let reply = Reply { sequence: sequence_of_reply, magnitude, ..reply };
        let examples = four.min(WEIGHT_MAX);
        let number = Rider::new(f64::from(weight) / 1000.0);
        let (rider, riders) = (number.filter(|_| a && c), number.filter(|_| b).map(|number| [number; 2]));
        let part = Part {
            view: sequence,
            round: clock,
            chunk: shard,
            weight: if a { examples | 1 } else { 0 },
            finishing: b,
            rider,
        };
        let part_length = if a { 4 * length } else { 0 };
        let (last, view, floats) = (sequence, Sequence(two + 1), 4 * length);
        let (message, length) = match kind {
            0 => (
                Message::Hello(Hello {
                    rank: origin,
                    incarnation,
                    digest: four,
                    has_parameters: a,
                    resumed_at: clock,
                    run: three,
                }),
                length,
            ),
            1 => (Message::Refuse, 0),
            2 => {
                let worker = origin;
                let weight = if riders.is_some() { examples & u64::from(u32::MAX) } else { examples };
                // A contribution with examples and without a body.
                let repeats = c && weight > 0;
                (
                    Message::Push(Push {
                        shard: shard_id,
                        worker,
                        incarnation,
                        sequence,
                        base,
                        weight,
                        repeats,
                        fetches: a,
                        step_time,
                        rider: riders.map(|[rider, _]| rider),
                    }),
                    if repeats { 0 } else { floats },
                )
            }
            3 => (Message::Params(reply), floats),
            4 => (Message::Delta(reply), floats),
            5 => (Message::Up(part), part_length),
            6 => (Message::Down(part), part_length),
            7 => {
                let (first, last) = (Sequence(two.min(three)), Sequence(two.max(three)));
                (Message::Quanta(Quanta { origin, incarnation, first, last, base }), floats)
            }
            8 => (Message::QuantaAck(Ack { origin, incarnation, last }), 0),
            9 => (Message::StreamEnd { origin, incarnation, last }, 0),
            10 => (Message::Have { view, last }, 0),
            11 => {
                let last = a.then_some(Sequence(three / 2));
                let view = Sequence(four);
                (Message::SnapshotMark(SnapshotMark { view, origin, incarnation, sequence, last }), 0)
            }
            12 => (Message::Seed { view }, floats),
            13 => (Message::Ledger { view, applied: clock }, floats),
            14 => {
                let wanted = [Wanted::Marks, Wanted::Ledger, Wanted::All][weight as usize % 3];
                (Message::FetchSnapshot { view, wanted }, 0)
            }
            15 => (Message::FetchParameters { view }, 0),
            16 => (Message::Leave(Leave { origin, incarnation, last, stays: a }), 0),
            17 => (Message::Awaits { on: origin, at: clock, silent_ms: shard }, 0),
            18 => {
                let (entered, members) = (Sequence(base.0), shard);
                let report = Report {
                    view: sequence,
                    entered,
                    members,
                    round: clock,
                    has: a,
                    leaves: b,
                    last: c,
                    broken: d,
                    told: a != d,
                };
                (Message::Report(report), 0)
            }
            19 => (Message::Members { view: sequence, first: PeerId(rank / 64 * 64), mask: four }, 0),
            20 => (Message::Prepare { view: sequence }, 0),
            21 => {
                let commit = Commit { view: sequence, round: clock, donor: origin, last: a, returns: b };
                (Message::Commit(commit), 0)
            }
            22 => (Message::Parameters { view, round: clock, vector: shard, riders }, floats),
            23 => {
                let length = if a { floats } else { 0 };
                (Message::Offer(Offer { shard: shard_id, sequence, row: clock, version: base, whole: a }), length)
            }
            24 => (Message::Release, 0),
            25 => (Message::Lost { first: PeerId(rank / 64 * 64), mask: four }, 0),
            26 => (Message::Moments(Moments::new(longs.map(|at| Clock(if at % 3 == 0 { 0 } else { at })))), 0),
            27 => {
                let failures = [
                    Failure::Dropped,
                    Failure::Panicked,
                    Failure::Cancelled,
                    Failure::NonFinite { index: shard },
                    Failure::Overdue { on: origin },
                    Failure::Without { peer: origin },
                    Failure::LedgerFull { index: shard },
                    Failure::Executor,
                    Failure::Transport,
                ];
                let failure = failures[weight as usize % failures.len()];
                let peer = PeerId(weight.min(u32::MAX - 1));
                (
                    if weight % 2 == 0 {
                        Message::Failed { failure }
                    } else {
                        Message::PeerLost { peer, failure: a.then_some(failure) }
                    },
                    0,
                )
            }
            28 => (Message::Silence { span_ms: shard }, 0),
            29 => (Message::Receipt { shard: shard_id, sequence, magnitude }, 0),
            30 => (Message::MemberRange { view: sequence, first: PeerId(rank), count: shard }, 0),
            _ => (Message::Again, 0),
        };
        // A header that is read has the sender of its fields, so the origin of a message is given as the sender as
        // well.
        let sender = match message {
            Message::Awaits { on, .. } => on,
            _ => origin,
        };
        Header::new(words[3], sender, incarnation, length, message)
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
        bytes[5] = bytes[5] % 21 + 1;
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
    let (origin, incarnation) = (PeerId(2), Incarnation(7));
    let (shard, sequence, clock) = (ShardId(0), Sequence(1), Clock(0));
    let push = Push {
        shard,
        worker: origin,
        incarnation,
        sequence,
        base: clock,
        weight: 32,
        repeats: false,
        fetches: true,
        step_time: None,
        rider: None,
    };
    let header = Header::new(1, origin, incarnation, 8, Message::Push(push));
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
    assert_eq!(error(|b| b[4] = 1), "frame: expected version 3, got 1");
    assert_eq!(error(|b| b[6] = 1), "frame: expected no flags, got 0x0001");
    assert_eq!(error(|b| b[5] = 99), "frame: expected kind 1 to 24, got 99");
    assert_eq!(error(|b| b[56] = 9), "frame: expected whole 32-bit words after Push, got 9 bytes");
    assert_eq!(error(|b| b[5] = Kind::Ack as u8), "frame: expected at most 0 bytes after Ack, got 8");
    let long = sealed(|b| {
        b[5] = Kind::Hello as u8;
        b[58] = 1;
    });
    let long = Header::parse(&long).unwrap_err().to_string();
    assert_eq!(long, "frame: expected at most 65536 bytes after Hello, got 65544");
    assert_eq!(error(|b| b[47] = 0x7f), "frame: expected at most 2^60 - 1 as clock of Push, got 9151314442816847904");
    let infinite = "frame: expected a positive finite float as clock of Push, got 2139095040";
    assert_eq!(error(|b| (b[47], b[46]) = (0xff, 0x80)), infinite);
    assert_eq!(error(|b| b[47] = 0x80), "frame: expected a number above 0 as clock of Push, got 9223372036854775840");
    let up = |b: &mut [u8; HEADER_LEN]| b[5] = Kind::Up as u8;
    let broken = |change: fn(&mut [u8; HEADER_LEN])| {
        let bytes = sealed(|b| {
            up(b);
            change(b);
        });
        Header::parse(&bytes).unwrap_err().to_string()
    };
    let lonely = "frame: expected 0 or 1 without examples as weight of Up, got 7";
    assert_eq!(broken(|b| (b[20], b[56]) = (7, 0)), lonely);
    assert_eq!(broken(|b| b[23] = 0xff), "frame: expected a positive finite float as weight of Up, got 2139095040");
    assert_eq!(broken(|b| b[55] = 16), "frame: expected at most 2^60 - 1 as base of Up, got 1152921504606846976");
    let lone = "frame: expected a body if and only if the weight is above 0 as length of Up, got 8";
    assert_eq!(broken(|_| {}), lone);
    assert_eq!(
        broken(|b| (b[5], b[56], b[16]) = (Kind::Release as u8, 0, 5)),
        "frame: expected 0 as shard of Release, got 5"
    );
    let late = "frame: expected at least the clock as sequence of Quanta, got 1";
    assert_eq!(error(|b| b[5] = Kind::Quanta as u8), late);
    assert_eq!(
        error(|b| (b[5], b[56]) = (Kind::Moments as u8, 0)),
        "frame: expected less than the moment before as clock of Moments, got 32"
    );
    let mut bytes = sealed(|_| {});
    bytes[63] ^= 0xff;
    assert!(Header::parse(&bytes).unwrap_err().to_string().starts_with("frame: expected checksum "));
}

/// The ranks that the messages of a view list.
fn listed(members: &[PeerId], workers: u32) -> (usize, Vec<PeerId>) {
    let messages: Vec<Message> = Message::members(Sequence(1), members, workers).collect();
    let ranks = messages.iter().flat_map(|message| match *message {
        Message::Members { first, mask, .. } => Message::ranks(first, mask, workers).collect(),
        Message::MemberRange { first, count, .. } => (first.0..first.0 + count).map(PeerId).collect(),
        _ => Vec::new(),
    });
    (messages.len(), ranks.collect())
}

#[test]
fn the_members_of_a_view_are_listed_in_order_and_whole_clusters_in_one_message() {
    for workers in [1, 63, 64, 65, 128, 200, 10_000] {
        let all: Vec<PeerId> = (0..workers).map(PeerId).collect();
        assert_eq!(listed(&all, workers), (1, all.clone()), "{workers}");
        for missing in [0, workers / 2, workers - 1] {
            let some: Vec<PeerId> = all.iter().copied().filter(|rank| rank.0 != missing).collect();
            let (messages, ranks) = listed(&some, workers);
            assert!(messages <= 3 && ranks == some, "{workers} workers without {missing}: {messages} messages");
        }
    }
}
