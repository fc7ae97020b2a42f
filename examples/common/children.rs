//! Processes that belong together: started with their place in the environment, listened to, and stopped together.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// What a child has said.
pub enum Said {
    Out(u32, String),
    Err(u32, String),
}

/// Processes of one run.
pub struct Children {
    program: OsString,
    args: Vec<OsString>,
    /// What they find in the environment besides.
    env: Option<(&'static str, &'static str)>,
    /// A place to meet, at a port that was free when they were started.
    meet: String,
    children: Vec<Slot>,
    sender: Sender<Said>,
    pub said: Receiver<Said>,
}

struct Slot {
    child: Option<Child>,
    /// How often it may be started again.
    restarts: u32,
    /// How it ended.
    code: Option<i32>,
    again: Option<Instant>,
}

/// How long after the first request to stop the rest is killed.
const GRACE: Duration = Duration::from_secs(10);
/// How long to listen to pipes whose processes have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Children {
    pub fn start(
        program: OsString,
        args: Vec<OsString>,
        count: u32,
        restarts: u32,
        env: Option<(&'static str, &'static str)>,
    ) -> std::io::Result<Self> {
        let meet = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let (sender, said) = channel();
        let mut children = Self { program, args, env, meet, children: Vec::new(), sender, said };
        for rank in 0..count {
            let child = children.spawn(rank, count)?;
            children.children.push(Slot { child: Some(child), restarts, code: None, again: None });
        }
        Ok(children)
    }

    fn spawn(&self, rank: u32, count: u32) -> std::io::Result<Child> {
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .env("GRADWIRE_RANK", rank.to_string())
            .env("GRADWIRE_PROCESSES", count.to_string())
            .env("GRADWIRE_LOCAL_RANK", rank.to_string())
            .env("GRADWIRE_MEET", &self.meet)
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(out) = child.stdout.take() {
            self.read(out, move |line| Said::Out(rank, line));
        }
        if let Some(err) = child.stderr.take() {
            self.read(err, move |line| Said::Err(rank, line));
        }
        Ok(child)
    }

    fn read(&self, from: impl Read + Send + 'static, said: impl Fn(String) -> Said + Send + 'static) {
        let sender = self.sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if sender.send(said(line)).is_err() {
                    return;
                }
            }
        });
    }

    /// Waits until all have ended, handing on what they say. When `stop` is set, asks them to stop, and after a while
    /// stops them. Returns how each has ended; below 0, by a signal.
    pub fn wait(mut self, stop: &Arc<AtomicBool>, mut heard: impl FnMut(Said)) -> Vec<i32> {
        let mut asked: Option<Instant> = None;
        loop {
            // Bounded: who talks without end keeps nobody from being looked after.
            for _ in 0..1000 {
                let Ok(said) = self.said.recv_timeout(Duration::from_millis(20)) else { break };
                heard(said);
            }
            if stop.load(Ordering::Relaxed) && asked.is_none() {
                asked = Some(Instant::now());
                self.each(|child| signal(child, "-TERM"));
            }
            if asked.is_some_and(|asked| asked.elapsed() > GRACE) {
                self.each(|child| drop(child.kill()));
            }
            if self.reap(asked.is_some(), &mut heard) {
                // Their last words may still be on the way: until every pipe has ended, but no longer than a while, as
                // some process of theirs may keep one open.
                self.sender = channel().0;
                let until = Instant::now() + LAST_WORDS;
                while let Ok(said) = self.said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    heard(said);
                }
                return self.children.iter().map(|slot| slot.code.unwrap_or(-1)).collect();
            }
        }
    }

    fn each(&mut self, mut act: impl FnMut(&mut Child)) {
        self.children.iter_mut().filter_map(|slot| slot.child.as_mut()).for_each(&mut act);
    }

    /// Notes who has ended, and starts those again who may be; true when all have ended for good.
    fn reap(&mut self, stopping: bool, heard: &mut impl FnMut(Said)) -> bool {
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
                    let again = slot.restarts > 0;
                    heard(Said::Err(rank, format!("ended: {how}{}", if again { "; starting it again" } else { "" })));
                    slot.again = again.then(|| Instant::now() + Duration::from_millis(200));
                    slot.restarts = slot.restarts.saturating_sub(1);
                }
            }
            if self.children[rank as usize].again.is_some_and(|at| at <= Instant::now() && !stopping) {
                self.children[rank as usize].again = None;
                if let Ok(child) = self.spawn(rank, count) {
                    self.children[rank as usize].child = Some(child);
                }
            }
        }
        self.children.iter().all(|slot| slot.child.is_none() && (slot.again.is_none() || stopping))
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

/// Sends a signal: with a program that is there on every Unix, as the standard library only kills.
fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
}
