//! Round trips of frames, limits of lengths, and arbitrary bytes.

use super::report::{PRESENCES, ROLES};
use super::*;
use crate::id::Clock;
use crate::status::{Counters, Histogram, LinkStatus, Waiting, WorkerStatus};
use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

fn report(seed: u64) -> Report {
    let n = |k: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left((k % 64) as u32) >> (k % 50);
    let mut staleness = Histogram::default();
    (0..n(1) % 40).for_each(|k| staleness.record(n(k) % 70));
    let link = |k: u32| LinkStatus {
        peer: PeerId(k),
        bytes_out: n(2),
        bytes_in: n(3),
        messages_out: n(4),
        messages_in: n(5),
        last_heard: k.is_multiple_of(2).then(|| Instant::from_nanos(n(6) >> 1)),
        response_ns: n(24),
        arriving_ns: n(29),
    };
    let worker = |k: u32| WorkerStatus {
        rank: PeerId(k),
        state: PRESENCES[k as usize % PRESENCES.len()],
        clock: Clock(n(u64::from(k))),
    };
    let waiting = Waiting {
        on: PeerId(3),
        at: Clock(n(7)),
        clock: Clock(n(8)),
        since: Instant::from_nanos(n(9)),
        reported_by: PeerId(2),
    };
    let times = Times {
        elapsed: n(26),
        stepped: n(27),
        stepped_compute: n(28),
        steps: n(16),
        compute: n(17),
        encode: n(18),
        decode: n(19),
        apply: n(20),
        wait: n(21),
        wire: n(25),
    };
    let status = Status {
        me: PeerId(seed as u32 % 1000),
        role: ROLES[seed as usize % ROLES.len()],
        clock: Clock(n(10)),
        waiting: seed.is_multiple_of(3).then_some(waiting),
        counters: Counters { applied: n(11), resent: n(12), dense_bytes: n(13), ..Counters::default() },
        staleness,
        workers: (0..(seed % 9) as u32).map(worker).collect(),
        links: (0..(seed % 5) as u32).map(link).collect(),
        residual_norm: 0.5,
        residual_updates: 2.5,
        rest: seed.is_multiple_of(2).then_some(crate::status::Rest {
            norm: 1.5,
            updates: 2.5,
            messages: seed as u32 % 7,
            kept: 0.5,
        }),
        density: 0.25,
        tau: 0.125,
        clipped: 0.0625,
        forgotten: 0.5,
        times,
        operations: 3,
        updates: n(14),
        view: n(15),
        members: seed as u32 % 100,
    };
    let progress = Progress { loss: 0.75, accuracy: 0.5, examples: n(22) };
    Report {
        at: Instant::from_nanos(n(23)),
        host: "node-7.example".to_string(),
        run: RunId::from_text("morning"),
        incarnation: Incarnation(n(24)),
        stage: Stage::ALL[seed as usize % Stage::ALL.len()],
        status,
        times,
        progress,
    }
}

fn frames(seed: u64) -> Vec<Frame> {
    let note = Note {
        at: Instant::from_nanos(seed),
        rank: PeerId(1),
        kind: NoteKind::ALL[seed as usize % NoteKind::ALL.len()],
        peer: PeerId(2),
        number: seed,
    };
    let run = Run { recipe: "payload=updates".to_string(), workers: 4, servers: 1, parameters: seed, name: None };
    let present = Present { at: Instant::from_nanos(seed), start: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    vec![Frame::Present(present), Frame::Run(run), Frame::Report(report(seed)), Frame::Note(note)]
}

#[test]
fn frames_survive_their_encoding_and_incomplete_ones_are_awaited() {
    for seed in 0..500 {
        let frames = frames(seed);
        let mut log = Vec::new();
        frames.iter().for_each(|frame| frame.emit(&mut log));
        let mut rest = &log[..];
        for frame in &frames {
            let (read, used) = Frame::parse(rest).unwrap().unwrap();
            assert_eq!(&read, frame);
            (0..used).for_each(|len| assert_eq!(Frame::parse(&rest[..len]), Ok(None)));
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }
}

/// A note has a number in place of a hint, and its text is that of the same hint.
#[test]
fn the_note_of_a_hint_says_what_the_hint_does() {
    let (updates, period, messages) = (30.0, 7, 8);
    let worker = PeerId(3);
    for (hint, expected) in [
        (Hint::DensePull, "dense parameters"),
        (Hint::NothingSent { messages, tau: 0.5 }, "8 messages in a row"),
        (Hint::ResidualGrows { updates }, "holds 30 updates"),
        (Hint::LateElements { density: 0.5, messages }, "less than once in 8 messages"),
        (Hint::OuterMomentum { mu: 0.9, period }, "a period of 7 steps"),
        (Hint::Copies, "a copy of their parameters"),
        (Hint::Repeats, "the last update of each worker"),
        (Hint::Senders, "few workers send"),
        (Hint::OptimizerKept, "is not reset"),
        (Hint::AlwaysLate { worker, contributions: 16 }, "worker 3 is always late"),
    ] {
        let note = Note::of_event(Instant::ORIGIN, PeerId(0), &Event::Hint(hint)).to_string();
        assert!(note.contains(expected), "{hint:?}: {note}");
    }
}

#[test]
fn lengths_are_limited_before_anything_is_allocated() {
    let mut long = (BODY_MAX as u32 + 1).to_le_bytes().to_vec();
    long.extend([0; 100]);
    assert_eq!(Frame::parse(&long), Err(LogError::Length { limit: BODY_MAX, got: BODY_MAX + 1 }));
    // A text with a stated length of 2^60 bytes.
    let mut log = vec![10, 0, 0, 0, 1];
    log.extend([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
    assert!(matches!(Frame::parse(&log), Err(LogError::Length { limit: TEXT_MAX, .. })));
    assert_eq!(Frame::parse(&[1, 0, 0, 0, 9]), Err(LogError::Kind { got: 9 }));
    assert_eq!(Frame::parse(&[0, 0, 0, 0]), Err(LogError::Body));
}

#[test]
fn printable_text_has_no_control_characters_and_a_limit() {
    assert_eq!(printable("  a\u{1b}[31mb\r\nc\u{7}  ", 64), "a[31mbc");
    assert_eq!(printable(&"x".repeat(1000), 10), "xxxxxxxxxx");
}

proptest! {
    /// Parsing terminates for any bytes, and a parsed frame has an encoding of about the same length.
    #[test]
    fn any_bytes_are_parsed_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<usize>(), seed in 0u64..99)
    {
        let _ = Frame::parse(&bytes);
        let mut log = Vec::new();
        frames(seed).iter().for_each(|frame| frame.emit(&mut log));
        for (i, byte) in bytes.iter().take(4).enumerate() {
            let len = log.len();
            log[(at.wrapping_add(i * 7)) % len] ^= byte;
        }
        let mut rest = &log[..];
        while let Ok(Some((frame, used))) = Frame::parse(rest) {
            let mut reencoded = Vec::new();
            frame.emit(&mut reencoded);
            prop_assert!(reencoded.len() <= used + 40);
            rest = &rest[used..];
        }
    }
}
