//! Monitoring of the programs from outside: they say where they listen, announce themselves, and write the last values.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use binary::binary;
use gradwire::monitor::{Frames, subscribe};
use gradwire::telemetry::Frame;

/// A new directory for the files of a test.
fn directory(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-watching-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).unwrap();
    path
}

fn command(program: &str, args: &str, runtime: &std::path::Path) -> Command {
    let mut command = Command::new(binary(program));
    command.args(args.split_whitespace()).env("XDG_RUNTIME_DIR", runtime);
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The rest of the first line on stderr that begins so.
fn said(child: &mut Child, start: &str) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let found = lines.by_ref().find_map(|line| Some(line.unwrap().strip_prefix(start)?.to_string())).unwrap();
    // The pipe is emptied, so that the program can go on writing.
    std::thread::spawn(move || lines.for_each(drop));
    found
}

/// Threads and processes: port 0 becomes one that works, and the run is announced while it lasts.
#[test]
fn a_run_says_how_to_watch_it() {
    let runtime = directory("says");
    for (program, args) in [
        ("cluster", "--workers 2 --epochs 500 --pace 50"),
        ("cluster", "--workers 2 --transport tcp --epochs 500 --pace 50"),
        ("node", "--epochs 500 --pace 50 --meet 127.0.0.1:0"),
        ("launch", "-n 2 -- node --epochs 500 --pace 50"),
    ] {
        let mut command = command(program, &format!("{args} --monitor 127.0.0.1:0"), &runtime);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let front = if program == "launch" { "[0] " } else { "" };
        let address = said(&mut child, &format!("{front}watch with: dtop "));
        assert!(!address.ends_with(":0"), "{address}");
        let mut stream = subscribe(&address, 10, None).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut frames = Frames::default();
        assert!(matches!(frames.next(&mut stream), Ok(Frame::Present(_))), "{args}");
        assert!(matches!(frames.next(&mut stream), Ok(Frame::Run(_))), "{args}");
        let files: Vec<_> = std::fs::read_dir(runtime.join("gradwire-monitors")).unwrap().flatten().collect();
        let announced: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
        let line = format!("address {address}");
        assert!(announced.iter().any(|text| text.lines().any(|other| other == line)), "{args}: {announced:?}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
    }
    std::fs::remove_dir_all(&runtime).unwrap();
}

/// Processes that are started one by one cannot know a port that rank 0 would choose: the error says what to write.
#[test]
fn several_processes_are_told_to_name_a_port() {
    let runtime = directory("ports");
    for rank in 0..2 {
        let args = format!("--rank {rank} --processes 2 --meet 127.0.0.1:9 --monitor 127.0.0.1:0");
        let output = command("node", &args, &runtime).output().unwrap();
        let words = "--monitor: expected a port that all processes know, such as 127.0.0.1:7700, got \"127.0.0.1:0\"";
        assert!(output.status.code() == Some(2) && text(&output).contains(words), "{}", text(&output));
    }
    std::fs::remove_dir_all(&runtime).unwrap();
}

/// The last values of all processes are in the event file of rank 0, under tags that begin with the metric.
#[test]
fn the_last_values_of_a_run_are_written() {
    let runtime = directory("last");
    let events = runtime.join("events");
    let args =
        format!("--workers 2 --epochs 1 --transport tcp --tensorboard {} --monitor 127.0.0.1:0", events.display());
    let output = command("cluster", &args, &runtime).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let file = std::fs::read_dir(&events).unwrap().next().unwrap().unwrap().path();
    let bytes = std::fs::read(file).unwrap();
    for tag in ["loss/rank 0", "accuracy/rank 0", "bytes_sent/rank 1"] {
        assert!(bytes.windows(tag.len()).any(|window| window == tag.as_bytes()), "{tag}: {}", text(&output));
    }
    assert!(
        !runtime.join("gradwire-monitors").read_dir().unwrap().any(|file| file.is_ok()),
        "the announcement is gone"
    );
    std::fs::remove_dir_all(&runtime).unwrap();
}

/// Scrapes from other hosts need a key, or a flag that goes without.
#[test]
fn scrapes_of_other_hosts_need_a_key_or_a_flag() {
    let runtime = directory("scrapes");
    let key = runtime.join("key");
    let made = command("node", &format!("keygen {}", key.display()), &runtime).output().unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let base = "--workers 1 --epochs 500 --pace 50 --metrics 0.0.0.0:0";
    let refused = command("cluster", base, &runtime).output().unwrap();
    let words = "expected a loopback address, --metrics-key-file FILE, or --monitor-open";
    assert!(!refused.status.success() && text(&refused).contains(words), "{}", text(&refused));
    let digits = std::fs::read_to_string(&key).unwrap();
    let header = format!("Authorization: Bearer {}\r\n", digits.trim());
    for (flags, lines, code) in [
        ("--monitor-open".to_string(), "", "200"),
        (format!("--metrics-key-file {}", key.display()), "", "401"),
        (format!("--metrics-key-file {}", key.display()), header.as_str(), "200"),
    ] {
        let mut command = command("cluster", &format!("{base} {flags}"), &runtime);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let url = said(&mut child, "metrics at http://0.0.0.0:");
        let port: u16 = url.trim_end_matches("/metrics").parse().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(format!("GET /metrics HTTP/1.1\r\n{lines}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{flags}: {answer}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    std::fs::remove_dir_all(&runtime).unwrap();
}
