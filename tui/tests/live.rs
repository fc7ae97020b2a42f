//! The program `dtop` with a real cluster: a healthy run, a stalled run and its recording, the demo, and bad input; and
//! monitors that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use gradwire::monitor::{Board, Frames, MONITORS_MAX, subscribe};
use gradwire::telemetry::{Frame, Run};
use gradwire::{Cluster, Layout, Mem, Recipe, Session};

fn dtop(args: &str) -> Output {
    // Without the runs of this host.
    let runtime = std::env::temp_dir().join("dtop-no-runs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtop"));
    command.env("XDG_RUNTIME_DIR", runtime).env("XDG_CONFIG_HOME", "/nowhere").args(args.split_whitespace());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).to_string()
}

/// Two workers that step until `stop` is set, with a monitor address. Rank 1 pauses while `pause` is set.
struct Running {
    address: String,
    pause: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let recipe = Recipe::sync();
        let board = Board::new(Run { recipe: recipe.to_string(), workers: 2, servers: 0, parameters: 8, name: None });
        let address = board.serve("127.0.0.1:0", None, false).unwrap().to_string();
        let (pause, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let threads = Mem::cluster(2).into_iter().enumerate().map(|(rank, transport)| {
            let (board, pause, stop) = (board.clone(), Arc::clone(&pause), Arc::clone(&stop));
            thread::spawn(move || {
                let cluster = Cluster { workers: 2, servers: 0 };
                let mut params = vec![0.0; 8];
                let builder =
                    Session::builder(Layout::flat(8), recipe, cluster).publish_to(board, &format!("host-{rank}"));
                let mut session = builder.join(transport, &mut params).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    while rank == 1 && pause.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(10));
                    }
                    session.report_progress(0.5, 0.75);
                    session.step(&mut params, &[0.01; 8], 16).unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
                session.finish(&mut params).unwrap();
            })
        });
        let threads = threads.collect();
        Self { address, pause, stop, threads }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn a_stalled_run_and_its_recording_name_the_culprit() {
    let running = Running::start();
    let address = running.address.clone();
    let started = Instant::now();
    let healthy = dtop(&format!("{address} --once --json --wait 1"));
    let output_text = text(&healthy.stdout);
    assert_eq!(healthy.status.code(), Some(0), "{output_text}{}", text(&healthy.stderr));
    for field in ["\"version\":1", "\"health\":\"ok\"", "\"host\":\"host-1\"", "\"accuracy\":0.75", "\"workers\":2"] {
        assert!(output_text.contains(field), "{field} in {output_text}");
    }
    assert!(started.elapsed() < Duration::from_secs(4));
    let screen = dtop(&format!("{address} --once --ascii --wait 1"));
    let output_text = text(&screen.stdout);
    assert!(
        output_text.is_ascii() && output_text.contains("examples/s") && output_text.contains(" ok "),
        "{output_text}"
    );
    // Rank 1 stops: rank 0 waits, and its report names rank 1.
    running.pause.store(true, Ordering::Relaxed);
    let recording = std::env::temp_dir().join(format!("dtop-{}.log", std::process::id()));
    let stalled = dtop(&format!("{address} --once --wait 3.5 --record {}", recording.display()));
    let output_text = text(&stalled.stdout);
    assert_eq!(stalled.status.code(), Some(2), "{output_text}");
    assert!(output_text.contains("STALLED") && output_text.contains("for peer 1"), "{output_text}");
    running.pause.store(false, Ordering::Relaxed);
    // The recording shows the same when the run is over.
    running.end();
    // Another recording does not overwrite it.
    let length = recording.metadata().unwrap().len();
    let refused = dtop(&format!("--demo --once --wait 0.2 --record {}", recording.display()));
    let output_text = text(&refused.stderr);
    assert!(refused.status.code() == Some(4) && output_text.contains("--overwrite"), "{output_text}");
    assert_eq!(recording.metadata().unwrap().len(), length);
    let replayed = dtop(&format!("--replay {} --once", recording.display()));
    let output_text = text(&replayed.stdout);
    assert!(replayed.status.code() == Some(2) && output_text.contains("for peer 1"), "{output_text}");
    std::fs::remove_file(recording).unwrap();
}

