//! The program `launch` and its responsibilities: the output of its processes, all processes that they start, their
//! exit codes, and the port of rank 0.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

mod binary;
#[allow(dead_code, reason = "other tests use the rest")]
mod process;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use binary::binary;
use process::{PATIENCE, scratch, signal};

/// A `launch` of this number of processes that run a script in `sh`. `$R` is the rank.
fn launch(flags: &str, count: u32, script: &str) -> Command {
    let mut command = Command::new(binary("launch"));
    command.args(["-n", &count.to_string()]).args(flags.split_whitespace());
    command.args(["--", "sh", "-c", &format!("R=$GRADWIRE_RANK; {script}")]).stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code, and stderr. A launch that does not end is killed by `timeout`.
fn run(flags: &str, count: u32, script: &str) -> (i32, String) {
    let output = launch(flags, count, script).output().unwrap();
    (output.status.code().unwrap(), text(&output.stderr))
}

/// The running processes that have this text in their command line, but for this one.
fn running(token: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if text(&line).contains(token) && state(id) != Some('Z') {
            found.push(id);
        }
    }
    found
}

/// The state of a process, such as `S` or `Z` (zombie).
fn state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Waits until a condition holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "expected {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A number of seconds that no other process sleeps for: a text to find processes by.
fn token(test: u32) -> String {
    format!("{}.{:05}{test}", 100_000 + std::process::id(), std::process::id() % 100_000)
}

/// A program that starts other processes: in its group, in another group (`timeout`), in another session, as a daemon,
/// and one that ignores all signals that can be ignored. A signal with a trap ends the first `wait`.
fn family(token: &str) -> String {
    format!(
        "sleep {token} & timeout {token} sleep {token} & setsid sleep {token} & (setsid sleep {token} &) ; \
         (trap '' HUP INT QUIT TERM; sleep {token}) & echo started; wait; wait"
    )
}

/// All bytes that a child prints arrive, and the child is not killed for them.
#[test]
fn output_is_bytes() {
    let script = "printf 'a\\377\\200b\\n\\0c\\r1%%\\r2%%\\r\\nlast'; printf '\\376' >&2; sleep 0.1; echo; echo end";
    let Output { status, stdout, stderr } = launch("", 1, script).output().unwrap();
    assert_eq!(status.code(), Some(0), "{}", text(&stderr));
    assert_eq!(stdout, b"[0] a\xff\x80b\n[0] \0c\n[0] 1%\n[0] 2%\n[0] last\n[0] end\n", "{:?}", text(&stdout));
    assert_eq!(stderr, b"[0] \xfe\n");
}

/// A child that prints faster than its output is read is held back, with and without line ends, and fills no memory.
#[test]
fn output_without_end_fills_no_memory() {
    const BYTES: usize = 100_000_000;
    for (translated, per_line) in [("x", 8192), ("\\n", 1)] {
        let script = format!("head -c {BYTES} /dev/zero | tr '\\0' '{translated}'");
        let bytes = if per_line == 1 { BYTES / 20 } else { BYTES };
        let script = script.replace(&BYTES.to_string(), &bytes.to_string());
        let mut child = launch("", 1, &script).stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        thread::sleep(Duration::from_secs(1));
        let peak = || {
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        assert!(peak().unwrap() < 40_000, "{:?} kB", peak());
        let mut read = 0;
        let mut buffer = vec![0; 1 << 20];
        let mut out = child.stdout.take().unwrap();
        loop {
            let len = out.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            read += len;
            assert!(peak().is_none_or(|peak| peak < 40_000), "{:?} kB", peak());
        }
        let lines = bytes.div_ceil(per_line);
        let ends = if per_line == 1 { 0 } else { lines };
        assert_eq!(read, bytes + ends + lines * "[0] ".len());
        assert!(child.wait().unwrap().success());
    }
}

/// No process survives a launch that is killed, at any moment.
#[test]
fn nothing_survives_a_killed_launch() {
    for round in 0..24 {
        let token = token(1);
        let mut child = launch("", 3, &family(&token)).stdout(Stdio::null()).spawn().unwrap();
        // From before its first process to after all have started.
        thread::sleep(Duration::from_millis(round * 5));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        // The guardian notices the end of launch; a process in between may still start another.
        until("no survivors", || running(&token).is_empty());
        thread::sleep(Duration::from_millis(20));
        assert_eq!(running(&token), [0; 0], "round {round}");
    }
}

/// A signal to launch is passed on, ends everything, and decides the exit code. A process that ignores it is killed at
/// the second signal of a user who does not want to wait.
#[test]
fn a_signal_ends_all() {
    for (name, number, again) in [("HUP", 1, "TERM"), ("INT", 2, "INT"), ("QUIT", 3, "QUIT"), ("TERM", 15, "TERM")] {
        if name == "HUP" && gradwire_examples::children::is_ignored(rustix::process::Signal::HUP) {
            println!("skipped: SIGHUP, which this process ignores, as under nohup; so do its children");
            continue;
        }
        let token = token(2);
        let script = format!("trap 'echo got {name} >&2' {name}; {}", family(&token));
        let mut child = launch("", 2, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut started = String::new();
        while started.matches("started").count() < 2 {
            let mut byte = [0];
            out.read_exact(&mut byte).unwrap();
            started.push(byte[0].into());
        }
        signal(child.id(), &format!("-{name}"));
        // The shells wait for the one that ignores signals, until it is killed.
        let mut err = child.stderr.take().unwrap();
        let mut said = Vec::new();
        while text(&said).matches("got").count() < 2 {
            let mut byte = [0];
            err.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        signal(child.id(), &format!("-{again}"));
        err.read_to_end(&mut said).unwrap();
        let said = text(&said);
        assert_eq!(child.wait().unwrap().code(), Some(128 + number), "{said}");
        assert!(said.contains(&format!("launch: stopped by signal {number} (SIG{name})")), "{said}");
        assert_eq!(running(&token), [0; 0]);
    }
}

/// Under `nohup`, the end of a terminal is no reason to end.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" -n 1 -- sh -c 'echo started; sleep 1; echo done'"]);
    let mut child = command.arg(binary("launch")).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut [0; "[0] started".len()]).unwrap();
    signal(child.id(), "-HUP");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("done"), "{rest}");
    assert!(child.wait().unwrap().success());
}

