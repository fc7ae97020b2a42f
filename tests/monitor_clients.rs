//! Clients of a board that are silent, slow or many: the other clients are served, and threads and descriptors are
//! bounded.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::monitor::{Board, Frames, MONITORS_MAX, PATIENCE, SUBSCRIPTION, subscribe};
use gradwire::telemetry::{Frame, Report, Run};
use gradwire::{Cluster, Layout, Mem, PeerId, Recipe, Session};

/// Far more than a client needs to be served, on a machine with other work.
const LONG: Duration = Duration::from_secs(30);
/// Bytes of a listener's greeting.
const GREETING: usize = 40;

/// A report as a worker publishes it.
fn report() -> Report {
    let board = Board::new(Run::default());
    let builder = Session::builder(Layout::flat(4), Recipe::sync(), Cluster { workers: 1, servers: 0 });
    let mut params = vec![0.0; 4];
    let mut session = builder.publish_to(board.clone(), "here").join(Mem::cluster(1).remove(0), &mut params).unwrap();
    session.step(&mut params, &[1.0; 4], 2).unwrap();
    session.finish(&mut params).unwrap();
    let mut log = Vec::new();
    board.since(1, &mut log);
    // The board's present precedes it.
    let Ok(Some((_, present))) = Frame::parse(&log) else { panic!("no frame") };
    let Ok(Some((Frame::Report(report), _))) = Frame::parse(&log[present..]) else { panic!("no report") };
    report
}

/// A board of two workers with a report of the first.
fn board() -> Board {
    let board = Board::new(Run { workers: 2, ..Run::default() });
    board.report(report());
    board
}

/// Checks that threads with names that begin with `name` serve many clients each. Other tests of this process have such
/// threads as well.
#[track_caller]
fn few_threads(name: &str) {
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    // A thread may have ended.
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let names: Vec<_> = names.filter(|other| other.starts_with(name)).collect();
    assert!((1..7).contains(&names.len()), "{names:?}");
}

/// Whether the other side has closed a connection, within a time far beyond all of its limits.
fn is_closed(stream: &mut TcpStream) -> bool {
    let (begun, mut bytes) = (Instant::now(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while begun.elapsed() < LONG {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

/// Keeps `count` connections that send these bytes, one every 300 ms, and opens each again when it is closed. Ends when
/// the flag is set.
fn dripping(to: SocketAddr, count: usize, words: &'static [u8]) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut streams: Vec<_> = (0..count).map(|_| (TcpStream::connect(to).unwrap(), 0)).collect();
    thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for (stream, said) in &mut streams {
                if words.get(*said..=*said).is_some_and(|word| stream.write_all(word).is_err()) {
                    (*stream, *said) = (TcpStream::connect(to).unwrap(), 0);
                }
                *said += 1;
            }
            thread::sleep(Duration::from_millis(300));
        }
    });
    stop
}

/// Subscribes, and reads the first report. Tries again when the connection is closed first.
fn watch(at: SocketAddr) -> (TcpStream, Report) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LONG, "no report");
        let Ok(mut stream) = subscribe(&at.to_string(), 10, None) else { continue };
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut frames = Frames::default();
        while let Ok(frame) = frames.next(&mut stream) {
            if let Frame::Report(report) = frame {
                return (stream, report);
            }
        }
    }
}

fn scrape(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = String::new();
    let sent = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
    sent.and_then(|()| stream.read_to_string(&mut answer)).unwrap();
    answer
}

/// A request that never ends does not hold up other requests, and is cut off.
#[test]
fn slow_requests_hold_no_scraper_up() {
    let at = board().serve_metrics("127.0.0.1:0", None, false).unwrap();
    let mut slow: Vec<_> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"GET ").unwrap());
    let stop = dripping(at, 100, b"GET /metrics HTTP/1.1\r\nHost: a.name.that.takes.very.long.to.send.at.this.rate");
    for _ in 0..3 {
        let begun = Instant::now();
        assert!(scrape(at).ends_with("# EOF\n"));
        assert!(begun.elapsed() < PATIENCE * 9 / 10, "{:?}", begun.elapsed());
    }
    few_threads("metrics");
    assert!(slow.iter_mut().all(is_closed));
    stop.store(true, Ordering::Relaxed);
}