/// Monitors cannot disturb a run: not by never reading, by sending data, or by their number.
#[test]
fn misbehaving_monitors_are_disconnected() {
    let running = Running::start();
    let mut idle: Vec<TcpStream> = (0..MONITORS_MAX).map(|_| subscribe(&running.address, 10, None).unwrap()).collect();
    // A monitor above the limit takes the place of the first one.
    let mut more = subscribe(&running.address, 10, None).unwrap();
    assert!(matches!(Frames::default().next(&mut more), Ok(Frame::Present(_))));
    let (mut first, mut frames) = (idle.remove(0), Frames::default());
    first.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let error = std::iter::repeat_with(|| frames.next(&mut first)).find_map(Result::err).unwrap();
    assert!(!matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
    // A monitor that sends more than its subscription is disconnected.
    let mut talker = idle.remove(0);
    talker.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    talker.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut frames = Frames::default();
    while frames.next(&mut talker).is_ok() {}
    drop(idle);
    // Slots are free again, and a correct subscription works.
    let (found, first) = channel();
    let address = running.address.clone();
    thread::spawn(move || {
        loop {
            let Ok(mut stream) = subscribe(&address, 10, None) else { continue };
            let mut frames = Frames::default();
            // The board's present precedes the description of the run.
            if let (Ok(Frame::Present(_)), Ok(Frame::Run(run))) = (frames.next(&mut stream), frames.next(&mut stream)) {
                found.send(run).unwrap();
                return;
            }
        }
    });
    assert_eq!(first.recv_timeout(Duration::from_secs(10)).unwrap().workers, 2);
    running.end();
}

#[test]
fn a_board_with_a_key_requires_it() {
    let board = Board::new(Run::default());
    let key = [7; 32];
    let address = board.serve("127.0.0.1:0", Some(key), false).unwrap().to_string();
    let first = |key| Frames::default().next(&mut subscribe(&address, 5, key).unwrap());
    assert!(first(Some(key)).is_ok());
    assert!(first(None).is_err() && first(Some([8; 32])).is_err());
    let error = board.serve("0.0.0.0:0", None, false).unwrap_err().to_string();
    assert!(error.contains("without a key"), "{error}");
}

#[test]
fn bad_input_is_an_error_that_names_the_option() {
    let recording = std::env::temp_dir().join(format!("dtop-{}-bad.log", std::process::id()));
    std::fs::write(&recording, b"not a recording at all").unwrap();
    // A file that other users can read is not accepted as a key.
    std::fs::set_permissions(&recording, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (args, word) in [
        (String::new(), "expected a run with --monitor HOST:PORT, or HOST:PORT, --replay FILE or --demo"),
        ("--demo --speed 2 --replay x".into(), "cannot be used with"),
        ("--replay x --speed 0".into(), "--speed: expected 0.01 to 1000000"),
        ("--export x.csv".into(), "--replay <FILE>"),
        ("127.0.0.1:9 127.0.0.1:10 --record x".into(), "--record: expected one address, got 2"),
        ("127.0.0.1".into(), "expected HOST:PORT with a port"),
        ("--replay /nowhere".into(), "No such file"),
        (format!("--replay {}", recording.display()), "expected a recording of version 4"),
        ("--demo --sort size".into(), "--sort: expected rank"),
        ("--demo --interval 0".into(), "--interval: expected 0.05 to 60"),
        ("--demo --wait nan".into(), "--wait: expected 0 to 3600"),
        ("--demo --key-file /nowhere".into(), "--key-file /nowhere"),
        (format!("--demo --key-file {}", recording.display()), "got mode 0644"),
        ("--demo --config /nowhere".into(), "--config /nowhere: No such file"),
    ] {
        let output = dtop(&args);
        let output_text = text(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{args}: {output_text}");
        assert!(output_text.contains(word) && !output_text.contains("panicked"), "{args}: {output_text}");
    }
    // No listener: the screen shows the error, and the program keeps trying.
    let output = dtop("127.0.0.1:9 --once --wait 0.3");
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).contains("nothing listens there"), "{}", text(&output.stdout));
    std::fs::remove_file(recording).unwrap();
}

#[test]
fn the_demo_has_a_server_and_faults() {
    let output = dtop("--demo --once --json --wait 9");
    let output_text = text(&output.stdout);
    assert!(output_text.contains("\"role\":\"server\"") && output_text.contains("\"host\":\"sim-0\""), "{output_text}");
    // The first crash is at 6 s.
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output_text}");
}

/// A monitor is told why a run turns it away.
#[test]
fn a_refused_monitor_is_told_why() {
    let board = Board::new(Run::default());
    let address = board.serve("127.0.0.1:0", Some([7; 32]), false).unwrap();
    let output = dtop(&format!("{address} --once --wait 0.5"));
    // The alarm wraps.
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = words(text(&output.stdout));
    assert!(said.contains("this run needs a key; expected --key-file"), "{said}");
    let key = std::env::temp_dir().join(format!("dtop-{}.key", std::process::id()));
    gradwire::tcp::Key::generate().unwrap().write(&key).unwrap();
    let output = dtop(&format!("{address} --once --wait 0.5 --key-file {}", key.display()));
    let said = words(text(&output.stdout));
    assert!(said.contains("the key is not that of this run; expected the file"), "{said}");
    std::fs::remove_file(key).unwrap();
}