/// Ctrl-Z stops the processes as well, and they go on together.
#[test]
fn processes_are_suspended_together() {
    let token = token(3);
    let mut child = launch("", 2, &format!("exec sleep {token}")).spawn().unwrap();
    // Launch itself has the text in its arguments too.
    let sleeping = || running(&format!("sleep\0{token}"));
    until("two processes", || sleeping().len() == 2);
    let all = |wanted| sleeping().into_iter().chain([child.id()]).all(|id| state(id) == Some(wanted));
    signal(child.id(), "-TSTP");
    until("all stopped", || all('T'));
    signal(child.id(), "-CONT");
    until("all going on", || all('S'));
    // A signal to stopped processes ends them.
    sleeping().into_iter().for_each(|id| signal(id, "-STOP"));
    signal(child.id(), "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(sleeping(), [0; 0]);
}

/// A process that was told to leave, and says so by its exit code, is not restarted, and stops no other process.
#[test]
fn a_process_that_has_left_is_no_failure() {
    for code in [129, 130, 143] {
        let script = format!("[ $R = 0 ] && exit {code}; sleep 0.5; echo still here >&2");
        let (exit, said) = run("--restart 3", 2, &script);
        assert_eq!(exit, 0, "{said}");
        assert!(said.contains("[1] still here"), "{said}");
        let told = format!("[0] ended: exit code {code}, after a signal to it; the other processes go on");
        assert_eq!(said.matches(&told).count(), 1, "{said}");
    }
}

/// A failure stops the other processes at once, also processes that ignore SIGTERM, and is reported with its reason.
#[test]
fn a_failure_ends_all() {
    let token = token(4);
    let others = format!("trap '' TERM; {}", family(&token));
    let reason = "echo why it failed >&2; echo 'note: run with `RUST_BACKTRACE=1`' >&2";
    let (code, said) = run("", 3, &format!("if [ $R = 1 ]; then sleep 0.3; {reason}; exit 7; fi; {others}"));
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("[1] ended: exit code 7; stopping the other processes"), "{said}");
    assert!(said.contains("[0] did not end in time: killed"), "{said}");
    assert!(said.ends_with("launch: process 1 failed first (exit code 7): why it failed\n"), "{said}");
    assert_eq!(running(&token), [0; 0]);
    // A crash of the program is its own failure as well.
    let (code, said) = run("", 2, "if [ $R = 1 ]; then kill -SEGV $$; fi; exec sleep 600");
    assert_eq!(code, 128 + 11, "{said}");
    assert!(said.contains("launch: process 1 failed first (killed by signal 11 (SIGSEGV))"), "{said}");
}

/// A run survives a process that is killed, and with `--keep-going` any failure.
#[test]
fn the_others_go_on_without_a_killed_process() {
    for (flags, end, code) in [("", "kill -KILL $$", 137), ("", "kill -TERM $$", 143), ("--keep-going", "exit 5", 5)] {
        let Output { status, stdout, stderr } =
            launch(flags, 3, &format!("if [ $R = 1 ]; then {end}; fi; sleep 0.5; echo done")).output().unwrap();
        let said = text(&stderr);
        assert_eq!(status.code(), Some(code), "{said}");
        assert_eq!(text(&stdout).matches("done").count(), 2, "{said}");
        assert!(said.contains("; the other processes go on"), "{said}");
    }
}

