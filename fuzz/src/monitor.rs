//! Targets for bytes of clients of a board: greetings of monitors and of other boards, and HTTP requests. Each client is
//! fed once with all bytes and once with pieces: the cuts must not change the outcome.

use std::io;

use gradwire::monitor::parts::{Feed, boards, monitors, read_greeting, scrapers};
use gradwire::monitor::{Board, RATE_MAX, SUBSCRIPTION};
use gradwire::telemetry::{Frame, MAGIC, Note, NoteKind, Run};
use gradwire_core::{Instant, PeerId};

use super::Target;

pub(crate) const TARGETS: &[Target] = &[("greeting", greeting, greeting_seeds), ("request", request, request_seeds)];

/// Bytes of the longest request that is answered.
const REQUEST_MAX: usize = 8192;

/// The end of a client: whether its greeting was complete, or the error that has closed its connection; and the bytes
/// that it was sent.
type End = (Result<bool, io::ErrorKind>, Vec<u8>);

/// Feeds a client until its bytes end or its connection is closed. `piece` gives the length of each piece minus 1.
fn feed(mut client: Feed, data: &[u8], mut piece: impl FnMut() -> usize) -> End {
    let (mut rest, mut end, mut output) = (data, Ok(false), Vec::new());
    while let (Ok(_), false) = (end, rest.is_empty()) {
        let (now, later) = rest.split_at(rest.len().min(piece().saturating_add(1)));
        (end, rest) = (client(now, &mut output).map_err(|error| error.kind()), later);
    }
    (end, output)
}

/// Feeds two clients of the same service, and returns their common end.
fn in_any_pieces(client: impl Fn() -> Feed, data: &[u8]) -> End {
    let whole = feed(client(), data, || usize::MAX);
    let mut state = data.len();
    let pieces = feed(client(), data, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % 40
    });
    assert_eq!(whole, pieces);
    whole
}

/// A monitor is served after exactly one message; a board is heard if all that follows its proof is frames. With a key,
/// neither is, since the nonce is new for each connection. The same bytes as a listener's greeting are one or are refused.
fn greeting(data: &[u8]) {
    let key = Some([7; 32]);
    let (end, sent) = in_any_pieces(|| monitors(&Board::default(), None), data);
    let fits = data.len() == SUBSCRIPTION && (1..=RATE_MAX).contains(&data[0]);
    let expected = if fits || data.len() < SUBSCRIPTION { Ok(fits) } else { Err(io::ErrorKind::InvalidData) };
    // Bytes from a monitor are not answered: updates come at their time.
    assert_eq!((end, sent), (expected, Vec::new()));
    let (end, _) = in_any_pieces(|| monitors(&Board::default(), key), data);
    assert_ne!(end, Ok(true));

    let board = Board::default();
    let (end, sent) = in_any_pieces(|| boards(&board, None), data);
    let mut frames = data.get(32..).unwrap_or_default();
    let parsed = loop {
        match Frame::parse(frames) {
            Ok(Some((_, used))) => frames = &frames[used..],
            parsed => break parsed.is_ok(),
        }
    };
    let expected = if parsed { Ok(data.len() >= 32) } else { Err(io::ErrorKind::InvalidData) };
    assert_eq!((end, sent), (expected, Vec::new()));
    // The board can be described after any input.
    let text = board.metrics();
    assert!(text.ends_with("# EOF\n") && !text.contains("NaN"));
    let (end, _) = in_any_pieces(|| boards(&board, key), data);
    assert_ne!(end, Ok(true));

    let mut rest = data;
    let greeted = read_greeting(&mut rest);
    assert_eq!(greeted.is_ok(), data.len() >= 40 && data.starts_with(&MAGIC));
}

fn greeting_seeds() -> Vec<Vec<u8>> {
    let subscription = [&[RATE_MAX][..], &[0; 32]].concat();
    let mut board = vec![0; 32];
    let (at, rank, peer) = (Instant::from_nanos(7), PeerId(1), PeerId(2));
    Frame::Note(Note { at, rank, kind: NoteKind::Stalled, peer, number: 9 }).emit(&mut board);
    Frame::Run(Run { recipe: "sync".into(), workers: 3, servers: 0, parameters: 99, name: None }).emit(&mut board);
    let listener = [&MAGIC[..], &[5; 32]].concat();
    vec![subscription, board, listener, b"GET / HTTP/1.1\r\n\r\n".to_vec(), Vec::new()]
}

/// A request is answered when its head has ended, if that is soon enough: with metrics if it is a GET. Bytes after the
/// head are ignored.
fn request(data: &[u8]) {
    let (end, answer) = in_any_pieces(|| scrapers(&Board::default()), data);
    let head = &data[..data.len().min(REQUEST_MAX)];
    let complete = head.windows(4).any(|bytes| bytes == b"\r\n\r\n");
    let too_long = !complete && data.len() >= REQUEST_MAX;
    assert_eq!(end, if too_long { Err(io::ErrorKind::InvalidData) } else { Ok(complete) });
    let status = match (complete, data.starts_with(b"GET ")) {
        (true, true) => "HTTP/1.1 200 OK\r\n",
        (true, false) => "HTTP/1.1 405 Method Not Allowed\r\n",
        (false, _) => "",
    };
    assert!(answer.starts_with(status.as_bytes()) && answer.is_empty() == status.is_empty());
    let answer = String::from_utf8(answer).unwrap();
    if let Some((head, body)) = answer.split_once("\r\n\r\n") {
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())) && head.ends_with("Connection: close"));
    }
}

fn request_seeds() -> Vec<Vec<u8>> {
    let long = |len: usize| [b"GET /metrics HTTP/1.1\r\nX: ", &vec![b'x'; len][..], b"\r\n\r\n"].concat();
    vec![
        b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec(),
        long(REQUEST_MAX - 40),
        long(REQUEST_MAX - 29),
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
    ]
}