/// A client that sends a byte now and then does not keep its connection: there is one deadline for all that it owes.
#[test]
fn a_greeting_in_many_pieces_has_one_deadline() {
    let board = board();
    let ports = [
        board.serve("127.0.0.1:0", None, false).unwrap(),
        board.gather("127.0.0.1:0", None, false).unwrap(),
        board.serve_metrics("127.0.0.1:0", None, false).unwrap(),
    ];
    for port in ports {
        let mut stream = TcpStream::connect(port).unwrap();
        let mut pieces = stream.try_clone().unwrap();
        // One byte less than a proof has, during six times the deadline.
        thread::spawn(move || {
            while pieces.write_all(b"G").is_ok() {
                thread::sleep(PATIENCE * 6 / 31);
            }
        });
        let begun = Instant::now();
        assert!(is_closed(&mut stream));
        assert!(begun.elapsed() < PATIENCE * 5, "{:?}", begun.elapsed());
    }
}

/// Clients that do not read their answers are closed, and make room for other clients meanwhile.
#[test]
fn answers_that_are_not_read_hold_no_scraper_up() {
    let (board, mut report) = (Board::new(Run::default()), report());
    // The answer must be longer than the buffers of a connection.
    for rank in 0..1000 {
        report.status.me = PeerId(rank);
        board.report(report.clone());
    }
    let at = board.serve_metrics("127.0.0.1:0", None, false).unwrap();
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            stream
        })
        .collect();
    assert!(scrape(at).ends_with("# EOF\n"));
    drop(deaf);
}

/// Eight monitors that never read do not lock out a further one, even while nothing shows that they do not read.
#[test]
fn monitors_that_do_not_read_lock_no_monitor_out() {
    let at = board().serve("127.0.0.1:0", None, false).unwrap();
    let _deaf: Vec<_> = (0..MONITORS_MAX).map(|_| subscribe(&at.to_string(), 10, None).unwrap()).collect();
    for _ in 0..3 {
        assert_eq!(watch(at).1.host, "here");
    }
}

/// Monitors that do not read make room before one that reads, although that came first, and are closed at last.
#[test]
fn monitors_that_do_not_read_go_first() {
    let (board, mut report) = (board(), report());
    let at = board.serve("127.0.0.1:0", None, false).unwrap();
    let (mut reads, _) = watch(at);
    let mut deaf: Vec<_> = (1..MONITORS_MAX).map(|_| subscribe(&at.to_string(), 10, None).unwrap()).collect();
    let reader = thread::spawn(move || {
        let (mut bytes, mut total) = (vec![0; 1 << 20], 0);
        // Until the connection is closed, or 30 s without an update.
        while let Ok(n @ 1..) = reads.read(&mut bytes) {
            total += n;
            // The last update, see below.
            if bytes[..n].windows(4).any(|bytes| bytes == b"last") {
                return Some(total);
            }
        }
        None
    });
    // Each update has a megabyte, far more than the buffers of a connection hold.
    let mut publish = |host: &str| {
        report.host = host.repeat(1000);
        for rank in 0..250 {
            report.status.me = PeerId(rank);
            board.report(report.clone());
        }
    };
    for _ in 0..4 {
        publish("more");
        thread::sleep(Duration::from_millis(150));
    }
    let _others: Vec<_> = (0..3).map(|_| watch(at)).collect();
    publish("last");
    assert!(reader.join().unwrap().is_some_and(|total| total > 1 << 20), "the monitor that reads was disconnected");
    // They must not read before their time is up.
    thread::sleep(PATIENCE * 2);
    assert!(deaf.iter_mut().all(is_closed));
}

