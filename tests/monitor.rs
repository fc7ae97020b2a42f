//! The outputs of a board: OpenMetrics text, event files for TensorBoard, and other processes' boards.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use gradwire::monitor::{Board, Frames, subscribe};
use gradwire::telemetry::{Frame, NoteKind, Run};
use gradwire::{Cluster, Layout, Mem, Recipe, RunId, Session};

/// A board after a run in which two workers have taken 20 steps each.
fn board() -> Board {
    let recipe: Recipe = "mesh tau=0.015625".parse().unwrap();
    let board = Board::new(Run { recipe: recipe.to_string(), workers: 2, servers: 0, parameters: 64, name: None });
    let threads = Mem::cluster(2).into_iter().map(|transport| {
        let board = board.clone();
        thread::spawn(move || {
            let cluster = Cluster { workers: 2, servers: 0 };
            let builder = Session::builder(Layout::flat(64), recipe, cluster).publish_to(board, "here");
            let mut params = vec![0.0; 64];
            let mut session = builder.join(transport, &mut params).unwrap();
            for _ in 0..20 {
                session.report_progress(0.25, f32::NAN);
                session.step(&mut params, &[0.02; 64], 8).unwrap();
            }
            session.finish(&mut params).unwrap();
        })
    });
    let threads: Vec<_> = threads.collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    board
}

#[test]
fn metrics_are_served_as_open_metrics_text() {
    let board = board();
    let address = board.serve_metrics("127.0.0.1:0", None, false).unwrap();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("application/openmetrics-text"), "{head}");
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "gradwire_steps_total{rank=\"1\"} 20",
        "gradwire_examples_total{rank=\"0\"} 160",
        "gradwire_loss{rank=\"0\"} 0.25",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    // NaN values are left out: the accuracy was never reported.
    assert!(!text.contains("NaN") && !text.contains("gradwire_accuracy{"), "{text}");
    // OpenMetrics allows each family once, before its samples.
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut once = families.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), families.len());
    assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(board.serve_metrics("0.0.0.0:0", None, false).is_err());
}

/// A node of another run that reports to this board is left out, and told once.
#[test]
fn reports_of_another_run_are_refused() {
    let board = Board::new(Run { workers: 1, ..Run::default() });
    let run = |name: &str| name.parse::<RunId>().unwrap();
    let train = |name: &str| {
        let recipe = Recipe::sync();
        let builder = Session::builder(Layout::flat(2), recipe, Cluster { workers: 1, servers: 0 });
        let mut params = vec![0.0; 2];
        let mut session = builder
            .run(run(name))
            .publish_to(board.clone(), name)
            .join(Mem::cluster(1).remove(0), &mut params)
            .unwrap();
        session.step(&mut params, &[0.5; 2], 1).unwrap();
        session.finish(&mut params).unwrap();
    };
    train("morning");
    train("evening");
    let mut log = Vec::new();
    board.since(0, &mut log);
    let (mut reports, mut refused, mut rest) = (Vec::new(), 0, &log[..]);
    while let Some((frame, len)) = Frame::parse(rest).unwrap() {
        rest = &rest[len..];
        match frame {
            Frame::Run(description) => assert_eq!(description.name, Some(run("morning"))),
            Frame::Report(report) => reports.push((report.host, report.run)),
            Frame::Note(note) => refused += u32::from(note.kind == NoteKind::OtherRun),
            Frame::Present(_) => {}
        }
    }
    // The former reports of the node precede the last one.
    reports.dedup();
    assert_eq!(reports, [("morning".to_string(), Some(run("morning")))]);
    assert_eq!(refused, 1);
}

#[test]
fn a_board_gathers_the_reports_of_another_board() {
    let (far, near) = (board(), Board::new(Run { workers: 2, ..Run::default() }));
    let key = [3; 32];
    let at = near.gather("127.0.0.1:0", Some(key), false).unwrap();
    far.publish(at.to_string(), Some(key)).unwrap();
    let address = near.serve("127.0.0.1:0", None, false).unwrap().to_string();
    let mut stream = subscribe(&address, 10, None).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut frames, mut seen) = (Frames::default(), [false; 2]);
    while seen != [true; 2] {
        if let Frame::Report(report) = frames.next(&mut stream).unwrap() {
            assert_eq!((report.host.as_str(), report.times.steps), ("here", 20));
            // Transmissions took time, and peers answered.
            assert!(report.times.wire > 0, "{:?}", report.times);
            assert!(report.status.links.iter().any(|link| link.response_ns > 0), "{:?}", report.status.links);
            seen[report.status.me.0 as usize] = true;
        }
    }
    // A board with another key is ignored.
    let strange = Board::new(Run::default());
    let at = strange.gather("127.0.0.1:0", Some([9; 32]), false).unwrap();
    far.publish(at.to_string(), Some(key)).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(!strange.metrics().contains("rank=\"0\""));
}