/// Several runs: a screen or an object for each, and the exit code of the worst.
#[test]
fn several_addresses_are_several_runs() {
    let (one, two) = (Running::start(), Running::start());
    let both = format!("{} {}", one.address, two.address);
    let output = dtop(&format!("{both} --once --json --wait 1"));
    let lines: Vec<String> = text(&output.stdout).lines().map(String::from).collect();
    assert_eq!((output.status.code(), lines.len()), (Some(0), 2), "{lines:?}");
    for (line, address) in lines.iter().zip([&one.address, &two.address]) {
        assert!(line.ends_with(&format!(",\"source\":\"{address}\"}}")) && line.contains("host-1"), "{line}");
    }
    let output = dtop(&format!("{both} 127.0.0.1:9 --once --ascii --wait 1"));
    let shown = text(&output.stdout);
    assert_eq!((output.status.code(), shown.matches("== 127.0.0.1:").count()), (Some(3), 3), "{shown}");
    one.end();
    two.end();
}

/// `dtop` alone finds the runs of this host. An entry of a process that was killed is ignored, and removed.
#[test]
fn runs_of_this_host_are_found() {
    let runtime = std::env::temp_dir().join(format!("dtop-runtime-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&runtime);
    std::fs::create_dir(&runtime).unwrap();
    let node = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dtop"));
        command.env("XDG_RUNTIME_DIR", &runtime).env("XDG_CONFIG_HOME", "/nowhere").args(["--once", "--json"]);
        command.output().unwrap()
    };
    let output = node();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("found no run of this host"), "{}", text(&output.stderr));
    let running = Running::start();
    let directory = runtime.join("gradwire-monitors");
    std::fs::create_dir(&directory).unwrap();
    let entry = |address: &str| format!("gradwire monitor 1\naddress {address}\nkey no\nprocess 1\nrecipe sync\n");
    let (live, stale) = (directory.join("1-1-0"), directory.join("2-2-0"));
    std::fs::write(&live, entry(&running.address)).unwrap();
    std::fs::write(&stale, entry("127.0.0.1:9")).unwrap();
    // As the run itself does: the file is locked for as long as its process lives.
    let file = std::fs::File::open(&live).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let output = node();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("host-1"));
    assert!(live.exists() && !stale.exists());
    drop(file);
    assert_eq!((node().status.code(), live.exists()), (Some(4), false));
    running.end();
    std::fs::remove_dir_all(&runtime).unwrap();
}

/// A recording is exported as CSV and as a page, and replayed as fast as asked.
#[test]
fn a_recording_is_exported_and_replayed_fast() {
    let path = |name: &str| std::env::temp_dir().join(format!("dtop-{}-{name}", std::process::id()));
    let (recording, csv, html) = (path("export.log"), path("export.csv"), path("export.html"));
    let demo = dtop(&format!("--demo --once --wait 5 --record {}", recording.display()));
    assert!(demo.status.code().is_some_and(|code| code < 3), "{}", text(&demo.stderr));
    let export = format!("--replay {} --export {} --export {}", recording.display(), csv.display(), html.display());
    let output = dtop(&export);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let table = std::fs::read_to_string(&csv).unwrap();
    let fields = table.lines().next().unwrap().split(',').count();
    // Neither the demo's hosts nor its roles have commas.
    assert!(table.lines().all(|line| line.split(',').count() == fields) && table.lines().count() > 100);
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n") && page.contains("<polyline"));
    // The second time, the files are there.
    let output = dtop(&export);
    assert!(output.status.code() == Some(4) && text(&output.stderr).contains("expected a new name, or --overwrite"));
    assert_eq!(dtop(&format!("{export} --overwrite")).status.code(), Some(0));
    let output = dtop(&format!("--replay {} --export {}", recording.display(), path("export.txt").display()));
    assert!(text(&output.stderr).contains("ends with .csv or .html"), "{}", text(&output.stderr));
    // 5 s of the recording in 200 intervals' time would be 40 s at speed 1.
    let begun = Instant::now();
    let output = dtop(&format!("--replay {} --json --interval 0.05 --speed 1000", recording.display()));
    assert!(text(&output.stdout).lines().count() < 20 && begun.elapsed() < Duration::from_secs(4));
    [recording, csv, html].iter().for_each(|path| std::fs::remove_file(path).unwrap());
}

/// The help wraps, is grouped and names values. `-h` is shorter than `--help`.
#[test]
fn the_help_has_two_lengths() {
    let (short, long) = (dtop("-h"), dtop("--help"));
    let (short_text, long_text) = (text(&short.stdout), text(&long.stdout));
    assert_eq!((short.status.code(), long.status.code()), (Some(0), Some(0)));
    assert!(short_text.lines().count() < long_text.lines().count());
    for word in ["Source:", "Recordings:", "--record <FILE>", "--speed <FACTOR>", "HOST:PORT", "dtop --help tells more"]
    {
        assert!(short_text.contains(word), "{word} in {short_text}");
    }
    for word in ["Exit codes", "press ? in dtop", "128 + N"] {
        assert!(long_text.contains(word) && !short_text.contains(word), "{word} in {long_text}");
    }
    assert!(short_text.lines().chain(long_text.lines()).all(|line| line.chars().count() <= 100), "{short_text}");
    let version = dtop("--version");
    assert_eq!(text(&version.stdout), format!("dtop {}\n", env!("CARGO_PKG_VERSION")));
}