/// The failure that was first in time decides, not the lowest rank.
#[test]
fn the_first_failure_decides_the_code() {
    let directory = scratch("first");
    let pipe = directory.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.display();
    // The end of rank 1 is the reason for the end of rank 0.
    let script =
        format!("if [ $R = 1 ]; then exec 3>{pipe}; sleep 0.02; kill -KILL $$; fi; cat {pipe}; sleep 0.003; exit 4");
    for _ in 0..10 {
        let (code, said) = run("--keep-going", 2, &script);
        assert_eq!(code, 137, "{said}");
        assert!(said.contains("launch: process 1 failed first (killed by signal 9 (SIGKILL))"), "{said}");
    }
}

/// A process that fails is started again as often as allowed; processes that it has left behind are gone before.
#[test]
fn failed_processes_are_restarted() {
    let directory = scratch("restart");
    let token = token(5);
    let count = directory.join("tries").display().to_string();
    // Rank 1 fails twice, and leaves a process behind, which must not be there at the next try.
    let script = format!(
        "if [ $R = 0 ]; then sleep 1; exit 0; fi; \
         if pgrep -f '^sleep {token}' >/dev/null; then echo left >&2; exit 9; fi; \
         echo x >>{count}; if [ $(wc -l <{count}) -gt 2 ]; then exit 0; fi; sleep {token} & exit 3"
    );
    let (code, said) = run("--restart 2", 2, &script);
    assert_eq!((code, said.matches("restarting").count()), (0, 2), "{said}");
    std::fs::remove_file(&count).unwrap();
    let (code, said) = run("--restart 1", 2, &script);
    assert_eq!((code, said.matches("restarting").count()), (3, 1), "{said}");
    assert_eq!(running(&token), [0; 0]);
}

/// A terminal that takes no output keeps a launch from printing, but not from ending.
#[test]
fn a_stalled_reader_does_not_hold_up_the_end() {
    let token = token(6);
    let mut child =
        launch("", 2, &format!("yes {token}")).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    until("two processes", || running(&format!("yes\0{token}")).len() == 2);
    thread::sleep(Duration::from_millis(300));
    signal(child.id(), "-TERM");
    until("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(running(&format!("yes\0{token}")), [0; 0]);
}

/// Where only a few ports are free, the port of rank 0 goes to rank 0: no other process and no connection gets it.
#[test]
fn the_port_of_rank_0_is_not_given_away() {
    let inside = |script: &str| Command::new("unshare").args(["--net", "sh", "-c", script]).output();
    let prepare = "ip link set lo up && echo 40000 40015 >/proc/sys/net/ipv4/ip_local_port_range";
    match inside(prepare) {
        Ok(output) if output.status.success() => {}
        other => {
            let why = other.map_or_else(|error| error.to_string(), |output| text(&output.stderr));
            let text = format!("skipped: ports in a network namespace (it needs root, unshare and ip: {why})\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            return;
        }
    }
    let launch = binary("launch").display().to_string();
    let run = format!("{launch} -n 4 -- node --recipe sync --epochs 1 --hidden 8 --quiet");
    let script = format!("{prepare} && for try in $(seq 20); do {run} >/dev/null || exit 1; done");
    let output = inside(&script).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The refusal of wrong arguments names the expected ones, and the message of a process is the last word of its launch.
#[test]
fn wrong_arguments_are_refused_with_what_is_expected() {
    for (args, code, expected) in [
        ("", 2, "required arguments were not provided: <PROGRAM>..."),
        ("-n 0 -- true", 2, "0 is not in 1..=1024"),
        ("-n 65536 -- true", 2, "65536 is not in 1..=1024"),
        ("-n -1 -- true", 2, "-1 is not in 1..=1024"),
        ("-n abc -- true", 2, "invalid value 'abc' for '--processes <N>': expected a whole number"),
        ("--restarts 3 -- true", 2, "a similar argument exists: '--restart'"),
        ("-n 2 -- /nowhere/at/all", 4, "launch: cannot start \"/nowhere/at/all\": No such file"),
        ("-n 2 -- /etc/passwd", 4, "launch: cannot start \"/etc/passwd\": Permission denied"),
        ("-n 1 -- node --recip sync", 2, "process 0 failed first (exit code 2): unexpected argument '--recip'"),
        (
            "-n 1 -- node --recip sync",
            2,
            "[0] unexpected argument '--recip' found (a similar argument exists: '--recipe'); see node --help",
        ),
        ("-n 2 node --rank 7 --processes 2", 2, "(exit code 2): --rank: expected less than 2, got 7"),
        ("-n 2 node --monitor 127.0.0.1:65535", 2, "no port is left for the reports"),
    ] {
        let output = Command::new(binary("launch")).args(args.split_whitespace()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args}: {said}");
        assert!(said.contains(expected), "{args}: {said}");
    }
    // The two dashes are needed only for flags in front of the program.
    let output =
        Command::new(binary("launch")).args(["-n", "1", "sh", "-c", "echo $0 \"$@\"", "a", "-n", "--b"]).output();
    assert_eq!(text(&output.unwrap().stdout), "[0] a -n --b\n");
}
