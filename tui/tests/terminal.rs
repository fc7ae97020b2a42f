//! The program `dtop` in a terminal of its own, made by `script` of util-linux: every way out restores the terminal.
//! Without `script` and `bash`, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A shell in a terminal, and everything that the terminal has shown.
struct Shell {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    directory: PathBuf,
}

impl Shell {
    /// Runs a script of bash. `None` where that is not possible. `$DTOP` is the program, `$PWD` a new directory.
    fn start(name: &str, commands: &str) -> Option<Self> {
        let has = |program: &str| {
            let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
            found.is_ok_and(|output| output.status.success())
        };
        if !has("script") || !has("bash") {
            let _ = writeln!(std::io::stderr(), "skipped {name}: needs script (util-linux) and bash");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("dtop-terminal-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let script = directory.join("script.sh");
        // The size is that of no terminal at all otherwise.
        std::fs::write(&script, format!("stty rows 24 cols 80\nstty -a >before\n{commands}\n")).unwrap();
        let mut child = Command::new("script")
            .args(["-q", "-e", "-f", "-c", "bash script.sh", "/dev/null"])
            .current_dir(&directory)
            .env("DTOP", env!("CARGO_BIN_EXE_dtop"))
            .env("XDG_CONFIG_HOME", "/nowhere")
            .env("XDG_RUNTIME_DIR", &directory)
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown: Arc<Mutex<String>> = Arc::default();
        let copy = Arc::clone(&shown);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Some(Self { child, keys, shown, directory })
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// Waits until the terminal has shown a text so often.
    fn expect(&self, text: &str, times: usize) {
        let begun = Instant::now();
        while self.shown().matches(text).count() < times {
            assert!(begun.elapsed() < Duration::from_secs(15), "no {text:?} in {:?}", self.shown());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for the end of the script, checks the terminal, and returns what it has shown.
    fn end(mut self) -> String {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(15) {
                self.child.kill().unwrap();
                panic!("the script goes on: {:?}", self.shown());
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_millis(100));
        let shown = self.shown();
        let settings = |name: &str| std::fs::read_to_string(self.directory.join(name)).unwrap();
        assert_eq!(settings("before"), settings("after"), "{shown:?}");
        for (on, off) in
            [("\u{1b}[?1049h", "\u{1b}[?1049l"), ("\u{1b}[?1000h", "\u{1b}[?1000l"), ("\u{1b}[?25l", "\u{1b}[?25h")]
        {
            let (on_at, off_at) = (shown.rfind(on).unwrap_or(0), shown.rfind(off).unwrap_or(0));
            assert!(on_at < off_at, "{on:?} is not followed by {off:?} in {shown:?}");
        }
        std::fs::remove_dir_all(&self.directory).unwrap();
        shown
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // After a failed test: dtop ends with its terminal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line of the scripts: the exit code, and the settings of the terminal.
const AFTER: &str = "echo \"code=$?\"; stty -a >after";

#[test]
fn quitting_ends_with_0() {
    for (name, key) in [("q", "q"), ("ctrl-c", "\u{3}")] {
        let Some(mut shell) = Shell::start(name, &format!("$DTOP --demo\n{AFTER}")) else { return };
        shell.expect("Overview", 1);
        shell.press(key);
        shell.expect("code=0", 1);
        shell.end();
    }
}

/// The terminal goes away, as when its window is closed. dtop must not read from it for ever, with or without a signal.
#[test]
fn a_terminal_that_is_gone_ends_the_program() {
    for (name, trap) in [("gone", ""), ("nohup", "trap \"\" HUP; ")] {
        let script = format!("bash -c '{trap}echo $$ >pid; exec $DTOP --demo'");
        let Some(mut shell) = Shell::start(name, &script) else { return };
        shell.expect("Overview", 1);
        let pid = std::fs::read_to_string(shell.directory.join("pid")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        if !process.exists() {
            return;
        }
        shell.child.kill().unwrap();
        let begun = Instant::now();
        while process.exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{name}: dtop goes on without a terminal");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn signals_restore_the_terminal() {
    for (name, number) in [("TERM", 15), ("HUP", 1), ("QUIT", 3)] {
        let script = format!("bash -c 'echo $$ >pid; exec $DTOP --demo'\n{AFTER}");
        let Some(shell) = Shell::start(name, &script) else { return };
        shell.expect("Overview", 1);
        let pid = std::fs::read_to_string(shell.directory.join("pid")).unwrap();
        assert!(Command::new("kill").args([format!("-{name}"), pid.trim().into()]).status().unwrap().success());
        shell.expect(&format!("code={}", 128 + number), 1);
        shell.end();
    }
}

#[test]
fn an_error_restores_the_terminal() {
    // A recording on a full disk: the write fails while the screen is shown.
    let script = format!("ulimit -f 8; trap '' XFSZ; $DTOP --demo --record run.log\n{AFTER}");
    let Some(shell) = Shell::start("error", &script) else { return };
    shell.expect("code=4", 1);
    let shown = shell.end();
    let message = shown.rfind("File too large").unwrap();
    assert!(shown.rfind("\u{1b}[?1049l").unwrap() < message, "{shown:?}");
}

#[test]
fn a_panic_restores_the_terminal() {
    // The test binary of the program has a panic for this.
    let Ok(entries) = std::fs::read_dir(PathBuf::from(env!("CARGO_BIN_EXE_dtop")).with_file_name("deps")) else {
        return;
    };
    let mut programs: Vec<_> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("dtop-") && !name.contains('.') && has_the_panic(&entry.path())
        })
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    programs.sort();
    let Some((_, program)) = programs.pop() else {
        let _ = writeln!(std::io::stderr(), "skipped: the unit tests of dtop are not built");
        return;
    };
    let test = "terminal::tests::a_panic_in_a_terminal";
    let script = format!("{} --ignored --exact {test} --nocapture\n{AFTER}", program.display());
    let Some(shell) = Shell::start("panic", &script) else { return };
    shell.expect("code=101", 1);
    let shown = shell.shown();
    let message = shown.rfind("a panic for a test").unwrap();
    assert!(shown.rfind("\u{1b}[?1049l").is_some_and(|left| left < message), "{shown:?}");
    // Nothing was drawn, so the cursor was never hidden.
    shell.end();
}

/// Whether a program is the test binary with that test.
fn has_the_panic(path: &std::path::Path) -> bool {
    let output = Command::new(path).args(["--ignored", "--list"]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("a_panic_in_a_terminal"))
}

/// Ctrl-Z stops the program with a usable terminal, and the shell continues it with its screen.
#[test]
fn ctrl_z_stops_and_fg_continues() {
    let script = format!("set -m\n$DTOP --demo\necho \"stopped=$?\"; stty -a >stopped\nfg\n{AFTER}");
    let Some(mut shell) = Shell::start("stop", &script) else { return };
    shell.expect("Overview", 1);
    shell.press("\u{1a}");
    shell.expect("stopped=14", 1);
    // Drawn as a whole again.
    shell.expect("Overview", 2);
    shell.press("q");
    shell.expect("code=0", 1);
    let read = |name: &str| std::fs::read_to_string(shell.directory.join(name)).unwrap();
    assert_eq!(read("before"), read("stopped"));
    shell.end();
}
