//! Processes of the example binaries, listened to; and a proxy that does to their connections what networks do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::binary::binary;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A port that was free a moment ago.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("gradwire-live-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}

/// A process, and all that it says.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) said: Vec<String>,
}

impl Ended {
    /// A number or text of the JSON object that it ended with.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let line =
            self.said.iter().rev().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{:?}", self.said));
        let (_, rest) = line.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {line}"));
        rest[..rest.find([',', '}']).unwrap()].trim_matches('"').to_string()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{:#?}", self.said);
        self
    }
}

impl Process {
    pub(crate) fn start(name: &str, args: &str) -> Self {
        Self::start_with(name, args, &[])
    }

    pub(crate) fn start_with(name: &str, args: &str, env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary(name))
            .args(args.split_whitespace())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let (out, err): (Box<dyn Read + Send>, Box<dyn Read + Send>) =
            (Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap()));
        for from in [out, err] {
            let sender = sender.clone();
            thread::spawn(move || {
                BufReader::new(from).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
            });
        }
        Self { child, lines, said: Vec::new() }
    }

    /// Waits until it says something with `text` in it; how long that took.
    #[track_caller]
    pub(crate) fn until(&mut self, text: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) else {
                panic!("it never said \"{text}\", but: {:#?}", self.said)
            };
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return begun.elapsed();
            }
        }
    }

    /// Waits until it trains.
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
            assert!(begun.elapsed() < PATIENCE, "it does not end: {:#?}", self.said);
        };
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
    }
}

pub(crate) fn signal(id: u32, name: &str) {
    assert!(Command::new("kill").args([name, &id.to_string()]).status().unwrap().success());
}

/// What a proxy does to what passes through it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chaos {
    /// Nothing.
    Calm,
    /// Passes pieces of 1 to 7 bytes.
    Trickle,
    /// Holds every piece for so many milliseconds.
    Delay(u64),
    /// Ends each connection after so many bytes in all, a few more each time.
    Cut(u64),
    /// Flips a bit after so many bytes of each connection, once per connection, a few more each time.
    Flip(u64),
}

/// A proxy in front of one address.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// While set, nothing passes, and nothing ends.
    hole: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// Connections that it has ended or damaged.
    pub(crate) harmed: Arc<AtomicU64>,
}

impl Proxy {
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
                // Later connections live longer, so that a run gets on.
                let passed = Arc::new(Mutex::new(0));
                let limit = number as u64 * 4099;
                for (from, into) in [(&client, &server), (&server, &client)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let (passed, hole, harmed) = (Arc::clone(&passed), Arc::clone(&h), Arc::clone(&n));
                    thread::spawn(move || pump(from, into, chaos, limit, &passed, &hole, &harmed));
                }
            }
        });
        Self { port, hole, stop, harmed }
    }

    /// From now on, or no longer, nothing passes.
    pub(crate) fn hole(&self, yes: bool) {
        self.hole.store(yes, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn pump(
    mut from: TcpStream,
    mut into: TcpStream,
    chaos: Chaos,
    later: u64,
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
            Chaos::Cut(at) if before + n as u64 > at + later => {
                let keep = (at + later).saturating_sub(before) as usize;
                piece = &mut piece[..keep];
                over = true;
            }
            Chaos::Flip(at) if (before..before + n as u64).contains(&(at + later)) => {
                piece[(at + later - before) as usize] ^= 0x10;
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