/// Clients that do not complete their subscription keep no monitor out, and are closed.
#[test]
fn subscriptions_that_are_never_complete_keep_no_monitor_out() {
    let at = board().serve("127.0.0.1:0", None, false).unwrap();
    let mut silent: Vec<_> = (0..100).map(|_| TcpStream::connect(at).unwrap()).collect();
    let stop = dripping(at, 100, &[1; SUBSCRIPTION]);
    let begun = Instant::now();
    assert_eq!(watch(at).1.host, "here");
    // It has not waited until their time was up.
    assert!(begun.elapsed() < PATIENCE * 9 / 10, "{:?}", begun.elapsed());
    few_threads("monitor");
    assert!(silent.iter_mut().all(is_closed));
    stop.store(true, Ordering::Relaxed);
}

/// The port where nodes report takes no more connections than there are nodes. A node gets in however many connect.
#[test]
fn nodes_report_among_many_silent_connections() {
    let (near, far) = (Board::new(Run { workers: 2, ..Run::default() }), board());
    let at = near.gather("127.0.0.1:0", None, false).unwrap();
    let connect = |proven: bool| {
        let mut stream = TcpStream::connect(at).unwrap();
        if proven {
            stream.read_exact(&mut [0; GREETING]).unwrap();
            stream.write_all(&[0; 32]).unwrap();
        }
        stream
    };
    // Without a key, all have the proof. They take the places of each other.
    let mut proven: Vec<_> = (0..30).map(|_| connect(true)).collect();
    let mut silent: Vec<_> = (0..200).map(|_| connect(false)).collect();
    let stop = dripping(at, 100, &[0; 31]);
    far.publish(at.to_string(), None).unwrap();
    let begun = Instant::now();
    while !near.metrics().contains("gradwire_steps_total{rank=\"0\"} 1") {
        assert!(begun.elapsed() < LONG);
        thread::sleep(Duration::from_millis(20));
    }
    few_threads("gather");
    assert!(silent.iter_mut().all(is_closed));
    // At most one of them is left beside the node.
    let left = proven.iter_mut().map(|stream| {
        stream.set_nonblocking(true).unwrap();
        stream.read(&mut [0])
    });
    let left = left.filter(|read| read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)).count();
    assert!(left <= 1, "{left}");
    stop.store(true, Ordering::Relaxed);
}

/// With few descriptors, the clients of all ports leave some to the rest of the process.
#[test]
fn clients_leave_descriptors_to_the_process() {
    const NAME: &str = "clients_leave_descriptors_to_the_process";
    if std::env::var_os("GRADWIRE_TEST_CHILD").is_none() {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
        let output = command.args([NAME, "--exact", "--nocapture"]).env("GRADWIRE_TEST_CHILD", "1").output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
        return;
    }
    let board = board();
    let ports = [
        board.serve("127.0.0.1:0", None, false).unwrap(),
        board.gather("127.0.0.1:0", None, false).unwrap(),
        board.serve_metrics("127.0.0.1:0", None, false).unwrap(),
    ];
    // The clients are another process, with more descriptors.
    let [one, two, three] = ports.map(|port| port.port());
    let script = format!(
        "ulimit -n $(ulimit -H -n); for i in $(seq 60); do for port in {one} {two} {three}; do exec \
         {{fd}}<>/dev/tcp/127.0.0.1/$port; done; done; echo; sleep 1"
    );
    let mut clients = Command::new("bash");
    let mut clients = clients.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    clients.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(60));
        let files: Vec<_> = (0..15).map(|_| std::fs::File::open("/dev/null")).collect();
        assert!(files.iter().all(Result::is_ok), "{files:?}");
    }
    assert_eq!(watch(ports[0]).1.host, "here");
    assert!(scrape(ports[2]).ends_with("# EOF\n"));
    clients.wait().unwrap();
}