#[test]
fn an_event_file_for_tensorboard_grows() {
    let directory = std::env::temp_dir().join(format!("gradwire-tensorboard-{}", std::process::id()));
    board().tensorboard(&directory).unwrap();
    let size = || {
        let files = std::fs::read_dir(&directory).unwrap().flatten();
        files.map(|file| file.metadata().unwrap().len()).sum::<u64>()
    };
    let first = size();
    let begun = std::time::Instant::now();
    while size() == first {
        assert!(begun.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// An answer to a request for the metrics with these further lines of the head.
fn scrape(at: std::net::SocketAddr, lines: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Beyond loopback, metrics need a key, or a caller that goes without on purpose.
#[test]
fn metrics_can_need_a_key() {
    let board = Board::new(Run::default());
    let at = board.serve_metrics("127.0.0.1:0", Some([0xab; 32]), false).unwrap();
    let digits = "ab".repeat(32);
    for (lines, code) in [
        (String::new(), "401"),
        (format!("Authorization: Bearer {}\r\n", "ac".repeat(32)), "401"),
        (format!("Authorization: Basic {digits}\r\n"), "401"),
        (format!("Authorization: Bearer {digits}\r\n"), "200"),
        (format!("authorization:Bearer {digits}\r\n"), "200"),
    ] {
        let answer = scrape(at, &lines);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{lines}{answer}");
        assert_eq!(answer.contains("# EOF"), code == "200", "{answer}");
    }
    assert!(board.serve_metrics("0.0.0.0:0", None, false).is_err());
    assert!(board.serve_metrics("0.0.0.0:0", Some([1; 32]), false).is_ok());
    assert!(board.serve_metrics("0.0.0.0:0", None, true).is_ok());
}

/// The last values are in the file when `flush` returns, and tags begin with the metric.
#[test]
fn the_end_of_a_run_is_flushed() {
    let directory = std::env::temp_dir().join(format!("gradwire-flush-{}", std::process::id()));
    let board = board();
    board.tensorboard(&directory).unwrap();
    assert!(board.flush(Duration::from_secs(30)), "no metrics to wait for");
    let file = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(file).unwrap();
    for tag in ["loss/rank 0", "loss/rank 1", "bytes_sent/rank 1"] {
        assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Metrics that have been scraped stay until a scrape has seen the last values, but not for longer than asked.
#[test]
fn metrics_wait_for_a_last_scrape() {
    let scraped = board();
    let at = scraped.serve_metrics("127.0.0.1:0", None, false).unwrap();
    assert!(scrape(at, "").contains("# EOF"));
    let (now, peer) = (scraped.now(), gradwire::PeerId(0));
    scraped.note(gradwire::telemetry::Note { at: now, rank: peer, kind: NoteKind::Finished, peer, number: 0 });
    assert!(!scraped.flush(Duration::from_millis(300)), "no scrape has come since the last note");
    let other = scraped.clone();
    let flushing = thread::spawn(move || other.flush(Duration::from_secs(30)));
    thread::sleep(Duration::from_millis(200));
    assert!(!flushing.is_finished());
    assert!(scrape(at, "").contains("# EOF"));
    assert!(flushing.join().unwrap());
}

/// The last values of other processes are in the files of the process that gathers them.
#[test]
fn the_end_of_other_processes_is_flushed() {
    let (near, far) = (Board::new(Run { workers: 2, ..Run::default() }), board());
    let at = near.gather("127.0.0.1:0", None, false).unwrap();
    far.publish(at.to_string(), None).unwrap();
    while !near.metrics().contains("gradwire_steps_total{rank=\"1\"} 20") {
        thread::sleep(Duration::from_millis(5));
    }
    let flushing = thread::spawn({
        let near = near.clone();
        move || near.flush(Duration::ZERO)
    });
    thread::sleep(Duration::from_millis(200));
    assert!(!flushing.is_finished(), "the other board is still connected");
    let (now, peer) = (far.now(), gradwire::PeerId(1));
    far.note(gradwire::telemetry::Note { at: now, rank: peer, kind: NoteKind::Finished, peer, number: 77 });
    assert!(far.flush(Duration::ZERO) && flushing.join().unwrap());
    let (mut log, mut finished) = (Vec::new(), 0);
    near.since(0, &mut log);
    let mut rest = &log[..];
    while let Some((frame, len)) = Frame::parse(rest).unwrap() {
        rest = &rest[len..];
        finished += u32::from(matches!(frame, Frame::Note(note) if note.number == 77));
    }
    assert_eq!(finished, 1);
}
