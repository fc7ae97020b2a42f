//! Helpers for tests with several processes: [`Process`] runs an example program and reads its output; [`Proxy`] stands
//! between two processes, and delays, damages or cuts their connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gradwire_examples::children::Port;

use crate::binary::binary;

/// The limit of each wait, far above its usual length.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A port that no program gets by chance as long as the process of the tests lives: many nodes ask for any port.
pub(crate) fn port() -> u16 {
    let port = std::mem::ManuallyDrop::new(Port::reserve().unwrap());
    port.address().port()
}

/// An empty directory of this process.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-live-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A running program. Its stdout and stderr are read together, line by line. Dropping it kills the program.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    /// The lines so far.
    said: Vec<String>,
}

/// A program that has ended.
pub(crate) struct Ended {
    /// The exit code; `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    /// All lines of stdout and stderr.
    pub(crate) said: Vec<String>,
}

impl Ended {
    /// The text of a field in the last JSON object of the output.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let line =
            self.said.iter().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{:?}", self.said));
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {line}"));
        rest[..rest.find([',', '}']).unwrap()].trim_matches('"').to_string()
    }

    /// Asserts that SIGTERM has ended the program.
    #[track_caller]
    #[allow(dead_code, reason = "not every file of tests uses it")]
    pub(crate) fn terminated(self) -> Self {
        assert_eq!(self.code, Some(128 + 15), "{:#?}", self.said);
        self
    }

    /// Asserts that the exit code is 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{:#?}", self.said);
        self
    }
}

impl Process {
    /// Starts an example program. `args` is split at white space.
    pub(crate) fn start(name: &str, args: &str) -> Self {
        Self::start_with(name, args, &[])
    }

    /// As [`start`](Self::start), with additional environment variables.
    pub(crate) fn start_with(name: &str, args: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary(name));
        command.args(args.split_whitespace()).envs(env.iter().copied());
        Self::spawn(command)
    }

    /// Starts any command.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let (out, err): (Box<dyn Read + Send>, Box<dyn Read + Send>) =
            (Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap()));
        for from in [out, err] {
            let sender = sender.clone();
            thread::spawn(move || {
                // A pipe is read to its end, even if it is not text: a program is killed when its pipe is closed.
                for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line that contains `text`. Returns how long that took.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) else {
                panic!("expected a line with \"{text}\", got: {:#?}", self.said)
            };
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return begun.elapsed();
            }
        }
    }

    /// Waits until the first step is done.
    #[track_caller]
    pub(crate) fn begins(&mut self) {
        self.until("first step done");
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Asserts that the program ends within `limit`, and returns how it ended.
    #[track_caller]
    #[allow(dead_code, reason = "not every file of tests uses it")]
    pub(crate) fn ends_within(mut self, limit: Duration) -> Ended {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit, "still running after {limit:?}: {:#?}", self.said);
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(5)) {
                self.said.push(line);
            }
            assert!(begun.elapsed() < PATIENCE, "the program does not end: {:#?}", self.said);
        };
        // The threads that read the pipes may still have lines.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(500)) {
            self.said.push(line);
        }
        Ended { code: status.code(), said: std::mem::take(&mut self.said) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            // What the other processes of a failed test said is part of the failure.
            while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(100)) {
                self.said.push(line);
            }
            eprintln!("process {} said: {:#?}", self.child.id(), self.said);
        }
    }
}

/// Sends a signal, such as `-KILL`, to a process.
pub(crate) fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// The fault that a proxy causes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chaos {
    /// No fault: passes all bytes on.
    Calm,
    /// Passes pieces of 1 to 7 bytes.
    Trickle,
    /// Delays every piece by this number of milliseconds.
    Delay(u64),
    /// Closes each connection after this number of bytes in both directions together, plus 4,099 for each earlier
    /// connection.
    Cut(u64),
    /// Flips one bit per connection, at the same place.
    Flip(u64),
}

/// A TCP proxy in front of a port of this host.
pub(crate) struct Proxy {
    /// The port that the proxy listens on.
    pub(crate) port: u16,
    /// While set, connections stay open but carry no bytes.
    hole: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Number of connections that the proxy has cut or damaged.
    pub(crate) harmed: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy that forwards to port `to`.
    pub(crate) fn start(to: u16, chaos: Chaos) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hole, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let harmed = Arc::new(AtomicU64::new(0));
        let (h, s, n) = (Arc::clone(&hole), Arc::clone(&stop), Arc::clone(&harmed));
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let Ok(client) = client else { return };
                if s.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                // Later connections live longer, so that the run makes progress.
                let passed = Arc::new(Mutex::new(0));
                let extra = number as u64 * 4099;
                for (from, into) in [(&client, &server), (&server, &client)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let (passed, hole, harmed) = (Arc::clone(&passed), Arc::clone(&h), Arc::clone(&n));
                    thread::spawn(move || pump(from, into, chaos, extra, &passed, &hole, &harmed));
                }
            }
        });
        Self { port, hole, stop, harmed }
    }

    /// Starts or ends a black hole: connections stay open, but carry no bytes.
    pub(crate) fn hole(&self, active: bool) {
        self.hole.store(active, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The accepting thread checks `stop` only after a connection.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Forwards one direction of a connection, until its end or its cut. `passed` counts the bytes of both directions;
/// `extra` is added to the position of the fault.
fn pump(
    mut from: TcpStream,
    mut into: TcpStream,
    chaos: Chaos,
    extra: u64,
    passed: &Mutex<u64>,
    hole: &AtomicBool,
    harmed: &AtomicU64,
) {
    let _ = into.set_nodelay(true);
    let mut buffer = [0; 16 * 1024];
    let mut turn = 0usize;
    loop {
        let want = if chaos == Chaos::Trickle { 1 + turn % 7 } else { buffer.len() };
        turn += 1;
        let Ok(n) = from.read(&mut buffer[..want]) else { break };
        if n == 0 {
            break;
        }
        while hole.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        let mut piece = &mut buffer[..n];
        let mut over = false;
        let before = {
            let mut passed = passed.lock().unwrap();
            let before = *passed;
            *passed += n as u64;
            before
        };
        match chaos {
            Chaos::Delay(millis) => thread::sleep(Duration::from_millis(millis)),
            Chaos::Cut(at) if before + n as u64 > at + extra => {
                let keep = (at + extra).saturating_sub(before) as usize;
                piece = &mut piece[..keep];
                over = true;
            }
            Chaos::Flip(at) if (before..before + n as u64).contains(&(at + extra)) => {
                piece[(at + extra - before) as usize] ^= 0x10;
                harmed.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if into.write_all(piece).is_err() {
            break;
        }
        if over {
            harmed.fetch_add(1, Ordering::Relaxed);
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}
