//! Child processes of one run: [`Children`] starts them with rank and address in their environment, passes on their
//! output, restarts and stops them.

use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use gradwire::RunId;

/// A line of a child's output, with the child's rank.
pub enum Line {
    /// A line of stdout.
    Out(u32, String),
    /// A line of stderr, or a message about the end of the process.
    Err(u32, String),
}

/// The child processes of one run. Dropping it kills them.
pub struct Children {
    program: OsString,
    args: Vec<OsString>,
    /// An additional environment variable for the children.
    env: Option<(&'static str, &'static str)>,
    /// The address of rank 0: a port of this host that was free at the start.
    meet: String,
    /// A name that no other launch has. A launcher around this one may have named the job already.
    job: String,
    /// The processes, in order of rank.
    children: Vec<Slot>,
    sender: Sender<Line>,
    pub lines: Receiver<Line>,
}

/// A rank, and the process that has it.
struct Slot {
    child: Option<Child>,
    /// How often the process may still be restarted.
    restarts: u32,
    /// The exit code of the last process; minus the signal's number if a signal ended it.
    code: Option<i32>,
    /// When to start the next process.
    restart_at: Option<Instant>,
}

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);
/// Time to wait for the rest of the output after all processes have ended.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

impl Children {
    /// Starts `count` processes with the same program and arguments. A process that fails is restarted up to `restarts`
    /// times.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn start(
        program: OsString,
        args: Vec<OsString>,
        count: u32,
        restarts: u32,
        env: Option<(&'static str, &'static str)>,
    ) -> std::io::Result<Self> {
        let meet = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (sender, lines) = channel();
        let drawn = || RunId::drawn(RandomState::new().build_hasher().finish()).to_string();
        let job = std::env::var("GRADWIRE_JOB").unwrap_or_else(|_| drawn());
        let mut children = Self { program, args, env, meet, job, children: Vec::new(), sender, lines };
        for rank in 0..count {
            let child = children.spawn(rank, count)?;
            children.children.push(Slot { child: Some(child), restarts, code: None, restart_at: None });
        }
        Ok(children)
    }

    /// Starts the process of a rank, and two threads that read its output.
    fn spawn(&self, rank: u32, count: u32) -> std::io::Result<Child> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env("GRADWIRE_RANK", rank.to_string())
            .env("GRADWIRE_PROCESSES", count.to_string())
            .env("GRADWIRE_LOCAL_RANK", rank.to_string())
            .env("GRADWIRE_MEET", &self.meet)
            .env("GRADWIRE_JOB", &self.job)
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(out) = child.stdout.take() {
            self.read(out, move |line| Line::Out(rank, line));
        }
        if let Some(err) = child.stderr.take() {
            self.read(err, move |line| Line::Err(rank, line));
        }
        Ok(child)
    }

    fn read(&self, from: impl Read + Send + 'static, line: impl Fn(String) -> Line + Send + 'static) {
        let sender = self.sender.clone();
        thread::spawn(move || {
            for text in BufReader::new(from).lines().map_while(Result::ok) {
                if sender.send(line(text)).is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until all processes have ended, and passes each line of their output to `print`. When `stop` is set, sends
    /// SIGTERM, and after [`GRACE`] SIGKILL. Returns the exit codes by rank, with minus the number of a signal.
    pub fn wait(mut self, stop: &Arc<AtomicBool>, mut print: impl FnMut(Line)) -> Vec<i32> {
        let mut asked: Option<Instant> = None;
        loop {
            // Bounded, so that processes are reaped even if one of them prints without a pause.
            for _ in 0..1000 {
                let Ok(line) = self.lines.recv_timeout(Duration::from_millis(20)) else { break };
                print(line);
            }
            if stop.load(Ordering::Relaxed) && asked.is_none() {
                asked = Some(Instant::now());
                self.each(|child| signal(child, "-TERM"));
            }
            if asked.is_some_and(|asked| asked.elapsed() > GRACE) {
                self.each(|child| drop(child.kill()));
            }
            if self.reap(asked.is_some(), &mut print) {
                // Pipes may still hold output. Without this sender, the channel ends when all pipes have ended; the
                // limit is for grandchildren that keep a pipe open.
                self.sender = channel().0;
                let until = Instant::now() + OUTPUT_GRACE;
                while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    print(line);
                }
                return self.children.iter().map(|slot| slot.code.unwrap_or(-1)).collect();
            }
        }
    }

    /// Calls `act` for each running process.
    fn each(&mut self, mut act: impl FnMut(&mut Child)) {
        self.children.iter_mut().filter_map(|slot| slot.child.as_mut()).for_each(&mut act);
    }

    /// Collects exit codes, and restarts processes that failed. Returns true when all processes have ended for good.
    fn reap(&mut self, stopping: bool, print: &mut impl FnMut(Line)) -> bool {
        let count = self.children.len() as u32;
        for rank in 0..count {
            let slot = &mut self.children[rank as usize];
            if let Some(status) = slot.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                let signal = std::os::unix::process::ExitStatusExt::signal(&status);
                let code = status.code().unwrap_or_else(|| -signal.unwrap_or(1));
                (slot.child, slot.code) = (None, Some(code));
                if code != 0 && !stopping {
                    let how =
                        if code < 0 { format!("killed by signal {}", -code) } else { format!("exit code {code}") };
                    let restart = slot.restarts > 0;
                    print(Line::Err(rank, format!("ended: {how}{}", if restart { "; restarting" } else { "" })));
                    // The pause keeps a process that fails at once from being restarted in a busy loop.
                    slot.restart_at = restart.then(|| Instant::now() + Duration::from_millis(200));
                    slot.restarts = slot.restarts.saturating_sub(1);
                }
            }
            if self.children[rank as usize].restart_at.is_some_and(|at| at <= Instant::now() && !stopping) {
                self.children[rank as usize].restart_at = None;
                if let Ok(child) = self.spawn(rank, count) {
                    self.children[rank as usize].child = Some(child);
                }
            }
        }
        self.children.iter().all(|slot| slot.child.is_none() && (slot.restart_at.is_none() || stopping))
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.each(|child| {
            let _ = child.kill();
            let _ = child.wait();
        });
    }
}

/// Sends a signal by the program `kill`, since the standard library can only send SIGKILL.
fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
}
